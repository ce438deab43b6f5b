"""Prompt, chosen and rejected: https://huggingface.co/docs/trl/dataset_formats, and ultrafeedback_binarized."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent import records
from assent.errors import AssentError
from assent.formats import PAIR, Format, Row, asked, content, has, pair, prompt_of, reply, soft, text, turn
from assent.formats.preference_implicit import PreferenceImplicit


@dataclass(frozen=True)
class Preference(Format):
    """Both replies stand apart from the prompt."""

    holds: ClassVar[tuple[type, ...]] = (records.Preference,)
    reads: ClassVar[frozenset[str]] = PAIR

    def fits(self, row: Row) -> int:
        return has(row, "prompt", "chosen", "rejected")

    def decode(self, row: Row, source: str) -> Iterable[records.Preference]:
        if isinstance(row.get("prompt"), str) and isinstance(row.get("chosen"), list):
            # As in ultrafeedback_binarized: whole conversations, and their first question once more as text.
            (told,) = PreferenceImplicit().decode(row, source)
            if text(row, "prompt") not in (message.content for message in told.prompt.messages):
                raise AssentError("'prompt' is not part of the conversation in 'chosen'")
            return (told,)
        prompt = asked(prompt_of(row))
        return (pair(row, prompt, reply(row, "chosen", prompt), reply(row, "rejected", prompt)),)

    def encode(self, thing: records.Preference) -> Iterable[Row]:
        prompt = thing.prompt
        sides = {"chosen": turn(prompt, thing.chosen), "rejected": turn(prompt, thing.rejected)}
        return ({"prompt": content(prompt), **sides, **soft(thing)},)
