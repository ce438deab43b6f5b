"""From a model and a packed batch to numbers: log-probabilities of the completions, scores, or values."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from assent.errors import AssentError
from assent.functional.logprobs import TokenLogprobs, token_logprobs
from assent.models.attention import DUMMY_MASK, supports_packing
from assent.models.gradients import accumulator_of
from assent.models.kv_cache import KVCache
from assent.models.packing import PackedBatch

Result = TypeVar("Result")
DTYPE_ERROR = re.compile(r"dtype|scalar type|bias type|BFloat16|Half")
"""Words of torch's errors about operands of two types, or of a type that an operation does not support."""


def hidden_states(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Return the last hidden states of every token of a batch, (S, H), whether or not the model supports packing."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    read = packed_hidden_states if supports_packing(body) else padded_hidden_states
    return run_in_weight_dtype(model, lambda: read(body, batch))


def run_in_weight_dtype(model: nn.Module, compute: Callable[[], Result]) -> Result:
    """Return `compute()`; where float32 buffers do not fit half-precision weights, with the buffers cast to their type.

    Raises:
        AssentError: the model cannot be computed in the type of its weights.
    """
    try:
        return compute()
    except RuntimeError as error:
        dtype = next(cast(nn.Module, model.base_model).parameters()).dtype
        if dtype == torch.float32 or not DTYPE_ERROR.search(str(error)):
            raise
    try:
        with _cast_buffers(causal_lm(model), dtype):
            return compute()
    except RuntimeError as error:
        if not DTYPE_ERROR.search(str(error)):
            raise
        kind, name = type(causal_lm(model)).__name__, str(dtype).removeprefix("torch.")
        reason = str(error).strip().partition("\n")[0]
        raise AssentError(f"a {kind} cannot be computed in {name} ({reason}); use --dtype float32") from None


@contextmanager
def _cast_buffers(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the context, cast float32 buffers to another type, except RoPE's frequencies, as transformers does.

    They are restored afterwards in all digits: a checkpoint may hold them.
    """
    buffers = [
        (part, name, buffer)
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if buffer.dtype == torch.float32 and "inv_freq" not in name
    ]
    try:
        for part, name, buffer in buffers:
            setattr(part, name, buffer.to(dtype))
        yield
    finally:
        for part, name, buffer in buffers:
            setattr(part, name, buffer)


def packed_hidden_states(body: nn.Module, batch: PackedBatch, cache: KVCache | None = None) -> Tensor:
    """Return the last hidden states, (S, H), of a packed batch; with a cache, store its keys and values there."""
    out = body(
        **_inputs(body, batch.input_ids),
        position_ids=batch.position_ids,
        attention_mask=DUMMY_MASK,
        packed_batch=batch,
        kv_cache=cache,
        use_cache=False,
    )
    hidden: Tensor = out.last_hidden_state[0]
    return hidden


def _inputs(body: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Return the ids, or their embeddings where a plain embedding has a gradient accumulator."""
    table = body.get_input_embeddings()
    if type(table) is not nn.Embedding or not torch.is_grad_enabled() or accumulator_of(table.weight) is None:
        return {"input_ids": tokens}
    embedded: Tensor = _EmbeddingLookup.apply(tokens, table.weight, table.padding_idx)  # type: ignore[no-untyped-call]
    return {"inputs_embeds": embedded}


class _EmbeddingLookup(torch.autograd.Function):
    """An embedding whose gradients are added to the accumulator row by row: autograd would make a whole table."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table: Tensor, padding: int | None) -> Tensor:
        """Return (1, S), (V, H) -> (1, S, H). The padding token gets no gradient, as in torch."""
        ctx.save_for_backward(tokens)
        ctx.table, ctx.padding = table, padding
        return nn.functional.embedding(tokens, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        """Add the gradient to the rows of the table's accumulator."""
        (tokens,) = ctx.saved_tensors
        accumulator = accumulator_of(ctx.table)
        assert accumulator is not None, "the accumulator was detached between the forward and the backward pass"
        total = accumulator()
        row_grads = grad[0].to(total.dtype)
        if ctx.padding is not None:
            row_grads = row_grads * (tokens[0] != ctx.padding)[:, None]
        total.index_add_(0, tokens[0], row_grads)
        return None, None, None


class PaddedRows(NamedTuple):
    """The spans of a batch with the prefixes they see, each in a row of its own, padded on the right: R rows of L."""

    input_ids: Tensor  # (R, L)
    attention_mask: Tensor  # (R, L) long: 1 for a token
    unpad_index: Tensor  # (S,) place of each token of the batch in the rows, laid end to end


def to_padded_rows(batch: PackedBatch) -> PaddedRows:
    """Return a batch as padded rows, for a model that does not support packing."""
    kv_lens = torch.tensor(batch.kv_lens, device=batch.input_ids.device)[:, None]
    q_lens = torch.tensor(batch.q_lens, device=batch.input_ids.device)[:, None]
    ids = pad_sequence(list(batch.input_ids[0][batch.kv_index].split(batch.kv_lens)), batch_first=True)
    column = torch.arange(ids.shape[1], device=ids.device)
    is_real = column < kv_lens
    is_query = is_real & (column >= kv_lens - q_lens)
    return PaddedRows(ids, is_real.long(), is_query.flatten().nonzero()[:, 0])


def padded_hidden_states(body: nn.Module, batch: PackedBatch) -> Tensor:
    """Return the last hidden states of every token of a batch, (S, H), computed in padded rows."""
    rows = to_padded_rows(batch)
    hidden: Tensor = body(
        input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False
    ).last_hidden_state
    return hidden.flatten(0, 1)[rows.unpad_index]


def padded_logits(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Return the model's own logits, (N, V), that predict each completion token, computed in padded rows."""
    rows = to_padded_rows(batch)
    model = causal_lm(model)
    options: dict[str, int] = {}
    length = rows.input_ids.shape[1]
    predictors = rows.unpad_index[batch.predictor_index]
    row, column = predictors // length, predictors % length
    if len(column) and "logits_to_keep" in signature(model.forward).parameters:
        options = {"logits_to_keep": length - int(column.min())}
    logits: Tensor = model(
        input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False, **options
    ).logits
    return logits[row, column - (length - logits.shape[1])]


@runtime_checkable
class HasAdapter(Protocol):
    """A shared model seen through one adapter."""

    def causal_lm(self) -> Any:
        """Activate the adapter and return the shared model."""
        ...


def causal_lm(model: Any) -> Any:
    """Return the model of transformers with its own head, with its adapter active if it has one."""
    return model.causal_lm() if isinstance(model, HasAdapter) else model


def decode_hidden_states(body: nn.Module, tokens: Tensor, cache: KVCache) -> Tensor:
    """Read one new token a row, (R,), after the cached ones, and return their states, (R, H).

    The caller counts the tokens by `KVCache.advance`.
    """
    out = body(
        input_ids=tokens[:, None],
        position_ids=cache.position_ids[:, None],
        attention_mask=DUMMY_MASK,
        kv_cache=cache,
        use_cache=False,
    )
    hidden: Tensor = out.last_hidden_state[:, 0]
    return hidden


def logprobs(model: nn.Module, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False) -> TokenLogprobs:
    """Return the log-probability, and with `entropy` the entropy, of every completion token, each (N,)."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    if supports_packing(body):
        return _logprobs_of(model, hidden_states(model, batch)[batch.predictor_index], batch, temperature, entropy)
    logits = run_in_weight_dtype(model, lambda: padded_logits(model, batch))
    return token_logprobs(logits, batch.targets, _identity, temperature, entropy)


def logprobs_and_values(
    model: nn.Module, head: nn.Module, batch: PackedBatch, temperature: float = 1.0, entropy: bool = False
) -> tuple[TokenLogprobs, Tensor]:
    """Return what `logprobs` returns, and the values of a `ValueHead` on the same states, (N,) float32.

    The values' gradient ends at the head. The model must support packing.
    """
    states = hidden_states(model, batch)[batch.predictor_index]
    return _logprobs_of(model, states, batch, temperature, entropy), _apply_score_head(head, states.detach())[:, 0]


def _logprobs_of(
    model: nn.Module, states: Tensor, batch: PackedBatch, temperature: float, entropy: bool
) -> TokenLogprobs:
    to_logits = lm_head(model)
    weight_grad = accumulator_of(to_logits.weight) if isinstance(to_logits, nn.Linear) else None
    return token_logprobs(states, batch.targets, to_logits, temperature, entropy, weight_grad=weight_grad)


def scores(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Return a reward model's raw score of each completion, read at its last token, (B, heads) float32."""
    return _apply_score_head(model, hidden_states(model, batch)[batch.last_index])


def values(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Return a value model's estimate in the state that predicts each completion token, (N,) float32."""
    return _apply_score_head(model, hidden_states(model, batch)[batch.predictor_index])[:, 0]


def standardize_scores(model: nn.Module, raw: Tensor) -> Tensor:
    """Return scores (B, heads), each head's with mean 0 and standard deviation 1 on its own training completions."""
    mean, deviation = (
        torch.tensor(getattr(model.config, name, default), dtype=raw.dtype, device=raw.device)
        for name, default in (("reward_mean", 0.0), ("reward_std", 1.0))
    )
    return (raw - mean) / deviation


def lm_head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the map from states to logits of a model that supports packing: linear, scaled and capped by its config.

    `enable_packing` tries it when a model is loaded; a family with a different head reads padded rows with its own.
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


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the layers of a model's body, in order.

    Raises:
        AssentError: it has no list of layers, or several candidates.
    """
    body, config = cast(Any, model.base_model), cast(Any, model.config)
    text = config.get_text_config()
    if text is not config and hasattr(body, "get_decoder"):
        body = body.get_decoder()
    lists = {name: part for name, part in body.named_modules() if isinstance(part, nn.ModuleList)}
    outer = [part for name, part in lists.items() if not any(name.startswith(f"{prefix}.") for prefix in lists)]
    matching = [part for part in outer if len(part) == getattr(text, "num_hidden_layers", 0)]
    longest = [part for part in outer if len(part) == max(map(len, outer))]
    if len(matching or longest) != 1:
        raise AssentError(
            f"cannot tell which layers of a {type(body).__name__} come last; leave --trainable-value-layers out"
        )
    return (matching or longest)[0]


def _identity(logits: Tensor) -> Tensor:
    return logits


def _apply_score_head(model: nn.Module, hidden: Tensor) -> Tensor:
    """Return scores, (N, heads) float32, of states of any type."""
    score = model.get_submodule("score")
    scored: Tensor = score(hidden.to(next(score.parameters()).dtype))
    return scored.float()
