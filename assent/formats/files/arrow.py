"""Rows of Parquet and Arrow files, some at a time: what `datasets` saves, and what the Hugging Face Hub holds."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from assent.errors import AssentError

BATCH = 1_000
"""Rows that are held together."""
PARQUET, FILE, STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
"""How a Parquet file, an Arrow file and an Arrow stream begin."""


def is_arrow(path: Path) -> bool:
    """Whether a file that can be read is one of these."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith((PARQUET, FILE, STREAM))
    except OSError:
        return False


def rows(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The rows of files, one file after the other.

    Raises:
        AssentError: a file that cannot be read, or pyarrow is missing.
    """
    for path in paths:
        try:
            import pyarrow as pa
        except ImportError:
            raise AssentError(f'to read {path}, install pyarrow: pip install "assent[parquet]"') from None
        try:
            for batch in _batches(path):
                names = batch.schema.names
                for start in range(0, batch.num_rows, BATCH):
                    piece = batch.slice(start, BATCH)
                    for place in range(piece.num_rows):
                        yield {name: _value(column[place]) for name, column in zip(names, piece.columns, strict=True)}
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            reason = str(error).splitlines() or [type(error).__name__]
            raise AssentError(f"cannot read {path}: {reason[0]}") from error


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.memory_map(str(path)) as source:
        head = source.read(8)
        source.seek(0)
        if head.startswith(FILE):
            with pa.ipc.open_file(source) as reader:
                yield from map(reader.get_batch, range(reader.num_record_batches))
        elif head.startswith(STREAM):
            with pa.ipc.open_stream(source) as reader:
                yield from reader
        else:
            with pq.ParquetFile(source) as reader:
                yield from reader.iter_batches(BATCH)


def _value(scalar: Any) -> Any:
    """A value as JSON spells it; without the keys that an object has only because other rows have them."""
    import pyarrow as pa

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {key: value for key, each in scalar.items() if (value := _value(each)) is not None}
    if isinstance(scalar, pa.MapScalar):
        return {str(_value(pair[0])): _value(pair[1]) for pair in scalar.values}
    if isinstance(scalar, pa.ListScalar):  # large ones and those of one length too
        return [_value(each) for each in scalar.values]
    if isinstance(scalar, pa.DictionaryScalar):
        return _value(scalar.value)
    if getattr(kind, "unit", "") == "ns":
        return _nanoseconds(scalar)
    value = scalar.as_py()
    if isinstance(value, str) and getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads(value)
    match value:
        case bytes():  # what is no text is refused where it is read, as half a character
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
    """A time or duration, pandas' usual ones, finer than Python's own: its last three digits stand behind those."""
    import pyarrow as pa

    kind = scalar.type
    if pa.types.is_duration(kind):
        return _duration(scalar.value, 9)
    coarse = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else pa.time64("us")
    whole, rest = divmod(scalar.value, 1000)
    text = pa.scalar(whole, coarse).as_py().isoformat(timespec="microseconds")
    at = text.index(".") + 7
    return f"{text[:at]}{rest:03}{text[at:]}"


def _duration(count: int, digits: int) -> str:
    """Seconds as ISO 8601 spells them, of a count of microseconds or nanoseconds."""
    whole, rest = divmod(abs(count), 10**digits)
    return f"{'-' * (count < 0)}PT{whole}.{rest:0{digits}}S"
