"""Selective answering: what a model gets right when it may say "I don't know", or answers only where it is sure.

    n = right + refused + wrong, answered = right + wrong: numbers of questions

A ranking of the answers by confidence is judged by how few errors are among the surest k of n, for all k. Where
confidences are equal, the order within them is random and the number of errors is its expectation: each of them counts
as the share of errors among them, so a constant confidence has AURC = error rate.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from assent.functional.calibration import Floats, Predictions
from assent.functional.statistics import Interval, wilson


class CoveragePoint(NamedTuple):
    """A threshold of confidence: the share of questions above it, and the share of right answers among those."""

    coverage: float
    accuracy: float


class Selective(NamedTuple):
    """Right, refused and wrong answers, with Wilson's limits, and what they are worth together."""

    n: int
    right: Interval
    refused: Interval
    wrong: Interval
    selective_accuracy: Interval
    """Right among the answered ones; NaN, from 0 to 1, if all are refused."""
    f_score: float
    """Harmonic mean of right / n and right / answered; 0 if all are refused. SimpleQA, arXiv:2411.04368."""
    truthfulness: float
    """(right - wrong) / n, from -1 to 1. TruthRL, arXiv:2509.25760."""
    reliability: float
    """answered / n (1 - wrong / n) + refused / n right / n, from 0 to 1. RLKF, arXiv:2403.18349."""


def selective_counts(right: int, refused: int, wrong: int) -> Selective:
    """Return shares and scores of the answers to n = right + refused + wrong questions; NaN without questions.

    The reliability of RLKF is answered truthfulness + refused accuracy, all as shares of n, where its truthfulness is
    the share that is not wrong: of 50 right, 30 refused, 20 wrong it is .7 (.5 + .3) + .3 x .5 = .71. That is not the
    `truthfulness` of TruthRL, right - wrong.

    Raises ValueError: a negative count.
    """
    if min(right, refused, wrong) < 0:
        raise ValueError(f"right is {right}, refused {refused} and wrong {wrong}: give counts of 0 or more")
    answered = right + wrong
    n = answered + refused
    divisor = n or math.nan
    return Selective(
        n=n,
        right=wilson(right, n),
        refused=wilson(refused, n),
        wrong=wilson(wrong, n),
        selective_accuracy=wilson(right, answered),
        f_score=2 * right / (divisor + answered),  # the harmonic mean of right / n and right / answered
        truthfulness=(right - wrong) / divisor,
        reliability=(answered * (right + refused) + refused * right) / divisor**2,
    )


def coverage_curve(confidences: ArrayLike, correct: ArrayLike) -> list[CoveragePoint]:
    """Return accuracy over coverage, the surest answers first: one point for each distinct confidence.

    Args: confidences: (N,), any numbers, the greater the surer. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`.
    """
    scores, right = Predictions.of(confidences, correct, "confidences")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    covered = np.cumsum(sizes)
    accuracy = np.cumsum(np.bincount(group, right, len(sizes))) / covered
    coverage = covered / max(len(scores), 1)
    return [CoveragePoint(*point) for point in zip(coverage.tolist(), accuracy.tolist(), strict=True)]


def aurc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve: the mean over k of (errors among the k surest) / k.

    Geifman et al. 2019 (arXiv:1805.08206). 0 if all are right; NaN without questions.

    Args: confidences: (N,), any numbers, the greater the surer. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`.
    """
    errors = _errors_among_surest(confidences, correct)
    return float((errors / np.arange(1, len(errors) + 1)).mean()) if len(errors) else math.nan


def augrc(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the generalised risk-coverage curve: the mean over k of (errors among the k surest) / n.

    Traub et al. 2024 (arXiv:2407.01032). A constant confidence has error rate (n + 1) / 2n, about half the error rate.
    0 if all are right; NaN without questions.

    Args: confidences: (N,), any numbers, the greater the surer. correct: (N,), 0 or 1.
    Raises ValueError: see `Predictions.of`.
    """
    errors = _errors_among_surest(confidences, correct)
    return float(errors.mean() / len(errors)) if len(errors) else math.nan


def answer_threshold(right: float, refuse: float, wrong: float) -> float:
    """Return the probability of being right from which answering pays: (refuse - wrong) / (right - wrong).

    It solves p right + (1 - p) wrong = refuse: 0 or less if refusing never pays, 1 or more if answering never does.

    Args: rewards of a right answer, a refusal and a wrong answer.
    Raises ValueError: a right answer whose reward is not above that of a wrong one; an infinite reward.
    """
    if not all(map(math.isfinite, (right, refuse, wrong))) or right <= wrong:
        raise ValueError(f"rewards are right {right:g}, refuse {refuse:g}, wrong {wrong:g}: choose right above wrong")
    return (refuse - wrong) / (right - wrong)


def wrong_reward(target: float) -> float:
    """Return the reward of a wrong answer, -t / (1 - t), with which answering pays from the probability t = `target`.

    A right answer has 1, a refusal 0. Kalai et al. 2025 (arXiv:2509.04664): 1 point off at .5, 3 at .75, 9 at .9.

    Raises ValueError: a target outside 0 to 1, or 1 itself.
    """
    if not 0 <= target < 1:
        raise ValueError(f"target is {target:g}: choose a probability from 0 to below 1")
    return 0.0 - target / (1 - target)


def _errors_among_surest(confidences: ArrayLike, correct: ArrayLike) -> Floats:
    """Return the expected number of errors among the k surest answers for k = 1 .. N, (N,)."""
    scores, right = Predictions.of(confidences, correct, "confidences")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    error_rate = np.bincount(group, 1 - right, len(sizes)) / sizes
    errors: Floats = np.cumsum(np.repeat(error_rate, sizes))
    return errors
