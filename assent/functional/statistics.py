"""A rate and how sure one may be of it: Wilson intervals for independent votes, a bootstrap for clustered ones."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


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
    """How often one side won, a tie counting half; always printed with W / T / L."""

    rate: float
    low: float
    high: float
    n: int
    wins: int
    ties: int
    losses: int


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a binomial proportion. Wilson 1927 (doi:10.1080/01621459.1927.10502953).

    `successes` may be half-integral (ties), for which the interval is a little too wide. n = 0: rate NaN, from 0 to 1.
    """
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (rate * (1 - rate) / n + z**2 / (4 * n**2)) ** 0.5
    return Interval(rate, min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half)), n)


def limits(rate: float, draws: ArrayLike, clusters: int, confidence: float = 0.95) -> Limits:
    """Percentile limits of a rate from 0 to 1, by its bootstrap draws over whole clusters.

    A rate that is the same in every cluster comes out of each draw as itself, which is no certainty: where all agree,
    where none does, and where the draws have no width, the limits are Wilson's for as many votes as there are clusters.

    Args: draws: (R,) the rate in each draw. No clusters, or one that has both outcomes: NaN, for nothing is known.
    """
    outer = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(draws), [outer, 1 - outer]) if np.size(draws) else (np.nan, np.nan)
    if rate in (0, 1) or high - low < 1e-12:
        return Limits(*wilson(rate * clusters, clusters, confidence)[1:3])
    return Limits(float(low), float(high))


def bootstrap(
    values: ArrayLike, clusters: ArrayLike, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Interval of the mean of `values`, drawing whole clusters: see `limits`. Efron 1979; Field & Welsh 2007.

    Args: values: (N,), from 0 to 1. clusters: (N,) labels; values of one cluster (a prompt, an annotator) need not be
        independent.
    Returns: n counts the values.
    """
    x = np.asarray(values, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(index, weights=x), np.bincount(index)
    rate = float(x.mean()) if len(x) else float("nan")
    random = np.random.default_rng(seed)
    draws = (random.integers(len(sizes), size=len(sizes)) for _ in range(resamples if len(sizes) > 1 else 0))
    means = [sums[drawn].sum() / sizes[drawn].sum() for drawn in draws]
    return Interval(rate, *limits(rate, means, len(sizes), confidence), len(x))


def win_rate(wins: int, ties: int, losses: int, confidence: float = 0.95) -> WinRate:
    """(W + T / 2) / N with a Wilson interval: for one vote a prompt."""
    interval = wilson(wins + ties / 2, wins + ties + losses, confidence)
    return WinRate(*interval, wins, ties, losses)


def clustered_win_rate(
    outcomes: ArrayLike, clusters: ArrayLike, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> WinRate:
    """The win rate of `outcomes` (N,) (1 won, 1/2 tied, 0 lost), bootstrapped over prompts: for several votes each."""
    x = np.asarray(outcomes, dtype=np.float64)
    interval = bootstrap(x, clusters, resamples, seed, confidence)
    return WinRate(*interval, int((x > 0.5).sum()), int((x == 0.5).sum()), int((x < 0.5).sum()))


def accuracy(correct: ArrayLike, clusters: ArrayLike = (), confidence: float = 0.95) -> Interval:
    """The share of `correct` (N,): 1 right, 0 wrong, 1/2 undecided.

    Args: clusters: (N,) the prompt of each; none named: each of another one.
    Returns: n = N; the limits are Wilson's for as many votes as there are prompts, as if those of one prompt were one:
        cautious, and never without width, as a bootstrap is where all are right.
    """
    x = np.asarray(correct, dtype=np.float64)
    independent = len(np.unique(np.asarray(clusters))) or len(x)
    rate = float(x.mean()) if len(x) else 0.0
    return wilson(rate * independent, independent, confidence)._replace(n=len(x))
