"""From a model and a pack of trees to numbers: log-probabilities of the branches, or scalar scores."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from assent.functional.logprobs import TokenLogprobs, token_logprobs
from assent.models.attention import Pack


def states(model: nn.Module, pack: Pack) -> Tensor:
    """Last hidden states of every token of a pack, (S, H)."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    out = body(
        input_ids=pack.tokens, position_ids=pack.positions, attention_mask=pack.mask, shared=pack, use_cache=False
    )
    hidden = out.last_hidden_state[0]
    assert isinstance(hidden, Tensor)
    return hidden


def logprobs(model: nn.Module, pack: Pack, temperature: float = 1.0, entropy: bool = False) -> TokenLogprobs:
    """Log-probability, and entropy if asked for, of every branch token, each (N,)."""
    return token_logprobs(states(model, pack)[pack.sources], pack.targets, head(model), temperature, entropy)


def scores(model: nn.Module, pack: Pack) -> Tensor:
    """A reward model's score of each branch, read at its last token, (B, heads) float32, as its heads give it."""
    found: Tensor = _score(model)(states(model, pack)[pack.last])
    return found.float()


def values(model: nn.Module, pack: Pack) -> Tensor:
    """A value model's estimate in the state in which each branch token is chosen, (N,) float32."""
    estimates: Tensor = _score(model)(states(model, pack)[pack.sources])
    return estimates[:, 0].float()


def standard(model: nn.Module, raw: Tensor) -> Tensor:
    """Scores (B, heads), each head's shifted and scaled to mean 0 and deviation 1 on its own training answers."""
    mean, deviation = (
        torch.tensor(getattr(model.config, name, usual), dtype=raw.dtype, device=raw.device)
        for name, usual in (("reward_mean", 0.0), ("reward_std", 1.0))
    )
    return (raw - mean) / deviation


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The map from states to logits, with the scaling and capping that some families add to it."""
    linear = model.get_output_embeddings()  # type: ignore[operator]
    config = model.config
    cap = getattr(config, "final_logit_softcapping", None)
    divide = getattr(config, "logits_scaling", None)
    multiply = getattr(config, "logit_scale", None)

    def logits(hidden: Tensor) -> Tensor:
        out: Tensor = linear(hidden)
        if divide:
            out = out / divide
        if multiply:
            out = out * multiply
        return torch.tanh(out / cap) * cap if cap else out

    return logits


def _score(model: nn.Module) -> nn.Module:
    return model.get_submodule("score")
