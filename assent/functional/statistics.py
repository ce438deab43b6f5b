"""Rates with confidence intervals: Wilson's for independent votes, a bootstrap for clustered ones.

Two models on the same questions are compared question by question: what makes a question hard cancels.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Difference(NamedTuple):
    """A statistic of a first model minus that of a second, with 95 % limits; NaN where it is not defined."""

    value: float
    low: float
    high: float


class Limits(NamedTuple):
    """Confidence limits."""

    low: float
    high: float


class Interval(NamedTuple):
    """A rate with its confidence limits."""

    rate: float
    low: float
    high: float
    n: int


class WinRate(NamedTuple):
    """The share of comparisons that one side won, a tie counting half; always printed with W / T / L."""

    rate: float
    low: float
    high: float
    n: int
    wins: int
    ties: int
    losses: int


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a binomial proportion. Wilson 1927 (doi:10.1080/01621459.1927.10502953).

    `successes` may be half-integral (ties), for which the interval is a little too wide. n = 0: rate NaN, from 0 to 1.
    """
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (rate * (1 - rate) / n + z**2 / (4 * n**2)) ** 0.5
    return Interval(rate, min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half)), n)


def percentile_limits(rate: float, draws: ArrayLike, clusters: int, confidence: float = 0.95) -> Limits:
    """Return percentile limits of a rate from 0 to 1, from its bootstrap resamples of whole clusters.

    A rate that is the same in every cluster does not vary between resamples, which is no certainty. So where all
    clusters agree, and where the resamples have no width, the limits are Wilson's for as many votes as clusters.

    Args: draws: (R,), the rate in each resample; NaN limits with no clusters, or a single one with both outcomes.
    """
    outer = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(draws), [outer, 1 - outer]) if np.size(draws) else (np.nan, np.nan)
    if rate in (0, 1) or high - low < 1e-12:
        return Limits(*wilson(rate * clusters, clusters, confidence)[1:3])
    return Limits(float(low), float(high))


def bootstrap(
    values: ArrayLike, clusters: ArrayLike, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return an interval of the mean of `values`, resampling whole clusters: see `percentile_limits`.

    Efron 1979; Field & Welsh 2007.

    Args: values: (N,), from 0 to 1. clusters: (N,) labels; values of one cluster (a prompt, an annotator) need not be
        independent.
    Returns: n counts the values.
    """
    x = np.asarray(values, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(index, weights=x), np.bincount(index)
    rate = float(x.mean()) if len(x) else float("nan")
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(sizes), size=len(sizes)) for _ in range(resamples if len(sizes) > 1 else 0))
    means = [sums[draw].sum() / sizes[draw].sum() for draw in draws]
    return Interval(rate, *percentile_limits(rate, means, len(sizes), confidence), len(x))


def win_rate(wins: int, ties: int, losses: int, confidence: float = 0.95) -> WinRate:
    """Return (W + T / 2) / N with a Wilson interval: for one vote per prompt."""
    interval = wilson(wins + ties / 2, wins + ties + losses, confidence)
    return WinRate(*interval, wins, ties, losses)


def clustered_win_rate(
    outcomes: ArrayLike, clusters: ArrayLike, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> WinRate:
    """Return the win rate of `outcomes` (N,): 1 won, 1/2 tied, 0 lost; the bootstrap resamples whole clusters."""
    x = np.asarray(outcomes, dtype=np.float64)
    interval = bootstrap(x, clusters, resamples, seed, confidence)
    return WinRate(*interval, int((x > 0.5).sum()), int((x == 0.5).sum()), int((x < 0.5).sum()))


def accuracy(correct: ArrayLike, clusters: ArrayLike = (), confidence: float = 0.95) -> Interval:
    """Return the share of `correct` (N,): 1 right, 0 wrong, 1/2 undecided.

    Args: clusters: (N,), the prompt of each; empty: every one has its own.
    Returns: n = N; the limits are Wilson's for as many votes as prompts, as if those of one prompt were one vote. They
        are cautious, and have a width where all are right and a bootstrap has none.
    """
    x = np.asarray(correct, dtype=np.float64)
    independent = len(np.unique(np.asarray(clusters))) or len(x)
    rate = float(x.mean()) if len(x) else 0.0
    return wilson(rate * independent, independent, confidence)._replace(n=len(x))


def paired_mean_difference(first: ArrayLike, second: ArrayLike) -> Difference:
    """Return the mean of first - second on the same N questions, with normal 95 % limits from its standard error.

    Differences that are all equal have no spread to estimate an error from: their limits are NaN, as those of N < 2.

    Args: first, second: (N,), in the same order of questions.
    Raises ValueError: models with different numbers of questions.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"first has shape {x.shape} and second {y.shape}: give both as (N,), of the same questions")
    differences = x - y
    mean = float(differences.mean()) if len(x) else float("nan")
    if len(x) < 2 or np.ptp(differences) == 0:
        return Difference(mean, float("nan"), float("nan"))
    half = NormalDist().inv_cdf(0.975) * float(differences.std(ddof=1)) / len(x) ** 0.5
    return Difference(mean, mean - half, mean + half)
