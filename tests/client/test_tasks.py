import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.client.conftest import ANSWERS, Caller, FakeServer

from sensorium import AsyncClient, Client, Event, Generation, InvalidInputError, ServerError, Tag
from sensorium.contract import TASKS
from sensorium.testing import MockTransport

CALLS: list[tuple[str, tuple[object, ...], str, dict[str, object]]] = [
    ("ask", (b"i", "q?"), "visual_question_answering", {"image": b"i", "question": b"q?"}),
    ("ask_audio", (b"a", "q?"), "audio_question_answering", {"audio": b"a", "question": b"q?"}),
    ("ask_video", (b"v", "q?"), "video_question_answering", {"video": b"v", "question": b"q?"}),
    (
        "ask_image_and_audio",
        (b"i", b"a", "q?"),
        "audio_visual_question_answering",
        {"image": b"i", "audio": b"a", "question": b"q?"},
    ),
    ("caption", (b"i",), "image_captioning", {"image": b"i"}),
    ("caption_video", (b"v",), "video_captioning", {"video": b"v"}),
    ("tag_audio", (b"a",), "audio_tagging", {"audio": b"a"}),
    ("recognise_actions", (b"v",), "action_recognition", {"video": b"v"}),
    ("detect_events", (), "event_detection", {"video": b"v", "audio": b"a"}),
    ("embed_text", ("t",), "text_embedding", {"text": b"t"}),
    ("embed_image", (b"i",), "image_embedding", {"image": b"i"}),
    ("embed_audio", (b"a",), "audio_embedding", {"audio": b"a"}),
    ("embed_video", (b"v",), "video_embedding", {"video": b"v"}),
    (
        "draw",
        ("t",),
        "text_to_image",
        {"text": b"t", "seed": 2**63 - 1, "steps": 3, "guidance_scale": 1.5},
    ),
    ("classify_image", (b"i",), "image_classification", {"image": b"i"}),
    ("generate", ("t",), "text_generation", {"text": b"t"}),
    ("transcribe", (b"a",), "speech_recognition", {"audio": b"a"}),
]
NAMED: Mapping[str, Mapping[str, Any]] = {
    "detect_events": {"audio": b"a", "video": b"v"},
    "draw": {"seed": 2**63 - 1, "steps": 3, "guidance_scale": 1.5},
}


def test_every_task_has_a_method() -> None:
    """Each task of the contract is called by one method, and the fake server answers it."""
    assert sorted(task for _, _, task, _ in CALLS) == sorted(TASKS) == sorted(ANSWERS)


@pytest.mark.parametrize("expected", CALLS, ids=lambda expected: expected[0])
def test_each_method_calls_its_task(
    server: FakeServer, call: Caller, expected: tuple[str, tuple[object, ...], str, object]
) -> None:
    """Both clients pack each task's inputs by the contract, over both protocols."""
    method, arguments, task, inputs = expected
    result = call(server.url, method, *arguments, request_id="r1", **NAMED.get(method, {}))

    [seen] = server.seen
    assert (seen.model, seen.inputs, seen.request_id) == (task, inputs, "r1")
    assert seen.outputs == tuple(spec.name for spec in TASKS[task].outputs)
    assert (result.model, result.request_id) == (task, "r1")


def test_answers_of_sounds_and_clips(server: FakeServer, call: Caller) -> None:
    """Tags, events, drawings and embeddings come back typed over both protocols."""
    assert list(call(server.url, "tag_audio", b"a")) == [Tag("bell", 0.75), Tag("bark", 0.25)]
    assert call(server.url, "recognise_actions", b"v").best == Tag("moves left", 0.5)
    assert list(call(server.url, "detect_events", video=b"v")) == [
        Event("bell", 0.5, 1.0, 0.75),
        Event("moves left", 1.25, 2.5, 0.5),
    ]
    assert call(server.url, "draw", "a star").png == b"\x89PNG\xff\x00!"
    assert call(server.url, "caption_video", b"v").text == "a red star moves left"
    sound, clip = call(server.url, "embed_audio", b"a"), call(server.url, "embed_video", b"v")
    assert sound.similarity(clip) == pytest.approx(0.36)


def test_no_events_come_back_empty(server: FakeServer, call: Caller) -> None:
    """A row without any event is an empty answer over both protocols, not a broken one."""
    numbers = {name: ("FP32", [1, 0], b"") for name in ("scores", "start_s", "end_s")}
    server.answer = lambda _: {"labels": ("BYTES", [1, 0], b""), **numbers}

    assert len(call(server.url, "detect_events", audio=b"a")) == 0


@pytest.mark.parametrize(
    "labels",
    [
        ("BYTES", [1, 2], b"\x01\x00\x00\x00a"),
        ("BYTES", [1, 1], b"\x01\x00\x00\x00a\x01\x00\x00\x00b"),
        ("BYTES", [1, 1], b"\x01\x00\x00\x00\xff"),
        ("BYTES", [1, 2], b"\x01\x00\x00\x00a\x01\x00\x00\x00b"),
        ("FP32", [1, 1], bytes(4)),
    ],
)
def test_broken_labels_are_a_server_error(
    server: FakeServer, call: Caller, labels: tuple[str, list[int], bytes]
) -> None:
    """Labels that break the contract, or do not pair up with the scores, are never handed on."""
    server.answer = lambda _: {"labels": labels, "scores": [0.5]}

    with pytest.raises(ServerError, match="versions of client and server"):
        call(server.url, "tag_audio", b"a")


def test_infer_runs_the_new_tasks_by_name(call: Caller) -> None:
    """`infer` takes numbers, and leaves out what may be missing; all else must be there."""
    transport = MockTransport({"text_to_image": {"image": b"png"}})
    inputs = {"text": "a star", "seed": 1, "steps": 2, "guidance_scale": 3}
    drawing = call("", "infer", "text_to_image", inputs, options={"transport": transport})

    assert drawing.png == b"png"
    assert transport.requests[0].inputs == {**inputs, "text": b"a star"}
    for task, wrong in [
        ("text_to_image", {"text": "a star"}),
        ("event_detection", {"sound": b"a", "video": b"v"}),
        ("audio_visual_question_answering", {"image": b"i"}),
    ]:
        with pytest.raises(InvalidInputError, match="takes exactly"):
            call("", "infer", task, wrong, options={"transport": transport})


WORDY = [each for each in CALLS if each[0].startswith(("ask", "caption"))]


@pytest.mark.parametrize("expected", WORDY, ids=lambda expected: expected[0])
def test_words_are_generated_as_the_call_says(
    server: FakeServer, call: Caller, expected: tuple[str, tuple[object, ...], str, object]
) -> None:
    """Each method that answers in words passes on how, over both protocols; by default nothing."""
    method, arguments, _, _ = expected
    call(server.url, method, *arguments)
    call(server.url, method, *arguments, generation=Generation(num_beams=4, early_stopping="never"))

    plain, searched = server.seen
    assert plain.generation is None
    assert json.loads(searched.generation or "") == {"num_beams": 4, "early_stopping": "never"}


def test_many_are_generated_alike() -> None:
    """Many calls at once pass it on too, and a test's transport shows it."""
    transport = MockTransport(
        {
            "image_captioning": {"caption": "a", "score": 1.0},
            "visual_question_answering": {"answer": "b", "score": 1.0},
        }
    )
    drawn = Generation(do_sample=True, seed=3)
    with Client(transport=transport) as client:
        client.caption_many([b"x"], generation=drawn)
        client.ask_many([(b"x", "why?")], generation=drawn)

    async def both() -> None:
        client = AsyncClient(transport=transport)
        await client.caption_many([b"x"], generation=drawn)
        await client.ask_many([(b"x", "why?")], generation=drawn)

    asyncio.run(both())

    assert [seen.generation for seen in transport.requests] == [{"do_sample": True, "seed": 3}] * 4


def test_wordless_tasks_refuse_generation() -> None:
    """Where no words are generated, saying how is a mistake."""
    client = Client(transport=MockTransport({}))

    with pytest.raises(InvalidInputError, match=r"num_beams=2.*text_embedding generates no words"):
        client.infer("text_embedding", {"text": "a"}, generation=Generation(num_beams=2))
