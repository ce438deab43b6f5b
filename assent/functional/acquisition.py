"""Acquisition functions: how uncertain an ensemble is about a pair, and which pairs to have compared next.

    p = (P, M): probability, by each of M members, that the first item of each of P pairs wins
    x = (P, D): features of the first item minus those of the second

Scores are logits of Bradley-Terry: multiply standardised scores by their deviation first.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.special import entr, expit

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

BLOCK = 1024
"""Candidates whose gains are updated together."""


class Selection(NamedTuple):
    """Candidates in the order of their selection."""

    order: Indices  # (count,)
    gains: Floats  # (count,)


class Matchup(NamedTuple):
    """Two policies to compare next. Randomise their order on the screen."""

    first: int
    """The likely best."""
    second: int
    """The opponent that is most likely to beat it."""


def win_probabilities(scores: ArrayLike, pairs: ArrayLike) -> Floats:
    """Return P(first wins) by each member of an ensemble, (P, M).

    Args: scores: (N, M) of items. pairs: (P, 2) indices of items.
    """
    s, indices = np.asarray(scores, dtype=np.float64), np.asarray(pairs)
    return np.asarray(expit(s[indices[:, 0]] - s[indices[:, 1]]))


def disagreement(p: Floats) -> Floats:
    """Return the standard deviation among the members, (P, M) -> (P,); 0 for a single member."""
    return np.asarray(p.std(1, ddof=1)) if p.shape[1] > 1 else np.zeros(len(p))


def predictive_entropy(p: Floats) -> Floats:
    """Return the entropy of the members' mean, (P, M) -> (P,), in nats, at most ln 2."""
    return _binary_entropy(p.mean(1))


def bald(p: Floats) -> Floats:
    """Return the mutual information of the outcome and the member that is right, (P, M) -> (P,), in nats.

    It is the entropy of the mean less the mean of the entropies: 0 where all members give the same probability.
    Houlsby et al. 2011, eq. 2 (arXiv:1112.5745).
    """
    return np.asarray(np.maximum(predictive_entropy(p) - _binary_entropy(p).mean(1), 0.0))


def fisher_weight(p: Floats) -> Floats:
    """Return sqrt(mean (1 - mean)), (P, M) -> (P,): a comparison's Fisher information is y y^T, y = fisher_weight x."""
    mean = p.mean(1)
    return np.asarray(np.sqrt(mean * (1 - mean)))


def d_optimal(y: Floats, count: int, ridge: float = 1.0, observed: Floats | None = None) -> Selection:
    """Select greedily what adds most to log det A, A = ridge I + sum y y^T; a candidate y adds log(1 + y^T A^-1 y).

    This is Bayesian D-optimality (Chaloner & Verdinelli 1995, doi:10.1214/ss/1177009939). In coordinates where A is the
    identity at first, y^T A^-1 y is a squared length, and every selection subtracts the square of one inner product
    (Sherman & Morrison 1950, doi:10.1214/aoms/1177729893). The value never rises, so an old one is a bound: a block of
    candidates is updated only when its bound is the greatest (Minoux 1978, doi:10.1007/BFb0006528).

    Args: y: (P, D), `fisher_weight` times x. observed: (K, D), the same of pairs that were compared already.
    """
    count = min(count, len(y))
    prior = ridge * np.eye(y.shape[1])
    if observed is not None:
        prior += observed.T @ observed
    rows = np.ascontiguousarray(solve_triangular(np.linalg.cholesky(prior), y.T, lower=True).T)
    lengths = np.square(rows).sum(1)
    longest = np.argsort(-lengths, kind="stable")
    rows, lengths = rows[longest], lengths[longest]
    blocks = [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
    bounds = np.array([lengths[block.start] for block in blocks])
    updated = np.zeros(len(blocks), dtype=int)  # selections that each block accounts for
    shortened = np.zeros((count, y.shape[1]))
    chosen, gains = np.zeros(count, dtype=np.intp), np.zeros(count)
    for step in range(count):
        while updated[top := int(bounds.argmax())] < step:
            block = blocks[top]
            lengths[block] -= np.square(rows[block] @ shortened[updated[top] : step].T).sum(1)
            bounds[top], updated[top] = lengths[block].max(), step
        best = top * BLOCK + int(lengths[blocks[top]].argmax())
        length = max(float(lengths[best]), 0.0)
        chosen[step], gains[step] = longest[best], np.log1p(length)
        across = rows[best] - shortened[:step].T @ (shortened[:step] @ rows[best])
        shortened[step] = across / np.sqrt(1 + length)
        lengths[best] = -np.inf
        bounds[top] = lengths[blocks[top]].max()
    return Selection(chosen, gains)


def k_centre(x: Floats, count: int) -> Selection:
    """Select the first candidate, then always the one farthest from all selected; gains are these distances.

    Sener & Savarese 2018, algorithm 1 (arXiv:1708.00489). A pair and its mirror image are the same comparison: the
    distance of x and y is the lesser of |x - y| and |x + y|.

    Args: x: (P, D), the best candidates first.
    """
    count = min(count, len(x))
    squares = np.square(x).sum(1)
    nearest = np.full(len(x), np.inf)
    chosen, gains = np.zeros(count, dtype=np.intp), np.zeros(count)
    for step in range(count):
        best = int(nearest.argmax())
        chosen[step], gains[step] = best, np.sqrt(max(nearest[best], 0.0))
        nearest = np.minimum(nearest, squares + squares[best] - 2 * np.abs(x @ x[best]))
        nearest[best] = -np.inf
    return Selection(chosen, gains)


def random_projection(features: Floats, dimensions: int) -> Floats:
    """Project features (N, D) to fewer dimensions with nearly the same distances; unchanged if D is no larger.

    The projection has random signs, the same ones in every call: Achlioptas 2003 (doi:10.1016/S0022-0000(03)00025-4).
    """
    if features.shape[1] <= dimensions:
        return features
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (features.shape[1], dimensions))
    return np.asarray(features @ (signs / np.sqrt(dimensions)).astype(features.dtype))


def double_thompson(wins: ArrayLike, rng: np.random.Generator, alpha: float = 0.51) -> Matchup:
    """Return the next two policies to compare, to find the one that beats the most others.

    Double Thompson sampling, Wu & Liu 2016, algorithm 1 (arXiv:1604.07101). The first beats the most others in one
    sample from the posterior, among those that could still beat the most by their confidence bounds. The second does
    best against it in another sample, among those that do not surely lose to it. In the paper the first may be
    compared with itself, which costs no regret; here every comparison costs a judgement, so it gets an opponent.

    Args:
        wins: (K, K), how often the row beat the column; a tie counts half for each; K is 2 or more.
        rng: several calls with the same counts give several pairs, for annotators that work in parallel.
        alpha: width of the bounds; the paper's theorem requires more than 1/2.
    """
    win_counts = np.asarray(wins, dtype=np.float64)
    games = win_counts + win_counts.T
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.where(games > 0, np.sqrt(alpha * np.log(games.sum() / 2 + 1) / games), 1.0)
        rate = np.where(games > 0, win_counts / games, 0.5)
    off_diagonal = ~np.eye(len(win_counts), dtype=bool)
    possible_wins = ((rate + radius > 0.5) & off_diagonal).sum(1)
    upper = np.triu(rng.beta(win_counts + 1, win_counts.T + 1), 1)
    sampled = upper + np.tril(1 - upper.T, -1)
    beaten = np.where(possible_wins == possible_wins.max(), ((sampled > 0.5) & off_diagonal).sum(1), -1)
    first = int(rng.choice(np.flatnonzero(beaten == beaten.max())))
    strength = rng.beta(win_counts[:, first] + 1, win_counts[first] + 1)
    strength[(rate - radius)[:, first] > 0.5] = -1.0
    strength[first] = -2.0
    return Matchup(first, int(strength.argmax()))


def _binary_entropy(p: Floats) -> Floats:
    return np.asarray(entr(p) + entr(1 - p))
