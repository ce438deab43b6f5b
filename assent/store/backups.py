"""Copies of a store in `backups/`, named by their time; the oldest are deleted."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from assent.store.database import Store

FOLDER = "backups"
SECONDS_PER_DAY = 86400


class Backup(NamedTuple):
    """A copy that was read back and verified."""

    path: Path
    num_feedback: int
    """Events in it."""


def create(store: Store, root: Path, keep: int = 14) -> Backup:
    """Copy a store into `root/backups`, and delete the oldest copies beyond `keep` (0: none)."""
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}.db"
    num_feedback = store.copy(path)
    for old in list_backups(root)[:-keep] if keep else ():
        old.unlink()
    return Backup(path, num_feedback)


def restore(store: Store, root: Path, path: Path) -> Backup:
    """Replace a store by a copy; return the copy that is made of the store before."""
    before = create(store, root, keep=0)
    store.restore(path)
    return before


def list_backups(root: Path) -> list[Path]:
    """Return the copies, the oldest first."""
    return sorted((root / FOLDER).glob("*.db"))


def is_due(store: Store, root: Path) -> bool:
    """Return whether the last copy is a day old and the store has changed since."""
    database = Path(store.name)
    if not database.exists():
        return False  # it is on a server, which has its own copies
    backups = list_backups(root)
    last_copy = backups[-1].stat().st_mtime if backups else 0.0
    last_change = max(file.stat().st_mtime for file in database.parent.glob(f"{database.name}*"))
    return time.time() - last_copy > SECONDS_PER_DAY and last_change > last_copy
