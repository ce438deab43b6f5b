"""Log-probabilities of chosen tokens, a chunk of positions at a time: never positions x vocabulary at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class TokenLogprobs(NamedTuple):
    """What the distribution at each position says of the token that stands there."""

    logprobs: Tensor  # (N,) float32
    entropy: Tensor  # (N,) float32, without gradient


def token_logprobs(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    temperature: float = 1.0,
    chunk: int = 512,
) -> TokenLogprobs:
    """Log-probability of `targets` under softmax(head(hidden) / temperature).

    In training the logits of a chunk are made again in the backward pass instead of being kept.

    Args:
        hidden: (N, H) states that predict.
        targets: (N,) long.
        head: (n, H) -> (n, V) logits.
        temperature: > 0.
        chunk: positions at a time; the result does not depend on it.
    """

    def one(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states).float() / temperature  # (n, V)
        normalizer = logits.logsumexp(-1)
        chosen = logits.gather(-1, tokens[:, None])[:, 0] - normalizer
        with torch.no_grad():
            logprobs = logits - normalizer[:, None]
            entropy = -(logprobs.exp() * logprobs).sum(-1)
        return chosen, entropy

    parts = []
    for states, tokens in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(one, states, tokens, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(one(states, tokens))
    if not parts:
        empty = hidden.new_zeros(0, dtype=torch.float32)
        return TokenLogprobs(empty, empty)
    return TokenLogprobs(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
