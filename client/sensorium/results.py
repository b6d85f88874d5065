"""What a task gives back: small frozen values with their timings."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sensorium.contract import ANSWER, CAPTION, EMBEDDING, SCORE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {name: getattr(v, "tolist", lambda v=v: v)() for name, v in values.items()}
        return plain | {"timings": dataclasses.asdict(self.timings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Result):
    """The answer to a question about a picture; `score` is the probability of all its words."""

    text: str = field(metadata={"spec": ANSWER})
    score: float = field(metadata={"spec": SCORE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption(Result):
    """What is on a picture; `score` is the probability of all its words."""

    text: str = field(metadata={"spec": CAPTION})
    score: float = field(metadata={"spec": SCORE})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Result):
    """A direction of length 1 in the space that all modalities share; read-only."""

    vector: "NDArray[np.float32]" = field(metadata={"spec": EMBEDDING})

    def similarity(self, other: "Embedding") -> float:
        """Return the cosine between this embedding and another: 1 is the same, 0 unrelated."""
        return float(self.vector @ other.vector)


RESULTS: dict[str, type[Result]] = {
    "visual_question_answering": Answer,
    "image_captioning": Caption,
    "text_embedding": Embedding,
    "image_embedding": Embedding,
}
"""The class of each task's result."""
