"""Back up the feedback while annotators work, verify the copy, or restore one."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from assent.errors import AssentError
from assent.protocols import Tool
from assent.run import Run
from assent.store import backups
from assent.types import NonNegativeInt


@dataclass(frozen=True)
class Backup(Tool):
    """Copy the run's feedback to one file, or restore a copy."""

    positional: ClassVar[str] = "file"

    file: str = ""
    """The file to write; empty: a file in `backups/` of the run's folder, named by the time."""
    keep: NonNegativeInt = 14
    """Copies in `backups/` to keep; 0: all."""
    restore: str = ""
    """A copy to restore, while the server runs or not; the current feedback is copied first."""

    def __call__(self, run: Run, key: str) -> None:
        if self.restore:
            saved = backups.restore(run.store, run.folder, Path(self.restore))
            print(f"{run.store.name} is restored from {self.restore}; the feedback before that: {saved.path}")
            return
        if self.file and Path(self.file).exists():
            raise AssentError(f"{self.file} exists: name another file")
        if self.file:
            copy = backups.Backup(Path(self.file), run.store.copy(Path(self.file)))
        else:
            copy = backups.create(run.store, run.folder, self.keep)
        print(f"{copy.path}: {copy.num_feedback} judgements, verified")
