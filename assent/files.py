"""Files and folders that are complete or absent, and the error of a full disk."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from assent.errors import AssentError


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that at any moment it is the old one or the new one, complete.

    Raises:
        AssentError: the disk is full, or the file cannot be written; the old file remains.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` when the block ends without an error.

    Raises:
        AssentError: the disk is full, or the file cannot be written; the old file remains.
    """
    with replacing_file(path) as partial, open(partial, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; the file that is written there becomes `path` when the block ends without an error.

    Raises:
        AssentError: the disk is full, or the file cannot be written; the old file remains.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise write_error(error, path) from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a path beside `folder`; what is written there becomes `folder` when the block ends without an error.

    An error of the block goes through, and leaves the old folder and a partial one, which the next attempt deletes.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_error(error: OSError, path: Path) -> AssentError:
    """Return the error of a file that could not be written, in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AssentError(f"the disk is full: {path} was not written; make room, then give the same command again")
    return AssentError(f"cannot write {path}: {error.strerror or error}")
