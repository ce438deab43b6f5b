"""Copies of a store in `backups/`, named by their time; the oldest make room."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from assent.store.database import Store

FOLDER = "backups"
DAY = 86400


class Copy(NamedTuple):
    """A copy that was read back and audited."""

    path: Path
    length: int
    """Answers in it."""


def make(store: Store, root: Path, keep: int = 14) -> Copy:
    """Copy a store into `root/backups`, and let the oldest copies go beyond `keep` (0: none)."""
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}.db"
    length = store.copy(path)
    for old in made(root)[:-keep] if keep else ():
        old.unlink()
    return Copy(path, length)


def restore(store: Store, root: Path, path: Path) -> Copy:
    """Go back to a copy; what was there until now is copied first, and is the copy that is returned."""
    before = make(store, root, keep=0)
    store.restore(path)
    return before


def made(root: Path) -> list[Path]:
    """The copies there are, the oldest first."""
    return sorted((root / FOLDER).glob("*.db"))


def due(store: Store, root: Path) -> bool:
    """Whether the last copy is a day old and something was stored since."""
    there = made(root)
    if not Path(store.name).exists():
        return False  # on a server, which has its own copies
    last = there[-1].stat().st_mtime if there else 0.0
    changed = max(file.stat().st_mtime for file in Path(store.name).parent.glob(f"{Path(store.name).name}*"))
    return time.time() - last > DAY and changed > last
