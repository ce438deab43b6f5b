"""Print the progress of a command and the reasons of skipped rows; save these rows to a file."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from assent.files import write_error
from assent.records import Preference, RankedCompletions, ScoredCompletion, SFTExample, SkippedRow
from assent.training.logging import ProgressBar

Item = TypeVar("Item")

MAX_REASONS = 8
"""Reasons that are printed; the file of skipped rows has all of them."""
MAX_LOCATIONS = 3
"""Rows that are named for each reason."""
QUIET_SECONDS = 1.0
"""A command that takes longer shows its progress."""
EXAMPLE_NAMES = (
    (Preference, "preferences"),
    (RankedCompletions, "rankings"),
    (ScoredCompletion, "scored completions"),
    (SFTExample, "demonstrations"),
)


def with_progress(items: Iterable[Item], name: str, total: int, size: Callable[[Item], int]) -> Iterator[Item]:
    """Yield the items, and show a progress bar if they take longer than `QUIET_SECONDS`."""
    started = time.monotonic()
    num_done = 0
    bar: ProgressBar | None = None
    with ExitStack() as stack:
        for item in items:
            yield item
            num_done += size(item)
            if bar is not None:
                bar.advance(size(item))
            elif time.monotonic() - started > QUIET_SECONDS:
                bar = stack.enter_context(ProgressBar(name, total, num_done))


def append_skipped(skipped: Iterable[SkippedRow], path: Path) -> None:
    """Append skipped rows to a file of JSON lines, each once: files with the same name share it.

    Raises:
        AssentError: the disk is full, or the file cannot be written.
    """
    try:
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            hashes = {hash(line.removesuffix("\n")) for line in file}
            for row in skipped:
                line = json.dumps({"location": row.location, "reason": row.reason, "row": row.row})
                if hash(line) not in hashes:
                    file.write(line + "\n")
                hashes.add(hash(line))
    except OSError as error:
        raise write_error(error, path) from None


def format_reasons(skipped: Iterable[SkippedRow]) -> list[str]:
    """Return a line for each reason, the most frequent first: the number of rows, the reason, the first locations."""
    locations_by_reason: dict[str, list[str]] = {}
    for row in skipped:
        locations_by_reason.setdefault(row.reason, []).append(row.location)
    ordered = sorted(locations_by_reason.items(), key=lambda entry: -len(entry[1]))
    lines: list[str] = []
    for reason, locations in ordered[:MAX_REASONS]:
        names = ", ".join(locations[:MAX_LOCATIONS]) + (", ..." if len(locations) > MAX_LOCATIONS else "")
        lines.append(f"{len(locations)}  {printable(reason)[:200]}: {printable(names)}")
    if others := sum(len(locations) for _, locations in ordered[MAX_REASONS:]):
        lines.append(f"{others}  for {len(ordered) - MAX_REASONS} other reasons")
    return lines


def printable(text: str) -> str:
    """Return text with escapes for characters that could confuse a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
