"""GSPO: GRPO whose ratio is that of the whole completion, since it is the whole completion that is scored.

    s_i = (pi(y_i | x) / pi_old(y_i | x))^(1 / |y_i|),  L = mean_i max(-A_i s_i, -A_i clip(s_i, 1 - low, 1 + high))

Zheng et al. 2025, eq. 5 to 7 (arXiv:2507.18071); A as in GRPO.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import group_metrics, group_relative, spread
from assent.functional.kl import KLEstimator, k3, kl_loss
from assent.functional.surrogate import clipped_surrogate, importance_ratio, log_ratio
from assent.types import Fraction, NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class GSPO:
    """Clipped policy gradient on length-normalised ratios of completions."""

    stage: ClassVar[str] = "online"
    needs_values: ClassVar[bool] = False
    needs_logprobs: ClassVar[bool] = False
    min_completions: ClassVar[int] = 2

    beta: NonNegativeFloat = 0.0
    """Weight of the KL penalty (mean over a completion's tokens) in the loss; the paper leaves it out."""
    kl_estimator: KLEstimator = "k3"
    """The penalty: k3 has the gradient of the forward KL(ref || pi), k2 that of the reverse KL(pi || ref)."""
    epsilon_low: Fraction = 3e-4
    """How far below 1 a ratio still counts; far smaller than for tokens."""
    epsilon_high: PositiveFloat = 4e-4
    """How far above 1 a ratio still counts."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Group-relative scores on every token; the KL is paid in the loss."""
        relative = group_relative(rollout.scores, rollout.groups)
        metrics = group_metrics(rollout.scores, relative, rollout.groups)
        return Advantages(spread(relative, rollout.mask), None, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        lengths = batch.mask.sum(1).clamp(min=1)  # (B,)
        shift = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        ratio = importance_ratio(shift.sum(1) / lengths)
        advantages = torch.where(batch.mask, batch.advantages, 0.0).sum(1) / lengths
        surrogate = clipped_surrogate(ratio, advantages, self.epsilon_low, self.epsilon_high)
        away = log_ratio(batch.logprobs, batch.reference_logprobs, batch.mask)
        policy_loss = batch.sequence_mean(surrogate.loss)
        penalty = self.beta * batch.sequence_mean(kl_loss(away, self.kl_estimator).sum(1) / lengths)
        loss = policy_loss + penalty
        metrics = {
            "policy_loss": policy_loss,
            "penalty": penalty,
            "ratio": batch.sequence_mean(ratio),
            "clip_fraction": batch.sequence_mean(surrogate.clipped),
            "approx_kl": batch.token_mean(k3(-shift, 0.0)),
        }
        return Loss.of(loss, metrics)
