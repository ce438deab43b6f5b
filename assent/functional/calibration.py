"""Calibration: does a model that is confident to 70 % turn out right 7 times in 10?

    c = (N,): confidence that the answer to each of N questions is right, from 0 to 1
    y = (N,): 1 right, 0 wrong

Expected calibration error averages |accuracy - confidence| over bins, Guo et al. 2017, eq. 3 (arXiv:1706.04599). Here
the bins hold equally many questions: equal widths leave many of them nearly empty. Even a perfectly calibrated model
has an error above 0, the greater the fewer the questions: read it beside `calibration_floor`. The Brier score and the
negative log-likelihood are proper scores, AUROC measures the ranking alone, and the temperature says how much too
confident (above 1) or too cautious (below 1) the model is.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from assent.functional.statistics import Difference, wilson

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

CLIP = 1e-6
"""Least distance of a confidence from 0 and 1 in logarithms: a certain but wrong answer costs 13.8 nats."""
LOWEST_TEMPERATURE = 0.01
"""Temperature of logits whose sign is always right: the likelihood rises all the way to 0."""
HIGHEST_TEMPERATURE = 100.0
"""Temperature of logits that say nothing or the opposite of the truth: the likelihood rises all the way to infinity."""


class Predictions(NamedTuple):
    """Scores of N answers, the greater the surer, and whether each is right."""

    scores: Floats  # (N,)
    correct: Floats  # (N,), 1 right, 0 wrong

    @classmethod
    def of(cls, scores: ArrayLike, correct: ArrayLike, name: str, are_probabilities: bool = False) -> "Predictions":
        """Return both as arrays.

        Raises ValueError: shapes that differ or are not (N,), a score that is NaN, or outside 0 to 1 if they are
            probabilities, an outcome that is neither 0 nor 1. It calls the scores by `name`.
        """
        predictions = cls(np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64))
        score, outcome = predictions
        if not score.shape == outcome.shape == (score.size,):
            raise ValueError(
                f"{name} have shape {score.shape} and outcomes {outcome.shape}: give one of each per question"
            )
        if np.isnan(score).any():
            raise ValueError(f"{name} are NaN at index {int(np.isnan(score).argmax())}: leave such questions out")
        if are_probabilities and ((score < 0) | (score > 1)).any():
            raise ValueError(f"{name} go from {score.min():g} to {score.max():g}: give probabilities from 0 to 1")
        is_binary = np.isin(outcome, (0, 1))
        if not is_binary.all():
            raise ValueError(f"an outcome is {outcome[~is_binary][0]:g}: give 1 for right and 0 for wrong")
        return predictions


class Bin(NamedTuple):
    """A bin of a reliability diagram."""

    confidence: float
    """Mean of its confidences."""
    accuracy: float
    n: int
    low: float
    """Wilson's limits of the accuracy."""
    high: float


class Floor(NamedTuple):
    """Expected calibration errors of a perfectly calibrated model; NaN without questions."""

    median: float
    high: float
    """95 % point: a model with a greater error is miscalibrated."""


class Calibration(NamedTuple):
    """All measures of one model's calibration; NaN where one is not defined."""

    n: int
    accuracy: float
    mean_confidence: float
    ece: float
    """Expected calibration error."""
    floor_median: float
    """Median of the error that a perfectly calibrated model would show."""
    floor_high: float
    """95 % point of the error that a perfectly calibrated model would show."""
    brier: float
    nll: float
    """Negative log-likelihood in nats."""
    auroc: float
    temperature: float


def measure_calibration(confidences: ArrayLike, correct: ArrayLike, num_bins: int = 15, seed: int = 0) -> Calibration:
    """Return all measures of calibration. The temperature is that of the logits log(c / (1 - c)), clipped by `CLIP`.

    Args: confidences: (N,), from 0 to 1. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`; fewer than one bin.
    """
    c, y = Predictions.of(confidences, correct, "confidences", are_probabilities=True)
    floor = calibration_floor(c, num_bins, seed=seed)
    return Calibration(
        n=len(c),
        accuracy=_mean(y),
        mean_confidence=_mean(c),
        ece=expected_calibration_error(c, y, num_bins),
        floor_median=floor.median,
        floor_high=floor.high,
        brier=brier_score(c, y),
        nll=negative_log_likelihood(c, y),
        auroc=auroc(c, y),
        temperature=fit_temperature(logit(c.clip(CLIP, 1 - CLIP)), y),
    )


def reliability_bins(confidences: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> tuple[Bin, ...]:
    """Return the bins of a reliability diagram, the least confident first, with equally many questions each.

    Equal confidences share a bin, the one of the middle of their ranks, so some bins may be larger and others empty:
    these are left out.

    Args: confidences: (N,), from 0 to 1. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`; fewer than one bin.
    """
    c, y = Predictions.of(confidences, correct, "confidences", are_probabilities=True)
    index = _bin_index(c, num_bins)
    bins = []
    for number in np.unique(index):
        inside = index == number
        accuracy, low, high, n = wilson(int(y[inside].sum()), int(inside.sum()))
        bins.append(Bin(_mean(c[inside]), accuracy, n, low, high))
    return tuple(bins)


def expected_calibration_error(confidences: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> float:
    """Return sum_b n_b / N |accuracy_b - confidence_b| over the bins of `reliability_bins`; NaN without questions.

    Args: confidences: (N,), from 0 to 1. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`; fewer than one bin.
    """
    c, y = Predictions.of(confidences, correct, "confidences", are_probabilities=True)
    return _calibration_error(_bin_index(c, num_bins), c, y)


def calibration_floor(confidences: ArrayLike, num_bins: int = 15, resamples: int = 200, seed: int = 0) -> Floor:
    """Return the expected calibration error of a model that is right with just the probability that it says.

    Each resample draws whether it is right, y ~ Bernoulli(c): consistency resampling, Bröcker & Smith 2007
    (doi:10.1175/WAF993.1).

    Args: confidences: (N,), from 0 to 1.
    Raises ValueError: see `Predictions.of`; fewer than one bin.
    """
    c, _ = Predictions.of(confidences, np.zeros(np.shape(confidences)), "confidences", are_probabilities=True)
    index = _bin_index(c, num_bins)
    rng = np.random.default_rng(seed)
    errors = [_calibration_error(index, c, rng.random(len(c)) < c) for _ in range(resamples if len(c) else 0)]
    median, high = np.quantile(errors, [0.5, 0.95]) if errors else (np.nan, np.nan)
    return Floor(float(median), float(high))


def brier_score(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean of (c - y)^2, from 0 to 1: .25 if all confidences are 1/2; NaN without questions. Brier 1950.

    Args: confidences: (N,), from 0 to 1. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`.
    """
    c, y = Predictions.of(confidences, correct, "confidences", are_probabilities=True)
    return _mean((c - y) ** 2)


def negative_log_likelihood(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the mean of -log P(outcome), in nats: ln 2 if all confidences are 1/2; NaN without questions.

    Confidences are clipped to `CLIP` .. 1 - `CLIP`.

    Args: confidences: (N,), from 0 to 1. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`.
    """
    c, y = Predictions.of(confidences, correct, "confidences", are_probabilities=True)
    return _mean(-np.log(np.where(y == 1, c, 1 - c).clip(CLIP, 1 - CLIP)))


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the probability that a random positive scores above a random negative, ties counting half.

    It is Mann and Whitney's U: Hanley & McNeil 1982 (doi:10.1148/radiology.143.1.7063747). NaN if one class is missing.

    Args: scores: (N,), any numbers. labels: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`.
    """
    score, label = Predictions.of(scores, labels, "scores")
    positives = label.sum()
    pairs = positives * (len(label) - positives)
    if not pairs:
        return float("nan")
    _, group, sizes = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]  # the mean rank of those with equal scores
    return float((ranks @ label - positives * (positives + 1) / 2) / pairs)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the T that makes P(label) = s(logit / T) most likely. Guo et al. 2017, section 4.2 (arXiv:1706.04599).

    It is limited to `LOWEST_TEMPERATURE` .. `HIGHEST_TEMPERATURE`: the lowest if no logit has the wrong sign, the
    highest if the logits do not point to the labels on average (the sum of logit (2 label - 1) is 0 or less). It is 1
    if all logits are 0, since any T is as good, and NaN without logits.

    Args: logits: (N,), finite. labels: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`; an infinite logit.
    """
    logit_values, label = Predictions.of(logits, labels, "logits")
    if np.isinf(logit_values).any():
        raise ValueError("a logit is infinite: clip probabilities away from 0 and 1 first")
    if not len(label):
        return float("nan")
    margins = logit_values * (2 * label - 1)
    if not margins.any():
        return 1.0

    def slope(inverse_temperature: float) -> float:
        """Return the derivative of the negative log-likelihood, which rises with the inverse temperature."""
        return float(-margins @ expit(-margins * inverse_temperature))

    return solve_temperature(slope)


def solve_temperature(slope: Callable[[float], float]) -> float:
    """Return the most likely temperature, within `LOWEST_TEMPERATURE` .. `HIGHEST_TEMPERATURE`.

    Args: slope: the derivative of the negative log-likelihood at an inverse temperature, with which it rises.
    """
    if slope(1 / HIGHEST_TEMPERATURE) >= 0:
        return HIGHEST_TEMPERATURE
    if slope(1 / LOWEST_TEMPERATURE) <= 0:
        return LOWEST_TEMPERATURE
    return float(1 / brentq(slope, 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE))


def paired_difference(
    statistic: Callable[[Floats, Floats], float],
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Return statistic(first) - statistic(second) of two models on the same questions, with percentile limits.

    The bootstrap (Efron 1979) resamples questions, each with what both models said. Resamples in which the statistic is
    NaN are left out; the limits are NaN where all resamples give the same difference. The calibration errors of both
    models contain a floor, so their difference is nearer to 0 than with endless questions, and its limits may leave out
    the true one: compare proper scores instead.

    Args:
        statistic: a function of confidences and outcomes, such as `brier_score`.
        first, second: (confidences, correct), (N,) each, in the same order of questions.
    Raises ValueError: see `Predictions.of`; models with different numbers of questions.
    """
    models = [Predictions.of(*model, "confidences") for model in (first, second)]
    n, others = (len(model.scores) for model in models)
    if n != others:
        raise ValueError(f"the first model has {n} questions and the second {others}: give both the same questions")

    def difference(questions: Indices) -> float:
        values = [statistic(model.scores[questions], model.correct[questions]) for model in models]
        return values[0] - values[1]

    rng = np.random.default_rng(seed)
    draws = np.array([difference(rng.integers(n, size=n)) for _ in range(resamples if n > 1 else 0)])
    draws = draws[~np.isnan(draws)]
    low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) and np.ptp(draws) > 1e-12 else (np.nan, np.nan)
    return Difference(difference(np.arange(n)), float(low), float(high))


def _bin_index(confidences: Floats, num_bins: int) -> Indices:
    """Return the bin of each confidence, (N,): that of the middle of the ranks of all that equal it."""
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}: choose 1 or more")
    _, group, sizes = np.unique(confidences, return_inverse=True, return_counts=True)
    twice_the_middle = 2 * np.cumsum(sizes) - sizes
    index: Indices = (twice_the_middle * num_bins // max(2 * len(confidences), 1))[group]
    return index


def _calibration_error(index: Indices, confidences: Floats, correct: NDArray[np.float64 | np.bool_]) -> float:
    surplus = np.bincount(index, confidences - correct)  # n_b (confidence_b - accuracy_b)
    return float(np.abs(surplus).sum() / len(index)) if len(index) else float("nan")


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
