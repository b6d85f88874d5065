"""Data-parallel training on CPU cores: one single-threaded process each, weights averaged often.

Averaging every few steps is local SGD (Stich, "Local SGD Converges Fast and Communicates Little",
2019); two processes of one thread beat one process of two threads on a busy machine.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

AVERAGE_EVERY = 8


@dataclass(frozen=True, slots=True)
class Worker:
    """This process's place among the workers."""

    rank: int
    count: int

    @property
    def leads(self) -> bool:
        """Whether this worker reports, evaluates and saves."""
        return self.rank == 0

    def average(self, module: nn.Module, step: int, *, every: int = AVERAGE_EVERY) -> None:
        """Average the weights over all workers, at every `every`-th step."""
        if self.count == 1 or step % every:
            return
        with torch.no_grad():
            tensors = [t for t in module.state_dict().values() if t.is_floating_point()]
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            flat /= self.count
            for tensor, piece in zip(
                tensors, flat.split([t.numel() for t in tensors]), strict=True
            ):
                tensor.copy_(piece.view_as(tensor))


def run(task: Callable[..., None], workers: int, *args: object) -> None:
    """Call `task(worker, *args)` in `workers` processes at once and wait for all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if workers == 1:
        torch.set_num_threads(1)
        task(Worker(0, 1), *args)
    else:
        spawn(_enter, (workers, port, task, args), nprocs=workers)


def _enter(
    rank: int, count: int, port: int, task: Callable[..., None], args: tuple[object, ...]
) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=count)
    task(Worker(rank, count), *args)
    dist.destroy_process_group()
