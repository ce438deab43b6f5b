"""cDPO: DPO that assumes a share e of flipped choices, and so stops at a finite margin.

    q = p (1 - e) + (1 - p) e,  L = -[q log s(h) + (1 - q) log s(-h)], h as in DPO

Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO" (ericmitchell.ai/cdpo.pdf).
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import LogprobPairs, Loss
from assent.functional.losses import pair_loss, pair_metrics
from assent.types import ErrorRate, PositiveFloat


@dataclass(frozen=True)
class CDPO:
    """DPO with smoothed labels; its minimum is at s(h) = 1 - e."""

    stage: ClassVar[str] = "offline"

    beta: PositiveFloat = 0.1
    """KL coefficient: larger keeps the policy closer to the reference; above 0, .01 to .5."""
    label_smoothing: ErrorRate = 0.1
    """Assumed share of flipped choices; from 0 (plain DPO) to below .5."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = self.beta * (batch.chosen - batch.reference_chosen)
        rejected = self.beta * (batch.rejected - batch.reference_rejected)
        smoothed = batch.p_chosen * (1 - self.label_smoothing) + (1 - batch.p_chosen) * self.label_smoothing
        losses = pair_loss(chosen - rejected, smoothed)
        metrics = pair_metrics(chosen, rejected, batch.p_chosen)
        return Loss.of_rows(batch, losses, metrics)
