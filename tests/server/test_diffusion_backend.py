"""The diffusion backend on a tiny random model: determinism, limits, failures, answers."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from tests.server import toy_graph

from sensorium.contract import DIFFUSION_GRAPHS
from sensorium.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ServerError,
)
from sensorium_server.diffusion_backend import Sampler, TritonPythonModel, sampler_from
from sensorium_server.stages import StageConfig

WIDTH = 8
WANTED = {"image"}


def condition() -> onnx.ModelProto:
    """Sum the words that the mask shows, twice over: two zones."""
    return toy_graph.graph(
        DIFFUSION_GRAPHS["condition"],
        [
            ("Cast", ["attention_mask"], "mask", {"to": onnx.TensorProto.FLOAT}),
            ("Unsqueeze", ["mask", "last"], "mask3"),
            ("Mul", ["text_tokens", "mask3"], "shown"),
            ("ReduceSum", ["shown", "middle"], "sum", {"keepdims": 1}),
            ("Tile", ["sum", "zones"], "condition"),
        ],
        {
            "last": np.array([2], np.int64),
            "middle": np.array([1], np.int64),
            "zones": np.array([1, 2, 1], np.int64),
        },
    )


def denoise() -> onnx.ModelProto:
    """Mix the noisy picture, the noise level and the mean condition."""
    return toy_graph.graph(
        DIFFUSION_GRAPHS["denoise"],
        [
            ("ReduceMean", ["condition", "inner"], "mean", {"keepdims": 0}),
            ("Add", ["mean", "noise_level"], "told"),
            ("Unsqueeze", ["told", "around"], "told4"),
            ("Add", ["noisy", "told4"], "both"),
            ("Sin", ["both"], "velocity"),
        ],
        {"inner": np.array([1, 2], np.int64), "around": np.array([1, 2, 3], np.int64)},
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository that holds an image decoder alone."""
    directory = tmp_path_factory.mktemp("diffusion")
    version = directory / "image_decoder/1"
    version.mkdir(parents=True)
    onnx.save(condition(), version / "condition.onnx")
    onnx.save(denoise(), version / "denoise.onnx")
    return directory


@pytest.fixture
def sampler(repository: Path) -> Sampler:
    """Return it loaded, with low limits."""
    return sampler_from(
        StageConfig(
            "image_decoder",
            repository / "image_decoder/1",
            {"max_steps": "40", "max_guidance_scale": "7.5"},
        )
    )


@pytest.fixture
def served(
    repository: Path, stub: SimpleNamespace, triton_args: Callable[..., dict[str, str]]
) -> TritonPythonModel:
    """Return it as Triton would start it."""
    assert stub
    model = TritonPythonModel()
    model.initialize(triton_args(repository, "image_decoder"))
    return model


def wish(
    *seeds: int, steps: int = 5, guidance_scale: float = 2.0, length: int = 3
) -> dict[str, Any]:
    """Return a request of one picture for each seed, of texts told apart by their row."""
    rows = len(seeds)
    tokens = np.random.default_rng(0).normal(size=(rows, length, WIDTH))
    return {
        "text_tokens": tokens.astype(np.float32),
        "attention_mask": np.ones((rows, length), np.int64),
        "seed": np.array(seeds, np.int64)[:, None],
        "steps": np.full((rows, 1), steps, np.int64),
        "guidance_scale": np.full((rows, 1), guidance_scale, np.float32),
    }


def row_of(request: dict[str, Any], row: int) -> dict[str, Any]:
    """Return one row of a request as a request."""
    return {name: array[row : row + 1] for name, array in request.items()}


def files(outputs: Any) -> list[bytes]:  # noqa: ANN401 - tensors of the backend or of the stub
    """Return the pictures' files."""
    return [bytes(data) for data in outputs["image"].ravel()]


def test_a_picture_is_a_png_of_the_models_size(sampler: Sampler) -> None:
    """What comes out opens as an RGB picture."""
    (data,) = files(sampler(wish(7)))

    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (6, 6))


def test_a_row_does_not_depend_on_its_batch(sampler: Sampler) -> None:
    """The same text and seed give the same bytes, alone or among others."""
    request = wish(7, 8, 7)
    together = files(sampler(request))

    alone = [files(sampler(row_of(request, row)))[0] for row in range(3)]

    assert together == alone
    assert len(set(together)) == 3


def test_padding_changes_no_byte(sampler: Sampler) -> None:
    """A text that another request padded is the same text."""
    request = wish(7)
    padded = dict(request)
    padded["text_tokens"] = np.pad(
        request["text_tokens"], ((0, 0), (0, 13), (0, 0)), constant_values=9
    )
    padded["attention_mask"] = np.pad(request["attention_mask"], ((0, 0), (0, 13)))

    assert files(sampler(padded)) == files(sampler(request))


def test_each_value_matters(sampler: Sampler) -> None:
    """Another seed, number of steps or guidance is another picture; the same is the same."""
    wishes = [wish(7), wish(8), wish(7, steps=6), wish(7, guidance_scale=3)]

    drawn = [files(sampler(one))[0] for one in (*wishes, wish(7))]

    assert len(set(drawn)) == 4
    assert drawn[0] == drawn[-1]


def test_no_guidance_is_no_text(sampler: Sampler) -> None:
    """With scale 0, any text gives the picture of no text."""
    text, nothing = wish(7, guidance_scale=0), wish(7, guidance_scale=1)
    nothing["attention_mask"][:] = 0

    assert files(sampler(text)) == files(sampler(nothing))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, r"seed = -1 is negative.*0 to 9223372036854775807"),
        ({"steps": 0}, r"steps = 0 is not from 1 to 40"),
        ({"steps": 41}, r"steps = 41 is not from 1 to 40"),
        ({"guidance_scale": -0.5}, r"guidance_scale = -0.5 is not from 0 to 7.5"),
        ({"guidance_scale": 8}, r"guidance_scale = 8 is not from 0 to 7.5"),
        ({"guidance_scale": np.nan}, r"guidance_scale = nan is not from 0 to 7.5"),
        ({"guidance_scale": np.inf}, r"guidance_scale = inf is not from 0 to 7.5"),
    ],
)
def test_values_beyond_their_limits_are_refused(
    sampler: Sampler, changes: dict[str, float], message: str
) -> None:
    """The message names the value, the limits and what to send, before anything is drawn."""
    request = wish(7, 8)
    for name, value in changes.items():
        request[name][1] = value

    with pytest.raises(InvalidInputError, match=message):
        sampler(request, stopped=lambda: pytest.fail("it began to draw"))


def test_the_limits_themselves_are_allowed(sampler: Sampler) -> None:
    """The greatest seed, steps and guidance are drawn."""
    assert files(sampler(wish(2**63 - 1, steps=40, guidance_scale=7.5)))


def test_a_misshapen_mask_is_refused(sampler: Sampler) -> None:
    """A mask that does not fit its tokens is the caller's mistake."""
    request = wish(7)
    request["attention_mask"] = np.ones((1, 2), np.int64)

    with pytest.raises(InvalidInputError, match=r"attention_mask has the shape \[1, 2\]"):
        sampler(request)


def test_numbers_that_are_none_are_our_error(sampler: Sampler) -> None:
    """Tokens of NaN never become a black picture."""
    request = wish(7)
    request["text_tokens"][:] = np.nan

    with pytest.raises(ServerError, match="NaN"):
        sampler(request)


def test_nobody_waits_for_a_late_picture(sampler: Sampler) -> None:
    """The deadline is asked about before every step."""
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(len(asked) == 2)
        return asked[-1]

    with pytest.raises(DeadlineExceededError, match="deadline"):
        sampler(wish(7, steps=9), stopped)
    assert asked == [False, False, True]


def test_every_request_is_answered_on_its_own(
    served: TritonPythonModel, sampler: Sampler, stub: SimpleNamespace
) -> None:
    """A bad, a sick and a late request fail alone; good ones get what they would get alone."""
    sick = wish(3)
    sick["text_tokens"][:] = np.nan
    requests = [
        stub.Request(wish(1, 2), WANTED),
        stub.Request(wish(-1), WANTED),
        stub.Request(sick, WANTED),
        stub.Request(wish(4), WANTED, timeout_us=1),
        stub.Request(wish(5), WANTED, cancelled=True),
        stub.Request(wish(6), WANTED),
    ]

    served.execute(requests)

    assert [[flags for _, flags in request.sent] for request in requests] == [[1]] * 6
    answers = [request.sent[0][0] for request in requests]
    codes = [answer.error and answer.error.code for answer in answers]
    assert codes == [None, "INVALID_ARG", "INTERNAL", "CANCELLED", "CANCELLED", None]
    assert files(answers[0].arrays) == files(sampler(wish(1, 2)))
    assert_array_equal(answers[5].arrays["image"], sampler(wish(6))["image"])
    assert "NaN" not in answers[2].error.message


def test_default_limits(repository: Path) -> None:
    """Without parameters, 100 steps and a guidance of 20 are the most."""
    sampler = sampler_from(StageConfig("image_decoder", repository / "image_decoder/1"))

    assert files(sampler(wish(1, steps=100, guidance_scale=20)))
    with pytest.raises(InvalidInputError, match="from 1 to 100"):
        sampler(wish(1, steps=101))
    with pytest.raises(InvalidInputError, match="from 0 to 20"):
        sampler(wish(1, guidance_scale=20.5))


def test_missing_graph_is_named(tmp_path: Path) -> None:
    """A model directory without its graphs says which is missing and what to do."""
    with pytest.raises(ConfigurationError, match=r"condition\.onnx.*Export the bundle again"):
        sampler_from(StageConfig("image_decoder", tmp_path / "image_decoder/1"))


def test_open_picture_size_is_refused(repository: Path, tmp_path: Path) -> None:
    """A denoiser that leaves its size open cannot be served, and the message names the axis."""
    version = tmp_path / "image_decoder/1"
    version.mkdir(parents=True)
    onnx.save(condition(), version / "condition.onnx")
    graph = onnx.load(repository / "image_decoder/1/denoise.onnx")
    for value in (*graph.graph.input[:1], *graph.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "tall"
    onnx.save(graph, version / "denoise.onnx")

    with pytest.raises(ConfigurationError, match="tall"):
        sampler_from(StageConfig("image_decoder", version))
