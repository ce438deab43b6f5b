"""ORPO: imitate the chosen completion and widen its odds against the rejected one, in one stage, with no reference.

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
    """Weight of the odds-ratio term (lambda in the paper); 0 is plain imitation, .1 to 1."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = batch.chosen / batch.chosen_tokens.clamp(min=1)
        rejected = batch.rejected / batch.rejected_tokens.clamp(min=1)
        imitation = -(batch.p_chosen * chosen + (1 - batch.p_chosen) * rejected)
        widening = pair_loss(log_odds(chosen) - log_odds(rejected), batch.p_chosen)
        loss = batch.mean(imitation + self.orpo_lambda * widening)
        metrics = pair_metrics(self.orpo_lambda * chosen, self.orpo_lambda * rejected, batch.p_chosen)
        return Loss.of(loss, {name: batch.mean(value) for name, value in metrics.items()})


def log_odds(logprob: Tensor) -> Tensor:
    """log P - log(1 - P) of log P at most 0, (B,); a certainty is held just below 1, where the odds are finite."""
    logprob = logprob.clamp(max=-1e-6)
    return logprob - torch.log(-torch.expm1(logprob))
