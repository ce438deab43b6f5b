"""The clipped objectives of PPO, element by element. Schulman et al. 2017 (arXiv:1707.06347).

Garbage outside a mask is replaced before any arithmetic: a NaN times a gradient of 0 would be NaN.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LIMIT = 20.0
"""Log-ratios are held within this before `exp`: e^20 = 5e8 is far outside any clip, and finite."""


class Surrogate(NamedTuple):
    """What to minimise, and where the clip decides."""

    loss: Tensor
    clipped: Tensor  # 1 where the clip holds the ratio back, else 0


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log pi - log pi_old, (B, T); 0 with a gradient of exactly 0 outside the mask."""
    return torch.where(mask, logprobs, 0.0) - torch.where(mask, old_logprobs, 0.0)


def importance_ratio(log_ratios: Tensor) -> Tensor:
    """pi / pi_old, always finite; beyond e^20 it stands still."""
    return log_ratios.clamp(-LIMIT, LIMIT).exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float, dual: float = 0.0) -> Surrogate:
    """max(-A ratio, -A clip(ratio, 1 - low, 1 + high)); shapes are those of `ratio`.

    `dual` above 1 also holds the loss of a bad action at -A dual, however likely it has become (dual clip, Ye et al.
    2019, arXiv:1912.09729); 0 leaves it out. Unequal `low` and `high`: Yu et al. 2025 (arXiv:2503.14476).
    """
    free, held = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    loss = torch.maximum(free, held)
    if dual:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual), loss)
    return Surrogate(loss, (held > free).to(loss.dtype))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2), (B, T); 0 outside the mask; clip 0: plain."""
    values, old_values, returns = (torch.where(mask, x, 0.0) for x in (values, old_values, returns))
    squares = (values - returns).square()
    if clip:
        near = old_values + (values - old_values).clamp(-clip, clip)
        squares = torch.maximum(squares, (near - returns).square())
    return squares / 2
