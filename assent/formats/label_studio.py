"""Label Studio 1.23: tasks and their annotations, https://labelstud.io/guide/task_format; tasks alone are questions."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, Shape, TaskWithJudgements, get, number, text
from assent.formats.files.annotation import (
    YES,
    Ballot,
    Voice,
    called,
    demand_time,
    going_out,
    heard,
    joined,
    pseudonym,
    seal,
    stretched,
    time_of,
    verdict_of,
)
from assent.formats.files.layout import PROMPTS, Sheet, facts_of, fields_of, screen, sheets, unused
from assent.records import Completion, Feedback, SkippedRow

TIER = re.compile(r"(?:tier-)?(\d+)")
"""A bucket of a ranker that is a rank; others are categories."""
REST = "_"
"""Where a ranker with buckets keeps the items that nobody has moved."""
FLAT = frozenset(("annotation_id", "annotator", "id", "created_at", "updated_at", "lead_time", "agreement"))
"""What JSON-MIN and CSV put beside the data and the results."""
TASK = frozenset(
    (
        *("id", "data", "annotations", "project", "meta", "predictions", "drafts", "created_at", "updated_at"),
        *("inner_id", "total_annotations", "cancelled_annotations", "total_predictions", "comment_count"),
        *("unresolved_comment_count", "last_comment_updated_at", "comment_authors", "updated_by", "file_upload"),
        *("is_labeled", "overlap", "agreement", "allow_skip", "completed_at", "annotators"),
    )
)
"""Keys of a task; of what Label Studio counts itself, and of drafts and predictions, the store keeps nothing."""
ANNOTATION = frozenset(
    (
        *("id", "completed_by", "annotator", "result", "was_cancelled", "created_at", "lead_time", "reviews"),
        *("updated_at", "draft_created_at", "ground_truth", "prediction", "result_count", "unique_id", "import_id"),
        *("last_action", "bulk_created", "task", "project", "updated_by", "last_created_by"),
        *("parent_prediction", "parent_annotation", "created_username", "created_ago"),
    )
)
"""Keys of an annotation."""
VALUES = {
    "selected": "pairwise",
    "rating": "rating",
    "ranker": "ranker",
    "choices": "choices",
    "labels": "labels",
    "text": "textarea",
}
"""The type of a result, by the key of its value: JSON-MIN and CSV leave the type out."""
NOBODY = "an annotator deleted in Label Studio: each counts as another person"


@dataclass(frozen=True)
class LabelStudio(Format):
    """Pairwise, Ranker, Rating, Choices and TextArea; a passage that is meant is a label on the text."""

    holds: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    shape: ClassVar[Shape] = "array"
    tabular: ClassVar[bool] = True

    scale: str = "1-7"
    """Ratings of the file: Label Studio does not export `maxRating`."""

    def fits(self, row: Row) -> int:
        return 4 * (isinstance(row.get("data"), dict) or _is_flat(row))

    def unread(self, row: Row) -> Row:
        if _is_flat(row):
            return _rest(_unflattened(row)["data"])
        if not isinstance(row.get("data"), dict):
            return _rest(row)
        rest, annotations = _rest(row["data"]), row.get("annotations")
        annotations = [each for each in annotations if isinstance(each, dict)] if isinstance(annotations, list) else []
        return {
            **{f"data.{key}": value for key, value in rest.items()},
            **{key: value for key, value in row.items() if key not in TASK},
            **{f"annotations[].{k}": v for each in annotations for k, v in each.items() if k not in ANNOTATION},
        }

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        row = _unflattened(row) if _is_flat(row) else row
        data = row["data"] if isinstance(row.get("data"), dict) else row
        facts = data.get("assent", {})
        if not isinstance(facts, dict):
            raise AssentError("'assent' in 'data' is not an object")
        sheet = screen({k: v for k, v in data.items() if k != "assent"}, facts, source, _listed(data))
        annotations = row.get("annotations") or []
        if not isinstance(annotations, list):
            raise AssentError("'annotations' is no list")
        if not annotations:
            yield sheet.unanswered(text(facts, "kind") if "kind" in facts else _usual(sheet, data))
        for place, annotation in enumerate(annotations, 1):
            try:
                yield from self._annotation(annotation, sheet, row, source)
            except AssentError as error:
                yield SkippedRow(f"annotation {place}", str(error))

    def _annotation(
        self, annotation: Any, sheet: Sheet, task: Row, source: str
    ) -> Iterator[TaskWithJudgements | Remark]:
        if not isinstance(annotation, dict):
            raise AssentError(f"not an object but {type(annotation).__name__}")
        if annotation.get("was_cancelled"):
            raise AssentError("skipped by its annotator")
        if _is_rejected(annotation):
            raise AssentError("rejected by its reviewer")
        results = get(annotation, "result")
        if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
            raise AssentError("'result' is no list of objects")
        told: dict[str, Any] = {}
        for result in results:
            joined(told, self._word(result, sheet), str(result.get("from_name")))
        first = results[0].get("id", "") if results else ""
        moment, seconds = time_of(annotation, "created_at"), number(annotation, "lead_time", 0.0)
        name = annotation.get("id")
        origin = f"annotation {name}" if name is not None else ""
        voice = Voice(_who(annotation, task, source), moment.at, seconds, str(first), origin)
        yield from heard(sheet, Ballot(**told), voice)
        yield from moment.remarks
        if origin and not annotation.get("annotator") and annotation.get("completed_by", "") is None:
            yield Remark(NOBODY)

    def _word(self, result: Row, sheet: Sheet) -> dict[str, Any]:
        """One result in the words of a ballot."""
        value, kind, name = get(result, "value"), text(result, "type"), str(result.get("from_name", ""))
        if not isinstance(value, dict):
            raise AssentError(f"'value' of a {kind} is {type(value).__name__}, not an object")
        match kind:
            case "pairwise":
                side = get(value, "selected")
                if side not in ("left", "right") or len(sheet.items) != 2:
                    raise AssentError(f"'{side}' of {len(sheet.items)} answers")
                return {"better": int(side == "right")}
            case "ranker":
                return {"tiers": _tiers(get(value, "ranker"), sheet)}
            case "rating" if name == "strength" and len(sheet.items) == 2:
                return {"strength": get(value, "rating")}
            case "rating":
                axis = "overall" if name == "rating" else name
                return {"axes": ((axis, stretched(get(value, "rating"), self.scale)),)}
            case "choices":
                return _choice(_texts(value, "choices"), name)
            case "textarea":
                return _free(_texts(value, "text"), name, sheet)
            case "labels" if name == "quote":
                return {"quote": text(value, "text")}
            case "labels":
                return {"spans": tuple((label, text(value, "text")) for label in _texts(value, "labels"))}
        raise AssentError(f"a result of type '{kind}', for which there is no kind of answer")

    def encode(self, thing: TaskWithJudgements) -> Iterable[Row]:
        kind = thing.query.kind
        names: tuple[str, ...] = ("answer1", "answer2") if kind == "comparison" else ("response",)
        if kind in ("ranking", "demonstration"):
            names = tuple(str(place + 1) for place in range(len(thing.items)))
        for sheet, events in sheets(thing, names):
            data = fields_of(sheet)
            if kind == "ranking" or (kind == "demonstration" and sheet.items):
                both = zip(sheet.names, sheet.items, strict=True)
                data["items"] = [{"id": name, "title": f"Answer {name}", "body": item.text} for name, item in both]
            else:
                data |= {name: item.text for name, item in zip(names, sheet.items, strict=False)}
            data["assent"] = facts_of(sheet, kind)
            yield {"data": data, "annotations": [self._annotated(event, sheet) for event in events]}

    def _annotated(self, event: Feedback, sheet: Sheet) -> Row:
        ballot = Ballot.of(event, [item.id for item in sheet.items]).demand_usual("Label Studio")
        event = going_out(event)
        results = [
            {"id": f"{seal(event)}{f'-{place}' if place else ''}", **result}
            for place, result in enumerate(_results(ballot, sheet))
        ]
        at = demand_time(event)
        # No `completed_by`: it would have to name a user of the Label Studio that reads the file.
        return {
            "annotator": event.annotator,
            **({"created_at": at} if at else {}),
            "lead_time": event.duration,
            "ground_truth": sheet.purpose == "gold",
            "was_cancelled": False,
            "result": results,
        }


def _results(ballot: Ballot, sheet: Sheet) -> Iterator[dict[str, Any]]:
    about = "response" if sheet.names == ("response",) else "prompt"
    if ballot.better is not None:
        side = {"selected": ("left", "right")[ballot.better]}
        yield {"from_name": "comparison", "to_name": "comparison", "type": "pairwise", "value": side}
        yield _result("strength", "prompt", "rating", ballot.strength)
    if ballot.verdict:
        yield _result("verdict", "prompt", "choices", [ballot.verdict])
    if ballot.tiers:
        tiers = [[sheet.names[place] for place in tier] for tier in ballot.tiers]
        # One list is an order; with buckets, a bucket is a rank that several may share.
        strict = len(tiers) > 1 and all(len(tier) == 1 for tier in tiers)
        ranks = {"rank": [tier[0] for tier in tiers]} if strict else {f"tier-{n}": t for n, t in enumerate(tiers, 1)}
        yield _result("rank", "items", "ranker", ranks)
    for axis, value in ballot.axes:
        if value != int(value):
            raise AssentError(f"a rating of {value:g}, and Label Studio gives whole stars")
        yield _result("rating" if axis == "overall" else axis, about, "rating", value)
    if ballot.approved is not None:
        yield _result("approval", about, "choices", ["yes" if ballot.approved else "no"])
    for name in ("correction", "critique", "demonstration", "note"):
        if words := getattr(ballot, name):
            yield _result(name, about, "textarea", [words])
    if ballot.quote:
        yield _quoted(ballot.quote, sheet.items[0].text)
    if ballot.flags:
        yield _result("flags", about, "choices", list(ballot.flags))


def _result(name: str, about: str, kind: str, value: Any) -> dict[str, Any]:
    key = "text" if kind == "textarea" else kind
    return {"from_name": name, "to_name": about, "type": kind, "value": {key: value}}


def _quoted(quote: str, whole: str) -> dict[str, Any]:
    start = whole.find(quote)
    if start < 0:
        raise AssentError("a quote that does not stand in its answer")
    value = {"start": start, "end": start + len(quote), "text": quote, "labels": ["quote"]}
    return {"from_name": "quote", "to_name": "response", "type": "labels", "value": value}


def _rest(data: Row) -> Row:
    """The data that is neither prompt nor answer."""
    return unused({key: value for key, value in data.items() if key not in ("assent", "items")}, _listed(data))


def _listed(data: Row) -> dict[str, Completion] | None:
    """Names and texts of a list of items, if the task has one."""
    items = data.get("items")
    if not isinstance(items, list):
        return None
    found: dict[str, Completion] = {}
    for item in items:
        if not isinstance(item, dict) or "id" not in item:
            raise AssentError("an item without an 'id'")
        key = next((name for name in ("body", "text", "html", "title") if item.get(name)), "body")
        found[str(item["id"])] = Completion(text(item, key))
    if len(found) < len(items):
        raise AssentError("two items of one 'id'")
    return found


def _usual(sheet: Sheet, data: Row) -> str:
    """What a task without an annotation asks."""
    if len(sheet.items) == 2 and not isinstance(data.get("items"), list):
        return "comparison"
    return ("demonstration", "rating", "ranking")[min(len(sheet.items), 2)]


def _who(annotation: Row, task: Row, source: str) -> str:
    """The pseudonym that we wrote, or the number that Label Studio gives its users; no address, no name."""
    if annotation.get("annotator"):
        return pseudonym(text(annotation, "annotator"))
    user = annotation.get("completed_by")
    if isinstance(user, dict):
        user = user.get("id") or user.get("email")
    if user is None and "completed_by" in annotation and annotation.get("id") is not None:
        return _of_project(task, f"deleted-{annotation['id']}")
    if user is None:
        return f"imported:{source}"
    if isinstance(user, bool) or not isinstance(user, int | str):
        raise AssentError(f"'completed_by' is {type(user).__name__}, not a user")
    known = pseudonym(str(user))
    if known != user and isinstance(user, str):
        return known  # an address is one person's in every project, a number only in its own
    return _of_project(task, known)


def _of_project(task: Row, user: str) -> str:
    return ":".join(str(part) for part in ("label-studio", task.get("project"), user) if part is not None)


def _is_rejected(annotation: Row) -> bool:
    """Whether the last one who looked through an annotation sent it back."""
    reviews = annotation.get("reviews")
    last = reviews[-1] if isinstance(reviews, list) and reviews and isinstance(reviews[-1], dict) else {}
    return last.get("accepted") is False or (not last and annotation.get("last_action") == "rejected")


def _is_flat(row: Row) -> bool:
    """Whether it is a row of JSON-MIN or of CSV, which put data and results side by side."""
    return "annotation_id" in row and ("annotator" in row or "lead_time" in row) and "data" not in row


def _unflattened(row: Row) -> dict[str, Any]:
    """The task of a flat row, with its one annotation."""
    cells = {name: value for name, value in row.items() if value not in (None, "")}
    results: list[dict[str, Any]] = []
    data: dict[str, Any] = {}
    rest = {name: value for name, value in cells.items() if name not in FLAT}
    shown = rest.keys() - _rest(rest).keys()
    for name, value in rest.items():
        values = [] if name in shown else _flat_values(name, value)
        results += ({"from_name": name, "type": kind, "value": each} for kind, each in values)
        if not values:
            data[name] = _parsed(value) if name in (*PROMPTS, "messages", "items") else value
    annotation: dict[str, Any] = {"id": row["annotation_id"], "completed_by": cells.get("annotator"), "result": results}
    annotation |= {name: _parsed(cells[name]) for name in ("created_at", "lead_time") if name in cells}
    return {"data": data, "annotations": [annotation]}


def _flat_values(name: str, cell: Any) -> list[tuple[str, dict[str, Any]]]:
    """Types and values of the results that stand under a name; none if it is no result."""
    value = _parsed(cell)
    listed = value if isinstance(value, list) else [value]
    if listed and all(isinstance(each, dict) and VALUES.keys() & each.keys() for each in listed):
        return [(next(kind for key, kind in VALUES.items() if key in each), each) for each in listed]
    if isinstance(value, int | float) and not isinstance(value, bool) and name in ("rating", "strength"):
        return [("rating", {"rating": value})]
    if not isinstance(value, str):
        return []
    if value in ("left", "right"):
        return [("pairwise", {"selected": value})]
    if verdict_of(value) or name == "flags" or (name in ("approval", "approved") and value.lower() in YES):
        return [("choices", {"choices": [value]})]
    return [("textarea", {"text": [value]})] if called(name) else []


def _parsed(cell: Any) -> Any:
    """What the JSON of a cell says: a number, or a list of objects; other text stays text."""
    if not isinstance(cell, str):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    objects = value if isinstance(value, list) else [value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number or (objects and all(isinstance(each, dict) for each in objects)) else cell


def _tiers(ranks: Any, sheet: Sheet) -> tuple[tuple[int, ...], ...]:
    """Buckets with numbers are ranks, best first, of items that are tied; one list without a number is an order."""
    if not isinstance(ranks, dict) or not all(isinstance(tier, list) for tier in ranks.values()):
        raise AssentError("'ranker' is no object of lists")
    buckets = {name: tier for name, tier in ranks.items() if tier and name != REST}
    numbers = {name: found for name in buckets if (found := TIER.fullmatch(name))}
    if not buckets:
        raise AssentError("nothing was ranked")
    if len(numbers) == len(buckets):
        tiers = [buckets[name] for name in sorted(buckets, key=lambda name: int(numbers[name][1]))]
    elif len(buckets) == 1:
        tiers = [[name] for tier in buckets.values() for name in tier]
    else:
        raise AssentError(f"buckets {', '.join(buckets)} are categories, not ranks: call them tier-1, tier-2, ...")
    return tuple(tuple(sheet.place(str(name)) for name in tier) for tier in tiers)


def _choice(words: list[str], name: str) -> dict[str, Any]:
    if name == "flags":
        return {"flags": tuple(words)}
    word = words[0].strip().lower() if len(words) == 1 else ""
    if verdict := verdict_of(word):
        return {"verdict": verdict}
    if name in ("approval", "approved") and word in YES:
        return {"approved": YES[word]}
    raise AssentError(f"{', '.join(words) or 'no choice'} for '{name}', for which there is no kind of answer")


def _free(words: list[str], name: str, sheet: Sheet) -> dict[str, str]:
    kind = called(name) or ("" if sheet.items else "demonstration")  # what else is there to write about a prompt alone
    if not kind:
        raise AssentError(f"a text called '{name}': call it correction, critique, demonstration or note")
    if len(words) != 1:
        raise AssentError(f"{len(words)} texts for '{name}': each needs an annotation of its own")
    return {kind: words[0]}


def _texts(value: Row, key: str) -> list[str]:
    found = get(value, key)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not found:
        raise AssentError(f"'{key}' holds no text")
    return [text({key: each}, key) for each in found]
