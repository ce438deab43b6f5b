"""Errors of a database, in one line each."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from assent.errors import AssentError


class Conflict(AssentError):
    """The same id is stored with another body."""


class Unusable(AssentError):
    """The database cannot be read or written."""


class Busy(Unusable):
    """Another process held the lock for longer than the time-out."""


class DiskFull(Unusable):
    """Nothing more can be stored; what was acknowledged is safe."""


@contextmanager
def translate_errors(name: str, orphan: str = "") -> Iterator[None]:
    """Turn the errors of a database into ours.

    Args:
        name: path or URL of the database, without a password.
        orphan: what to say of a row that names another one which is not stored.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        character = f"U+{ord(error.object[error.start]):04X}"
        raise AssentError(f"text with an unpaired surrogate ({character}) cannot be stored: correct it") from error
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise _translated(str(cause).strip().split("\n")[0], name, orphan) from error


def _translated(message: str, name: str, orphan: str) -> AssentError:
    disk_full = f"no space left for {name}: free some and send again; what was acknowledged is safe"
    translations: tuple[tuple[str, type[AssentError], str], ...] = (
        ("locked", Busy, f"{name} is locked by another process: wait for it or end it, then try again"),
        ("no space left", DiskFull, disk_full),
        ("terminating connection", Busy, f"the server of {name} has closed the connection: try again"),
        ("connection", Busy, f"the server of {name} cannot be reached ({message}): start it, then try again"),
        ("full", DiskFull, disk_full),
        ("malformed", Unusable, f"{name} is damaged ({message}): restore a backup"),
        ("not a database", Unusable, f"{name} is not a database, or damaged: name another file or restore a backup"),
        ("unable to open", Unusable, f"cannot open {name}: check that it is a file that you may write"),
        ("readonly", Unusable, f"cannot write to {name}: change its permissions, or copy it"),
        ("append-only", AssentError, f"{name}: {message}"),
        ("foreign key", AssentError, f"{name}: {orphan}"),
    )
    for words, kind, line in translations:
        if words in message.lower():
            return kind(line)
    return Unusable(f"{name}: {message}")
