"""Preference data grouped by prompt: the completions of a prompt share its tokens, and each is encoded once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from assent.batch import RankedScores, RatedScores, ScorePairs
from assent.models.packing import SharedPrefix
from assent.models.rendering import Unrenderable
from assent.records import Completion, Preference, Prompt, RankedCompletions, ScoredCompletion
from assent.training.left_out import LeftOut

MAX_COMPLETIONS = 16
"""A prompt with more completions than this is split into several groups."""
Example = Preference | RankedCompletions | ScoredCompletion
"""A training example that feedback is converted to."""


class Encoder(Protocol):
    """What turns prompts and completions into tokens."""

    def encode_prompt(self, prompt: Prompt) -> tuple[int, ...]: ...

    def encode_completion(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]: ...


class Pair(NamedTuple):
    """A comparison of two completions of a group."""

    chosen: int  # index of the completion
    rejected: int
    p_chosen: float = 1.0
    margin: float = 0.0
    weight: float = 1.0


class TieredCompletions(NamedTuple):
    """A ranking of completions of a group."""

    indices: tuple[int, ...]  # of the completions
    tiers: tuple[int, ...]  # of each completion; the lowest is the best
    weight: float


class RatedCompletion(NamedTuple):
    """A rating of one completion of a group."""

    completion: int
    value: float
    weight: float


Item = TypeVar("Item", Pair, TieredCompletions, RatedCompletion)


class PromptGroup(NamedTuple):
    """A prompt, its completions and their judgements; `pairs` includes the pairs of the rankings."""

    prompt: str  # id
    tokens: SharedPrefix
    pairs: tuple[Pair, ...] = ()
    rankings: tuple[TieredCompletions, ...] = ()
    ratings: tuple[RatedCompletion, ...] = ()

    def reweighted(self, factor: float) -> "PromptGroup":
        """Return the group with the weight of every judgement multiplied by `factor`."""

        def scale(items: tuple[Item, ...]) -> tuple[Item, ...]:
            return tuple(item._replace(weight=item.weight * factor) for item in items)

        return self._replace(pairs=scale(self.pairs), rankings=scale(self.rankings), ratings=scale(self.ratings))


class PairTensors(NamedTuple):
    """The pairs of several groups; completions are numbered through all groups; each (B,)."""

    chosen: Tensor  # long
    rejected: Tensor  # long
    p_chosen: Tensor
    margin: Tensor
    weight: Tensor


def group_by_prompt(
    examples: Iterable[Example], tokenizer: Encoder, max_length: int
) -> tuple[list[PromptGroup], LeftOut]:
    """Group examples by prompt.

    Args:
        max_length: tokens of a prompt with its completion; longer completions and their judgements are left out.

    Returns:
        The groups, in order of the first example of each prompt, and how many pairs and ratings were left out.
    """
    by_prompt: dict[str, list[Example]] = {}
    for example in examples:
        by_prompt.setdefault(example.prompt.id, []).append(example)
    groups: list[PromptGroup] = []
    left_out = LeftOut()
    for same_prompt in by_prompt.values():
        builder: GroupBuilder | None = None
        for example in same_prompt:
            try:
                builder = builder or GroupBuilder(example.prompt, tokenizer, max_length, left_out)
                overflows = builder.would_overflow(example)
            except Unrenderable as error:
                left_out.add_unrenderable(example.prompt, str(error))
                continue
            if overflows:
                groups += builder.build()
                builder = GroupBuilder(example.prompt, tokenizer, max_length, left_out)
            builder.add(example)
        groups += builder.build() if builder else []
    return groups, left_out


class GroupBuilder:
    """The examples of one prompt on their way to a `PromptGroup`."""

    def __init__(self, prompt: Prompt, tokenizer: Encoder, max_length: int, left_out: LeftOut) -> None:
        self.prompt = prompt
        self.tokenizer = tokenizer
        self.left_out = left_out
        self.prefix = tokenizer.encode_prompt(prompt)
        self.max_completion = max_length - len(self.prefix)
        self.token_ids: dict[Completion, tuple[int, ...]] = {}
        self.completions: dict[tuple[int, ...], int] = {}
        self.pairs: list[Pair] = []
        self.rankings: list[TieredCompletions] = []
        self.ratings: list[RatedCompletion] = []

    def would_overflow(self, example: Example) -> bool:
        """Return whether the example would bring more than `MAX_COMPLETIONS` completions into the group."""
        new = {ids for text in _completions(example) if len(ids := self._ids(text)) <= self.max_completion}
        return bool(self.completions) and len({*self.completions, *new}) > MAX_COMPLETIONS

    def add(self, example: Example) -> None:
        """Add an example, without the completions that are too long."""
        match example:
            case Preference(p_chosen=p_chosen):
                self._add_pair(example)
                chosen, rejected = _completions(example)
                if p_chosen != 0.5:  # a choice is a ranking of two
                    self._add_ranking([(chosen, 0), (rejected, 1)], example.weight * p_chosen)
                    self._add_ranking([(rejected, 0), (chosen, 1)], example.weight * (1 - p_chosen))
            case RankedCompletions():
                ranked = replace(example, tiers=tuple(map(self._drop_duplicates, example.tiers)))
                for preference in ranked.preferences:
                    self._add_pair(preference)
                self._add_ranking([(text, i) for i, tier in enumerate(ranked.tiers) for text in tier], ranked.weight)
            case ScoredCompletion():
                (text,) = _completions(example)
                if self._fits(text):
                    self.ratings.append(RatedCompletion(self._index(text), example.value, example.weight))
                else:
                    self.left_out.too_long += 1

    def build(self) -> list[PromptGroup]:
        """Return the group as a list of one; an empty list if it has no completions."""
        if not self.completions:
            return []
        tokens = SharedPrefix(self.prefix, tuple(self.completions))
        group = PromptGroup(self.prompt.id, tokens, tuple(self.pairs), tuple(self.rankings), tuple(self.ratings))
        return [group]

    def _add_pair(self, preference: Preference) -> None:
        sides = _completions(preference)
        if self._ids(sides[0]) == self._ids(sides[1]):
            self.left_out.identical += 1
        elif all(map(self._fits, sides)):
            chosen, rejected = map(self._index, sides)
            self.pairs.append(Pair(chosen, rejected, preference.p_chosen, preference.margin, preference.weight))
        else:
            self.left_out.too_long += 1

    def _add_ranking(self, tiered: list[tuple[Completion, int]], weight: float) -> None:
        """Add a ranking of the completions that fit; completions with the same tokens in two tiers are dropped."""
        counts = Counter(self._ids(text) for text, _ in tiered)
        remaining = [(text, tier) for text, tier in tiered if self._fits(text) and counts[self._ids(text)] == 1]
        if weight and len({tier for _, tier in remaining}) > 1:
            indices = tuple(self._index(text) for text, _ in remaining)
            self.rankings.append(TieredCompletions(indices, tuple(tier for _, tier in remaining), weight))

    def _drop_duplicates(self, tier: Sequence[Completion]) -> tuple[Completion, ...]:
        """Return the completions of a tier without those that have the tokens of an earlier one."""
        distinct: dict[tuple[int, ...], Completion] = {}
        for text in tier:
            distinct.setdefault(self._ids(text), text)
        return tuple(distinct.values())

    def _fits(self, text: Completion) -> bool:
        return len(self._ids(text)) <= self.max_completion

    def _index(self, text: Completion) -> int:
        return self.completions.setdefault(self._ids(text), len(self.completions))

    def _ids(self, text: Completion) -> tuple[int, ...]:
        if text not in self.token_ids:
            self.token_ids[text] = self.tokenizer.encode_completion(self.prompt, text)
        return self.token_ids[text]


def _completions(example: Example) -> list[Completion]:
    match example:
        case Preference():
            return [example.chosen, example.rejected]
        case RankedCompletions():
            return [text for tier in example.tiers for text in tier]
        case ScoredCompletion():
            return [example.completion]


def pair_tensors(groups: Sequence[PromptGroup], device: torch.device) -> PairTensors:
    """Return the pairs of groups as tensors, in order."""
    rows = [
        (pair.chosen + offset, pair.rejected + offset, *pair[2:])
        for offset, group in _with_offsets(groups)
        for pair in group.pairs
    ]
    table = torch.tensor(rows, dtype=torch.float64)  # (B, 5)
    chosen, rejected = (table[:, i].long().to(device) for i in (0, 1))
    return PairTensors(chosen, rejected, *(table[:, i].float().to(device) for i in (2, 3, 4)))


def is_decided(example: Example) -> bool:
    """Return whether the example prefers one completion to another; ties and ratings do not."""
    match example:
        case Preference():
            return example.p_chosen != 0.5
        case RankedCompletions():
            return len(example.tiers) > 1
    return False


class BatchSpec(NamedTuple):
    """The way from training examples to the batch of an objective."""

    noun: str
    """The items of the batch, for messages: pairs, rankings or ratings."""
    example_types: tuple[type, ...]
    """The types of training examples that it can use."""
    accepts: Callable[[Example], bool]
    """Whether it can use an example of these types."""
    select: Callable[[PromptGroup], Sequence[Pair | TieredCompletions | RatedCompletion]]
    """The items of a group that go into the batch."""
    build: Callable[[Tensor, Sequence[PromptGroup], float], Any]
    """Build the batch from the scores of all completions of some groups, (N,), and the weight of the whole step."""

    def total_weight(self, groups: Iterable[PromptGroup]) -> float:
        """Return the sum of the weights of the groups' items."""
        return sum(item.weight for group in groups for item in self.select(group))


def _build_score_pairs(scores: Tensor, groups: Sequence[PromptGroup], total: float) -> ScorePairs:
    pairs = pair_tensors(groups, scores.device)
    chosen, rejected = scores[pairs.chosen], scores[pairs.rejected]
    return ScorePairs(chosen, rejected, pairs.p_chosen, pairs.margin, pairs.weight, total)


def _build_ranked_scores(scores: Tensor, groups: Sequence[PromptGroup], total: float) -> RankedScores:
    rankings = [(offset, ranking) for offset, group in _with_offsets(groups) for ranking in group.rankings]
    shape = len(rankings), max(len(ranking.indices) for _, ranking in rankings)
    device = scores.device
    index = torch.zeros(shape, dtype=torch.long)
    tiers = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, (offset, ranking) in enumerate(rankings):
        k = len(ranking.indices)
        index[row, :k] = offset + torch.tensor(ranking.indices)
        tiers[row, :k] = torch.tensor(ranking.tiers)
        mask[row, :k] = True
    weights = torch.tensor([ranking.weight for _, ranking in rankings], device=device)
    return RankedScores(scores[index.to(device)], tiers.to(device), mask.to(device), weights, total)


def _build_rated_scores(scores: Tensor, groups: Sequence[PromptGroup], total: float) -> RatedScores:
    rows = [
        (offset + rating.completion, rating.value, rating.weight)
        for offset, group in _with_offsets(groups)
        for rating in group.ratings
    ]
    table = torch.tensor(rows, dtype=torch.float64)  # (B, 3)
    targets, weights = (table[:, i].float().to(scores.device) for i in (1, 2))
    return RatedScores(scores[table[:, 0].long().to(scores.device)], targets, weights, total)


def _accepts_all(example: Example) -> bool:
    return True


BATCH_SPECS: Mapping[type, BatchSpec] = {
    ScorePairs: BatchSpec(
        "pairs", (Preference, RankedCompletions), _accepts_all, attrgetter("pairs"), _build_score_pairs
    ),
    RankedScores: BatchSpec(
        "rankings", (Preference, RankedCompletions), is_decided, attrgetter("rankings"), _build_ranked_scores
    ),
    RatedScores: BatchSpec("ratings", (ScoredCompletion,), _accepts_all, attrgetter("ratings"), _build_rated_scores),
}
"""By the class of the objective's batch."""


def _with_offsets(groups: Sequence[PromptGroup]) -> Iterator[tuple[int, PromptGroup]]:
    """Yield each group with the number of completions before it."""
    offsets = accumulate((len(group.tokens.completions) for group in groups), initial=0)
    return zip(offsets, groups, strict=False)
