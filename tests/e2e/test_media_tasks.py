"""Every task with sound, video and drawing on a real Triton, from real files, in both protocols."""

import io
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tests.e2e.conftest import Caller, bytes_tensor, items_of
from tests.server import media
from tests.server.test_audio import BAD as BAD_SOUNDS
from tests.server.test_video import BAD as BAD_VIDEOS

from sensorium import Client
from sensorium._config import address_from_url
from sensorium._transports.base import Tensor, transport_for
from sensorium.errors import InvalidInputError
from sensorium.results import Answer, Caption, Drawing, Embedding, Events, Tags
from sensorium_export.bundle import ExportedBundle
from sensorium_export.ensembles import ENSEMBLES
from sensorium_export.testing import AUDIO_LABELS, VIDEO_LABELS
from sensorium_server.launch import Endpoints, Server

pytestmark = pytest.mark.triton

TONE = media.tone(1.0)
SOUNDS = {
    "WAV": media.wav(TONE, 16_000),
    "FLAC": media.flac(TONE, 16_000),
    "OGG": media.ogg(TONE, 16_000),
    "MP3": media.mp3(TONE, 16_000),
}
SOUND = SOUNDS["WAV"]
CLIPS = {
    "MP4": media.mp4(media.clip(12)),
    "MP4 with sound": media.mp4(media.clip(12), audio=TONE[:, 0]),
    "WebM": media.webm(media.clip(12)),
    "WebM with sound": media.webm(media.clip(12), audio=media.tone(1.0, 48_000)[:, 0]),
}
CLIP = CLIPS["MP4 with sound"]
BAD_FILES = [
    *(("audio_tagging", "audio", *BAD_SOUNDS[case]) for case in BAD_SOUNDS),
    *(("video_captioning", "video", *BAD_VIDEOS[case]) for case in BAD_VIDEOS),
]
ODD_SOUNDS = {
    **{depth: media.wav(TONE, 16_000, depth) for depth in ("PCM_U8", "PCM_24", "FLOAT")},
    "stereo": media.wav(media.tone(1.0, channels=2), 16_000),
    "5.1": media.wav(media.tone(1.0, channels=6), 16_000),
    "8 kHz": media.wav(media.tone(1.0, 8000), 8000),
    "192 kHz": media.wav(media.tone(1.0, 192_000), 192_000),
    "silence": media.wav(np.zeros(16_000), 16_000),
}
ODD_CLIPS = {
    "variable frame rate": media.video(media.clip(5), [0, 0.1, 0.2, 1.5, 2.9]),
    "rotated": media.mp4(media.clip(6), rotation=90),
    "odd size": media.mp4(media.clip(6, 37, 51)),
    "one frame": media.mp4(media.clip(1)),
    "no sound": CLIPS["MP4"],
}
QUESTION = "what color is the large star?"
WISH = {"text": "a red star", "seed": 7, "steps": 3, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def running(start_server: Callable[..., Server], bundle: ExportedBundle) -> Iterator[Endpoints]:
    """Serve the exported toy bundle, which has every part."""
    with start_server(bundle.repository) as server:
        yield server.endpoints


@pytest.fixture(scope="module", params=["grpc", "http"])
def url(request: pytest.FixtureRequest, running: Endpoints) -> str:
    """The server's address in each of the two protocols."""
    return running.grpc if request.param == "grpc" else running.http


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    """A client in each of the two protocols."""
    with Client(url, timeout_s=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def raw(url: str) -> Iterator[Caller]:
    """A caller past the client's own checks."""
    transport = transport_for(address_from_url(url), None, {})
    yield Caller(transport)
    transport.close()


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    Image.fromarray(media.clip(1, 40, 40)[0]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", SOUNDS)
def test_sound_of_every_format_is_tagged_asked_and_embedded(client: Client, kind: str) -> None:
    """WAV, FLAC, OGG and MP3 are heard: tags are all there and sorted, vectors have length 1."""
    tags = client.infer("audio_tagging", {"audio": SOUNDS[kind]})
    answer = client.infer("audio_question_answering", {"audio": SOUNDS[kind], "question": QUESTION})
    embedding = client.infer("audio_embedding", {"audio": SOUNDS[kind]})

    assert isinstance(tags, Tags)
    assert {tag.label for tag in tags} == set(AUDIO_LABELS)
    assert [tag.score for tag in tags] == sorted((tag.score for tag in tags), reverse=True)
    assert isinstance(answer, Answer)
    assert 0 < answer.score <= 1
    assert isinstance(embedding, Embedding)
    assert np.linalg.norm(embedding.vector) == pytest.approx(1)


@pytest.mark.parametrize("kind", CLIPS)
def test_clip_of_every_format_is_watched(client: Client, kind: str) -> None:
    """MP4 and WebM, with sound and without, answer every task that takes a clip alone."""
    given = {"video": CLIPS[kind]}
    actions = client.infer("action_recognition", given)
    answer = client.infer("video_question_answering", given | {"question": QUESTION})
    caption = client.infer("video_captioning", given)
    embedding = client.infer("video_embedding", given)

    assert isinstance(actions, Tags)
    assert {tag.label for tag in actions} == set(VIDEO_LABELS)
    assert isinstance(answer, Answer)
    assert isinstance(caption, Caption)
    assert isinstance(embedding, Embedding)
    assert np.linalg.norm(embedding.vector) == pytest.approx(1)


@pytest.mark.parametrize(
    "given", [{"video": CLIP}, {"audio": SOUND}, {"video": CLIP, "audio": SOUND}]
)
def test_events_of_a_clip_a_sound_or_both(client: Client, given: dict[str, bytes]) -> None:
    """Events have a known label and lie within the file, earliest first."""
    events = client.infer("event_detection", given)

    assert isinstance(events, Events)
    assert {event.label for event in events} <= {*AUDIO_LABELS, *VIDEO_LABELS}
    assert all(0 <= event.start_s < event.end_s < 1.4 for event in events)
    starts = [event.start_s for event in events]
    assert starts == sorted(starts)


def test_clip_with_sound_has_the_events_of_its_sound_track(client: Client) -> None:
    """What is heard in a clip is found in the clip alone; without its sound it is not."""
    with_sound, without = (
        client.infer("event_detection", {"video": CLIPS[kind]})
        for kind in ("MP4 with sound", "MP4")
    )

    assert isinstance(with_sound, Events)
    assert isinstance(without, Events)
    assert {event.label for event in with_sound} & set(AUDIO_LABELS)
    assert not {event.label for event in without} & set(AUDIO_LABELS)


def test_question_about_picture_and_sound_answers_with_either_missing(
    client: Client, picture: bytes
) -> None:
    """A missing modality is masked: the answer is that of the other alone, each time the same."""
    task = "audio_visual_question_answering"
    given: dict[str, bytes | str] = {"image": picture, "audio": SOUND, "question": QUESTION}

    for missing in ("image", "audio", None):
        answers = [
            client.infer(task, {name: one for name, one in given.items() if name != missing})
            for _ in range(2)
        ]
        assert isinstance(answers[0], Answer)
        assert isinstance(answers[1], Answer)
        assert answers[0].text == answers[1].text


def test_drawing_is_a_picture_that_the_seed_repeats(client: Client) -> None:
    """The same seed gives the same bytes, another seed another picture."""
    first, again, other = (
        client.infer("text_to_image", WISH | {"seed": seed}) for seed in (7, 7, 8)
    )

    assert isinstance(first, Drawing)
    assert isinstance(again, Drawing)
    assert isinstance(other, Drawing)
    assert first.png == again.png != other.png
    assert Image.open(io.BytesIO(first.png)).size == (32, 32)


def test_tasks_of_all_kinds_share_the_server(url: str, picture: bytes) -> None:
    """Requests of every task at once get what they get alone."""
    given: dict[str, dict[str, object]] = {
        "visual_question_answering": {"image": picture, "question": QUESTION},
        "audio_question_answering": {"audio": SOUND, "question": QUESTION},
        "audio_visual_question_answering": {"image": picture, "audio": SOUND, "question": QUESTION},
        "video_question_answering": {"video": CLIP, "question": QUESTION},
        "video_captioning": {"video": CLIP},
        "image_captioning": {"image": picture},
    }
    jobs = [(task, inputs) for task, inputs in given.items() for _ in range(5)]
    with Client(url, timeout_s=120) as client, ThreadPoolExecutor(16) as pool:
        alone = {task: client.infer(task, inputs) for task, inputs in given.items()}
        together = list(pool.map(lambda job: (job[0], client.infer(*job)), jobs))

    for task, result in together:
        assert isinstance(result, Answer | Caption)
        assert result.text == alone[task].text  # type: ignore[attr-defined] # both have one


def test_request_of_several_items_answers_each(raw: Caller) -> None:
    """A request may hold several sounds; each gets its own row, whatever the others' lengths."""
    short = media.wav(media.tone(0.2), 16_000)
    single = [raw.ask("audio_tagging", audio=one)["labels"] for one in (SOUND, short)]

    labels = items_of(
        next(
            one
            for one in raw.infer("audio_tagging", bytes_tensor("audio", SOUND, short)).outputs
            if one.name == "labels"
        )
    )

    assert labels == [*single[0], *single[1]]


@pytest.mark.parametrize(
    ("task", "name", "data", "message"), BAD_FILES, ids=[*BAD_SOUNDS, *BAD_VIDEOS]
)
def test_every_bad_file_is_told_what_is_wrong(
    raw: Caller, task: str, name: str, data: bytes, message: str
) -> None:
    """What a stage refuses reaches the client in its words, without paths or tracebacks."""
    with pytest.raises(InvalidInputError, match=message) as caught:
        raw.ask(task, **{name: data})

    assert "Traceback" not in str(caught.value)
    assert "site-packages" not in str(caught.value)


def test_unusual_files_are_answered(client: Client) -> None:
    """Any depth, channels, rate, rotation and size of file is heard or watched."""
    for kind, sound in ODD_SOUNDS.items():
        assert len([*client.tag_audio(sound)]) == len(AUDIO_LABELS), kind
    for kind, video in ODD_CLIPS.items():
        assert 0 < client.caption_video(video).score <= 1, kind


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("audio_tagging", {"audio": b"not a sound"}, "audio is not a WAV, FLAC, OGG or MP3"),
        ("audio_tagging", {"audio": SOUND[: len(SOUND) // 2]}, "audio is damaged or truncated"),
        ("video_captioning", {"video": b"plain text"}, "video is not an MP4 or WebM"),
        ("video_captioning", {"video": CLIP[: len(CLIP) // 2]}, "video is damaged or truncated"),
        ("event_detection", {"video": b"plain text", "audio": b""}, "video is not an MP4"),
        ("event_detection", {"video": b"", "audio": b""}, "video is empty"),
        (
            "audio_visual_question_answering",
            {"image": b"", "audio": b"noise", "question": b"what is it?"},
            "audio is not a WAV",
        ),
    ],
)
def test_bad_file_fails_alone_with_its_reason(
    raw: Caller, task: str, given: dict[str, bytes], message: str
) -> None:
    """A file that is none is the client's mistake, and the next request is answered."""
    with pytest.raises(InvalidInputError, match=message):
        raw.ask(task, **given)

    assert len(raw.ask("audio_tagging", audio=SOUND)["labels"]) == len(AUDIO_LABELS)


def test_drawing_beyond_the_limits_is_refused(raw: Caller) -> None:
    """Nobody draws for hours: the server has limits of its own."""
    wish = (
        bytes_tensor("text", b"a red star"),
        Tensor("seed", "INT64", (1, 1), struct.pack("<q", 7)),
        Tensor("steps", "INT64", (1, 1), struct.pack("<q", 100_000)),
        Tensor("guidance_scale", "FP32", (1, 1), struct.pack("<f", 2.0)),
    )

    with pytest.raises(InvalidInputError, match="steps = 100000 is not from 1 to"):
        raw.infer("text_to_image", *wish)


def test_every_task_of_the_contract_is_ready(client: Client) -> None:
    """A checkpoint with every part offers the whole contract."""
    assert all(client.is_ready(task, timeout_s=10) for task in ENSEMBLES)
