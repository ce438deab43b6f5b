"""Log-probabilities of chosen tokens, a chunk of positions at a time: never positions x vocabulary at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class TokenLogprobs(NamedTuple):
    """What the distribution at each position says of the token that stands there."""

    logprobs: Tensor  # (N,) float32
    entropy: Tensor | None  # (N,) float32, without gradient, if asked for


def token_logprobs(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int = 512,
) -> TokenLogprobs:
    """Log-probability of `targets` under softmax(head(hidden) / temperature).

    In training the logits of a chunk are made again in the backward pass instead of being kept.

    Args:
        hidden: (N, H) states that predict.
        targets: (N,) long.
        head: (n, H) -> (n, V) logits.
        temperature: > 0.
        entropy: whether to measure it too.
        chunk: positions at a time; the result does not depend on it.
    """

    def one(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states).float()  # (n, V)
        logits = logits if temperature == 1 else logits / temperature
        normalizer = logits.logsumexp(-1)
        chosen = logits.gather(-1, tokens[:, None])[:, 0] - normalizer
        return chosen, _entropy(logits.detach()) if entropy else normalizer.new_zeros(0)

    parts = []
    for start in range(0, len(targets), chunk):
        states, tokens = hidden[start : start + chunk], targets[start : start + chunk]
        if torch.is_grad_enabled():
            parts.append(checkpoint(one, states, tokens, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(one(states, tokens))
    parts = parts or [(hidden.new_zeros(0, dtype=torch.float32),) * 2]
    logprobs = torch.cat([part[0] for part in parts])
    return TokenLogprobs(logprobs, torch.cat([part[1] for part in parts]) if entropy else None)


def _entropy(logits: Tensor) -> Tensor:
    """-sum p log p, (n,): a sum of small numbers, where logsumexp(z) - sum p z would be a difference of large ones."""
    probabilities = logits.softmax(-1)
    return -probabilities.xlogy_(probabilities).sum(-1)
