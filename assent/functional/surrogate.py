"""The clipped objectives of PPO, element by element. Schulman et al. 2017 (arXiv:1707.06347).

Garbage outside a mask is replaced before any arithmetic: a NaN times a gradient of 0 would be NaN.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this before `exp`: e^20 = 5e8 is far outside any clip, and finite."""


class Surrogate(NamedTuple):
    """The clipped loss, and the elements that the clip decides."""

    loss: Tensor
    clipped: Tensor  # 1 where the clip is active, else 0


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Return log pi - log pi_old, (B, T); 0 with a gradient of exactly 0 outside the mask."""
    return torch.where(mask, logprobs, 0.0) - torch.where(mask, old_logprobs, 0.0)


def importance_ratio(log_ratios: Tensor) -> Tensor:
    """Return pi / pi_old, always finite: clamped to e^-20 .. e^20."""
    return log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float, dual: float = 0.0) -> Surrogate:
    """Return max(-A ratio, -A clip(ratio, 1 - low, 1 + high)); shapes are those of `ratio`.

    `dual` above 1 also bounds the loss of an action with A < 0 by -A dual, however likely it has become (dual clip,
    Ye et al. 2019, arXiv:1912.09729); 0 leaves it out. Unequal `low` and `high`: Yu et al. 2025 (arXiv:2503.14476).
    """
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - low, 1 + high)
    loss = torch.maximum(unclipped, clipped)
    if dual:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual), loss)
    return Surrogate(loss, (clipped > unclipped).to(loss.dtype))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Return 1/2 max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2), (B, T), 0 outside the mask.

    With clip = 0 it is 1/2 (V - R)^2.
    """
    values, old_values, returns = (torch.where(mask, x, 0.0) for x in (values, old_values, returns))
    squares = (values - returns).square()
    if clip:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        squares = torch.maximum(squares, (clipped - returns).square())
    return squares / 2
