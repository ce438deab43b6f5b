"""Thumbs up or thumbs down for one item."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import demand_number
from assent.records import Example, Prompt, Response, ScoredCompletion, Task


@dataclass(frozen=True)
class Approval:
    """Whether the item is good enough."""

    num_items: ClassVar[range] = range(1, 2)
    asks: ClassVar[str] = "Is this answer good enough?"
    approved: bool
    weight: float = 1.0
    """How much it counts, beside the reliability of who said it."""

    def __post_init__(self) -> None:
        if not isinstance(self.approved, bool):
            raise AssentError(f"an approval is true or false, not {self.approved!r}")
        demand_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def agrees(self, other: "Approval") -> bool:
        """Whether another says the same."""
        return self.approved == other.approved

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """One label, 1 or 0."""
        answer, weight = responses[query.items[0]], weight * self.weight
        return (ScoredCompletion(prompt, answer.completion, float(self.approved), weight, (feedback_id,)),)
