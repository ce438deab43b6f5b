"""Read rows of Parquet and Arrow files in batches: the files of `datasets` and of the Hugging Face Hub."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from assent.errors import AssentError

BATCH = 1_000
"""Rows that are in memory together."""
PARQUET = b"PAR1"
ARROW_FILE = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"
"""The first bytes of each kind of file."""


def is_arrow(path: Path) -> bool:
    """Return whether a file is Parquet or Arrow; false if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith((PARQUET, ARROW_FILE, ARROW_STREAM))
    except OSError:
        return False


def iter_rows(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows of files, one file after the other.

    Raises:
        AssentError: a file cannot be read, or pyarrow is missing.
    """
    for path in paths:
        try:
            import pyarrow as pa
        except ImportError:
            raise AssentError(f"to read {path}, install pyarrow: pip install 'assent[data]'") from None
        try:
            for batch in _batches(path):
                names = batch.schema.names
                for start in range(0, batch.num_rows, BATCH):
                    piece = batch.slice(start, BATCH)
                    for index in range(piece.num_rows):
                        yield {name: _value(column[index]) for name, column in zip(names, piece.columns, strict=True)}
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            reason = str(error).splitlines() or [type(error).__name__]
            raise AssentError(f"cannot read {path}: {reason[0]}") from error


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.memory_map(str(path)) as source:
        head = source.read(8)
        source.seek(0)
        if head.startswith(ARROW_FILE):
            with pa.ipc.open_file(source) as reader:
                yield from map(reader.get_batch, range(reader.num_record_batches))
        elif head.startswith(ARROW_STREAM):
            with pa.ipc.open_stream(source) as reader:
                yield from reader
        else:
            with pq.ParquetFile(source) as reader:
                yield from reader.iter_batches(BATCH)


def _value(scalar: Any) -> Any:
    """Return a value as JSON holds it, without the keys that an object has only because other rows have them."""
    import pyarrow as pa

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {key: value for key, item in scalar.items() if (value := _value(item)) is not None}
    if isinstance(scalar, pa.MapScalar):
        return {str(_value(pair[0])): _value(pair[1]) for pair in scalar.values}
    if isinstance(scalar, pa.ListScalar):  # large ones and those of one length too
        return [_value(item) for item in scalar.values]
    if isinstance(scalar, pa.DictionaryScalar):
        return _value(scalar.value)
    if getattr(kind, "unit", "") == "ns":
        return _nanoseconds(scalar)
    value = scalar.as_py()
    if isinstance(value, str) and getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads(value)
    match value:
        case bytes():  # bytes that are not UTF-8 become unpaired surrogates, which the reader of the field refuses
            return value.decode("utf-8", "surrogateescape")
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return _duration(value // timedelta(microseconds=1), 6)
        case Decimal():
            return float(value)
        case None | str() | bool() | int() | float():
            return value
    return str(value)


def _nanoseconds(scalar: Any) -> str:
    """Return a time or duration of pandas as text: Python's own have no nanoseconds, so three digits are added."""
    import pyarrow as pa

    kind = scalar.type
    if pa.types.is_duration(kind):
        return _duration(scalar.value, 9)
    coarse = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else pa.time64("us")
    microseconds, nanoseconds = divmod(scalar.value, 1000)
    text = pa.scalar(microseconds, coarse).as_py().isoformat(timespec="microseconds")
    end = text.index(".") + 7
    return f"{text[:end]}{nanoseconds:03}{text[end:]}"


def _duration(count: int, digits: int) -> str:
    """Return a count of microseconds or nanoseconds as seconds in ISO 8601."""
    seconds, fraction = divmod(abs(count), 10**digits)
    return f"{'-' * (count < 0)}PT{seconds}.{fraction:0{digits}}S"
