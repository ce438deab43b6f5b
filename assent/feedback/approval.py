"""Approval: thumbs up or thumbs down for one item."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import require_number
from assent.records import Example, Feedback, Prompt, Response, ScoredCompletion, Task


@dataclass(frozen=True)
class Approval:
    """A judgement of whether the item is good enough."""

    num_items: ClassVar[range] = range(1, 2)
    question: ClassVar[str] = "Is this answer good enough?"
    approved: bool
    weight: float = 1.0
    """Multiplies the reliability of the annotator."""

    def __post_init__(self) -> None:
        if not isinstance(self.approved, bool):
            raise AssentError(f"an approval is true or false, not {self.approved!r}")
        require_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def agrees(self, judgement: "Approval") -> bool:
        """Return whether another approval says the same."""
        return self.approved == judgement.approved

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return one scored completion, 1 or 0."""
        completion = responses[task.items[0]].completion
        weight *= self.weight
        value = float(self.approved)
        return (ScoredCompletion(prompt, completion, value, weight, (feedback.id,), feedback.annotator),)
