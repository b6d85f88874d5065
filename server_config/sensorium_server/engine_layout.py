"""What a compiled engine takes and gives, and for which sizes it was optimised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium.errors import ConfigurationError, InvalidInputError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """One input or output; an open axis is -1."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: Shape


@dataclass(frozen=True, slots=True)
class Profile:
    """An optimization profile: the least and the greatest shape of each input."""

    least: Mapping[str, Shape]
    greatest: Mapping[str, Shape]

    def holds(self, shapes: Mapping[str, Shape]) -> bool:
        """Tell whether the engine runs these shapes by this profile."""
        return all(
            low <= size <= high
            for name, shape in shapes.items()
            for low, size, high in zip(self.least[name], shape, self.greatest[name], strict=True)
        )

    @property
    def volume(self) -> int:
        """How much the profile allows; what is made for less is usually faster."""
        return sum(int(np.prod(shape)) for shape in self.greatest.values())


@dataclass(frozen=True, slots=True)
class Layout:
    """An engine's tensors and profiles."""

    tensors: tuple[EngineTensor, ...]
    profiles: tuple[Profile, ...]

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """What it takes."""
        return tuple(tensor for tensor in self.tensors if tensor.is_input)

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """What it gives."""
        return tuple(tensor for tensor in self.tensors if not tensor.is_input)

    @property
    def largest_batch(self) -> int:
        """The most rows that any profile takes."""
        return max(shape[0] for one in self.profiles for shape in one.greatest.values())

    def profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """Return the number of the profile for these shapes, the narrowest that holds them.

        Raises:
            InvalidInputError: none does.
        """
        holding = [
            (profile.volume, number)
            for number, profile in enumerate(self.profiles)
            if profile.holds(shapes)
        ]
        if holding:
            return min(holding)[1]
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        allowed = "; ".join(
            ", ".join(
                f"{name} {list(one.least[name])} to {list(one.greatest[name])}"
                for name in one.least
            )
            for one in self.profiles
        )
        raise InvalidInputError(f"the engine takes no inputs of the shapes {given}, but {allowed}.")

    def check(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Check that an engine takes and gives what its model's config says.

        Raises:
            ConfigurationError: it does not; the message lists every tensor.
        """
        problems = [
            f"the engine has no {side} {name}"
            for side, wanted, found in (
                ("input", inputs, self.inputs),
                ("output", outputs, self.outputs),
            )
            for name in sorted(set(wanted) - {tensor.name for tensor in found})
        ]
        problems += [
            f"the config has no input {tensor.name}"
            for tensor in self.inputs
            if tensor.name not in inputs
        ]
        if problems:
            raise ConfigurationError(
                f"the plan does not fit its config: {'; '.join(problems)}. Compile it again."
            )


def batch_buckets(largest: int) -> tuple[int, ...]:
    """Return the batch sizes that are run: powers of two, and the largest."""
    powers = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return (*powers, largest)


def bucket_for(rows: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds the rows.

    Raises:
        InvalidInputError: they are more than the largest.
    """
    for bucket in buckets:
        if bucket >= rows:
            return bucket
    raise InvalidInputError(f"a batch has {rows} rows; the engine takes at most {buckets[-1]}.")
