"""ORPO: imitate the chosen completion and raise its odds against the rejected one; no reference.

    L = -log P(chosen) - weight log s(log odds(chosen) - log odds(rejected)),  odds = P / (1 - P)

where log P(y) is the mean log-probability of a token. Hong et al. 2024, eq. 6 and 7 (arXiv:2403.07691). With a soft p:
p L(chosen, rejected) + (1 - p) L(rejected, chosen).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assent.batch import LogprobPairs, Loss
from assent.functional.losses import pair_loss, pair_metrics
from assent.types import NonNegativeFloat


@dataclass(frozen=True)
class ORPO:
    """Cross-entropy with an odds-ratio term."""

    stage: ClassVar[str] = "offline"

    orpo_lambda: NonNegativeFloat = 0.1
    """Weight of the odds-ratio term (lambda in the paper); .1 to 1; 0 is plain cross-entropy."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = batch.chosen / batch.chosen_tokens.clamp(min=1)
        rejected = batch.rejected / batch.rejected_tokens.clamp(min=1)
        cross_entropy = -(batch.p_chosen * chosen + (1 - batch.p_chosen) * rejected)
        odds_ratio = pair_loss(log_odds(chosen) - log_odds(rejected), batch.p_chosen)
        losses = cross_entropy + self.orpo_lambda * odds_ratio
        metrics = pair_metrics(self.orpo_lambda * chosen, self.orpo_lambda * rejected, batch.p_chosen)
        return Loss.of_rows(batch, losses, metrics)


def log_odds(logprob: Tensor) -> Tensor:
    """Return log P - log(1 - P) of log P <= 0, (B,); P = 1 is clamped to just below, where the odds are finite."""
    logprob = logprob.clamp(max=-1e-6)
    return logprob - torch.log(-torch.expm1(logprob))
