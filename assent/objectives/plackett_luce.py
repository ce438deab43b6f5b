"""Plackett-Luce: a ranking is drawn best first, each time from what is left, with odds e^score.

    L = -sum_m [s_(m) - log sum_{j >= m} e^{s_(j)}]

Luce 1959; Plackett 1975 (doi:10.2307/2346567); for language models: Rafailov et al. 2023, appendix A.3
(arXiv:2305.18290). With two completions it is Bradley-Terry. Tied tiers have no order: use `kway_loss` for them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from assent.batch import Loss, Rankings
from assent.functional.ranking import plackett_luce_loss


@dataclass(frozen=True)
class PlackettLuce:
    """Maximum likelihood of strict rankings."""

    def __call__(self, batch: Rankings) -> Loss:
        loss = batch.mean(plackett_luce_loss(batch.scores, batch.mask))
        return Loss(loss, {"loss": loss.detach(), "accuracy": batch.mean(in_order(batch.scores, batch.mask))})


def in_order(scores: Tensor, mask: Tensor) -> Tensor:
    """The share of a ranking's pairs that the scores order as it does, equals counting half -> (B,)."""
    scores = torch.where(mask, scores, 0.0).detach()
    pairs = (mask[:, :, None] & mask[:, None, :]).triu(diagonal=1)  # (B, K, K)
    agree = (1 + (scores[:, :, None] - scores[:, None, :]).sign()) / 2
    return torch.where(pairs, agree, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
