"""Items in order of preference, best first, equal within a tier; InstructGPT, section 3.4 (arXiv:2203.02155)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from math import comb
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Example, Prompt, Query, Response, prefer


@dataclass(frozen=True)
class Ranking:
    """Tiers of item ids; an item that is left out was not judged."""

    takes: ClassVar[range] = range(2, 1000)
    tiers: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        tiers = self.tiers
        if not isinstance(tiers, tuple) or not all(tier and isinstance(tier, tuple) for tier in tiers):
            raise AssentError(f"a ranking is tiers of item ids, best first, none of them empty, not {tiers!r}")
        if not all(item and isinstance(item, str) for item in self.items):
            raise AssentError(f"a ranking names items by their ids, not by {self.items!r}")
        if len(set(self.items)) < max(2, len(self.items)):
            raise AssentError(f"a ranking names two items or more, each once, not {tiers!r}")

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(item for tier in self.tiers for item in tier)

    def examples(
        self, query: Query, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """Every pair across tiers, each weighted so that a full ranking counts for what it tells."""
        share = weight * independent_pairs(len(self.items)) / comb(len(self.items), 2)
        return tuple(
            prefer(prompt, responses[better], responses[worse], share, feedback_id)
            for upper, lower in combinations(self.tiers, 2)
            for better, worse in product(upper, lower)
        )


def independent_pairs(k: int) -> float:
    """How many independent comparisons a full ranking of k is worth: 2 sum_{m=2..k} (1 - 1/m), so 2.33 for k = 3."""
    return 2 * sum(1 - 1 / m for m in range(2, k + 1))
