"""Rows of Parquet and Arrow files, some at a time: what `datasets` saves, and what the Hugging Face Hub holds."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
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
                for start in range(0, batch.num_rows, BATCH):
                    for row in batch.slice(start, BATCH).to_pylist():
                        yield {field.name: _value(row[field.name], field.type) for field in batch.schema}
        except (OSError, pa.ArrowException) as error:
            raise AssentError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


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


def _value(value: Any, kind: Any) -> Any:
    """A value as JSON spells it; without the keys that an object has only because other rows have them."""
    import pyarrow as pa

    if pa.types.is_struct(kind) and isinstance(value, dict):
        told = {field.name: _value(value[field.name], field.type) for field in kind}
        return {key: each for key, each in told.items() if each is not None}
    if pa.types.is_map(kind) and isinstance(value, list):
        return {str(key): _value(each, kind.item_type) for key, each in value}
    if isinstance(value, list):
        return [_value(each, kind.value_type) for each in value]
    if isinstance(value, str) and getattr(kind, "extension_name", "") == "arrow.json":
        return json.loads(value)
    match value:
        case bytes():  # what is no text is refused where it is read, as half a character
            return value.decode("utf-8", "surrogateescape")
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return float(value)
        case None | str() | bool() | int() | float():
            return value
    return str(value)
