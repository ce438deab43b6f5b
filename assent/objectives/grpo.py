"""GRPO: PPO without a critic; the advantage is a score relative to its prompt's completions.

    A_i = (r_i - mean(group)) / (std(group) + 1e-4), the same for each token of completion i
    L = average over tokens of max(-A rho, -A clip(rho, 1 - low, 1 + high)) + beta k3(pi, ref)

Shao et al. 2024, eq. 3 and 4 (arXiv:2402.03300), whose A has no 1e-4: that is TRL's (GRPOTrainer). As a loss k3 has the
gradient of KL(ref || pi), and k2 that of KL(pi || ref): see `assent.functional.kl`.

The averages: `grpo` a mean over completions of means over tokens; `dr_grpo` a mean over completions of sums over a
constant (Liu et al. 2025, arXiv:2503.20783); `dapo` a mean over all tokens (Yu et al. 2025, arXiv:2503.14476).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import broadcast_to_tokens, group_metrics, group_relative
from assent.functional.kl import KLEstimator, kl_loss
from assent.functional.surrogate import clipped_surrogate, importance_ratio, log_ratio
from assent.types import Fraction, NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class GRPO:
    """Clipped policy gradient with advantages relative to a prompt's group."""

    stage: ClassVar[str] = "online"
    needs_values: ClassVar[bool] = False
    needs_logprobs: ClassVar[bool] = False
    min_completions: ClassVar[int] = 2

    beta: NonNegativeFloat = 0.04
    """Weight of the KL penalty in the loss (not in the reward); 0 or more."""
    kl_estimator: KLEstimator = "k3"
    """Estimator of the penalty: k3 has the gradient of KL(ref || pi) (forward), k2 that of KL(pi || ref) (reverse)."""
    epsilon_low: Fraction = 0.2
    """Clip of the ratio below 1; 0 to 1."""
    epsilon_high: PositiveFloat = 0.2
    """Clip of the ratio above 1; above 0; with .28 rare tokens can rise (DAPO)."""
    scale_rewards: Literal["group", "none"] = "group"
    """Divide advantages by the group's standard deviation, or not (Dr. GRPO)."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    """Divisor of a token's loss: its completion's length, `max_completion_length`, or the tokens of the step."""
    max_completion_length: PositiveFloat = 256.0
    """Divisor of `dr_grpo`: the limit on a completion's tokens; above 0."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Return group-relative scores on every token; the KL penalty is part of the loss."""
        relative = group_relative(rollout.scores, rollout.groups, self.scale_rewards == "group")
        metrics = group_metrics(rollout.scores, relative, rollout.groups)
        return Advantages(broadcast_to_tokens(relative, rollout.mask), None, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        log_ratios = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        ratio = importance_ratio(log_ratios)
        advantages = torch.where(batch.mask, batch.advantages, 0.0)
        surrogate = clipped_surrogate(ratio, advantages, self.epsilon_low, self.epsilon_high)
        reference_log_ratios = log_ratio(batch.logprobs, batch.reference_logprobs, batch.mask)
        policy_loss = self._average(batch, surrogate.loss)
        penalty = self.beta * self._average(batch, kl_loss(reference_log_ratios, self.kl_estimator))
        metrics = {"policy_loss": policy_loss, "kl_loss": penalty}
        return Loss.of(policy_loss + penalty, metrics | batch.surrogate_metrics(log_ratios, ratio, surrogate.clipped))

    def _average(self, batch: PolicyBatch, losses: Tensor) -> Tensor:
        """Return the mean of (B, T) by `loss_type`; the losses are 0 outside the mask."""
        if self.loss_type == "dapo":
            return batch.token_mean(losses)
        lengths = batch.mask.sum(1).clamp(min=1) if self.loss_type == "grpo" else self.max_completion_length
        return batch.sequence_mean(losses.sum(1) / lengths)
