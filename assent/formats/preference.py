"""Prompt, chosen and rejected: https://huggingface.co/docs/trl/dataset_formats, and ultrafeedback_binarized."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent import records
from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import (
    PREFERENCE_KEYS,
    completion_value,
    count_keys,
    preference_fields,
    prompt_value,
    read_completion,
    read_preference,
    read_prompt,
    read_text,
    require_prompt_text,
)
from assent.formats.preference_implicit import PreferenceImplicit


@dataclass(frozen=True)
class Preference(Format):
    """Both replies under keys of their own."""

    record_types: ClassVar[tuple[type, ...]] = (records.Preference,)
    known_keys: ClassVar[frozenset[str]] = PREFERENCE_KEYS

    def match_score(self, row: Row) -> int:
        return count_keys(row, "prompt", "chosen", "rejected")

    def decode(self, row: Row, source: str) -> Iterable[records.Preference]:
        if isinstance(row.get("prompt"), str) and isinstance(row.get("chosen"), list):
            # As in ultrafeedback_binarized: whole conversations, and their first message repeated as text.
            (preference,) = PreferenceImplicit().decode(row, source)
            if read_text(row, "prompt") not in (message.content for message in preference.prompt.messages):
                raise AssentError("'prompt' is not part of the conversation in 'chosen'")
            return (preference,)
        prompt = require_prompt_text(read_prompt(row))
        chosen = read_completion(row, "chosen", prompt)
        rejected = read_completion(row, "rejected", prompt)
        return (read_preference(row, prompt, chosen, rejected),)

    def encode(self, record: records.Preference) -> Iterable[Row]:
        prompt = record.prompt
        sides = {
            "chosen": completion_value(prompt, record.chosen),
            "rejected": completion_value(prompt, record.rejected),
        }
        return ({"prompt": prompt_value(prompt), **sides, **preference_fields(record)},)
