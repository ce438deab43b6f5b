"""Several processes take one step together: each does its share of the parts, and what they made is added up.

Parts of a step add up exactly as they do in one process (`assent.batch`), so that sharing them out changes nothing but
the time. `torchrun --nproc-per-node 2 -m -- assent ...` starts the processes; the first of them alone writes files.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from assent.errors import AssentError

T = TypeVar("T")


class _Here:
    """What this process is doing."""

    together = False
    """It is in a stage that all of them go through."""
    alone = False
    """It does something while the others wait."""


@contextmanager
def process_group() -> Iterator[None]:
    """Meet the other processes, if torchrun started any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # the others wait while the first one draws, labels and evaluates by itself
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=7))
    try:
        yield
        dist.barrier()  # nobody hangs up while others still talk
    finally:
        dist.destroy_process_group()


@contextmanager
def collective() -> Iterator[None]:
    """Share work out in here; outside, every process is on its own."""
    before, _Here.together = _Here.together, True
    try:
        yield
    finally:
        _Here.together = before


def is_rank0() -> bool:
    """Whether this is the process that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def rank() -> int:
    """Which of the processes that share the work this one is."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if _Here.together and dist.is_initialized() else 1


def shard(items: Sequence[T]) -> list[T]:
    """This process's share."""
    return list(items[rank() :: world_size()])


def all_reduce(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_gather(thing: T) -> list[T]:
    """What each process has, in order of rank."""
    if world_size() == 1:
        return [thing]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, thing)
    return found


def reduce_dict(metrics: dict[str, float]) -> dict[str, float]:
    """Add numbers up over the processes, name by name."""
    total: dict[str, float] = {}
    for each in all_gather(metrics):
        for name, value in each.items():
            total[name] = total.get(name, 0.0) + value
    return total


def on_rank0(work: Callable[[], T]) -> T:
    """Have the first process do something; all of them return what came of it, or raise what it raised.

    Raises:
        AssentError: whatever `work` raises.
    """
    if not dist.is_initialized() or _Here.alone:
        return work()
    told: list[Any] = [None]
    if is_rank0():
        before, _Here.together, _Here.alone = _Here.together, False, True
        try:
            told = [(work(), None)]
        except AssentError as error:
            told = [(None, str(error))]
        finally:
            _Here.together, _Here.alone = before, False
    dist.broadcast_object_list(told)
    value, reason = told[0]
    if reason is not None:
        raise AssentError(reason)
    result: T = value
    return result
