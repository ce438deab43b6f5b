"""Data parallelism: several processes take one step together, each on its share of the batches.

The parts of a step add up exactly as they do in one process (`assent.batch`), so only the time changes. `torchrun
--nproc-per-node 2 -m -- assent ...` starts the processes; rank 0 alone writes files.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from assent.errors import AssentError, Waiting

T = TypeVar("T")


class _Mode:
    """The mode of this process."""

    is_collective = False
    """All processes run the same stage, and share its work."""
    is_alone = False
    """Rank 0 works while the others wait."""


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group, if torchrun started several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # the others wait while rank 0 generates, labels and evaluates alone: days, if humans label
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=7))
    try:
        yield
        dist.barrier()  # no process leaves while others still communicate
    finally:
        dist.destroy_process_group()


@contextmanager
def collective() -> Iterator[None]:
    """Share work between the processes within the context; outside, each process works alone."""
    before = _Mode.is_collective
    _Mode.is_collective = True
    try:
        yield
    finally:
        _Mode.is_collective = before


def is_rank0() -> bool:
    """Return whether this is the process that writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def rank() -> int:
    """Return the number of this process among those that share the work."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Return how many processes share the work."""
    return dist.get_world_size() if _Mode.is_collective and dist.is_initialized() else 1


def shard(items: Sequence[T]) -> list[T]:
    """Return this process's share of the items."""
    return list(items[rank() :: world_size()])


def all_reduce(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, in order of rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def reduce_dict(metrics: dict[str, float]) -> dict[str, float]:
    """Sum metrics over the processes, name by name."""
    total: dict[str, float] = {}
    for rank_metrics in all_gather(metrics):
        for name, value in rank_metrics.items():
            total[name] = total.get(name, 0.0) + value
    return total


def on_rank0(work: Callable[[], T]) -> T:
    """Run a function on rank 0; every process returns its result, or raises its error.

    Any other exception is raised on rank 0 alone, and the other processes wait until they are ended.

    Raises:
        AssentError: `work` raises it.
        Waiting: `work` raises it.
    """
    if not dist.is_initialized() or _Mode.is_alone:
        return work()
    outcome: list[Any] = [None]
    if is_rank0():
        before = _Mode.is_collective
        _Mode.is_collective = False
        _Mode.is_alone = True
        try:
            outcome = [(work(), None)]
        except (AssentError, Waiting) as error:
            outcome = [(None, error)]
        finally:
            _Mode.is_collective = before
            _Mode.is_alone = False
    dist.broadcast_object_list(outcome)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    result: T = value
    return result
