"""Log-probabilities of given tokens, computed in chunks: never positions x vocabulary at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from assent.functional.onednn import onednn_linear

CHUNK = 256
"""Positions whose logits exist at a time."""
GRAD_ROWS = 4096
"""Rows of a weight's gradient that exist at a time where they are added to another dtype."""


class TokenLogprobs(NamedTuple):
    """The log-probability of the token at each position, and the entropy of its distribution."""

    logprobs: Tensor  # (N,) float32
    entropy: Tensor | None  # (N,) float32, without gradient; None unless requested


def token_logprobs(
    hidden: Tensor,
    targets: Tensor,
    head: Callable[[Tensor], Tensor],
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int = CHUNK,
    weight_grad: Callable[[], Tensor] | None = None,
) -> TokenLogprobs:
    """Return log-probabilities of `targets` under softmax(head(hidden) / temperature).

    In training the logits of a chunk are computed again in the backward pass instead of being stored.

    Args:
        hidden: (N, H) states that predict the targets.
        targets: (N,) long.
        head: (n, H) -> (n, V) logits.
        temperature: > 0.
        entropy: compute the entropy too.
        chunk: positions at a time; the result does not depend on it.
        weight_grad: returns the (V, H) buffer to which the gradient of a linear head's weight is added in place; None
            leaves it to autograd.
    """

    linear = isinstance(head, nn.Linear) and head.bias is None

    def compute_chunk(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if linear:
            weight: Tensor = head.weight  # type: ignore[attr-defined]
            arguments = states, weight, tokens, temperature, entropy, weight_grad
            result: tuple[Tensor, Tensor] = _LinearLogprobs.apply(*arguments)  # type: ignore[no-untyped-call]
            return result
        logits = head(states).float()  # (n, V)
        logits = logits if temperature == 1 else logits / temperature
        chosen: Tensor = _SelectLogprobs.apply(logits, tokens)  # type: ignore[no-untyped-call]
        return chosen, _entropy(logits.detach()) if entropy else chosen.new_zeros(0)

    parts = []
    for start in range(0, len(targets), chunk):
        states, tokens = hidden[start : start + chunk], targets[start : start + chunk]
        if torch.is_grad_enabled() and not linear:
            parts.append(checkpoint(compute_chunk, states, tokens, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(compute_chunk(states, tokens))
    parts = parts or [(hidden.new_zeros(0, dtype=torch.float32),) * 2]
    logprobs = torch.cat([part[0] for part in parts])
    return TokenLogprobs(logprobs, torch.cat([part[1] for part in parts]) if entropy else None)


class _LinearLogprobs(torch.autograd.Function):
    """A linear head and log softmax(logits)[token] in one: nothing of the size of the vocabulary is stored."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        entropy: bool,
        weight_grad: Callable[[], Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """(n, H), (V, H), (n,) -> (n,), and the entropies (n,) or (0,)."""
        ctx.save_for_backward(states, tokens)
        ctx.weight = weight
        ctx.temperature = temperature
        ctx.weight_grad = weight_grad
        logits = _logits(states, weight, temperature)
        chosen = _select_logprobs(logits, tokens)
        entropies = _entropy(logits) if entropy else chosen.new_zeros(0)
        ctx.mark_non_differentiable(entropies)
        return chosen, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        """Recompute the logits, then send (one-hot - softmax) * grad to the states and to the weight."""
        states, tokens = ctx.saved_tensors
        weight = ctx.weight
        logits = _logits(states, weight, ctx.temperature)
        logits_grad = _logits_grad(logits, tokens, grad / ctx.temperature).to(states.dtype)
        dense = None
        if ctx.needs_input_grad[1]:
            if ctx.weight_grad is not None:
                _add_product(ctx.weight_grad(), logits_grad, states)
            else:
                dense = logits_grad.t() @ states
        return logits_grad @ weight, dense, None, None, None, None


def _logits(states: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return the logits, (n, V) float32."""
    logits = onednn_linear(states, weight).float()
    return logits if temperature == 1 else logits / temperature


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T (n, V) right (n, H) to total (V, H), without a temporary of its size."""
    if total.dtype == right.dtype:
        total.addmm_(left.t(), right)
        return
    for start in range(0, len(total), GRAD_ROWS):
        total[start : start + GRAD_ROWS] += left[:, start : start + GRAD_ROWS].t() @ right


class _SelectLogprobs(torch.autograd.Function):
    """log softmax(logits)[token] with one pass over the vocabulary each way; autograd's own takes five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        """(n, V), (n,) -> (n,)."""
        ctx.save_for_backward(logits, tokens)
        return _select_logprobs(logits, tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, (n, V)."""
        logits, tokens = ctx.saved_tensors
        return _logits_grad(logits, tokens, grad), None


def _select_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return log softmax(logits)[token], (n,)."""
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def _logits_grad(logits: Tensor, tokens: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of `_select_logprobs` with respect to the logits: (one-hot - softmax) * grad, (n, V)."""
    return logits.softmax(-1).mul_(-grad[:, None]).scatter_add_(-1, tokens[:, None], grad[:, None])


def _entropy(logits: Tensor) -> Tensor:
    """Return -sum p log p, (n,): more exact than logsumexp(z) - sum p z, a difference of large numbers."""
    probabilities = logits.softmax(-1)
    return -probabilities.xlogy_(probabilities).sum(-1)
