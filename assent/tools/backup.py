"""A copy of the feedback that is whole, made while people go on answering, and read back before it counts; and back."""

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
    """Copy the run's feedback to one file, or go back to a copy."""

    positional: ClassVar[str] = "file"
    file: str = ""
    """Where to; empty: `backups/` in the run's folder, named by the time."""
    keep: NonNegativeInt = 14
    """How many of the copies in `backups/` stay; 0: all."""

    restore: str = ""
    """A copy to go back to, while the server runs or not; what is there now is copied before."""

    def __call__(self, run: Run, key: str) -> None:
        if self.restore:
            before = backups.restore(run.store, run.folder, Path(self.restore))
            print(f"{run.store.name} is as in {self.restore}; what it was until now: {before.path}")
            return
        if self.file and Path(self.file).exists():
            raise AssentError(f"{self.file} exists: name another file")
        if self.file:
            made = backups.Copy(Path(self.file), run.store.copy(Path(self.file)))
        else:
            made = backups.make(run.store, run.folder, self.keep)
        print(f"{made.path}: {made.length} answers, read back and each as it was stored")
