"""Ranking: items in order of preference, as in InstructGPT, section 3.4 (arXiv:2203.02155)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import require_number
from assent.records import Example, Feedback, Prompt, RankedCompletions, Response, Task


@dataclass(frozen=True)
class Ranking:
    """Tiers of item ids, the best first, equal within a tier; an item that is left out was not judged."""

    num_items: ClassVar[range] = range(2, 1000)
    question: ClassVar[str] = "Put the answers in order, the best first."
    tiers: tuple[tuple[str, ...], ...]
    weight: float = 1.0
    """Multiplies the reliability of the annotator."""

    def __post_init__(self) -> None:
        tiers = self.tiers
        if not isinstance(tiers, tuple) or not all(tier and isinstance(tier, tuple) for tier in tiers):
            raise AssentError(f"a ranking is tiers of item ids, best first, none of them empty, not {tiers!r}")
        if not all(item and isinstance(item, str) for item in self.items):
            raise AssentError(f"a ranking names items by their ids, not by {self.items!r}")
        if len(set(self.items)) < max(2, len(self.items)):
            raise AssentError(f"a ranking names two items or more, each once, not {tiers!r}")
        require_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(item for tier in self.tiers for item in tier)

    def agrees(self, judgement: "Ranking") -> bool:
        """Return whether another ranking orders at least four fifths of this one's pairs alike; ties are no pairs."""
        tier_of = {item: i for i, tier in enumerate(judgement.tiers) for item in tier}
        pairs = [pair for upper, lower in combinations(self.tiers, 2) for pair in product(upper, lower)]
        agreeing = sum(a in tier_of and b in tier_of and tier_of[a] < tier_of[b] for a, b in pairs)
        return agreeing >= 0.8 * len(pairs)

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return one ranking of the items that were judged."""
        tiers = tuple(tuple(responses[item].completion for item in tier) for tier in self.tiers)
        return (RankedCompletions(prompt, tiers, weight * self.weight, (feedback.id,), feedback.annotator),)
