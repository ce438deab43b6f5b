"""Read and write tables, RFC 4180, whose cells no spreadsheet takes for formulas."""

import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from assent.errors import AssentError
from assent.formats import Row
from assent.formats.files.fields import LONE_SURROGATE

MAX_CELL = 1 << 24
"""Characters of the longest cell: a longer one means that a quotation mark was never closed."""
FORMULA = re.compile("'*[=+\\-@\t\r\n\0＝＋－＠]")
"""The beginning of a cell that a spreadsheet might take for a formula, after any number of apostrophes."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The line before the header that tells Excel the separator of cells."""
UNCLOSED = "the quotation mark is never closed: close it, or double it if it is part of the text"


def escape_formula(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula; `unescape_formula` restores it."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """Return a cell without the apostrophe of `escape_formula`; any other apostrophe stays."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


class TableRow(NamedTuple):
    """A row of a table, or the reason why it cannot be read."""

    line: int
    """The first line of the row."""
    row: Row | None
    reason: str
    text: str


class _Cells(NamedTuple):
    """The cells of a row that is not blank."""

    line: int
    cells: list[str]
    reason: str
    text: str


def read_table(file: BinaryIO, name: str) -> Iterator[TableRow]:
    """Yield the rows of a table under the names of its header.

    Raises:
        AssentError: there is no header, it names a column twice, or a quotation mark is never closed.
    """
    lines = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    try:
        first = next((line for line in lines if line.strip()), "")
        named = SEPARATOR_LINE.fullmatch(first.removeprefix("\ufeff"))
        separator = named[1] if named else max(",;\t", key=lambda mark: _count_cells(first, mark))
        lines.seek(0)
        if lines.read(1) != "\ufeff":
            lines.seek(0)
        columns: list[str] = []
        for line, cells, reason, text in _read_cells(lines, separator, name):
            if LONE_SURROGATE.search(text):
                reason = "invalid UTF-8"
            if not columns and named and SEPARATOR_LINE.fullmatch(text):
                continue
            if not columns and not reason:
                columns = _read_header(cells, f"{name}:{line}")
            elif not columns:
                raise AssentError(f"{name}:{line}: no header: {reason}")
            elif reason or len(cells) != len(columns):
                yield TableRow(line, None, reason or f"{len(cells)} cells under {len(columns)} columns", text)
            elif any(cells):
                pairs = zip(columns, cells, strict=True)
                yield TableRow(line, {column: unescape_formula(cell) for column, cell in pairs if column}, "", text)
    finally:
        lines.detach()


def _count_cells(line: str, separator: str) -> int:
    return len(_next_row(csv.reader([line], delimiter=separator)) or [])


def _next_row(reader: Any) -> list[str] | None:
    """Return the next row, None at the end; the limit of a cell is process-wide, so it is restored at once."""
    limit = csv.field_size_limit(MAX_CELL)
    try:
        row: list[str] | None = next(reader, None)
        return row
    finally:
        csv.field_size_limit(limit)


def _read_header(cells: list[str], location: str) -> list[str]:
    parts = [cell.partition(":") for cell in cells]
    columns = [prefix.strip().lower() + colon + axis for prefix, colon, axis in parts]
    named = [column for column in columns if column]
    if repeated := sorted({column for column in named if named.count(column) > 1}):
        raise AssentError(f"{location}: the header names '{repeated[0]}' twice: remove one")
    return columns


def _read_cells(lines: Iterable[str], separator: str, name: str) -> Iterator[_Cells]:
    consumed: list[str] = []

    def record_lines() -> Iterator[str]:
        for line in lines:
            consumed.append(line)
            yield line

    reader = csv.reader(record_lines(), delimiter=separator, strict=True)
    number = 1
    while True:
        cells: list[str] | None = []
        reason = ""
        consumed.clear()
        try:
            cells = _next_row(reader)
        except csv.Error as error:
            if "end of data" in str(error) or "limit" in str(error):
                raise AssentError(f"{name}:{number + _find_unclosed(consumed)}: {UNCLOSED}") from None
            reason = f"broken quotation: {error}"
        if cells is None:
            return
        if cells or reason:
            yield _Cells(number, cells, reason, "".join(consumed).rstrip("\r\n"))
        number += len(consumed)


def _find_unclosed(lines: list[str]) -> int:
    """Return the index of the line with the quotation mark that stays open to the end."""
    is_open = False
    opened_at = 0
    for index, line in enumerate(lines):
        for quotes in re.findall('"+', line):
            if len(quotes) % 2:  # a doubled mark is part of the text
                is_open = not is_open
                if is_open:
                    opened_at = index
    return opened_at


def write_table(file: BinaryIO, rows: Iterable[Row], order_columns: Callable[[Iterable[str]], list[str]]) -> int:
    """Write rows of text under a header, and return how many.

    The rows go through a temporary file, since the last one may add a column.
    """
    columns: set[str] = set()
    count = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as buffer:
        for row in rows:
            columns.update(row)
            buffer.write(json.dumps(row) + "\n")
        buffer.seek(0)
        header = order_columns(columns)
        out = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(out)
        writer.writerow(header)
        for line in buffer:
            cells: dict[str, str] = json.loads(line)
            writer.writerow([escape_formula(cells.get(column, "")) for column in header])
            count += 1
        out.flush()
        out.detach()
    return count
