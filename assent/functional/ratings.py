"""Who is the better player, how much, and how sure: Bradley-Terry with clustered intervals; Elo for watching live.

Bradley & Terry 1952 (doi:10.2307/2334029): P(i beats j) = s(theta_i - theta_j), fitted by maximum likelihood. Votes on
one prompt, or by one annotator, are not independent; the sandwich of Liang & Zeger 1986 (doi:10.1093/biomet/73.1.13)
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
START = 1000.0
"""The rating of the baseline, and of whoever has not played."""
RIDGE, WIDE_RIDGE = 1e-6, 0.1
"""What is added to the information: of a graph in which everyone can be reached by wins, and of any other."""
FEWEST = 30
"""Clusters that a sandwich needs: of fewer it is too narrow."""
NO_WIDTH = 1e-6
"""A share of the variance that independent votes have, below which a sandwich says nothing."""


class Estimate(NamedTuple):
    """A number of points with its confidence limits."""

    value: float
    low: float
    high: float


class Elo(NamedTuple):
    """Two ratings after a game."""

    first: float
    second: float


@dataclass(frozen=True)
class Ratings:
    """A Bradley-Terry fit of n players; its intervals and contrasts are in points."""

    theta: Floats  # (n,), logits of mean 0
    covariance: Floats  # (n, n), of theta; its rows sum to 0
    independent: Floats  # (n, n), the same if all comparisons were independent
    votes: Floats  # (n,), how much was said about each: the weights of its comparisons
    baseline: int | None
    """Whose rating is 1000; None: the mean of all is."""
    connected: bool
    """Whether wins lead from everyone to everyone. If not, some ratings have no limit but the one that a prior puts
    (ridge 0.1, which is N(0, 10) on theta), and the covariance is at least that of the posterior."""
    clusters: Mapping[str, int]
    """What the intervals cluster by (`prompts`, `annotators`) and how many there are; empty: votes are independent."""

    @property
    def ratings(self) -> Floats:
        """1000 + 173.72 (theta - theta of the baseline), (n,)."""
        origin = 0.0 if self.baseline is None else self.theta[self.baseline]
        return START + POINTS * (self.theta - origin)

    def rating(self, player: int, confidence: float = 0.95) -> Estimate:
        """The rating of a player; that of the baseline is 1000 without width, for it is the origin."""
        return self._estimate(START, player, self.baseline, confidence)

    def contrast(self, first: int, second: int, confidence: float = 0.95) -> Estimate:
        """By how many points the first is above the second: narrower than two ratings side by side suggest."""
        return self._estimate(0.0, first, second, confidence)

    def _estimate(self, origin: float, first: int, second: int | None, confidence: float) -> Estimate:
        contrast = np.zeros(len(self.theta))
        contrast[first] += 1
        if second is not None:
            contrast[second] -= 1
        value = origin + POINTS * float(contrast @ self.theta)
        # Where all clusters say the same (all ties, or a win each way in every prompt) the sandwich has no width, which
        # is no certainty.
        variance, independent = (float(contrast @ each @ contrast) for each in (self.covariance, self.independent))
        deviation = math.sqrt(max(0.0, independent if variance < NO_WIDTH * independent else variance))
        half = NormalDist().inv_cdf((1 + confidence) / 2) * POINTS * deviation
        return Estimate(value, value - half, value + half)


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
) -> Ratings:
    """Ratings by maximum likelihood, a tie counting as half a win for each.

    Args:
        first, second: (N,) indices of the players, from 0.
        outcomes: (N,) 1 the first won, 1/2 a tie, 0 the second won, or anything between.
        players: how many there are; who never played stands at the mean, with the interval of the prior.
        weights: (N,) how much each comparison counts; 1 if not given.
        prompts, annotators: (N,) labels; comparisons of one label need not be independent. A side with fewer than 30
            labels is left out of the covariance; with fewer than 30 comparisons, so is the sandwich itself, and the
            covariance is at least the inverse of the information.
        baseline: whose rating is 1000.

    Raises:
        ValueError: arrays of different lengths, a player that does not exist or meets itself, an outcome outside
            0 .. 1, a negative weight.
    """
    games = _Games.of(first, second, outcomes, players, weights)
    if baseline is not None and not 0 <= baseline < players:
        raise ValueError(f"the baseline is player {baseline}, but players are numbered 0 to {players - 1}")
    labels = {"prompts": prompts, "annotators": annotators}
    sides = {name: _numbered(side, name, len(games.outcomes)) for name, side in labels.items() if side is not None}
    clusters = {name: _count(side) for name, side in sides.items() if _count(side) >= FEWEST}

    wins = games.wins()
    connected = bool(connected_components(wins > 0, connection="strong")[0] == 1)
    ridge = RIDGE if connected else WIDE_RIDGE
    theta = _fit(wins, ridge)
    inverse = _inverse(_information(wins, theta), ridge)
    covariance = _sandwich(games, theta, inverse, [sides[name] for name in clusters])
    if not connected or len(games.outcomes) < FEWEST:
        covariance = _at_least(covariance, inverse)
    votes = wins.sum(0) + wins.sum(1)
    return Ratings(theta, covariance, inverse, votes, baseline, connected, clusters)


def elo(
    first: ArrayLike, second: ArrayLike, outcomes: ArrayLike, players: int, k: float = 4.0, start: float = START
) -> Floats:
    """Ratings after games in this order, (n,): for live display, as they depend on it. Elo 1978; K = 4, scale 400."""
    games = _Games.of(first, second, outcomes, players, None)
    ratings = [start] * players
    for a, b, outcome in zip(games.first.tolist(), games.second.tolist(), games.outcomes.tolist(), strict=True):
        ratings[a], ratings[b] = elo_step(ratings[a], ratings[b], outcome, k)
    return np.array(ratings, dtype=np.float64)


def elo_step(first: float, second: float, outcome: float, k: float = 4.0) -> Elo:
    """Two ratings after one game: 1 the first won, 1/2 a tie, 0 the second won; what one gains the other loses."""
    expected = 1 / (1 + 10 ** min((second - first) / 400, 300.0))
    gain = k * (outcome - expected)
    return Elo(first + gain, second - gain)


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
        one, two = np.asarray(first), np.asarray(second)
        if not one.shape == two.shape == y.shape == w.shape == (len(y),):
            shapes = f"{one.shape}, {two.shape}, {y.shape}, {w.shape}"
            raise ValueError(f"first, second, outcomes and weights have shapes {shapes}: give one of each a comparison")
        if len(y) and not one.dtype.kind in two.dtype.kind in "iu":
            raise ValueError(f"players are {one.dtype} and {two.dtype}: number them from 0")
        if players < 1 or (len(y) and not 0 <= min(one.min(), two.min()) <= max(one.max(), two.max()) < players):
            raise ValueError(f"players are numbered 0 to {players - 1}, and a comparison names another: count them all")
        if (one == two).any():
            raise ValueError(f"comparison {int((one == two).argmax())} is of a player with itself: leave it out")
        if not ((y >= 0) & (y <= 1)).all():
            raise ValueError("an outcome is no number from 0 to 1: 1 the first won, 0.5 a tie, 0 the second won")
        if not ((w >= 0) & np.isfinite(w)).all():
            raise ValueError("a weight is negative or no number: it must be 0 or more")
        return cls(one.astype(np.intp), two.astype(np.intp), y, w, players)

    def wins(self) -> Floats:
        """How often the row won against the column, (n, n), a tie half."""
        n = self.players
        there = np.bincount(self.first * n + self.second, self.weights * self.outcomes, n * n)
        back = np.bincount(self.second * n + self.first, self.weights * (1 - self.outcomes), n * n)
        made: Floats = (there + back).astype(np.float64).reshape(n, n)
        return made


def _fit(wins: Floats, ridge: float) -> Floats:
    """Newton's method on the convex loss sum wins_ij softplus(theta_j - theta_i) + ridge / 2 |theta|^2, from 0."""
    theta = np.zeros(len(wins))
    enough = 1e-22 * (1 + wins.sum())

    def loss(theta: Floats) -> float:
        return float((wins * np.logaddexp(0, theta - theta[:, None])).sum() + ridge / 2 * theta @ theta)

    for _ in range(100):
        surprise = wins * expit(theta - theta[:, None])
        uphill = surprise.sum(1) - surprise.sum(0) - ridge * theta
        step = _inverse(_information(wins, theta), ridge) @ uphill
        promised, now = float(uphill @ step), loss(theta)
        if promised <= enough:
            break
        size = 1.0
        while promised > 1e-8 and loss(theta + size * step) > now - size * promised / 4 and size > 1e-9:
            size /= 2
        theta = theta + size * step
        theta -= theta.mean()
    return theta


def _information(wins: Floats, theta: Floats) -> Floats:
    """H = sum w p (1 - p) x x^T, (n, n)."""
    chance = expit(theta[:, None] - theta)
    met: Floats = (wins + wins.T) * chance * (1 - chance)
    return np.diag(met.sum(1)) - met


def _inverse(information: Floats, ridge: float) -> Floats:
    """P = (H + ridge + c J/n)^-1 - J/n of its part along the ones: the inverse among contrasts, whatever c > 0.

    c = 1 in the specification; of the size of H it stays exact for weights of any size.
    """
    n = len(information)
    size = float(np.trace(information)) / n + ridge
    ones = np.full((n, n), 1 / n)
    made: Floats = np.linalg.inv(information + ridge * np.eye(n) + size * ones) - ones / (size + ridge)
    return made


def _sandwich(games: _Games, theta: Floats, inverse: Floats, sides: list[Indices]) -> Floats:
    """V = P [G/(G-1) sum_g s_g s_g^T] P; of two sides V_1 + V_2 - V of independent votes, clipped to be PSD."""
    expected = expit(theta[games.first] - theta[games.second])
    residuals = games.weights * (games.outcomes - expected)
    alone = np.arange(len(residuals))
    meat = np.sum([_meat(games, residuals, side) for side in sides or [alone]], 0)
    if len(sides) == 2:
        meat = meat - _meat(games, residuals, alone)
    values, vectors = np.linalg.eigh(inverse @ meat @ inverse)
    made: Floats = (vectors * values.clip(min=0)) @ vectors.T
    return made


def _meat(games: _Games, residuals: Floats, clusters: Indices) -> Floats:
    groups = _count(clusters)
    rows, columns = np.concatenate([clusters, clusters]), np.concatenate([games.first, games.second])
    shape = (groups, games.players)
    scores = csr_matrix((np.concatenate([residuals, -residuals]), (rows, columns)), shape)  # s_g, a row each
    made: Floats = (scores.T @ scores).toarray() * groups / max(groups - 1, 1)
    return made


def _at_least(covariance: Floats, least: Floats) -> Floats:
    """The covariance, raised so that no contrast has less variance than in `least`."""
    values, vectors = np.linalg.eigh(least)
    kept = values > values.max() * 1e-12
    roots = np.sqrt(values[kept])
    scaled = vectors[:, kept] / roots
    ratios, turned = np.linalg.eigh(scaled.T @ covariance @ scaled)
    root = (vectors[:, kept] * roots) @ turned
    made: Floats = (root * ratios.clip(min=1)) @ root.T
    return made


def _numbered(labels: ArrayLike, name: str, n: int) -> Indices:
    found = np.asarray(labels)
    if found.shape != (n,):
        raise ValueError(f"{name} have shape {found.shape}, but there are {n} comparisons: give each its own")
    return np.unique(found, return_inverse=True)[1]


def _count(numbered: Indices) -> int:
    return int(numbered.max()) + 1 if len(numbered) else 0
