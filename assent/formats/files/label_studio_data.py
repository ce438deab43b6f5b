"""Data of Label Studio tasks, and the rows of JSON-MIN and CSV as tasks."""

import json
from typing import Any

from assent.errors import AssentError
from assent.formats import Row
from assent.formats.files.annotation import BOOLEANS, parse_verdict, text_role
from assent.formats.files.fields import read_text
from assent.formats.files.layout import PROMPT_FIELDS, unused_fields
from assent.records import Completion

FLAT_KEYS = frozenset(("annotation_id", "annotator", "id", "created_at", "updated_at", "lead_time", "agreement"))
"""Keys of JSON-MIN and CSV beside the data and the results."""
RESULT_TYPES = {
    "selected": "pairwise",
    "rating": "rating",
    "ranker": "ranker",
    "choices": "choices",
    "labels": "labels",
    "text": "textarea",
}
"""The type of a result by the key of its value: JSON-MIN and CSV leave the type out."""


def unused_data(data: Row) -> Row:
    """Return the data that is neither prompt nor response."""
    fields = {key: value for key, value in data.items() if key not in ("assent", "items")}
    return unused_fields(fields, read_items(data))


def read_items(data: Row) -> dict[str, Completion] | None:
    """Return names and texts of a list of items, if the task has one."""
    items = data.get("items")
    if not isinstance(items, list):
        return None
    completions: dict[str, Completion] = {}
    for item in items:
        if not isinstance(item, dict) or "id" not in item:
            raise AssentError("an item without an 'id'")
        key = next((name for name in ("body", "text", "html", "title") if item.get(name)), "body")
        completions[str(item["id"])] = Completion(read_text(item, key))
    if len(completions) < len(items):
        raise AssentError("two items with the same 'id'")
    return completions


def is_flat(row: Row) -> bool:
    """Return whether it is a row of JSON-MIN or of CSV, which put data and results side by side."""
    return "annotation_id" in row and ("annotator" in row or "lead_time" in row) and "data" not in row


def unflatten(row: Row) -> dict[str, Any]:
    """Return the task of a flat row, with its one annotation."""
    cells = {name: value for name, value in row.items() if value not in (None, "")}
    results: list[dict[str, Any]] = []
    data: dict[str, Any] = {}
    fields = {name: value for name, value in cells.items() if name not in FLAT_KEYS}
    used = fields.keys() - unused_data(fields).keys()
    for name, value in fields.items():
        values = [] if name in used else _flat_results(name, value)
        results += ({"from_name": name, "type": kind, "value": result} for kind, result in values)
        if not values:
            data[name] = _parse_cell(value) if name in (*PROMPT_FIELDS, "messages", "items") else value
    annotation: dict[str, Any] = {"id": row["annotation_id"], "completed_by": cells.get("annotator"), "result": results}
    annotation |= {name: _parse_cell(cells[name]) for name in ("created_at", "lead_time") if name in cells}
    return {"data": data, "annotations": [annotation]}


def _flat_results(name: str, cell: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return types and values of the results in a cell; none if it is data."""
    value = _parse_cell(cell)
    values = value if isinstance(value, list) else [value]
    if values and all(isinstance(result, dict) and RESULT_TYPES.keys() & result.keys() for result in values):
        return [(next(kind for key, kind in RESULT_TYPES.items() if key in result), result) for result in values]
    if isinstance(value, int | float) and not isinstance(value, bool) and name in ("rating", "strength"):
        return [("rating", {"rating": value})]
    if not isinstance(value, str):
        return []
    if value in ("left", "right"):
        return [("pairwise", {"selected": value})]
    if parse_verdict(value) or name == "flags" or (name in ("approval", "approved") and value.lower() in BOOLEANS):
        return [("choices", {"choices": [value]})]
    return [("textarea", {"text": [value]})] if text_role(name) else []


def _parse_cell(cell: Any) -> Any:
    """Return the number or the list of objects that the JSON of a cell spells; other text stays text."""
    if not isinstance(cell, str):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    objects = value if isinstance(value, list) else [value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number or (objects and all(isinstance(entry, dict) for entry in objects)) else cell
