"""Critique: what is wrong or right with one item or one passage of it, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Example, Feedback, Prompt, Response, Task


@dataclass(frozen=True)
class Critique:
    """Words for reviewers; they become no number."""

    num_items: ClassVar[range] = range(1, 2)
    question: ClassVar[str] = "What is wrong with this answer, or right?"
    text: str
    quote: str = ""
    """The passage that is meant, word for word; empty: the whole item."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise AssentError(f"a critique is a text, not {self.text!r}")
        if not isinstance(self.quote, str):
            raise AssentError(f"the quote of a critique is text, not {self.quote!r}")

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return nothing: no training example is made of a critique."""
        return ()
