"""Bradley-Terry ratings of policies from comparisons and rankings of their responses, with clustered intervals."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.functional.ratings import bradley_terry
from assent.records import Feedback, Judgement, Task


class PolicyRating(NamedTuple):
    """A row of the table: a policy's rating with its 95 % interval, in points; the baseline's rating is 1000."""

    policy: str
    rating: float
    low: float
    high: float
    wins: int
    """Comparisons of a response of this policy with one of another policy that it won. A response that two policies
    produced counts for each of them, and a loss against it counts once."""
    ties: int
    losses: int


class PairwiseOutcome(NamedTuple):
    """The result of one judgement for two policies."""

    first: str
    second: str
    outcome: float
    """1 if the first won, 0 if the second won, 0.5 for a tie."""
    weight: float
    """The weights of all outcomes of one judgement add up to 1."""
    prompt: str
    annotator: str
    comparison: tuple[str, str, str]
    """The feedback and the two items that it compares; one comparison may concern several policies."""


class ItemOutcome(NamedTuple):
    """The result of one judgement for two items."""

    first: str
    second: str
    outcome: float
    """1 if the first won, 0 if the second won, 0.5 for a tie."""


class RatingTable(NamedTuple):
    """Policies with their ratings, the best first."""

    rows: tuple[PolicyRating, ...]
    comparisons: int
    """Pairs of responses that were compared: a ranking of three compares three."""
    annotators: int
    connected: bool
    """Whether wins and losses connect all policies; if not, the ratings depend on a prior."""
    clusters: Mapping[str, int]
    """What the intervals cluster by, and the number of clusters."""


def rate_policies(
    feedback: Iterable[Feedback],
    tasks: Mapping[str, Task],
    policies_by_item: Mapping[str, frozenset[str]],
    baseline: str = "",
) -> RatingTable:
    """Rate policies by the current comparisons and rankings of their responses.

    Args:
        tasks: by id; feedback on other tasks is ignored.
        policies_by_item: the policies that produced each item; an item that two policies share says nothing about
            which of these two is better.
        baseline: the policy whose rating is 1000; empty: the mean of all ratings is 1000.
    """
    outcomes = list(pairwise_outcomes(feedback, tasks, policies_by_item))
    policies = sorted({name for outcome in outcomes for name in (outcome.first, outcome.second)})
    if not policies:
        return RatingTable((), 0, 0, False, {})
    index = {name: i for i, name in enumerate(policies)}
    fit = bradley_terry(
        [index[outcome.first] for outcome in outcomes],
        [index[outcome.second] for outcome in outcomes],
        [outcome.outcome for outcome in outcomes],
        len(policies),
        [outcome.weight for outcome in outcomes],
        prompts=_label_indices(outcome.prompt for outcome in outcomes),
        annotators=_label_indices(outcome.annotator for outcome in outcomes),
        baseline=index.get(baseline),
    )
    counts = _count_outcomes(outcomes)
    rows = [
        PolicyRating(name, *fit.rating(i), counts[name, 1.0], counts[name, 0.5], counts[name, 0.0])
        for name, i in index.items()
    ]
    rows.sort(key=lambda row: -row.rating)
    comparisons = {outcome.comparison for outcome in outcomes}
    annotators = {outcome.annotator for outcome in outcomes}
    return RatingTable(tuple(rows), len(comparisons), len(annotators), fit.connected, fit.clusters)


def _count_outcomes(outcomes: Iterable[PairwiseOutcome]) -> Counter[tuple[str, float]]:
    """Count the comparisons that each policy won (1), tied (0.5) and lost (0)."""
    results: set[tuple[str, float, tuple[str, str, str]]] = set()
    for first, second, outcome, _, _, _, comparison in outcomes:
        results |= {(first, outcome, comparison), (second, 1 - outcome, comparison)}
    return Counter((policy, outcome) for policy, outcome, _ in results)


def pairwise_outcomes(
    feedback: Iterable[Feedback], tasks: Mapping[str, Task], policies_by_item: Mapping[str, frozenset[str]]
) -> Iterator[PairwiseOutcome]:
    """Yield the outcome of each pair of policies in the current judgements; arguments as for `rate_policies`."""
    for event in current(event for event in feedback if event.task in tasks):
        task = tasks[event.task]
        outcomes = item_outcomes(event.judgement, task)
        for first, second, outcome in outcomes:
            of_first = policies_by_item.get(first, frozenset())
            of_second = policies_by_item.get(second, frozenset())
            pairs = [(a, b) for a in sorted(of_first - of_second) for b in sorted(of_second - of_first)]
            for a, b in pairs:
                weight = 1 / (len(pairs) * len(outcomes))
                yield PairwiseOutcome(a, b, outcome, weight, task.prompt, event.annotator, (event.id, first, second))


def current(feedback: Iterable[Feedback]) -> list[Feedback]:
    """Return the events that no other event supersedes, in order."""
    events = list(feedback)
    superseded = {event.supersedes for event in events}
    return [event for event in events if event.id not in superseded]


def item_outcomes(judgement: Judgement, task: Task) -> list[ItemOutcome]:
    """Return the outcome of each pair of items that a judgement compares; empty if it compares none."""
    match judgement:
        case Comparison(verdict="cannot tell"):
            return []
        case Comparison(preferred=preferred, verdict=verdict):
            first, second = task.items
            return [ItemOutcome(first, second, 0.5 if verdict != "better" else float(preferred == first))]
        case Ranking(tiers=tiers):
            ranks = {item: rank for rank, tier in enumerate(tiers) for item in tier}
            return [
                ItemOutcome(a, b, 0.5 if ranks[a] == ranks[b] else float(ranks[a] < ranks[b]))
                for a, b in combinations(ranks, 2)
            ]
    return []


def win_counts(outcomes: Iterable[PairwiseOutcome], policies: Sequence[str]) -> NDArray[np.float64]:
    """Return (K, K), how often the policy of the row beat that of the column; a tie is half a win for each."""
    index = {name: i for i, name in enumerate(policies)}
    counts = np.zeros((len(policies), len(policies)))
    for outcome in outcomes:
        i, j = index[outcome.first], index[outcome.second]
        counts[i, j] += outcome.weight * outcome.outcome
        counts[j, i] += outcome.weight * (1 - outcome.outcome)
    return counts


def _label_indices(labels: Iterable[str]) -> list[int]:
    indices: dict[str, int] = {}
    return [indices.setdefault(label, len(indices)) for label in labels]
