"""Bradley-Terry ratings of players (policies) from comparisons, with clustered confidence intervals.

Bradley & Terry 1952 (doi:10.2307/2334029): P(i beats j) = s(theta_i - theta_j), fitted by maximum likelihood. Votes
on one prompt, or by one annotator, are not independent; the sandwich of Liang & Zeger 1986 (doi:10.1093/biomet/73.1.13)
adds up their scores first, and Cameron, Gelbach & Miller 2011 (doi:10.1198/jbes.2010.07136) do so for two clusterings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

POINTS = 400 / math.log(10)
"""Points of a rating in one unit of theta: 173.72, so that 400 points are odds of ten to one."""
BASELINE_RATING = 1000.0
"""Rating of the baseline, and of players without comparisons."""
RIDGE, DISCONNECTED_RIDGE = 1e-6, 0.1
"""Added to the information matrix: where wins connect all players, and where they do not."""
MIN_CLUSTERS = 30
"""Clusters that a sandwich covariance needs: with fewer it is too narrow."""
MIN_VARIANCE_SHARE = 1e-6
"""Share of the variance of independent votes below which the sandwich covariance is degenerate."""


class RatingInterval(NamedTuple):
    """A rating, or a difference of ratings, with confidence limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BradleyTerryFit:
    """A Bradley-Terry fit of n players; ratings and contrasts are in points."""

    theta: Floats  # (n,), logits of mean 0
    covariance: Floats  # (n, n), of theta; its rows sum to 0
    independent: Floats  # (n, n), the same if all comparisons were independent
    votes: Floats  # (n,), total weight of each player's comparisons
    baseline: int | None
    """The player whose rating is 1000; None: the mean of all is 1000."""
    connected: bool
    """Whether wins lead from every player to every other. If not, only a prior bounds some ratings (ridge 0.1, which is
    N(0, 10) on theta), and the covariance is at least that of the posterior."""
    clusters: Mapping[str, int]
    """Number of clusters by kind (`prompts`, `annotators`); empty: votes are taken as independent."""

    @property
    def ratings(self) -> Floats:
        """Return 1000 + 173.72 (theta - theta of the baseline), (n,)."""
        origin = 0.0 if self.baseline is None else self.theta[self.baseline]
        return BASELINE_RATING + POINTS * (self.theta - origin)

    def rating(self, player: int, confidence: float = 0.95) -> RatingInterval:
        """Return the rating of a player; the baseline's is the origin, 1000 without width."""
        return self._estimate(BASELINE_RATING, player, self.baseline, confidence)

    def contrast(self, first: int, second: int, confidence: float = 0.95) -> RatingInterval:
        """Return the rating of the first minus that of the second; its interval accounts for their covariance."""
        return self._estimate(0.0, first, second, confidence)

    def _estimate(self, origin: float, first: int, second: int | None, confidence: float) -> RatingInterval:
        contrast = np.zeros(len(self.theta))
        contrast[first] += 1
        if second is not None:
            contrast[second] -= 1
        value = origin + POINTS * float(contrast @ self.theta)
        # Where all clusters agree (all ties, or a win each way in every prompt) the sandwich has no width, although
        # nothing is certain.
        variance = float(contrast @ self.covariance @ contrast)
        independent = float(contrast @ self.independent @ contrast)
        deviation = math.sqrt(max(0.0, independent if variance < MIN_VARIANCE_SHARE * independent else variance))
        half = NormalDist().inv_cdf((1 + confidence) / 2) * POINTS * deviation
        return RatingInterval(value, value - half, value + half)


def bradley_terry(
    first: ArrayLike,
    second: ArrayLike,
    outcomes: ArrayLike,
    players: int,
    weights: ArrayLike | None = None,
    *,
    prompts: ArrayLike | None = None,
    annotators: ArrayLike | None = None,
    baseline: int | None = None,
) -> BradleyTerryFit:
    """Fit ratings by maximum likelihood; a tie counts as half a win for each.

    Args:
        first, second: (N,) indices of the players, from 0.
        outcomes: (N,) 1 the first won, 1/2 a tie, 0 the second won, or anything between.
        players: number of players; one without comparisons is at the mean, with the interval of the prior.
        weights: (N,) weight of each comparison, by default 1.
        prompts, annotators: (N,) labels; comparisons with the same label need not be independent. Fewer than 30 labels
            are not used as clusters. With fewer than 30 comparisons the covariance is at least the inverse of the
            information.
        baseline: the player whose rating is 1000.

    Raises:
        ValueError: arrays of different lengths, a player that does not exist or meets itself, an outcome outside
            0 .. 1, a negative weight.
    """
    games = _Games.of(first, second, outcomes, players, weights)
    if baseline is not None and not 0 <= baseline < players:
        raise ValueError(f"the baseline is player {baseline}, but players are numbered 0 to {players - 1}")
    labels = {"prompts": prompts, "annotators": annotators}
    clusterings = {
        name: _number_labels(values, name, len(games.outcomes)) for name, values in labels.items() if values is not None
    }
    clusters = {name: _count(side) for name, side in clusterings.items() if _count(side) >= MIN_CLUSTERS}

    wins = games.wins()
    connected = bool(connected_components(wins > 0, connection="strong")[0] == 1)
    ridge = RIDGE if connected else DISCONNECTED_RIDGE
    theta = _fit(wins, ridge)
    inverse = _inverse(_information(wins, theta), ridge)
    covariance = _sandwich(games, theta, inverse, [clusterings[name] for name in clusters])
    if not connected or len(games.outcomes) < MIN_CLUSTERS:
        covariance = _raise_to(covariance, inverse)
    votes = wins.sum(0) + wins.sum(1)
    return BradleyTerryFit(theta, covariance, inverse, votes, baseline, connected, clusters)


class _Games(NamedTuple):
    first: Indices
    second: Indices
    outcomes: Floats
    weights: Floats
    players: int

    @classmethod
    def of(
        cls, first: ArrayLike, second: ArrayLike, outcomes: ArrayLike, players: int, weights: ArrayLike | None
    ) -> "_Games":
        y = np.asarray(outcomes, dtype=np.float64)
        w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
        left, right = np.asarray(first), np.asarray(second)
        if not left.shape == right.shape == y.shape == w.shape == (len(y),):
            shapes = f"{left.shape}, {right.shape}, {y.shape}, {w.shape}"
            raise ValueError(
                f"first, second, outcomes and weights have shapes {shapes}: give one of each per comparison"
            )
        if len(y) and not left.dtype.kind in right.dtype.kind in "iu":
            raise ValueError(f"players are {left.dtype} and {right.dtype}: number them from 0")
        if players < 1 or (len(y) and not 0 <= min(left.min(), right.min()) <= max(left.max(), right.max()) < players):
            raise ValueError(f"players are numbered 0 to {players - 1}, but a comparison has another: raise `players`")
        if (left == right).any():
            raise ValueError(f"comparison {int((left == right).argmax())} is of a player with itself: remove it")
        if not ((y >= 0) & (y <= 1)).all():
            raise ValueError("an outcome is outside 0 to 1: 1 the first won, 0.5 a tie, 0 the second won")
        if not ((w >= 0) & np.isfinite(w)).all():
            raise ValueError("a weight is negative or not finite: it must be 0 or more")
        return cls(left.astype(np.intp), right.astype(np.intp), y, w, players)

    def wins(self) -> Floats:
        """Return how often the row won against the column, (n, n); a tie counts half for each."""
        n = self.players
        first_wins = np.bincount(self.first * n + self.second, self.weights * self.outcomes, n * n)
        second_wins = np.bincount(self.second * n + self.first, self.weights * (1 - self.outcomes), n * n)
        wins: Floats = (first_wins + second_wins).astype(np.float64).reshape(n, n)
        return wins


def _fit(wins: Floats, ridge: float) -> Floats:
    """Minimise sum wins_ij softplus(theta_j - theta_i) + ridge / 2 |theta|^2, which is convex, by Newton's method."""
    theta = np.zeros(len(wins))
    tolerance = 1e-22 * (1 + wins.sum())

    def loss(theta: Floats) -> float:
        return float((wins * np.logaddexp(0, theta - theta[:, None])).sum() + ridge / 2 * theta @ theta)

    for _ in range(100):
        residuals = wins * expit(theta - theta[:, None])
        gradient = residuals.sum(1) - residuals.sum(0) - ridge * theta  # of the log-likelihood
        step = _inverse(_information(wins, theta), ridge) @ gradient
        decrement = float(gradient @ step)
        current_loss = loss(theta)
        if decrement <= tolerance:
            break
        size = 1.0
        while decrement > 1e-8 and loss(theta + size * step) > current_loss - size * decrement / 4 and size > 1e-9:
            size /= 2
        theta = theta + size * step
        theta -= theta.mean()
    return theta


def _information(wins: Floats, theta: Floats) -> Floats:
    """Return H = sum w p (1 - p) x x^T, (n, n)."""
    probability = expit(theta[:, None] - theta)
    pairwise: Floats = (wins + wins.T) * probability * (1 - probability)
    return np.diag(pairwise.sum(1)) - pairwise


def _inverse(information: Floats, ridge: float) -> Floats:
    """Return P = (H + ridge + c J/n)^-1 less its part along the ones: the inverse among contrasts, for any c > 0.

    With c of the size of H it stays exact for weights of any size.
    """
    n = len(information)
    size = float(np.trace(information)) / n + ridge
    ones = np.full((n, n), 1 / n)
    inverse: Floats = np.linalg.inv(information + ridge * np.eye(n) + size * ones) - ones / (size + ridge)
    return inverse


def _sandwich(games: _Games, theta: Floats, inverse: Floats, clusterings: list[Indices]) -> Floats:
    """Return V = P [G/(G-1) sum_g s_g s_g^T] P; with two clusterings V_1 + V_2 - V of independent votes, made PSD."""
    expected = expit(theta[games.first] - theta[games.second])
    residuals = games.weights * (games.outcomes - expected)
    unclustered = np.arange(len(residuals))
    meat = np.sum([_meat(games, residuals, clusters) for clusters in clusterings or [unclustered]], 0)
    if len(clusterings) == 2:
        meat = meat - _meat(games, residuals, unclustered)
    values, vectors = np.linalg.eigh(inverse @ meat @ inverse)
    covariance: Floats = (vectors * values.clip(min=0)) @ vectors.T
    return covariance


def _meat(games: _Games, residuals: Floats, clusters: Indices) -> Floats:
    groups = _count(clusters)
    rows, columns = np.concatenate([clusters, clusters]), np.concatenate([games.first, games.second])
    shape = (groups, games.players)
    scores = csr_matrix((np.concatenate([residuals, -residuals]), (rows, columns)), shape)  # row g: s_g
    meat: Floats = (scores.T @ scores).toarray() * groups / max(groups - 1, 1)
    return meat


def _raise_to(covariance: Floats, least: Floats) -> Floats:
    """Raise the covariance so that no contrast has less variance than in `least`."""
    values, vectors = np.linalg.eigh(least)
    positive = values > values.max() * 1e-12
    roots = np.sqrt(values[positive])
    scaled = vectors[:, positive] / roots
    ratios, rotation = np.linalg.eigh(scaled.T @ covariance @ scaled)
    root = (vectors[:, positive] * roots) @ rotation
    raised: Floats = (root * ratios.clip(min=1)) @ root.T
    return raised


def _number_labels(labels: ArrayLike, name: str, n: int) -> Indices:
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"{name} have shape {values.shape} for {n} comparisons: give one per comparison")
    return np.unique(values, return_inverse=True)[1]


def _count(numbered: Indices) -> int:
    return int(numbered.max()) + 1 if len(numbered) else 0
