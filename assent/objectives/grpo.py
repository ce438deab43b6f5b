"""GRPO: PPO without a critic: a completion is good if it scores above the others of its prompt.

    A_i = (r_i - mean(group)) / (std(group) + 1e-4), the same for each token of completion i
    L = average over tokens of max(-A rho, -A clip(rho, 1 - low, 1 + high)) + beta k3(pi, ref)

Shao et al. 2024, eq. 3 and 4 (arXiv:2402.03300), whose A has no 1e-4: that is TRL's (GRPOTrainer). As a loss k3 has the
gradient of KL(ref || pi), and k2 that of KL(pi || ref): `assent.functional.kl`.

The averages: `grpo` a mean over completions of means over tokens; `dr_grpo` a mean over completions of sums over a
constant (Liu et al. 2025, arXiv:2503.20783); `dapo` a mean over all tokens (Yu et al. 2025, arXiv:2503.14476).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import group_metrics, group_relative, spread
from assent.functional.kl import KLEstimator, k3, kl_loss
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
    """Weight of the KL penalty, which stands in the loss, not in the reward; 0 or more."""
    kl_estimator: KLEstimator = "k3"
    """The penalty: k3 has the gradient of the forward KL(ref || pi), k2 that of the reverse KL(pi || ref)."""
    epsilon_low: Fraction = 0.2
    """How far below 1 a ratio still counts; 0 to 1."""
    epsilon_high: PositiveFloat = 0.2
    """How far above 1 a ratio still counts; above 0; .28 lets rare tokens rise (DAPO)."""
    scale_rewards: Literal["std", "none"] = "std"
    """Divide by the group's deviation, or leave hard and easy prompts as they are (Dr. GRPO)."""
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    """What a token's loss is divided by: its completion's length, the constant `length`, or the step's tokens."""
    max_completion_length: PositiveFloat = 256.0
    """The constant of `dr_grpo`: the limit on a completion's tokens; above 0."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Group-relative scores on every token; the KL is paid in the loss."""
        relative = group_relative(rollout.scores, rollout.groups, self.scale_rewards == "std")
        metrics = group_metrics(rollout.scores, relative, rollout.groups)
        return Advantages(spread(relative, rollout.mask), None, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        shift = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        ratio = importance_ratio(shift)
        advantages = torch.where(batch.mask, batch.advantages, 0.0)
        surrogate = clipped_surrogate(ratio, advantages, self.epsilon_low, self.epsilon_high)
        away = log_ratio(batch.logprobs, batch.reference_logprobs, batch.mask)
        policy_loss = self._average(batch, surrogate.loss)
        penalty = self.beta * self._average(batch, kl_loss(away, self.kl_estimator))
        loss = policy_loss + penalty
        metrics = {
            "policy_loss": policy_loss,
            "penalty": penalty,
            "ratio": batch.token_mean(ratio),
            "clip_fraction": batch.token_mean(surrogate.clipped),
            "approx_kl": batch.token_mean(k3(-shift, 0.0)),
        }
        return Loss.of(loss, metrics)

    def _average(self, batch: PolicyBatch, losses: Tensor) -> Tensor:
        """One number from (B, T), which is 0 outside the mask."""
        if self.loss_type == "dapo":
            return batch.token_mean(losses)
        lengths = batch.mask.sum(1).clamp(min=1) if self.loss_type == "grpo" else self.max_completion_length
        return batch.sequence_mean(losses.sum(1) / lengths)
