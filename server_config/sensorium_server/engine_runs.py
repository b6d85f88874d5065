"""Queues the runs of an engine: plainly the first time, as a recorded CUDA graph from then on.

What is recorded holds for the same shapes and the same addresses; so many recordings are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

from sensorium_server.device import CaptureError, Device
from sensorium_server.engine_layout import Layout, Shape

GRAPHS = 64
"""How many CUDA graphs are kept when the config does not say."""


class Context(Protocol):
    """An execution context: one profile of an engine, ready to run."""

    def bind(self, name: str, pointer: int) -> None:
        """Say where a tensor lies."""

    def resize(self, name: str, shape: Shape) -> None:
        """Say an input's shape."""

    def shape(self, name: str) -> Shape:
        """Return an output's shape, by the inputs' shapes."""

    def enqueue(self) -> None:
        """Queue a run on the device's stream."""


class Engine(Protocol):
    """A loaded engine."""

    layout: Layout

    def context(self, profile: int) -> Context:
        """Make an execution context for a profile."""


@dataclass(slots=True)
class _Run:
    """The work for one set of shapes: those of all tensors, and what queues it."""

    shapes: Mapping[str, Shape]
    queue: Callable[[], None] | None = None
    is_plain: bool = False


class EngineRuns:
    """The contexts of one engine, a context for each profile."""

    def __init__(self, engine: Engine, device: Device, graphs: int = GRAPHS) -> None:
        """Make the contexts.

        Args:
            engine: The loaded engine.
            device: Where it was loaded.
            graphs: How many CUDA graphs to keep; 0 never records any.
        """
        self.layout = engine.layout
        self._device, self._graphs = device, graphs
        self._contexts = [engine.context(number) for number in range(len(self.layout.profiles))]
        self._known: OrderedDict[object, _Run] = OrderedDict()

    @property
    def recorded(self) -> int:
        """How many CUDA graphs there are."""
        return sum(run.queue is not None for run in self._known.values())

    def largest_sizes(self) -> dict[str, int]:
        """Return how many elements each tensor has at most, in any profile."""
        largest: dict[str, int] = {}
        for context, profile in zip(self._contexts, self.layout.profiles, strict=True):
            for name, shape in profile.greatest.items():
                context.resize(name, shape)
                largest[name] = max(largest.get(name, 1), prod(shape))
            for tensor in self.layout.outputs:
                size = prod(context.shape(tensor.name))
                largest[tensor.name] = max(largest.get(tensor.name, 1), size)
        return largest

    def queue(
        self, profile: int, shapes: Mapping[str, Shape], pointers: Mapping[str, int]
    ) -> Mapping[str, Shape]:
        """Queue a run; return the shapes of all tensors.

        Args:
            profile: The number of a profile that holds the shapes; see `Layout.profile_for`.
            shapes: Of every input.
            pointers: Where every tensor lies.
        """
        self._device.claim()
        key = (profile, tuple(shapes.items()), tuple(pointers.items()))
        run = self._known.get(key)
        if run is not None and run.queue is not None:
            self._known.move_to_end(key)
            run.queue()
            return run.shapes
        context = self._contexts[profile]
        for name, pointer in pointers.items():
            context.bind(name, pointer)
        for name, shape in shapes.items():
            context.resize(name, shape)
        if run is None:
            given = {tensor.name: context.shape(tensor.name) for tensor in self.layout.outputs}
            run = self._remember(key, _Run({**shapes, **given}))
        context.enqueue()
        if not run.is_plain and self._graphs:
            self._record(run, context)
        return run.shapes

    def _remember(self, key: object, run: _Run) -> _Run:
        self._known[key] = run
        while len(self._known) > max(self._graphs, 1):
            self._known.popitem(last=False)
        return run

    def _record(self, run: _Run, context: Context) -> None:
        # The run before made whatever is made at the first time; only then can one be recorded.
        self._device.synchronize()
        try:
            run.queue = self._device.recorded(context.enqueue)
        except CaptureError:
            run.is_plain = True
