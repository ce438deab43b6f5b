"""From a model and a pack of trees to numbers: log-probabilities of the branches, or scalar scores."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from assent.errors import AssentError
from assent.functional.logprobs import TokenLogprobs, token_logprobs
from assent.models.attention import NONE, Cache, PackedBatch, shares

Read = TypeVar("Read")
OF_TYPES = re.compile(r"dtype|scalar type|bias type|BFloat16|Half")
"""How torch says that an operation got numbers of two types, or cannot be done in theirs."""


def states(model: nn.Module, pack: PackedBatch) -> Tensor:
    """Last hidden states of every token of a pack, (S, H); the same whether or not the model reads packs."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    return in_its_type(model, lambda: packed_states(body, pack) if shares(body) else states_in_rows(body, pack))


def in_its_type(model: nn.Module, read: Callable[[], Read]) -> Read:
    """What is read of a model; where its float32 buffers do not go with weights of two bytes, of the buffers so cast.

    Raises:
        AssentError: it cannot be computed in the type of its weights.
    """
    try:
        return read()
    except RuntimeError as error:
        dtype = next(cast(nn.Module, model.base_model).parameters()).dtype
        if dtype == torch.float32 or not OF_TYPES.search(str(error)):
            raise
    try:
        with _buffers_in(whole(model), dtype):
            return read()
    except RuntimeError as error:
        if not OF_TYPES.search(str(error)):
            raise
        kind, name = type(whole(model)).__name__, str(dtype).removeprefix("torch.")
        reason = str(error).strip().partition("\n")[0]
        raise AssentError(f"a {kind} cannot be computed in {name} ({reason}): give --dtype float32") from None


@contextmanager
def _buffers_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """While it lasts float32 buffers are of another type, but for the frequencies of RoPE, as transformers loads them.

    They are put back: a checkpoint may hold them, in all digits.
    """
    kept = [
        (part, name, buffer)
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if buffer.dtype == torch.float32 and "inv_freq" not in name
    ]
    try:
        for part, name, buffer in kept:
            setattr(part, name, buffer.to(dtype))
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def packed_states(body: nn.Module, pack: PackedBatch, cache: Cache | None = None) -> Tensor:
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


class Rows(NamedTuple):
    """The spans of a pack, each at the end of a row of its own, padded on the right: R rows of at most L tokens."""

    ids: Tensor  # (R, L)
    mask: Tensor  # (R, L) long: 1 for a token
    places: Tensor  # (S,) where each token of the pack stands in the rows, laid end to end


def in_rows(pack: PackedBatch) -> Rows:
    """A pack for a model that does not read packs."""
    lengths, spans = (torch.tensor(sizes, device=pack.tokens.device)[:, None] for sizes in (pack.seen, pack.spans))
    ids = pad_sequence(list(pack.tokens[0][pack.looks].split(pack.seen)), batch_first=True)
    column = torch.arange(ids.shape[1], device=ids.device)
    real = column < lengths
    return Rows(ids, real.long(), (real & (column >= lengths - spans)).flatten().nonzero()[:, 0])


def states_in_rows(body: nn.Module, pack: PackedBatch) -> Tensor:
    """Last hidden states of every token of a pack, (S, H), read row by row."""
    rows = in_rows(pack)
    hidden: Tensor = body(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[rows.places]


def logits_in_rows(model: nn.Module, pack: PackedBatch) -> Tensor:
    """The model's own logits, (N, V), where each branch token is chosen, read row by row."""
    rows, causal, fewer = in_rows(pack), whole(model), dict[str, int]()
    length = rows.ids.shape[1]
    row, column = rows.places[pack.sources] // length, rows.places[pack.sources] % length
    if len(column) and "logits_to_keep" in signature(causal.forward).parameters:
        fewer = {"logits_to_keep": length - int(column.min())}
    logits: Tensor = causal(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False, **fewer).logits
    return logits[row, column - (length - logits.shape[1])]


def whole(model: Any) -> Any:
    """A model with its own head; of a body that is seen through an adapter, that body, seen so."""
    return model.whole() if hasattr(model, "whole") else model


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


def logprobs(model: nn.Module, pack: PackedBatch, temperature: float = 1.0, entropy: bool = False) -> TokenLogprobs:
    """Log-probability, and entropy if asked for, of every branch token, each (N,)."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    if shares(body):
        hidden, to_logits = states(model, pack)[pack.sources], head(model)
    else:
        hidden, to_logits = in_its_type(model, lambda: logits_in_rows(model, pack)), _themselves
    return token_logprobs(hidden, pack.targets, to_logits, temperature, entropy)


def scores(model: nn.Module, pack: PackedBatch) -> Tensor:
    """A reward model's score of each branch, read at its last token, (B, heads) float32, as its heads give it."""
    return _scored(model, states(model, pack)[pack.last])


def values(model: nn.Module, pack: PackedBatch) -> Tensor:
    """A value model's estimate in the state in which each branch token is chosen, (N,) float32."""
    return _scored(model, states(model, pack)[pack.sources])[:, 0]


def standard(model: nn.Module, raw: Tensor) -> Tensor:
    """Scores (B, heads), each head's shifted and scaled to mean 0 and deviation 1 on its own training answers."""
    mean, deviation = (
        torch.tensor(getattr(model.config, name, usual), dtype=raw.dtype, device=raw.device)
        for name, usual in (("reward_mean", 0.0), ("reward_std", 1.0))
    )
    return (raw - mean) / deviation


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The map from states to logits of a model that reads packs: linear, scaled and capped as its configuration says.

    A family that does otherwise is found out when it is loaded, and reads rows with its own head.
    """
    linear = model.get_output_embeddings()  # type: ignore[operator]
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    scale = (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    if scale == 1 and not cap:
        return linear  # type: ignore[no-any-return]

    def logits(hidden: Tensor) -> Tensor:
        out: Tensor = linear(hidden) * scale
        return torch.tanh(out / cap) * cap if cap else out

    return logits


def blocks(model: nn.Module) -> nn.ModuleList:
    """The layers of a model's body, in order.

    Raises:
        AssentError: it has no list of them, or several that could be.
    """
    body, config = cast(Any, model.base_model), cast(Any, model.config)
    text = config.get_text_config()
    if text is not config and hasattr(body, "get_decoder"):
        body = body.get_decoder()
    lists = {name: part for name, part in body.named_modules() if isinstance(part, nn.ModuleList)}
    outer = [part for name, part in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    known = [part for part in outer if len(part) == getattr(text, "num_hidden_layers", 0)]
    longest = [part for part in outer if len(part) == max(map(len, outer))]
    if len(known or longest) != 1:
        raise AssentError(f"it is not known which layers of a {type(body).__name__} come last: leave value_layers out")
    return (known or longest)[0]


def _themselves(logits: Tensor) -> Tensor:
    return logits


def _scored(model: nn.Module, hidden: Tensor) -> Tensor:
    """Scores, (N, heads) float32, of states in whatever type a body leaves them."""
    score = model.get_submodule("score")
    scored: Tensor = score(hidden.to(next(score.parameters()).dtype))
    return scored.float()
