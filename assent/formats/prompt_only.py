"""Prompts without completions: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.formats import Format, Row
from assent.formats.files.fields import count_keys, prompt_value, read_prompt, require_prompt_text
from assent.records import Prompt


@dataclass(frozen=True)
class PromptOnly(Format):
    """The prompt alone: text or messages."""

    record_types: ClassVar[tuple[type, ...]] = (Prompt,)
    is_tabular: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = frozenset(("prompt", "category", "meta", "tools"))

    def match_score(self, row: Row) -> int:
        return count_keys(row, "prompt")

    def keeps_judgement(self, row: Row) -> bool:
        return False

    def decode(self, row: Row, source: str) -> Iterable[Prompt]:
        return (require_prompt_text(read_prompt(row)),)

    def encode(self, record: Prompt) -> Iterable[Row]:
        return ({"prompt": prompt_value(record)},)
