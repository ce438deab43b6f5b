"""Masked mean, variance and whitening: mean removed, unbiased variance, so that advantages have one scale.

Some libraries add the mean back: then a batch in which everything went well pushes every token up.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of the values inside a mask."""

    mean: Tensor  # ()
    variance: Tensor  # (), unbiased; 0 for fewer than two values


def moments(values: Tensor, mask: Tensor) -> Moments:
    """Mean and unbiased variance of the values where `mask` is true, both of one shape."""
    count = mask.sum()
    mean = torch.where(mask, values, 0.0).sum() / count.clamp(min=1)
    squares = torch.where(mask, values - mean, 0.0).square().sum()
    return Moments(mean, squares / (count - 1).clamp(min=1))


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(value - mean) * rsqrt(variance + 1e-8) where `mask` is true, else 0; of the shape of `values`."""
    mean, variance = moments(values, mask)
    return torch.where(mask, (values - mean) * torch.rsqrt(variance + 1e-8), 0.0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 one that guesses the mean -> ().

    0 as well if the returns do not vary, for then there is nothing to explain.
    """
    unexplained, total = moments(returns - values, mask).variance, moments(returns, mask).variance
    return torch.where(total > 0, 1 - unexplained / total, 0.0)
