"""A completion of a prompt and how good it is, from 1 to 7."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import (
    EXAMPLE,
    Format,
    Row,
    asked,
    content,
    has,
    number,
    prompt_of,
    reply,
    turn,
    weighed,
    weight,
    without,
)
from assent.records import ScoredCompletion


@dataclass(frozen=True)
class Rating(Format):
    """One number for the whole; each row is an answer of its own."""

    holds: ClassVar[tuple[type, ...]] = (ScoredCompletion,)
    tabular: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = EXAMPLE | {"completion", "rating"}
    answer: ClassVar[str] = "rating"

    def fits(self, row: Row) -> int:
        return has(row, "prompt", "completion", "rating")

    def decode(self, row: Row, source: str) -> Iterable[ScoredCompletion]:
        prompt, rating = asked(prompt_of(row)), number(row, "rating", math.nan)
        if not 1 <= rating <= 7:
            raise AssentError(f"'rating' is {row['rating']!r}, not a number from 1 to 7: {without('rating')}")
        return (ScoredCompletion(prompt, reply(row, "completion", prompt), (rating - 1) / 6, weight(row)),)

    def encode(self, thing: ScoredCompletion) -> Iterable[Row]:
        sides = {"prompt": content(thing.prompt), "completion": turn(thing.prompt, thing.completion)}
        return ({**sides, "rating": stars(thing), **weighed(thing)},)


def stars(label: ScoredCompletion) -> float:
    """A label as a rating from 1 to 7."""
    return round(1 + 6 * label.value, 9)
