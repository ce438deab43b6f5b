"""Read the rows of a file one after the other: JSON lines, a JSON array, a table, Parquet or Arrow."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from assent.formats import Row, Shape
from assent.formats.files import arrow
from assent.formats.files.encoding import PIECE, open_file, rewind
from assent.formats.files.json_document import DocumentLayout, detect_document, iter_values, read_split_names
from assent.formats.files.splits import SPLITS_OBJECT, Location
from assent.formats.files.tables import read_table, write_table

FileLayout = DocumentLayout | Literal["table", "arrow"]
"""The layout of a file: splits are an object of arrays, a document is JSON that is parsed as a whole."""


class RawRow(NamedTuple):
    """A row of a file and its location, or the reason why it cannot be read."""

    location: str  # file:line, or file:row of an array
    row: Row | None
    reason: str
    content: Any
    num_rows: int = 1
    """How many rows of the file a format has joined into this one."""

    @property
    def raw(self) -> str:
        """The text of the row."""
        if isinstance(self.content, bytes):
            return self.content.decode(errors="replace")
        if isinstance(self.content, str):
            return self.content
        try:
            return json.dumps(self.content)
        except RecursionError:
            return ""


# The layout


def detect_layout(path: Path, is_table: bool) -> FileLayout:
    """Find the layout of a file; an array or a gzipped file is read to its end for that.

    Raises:
        AssentError: the file cannot be read.
    """
    with open_file(path) as file:
        head = file.read(PIECE).lstrip()
        layout: FileLayout = "table" if is_table else "lines"
        if not is_table and (head.startswith((b"[", b"{\n", b"{\r\n")) or SPLITS_OBJECT.match(head)):
            rewind(file)
            layout = detect_document(file)
        if isinstance(file, gzip.GzipFile):  # it shows only at its end that it is damaged
            while file.read(PIECE):
                pass
        return layout


def split_names(path: Path, layout: FileLayout) -> list[str]:
    """Return the names of the splits of a file; none if it is not split."""
    if layout == "table" or layout == "arrow":
        return []
    with open_file(path) as file:
        return read_split_names(file, layout)


# The rows


def iter_location(location: Location, layout: FileLayout) -> Iterator[RawRow]:
    """Yield the rows of a location, as `iter_rows` does those of a file."""
    if layout != "arrow":
        for path in location.paths:
            name = location.name if len(location.paths) == 1 else f"{location.name}/{path.name}"
            yield from iter_rows(path, name, layout, location.split)
        return
    for number, row in enumerate(arrow.iter_rows(location.paths), 1):
        yield RawRow(f"{location.name}:row {number}", row, "", row)


def iter_rows(path: Path, name: str, layout: FileLayout, split: str = "") -> Iterator[RawRow]:
    """Yield the rows of a file called `name`, or of one of its splits, without blank lines.

    Raises:
        AssentError: the file cannot be read, or a table has no header or an unclosed quotation mark.
    """
    with open_file(path) as file:
        match layout:
            case "table":
                for row in read_table(file, name):
                    yield RawRow(f"{name}:{row.line}", row.row, row.reason, row.text)
            case "array" | "splits" | "document":
                for number, value in enumerate(iter_values(file, layout, split), 1):
                    yield _raw_row(f"{name}:row {number}", value)
            case _:
                # Split as bytes: text would be split at U+2028 and the like too, which JSON strings may contain.
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _parse_line(f"{name}:{number}", line.removesuffix(b"\n"))


def _parse_line(location: str, line: bytes) -> RawRow:
    try:
        return _raw_row(location, json.loads(line.decode()), line)
    except UnicodeDecodeError as error:
        reason = f"invalid UTF-8 at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        reason = f"broken JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        reason = f"broken JSON: {type(error).__name__}"
    return RawRow(location, None, reason, line)


def _raw_row(location: str, value: Any, line: bytes | None = None) -> RawRow:
    content = value if line is None else line
    if not isinstance(value, dict):
        return RawRow(location, None, f"not a JSON object but {type(value).__name__}", content)
    return RawRow(location, value, "", content)


def write_rows(
    file: BinaryIO, rows: Iterable[Row], shape: Shape, order_columns: Callable[[Iterable[str]], list[str]]
) -> int:
    """Write rows, and return how many."""
    if shape == "table":
        return write_table(file, rows, order_columns)
    count = 0
    for count, row in enumerate(rows, 1):
        if shape == "array":
            file.write(b"[\n" if count == 1 else b",\n")
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n" * (shape == "lines"))
    if shape == "array":
        file.write(b"\n]\n" if count else b"[]\n")
    return count
