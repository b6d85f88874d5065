"""How one text is generated: what a bundle says in `config.pbtxt`, and a request otherwise.

Names and meanings are those of transformers' `GenerationConfig`, whose texts are reproduced.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sensorium.errors import ConfigurationError, InvalidInputError
from sensorium_server.stages import StageConfig

EARLY_STOPPING = ("false", "true", "never")
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "repetition_penalty": (0.01, 100),
    "no_repeat_ngram_size": (0, 1000),
    "length_penalty": (-10, 10),
    "temperature": (0.01, 100),
    "top_k": (0, 1_000_000),
    "top_p": (0, 1),
    "seed": (0, 2**63 - 1),
}
_SAMPLING = ("temperature", "top_k", "top_p", "seed")


@dataclass(frozen=True, slots=True)
class Generation:
    """Where a text starts and ends, which tokens it may hold, and how they are chosen.

    `top_k` 0, `top_p` 1, `no_repeat_ngram_size` 0 and `repetition_penalty` 1 change nothing.
    """

    prompt_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]
    max_new_tokens: int
    min_new_tokens: int = 0
    suppress_ids: tuple[int, ...] = ()
    begin_suppress_ids: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: str = "false"
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def problems(self, slots: int, most_tokens: int) -> list[str]:
        """Name everything that cannot be, beside its limits."""
        bounds = {
            **_BOUNDS,
            "max_new_tokens": (1, most_tokens),
            "min_new_tokens": (0, self.max_new_tokens),
            "num_beams": (1, slots),
        }
        found = [
            f"{name} = {getattr(self, name)} is out of range, which is {low} to {high}"
            for name, (low, high) in bounds.items()
            if not low <= getattr(self, name) <= high
        ]
        if not self.prompt_ids:
            found.append("prompt_ids holds no token; one at least starts a text")
        if self.do_sample and self.num_beams > 1:
            found.append(f"do_sample with num_beams = {self.num_beams}; drawing needs 1")
        return found


def generation_from(config: StageConfig, slots: int) -> Generation:
    """Read the parameters of a decoder's `config.pbtxt`.

    Raises:
        ConfigurationError: one is missing or malformed, or they do not fit together.
    """
    started = "prompt_ids" in config.parameters
    found = Generation(
        prompt_ids=config.integers("prompt_ids") if started else (config.integer("bos_id"),),
        eos_ids=config.integers("eos_id"),
        max_new_tokens=config.integer("max_new_tokens"),
        min_new_tokens=config.integer("min_new_tokens", 0),
        suppress_ids=config.integers("suppress_ids", ""),
        begin_suppress_ids=config.integers("begin_suppress_ids", ""),
        repetition_penalty=config.number("repetition_penalty", 1.0),
        no_repeat_ngram_size=config.integer("no_repeat_ngram_size", 0),
        num_beams=config.integer("num_beams", 1),
        length_penalty=config.number("length_penalty", 1.0),
        early_stopping=config.choice("early_stopping", EARLY_STOPPING, "false"),
        do_sample=config.choice("do_sample", ("false", "true"), "false") == "true",
        temperature=config.number("temperature", 1.0),
        top_k=config.integer("top_k", 0),
        top_p=config.number("top_p", 1.0),
        seed=config.integer("seed", 0),
    )
    if problems := found.problems(slots, found.max_new_tokens):
        raise ConfigurationError(f"{config.name}/config.pbtxt: {'; '.join(problems)}")
    return found


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("an integer")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number")
    return float(value)


def _stopping(value: object) -> str:
    word = str(value).lower() if isinstance(value, bool) else value
    if word not in EARLY_STOPPING:
        raise TypeError("true, false or never")
    return str(word)


_READERS: Mapping[str, Any] = MappingProxyType(
    {
        "max_new_tokens": _integer,
        "min_new_tokens": _integer,
        "repetition_penalty": _number,
        "no_repeat_ngram_size": _integer,
        "num_beams": _integer,
        "length_penalty": _number,
        "early_stopping": _stopping,
        "do_sample": _boolean,
        "temperature": _number,
        "top_k": _integer,
        "top_p": _number,
        "seed": _integer,
    }
)
"""What a request may say otherwise than its bundle."""


def overridden(default: Generation, wish: str, slots: int) -> Generation:
    """Return a bundle's generation with what a request wishes otherwise, an object in JSON.

    Raises:
        InvalidInputError: the wish cannot be read or granted; everything wrong is listed.
    """
    values = _object(wish)
    problems = []
    read: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _READERS:
            problems.append(f"{name} is not known; known: {', '.join(_READERS)}")
            continue
        try:
            read[name] = _READERS[name](value)
        except TypeError as wanted:
            problems.append(f"{name} = {json.dumps(value)} is not {wanted}")
    if not problems:
        made = dataclasses.replace(default, **read)
        problems = made.problems(slots, default.max_new_tokens)
        if not made.do_sample and (idle := [name for name in _SAMPLING if name in read]):
            problems.append(f"{', '.join(idle)} without do_sample: add do_sample: true")
        if not problems:
            return made
    raise InvalidInputError(f"generation: {'; '.join(problems)}")


def _object(wish: str) -> dict[str, Any]:
    try:
        values = json.loads(wish)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidInputError(
            f"generation = {wish[:80]!r} is not an object in JSON. Send, for example, "
            f'{{"num_beams": 4}}.'
        )
    return values
