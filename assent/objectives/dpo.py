"""DPO: fit the policy to comparisons directly; its log-ratio to the reference is the reward.

    h = beta [(log pi - log ref)(chosen) - (log pi - log ref)(rejected)],  L = -[p log s(h) + (1 - p) log s(-h)]

Rafailov et al. 2023, eq. 7 (arXiv:2305.18290), where p = 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import LogprobPairs, Loss
from assent.functional.losses import pair_loss, pair_metrics
from assent.types import PositiveFloat


@dataclass(frozen=True)
class DPO:
    """Bradley-Terry on the rewards beta * log-ratio."""

    stage: ClassVar[str] = "offline"

    beta: PositiveFloat = 0.1
    """KL coefficient: larger keeps the policy closer to the reference; above 0, .01 to .5."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = self.beta * (batch.chosen - batch.reference_chosen)
        rejected = self.beta * (batch.rejected - batch.reference_rejected)
        losses = pair_loss(chosen - rejected, batch.p_chosen)
        metrics = pair_metrics(chosen, rejected, batch.p_chosen)
        return Loss.of_rows(batch, losses, metrics)
