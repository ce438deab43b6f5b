"""What is wrong or right with one item, in words, perhaps about one passage of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Example, Prompt, Response, Task


@dataclass(frozen=True)
class Critique:
    """Words for reviewers and judges; no number is invented from them."""

    num_items: ClassVar[range] = range(1, 2)
    asks: ClassVar[str] = "What is wrong with this answer, or right?"
    text: str
    quote: str = ""
    """The passage that is meant, word for word; empty if it is the whole."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise AssentError(f"a critique says something, not {self.text!r}")
        if not isinstance(self.quote, str):
            raise AssentError(f"the quote of a critique is text, not {self.quote!r}")

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """Nothing to train on."""
        return ()
