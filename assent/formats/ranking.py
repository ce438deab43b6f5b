"""Several completions of a prompt and their ranks: the lowest is the best, equal ranks are ties."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import (
    EXAMPLE_KEYS,
    completion_value,
    count_keys,
    prompt_value,
    read_completion,
    read_prompt,
    read_weight,
    require,
    require_distinct,
    require_prompt_text,
    weight_field,
)
from assent.records import Completion, RankedCompletions


@dataclass(frozen=True)
class Ranking(Format):
    """Ranks are in the order of the completions."""

    record_types: ClassVar[tuple[type, ...]] = (RankedCompletions,)
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS | {"completions", "ranks"}

    def match_score(self, row: Row) -> int:
        return count_keys(row, "prompt", "completions", "ranks")

    def decode(self, row: Row, source: str) -> Iterable[RankedCompletions]:
        prompt = require_prompt_text(read_prompt(row))
        completions = require(row, "completions")
        ranks = require(row, "ranks")
        is_list = isinstance(completions, list) and isinstance(ranks, list)
        if not is_list or not len(completions) == len(ranks) > 1:
            raise AssentError("'completions' and 'ranks' are not two lists of the same length, at least two")
        if not all(type(rank) in (int, float) and math.isfinite(rank) for rank in ranks):
            raise AssentError(f"'ranks' is {ranks!r}, not a list of numbers")
        replies = [read_completion({"completions": value}, "completions", prompt) for value in completions]
        require_distinct(replies)
        tiers: dict[float, list[Completion]] = {rank: [] for rank in sorted(set(ranks))}
        for reply, rank in zip(replies, ranks, strict=True):
            tiers[rank].append(reply)
        return (RankedCompletions(prompt, tuple(map(tuple, tiers.values())), read_weight(row)),)

    def encode(self, record: RankedCompletions) -> Iterable[Row]:
        completions = [completion_value(record.prompt, completion) for tier in record.tiers for completion in tier]
        ranks = [rank for rank, tier in enumerate(record.tiers, 1) for _ in tier]
        sides = {"completions": completions, "ranks": ranks}
        return ({"prompt": prompt_value(record.prompt), **sides, **weight_field(record)},)
