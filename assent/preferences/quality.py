"""How well each annotator does, and how far all agree; it ends in weights and suggested pauses, never in a deletion."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.feedback import check
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.functional.agreement import Agreement, RawAgreement, krippendorff_alpha, raw_agreement
from assent.functional.reliability import dawid_skene, peer_kappa
from assent.functional.sequential import SequentialTest, Standing
from assent.functional.statistics import Interval, wilson
from assent.records import Answer, Feedback, Query
from assent.store.database import Store
from assent.store.desk import Desk, agrees

Numbers = NDArray[np.intp]

FIRST, SECOND, TIE = range(3)
"""What can be said of a pair of items, in the order of their ids."""
LEAST = 0.05
"""The least weight: what an annotator said is never quite left out without a person deciding so."""


@dataclass(frozen=True)
class AnnotatorQuality:
    """What is known of one annotator."""

    annotator: str
    answers: int
    gold: Interval
    """The share right of the gold items that were answered."""
    standing: Standing
    """What the sequential test says of these."""
    left: Interval
    """How often the item that was shown first is preferred, among decisive comparisons; half, if sides are drawn."""
    ties: Interval
    """How often a comparison is a tie."""
    median_seconds: float
    """Of the answers whose time was taken; NaN if none was."""
    total_seconds: float
    peers: float
    """Kappa with the majority of the others; NaN if there are none."""
    peer_items: int
    """How many pairs of items that rests on."""
    reliability: float
    """From 0, whose answers tell nothing, to 1, who is always right, by Dawid-Skene; a prior where nothing is known."""

    @property
    def weight(self) -> float:
        """How much the annotator's answers should count."""
        return max(self.reliability, LEAST)

    @property
    def pause(self) -> bool:
        """Whether to ask the annotator for a pause and look at the answers together."""
        return self.standing.state == "failed"


@dataclass(frozen=True)
class Quality:
    """Of each annotator, by name, and of all together."""

    annotators: tuple[AnnotatorQuality, ...]
    agreement: RawAgreement
    """Among pairs of people who judged one pair of items; both bad is a tie, and gold items do not count."""
    alpha: Agreement
    """Krippendorff's, of the same, with a tie as a third answer."""

    @property
    def weights(self) -> dict[str, float]:
        """As `convert.examples` takes them."""
        return {each.annotator: each.weight for each in self.annotators}


def quality(
    feedback: Iterable[Feedback],
    queries: Mapping[str, Query],
    gold: Mapping[str, Answer] | None = None,
    test: SequentialTest | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Quality:
    """Look at everyone's answers; those that a later one supersedes do not count.

    Comparisons, and the pairs of rankings, are compared between people by the ids of the items, so that neither the
    side of the screen nor the query that showed them matters. Intervals of agreement draw whole prompts.

    Args:
        queries: by id.
        gold: the known answers to gold items, by the id of their query.
        test: what stops whom.

    Raises:
        AssentError: an answer whose query is not given or did not ask for it, or a gold answer of a kind without one
            right answer.
    """
    gold, test = gold or {}, test or SequentialTest()
    for name, answer in gold.items():
        if name in queries:
            check(answer, queries[name])
    by = _by_annotator(feedback, queries)
    votes = _votes(list(by.values()), queries, gold)
    peers, reliability = _peers(votes, len(by)), _reliability(votes, len(by))
    annotators = [_annotator(*one, gold, test) for one in zip(by, by.values(), peers, reliability, strict=True)]

    plain = votes.where((votes.hidden == 0) & (votes.annotator < len(by)))
    raw = raw_agreement(plain.pair, plain.label, TIE, plain.prompt, resamples, seed)
    alpha = krippendorff_alpha(plain.pair, plain.label, "nominal", plain.prompt, resamples, seed)
    return Quality(tuple(annotators), raw, alpha)


def reliabilities(store: Store) -> dict[str, float]:
    """What each annotator's answers in a store should weigh, as `convert.examples` takes it."""
    queries = {query.id: query for query in store.queries()}
    gold = {query.id: answer for query, answer, _ in Desk(store).gold()}
    said = [event for event in store.feedback() if not event.annotator.startswith("judge:")]
    return quality(said, queries, gold, resamples=0).weights


def _by_annotator(feedback: Iterable[Feedback], queries: Mapping[str, Query]) -> dict[str, list[Feedback]]:
    """Standing answers in the order of time, by annotator in the order of names."""
    events = sorted(feedback, key=lambda event: event.at)
    superseded = {event.supersedes for event in events}
    by: dict[str, list[Feedback]] = defaultdict(list)
    for event in events:
        if event.query not in queries:
            raise AssentError(
                f"feedback {event.id} is about query '{event.query}', which is not given: pass every query"
            )
        if event.id not in superseded:
            check(event.answer, queries[event.query])
            by[event.annotator].append(event)
    return {name: by[name] for name in sorted(by)}


def _annotator(
    name: str,
    events: list[Feedback],
    peers: "_Peers",
    reliability: float,
    gold: Mapping[str, Answer],
    test: SequentialTest,
) -> AnnotatorQuality:
    asked = {event.query: event.answer for event in events if event.query in gold}
    standing = test(agrees(gold[query], answer) for query, answer in asked.items())
    compared = [(event.answer, event.shown) for event in events if isinstance(event.answer, Comparison)]
    left = [shown[0] == answer.preferred for answer, shown in compared if shown and answer.verdict == "better"]
    ties = sum(answer.verdict == "tie" for answer, _ in compared)
    seconds = [event.seconds for event in events if event.seconds > 0]
    return AnnotatorQuality(
        name,
        len(events),
        wilson(standing.right, standing.asked),
        standing,
        wilson(sum(left), len(left)),
        wilson(ties, len(compared)),
        median(seconds) if seconds else float("nan"),
        sum(seconds),
        *peers,
        reliability,
    )


class _Verdict(NamedTuple):
    first: str
    second: str
    label: int


def _verdicts(answer: Answer, items: tuple[str, ...]) -> Iterator[_Verdict]:
    """What an answer says of pairs of items, the ids of each in their order."""
    match answer:
        case Comparison(verdict="cannot tell"):
            return
        case Comparison():
            first, second = sorted(items)
            yield _Verdict(first, second, {first: FIRST, second: SECOND}.get(answer.preferred, TIE))
        case Ranking():
            tier = {item: number for number, tier in enumerate(answer.tiers) for item in tier}
            for first, second in combinations(sorted(tier), 2):
                ahead = tier[second] - tier[first]
                yield _Verdict(first, second, FIRST if ahead > 0 else SECOND if ahead < 0 else TIE)


class _Votes(NamedTuple):
    annotator: Numbers  # (N,)
    pair: Numbers  # (N,), two items and what was asked about them
    prompt: Numbers  # (N,)
    label: Numbers  # (N,), FIRST, SECOND or TIE
    hidden: Numbers  # (N,), 1 for gold items

    def where(self, which: NDArray[np.bool_]) -> "_Votes":
        return _Votes(*(column[which] for column in self))


def _votes(people: list[list[Feedback]], queries: Mapping[str, Query], gold: Mapping[str, Answer]) -> _Votes:
    """The last verdict of each on each pair, and what is known of gold items as said by one more annotator."""
    numbers: dict[tuple[str, ...], int] = {}
    made: dict[tuple[int, int], tuple[int, ...]] = {}

    def number(*what: str) -> int:
        return numbers.setdefault(what, len(numbers))

    def add(annotator: int, query: Query, answer: Answer) -> None:
        hidden = query.purpose == "gold" or query.id in gold
        for first, second, label in _verdicts(answer, query.items):
            pair = number(query.instruction, first, second)
            made[annotator, pair] = (annotator, pair, number(query.prompt), label, hidden)

    for annotator, events in enumerate(people):
        for event in events:
            add(annotator, queries[event.query], event.answer)
    for name in sorted({event.query for events in people for event in events} & gold.keys()):
        add(len(people), queries[name], gold[name])
    return _Votes(*np.array(list(made.values()), dtype=np.intp).reshape(-1, 5).T)


class _Peers(NamedTuple):
    kappa: float
    items: int


def _peers(votes: _Votes, people: int) -> list[_Peers]:
    """Of each annotator by number."""
    votes = votes.where(votes.annotator < people)
    found = peer_kappa(votes.pair, votes.annotator, votes.label)
    made = [_Peers(float("nan"), 0)] * people
    for annotator, kappa, items in zip(*(column.tolist() for column in found), strict=True):
        made[annotator] = _Peers(kappa, items)
    return made


def _reliability(votes: _Votes, people: int) -> list[float]:
    """Of each annotator by number; the known answers stand beside theirs."""
    found = dawid_skene(votes.pair, votes.annotator, votes.label, among=(FIRST, SECOND))
    known = dict(zip(found.annotators.tolist(), found.weight.tolist(), strict=True))
    return [known.get(annotator, found.unknown) for annotator in range(people)]
