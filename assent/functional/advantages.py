"""Advantages: rewards of tokens, generalized advantage estimation, baselines of a group.

Completions are rows, padded on the right. `mask` is true on the policy's own tokens. Gaps in the mask (tool output,
observations) are skipped as if they did not exist, and values outside the mask are never read.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class AdvantageEstimate(NamedTuple):
    """Advantages and the returns they imply; 0 outside the mask."""

    advantages: Tensor  # (B, T)
    returns: Tensor  # (B, T)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Return -beta * kl for each token, plus the completion's score at its last token. Ziegler et al. 2019, eq. 2.

    Args: scores: (B,). kl: (B, T), k1 of each token. mask: (B, T) bool.
    Returns: (B, T), 0 outside the mask.
    """
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(mask, -beta * kl, 0.0) + torch.where(last, scores[:, None], 0.0)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95
) -> AdvantageEstimate:
    """Estimate advantages by GAE; the value after the last token is 0. Schulman et al. 2015 (arXiv:1506.02438).

    A_t = delta_t + gamma lambda A_t', delta_t = r_t + gamma V_t' - V_t, where t' is the next token of the mask.

    Args: rewards, values: (B, T), read on the mask only. mask: (B, T) bool.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantage = next_value = values.new_zeros(len(values))  # (B,)
    advantages = torch.zeros_like(values)
    for t in range(values.shape[1] - 1, -1, -1):
        is_token = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(is_token, delta + gamma * gae_lambda * advantage, advantage)
        next_value = torch.where(is_token, values[:, t], next_value)
        advantages[:, t] = torch.where(is_token, advantage, 0.0)
    return AdvantageEstimate(advantages, advantages + values)


def group_relative(scores: Tensor, groups: Tensor, scale: bool = True) -> Tensor:
    """Subtract the group's mean from each score, and divide by the group's standard deviation if `scale`.

    (r - mean) / std: Shao et al. 2024, section 4.1.2 (arXiv:2402.03300), which adds nothing to std. The unbiased
    deviation and the 1e-4 added to it are those of TRL's GRPOTrainer (`rewards.std() + 1e-4`). r - mean: Liu et al.
    2025 (arXiv:2503.20783). A group of one, or of equals, gets 0. With annotators as groups these are z-scores.

    Args: scores: (B,). groups: (B,) long, any labels.
    """
    difference, member, size = _centre(scores, groups)
    if not scale:
        return difference
    squares = torch.zeros_like(size).index_add(0, member, difference.square())
    deviation = (squares / (size - 1).clamp(min=1)).sqrt()
    return difference / (deviation[member] + 1e-4)


def leave_one_out(scores: Tensor, groups: Tensor) -> Tensor:
    """Subtract the mean of the others in its group from each score; 0 for a group of one. Kool et al. 2019;
    arXiv:2402.14740.

    Args: scores: (B,). groups: (B,) long, any labels.
    """
    difference, member, size = _centre(scores, groups)
    return difference * (size / (size - 1).clamp(min=1))[member]  # r - (n mean - r) / (n - 1) = n (r - mean) / (n - 1)


def broadcast_to_tokens(relative: Tensor, mask: Tensor) -> Tensor:
    """Give each token the value of its completion, (B,) -> (B, T); 0 outside the mask."""
    return torch.where(mask, relative[:, None], 0.0)


def group_metrics(scores: Tensor, relative: Tensor, groups: Tensor) -> dict[str, Tensor]:
    """Return the mean score, the mean size of advantages, and the share of groups without a signal."""
    return {
        "score": scores.mean(),
        "advantage": relative.abs().mean(),
        "frac_reward_zero_std": frac_reward_zero_std(scores, groups),
    }


def frac_reward_zero_std(scores: Tensor, groups: Tensor) -> Tensor:
    """Return the share of groups whose scores are all equal, so that their advantages are 0 -> ()."""
    _, index = torch.unique(groups, return_inverse=True)
    zeros = torch.zeros(int(index.max()) + 1, dtype=scores.dtype, device=scores.device)
    high = zeros.scatter_reduce(0, index, scores, "amax", include_self=False)
    low = zeros.scatter_reduce(0, index, scores, "amin", include_self=False)
    return (high == low).to(scores.dtype).mean()


class _Centred(NamedTuple):
    difference: Tensor  # (B,) score minus its group's mean
    member: Tensor  # (B,) index of the group, 0 to G - 1
    size: Tensor  # (G,)


def _centre(scores: Tensor, groups: Tensor) -> _Centred:
    labels, index = torch.unique(groups, return_inverse=True)
    zeros = torch.zeros(len(labels), dtype=scores.dtype, device=scores.device)
    size = zeros.index_add(0, index, torch.ones_like(scores))
    mean = zeros.index_add(0, index, scores) / size
    return _Centred(scores - mean[index], index, size)
