import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sensorium.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
)
from sensorium_server.recorder import Recorder
from sensorium_server.settings import Settings
from sensorium_server.stages import Stage, StageConfig, Tensors, image
from sensorium_server.triton import as_model, failure

PIXEL = {"image": np.array([[b"x"]], np.object_)}


def test_a_stage_becomes_a_model(
    toy_repository: Path,
    stub: SimpleNamespace,
    triton_args: Callable[..., dict[str, str]],
    picture: Callable[..., bytes],
) -> None:
    """The class answers each request on its own: one is refused, the others are answered."""
    model = as_model(image.stage)()
    model.initialize(triton_args(toy_repository, "image_preprocess"))
    good = {"image": np.array([[picture()]], np.object_)}
    requests = [stub.Request(each, {"pixel_values"}) for each in (good, PIXEL, good)]

    first, refused, last = model.execute(requests)

    assert first.arrays["pixel_values"].shape == last.arrays["pixel_values"].shape == (1, 3, 6, 6)
    assert refused.error.code == "INVALID_ARG"
    assert "not a JPEG" in refused.error.message


def test_the_factory_is_told_everything(
    toy_repository: Path, stub: SimpleNamespace, triton_args: Callable[..., dict[str, str]]
) -> None:
    """The factory gets name, directory, parameters and the settings of the environment."""
    assert stub
    told: list[Any] = []

    def factory(config: StageConfig, settings: Settings) -> Stage:
        told.extend([config, settings])

        def run(inputs: Tensors) -> Tensors:
            return inputs

        return run

    as_model(factory)().initialize(triton_args(toy_repository, "image_preprocess"))

    config, settings = told
    assert config.name == "image_preprocess"
    assert config.directory == toy_repository / "image_preprocess" / "1"
    assert config.integer("image_size") == 6
    assert settings.max_text_chars == 512


def test_internal_errors_leak_nothing(
    stub: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bug is logged with its traceback; the client gets its request id and no details."""
    answer = failure(KeyError("/secret/path"), stub.Request({}, set(), id="r-1"), Recorder("s"), 0)
    said = json.loads(capfd.readouterr().err)

    assert answer.error.code == "INTERNAL"
    assert answer.error.message == "internal error, see the server's log (request r-1)"
    assert "KeyError: '/secret/path'" in said["exception"]
    assert (said["request_id"], said["stage"], said["outcome"]) == ("r-1", "s", "server")


def test_internal_error_without_request_id(stub: SimpleNamespace) -> None:
    """Without a request id the message does not mention one."""
    answer = failure(KeyError("x"), stub.Request({}, set()), Recorder("s"), 0)

    assert answer.error.message == "internal error, see the server's log"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (InvalidInputError, "INVALID_ARG"),
        (OverloadedError, "UNAVAILABLE"),
        (ModelNotReadyError, "UNAVAILABLE"),
        (DeadlineExceededError, "CANCELLED"),
    ],
)
def test_our_errors_keep_their_message(
    stub: SimpleNamespace, capfd: pytest.CaptureFixture[str], kind: type[Exception], code: str
) -> None:
    """An error that a caller may read arrives with its bare message, which is not logged."""
    answer = failure(kind("too long"), stub.Request({}, set()), Recorder("s"), 0)

    assert (answer.error.code, answer.error.message) == (code, "too long")
    assert "too long" not in capfd.readouterr().err
