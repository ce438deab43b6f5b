"""Length-controlled win rate: the win rate that a model would have with responses as long as the baseline's.

Dubois et al. 2024 (arXiv:2404.04475), without their term for the difficulty of the prompt:
logit P(win) = theta + phi tanh((length of the baseline - length of the model) / sd), and LC = s(theta).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from assent.functional.statistics import percentile_limits

Floats = NDArray[np.float64]

MIN_SHARE = 0.1
"""Share of the pairs that must lie at or beyond equal length, on either side: with fewer, equal length lies outside the
data and theta is an extrapolation."""
PRIOR_STD = 2.5
"""A weak prior: the odds at one sd of length difference are within a factor of 42 of those at none (95 %)."""
RIDGE = 1e-9
"""Least precision of phi, which is bounded by nothing else if lengths are equal, or separate wins from losses."""


class LengthControlled(NamedTuple):
    """A length-controlled win rate with confidence limits; NaN, like phi, where it cannot be controlled."""

    rate: float
    low: float
    high: float
    raw: float
    """The win rate as observed, a tie counting half; NaN without pairs."""
    phi: float
    """Change of the logit with tanh((length of the baseline - length of the model) / sd): negative where the longer
    response tends to win."""
    longer: int
    """Pairs in which the model's response is longer than the baseline's."""
    shorter: int
    n: int
    is_controllable: bool
    reason: str
    """Reason for which it cannot be controlled, or empty."""


def length_controlled_win_rate(
    outcomes: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    prompts: ArrayLike | None = None,
    *,
    prior_std: float = PRIOR_STD,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> LengthControlled:
    """Return the win rate at equal length, by maximum likelihood with the prior N(0, prior_std^2) on phi.

    There is no number where fewer than a tenth of the model's responses are no longer than the baseline's, or no
    shorter. Pairs of equal length count on both sides, so that with equal lengths everywhere it is the raw win rate.
    The sd is that of the length differences of all pairs (n - 1), and the same in every resample.

    Args:
        outcomes: (N,) 1 the model won, 1/2 a tie, 0 the baseline won; a tie is half a win and half a loss.
        lengths, baseline_lengths: (N,) of the responses, in any unit (characters in the paper).
        prompts: (N,) labels; the bootstrap resamples whole prompts. By default each pair has its own. The
            limits are NaN with a single prompt that has both outcomes.
        prior_std: of the prior on phi; inf is no prior (the paper has an L1 penalty chosen by cross-validation).

    Raises:
        ValueError: arrays of different lengths, an outcome outside 0 .. 1, a length that is negative or not finite, or
            a prior_std that is not positive.
    """
    pairs = _Pairs.of(outcomes, lengths, baseline_lengths, prompts)
    if not prior_std > 0:
        raise ValueError(f"prior_std is {prior_std}: it must be positive, and inf is no prior")
    n = len(pairs.outcomes)
    longer = int((pairs.excess > 0).sum())
    shorter = int((pairs.excess < 0).sum())
    raw = float(pairs.outcomes.mean()) if n else math.nan
    reason = _refusal(longer, shorter, n)
    if reason:
        return LengthControlled(math.nan, math.nan, math.nan, raw, math.nan, longer, shorter, n, False, reason)

    sd = float(np.std(pairs.excess, ddof=1)) if longer or shorter else 1.0
    design = np.stack([np.ones(n), np.tanh(-pairs.excess / sd)], axis=1)  # (N, 2)
    precision = max(prior_std**-2, RIDGE)
    theta, phi = _fit(design, pairs.outcomes, np.ones(n), precision)
    rate = float(expit(theta))
    clusters = int(pairs.clusters.max()) + 1
    rng = np.random.default_rng(seed)
    draws: list[float] = []
    for _ in range(resamples if clusters > 1 else 0):
        times = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        weights = times[pairs.clusters].astype(np.float64)
        draws.append(float(expit(_fit(design, pairs.outcomes, weights, precision)[0])))
    limits = percentile_limits(rate, draws, clusters, confidence)
    return LengthControlled(rate, limits.low, limits.high, raw, float(phi), longer, shorter, n, True, "")


class _Pairs(NamedTuple):
    outcomes: Floats  # (N,)
    excess: Floats  # (N,), length of the model's response less that of the baseline's
    clusters: NDArray[np.intp]  # (N,), numbered prompts

    @classmethod
    def of(
        cls, outcomes: ArrayLike, lengths: ArrayLike, baseline_lengths: ArrayLike, prompts: ArrayLike | None
    ) -> "_Pairs":
        won = np.asarray(outcomes, dtype=np.float64)
        length = np.asarray(lengths, dtype=np.float64)
        baseline_length = np.asarray(baseline_lengths, dtype=np.float64)
        labels = np.arange(won.size) if prompts is None else np.asarray(prompts)
        if not won.shape == length.shape == baseline_length.shape == labels.shape == (won.size,):
            shapes = f"{won.shape}, {length.shape}, {baseline_length.shape} and {labels.shape}"
            raise ValueError(f"outcomes, lengths, baseline_lengths and prompts have shapes {shapes}: give one per pair")
        if not ((won >= 0) & (won <= 1)).all():
            raise ValueError("an outcome is outside 0 to 1: 1 the model won, 0.5 a tie, 0 the baseline won")
        if not all((np.isfinite(side) & (side >= 0)).all() for side in (length, baseline_length)):
            raise ValueError("a length is negative or not finite: count characters, words or tokens")
        return cls(won, length - baseline_length, np.unique(labels, return_inverse=True)[1])


def _refusal(longer: int, shorter: int, n: int) -> str:
    if n == 0:
        return "cannot be controlled: there are no pairs"
    for count, direction in ((longer, "longer"), (shorter, "shorter")):
        if (n - count) / n < MIN_SHARE:
            return f"cannot be controlled: {count} of {n} responses are {direction}"
    return ""


def _fit(design: Floats, outcomes: Floats, weights: Floats, precision: float) -> Floats:
    """Return theta and phi, (2,), by Newton's method on the convex loss; theta is infinite if one side won all."""
    wins = float(weights @ outcomes)
    if wins in (0.0, float(weights.sum())):
        return np.array([math.inf if wins else -math.inf, 0.0])
    penalty = np.array([0.0, precision])
    coefficients = np.zeros(2)

    def loss(coefficients: Floats) -> float:
        logits = design @ coefficients
        return float(weights @ (np.logaddexp(0, logits) - outcomes * logits) + penalty @ coefficients**2 / 2)

    for _ in range(100):
        probability = expit(design @ coefficients)
        gradient = design.T @ (weights * (outcomes - probability)) - penalty * coefficients
        curvature = weights * probability * (1 - probability)
        step = np.linalg.solve((design.T * curvature) @ design + np.diag(penalty), gradient)
        decrement = float(gradient @ step)
        size = 1.0
        current_loss = loss(coefficients)
        # Below 1e-8 rounding decides the comparison, and whole steps converge.
        while decrement > 1e-8 and loss(coefficients + size * step) > current_loss - size * decrement / 4:
            size /= 2
        coefficients = coefficients + size * step
        if decrement <= 1e-18 * len(outcomes):
            break
    return coefficients
