"""Masked mean, variance and whitening: the mean is removed and the variance is unbiased.

Some libraries add the mean back: then a batch of good completions pushes every token up.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and variance of the values inside a mask."""

    mean: Tensor  # ()
    variance: Tensor  # (), unbiased; 0 for fewer than two values


def moments(values: Tensor, mask: Tensor) -> Moments:
    """Return mean and unbiased variance of the values where `mask` is true; both have one shape."""
    count = mask.sum()
    mean = torch.where(mask, values, 0.0).sum() / count.clamp(min=1)
    squares = torch.where(mask, values - mean, 0.0).square().sum()
    return Moments(mean, squares / (count - 1).clamp(min=1))


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Return (value - mean) * rsqrt(variance + 1e-8) where `mask` is true, else 0; of the shape of `values`."""
    mean, variance = moments(values, mask)
    return torch.where(mask, (values - mean) * torch.rsqrt(variance + 1e-8), 0.0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for one that predicts the mean -> ().

    It is 0 too if the returns do not vary.
    """
    unexplained, total = moments(returns - values, mask).variance, moments(returns, mask).variance
    return torch.where(total > 0, 1 - unexplained / total, 0.0)
