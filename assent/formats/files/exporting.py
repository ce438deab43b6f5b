"""Write records to a file; each row is read back before it is written, so that a file never alters a record."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from assent.errors import AssentError, did_you_mean
from assent.feedback.demonstration import Demonstration
from assent.files import replacing
from assent.formats import Format, Record, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import anonymised
from assent.formats.files.columns import answer_texts, decode_row, meta_columns, meta_object
from assent.formats.files.results import ExportResult
from assent.formats.files.rows import write_rows
from assent.formats.files.sniffing import FORMATS, match_format
from assent.records import (
    Completion,
    Example,
    Feedback,
    Preference,
    Prompt,
    Purpose,
    RankedCompletions,
    Response,
    ScoredCompletion,
    SFTExample,
    SkippedRow,
)
from assent.store.database import Store

CHUNK_TASKS = 1_000
"""Tasks in memory together."""
RECORD_NAMES: dict[type, str] = {
    Prompt: "prompt",
    Preference: "preference",
    RankedCompletions: "ranking",
    ScoredCompletion: "scored completion",
    SFTExample: "demonstration",
    TaskWithJudgements: "task",
}
NOT_LOSSLESS = "reading this format would return a different record"


def iter_tasks(store: Store, purpose: Purpose | None = None) -> Iterator[TaskWithJudgements]:
    """Yield the tasks of a store in the order of arrival, each with its feedback that is not superseded.

    Of all feedback only ids are kept in memory.
    """
    ids_by_task: dict[str, list[str]] = {}
    for event in store.feedback(current=True):
        ids_by_task.setdefault(event.task, []).append(event.id)
    tasks = store.tasks(purpose)
    while chunk := list(islice(tasks, CHUNK_TASKS)):
        prompts = {prompt.id: prompt for prompt in store.prompts(ids=(task.prompt for task in chunk))}
        item_ids = {item for task in chunk for item in task.items}
        items = {item.id: item for item in store.responses(ids=item_ids)}
        event_ids = [event_id for task in chunk for event_id in ids_by_task.get(task.id, ())]
        events = {event.id: event for event in store.feedback(ids=event_ids)}
        for task in chunk:
            feedback = tuple(events[event_id] for event_id in ids_by_task.get(task.id, ()))
            yield TaskWithJudgements(prompts[task.prompt], tuple(items[item] for item in task.items), task, feedback)


def write_file(
    records: Store | Iterable[Example | Prompt | TaskWithJudgements],
    path: str | Path,
    format: str,
    progress: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> ExportResult:
    """Write examples, prompts, tasks or a whole store; gzipped if the name ends in `.gz`.

    What a format cannot hold is skipped and named by its position.

    Args:
        progress: wraps the iterator of records, to show how many are done.

    Raises:
        AssentError: an unknown format, a store in a format of examples, or a file that cannot be written.
    """
    path = Path(path)
    skipped: list[SkippedRow] = []
    if format not in FORMATS:
        raise AssentError(f"no format '{format}'{did_you_mean(format, FORMATS)}")
    reader = FORMATS[format]
    numbered = progress(_number_records(records, reader))
    rows = chain.from_iterable(_encode(number, record, reader, skipped) for number, record in numbered)
    with replacing(path) as file:
        if path.suffix == ".gz":
            # No time in the header: equal examples make equal bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                num_rows = write_rows(cast(BinaryIO, packed), rows, reader.shape, reader.order_columns)
        else:
            num_rows = write_rows(file, rows, reader.shape, reader.order_columns)
    return ExportResult(num_rows, tuple(skipped))


def _number_records(records: Store | Iterable[Any], reader: Format) -> Iterator[tuple[int, Any]]:
    if isinstance(records, Store):
        return enumerate(_records_of(records, reader), 1)
    if reader.lossless:
        raise AssentError("the format 'events' is for a whole store, the others are for examples, prompts and tasks")
    return enumerate(records, 1)


def _records_of(store: Store, reader: Format) -> Iterable[Any]:
    if reader.lossless:
        return chain(store.prompts(), store.responses(), store.tasks(), store.feedback())
    if TaskWithJudgements in reader.record_types:
        return iter_tasks(store)
    if Prompt in reader.record_types:
        return store.prompts()
    raise AssentError("this format holds examples: make them of the store with preferences.convert.load_examples")


def _encode(number: int, record: Any, reader: Format, skipped: list[SkippedRow]) -> Iterator[Row]:
    """Yield the rows of a record, if they return it when they are read."""
    if reader.lossless:
        yield from reader.encode(record)
    elif isinstance(record, TaskWithJudgements) and TaskWithJudgements in reader.record_types:
        yield from _encode_task(record, reader, skipped)
    else:
        try:
            row = _encode_example(record, reader)
        except AssentError as error:
            skipped.append(SkippedRow(f"example {number}", str(error)))
        else:
            yield row


# Examples and prompts


def _encode_example(record: Example | Prompt, reader: Format) -> Row:
    if not isinstance(record, reader.record_types):
        raise AssentError(f"a {RECORD_NAMES[type(record)]}, which this format cannot hold")
    if isinstance(record, Preference) and record.p_chosen < 0.5:
        record = replace(record, chosen=record.rejected, rejected=record.chosen, p_chosen=1 - record.p_chosen)
    prompt = record if isinstance(record, Prompt) else record.prompt
    (row,) = reader.encode(record)
    extra: dict[str, Any] = {}
    if prompt.category:
        extra["category"] = prompt.category
    if prompt.tools and "tools" in reader.known_keys:
        extra["tools"] = list(prompt.tools)
    row = _add_meta({**row, **extra}, prompt, reader, answer_texts([record]))
    decoded = [entry for entry in _read_back(record, [row], reader) if isinstance(entry, type(record))]
    if [_comparable(entry, reader) for entry in decoded] != [_comparable(record, reader)]:
        raise AssentError(_missing_key(record, [row]) or NOT_LOSSLESS)
    return row


def _add_meta(row: Row, prompt: Prompt, reader: Format, answers: Collection[str]) -> Row:
    """Return a row with the prompt's meta: as columns, unless these would change the format that is detected."""
    if not prompt.meta or not reader.writes_meta:
        return row
    columns = {**row, **meta_columns(prompt, _reserved_keys(), answers)} if reader.known_keys else row
    has_same_format = match_format(columns, FORMATS) == match_format(row, FORMATS)
    if columns is not row and has_same_format:
        return columns
    return {**row, **meta_object(prompt.meta)}


@cache
def _reserved_keys() -> frozenset[str]:
    return frozenset(chain.from_iterable(reader.known_keys for reader in FORMATS.values()))


def _comparable(record: Any, reader: Format) -> Any:
    """Return a record without its origin; without its meta, where the format does not hold meta."""
    if isinstance(record, Prompt):
        return _comparable_prompt(record, reader)
    return replace(record, prompt=_comparable_prompt(record.prompt, reader), feedback_ids=())


def _comparable_prompt(prompt: Prompt, reader: Format) -> Prompt:
    return replace(prompt, source="", meta=prompt.meta if reader.writes_meta else {})


def _read_back(record: Any, rows: list[Row], reader: Format) -> list[Record | SkippedRow | Remark]:
    try:
        return [decoded for row in rows for decoded in decode_row(reader, row, "").records]
    except AssentError as error:
        raise AssentError(_missing_key(record, rows) or str(error)) from None


def _missing_key(record: Prompt | Example | TaskWithJudgements, rows: list[Row]) -> str:
    """Return which part of a record is not in its rows; empty: none that is known."""
    prompt = record if isinstance(record, Prompt) else record.prompt
    completions: list[Completion | Response] = []
    match record:
        case Preference():
            completions = [record.chosen, record.rejected]
        case RankedCompletions():
            completions = [completion for tier in record.tiers for completion in tier]
        case ScoredCompletion() | SFTExample():
            completions = [record.completion]
        case TaskWithJudgements():
            judgements = [event.judgement for event in record.feedback]
            demonstrations = [judgement for judgement in judgements if isinstance(judgement, Demonstration)]
            completions = [*record.items, *(_to_completion(judgement) for judgement in demonstrations)]
    written = json.dumps(rows)
    keys = [key for message in (*prompt.messages, *completions) for key in message.extra if key not in written]
    if keys:
        return f"a message with '{keys[0]}', which this format cannot hold"
    return "a prompt with tools, which this format cannot hold" if prompt.tools and "tools" not in written else ""


def _to_completion(demonstration: Demonstration) -> Completion:
    return Completion(demonstration.text, extra=json.loads(demonstration.extra or "{}"))


# Tasks


def _encode_task(record: TaskWithJudgements, reader: Format, skipped: list[SkippedRow]) -> Iterator[Row]:
    """Yield the rows of a task with its feedback; if not all of it returns, those of each event that does."""
    try:
        yield from _task_rows(record, reader)
        return
    except AssentError as error:
        if len(record.feedback) < 2:
            name = f"judgement {record.feedback[0].id}" if record.feedback else f"task {record.task.id}"
            skipped.append(SkippedRow(name, str(error)))
            return
    for event in record.feedback:
        yield from _encode_task(record._replace(feedback=(event,)), reader, skipped)


def _task_rows(record: TaskWithJudgements, reader: Format) -> list[Row]:
    """Return the rows of a task.

    Raises:
        AssentError: reading them would return something else.
    """
    is_table = reader.shape == "table"
    answers = answer_texts([record])
    rows = [row if is_table else _add_meta(row, record.prompt, reader, answers) for row in reader.encode(record)]
    events: Counter[Feedback] = Counter()
    prompt = _comparable_prompt(record.prompt, reader)
    for decoded in _read_back(record, rows, reader):
        if isinstance(decoded, SkippedRow):
            raise AssentError(_missing_key(record, rows) or decoded.reason)
        if isinstance(decoded, Remark):
            continue
        assert isinstance(decoded, TaskWithJudgements)
        is_same = decoded.task == record.task and _comparable_prompt(decoded.prompt, reader) == prompt
        if not is_same or {item.id for item in decoded.items} != {item.id for item in record.items}:
            raise AssentError(_missing_key(record, rows) or NOT_LOSSLESS)
        events.update(decoded.feedback)
    if events != Counter(map(anonymised, record.feedback)):
        raise AssentError(_missing_key(record, rows) or NOT_LOSSLESS)
    return rows
