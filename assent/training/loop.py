"""The loop of every training stage: resume, step, log, save; it stops cleanly on Ctrl-C, NaN or a full disk."""

import errno
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.errors import AssentError, Waiting, is_out_of_memory
from assent.files import replacing, write_error
from assent.legacy import translate_state
from assent.models.packing import SharedPrefix
from assent.protocols import Resumable, TrainState
from assent.training.batching import max_batch_tokens
from assent.training.distributed import all_gather, is_rank0
from assent.training.logging import MetricsLogger, ProgressBar
from assent.training.memory_plan import check

SAVE_SHARE = 0.05
"""Without `save_every`, saving takes at most this share of the time..."""
SAVE_SECONDS = 60.0
"""... and happens at most once in this many seconds."""


class Stopped(Exception):
    """Training was interrupted by the user; its state is saved."""


class StepFailed(AssentError):
    """A step of training failed. Its arguments are the reason, and a hint that says where the last state is."""

    @property
    def reason(self) -> str:
        """Return the message without the hint."""
        return str(self.args[0])

    def __str__(self) -> str:
        return "".join(self.args)


def train(
    folder: Path,
    name: str,
    train_states: Mapping[str, TrainState],
    steps: int,
    step: Callable[[int], dict[str, float]],
    prefixes: Sequence[SharedPrefix],
    generation_bytes: int = 0,
    extra_state: dict[str, Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run `step(0) .. step(steps - 1)`, starting after the steps that an earlier process saved.

    Args:
        folder: of the run.
        name: of the stage in this round; the state is saved in `state/name`, and the metrics carry it.
        train_states: what `step` trains, all with the same settings except the learning rate.
        step: does one whole optimizer step (or several) and returns its metrics; its random draws must follow from
            its number alone.
        prefixes: all that is trained on, or the largest that may come: memory is estimated from it.
        generation_bytes: memory that a step takes before there are gradients.
        extra_state: JSON-like values besides the weights that the next step depends on; saved, and restored in place.
        should_stop: asked before each step, the same in all processes; once it is true, training is complete.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, after the running step.
        AssentError: too little memory, NaN, a full disk; the last good state stays on disk.
    """
    training = next(iter(train_states.values())).training
    tokens = max_batch_tokens(prefixes, training.max_tokens_per_batch, training.batch_size)
    check(name, train_states, tokens, generation_bytes)
    run_steps(
        folder, name, train_states, steps, step, extra_state, training.save_every, training.report_to, should_stop
    )


def run_steps(
    folder: Path,
    name: str,
    states: Mapping[str, Resumable],
    steps: int,
    step: Callable[[int], dict[str, float]],
    extra_state: dict[str, Any] | None = None,
    save_every: int = 0,
    report_to: Sequence[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run the steps of anything that can be resumed; see `train`.

    Args:
        save_every: steps between checkpoints; 0: by the clock.
        report_to: loggers besides metrics.jsonl.
    """
    path = folder / "state" / name / "state.pt"
    checkpoint = _Checkpoint(path, states, {} if extra_state is None else extra_state, save_every)
    start = checkpoint.restore()
    all_gather(start)  # all processes have read before the first one writes
    logger = None
    try:
        logger = MetricsLogger(folder, name, start, tuple(report_to)) if is_rank0() else None
        with ProgressBar(name, steps, start) as bar, _stop_signals() as signals:
            for number in range(start, steps):
                if should_stop():
                    break
                metrics = _take_step(name, number, steps, step, checkpoint)
                if logger:
                    logger.log(number + 1, metrics)
                bar.advance(note=_summarise(metrics))
                checkpoint.save_if_due(number + 1)
                if any(all_gather(bool(signals))) and number + 1 < steps:
                    checkpoint.save_once(number + 1)
                    raise Stopped(f"{name} stopped after step {number + 1} of {steps}; the same command resumes there")
    finally:
        for state in states.values():
            state.release()
        if logger:
            logger.close()


def _take_step(
    name: str, number: int, steps: int, step: Callable[[int], dict[str, float]], checkpoint: "_Checkpoint"
) -> dict[str, float]:
    """Take one step; on a failure, save what the steps before it have learned.

    Raises:
        StepFailed: says at which step training stopped, and where the last state is.
    """
    counts = checkpoint.step_counts()
    try:
        return step(number)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f"{name} ran out of memory at step {number + 1} of {steps}: lower --max-tokens-per-batch"
        raise StepFailed(reason, checkpoint.describe()) from None
    except Waiting:
        if counts == checkpoint.step_counts():
            checkpoint.save_once(number)
        raise
    except AssentError as error:
        if counts == checkpoint.step_counts():  # the weights are those of the step before
            checkpoint.save_once(number)
        raise StepFailed(f"{name} stopped at step {number + 1} of {steps}: {error}", checkpoint.describe()) from None


class _Checkpoint:
    """The resumable state of a stage on disk; only the process with rank 0 writes it."""

    def __init__(
        self, path: Path, train_states: Mapping[str, Resumable], extra_state: dict[str, Any], save_every: int
    ) -> None:
        self._path = path
        self._train_states = train_states
        self._extra_state = extra_state
        self._save_every = save_every
        self._saved_step = 0
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0

    def restore(self) -> int:
        """Load the saved state, if there is one, and return the number of steps that it has.

        Raises:
            AssentError: the file is broken, or belongs to another version.
        """
        if not self._path.exists():
            return 0
        state = translate_state(read_state(self._path))
        try:
            for name, train_state in self._train_states.items():
                train_state.restore(state["train_states"][name])
            self._extra_state.update(state["extra_state"])
            self._saved_step = int(state["step"])
        except (KeyError, RuntimeError, ValueError):
            raise AssentError(
                f"{self._path} was saved by another version or for another model: delete it to restart this stage"
            ) from None
        return self._saved_step

    def step_counts(self) -> list[int]:
        """Return how many optimizer steps each model has taken."""
        return [train_state.step_count for train_state in self._train_states.values()]

    def save_if_due(self, step: int) -> None:
        """Save after a number of steps, or by the clock."""
        now = time.monotonic()
        if self._save_every:
            is_due = step % self._save_every == 0
        else:
            is_due = now - self._saved_at >= max(SAVE_SECONDS, self._save_seconds / SAVE_SHARE)
        if is_rank0() and is_due:
            self._save(step)
            self._saved_at = time.monotonic()
            self._save_seconds = self._saved_at - now

    def save_once(self, step: int) -> None:
        """Save the state after `step` steps, unless it is saved already."""
        if self._saved_step < step:
            if is_rank0():
                self._save(step)
            self._saved_step = step

    def describe(self) -> str:
        """Return the end of an error message that says where the last state is."""
        if not self._saved_step:
            return "; nothing was saved yet, so the same command restarts the stage"
        return (
            f"; the state after step {self._saved_step} is saved in {self._path.parent}, the same command resumes there"
        )

    def _save(self, step: int) -> None:
        states = {name: train_state.state() for name, train_state in self._train_states.items()}
        write_state(self._path, {"step": step, "train_states": states, "extra_state": dict(self._extra_state)})
        self._saved_step = step


def _count_bytes(value: Any) -> int:
    """Return the size of all tensors in nested dictionaries and lists."""
    match value:
        case Tensor():
            return value.numel() * value.element_size()
        case dict():
            return sum(_count_bytes(part) for part in value.values())
        case list() | tuple():
            return sum(_count_bytes(part) for part in value)
    return 0


def write_state(path: Path, state: Any) -> None:
    """Write nested dictionaries of tensors and plain values; a reader sees the old file or the whole new one.

    Raises:
        AssentError: it cannot be written; the old file stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < _count_bytes(state):
            raise OSError(errno.ENOSPC, "No space left on device")
        with replacing(path) as file:
            torch.save(state, file)
    except OSError as error:
        raise write_error(error, path) from None
    except RuntimeError as error:  # torch's writer turns a full disk into this
        raise write_error(OSError(errno.ENOSPC, str(error).splitlines()[0]), path) from None


def read_state(path: Path) -> Any:
    """Read what a stopped stage saved.

    Raises:
        AssentError: the file is broken.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # noqa: BLE001 (torch raises many kinds for a broken file)
        raise AssentError(f"{path} is broken ({type(error).__name__}): delete it to restart this stage") from None


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM, so that the running step can finish; a second Ctrl-C interrupts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _summarise(metrics: Mapping[str, float]) -> str:
    names = ("loss", "accuracy", "reward", "kl", "length")
    return " ".join(f"{name} {metrics[name]:.3g}" for name in names if name in metrics)
