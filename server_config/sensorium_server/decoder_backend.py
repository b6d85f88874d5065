"""The backend `decoder`: text generation, batched at every token across requests.

A model directory holds `cross.onnx`, `step.onnx` (see `contract.DECODER_GRAPHS`) and
`tokenizer.json`. Parameters in `config.pbtxt`:

| key | meaning | default |
|---|---|---|
| `bos_id` | the token that generation starts from | required without `prompt_ids` |
| `prompt_ids` | forced first tokens in its place; no part of the text or its score | `bos_id` |
| `eos_id` | the token that ends a text, or several with commas | required |
| `max_new_tokens` | the most tokens of one text; requests may ask for fewer | required |
| `min_new_tokens` | no end token before so many tokens | `0` |
| `suppress_ids`, `begin_suppress_ids` | tokens that never come, or never first | none |
| `repetition_penalty` | above 1: what was said becomes unlikelier | `1` |
| `no_repeat_ngram_size` | so many tokens in a row come once only; 0: any number of times | `0` |
| `num_beams` | above 1: beam search; each beam takes a slot | `1` |
| `length_penalty` | scores of beams are divided by length to this power | `1` |
| `early_stopping` | `true`: the search stops with enough texts; or `never` | `false` |
| `do_sample` | `true`: tokens are drawn by their probability, one beam only | `false` |
| `temperature` | of drawing; below 1 the likely become likelier | `1` |
| `top_k`, `top_p` | drawn are the likeliest so many, or of so much probability | all |
| `seed` | of drawing; a text depends on its seed and memory, never on the batch | `0` |
| `slots` | rows that are generated at once | `32` |
| `max_waiting_rows` | rows that may wait for a slot; beyond, requests are refused | `1024` |
| `tokenizer` | the tokenizer's file | `tokenizer.json` |
| `intra_op_thread_count` | threads of one run | `1` |
| `cuda_graphs` | how many sets of shapes of a plan are recorded as CUDA graphs; 0: none | `64` |

On a GPU both graphs run by their plans where these may serve, else by ONNX Runtime; the log says
why.

Inputs `memory` FP32 [n,memory,width] and `memory_mask` INT64 [n,memory], both with
`allow_ragged_batch: true`; outputs `text` BYTES [n,1] and `score` FP32 [n,1]. One instance; the
dynamic batcher needs no queue delay, because whoever comes later joins at the next token.

A request's parameter `generation`, an object in JSON such as `{"num_beams": 4}`, replaces all that
is named above from `max_new_tokens` to `seed` but the suppressed tokens. Ensembles pass it on.

The model is not decoupled: `execute` only enqueues and returns nothing, and the one answer of
each request is sent through its response sender. So unary calls and plain ensembles work.
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sensorium import contract
from sensorium.errors import ConfigurationError, InvalidInputError, ServerError
from sensorium_server.cuda import CudaDevice
from sensorium_server.decoding import Array, Decoder
from sensorium_server.decoding_loop import DecodingLoop, Job, Key, Text
from sensorium_server.device import Device, DeviceArray, Part
from sensorium_server.device_slots import Bound, BoundGraph, DeviceSlots
from sensorium_server.engine_graph import EngineGraph
from sensorium_server.engine_runs import GRAPHS, Engine
from sensorium_server.generation import Generation, generation_from, overridden
from sensorium_server.onnx_provider import CUDA
from sensorium_server.onnx_session import Graph, OnGpu, OnnxGraph
from sensorium_server.stages import StageConfig, Tensors
from sensorium_server.stages.text import load_tokenizer
from sensorium_server.tensorrt_engine import planned
from sensorium_server.triton import (
    BackendModel,
    Request,
    Response,
    Warn,
    cancelled_check,
    failure,
    response,
    silent,
    tensors_of,
    warn,
)

Sender = Any
"""A `triton_python_backend_utils.InferenceResponseSender`; the module has no types."""

_STEP = contract.DECODER_GRAPHS["step"]
_STEP_INPUTS = [tensor.name for tensor in _STEP.inputs]
_STEP_OUTPUTS = [tensor.name for tensor in _STEP.outputs]


def decoder_from(config: StageConfig, gpu: int | None = None, warn: Warn = silent) -> Decoder[Key]:
    """Load a model directory's two graphs: on a GPU by their plans, or where ONNX Runtime has CUDA.

    Args:
        config: The model's parameters.
        gpu: The number of the GPU to run on; None for the processor.
        warn: Told why there are no plans.
    """
    if gpu is not None:

        def by_plans(device: Device, engines: Mapping[str, Engine]) -> Decoder[Key]:
            return engine_decoder(config, engines["cross"], engines["step"], device)

        if (decoder := planned(config, gpu, warn, by_plans)) is not None:
            return decoder
    threads = config.integer("intra_op_thread_count", 1)
    on_gpu = None if gpu is None else OnGpu(gpu)
    cross, step = (
        OnnxGraph(
            config.directory / f"{part}.onnx",
            threads=threads,
            gpu=on_gpu,
            optimized=config.flag(f"optimized.{part}"),
        )
        for part in contract.DECODER_GRAPHS
    )
    if gpu is not None and step.provider == CUDA:
        device = CudaDevice(gpu)
        bound = [BoundGraph(one.session, device, "cuda") for one in (cross, step)]
        return device_decoder(config, bound[0], bound[1], _cache_shape(step), device)
    cross_output = contract.CROSS.name

    def run_cross(memory: Array) -> Array:
        return cross.run([cross_output], {contract.DECODER_MEMORY.name: memory})[cross_output]

    def run_step(*arrays: Array) -> tuple[Array, Array]:
        results = step.run(_STEP_OUTPUTS, dict(zip(_STEP_INPUTS, arrays, strict=True)))
        return results[contract.LOGITS.name], results[contract.PRESENT_KV.name]

    slots = config.integer("slots", 32)
    return Decoder(run_cross, run_step, _cache_shape(step), generation_from(config, slots), slots)


def engine_decoder(
    config: StageConfig, cross: Engine, step: Engine, device: Device
) -> Decoder[Key]:
    """Make a decoder of two engines.

    Raises:
        ConfigurationError: They do not take so many rows and tokens.
    """
    graphs = config.integer("cuda_graphs", GRAPHS)
    bound = [EngineGraph(one, device, graphs=graphs) for one in (cross, step)]
    decoder: Decoder[Key] = device_decoder(
        config, bound[0], bound[1], _cache_shape(bound[1]), device
    )
    rows, tokens = decoder.slots, decoder.longest_past
    past = [one.greatest[contract.PAST_KV.name] for one in step.layout.profiles]
    if not any(one[0] >= rows and one[3] >= tokens for one in past):
        largest = max(past)
        raise ConfigurationError(
            f"the plan of step takes {largest[0]} rows of {largest[3]} tokens, and {rows} slots of "
            f"{tokens} are wanted. Compile it again, or lower slots or max_new_tokens."
        )
    return decoder


def device_decoder(
    config: StageConfig,
    cross: Bound,
    step: Bound,
    cache_shape: tuple[int, int, int],
    device: Device,
) -> Decoder[Key]:
    """Make a decoder whose keys and values stay on a device.

    Args:
        config: The model's parameters.
        cross: The graph of that name, loaded on the device.
        step: Likewise.
        cache_shape: [kv_layers,heads,head_dim].
        device: Where they are.
    """
    layers, heads, width = cache_shape

    def run_cross(memory: Array) -> DeviceArray:
        rows, length, _ = memory.shape
        given = {contract.DECODER_MEMORY.name: memory}
        name = contract.CROSS.name
        _, found = cross.run_bound(given, (), {name: (rows, layers, heads, length, width)})
        return found[name]

    def run_step(*arrays: Part) -> tuple[Array, DeviceArray]:
        given = dict(zip(_STEP_INPUTS, arrays, strict=True))
        name = contract.PRESENT_KV.name
        (logits,), found = step.run_bound(
            given, (contract.LOGITS.name,), {name: (len(arrays[0]), layers, heads, width)}
        )
        return logits, found[name]

    slots = config.integer("slots", 32)
    return Decoder(
        run_cross,
        run_step,
        cache_shape,
        generation_from(config, slots),
        slots,
        make_slots=partial(DeviceSlots, device=device),
    )


def _cache_shape(step: Graph) -> tuple[int, int, int]:
    _, layers, heads, _, width = step.inputs[contract.PAST_KV.name]
    return _fixed(layers), _fixed(heads), _fixed(width)


def _fixed(axis: int | str | None) -> int:
    if not isinstance(axis, int):
        raise ConfigurationError(
            f"step.onnx leaves the axis {axis!r} of {contract.PAST_KV.name} open; it must be a "
            f"number. Export the bundle again."
        )
    return axis


class TritonPythonModel(BackendModel):
    """What Triton calls for every model with `backend: "decoder"`."""

    _loop: DecodingLoop
    _generation: Generation
    _slots: int
    _tokenizer: Tokenizer

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graphs and start the loop."""
        instance = self._begin(args)
        config = instance.config
        self._tokenizer = load_tokenizer(
            config.directory / config.text("tokenizer", "tokenizer.json")
        )
        decoder = decoder_from(config, instance.gpu, warn)
        self._generation, self._slots = decoder.generation, decoder.slots
        self._loop = DecodingLoop(
            decoder,
            config.integer("max_waiting_rows", 1024),
            measured=self._recorder.run,
            waited=self._recorder.waited,
        )

    def execute(self, requests: Sequence[Request]) -> None:
        """Take the requests; their answers are sent as their texts end."""
        begin = time.monotonic()
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._loop.submit(self._job(request, sender, begin))
            except Exception as error:  # noqa: BLE001 - the request fails alone
                _send(sender, failure(error, request, self._recorder, begin))

    def finalize(self) -> None:
        """Answer what is running and stop."""
        self._loop.stop()

    def _job(self, request: Request, sender: Sender, begin: float) -> Job:
        tensors = tensors_of(request, self._inputs)
        # Shared memory is gone when `execute` returns: copy what is kept.
        memory = tensors[contract.DECODER_MEMORY.name].copy()
        mask = tensors[contract.DECODER_MEMORY_MASK.name].copy()
        if mask.shape != memory.shape[:2]:
            raise InvalidInputError(
                f"memory_mask has the shape {list(mask.shape)}, memory {list(memory.shape)}. "
                f"Send one mask element per memory position."
            )

        wish = json.loads(request.parameters() or "{}").get(contract.GENERATION)
        generation = None
        if wish is not None:
            generation = overridden(self._generation, str(wish), self._slots)

        def reply(answer: list[Text] | Exception) -> None:
            _send(sender, self._response(answer, request, begin))

        return Job(memory, mask, reply, cancelled_check(request), generation)

    def _response(self, answer: list[Text] | Exception, request: Request, begin: float) -> Response:
        try:
            if isinstance(answer, Exception):
                return failure(answer, request, self._recorder, begin)
            self._recorder.generated(sum(len(text.tokens) for text in answer))
            return response(outputs_from(answer, self._tokenizer), request)
        except Exception as error:  # noqa: BLE001 - nothing may reach Triton raw: it leaks paths
            return failure(error, request, self._recorder, begin)


def outputs_from(texts: Sequence[Text], tokenizer: Tokenizer) -> Tensors:
    """Return the generated rows as the contract's tensors.

    Raises:
        ServerError: the model put out numbers that are none.
    """
    scores = np.array([[text.score] for text in texts], np.float32)
    if not np.isfinite(scores).all():
        raise ServerError("the decoder put out NaN or infinity; see its memory input")
    words = tokenizer.decode_batch([text.tokens for text in texts])
    return {
        contract.TEXT.name: np.array([[word.encode()] for word in words], np.object_),
        contract.SCORE.name: scores,
    }


def _send(sender: Sender, answer: Response) -> None:
    import triton_python_backend_utils as pb  # noqa: PLC0415 - see sensorium_server.triton

    sender.send(answer, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
