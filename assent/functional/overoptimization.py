"""Over-optimisation of a proxy reward: the gold reward over the distance from the initial policy, and where it peaks.

Gao, Schulman & Hilton 2022 (arXiv:2210.10760): R, the gain of the gold reward over the initial policy, is a function of
d = sqrt(KL(policy || initial policy)): R(d) = d (alpha - beta d) for best-of-n, and R(d) = d (alpha - beta log d) for
reinforcement learning.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class CurvePoint(NamedTuple):
    """The rewards of best-of-n, as means over prompts."""

    n: int
    kl: float
    """Upper bound of KL(best-of-n || policy), in nats: see `best_of_n_kl`."""
    proxy: float
    gold: float
    gold_se: float
    """Standard error of `gold` over prompts; NaN for a single prompt."""


class Fit(NamedTuple):
    """The coefficients of R(d), and its maximum over d >= 0.

    A peak beyond the largest distance of the data is an extrapolation. With beta < 0, or beta = 0 and alpha > 0, the
    gold reward does not turn over: both peaks are inf. With beta = 0 and alpha <= 0 there is nothing to fit: NaN.
    """

    alpha: float
    beta: float
    peak_distance: float
    """In units of d, square roots of nats."""
    peak_reward: float
    """In units of the rewards."""


def best_of_n_kl(n: int) -> float:
    """Return log n - (n - 1) / n in nats, an upper bound of KL(best-of-n || policy).

    Beirami et al. 2024 (arXiv:2401.01879). It is exact where the n scores never tie, as in a continuous distribution; a
    policy that repeats completions, or a reward that ties, stays below it.

    Raises: ValueError if n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give 1 or more")
    return math.log(n) - (n - 1) / n


def best_of_n_rewards(proxy: ArrayLike, gold: ArrayLike, sizes: Sequence[int]) -> Floats:
    """Return the expected gold reward of the best of n by proxy, for each n in `sizes`; one prompt.

    The estimate is the mean over all subsets of n of the N samples, so it is unbiased, and all n share one draw:

        sum_i C(i - 1, n - 1) / C(N, n) gold_(i),  i the rank by proxy from below

    Samples of equal proxy share the mean of their gold rewards, as if ties were broken at random. Nakano et al. 2021
    (WebGPT, arXiv:2112.09332); Gao et al. 2022 (arXiv:2210.10760).

    Args:
        proxy, gold: (N,), the rewards of N samples.
        sizes: (S,), each from 1 to N.
    Returns: (S,), in units of `gold`.
    Raises: ValueError for other shapes or sizes, and for rewards that are not finite.
    """
    proxies, golds = _samples(proxy, gold, axes=1)
    return _ranked(proxies, golds) @ _rank_weights(len(proxies), sizes)


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike, sizes: Sequence[int]) -> tuple[CurvePoint, ...]:
    """Return the proxy and gold rewards of best-of-n for each n in `sizes`: see `best_of_n_rewards`.

    Prompts are independent and count alike, so the standard error is that of a mean over prompts.

    Args: proxy, gold: (P, N), the rewards of N samples of each of P prompts. sizes: (S,), each from 1 to N.
    Raises: ValueError for other shapes or sizes, and for rewards that are not finite.
    """
    proxies, golds = _samples(proxy, gold, axes=2)
    prompts, samples = proxies.shape
    weights = _rank_weights(samples, sizes)  # (N, S)
    best_proxies = np.sort(proxies, axis=1) @ weights  # (P, S)
    best_golds = np.stack([_ranked(*rewards) for rewards in zip(proxies, golds, strict=True)]) @ weights  # (P, S)
    errors = best_golds.std(axis=0, ddof=1) / math.sqrt(prompts) if prompts > 1 else np.full(len(sizes), np.nan)
    columns = zip(sizes, best_proxies.mean(axis=0).tolist(), best_golds.mean(axis=0).tolist(), errors, strict=True)
    return tuple(CurvePoint(int(n), best_of_n_kl(n), top, value, float(se)) for n, top, value, se in columns)


def fit_best_of_n(distances: ArrayLike, rewards: ArrayLike) -> Fit:
    """Fit R(d) = d (alpha - beta d) by least squares. Gao et al. 2022, section 3 (arXiv:2210.10760).

    The peak is at d = alpha / (2 beta), with R = alpha^2 / (4 beta); with alpha <= 0 < beta it is the start, 0 and 0.

    Args:
        distances: (N,), d = sqrt(KL) >= 0; d = 0 decides nothing, since R(0) = 0 for any coefficients.
        rewards: (N,), gains of the gold reward over the initial policy.
    Raises: ValueError for other shapes, values that are not finite, d < 0, or fewer than two distinct d > 0.
    """
    d, gains = _points(distances, rewards)
    alpha, beta = _least_squares(np.stack([d, -(d**2)], axis=1), gains)
    if beta <= 0:
        return _endless(alpha, beta)
    slope = max(alpha, 0.0)  # where R falls from the start, the start is the peak
    return Fit(alpha, beta, slope / (2 * beta), slope**2 / (4 * beta))


def fit_rl(distances: ArrayLike, rewards: ArrayLike) -> Fit:
    """Fit R(d) = d (alpha - beta log d) by least squares. Gao et al. 2022, section 3 (arXiv:2210.10760).

    The peak is at d = exp(alpha / beta - 1), with R = beta d; inf where that exceeds the largest float.

    Args: distances, rewards: (N,), as in `fit_best_of_n`.
    Raises: ValueError as in `fit_best_of_n`.
    """
    d, gains = _points(distances, rewards)
    alpha, beta = _least_squares(np.stack([d, -d * np.log(d)], axis=1), gains)
    if beta <= 0:
        return _endless(alpha, beta)
    with np.errstate(over="ignore"):
        peak_distance = float(np.exp(alpha / beta - 1))
    return Fit(alpha, beta, peak_distance, beta * peak_distance)


class _Samples(NamedTuple):
    proxies: Floats  # (N,) or (P, N)
    golds: Floats  # of the same shape


def _samples(proxy: ArrayLike, gold: ArrayLike, axes: int) -> _Samples:
    proxies = np.asarray(proxy, dtype=np.float64)
    golds = np.asarray(gold, dtype=np.float64)
    if proxies.shape != golds.shape or proxies.ndim != axes or not proxies.size:
        wanted = "(N,)" if axes == 1 else "(P, N)"
        raise ValueError(f"proxy has shape {proxies.shape} and gold {golds.shape}: give both as {wanted}, not empty")
    if not (np.isfinite(proxies).all() and np.isfinite(golds).all()):
        raise ValueError("proxy or gold has a value that is not finite: leave such samples out")
    return _Samples(proxies, golds)


def _rank_weights(samples: int, sizes: Sequence[int]) -> Floats:
    """Return the probability that the best of a subset of n has rank i of `samples`, from below: (N, S).

    Computed from the top: the weight of rank N is n / N, and that of rank i - 1 is (i - n) / (i - 1) times that of rank
    i. No binomial is formed, so nothing overflows.
    """
    for size in sizes:
        if not 1 <= size <= samples or size != int(size):
            raise ValueError(f"best of {size} of {samples} samples: give whole sizes from 1 to {samples}")
    n = np.asarray(sizes, dtype=np.float64)  # (S,)
    ranks = np.arange(samples, 1, -1, dtype=np.float64)[:, None]  # (N - 1, 1): N, ..., 2
    ratios = np.maximum(ranks - n, 0) / (ranks - 1)
    weights: Floats = np.cumprod(np.concatenate([n[None] / samples, ratios]), axis=0)[::-1]
    return weights


def _ranked(proxies: Floats, golds: Floats) -> Floats:
    """Return the gold rewards in increasing order of proxy, those of equal proxies averaged: (N,)."""
    _, index, counts = np.unique(proxies, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(index, weights=golds) / counts, counts)


class _Points(NamedTuple):
    distances: Floats  # (N,), above 0
    gains: Floats  # (N,)


def _points(distances: ArrayLike, rewards: ArrayLike) -> _Points:
    d = np.asarray(distances, dtype=np.float64)
    gains = np.asarray(rewards, dtype=np.float64)
    if d.ndim != 1 or d.shape != gains.shape:
        raise ValueError(f"distances have shape {d.shape} and rewards {gains.shape}: give both as (N,)")
    if not (np.isfinite(d).all() and np.isfinite(gains).all()):
        raise ValueError("distances or rewards have a value that is not finite: leave such points out")
    if (d < 0).any():
        raise ValueError(f"a distance is {d.min()}: give d = sqrt(KL), 0 or more")
    return _Points(d[d > 0], gains[d > 0])


class _Coefficients(NamedTuple):
    alpha: float
    beta: float


def _least_squares(features: Floats, gains: Floats) -> _Coefficients:
    solution, _, rank, _ = np.linalg.lstsq(features, gains, rcond=None)
    if rank < 2:
        raise ValueError("two coefficients need at least two distinct distances above 0: measure more points")
    return _Coefficients(*solution.tolist())


def _endless(alpha: float, beta: float) -> Fit:
    peak = math.inf if beta < 0 or alpha > 0 else math.nan
    return Fit(alpha, beta, peak, peak)
