"""PPO: clipped policy gradient with a value model and GAE.

    r_t = -beta (log pi - log ref)_t + score at the last token;  A by GAE, whitened;  R = A + V before whitening
    L = mean_t max(-A rho, -A clip(rho, 1 - low, 1 + high)) + coefficient mean_t 1/2 max((V - R)^2, (V_clipped - R)^2)

Schulman et al. 2017, eq. 7 (arXiv:1707.06347); rewards of Ziegler et al. 2019 (arXiv:1909.08593); defaults
from Huang et al. 2024 (arXiv:2403.17031). Means are over the completion tokens of the step.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.functional.advantages import gae, token_rewards
from assent.functional.kl import k1
from assent.functional.surrogate import clipped_surrogate, clipped_value_loss, importance_ratio, log_ratio
from assent.functional.whitening import explained_variance, moments, whiten
from assent.types import Fraction, NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class PPO:
    """Clipped policy gradient with a value model."""

    stage: ClassVar[str] = "online"
    needs_values: ClassVar[bool] = True
    needs_logprobs: ClassVar[bool] = True
    min_completions: ClassVar[int] = 1

    beta: NonNegativeFloat = 0.05
    """Coefficient of the KL penalty in the reward; 0 or more, .02 to .2."""
    epsilon_low: Fraction = 0.2
    """Clip of the ratio below 1; 0 to 1."""
    epsilon_high: PositiveFloat = 0.2
    """Clip of the ratio above 1; above 0."""
    vf_clip: NonNegativeFloat = 0.2
    """Clip of a value's change in the value loss; 0 turns it off."""
    vf_coef: NonNegativeFloat = 0.1
    """Weight of the value loss; 0 or more."""
    gamma: Fraction = 1.0
    """Discount per token; 0 to 1, and 1 for language."""
    gae_lambda: Fraction = 0.95
    """Lambda of GAE. 0: one-step TD errors; 1: Monte Carlo returns."""
    dual_clip: NonNegativeFloat = 0.0
    """Bound of the loss of a token with A < 0, in units of -A; above 1, such as 3; 0 turns it off."""

    def advantages(self, rollout: Rollout) -> Advantages:
        """Return whitened advantages and returns that are not whitened."""
        assert rollout.values is not None, "PPO needs the value model's values in its rollout"
        mask = rollout.mask
        rewards = token_rewards(rollout.scores, k1(rollout.logprobs, rollout.reference_logprobs), mask, self.beta)
        estimate = gae(rewards, rollout.values, mask, self.gamma, self.gae_lambda)
        metrics = {
            "score": rollout.scores.mean(),
            "reward": rewards.sum(1).mean(),
            "advantage": moments(estimate.advantages.abs(), mask).mean,
            "explained_variance": explained_variance(rollout.values, estimate.returns, mask),
        }
        return Advantages(whiten(estimate.advantages, mask), estimate.returns, metrics)

    def __call__(self, batch: PolicyBatch) -> Loss:
        log_ratios = log_ratio(batch.logprobs, batch.old_logprobs, batch.mask)
        ratio = importance_ratio(log_ratios)
        advantages = torch.where(batch.mask, batch.advantages, 0.0)
        surrogate = clipped_surrogate(ratio, advantages, self.epsilon_low, self.epsilon_high, self.dual_clip)
        policy_loss = batch.token_mean(surrogate.loss)
        loss = policy_loss
        metrics = {"policy_loss": policy_loss} | batch.surrogate_metrics(log_ratios, ratio, surrogate.clipped)
        if batch.values is not None:
            assert batch.old_values is not None and batch.returns is not None, "values need old values and returns"
            errors = clipped_value_loss(batch.values, batch.old_values, batch.returns, batch.mask, self.vf_clip)
            metrics["value_loss"] = batch.token_mean(errors)
            loss = policy_loss + self.vf_coef * metrics["value_loss"]
        return Loss.of(loss, metrics)
