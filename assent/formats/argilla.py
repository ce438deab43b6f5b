"""Argilla 2.8: records as `dataset.records.to_json`, `to_list` and `to_dict` write them and `from_json` reads them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from uuid import NAMESPACE_OID, UUID, uuid5

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
from assent.formats.files.layout import (
    RESPONSE_FIELDS,
    TaskLayout,
    default_kind,
    extras,
    parse_task,
    prompt_fields,
    split_by_order,
    unused_fields,
)
from assent.records import Feedback, SkippedRow, content_id

NAMESPACE = uuid5(NAMESPACE_OID, "assent")
"""Argilla identifies annotators by UUIDs: a pseudonym that is not one gets its UUID in this namespace."""
FLAT_RESPONSES = re.compile(r"(.+)\.responses(\.users|\.status)?")
"""Columns of a flattened record."""
FLAT_SUGGESTION = re.compile(r".+\.suggestion(\.score|\.agent|\.type)?")
RECORD_KEYS = frozenset(("id", "fields", "metadata", "responses", "suggestions", "vectors", "status", "_server_id"))
"""Parts of a record; the store keeps nothing of `suggestions`, `vectors` and `status`."""
FIELD_PREFIX = "fields."
METADATA_PREFIX = "metadata."


@dataclass(frozen=True)
class Unsubmitted:
    """A response that its annotator has not submitted."""

    status: str


@dataclass(frozen=True)
class Argilla(Format):
    """Label, rating, ranking, text and span questions, recognised by the shape of their values and their names."""

    record_types: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    shape: ClassVar[Shape] = "array"
    writes_meta: ClassVar[bool] = False

    scale: str = "1-7"
    """Scale of the ratings in the file: records do not hold the options of their question."""

    def match_score(self, row: Row) -> int:
        if isinstance(row.get("fields"), dict | list):
            return 4 * ("responses" in row or "suggestions" in row)
        return 4 * any((*map(FLAT_RESPONSES.fullmatch, row), _is_by_id(row)))

    def unread_fields(self, row: Row) -> Row:
        if isinstance(row.get("id"), list) or _is_by_id(row):
            return {key: value for record in _unfold(row) for key, value in self.unread_fields(record).items()}
        fields, metadata, _ = _split_record(row)
        if "fields" not in row:
            flat = {name for name in row if FLAT_RESPONSES.fullmatch(name) or FLAT_SUGGESTION.fullmatch(name)}
            dotted = {name: value for name, value in row.items() if "." in name and name not in flat}
            plain = {name: value for name, value in fields.items() if name not in RECORD_KEYS}
            return {**unused_fields(plain), **dotted}
        return {
            **{FIELD_PREFIX + name: value for name, value in unused_fields(fields).items()},
            **{METADATA_PREFIX + name: value for name, value in metadata.items() if name != "assent"},
            **{name: value for name, value in row.items() if name not in RECORD_KEYS},
        }

    def meta_keys(self, row: Row) -> Mapping[str, str]:
        if isinstance(row.get("id"), list) or _is_by_id(row):
            return {}  # several records: their fields belong to different prompts
        fields = self.unread_fields(row)
        return {field: field.removeprefix(FIELD_PREFIX).removeprefix(METADATA_PREFIX) for field in fields}

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        if isinstance(row.get("id"), list) or _is_by_id(row):
            yield from self._decode_records(row, source)
            return
        fields, metadata, responses = _split_record(row)
        extra = _read_extra(metadata)
        layout = parse_task(fields, extra, source)
        values_by_user = _read_users(responses)
        if not values_by_user:
            yield layout.to_open_task(read_text(extra, "kind") if "kind" in extra else default_kind(layout))
        exported = {str(entry.get("user")): entry for entry in extra.get("judgements", []) if isinstance(entry, dict)}
        for user, values_by_question in values_by_user.items():
            try:
                provenance = _provenance(user, exported.get(user), row.get("id"))
                yield from to_feedback(layout, self._read_annotation(values_by_question, layout), provenance)
            except AssentError as error:
                yield SkippedRow(f"responses of {user}", str(error))

    def _decode_records(self, row: Row, source: str) -> Iterator[TaskWithJudgements | SkippedRow | Remark]:
        for number, record in enumerate(_unfold(row), 1):
            try:
                for decoded in self.decode(record, source):
                    if isinstance(decoded, SkippedRow):
                        decoded = replace(decoded, location=f"record {number}, {decoded.location}")
                    yield decoded
            except AssentError as error:
                yield SkippedRow(f"record {number}", str(error))

    def _read_annotation(self, values_by_question: Mapping[str, Any], layout: TaskLayout) -> Annotation:
        values: dict[str, Any] = {}
        for question, value in values_by_question.items():
            merge(values, self._read_answer(question, value, layout), question)
        return Annotation(**values)

    def _read_answer(self, question: str, value: Any, layout: TaskLayout) -> dict[str, Any]:
        """Return the response to one question as fields of an annotation."""
        match value:
            case Unsubmitted():
                raise AssentError(f"its status is '{value.status}', not submitted")
            case bool() | None:
                pass
            case int() | float() if question == "strength" and len(layout.items) == 2:
                return {"strength": value}
            case int() | float():
                axis = "overall" if question == "rating" else question
                return {"axes": ((axis, rescale(value, self.scale)),)}
            case str():
                return _read_string(question, read_text({question: value}, question), layout)
            case [{"start": _, "end": _}, *_] if len(layout.items) == 1:
                return _read_spans(question, value, layout.items[0].text)
            case [{"value": _}, *_]:
                return {"tiers": _read_ranking(value, layout)}
            case [str(), *_] if question == "flags":
                return {"flags": tuple(read_text({question: flag}, question) for flag in value)}
            case [str(), *_]:  # the client leaves the ranks out, and with them the ties
                return {"tiers": tuple((layout.index_of(str(name)),) for name in value)}
        raise AssentError(f"{json.dumps(value)[:60]} for '{question}' is no kind of judgement")

    def encode(self, record: TaskWithJudgements) -> Iterable[Row]:
        count = len(record.items)
        names = [f"response_{number}" for number in range(1, count + 1)] if count > 1 else ["response"]
        for layout, events in split_by_order(record, names):
            # One response a user: a second judgement of the same annotator needs a record of its own.
            rounds: list[dict[str, Feedback]] = [{}]
            for event in map(anonymised, events):
                user = _user_id(event.annotator)
                free = next((by_user for by_user in rounds if user not in by_user), None)
                if free is None:
                    free = {}
                    rounds.append(free)
                free[user] = event
            item_ids = [item.id for item in layout.items]
            for index, by_user in enumerate(rounds):
                record_id = content_id("record", record.task.id, item_ids, layout.display_order, index)
                yield _encode_record(record_id, record.task.kind, layout, by_user)


# Write


def _encode_record(record_id: str, kind: str, layout: TaskLayout, by_user: Mapping[str, Feedback]) -> Row:
    extra = extras(layout, kind)
    responses: dict[str, list[Row]] = {}
    for user, event in by_user.items():
        annotation = Annotation.from_feedback(event, [item.id for item in layout.items]).require_supported("Argilla")
        for question, value in _answers(annotation, layout):
            responses.setdefault(question, []).append({"value": value, "user_id": user})
        entry = {
            "user": user,
            "annotator": event.annotator,
            **source_field(event),
            "created_at": format_time(event),
            "duration": event.duration,
            "id": roundtrip_id(event),
        }
        extra.setdefault("judgements", []).append(entry)
    texts = {name: item.text for name, item in zip(layout.item_names, layout.items, strict=True)}
    return {
        "id": record_id,
        "fields": prompt_fields(layout) | texts,
        "metadata": {"assent": json.dumps(extra)},
        "suggestions": {},
        "responses": responses,
        "vectors": {},
    }


def _answers(annotation: Annotation, layout: TaskLayout) -> Iterator[tuple[str, Any]]:
    """Yield questions and their answers."""
    if annotation.preferred is not None:
        yield "preference", layout.item_names[annotation.preferred]
        yield "strength", annotation.strength
    if annotation.verdict:
        yield "preference", annotation.verdict
    if annotation.tiers:
        yield "ranking", _ranks(annotation.tiers, layout)
    for axis, value in annotation.axes:
        if value != int(value):
            raise AssentError(f"Argilla cannot store a rating that is not a whole number ({value:g})")
        yield "rating" if axis == "overall" else axis, value
    if annotation.approved is not None:
        yield "approval", "yes" if annotation.approved else "no"
    for name, text in (
        ("correction", annotation.correction),
        ("critique", annotation.critique),
        ("demonstration", annotation.demonstration),
        ("comment", annotation.comment),
    ):
        if text:
            yield name, text
    if annotation.quote:
        start = layout.items[0].text.find(annotation.quote)
        if start < 0:
            raise AssentError("a quote that is not in its response")
        yield "quote", [{"label": "quote", "start": start, "end": start + len(annotation.quote)}]
    if annotation.flags:
        yield "flags", list(annotation.flags)


def _ranks(tiers: tuple[tuple[int, ...], ...], layout: TaskLayout) -> list[Row]:
    """Return the options with their ranks as the server keeps them: after a tie of two at rank 1 comes rank 3."""
    ranks: list[Row] = []
    for tier in tiers:
        rank = len(ranks) + 1
        ranks += [{"value": layout.item_names[index], "rank": rank} for index in tier]
    return ranks


def _user_id(annotator: str) -> str:
    """Return the UUID of an annotator: their own if they came from Argilla, else one made of the pseudonym."""
    try:
        return str(UUID(annotator.removeprefix("argilla:")))
    except ValueError:
        return str(uuid5(NAMESPACE, annotator))


# Read


def _is_by_id(row: Row) -> bool:
    """Return whether `to_dict(orient="index")` wrote the row."""
    return bool(row) and all(
        isinstance(value, dict) and isinstance(value.get("fields"), dict) for value in row.values()
    )


def _unfold(row: Row) -> Iterator[Row]:
    """Yield the records of `to_dict`: a list for each of their parts, or a record for each id."""
    if _is_by_id(row):
        yield from row.values()
        return
    parts = {name: column for name, column in row.items() if isinstance(column, list)}
    if len({len(column) for column in parts.values()}) > 1:
        raise AssentError("lists of different lengths: 'to_dict' writes one value a record in each")
    for values in zip(*parts.values(), strict=True):
        yield dict(zip(parts, values, strict=True))


def _split_record(row: Row) -> tuple[Row, Row, Row]:
    """Return fields, metadata and responses of a record; a flattened one holds all three side by side."""
    if "fields" in row:
        fields, metadata, responses = (row.get(part) or {} for part in ("fields", "metadata", "responses"))
        if not all(isinstance(part, dict) for part in (fields, metadata, responses)):
            raise AssentError("'fields', 'metadata' and 'responses' are not all objects")
        return fields, metadata, responses
    values_by_question: dict[str, list[Row]] = {}
    for name, values in row.items():
        match = FLAT_RESPONSES.fullmatch(name)
        if match and not match[2] and values is not None:
            values_by_question[match[1]] = _join_columns(
                name, values, row.get(f"{name}.users"), row.get(f"{name}.status")
            )
    others = {name: value for name, value in row.items() if "." not in name and name not in ("id", "status")}
    return others, {"assent": others.pop("assent", None)}, values_by_question


def _join_columns(name: str, values: Any, users: Any, statuses: Any) -> list[Row]:
    if not isinstance(values, list) or not isinstance(users, list) or len(values) != len(users):
        raise AssentError(f"'{name}' and '{name}.users' are not two lists of the same length")
    if not isinstance(statuses, list) or len(statuses) != len(users):
        statuses = [None] * len(users)
    return [
        {"value": value, "user_id": user, "status": status}
        for value, user, status in zip(values, users, statuses, strict=True)
    ]


def _read_extra(metadata: Row) -> dict[str, Any]:
    if not metadata.get("assent"):
        return {}
    try:
        extra = json.loads(read_text(metadata, "assent"))
    except (ValueError, RecursionError):
        raise AssentError("'assent' in 'metadata' is broken JSON") from None
    if not isinstance(extra, dict) or not isinstance(extra.get("judgements", []), list):
        raise AssentError("'assent' in 'metadata' is not an object with a list of judgements")
    return extra


def _read_users(responses: Row) -> dict[str, dict[str, Any]]:
    """Return the responses of each user by question; drafts and discarded ones keep their status."""
    values_by_user: dict[str, dict[str, Any]] = {}
    for question, entries in responses.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise AssentError(f"'{question}' in 'responses' is not a list of objects")
        for entry in entries:
            user = str(require(entry, "user_id"))
            by_question = values_by_user.setdefault(user, {})
            if question in by_question:
                raise AssentError(f"two responses of {user} to '{question}'")
            status = entry.get("status")
            is_submitted = status in (None, "submitted")
            by_question[question] = require(entry, "value") if is_submitted else Unsubmitted(str(status))
    return values_by_user


def _provenance(user: str, exported: Row | None, record_id: Any) -> Provenance:
    if exported is None:
        return Provenance(
            f"argilla:{pseudonym(user)}", origin_id=f"record {record_id}" if record_id is not None else ""
        )
    return Provenance(
        pseudonym(read_text(exported, "annotator")),
        read_time(exported, "created_at").created_at,
        read_number(exported, "duration", 0.0),
        read_text(exported, "id"),
        source=read_text(exported, "source") if "source" in exported else "",
    )


def _read_string(question: str, text: str, layout: TaskLayout) -> dict[str, Any]:
    """Return a label or a text, which have the same shape: the names of question and responses tell them apart."""
    if role := text_role(question):
        return {role: text}
    if question in ("approval", "approved") and text.lower() in BOOLEANS:
        return {"approved": BOOLEANS[text.lower()]}
    if len(layout.items) == 2:
        verdict = parse_verdict(text)
        return {"verdict": verdict} if verdict else {"preferred": layout.index_of(text)}
    if not layout.items and question in RESPONSE_FIELDS:
        return {"demonstration": text}
    raise AssentError(
        f"the role of the text '{question}' is unknown: call it correction, critique, demonstration or comment"
    )


def _read_spans(question: str, spans: list[Any], text: str) -> dict[str, Any]:
    """Return passages of the response: the quote of a critique, or labels that are one critique each."""
    passages: list[tuple[str, str]] = []
    for span in spans:
        start, end = (span.get("start"), span.get("end")) if isinstance(span, dict) else (None, None)
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            raise AssentError(f"'{question}' marks {start} to {end} of a response of {len(text)} characters")
        passages.append((read_text(span, "label"), text[start:end]))
    if question == "quote" and len(passages) == 1:
        return {"quote": passages[0][1]}
    return {"spans": tuple(passages)}


def _read_ranking(options: list[Any], layout: TaskLayout) -> tuple[tuple[int, ...], ...]:
    """Return the tiers of options with ranks, equal ones tied; without ranks their order counts."""
    tiers: dict[Any, list[int]] = {}
    for index, option in enumerate(options):
        if not isinstance(option, dict):
            raise AssentError("a ranking with a value that is not an option")
        rank = index if option.get("rank") is None else read_number(option, "rank", 0)
        tiers.setdefault(rank, []).append(layout.index_of(read_text(option, "value")))
    return tuple(tuple(tiers[rank]) for rank in sorted(tiers))
