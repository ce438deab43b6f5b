"""The results of reading and writing a file."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from assent.records import Example, Feedback, Prompt, Response, SkippedRow, Task


@dataclass(frozen=True)
class ImportResult:
    """The records of a file, for the store and for training, and the rows that were skipped."""

    format: str
    examples: tuple[Example, ...]
    """Made from the feedback; empty for `events`, whose examples `preferences.convert` makes."""
    prompts: tuple[Prompt, ...]
    responses: tuple[Response, ...]
    tasks: tuple[Task, ...]
    feedback: tuple[Feedback, ...]
    skipped: tuple[SkippedRow, ...]
    """Rows and parts of rows."""
    num_rows: int
    """Good and broken rows, without blank lines."""
    num_used: int
    """Rows of which at least a part was good."""
    remarks: tuple[str, ...] = ()
    """Assumptions, once for each judgement."""
    copies: tuple[str, ...] = ()
    """Columns that are no meta because they repeat a response, once for each row."""

    def __str__(self) -> str:
        line = f"{self.num_used} of {self.num_rows} rows read as {self.format}"
        reasons = Counter(row.reason for row in self.skipped).most_common()
        return line + "".join(f"; {count} skipped: {reason}" for reason, count in reasons)


class ExportResult(NamedTuple):
    """The number of rows written, and the records that the format cannot hold."""

    num_rows: int
    skipped: tuple[SkippedRow, ...]


def count_rows(count: int) -> str:
    """Return a number of rows in words."""
    return f"{count} row{'' if count == 1 else 's'}"
