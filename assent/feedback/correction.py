"""One item as it should have been written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Example, Imitation, Preference, Prompt, Query, Response


@dataclass(frozen=True)
class Correction:
    """The whole corrected text; the same text as the item's says that nothing had to be mended."""

    takes: ClassVar[range] = range(1, 2)
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise AssentError(f"a correction is a text, not {self.text!r}")

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, query: Query, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """The corrected text to imitate, and to prefer to the original if they differ."""
        original, source = responses[query.items[0]].text, (feedback_id,)
        imitation = Imitation(prompt, self.text, weight, source)
        if self.text == original:
            return (imitation,)
        return imitation, Preference(prompt, self.text, original, weight=weight, sources=source)
