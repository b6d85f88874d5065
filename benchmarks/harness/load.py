"""A light client in a process of its own: it sends requests made before and reads no answers.

It shares the cores with the server, so everything that can be done before the measurement is:
messages are serialised once, and answers stay the bytes that came. An error ends the run.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferResult, service_pb2

from harness import window
from harness.inputs import Inputs
from harness.job import LoadJob, serve
from harness.probe import processor_seconds
from sensorium import contract

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Send = Callable[[bytes], Any]


class Calls:
    """When each call began and ended, in seconds; and whether to go on."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.going_on = True

    async def keep_calling(self, send: Send, messages: Iterator[bytes]) -> None:
        """Send one request after the other."""
        while self.going_on:
            message = next(messages)
            begin = time.perf_counter()
            await send(message)
            self.ends.append(time.perf_counter())
            self.begins.append(begin)


def messages(inputs: Inputs, bundle: str = "") -> list[bytes]:
    """Return the serialised requests to a bundle, as any KServe v2 client would send them."""
    signature, model_name = contract.TASKS[inputs.task], contract.model_name(inputs.task, bundle)
    made = []
    for tensors in inputs.batches(1):
        request = service_pb2.ModelInferRequest(model_name=model_name)
        for spec in signature.inputs:
            array = tensors[spec.name]
            request.inputs.add(name=spec.name, datatype=spec.dtype, shape=array.shape)
            if array.dtype == np.object_:
                data = array.item()
                request.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
            else:
                request.raw_input_contents.append(array.tobytes())
        for spec in signature.outputs:
            request.outputs.add(name=spec.name)
        made.append(request.SerializeToString())
    return made


def answers_to(address: str, sent: Sequence[bytes]) -> list[dict[str, NDArray[Any]]]:
    """Return the outputs of requests, one after the other."""
    with grpc.insecure_channel(address, options=_UNLIMITED) as channel:
        send = channel.unary_unary(
            _METHOD, response_deserializer=service_pb2.ModelInferResponse.FromString
        )
        answers = [InferResult(send(message)) for message in sent]
    return [
        {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}
        for answer in answers
    ]


def measure(values: dict[str, Any], ready: Callable[[], None]) -> dict[str, Any]:
    """Send for a while; return rate, latencies and who used how much of the processor."""
    return asyncio.run(_measure(LoadJob(**values), ready))


async def _measure(job: LoadJob, ready: Callable[[], None]) -> dict[str, Any]:
    endless = itertools.cycle(messages(Inputs.load(job.task, Path(job.inputs)), job.bundle))
    async with grpc.aio.insecure_channel(job.address, options=_UNLIMITED) as channel:
        send: Send = channel.unary_unary(_METHOD)
        await send(next(endless))
        ready()
        calls = Calls()
        async with asyncio.TaskGroup() as group:
            for _ in range(job.concurrency):
                group.create_task(calls.keep_calling(send, endless))
            found = await _watch(job, calls)
            calls.going_on = False
    limits = (found["opened"], found["closed"])
    return {
        **found,
        "rate": window.rate(calls.begins, calls.ends, limits),
        "latencies_ms": window.latencies_ms(calls.begins, calls.ends, limits),
    }


async def _watch(job: LoadJob, calls: Calls) -> dict[str, Any]:
    """Open the window when warm, close it when there was enough to see."""
    await asyncio.sleep(job.warm_s)
    before, opened, own_before = _now(job)
    seen = len(calls.ends)
    await asyncio.sleep(job.seconds)
    while len(calls.ends) - seen < job.least_calls:  # noqa: ASYNC110 - nobody shall tell
        await asyncio.sleep(0.05)
    after, closed, own_after = _now(job)
    return {
        "opened": opened,
        "closed": closed,
        "client_cpu_s": own_after - own_before,
        "server_cpu_s": {name: after[name] - before.get(name, 0.0) for name in after},
    }


def _now(job: LoadJob) -> tuple[dict[str, float], float, float]:
    return processor_seconds(job.server_pid), time.perf_counter(), time.process_time()


if __name__ == "__main__":
    serve(measure)
