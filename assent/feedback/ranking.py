"""Items in order of preference, best first, equal within a tier; InstructGPT, section 3.4 (arXiv:2203.02155)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import ClassVar

from assent.errors import AssentError
from assent.feedback import demand_number
from assent.records import Example, Prompt, RankedCompletions, Response, Task


@dataclass(frozen=True)
class Ranking:
    """Tiers of item ids; an item that is left out was not judged."""

    num_items: ClassVar[range] = range(2, 1000)
    asks: ClassVar[str] = "Put the answers in order, the best first."
    tiers: tuple[tuple[str, ...], ...]
    weight: float = 1.0
    """How much it counts, beside the reliability of who made it."""

    def __post_init__(self) -> None:
        tiers = self.tiers
        if not isinstance(tiers, tuple) or not all(tier and isinstance(tier, tuple) for tier in tiers):
            raise AssentError(f"a ranking is tiers of item ids, best first, none of them empty, not {tiers!r}")
        if not all(item and isinstance(item, str) for item in self.items):
            raise AssentError(f"a ranking names items by their ids, not by {self.items!r}")
        if len(set(self.items)) < max(2, len(self.items)):
            raise AssentError(f"a ranking names two items or more, each once, not {tiers!r}")
        demand_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(item for tier in self.tiers for item in tier)

    def agrees(self, other: "Ranking") -> bool:
        """Whether at least four fifths of the pairs that this ranking tells apart stand in its order in the other."""
        place = {item: i for i, tier in enumerate(other.tiers) for item in tier}
        pairs = [(a, b) for upper, lower in combinations(self.tiers, 2) for a, b in product(upper, lower)]
        right = sum(a in place and b in place and place[a] < place[b] for a, b in pairs)
        return right >= 0.8 * len(pairs)

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """One ranking of the items that were judged."""
        tiers = tuple(tuple(responses[i].completion for i in tier) for tier in self.tiers)
        return (RankedCompletions(prompt, tiers, weight * self.weight, (feedback_id,)),)
