"""Battles of LMArena: two models reply in two conversations, and a user names the winner (arXiv:2403.04132).

Also the judgements of MT-bench (arXiv:2306.05685), and the public sets of 55, 100 and 140 thousand battles:
https://huggingface.co/datasets/lmsys/mt_bench_human_judgments, lmarena-ai/arena-human-preference-55k, -100k and -140k.
"""

import json
import re
from collections.abc import Collection, Iterable
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
from assent.formats.files.fields import (
    completion_value,
    count_keys,
    last_completion,
    read_messages,
    read_text,
    require,
    require_objects,
)
from assent.formats.files.layout import TaskLayout, extras, parse_task, split_by_order
from assent.records import Message, Response, SkippedRow

SIDES = ("model_a", "model_b")
WINNERS: dict[str, Annotation] = {
    "model_a": Annotation(preferred=0),
    "model_b": Annotation(preferred=1),
    "tie": Annotation(verdict="tie"),
    "tie (bothbad)": Annotation(verdict="both bad"),
    "both_bad": Annotation(verdict="both bad"),
}
WINNER_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")
"""One of them is 1, in the table of 55 thousand battles."""
MODEL_JUDGE = re.compile(r"gpt-?\d", re.IGNORECASE)
"""The beginning of a judge's name that is a model, as in MT-bench."""
COUNTS = ("num_tokens",)
"""Keys of messages that no chat template reads."""
FIRST_TURN = "the first turn was judged: later ones are left out"


@dataclass(frozen=True)
class LMArena(Format):
    """The prompt is all but the last message, which both conversations share; `judge` is the annotator."""

    record_types: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    is_tabular: ClassVar[bool] = True
    fact_keys: ClassVar[frozenset[str]] = frozenset(("toxic_chat_tag", "openai_moderation", "category_tag"))
    known_keys: ClassVar[frozenset[str]] = frozenset(
        (
            *("conversation_a", "conversation_b", "winner", "judge", "tstamp", "timestamp", "question_id", "id"),
            *("assent", "meta", "turn", "judge_hash", "evaluation_session_id", "evaluation_order", *SIDES),
        )
    )

    def match_score(self, row: Row) -> int:
        battles = 2 * count_keys(row, "conversation_a", "conversation_b", "winner")
        return battles or 2 * count_keys(row, "prompt", "response_a", "response_b", *WINNER_COLUMNS)

    def unread_fields(self, row: Row) -> Row:
        read_keys = {
            *self.known_keys,
            *(("prompt", "response_a", "response_b", *WINNER_COLUMNS) if _is_split(row) else ()),
        }
        return {key: value for key, value in row.items() if key not in read_keys} if self.match_score(row) else {}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return ("full_conversation",)

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        if _is_split(row):
            row = _join_turns(row)
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
        layout, remarks = _read_layout(row, extra, source)
        yield from remarks
        yield from to_feedback(layout, WINNERS[winner], provenance)

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
    judge_name = row.get("judge") or row.get("evaluation_session_id") or row.get("judge_hash")
    if not judge_name:
        return f"imported:{source}"
    name = pseudonym(str(judge_name))
    return f"{'ai' if MODEL_JUDGE.match(name) else 'lmarena'}:{name}"


def _is_split(row: Row) -> bool:
    """Return whether the turns of a battle stand in three lists, as in the table of 55 thousand battles."""
    return "conversation_a" not in row and "response_a" in row


def _join_turns(row: Row) -> Row:
    """Return a battle whose turns stand in three lists as one with two conversations."""
    prompts = _read_turns(row, "prompt")
    wins = [column for column in WINNER_COLUMNS if str(require(row, column)).strip() in ("1", "1.0", "True")]
    if len(wins) != 1:
        raise AssentError(f"{' and '.join(wins) or 'none of ' + ', '.join(WINNER_COLUMNS)} is 1")
    battle = {**row, "winner": wins[0].removeprefix("winner_")}
    for side in "ab":
        replies = _read_turns(row, f"response_{side}")
        if len(replies) != len(prompts):
            raise AssentError(f"'prompt' has {len(prompts)} turns, 'response_{side}' {len(replies)}")
        battle[f"conversation_{side}"] = [
            {"role": role, "content": text or ""}
            for turn in zip(prompts, replies, strict=True)
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
    return battle


def _read_turns(row: Row, key: str) -> list[Any]:
    """Return the texts of a list, or of JSON text that spells one; a reply that failed is null."""
    turns = _parse_json(row, key)
    if not isinstance(turns, list) or not all(isinstance(turn, str | None) for turn in turns):
        raise AssentError(f"'{key}' is not a list of texts")
    return turns


def _parse_json(row: Row, key: str) -> Any:
    """Return a value, or the one that its JSON text spells."""
    value = require(row, key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        kind = (
            "Python text, as numpy prints it" if value.lstrip().startswith(("[{'", "[{\n'")) else "text, but not JSON"
        )
        raise AssentError(f"'{key}' holds {kind}: write it as JSON") from None


def _read_conversation(row: Row, key: str) -> tuple[Message, ...]:
    messages = _parse_json(row, key)
    if isinstance(messages, list):
        messages = [
            {name: value for name, value in message.items() if name not in COUNTS}
            if isinstance(message, dict)
            else message
            for message in messages
        ]
    return read_messages({key: messages}, key)


def _first_turn(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return a conversation up to the assistant's first reply."""
    ends = [number for number, message in enumerate(messages, 1) if message.role == "assistant"]
    return messages[: ends[0]] if ends else messages


def _earlier_turns(row: Row, side: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the turns before a conversation that was not the first of its session."""
    if not isinstance(row.get("evaluation_order"), int) or row["evaluation_order"] < 2:
        return ()
    turns = require_objects(row, "full_conversation") if "full_conversation" in row else []
    num_earlier = len(turns) - sum(message.role == "user" for message in messages)
    if num_earlier < 1:
        raise AssentError(f"'evaluation_order' is {row['evaluation_order']}, but the row lacks the turns before it")
    parts = [turn.get(name) for turn in turns[:num_earlier] for name in ("user", f"model_side_{side}")]
    return _read_conversation({"full_conversation": parts}, "full_conversation")


def _read_layout(row: Row, extra: Row, source: str) -> tuple[TaskLayout, list[Remark]]:
    conversations = [_read_conversation(row, f"conversation_{side}") for side in "ab"]
    remarks: list[Remark] = []
    if row.get("turn") == 1 and any(_first_turn(messages) != messages for messages in conversations):
        conversations = list(map(_first_turn, conversations))
        remarks.append(Remark(FIRST_TURN))
    conversations = [
        (*_earlier_turns(row, side, messages), *messages) for side, messages in zip("ab", conversations, strict=True)
    ]
    if conversations[0][:-1] != conversations[1][:-1] or len(conversations[0]) < 2:
        raise AssentError("the two conversations differ before the last reply: no shared prompt")
    replies = {
        side: last_completion(messages, f"conversation_{side[-1]}", len(messages))
        for side, messages in zip(SIDES, conversations, strict=True)
    }
    messages = [message.to_dict() for message in conversations[0][:-1]]
    layout = parse_task({"messages": messages}, extra, source, replies)
    items = tuple(_with_policy(item, row.get(side)) for item, side in zip(layout.items, SIDES, strict=True))
    return replace(layout, items=items), remarks


def _with_policy(item: Response, model: Any) -> Response:
    return replace(item, policy=model) if isinstance(model, str) and model else item


def _read_timestamp(row: Row) -> Timestamp:
    """Return the time of `tstamp`, in seconds since 1970, or of `timestamp`."""
    seconds = row.get("tstamp")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e11:
        return Timestamp(datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z"))
    return read_time(row, "timestamp") if row.get("timestamp") else Timestamp(UNKNOWN_TIME)
