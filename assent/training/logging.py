"""What a stage measures, written where people and programs look: metrics.jsonl, TensorBoard, a line of the terminal."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from assent.files import no_room, write_atomically
from assent.functional.finite import finite
from assent.training.distributed import is_rank0

QUIET_SECONDS = 5.0
"""Without a terminal, at most one progress line in this many seconds."""


class ProgressBar:
    """Progress with time left: a live bar in a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        self._name, self._total, self._done, self._first = name, total, done, done
        self._start = self._spoke = time.monotonic()
        self._console = Console(file=sys.stderr, quiet=not is_rank0())
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and is_rank0():
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._live.start()
            self._task = self._live.add_task(self._name, total=self._total, completed=self._done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None:
            self._say(f"{self._name}: {self._done}/{self._total} in {_clock(time.monotonic() - self._start)}")

    def advance(self, by: int = 1, note: str = "") -> None:
        self._done += by
        if self._live is not None:
            self._live.update(self._task, advance=by, note=note)
        elif time.monotonic() - self._spoke >= QUIET_SECONDS and self._done < self._total:
            self._spoke = time.monotonic()
            each = (self._spoke - self._start) / max(1, self._done - self._first)
            left = _clock(each * (self._total - self._done))
            self._say(f"{self._name}: {self._done}/{self._total}, {left} left" + (f", {note}" if note else ""))

    def _say(self, line: str) -> None:
        if is_rank0():
            print(line, file=sys.stderr, flush=True)


class MetricsLogger:
    """Writes one line a step; a step that is done again after a crash replaces the line of the first time.

    A metric that is not finite is null.
    """

    def __init__(self, folder: Path, stage: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path, self._stage = folder / "metrics.jsonl", stage
        kept = [line for line in read_metrics(folder) if line["stage"] != stage or line["step"] <= start]
        mine = [line for line in kept if line["stage"] == stage]
        self._before = float(mine[-1]["seconds"]) if mine else 0.0
        write_atomically(self._path, "".join(map(_line, kept)))
        self._board = SummaryWriter(str(folder / "tensorboard" / stage), purge_step=start + 1)
        self._start = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        seconds = round(self._before + time.monotonic() - self._start, 3)
        line = {"stage": self._stage, "step": step, "seconds": seconds, **{k: _short(v) for k, v in metrics.items()}}
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(_line(line))
        except OSError as error:
            raise no_room(error, self._path) from None
        for name, value in metrics.items():
            self._board.add_scalar(f"{self._stage}/{name}", value, step)

    def close(self) -> None:
        self._board.close()


def add(total: dict[str, float], part: Mapping[str, Tensor]) -> None:
    """Add the metrics of a part of a step to those of the step."""
    for name, value in part.items():
        total[name] = total.get(name, 0.0) + float(value)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every line of a run's metrics; a line cut short by a crash is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(finite(row), allow_nan=False) + "\n"


def _short(value: float) -> float:
    return float(f"{value:.6g}")
