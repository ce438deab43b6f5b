"""The quality of annotators: by hand, with planted fakes in real votes, and in the undefined cases."""

import math
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from annotator_quality import Quality, measure_quality
from hypothesis import given
from hypothesis import strategies as st
from public_data import read_llmfao_votes
from scipy.stats import rankdata

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.functional.statistics import wilson
from assent.labelling.agreement import MAX_TEXT_PAIRS, KindAgreement, measure_consensus
from assent.labelling.judgement_table import JudgementTable
from assent.labelling.quality import MIN_WEIGHT, AnnotatorQuality, measure_annotators
from assent.records import Feedback, Judgement, Prompt, Purpose, Response, Task, implied_source

SAMPLE = "llmfao_votes.csv"


# Quality of annotators


class FeedbackLog:
    """Tasks and feedback; each judgement is later than the one before."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.events: list[Feedback] = []

    def add_task(self, index: int, kind: str = "comparison", purpose: Purpose = "train", count: int = 2) -> Task:
        items = tuple(f"{index}-{letter}" for letter in "abcdefg"[:count])
        task = Task(kind, f"prompt {index}", items, purpose)
        return self.tasks.setdefault(task.id, task)

    def add_judgement(
        self, annotator: str, task: Task, judgement: Judgement, duration: float = 0.0, supersedes: str = ""
    ) -> str:
        at = f"2026-01-01T{len(self.events):06d}Z"
        display_order = task.items[:: 1 if len(self.events) % 2 else -1]
        self.events.append(
            Feedback(
                task.id,
                annotator,
                judgement,
                at,
                duration,
                display_order,
                supersedes=supersedes,
                source=implied_source(annotator),
            )
        )
        return self.events[-1].id

    def compare(self, annotator: str, index: int, choice: int | None, purpose: Purpose = "train") -> str:
        """Add a comparison: item 0 or 1 is better, or None for a tie."""
        task = self.add_task(index, purpose=purpose)
        judgement = Comparison(verdict="tie") if choice is None else Comparison(task.items[choice])
        return self.add_judgement(annotator, task, judgement)

    def measure(self, gold: dict[str, Judgement] | None = None, resamples: int = 50) -> dict[str, AnnotatorQuality]:
        result = measure_quality(self.events, self.tasks, gold, resamples=resamples)
        return {entry.annotator: entry for entry in result.annotators}


def test_annotator_quality_by_hand() -> None:
    log = FeedbackLog()
    results = [Comparison("0-a"), Comparison("1-b"), Comparison("2-b"), Comparison(verdict="tie")]
    for index, (judgement, duration) in enumerate(zip(results, (4.0, 2.0, 9.0, 0.0), strict=True)):
        log.add_judgement("ann", log.add_task(index), judgement, duration)
    log.add_judgement("ann", log.add_task(5), Comparison(verdict="cannot tell"))
    log.add_judgement("ann", log.add_task(6, "critique", count=1), Critique("no"), 60.0)
    result = log.measure()["ann"]
    assert result.num_judgements == 6
    # Display orders: b a, a b, b a, a b. The left item was preferred only in the last of three decisive comparisons.
    assert [result.first_shown_rate.rate, result.first_shown_rate.n] == pytest.approx([1 / 3, 3])
    assert [result.tie_rate.rate, result.tie_rate.n] == pytest.approx([1 / 5, 5])
    # Durations 2, 4, 9, 60, without those of 0: the median is (4 + 9) / 2.
    assert (result.median_seconds, result.total_seconds) == (6.5, 75)
    assert (result.gold_accuracy.n, result.gold_test.status, result.should_pause) == (0, "in progress", False)
    assert 0 < result.first_shown_rate.low < 1 / 3 < result.first_shown_rate.high < 1


def test_annotator_quality_ignores_superseded_judgements() -> None:
    log = FeedbackLog()
    first = log.compare("ann", 0, 0)
    log.add_judgement("ann", log.add_task(0), Comparison("0-b"), supersedes=first)
    log.compare("bob", 0, 1)
    result = measure_quality(log.events, log.tasks)
    assert [entry.num_judgements for entry in result.annotators] == [1, 1]
    assert result.agreement.decisive.value == 1


def test_agreement_matches_items_across_tasks_and_sides() -> None:
    log, mirrored = FeedbackLog(), FeedbackLog()
    for index in range(40):
        for annotator, choice in (("ann", index % 2), ("bob", index % 2 if index % 4 else 1 - index % 2)):
            log.compare(annotator, index, choice)
            task = log.add_task(index)
            second = Task("comparison", task.prompt, task.items[::-1], "evaluate") if annotator == "bob" else task
            mirrored.tasks[second.id] = second
            mirrored.add_judgement(annotator, second, Comparison(task.items[choice]))
    mirrored.events = [
        replace(event, display_order=second.display_order[::-1])
        for event, second in zip(mirrored.events, log.events, strict=True)
    ]
    result = measure_quality(log.events, log.tasks)
    expected = measure_quality(mirrored.events, mirrored.tasks)
    assert result.agreement.decisive.value == pytest.approx(0.75)
    assert (result.agreement, result.alpha, result.weights) == (expected.agreement, expected.alpha, expected.weights)
    assert [entry.first_shown_rate.rate for entry in result.annotators] == pytest.approx(
        [1 - entry.first_shown_rate.rate for entry in expected.annotators]
    )


def test_ties_count_in_three_way_agreement_only() -> None:
    log = FeedbackLog()
    for index, (first_value, second_value) in enumerate([(0, 0), (1, 1), (0, 1), (None, 0), (None, None)]):
        log.compare("ann", index, first_value)
        log.compare("bob", index, second_value)
    result = measure_quality(log.events, log.tasks)
    assert [result.agreement.decisive.value, result.agreement.decisive.n] == pytest.approx([2 / 3, 3])
    assert [result.agreement.three_way.value, result.agreement.three_way.n] == pytest.approx([3 / 5, 5])
    assert [entry.first_shown_rate.n for entry in result.annotators] == [3, 4]
    assert [entry.tie_rate.rate for entry in result.annotators] == pytest.approx([2 / 5, 1 / 5])


def test_both_bad_is_a_tie_and_cannot_tell_has_no_label() -> None:
    log = FeedbackLog()
    for annotator, verdict in (("ann", "tie"), ("bob", "both bad"), ("eve", "cannot tell")):
        log.add_judgement(annotator, log.add_task(0), Comparison(verdict=verdict))  # type: ignore[arg-type]
    result = measure_quality(log.events, log.tasks)
    assert (result.agreement.three_way.value, result.agreement.decisive.n) == (1, 0)
    assert [entry.peer_items for entry in result.annotators] == [1, 1, 0]


def test_agreement_of_rankings_is_pair_by_pair() -> None:
    log = FeedbackLog()
    task = log.add_task(0, "ranking", count=3)
    log.add_judgement("ann", task, Ranking((("0-a",), ("0-b", "0-c"))))
    log.add_judgement("bob", task, Ranking((("0-a",), ("0-c",), ("0-b",))))
    log.compare("eve", 0, 1)  # b over a
    result = measure_quality(log.events, log.tasks)
    # a over b: ann and bob, eve not; a over c: both; b and c: a tie and a choice. 1 + 1 + 0 of 3 + 1 + 1 pairs.
    assert result.agreement.three_way.value == pytest.approx(2 / 5)
    assert result.agreement.decisive.value == pytest.approx(2 / 4)
    assert math.isnan(result.alpha.low), "three pairs, but one prompt"


# Agreement by kind


def agreement_by_kind(
    log: FeedbackLog, gold: dict[str, Judgement] | None = None
) -> dict[tuple[str, str], KindAgreement]:
    result = measure_quality(log.events, log.tasks, gold, resamples=50)
    return {(entry.kind, entry.axis or entry.measure): entry for entry in result.by_kind}


def test_agreement_of_ratings_by_axis() -> None:
    log = FeedbackLog()
    for index, (first_value, second_value) in enumerate([(1, 7), (4, 5), (6, 6), (2, 4)]):
        task = log.add_task(index, "rating", count=1)
        log.add_judgement("ann", task, Rating((("true", first_value), ("kind", 3))))
        log.add_judgement("bob", task, Rating((("true", second_value), ("kind", 3))))
    log.add_judgement("ann", log.add_task(9, "rating", count=1), Rating((("true", 7),)))
    result = agreement_by_kind(log)
    true, kind = result["rating", "true"], result["rating", "kind"]
    assert [true.agreement.value, true.agreement.n] == [2 / 4, 4]
    assert true.agreement.low < 2 / 4 < true.agreement.high
    # Squared differences within: 36 + 1 + 0 + 4, twice each; of all pairs of 1 7 4 5 6 6 2 4: 8 * 183 - 35^2, twice.
    assert true.alpha and true.alpha.value == pytest.approx(1 - (2 * 41) * 7 / (2 * (8 * 183 - 35**2)))
    assert kind.agreement[:3] == wilson(4, 4)[:3]
    assert kind.undefined_reason == "all labels are the same" and not true.undefined_reason


def test_agreement_of_approvals() -> None:
    log = FeedbackLog()
    for index, (first_value, second_value) in enumerate([(True, True), (True, False), (False, False)]):
        for annotator, approved in (("ann", first_value), ("bob", second_value)):
            log.add_judgement(annotator, log.add_task(index, "approval", count=1), Approval(approved))
    log.add_judgement("ann", log.add_task(7, "approval", count=1), Approval(True))
    (result,) = agreement_by_kind(log).values()
    assert [result.agreement.value, result.agreement.n] == pytest.approx([2 / 3, 3])
    # 2 of 6 ordered pairs within items differ, of all 30 pairs 2 * 3 * 3 would.
    assert result.alpha and result.alpha.value == pytest.approx(1 - (2 / 6) / (18 / 30))


def test_agreement_of_corrections() -> None:
    log = FeedbackLog()
    prompt = Prompt.ask("Why?")
    log.tasks.clear()
    items = [Response(prompt.id, text, "sft", finished=bool(n)) for n, text in enumerate(("It is so.", "Rain falls."))]
    requested_ids = [Task("correction", prompt.id, (item.id,)) for item in items]
    log.tasks |= {task.id: task for task in requested_ids}
    log.add_judgement("ann", requested_ids[0], Correction("It is so."))
    log.add_judgement("bob", requested_ids[0], Correction("It is so."))
    log.add_judgement("ann", requested_ids[1], Correction("Rain falls down now."))
    log.add_judgement("bob", requested_ids[1], Correction("Rain falls."))
    result = agreement_by_kind(log)
    assert result["correction", "both change it, or neither"].agreement.value == 1 / 2
    words = result["correction", "words in common"]
    # "rain falls down now" and "rain falls" have two words in common twice, of six; the other texts are equal.
    assert words.agreement.value == pytest.approx((1 + 4 / 6) / 2)
    assert (words.agreement.n, words.alpha, words.undefined_reason) == (2, None, "")


def test_agreement_of_texts_is_by_words_in_any_order() -> None:
    log = FeedbackLog()
    for annotator, text in (("ann", "The wind is moving air."), ("bob", "Air, the WIND!"), ("eve", "Nobody knows")):
        log.add_judgement(annotator, log.add_task(0, "demonstration", count=0), Demonstration(text))
    log.add_judgement("ann", log.add_task(0, "critique", count=1), Critique("no"))
    result = agreement_by_kind(log)
    # ann and bob share 3 of 5 and 3 words, and eve none with either.
    assert result["demonstration", "words in common"].agreement.value == pytest.approx((6 / 8 + 0 + 0) / 3)
    critique = result["critique", "words in common"].agreement
    assert math.isnan(critique.value) and critique.n == 0


def test_agreement_of_texts_samples_1000_pairs() -> None:
    log = FeedbackLog()
    for index in range(60):  # 60 * 59 / 2 = 1770 pairs
        log.add_judgement(
            f"person {index}", log.add_task(0, "demonstration", count=0), Demonstration(f"word{index % 2}")
        )
    requested_ids: list[str] = []

    def texts(ids: Collection[str]) -> dict[str, str]:
        requested_ids.extend(ids)
        return {event.id: event.judgement.text for event in log.events}  # type: ignore[attr-defined]

    table = JudgementTable()
    for event in log.events:
        table.add(event, log.tasks[event.task])
    (result,) = measure_consensus(table, {}, texts, resamples=0).by_kind
    assert len(requested_ids) == 2 * MAX_TEXT_PAIRS
    assert result.agreement.value == pytest.approx(29 / 59, abs=0.05)  # the fraction of other texts with the same word


def test_agreement_is_of_current_human_judgements() -> None:
    log = FeedbackLog()
    task = log.add_task(0, "approval", count=1)
    first = log.add_judgement("ann", task, Approval(False))
    log.add_judgement("ann", task, Approval(True), supersedes=first)
    log.add_judgement("bob", task, Approval(True))
    for machine in ("ai:model", "simulated:a"):
        log.add_judgement(machine, task, Approval(False))
    gold = log.add_task(1, "approval", "gold", count=1)
    log.add_judgement("ann", gold, Approval(True))
    log.add_judgement("bob", gold, Approval(False))
    (result,) = agreement_by_kind(log, {gold.id: Approval(True)}).values()
    assert (result.agreement[:3], result.agreement.n) == (wilson(1, 1)[:3], 1)
    assert set(log.measure()) == {"ann", "bob", "ai:model", "simulated:a"}


def test_agreement_of_one_annotator_is_undefined() -> None:
    log = FeedbackLog()
    log.add_judgement("ann", log.add_task(0, "rating", count=1), Rating((("true", 3),)))
    log.compare("ann", 1, 0)
    result = measure_quality(log.events, log.tasks).by_kind
    assert [(entry.kind, entry.undefined_reason) for entry in result] == [
        ("comparison", ""),  # without a second label, alpha of comparisons is undefined
        ("comparison", "no item has two judgements"),
        ("rating", "no item has two judgements"),
    ]
    assert measure_quality([], {}).by_kind == ()


# Incremental tables


@st.composite
def arrivals(draw: st.DrawFn) -> FeedbackLog:
    """Draw judgements of several kinds in any order; some supersede earlier or later ones."""
    log = FeedbackLog()
    rows = draw(st.lists(st.tuples(*[st.integers(0, 5)] * 4), max_size=30))
    for index, annotator_index, kind, label in rows:
        purpose: Purpose = "gold" if index == 5 else "train"
        annotator = ("ann", "bob", "eve", "simulated:x", "dan", "kim")[annotator_index]
        if kind < 3:
            log.compare(annotator, index, (0, 1, None)[label % 3], purpose)
        elif kind == 3:
            log.add_judgement(
                annotator, log.add_task(index, "rating", purpose, 1), Rating((("true", 1 + label),)), duration=label
            )
        elif kind == 4:
            order = ("a", "b", "c") if label % 2 else ("c", "a", "b")
            tiers = tuple((f"{index}-{letter}",) for letter in order)
            log.add_judgement(annotator, log.add_task(index, "ranking", purpose, 3), Ranking(tiers))
        else:
            log.add_judgement(annotator, log.add_task(index, "critique", purpose, 1), Critique(f"word{label} and so"))
    for n in draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), max_size=5, unique=True)) if rows else []:
        earlier = log.events[n]
        log.add_judgement(earlier.annotator, log.tasks[earlier.task], earlier.judgement, supersedes=earlier.id)
    log.events = draw(st.permutations(log.events))
    return log


@given(arrivals(), st.lists(st.integers(0, 35), max_size=3))
def test_judgement_table_is_incremental(log: FeedbackLog, lookups: list[int]) -> None:
    table = JudgementTable()
    gold: dict[str, Judgement] = {}

    def texts(ids: Collection[str]) -> dict[str, str]:
        return {event.id: getattr(event.judgement, "text", "") for event in log.events if event.id in ids}

    for index, event in enumerate(log.events):
        if index in lookups:  # an evaluation in between
            measure_annotators(table, gold, measure_consensus(table, gold, texts, 5).peers)
        table.add(event, log.tasks[event.task])
    for task in log.tasks.values():  # gold items are added last
        if task.purpose == "gold" and task.kind in ("comparison", "rating"):
            gold[task.id] = Comparison(task.items[0]) if task.kind == "comparison" else Rating((("true", 2),))
    consensus = measure_consensus(table, gold, texts, 5)
    result = Quality(measure_annotators(table, gold, consensus.peers), *consensus[1:])
    assert repr(result) == repr(measure_quality(log.events, log.tasks, gold, resamples=5))


def test_judgement_table_takes_400_bytes_per_judgement() -> None:
    log = FeedbackLog()
    table = JudgementTable()
    tracemalloc.start()
    for index in range(10_000):
        for annotator in ("ann", "bob"):
            log.compare(annotator, index, index % 2)
            event = log.events.pop()
            table.add(replace(event, id=f"{event.id} {index} {annotator}"), log.tasks.pop(event.task))
    num_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(table) == 20_000
    assert num_bytes < 400 * len(table)


# Gold


def test_gold_items_are_tested_and_left_out_of_agreement() -> None:
    log = FeedbackLog()
    gold = dict[str, Judgement]()
    for index in range(20):
        task = log.add_task(index, purpose="gold")
        gold[task.id] = Comparison(task.items[index % 2])
        log.compare("good", index, index % 2, "gold")
        log.compare("bad", index, index // 2 % 2, "gold")
    log.compare("good", 50, 0)
    log.compare("bad", 50, 1)
    result = log.measure(gold)
    assert (result["good"].gold_accuracy.rate, result["good"].gold_accuracy.n) == (1, 20)
    assert (result["good"].gold_test.status, result["good"].gold_test.passes, result["good"].should_pause) == (
        "passed",
        2,
        False,
    )
    assert result["bad"].gold_accuracy.rate == pytest.approx(1 / 2)
    assert result["bad"].should_pause
    assert result["bad"].gold_test.failed_at < 20
    assert result["bad"].gold_accuracy.low < 1 / 2 < result["bad"].gold_accuracy.high < 0.75
    assert result["bad"].weight < 0.3 < 0.8 < result["good"].weight
    agreement = measure_quality(log.events, log.tasks, gold).agreement.decisive
    assert (agreement.value, agreement.n) == (0, 1)


def test_gold_results_are_in_order_of_time() -> None:
    log = FeedbackLog()
    gold = dict[str, Judgement]()
    for index in range(13):
        task = log.add_task(index, purpose="gold")
        gold[task.id] = Comparison(task.items[0])
        log.compare("ann", index, int(index >= 8), "gold")
    expected = log.measure(gold)["ann"].gold_test
    assert (expected.status, expected.passes, expected.failed_at) == ("failed", 1, 13)
    log.events.reverse()
    assert log.measure(gold)["ann"].gold_test == expected


def test_quality_of_one_annotator_is_by_gold_only() -> None:
    log = FeedbackLog()
    gold = dict[str, Judgement]()
    for index in range(30):
        log.compare("ann", index, index % 2)
    alone = measure_quality(log.events, log.tasks)
    (ann,) = alone.annotators
    assert ann.reliability == pytest.approx(0.6)
    assert (math.isnan(ann.peer_kappa), ann.peer_items, math.isnan(alone.alpha.value)) == (True, 0, True)
    for index in range(100, 130):
        task = log.add_task(index, purpose="gold")
        gold[task.id] = Comparison(task.items[index % 2])
        log.compare("ann", index, index % 2, "gold")
    assert log.measure(gold)["ann"].reliability > 0.8


@pytest.mark.parametrize(
    ("kind", "gold", "right", "wrong"),
    [
        (
            "comparison",
            Comparison("0-a", 3),
            Comparison("0-a", 1),
            [Comparison("0-b"), Comparison(verdict="cannot tell")],
        ),
        ("comparison", Comparison(verdict="tie"), Comparison(verdict="tie"), [Comparison("0-a")]),
        ("approval", Approval(True), Approval(True), [Approval(False)]),
        ("rating", Rating((("x", 5),)), Rating((("x", 6), ("y", 1))), [Rating((("x", 7),)), Rating((("y", 5),))]),
        (
            "ranking",
            Ranking((("0-a",), ("0-b", "0-c"))),
            Ranking((("0-a",), ("0-c",), ("0-b",))),
            [Ranking((("0-b",), ("0-a",), ("0-c",))), Ranking((("0-a", "0-b", "0-c"),)), Ranking((("0-a",), ("0-b",)))],
        ),
    ],
)
def test_gold_accuracy_of_each_kind(kind: str, gold: Judgement, right: Judgement, wrong: Sequence[Judgement]) -> None:
    log = FeedbackLog()
    task = log.add_task(0, kind, "gold", count={"comparison": 2, "ranking": 3}.get(kind, 1))
    log.add_judgement("right", task, right)
    for index, judgement in enumerate(wrong):
        log.add_judgement(f"wrong {index}", task, judgement)
    result = log.measure({task.id: gold})
    assert [result[annotator].gold_accuracy.rate for annotator in sorted(result)] == [1.0, *[0.0] * len(wrong)]


# Edge cases


def test_quality_of_no_feedback() -> None:
    result = measure_quality([], {})
    assert (result.annotators, result.weights) == ((), {})
    assert (result.alpha.n, result.agreement.three_way.n) == (0, 0)


def test_weight_without_overlap_is_the_prior() -> None:
    log = FeedbackLog()
    for index in range(60):
        log.compare("ann", index, index % 2)
        log.compare("bob", index, index % 2)
    log.compare("new", 1000, 0)
    log.add_judgement("writer", log.add_task(1, "critique", count=1), Critique("no"))
    result = log.measure()
    assert [result[annotator].reliability for annotator in ("new", "writer")] == pytest.approx([0.6, 0.6])
    assert (result["new"].peer_items, math.isnan(result["new"].peer_kappa)) == (0, True)
    assert result["ann"].weight > 0.9


def test_agreement_of_equal_labels_has_no_kappa() -> None:
    log = FeedbackLog()
    for annotator in "abc":
        log.compare(annotator, 0, 0)
    result = measure_quality(log.events, log.tasks)
    assert result.agreement.three_way.value == 1
    assert math.isnan(result.alpha.value)
    assert all(math.isnan(entry.peer_kappa) and entry.peer_items == 1 for entry in result.annotators)
    assert all(0.6 < entry.weight < 0.7 for entry in result.annotators), "one pair tells little"


def test_weight_has_a_minimum() -> None:
    log = FeedbackLog()
    for index in range(200):
        for annotator in "abc":
            log.compare(annotator, index, index % 2)
        log.compare("contrary", index, 1 - index % 2)
    result = log.measure()["contrary"]
    assert (result.reliability, result.weight) == (0, MIN_WEIGHT)
    assert result.peer_kappa == pytest.approx(-1)
    assert MIN_WEIGHT > 0


def test_quality_refuses_written_gold() -> None:
    log = FeedbackLog()
    task = log.add_task(0, "critique", "gold", count=1)
    log.add_judgement("ann", task, Critique("no"))
    with pytest.raises(AssentError, match="a critique cannot be a gold item"):
        log.measure({task.id: Critique("yes")})


# Fakes


def auc(scores: Iterable[float], fake: Sequence[bool]) -> float:
    """Return the probability that a fake scores lower than a real annotator; NaN scores count as the median."""
    filled, is_fake = np.array(list(scores)), np.array(fake)
    filled[np.isnan(filled)] = np.nanmedian(filled)
    ranks = rankdata(-filled)
    count = is_fake.sum()
    return float((ranks[is_fake].sum() - count * (count + 1) / 2) / (count * (~is_fake).sum()))


def real_events(name: str = "llmfao_all_votes.csv.gz") -> FeedbackLog:
    log = FeedbackLog()
    for row in read_llmfao_votes(name):
        sides = tuple(f"{row['prompt']}/{row[side]}" for side in ("model_x", "model_y"))
        task = Task("comparison", row["prompt"], sides)
        log.tasks[task.id] = task
        chosen = {"left": sides[0], "right": sides[1]}.get(row["winner"], "")
        judgement = Comparison(chosen) if chosen else Comparison(verdict="tie")
        log.events.append(Feedback(task.id, row["worker"], judgement, "2023", display_order=sides))
    return log


def plant(
    log: FeedbackLog, judge_task: Callable[[Task], Judgement], num_fakes: int, tasks_per_fake: int, rng: random.Random
) -> None:
    for fake in range(num_fakes):
        for task in rng.sample(sorted(log.tasks.values(), key=lambda task: task.id), tasks_per_fake):
            log.events.append(Feedback(task.id, f"fake {fake}", judge_task(task), "2023", display_order=task.items))


def test_quality_of_a_sample_of_real_votes() -> None:
    log = real_events(SAMPLE)
    result = measure_quality(log.events, log.tasks, resamples=50)
    by_task: dict[str, list[Comparison]] = {}
    for event in log.events:
        assert isinstance(event.judgement, Comparison)
        by_task.setdefault(event.task, []).append(event.judgement)
    pairs = [pair for judgements in by_task.values() for pair in combinations(judgements, 2)]
    assert len(pairs) == 40 * 10
    decisive = [pair for pair in pairs if pair[0].preferred and pair[1].preferred]
    same = sum(first.preferred == second.preferred for first, second in pairs)
    decisive_same = sum(first.preferred == second.preferred for first, second in decisive)
    assert result.agreement.three_way.value == pytest.approx(same / len(pairs))
    assert result.agreement.decisive.value == pytest.approx(decisive_same / len(decisive))
    assert len(result.annotators) == 64
    # Krippendorff's alpha of nominal labels: 1 - observed / expected disagreement. All items have five judgements.
    labels = Counter(_label(event) for event in log.events)
    n = len(log.events)
    expected = 1 - sum(count * (count - 1) for count in labels.values()) / (n * (n - 1))
    assert result.alpha.value == pytest.approx(1 - (1 - same / len(pairs)) / expected)


def _label(event: Feedback) -> int:
    """Return the place of the preferred item in the order of ids; -1 for a tie."""
    assert isinstance(event.judgement, Comparison)
    return sorted(event.display_order).index(event.judgement.preferred) if event.judgement.preferred else -1


def test_quality_of_real_votes() -> None:
    log = real_events()
    started_at = time.process_time()
    result = measure_quality(log.events, log.tasks)
    assert time.process_time() - started_at < 5
    assert len(result.annotators) == 124
    # As in test_agreement.py: 4737 of 6755 pairs, 8043 of 15112, and 1 - 0.4691 / 0.6621.
    assert result.agreement.decisive.value == pytest.approx(0.701, abs=5e-4)
    assert result.agreement.three_way.value == pytest.approx(0.532, abs=5e-4)
    assert result.alpha.value == pytest.approx(0.29, abs=5e-3)
    assert result.alpha.low < 0.24 < 0.33 < result.alpha.high
    # Of the votes without a tie 2911 are for the left and 2549 for the right: 2911 / 5460.
    left_counts = [
        (entry.first_shown_rate.rate * entry.first_shown_rate.n, entry.first_shown_rate.n)
        for entry in result.annotators
        if entry.first_shown_rate.n
    ]
    assert sum(chosen for chosen, _ in left_counts) / sum(n for _, n in left_counts) == pytest.approx(0.533, abs=5e-4)


def test_reliability_finds_15_planted_fakes_of_139() -> None:
    areas = []
    for seed in range(3):
        log = real_events()
        rng = random.Random(seed)

        def random_judgement(task: Task, rng: random.Random = rng) -> Judgement:
            side = rng.randrange(3)
            return Comparison(task.items[side]) if side < 2 else Comparison(verdict="tie")

        plant(log, random_judgement, 15, 45, rng)
        entries = measure_quality(log.events, log.tasks, resamples=0).annotators
        fake = [entry.annotator.startswith("fake") for entry in entries]
        frequent = [entry for entry in entries if entry.peer_items >= 20]
        areas.append(
            (
                auc((entry.reliability for entry in entries), fake),
                auc((entry.peer_kappa for entry in entries), fake),
                auc(
                    (entry.peer_kappa for entry in frequent), [entry.annotator.startswith("fake") for entry in frequent]
                ),
            )
        )
        assert max(entry.weight for entry in entries if entry.annotator.startswith("fake")) < 0.4
    reliability, peers, frequent_kappa = np.mean(areas, 0)
    assert 0.93 < reliability < 0.98  # measured .965
    assert peers > 0.88  # measured .932
    assert 0.92 < frequent_kappa < 0.975  # measured .960


def test_reliability_does_not_find_random_annotators() -> None:
    log = real_events()
    entries = measure_quality(log.events, log.tasks, resamples=0).annotators
    rng = random.Random(0)
    areas = []
    for _ in range(40):
        fake_indices = set(rng.sample(range(len(entries)), 15))
        areas.append(auc((entry.reliability for entry in entries), [i in fake_indices for i in range(len(entries))]))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)


def test_quality_of_30000_judgements_takes_seconds() -> None:
    log = FeedbackLog()
    rng = random.Random(0)
    for index in range(10_000):
        for annotator in rng.sample(range(100), 3):
            log.compare(f"person {annotator}", index, index % 2 if rng.randrange(100) < annotator else rng.randrange(2))
    started_at = time.process_time()
    result = measure_quality(log.events, log.tasks)
    assert time.process_time() - started_at < 6
    skills = [int(entry.annotator.split()[1]) for entry in result.annotators]
    assert np.corrcoef(skills, [entry.weight for entry in result.annotators])[0, 1] > 0.95


def test_peer_kappa_and_alpha_of_pure_noise_are_zero() -> None:
    log = FeedbackLog()
    rng = random.Random(0)
    for index in range(1000):
        for annotator in rng.sample(range(20), 3):
            log.compare(f"person {annotator}", index, rng.randrange(2))
    result = measure_quality(log.events, log.tasks, resamples=200)
    assert max(result.weights.values()) > 0.3
    assert max(entry.peer_kappa for entry in result.annotators) < 0.2
    assert result.alpha.low < 0 < result.alpha.high
