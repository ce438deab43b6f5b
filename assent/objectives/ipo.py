"""IPO: regress the margin of log-ratios to a fixed gap, so that certain choices cannot push it to infinity.

    L = (margin - (2 p - 1) / (2 beta))^2,  margin = (log pi - log ref)(chosen) - (log pi - log ref)(rejected)

Azar et al. 2023, eq. 17 (arXiv:2310.12036), where p = 1; a soft p asks for the expected gap.
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import LogprobPairs, Loss
from assent.functional.losses import pair_metrics
from assent.types import PositiveFloat


@dataclass(frozen=True)
class IPO:
    """Squared distance of each pair's margin from the gap that `beta` asks for."""

    stage: ClassVar[str] = "offline"

    beta: PositiveFloat = 0.1
    """How firmly the reference holds the policy back; above 0; the gap is 1 / (2 beta)."""
    per_token: bool = False
    """Divide each completion's log-ratio by its length, as the authors run it; the paper's equation does not."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen, rejected = batch.chosen - batch.reference_chosen, batch.rejected - batch.reference_rejected
        if self.per_token:
            chosen, rejected = chosen / batch.chosen_tokens.clamp(min=1), rejected / batch.rejected_tokens.clamp(min=1)
        gap = (2 * batch.p_chosen - 1) / (2 * self.beta)
        loss = batch.mean((chosen - rejected - gap).square())
        metrics = pair_metrics(self.beta * chosen, self.beta * rejected, batch.p_chosen)
        return Loss.of(loss, {name: batch.mean(value) for name, value in metrics.items()})
