"""How far a policy has moved from its reference: per-token estimators of KL(pi || ref), and the controller of beta.

With l = log pi - log ref on tokens drawn from pi: k1 = l, k2 = l^2 / 2, k3 = e^-l - 1 + l. In expectation k1 and k3
are the KL; k3 is never negative and varies less. Schulman 2020, "Approximating KL divergence"
(joschu.net/blog/kl-approx.html). Nothing is clamped.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class SequenceKL(NamedTuple):
    """Both estimators of each completion's KL, summed over its tokens."""

    k1: Tensor  # (B,)
    k3: Tensor  # (B,)

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Their means over the completions."""
        return {"kl": self.k1.mean(), "kl_k3": self.k3.mean()}


def k1(logprobs: Tensor, reference: Tensor | float) -> Tensor:
    """The log-ratio itself: unbiased, of either sign. Shapes are those of the arguments."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor | float) -> Tensor:
    """Half the squared log-ratio: biased, but its gradient is that of the KL."""
    return (logprobs - reference).square() / 2


def k3(logprobs: Tensor, reference: Tensor | float) -> Tensor:
    """The log-ratio plus a term of mean zero that makes every sample non-negative: unbiased."""
    difference = logprobs - reference
    return torch.expm1(-difference) + difference


def sequence_kl(logprobs: Tensor, reference: Tensor, mask: Tensor) -> SequenceKL:
    """Sum k1 and k3 over each completion's tokens; what stands outside the mask is never read.

    Args: logprobs, reference: (B, T). mask: (B, T) bool.
    """
    logprobs, reference = torch.where(mask, logprobs, 0.0), torch.where(mask, reference, 0.0)
    return SequenceKL(k1(logprobs, reference).sum(1), k3(logprobs, reference).sum(1))


def adapt_beta(beta: float, kl: float, target: float, n: float, horizon: float) -> float:
    """Move beta so that the KL approaches its target. Ziegler et al. 2019, section 2.2 (arXiv:1909.08593).

    Args:
        kl: measured, nats a completion.
        target: wanted, nats a completion, above 0.
        n: completions since the last step.
        horizon: completions over which a KL that is off by 20 % or more changes beta by about 20 %.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * n / horizon)
