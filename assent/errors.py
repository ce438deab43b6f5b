"""What went wrong and what to do about it, in one line."""

import difflib
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path


class AssentError(Exception):
    """A mistake that the person at the keyboard can mend: printed as one line, exit status 2."""


class Waiting(Exception):
    """Nothing is wrong and something is missing, such as people's answers; the same command goes on later."""


STOPPED = "assent: stopped; the same command goes on from what is saved"
"""What is said after Ctrl-C."""
SPOKEN = 20.0
"""Seconds after which the first process has said what troubles it, if anything does."""
LONGEST = 300
"""Characters of an error's own message that are shown; the log has all of it."""


USER = re.compile(r"(?<=://)\S*@|\b[\w.+-]{1,64}:(?!//)[^\s\"']{0,200}@")
"""The user and password of an address up to its last `@`, since a password may hold one, or a slash."""
PASSWORD = re.compile(
    r"(pass(?:word|wd|phrase)[\"']?\s*[=:](?!=)\s*)(?:(\\?[\"'])(?:\\+.|(?!\2).)*?\2|[^\s&\"']+)", re.IGNORECASE
)
"""A password that is named, as in the parameters of an address or in libpq's `host=h password=secret`."""


class _Here:
    """What this process is doing."""

    folder: Path | None = None


def at_work_in(folder: Path) -> None:
    """Say whose folder a log of what goes wrong belongs in."""
    _Here.folder = folder


def no_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has a kind of error of its own for a GPU, and none for a CPU."""
    kind = type(error).__name__
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error)


def speaks() -> bool:
    """Whether it is for this process to say what went wrong: of those that torchrun started, the first speaks for all.

    Unless it knows of no trouble: torchrun ends all others as soon as one has ended, so who waits longer than it takes
    the first one to speak is alone.
    """
    if os.environ.get("RANK", "0") == "0":
        return True
    try:
        time.sleep(SPOKEN)
    except KeyboardInterrupt:
        return False
    return True


def crashed(error: Exception, words: Iterable[str]) -> int:
    """Write down what nobody foresaw and say in two lines what it is and where; the exit status, 1.

    The log lies in the run's folder or, without one, among the temporary files. Passwords in addresses are left out of
    it. With `ASSENT_DEBUG=1` in the environment the traceback is shown as well.

    Args:
        words: of the command line.
    """
    import traceback

    trace = _discreet("".join(traceback.format_exception(error)))
    log = _log(f"{_circumstances(words)}\n\n{trace}\n")
    if speaks():
        if log is None or os.environ.get("ASSENT_DEBUG", "0") not in ("", "0"):
            print(trace, end="", file=sys.stderr)
        kept = f"{log}, which holds the traceback" if log else "the traceback above; no log could be written"
        reason = " ".join(_discreet(f"{type(error).__name__}: {error}").split())
        print(f"assent: {reason if len(reason) <= LONGEST else reason[:LONGEST] + ' ...'}", file=sys.stderr)
        print(f"assent: this is a fault in assent or in a plug-in: report it with {kept}", file=sys.stderr)
    return 1


def _circumstances(words: Iterable[str]) -> str:
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
            shlex.join(["assent", *map(_discreet, words)]),
            ", ".join([*versions, f"Python {platform.python_version()}", platform.platform()]),
        ]
    )


def _log(text: str) -> Path | None:
    """Where the text is kept, after what is there; None if it can be nowhere."""
    import tempfile

    rank = os.environ.get("RANK", "0")
    try:
        if _Here.folder is not None and _Here.folder.is_dir():
            path = _Here.folder.absolute() / ("error.log" if rank == "0" else f"error-{rank}.log")
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
    """Open a file that nobody else may read."""
    return os.open(path, flags, 0o600)


def _discreet(text: str) -> str:
    """The same without the user and password of any address, such as a database's, and without other passwords."""
    return PASSWORD.sub(r"\1***", USER.sub("***@", text))


def warn(line: str) -> None:
    """Tell the person something that does not stop the work; of several processes that share it the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {line}", file=sys.stderr, flush=True)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or the list of known words if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
