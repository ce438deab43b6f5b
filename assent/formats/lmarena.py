"""Battles of LMArena: two models reply in two conversations, and a user names the winner (arXiv:2403.04132)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import (
    UNKNOWN_TIME,
    Annotation,
    Provenance,
    Timestamp,
    anonymised,
    format_time,
    pseudonym,
    read_time,
    roundtrip_id,
    source_field,
    to_feedback,
)
from assent.formats.files.fields import completion_value, count_keys, last_completion, read_messages, read_text
from assent.formats.files.layout import TaskLayout, extras, parse_task, split_by_order
from assent.records import Response, SkippedRow

SIDES = ("model_a", "model_b")
WINNERS: dict[str, Annotation] = {
    "model_a": Annotation(preferred=0),
    "model_b": Annotation(preferred=1),
    "tie": Annotation(verdict="tie"),
    "tie (bothbad)": Annotation(verdict="both bad"),
    "both_bad": Annotation(verdict="both bad"),
}


@dataclass(frozen=True)
class LMArena(Format):
    """The prompt is all but the last message, which both conversations share; `judge` is the annotator."""

    record_types: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    known_keys: ClassVar[frozenset[str]] = frozenset(
        (
            *("conversation_a", "conversation_b", "winner", "judge", "tstamp", "timestamp", "question_id", "id"),
            *("assent", "meta", *SIDES),
        )
    )

    def match_score(self, row: Row) -> int:
        return 2 * count_keys(row, "conversation_a", "conversation_b", "winner")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        winner = read_text(row, "winner")
        if winner not in WINNERS:
            raise AssentError(f"'winner' is {winner!r}, not {', '.join(WINNERS)}")
        timestamp = _read_timestamp(row)
        yield from timestamp.remarks
        extra = row.get("assent") or {}
        if not isinstance(extra, dict):
            raise AssentError("'assent' is not an object")
        battle_id = row.get("question_id", row.get("id"))
        provenance = Provenance(
            _annotator(row, extra, source),
            timestamp.created_at,
            roundtrip_id=str(battle_id),
            origin_id=f"battle {battle_id}" if battle_id is not None else "",
            source=read_text(extra, "source") if "source" in extra else "",
        )
        yield from to_feedback(_read_layout(row, extra, source), WINNERS[winner], provenance)

    def encode(self, record: TaskWithJudgements) -> Iterable[Row]:
        if record.task.kind != "comparison" or record.prompt.is_plain:
            raise AssentError(f"a {record.task.kind}, but this format holds comparisons of conversations only")
        for layout, events in split_by_order(record, SIDES):
            messages = [message.to_dict() for message in record.prompt.messages]
            conversations = [[*messages, *completion_value(record.prompt, item.completion)] for item in layout.items]
            for event in map(anonymised, events):
                annotation = Annotation.from_feedback(event, [item.id for item in layout.items])
                annotation = annotation.require_supported("LMArena")
                created_at = format_time(event)
                yield {
                    "question_id": roundtrip_id(event),
                    "winner": _winner(annotation),
                    "conversation_a": conversations[0],
                    "conversation_b": conversations[1],
                    **({"timestamp": created_at} if created_at else {}),
                    "assent": {**extras(layout, "comparison"), "annotator": event.annotator, **source_field(event)},
                }


def _winner(annotation: Annotation) -> str:
    choice = (annotation.preferred, annotation.verdict)
    return next(word for word, winner in WINNERS.items() if (winner.preferred, winner.verdict) == choice)


def _annotator(row: Row, extra: Row, source: str) -> str:
    if extra.get("annotator"):
        return pseudonym(read_text(extra, "annotator"))
    judge_name = row.get("judge") or row.get("evaluation_session_id")
    return f"lmarena:{pseudonym(str(judge_name))}" if judge_name else f"imported:{source}"


def _read_layout(row: Row, extra: Row, source: str) -> TaskLayout:
    conversations = [read_messages(row, key) for key in ("conversation_a", "conversation_b")]
    if conversations[0][:-1] != conversations[1][:-1] or len(conversations[0]) < 2:
        raise AssentError("the two conversations differ before the last reply: no shared prompt")
    replies = {
        side: last_completion(messages, f"conversation_{side[-1]}", len(messages))
        for side, messages in zip(SIDES, conversations, strict=True)
    }
    messages = [message.to_dict() for message in conversations[0][:-1]]
    layout = parse_task({"messages": messages}, extra, source, replies)
    items = tuple(_with_policy(item, row.get(side)) for item, side in zip(layout.items, SIDES, strict=True))
    return replace(layout, items=items)


def _with_policy(item: Response, model: Any) -> Response:
    return replace(item, policy=model) if isinstance(model, str) and model else item


def _read_timestamp(row: Row) -> Timestamp:
    """Return the time of `tstamp`, in seconds since 1970, or of `timestamp`."""
    seconds = row.get("tstamp")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e11:
        return Timestamp(datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z"))
    return read_time(row, "timestamp") if row.get("timestamp") else Timestamp(UNKNOWN_TIME)
