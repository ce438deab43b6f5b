"""How much better than expected: rewards of tokens, generalized advantage estimation, returns, baselines of a group.

Completions are rows, padded on the right. `mask` is true on the policy's own tokens; holes (tool output,
observations) are carried across as if they were not there, and whatever stands outside the mask is never read.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """Advantages and the returns they imply; 0 outside the mask."""

    advantages: Tensor  # (B, T)
    returns: Tensor  # (B, T)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Charge each token -beta * kl, and add the completion's score at its last token. Ziegler et al. 2019, eq. 2.

    Args: scores: (B,). kl: (B, T), k1 of each token. mask: (B, T) bool.
    Returns: (B, T), 0 outside the mask.
    """
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(mask, -beta * kl, 0.0) + torch.where(last, scores[:, None], 0.0)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95) -> Estimate:
    """Generalized advantage estimation; the value after the last token is 0. Schulman et al. 2015 (arXiv:1506.02438).

    A_t = delta_t + gamma lambda A_t', delta_t = r_t + gamma V_t' - V_t, where t' is the next token of the mask.

    Args: rewards, values: (B, T), read on the mask only. mask: (B, T) bool.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantage = next_value = values.new_zeros(len(values))  # (B,)
    advantages = torch.zeros_like(values)
    for t in range(values.shape[1] - 1, -1, -1):
        here = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(here, delta + gamma * gae_lambda * advantage, advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, advantage, 0.0)
    return Estimate(advantages, advantages + values)


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """The discounted sum of each token's own and later rewards, (B, T); holes neither pay nor discount."""
    return gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0).returns


def group_relative(scores: Tensor, groups: Tensor, scale: bool = True) -> Tensor:
    """Compare each score with its group's mean, in units of its group's deviation if `scale`.

    (r - mean) / std: Shao et al. 2024, section 4.1.2 (arXiv:2402.03300), which adds nothing to std. That the deviation
    is unbiased, and the 1e-4 beside it, are of TRL's GRPOTrainer (`rewards.std() + 1e-4`). r - mean: Liu et al. 2025
    (arXiv:2503.20783). A group of one, or of equals, gets 0. With annotators as groups these are z-scores.

    Args: scores: (B,). groups: (B,) long, any labels.
    """
    gap, member, size = _gaps(scores, groups)
    if not scale:
        return gap
    squares = torch.zeros_like(size).index_add(0, member, gap.square())
    deviation = (squares / (size - 1).clamp(min=1)).sqrt()
    return gap / (deviation[member] + 1e-4)


def leave_one_out(scores: Tensor, groups: Tensor) -> Tensor:
    """Each score minus the mean of the others in its group; 0 for a group of one. Kool et al. 2019; arXiv:2402.14740.

    Args: scores: (B,). groups: (B,) long, any labels.
    """
    gap, member, size = _gaps(scores, groups)
    return gap * (size / (size - 1).clamp(min=1))[member]  # r - (n mean - r) / (n - 1) = n (r - mean) / (n - 1)


def spread(relative: Tensor, mask: Tensor) -> Tensor:
    """What was said of a completion, (B,), said of each of its tokens, (B, T)."""
    return torch.where(mask, relative[:, None], 0.0)


def group_metrics(scores: Tensor, relative: Tensor, groups: Tensor) -> dict[str, Tensor]:
    """What is worth watching about groups: the mean score, the size of advantages, and how many groups say nothing."""
    flat = flat_groups(scores, groups)
    return {"score": scores.mean(), "advantage": relative.abs().mean(), "flat_groups": flat}


def flat_groups(scores: Tensor, groups: Tensor) -> Tensor:
    """The share of groups whose scores are all alike, and which therefore teach nothing -> ()."""
    _, index = torch.unique(groups, return_inverse=True)
    spread = torch.zeros(int(index.max()) + 1, dtype=scores.dtype, device=scores.device)
    high = spread.scatter_reduce(0, index, scores, "amax", include_self=False)
    low = spread.scatter_reduce(0, index, scores, "amin", include_self=False)
    return (high == low).to(scores.dtype).mean()


class _Gaps(NamedTuple):
    gap: Tensor  # (B,) score minus its group's mean
    member: Tensor  # (B,) of which group, 0 to G - 1
    size: Tensor  # (G,)


def _gaps(scores: Tensor, groups: Tensor) -> _Gaps:
    names, index = torch.unique(groups, return_inverse=True)
    zeros = torch.zeros(len(names), dtype=scores.dtype, device=scores.device)
    size = zeros.index_add(0, index, torch.ones_like(scores))
    mean = zeros.index_add(0, index, scores) / size
    return _Gaps(scores - mean[index], index, size)
