"""Log-probabilities of chosen tokens, a chunk of positions at a time: never positions x vocabulary at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from assent.functional.onednn import wide

CHUNK = 256
"""Positions whose logits are made at a time."""
ROWS = 4096
"""Rows of a weight's gradient that are made at a time where they must be added to another type."""


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
    chunk: int = CHUNK,
) -> TokenLogprobs:
    """Log-probability of `targets` under softmax(head(hidden) / temperature).

    In training the logits of a chunk are made again in the backward pass instead of being kept. The gradient of a
    linear head whose weight has `main_grad` (a function that gives the tensor to add to) goes straight there.

    Args:
        hidden: (N, H) states that predict.
        targets: (N,) long.
        head: (n, H) -> (n, V) logits.
        temperature: > 0.
        entropy: whether to measure it too.
        chunk: positions at a time; the result does not depend on it.
    """

    linear = isinstance(head, nn.Linear) and head.bias is None

    def one(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if linear:
            found: tuple[Tensor, Tensor] = _Linear.apply(states, head.weight, tokens, temperature, entropy)  # type: ignore[no-untyped-call, attr-defined]
            return found
        logits = head(states).float()  # (n, V)
        logits = logits if temperature == 1 else logits / temperature
        chosen: Tensor = _Chosen.apply(logits, tokens)  # type: ignore[no-untyped-call]
        return chosen, _entropy(logits.detach()) if entropy else chosen.new_zeros(0)

    parts = []
    for start in range(0, len(targets), chunk):
        states, tokens = hidden[start : start + chunk], targets[start : start + chunk]
        if torch.is_grad_enabled() and not linear:
            parts.append(checkpoint(one, states, tokens, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(one(states, tokens))
    parts = parts or [(hidden.new_zeros(0, dtype=torch.float32),) * 2]
    logprobs = torch.cat([part[0] for part in parts])
    return TokenLogprobs(logprobs, torch.cat([part[1] for part in parts]) if entropy else None)


class _Linear(torch.autograd.Function):
    """A linear head and log softmax(logits)[token] in one, so that nothing as large as the vocabulary is kept."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, tokens: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """(n, H), (V, H), (n,) -> (n,), and the entropies (n,) or nothing."""
        ctx.save_for_backward(states, tokens)
        ctx.weight, ctx.temperature = weight, temperature
        logits = _logits(states, weight, temperature)
        chosen = _chosen(logits, tokens)
        uncertain = _entropy(logits) if entropy else chosen.new_zeros(0)
        ctx.mark_non_differentiable(uncertain)
        return chosen, uncertain

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """The logits once more, then (one-hot - softmax) * grad through the head, both ways."""
        states, tokens = ctx.saved_tensors
        weight = ctx.weight
        logits = _logits(states, weight, ctx.temperature)
        made = _downwards(logits, tokens, grad / ctx.temperature).to(states.dtype)
        dense = None
        if ctx.needs_input_grad[1]:
            if hasattr(weight, "main_grad"):
                _add_product(weight.main_grad(), made, states)
            else:
                dense = made.t() @ states
        return made @ weight, dense, None, None, None


def _logits(states: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """(n, V) float32."""
    logits = wide(states, weight).float()
    return logits if temperature == 1 else logits / temperature


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (V, H) += left^T (n, V) right (n, H), without a temporary as large as the total."""
    if total.dtype == right.dtype:
        total.addmm_(left.t(), right)
        return
    for start in range(0, len(total), ROWS):
        total[start : start + ROWS] += left[:, start : start + ROWS].t() @ right


class _Chosen(torch.autograd.Function):
    """log softmax(logits)[token] with one pass over the vocabulary each way, where autograd's own takes five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        """(n, V), (n,) -> (n,)."""
        ctx.save_for_backward(logits, tokens)
        return _chosen(logits, tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """To the logits, (n, V)."""
        logits, tokens = ctx.saved_tensors
        return _downwards(logits, tokens, grad), None


def _chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits)[token], (n,)."""
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def _downwards(logits: Tensor, tokens: Tensor, grad: Tensor) -> Tensor:
    """The gradient of `_chosen` with respect to the logits: (one-hot - softmax) * grad, (n, V)."""
    return logits.softmax(-1).mul_(-grad[:, None]).scatter_add_(-1, tokens[:, None], grad[:, None])


def _entropy(logits: Tensor) -> Tensor:
    """-sum p log p, (n,): a sum of small numbers, where logsumexp(z) - sum p z would be a difference of large ones."""
    probabilities = logits.softmax(-1)
    return -probabilities.xlogy_(probabilities).sum(-1)
