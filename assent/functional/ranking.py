"""Losses of ordered things: two, K with ties, K in strict order. They take scores and return one loss a row."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


def pair_loss(logits: Tensor, p_chosen: Tensor) -> Tensor:
    """-[p log s(d) + (1 - p) log s(-d)], safe at any d; all (B,)."""
    return -(p_chosen * logsigmoid(logits) + (1 - p_chosen) * logsigmoid(-logits))


def pair_metrics(chosen: Tensor, rejected: Tensor, p_chosen: Tensor) -> dict[str, Tensor]:
    """What is worth watching about pairs of rewards, row by row and detached; all (B,).

    `accuracy` is 1 where the rewards agree with the target about which is the better, 0 where they disagree, and 1/2
    where either of them sees a tie.
    """
    chosen, rejected = chosen.detach(), rejected.detach()
    margin = chosen - rejected
    agree = margin.sign() * (p_chosen - 0.5).sign()
    return {"accuracy": (1 + agree) / 2, "margin": margin, "chosen": chosen, "rejected": rejected}


def kway_loss(scores: Tensor, tiers: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of -log s(better - worse) over a row's pairs of different tiers.

    Ouyang et al. 2022, eq. 1 (arXiv:2203.02155).

    Args: scores: (B, K). tiers: (B, K), the best is the lowest, equals are tied. mask: (B, K) bool, what counts.
    Returns: (B,), 0 for a row in which all are tied.
    """
    mask = torch.ones_like(tiers, dtype=torch.bool) if mask is None else mask
    scores = torch.where(mask, scores, 0.0)
    pairs = (tiers[:, :, None] < tiers[:, None, :]) & mask[:, :, None] & mask[:, None, :]  # (B, K, K)
    losses = torch.where(pairs, softplus(scores[:, None, :] - scores[:, :, None]), 0.0)
    return losses.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def plackett_luce_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """-sum_m [s_m - logsumexp(s_m .. s_K)], the likelihood of drawing the row in this order without replacement.

    Args: scores: (B, K), the best first. mask: (B, K) bool, false for padding on the right.
    Returns: (B,).
    """
    scores = torch.where(mask, scores, 0.0)
    remaining = torch.where(mask, scores, torch.finfo(scores.dtype).min / 2)
    after = remaining.flip(1).logcumsumexp(1).flip(1)
    return torch.where(mask, after - scores, 0.0).sum(1)
