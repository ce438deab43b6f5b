"""Chosen and rejected; the prompt is their shared beginning: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.fields import (
    PREFERENCE_KEYS,
    chat_prompt,
    completion_value,
    count_keys,
    last_completion,
    preference_fields,
    prompt_value,
    read_messages,
    read_preference,
    read_text,
    require,
    require_reply_text,
    text_prompt,
)
from assent.formats.files.sides import (
    ASSUMED_ANNOTATORS,
    PROMPT_KEYS,
    copied_columns,
    judge_sides,
    side_keys,
    system_keys,
    with_system,
)
from assent.records import Completion, Preference


@dataclass(frozen=True)
class PreferenceImplicit(Format):
    """Of conversations, the prompt is all but the last message; of text, all up to the last shared space."""

    record_types: ClassVar[tuple[type, ...]] = (Preference,)
    known_keys: ClassVar[frozenset[str]] = PREFERENCE_KEYS - {"prompt"}
    assumed_annotators: ClassVar[frozenset[str]] = ASSUMED_ANNOTATORS

    def match_score(self, row: Row) -> int:
        # Of two texts beside a prompt, the shared first words are no prompt.
        has_prompt = isinstance(row.get("chosen"), str) and any(key in row for key in (*PROMPT_KEYS, "system"))
        return 0 if has_prompt else count_keys(row, "chosen", "rejected")

    def unread_fields(self, row: Row) -> Row:
        read_keys = {*self.known_keys, *side_keys(row), *system_keys(row)}
        return {key: value for key, value in row.items() if key not in read_keys} if self.match_score(row) else {}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return copied_columns(row)

    def decode(self, row: Row, source: str) -> Iterable[Preference | TaskWithJudgements | Remark]:
        if isinstance(require(row, "chosen"), str):
            return judge_sides(row, source, _of_text(row))
        return judge_sides(row, source, preference_of_conversations(row))

    def encode(self, record: Preference) -> Iterable[Row]:
        sides = {}
        for key, completion in (("chosen", record.chosen), ("rejected", record.rejected)):
            prompt = prompt_value(record.prompt)
            sides[key] = prompt + completion_value(record.prompt, completion)  # type: ignore[operator]  # of one type
        return ({**sides, **preference_fields(record)},)


def preference_of_conversations(row: Row) -> Preference:
    """Return the preference of two conversations that differ in their last message."""
    chosen = read_messages(row, "chosen")
    rejected = read_messages(row, "rejected")
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise AssentError("no shared prompt")
    completions = (
        last_completion(chosen, "chosen", len(chosen)),
        last_completion(rejected, "rejected", len(rejected)),
    )
    return read_preference(row, with_system(chat_prompt(row, chosen[:-1]), row), *completions)


def _of_text(row: Row) -> Preference:
    """Take the shared beginning up to its last space as the prompt, so that no word is cut in two."""
    chosen = read_text(row, "chosen")
    rejected = read_text(row, "rejected")
    if chosen == rejected:
        raise AssentError("identical replies")
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((index for index, (left, right) in pairs if left != right), min(len(chosen), len(rejected)))
    cut = next((index for index in reversed(range(shared)) if chosen[index].isspace()), 0)
    if not cut:
        raise AssentError("no shared prompt")
    chosen_reply = Completion(require_reply_text(chosen[cut:], "chosen"))
    rejected_reply = Completion(require_reply_text(rejected[cut:], "rejected"))
    return read_preference(row, text_prompt(row, chosen[:cut]), chosen_reply, rejected_reply)
