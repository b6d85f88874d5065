"""What a task gives back: small frozen values with their timings."""

import base64
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _made(make: Callable[..., object], *outputs: str) -> dict[str, Any]:
    """Return what a field tells the codec: make it so of these outputs of the contract."""
    return {"make": make, "outputs": outputs}


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a call's time went, in seconds, as the client measured it."""

    total_s: float
    """From the call to its result: reading the input, attempts and pauses."""
    attempt_s: float
    """The attempt that succeeded: network and server."""
    attempts: int
    """How many attempts it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What every result carries beside its own outputs."""

    model: str
    """The task that answered."""
    request_id: str
    """Finds the request in the server's log."""
    timings: Timings

    def as_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a field holds
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.tolist() if hasattr(value, "tolist") else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Result):
    """The answer to a question; `score` is the probability of all its words."""

    text: str = field(metadata=_made(bytes.decode, "answer"))
    score: float = field(metadata=_made(float, "score"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption(Result):
    """What a picture or a clip shows; `score` is the probability of all its words."""

    text: str = field(metadata=_made(bytes.decode, "caption"))
    score: float = field(metadata=_made(float, "score"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated(Result):
    """The text that another one led to; `score` is the probability of all its words."""

    text: str = field(metadata=_made(bytes.decode, "generated_text"))
    score: float = field(metadata=_made(float, "score"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript(Result):
    """What is said in a recording; `score` is the probability of all its words."""

    text: str = field(metadata=_made(bytes.decode, "transcript"))
    score: float = field(metadata=_made(float, "score"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Result):
    """A vector, in the space that the bundle's modalities share; read-only.

    Its length is 1, unless the bundle's network, such as a ViT, gives vectors of any length.
    """

    vector: "NDArray[np.float32]" = field(metadata=_made(lambda vector: vector, "embedding"))

    def similarity(self, other: "Embedding") -> float:
        """Return the dot product with another: of length 1, their cosine; 1 is the same."""
        return float(self.vector @ other.vector)


@dataclass(frozen=True, slots=True)
class Tag:
    """What may be seen, heard or done, and the probability that it is."""

    label: str
    score: float


def _tags(labels: Sequence[bytes], scores: "NDArray[np.float32]") -> tuple[Tag, ...]:
    pairs = zip(labels, scores.tolist(), strict=True)
    return tuple(Tag(label.decode(), score) for label, score in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags(Result):
    """Every label that the bundle knows with its score, best first.

    A classifier's labels exclude each other. Others do not: several sounds may be heard in one
    recording.
    """

    tags: tuple[Tag, ...] = field(metadata=_made(_tags, "labels", "scores"))

    @property
    def best(self) -> Tag:
        """The tag with the largest score."""
        return self.tags[0]

    def above(self, threshold: float) -> tuple[Tag, ...]:
        """Return the tags whose score is at least `threshold`, best first."""
        return tuple(tag for tag in self.tags if tag.score >= threshold)

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, index: int) -> Tag:
        return self.tags[index]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened from `start_s` to `end_s`, in seconds, and how sure the model is."""

    label: str
    start_s: float
    end_s: float
    score: float


def _events(
    labels: Sequence[bytes],
    scores: "NDArray[np.float32]",
    start_s: "NDArray[np.float32]",
    end_s: "NDArray[np.float32]",
) -> tuple[Event, ...]:
    """Make the events of a row; empty labels fill up rows that Triton answered together."""
    columns = (start_s.tolist(), end_s.tolist(), scores.tolist())
    rows = zip(labels, *columns, strict=True)
    return tuple(Event(label.decode(), *numbers) for label, *numbers in rows if label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Result):
    """What happened when, earliest first; events of one label never overlap."""

    events: tuple[Event, ...] = field(
        metadata=_made(_events, "labels", "scores", "start_s", "end_s")
    )

    def above(self, threshold: float) -> tuple[Event, ...]:
        """Return the events whose score is at least `threshold`."""
        return tuple(event for event in self.events if event.score >= threshold)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: int) -> Event:
        return self.events[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing(Result):
    """A picture drawn to a text; `as_dict` gives its bytes in base64."""

    png: bytes = field(metadata=_made(bytes, "image"))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture's PNG bytes and return where.

        Raises:
            InvalidInputError: the file cannot be written.
        """
        target = Path(path)
        try:
            target.write_bytes(self.png)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInputError(f"cannot write {str(target)!r}: {reason}.") from error
        return target


RESULTS: dict[str, type[Result]] = {
    "visual_question_answering": Answer,
    "image_captioning": Caption,
    "audio_question_answering": Answer,
    "audio_tagging": Tags,
    "audio_visual_question_answering": Answer,
    "video_question_answering": Answer,
    "video_captioning": Caption,
    "action_recognition": Tags,
    "event_detection": Events,
    "text_embedding": Embedding,
    "image_embedding": Embedding,
    "audio_embedding": Embedding,
    "video_embedding": Embedding,
    "text_to_image": Drawing,
    "image_classification": Tags,
    "text_generation": Generated,
    "speech_recognition": Transcript,
}
"""The class of each task's result."""
