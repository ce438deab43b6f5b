"""Several completions of a prompt and their ranks, the lowest the best, equals tied."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import (
    EXAMPLE,
    Format,
    Row,
    asked,
    content,
    demand_apart,
    get,
    has,
    prompt_of,
    reply,
    turn,
    weighed,
    weight,
)
from assent.records import RankedCompletions


@dataclass(frozen=True)
class Ranking(Format):
    """Ranks stand in the order of the completions."""

    holds: ClassVar[tuple[type, ...]] = (RankedCompletions,)
    reads: ClassVar[frozenset[str]] = EXAMPLE | {"completions", "ranks"}

    def fits(self, row: Row) -> int:
        return has(row, "prompt", "completions", "ranks")

    def decode(self, row: Row, source: str) -> Iterable[RankedCompletions]:
        prompt, texts, ranks = asked(prompt_of(row)), get(row, "completions"), get(row, "ranks")
        if not isinstance(texts, list) or not isinstance(ranks, list) or not len(texts) == len(ranks) > 1:
            raise AssentError("'completions' and 'ranks' are not two lists of one length, of two or more")
        if not all(type(rank) in (int, float) and math.isfinite(rank) for rank in ranks):
            raise AssentError(f"'ranks' are {ranks!r}, not numbers")
        replies = [reply({"completions": answer}, "completions", prompt) for answer in texts]
        demand_apart(replies)
        placed = list(zip(replies, ranks, strict=True))
        tiers = [[answer for answer, rank in placed if rank == tier] for tier in sorted(set(ranks))]
        return (RankedCompletions(prompt, tuple(map(tuple, tiers)), weight(row)),)

    def encode(self, thing: RankedCompletions) -> Iterable[Row]:
        placed = [(answer, rank) for rank, tier in enumerate(thing.tiers, 1) for answer in tier]
        texts = [turn(thing.prompt, answer) for answer, _ in placed]
        sides = {"completions": texts, "ranks": [rank for _, rank in placed]}
        return ({"prompt": content(thing.prompt), **sides, **weighed(thing)},)
