import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from sensorium import Answer, Embedding, Tags, Timings
from sensorium._codec import (
    result_from_tensors,
    tensor_from_value,
    tensors_from_inputs,
    value_from_tensor,
)
from sensorium._transports.base import Response, Tensor
from sensorium.contract import (
    ANSWER,
    EMBEDDING,
    IMAGE,
    SCORE,
    SEED,
    SOUND_LABELS,
    SOUND_SCORES,
    TASKS,
    DType,
)
from sensorium.errors import ServerError
from sensorium.results import RESULTS

TIMINGS = Timings(0.2, 0.1, 2)
EMBEDDING_TASK = TASKS["text_embedding"]
NUMBERS = {DType.INT64: 7, DType.FP32: 1.5}
float32s = st.floats(width=32, allow_nan=False)


@given(st.binary())
def test_bytes_round_trip(data: bytes) -> None:
    """Any bytes come back as they were, and are what tritonclient would have written."""
    tensor = tensor_from_value(IMAGE, data)

    assert value_from_tensor(IMAGE, tensor) == data
    assert tensor.data == serialize_byte_tensor(np.array([data], dtype=object)).item()
    assert deserialize_bytes_tensor(tensor.data)[0] == data


@given(float32s)
def test_number_round_trips(number: float) -> None:
    """A number comes back as it was."""
    assert value_from_tensor(SCORE, tensor_from_value(SCORE, number)) == number


@given(st.lists(float32s, min_size=1))
def test_vector_round_trips(numbers: list[float]) -> None:
    """A vector comes back as a float32 array of the same numbers."""
    vector = value_from_tensor(EMBEDDING, tensor_from_value(EMBEDDING, numbers))

    assert vector.dtype == np.float32
    assert vector.tolist() == numbers


@given(st.text())
def test_answer_text_round_trips(text: str) -> None:
    """Any Unicode text in an answer comes back as it was."""
    outputs = (tensor_from_value(ANSWER, text), tensor_from_value(SCORE, 1.0))
    answer = result_from_tensors(
        Answer, TASKS["visual_question_answering"], Response("vqa", outputs), "r1", TIMINGS
    )

    assert answer.text == text


@given(st.binary(max_size=40), st.lists(st.integers(0, 3), max_size=3), st.sampled_from("BFI"))
def test_broken_tensors_are_refused(data: bytes, shape: list[int], kind: str) -> None:
    """Whatever arrives is either what the contract says or a ServerError, never a crash."""
    dtype = {"B": "BYTES", "F": "FP32", "I": "INT64"}[kind]
    outputs = (Tensor("embedding", dtype, tuple(shape), data),)
    response = Response("m", outputs)
    if dtype == "FP32" and len(shape) == 2 and shape[0] == 1 and len(data) == 4 * shape[1]:
        result = result_from_tensors(Embedding, EMBEDDING_TASK, response, "r1", TIMINGS)
        assert result.vector.shape == tuple(shape[1:])
    else:
        with pytest.raises(ServerError, match="breaks the contract"):
            result_from_tensors(Embedding, EMBEDDING_TASK, response, "r1", TIMINGS)


@given(st.lists(st.binary()))
def test_many_texts_round_trip(texts: list[bytes]) -> None:
    """A row of texts, even an empty one, comes back as it was, written as tritonclient does."""
    tensor = tensor_from_value(SOUND_LABELS, texts)

    assert value_from_tensor(SOUND_LABELS, tensor) == tuple(texts)
    assert tensor.shape == (1, len(texts))
    written = serialize_byte_tensor(np.array(texts, dtype=object))
    assert tensor.data == (written.item() if texts else b"")


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_round_trip(number: int) -> None:
    """Every 64-bit whole number comes back as it was."""
    tensor = tensor_from_value(SEED, number)

    assert value_from_tensor(SEED, tensor) == number
    assert tensor.data == np.array([number], "<i8").tobytes()


@given(st.binary(max_size=24), st.integers(0, 3))
def test_broken_texts_are_refused(data: bytes, count: int) -> None:
    """Labels that do not fit their shape, or are no text, are a ServerError, never a crash."""
    scores = Tensor("scores", "FP32", (1, count), bytes(4 * count))
    response = Response("m", (Tensor("labels", "BYTES", (1, count), data), scores))
    try:
        tags = result_from_tensors(Tags, TASKS["audio_tagging"], response, "r1", TIMINGS)
    except ServerError as error:
        assert "breaks the contract" in str(error)  # noqa: PT017 - either way is right
    else:
        assert [tag.label for tag in tags] == [
            each.decode() for each in deserialize_bytes_tensor(data)
        ]


def test_columns_of_unequal_length_are_refused() -> None:
    """More labels than scores break the contract."""
    outputs = (tensor_from_value(SOUND_LABELS, ["a", "b"]), tensor_from_value(SOUND_SCORES, [1.0]))
    with pytest.raises(ServerError, match="breaks the contract"):
        result_from_tensors(Tags, TASKS["audio_tagging"], Response("m", outputs), "r1", TIMINGS)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (IMAGE, 1.0),
        (SCORE, "1"),
        (EMBEDDING, None),
        (SEED, 1.5),
        (SEED, 2**63),
        (SOUND_LABELS, ["bell", None]),
        (SOUND_SCORES, ["bell"]),
    ],
)
def test_values_of_a_wrong_type(spec: object, value: object) -> None:
    """Packing the wrong type is a programmer's mistake."""
    with pytest.raises(TypeError):
        tensor_from_value(spec, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_inputs_follow_the_signature(task: str) -> None:
    """Inputs are packed in the signature's order, one item a request."""
    signature = TASKS[task]
    inputs = {
        spec.name: NUMBERS.get(spec.dtype, spec.name.encode())
        for spec in reversed(signature.inputs)
    }
    tensors = tensors_from_inputs(signature, inputs)

    assert [t.name for t in tensors] == [spec.name for spec in signature.inputs]
    assert {t.shape for t in tensors} == {(1, 1)}
    assert [t.dtype for t in tensors] == [spec.dtype for spec in signature.inputs]
    back = {
        spec.name: value_from_tensor(spec, t)
        for spec, t in zip(signature.inputs, tensors, strict=True)
    }
    assert back == inputs


@pytest.mark.parametrize("task", TASKS)
def test_results_take_exactly_what_tasks_give(task: str) -> None:
    """Every task of the contract has a result class whose fields use each output once."""
    names = [name for f in fields(RESULTS[task]) for name in f.metadata.get("outputs", ())]

    assert names == [spec.name for spec in TASKS[task].outputs]


def test_results_are_frozen_and_plain() -> None:
    """A result cannot be changed, and becomes JSON without help."""
    vector = np.array([0.5, 0.25], np.float32)
    result = Embedding(model="text_embedding", request_id="r1", timings=TIMINGS, vector=vector)

    with pytest.raises(FrozenInstanceError):
        result.request_id = "r2"  # type: ignore[misc]
    assert json.loads(json.dumps(result.as_dict())) == {
        "model": "text_embedding",
        "request_id": "r1",
        "timings": {"total_s": 0.2, "attempt_s": 0.1, "attempts": 2},
        "vector": [0.5, 0.25],
    }
