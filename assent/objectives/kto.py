"""KTO: approved completions should gain on a reference point, disapproved ones fall below it; no pairs needed.

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
    """The prospect-theoretic value of each completion, on its own."""

    stage: ClassVar[str] = "unpaired"

    beta: PositiveFloat = 0.1
    """How quickly gains and losses saturate; above 0, .01 to 1."""
    desirable_weight: NonNegativeFloat = 1.0
    """Weight of approved completions; choose both so that weight times count differ by at most 4/3."""
    undesirable_weight: NonNegativeFloat = 1.0
    """Weight of disapproved completions."""

    def __call__(self, batch: UnpairedLogprobs) -> Loss:
        point = replace(batch, total=0.0).mean(batch.mismatched).clamp(min=0).detach()
        gain = self.beta * (batch.logprobs - batch.reference_logprobs - point)
        gain, one = torch.where(batch.desirable, gain, -gain), torch.ones_like(gain)
        scale = torch.where(batch.desirable, self.desirable_weight * one, self.undesirable_weight * one)
        loss = batch.mean(scale * torch.sigmoid(-gain))
        metrics = {"accuracy": (1 + gain.sign()) / 2, "margin": gain, "kl": point.expand_as(gain)}
        return Loss.of(loss, {name: batch.mean(value) for name, value in metrics.items()})
