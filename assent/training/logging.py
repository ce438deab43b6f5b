"""Progress bar and metrics of a training stage."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from assent.protocols import Logger
from assent.registry import resolve
from assent.training.distributed import is_rank0

SECONDS_BETWEEN_LINES = 5.0
"""Without a terminal, at most one progress line in this many seconds."""


class ProgressBar:
    """Progress with the time left: a live bar in a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, name: str, total: int, completed: int = 0) -> None:
        self._name = name
        self._total = total
        self._completed = completed
        self._completed_before = completed
        self._started_at = self._printed_at = time.monotonic()
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
            self._task = self._live.add_task(self._name, total=self._total, completed=self._completed, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None:
            elapsed = format_seconds(time.monotonic() - self._started_at)
            self._print(f"{self._name}: {self._completed}/{self._total} in {elapsed}")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more units as completed; `note` is printed beside the progress."""
        self._completed += count
        if self._live is not None:
            self._live.update(self._task, advance=count, note=note)
        elif time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES and self._completed < self._total:
            self._printed_at = time.monotonic()
            seconds_per_unit = (self._printed_at - self._started_at) / max(1, self._completed - self._completed_before)
            left = format_seconds(seconds_per_unit * (self._total - self._completed))
            self._print(f"{self._name}: {self._completed}/{self._total}, {left} left" + (f", {note}" if note else ""))

    def _print(self, line: str) -> None:
        if is_rank0():
            print(line, file=sys.stderr, flush=True)


class MetricsLogger:
    """The loggers of a stage: `metrics.jsonl` always, and those that `report_to` names.

    A step that is repeated after a crash replaces the first one.
    """

    def __init__(self, folder: Path, stage: str, start: int, report_to: Sequence[str] = ("tensorboard",)) -> None:
        names = dict.fromkeys(("jsonl", *report_to))
        classes: list[type[Logger]] = [resolve("loggers", name) for name in names]
        self._loggers = [logger(folder, stage, start) for logger in classes]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        for logger in self._loggers:
            logger.log(step, metrics)

    def close(self) -> None:
        """Close all loggers."""
        for logger in self._loggers:
            logger.close()


def add_metrics(total: dict[str, float], metrics: Mapping[str, Tensor]) -> None:
    """Add the metrics of a part of a step to the totals of the step."""
    for name, value in metrics.items():
        total[name] = total.get(name, 0.0) + float(value)


def format_seconds(seconds: float) -> str:
    """Return a duration as `minutes:seconds`."""
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes}:{left:02d}"
