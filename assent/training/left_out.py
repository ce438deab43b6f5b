"""Counts of the examples that a stage leaves out, by reason."""

from dataclasses import dataclass, field

from assent.errors import warn
from assent.records import Prompt


@dataclass
class LeftOut:
    """Examples that a stage cannot train on."""

    too_long: int = 0
    """Longer than `max_length`."""
    identical: int = 0
    """Pairs whose two completions are the same tokens."""
    unrenderable: int = 0
    """Rows that the chat template or the tokenizer cannot encode."""
    first: str = field(default="", compare=False)
    """The first row that cannot be encoded, and the reason."""

    def add_unrenderable(self, prompt: Prompt, reason: str) -> None:
        """Count a row that cannot be encoded."""
        self.unrenderable += 1
        self.first = self.first or f"{prompt.text[:60]!r}: {reason}"

    def __add__(self, right: "LeftOut") -> "LeftOut":
        return LeftOut(
            self.too_long + right.too_long,
            self.identical + right.identical,
            self.unrenderable + right.unrenderable,
            self.first or right.first,
        )

    def report(self) -> dict[str, int]:
        """Return the counts for a stage's result, and warn of pairs and rows that no setting would save."""
        if self.identical:
            pairs = "pair is" if self.identical == 1 else "pairs are"
            warn(f"{self.identical} {pairs} left out: both completions are the same tokens")
        if self.unrenderable:
            rows = "row that cannot be encoded is" if self.unrenderable == 1 else "rows that cannot be encoded are"
            warn(f"{self.unrenderable} {rows} left out; the first, {self.first}")
        counts = {"too_long": self.too_long}
        if self.identical:
            counts["identical"] = self.identical
        if self.unrenderable:
            counts["unrenderable"] = self.unrenderable
        return counts
