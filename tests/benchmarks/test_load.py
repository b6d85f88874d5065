import numpy as np
from tritonclient.grpc import service_pb2

from harness.inputs import Columns, Inputs
from harness.load import messages


def request_of(inputs: Inputs, number: int) -> service_pb2.ModelInferRequest:
    """Return a message as a server reads it."""
    request = service_pb2.ModelInferRequest()
    request.ParseFromString(messages(inputs)[number])
    return request


def test_a_message_is_a_request_of_the_protocol() -> None:
    """The bytes that are sent are a KServe v2 request with the contract's names."""
    inputs = Inputs(
        "visual_question_answering",
        {"question": (b"a?", b"b?", b"c?"), "image": (b"one", b"two", b"three")},
    )
    request = request_of(inputs, 2)

    assert request.model_name == "visual_question_answering"
    assert [(tensor.name, list(tensor.shape)) for tensor in request.inputs] == [
        ("image", [1, 1]),
        ("question", [1, 1]),
    ]
    assert list(request.raw_input_contents) == [b"\x05\0\0\0three", b"\x02\0\0\0c?"]
    assert [output.name for output in request.outputs] == ["answer", "score"]


def test_numbers_are_sent_as_the_contract_types_them() -> None:
    """An integer takes eight bytes, a float four, both little-endian."""
    columns: Columns = {
        "text": (b"a star",),
        "seed": (7,),
        "steps": (20,),
        "guidance_scale": (1.5,),
    }
    request = request_of(Inputs("text_to_image", columns), 0)

    assert [tensor.datatype for tensor in request.inputs] == ["BYTES", "INT64", "INT64", "FP32"]
    assert list(request.raw_input_contents)[1:] == [
        (7).to_bytes(8, "little"),
        (20).to_bytes(8, "little"),
        np.float32(1.5).tobytes(),
    ]


def test_an_empty_input_is_sent_as_one() -> None:
    """What a task may leave empty is a string without bytes, not a missing input."""
    inputs = Inputs("event_detection", {"video": (b"film",), "audio": (b"",)})

    assert list(request_of(inputs, 0).raw_input_contents) == [b"\x04\0\0\0film", b"\0\0\0\0"]
