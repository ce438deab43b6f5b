"""Prompts to be answered: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.formats import Format, Row, asked, content, has, prompt_of
from assent.records import Prompt


@dataclass(frozen=True)
class PromptOnly(Format):
    """Text or messages, without an answer."""

    holds: ClassVar[tuple[type, ...]] = (Prompt,)
    tabular: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset(("prompt", "mode", "tools"))

    def fits(self, row: Row) -> int:
        return has(row, "prompt")

    def decode(self, row: Row, source: str) -> Iterable[Prompt]:
        return (asked(prompt_of(row)),)

    def encode(self, thing: Prompt) -> Iterable[Row]:
        return ({"prompt": content(thing)},)
