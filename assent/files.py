"""Files that are whole or not there, and what to say when the disk is full."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from assent.errors import AssentError


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole.

    Raises:
        AssentError: the disk is full, or the file cannot be written; the old file stands.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """The same for what is written in pieces: the file that is yielded becomes `path` when all is written.

    Raises:
        AssentError: the disk is full, or the file cannot be written; the old file stands.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise no_room(error, path) from None
    finally:
        partial.unlink(missing_ok=True)


def no_room(error: OSError, path: Path) -> AssentError:
    """Say in one line why a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AssentError(f"the disk is full: {path} was not written; make room, then give the same command again")
    return AssentError(f"cannot write {path}: {error.strerror or error}")
