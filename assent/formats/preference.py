"""Prompt, chosen and rejected: https://huggingface.co/docs/trl/dataset_formats, and the columns of public data sets.

UltraFeedback binarized (arXiv:2310.01377, hf.co/datasets/HuggingFaceH4/ultrafeedback_binarized and Argilla's), Intel's
Orca pairs (hf.co/datasets/Intel/orca_dpo_pairs, argilla/distilabel-intel-orca-dpo-pairs), truthy-dpo, Capybara DPO,
Snorkel's PairRM pairs, full-hh-rlhf and RewardBench (arXiv:2403.13787).
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from assent import records
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.fields import (
    PREFERENCE_KEYS,
    chat_prompt,
    completion_value,
    count_keys,
    preference_fields,
    prompt_value,
    read_completion,
    read_preference,
    read_prompt,
    read_text,
    require,
    require_prompt_text,
    require_reply_text,
    user_turn,
)
from assent.formats.files.sides import (
    AS_CHAT,
    ASSUMED_ANNOTATORS,
    PROMPT_KEYS,
    READ_KEYS,
    copied_columns,
    is_benchmark,
    judge_sides,
    side_keys,
    system_keys,
    with_system,
)
from assent.formats.files.transcripts import read_open_transcript
from assent.formats.preference_implicit import preference_of_conversations
from assent.records import Completion, Prompt

OTHER_PROMPT = "'prompt' is not part of the conversation in 'chosen': the conversation counts"
TRANSCRIPT = "the prompt is a transcript of Human and Assistant: read as a conversation"


@dataclass(frozen=True)
class Preference(Format):
    """Both replies under keys of their own; text beside `system`, or under `question` or `input`, is a user's turn."""

    record_types: ClassVar[tuple[type, ...]] = (records.Preference,)
    known_keys: ClassVar[frozenset[str]] = PREFERENCE_KEYS | READ_KEYS
    assumed_annotators: ClassVar[frozenset[str]] = ASSUMED_ANNOTATORS

    def match_score(self, row: Row) -> int:
        if "prompt" not in row and count_keys(row, "instruction", "chosen_response", "rejected_response"):
            return 4
        if not count_keys(row, "chosen", "rejected"):
            return 0
        has_question = isinstance(row["chosen"], str) and _prompt_key(row) not in ("", "instruction")
        return 3 * ("prompt" in row or has_question)

    def unread_fields(self, row: Row) -> Row:
        read_keys = {*PREFERENCE_KEYS, *side_keys(row), *_sides(row), _prompt_key(row), *system_keys(row)}
        return {key: value for key, value in row.items() if key not in read_keys} if self.match_score(row) else {}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return copied_columns(row)

    def decode(self, row: Row, source: str) -> Iterable[records.Preference | TaskWithJudgements | Remark]:
        chosen, rejected = _sides(row)
        key = _prompt_key(row) or "prompt"
        if isinstance(row.get(key), str) and isinstance(row.get(chosen), list):
            yield from _of_conversations(row, source)
            return
        if isinstance(require(row, key), str):
            prompt, is_transcript, remark = _read_text_prompt(row, key)
            yield from [Remark(remark)] if remark else []
            texts = (read_text(row, side).removeprefix(" " if is_transcript else "") for side in (chosen, rejected))
            replies = [
                Completion(require_reply_text(text, side)) for side, text in zip(_sides(row), texts, strict=True)
            ]
        else:
            prompt = read_prompt(row, key)
            replies = [read_completion(row, side, prompt) for side in (chosen, rejected)]
            prompt = with_system(prompt, row)
        yield from judge_sides(row, source, read_preference(row, require_prompt_text(prompt), *replies))

    def encode(self, record: records.Preference) -> Iterable[Row]:
        prompt = record.prompt
        sides = {
            "chosen": completion_value(prompt, record.chosen),
            "rejected": completion_value(prompt, record.rejected),
        }
        return ({"prompt": prompt_value(prompt), **sides, **preference_fields(record)},)


def _sides(row: Row) -> tuple[str, str]:
    is_instruction = "chosen_response" in row and "chosen" not in row
    return ("chosen_response", "rejected_response") if is_instruction else ("chosen", "rejected")


def _prompt_key(row: Row) -> str:
    return next((key for key in PROMPT_KEYS if key in row), "")


def _read_text_prompt(row: Row, key: str) -> tuple[Prompt, bool, str]:
    """Return the prompt in a column of text, whether it is a transcript, and what was assumed to read it."""
    text = read_text(row, key)
    if turns := read_open_transcript(text):
        return chat_prompt(row, turns), True, TRANSCRIPT
    if key == "prompt" and "system" not in row and not is_benchmark(row):
        return read_prompt(row), False, ""
    system = read_text(row, "system") if row.get("system") else ""
    return chat_prompt(row, user_turn(text, system)), False, AS_CHAT


def _of_conversations(row: Row, source: str) -> Iterator[records.Preference | TaskWithJudgements | Remark]:
    """Read whole conversations beside a text: as in ultrafeedback_binarized one of their messages, or another text."""
    preference = preference_of_conversations(row)
    if read_text(row, "prompt") not in (message.content for message in preference.prompt.messages):
        yield Remark(OTHER_PROMPT)
    yield from judge_sides(row, source, preference)
