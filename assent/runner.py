"""Run one stage in a run folder: skip it if it is done, resume it if it was stopped, keep its result."""

import time
from typing import Any, NamedTuple

import torch

from assent.config import table
from assent.errors import AssentError, Waiting
from assent.files import write_atomically
from assent.loggers.jsonl import read_metrics
from assent.models import card, memory
from assent.protocols import Stage, Tool
from assent.run import Run
from assent.store.database import Counts
from assent.training import distributed
from assent.training.loop import StepFailed, Stopped


def perform(run: Run, command: str, job: Stage | Tool, overwrite: bool = False) -> dict[str, Any]:
    """Run a stage unless it is done, and return its result; a tool (`report`, `export`, ...) runs every time.

    Where torchrun started several processes, they share the work of a `distributed` stage; the first one does any
    other alone.

    Args:
        overwrite: run a stage again that is done; its earlier result is kept until the new one is complete.
    """
    key = run.key(command)
    if isinstance(job, Tool):
        return distributed.on_rank0(lambda: dict(job(run, key) or {}))
    if overwrite:
        distributed.on_rank0(lambda: run.move_aside(command, table(job)))
    attempt = distributed.on_rank0(lambda: _begin(run, command, job))
    run.recipe = attempt.recipe
    if attempt.result is not None:
        return attempt.result
    stage = job.resolve(run)
    memory.tune_allocator()
    memory.release()  # of the stage before
    torch.manual_seed(run.seed)  # for what libraries draw themselves, such as the first weights of LoRA
    start = time.monotonic() - attempt.seconds
    try:
        if stage.distributed:
            with distributed.collective():
                result = stage(run, key)
        else:
            result = distributed.on_rank0(lambda: stage(run, key))
    except Exception as error:
        if distributed.is_rank0():
            _restore(run, command, attempt, error)
        raise
    result["seconds"] = round(time.monotonic() - start, 1)
    result["peak_gb"] = round(memory.peak() / 1e9, 2)
    distributed.on_rank0(lambda: _write_card(run, key, stage, result))
    distributed.on_rank0(lambda: run.finish(command, result))
    return result


class _Attempt(NamedTuple):
    """The state of a stage when a process comes to it."""

    recipe: dict[str, Any]
    result: dict[str, Any] | None
    """What it reported, if it is done."""
    is_new: bool
    """Whether the run did not know its settings."""
    seconds: float
    """Time that stopped processes spent on it."""
    counts: Counts
    """Rows in the store."""


def _begin(run: Run, command: str, stage: Stage) -> _Attempt:
    key = run.key(command)
    if run.result(key) is not None:
        run.restore(command)  # after a kill while an overwritten stage was moved aside
    is_new = run.claim(command, table(stage))
    result = run.result(key)
    if result is not None and stage.is_stale(run, key, result):
        result = None
    lines = read_metrics(run.folder) if (run.folder / "state" / key).exists() else []
    last = {line["stage"]: line["seconds"] for line in lines if line["stage"].partition("/")[0] == key}
    return _Attempt(run.recipe, result, is_new, sum(last.values()), run.store.counts())


def _restore(run: Run, command: str, attempt: _Attempt, error: Exception) -> None:
    """Bring back what a failed attempt was to replace, or forget the settings of one that left nothing."""
    if isinstance(error, Stopped | Waiting):
        return
    if run.restore(command) and isinstance(error, AssentError):
        reason = error.reason if isinstance(error, StepFailed) else str(error)
        raise AssentError(f"{reason}; the earlier result of '{run.key(command)}' is restored") from None
    if attempt.is_new and run.store.counts() == attempt.counts:
        run.unclaim(command)


def _write_card(run: Run, key: str, stage: Stage, result: dict[str, Any]) -> None:
    """Write the card of a policy; a reward model has one already."""
    folder, origin = run.folder / key, stage.origin(run)
    if origin is None or not (folder / "config.json").exists() or (folder / card.CARD_NAME).exists():
        return
    base = origin.base or "random weights"
    base = run.setup.model if base in ("base", *run.models) else base
    data = {name: n for name, n in result.items() if isinstance(n, int) and name not in ("n", "held_out_n", "weights")}
    write_atomically(folder / card.CARD_NAME, card.policy_card(card.ModelOrigin(base, origin.objective, data)))
