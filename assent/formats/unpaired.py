"""A completion of a prompt, and whether it is good: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import (
    EXAMPLE_KEYS,
    completion_value,
    count_keys,
    ignore_hint,
    prompt_value,
    read_completion,
    read_prompt,
    read_weight,
    require,
    require_prompt_text,
    weight_field,
)
from assent.records import ScoredCompletion


@dataclass(frozen=True)
class Unpaired(Format):
    """The label is true, false, 1 or 0."""

    record_types: ClassVar[tuple[type, ...]] = (ScoredCompletion,)
    is_tabular: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS | {"completion", "label"}

    def match_score(self, row: Row) -> int:
        return count_keys(row, "prompt", "completion", "label")

    def decode(self, row: Row, source: str) -> Iterable[ScoredCompletion]:
        prompt, label = require_prompt_text(read_prompt(row)), require(row, "label")
        if not isinstance(label, bool | int | float) or label not in (0, 1):
            raise AssentError(f"'label' is {label!r}, not true or false: {ignore_hint('label')}")
        return (ScoredCompletion(prompt, read_completion(row, "completion", prompt), float(label), read_weight(row)),)

    def encode(self, record: ScoredCompletion) -> Iterable[Row]:
        if record.value not in (0, 1):
            raise AssentError(f"a score of {record.value:g}, which is neither true nor false")
        sides = {
            "prompt": prompt_value(record.prompt),
            "completion": completion_value(record.prompt, record.completion),
        }
        return ({**sides, "label": bool(record.value), **weight_field(record)},)
