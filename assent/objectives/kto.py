"""KTO: raise approved completions above a reference point, disapproved ones below it; no pairs.

    r = log pi - log ref,  z = max(0, mean of log pi - log ref over mismatched completions), without gradient
    L = lambda_D (1 - s(beta (r - z))) if desirable, else lambda_U (1 - s(beta (z - r)))

Ethayarajh et al. 2024, eq. 8 (arXiv:2402.01306). z is estimated from this part of the step, as in the paper; fill
`mismatched` with its mean over the whole step to make the loss independent of how the step is cut.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from assent.batch import Loss, UnpairedLogprobs
from assent.types import NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class KTO:
    """The prospect-theoretic value of each completion."""

    stage: ClassVar[str] = "unpaired"

    beta: PositiveFloat = 0.1
    """Rate at which gains and losses saturate; above 0, .01 to 1."""
    desirable_weight: NonNegativeFloat = 1.0
    """Weight of desirable completions; the two products of weight and count should differ by at most 4/3."""
    undesirable_weight: NonNegativeFloat = 1.0
    """Weight of undesirable completions."""

    def __call__(self, batch: UnpairedLogprobs) -> Loss:
        reference_point = replace(batch, total=0.0).mean(batch.mismatched).clamp(min=0).detach()
        gain = self.beta * (batch.logprobs - batch.reference_logprobs - reference_point)
        gain = torch.where(batch.desirable, gain, -gain)
        ones = torch.ones_like(gain)
        weight = torch.where(batch.desirable, self.desirable_weight * ones, self.undesirable_weight * ones)
        losses = weight * torch.sigmoid(-gain)
        metrics = {"accuracy": (1 + gain.sign()) / 2, "margin": gain, "kl": reference_point.expand_as(gain)}
        return Loss.of_rows(batch, losses, metrics)
