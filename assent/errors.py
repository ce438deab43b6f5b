"""Errors in one line: what was found, and what to do."""

import difflib
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path


class AssentError(Exception):
    """An error that the user can correct: printed as one line, exit status 2."""


class Waiting(Exception):
    """Something is still missing, such as judgements; the same command continues later. Exit status 3."""


STOPPED = "assent: stopped; the same command goes on from what is saved"
"""The line after Ctrl-C."""
FIRST_RANK_SECONDS = 20.0
"""Seconds within which the first process has printed its error, if it has one."""
MAX_CHARACTERS = 300
"""Characters of an error message that are printed; the log has all of it."""


USER = re.compile(r"(?<=://)\S*@|\b[\w.+-]{1,64}:(?!//)[^\s\"']{0,200}@")
"""The user and password of an address up to its last `@`, since a password may hold one, or a slash."""
PASSWORD = re.compile(
    r"(pass(?:word|wd|phrase)[\"']?\s*[=:](?!=)\s*)(?:(\\?[\"'])(?:\\+.|(?!\2).)*?\2|[^\s&\"']+)", re.IGNORECASE
)
"""A named password, as in the parameters of an address or in libpq's `host=h password=secret`."""


class _Process:
    """State of this process."""

    log_folder: Path | None = None


def log_into(folder: Path) -> None:
    """Write the log of an unexpected error into this folder."""
    _Process.log_folder = folder


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; torch has an exception class for a GPU, and none for a CPU."""
    kind = type(error).__name__
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error)


def may_print() -> bool:
    """Return whether this process prints the error; of the processes of torchrun, the first one prints for all.

    torchrun ends all processes as soon as one has ended. A process that is still there after the first one has had the
    time to print is the only one with an error, and prints it.
    """
    if os.environ.get("RANK", "0") == "0":
        return True
    try:
        time.sleep(FIRST_RANK_SECONDS)
    except KeyboardInterrupt:
        return False
    return True


def report_crash(error: Exception, words: Iterable[str]) -> int:
    """Log an unexpected error, print two lines about it, and return the exit status, 1.

    The log is written into the run folder or, without one, among the temporary files, without the passwords of
    addresses. With `ASSENT_DEBUG=1` in the environment the traceback is printed as well.

    Args:
        words: the command line.
    """
    import traceback

    trace = _redact("".join(traceback.format_exception(error)))
    log = _write_log(f"{_environment(words)}\n\n{trace}\n")
    if may_print():
        if log is None or os.environ.get("ASSENT_DEBUG", "0") not in ("", "0"):
            print(trace, end="", file=sys.stderr)
        place = f"{log}, which holds the traceback" if log else "the traceback above; no log could be written"
        reason = " ".join(_redact(f"{type(error).__name__}: {error}").split())
        print(
            f"assent: {reason if len(reason) <= MAX_CHARACTERS else reason[:MAX_CHARACTERS] + ' ...'}", file=sys.stderr
        )
        print(f"assent: this is a fault in assent or in a plug-in: report it with {place}", file=sys.stderr)
    return 1


def _environment(words: Iterable[str]) -> str:
    import platform
    import shlex
    from importlib.metadata import PackageNotFoundError, version

    versions = []
    for package in ("assent", "torch", "transformers"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} from its sources")
    return "\n".join(
        [
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            shlex.join(["assent", *map(_redact, words)]),
            ", ".join([*versions, f"Python {platform.python_version()}", platform.platform()]),
        ]
    )


def _write_log(text: str) -> Path | None:
    """Append the text to the log, and return its path; None if no log can be written."""
    import tempfile

    rank = os.environ.get("RANK", "0")
    try:
        if _Process.log_folder is not None and _Process.log_folder.is_dir():
            path = _Process.log_folder.absolute() / ("error.log" if rank == "0" else f"error-{rank}.log")
            with open(path, "a", encoding="utf-8", errors="backslashreplace", opener=_private) as file:
                file.write(text)
            return path
    except OSError:
        pass  # a full disk, most likely; there may be room elsewhere
    try:
        handle, name = tempfile.mkstemp(prefix="assent-error-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name).absolute()


def _private(path: str, flags: int) -> int:
    """Open a file that only this user may read."""
    return os.open(path, flags, 0o600)


def _redact(text: str) -> str:
    """Return the text without the user and password of any address, and without other passwords."""
    return PASSWORD.sub(r"\1***", USER.sub("***@", text))


def warn(line: str) -> None:
    """Print a note that does not stop the work; of the processes of torchrun only the first one prints."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {line}", file=sys.stderr, flush=True)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or the list of known words if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
