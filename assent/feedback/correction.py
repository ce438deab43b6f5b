"""One item as it should have been written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Completion, Example, Prompt, Response, SFTExample, Task, prefer


@dataclass(frozen=True)
class Correction:
    """The whole corrected text; the same text as the item's says that nothing had to be mended.

    The item's other keys, such as its thoughts and tool calls, stay as they are.
    """

    num_items: ClassVar[range] = range(1, 2)
    asks: ClassVar[str] = "Make this answer as good as it should be."
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise AssentError(f"a correction is a text, not {self.text!r}")

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """The corrected text to imitate, and to prefer to the original if they differ."""
        original = responses[query.items[0]]
        imitation = SFTExample(prompt, Completion(self.text, extra=original.extra), weight, (feedback_id,))
        if self.text == original.text:
            return (imitation,)
        corrected = Response(prompt.id, self.text, "correction", extra=original.extra)
        return imitation, prefer(prompt, corrected, original, weight, feedback_id)
