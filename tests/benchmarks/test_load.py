import numpy as np
from tritonclient.grpc import service_pb2

from harness.load import messages
from harness.pictures import Inputs
from harness.raw import task_inputs

INPUTS = Inputs((b"one", b"two", b"three"), ("a?", "b?", "c?"))


def test_a_message_is_a_request_of_the_protocol() -> None:
    """The bytes that are sent are a KServe v2 request with the contract's names."""
    request = service_pb2.ModelInferRequest()
    request.ParseFromString(messages("visual_question_answering", INPUTS)[2])

    assert request.model_name == "visual_question_answering"
    assert [(tensor.name, list(tensor.shape)) for tensor in request.inputs] == [
        ("image", [1, 1]),
        ("question", [1, 1]),
    ]
    assert list(request.raw_input_contents) == [b"\x05\0\0\0three", b"\x02\0\0\0c?"]


def test_a_task_without_question_sends_none() -> None:
    """Only what a task takes is sent."""
    request = service_pb2.ModelInferRequest()
    request.ParseFromString(messages("image_embedding", INPUTS)[0])

    assert [tensor.name for tensor in request.inputs] == ["image"]


def test_batches_are_whole() -> None:
    """A batch has as many rows as it is called, and what is left over is left out."""
    batches = task_inputs(INPUTS, 2)

    assert [batch["image"].shape for batch in batches] == [(2, 1)]
    assert np.array_equal(batches[0]["question"].ravel(), [b"a?", b"b?"])
