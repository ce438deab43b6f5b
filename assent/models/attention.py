"""Attention over packed batches and over a KV cache, registered with transformers as `attn_implementation="assent"`.

transformers' `AttentionInterface` calls `attention_forward` in each layer of a model, so one function serves every
family that uses the interface. See `packing.py` for the layout and `kv_cache.py` for decoding.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from assent.models.kv_cache import KVCache
from assent.models.packing import Block, PackedBatch

ATTN_IMPLEMENTATION = "assent"
DUMMY_MASK = torch.empty(1, 1, 1, 1, dtype=torch.bool)
"""Keeps transformers from building a mask: it passes on any mask of four dimensions."""
UNSUPPORTED_KWARGS = frozenset({"position_bias", "head_mask", "alibi"})
"""Arguments of some families that change attention; ignoring them would give wrong numbers."""


class Scoring(NamedTuple):
    """The settings of a layer that decide the attention weights."""

    scale: float | None = None
    """Multiplies the scores; None: 1 / sqrt(D)."""
    window: int | None = None
    """Tokens that a token sees, itself included; None: all before it."""
    softcap: float | None = None
    """Bounds the scores to +- this value by tanh (Gemma 2)."""
    sinks: Tensor | None = None
    """(heads,) scores that take weight and attend to no token (gpt-oss)."""


def register_attention() -> None:
    """Make `attn_implementation="assent"` known to transformers; other implementations stay as they are."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(ATTN_IMPLEMENTATION, attention_forward)
    AttentionMaskInterface.register(ATTN_IMPLEMENTATION, sdpa_mask)


def supports_packing(body: torch.nn.Module) -> bool:
    """Return whether a model reads packed batches; if not, each span must become a padded row of its own."""
    config: Any = body.config
    return bool(config._attn_implementation == ATTN_IMPLEMENTATION)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packed_batch: PackedBatch | None = None,
    kv_cache: KVCache | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of one layer; transformers names the arguments.

    Args:
        query: (1, heads, S, D) for a packed batch; (R, heads, 1, D) for new tokens.
        packed_batch: attend inside it; with `kv_cache`, store its prompts there.
        kv_cache: without `packed_batch`: attend from one new token a row. With neither, attention is transformers' own.
        s_aux: `Scoring.sinks`.

    Returns:
        (1, S, heads, D) or (R, 1, heads, D).

    Raises:
        NotImplementedError: the layer asks for something that changes attention and is unknown here, such as a bias.
    """
    if packed_batch or kv_cache:
        _refuse_unsupported(attention_mask, kwargs)
    scoring = Scoring(scaling, sliding_window, softcap, s_aux)
    if packed_batch is not None:
        q, k, v = (upcast(part)[0].transpose(0, 1) for part in (query, key, value))  # (S, heads, D)
        if kv_cache is not None:
            kv_cache.prefill(k, v, packed_batch.q_lens)
        if softcap is None and s_aux is None and has_varlen_kernel(q):
            return varlen_attention(q, k, v, packed_batch, scoring)[None], None
        return packed_attention(q, k, v, packed_batch, scoring)[None].to(query.dtype), None
    if kv_cache is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        return decode_attention(query, key, value, kv_cache, layer, scoring), None
    if softcap is not None or s_aux is not None:
        return sdpa(query, key, value, attention_mask, scoring).transpose(1, 2), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **kwargs
    )


def _refuse_unsupported(attention_mask: Tensor | None, kwargs: dict[str, Any]) -> None:
    """Raise NotImplementedError where a layer asks for something that changes attention and is unknown here."""
    if unsupported := sorted(UNSUPPORTED_KWARGS & {name for name, value in kwargs.items() if value is not None}):
        raise NotImplementedError(f"attention with {unsupported[0]}")
    if attention_mask is not None and attention_mask.numel() > 1:  # not DUMMY_MASK: Doge's learned one, for example
        raise NotImplementedError("attention with a mask of its own")


def has_varlen_kernel(q: Tensor) -> bool:
    """Return whether torch's variable-length kernel fits: half precision, heads of up to 256, Ampere or newer."""
    fits = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] <= 256 and q.shape[-1] % 8 == 0
    return fits and torch.cuda.get_device_capability(q.device) >= (8, 0)


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scoring: Scoring) -> Tensor:
    """Attend in all spans with one call of the variable-length kernel; all (S, heads, D)."""
    from torch.nn.attention.varlen import varlen_attn

    keys, values = (part.index_select(0, batch.kv_index) for part in (k, v))
    out = varlen_attn(
        q,
        keys,
        values,
        batch.cu_seqlens_q,
        batch.cu_seqlens_k,
        max(batch.q_lens),
        max(batch.kv_lens),
        scale=scoring.scale,
        window_size=(-1 if scoring.window is None else scoring.window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def packed_attention(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scoring: Scoring) -> Tensor:
    """Attend block by block, so that few scores are computed that the mask drops; all (S, heads, D)."""
    outputs = []
    for block in batch.blocks:
        mask = block.mask
        if scoring.window is not None and block.kv_index.shape[1] > scoring.window:
            mask = sliding_window_mask(block, scoring.window)
        queries, keys, values = (
            part.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)
            for part, index in ((q, block.q_index), (k, block.kv_index), (v, block.kv_index))
        )
        out = sdpa(queries, keys, values, mask, scoring)  # (R, heads, Q, D)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, batch.unpad_index)


def decode_attention(query: Tensor, key: Tensor, value: Tensor, cache: KVCache, layer: int, scoring: Scoring) -> Tensor:
    """Attend from one new token a row to its prompt and to its row up to itself: (R, heads, 1, D) -> (R, 1, heads, D).

    Heads that share a key and rows that share a prompt are queries of the same product, so no key is repeated.
    """
    keys, values = cache.prompt_layers[layer]
    row_keys, row_values = cache.update(layer, key, value)
    scale = query.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale
    rows = (
        query.to(keys.dtype).reshape(len(query), keys.shape[1], -1, query.shape[-1]) * scale
    )  # (R, kv heads, share, D)
    masks = cache.masks(scoring.window)
    prompt_scores = cache.from_grid(cache.to_grid(rows) @ keys.mT)  # (R, kv heads, share, L)
    row_scores = rows @ row_keys.mT  # (R, kv heads, share, read_length)
    weights = softmax_with_sinks(scoring, (prompt_scores, masks.prompt[cache.prompt_index]), (row_scores, masks.row))
    prompt_weights, row_weights = (part.to(values.dtype) for part in weights)
    out: Tensor = cache.from_grid(cache.to_grid(prompt_weights) @ values) + row_weights @ row_values
    return out.reshape(len(query), 1, query.shape[1], -1).to(query.dtype).contiguous()  # some families view it


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scoring: Scoring) -> Tensor:
    """Attend from (R, heads, Q, D) to (R, kv heads, K, D); without a mask, causally. `mask` holds the window."""
    share = query.shape[1] // key.shape[1]
    if scoring.softcap is None and scoring.sinks is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scoring.scale, enable_gqa=share > 1
        )
    key, value = (part.repeat_interleave(share, 1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * (scoring.scale or query.shape[-1] ** -0.5)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    (weights,) = softmax_with_sinks(scoring, (scores, mask))
    return weights.to(value.dtype) @ value


def softmax_with_sinks(scoring: Scoring, *parts: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Return one softmax over scores that come in several parts, with a softcap and sinks; float32.

    Args:
        parts: scores (R, heads, Q, any) and the mask of each part; heads x Q may be split as kv heads x share.

    Returns:
        The weights of each part; what a sink takes is in none of them.
    """
    cap, sinks = scoring.softcap, scoring.sinks
    scores = [
        (part if cap is None else cap * torch.tanh(part / cap)).float().masked_fill(~mask, -torch.inf)
        for part, mask in parts
    ]
    if sinks is not None:
        first = scores[0]
        scores.append(sinks.float().reshape(1, first.shape[1], -1, 1).expand(*first.shape[:3], 1))
    sizes = [part.shape[-1] for part in scores]
    return list(torch.cat(scores, -1).softmax(-1).split(sizes, -1))[: len(parts)]


def sliding_window_mask(block: Block, window: int) -> Tensor:
    """Return (R, 1, Q, K) bool: each token sees itself and the `window - 1` tokens before it."""
    query = torch.arange(block.q_index.shape[1], device=block.q_index.device)
    key = torch.arange(block.kv_index.shape[1], device=block.kv_index.device)
    distance = (block.kv_offset[:, None] + query)[..., None] - key  # (R, Q, K)
    return ((distance >= 0) & (distance < window))[:, None]


def upcast(part: Tensor) -> Tensor:
    """Return float32 on a CPU, where it is twice as fast as bfloat16 in the backward pass and in decoding."""
    return part.float() if part.device.type == "cpu" else part
