"""Losses of pairs and of rankings with tiers: from scores to one loss per row."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


def pair_loss(logits: Tensor, p_chosen: Tensor) -> Tensor:
    """Return -[p log s(d) + (1 - p) log s(-d)], finite at any d; all (B,)."""
    return -(p_chosen * logsigmoid(logits) + (1 - p_chosen) * logsigmoid(-logits))


def pair_metrics(chosen: Tensor, rejected: Tensor, p_chosen: Tensor) -> dict[str, Tensor]:
    """Return metrics of pairs of rewards, row by row and detached; all (B,).

    `accuracy` is 1 where rewards and target prefer the same completion, 0 where they do not, and 1/2 where either is a
    tie.
    """
    chosen, rejected = chosen.detach(), rejected.detach()
    margin = chosen - rejected
    agree = margin.sign() * (p_chosen - 0.5).sign()
    return {"accuracy": (1 + agree) / 2, "margin": margin, "chosen": chosen, "rejected": rejected}


def kway_loss(scores: Tensor, tiers: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of -log s(better - worse) over a row's pairs of different tiers.

    Ouyang et al. 2022, eq. 1 (arXiv:2203.02155).

    Args: scores: (B, K). tiers: (B, K), the best is the lowest, equals are tied. mask: (B, K) bool, completions.
    Returns: (B,), 0 for a row in which all completions are tied.
    """
    mask = torch.ones_like(tiers, dtype=torch.bool) if mask is None else mask
    scores = torch.where(mask, scores, 0.0)
    pairs = _decided(tiers, mask)
    losses = torch.where(pairs, softplus(scores[:, None, :] - scores[:, :, None]), 0.0)
    return losses.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def plackett_luce_loss(scores: Tensor, tiers: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return sum_i [logsumexp(s_j of the tiers from i's on) - s_i]: the best is chosen first, then from the rest.

    Each of several equals is chosen from all of its tier and below: the approximation of Breslow 1974
    (doi:10.2307/2529620), exact where all tiers differ.

    Args: scores: (B, K). tiers: (B, K), the best is the lowest. mask: (B, K) bool, completions.
    Returns: (B,).
    """
    mask = torch.ones_like(tiers, dtype=torch.bool) if mask is None else mask
    scores = torch.where(mask, scores, 0.0)
    diagonal = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    left = diagonal | (
        (tiers[:, None, :] >= tiers[:, :, None]) & mask[:, None, :]
    )  # (B, K, K), what is left at each choice
    remaining = torch.where(left, scores[:, None, :], -torch.inf).logsumexp(2)
    return torch.where(mask, remaining - scores, 0.0).sum(1)


def ranking_accuracy(scores: Tensor, tiers: Tensor, mask: Tensor) -> Tensor:
    """Return the share of a row's pairs of different tiers that the scores order alike, (B,); equals count half."""
    scores = torch.where(mask, scores, 0.0).detach()
    pairs = _decided(tiers, mask)
    agree = (1 + (scores[:, :, None] - scores[:, None, :]).sign()) / 2
    return torch.where(pairs, agree, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def _decided(tiers: Tensor, mask: Tensor) -> Tensor:
    """Return whether the first completion is in a better tier than the second, (B, K, K) bool."""
    return (tiers[:, :, None] < tiers[:, None, :]) & mask[:, :, None] & mask[:, None, :]
