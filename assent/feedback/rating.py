"""How good one item is, from 1 to 7, along one axis or several."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import demand_number
from assent.records import Example, Prompt, Response, ScoredCompletion, Task


@dataclass(frozen=True)
class Rating:
    """(axis, value) pairs, kept in the order of the axes' names; a mapping is taken as well."""

    num_items: ClassVar[range] = range(1, 2)
    asks: ClassVar[str] = "How good is this answer?"
    axes: tuple[tuple[str, float], ...]
    weight: float = 1.0
    """How much it counts, beside the reliability of who gave it."""

    def __post_init__(self) -> None:
        pairs = tuple(self.axes.items()) if isinstance(self.axes, Mapping) else self.axes
        if not pairs or not isinstance(pairs, tuple) or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
            raise AssentError(f"a rating is pairs of axis and value, at least one, not {self.axes!r}")
        for axis, value in pairs:
            if not isinstance(axis, str) or not axis:
                raise AssentError(f"an axis of a rating has a name, not {axis!r}")
            if type(value) not in (int, float) or not 1 <= value <= 7:
                raise AssentError(f"a rating of '{axis}' is a number from 1 to 7, not {value!r}")
        if len(dict(pairs)) < len(pairs):
            raise AssentError(f"a rating names each axis once, not {', '.join(axis for axis, _ in pairs)}")
        demand_number("weight", self.weight)
        object.__setattr__(self, "axes", tuple(sorted(pairs)))

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def agrees(self, other: "Rating") -> bool:
        """Whether another rating is at most one step away on each axis."""
        given = dict(other.axes)
        return all(abs(given.get(axis, 100) - value) <= 1 for axis, value in self.axes)

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """One label: the mean over the axes, brought from 1 .. 7 to 0 .. 1."""
        value = (fmean(value for _, value in self.axes) - 1) / 6
        answer, weight = responses[query.items[0]], weight * self.weight
        return (ScoredCompletion(prompt, answer.completion, value, weight, (feedback_id,)),)
