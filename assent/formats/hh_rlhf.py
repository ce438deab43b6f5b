"""Transcripts of Human and Assistant, chosen and rejected: the files of hh-rlhf, Bai et al. 2022 (arXiv:2204.05862)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import (
    PREFERENCE_KEYS,
    preference_fields,
    read_category,
    read_preference,
    read_text,
    require_reply_text,
)
from assent.formats.files.transcripts import ASSISTANT, HUMAN, split_transcript
from assent.records import Completion, Preference, Prompt

SPEAKERS = {"user": HUMAN, "assistant": ASSISTANT}


@dataclass(frozen=True)
class HHRLHF(Format):
    """The prompt is everything before the last turn of the assistant, the same on both sides."""

    record_types: ClassVar[tuple[type, ...]] = (Preference,)
    known_keys: ClassVar[frozenset[str]] = PREFERENCE_KEYS - {"prompt", "tools"}

    def match_score(self, row: Row) -> int:
        # One more than for the two keys alone, since their content was checked too.
        return 3 * ("prompt" not in row and HUMAN in str(row.get("chosen")) and ASSISTANT in str(row.get("rejected")))

    def decode(self, row: Row, source: str) -> Iterable[Preference]:
        chosen = read_text(row, "chosen")
        rejected = read_text(row, "rejected")
        transcript, mark, chosen_reply = chosen.rpartition(ASSISTANT)
        rejected_transcript, _, rejected_reply = rejected.rpartition(ASSISTANT)
        if not mark or not chosen.startswith(HUMAN):
            raise AssentError("'chosen' is not a transcript of Human and Assistant")
        if not rejected.startswith(transcript + mark):
            raise AssentError("no shared prompt")
        if transcript != rejected_transcript:
            raise AssentError("'rejected' has a further turn, so the two replies have different prompts")
        completions = (_completion(chosen_reply, "chosen"), _completion(rejected_reply, "rejected"))
        return (read_preference(row, Prompt(split_transcript(transcript), read_category(row)), *completions),)

    def encode(self, record: Preference) -> Iterable[Row]:
        messages = record.prompt.messages
        if unsupported := [message.role for message in messages if message.role not in SPEAKERS]:
            raise AssentError(f"a message of role '{unsupported[0]}', which a transcript cannot hold")
        transcript = "".join(f"{SPEAKERS[message.role]} {message.content}" for message in messages)
        chosen = f"{transcript}{ASSISTANT} {record.chosen.text}"
        rejected = f"{transcript}{ASSISTANT} {record.rejected.text}"
        return ({"chosen": chosen, "rejected": rejected, **preference_fields(record)},)


def _completion(text: str, key: str) -> Completion:
    return Completion(require_reply_text(text.removeprefix(" "), key))
