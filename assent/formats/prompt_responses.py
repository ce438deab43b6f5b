"""A prompt and several responses without a judgement: an open task for annotators."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row, TaskWithJudgements
from assent.formats.files.fields import (
    completion_value,
    last_completion,
    prompt_value,
    read_category,
    read_messages,
    read_text,
    require,
    require_prompt_text,
)
from assent.formats.files.layout import TaskLayout, default_kind, extras, parse_task, response_fields
from assent.records import Completion

LIST_KEYS = ("responses", "completions")


@dataclass(frozen=True)
class PromptResponses(Format):
    """A list under `responses` or `completions`, or one key each: `a` and `b`, `answer1` and `answer2`."""

    record_types: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)

    def match_score(self, row: Row) -> int:
        return 2 * ("prompt" in row and bool(_response_keys(row)))

    def unread_fields(self, row: Row) -> Row:
        known_keys = {"prompt", "category", "meta", "tools", "assent", *_response_keys(row)}
        return {key: value for key, value in row.items() if key not in known_keys} if self.match_score(row) else {}

    def require_unambiguous(self, row: Row) -> None:
        labels = row.get("labels")
        if "completions" in row and isinstance(labels, list) and labels and all(isinstance(b, bool) for b in labels):
            raise AssentError(
                "'completions' holds the steps of one completion and 'labels' says which are right, as in "
                "math_shepherd: assent keeps no judgement of steps; join the steps under 'completion', with a 'label'"
            )

    def keeps_judgement(self, row: Row) -> bool:
        return False

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements]:
        extra = row.get("assent") or {}
        if not isinstance(extra, dict):
            raise AssentError("'assent' is not an object")
        keys = _response_keys(row)
        if not keys:
            raise AssentError(f"no responses: put them in a list under '{LIST_KEYS[0]}'")
        values = row[keys[0]] if keys[0] in LIST_KEYS else [row[key] for key in keys]
        completions: list[Completion] = []
        for completion in map(_read_response, values):
            if completion not in completions:
                completions.append(completion)
        if len(completions) < 2:
            raise AssentError("identical replies")
        named = {f"response_{number}": completion for number, completion in enumerate(completions, 1)}
        extra = {"category": read_category(row), "tools": row.get("tools"), **extra}
        layout = parse_task({"prompt": require(row, "prompt")}, extra, source, named)
        require_prompt_text(layout.prompt)
        yield layout.to_open_task(read_text(extra, "kind") if "kind" in extra else default_kind(layout))

    def encode(self, record: TaskWithJudgements) -> Iterable[Row]:
        task = record.task
        if record.feedback:
            raise AssentError("a judgement, but this format holds open tasks only")
        if len(record.items) < 2:
            raise AssentError(f"a {task.kind} of {len(record.items)} responses")
        items = {item.id: item for item in record.items}
        ordered = tuple(items[item] for item in task.items)
        layout = TaskLayout(record.prompt, ordered, (), tuple(range(len(ordered))), (), task.purpose, task.instruction)
        responses = [completion_value(record.prompt, item.completion) for item in ordered]
        yield {"prompt": prompt_value(record.prompt), "responses": responses, "assent": extras(layout, task.kind)}


def _response_keys(row: Row) -> list[str]:
    """Return the key of a list of responses, or the keys of the responses themselves."""
    if lists := [key for key in LIST_KEYS if isinstance(row.get(key), list) and len(row[key]) > 1]:
        return lists[:1]
    try:
        keys = list(response_fields({key: value for key, value in row.items() if key != "prompt"}, only_known=True))
    except AssentError:
        return []
    return keys if len(keys) > 1 else []


def _read_response(value: Any) -> Completion:
    """Return the completion of a text, or of one message of the assistant."""
    row = {"responses": value}
    if isinstance(value, list):
        return last_completion(read_messages(row, "responses"), "responses", 1)
    return Completion(read_text(row, "responses"))
