import asyncio
import inspect
import subprocess
import sys
from importlib.resources import files
from types import FunctionType

import pytest
from tests.client.conftest import Caller

import sensorium
from sensorium import (
    Answer,
    AsyncClient,
    Client,
    ConfigurationError,
    InvalidInputError,
    OverloadedError,
    Retry,
    UnknownTaskError,
)
from sensorium.testing import MockRequest, MockTransport

VQA = "visual_question_answering"


def test_mock_transport_answers_and_remembers(call: Caller) -> None:
    """A program is tested without a server: the double answers, and notes what it was asked."""
    transport = MockTransport({VQA: {"answer": "red", "score": 0.9}})
    answer = call("", "ask", b"picture", "what color?", options={"transport": transport})

    assert answer.text == "red"
    [request] = transport.requests
    assert request.inputs == {"image": b"picture", "question": b"what color?"}
    assert 29 < request.timeout_s <= 30


def test_mock_transport_fails_on_demand(call: Caller) -> None:
    """The double raises the error it is given, and refuses tasks it has no answer for."""
    transport = MockTransport({VQA: OverloadedError("busy")})
    options = {"transport": transport, "retry": Retry(attempts=2, base_s=0)}

    with pytest.raises(OverloadedError, match="busy"):
        call("", "ask", b"picture", "what color?", options=options)
    assert len(transport.requests) == 2
    with pytest.raises(UnknownTaskError, match="MockTransport"):
        call("", "caption", b"picture", options=options)


def test_mock_transport_takes_a_function(call: Caller) -> None:
    """The double may decide by the request."""

    def answer(request: MockRequest) -> dict[str, object]:
        return {"embedding": [float(len(request.inputs["text"])), 0.0]}

    options = {"transport": MockTransport(answer)}
    assert call("", "embed_text", "four", options=options).vector.tolist() == [4.0, 0.0]


def test_infer_runs_a_task_by_name(call: Caller) -> None:
    """Any task of the contract runs by its name and gives its own result."""
    options = {"transport": MockTransport({VQA: {"answer": "red", "score": 0.9}})}
    answer = call("", "infer", VQA, {"image": b"x", "question": "y"}, options=options)

    assert isinstance(answer, Answer)
    with pytest.raises(InvalidInputError, match=r"takes exactly \['image', 'question'\]"):
        call("", "infer", VQA, {"image": b"x"}, options=options)


@pytest.mark.parametrize("method", ["infer", "is_ready", "wait_ready"])
def test_unknown_tasks_get_a_suggestion(call: Caller, method: str) -> None:
    """A misspelt task never reaches the server; the message lists what there is."""
    arguments: list[object] = [{}] if method == "infer" else []
    with pytest.raises(UnknownTaskError, match="Did you mean 'image_captioning'") as caught:
        call("", method, "image_caption", *arguments, options={"transport": MockTransport({})})

    assert VQA in str(caught.value)


def test_readiness_of_the_double(call: Caller) -> None:
    """The double is as ready as the test says."""
    assert call("", "is_ready", options={"transport": MockTransport({})})
    assert not call("", "is_ready", options={"transport": MockTransport({}, ready=False)})


def test_a_closed_client_says_so() -> None:
    """Using a closed client is a programmer's mistake."""
    client = Client(transport=MockTransport({}))
    client.close()

    assert "closed" in repr(client)
    for use in (lambda: client.caption(b"x"), client.is_ready, client.wait_ready):
        with pytest.raises(RuntimeError, match="was closed"):
            use()


def test_a_client_of_another_event_loop_says_so() -> None:
    """An asynchronous client belongs to the event loop of its first call."""
    answers = {"image_captioning": {"caption": "a", "score": 1.0}}
    client = AsyncClient(transport=MockTransport(answers))
    asyncio.run(client.caption(b"x"))

    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(client.caption(b"x"))


def test_the_twins_have_the_same_methods() -> None:
    """Both clients offer the same methods with the same parameters."""

    def surface(client: type) -> dict[str, list[str]]:
        return {
            name.replace("aclose", "close"): list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert surface(Client) == surface(AsyncClient)


def test_every_public_name_is_exported() -> None:
    """`__all__` is complete: every public class and function of the package is in it."""
    public = {
        name
        for name, value in vars(sensorium).items()
        if isinstance(value, type | FunctionType) and not name.startswith("_")
    }

    assert public | {"__version__"} == set(sensorium.__all__)
    assert files("sensorium").joinpath("py.typed").is_file()


def test_the_version_is_looked_up() -> None:
    """The version is the distribution's; other names are not made up."""
    assert sensorium.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'versoin'"):
        sensorium.versoin  # type: ignore[attr-defined] # noqa: B018


def test_import_is_light() -> None:
    """Importing the package pulls in nothing heavy."""
    heavy = ("numpy", "grpc", "tritonclient", "aiohttp", "rich", "typer", "torch", "matplotlib")
    code = f"import sys, sensorium; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert run.stdout == "[]\n"


def test_a_bundle_goes_in_front_of_the_task() -> None:
    """A client of a bundle asks its models; one without asks those of the plain names."""
    transport = MockTransport({"image_captioning": {"caption": "a star", "score": 0.5}})

    for bundle, model in (("", "image_captioning"), ("second", "second.image_captioning")):
        with Client(transport=transport, bundle=bundle) as client:
            assert client.caption(b"any picture").model == model
        assert transport.requests[-1].model == model
        assert transport.requests[-1].task == "image_captioning"


@pytest.mark.parametrize("bundle", ["Second", "2nd", "a.b", "a b", "x" * 64, "é"])
def test_names_that_no_bundle_has(bundle: str) -> None:
    """What cannot be a bundle's name is refused before the network."""
    with pytest.raises(ConfigurationError, match="not a bundle's name: a small letter"):
        Client(transport=MockTransport({}), bundle=bundle)
