"""Decisions of reward models, by hand and by definition."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from assent.functional.decisions import (
    best_of_k_accuracy,
    decision_curve,
    margin_decisions,
    noise_ceiling,
    precision_recall_f1,
    within_group_spearman,
)

MARGINS = [2, 1, -1, 0.1, -0.1]
FLOATS = st.floats(-100, 100)
BINARY_PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


# Pairs


# t = 0: 3 of 5 right, all decided. t = 1/2: 2 of the 3 decided are right, 2 of all 5; F1 = 2 * 2 / (3 + 5).
@pytest.mark.parametrize(
    ("threshold", "expected"), [(0, (0.6, 0.6, 0.6, 1)), (0.5, (2 / 3, 0.4, 0.5, 0.6)), (5, (math.nan, 0, 0, 0))]
)
def test_margin_decisions_by_hand(threshold: float, expected: tuple[float, ...]) -> None:
    assert margin_decisions(MARGINS, threshold) == pytest.approx(expected, nan_ok=True)


def test_equal_scores_are_not_decided() -> None:
    # 1 of 1 decided is right, and 1 of 2: F1 = 2 * 1 / (1 + 2).
    assert margin_decisions([1, 0], 0) == pytest.approx((1, 0.5, 2 / 3, 0.5))


def test_decision_curve_has_one_point_per_threshold() -> None:
    assert decision_curve(MARGINS, [0, 0.5]) == (margin_decisions(MARGINS, 0), margin_decisions(MARGINS, 0.5))
    assert decision_curve(MARGINS, []) == ()


@given(st.lists(FLOATS, min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_recall_falls_as_the_threshold_rises(margins: list[float], first: float, second: float) -> None:
    low, high = decision_curve(margins, sorted([first, second]))
    assert high.decided <= low.decided
    assert high.recall <= low.recall


@given(st.lists(FLOATS, min_size=1), st.floats(0, 100))
def test_f1_of_margins_is_a_harmonic_mean(margins: list[float], threshold: float) -> None:
    precision, recall, f1, decided = margin_decisions(margins, threshold)
    if recall > 0:
        assert f1 == pytest.approx(2 / (1 / precision + 1 / recall))
        assert recall == pytest.approx(precision * decided)
    else:
        assert f1 == 0


# Approvals


def test_precision_recall_f1_by_hand() -> None:
    # Of 2 predicted 1 is right, of 3 positives 1 is predicted: F1 = 2 * 1 / (2 + 3).
    assert precision_recall_f1([1, 1, 0, 0], [1, 0, 1, 1]) == pytest.approx((1 / 2, 1 / 3, 2 / 5))


@pytest.mark.parametrize(
    ("predicted", "actual", "expected"),
    [([0, 0], [1, 0], (math.nan, 0, 0)), ([1, 0], [0, 0], (0, math.nan, 0)), ([0], [0], (math.nan,) * 3)],
)
def test_precision_without_predictions_is_undefined(
    predicted: list[int], actual: list[int], expected: tuple[float, ...]
) -> None:
    assert precision_recall_f1(predicted, actual) == pytest.approx(expected, nan_ok=True)


@given(BINARY_PAIRS)
def test_swapping_predicted_and_actual_swaps_recall(pairs: list[tuple[bool, bool]]) -> None:
    predicted, actual = np.array(pairs).T
    precision, recall, f1 = precision_recall_f1(predicted, actual)
    assert precision_recall_f1(actual, predicted) == pytest.approx((recall, precision, f1), nan_ok=True)


@pytest.mark.conformance
def test_precision_recall_f1_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install scikit-learn==1.9.1")
    predicted, actual = np.random.default_rng(0).random((2, 200)) < [[0.4], [0.6]]
    expected = metrics.precision_recall_fscore_support(actual, predicted, average="binary")[:3]
    assert precision_recall_f1(predicted, actual) == pytest.approx(expected, abs=1e-12)


# Noise ceiling


# (1 + sqrt(2a - 1)) / 2, e.g. a = 0.63: (1 + sqrt(0.26)) / 2 = 0.754951.
@pytest.mark.parametrize(
    ("agreement", "low", "high"),
    [(0.5, 0.5, 0.5), (0.63, 0.63, 0.754951), (0.701, 0.701, 0.817017), (0.73, 0.73, 0.839116), (1, 1, 1)],
)
def test_noise_ceiling_by_hand(agreement: float, low: float, high: float) -> None:
    assert noise_ceiling(agreement) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("agreement", [0, 0.3, 0.499])
def test_agreement_below_a_half_is_taken_as_a_half(agreement: float) -> None:
    assert noise_ceiling(agreement) == (0.5, 0.5)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_noise_ceiling_bounds_the_best_accuracy(shares: list[float]) -> None:
    p = np.array(shares)  # share of people who prefer the first, of each pair
    ceiling = noise_ceiling(min(1.0, float((p**2 + (1 - p) ** 2).mean())))
    assert ceiling.low - 1e-9 <= np.maximum(p, 1 - p).mean() <= ceiling.high + 1e-7


def test_noise_ceiling_is_attained_at_both_ends() -> None:
    # Half coins, half unanimous: a = c = 3/4. All at p = 0.8: a = 0.68, c = 0.8 = (1 + sqrt(0.36)) / 2.
    assert noise_ceiling(0.75).low == 0.75
    assert noise_ceiling(0.68).high == pytest.approx(0.8)


# Best of k


@pytest.mark.parametrize(("correct", "accuracy"), [(0, 0.5), (1, 0.5), (2, 0)])
def test_best_of_4_shared_by_two_counts_half(correct: int, accuracy: float) -> None:
    assert best_of_k_accuracy([[1, 1, 0, 0]], [correct]) == accuracy


def test_best_of_k_accuracy_is_a_mean_over_prompts() -> None:
    # Right, one of two best, wrong: (1 + 1/2 + 0) / 3.
    assert best_of_k_accuracy([[3, 1, 2], [1, 5, 5], [2, 1, 0]], [0, 2, 1]) == pytest.approx(0.5)


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=10))
def test_best_of_k_accuracies_of_all_columns_sum_to_1(scores: list[list[int]]) -> None:
    assert sum(best_of_k_accuracy(scores, column) for column in range(4)) == pytest.approx(1)


# Length


def test_spearman_within_groups_is_their_mean() -> None:
    # The first group has ranks 1 2 3 against 1 3 2: 1 - 6 * 2 / (3 * 8) = 0.5; the second -1; two are constant.
    scores = [1, 2, 3, 7, 8, 5, 5, 1, 2]
    lengths = [10, 30, 20, 4, 3, 1, 2, 6, 6]
    assert within_group_spearman(scores, lengths, list("aaabbccdd")) == pytest.approx((0.5 - 1) / 2)


def test_spearman_within_groups_leaves_out_their_difference() -> None:
    # Longer answers score less for each prompt, though the second prompt has longer answers and higher scores.
    scores = np.array([2, 1, 12, 11])
    lengths = np.array([1, 2, 101, 102])
    assert within_group_spearman(scores, lengths, [0, 0, 1, 1]) == pytest.approx(-1)
    assert within_group_spearman(scores, lengths, [0, 0, 0, 0]) == pytest.approx(0.6)  # 1 - 6 * 4 / (4 * 15)


@pytest.mark.parametrize("groups", [["a", "b", "c"], ["a", "a", "b"]])
def test_spearman_without_a_varied_group_is_undefined(groups: list[str]) -> None:
    assert math.isnan(within_group_spearman([1, 2, 3], [5, 5, 6], groups))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=25))
def test_spearman_within_groups_equals_its_definition(rows: list[tuple[int, int, int]]) -> None:
    correlations = []
    for group in range(4):
        scores = [score for score, _, label in rows if label == group]
        lengths = [length for _, length, label in rows if label == group]
        if len(set(scores)) > 1 and len(set(lengths)) > 1:
            correlations.append(spearmanr(scores, lengths).statistic)
    expected = np.mean(correlations) if correlations else math.nan
    assert within_group_spearman(*zip(*rows, strict=True)) == pytest.approx(expected, nan_ok=True)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: margin_decisions([], 0), r"margins of shape \(0,\): give finite values \(N,\), not empty"),
        (lambda: margin_decisions([[1]], 0), r"margins of shape \(1, 1\)"),
        (lambda: margin_decisions([1, math.nan], 0), "margins of shape .* finite"),
        (lambda: margin_decisions([1], -1), "threshold is -1: give 0 or more"),
        (lambda: margin_decisions([1], math.nan), "threshold is nan: give 0 or more"),
        (lambda: precision_recall_f1([1], [1, 0]), "as many values, each 0 or 1"),
        (lambda: precision_recall_f1([0.7], [1]), "each 0 or 1: compare scores with a threshold"),
        (lambda: noise_ceiling(1.1), "agreement is 1.1: give a share from 0 to 1"),
        (lambda: noise_ceiling(math.nan), "agreement is nan: .* two votes or more"),
        (lambda: best_of_k_accuracy([1, 2], [0]), r"give finite \(P, K\) and \(P,\)"),
        (lambda: best_of_k_accuracy([[1, 2]], [0, 1]), r"scores \(1, 2\) and correct \(2,\)"),
        (lambda: best_of_k_accuracy([[1, math.nan]], [0]), "give finite"),
        (lambda: best_of_k_accuracy([[1, 2]], [2]), "whole numbers from 0 to 1"),
        (lambda: best_of_k_accuracy([[1, 2]], [-1]), "whole numbers from 0 to 1"),
        (lambda: best_of_k_accuracy([[1, 2]], [0.5]), "whole numbers from 0 to 1"),
        (lambda: within_group_spearman([1, 2], [1, 2], [1]), "give one of each per answer"),
        (lambda: within_group_spearman([1, math.nan], [1, 2], [1, 1]), "scores of shape"),
    ],
)
def test_decisions_refuse_bad_input_with_a_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
