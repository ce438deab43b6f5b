"""Battles of LMArena: two models answer in two conversations, and a person names the winner (arXiv:2403.04132)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements, has, last, messages, text, turn
from assent.formats.files.annotation import (
    UNKNOWN_TIME,
    Ballot,
    Moment,
    Voice,
    demand_time,
    going_out,
    heard,
    pseudonym,
    seal,
    time_of,
)
from assent.formats.files.layout import Sheet, facts_of, screen, sheets
from assent.records import SkippedRow

SIDES = ("model_a", "model_b")
WINNERS: dict[str, dict[str, Any]] = {
    "model_a": {"better": 0},
    "model_b": {"better": 1},
    "tie": {"verdict": "tie"},
    "tie (bothbad)": {"verdict": "both bad"},
    "both_bad": {"verdict": "both bad"},
}


@dataclass(frozen=True)
class LMArena(Format):
    """The prompt is all but the last message, which both conversations share; `judge` is the annotator."""

    holds: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    reads: ClassVar[frozenset[str]] = frozenset(
        ("conversation_a", "conversation_b", "winner", "judge", "tstamp", "timestamp", "question_id", "id", "assent")
    ) | frozenset(SIDES)

    def fits(self, row: Row) -> int:
        return 2 * has(row, "conversation_a", "conversation_b", "winner")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        winner = text(row, "winner")
        if winner not in WINNERS:
            raise AssentError(f"'winner' is {winner!r}, not {', '.join(WINNERS)}")
        moment = _time(row)
        yield from moment.remarks
        judge = row.get("judge") or row.get("evaluation_session_id")
        who = f"lmarena:{pseudonym(str(judge))}" if judge else f"imported:{source}"
        name = row.get("question_id", row.get("id"))
        facts = row.get("assent") or {}
        if not isinstance(facts, dict):
            raise AssentError("'assent' is not an object")
        if facts.get("annotator"):
            who = pseudonym(text(facts, "annotator"))
        voice = Voice(who, moment.at, 0.0, str(name), f"battle {name}" if name is not None else "")
        yield from heard(_sheet(row, facts, source), Ballot(**WINNERS[winner]), voice)

    def encode(self, thing: TaskWithJudgements) -> Iterable[Row]:
        if thing.query.kind != "comparison" or thing.prompt.is_plain:
            raise AssentError(f"a {thing.query.kind}, and this format holds comparisons of conversations")
        for sheet, events in sheets(thing, SIDES):
            before = [message.to_dict() for message in thing.prompt.messages]
            talks = [[*before, *turn(thing.prompt, item.completion)] for item in sheet.items]
            for event in map(going_out, events):
                ballot = Ballot.of(event, [item.id for item in sheet.items]).demand_usual("LMArena")
                chosen = {"better": ballot.better} if ballot.better is not None else {"verdict": ballot.verdict}
                at = demand_time(event)
                yield {
                    "question_id": seal(event),
                    "winner": next(word for word, said in WINNERS.items() if said == chosen),
                    "conversation_a": talks[0],
                    "conversation_b": talks[1],
                    **({"timestamp": at} if at else {}),
                    "assent": {**facts_of(sheet, "comparison"), "annotator": event.annotator},
                }


def _sheet(row: Row, facts: Row, source: str) -> Sheet:
    talks = [messages(row, key) for key in ("conversation_a", "conversation_b")]
    if talks[0][:-1] != talks[1][:-1] or len(talks[0]) < 2:
        raise AssentError("the two conversations differ before the last reply: no shared prompt")
    replies = [last(talk, f"conversation_{side}", len(talk)) for talk, side in zip(talks, "ab", strict=True)]
    before = [message.to_dict() for message in talks[0][:-1]]
    sheet = screen({"messages": before}, facts, source, dict(zip(SIDES, replies, strict=True)))
    models = [row.get(side) for side in SIDES]
    both = zip(sheet.items, models, strict=True)
    items = (replace(item, policy=model) if isinstance(model, str) and model else item for item, model in both)
    return replace(sheet, items=tuple(items))


def _time(row: Row) -> Moment:
    """Seconds since 1970 in `tstamp`, or a time in `timestamp`."""
    seconds = row.get("tstamp")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e11:
        return Moment(datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z"))
    return time_of(row, "timestamp") if row.get("timestamp") else Moment(UNKNOWN_TIME)
