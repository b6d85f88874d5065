"""The tasks of a running server, asked through the client that everybody uses."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sensorium import Client, SensoriumError
from sensorium.results import Result
from sensorium_export.judgement import Outputs
from sensorium_export.probes import Probe

TIMEOUT_S = 60.0
"""Enough for a machine that does other things beside."""


def answers_from(
    client: Client, task: str, probes: Sequence[Probe], concurrency: int
) -> list[Outputs | Exception]:
    """Ask one task about every probe; what fails is an error in its place."""
    results: Sequence[Result | SensoriumError]
    if task == "visual_question_answering":
        pairs = [(probe.image, probe.question) for probe in probes]
        results = client.ask_many(pairs, concurrency=concurrency)
    elif task == "image_captioning":
        results = client.caption_many([probe.image for probe in probes], concurrency=concurrency)
    elif task == "text_embedding":
        results = client.embed_texts([probe.question for probe in probes], concurrency=concurrency)
    else:
        results = client.embed_images([probe.image for probe in probes], concurrency=concurrency)
    return [one if isinstance(one, SensoriumError) else outputs_of(one) for one in results]


def outputs_of(result: Result) -> Outputs:
    """Return a result's tensors by their names in the contract, with a batch of one."""
    outputs = {}
    for part in dataclasses.fields(result):
        spec = part.metadata.get("spec")
        if spec is None:
            continue
        value = getattr(result, part.name)
        dtype = object if isinstance(value, str) else np.float32
        outputs[spec.name] = np.array([value] if np.ndim(value) else [[value]], dtype)
    return outputs
