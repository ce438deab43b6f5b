"""An answer that a person wrote, to be imitated."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import demand_number
from assent.records import Completion, Example, Prompt, Response, SFTExample, Task


@dataclass(frozen=True)
class Demonstration:
    """Written from the prompt alone, or after seeing items that were all bad."""

    num_items: ClassVar[range] = range(1000)
    asks: ClassVar[str] = "Write the answer that should be given."
    text: str
    weight: float = 1.0
    """How much it counts, beside the reliability of who wrote it."""
    extra: str = ""
    """Other keys of the message as a JSON object, such as `reasoning_content` and `tool_calls`; empty: none."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not (self.text.strip() or self.extra):
            raise AssentError(f"a demonstration is a text, not {self.text!r}")
        try:
            keys = json.loads(self.extra or "{}")
        except (TypeError, ValueError, RecursionError):
            keys = None
        if not isinstance(keys, dict):
            raise AssentError(f"'extra' of a demonstration is a JSON object as text, not {str(self.extra)[:40]!r}")
        demand_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """One completion to imitate."""
        completion = Completion(self.text, extra=json.loads(self.extra or "{}"))
        return (SFTExample(prompt, completion, weight * self.weight, (feedback_id,)),)
