"""The tasks of a running server, asked through the client that everybody uses."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from sensorium import Client, SensoriumError
from sensorium.results import (
    Answer,
    Caption,
    Drawing,
    Embedding,
    Events,
    Generated,
    Result,
    Tags,
    Transcript,
)
from sensorium_export.agreement import Outputs
from sensorium_export.probes import MEDIA, Probe

_TEXT: Mapping[type[Result], str] = {
    Answer: "answer",
    Caption: "caption",
    Generated: "generated_text",
    Transcript: "transcript",
}
"""The tensor behind the text of a result."""

TIMEOUT_S = 60.0
"""Enough for a machine that does other things beside."""


def answers_from(
    client: Client, task: str, probes: Sequence[Probe], concurrency: int
) -> list[Outputs | Exception]:
    """Ask one task about every probe; what fails is an error in its place."""
    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(partial(_answer, client, task), probes))


def _answer(client: Client, task: str, probe: Probe) -> Outputs | Exception:
    given = {
        name: value.decode() if isinstance(value, bytes) and name not in MEDIA else value
        for name, value in probe.given(task).items()
        if value != b""
    }
    try:
        return outputs_of(client.infer(task, given, timeout_s=TIMEOUT_S))
    except SensoriumError as error:
        return error


def outputs_of(result: Result) -> Outputs:
    """Return a result's tensors by their names in the contract, with a batch of one."""
    match result:
        case Answer() | Caption() | Generated() | Transcript():
            return {_TEXT[type(result)]: _texts(result.text), "score": _numbers(result.score)}
        case Embedding():
            return {"embedding": _numbers(*result.vector)}
        case Tags():
            return {
                "labels": _texts(*(tag.label for tag in result)),
                "scores": _numbers(*(tag.score for tag in result)),
            }
        case Events():
            return {
                "labels": _texts(*(event.label for event in result)),
                "scores": _numbers(*(event.score for event in result)),
                "start_s": _numbers(*(event.start_s for event in result)),
                "end_s": _numbers(*(event.end_s for event in result)),
            }
        case Drawing():
            return {"image": np.array([[result.png]], object)}
    raise TypeError(f"{type(result).__name__} has no tensors")


def _texts(*values: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    return np.array([[value.encode() for value in values]], object).reshape(1, len(values))


def _numbers(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([values], np.float32)
