"""What went wrong and what to do about it, in one line."""

import difflib
import os
import sys
from collections.abc import Iterable


class AssentError(Exception):
    """A mistake that the person at the keyboard can mend: printed as one line, exit status 2."""


class Waiting(Exception):
    """Nothing is wrong and something is missing, such as people's answers; the same command goes on later."""


STOPPED = "assent: stopped; the same command goes on from what is saved"
"""What is said after Ctrl-C."""


def warn(line: str) -> None:
    """Tell the person something that does not stop the work; of several processes that share it the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {line}", file=sys.stderr, flush=True)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or the list of known words if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
