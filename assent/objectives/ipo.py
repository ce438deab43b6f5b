"""IPO: regress the margin of log-ratios to a fixed gap, so that unanimous choices cannot overfit.

    L = (margin - (2 p - 1) / (2 beta))^2,  margin = (log pi - log ref)(chosen) - (log pi - log ref)(rejected)

Azar et al. 2023, eq. 17 (arXiv:2310.12036), where p = 1; with a soft p the gap is the expected one.
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import LogprobPairs, Loss
from assent.functional.losses import pair_metrics
from assent.types import PositiveFloat


@dataclass(frozen=True)
class IPO:
    """Squared distance of each pair's margin from the gap that `beta` sets."""

    stage: ClassVar[str] = "offline"

    beta: PositiveFloat = 0.1
    """KL coefficient: larger keeps the policy closer to the reference; above 0; the gap is 1 / (2 beta)."""
    per_token: bool = False
    """Divide each completion's log-ratio by its length, as the authors' code does; the paper's equation does not."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = batch.chosen - batch.reference_chosen
        rejected = batch.rejected - batch.reference_rejected
        if self.per_token:
            chosen = chosen / batch.chosen_tokens.clamp(min=1)
            rejected = rejected / batch.rejected_tokens.clamp(min=1)
        gap = (2 * batch.p_chosen - 1) / (2 * self.beta)
        losses = (chosen - rejected - gap).square()
        metrics = pair_metrics(self.beta * chosen, self.beta * rejected, batch.p_chosen)
        return Loss.of_rows(batch, losses, metrics)
