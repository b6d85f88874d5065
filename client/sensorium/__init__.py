"""Sensorium's client: ask, caption, tag, embed and draw on a Sensorium server.

Usage:
    from sensorium import Client

    with Client("localhost:8001") as client:
        answer = client.ask("photo.jpg", "what color is the large star?")
        print(answer.text, answer.score)
"""

from typing import TYPE_CHECKING

from sensorium._async_client import AsyncClient
from sensorium._client import Client
from sensorium._config import TLS, Limits, Retry
from sensorium._generation import Generation
from sensorium._trace_context import trace_context
from sensorium.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
    SensoriumError,
    ServerError,
    ServerUnreachableError,
    UnknownTaskError,
)
from sensorium.results import (
    Answer,
    Caption,
    Drawing,
    Embedding,
    Event,
    Events,
    Generated,
    Result,
    Tag,
    Tags,
    Timings,
    Transcript,
)

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Look the version up only when asked: reading metadata takes longer than all else."""
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            return version("sensorium")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "TLS",
    "Answer",
    "AsyncClient",
    "Caption",
    "Client",
    "ConfigurationError",
    "DeadlineExceededError",
    "Drawing",
    "Embedding",
    "Event",
    "Events",
    "Generated",
    "Generation",
    "InvalidInputError",
    "Limits",
    "ModelNotReadyError",
    "OverloadedError",
    "Result",
    "Retry",
    "SensoriumError",
    "ServerError",
    "ServerUnreachableError",
    "Tag",
    "Tags",
    "Timings",
    "Transcript",
    "UnknownTaskError",
    "__version__",
    "trace_context",
]
