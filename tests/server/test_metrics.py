import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from sensorium_server import metrics
from sensorium_server.metrics import METRICS, Exposition, Meter, StageFiles

OBSERVE = """
import sys
from types import SimpleNamespace
import numpy as np
from sensorium.errors import InvalidInputError, OverloadedError
from sensorium_server.recorder import Recorder
recorder = Recorder(sys.argv[1])
recorder.ran(3, 0.004)
recorder.waited(0.3)
recorder.generated(7)
inputs = {"image": np.array([[b"12345"]], object), "audio": np.array([[b"12"]], object)}
recorder.received(inputs)
recorder.undecoded(inputs, InvalidInputError("audio is not a WAV"))
request = SimpleNamespace(
    request_id=lambda: "r-1", trace=lambda: SimpleNamespace(get_context=lambda: None)
)
recorder.failed(request, OverloadedError("full"), 0.1, expected=True)
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageFiles:
    """Return a directory of stages' files, of the test's own."""
    monkeypatch.setattr(metrics, "SHARED_MEMORY", tmp_path)
    return StageFiles()


def observe(files: StageFiles, stage: str) -> None:
    """Let a process of its own be a stage, and end."""
    subprocess.run(
        [sys.executable, "-c", OBSERVE, stage],
        env={**os.environ, metrics.DIRECTORY_VARIABLE: str(files.path)},
        check=True,
    )


def shown(files: StageFiles) -> list[str]:
    """Return the lines that the endpoint would show, with one request that the launcher saw."""
    meter = Meter("launcher")
    meter.observe(metrics.STAGE_QUEUE_SECONDS, {"stage": "seen"}, 0.2)
    return generate_latest(Exposition(meter, files.path)).decode().splitlines()


def test_stages_add_up_when_they_have_ended(files: StageFiles) -> None:
    """What several processes observed is one sum, though they are gone."""
    observe(files, "one")
    observe(files, "one")
    lines = shown(files)

    assert 'sensorium_batch_size_sum{stage="one"} 6.0' in lines
    assert 'sensorium_stage_seconds_bucket{le="0.005",stage="one"} 2.0' in lines
    assert 'sensorium_tokens_generated_total{stage="one"} 14.0' in lines
    assert 'sensorium_rejected_total{reason="overloaded",stage="one"} 2.0' in lines
    assert 'sensorium_rejected_total{reason="server",stage="one"} 0.0' in lines
    assert 'sensorium_media_bytes_total{modality="image"} 10.0' in lines
    # Of two files the one that is complained of is blamed.
    errors = [line for line in lines if line.startswith("sensorium_media_decode_errors_total")]
    assert errors == [
        'sensorium_media_decode_errors_total{modality="audio",reason="invalid_input"} 2.0'
    ]


def test_launcher_and_stages_share_a_family(files: StageFiles) -> None:
    """What both observe is declared once, with the samples of both."""
    observe(files, "one")
    lines = shown(files)

    assert lines.count("# TYPE sensorium_stage_queue_seconds histogram") == 1
    assert 'sensorium_stage_queue_seconds_sum{stage="seen"} 0.2' in lines
    assert 'sensorium_stage_queue_seconds_sum{stage="one"} 0.3' in lines


def test_a_new_triton_begins_at_zero(files: StageFiles) -> None:
    """Cleared, the directory shows nothing of what was; removed, it is gone."""
    observe(files, "one")
    files.clear()

    assert [line for line in shown(files) if 'stage="one"' in line] == []

    files.remove()

    assert not files.path.exists()


def test_a_meter_refuses_what_a_metric_is_not() -> None:
    """Counting a gauge, observing a counter or setting a histogram is a mistake, told at once."""
    meter = Meter("launcher")

    with pytest.raises(TypeError, match="sensorium_parity_passed is not a counter"):
        meter.count(metrics.PARITY_PASSED, {"bundle": "b"})
    with pytest.raises(TypeError, match="sensorium_server_restarts_total is not a histogram"):
        meter.observe(metrics.SERVER_RESTARTS, {}, 1)
    with pytest.raises(TypeError, match="sensorium_request_seconds is not a gauge"):
        meter.set(metrics.REQUEST_SECONDS, {"task": "t", "outcome": "ok"}, 1)


def test_names_follow_the_conventions() -> None:
    """Names have our prefix, counters alone end in `_total`, and no name is twice."""
    names = [metric.name for metric in METRICS]

    assert len(set(names)) == len(names)
    assert all(name.startswith("sensorium_") for name in names)
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind.__name__ == "Counter"), metric.name
        assert bool(metric.buckets) == (metric.kind.__name__ == "Histogram"), metric.name
