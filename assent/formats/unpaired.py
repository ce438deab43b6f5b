"""A completion of a prompt, and whether it is good: https://huggingface.co/docs/trl/dataset_formats"""

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
    get,
    has,
    prompt_of,
    reply,
    turn,
    weighed,
    weight,
    without,
)
from assent.records import ScoredCompletion


@dataclass(frozen=True)
class Unpaired(Format):
    """The label is true or false, 1 or 0."""

    holds: ClassVar[tuple[type, ...]] = (ScoredCompletion,)
    tabular: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = EXAMPLE | {"completion", "label"}

    def fits(self, row: Row) -> int:
        return has(row, "prompt", "completion", "label")

    def decode(self, row: Row, source: str) -> Iterable[ScoredCompletion]:
        prompt, label = asked(prompt_of(row)), get(row, "label")
        if not isinstance(label, bool | int | float) or label not in (0, 1):
            raise AssentError(f"'label' is {label!r}, not true or false: {without('label')}")
        return (ScoredCompletion(prompt, reply(row, "completion", prompt), float(label), weight(row)),)

    def encode(self, thing: ScoredCompletion) -> Iterable[Row]:
        if thing.value not in (0, 1):
            raise AssentError(f"a rating of {thing.value:g}, which is neither true nor false")
        sides = {"prompt": content(thing.prompt), "completion": turn(thing.prompt, thing.completion)}
        return ({**sides, "label": bool(thing.value), **weighed(thing)},)
