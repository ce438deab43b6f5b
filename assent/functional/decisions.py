"""Decisions of a reward model against judgements: precision and recall, the noise ceiling, best-of-k, and length.

Every function raises ValueError for other shapes, for no values, and for values that are not finite or out of range.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


class PrecisionRecall(NamedTuple):
    """Precision, recall and their harmonic mean; NaN where the denominator is 0."""

    precision: float
    recall: float
    f1: float


class Decisions(NamedTuple):
    """Right / decided (NaN if no pair is decided), right / all, their harmonic mean, and decided / all."""

    precision: float
    recall: float
    f1: float
    decided: float


class Ceiling(NamedTuple):
    """Bounds of the best accuracy against one person's vote."""

    low: float
    high: float


def margin_decisions(margins: ArrayLike, threshold: float) -> Decisions:
    """Return precision, recall and F1 of deciding pairs with |margin| > threshold; all are the accuracy if all decided.

    Args: margins: (N,), score of chosen - score of rejected. threshold: in their units, 0 or more.
    """
    margin = _vector("margins", margins)
    if not threshold >= 0:
        raise ValueError(f"threshold is {threshold}: give 0 or more")
    decided = int((np.abs(margin) > threshold).sum())
    return Decisions(*_rates(int((margin > threshold).sum()), decided, len(margin)), decided / len(margin))


def decision_curve(margins: ArrayLike, thresholds: Sequence[float]) -> tuple[Decisions, ...]:
    """Return `margin_decisions` for each threshold, in their order."""
    return tuple(margin_decisions(margins, threshold) for threshold in thresholds)


def precision_recall_f1(predicted: ArrayLike, actual: ArrayLike) -> PrecisionRecall:
    """Return precision, recall and F1 of binary predictions (N,) against truth (N,): score > t against approvals."""
    guess, truth = _vector("predicted", predicted), _vector("actual", actual)
    if guess.shape != truth.shape or not np.isin([guess, truth], [0, 1]).all():
        raise ValueError("predicted and actual must be as many values, each 0 or 1: compare scores with a threshold")
    return _rates(int((guess * truth).sum()), int(guess.sum()), int(truth.sum()))


def noise_ceiling(agreement: float) -> Ceiling:
    """Return bounds a <= c <= (1 + sqrt(2a - 1)) / 2 of the best accuracy c against one person's vote.

    With p the share of people who prefer the first of a pair, a = E[p^2 + (1 - p)^2] and c = E[max(p, 1 - p)]. Lower
    bound: each pair is unanimous or a coin. Upper bound: all are equally noisy (Jensen, with E(p - 1/2)^2 = (a - 1/2) /
    2). In expectation a >= 1/2; a smaller share is sampling noise, and is taken as 1/2.

    Args: agreement: a, the share of equal votes among pairs of votes on one item. NaN, of one vote each, is refused.
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"agreement is {agreement}: give a share from 0 to 1, of items with two votes or more")
    low = max(0.5, float(agreement))
    return Ceiling(low, (1 + math.sqrt(2 * low - 1)) / 2)


def best_of_k_accuracy(scores: ArrayLike, correct: ArrayLike) -> float:
    """Return the share of prompts whose correct answer has the best score; 1/m where m answers share it. Chance is 1/K.

    Args: scores: (P, K); K = 4 in RewardBench 2 (arXiv:2506.01937). correct: (P,), columns; or one column for all.
    """
    table, column = np.asarray(scores, dtype=np.float64), np.asarray(correct)
    if table.ndim != 2 or not np.isfinite(table).all() or column.shape not in {(), (len(table),)} or not table.size:
        raise ValueError(f"scores {table.shape} and correct {column.shape}: give finite (P, K) and (P,), not empty")
    if column.dtype.kind not in "iu" or not ((column >= 0) & (column < table.shape[1])).all():
        raise ValueError(f"correct is not a column of scores: give whole numbers from 0 to {table.shape[1] - 1}")
    is_best = table == table.max(axis=1, keepdims=True)  # (P, K)
    return float((is_best[np.arange(len(table)), column] / is_best.sum(axis=1)).mean())


def within_group_spearman(scores: ArrayLike, lengths: ArrayLike, groups: ArrayLike) -> float:
    """Return Spearman's correlation of scores and lengths within groups, such as the answers to one prompt.

    Over all answers it would mix in the prompt. It is the plain mean over the groups in which both have at least two
    distinct values, whatever the size of the group (with two answers it is -1 or 1); NaN if there is none.

    Args: scores, lengths: (N,). groups: (N,) labels.
    """
    score, length, group = _vector("scores", scores), _vector("lengths", lengths), np.asarray(groups)
    if not score.shape == length.shape == group.shape:
        raise ValueError(f"shapes are {score.shape}, {length.shape} and {group.shape}: give one of each per answer")
    _, starts = np.unique(np.sort(group), return_index=True)
    members = np.split(np.argsort(group, kind="stable"), starts[1:])
    varied = [rows for rows in members if np.ptp(score[rows]) > 0 and np.ptp(length[rows]) > 0]
    correlations = [np.corrcoef(rankdata(score[rows]), rankdata(length[rows]))[0, 1] for rows in varied]
    return float(np.mean(correlations)) if correlations else math.nan


def _vector(name: str, values: Any) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise ValueError(f"{name} of shape {vector.shape}: give finite values (N,), not empty")
    return vector


def _rates(right: int, predicted: int, actual: int) -> PrecisionRecall:
    fractions = ((right, predicted), (right, actual), (2 * right, predicted + actual))
    return PrecisionRecall(*(top / bottom if bottom else math.nan for top, bottom in fractions))
