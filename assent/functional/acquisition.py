"""What is worth asking next: how unsure an ensemble is about a pair, what its answer would teach, and who should duel.

    p = (P, M): how likely each of M members finds it that the first item of each of P pairs wins
    x = (P, D): what the features of the first item have over those of the second

Scores are logits of Bradley-Terry: who has standardised them multiplies them by their deviation again before asking.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.special import entr, expit

Floats = NDArray[np.floating]
Places = NDArray[np.intp]

BLOCK = 1024
"""Candidates whose gains are brought up to date together."""


class Greedy(NamedTuple):
    """Candidates in the order in which they were taken."""

    order: Places  # (count,)
    gains: Floats  # (count,)


class Duel(NamedTuple):
    """Two players who should meet: the likely best, and who may yet be better. On a screen, let a coin order them."""

    first: int
    second: int


def win_probabilities(scores: ArrayLike, pairs: ArrayLike) -> Floats:
    """P(first wins) as each member of an ensemble sees it, (P, M).

    Args: scores: (N, M) of items. pairs: (P, 2) places of items.
    """
    s, places = np.asarray(scores, dtype=np.float64), np.asarray(pairs)
    return np.asarray(expit(s[places[:, 0]] - s[places[:, 1]]))


def disagreement(p: Floats) -> Floats:
    """Standard deviation among the members (P, M) -> (P,); 0 for a single one."""
    return np.asarray(p.std(1, ddof=1)) if p.shape[1] > 1 else np.zeros(len(p))


def entropy(p: Floats) -> Floats:
    """How open the answer is: entropy of the members' mean (P, M) -> (P,), in nats, at most ln 2."""
    return _binary_entropy(p.mean(1))


def bald(p: Floats) -> Floats:
    """What the answer would tell about which member is right: their mutual information (P, M) -> (P,), in nats.

    The entropy of the mean less the mean of the entropies: 0 where the members agree that nobody can know.
    Houlsby et al. 2011, eq. 2 (arXiv:1112.5745).
    """
    return np.asarray(np.maximum(entropy(p) - _binary_entropy(p).mean(1), 0.0))


def evenness(p: Floats) -> Floats:
    """sqrt(mean (1 - mean)) (P, M) -> (P,): an answer's Fisher information is y y^T, with y = evenness x."""
    mean = p.mean(1)
    return np.asarray(np.sqrt(mean * (1 - mean)))


def d_optimal(y: Floats, count: int, ridge: float = 1.0, known: Floats | None = None) -> Greedy:
    """Take what adds most to log det A, A = ridge I + sum y y^T; each candidate y gains log(1 + y^T A^-1 y).

    Bayesian D-optimality (Chaloner & Verdinelli 1995, doi:10.1214/ss/1177009939), greedily. In coordinates where A is
    the identity at first, y^T A^-1 y is a squared length, from which every choice takes the square of one inner product
    (Sherman & Morrison 1950, doi:10.1214/aoms/1177729893). As it only ever falls, an old value is a bound: blocks of
    candidates wait until theirs is the greatest (Minoux 1978, doi:10.1007/BFb0006528).

    Args: y: (P, D) evenness times features' difference. known: (K, D) the same of pairs that have been asked.
    """
    count = min(count, len(y))
    prior = ridge * np.eye(y.shape[1])
    if known is not None:
        prior += known.T @ known
    rows = np.ascontiguousarray(solve_triangular(np.linalg.cholesky(prior), y.T, lower=True).T)
    lengths = np.square(rows).sum(1)
    longest = np.argsort(-lengths, kind="stable")
    rows, lengths = rows[longest], lengths[longest]
    blocks = [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
    bounds = np.array([lengths[block.start] for block in blocks])
    updated = np.zeros(len(blocks), dtype=int)  # how many of the chosen each block has heard of
    shortened = np.zeros((count, y.shape[1]))
    chosen, gains = np.zeros(count, dtype=np.intp), np.zeros(count)
    for taken in range(count):
        while updated[top := int(bounds.argmax())] < taken:
            block = blocks[top]
            lengths[block] -= np.square(rows[block] @ shortened[updated[top] : taken].T).sum(1)
            bounds[top], updated[top] = lengths[block].max(), taken
        best = top * BLOCK + int(lengths[blocks[top]].argmax())
        length = max(float(lengths[best]), 0.0)
        chosen[taken], gains[taken] = longest[best], np.log1p(length)
        across = rows[best] - shortened[:taken].T @ (shortened[:taken] @ rows[best])
        shortened[taken] = across / np.sqrt(1 + length)
        lengths[best] = -np.inf
        bounds[top] = lengths[blocks[top]].max()
    return Greedy(chosen, gains)


def k_centre(x: Floats, count: int) -> Greedy:
    """Take the first, then always what lies farthest from all that is taken; gains are these distances.

    Sener & Savarese 2018, algorithm 1 (arXiv:1708.00489). A pair and its mirror image ask the same: the distance of x
    and y is the lesser of |x - y| and |x + y|.

    Args: x: (P, D), the best candidates first.
    """
    count = min(count, len(x))
    squares = np.square(x).sum(1)
    nearest = np.full(len(x), np.inf)
    chosen, gains = np.zeros(count, dtype=np.intp), np.zeros(count)
    for taken in range(count):
        best = int(nearest.argmax())
        chosen[taken], gains[taken] = best, np.sqrt(max(nearest[best], 0.0))
        nearest = np.minimum(nearest, squares + squares[best] - 2 * np.abs(x @ x[best]))
        nearest[best] = -np.inf
    return Greedy(chosen, gains)


def project(features: Floats, dimensions: int) -> Floats:
    """Features (N, D) of fewer dimensions, whose distances are nearly the same; unchanged if they have no more.

    Random signs, always the same ones: Achlioptas 2003 (doi:10.1016/S0022-0000(03)00025-4).
    """
    if features.shape[1] <= dimensions:
        return features
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (features.shape[1], dimensions))
    return np.asarray(features @ (signs / np.sqrt(dimensions)).astype(features.dtype))


def double_thompson(wins: ArrayLike, random: np.random.Generator, alpha: float = 0.51) -> Duel:
    """Which two should meet next, to find who beats the most others. Wu & Liu 2016, algorithm 1 (arXiv:1604.07101).

    The first beats the most others in one draw from the posterior, among those that could still beat the most by their
    confidence bounds; the second does best against it in another draw, among those that do not surely beat it already.
    In the paper the first may meet itself, which costs no regret; here answers are bought to find the best, and it
    meets the likeliest rival instead.

    Args:
        wins: (K, K), how often the row beat the column, a tie half for each; K is 2 or more.
        random: several draws from the same counts make several duels, for annotators that work side by side.
        alpha: width of the bounds; the paper's theorem asks for more than 1/2.
    """
    won = np.asarray(wins, dtype=np.float64)
    met = won + won.T
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.where(met > 0, np.sqrt(alpha * np.log(met.sum() / 2 + 1) / met), 1.0)
        rate = np.where(met > 0, won / met, 0.5)
    other = ~np.eye(len(won), dtype=bool)
    hopeful = ((rate + radius > 0.5) & other).sum(1)
    upper = np.triu(random.beta(won + 1, won.T + 1), 1)
    drawn = upper + np.tril(1 - upper.T, -1)
    beaten = np.where(hopeful == hopeful.max(), ((drawn > 0.5) & other).sum(1), -1)
    first = int(random.choice(np.flatnonzero(beaten == beaten.max())))
    strength = random.beta(won[:, first] + 1, won[first] + 1)
    strength[(rate - radius)[:, first] > 0.5] = -1.0
    strength[first] = -2.0
    return Duel(first, int(strength.argmax()))


def _binary_entropy(p: Floats) -> Floats:
    return np.asarray(entr(p) + entr(1 - p))
