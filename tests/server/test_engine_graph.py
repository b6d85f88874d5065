"""Engines that are called like graphs; a device of the host's memory stands for the GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.server.host_device import HostDevice, OnnxEngine

from sensorium.errors import InvalidInputError
from sensorium_server.device import on_host
from sensorium_server.engine_graph import EngineGraph
from sensorium_server.onnx_session import OnnxGraph

SIZES = {"batch": (1, 4), "past": (0, 11), "memory": (1, 6)}


@pytest.fixture
def device() -> HostDevice:
    """Return a device."""
    return HostDevice()


@pytest.fixture
def engine(toy_repository: Path) -> OnnxEngine:
    """Return the step of the toy's decoder with one profile."""
    return OnnxEngine(toy_repository / "text_decoder/1/step.onnx", [SIZES])


def step(rows: int, past: int = 5, memory: int = 4) -> dict[str, Any]:
    """Return inputs of a step."""
    random = np.random.default_rng(rows)
    return {
        "token_id": np.arange(4, 4 + rows),
        "position": np.full(rows, past),
        "past": random.normal(size=(rows, 2, 1, past, 8)).astype(np.float32),
        "cross": random.normal(size=(rows, 2, 1, memory, 8)).astype(np.float32),
        "memory_mask": np.ones((rows, memory), np.int64),
    }


def test_it_answers_as_the_graph_does(
    toy_repository: Path, engine: OnnxEngine, device: HostDevice
) -> None:
    """From the host to the host, whatever the shapes, and has the same inputs and outputs."""
    graph = OnnxGraph(toy_repository / "text_decoder/1/step.onnx")
    compiled = EngineGraph(engine, device)

    assert compiled.inputs["past"] == (None, 2, 1, None, 8)
    assert compiled.dtypes == graph.dtypes
    for rows in (1, 3, 2):
        found = compiled.run(["present", "logits"], step(rows))
        for name, expected in graph.run(["present", "logits"], step(rows)).items():
            assert_allclose(found[name], expected, rtol=1e-6)


def test_what_is_on_the_device_is_read_there(engine: OnnxEngine, device: HostDevice) -> None:
    """A cache is not copied, has no buffer of its own, and a result stays where it was made."""
    compiled = EngineGraph(engine, device)
    given = step(3)
    whole, _ = compiled.run_bound(given, ["present"], {})
    placed = {name: device.placed(given[name]) for name in ("past", "cross")}
    fresh = EngineGraph(engine, device)
    before = device.allocated
    device.copied.clear()

    (logits,), kept = fresh.run_bound({**given, **placed}, ["logits"], {"present": (3, 2, 1, 8)})

    assert device.allocated - before == 3
    assert device.copied == [24, 24, 96, logits.nbytes]
    assert_array_equal(on_host(device, kept["present"]), whole[0])


def test_steps_are_recorded_by_shape_and_address(engine: OnnxEngine, device: HostDevice) -> None:
    """The same step again is one launch; with its cache elsewhere it is another one."""
    compiled = EngineGraph(engine, device, graphs=2)
    given = step(2)

    for _ in range(3):
        compiled.run(["logits"], given)
    assert device.launched == 2
    moved = {**given, "past": device.placed(given["past"])}
    found, _ = compiled.run_bound(moved, ["logits"], {})

    assert device.launched == 2
    assert_array_equal(found[0], compiled.run(["logits"], given)["logits"])
    assert device.launched == 3


def test_what_no_profile_holds_is_refused(engine: OnnxEngine, device: HostDevice) -> None:
    """Before anything is copied."""
    compiled = EngineGraph(engine, device)
    device.copied.clear()

    with pytest.raises(InvalidInputError, match=r"token_id \[5\].*token_id \[1\] to \[4\]"):
        compiled.run(["logits"], step(5))

    assert device.copied == []
