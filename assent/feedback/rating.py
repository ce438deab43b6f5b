"""Rating: how good one item is, from 1 to 7, along one axis or several."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import require_number
from assent.records import Example, Feedback, Prompt, Response, ScoredCompletion, Task


@dataclass(frozen=True)
class Rating:
    """(axis, value) pairs, sorted by axis; a mapping is accepted too."""

    num_items: ClassVar[range] = range(1, 2)
    question: ClassVar[str] = "How good is this answer?"
    axes: tuple[tuple[str, float], ...]
    weight: float = 1.0
    """Multiplies the reliability of the annotator."""

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
        require_number("weight", self.weight)
        object.__setattr__(self, "axes", tuple(sorted(pairs)))

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def agrees(self, judgement: "Rating") -> bool:
        """Return whether another rating is at most one step away on each axis."""
        values = dict(judgement.axes)
        return all(abs(values.get(axis, 100) - value) <= 1 for axis, value in self.axes)

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return one scored completion: the mean over the axes, scaled from 1 .. 7 to 0 .. 1."""
        value = (fmean(value for _, value in self.axes) - 1) / 6
        completion = responses[task.items[0]].completion
        weight *= self.weight
        return (ScoredCompletion(prompt, completion, value, weight, (feedback.id,), feedback.annotator),)
