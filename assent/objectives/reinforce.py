"""REINFORCE: policy gradient with the batch's mean reward as baseline; no clip, no critic.

    R_i = score_i - beta sum_t (log pi - log ref)_t,  A_i = R_i - mean(R),  L = -mean_i A_i log pi(y_i | x)

Williams 1992 (doi:10.1007/BF00992696). It needs one step per rollout: nothing corrects for samples of an older policy.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import broadcast_to_tokens
from assent.functional.kl import sequence_kl
from assent.functional.surrogate import importance_ratio, log_ratio
from assent.types import NonNegativeFloat


@dataclass(frozen=True)
class Reinforce:
    """The plain policy gradient with the mean of the batch as baseline."""

    stage: ClassVar[str] = "online"
    needs_values: ClassVar[bool] = False
    needs_logprobs: ClassVar[bool] = True
    min_completions: ClassVar[int] = 1

    beta: NonNegativeFloat = 0.05
    """Coefficient of the KL penalty in the reward; 0 or more, .02 to .2."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Return rewards less their mean, on every token."""
        kl = sequence_kl(rollout.logprobs, rollout.reference_logprobs, rollout.mask)
        rewards = rollout.scores - self.beta * kl.k1
        relative = rewards - rewards.mean()
        metrics = {
            "score": rollout.scores.mean(),
            "reward": rewards.mean(),
            "advantage": relative.abs().mean(),
        }
        return Advantages(broadcast_to_tokens(relative, rollout.mask), None, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        logprobs = torch.where(batch.mask, batch.logprobs, 0.0)
        loss = batch.sequence_mean(-(torch.where(batch.mask, batch.advantages, 0.0) * logprobs).sum(1))
        log_ratios = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        metrics = {"policy_loss": loss} | batch.surrogate_metrics(log_ratios, importance_ratio(log_ratios))
        return Loss.of(loss, metrics)
