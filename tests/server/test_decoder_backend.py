import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.server import toy

from sensorium.errors import ConfigurationError, ServerError
from sensorium_server import decoding_loop
from sensorium_server.decoder_backend import TritonPythonModel, decoder_from, outputs_from
from sensorium_server.decoding import Generated
from sensorium_server.stages import StageConfig

WANTED = {"text", "score"}


@pytest.fixture
def served(
    toy_repository: Path, stub: SimpleNamespace, triton_args: Callable[..., dict[str, str]]
) -> Iterator[TritonPythonModel]:
    """Return the toy's decoder as Triton would start it."""
    assert stub
    model = TritonPythonModel()
    model.initialize(triton_args(toy_repository, "text_decoder"))
    yield model
    model.finalize()


def tensors(rows: int, length: int, mask_length: int | None = None) -> dict[str, Any]:
    """Return a random memory and a mask that shows all of it."""
    memory = np.random.default_rng(rows).normal(size=(rows, length, 8)).astype(np.float32)
    return {
        "memory": memory,
        "memory_mask": np.ones((rows, length if mask_length is None else mask_length), np.int64),
    }


def answer_of(request: Any) -> Any:  # noqa: ANN401 - the stub's stand-in
    """Wait for the answer to a request."""
    for _ in range(5000):
        if request.sent:
            return request.sent[0][0]
        time.sleep(0.001)
    pytest.fail("no answer came")


def test_answers_come_through_the_sender(served: TritonPythonModel, stub: SimpleNamespace) -> None:
    """Every request gets one final answer, with a text and a probability for each row."""
    requests = [stub.Request(tensors(rows, 3 + rows), WANTED) for rows in (1, 3)]

    served.execute(requests)

    for rows, request in zip((1, 3), requests, strict=True):
        answer = answer_of(request)
        assert answer.arrays["text"].shape == answer.arrays["score"].shape == (rows, 1)
        assert ((answer.arrays["score"] > 0) & (answer.arrays["score"] <= 1)).all()
        assert set(answer.arrays["text"][0, 0].decode().split()) <= set(toy.WORDS)
        assert [flags for _, flags in request.sent] == [1]


def test_misshapen_mask_is_refused(served: TritonPythonModel, stub: SimpleNamespace) -> None:
    """A mask that does not fit its memory is refused; the next request is answered."""
    bad = stub.Request(tensors(1, 4, mask_length=3), WANTED)
    good = stub.Request(tensors(1, 4), WANTED)

    served.execute([bad, good])

    assert answer_of(bad).error.code == "INVALID_ARG"
    assert answer_of(good).error is None


def test_a_request_may_choose_how(served: TritonPythonModel, stub: SimpleNamespace) -> None:
    """The request's own parameter changes its text and nobody else's; others are let pass."""
    wish = {"generation": json.dumps({"max_new_tokens": 1, "num_beams": 3}), "timeout": 5}
    short = stub.Request(tensors(3, 6), WANTED, wishes=json.dumps(wish))
    full = stub.Request(tensors(3, 6), WANTED, wishes='{"priority": 1}')

    served.execute([short, full])

    texts = answer_of(full).arrays["text"][:, 0].tolist()
    assert max(len(text.split()) for text in texts) > 1
    assert all(len(text.split()) <= 1 for text in answer_of(short).arrays["text"][:, 0].tolist())


def test_impossible_wish_is_refused(served: TritonPythonModel, stub: SimpleNamespace) -> None:
    """A request that asks for what cannot be is told so, by what it can read."""
    wish = json.dumps({"generation": '{"num_beams": 99}'})
    bad = stub.Request(tensors(1, 4), WANTED, wishes=wish)

    served.execute([bad])

    error = answer_of(bad).error
    assert error.code == "INVALID_ARG"
    assert "num_beams = 99 is out of range, which is 1 to 8" in error.message


def test_drawn_texts_repeat(served: TritonPythonModel, stub: SimpleNamespace) -> None:
    """The same seed gives the same text whoever shares the batch; another seed another text."""

    def drawn(seed: int, rows: int) -> list[bytes]:
        wish = json.dumps({"do_sample": True, "seed": seed, "temperature": 3.0})
        given = {name: array[:rows] for name, array in tensors(4, 6).items()}
        request = stub.Request(given, WANTED, wishes=json.dumps({"generation": wish}))
        served.execute([stub.Request(tensors(2, 3), WANTED), request])
        texts: list[bytes] = answer_of(request).arrays["text"][:, 0].tolist()
        return texts

    assert drawn(1, 4)[:1] == drawn(1, 1)
    assert drawn(1, 4) == drawn(1, 4)
    assert drawn(1, 4) != drawn(2, 4)


def test_deadline_in_the_request(
    served: TritonPythonModel, stub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose own deadline passed while it waited is not decoded to its end."""
    monkeypatch.setattr(decoding_loop, "CANCEL_CHECK_S", 0)
    late = stub.Request(tensors(1, 4), WANTED, timeout_us=1)

    served.execute([late])

    assert answer_of(late).error.code == "CANCELLED"


def test_numbers_that_are_none_are_an_internal_error(
    served: TritonPythonModel, stub: SimpleNamespace
) -> None:
    """A memory of NaN is answered as an internal error, and nothing of it stays behind."""
    sick = stub.Request({**tensors(1, 4), "memory": np.full((1, 4, 8), np.nan, np.float32)}, WANTED)
    served.execute([sick])
    assert answer_of(sick).error.code == "INTERNAL"
    well = stub.Request(tensors(1, 2), WANTED)

    served.execute([well])

    assert answer_of(well).error is None


def test_texts_become_tensors() -> None:
    """Token ids become words, scores keep their order."""
    outputs = outputs_from(
        [Generated((None, 0), [4, 5], 0.5), Generated((None, 1), [], 0.25)],  # type: ignore[arg-type]
        toy.tokenizer(),
    )

    assert outputs["text"].tolist() == [[b"what color"], [b""]]
    assert outputs["score"].tolist() == [[0.5], [0.25]]


def test_nan_score_is_our_error() -> None:
    """A score that is no number never reaches a client."""
    with pytest.raises(ServerError, match="NaN"):
        outputs_from([Generated((None, 0), [], float("nan"))], toy.tokenizer())  # type: ignore[arg-type]


def test_missing_parameter_is_named(toy_repository: Path) -> None:
    """A decoder without its start token says what is missing."""
    with pytest.raises(ConfigurationError, match=r'text_decoder/config.pbtxt lacks .* "bos_id"'):
        decoder_from(StageConfig("text_decoder", toy_repository / "text_decoder/1"))
