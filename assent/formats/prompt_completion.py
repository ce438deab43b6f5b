"""A prompt and a completion to imitate: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.formats import Format, Row
from assent.formats.files.fields import (
    EXAMPLE_KEYS,
    completion_value,
    count_keys,
    prompt_value,
    read_completion,
    read_prompt,
    read_weight,
    weight_field,
)
from assent.records import SFTExample


@dataclass(frozen=True)
class PromptCompletion(Format):
    """Prompt and completion under keys of their own."""

    record_types: ClassVar[tuple[type, ...]] = (SFTExample,)
    is_tabular: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS | {"completion"}

    def match_score(self, row: Row) -> int:
        return count_keys(row, "prompt", "completion")

    def keeps_judgement(self, row: Row) -> bool:
        return False

    def decode(self, row: Row, source: str) -> Iterable[SFTExample]:
        prompt = read_prompt(row)
        return (SFTExample(prompt, read_completion(row, "completion", prompt), read_weight(row)),)

    def encode(self, record: SFTExample) -> Iterable[Row]:
        sides = {
            "prompt": prompt_value(record.prompt),
            "completion": completion_value(record.prompt, record.completion),
        }
        return ({**sides, **weight_field(record)},)
