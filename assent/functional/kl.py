"""KL divergence of a policy from its reference: estimators of a token's KL(pi || ref), and the controller of beta.

With l = log pi - log ref on tokens drawn from pi: k1 = l, k2 = l^2 / 2, k3 = e^-l - 1 + l. In expectation k1 and k3
are the KL; k3 is never negative and varies less. Schulman 2020, "Approximating KL divergence"
(joschu.net/blog/kl-approx.html). Only `kl_loss` clamps.

An estimator of a value is not one of its gradient: as a loss it is differentiated on tokens that are already sampled,
and grad k = k'(l) grad log pi. On the policy's own tokens, of which E_pi[grad log pi] = 0,

    E_pi[grad k1] = 0
    E_pi[grad k2] = E_pi[l grad log pi] = grad KL(pi || ref)
    E_pi[grad k3] = E_pi[(1 - ref / pi) grad log pi] = -E_ref[grad log pi] = grad KL(ref || pi)

for each token given the tokens before it. So k2 is mode-seeking (the reverse KL, KL(pi || ref)), and k3 is
mass-covering (the forward KL, KL(ref || pi)).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from assent.functional.surrogate import MAX_LOG_RATIO

KLEstimator = Literal["k3", "k2"]
"""Estimators that are usable as a loss; the gradient of k1 is 0 on average."""


class SequenceKL(NamedTuple):
    """Two estimators of each completion's KL, summed over its tokens."""

    k1: Tensor  # (B,)
    k3: Tensor  # (B,)

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Return their means over the completions."""
        return {"kl": self.k1.mean(), "kl_k3": self.k3.mean()}


def k1(logprobs: Tensor, reference: Tensor | float) -> Tensor:
    """Return the log-ratio itself: unbiased, of either sign. Shapes are those of the arguments."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor | float) -> Tensor:
    """Return half the squared log-ratio: biased, but its gradient on own tokens is that of KL(pi || ref)."""
    return (logprobs - reference).square() / 2


def k3(logprobs: Tensor, reference: Tensor | float) -> Tensor:
    """Return the log-ratio plus a term of mean zero that makes every sample non-negative: unbiased.

    As a loss its gradient on the policy's own tokens is that of KL(ref || pi), the forward KL: see `kl_loss`.
    """
    difference = logprobs - reference
    return torch.expm1(-difference) + difference


def kl_loss(log_ratios: Tensor, estimator: KLEstimator) -> Tensor:
    """Return each token's KL penalty in a loss, in nats; shapes are those of `log_ratios`, log pi - log ref.

    On the policy's own tokens the mean gradient of `k3` is that of KL(ref || pi) (forward KL), although its value is
    KL(pi || ref); that of `k2` is that of KL(pi || ref) (reverse KL). k3 is constant below a log-ratio of -20, where
    e^-l would overflow.
    """
    return k2(log_ratios, 0.0) if estimator == "k2" else k3(log_ratios.clamp(min=-MAX_LOG_RATIO), 0.0)


def sequence_kl(logprobs: Tensor, reference: Tensor, mask: Tensor) -> SequenceKL:
    """Sum k1 and k3 over each completion's tokens; values outside the mask are never read.

    Args: logprobs, reference: (B, T). mask: (B, T) bool.
    """
    logprobs, reference = torch.where(mask, logprobs, 0.0), torch.where(mask, reference, 0.0)
    return SequenceKL(k1(logprobs, reference).sum(1), k3(logprobs, reference).sum(1))


def adapt_beta(beta: float, kl: float, target: float, n: float, horizon: float) -> float:
    """Move beta so that the KL approaches its target. Ziegler et al. 2019, section 2.2 (arXiv:1909.08593).

    Args:
        kl: measured, in nats per completion.
        target: nats per completion, above 0.
        n: completions since the last step.
        horizon: completions over which beta changes by at most about 20 %: by that much if the KL is off by 20 % or
            more.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * n / horizon)
