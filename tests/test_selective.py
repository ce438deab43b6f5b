"""Selective answering by hand, by the definition over all orders of ties, and of three real sets of counts."""

import math
from collections.abc import Callable
from itertools import pairwise, permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.functional.selective import (
    CoveragePoint,
    answer_threshold,
    augrc,
    aurc,
    coverage_curve,
    selective_counts,
    wrong_reward,
)
from assent.functional.statistics import wilson

RIGHT = [1, 1, 0, 1]

answers = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=5)


# Counts


def test_selective_counts_by_hand() -> None:
    counts = selective_counts(right=50, refused=30, wrong=20)
    assert counts.n == 100
    assert counts.right == wilson(50, 100)
    assert counts.refused == wilson(30, 100)
    assert counts.wrong == wilson(20, 100)
    assert counts.selective_accuracy == wilson(50, 70)
    assert counts.selective_accuracy.rate == pytest.approx(0.714286, abs=1e-6)  # 50 / 70
    assert counts.f_score == pytest.approx(0.588235, abs=1e-6)  # 2 / (100 / 50 + 70 / 50) = 100 / 170
    assert counts.truthfulness == pytest.approx(0.3)  # .5 - .2
    assert counts.reliability == pytest.approx(0.71)  # .7 x (.5 + .3) + .3 x .5


# Measured: greedy answers of SmolLM2-135M-Instruct to 160 held-out questions, at the start, after SFT on "I don't know"
# and after GRPO, with limits in whole percent of right, refused, wrong, and right of answered.
@pytest.mark.parametrize(
    ("right", "refused", "wrong", "percent"),
    [
        (67, 8, 85, [(35, 50), (3, 10), (45, 61), (36, 52)]),
        (42, 99, 19, [(20, 34), (54, 69), (8, 18), (56, 79)]),
        (95, 16, 49, [(52, 67), (6, 16), (24, 38), (58, 73)]),
    ],
)
def test_limits_of_measured_counts(right: int, refused: int, wrong: int, percent: list[tuple[int, int]]) -> None:
    counts = selective_counts(right, refused, wrong)
    intervals = counts.right, counts.refused, counts.wrong, counts.selective_accuracy
    assert [(round(100 * share.low), round(100 * share.high)) for share in intervals] == percent


def test_scores_of_a_model_that_refuses_everything() -> None:
    counts = selective_counts(0, 10, 0)
    assert math.isnan(counts.selective_accuracy.rate)
    assert (counts.selective_accuracy.low, counts.selective_accuracy.high) == (0, 1)
    assert (counts.f_score, counts.truthfulness, counts.reliability) == (0, 0, 0)


def test_scores_of_a_model_that_refuses_nothing() -> None:
    counts = selective_counts(6, 0, 4)
    assert counts.selective_accuracy.rate == counts.f_score == counts.reliability == pytest.approx(0.6)
    assert counts.truthfulness == pytest.approx(0.2)


def test_scores_of_no_questions_are_nan() -> None:
    counts = selective_counts(0, 0, 0)
    assert counts.n == 0
    assert all(map(math.isnan, (counts.right.rate, counts.f_score, counts.truthfulness, counts.reliability)))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_scores_follow_their_definitions(right: int, refused: int, wrong: int) -> None:
    counts = selective_counts(right, refused, wrong)
    if not right + wrong:
        return
    n, precision = right + refused + wrong, right / (right + wrong)
    harmonic = 2 / (n / right + 1 / precision) if right else 0.0
    assert counts.f_score == pytest.approx(harmonic)
    answered = 1 - counts.refused.rate
    assert counts.reliability == pytest.approx(
        answered * (1 - counts.wrong.rate) + counts.refused.rate * counts.right.rate
    )
    assert 0 <= counts.reliability <= 1
    assert counts.truthfulness == pytest.approx(counts.right.rate - counts.wrong.rate)


# Accuracy over coverage


def test_coverage_curve_by_hand() -> None:
    expected = [(0.25, 1), (0.5, 1), (0.75, 2 / 3), (1, 0.75)]
    curve = coverage_curve([0.9, 0.8, 0.7, 0.6], RIGHT)
    assert curve == [pytest.approx(point) for point in expected]
    assert curve[2].coverage == 0.75


def test_equal_confidences_are_covered_together() -> None:
    # The two at .8 are one point: 1 + 1 of 3 are right.
    assert coverage_curve([0.8, 0.9, 0.8, 0.6], [0, 1, 1, 1]) == [
        CoveragePoint(0.25, 1),
        pytest.approx((0.75, 2 / 3)),
        CoveragePoint(1, 0.75),
    ]
    assert coverage_curve([0.5] * 4, RIGHT) == [CoveragePoint(1, 0.75)]


def test_coverage_curve_of_no_questions_is_empty() -> None:
    assert coverage_curve([], []) == []
    assert math.isnan(aurc([], []))
    assert math.isnan(augrc([], []))


# Errors among the 1, 2, 3, 4 surest: 0, 0, 1, 1. By k: (0 + 0 + 1/3 + 1/4) / 4; by n: (0 + 0 + 1/4 + 1/4) / 4.
# Constant confidence expects 1/4, 2/4, 3/4, 1 errors: by k 1/4 each; by n (1 + 2 + 3 + 4) / 16 / 4.
# Ties .9, .9 | .7, .7 with the error in the second pair: 0, 0, 1/2, 1; by k (1/6 + 1/4) / 4, by n (1/8 + 1/4) / 4.
@pytest.mark.parametrize(
    ("confidences", "by_covered", "by_all"),
    [
        ([0.9, 0.8, 0.7, 0.6], 0.145833, 0.125),
        ([0.5] * 4, 0.25, 0.15625),
        ([0.9, 0.9, 0.7, 0.7], 0.104167, 0.09375),
        ([-0.1, -1.5, -2.0, -math.inf], 0.145833, 0.125),
    ],
)
def test_areas_by_hand(confidences: list[float], by_covered: float, by_all: float) -> None:
    assert aurc(confidences, RIGHT) == pytest.approx(by_covered, abs=1e-6)
    assert augrc(confidences, RIGHT) == pytest.approx(by_all, abs=1e-6)


def test_areas_of_right_and_of_wrong_answers() -> None:
    assert (aurc([0.3, 0.2], [1, 1]), augrc([0.3, 0.2], [1, 1])) == (0, 0)
    assert (aurc([0.3, 0.2], [0, 0]), augrc([0.3, 0.2], [0, 0])) == (1, 0.75)  # 1 and 2 errors of 2


@settings(deadline=None)
@given(answers)
def test_areas_are_means_over_all_orders_of_ties(pairs: list[tuple[int, int]]) -> None:
    n = len(pairs)
    orders = [order for order in permutations(pairs) if all(a[0] >= b[0] for a, b in pairwise(order))]
    errors = np.array([np.cumsum([1 - correct for _, correct in order]) for order in orders])
    confidences, correct = zip(*pairs, strict=True)
    assert aurc(confidences, correct) == pytest.approx((errors / np.arange(1, n + 1)).mean())
    assert augrc(confidences, correct) == pytest.approx(errors.mean() / n)


@given(answers, st.randoms(use_true_random=False))
def test_areas_do_not_depend_on_the_order(pairs: list[tuple[int, int]], random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    before, after = (tuple(zip(*rows, strict=True)) for rows in (pairs, shuffled))
    assert aurc(*after) == pytest.approx(aurc(*before))
    assert augrc(*after) == pytest.approx(augrc(*before))
    assert coverage_curve(*after) == coverage_curve(*before)


def test_areas_are_lower_for_a_better_ranking() -> None:
    best, worst = [4, 3, 1, 2], [1, 2, 4, 3]
    for area in (aurc, augrc):
        assert area(best, RIGHT) < area([0] * 4, RIGHT) < area(worst, RIGHT)


# Rewards


@pytest.mark.parametrize(
    ("right", "refuse", "wrong", "threshold"),
    [
        (1, 0, -1, 0.5),  # TruthRL
        (1, 0, -3, 0.75),
        (1, 0, -9, 0.9),
        (1, 0, -4, 0.8),  # Schulman
        (0.5, 0, -2, 0.8),  # his hedged answers, half of the others: the same threshold, so a hedge never pays alone
        (1, 0, 0, 0.0),  # binary: never refuse
        (1, 0.5, -0.5, 2 / 3),  # (.5 + .5) / 1.5
        (0.7, 0, -1, 0.588235),  # a hedge above that line: 1 / 1.7
        (1 - 0.7, 0, -4 + 1, 0.909091),  # and answering over that hedge: 3 / 3.3
    ],
)
def test_answer_threshold_by_hand(right: float, refuse: float, wrong: float, threshold: float) -> None:
    assert answer_threshold(right, refuse, wrong) == pytest.approx(threshold, abs=1e-6)


# 1 / 4 = .25 to .75; readers' notes that quote a penalty of 2 at .75 are mistaken.
@pytest.mark.parametrize(("target", "reward"), [(0.5, -1), (0.75, -3), (0.9, -9), (0.8, -4), (0, 0)])
def test_wrong_reward_by_hand(target: float, reward: float) -> None:
    assert wrong_reward(target) == pytest.approx(reward)
    assert math.copysign(1, wrong_reward(0)) == 1


@given(st.floats(0, 0.999))
def test_answering_pays_from_the_target(target: float) -> None:
    assert answer_threshold(1, 0, wrong_reward(target)) == pytest.approx(target, abs=1e-9)


# Bad arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: selective_counts(1, -1, 0), "right is 1, refused -1 and wrong 0: give counts of 0 or more"),
        (lambda: coverage_curve([0.5], [1, 0]), r"confidences have shape \(1,\) and outcomes \(2,\)"),
        (lambda: aurc([math.nan], [1]), "confidences are NaN at index 0"),
        (lambda: augrc([0.5], [2]), "an outcome is 2: give 1 for right and 0 for wrong"),
        (lambda: answer_threshold(0, 0, 0), "rewards are right 0, refuse 0, wrong 0: choose right above wrong"),
        (lambda: answer_threshold(-1, 0, 1), "choose right above wrong"),
        (lambda: answer_threshold(1, math.nan, 0), "refuse nan"),
        (lambda: wrong_reward(1), "target is 1: choose a probability from 0 to below 1"),
        (lambda: wrong_reward(-0.1), "target is -0.1"),
        (lambda: wrong_reward(math.nan), "target is nan"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
