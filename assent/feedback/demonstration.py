"""An answer that a person wrote, to be imitated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import demand_number
from assent.records import Example, Imitation, Prompt, Query, Response


@dataclass(frozen=True)
class Demonstration:
    """Written from the prompt alone, or after seeing items that were all bad."""

    takes: ClassVar[range] = range(1000)
    asks: ClassVar[str] = "Write the answer that should be given."
    text: str
    weight: float = 1.0
    """How much it counts, beside the reliability of who wrote it."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise AssentError(f"a demonstration is a text, not {self.text!r}")
        demand_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, query: Query, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """One completion to imitate."""
        return (Imitation(prompt, self.text, weight * self.weight, (feedback_id,)),)
