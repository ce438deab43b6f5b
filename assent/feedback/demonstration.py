"""Demonstration: a response written by an annotator, to be imitated."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import require_number
from assent.records import Completion, Example, Feedback, Prompt, Response, SFTExample, Task


@dataclass(frozen=True)
class Demonstration:
    """A response written from the prompt alone, or after all items were bad."""

    num_items: ClassVar[range] = range(1000)
    question: ClassVar[str] = "Write the answer that should be given."
    text: str
    weight: float = 1.0
    """Multiplies the reliability of the annotator."""
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
        require_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return one completion to imitate."""
        completion = Completion(self.text, extra=json.loads(self.extra or "{}"))
        return (SFTExample(prompt, completion, weight * self.weight, (feedback.id,), feedback.annotator),)
