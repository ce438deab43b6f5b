"""Policies rated by what was said of their answers: Bradley-Terry, with intervals that know what belongs together."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.functional.ratings import bradley_terry
from assent.records import Feedback, Task


class Row(NamedTuple):
    """A policy in the table, with a 95 % interval in points around the first policy's 1000."""

    policy: str
    rating: float
    low: float
    high: float
    wins: int
    """Comparisons of an answer of this policy with one of another policy that it won. An answer that two policies gave
    counts for each of them, and a loss against it counts once."""
    ties: int
    losses: int


class Game(NamedTuple):
    """What one annotator says of two policies."""

    first: str
    second: str
    outcome: float
    """How far the first won: 1, 0, or a half."""
    weight: float
    """All games that one answer tells of weigh 1 together."""
    prompt: str
    annotator: str
    comparison: tuple[str, str, str]
    """The feedback and the two items that it compares; one comparison may tell of several policies."""


class Table(NamedTuple):
    """The best first."""

    rows: tuple[Row, ...]
    comparisons: int
    """Pairs of answers that were compared: a ranking of three compares three."""
    annotators: int
    connected: bool
    """Whether wins and losses tie all policies together; else the ratings lean on a prior."""
    clusters: Mapping[str, int]
    """What the intervals cluster by, and how many clusters there are."""


def table(
    feedback: Iterable[Feedback],
    queries: Mapping[str, Task],
    authors: Mapping[str, frozenset[str]],
    baseline: str = "",
) -> Table:
    """Rate policies by standing comparisons and rankings of answers of different ones.

    Args:
        queries: by id; answers to others are left out.
        authors: of each item, the policies that gave it: words that two share tell nothing between these two.
        baseline: whose rating is 1000; empty: the mean of all.
    """
    played = list(games(feedback, queries, authors))
    players = sorted({name for game in played for name in (game.first, game.second)})
    if not players:
        return Table((), 0, 0, False, {})
    number = {name: i for i, name in enumerate(players)}
    first, second, outcomes, weights, prompts, annotators, comparisons = zip(*played, strict=True)
    fit = bradley_terry(
        [number[name] for name in first], [number[name] for name in second], outcomes, len(players), weights,
        prompts=_numbered(prompts), annotators=_numbered(annotators), baseline=number.get(baseline),
    )  # fmt: skip
    counts = _counts(played)
    rows = [
        Row(name, *fit.rating(i), counts[name, 1.0], counts[name, 0.5], counts[name, 0.0]) for name, i in number.items()
    ]
    rows.sort(key=lambda row: -row.rating)
    return Table(tuple(rows), len(set(comparisons)), len(set(annotators)), fit.connected, fit.clusters)


def _counts(played: Iterable[Game]) -> Counter[tuple[str, float]]:
    """How many comparisons each policy won (1), tied (0.5) and lost (0)."""
    ends = {(game.first, game.outcome, game.comparison) for game in played}
    ends |= {(game.second, 1 - game.outcome, game.comparison) for game in played}
    return Counter((policy, outcome) for policy, outcome, _ in ends)


def games(
    feedback: Iterable[Feedback], queries: Mapping[str, Task], authors: Mapping[str, frozenset[str]]
) -> Iterator[Game]:
    """Who met whom, and who won, by the standing answers; arguments as for `table`."""
    events = [event for event in feedback if event.task in queries]
    superseded = {event.supersedes for event in events}
    for event in events:
        if event.id in superseded:
            continue
        query = queries[event.task]
        outcomes = _outcomes(event, query)
        for one, other, outcome in outcomes:
            ours, theirs = authors.get(one, frozenset()), authors.get(other, frozenset())
            meetings = [(a, b) for a in sorted(ours - theirs) for b in sorted(theirs - ours)]
            for a, b in meetings:
                weight = 1 / (len(meetings) * len(outcomes))
                yield Game(a, b, outcome, weight, query.prompt, event.annotator, (event.id, one, other))


def wins(played: Iterable[Game], players: Sequence[str]) -> NDArray[np.float64]:
    """(K, K), how often the row beat the column, a tie half for each."""
    number = {name: i for i, name in enumerate(players)}
    counts = np.zeros((len(players), len(players)))
    for game in played:
        i, j = number[game.first], number[game.second]
        counts[i, j] += game.weight * game.outcome
        counts[j, i] += game.weight * (1 - game.outcome)
    return counts


def _outcomes(event: Feedback, query: Task) -> list[tuple[str, str, float]]:
    """(item, other item, how far the first won) for each pair that an answer tells something about."""
    answer = event.judgement
    if verdict := getattr(answer, "verdict", ""):
        one, other = query.items
        if verdict == "better":
            return [(one, other, 1.0 if getattr(answer, "preferred", "") == one else 0.0)]
        return [] if verdict == "cannot tell" else [(one, other, 0.5)]
    place = {item: i for i, tier in enumerate(getattr(answer, "tiers", ())) for item in tier}
    ranked = list(place)
    return [
        (a, b, 0.5 if place[a] == place[b] else float(place[a] < place[b]))
        for i, a in enumerate(ranked)
        for b in ranked[i + 1 :]
    ]


def _numbered(labels: Iterable[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]
