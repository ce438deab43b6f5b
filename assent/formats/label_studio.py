"""Label Studio 1.23: tasks and their annotations, https://labelstud.io/guide/task_format; tasks alone are open."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, Shape, TaskWithJudgements
from assent.formats.files.annotation import (
    BOOLEANS,
    Annotation,
    Provenance,
    anonymised,
    format_time,
    merge,
    parse_verdict,
    pseudonym,
    read_time,
    rescale,
    roundtrip_id,
    source_field,
    text_role,
    to_feedback,
)
from assent.formats.files.fields import read_number, read_text, require
from assent.formats.files.label_studio_data import is_flat, read_items, unflatten, unused_data
from assent.formats.files.layout import (
    TaskLayout,
    extras,
    parse_task,
    prompt_fields,
    split_by_order,
)
from assent.records import Feedback, SkippedRow

RANK_BUCKET = re.compile(r"(?:tier-)?(\d+)")
"""A bucket of a ranker that is a rank; others are categories."""
UNRANKED_BUCKET = "_"
"""The bucket of a ranker with the items that the annotator has not moved."""
TASK_KEYS = frozenset(
    (
        *("id", "data", "annotations", "project", "meta", "predictions", "drafts", "created_at", "updated_at"),
        *("inner_id", "total_annotations", "cancelled_annotations", "total_predictions", "comment_count"),
        *("unresolved_comment_count", "last_comment_updated_at", "comment_authors", "updated_by", "file_upload"),
        *("is_labeled", "overlap", "agreement", "allow_skip", "completed_at", "annotators"),
    )
)
"""Keys of a task; the store keeps nothing of its counts, drafts and predictions."""
ANNOTATION_KEYS = frozenset(
    (
        *("id", "completed_by", "annotator", "source", "result", "was_cancelled", "created_at", "lead_time"),
        *("reviews", "updated_at", "draft_created_at", "ground_truth", "prediction", "result_count", "unique_id"),
        *("import_id", "last_action", "bulk_created", "task", "project", "updated_by", "last_created_by"),
        *("parent_prediction", "parent_annotation", "created_username", "created_ago"),
    )
)
DELETED_ANNOTATOR = "the annotator was deleted in Label Studio: each judgement counts as another annotator's"
DATA_PREFIX = "data."


@dataclass(frozen=True)
class LabelStudio(Format):
    """Pairwise, Ranker, Rating, Choices and TextArea; a quoted passage is a label on the text."""

    record_types: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    shape: ClassVar[Shape] = "array"
    is_tabular: ClassVar[bool] = True
    writes_meta: ClassVar[bool] = False

    scale: str = "1-7"
    """Scale of the ratings in the file: Label Studio does not export `maxRating`."""

    def match_score(self, row: Row) -> int:
        return 4 * (isinstance(row.get("data"), dict) or is_flat(row))

    def unread_fields(self, row: Row) -> Row:
        if is_flat(row):
            return unused_data(unflatten(row)["data"])
        if not isinstance(row.get("data"), dict):
            return unused_data(row)
        annotations = row.get("annotations")
        annotations = (
            [entry for entry in annotations if isinstance(entry, dict)] if isinstance(annotations, list) else []
        )
        fields = {DATA_PREFIX + key: value for key, value in unused_data(row["data"]).items()}
        fields |= {key: value for key, value in row.items() if key not in TASK_KEYS}
        for annotation in annotations:
            fields |= {f"annotations[].{key}": value for key, value in annotation.items() if key not in ANNOTATION_KEYS}
        return fields

    def meta_keys(self, row: Row) -> Mapping[str, str]:
        fields = self.unread_fields(row)
        if is_flat(row) or not isinstance(row.get("data"), dict):
            return {field: field for field in fields}
        return {field: field.removeprefix(DATA_PREFIX) for field in fields if field.startswith(DATA_PREFIX)}

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        row = unflatten(row) if is_flat(row) else row
        data = row["data"] if isinstance(row.get("data"), dict) else row
        extra = data.get("assent", {})
        if not isinstance(extra, dict):
            raise AssentError("'assent' in 'data' is not an object")
        fields = {key: value for key, value in data.items() if key != "assent"}
        layout = parse_task(fields, extra, source, read_items(data))
        annotations = row.get("annotations") or []
        if not isinstance(annotations, list):
            raise AssentError("'annotations' is not a list")
        if not annotations:
            yield layout.to_open_task(read_text(extra, "kind") if "kind" in extra else _default_kind(layout, data))
        for number, annotation in enumerate(annotations, 1):
            try:
                yield from self._decode_annotation(annotation, layout, row, source)
            except AssentError as error:
                yield SkippedRow(f"annotation {number}", str(error))

    def _decode_annotation(
        self, annotation: Any, layout: TaskLayout, task: Row, source: str
    ) -> Iterator[TaskWithJudgements | Remark]:
        if not isinstance(annotation, dict):
            raise AssentError(f"not an object but {type(annotation).__name__}")
        if annotation.get("was_cancelled"):
            raise AssentError("skipped by its annotator")
        if _is_rejected(annotation):
            raise AssentError("rejected by its reviewer")
        results = require(annotation, "result")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise AssentError("'result' is not a list of objects")
        values: dict[str, Any] = {}
        for result in results:
            merge(values, self._read_result(result, layout), str(result.get("from_name")))
        timestamp = read_time(annotation, "created_at")
        annotation_id = annotation.get("id")
        provenance = Provenance(
            _annotator(annotation, task, source),
            timestamp.created_at,
            read_number(annotation, "lead_time", 0.0),
            str(results[0].get("id", "") if results else ""),
            f"annotation {annotation_id}" if annotation_id is not None else "",
            read_text(annotation, "source") if annotation.get("annotator") and annotation.get("source") else "",
        )
        yield from to_feedback(layout, Annotation(**values), provenance)
        yield from timestamp.remarks
        is_deleted = annotation.get("completed_by", "") is None and not annotation.get("annotator")
        if annotation_id is not None and is_deleted:
            yield Remark(DELETED_ANNOTATOR)

    def _read_result(self, result: Row, layout: TaskLayout) -> dict[str, Any]:
        """Return one result as fields of an annotation."""
        value = require(result, "value")
        kind = read_text(result, "type")
        name = str(result.get("from_name", ""))
        if not isinstance(value, dict):
            raise AssentError(f"'value' of a {kind} is {type(value).__name__}, not an object")
        match kind:
            case "pairwise":
                side = require(value, "selected")
                if side not in ("left", "right") or len(layout.items) != 2:
                    raise AssentError(f"'{side}' of {len(layout.items)} responses")
                return {"preferred": int(side == "right")}
            case "ranker":
                return {"tiers": _read_tiers(require(value, "ranker"), layout)}
            case "rating" if name == "strength" and len(layout.items) == 2:
                return {"strength": require(value, "rating")}
            case "rating":
                axis = "overall" if name == "rating" else name
                return {"axes": ((axis, rescale(require(value, "rating"), self.scale)),)}
            case "choices":
                return _read_choice(_read_texts(value, "choices"), name)
            case "textarea":
                return _read_free_text(_read_texts(value, "text"), name, layout)
            case "labels" if name == "quote":
                return {"quote": read_text(value, "text")}
            case "labels":
                passage = read_text(value, "text")
                return {"spans": tuple((label, passage) for label in _read_texts(value, "labels"))}
        raise AssentError(f"a result of type '{kind}' is no kind of judgement")

    def encode(self, record: TaskWithJudgements) -> Iterable[Row]:
        kind = record.task.kind
        names: tuple[str, ...] = ("answer1", "answer2") if kind == "comparison" else ("response",)
        if kind in ("ranking", "demonstration"):
            names = tuple(str(number) for number in range(1, len(record.items) + 1))
        for layout, events in split_by_order(record, names):
            data = prompt_fields(layout)
            items = dict(zip(layout.item_names, layout.items, strict=False))
            if kind == "ranking" or (kind == "demonstration" and layout.items):
                data["items"] = [
                    {"id": name, "title": f"Answer {name}", "body": item.text} for name, item in items.items()
                ]
            else:
                data |= {name: item.text for name, item in items.items()}
            data["assent"] = extras(layout, kind)
            yield {"data": data, "annotations": [_encode_annotation(event, layout) for event in events]}


# Write


def _encode_annotation(event: Feedback, layout: TaskLayout) -> Row:
    item_ids = [item.id for item in layout.items]
    annotation = Annotation.from_feedback(event, item_ids).require_supported("Label Studio")
    event = anonymised(event)
    results = [
        {"id": f"{roundtrip_id(event)}{f'-{index}' if index else ''}", **result}
        for index, result in enumerate(_results(annotation, layout))
    ]
    created_at = format_time(event)
    # No `completed_by`: it would have to name a user of the Label Studio that reads the file.
    return {
        "annotator": event.annotator,
        **source_field(event),
        **({"created_at": created_at} if created_at else {}),
        "lead_time": event.duration,
        "ground_truth": layout.purpose == "gold",
        "was_cancelled": False,
        "result": results,
    }


def _results(annotation: Annotation, layout: TaskLayout) -> Iterator[dict[str, Any]]:
    target = "response" if layout.item_names == ("response",) else "prompt"
    if annotation.preferred is not None:
        side = {"selected": ("left", "right")[annotation.preferred]}
        yield {"from_name": "comparison", "to_name": "comparison", "type": "pairwise", "value": side}
        yield _result("strength", "prompt", "rating", annotation.strength)
    if annotation.verdict:
        yield _result("verdict", "prompt", "choices", [annotation.verdict])
    if annotation.tiers:
        yield _result("rank", "items", "ranker", _buckets(annotation.tiers, layout))
    for axis, value in annotation.axes:
        if value != int(value):
            raise AssentError(f"Label Studio cannot store a rating that is not a whole number ({value:g})")
        yield _result("rating" if axis == "overall" else axis, target, "rating", value)
    if annotation.approved is not None:
        yield _result("approval", target, "choices", ["yes" if annotation.approved else "no"])
    for name, text in (
        ("correction", annotation.correction),
        ("critique", annotation.critique),
        ("demonstration", annotation.demonstration),
        ("comment", annotation.comment),
    ):
        if text:
            yield _result(name, target, "textarea", [text])
    if annotation.quote:
        yield _quote_result(annotation.quote, layout.items[0].text)
    if annotation.flags:
        yield _result("flags", target, "choices", list(annotation.flags))


def _buckets(tiers: tuple[tuple[int, ...], ...], layout: TaskLayout) -> dict[str, list[str]]:
    """Return one list for an order without ties; with ties a bucket for each rank."""
    names = [[layout.item_names[index] for index in tier] for tier in tiers]
    if len(names) > 1 and all(len(tier) == 1 for tier in names):
        return {"rank": [tier[0] for tier in names]}
    return {f"tier-{rank}": tier for rank, tier in enumerate(names, 1)}


def _result(name: str, target: str, kind: str, value: Any) -> dict[str, Any]:
    key = "text" if kind == "textarea" else kind
    return {"from_name": name, "to_name": target, "type": kind, "value": {key: value}}


def _quote_result(quote: str, text: str) -> dict[str, Any]:
    start = text.find(quote)
    if start < 0:
        raise AssentError("a quote that is not in its response")
    value = {"start": start, "end": start + len(quote), "text": quote, "labels": ["quote"]}
    return {"from_name": "quote", "to_name": "response", "type": "labels", "value": value}


# Read


def _default_kind(layout: TaskLayout, data: Row) -> str:
    """Return the kind of a task without annotations."""
    if len(layout.items) == 2 and not isinstance(data.get("items"), list):
        return "comparison"
    return ("demonstration", "rating", "ranking")[min(len(layout.items), 2)]


def _annotator(annotation: Row, task: Row, source: str) -> str:
    """Return the pseudonym that we wrote, or the number of a Label Studio user; no address, no name."""
    if annotation.get("annotator"):
        return pseudonym(read_text(annotation, "annotator"))
    user = annotation.get("completed_by")
    if isinstance(user, dict):
        user = user.get("id") or user.get("email")
    if user is None and "completed_by" in annotation and annotation.get("id") is not None:
        return _qualified(task, f"deleted-{annotation['id']}")
    if user is None:
        return f"imported:{source}"
    if isinstance(user, bool) or not isinstance(user, int | str):
        raise AssentError(f"'completed_by' is {type(user).__name__}, not a user")
    name = pseudonym(str(user))
    is_address = isinstance(user, str) and name != user
    # An address means the same annotator in every project, a number only in its own.
    return name if is_address else _qualified(task, name)


def _qualified(task: Row, user: str) -> str:
    return ":".join(str(part) for part in ("label-studio", task.get("project"), user) if part is not None)


def _is_rejected(annotation: Row) -> bool:
    """Return whether the last reviewer of an annotation rejected it."""
    reviews = annotation.get("reviews")
    last = reviews[-1] if isinstance(reviews, list) and reviews and isinstance(reviews[-1], dict) else {}
    return last.get("accepted") is False or (not last and annotation.get("last_action") == "rejected")


def _read_tiers(ranker: Any, layout: TaskLayout) -> tuple[tuple[int, ...], ...]:
    """Return the tiers of a ranker: numbered buckets are ranks with ties, one bucket without a number is an order."""
    if not isinstance(ranker, dict) or not all(isinstance(names, list) for names in ranker.values()):
        raise AssentError("'ranker' is not an object of lists")
    buckets = {name: names for name, names in ranker.items() if names and name != UNRANKED_BUCKET}
    ranks = {name: int(match[1]) for name in buckets if (match := RANK_BUCKET.fullmatch(name))}
    if not buckets:
        raise AssentError("no item was ranked")
    if len(ranks) == len(buckets):
        tiers = [buckets[name] for name in sorted(buckets, key=lambda name: ranks[name])]
    elif len(buckets) == 1:
        (names,) = buckets.values()
        tiers = [[name] for name in names]
    else:
        raise AssentError(f"the buckets {', '.join(buckets)} are categories, not ranks: call them tier-1, tier-2, ...")
    return tuple(tuple(layout.index_of(str(name)) for name in tier) for tier in tiers)


def _read_choice(choices: list[str], name: str) -> dict[str, Any]:
    if name == "flags":
        return {"flags": tuple(choices)}
    word = choices[0].strip().lower() if len(choices) == 1 else ""
    if verdict := parse_verdict(word):
        return {"verdict": verdict}
    if name in ("approval", "approved") and word in BOOLEANS:
        return {"approved": BOOLEANS[word]}
    raise AssentError(f"{', '.join(choices) or 'no choice'} for '{name}' is no kind of judgement")


def _read_free_text(texts: list[str], name: str, layout: TaskLayout) -> dict[str, str]:
    # A text about a prompt alone can only be a demonstration.
    role = text_role(name) or ("" if layout.items else "demonstration")
    if not role:
        raise AssentError(
            f"the role of the text '{name}' is unknown: call it correction, critique, demonstration or comment"
        )
    if len(texts) != 1:
        raise AssentError(f"{len(texts)} texts for '{name}': each needs an annotation of its own")
    return {role: texts[0]}


def _read_texts(value: Row, key: str) -> list[str]:
    texts = require(value, key)
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts:
        raise AssentError(f"'{key}' holds no text")
    return [read_text({key: text}, key) for text in texts]
