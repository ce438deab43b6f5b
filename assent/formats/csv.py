"""A table for spreadsheets, RFC 4180: one judgement a row, with named columns."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count, takewhile
from string import ascii_lowercase
from typing import Any, ClassVar, get_args

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, Shape, TaskWithJudgements
from assent.formats.files.annotation import (
    BOOLEANS,
    Annotation,
    Provenance,
    anonymised,
    format_time,
    parse_verdict,
    pseudonym,
    read_time,
    rescale,
    roundtrip_id,
    source_field,
    to_feedback,
)
from assent.formats.files.fields import read_messages, require, user_turn
from assent.formats.files.layout import OLD_VERSION, TaskLayout, default_kind, parse_task, prompt_fields
from assent.formats.files.sides import PROMPT_KEYS
from assent.records import Completion, Feedback, Source, content_id

RESPONSE = "response"
"""The column of a single response; several are a, b, c, ..."""
PAIR = ("chosen", "rejected")
"""The columns of a pair whose names say which is the better."""
AXIS_PREFIX = "rating:"
JUDGEMENT_COLUMNS = frozenset(
    ("preference", "ranking", "rating", "approved", "correction", "critique", "demonstration")
)
"""A table without any of them holds open tasks."""
SIDE = re.compile(
    r"(?:(?:model|response|answer|completion|output|option|assistant)[-_ ]?)?(?:([a-z])|(\d+)|(left|right))"
)
"""Names of a side in the column `preference` of other tools."""
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
FIRST_COLUMNS = ("prompt", RESPONSE)
LAST_COLUMNS = (
    *("preference", "strength", "certainty", "margin", "ranking", "rating"),
    *("approved", "correction", "critique", "quote", "demonstration", "weight", "comment", "flags"),
    *("annotator", "source", "created_at", "duration", "display_order"),
    *("purpose", "instruction", "category", "truncated", "meta", "task", "id"),
)
"""The columns after the responses, in the order in which they are written."""
OLD_TASK_COLUMN = "query"
"""The column of version 0.1 for `task`."""
TASK_ID = re.compile("[0-9a-f]{20}")
TEXT_COLUMNS = ("correction", "critique", "quote", "demonstration", "comment")
DEFAULTS = Annotation()


@dataclass(frozen=True)
class CSV(Format):
    """Comparisons, rankings, ratings, approvals and texts in one table; empty cells have their defaults."""

    record_types: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    shape: ClassVar[Shape] = "table"

    scale: str = "1-7"
    """Scale of the ratings in the file."""

    def match_score(self, row: Row) -> int:
        columns = (RESPONSE, "a", *PAIR, *JUDGEMENT_COLUMNS)
        has_judgement = any(name in columns or name.startswith(AXIS_PREFIX) for name in row)
        return int(("prompt" in row and has_judgement) or bool(_question_column(row)))

    def unread_fields(self, row: Row) -> Row:
        columns = {"prompt", _question_column(row), *LAST_COLUMNS, *_response_columns(row)}
        columns |= {"system"} if _is_pair(row) else set()
        columns -= {"source"} if _names_data_set(row) else set()
        return {name: cell for name, cell in row.items() if name not in columns and not name.startswith(AXIS_PREFIX)}

    def require_unambiguous(self, row: Row) -> None:
        word = row.get("preference", "").strip().lower()
        if (side := SIDE.fullmatch(word)) and side[2] and not int(side[2]):
            raise AssentError(f"the preference '{word}' counts from 0 while others count from 1: write a or b")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        layout = _read_layout(row, source)
        if not _has_judgement(row) and layout.items:
            if len(layout.items) == 1:
                column = layout.item_names[0]
                raise AssentError(f"no judgement of '{column}': put a text to imitate under 'demonstration'")
            yield layout.to_open_task(default_kind(layout))
            return
        annotation = self._read_annotation(row, layout)
        name = row.get("annotator", "").strip()
        row_id = row.get("id", "").strip()
        timestamp = read_time({"created_at": row.get("created_at", "").strip()}, "created_at")
        provenance = Provenance(
            pseudonym(name) or f"imported:{source}",
            timestamp.created_at,
            _read_cell_number(row, "duration", 0.0),
            row_id,
            # The id of a row may be that of its task: only a row that is equal throughout is the same judgement.
            content_id(sorted(row.items())) if name and row_id else "",
            "" if _names_data_set(row) else row.get("source", "").strip(),
        )
        yield from to_feedback(layout, annotation, provenance)
        yield from timestamp.remarks

    def _read_annotation(self, row: Row, layout: TaskLayout) -> Annotation:
        axes = tuple(
            (name.removeprefix(AXIS_PREFIX) if name != "rating" else "overall", self._read_rating(row, name))
            for name in row
            if (name.startswith(AXIS_PREFIX) or name == "rating") and row[name].strip()
        )
        return Annotation(
            **_read_choice(row, layout),
            **{name: row.get(name, "") for name in TEXT_COLUMNS},
            tiers=_read_tiers(row, layout),
            axes=axes,
            approved=_read_approval(row),
            certainty=_read_cell_number(row, "certainty", DEFAULTS.certainty),
            margin=_read_cell_number(row, "margin", DEFAULTS.margin),
            weight=_read_cell_number(row, "weight", DEFAULTS.weight),
            flags=_read_list(row, "flags"),
        )

    def _read_rating(self, row: Row, name: str) -> float:
        return rescale(_read_cell_number(row, name, 0.0), self.scale)

    def encode(self, record: TaskWithJudgements) -> Iterable[Row]:
        if not record.feedback:
            raise AssentError("a task without a judgement, but each row of a table is a judgement")
        ids = list(record.task.items)
        items = {item.id: item for item in record.items}
        names = [RESPONSE] if len(ids) == 1 else [column_letters(index) for index in range(len(ids))]
        prompt = record.prompt
        shared = {
            "prompt": prompt.text if prompt.is_plain else _to_json(prompt_fields(TaskLayout(prompt))["messages"]),
            **{name: items[item].text for name, item in zip(names, ids, strict=True)},
            "purpose": record.task.purpose,
            "instruction": record.task.instruction,
            "category": prompt.category,
            "truncated": " ".join(name for name, item in zip(names, ids, strict=True) if not items[item].finished),
            "meta": _to_json(dict(prompt.meta)) if prompt.meta else "",
            "task": record.task.id,
        }
        for event in map(anonymised, record.feedback):
            cells = shared | _judgement_cells(event, ids, names)
            yield {name: cell for name, cell in cells.items() if cell or name == "prompt"}

    def order_columns(self, columns: Iterable[str]) -> list[str]:
        present = set(columns)
        responses = list(takewhile(present.__contains__, map(column_letters, count())))
        axes = sorted(name for name in present if name.startswith(AXIS_PREFIX))
        ordered = [*FIRST_COLUMNS, *responses]
        for name in LAST_COLUMNS:
            ordered += [name, *axes] if name == "rating" else [name]
        return [name for name in ordered if name in present]


def column_letters(index: int) -> str:
    """Return the name of a column of a spreadsheet: a .. z, aa, ab, ..."""
    return (column_letters(index // 26 - 1) if index >= 26 else "") + ascii_lowercase[index % 26]


# Write


def _judgement_cells(event: Feedback, ids: list[str], names: list[str]) -> dict[str, str]:
    if not set(event.display_order) <= set(ids):
        raise AssentError("the display order names other items than the task")
    annotation = Annotation.from_feedback(event, ids)
    cells = {
        "preference": names[annotation.preferred] if annotation.preferred is not None else annotation.verdict,
        "ranking": " > ".join(" = ".join(names[index] for index in tier) for tier in annotation.tiers),
        "approved": "" if annotation.approved is None else "yes" if annotation.approved else "no",
        "correction": annotation.correction,
        "critique": annotation.critique,
        "quote": annotation.quote,
        "demonstration": annotation.demonstration,
        "comment": annotation.comment,
        "flags": ", ".join(annotation.flags),
        "annotator": event.annotator,
        **source_field(event),
        "created_at": format_time(event),
        "duration": _format_number(event.duration, 0.0),
        "display_order": " ".join(names[ids.index(item)] for item in event.display_order),
        "id": roundtrip_id(event),
        "certainty": _format_number(annotation.certainty, DEFAULTS.certainty),
        "margin": _format_number(annotation.margin, DEFAULTS.margin),
        "weight": _format_number(annotation.weight, DEFAULTS.weight),
    }
    if annotation.preferred is not None:
        cells["strength"] = str(annotation.strength)
    for axis, value in annotation.axes:
        cells["rating" if axis == "overall" else AXIS_PREFIX + axis] = _format_number(value)
    return cells


def _format_number(value: float, default: float | None = None) -> str:
    return "" if value == default else repr(value)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# Read


def _read_layout(row: Row, source: str) -> TaskLayout:
    if TASK_ID.fullmatch(row.get(OLD_TASK_COLUMN, "")):
        raise AssentError(OLD_VERSION)
    extra: dict[str, Any] = {name: row[name] for name in ("purpose", "instruction", "category") if row.get(name)}
    names = _response_columns(row)
    prompt = _read_prompt(row)
    fields = {"messages": prompt} if isinstance(prompt, list) else {"prompt": prompt}
    completions = {name: Completion(row[name]) for name in names}
    layout = parse_task(fields, {**extra, "is_display_order": False}, source, completions)
    truncated = {layout.index_of(name) for name in _read_list(row, "truncated")}
    items = tuple(
        replace(item, finished=False) if index in truncated else item for index, item in enumerate(layout.items)
    )
    display_order = tuple(layout.index_of(name) for name in _read_list(row, "display_order"))
    if display_order and sorted(display_order) != list(range(len(items))):
        raise AssentError(
            f"'display_order' is '{row['display_order']}', which does not name each of {len(items)} items once"
        )
    layout = replace(layout, items=items, display_order=display_order)
    # Our own files have the responses in the order of their task; in others that order may reveal the better one.
    if not row.get("task"):
        return layout
    ordered = replace(layout, task_order=tuple(range(len(items))))
    is_ours = any(ordered.to_task(kind).id == row["task"] for kind in ("comparison", "ranking", "demonstration"))
    return ordered if is_ours else layout


def _response_columns(row: Row) -> list[str]:
    lettered = list(takewhile(row.get, map(column_letters, count())))
    single = [RESPONSE] if row.get(RESPONSE) else []
    pair = list(PAIR) if _is_pair(row) else []
    sets = [names for names in (lettered, single, pair) if names]
    if len(sets) > 1:
        raise AssentError(f"responses both under '{sets[1][0]}' and under '{sets[0][0]}'")
    return sets[0] if sets else []


def _is_pair(row: Row) -> bool:
    return all(name in row for name in PAIR) and any(row[name].strip() for name in PAIR)


def _has_judgement(row: Row) -> bool:
    """Return whether the table has a column for a judgement, filled in here or not."""
    return _is_pair(row) or any(name in JUDGEMENT_COLUMNS or name.startswith(AXIS_PREFIX) for name in row)


def _question_column(row: Row) -> str:
    """Return the column of the question in a table of pairs without a prompt, such as Intel's Orca pairs."""
    if not all(name in row for name in PAIR) or "prompt" in row or "instruction" in row:
        return ""
    return next((name for name in PROMPT_KEYS if name in row), "")


def _names_data_set(row: Row) -> bool:
    """Return whether `source` names where a pair is from, as in truthy-dpo, not what its annotator is."""
    return _is_pair(row) and row.get("source", "").strip() not in ("", *get_args(Source))


def _read_prompt(row: Row) -> str | list[Any]:
    """Return text, or messages: of a JSON array in the cell, or of a pair beside `system` or under `question`."""
    question = _question_column(row)
    cell: str = require(row, question or "prompt")
    text: str | list[Any] = cell
    if question or (_is_pair(row) and "system" in row):
        text = [message.to_dict() for message in user_turn(cell, row.get("system", "").strip())]
    if not re.match(r"\s*\[\s*\{", cell):
        return text
    try:
        messages: list[Any] = json.loads(cell)
        read_messages({"prompt": messages}, "prompt")
    except (ValueError, RecursionError, AssentError):
        return text
    return messages


def _read_choice(row: Row, layout: TaskLayout) -> dict[str, Any]:
    word = row.get("preference", "").strip() or (PAIR[0] if _is_pair(row) else "")
    if not word:
        return {}
    if verdict := parse_verdict(word):
        return {"verdict": verdict}
    strength = _read_cell_number(row, "strength", 1)
    return {"preferred": _read_side(word.lower(), layout), "strength": strength}


def _read_side(word: str, layout: TaskLayout) -> int:
    """Return the index of a response by its column, or by its side as other tools name it."""
    side = SIDE.fullmatch(word)
    if word in layout.item_names or side is None or len(layout.items) != 2:
        return layout.index_of(word)
    letter, number, hand = side.groups()
    if number:
        index = int(number) - 1
    elif letter:
        index = ord(letter) - ord("a")
    else:
        index = ("left", "right").index(hand)
    return index if index in (0, 1) else layout.index_of(word)


def _read_tiers(row: Row, layout: TaskLayout) -> tuple[tuple[int, ...], ...]:
    """Return the tiers of a ranking such as `b > a = c`, best first."""
    ranking = row.get("ranking", "").strip().lower()
    if not ranking:
        return ()
    return tuple(tuple(layout.index_of(name.strip()) for name in tier.split("=")) for tier in ranking.split(">"))


def _read_approval(row: Row) -> bool | None:
    word = row.get("approved", "").strip().lower()
    if word and word not in BOOLEANS:
        raise AssentError(f"'approved' is '{word}', not yes or no")
    return BOOLEANS.get(word)


def _read_list(row: Row, key: str) -> tuple[str, ...]:
    """Return the entries of a cell: flags separated by commas, names of responses by spaces."""
    cell = row.get(key, "")
    entries = cell.split(",") if key == "flags" else cell.lower().split()
    return tuple(entry.strip() for entry in entries if entry.strip())


def _read_cell_number(row: Row, key: str, default: float) -> float:
    """Return the number in a cell, with a decimal point or a decimal comma."""
    cell = row.get(key, "").strip()
    if not cell:
        return default
    if THOUSANDS.fullmatch(cell):
        raise AssentError(f"'{key}' is '{cell}', which may be {cell.replace(',', '')} or {cell.replace(',', '.')}")
    try:
        value = float(cell if "." in cell else cell.replace(",", "."))
    except ValueError:
        raise AssentError(f"'{key}' is '{cell}', not a number") from None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
