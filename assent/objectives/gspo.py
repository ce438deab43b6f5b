"""GSPO: GRPO with sequence-level importance ratios.

    s_i = (pi(y_i | x) / pi_old(y_i | x))^(1 / |y_i|),  L = mean_i max(-A_i s_i, -A_i clip(s_i, 1 - low, 1 + high))

Zheng et al. 2025, eq. 5 to 7 (arXiv:2507.18071); A as in GRPO.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import broadcast_to_tokens, group_metrics, group_relative
from assent.functional.kl import KLEstimator, kl_loss
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
    """Weight of the KL penalty (mean over a completion's tokens) in the loss; the paper has none."""
    kl_estimator: KLEstimator = "k3"
    """Estimator of the penalty: k3 has the gradient of KL(ref || pi) (forward), k2 that of KL(pi || ref) (reverse)."""
    epsilon_low: Fraction = 3e-4
    """Clip of the ratio below 1; far smaller than for tokens."""
    epsilon_high: PositiveFloat = 4e-4
    """Clip of the ratio above 1."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Return group-relative scores on every token; the KL penalty is part of the loss."""
        relative = group_relative(rollout.scores, rollout.groups)
        metrics = group_metrics(rollout.scores, relative, rollout.groups)
        return Advantages(broadcast_to_tokens(relative, rollout.mask), None, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        lengths = batch.mask.sum(1).clamp(min=1)  # (B,)
        log_ratios = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        ratio = importance_ratio(log_ratios.sum(1) / lengths)
        advantages = torch.where(batch.mask, batch.advantages, 0.0).sum(1) / lengths
        surrogate = clipped_surrogate(ratio, advantages, self.epsilon_low, self.epsilon_high)
        reference_log_ratios = log_ratio(batch.logprobs, batch.reference_logprobs, batch.mask)
        policy_loss = batch.sequence_mean(surrogate.loss)
        penalty = self.beta * batch.sequence_mean(kl_loss(reference_log_ratios, self.kl_estimator).sum(1) / lengths)
        metrics = {"policy_loss": policy_loss, "kl_loss": penalty}
        return Loss.of(policy_loss + penalty, metrics | batch.surrogate_metrics(log_ratios, ratio, surrogate.clipped))
