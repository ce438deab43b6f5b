"""Correction: one item, rewritten as it should be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Example, Feedback, Prompt, Response, SFTExample, Task, prefer


@dataclass(frozen=True)
class Correction:
    """The whole corrected text; a text equal to the item's says that nothing is wrong with it.

    The item's other keys, such as reasoning and tool calls, stay as they are.
    """

    num_items: ClassVar[range] = range(1, 2)
    question: ClassVar[str] = "Make this answer as good as it should be."
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise AssentError(f"a correction is a text, not {self.text!r}")

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return the corrected text to imitate, and to prefer to the original if they differ."""
        original = responses[task.items[0]]
        corrected = Response(prompt.id, self.text, "correction", extra=original.extra)
        example = SFTExample(prompt, corrected.completion, weight, (feedback.id,), feedback.annotator)
        if self.text == original.text:
            return (example,)
        return example, prefer(prompt, corrected, original, weight, feedback)
