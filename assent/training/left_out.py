"""What a stage leaves out of its examples, counted by reason and named, so that nothing goes missing in silence."""

from dataclasses import dataclass, field

from assent.errors import warn
from assent.records import Prompt


@dataclass
class LeftOut:
    """Examples that a stage cannot train on."""

    too_long: int = 0
    """Longer than `max_tokens`."""
    alike: int = 0
    """Pairs whose two sides are the same tokens, so that nothing tells them apart."""
    refused: int = 0
    """Rows that the chat template, or the tokenizer, refuses."""
    first: str = field(default="", compare=False)
    """The first of those, and why."""

    def refuse(self, prompt: Prompt, reason: str) -> None:
        """Count a row that cannot be encoded."""
        self.refused += 1
        self.first = self.first or f"{prompt.text[:60]!r}: {reason}"

    def __add__(self, other: "LeftOut") -> "LeftOut":
        sums = self.too_long + other.too_long, self.alike + other.alike, self.refused + other.refused
        return LeftOut(*sums, self.first or other.first)

    def report(self) -> dict[str, int]:
        """The counts for a stage's result; what stops no other run is said on the terminal too."""
        if self.alike:
            pairs = "pair is" if self.alike == 1 else "pairs are"
            warn(f"{self.alike} {pairs} left out: the two sides are the same tokens")
        if self.refused:
            rows = "row that cannot be encoded is" if self.refused == 1 else "rows that cannot be encoded are"
            warn(f"{self.refused} {rows} left out; the first, {self.first}")
        rare = {"alike": self.alike, "refused": self.refused}
        return {"too_long": self.too_long, **{name: count for name, count in rare.items() if count}}
