"""From a model and a pack of trees to numbers: log-probabilities of the branches, or scalar scores."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from assent.functional.logprobs import TokenLogprobs, token_logprobs
from assent.models.attention import NONE, Cache, Pack, Tree, pack, shares


def states(model: nn.Module, pack: Pack) -> Tensor:
    """Last hidden states of every token of a pack, (S, H); the same whether or not the model can read packs."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    return packed_states(body, pack) if shares(body) else _states_in_rows(body, pack)


def packed_states(body: nn.Module, pack: Pack, cache: Cache | None = None) -> Tensor:
    """Last hidden states, (S, H), of a pack as it is; with a cache, its prompts are kept there."""
    out = body(
        **_read(body, pack.tokens),
        position_ids=pack.positions,
        attention_mask=NONE,
        shared=pack,
        cache=cache,
        use_cache=False,
    )
    hidden: Tensor = out.last_hidden_state[0]
    return hidden


def _read(body: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Tokens, or where the gradients of a plain embedding are gathered elsewhere, what it says of them."""
    table = body.get_input_embeddings()
    if type(table) is not nn.Embedding or not torch.is_grad_enabled() or not hasattr(table.weight, "main_grad"):
        return {"input_ids": tokens}
    looked_up: Tensor = _LookUp.apply(tokens, table.weight, table.padding_idx)  # type: ignore[no-untyped-call]
    return {"inputs_embeds": looked_up}


class _LookUp(torch.autograd.Function):
    """Rows of a table, whose gradients are added to it row by row: autograd would make a whole table of them."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table: Tensor, padding: int | None) -> Tensor:
        """(1, S), (V, H) -> (1, S, H). Nothing is learned of the token that torch takes for padding."""
        ctx.save_for_backward(tokens)
        ctx.table, ctx.padding = table, padding
        return nn.functional.embedding(tokens, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        """What came in is added to the rows of `main_grad`."""
        (tokens,) = ctx.saved_tensors
        total: Tensor = ctx.table.main_grad()
        made = grad[0].to(total.dtype)
        if ctx.padding is not None:
            made = made * (tokens[0] != ctx.padding)[:, None]
        total.index_add_(0, tokens[0], made)
        return None, None, None


def _states_in_rows(body: nn.Module, pack: Pack) -> Tensor:
    """The same of a model that cannot read packs: each span is the end of a row of its own, padded on the right."""
    rows = pack.tokens[0][pack.looks].split(pack.seen)
    lengths = torch.tensor(pack.seen, device=pack.tokens.device)
    ids = pad_sequence(list(rows), batch_first=True)  # (R, L)
    places = torch.arange(ids.shape[1], device=ids.device)
    out = body(input_ids=ids, attention_mask=(places < lengths[:, None]).long(), use_cache=False)
    ours = (places < lengths[:, None]) & (places >= (lengths - torch.tensor(pack.spans, device=ids.device))[:, None])
    hidden: Tensor = out.last_hidden_state[ours]
    return hidden


@torch.no_grad()
def reads_packs(body: nn.Module) -> bool:
    """Whether a model says of a pack, and of what is drawn after it, what it says of rows: it is tried on a few tokens.

    Some cannot be told which tokens may look at which: they mix tokens by other means than attention (Mamba), number
    positions themselves, or add biases of their own (ALiBi, sinks, capped scores).
    """
    config: Any = body.config
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    dice = torch.Generator().manual_seed(0)
    a, b, c, d = (tuple(torch.randint(config.vocab_size, (k,), generator=dice).tolist()) for k in (7, 5, 3, 4))
    device = next(body.parameters()).device
    asked = pack([Tree(a, (b, c)), Tree(d, (a, b))]).to(device)
    prompts = pack([Tree(a, ((),)), Tree(d, ((),))]).to(device)
    cache = Cache.empty([len(a), len(d)], 1, 1, device)
    drawn = pack([Tree(a, (c[:1],)), Tree(d, (c[:1],))]).to(device)
    try:
        packed = packed_states(body, asked)
        packed_states(body, prompts, cache)
        after = next_states(body, torch.tensor([c[0], c[0]], device=device), cache)
    except Exception:  # noqa: BLE001 (a model is anybody's code, and may fail in any way on what it does not know)
        return False
    small = 1e-3 if packed.dtype == torch.float32 else 5e-2
    return all(
        bool((ours - rows).float().norm() <= small * rows.float().norm())
        for ours, rows in ((packed, _states_in_rows(body, asked)), (after, _states_in_rows(body, drawn)[drawn.last]))
    )


def next_states(body: nn.Module, tokens: Tensor, cache: Cache) -> Tensor:
    """Read one token a row, (R,), after what the cache holds, and return their states, (R, H).

    The cache counts the tokens in when it is told to `advance`.
    """
    out = body(
        input_ids=tokens[:, None],
        position_ids=cache.positions[:, None],
        attention_mask=NONE,
        cache=cache,
        use_cache=False,
    )
    found: Tensor = out.last_hidden_state[:, 0]
    return found


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

    if not (cap or divide or multiply):
        return linear  # type: ignore[no-any-return]

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
