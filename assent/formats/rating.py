"""A completion of a prompt and its rating from 1 to 7."""

import math
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
    read_number,
    read_prompt,
    read_weight,
    require,
    require_prompt_text,
    weight_field,
)
from assent.records import ScoredCompletion


@dataclass(frozen=True)
class Rating(Format):
    """One number for the whole completion; each row is one judgement."""

    record_types: ClassVar[tuple[type, ...]] = (ScoredCompletion,)
    is_tabular: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS | {"completion", "rating"}
    judgement_kind: ClassVar[str] = "rating"

    def match_score(self, row: Row) -> int:
        return count_keys(row, "prompt", "completion", "rating")

    def decode(self, row: Row, source: str) -> Iterable[ScoredCompletion]:
        prompt, value = require_prompt_text(read_prompt(row)), require(row, "rating")
        rating = read_number(row, "rating", math.nan)
        if not 1 <= rating <= 7:
            raise AssentError(f"'rating' is {value!r}, not a number from 1 to 7: {ignore_hint('rating')}")
        return (
            ScoredCompletion(prompt, read_completion(row, "completion", prompt), (rating - 1) / 6, read_weight(row)),
        )

    def encode(self, record: ScoredCompletion) -> Iterable[Row]:
        sides = {
            "prompt": prompt_value(record.prompt),
            "completion": completion_value(record.prompt, record.completion),
        }
        return ({**sides, "rating": to_rating(record), **weight_field(record)},)


def to_rating(example: ScoredCompletion) -> float:
    """Return the score of a completion as a rating from 1 to 7."""
    return round(1 + 6 * example.value, 9)
