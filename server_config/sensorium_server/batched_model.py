"""Many requests answered by one run, each on its own."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.errors import InvalidInputError, ServerError
from sensorium_server.batching import Batcher
from sensorium_server.stages import StageConfig

Parts = Mapping[str, Any]
"""One request's tensors by name: NumPy arrays, or a `DeviceArray` where a model runs on a GPU."""


class BatchedModel(ABC):
    """Joins requests that fit together, and keeps one's failure from the others."""

    def __init__(self, batcher: Batcher, config: StageConfig) -> None:
        self._batcher = batcher
        self._name = config.name
        self._checks_finite = config.flag("check_finite")

    @abstractmethod
    def _computed(
        self, requests: Sequence[Parts], sizes: Sequence[Mapping[str, int]], names: list[str]
    ) -> Sequence[Parts]:
        """Run a batch and split it; `names` are the outputs that anybody wants."""

    def _check(self, results: Mapping[str, NDArray[Any]]) -> None:
        """Refuse what is no number, of an engine that is new here.

        Raises:
            ServerError: There is some, and that is checked.
        """
        if not self._checks_finite:
            return
        wrong = [
            name
            for name, array in results.items()
            if array.dtype.kind == "f" and not np.isfinite(array).all()
        ]
        if wrong:
            raise ServerError(f"{self._name} put out NaN or infinity in {', '.join(wrong)}")

    def answer(
        self, requests: Sequence[Parts], wanted: Sequence[Collection[str]]
    ) -> list[Parts | Exception]:
        """Return each request's outputs, or what went wrong with it.

        `wanted` names the outputs that each request asks for; others are computed for nobody.
        """
        answers: dict[int, Parts | Exception] = {}
        sizes: dict[int, Mapping[str, int]] = {}
        for index, request in enumerate(requests):
            try:
                sizes[index] = self._batcher.sizes(request)
            except InvalidInputError as error:
                answers[index] = error
        sound = list(sizes)
        for group in self._batcher.groups(list(sizes.values())):
            members = [sound[position] for position in group]
            names = set().union(*(wanted[index] for index in members))
            answers |= zip(
                members,
                self._run(
                    [requests[index] for index in members],
                    [sizes[index] for index in members],
                    [name for name in self._batcher.outputs if name in names],
                ),
                strict=True,
            )
        return [answers[index] for index in range(len(requests))]

    def _run(
        self, requests: Sequence[Parts], sizes: Sequence[Mapping[str, int]], names: list[str]
    ) -> Sequence[Parts | Exception]:
        """Run a batch; when it fails, run its members alone to find the guilty one."""
        try:
            return self._computed(requests, sizes, names)
        except Exception as error:  # noqa: BLE001 - each request is told on its own
            if len(requests) == 1:
                return [error]
        return [
            self._run([request], [size], names)[0]
            for request, size in zip(requests, sizes, strict=True)
        ]
