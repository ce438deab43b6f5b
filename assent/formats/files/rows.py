"""Rows of a file one after the other, JSON lines, an array or a table, gzipped or not: what was passed on is let go."""

import codecs
import csv
import gzip
import io
import json
import re
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, TextIO, cast

from assent.errors import AssentError
from assent.formats import HALF, Row, Shape
from assent.formats.files import arrow
from assent.formats.files.splits import OBJECT, Place, is_split

PIECE = 1 << 20
"""Letters of an array that are looked at together."""
CELL = 1 << 24
"""Letters of the longest cell of a table: beyond it a quotation mark was never closed."""
FORMULA = re.compile("'*[=+\\-@\t\r\n\0＝＋－＠]")
"""What a spreadsheet might take for a formula, behind any number of apostrophes."""
SPACE = re.compile(r"[ \t\n\r]*")
SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The line in front of the header by which Excel is told what parts the cells."""
WESTERN = 0.2
"""Share of letters beyond ASCII under which a file of one byte a letter is likely Western European."""

OF_MESSAGES = "messages."
"""What the name of a key begins with that is one of messages, not of rows."""

Layout = Literal["lines", "array", "object", "splits", "table", "arrow"]
"""How a file is laid out; an object is one that stands over several lines, splits are one of several arrays."""


class Line(NamedTuple):
    """A row and where it stands; or why it is none."""

    where: str  # file:line, or file:row of an array
    row: Row | None
    reason: str
    piece: Any

    @property
    def raw(self) -> str:
        """The row as it stood."""
        if isinstance(self.piece, bytes):
            return self.piece.decode(errors="replace")
        return self.piece if isinstance(self.piece, str) else json.dumps(self.piece)


def layout(path: Path, table: bool) -> Layout:
    """Find out how a file is laid out; an array or a packed file is read to its end for that.

    Args:
        table: whether it is known to be one.

    Raises:
        AssentError: a file that cannot be read.
    """
    with _opened(path) as file:
        head, packed = file.read(PIECE).lstrip(), isinstance(file, gzip.GzipFile)
        found: Layout = "table" if table else "lines"
        if not table and (head.startswith((b"[", b"{\n", b"{\r\n")) or OBJECT.match(head)):
            _rewind(file)
            try:
                if head.startswith(b"["):
                    deque(_elements(file), maxlen=0)
                    found = "array"
                else:
                    found = "splits" if is_split(json.load(file)) else "object"
            except (ValueError, RecursionError):
                pass  # a file of lines whose first is broken
        while packed and file.read(PIECE):
            pass
        return found


def demand_utf8(path: Path, name: str) -> None:
    """Refuse a file that is in another encoding, whole: else exactly the rows with accents would go.

    Raises:
        AssentError: it is not UTF-8; which encoding is likely, and what to do.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, piece = 1, b""
    with _opened(path) as file:
        try:
            while piece := file.read(PIECE):
                decoder.decode(piece)
                line += piece.count(b"\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            # What the decoder kept of the piece before is in `error.object` too.
            line += error.object.count(b"\n", 0, error.start) if piece else 0
            _rewind(file)
            likely = _likely_encoding(file.read(PIECE))
            raise AssentError(_not_utf8(name, line, error.object[error.start], likely)) from None


def _not_utf8(name: str, line: int, byte: int, likely: str) -> str:
    if likely.startswith("utf-16"):
        what = f"{name} is UTF-16: save it as UTF-8 (a spreadsheet calls that 'CSV UTF-8')"
        return f"{what}, or import it with --encoding {likely}"
    what = f"{name} is not UTF-8 (byte 0x{byte:02x} in line {line})"
    if not likely:
        return f"{what}: save it as UTF-8, or import it with --encoding and its name (windows-1251, gb18030, shift_jis)"
    how = f"import it with --encoding {likely}, or convert it: iconv -f {likely} -t utf-8"
    return f"{what}, likely {likely}: {how}"


def _likely_encoding(head: bytes) -> str:
    """UTF-16 or windows-1252, if it looks like one of them."""
    if head.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        return "utf-16"
    beyond = sum(byte > 127 for byte in head)
    letters = sum(byte > 127 or chr(byte).isalpha() for byte in head)
    unused = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    return "windows-1252" if beyond < WESTERN * letters and unused.isdisjoint(head) and 0 not in head else ""


def recode(path: Path, name: str, encoding: str, out: IO[bytes]) -> None:
    """Write a file, unpacked, as UTF-8.

    Raises:
        AssentError: an encoding that nobody knows, or in which the file is not.
    """
    try:
        with _opened(path) as file:
            source = io.TextIOWrapper(file, encoding, newline="")
            try:
                while piece := source.read(PIECE):
                    out.write(piece.encode())
            finally:
                source.detach()
    except LookupError:
        raise AssentError(f"no encoding '{encoding}': name one such as utf-8, windows-1252 or utf-16") from None
    except UnicodeError as error:
        raise AssentError(f"{name} is not {encoding}: {error}") from None


def splits_of(path: Path) -> list[str]:
    """The names of the splits that a file holds."""
    with _opened(path) as file:
        return list(json.load(file))


def rows_of(place: Place, how: Layout) -> Iterator[Line]:
    """The rows of a place, as `rows` gives those of a file."""
    if how != "arrow":
        yield from rows(place.paths[0], place.name, how, place.split)
        return
    for number, row in enumerate(arrow.rows(place.paths), 1):
        yield Line(f"{place.name}:row {number}", row, "", row)


def rows(path: Path, name: str, how: Layout, split: str = "") -> Iterator[Line]:
    """The rows of a file called `name`, or of one of its splits; blank lines are none.

    Raises:
        AssentError: a file that cannot be read, or a table without a header.
    """
    with _opened(path) as file:
        if how == "table":
            yield from _table(file, name)
        elif how == "array":
            for number, element in enumerate(_elements(file), 1):
                yield _line(f"{name}:row {number}", element)
        elif how == "splits":
            for number, element in enumerate(json.load(file)[split], 1):
                yield _line(f"{name}:row {number}", element)
        elif how == "object":
            yield _line(f"{name}:1", json.load(file))
        else:
            # Split as bytes: text would be split at U+2028 and its like too, which may stand inside a JSON string.
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _line(f"{name}:{number}", line.removesuffix(b"\n"))


def without(row: Row, keys: Collection[str]) -> Row:
    """A row without some of its columns, and without those keys of its messages that are named `messages.KEY`."""
    rest = {key: value for key, value in row.items() if key not in keys}
    within = {key.removeprefix(OF_MESSAGES) for key in keys if key.startswith(OF_MESSAGES)}
    return (
        {key: _without(value, within) if key != "tools" else value for key, value in rest.items()} if within else rest
    )


def _without(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_without(each, keys) for each in value]
    if not isinstance(value, dict):
        return value
    if "role" in value or {"from", "value"} <= value.keys():
        return {key: each for key, each in value.items() if key not in keys}
    return {key: _without(each, keys) for key, each in value.items()}


def dump(file: BinaryIO, found: Iterable[Row], shape: Shape, header: Callable[[Iterable[str]], list[str]]) -> int:
    """Write rows, and return how many."""
    if shape == "table":
        return _dump_table(file, found, header)
    count = 0
    for count, row in enumerate(found, 1):
        if shape == "array":
            file.write(b"[\n" if count == 1 else b",\n")
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n" * (shape == "lines"))
    if shape == "array":
        file.write(b"\n]\n" if count else b"[]\n")
    return count


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file, unpacked, behind its byte-order mark."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
            _rewind(file)
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise AssentError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _rewind(file: BinaryIO) -> None:
    file.seek(0)
    if file.read(3) != codecs.BOM_UTF8:
        file.seek(0)


# JSON


def _line(where: str, piece: Any) -> Line:
    """A row of the bytes of a line, or of an element of an array."""
    try:
        row = json.loads(piece.decode()) if isinstance(piece, bytes) else piece
    except (ValueError, RecursionError) as error:
        return Line(where, None, _reason(error), piece)
    if not isinstance(row, dict):
        return Line(where, None, f"not a JSON object but {type(row).__name__}", piece)
    return Line(where, row, "", piece)


def _reason(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"invalid UTF-8 at byte {error.start + 1}"
        case json.JSONDecodeError():
            return f"broken JSON: {error.msg}"
    return f"broken JSON: {type(error).__name__}"


def _elements(file: BinaryIO) -> Iterator[Any]:
    """The elements of a JSON array, parsed as they come.

    Raises:
        ValueError: it is no array, or does not end as one.
    """
    source = io.TextIOWrapper(file, "utf-8", newline="")
    try:
        yield from _parsed(source)
    finally:
        source.detach()


def _parsed(source: TextIO) -> Iterator[Any]:
    scan = json.JSONDecoder().raw_decode
    text, place, last = source.read(PIECE), 0, ""
    marks, may_be_value = "[", False  # what may stand at this place
    while True:
        place = cast(re.Match[str], SPACE.match(text, place)).end()
        if place == len(text):
            text, place = source.read(PIECE), 0
            if not text:
                break
        elif text[place] in marks:
            last = text[place]
            marks, may_be_value = {"[": ("]", True), ",": ("", True), "]": ("", False)}[last]
            place += 1
        elif may_be_value:
            text, place, value = _value(source, text, place, scan)
            yield value
            marks, may_be_value = ",]", False
        else:
            raise ValueError(f"{text[place]!r} in an unfit place")
    if last != "]":
        raise ValueError("the array does not end")


def _value(source: TextIO, text: str, place: int, scan: Callable[[str, int], tuple[Any, int]]) -> tuple[str, int, Any]:
    """The next element; more of the file is read for as long as the text may only have been cut."""
    while True:
        stop, cut = 0, True
        try:
            value, stop = scan(text, place)
            # a number may go on, and "1." or "1e" are as far as a whole one could be read
            cut = isinstance(value, int | float) and not text[stop:].strip("0123456789.eE+-")
        except json.JSONDecodeError as error:
            if error.pos < len(text) - 16 and not error.msg.startswith("Unterminated"):
                raise
        more = source.read(max(PIECE, len(text) - place)) if cut else ""
        if not more:
            if not stop:
                raise ValueError("an element does not end")
            return text, stop, value
        text, place = text[place:] + more, 0


# Tables: RFC 4180


def _table(file: BinaryIO, name: str) -> Iterator[Line]:
    """Rows under the names that the first one gives."""
    lines = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    try:
        first = next((line for line in lines if line.strip()), "")
        named = SEPARATOR.fullmatch(first.removeprefix("\ufeff"))
        # The mark that parts the first line into the most columns.
        mark = named[1] if named else max(",;\t", key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
        lines.seek(0)
        if lines.read(1) != "\ufeff":
            lines.seek(0)
        found = _cells(lines, mark)
        columns: list[str] = []
        for number, cells, reason, raw in found:
            where = f"{name}:{number}"
            if HALF.search(raw):
                reason = "invalid UTF-8"
            if not columns and named and SEPARATOR.fullmatch(raw):
                continue
            if not columns and not reason:
                columns = _columns(cells, where)
            elif not columns:
                raise AssentError(f"{where}: no header: {reason}")
            elif reason or len(cells) != len(columns):
                yield Line(where, None, reason or f"{len(cells)} cells under {len(columns)} columns", raw)
            elif any(cells):
                row = {column: _restored(cell) for column, cell in zip(columns, cells, strict=True) if column}
                yield Line(where, row, "", raw)
    finally:
        lines.detach()


def _columns(cells: list[str], where: str) -> list[str]:
    parts = [cell.partition(":") for cell in cells]
    columns = [before.strip().lower() + mark + after for before, mark, after in parts]
    named = [column for column in columns if column]
    if doubled := sorted({column for column in named if named.count(column) > 1}):
        raise AssentError(f"{where}: the header names '{doubled[0]}' twice: leave one out")
    return columns


def _cells(lines: Iterable[str], mark: str) -> Iterator[tuple[int, list[str], str, str]]:
    """(line on which it begins, cells, what is wrong, the row as it stands) of each row that is not blank."""
    csv.field_size_limit(CELL)  # a setting of the whole process, and the usual one is shorter than some answers
    waiting: deque[str] = deque()
    source, taken, number = iter(lines), list[str](), 1

    def feed() -> Iterator[str]:
        while (line := waiting.popleft() if waiting else next(source, None)) is not None:
            taken.append(line)
            yield line

    reader = csv.reader(feed(), delimiter=mark, strict=True)
    while True:
        cells, reason = list[str](), ""
        taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"broken quotation: {error}"
            if "end of data" in reason or "limit" in reason:
                # What looked like the rest of a cell are rows: they are read again, from the next line on.
                reason = "a quotation mark that is never closed"
                waiting.extendleft(reversed(taken[1:]))
                del taken[1:]
                reader = csv.reader(feed(), delimiter=mark, strict=True)
        if cells or reason:
            yield number, cells, reason, "".join(taken).rstrip("\r\n")
        number += len(taken)


def _dump_table(file: BinaryIO, found: Iterable[Row], header: Callable[[Iterable[str]], list[str]]) -> int:
    """Twice over the rows, since only the last one tells which columns there are."""
    columns: set[str] = set()
    written = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        for row in found:
            columns.update(row)
            kept.write(json.dumps(row) + "\n")
        kept.seek(0)
        names = header(columns)
        out = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(out)
        writer.writerow(names)
        for line in kept:
            row = cast(Mapping[str, str], json.loads(line))
            writer.writerow([_harmless(row.get(column, "")) for column in names])
            written += 1
        out.flush()
        out.detach()
    return written


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; `_restored` takes the apostrophe away again, and no other."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def _restored(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
