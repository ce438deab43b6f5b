"""How well each annotator does, and how far all agree; it ends in weights and suggested pauses, never in a deletion.

Answers are tallied in columns as they arrive, so that a page need not read them again. Agreement is that of people:
programs (`records.MACHINES`) are measured beside them and do not count in it.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import isqrt, nan
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.feedback import check
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.functional.agreement import (
    Agreement,
    Level,
    RawAgreement,
    krippendorff_alpha,
    near_agreement,
    raw_agreement,
    word_overlap,
)
from assent.functional.reliability import dawid_skene, peer_kappa
from assent.functional.sequential import SequentialTest, Standing
from assent.functional.statistics import Interval, bootstrap, wilson
from assent.labelling.queue import TaskQueue, agrees
from assent.records import Feedback, Judgement, Response, Task
from assent.store.database import Store

Numbers = NDArray[np.intp]
Flags = NDArray[np.bool_]
Texts = Callable[[Collection[str]], Mapping[str, str]]
"""What was written in answers, by their ids."""

FIRST, SECOND, TIE = range(3)
"""What can be said of a pair of items, in the order of their ids."""
LEAST = 0.05
"""The least weight: what an annotator said is never quite left out without a person deciding so."""
STEP = 1.0
"""Ratings of which one is no further than this from the other agree, as `Rating.agrees` has it."""
PAIRS = 1000
"""Pairs of written answers that are compared at most, drawn by lot."""
PRIOR = 0.6
"""The reliability of somebody of whom nothing is known: `functional.reliability.Reliability.unknown`."""


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
class KindAgreement:
    """How far people agree in one kind of answer."""

    kind: str
    axis: str
    """Of ratings; else empty."""
    measure: str
    """What it means that two answers to one item agree."""
    agree: Agreement
    """The share of pairs of answers that do; of written answers, how many words two have in common on average."""
    alpha: Agreement | None
    """Krippendorff's; None where the measure has none."""

    @property
    def undefined(self) -> str:
        """Why there is no alpha; empty if there is one."""
        if self.alpha is None or self.alpha.value == self.alpha.value:
            return ""
        return "everyone always says the same" if self.alpha.n else "no item has two answers"


@dataclass(frozen=True)
class Quality:
    """Of each annotator, by name, and of all people together."""

    annotators: tuple[AnnotatorQuality, ...]
    agreement: RawAgreement
    """Among pairs of people who judged one pair of items; both bad is a tie, and gold items do not count."""
    alpha: Agreement
    """Krippendorff's, of the same, with a tie as a third answer."""
    kinds: tuple[KindAgreement, ...]
    """Of each kind of which people gave an answer; gold items do not count."""

    @property
    def weights(self) -> dict[str, float]:
        """As `convert.examples` takes them."""
        return {each.annotator: each.weight for each in self.annotators}


class Peers(NamedTuple):
    """What the others' answers tell of an annotator."""

    kappa: float = nan
    items: int = 0
    reliability: float = PRIOR


class Consensus(NamedTuple):
    """What agreement among answers tells: the part of `Quality` that takes long."""

    peers: Mapping[str, Peers]
    agreement: RawAgreement
    alpha: Agreement
    kinds: tuple[KindAgreement, ...]


class Preferred(NamedTuple):
    """How people voted on one comparison."""

    share: float
    """Of them who prefer the first item, a tie counting half."""
    votes: int


def quality(
    feedback: Iterable[Feedback],
    queries: Mapping[str, Task],
    gold: Mapping[str, Judgement] | None = None,
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
    gold = gold or {}
    for name, answer in gold.items():
        if name in queries:
            check(answer, queries[name])
    tally, texts = Tally(gold), dict[str, str]()
    for event in feedback:
        if event.task not in queries:
            raise AssentError(
                f"feedback {event.id} is about query '{event.task}', which is not given: pass every query"
            )
        check(event.judgement, queries[event.task])
        tally.add(event, queries[event.task])
        texts[event.id] = getattr(event.judgement, "text", "")
    consensus = tally.consensus(gold, lambda _: texts, resamples, seed)
    return Quality(tally.annotators(gold, consensus.peers, test), *consensus[1:])


def reliabilities(store: Store) -> dict[str, float]:
    """What each annotator's answers in a store should weigh, as `convert.examples` takes it."""
    tally, gold = Tally(), {query.id: answer for query, answer, _ in TaskQueue(store).gold()}
    for arrival in store.arrivals():
        if not arrival.event.annotator.startswith("judge:"):
            tally.add(arrival.event, arrival.task)
    peers = tally.peers(gold)
    return {each.annotator: each.weight for each in tally.annotators(gold, peers)}


NEITHER, BETTER, WORSE, TIED, BAD = range(5)
"""An answer as a comparison: it decides nothing, the query's first item is the better, its second, a tie, both bad."""
WORDS = "words"
"""What stands in place of an axis for the words of a written answer."""
LEVELS: Mapping[str, Level] = {"rating": "interval"}


class _Judgement(NamedTuple):
    """What an answer says of some items of its query, as a number."""

    kind: str
    axis: str
    items: tuple[str, ...]
    value: float


class Tally:
    """Answers in columns, in the order of arrival: less than four hundred bytes each, and no texts.

    Args:
        marked: ids of queries whose answers may be marked, beside those of purpose `gold`.
    """

    def __init__(self, marked: Collection[str] = ()) -> None:
        self._marked = frozenset(marked)
        self._names: dict[str, int] = {}
        self._person = array("b")
        self._queries: dict[str, int] = {}
        self._hidden = array("b")
        # Of each answer. Ids are kept as hashes, only to tell which answers later ones supersede.
        self._id, self._superseded = array("q"), array("q")
        self._annotator, self._query = array("l"), array("l")
        self._compared, self._choice, self._left = array("b"), array("b"), array("b")
        self._seconds, self._at = array("d"), list[str]()
        # Of each judgement in an answer, and of each thing that is judged: the unit.
        self._answer, self._unit, self._value = array("l"), array("l"), array("d")
        self._units: dict[int, int] = {}
        self._prompts: dict[str, int] = {}
        self._measures: dict[tuple[str, str], int] = {}
        self._prompt, self._measure = array("l"), array("l")
        self._written: dict[int, str] = {}
        self._marking: list[tuple[int, str, Judgement]] = []
        self._bank: dict[str, Task] = {}

    def __len__(self) -> int:
        return len(self._id)

    def add(self, event: Feedback, query: Task) -> None:
        """Count one more answer, which may come before the one that it supersedes."""
        row, answer = len(self), event.judgement
        self._id.append(hash(event.id))
        if event.supersedes:
            self._superseded.append(hash(event.supersedes))
        if event.annotator not in self._names:
            self._person.append(event.by_person)
        if query.id not in self._queries:
            self._hidden.append(query.purpose == "gold")
        self._annotator.append(self._names.setdefault(event.annotator, len(self._names)))
        self._query.append(self._queries.setdefault(query.id, len(self._queries)))
        self._at.append(event.created_at)
        self._seconds.append(event.duration)
        self._compared.append(isinstance(answer, Comparison))
        self._choice.append(_choice(answer, query))
        preferred = getattr(answer, "preferred", "")
        self._left.append(event.display_order[0] == preferred if preferred and event.display_order else -1)
        if query.purpose == "gold" or query.id in self._marked:
            self._marking.append((row, query.id, answer))
            self._bank.setdefault(query.id, query)
        for judged in _judgements(answer, query):
            if judged.axis == WORDS:
                self._written[len(self._answer)] = event.id
            self._answer.append(row)
            self._unit.append(self._number(judged, query))
            self._value.append(judged.value)

    def annotators(
        self, gold: Mapping[str, Judgement], peers: Mapping[str, Peers], test: SequentialTest | None = None
    ) -> tuple[AnnotatorQuality, ...]:
        """Of each who gave a standing answer, in the order of their names: quick, given what their peers tell."""
        stands, size = self._stands(), len(self._names)
        annotator, compared, choice, left, seconds = (
            np.array(column)[stands]
            for column in (self._annotator, self._compared, self._choice, self._left, self._seconds)
        )
        answers, comparisons, ties, decided, lefts = (
            np.bincount(annotator[which], minlength=size).tolist()
            for which in (annotator >= 0, compared == 1, choice == TIED, left >= 0, left == 1)
        )
        timed = np.flatnonzero(seconds > 0)
        timed = timed[np.lexsort((seconds[timed], annotator[timed]))]
        times = np.split(seconds[timed], np.searchsorted(annotator[timed], np.arange(1, size)))
        standings = self._standings(gold, stands, test or SequentialTest())
        return tuple(
            AnnotatorQuality(
                name, answers[i], wilson(standings[i].right, standings[i].asked), standings[i],
                wilson(lefts[i], decided[i]), wilson(ties[i], comparisons[i]),
                float(np.median(times[i])) if len(times[i]) else nan, float(times[i].sum()),
                *peers.get(name, Peers()),
            )
            for name, i in sorted(self._names.items())
            if answers[i]
        )  # fmt: skip

    def consensus(self, gold: Mapping[str, Judgement], texts: Texts, resamples: int = 1000, seed: int = 0) -> Consensus:
        """What answers to the same items tell of each other.

        Args: gold: as for `quality`. texts: reads what some answers say in words.
        """
        votes = self._votes(gold)
        people = votes.where(np.array(self._person, dtype=bool)[votes.annotator] & ~votes.hidden)
        pairs = people.of("comparison", self._measures)
        raw = raw_agreement(pairs.unit, pairs.value, TIE, pairs.prompt, resamples, seed)
        alpha = krippendorff_alpha(pairs.unit, pairs.value, "nominal", pairs.prompt, resamples, seed)
        kinds = []
        if len(pairs.unit):
            kinds.append(KindAgreement("comparison", "", "prefer the same, of two who prefer one", raw.decisive, None))
            kinds.append(KindAgreement("comparison", "", "say the same, a tie included", raw.three_way, alpha))
        for kind, axis in sorted(self._measures, key=_order):
            some = people.of(kind, self._measures, axis)
            if kind != "comparison" and len(some.unit):
                kinds.append(
                    self._wording(kind, some, texts, resamples, seed)
                    if axis == WORDS
                    else _agreement(kind, axis, some, resamples, seed)
                )
        return Consensus(self._peers(votes, gold), raw, alpha, tuple(kinds))

    def peers(self, gold: Mapping[str, Judgement]) -> dict[str, Peers]:
        """Of each annotator by name, what the others' comparisons tell."""
        return self._peers(self._votes(gold), gold)

    def preferred(self, gold: Collection[str]) -> dict[str, Preferred]:
        """How people voted on each comparison, by the id of its query; gold items do not count."""
        query, choice, size = np.array(self._query), np.array(self._choice), len(self._queries)
        people = np.array(self._person, dtype=bool)[np.array(self._annotator)]
        counts = self._stands() & people & (choice != NEITHER) & ~self._gold(gold)[query]
        query, won = query[counts], np.array([0, 1, 0, 0.5, 0.5])[choice[counts]]
        votes, sums = np.bincount(query, minlength=size), np.bincount(query, won, size)
        shares = (sums / np.maximum(votes, 1)).tolist()
        return {name: Preferred(shares[i], int(votes[i])) for name, i in self._queries.items() if votes[i]}

    def _number(self, judged: _Judgement, query: Task) -> int:
        """Of what is judged: these items, as they were asked about."""
        measure = (judged.kind, judged.axis)
        unit = self._units.setdefault(_about(judged, query), len(self._units))
        if unit == len(self._measure):
            self._measure.append(self._measures.setdefault(measure, len(self._measures)))
            self._prompt.append(self._prompts.setdefault(query.prompt, len(self._prompts)))
        return unit

    def _stands(self) -> Flags:
        """Whether no other answer supersedes it, (answers,)."""
        return ~np.isin(np.array(self._id), np.array(self._superseded))

    def _gold(self, gold: Collection[str]) -> Flags:
        """Which queries are gold items, (queries,)."""
        hidden = np.array(self._hidden, dtype=bool)
        hidden[[self._queries[name] for name in gold if name in self._queries]] = True
        return hidden

    def _standings(self, gold: Mapping[str, Judgement], stands: Flags, test: SequentialTest) -> list[Standing]:
        """What the test says of each annotator's answers to gold items, in the order of time; by number."""
        given: dict[int, dict[str, Judgement]] = defaultdict(dict)
        for row, query, answer in sorted(self._marking, key=lambda marking: self._at[marking[0]]):
            if stands[row] and query in gold:
                given[self._annotator[row]][query] = answer
        marks = ((agrees(gold[query], a) for query, a in given[i].items()) for i in range(len(self._names)))
        return [test(answers) for answers in marks]

    def _votes(self, gold: Collection[str]) -> "_Votes":
        """The last standing judgement of each annotator on each unit."""
        place = np.empty(len(self), dtype=np.intp)
        place[sorted(range(len(self)), key=self._at.__getitem__)] = np.arange(len(self))
        answer, unit = np.array(self._answer), np.array(self._unit)
        row = np.flatnonzero(self._stands()[answer])
        row = row[np.argsort(-place[answer[row]], kind="stable")]
        annotator = np.array(self._annotator)[answer[row]]
        _, newest = np.unique(annotator * len(self._units) + unit[row], return_index=True)
        row, annotator = row[newest], annotator[newest]
        unit, hidden = unit[row], self._gold(gold)[np.array(self._query)[answer[row]]]
        of = np.array(self._prompt)[unit], np.array(self._measure)[unit]
        return _Votes(annotator, unit, *of, np.array(self._value)[row], hidden, row)

    def _peers(self, votes: "_Votes", gold: Mapping[str, Judgement]) -> dict[str, Peers]:
        """Of each annotator by name; the known answers to gold items stand beside theirs, as of one more annotator."""
        known = [
            (self._units[unit], judged.value)
            for name, query in self._bank.items()
            if name in gold
            for judged in _judgements(gold[name], query)
            if judged.kind == "comparison" and (unit := _about(judged, query)) in self._units
        ]
        votes = votes.of("comparison", self._measures)
        units, values = (np.array([pair[side] for pair in known], dtype=np.intp) for side in (0, 1))
        trust = dawid_skene(
            np.concatenate([votes.unit, units]),
            np.concatenate([votes.annotator, np.full(len(known), len(self._names))]),
            np.concatenate([votes.value.astype(np.intp), values]),
            among=(FIRST, SECOND),
        )
        weights = dict(zip(trust.annotators.tolist(), trust.weight.tolist(), strict=True))
        kappas = peer_kappa(votes.unit, votes.annotator, votes.value)
        shared = {i: (kappa, n) for i, kappa, n in zip(*(each.tolist() for each in kappas), strict=True)}
        return {name: Peers(*shared.get(i, (nan, 0)), weights.get(i, trust.unknown)) for name, i in self._names.items()}

    def _wording(self, kind: str, votes: "_Votes", texts: Texts, resamples: int, seed: int) -> KindAgreement:
        """How many words two people's texts about one thing have in common, of some pairs drawn by lot."""
        order = np.argsort(votes.unit, kind="stable")
        _, starts, sizes = np.unique(votes.unit[order], return_index=True, return_counts=True)
        ends = np.cumsum(sizes * (sizes - 1) // 2)
        total = int(ends[-1])
        chosen = Random(seed).sample(range(total), min(total, PAIRS))
        pairs = []
        for pair in sorted(chosen):
            unit = int(np.searchsorted(ends, pair, "right"))
            left = pair - int(ends[unit]) + int(sizes[unit] * (sizes[unit] - 1) // 2)
            second = (1 + isqrt(1 + 8 * left)) // 2  # the pairs of a unit: 01, 02, 12, 03, 13, ...
            first = left - second * (second - 1) // 2
            pairs.append(order[[starts[unit] + first, starts[unit] + second]])
        ids = [[self._written[row] for row in votes.row[pair].tolist()] for pair in pairs]
        words = texts([id for pair in ids for id in pair])
        overlaps = [word_overlap(words.get(one, ""), words.get(other, "")) for one, other in ids]
        found = bootstrap(overlaps, [votes.prompt[pair[0]] for pair in pairs], resamples, seed)
        return KindAgreement(kind, "", "have words in common", Agreement(*found[:3], int((sizes > 1).sum())), None)


class _Votes(NamedTuple):
    annotator: Numbers  # (N,)
    unit: Numbers  # (N,), what is judged
    prompt: Numbers  # (N,)
    measure: Numbers  # (N,)
    value: NDArray[np.float64]  # (N,), of a pair FIRST, SECOND or TIE
    hidden: Flags  # (N,), of gold items
    row: Numbers  # (N,), of the judgement

    def where(self, which: Flags) -> "_Votes":
        return _Votes._make(column[which] for column in self)

    def of(self, kind: str, measures: Mapping[tuple[str, str], int], axis: str = "") -> "_Votes":
        return self.where(self.measure == measures.get((kind, axis), -1))


def _agreement(kind: str, axis: str, votes: _Votes, resamples: int, seed: int) -> KindAgreement:
    """Of ratings along an axis, of approvals, or of whether there was something to correct."""
    step, level = (STEP if kind == "rating" else 0.0), LEVELS.get(kind, "nominal")
    measure = {"rating": "at most one step apart", "correction": "both change it, or neither"}.get(kind, "say the same")
    agree = near_agreement(votes.unit, votes.value, step, votes.prompt, resamples, seed)
    alpha = krippendorff_alpha(votes.unit, votes.value, level, votes.prompt, resamples, seed)
    return KindAgreement(kind, axis, measure, agree, alpha)


def _order(measure: tuple[str, str]) -> tuple[bool, int, str]:
    """Verdicts first, written answers last."""
    kind, axis = measure
    return (
        axis == WORDS,
        ("comparison", "rating", "approval", "correction", "demonstration", "critique").index(kind),
        axis,
    )


def _choice(answer: Judgement, query: Task) -> int:
    if not isinstance(answer, Comparison) or answer.verdict == "cannot tell":
        return NEITHER
    if answer.verdict == "better":
        return BETTER if answer.preferred == query.items[0] else WORSE
    return TIED if answer.verdict == "tie" else BAD


def _about(judged: _Judgement, query: Task) -> int:
    return hash((judged.kind, judged.axis, query.instruction, query.prompt, judged.items))


def _judgements(answer: Judgement, query: Task) -> Iterator[_Judgement]:
    """What an answer says of an item, or of pairs of items, by the order of ids; of words, that some are there."""
    match answer:
        case Comparison(verdict="cannot tell"):
            return
        case Comparison():
            first, second = sorted(query.items)
            label = {first: FIRST, second: SECOND}.get(answer.preferred, TIE)
            yield _Judgement("comparison", "", (first, second), label)
        case Ranking():
            tier = {item: number for number, tier in enumerate(answer.tiers) for item in tier}
            for first, second in combinations(sorted(tier), 2):
                ahead = tier[second] - tier[first]
                label = FIRST if ahead > 0 else SECOND if ahead < 0 else TIE
                yield _Judgement("comparison", "", (first, second), label)
        case Rating():
            for axis, value in answer.axes:
                yield _Judgement("rating", axis, query.items, value)
        case Approval():
            yield _Judgement("approval", "", query.items, answer.approved)
        case Correction():
            # A response is named by its text, so that the item's text need not be read.
            same = {Response(query.prompt, answer.text, "", finished).id for finished in (True, False)}
            yield _Judgement("correction", "", query.items, query.items[0] not in same)
            yield _Judgement("correction", WORDS, query.items, 0)
        case Demonstration():
            yield _Judgement("demonstration", WORDS, (), 0)
        case Critique():
            yield _Judgement("critique", WORDS, query.items, 0)
