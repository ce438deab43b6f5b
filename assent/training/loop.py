"""The loop that every training stage runs in: resume, step, measure, save; stop cleanly on Ctrl-C, NaN, a full disk."""

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

from assent.errors import AssentError, no_memory
from assent.files import no_room, replacing
from assent.models.attention import SharedPrefix
from assent.training.batching import largest
from assent.training.distributed import all_gather, is_rank0
from assent.training.logging import MetricsLogger, ProgressBar
from assent.training.memory_plan import check
from assent.training.replicated import TrainState

SAVE_SHARE = 0.05
"""Saving by the clock takes at most this share of the time..."""
SAVE_SECONDS = 60.0
"""... and happens at most this often."""


class Stopped(Exception):
    """The person asked to stop; the state is saved."""


def train(
    folder: Path,
    name: str,
    trainees: Mapping[str, TrainState],
    steps: int,
    step: Callable[[int], dict[str, float]],
    trees: Sequence[SharedPrefix],
    drawing: int = 0,
    memory: dict[str, Any] | None = None,
) -> None:
    """Run `step(0) .. step(steps - 1)`, from where an earlier process stopped if one did.

    Args:
        folder: the run's.
        name: the stage's name in this round; state lies in `state/name`, metrics carry it.
        trainees: what `step` trains, all by the same settings but the learning rate.
        step: does one whole optimiser step (or several) and returns its metrics; everything random in it must follow
            from its number.
        trees: of all that is trained on, or the largest that may come: what memory is reckoned from.
        drawing: bytes that a step takes before there are gradients.
        memory: JSON-like values beside the weights that the next step depends on; saved and restored in place.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, after the running step.
        AssentError: too little memory, NaN, a full disk; the last good state is kept.
    """
    path = folder / "state" / name / "state.pt"
    memory = {} if memory is None else memory
    training = next(iter(trainees.values())).training
    check(name, trainees, largest(trees, training.max_tokens_per_batch, training.batch_size), drawing)
    start = _restore(path, trainees, memory)
    all_gather(start)  # all have read before the first one writes
    meter = MetricsLogger(folder, name, start) if is_rank0() else None
    saved_at, cost = time.monotonic(), 0.0
    last_saved = start
    try:
        with ProgressBar(name, steps, start) as bar, _polite() as asked:
            for number in range(start, steps):
                before = [trainee.taken for trainee in trainees.values()]
                try:
                    metrics = step(number)
                except (MemoryError, RuntimeError) as error:
                    if not no_memory(error):
                        raise
                    there = f"after step {last_saved}, from the state that is kept" if last_saved else "from the start"
                    raise AssentError(
                        f"{name} ran out of memory at step {number + 1} of {steps}: lower tokens_per_pack; the same "
                        f"command would go on {there}"
                    ) from None
                except AssentError as error:
                    if last_saved < number and before == [trainee.taken for trainee in trainees.values()]:
                        if is_rank0():
                            _save(path, number, trainees, memory)
                        last_saved = number
                    kept = f"; the state after step {last_saved} is kept in {path.parent}" if last_saved else ""
                    raise AssentError(f"{name} stopped at step {number + 1} of {steps}: {error}{kept}") from None
                if meter:
                    meter.log(number + 1, metrics)
                bar.advance(note=_note(metrics))
                now = time.monotonic()
                due = now - saved_at >= max(SAVE_SECONDS, cost / SAVE_SHARE)
                if is_rank0() and ((number + 1) % training.save_every == 0 if training.save_every else due):
                    _save(path, number + 1, trainees, memory)
                    last_saved = number + 1
                    saved_at, cost = time.monotonic(), time.monotonic() - now
                if any(all_gather(bool(asked))) and number + 1 < steps:
                    if is_rank0() and last_saved <= number:
                        _save(path, number + 1, trainees, memory)
                    raise Stopped(
                        f"{name} stopped after step {number + 1} of {steps}; the same command goes on from there"
                    )
    finally:
        for trainee in trainees.values():
            trainee.release()
        if meter:
            meter.close()


def _restore(path: Path, trainees: Mapping[str, TrainState], memory: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    state = read_state(path)
    try:
        for name, trainee in trainees.items():
            trainee.restore(state["trainees"][name])
    except (KeyError, RuntimeError, ValueError):
        raise AssentError(
            f"{path} does not fit, another version kept it: delete it to start this stage again"
        ) from None
    memory.update(state["memory"])
    return int(state["step"])


def read_state(path: Path) -> Any:
    """What a stopped stage kept.

    Raises:
        AssentError: the file is broken.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # noqa: BLE001 (torch raises many kinds for a broken file)
        raise AssentError(f"{path} is broken ({type(error).__name__}): delete it to start this stage again") from None


def _save(path: Path, step: int, trainees: Mapping[str, TrainState], memory: Mapping[str, Any]) -> None:
    state = {name: trainee.state() for name, trainee in trainees.items()}
    needed = sum(t.numel() * 4 * 3 for trainee in state.values() for t in trainee["masters"].values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(errno.ENOSPC, "No space left on device")
        with replacing(path) as file:
            torch.save({"step": step, "trainees": state, "memory": dict(memory)}, file)
    except OSError as error:
        raise no_room(error, path) from None
    except RuntimeError as error:  # torch's writer turns a full disk into this
        raise no_room(OSError(errno.ENOSPC, str(error).splitlines()[0]), path) from None


@contextmanager
def _polite() -> Iterator[list[int]]:
    """Let the running step finish on the first Ctrl-C or SIGTERM; the second Ctrl-C interrupts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(metrics: Mapping[str, float]) -> str:
    words = ("loss", "accuracy", "reward", "kl", "length")
    return " ".join(f"{word} {metrics[word]:.3g}" for word in words if word in metrics)
