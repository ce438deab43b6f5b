"""The files of one stage in a run folder, and the log that makes a rerun of a stage safe.

`--overwrite` moves what a stage left into `replaced/NAME/`. A kill at any moment does no harm: the next process
restores it, or continues the new attempt.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from assent.errors import AssentError
from assent.files import write_atomically
from assent.legacy import is_legacy, rewrite_result, translate_lines, translate_result, translate_settings

LOG = "before.json"


class Restored(NamedTuple):
    """What was moved back."""

    settings: dict[str, Any] | None
    """The stage's table in the recipe; None: it had none."""
    has_files: bool
    """Whether the stage had left any files."""


class _Lines(NamedTuple):
    of_stage: list[str]
    of_other_stages: list[str]


@dataclass(frozen=True)
class StageFiles:
    """The files of a stage in a round, by its key (`ppo-2`)."""

    folder: Path
    key: str

    @property
    def outputs(self) -> dict[str, Path]:
        """Return the checkpoint, the resumable state, and the result, which comes last: it marks the stage as done."""
        return {
            "model": self.folder / self.key,
            "state": self.folder / "state" / self.key,
            "result": self.folder / "done" / f"{self.key}.json",
        }

    @property
    def has_outputs(self) -> bool:
        """Return whether the stage has left any file."""
        return any(path.exists() for path in self.outputs.values())

    def read_result(self) -> dict[str, Any] | None:
        """Return what the finished stage reported; None: it has not finished.

        Raises:
            AssentError: the file is broken.
        """
        path = self.outputs["result"]
        return read_result(path) if path.exists() else None

    def write_result(self, text: str) -> None:
        """Mark the stage as finished; what it replaced and its resumable state are no longer needed."""
        shutil.rmtree(self._aside, ignore_errors=True)
        write_atomically(self.outputs["result"], text)
        shutil.rmtree(self.outputs["state"], ignore_errors=True)

    @property
    def is_moved_aside(self) -> bool:
        """Return whether earlier files of the stage are in `replaced/`."""
        return self._aside.exists()

    def delete_outputs(self) -> None:
        """Delete the folders of the stage."""
        for path in self.outputs.values():
            shutil.rmtree(path, ignore_errors=True)

    def move_aside(self, settings: Mapping[str, Any] | None) -> None:
        """Move the files and the metrics of the stage into `replaced/`, with its table in the recipe."""
        self._aside.mkdir(parents=True, exist_ok=True)
        existing = {name: path for name, path in self.outputs.items() if path.exists()}
        if not (self._aside / LOG).exists():
            lines = self._metrics()
            log = {"version": 1, "settings": settings, "left": list(existing), "metrics": lines.of_stage}
            write_atomically(self._aside / LOG, json.dumps(log))
            write_atomically(self.folder / "metrics.jsonl", "".join(lines.of_other_stages))
        for name, path in existing.items():
            path.rename(self._aside / name)

    def restore(self) -> Restored | None:
        """Move back what lies in `replaced/`; None: nothing does. `finish_restoring` ends it."""
        if not (self._aside / LOG).exists():
            return None
        log = self._read_log()
        for name, path in self.outputs.items():
            earlier = self._aside / name
            if earlier.exists() or name not in log["left"]:
                shutil.rmtree(path, ignore_errors=True)
            if earlier.exists():
                earlier.rename(path)
        return Restored(log["settings"], bool(log["left"]))

    def finish_restoring(self) -> None:
        """Put the metrics back and delete the log, once the recipe is written."""
        log = self._read_log()
        write_atomically(self.folder / "metrics.jsonl", "".join(self._metrics().of_other_stages + log["metrics"]))
        shutil.rmtree(self._aside)

    @property
    def _aside(self) -> Path:
        return self.folder / "replaced" / self.key

    def _read_log(self) -> dict[str, Any]:
        """Return the log; what version 0.1 moved aside is translated."""
        log = read_json(self._aside / LOG)
        if "version" in log:
            return log
        if (self._aside / "result").exists():
            rewrite_result(self.key, self._aside / "result")
        settings = log["settings"]
        return {
            **log,
            "settings": None if settings is None else translate_settings(self.key, settings),
            "metrics": translate_lines("".join(log["metrics"]).splitlines()),
        }

    def _metrics(self) -> _Lines:
        """Return the lines of `metrics.jsonl` of the stage and of the members of its ensemble, and all others."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        prefixes = f'{{"stage": "{self.key}",', f'{{"stage": "{self.key}/'
        of_stage = [line for line in lines if line.startswith(prefixes)]
        return _Lines(of_stage, [line for line in lines if not line.startswith(prefixes)])


def read_result(path: Path) -> dict[str, Any]:
    """Return what a finished stage reported, from `done/NAME.json`.

    Raises:
        AssentError: the file is broken.
    """
    result = read_json(path)
    return translate_result(path.stem, result) if is_legacy(path.parent.parent) else result


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that a stage wrote.

    Raises:
        AssentError: the file is broken.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise AssentError(f"{path} is broken: delete it to do this stage again") from None
    return values
