"""Preferences become trees: all comparisons about one prompt share its tokens, and each completion is encoded once."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from assent.errors import AssentError
from assent.models.attention import Tree
from assent.models.tokenization import Codec
from assent.records import Preference

MOST_BRANCHES = 16
"""A prompt with more completions than this is split over several trees."""


class Pair(NamedTuple):
    """One comparison inside a tree."""

    chosen: int  # which branch
    rejected: int
    p_chosen: float
    margin: float
    weight: float


class Compared(NamedTuple):
    """A prompt, its completions, and which of them were compared."""

    prompt: str  # id
    tree: Tree
    pairs: tuple[Pair, ...]


class Columns(NamedTuple):
    """The pairs of several trees, with branches counted through all of them; each (B,)."""

    chosen: Tensor  # long
    rejected: Tensor  # long
    p_chosen: Tensor
    margin: Tensor
    weight: Tensor


def compare(preferences: Iterable[Preference], codec: Codec, max_tokens: int) -> tuple[list[Compared], int]:
    """Gather preferences by prompt.

    Args:
        max_tokens: pairs with a longer side (prompt and completion) are left out.

    Returns:
        The trees, in order of the first preference about each prompt, and how many pairs were too long.

    Raises:
        AssentError: nothing is left.
    """
    gathered: dict[str, list[Preference]] = {}
    for preference in preferences:
        gathered.setdefault(preference.prompt.id, []).append(preference)
    found: list[Compared] = []
    too_long = total = 0
    for name, about in gathered.items():
        prefix = codec.prompt(about[0].prompt)
        branches: dict[tuple[int, ...], int] = {}
        pairs: list[Pair] = []
        for p in about:
            total += 1
            chosen = codec.completion(p.prompt, p.chosen, p.chosen_finished)
            rejected = codec.completion(p.prompt, p.rejected, p.rejected_finished)
            if len(prefix) + max(len(chosen), len(rejected)) > max_tokens:
                too_long += 1
                continue
            if len({*branches, chosen, rejected}) > MOST_BRANCHES:
                found.append(Compared(name, Tree(prefix, tuple(branches)), tuple(pairs)))
                branches, pairs = {}, []
            first = branches.setdefault(chosen, len(branches))
            second = branches.setdefault(rejected, len(branches))
            pairs.append(Pair(first, second, p.p_chosen, p.margin, p.weight))
        if pairs:
            found.append(Compared(name, Tree(prefix, tuple(branches)), tuple(pairs)))
    if total and not found:
        raise AssentError(
            f"all {total} pairs are longer than {max_tokens} tokens: raise --max-tokens (up to the model's context)"
        )
    return found, too_long


def columns(examples: Sequence[Compared], device: torch.device) -> Columns:
    """Lay the pairs of trees out as tensors, in order."""
    rows: list[tuple[float, ...]] = []
    before = 0
    for example in examples:
        rows += [(p.chosen + before, p.rejected + before, *p[2:]) for p in example.pairs]
        before += len(example.tree.branches)
    table = torch.tensor(rows, dtype=torch.float64)  # (B, 5)
    chosen, rejected = (table[:, i].long().to(device) for i in (0, 1))
    return Columns(chosen, rejected, *(table[:, i].float().to(device) for i in (2, 3, 4)))


def weight(examples: Iterable[Compared]) -> float:
    """Total weight of the pairs."""
    return sum(pair.weight for example in examples for pair in example.pairs)
