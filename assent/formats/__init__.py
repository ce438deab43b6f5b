"""The protocol of file formats: one file of this package is one format."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from assent.errors import AssentError
from assent.records import Example, Feedback, Prompt, Response, SkippedRow, Task

Row = Mapping[str, Any]
Shape = Literal["lines", "array", "table"]
"""JSON lines, one JSON array, or rows of cells under a header."""


class TaskWithJudgements(NamedTuple):
    """A task, its prompt and items, and the feedback on it."""

    prompt: Prompt
    items: tuple[Response, ...]
    task: Task
    feedback: tuple[Feedback, ...] = ()
    origin_id: str = ""
    """The id of the feedback in its file: equal feedback of one annotator under one id counts once."""


class Remark(NamedTuple):
    """An assumption that was made to read a judgement."""

    text: str


Record = Prompt | Example | TaskWithJudgements | Response | Task | Feedback
"""The records that a row may hold."""


class Format(Protocol):
    """One way to write records as rows: a frozen dataclass with the name of its file."""

    record_types: ClassVar[tuple[type, ...]] = ()
    """The records that it can write; empty: it is only read."""
    shape: ClassVar[Shape] = "lines"
    """How a file is written; lines and arrays are both read."""
    lossless: ClassVar[bool] = False
    """Whether it copies a store with all ids; each record has to refer to records of the same file."""
    judgement_kind: ClassVar[str] = ""
    """The kind of judgement that an example becomes, where the example allows several."""
    is_tabular: ClassVar[bool] = False
    """Whether its rows may also stand under the header of a table."""
    writes_meta: ClassVar[bool] = True
    """Whether rows hold the prompt's meta; false for tools that would show it to labellers."""
    known_keys: ClassVar[frozenset[str]] = frozenset()
    """The keys that `decode` reads; empty where that depends on the row, and `unread_fields` tells."""
    fact_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys that are facts about the prompt, though their names sound like judgements."""
    assumed_annotators: ClassVar[frozenset[str]] = frozenset()
    """Annotators that `decode` knows by the columns alone: the user may name others."""

    def match_score(self, row: Row) -> int:
        """Return how many keys of a row show that it has this format; 0: it has another one."""
        ...

    def unread_fields(self, row: Row) -> Row:
        """Return the fields that `decode` does not read; none for a row that it refuses."""
        return {key: value for key, value in row.items() if key not in self.known_keys} if self.match_score(row) else {}

    def meta_keys(self, row: Row) -> Mapping[str, str]:
        """Return the unread fields that describe the prompt, with the keys under which its meta keeps them."""
        return {field: field for field in self.unread_fields(row)}

    def discarded_keys(self, row: Row) -> Collection[str]:
        """Return the unread keys that repeat what is read, or judge parts of it: no meta, and no reason to stop."""
        return ()

    def keeps_judgement(self, row: Row) -> bool:
        """Return whether `decode` reads a judgement of a response from a row."""
        return True

    def require_unambiguous(self, row: Row) -> None:
        """Check a row before anything of its file is stored.

        Raises:
            AssentError: other rows of the file would be misread.
        """
        return

    def decode(self, row: Row, source: str) -> Iterable[Record | SkippedRow | Remark]:
        """Read the records of a row of the file `source`; a broken part becomes a `SkippedRow` with the reason.

        Raises:
            AssentError: the whole row is broken.
        """
        ...

    def encode(self, record: Any) -> Iterable[Row]:
        """Write a record as rows.

        Raises:
            AssentError: this format cannot hold the record.
        """
        raise AssentError("this format can only be read")

    def gather(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Join the rows (`RawRow`) that hold parts of one record; most formats hold each record in a row."""
        return rows

    def pass_number(self, row: Row) -> int:
        """Return the pass in which to read a row: it may refer to rows of earlier passes anywhere in the file."""
        return 0

    def order_columns(self, columns: Iterable[str]) -> list[str]:
        """Return the columns of a table in the order in which they are written."""
        return sorted(columns)
