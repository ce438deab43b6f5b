"""Calibration by hand, by its properties, and of models that are calibrated by construction."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assent.functional.calibration import (
    CLIP,
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    Floor,
    auroc,
    brier_score,
    calibration_floor,
    expected_calibration_error,
    fit_temperature,
    measure_calibration,
    negative_log_likelihood,
    paired_difference,
    reliability_bins,
)
from assent.functional.statistics import Difference, wilson

CONFIDENCES = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
CORRECT = [0, 0, 1, 0, 1, 0, 1, 1]
"""Eight questions whose measures can be computed by hand; scikit-learn has the same Brier, NLL and AUROC."""

outcomes = st.integers(0, 1)
answers = st.lists(st.tuples(st.floats(0, 1), outcomes), min_size=1, max_size=60)
repeated_answers = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), outcomes), min_size=1, max_size=60)
Answers = list[tuple[float, int]]


# Expected calibration error


# Of 4 bins: confidences .15, .35, .65, .85 and accuracies 0, .5, .5, 1, each .15 apart.
# Of 2 bins: confidences .25, .75 and accuracies 1/4, 3/4. Of 1 bin: both 1/2.
# Of 8 or more, one question each: .1, .2, .7, .4, .4, .7, .2, .1 have the mean .35.
@pytest.mark.parametrize(("num_bins", "error"), [(4, 0.15), (2, 0.0), (1, 0.0), (8, 0.35), (15, 0.35)])
def test_calibration_error_by_hand(num_bins: int, error: float) -> None:
    assert expected_calibration_error(CONFIDENCES, CORRECT, num_bins) == pytest.approx(error, abs=1e-12)


def test_reliability_bins_by_hand() -> None:
    bins = reliability_bins(CONFIDENCES, CORRECT, 4)
    assert [b.confidence for b in bins] == pytest.approx([0.15, 0.35, 0.65, 0.85])
    assert [b.accuracy for b in bins] == [0, 0.5, 0.5, 1]
    assert [b.n for b in bins] == [2, 2, 2, 2]
    limits = [wilson(successes, 2) for successes in (0, 1, 1, 2)]
    assert [(b.low, b.high) for b in bins] == [(interval.low, interval.high) for interval in limits]


def test_bins_of_distinct_confidences_differ_by_one_question() -> None:
    sizes = [b.n for b in reliability_bins(np.linspace(0, 1, 100), np.ones(100))]
    assert len(sizes) == 15
    assert set(sizes) == {6, 7}  # 100 = 10 x 7 + 5 x 6


def test_equal_confidences_share_a_bin() -> None:
    # Ranks 0 to 5 of 8 have their middle at 3 of 8, in the second of 4 bins; ranks 6 and 7 have the fourth.
    bins = reliability_bins([0.5] * 6 + [0.8, 0.9], [1, 0, 1, 0, 1, 0, 1, 1], 4)
    assert [(b.n, b.accuracy) for b in bins] == [(6, 0.5), (2, 1.0)]
    # 6/8 x 0 + 2/8 x (1 - .85): tearing the six apart would have added a miscalibration that is none.
    assert expected_calibration_error([0.5] * 6 + [0.8, 0.9], [1, 0, 1, 0, 1, 0, 1, 1], 4) == pytest.approx(0.0375)


def test_constant_confidence_is_a_single_bin() -> None:
    (single,) = reliability_bins([0.7] * 10, [1] * 10)
    assert single.n == 10
    assert single.confidence == pytest.approx(0.7)
    assert expected_calibration_error([0.7] * 10, [1] * 10) == pytest.approx(0.3)
    assert expected_calibration_error([0.7] * 10, [1] * 7 + [0] * 3) == pytest.approx(0)


@given(answers | repeated_answers, st.integers(1, 20))
def test_calibration_error_is_the_mean_gap_of_its_bins(pairs: Answers, num_bins: int) -> None:
    confidences, correct = zip(*pairs, strict=True)
    bins = reliability_bins(confidences, correct, num_bins)
    error = expected_calibration_error(confidences, correct, num_bins)
    assert 0 <= error <= 1
    assert error == pytest.approx(sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(pairs), abs=1e-9)
    assert sum(b.n for b in bins) == len(pairs)
    assert len(bins) <= num_bins
    assert [b.confidence for b in bins] == pytest.approx(sorted(b.confidence for b in bins))
    assert all(b.low <= b.accuracy <= b.high for b in bins)


@given(answers | repeated_answers, st.randoms(use_true_random=False))
def test_measures_do_not_depend_on_the_order(pairs: Answers, random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    columns = [zip(*rows, strict=True) for rows in (pairs, shuffled)]
    measures = [measure_calibration(list(confidences), list(correct), 4) for confidences, correct in columns]
    # The floor draws outcomes in the order of the questions.
    before, after = (measure._replace(floor_median=0, floor_high=0) for measure in measures)
    assert after == pytest.approx(before, nan_ok=True, rel=1e-6, abs=1e-9)


# The floor


# Measured with 200 draws: .200 and .097 at 50 and 200 questions with 15 bins. Confidences are from a Beta(2, 2), where
# c (1 - c) is .2 on average: about sqrt(2 / pi) sqrt(.2 x 15 / n) = .195 and .098. Uniform ones have .175 and .087.
@pytest.mark.parametrize(("n", "floor"), [(50, 0.200), (200, 0.097)])
def test_calibrated_model_has_an_error_at_the_floor(n: int, floor: float) -> None:
    rng = np.random.default_rng(0)
    confidences = rng.beta(2, 2, (200, n))
    errors = [expected_calibration_error(c, rng.random(n) < c) for c in confidences]
    assert np.mean(errors) == pytest.approx(floor, abs=0.02)
    assert calibration_floor(confidences[0]).median == pytest.approx(floor, abs=0.02)


def test_calibrated_model_exceeds_the_floor_once_in_20_times() -> None:
    rng = np.random.default_rng(1)
    confidences = rng.beta(2, 2, 100)
    high = calibration_floor(confidences, resamples=2000).high
    exceeded = sum(expected_calibration_error(confidences, rng.random(100) < confidences) > high for _ in range(1000))
    assert exceeded / 1000 == pytest.approx(0.05, abs=0.025)  # standard error .007, and .005 of the limit's own


def test_floor_of_certain_answers_is_0() -> None:
    assert calibration_floor([0.0, 1.0, 1.0]) == Floor(0, 0)


def test_floor_of_a_single_coin_is_a_half() -> None:
    # One question with confidence 1/2 is always 1/2 off.
    assert calibration_floor([0.5]) == Floor(0.5, 0.5)


def test_floor_repeats_itself_with_its_seed() -> None:
    assert calibration_floor(CONFIDENCES, seed=3) == calibration_floor(CONFIDENCES, seed=3)
    assert calibration_floor(CONFIDENCES, seed=3) != calibration_floor(CONFIDENCES, seed=4)


# Proper scores


def test_brier_score_by_hand() -> None:
    # Twice .01 + .04 + .49 + .16, of 8.
    assert brier_score(CONFIDENCES, CORRECT) == pytest.approx(0.175)


def test_negative_log_likelihood_by_hand() -> None:
    # The outcomes have the probabilities .9, .8, .3, .6 twice: -ln(.9 x .8 x .3 x .6) / 4.
    assert negative_log_likelihood(CONFIDENCES, CORRECT) == pytest.approx(0.510826, abs=1e-6)


def test_proper_scores_of_a_coin() -> None:
    assert brier_score([0.5] * 4, [0, 1, 1, 1]) == 0.25
    assert negative_log_likelihood([0.5] * 4, [0, 1, 1, 1]) == pytest.approx(math.log(2))


def test_certain_and_wrong_answer_costs_the_clip() -> None:
    assert negative_log_likelihood([1.0], [0]) == pytest.approx(-math.log(CLIP))  # 13.8 nats
    assert negative_log_likelihood([0.0, 1.0], [0, 1]) == pytest.approx(CLIP)


@pytest.mark.parametrize("score", [brier_score, negative_log_likelihood])
def test_proper_scores_are_best_at_the_true_rate(score: Callable[[list[float], list[int]], float]) -> None:
    # 3 of 10 are right: of all constants, .3 is best, which cannot be gamed.
    losses = {c: score([c] * 10, [1] * 3 + [0] * 7) for c in (0.1, 0.2, 0.3, 0.4, 0.5)}
    assert min(losses, key=losses.__getitem__) == 0.3


# Ranking


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        (CONFIDENCES, CORRECT, 0.8125),  # .3, .6, .8, .9 are above 2, 3, 4, 4 of the 4 wrong ones: 13 / 16
        ([0.5, 0.5, 0.9], [0, 1, 1], 0.75),  # a tie and a win: (1/2 + 1) / 2
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.0),
        ([7, 7, 7], [0, 1, 0], 0.5),
        ([-math.inf, -3.0, math.inf], [0, 1, 1], 1.0),
    ],
)
def test_auroc_by_hand(scores: list[float], labels: list[int], area: float) -> None:
    assert auroc(scores, labels) == pytest.approx(area)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_auroc_of_a_single_class_is_nan(labels: list[int]) -> None:
    assert math.isnan(auroc([0.2, 0.4][: len(labels)], labels))


scored = st.lists(st.tuples(st.integers(-5, 5), outcomes), min_size=1, max_size=40)


@given(scored)
def test_auroc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, int]]) -> None:
    positives = [score for score, label in pairs if label]
    negatives = [score for score, label in pairs if not label]
    wins = [(p > q) + (p == q) / 2 for p in positives for q in negatives]
    expected = sum(wins) / len(wins) if wins else math.nan
    assert auroc(*zip(*pairs, strict=True)) == pytest.approx(expected, nan_ok=True)


@given(scored)
def test_auroc_is_unchanged_by_monotone_maps(pairs: list[tuple[int, int]]) -> None:
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    area = auroc(scores, labels)
    assert auroc(np.exp(scores), labels) == pytest.approx(area, nan_ok=True)
    assert auroc(scores**3 - 7, labels) == pytest.approx(area, nan_ok=True)
    assert auroc(-scores, labels) == pytest.approx(1 - area, nan_ok=True)


# Temperature


def test_temperature_by_hand() -> None:
    # The sign is right in 3 of 4 logits of equal size: s(2 / T) = 3/4, so T = 2 / ln 3.
    assert fit_temperature([2, 2, 2, -2], [1, 1, 0, 0]) == pytest.approx(1.820478, abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "temperature"),
    [
        ([3, -1], [1, 0], LOWEST_TEMPERATURE),  # all signs right: the sharper the likelier
        ([3, 0], [1, 0], LOWEST_TEMPERATURE),
        ([3, -1], [0, 1], HIGHEST_TEMPERATURE),  # all signs wrong: the flatter the likelier
        ([2, 2], [1, 0], HIGHEST_TEMPERATURE),  # the labels do not depend on the logits
        ([1e6, 1e6, 1e6], [1, 1, 0], HIGHEST_TEMPERATURE),  # the best would be 1e6 / ln 2
        ([1e-6, 1e-6, 1e-6], [1, 1, 0], LOWEST_TEMPERATURE),
        ([0, 0], [1, 0], 1.0),  # any temperature is as good
        ([], [], math.nan),
    ],
)
def test_temperature_is_defined_without_an_optimum(logits: list[float], labels: list[int], temperature: float) -> None:
    assert fit_temperature(logits, labels) == pytest.approx(temperature, nan_ok=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_of_sharpened_logits_is_recovered(temperature: float) -> None:
    # At T = 1 the information of log T is sum z^2 s(z) s(-z), 0.3 per question for z ~ N(0, 2^2): standard error 1.3 %.
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.05)


@given(st.lists(st.tuples(st.floats(-5, 5), outcomes), min_size=1, max_size=40))
def test_temperature_is_no_worse_than_others(pairs: list[tuple[float, int]]) -> None:
    logits, labels = (np.array(column) for column in zip(*pairs, strict=True))

    def loss(temperature: float) -> float:
        return float(np.logaddexp(0, -logits * (2 * labels - 1) / temperature).sum())

    best = fit_temperature(logits, labels)
    assert LOWEST_TEMPERATURE <= best <= HIGHEST_TEMPERATURE
    assert all(loss(best) <= loss(temperature) + 1e-6 for temperature in (0.01, 0.1, 0.5, 1, 2, 10, 100))


# The difference of two models


def test_paired_difference_by_hand() -> None:
    # Brier .25 for the coin. The second model has .01 on each question, right or wrong: the difference is always .24.
    coin, sure = [0.5] * 4, [0.9, 0.9, 0.1, 0.1]
    difference = paired_difference(brier_score, (coin, [1, 1, 0, 0]), (sure, [1, 1, 0, 0]))
    assert difference == pytest.approx(Difference(0.24, math.nan, math.nan), nan_ok=True)


def test_paired_difference_resamples_both_models_alike() -> None:
    # Both models share their luck: the second is .1 less sure of the same answers. Unpaired limits would be far wider.
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.3, 0.9, 400)
    correct = rng.random(400) < confidences
    first, second = (confidences, correct), (confidences - 0.1, correct)
    paired = paired_difference(negative_log_likelihood, first, second)
    assert paired.low < paired.value < paired.high
    alone = [negative_log_likelihood(confidences[draw], correct[draw]) for draw in rng.integers(400, size=(500, 400))]
    assert paired.high - paired.low < 0.75 * 2 * 1.96 * np.std(alone)


def test_paired_difference_changes_sign_with_the_order() -> None:
    first, second = (CONFIDENCES, CORRECT), (CONFIDENCES[::-1], CORRECT)
    forward = paired_difference(auroc, first, second, resamples=200)
    backward = paired_difference(auroc, second, first, resamples=200)
    assert forward.value == pytest.approx(2 * 0.8125 - 1)  # a reversed ranking has 1 - AUROC
    assert backward == pytest.approx(Difference(-forward.value, -forward.high, -forward.low))


def test_paired_limits_cover_the_true_difference() -> None:
    # Right with probability c = .1 or .9: E Brier(c) - Brier(1/2) = c (1 - c) - 1/4 = .09 - .25.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        confidences = rng.choice([0.1, 0.9], 80)
        correct = rng.random(80) < confidences
        interval = paired_difference(brier_score, (confidences, correct), ([0.5] * 80, correct), 200, seed)
        covered += interval.low <= -0.16 <= interval.high
    assert covered >= 85


# All measures


def test_calibration_returns_every_measure() -> None:
    measures = measure_calibration(CONFIDENCES, CORRECT, num_bins=4)
    assert measures.n == 8
    assert measures.accuracy == 0.5
    assert measures.mean_confidence == pytest.approx(0.5)
    assert measures.ece == pytest.approx(0.15)
    assert (measures.floor_median, measures.floor_high) == calibration_floor(CONFIDENCES, 4)
    assert measures.brier == pytest.approx(0.175)
    assert measures.nll == pytest.approx(0.510826, abs=1e-6)
    assert measures.auroc == 0.8125
    logits = [math.log(c / (1 - c)) for c in CONFIDENCES]
    assert measures.temperature == pytest.approx(fit_temperature(logits, CORRECT))


def test_sharpening_raises_temperature_and_keeps_auroc() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 2000)
    correct = rng.random(2000) < 1 / (1 + np.exp(-logits))
    before, after = (measure_calibration(1 / (1 + np.exp(-steepness * logits)), correct) for steepness in (1, 3))
    assert after.auroc == pytest.approx(before.auroc)
    assert after.temperature == pytest.approx(3 * before.temperature, rel=1e-3)
    assert before.ece <= before.floor_high < after.ece


def test_calibration_of_certain_answers_is_finite() -> None:
    measures = measure_calibration([1.0, 1.0, 0.0, 1.0], [1, 1, 0, 0])
    assert all(map(math.isfinite, measures))
    # Three of four logits of equal size have the right sign: T = logit(1 - CLIP) / ln 3.
    assert measures.temperature == pytest.approx(math.log((1 - CLIP) / CLIP) / math.log(3))


def test_measures_of_no_questions_are_nan() -> None:
    measures = measure_calibration([], [])
    assert measures.n == 0
    assert all(map(math.isnan, measures[1:]))
    assert reliability_bins([], []) == ()
    assert all(map(math.isnan, paired_difference(brier_score, ([], []), ([], []))))


# Bad arguments


@pytest.mark.parametrize(
    ("confidences", "correct", "message"),
    [
        ([0.5, 0.5], [1], r"confidences have shape \(2,\) and outcomes \(1,\): give one of each per question"),
        ([[0.5]], [[1]], r"confidences have shape \(1, 1\)"),
        ([0.5, math.nan], [1, 0], "confidences are NaN at index 1: leave such questions out"),
        ([0.5, 1.5], [1, 0], "confidences go from 0.5 to 1.5: give probabilities from 0 to 1"),
        ([-0.5, 0.5], [1, 0], "confidences go from -0.5 to 0.5"),
        ([0.5, 0.5], [1, 0.5], "an outcome is 0.5: give 1 for right and 0 for wrong"),
        ([0.5], [math.nan], "an outcome is nan"),
    ],
)
@pytest.mark.parametrize(
    "measure",
    [measure_calibration, reliability_bins, expected_calibration_error, brier_score, negative_log_likelihood],
)
def test_confidences_that_are_none_are_refused(
    measure: Callable[[object, object], object], confidences: object, correct: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(confidences, correct)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_calibration_error([0.5], [1], 0), "num_bins is 0: choose 1 or more"),
        (lambda: calibration_floor([0.5, 2.0]), "confidences go from 0.5 to 2"),
        (lambda: calibration_floor([math.nan]), "confidences are NaN at index 0"),
        (lambda: auroc([1, 2], [1]), r"scores have shape \(2,\) and outcomes \(1,\)"),
        (lambda: auroc([1, math.nan], [1, 0]), "scores are NaN at index 1"),
        (lambda: fit_temperature([1, math.inf], [1, 0]), "a logit is infinite: clip probabilities"),
        (lambda: fit_temperature([1, 2], [1, -1]), "an outcome is -1: give 1 for right and 0 for wrong"),
        (
            lambda: paired_difference(brier_score, ([0.5], [1]), ([0.5] * 2, [1, 0])),
            "the first model has 1 questions and the second 2: give both the same questions",
        ),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
