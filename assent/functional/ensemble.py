"""Ensembles of reward models: mean, worst-case or uncertainty-weighted score.

Coste et al. 2023 (arXiv:2310.02743): a policy that is trained on one reward model exploits its mistakes. Members that
were trained apart disagree there. Worst-case optimization (WCO) takes their minimum. Uncertainty-weighted optimization
(UWO) takes their mean minus a multiple of their variance; here of their standard deviation, which has the unit of the
scores.
"""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "worst_case", "uncertainty_weighted"]


def combine(scores: Tensor, reduction: Reduction = "mean", uncertainty_coef: float = 1.0) -> Tensor:
    """Return one score for each response, (N,).

    Args:
        scores: (N, M), a column for each member, on one scale; or (N,) of a single model.
        reduction: how the members are combined.
        uncertainty_coef: standard deviations of the members that `uncertainty_weighted` subtracts.
    """
    if scores.ndim == 1:
        return scores
    match reduction:
        case "mean":
            return scores.mean(1)
        case "worst_case":
            return scores.amin(1)
        case "uncertainty_weighted":
            return scores.mean(1) - uncertainty_coef * ensemble_std(scores)


def ensemble_std(scores: Tensor) -> Tensor:
    """Return the standard deviation among the members, (N,); 0 for a single model."""
    if scores.ndim == 1 or scores.shape[1] == 1:
        return torch.zeros(len(scores), dtype=scores.dtype, device=scores.device)
    return scores.std(1)
