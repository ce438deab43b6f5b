"""Several judges of one answer: their mean, the least of them, or a bound below which few of them would go.

Coste et al. 2023 (arXiv:2310.02743): a policy that is trained on one reward model finds its mistakes; members that were
trained apart disagree there, and who takes the least of them, or takes off what they deviate, is not misled as far.
"""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "minimum", "lower"]


def combine(scores: Tensor, how: Reduction = "mean", deviations: float = 1.0) -> Tensor:
    """One number for each answer, (N,).

    Args:
        scores: (N, M), a column for each member, on one scale; or (N,) of a single judge.
        how: `lower` is the mean minus so many `deviations` of the members.
    """
    if scores.ndim == 1:
        return scores
    match how:
        case "mean":
            return scores.mean(1)
        case "minimum":
            return scores.amin(1)
        case "lower":
            return scores.mean(1) - deviations * disagreement(scores)


def disagreement(scores: Tensor) -> Tensor:
    """Standard deviation among the members, (N,); 0 for a single judge."""
    if scores.ndim == 1 or scores.shape[1] == 1:
        return torch.zeros(len(scores), dtype=scores.dtype, device=scores.device)
    return scores.std(1)
