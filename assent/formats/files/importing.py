"""Read a file, some rows at a time, and insert its records into a store."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from assent.errors import AssentError, warn
from assent.formats import Format, Record, Remark, TaskWithJudgements
from assent.formats.files.annotation import anonymised
from assent.formats.files.builder import Attribution, ReadState, ResultBuilder
from assent.formats.files.columns import decode_row, drop_keys
from assent.formats.files.fields import parse_cells
from assent.formats.files.results import ImportResult
from assent.formats.files.rows import RawRow
from assent.formats.files.sniffing import FORMATS, DetectedFile, sniff
from assent.records import (
    Completion,
    Example,
    Feedback,
    Preference,
    Prompt,
    RankedCompletions,
    ScoredCompletion,
    SFTExample,
    SkippedRow,
)
from assent.store.database import Counts, Store

CHUNK_ROWS = 1_000
"""Rows in memory together."""
RefuseFn = Callable[[Prompt, Sequence[Completion]], str]
"""Returns why a prompt with completions is of no use; empty: it is of use."""


class DecodedRow(NamedTuple):
    """A row and its records; of a broken row, the reason."""

    row: RawRow
    records: Sequence[Record | SkippedRow | Remark]
    copies: Sequence[str] = ()
    """Columns that repeat a response."""


def iter_chunks(
    file: DetectedFile,
    chunk_rows: int | None = CHUNK_ROWS,
    refuse: RefuseFn | None = None,
    attribution: Attribution | None = None,
) -> Iterator[ImportResult]:
    """Read a file some rows at a time; only ids are kept from one chunk to the next.

    Args:
        chunk_rows: rows of a chunk; None: all rows in one chunk.
        refuse: returns why a prompt with completions is of no use; such rows are skipped.
        attribution: who judged, where the file does not say so.
    """
    state = ReadState()
    attribution = (attribution or Attribution())._replace(assumed=file.reader.assumed_annotators)
    lines = file.reader.gather(_iter_passes(file))
    while chunk := list(islice(lines, chunk_rows)):
        yield _build_result(file.format, _decode(chunk, file), file.name, state, file.reader, refuse, attribution)


def read_file(path: str | Path, format: str = "auto", scale: str = "") -> ImportResult:
    """Read a whole file.

    Raises:
        AssentError: the file cannot be read, is empty, or has an unknown format; broken rows are in `skipped`.
    """
    file = sniff(path, format, scale)
    if split := str(file.location):
        warn(f"{path}: {split}")
    return next(iter_chunks(file, None))


def import_file(path: str | Path, store: Store, format: str = "auto", scale: str = "") -> ImportResult:
    """Read a file into the store; a second time changes nothing.

    A preference becomes a comparison of two responses, a scored completion an approval or a rating, an SFT example a
    demonstration. Their annotator and policy are `imported:<file name>`.
    """
    result = read_file(path, format, scale)
    insert(result, store)
    return result


def insert_examples(examples: Iterable[Example], store: Store, source: str) -> ImportResult:
    """Insert examples into the store, as `import_file` would those of a file with the name `source`.

    Raises:
        AssentError: no judgement can stand for an example, such as a preference between equal completions.
    """
    records = list(examples)
    for number, example in enumerate(records, 1):
        if isinstance(example, Preference):
            chosen = replace(example.chosen, finished=example.rejected.finished)
            if chosen == example.rejected:
                raise AssentError(f"example {number} prefers a completion to itself: {example.chosen.text[:60]!r}")
        if isinstance(example, ScoredCompletion) and not 0 <= example.value <= 1:
            raise AssentError(f"example {number} has the score {example.value:g}, not one from 0 to 1")
    rows = (
        DecodedRow(RawRow(f"example {number}", {}, "", ""), (example,)) for number, example in enumerate(records, 1)
    )
    result = _build_result("examples", rows, source, ReadState())
    insert(result, store)
    return result


def insert(result: ImportResult, store: Store) -> Counts:
    """Insert the records of a file, and return how many are new.

    Raises:
        AssentError: the store holds feedback with the same id and another content.
    """
    stored_feedback = {event.id: event for event in store.feedback(ids=(event.id for event in result.feedback))}
    stored_responses = {item.id for item in store.responses(ids=(item.id for item in result.responses))}
    reader = FORMATS.get(result.format)
    # A file of tasks does not name the policies of its responses: a stored response needs no second policy.
    names_policies = reader is None or TaskWithJudgements not in reader.record_types
    return Counts(
        store.add_prompts(result.prompts),
        store.add_responses(item for item in result.responses if names_policies or item.id not in stored_responses),
        store.add_tasks(result.tasks),
        store.add_feedback(event for event in result.feedback if not _is_stored(event, stored_feedback.get(event.id))),
    )


def _is_stored(event: Feedback, stored: Feedback | None) -> bool:
    """Return whether the store holds feedback, although the file may not tell all about it."""
    return stored is not None and anonymised(event) == anonymised(stored)


# Rows into records


def _iter_passes(file: DetectedFile) -> Iterator[RawRow]:
    """Yield the rows of a file; those of later passes wait in a temporary file."""
    later: dict[int, IO[str]] = {}
    for row in file.iter_rows():
        number = file.reader.pass_number(row.row) if row.row is not None else 0
        if not number:
            yield row
            continue
        if number not in later:
            later[number] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed below)
        later[number].write(json.dumps([row.location, row.raw]) + "\n")
    for _, buffer in sorted(later.items()):
        with buffer:
            buffer.seek(0)
            for location, raw in map(json.loads, buffer):
                yield RawRow(location, drop_keys(json.loads(raw), file.ignore), "", raw)


def _decode(rows: Iterable[RawRow], file: DetectedFile) -> Iterator[DecodedRow]:
    has_text_cells = file.layout == "table" and bool(file.reader.known_keys)
    for row in rows:
        if row.row is None:
            yield DecodedRow(row, (SkippedRow("", row.reason),))
            continue
        try:
            values = parse_cells(row.row) if has_text_cells else row.row
            yield DecodedRow(row, *decode_row(file.reader, values, file.name, file.ignore))
        except AssentError as error:
            yield DecodedRow(row, (SkippedRow("", str(error)),))


def _build_result(
    format: str,
    rows: Iterable[DecodedRow],
    source: str,
    state: ReadState,
    reader: Format | None = None,
    refuse: RefuseFn | None = None,
    attribution: Attribution | None = None,
) -> ImportResult:
    builder = ResultBuilder(source, state, reader.judgement_kind if reader else "", attribution or Attribution())
    is_lossless = reader is not None and reader.lossless
    for row, records, copies in rows:
        builder.copies += copies
        is_used = False
        for record in records:
            try:
                _add_record(builder, row, record, is_lossless, refuse)
                is_used = True
            except AssentError as error:
                part = record.location if isinstance(record, SkippedRow) else ""
                location = ", ".join(filter(None, (row.location, part)))
                builder.skipped.append(SkippedRow(location, str(error), row.raw))
        builder.num_rows += row.num_rows
        builder.num_used += row.num_rows * is_used
    return builder.build(format)


def _add_record(builder: ResultBuilder, row: RawRow, record: Any, is_lossless: bool, refuse: RefuseFn | None) -> None:
    if isinstance(record, SkippedRow):
        raise AssentError(record.reason)
    if isinstance(record, Remark):
        builder.remarks.append(record.text)
    elif is_lossless:
        builder.add_event(record)
    else:
        if refuse is not None and (reason := refuse(*_prompt_and_completions(record))):
            raise AssentError(reason)
        builder.add(record, row)


def _prompt_and_completions(record: Record) -> tuple[Prompt, list[Completion]]:
    """Return the prompt of a record, and its completions that may be trained on."""
    match record:
        case Prompt():
            return record, []
        case TaskWithJudgements():
            return record.prompt, [item.completion for item in record.items]
        case Preference():
            return record.prompt, [record.chosen, record.rejected]
        case RankedCompletions():
            return record.prompt, [completion for tier in record.tiers for completion in tier]
        case ScoredCompletion() | SFTExample():
            return record.prompt, [record.completion]
    raise TypeError(f"{type(record).__name__} has no prompt")
