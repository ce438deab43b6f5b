"""`metrics.jsonl`: one line of JSON for each step of each training stage; a metric that is not finite is null."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assent.files import write_atomically, write_error
from assent.functional.finite import replace_nonfinite
from assent.legacy import is_legacy, translate_metrics

FILE = "metrics.jsonl"


class Jsonl:
    """A writer of `metrics.jsonl`: a step that is repeated after a crash replaces its earlier line."""

    def __init__(self, folder: Path, stage: str, start: int) -> None:
        self._path = folder / FILE
        self._stage = stage
        rows = [row for row in read_metrics(folder) if row["stage"] != stage or row["step"] <= start]
        earlier = [row for row in rows if row["stage"] == stage]
        self._seconds_before = float(earlier[-1]["seconds"]) if earlier else 0.0
        write_atomically(self._path, "".join(map(_to_line, rows)))
        self._started_at = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the line of a step.

        Raises:
            AssentError: the disk is full.
        """
        seconds = round(self._seconds_before + time.monotonic() - self._started_at, 3)
        rounded = {name: float(f"{value:.6g}") for name, value in metrics.items()}
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(_to_line({"stage": self._stage, "step": step, "seconds": seconds, **rounded}))
        except OSError as error:
            raise write_error(error, self._path) from None

    def close(self) -> None:
        """Do nothing: every line is on disk."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return all lines of a run's `metrics.jsonl`, without a line that a crash cut short."""
    path = folder / FILE
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [translate_metrics(row) for row in rows] if is_legacy(folder) else rows


def _to_line(row: Mapping[str, Any]) -> str:
    return json.dumps(replace_nonfinite(row), allow_nan=False) + "\n"
