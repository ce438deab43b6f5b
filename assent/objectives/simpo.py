"""SimPO: the reward is a completion's mean log-probability, with a target margin; no reference.

    h = beta [log pi(chosen) / |chosen| - log pi(rejected) / |rejected|],  L = -log s(h - gamma)

Meng et al. 2024, eq. 6 (arXiv:2405.14734). With a soft p: p L(h) + (1 - p) L(-h).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import softplus

from assent.batch import LogprobPairs, Loss
from assent.functional.losses import pair_metrics
from assent.types import NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class SimPO:
    """Bradley-Terry on length-normalised log-probabilities, with a target margin."""

    stage: ClassVar[str] = "offline"

    beta: PositiveFloat = 2.0
    """Scale of the rewards; above 0, 2 to 10 in the paper."""
    gamma: NonNegativeFloat = 1.0
    """Target lead of the chosen reward; 0 or more, .25 to .5 times beta."""

    def __call__(self, batch: LogprobPairs) -> Loss:
        chosen = self.beta * batch.chosen / batch.chosen_tokens.clamp(min=1)
        rejected = self.beta * batch.rejected / batch.rejected_tokens.clamp(min=1)
        h = chosen - rejected
        p = batch.p_chosen
        losses = p * softplus(self.gamma - h) + (1 - p) * softplus(self.gamma + h)
        metrics = pair_metrics(chosen, rejected, p)
        return Loss.of_rows(batch, losses, metrics)
