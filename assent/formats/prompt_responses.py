"""A prompt and several responses that nobody has compared yet: a question that waits for people."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row, TaskWithJudgements, asked, content, get, last, messages, mode, text, turn
from assent.formats.files.layout import Sheet, answer_fields, facts_of, screen, usual_kind
from assent.records import Completion

LISTS = ("responses", "completions")


@dataclass(frozen=True)
class PromptResponses(Format):
    """A list under `responses` or `completions`, or one key each: `a` and `b`, `answer1` and `answer2`."""

    holds: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)

    def fits(self, row: Row) -> int:
        return 2 * ("prompt" in row and bool(_keys(row)))

    def unread(self, row: Row) -> Row:
        read = {"prompt", "mode", "tools", "assent", *_keys(row)}
        return {key: value for key, value in row.items() if key not in read} if self.fits(row) else {}

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements]:
        facts = row.get("assent") or {}
        if not isinstance(facts, dict):
            raise AssentError("'assent' is not an object")
        keys = _keys(row)
        if not keys:
            raise AssentError(f"no responses: put them in a list under '{LISTS[0]}'")
        listed = row[keys[0]] if keys[0] in LISTS else [row[key] for key in keys]
        replies: list[Completion] = []
        for each in map(_completion, listed):
            replies += [each] * (each not in replies)
        if len(replies) < 2:
            raise AssentError("identical replies")
        named = {f"response_{place}": each for place, each in enumerate(replies, 1)}
        facts = {"mode": mode(row), "tools": row.get("tools"), **facts}
        sheet = screen({"prompt": get(row, "prompt")}, facts, source, named)
        asked(sheet.prompt)
        yield sheet.unanswered(text(facts, "kind") if "kind" in facts else usual_kind(sheet))

    def encode(self, thing: TaskWithJudgements) -> Iterable[Row]:
        if thing.answers:
            raise AssentError("an answer, and this format holds questions alone")
        if len(thing.items) < 2:
            raise AssentError(f"a {thing.query.kind} about {len(thing.items)} answers")
        items = {item.id: item for item in thing.items}
        ordered = tuple(items[item] for item in thing.query.items)
        query = thing.query
        order = tuple(range(len(ordered)))
        sheet = Sheet(thing.prompt, ordered, (), order, (), query.purpose, query.instruction)
        responses = [turn(thing.prompt, item.completion) for item in ordered]
        yield {"prompt": content(thing.prompt), "responses": responses, "assent": facts_of(sheet, query.kind)}


def _keys(row: Row) -> list[str]:
    """The key of a list of responses, or those of the responses themselves."""
    if found := [key for key in LISTS if isinstance(row.get(key), list) and len(row[key]) > 1]:
        return found[:1]
    try:
        keys = list(answer_fields({key: value for key, value in row.items() if key != "prompt"}, known=True))
    except AssentError:
        return []
    return keys if len(keys) > 1 else []


def _completion(response: Any) -> Completion:
    """Text, or one message of the assistant."""
    row, key = {"responses": response}, "responses"
    return last(messages(row, key), key, 1) if isinstance(response, list) else Completion(text(row, key))
