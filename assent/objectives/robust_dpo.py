"""Robust DPO: its expectation under flipped choices equals that of DPO under true choices.

    L(h) = [(1 - e) (-log s(h)) - e (-log s(-h))] / (1 - 2 e),  averaged as p L(h) + (1 - p) L(-h), h as in DPO

Chowdhury et al. 2024 (arXiv:2403.00409). The loss has no lower bound: it falls by e / (1 - 2 e) per unit of h.
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import LogprobPairs, Loss
from assent.errors import AssentError
from assent.functional.losses import pair_loss, pair_metrics
from assent.types import ErrorRate, PositiveFloat


@dataclass(frozen=True)
class RobustDPO:
    """DPO debiased for a known rate of flipped choices."""

    stage: ClassVar[str] = "offline"

    beta: PositiveFloat = 0.1
    """KL coefficient: larger keeps the policy closer to the reference; above 0, .01 to .5."""
    label_smoothing: ErrorRate = 0.1
    """Known share of flipped choices; from 0 (plain DPO) to below .5."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise AssentError(f"robust_dpo: label_smoothing is {self.label_smoothing}: choose one from 0 to below 0.5")

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = self.beta * (batch.chosen - batch.reference_chosen)
        rejected = self.beta * (batch.rejected - batch.reference_rejected)
        e = self.label_smoothing
        debiased = (batch.p_chosen - e) / (1 - 2 * e)  # may leave [0, 1]
        losses = pair_loss(chosen - rejected, debiased)
        metrics = pair_metrics(chosen, rejected, batch.p_chosen)
        return Loss.of_rows(batch, losses, metrics)
