"""RLOO: the baseline of a completion is the mean reward of the prompt's other completions.

    R_i = score_i - beta sum_t (log pi - log ref)_t,  A_i = R_i - mean_{j != i} R_j
    L = mean_i max(-A_i rho_i, -A_i clip(rho_i, 1 - low, 1 + high)),  rho_i = pi(y_i | x) / pi_old(y_i | x)

Ahmadian et al. 2024, section 3 (arXiv:2402.14740); Kool et al. 2019. On the policy's own samples rho = 1, and the
gradient is the paper's -A_i grad log pi(y_i | x); the clip matters only when a rollout serves several steps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import broadcast_to_tokens, group_metrics, leave_one_out
from assent.functional.kl import sequence_kl
from assent.functional.surrogate import clipped_surrogate, importance_ratio, log_ratio
from assent.types import Fraction, NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class RLOO:
    """REINFORCE on whole completions with a leave-one-out baseline; needs two or more completions per prompt."""

    stage: ClassVar[str] = "online"
    needs_values: ClassVar[bool] = False
    needs_logprobs: ClassVar[bool] = True
    min_completions: ClassVar[int] = 2

    beta: NonNegativeFloat = 0.05
    """Coefficient of the KL penalty in the reward; 0 or more, .02 to .2."""
    epsilon_low: Fraction = 0.2
    """Clip of a completion's ratio below 1; 0 to 1."""
    epsilon_high: PositiveFloat = 0.2
    """Clip of a completion's ratio above 1; above 0."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Return leave-one-out rewards on every token."""
        kl = sequence_kl(rollout.logprobs, rollout.reference_logprobs, rollout.mask)
        rewards = rollout.scores - self.beta * kl.k1
        relative = leave_one_out(rewards, rollout.groups)
        metrics = group_metrics(rollout.scores, relative, rollout.groups) | {"reward": rewards.mean()}
        return Advantages(broadcast_to_tokens(relative, rollout.mask), None, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        log_ratios = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        ratio = importance_ratio(log_ratios.sum(1))  # (B,)
        advantages = torch.where(batch.mask, batch.advantages, 0.0).sum(1) / batch.mask.sum(1).clamp(min=1)
        surrogate = clipped_surrogate(ratio, advantages, self.epsilon_low, self.epsilon_high)
        loss = batch.sequence_mean(surrogate.loss)
        metrics = {"policy_loss": loss} | batch.surrogate_metrics(log_ratios, ratio, surrogate.clipped)
        return Loss.of(loss, metrics)
