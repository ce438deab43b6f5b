"""Judgements become trees: all about one prompt shares its tokens, and each completion is encoded once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from assent.batch import RankedScores, RatedScores, ScorePairs
from assent.models.attention import SharedPrefix
from assent.models.tokenizer import ChatTokenizer, Unrenderable
from assent.records import Completion, Preference, Prompt, RankedCompletions, ScoredCompletion
from assent.training.left_out import LeftOut

MOST_BRANCHES = 16
"""A prompt with more completions than this is split over several trees."""
Judgement = Preference | RankedCompletions | ScoredCompletion


class Pair(NamedTuple):
    """One comparison inside a tree."""

    chosen: int  # which branch
    rejected: int
    p_chosen: float = 1.0
    margin: float = 0.0
    weight: float = 1.0


class Ranks(NamedTuple):
    """One ranking inside a tree."""

    branches: tuple[int, ...]
    tiers: tuple[int, ...]  # of each branch; the lowest is the best
    weight: float


class Rated(NamedTuple):
    """One rating inside a tree."""

    branch: int
    value: float
    weight: float


Said = TypeVar("Said", Pair, Ranks, Rated)


class Compared(NamedTuple):
    """A prompt, its completions, and what was said of them; `pairs` tells of the rankings as well."""

    prompt: str  # id
    tree: SharedPrefix
    pairs: tuple[Pair, ...] = ()
    rankings: tuple[Ranks, ...] = ()
    ratings: tuple[Rated, ...] = ()

    def times(self, count: float) -> "Compared":
        """The same, as if each judgement had been made so many times."""

        def more(said: tuple[Said, ...]) -> tuple[Said, ...]:
            return tuple(one._replace(weight=one.weight * count) for one in said)

        return self._replace(pairs=more(self.pairs), rankings=more(self.rankings), ratings=more(self.ratings))


class Columns(NamedTuple):
    """The pairs of several trees, with branches counted through all of them; each (B,)."""

    chosen: Tensor  # long
    rejected: Tensor  # long
    p_chosen: Tensor
    margin: Tensor
    weight: Tensor


def compare(judgements: Iterable[Judgement], codec: ChatTokenizer, max_tokens: int) -> tuple[list[Compared], LeftOut]:
    """Gather judgements by prompt.

    Args:
        max_tokens: completions that are longer, with their prompt, are left out, and what was said of them.

    Returns:
        The trees, in order of the first judgement about each prompt, and how many pairs and ratings were left out.
    """
    gathered: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        gathered.setdefault(judgement.prompt.id, []).append(judgement)
    groups: list[Compared] = []
    left_out = LeftOut()
    for about in gathered.values():
        growing: _Growing | None = None
        for judgement in about:
            try:
                growing = growing or _Growing(judgement.prompt, codec, max_tokens, left_out)
                overflows = growing.would_overflow(judgement)
            except Unrenderable as error:
                left_out.refuse(judgement.prompt, str(error))
                continue
            if overflows:
                groups += growing.grown()
                growing = _Growing(judgement.prompt, codec, max_tokens, left_out)
            growing.add(judgement)
        groups += growing.grown() if growing else []
    return groups, left_out


class _Growing:
    """A tree in the making."""

    def __init__(self, prompt: Prompt, codec: ChatTokenizer, max_tokens: int, left_out: LeftOut) -> None:
        self.prompt, self.codec, self.left_out = prompt, codec, left_out
        self.prefix = codec.prompt(prompt)
        self.room = max_tokens - len(self.prefix)
        self.known: dict[Completion, tuple[int, ...]] = {}
        self.branches: dict[tuple[int, ...], int] = {}
        self.pairs: list[Pair] = []
        self.rankings: list[Ranks] = []
        self.ratings: list[Rated] = []

    def would_overflow(self, judgement: Judgement) -> bool:
        new = {ids for text in _texts(judgement) if len(ids := self._ids(text)) <= self.room}
        return bool(self.branches) and len({*self.branches, *new}) > MOST_BRANCHES

    def add(self, judgement: Judgement) -> None:
        """Put a judgement on the tree, as far as its completions are short enough."""
        match judgement:
            case Preference(p_chosen=p):
                self._pair(judgement)
                chosen, rejected = _texts(judgement)
                if p != 0.5:  # a choice is a ranking of two
                    self._ranks([(chosen, 0), (rejected, 1)], judgement.weight * p)
                    self._ranks([(rejected, 0), (chosen, 1)], judgement.weight * (1 - p))
            case RankedCompletions():
                ranked = replace(judgement, tiers=tuple(map(self._distinct, judgement.tiers)))
                for preference in ranked.preferences:
                    self._pair(preference)
                self._ranks([(text, i) for i, tier in enumerate(ranked.tiers) for text in tier], ranked.weight)
            case ScoredCompletion():
                (text,) = _texts(judgement)
                if self._short(text):
                    self.ratings.append(Rated(self._branch(text), judgement.value, judgement.weight))
                else:
                    self.left_out.too_long += 1

    def grown(self) -> list[Compared]:
        """The tree, unless nothing stands on it."""
        if not self.branches:
            return []
        said = tuple(self.pairs), tuple(self.rankings), tuple(self.ratings)
        return [Compared(self.prompt.id, SharedPrefix(self.prefix, tuple(self.branches)), *said)]

    def _pair(self, p: Preference) -> None:
        sides = _texts(p)
        if self._ids(sides[0]) == self._ids(sides[1]):
            self.left_out.alike += 1
        elif all(map(self._short, sides)):
            first, second = map(self._branch, sides)
            self.pairs.append(Pair(first, second, p.p_chosen, p.margin, p.weight))
        else:
            self.left_out.too_long += 1

    def _ranks(self, placed: list[tuple[Completion, int]], weight: float) -> None:
        """An order of those that are short enough; the same tokens in two tiers have no place in it."""
        times = Counter(self._ids(text) for text, _ in placed)
        ordered = [(text, tier) for text, tier in placed if self._short(text) and times[self._ids(text)] == 1]
        if weight and len({tier for _, tier in ordered}) > 1:
            self.rankings.append(
                Ranks(tuple(self._branch(text) for text, _ in ordered), tuple(tier for _, tier in ordered), weight)
            )

    def _distinct(self, tier: Sequence[Completion]) -> tuple[Completion, ...]:
        """A tier whose answers are different tokens: of those that are the same, the first."""
        distinct: dict[tuple[int, ...], Completion] = {}
        for text in tier:
            distinct.setdefault(self._ids(text), text)
        return tuple(distinct.values())

    def _short(self, text: Completion) -> bool:
        return len(self._ids(text)) <= self.room

    def _branch(self, text: Completion) -> int:
        return self.branches.setdefault(self._ids(text), len(self.branches))

    def _ids(self, text: Completion) -> tuple[int, ...]:
        if text not in self.known:
            self.known[text] = self.codec.completion(self.prompt, text)
        return self.known[text]


def _texts(judgement: Judgement) -> list[Completion]:
    match judgement:
        case Preference():
            return [judgement.chosen, judgement.rejected]
        case RankedCompletions():
            return [text for tier in judgement.tiers for text in tier]
        case ScoredCompletion():
            return [judgement.completion]


def columns(examples: Sequence[Compared], device: torch.device) -> Columns:
    """Lay the pairs of trees out as tensors, in order."""
    rows = [(p.chosen + before, p.rejected + before, *p[2:]) for before, e in _counted(examples) for p in e.pairs]
    table = torch.tensor(rows, dtype=torch.float64)  # (B, 5)
    chosen, rejected = (table[:, i].long().to(device) for i in (0, 1))
    return Columns(chosen, rejected, *(table[:, i].float().to(device) for i in (2, 3, 4)))


def decided(judgement: Judgement) -> bool:
    """Whether something was found better than something else."""
    match judgement:
        case Preference():
            return judgement.p_chosen != 0.5
        case RankedCompletions():
            return len(judgement.tiers) > 1
    return False


class Feed(NamedTuple):
    """How an objective is fed with judgements."""

    noun: str
    """What it is fed with, in words."""
    kinds: tuple[type, ...]
    """The currencies that it can read."""
    reads: Callable[[Judgement], bool]
    """Whether a judgement is of use to it."""
    said: Callable[[Compared], Sequence[Pair | Ranks | Rated]]
    """What of a tree it reads."""
    batch: Callable[[Tensor, Sequence[Compared], float], Any]
    """From the scores of all branches of some trees, (N,), and the weight of the whole step."""

    def weight(self, examples: Iterable[Compared]) -> float:
        """Total weight of what it reads."""
        return sum(one.weight for example in examples for one in self.said(example))


def _scores(scored: Tensor, examples: Sequence[Compared], total: float) -> ScorePairs:
    c = columns(examples, scored.device)
    return ScorePairs(scored[c.chosen], scored[c.rejected], c.p_chosen, c.margin, c.weight, total)


def _rankings(scored: Tensor, examples: Sequence[Compared], total: float) -> RankedScores:
    rows = [(before, ranks) for before, example in _counted(examples) for ranks in example.rankings]
    longest = max(len(ranks.branches) for _, ranks in rows)
    shape, device = (len(rows), longest), scored.device
    index, tiers = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, (before, ranks) in enumerate(rows):
        k = len(ranks.branches)
        index[row, :k] = before + torch.tensor(ranks.branches)
        tiers[row, :k] = torch.tensor(ranks.tiers)
        mask[row, :k] = True
    weights = torch.tensor([ranks.weight for _, ranks in rows], device=device)
    return RankedScores(scored[index.to(device)], tiers.to(device), mask.to(device), weights, total)


def _ratings(scored: Tensor, examples: Sequence[Compared], total: float) -> RatedScores:
    rows = [(before + r.branch, r.value, r.weight) for before, e in _counted(examples) for r in e.ratings]
    table = torch.tensor(rows, dtype=torch.float64)  # (B, 3)
    targets, weights = (table[:, i].float().to(scored.device) for i in (1, 2))
    return RatedScores(scored[table[:, 0].long().to(scored.device)], targets, weights, total)


FEEDS: Mapping[type, Feed] = {
    ScorePairs: Feed("pairs", (Preference, RankedCompletions), lambda judgement: True, attrgetter("pairs"), _scores),
    RankedScores: Feed("rankings", (Preference, RankedCompletions), decided, attrgetter("rankings"), _rankings),
    RatedScores: Feed("ratings", (ScoredCompletion,), lambda judgement: True, attrgetter("ratings"), _ratings),
}
"""By the batch of the objective."""


def _counted(examples: Sequence[Compared]) -> Iterator[tuple[int, Compared]]:
    """Each tree with the number of branches before it."""
    before = accumulate((len(example.tree.completions) for example in examples), initial=0)
    return zip(before, examples, strict=False)
