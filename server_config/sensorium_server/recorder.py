"""What a stage tells about its work: metrics to files, and a line for each request that failed.

The line is JSON on stderr, which Triton's process shares with the launcher; that one makes a log
record of it (`request_log.py`). It tells neither payload nor message, as messages quote inputs.
"""

import json
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from sensorium import contract
from sensorium import errors as tree
from sensorium.errors import SensoriumError, ServerError
from sensorium_server.metrics import (
    BATCH_SIZE,
    MEDIA_BYTES,
    MEDIA_DECODE_ERRORS,
    REJECTED,
    STAGE_QUEUE_SECONDS,
    STAGE_SECONDS,
    TOKENS_GENERATED,
    Meter,
)
from sensorium_server.stages import Tensors

FAILED = "stage failed"
"""The event of a failed request's line."""

MEDIA = tuple(spec.name for spec in (contract.IMAGE, contract.AUDIO, contract.VIDEO))

_STDERR = 2
_LONGEST_TRACE = 3000
_INNER_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def reason_of(error: Exception | type[Exception]) -> str:
    """Return an error's class in snake case, as labels and logs name it: `invalid_input`."""
    kind = error if isinstance(error, type) else type(error)
    if not issubclass(kind, SensoriumError):
        kind = ServerError
    return _INNER_WORD.sub("_", kind.__name__.removesuffix("Error")).lower()


REASONS = tuple(
    reason_of(kind)
    for kind in vars(tree).values()
    if isinstance(kind, type) and issubclass(kind, SensoriumError) and kind is not SensoriumError
)
"""Every reason that there is."""


class Recorder:
    """Records the work of one stage; safe to use from many threads."""

    def __init__(self, stage: str, version: int = 1) -> None:
        self._stage, self._version = stage, version
        self._labels = {"stage": stage}
        self._meter = _meter()
        # A series that is there from the start lets the first error show in a rate.
        for reason in REASONS:
            self._meter.count(REJECTED, {"stage": stage, "reason": reason}, 0)

    @contextmanager
    def run(self, items: int) -> Iterator[None]:
        """Measure one run over so many items."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.ran(items, time.perf_counter() - begin)

    def ran(self, items: int, seconds: float) -> None:
        """Record one run."""
        self._meter.observe(STAGE_SECONDS, self._labels, seconds)
        self._meter.observe(BATCH_SIZE, self._labels, items)

    def waited(self, seconds: float) -> None:
        """Record how long a request waited inside the stage, where Triton does not see it."""
        self._meter.observe(STAGE_QUEUE_SECONDS, self._labels, seconds)

    def generated(self, tokens: int) -> None:
        """Record the tokens of an answer."""
        self._meter.count(TOKENS_GENERATED, self._labels, tokens)

    def received(self, inputs: Tensors) -> None:
        """Record the bytes of a request's files."""
        for modality in MEDIA:
            if modality in inputs:
                size = sum(len(each) for each in inputs[modality].ravel())
                self._meter.count(MEDIA_BYTES, {"modality": modality}, size)

    def undecoded(self, inputs: Tensors, error: Exception) -> None:
        """Record that a file could not be decoded; of two, the one that is complained of."""
        media = [name for name in MEDIA if name in inputs]
        named = [name for name in media if re.search(rf"\b{name}\b", str(error))]
        for modality in (named or media)[:1]:
            labels = {"modality": modality, "reason": reason_of(error)}
            self._meter.count(MEDIA_DECODE_ERRORS, labels)

    def failed(
        self,
        request: Any,  # noqa: ANN401 - Triton's own
        error: Exception,
        seconds: float,
        *,
        expected: bool,
    ) -> None:
        """Record that a request was answered with an error.

        Args:
            request: Triton's request.
            error: What was raised.
            seconds: How long the stage had it.
            expected: The client is told what; the log needs no traceback.
        """
        reason = reason_of(error)
        self._meter.count(REJECTED, {"stage": self._stage, "reason": reason})
        facts = {
            "event": FAILED,
            "request_id": request.request_id(),
            "stage": self._stage,
            "outcome": reason,
            "stage_s": round(seconds, 6),
            **_trace_of(request),
        }
        if not expected:
            text = "".join(traceback.format_exception(error))
            facts |= {"version": self._version, "exception": text[-_LONGEST_TRACE:]}
        # One write, so that the lines of several processes do not mix.
        os.write(_STDERR, json.dumps(facts).encode() + b"\n")


def fault_of(line: str) -> tuple[str, int, str] | None:
    """Return the stage, its version and the reason of a failure that was nobody's input's.

    None for every other line of Triton's output.
    """
    if not line.startswith("{"):
        return None
    try:
        facts = json.loads(line)
        if facts["event"] != FAILED:
            return None
        return facts["stage"], facts["version"], facts["exception"].splitlines()[-1]
    except (ValueError, LookupError, TypeError):
        return None


@cache
def _meter() -> Meter:
    return Meter("stage")


def items_of(inputs: Tensors) -> int:
    """Return how many items a request has: the length of its first axis."""
    return max((len(array) for array in inputs.values()), default=0)


def _trace_of(request: Any) -> Mapping[str, str]:  # noqa: ANN401 - Triton's own
    """Return the trace and span in which a stage works, when Triton traces the request."""
    context = request.trace().get_context()
    if not context:
        return {}
    _, trace_id, span_id, _ = json.loads(context)["traceparent"].split("-")
    return {"trace_id": trace_id, "span_id": span_id}
