"""Whether a family of models supports packing, or needs padded rows, measured against transformers' own forward pass.

Compared is what training uses, on a few tokens: log-probabilities (of a reward model, states) and their gradients.
Packing is enabled only if both are equal. Otherwise padded rows go through the family's own forward with its own head,
if the results depend neither on the padding of a row nor on the other rows. A family that fails both is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from assent.errors import AssentError, warn
from assent.models.attention import ATTN_IMPLEMENTATION, supports_packing
from assent.models.forward import (
    decode_hidden_states,
    lm_head,
    packed_hidden_states,
    padded_hidden_states,
    padded_logits,
)
from assent.models.heads import RewardModel, has_score_head
from assent.models.kv_cache import KVCache
from assent.models.packing import PackedBatch, SharedPrefix, pack

if TYPE_CHECKING:
    from transformers import GenerationConfig

TOLERANCE = 1e-3
"""Accepted relative difference in float32."""
STATE_SCALE = 32.0
"""Factor of the states that shows whether a head caps its logits."""


class Measured(NamedTuple):
    """The outputs of a model for a batch, and their gradients."""

    # (N, V) log-probabilities of the vocabulary that predict each completion token; of a reward model, states (N, H)
    outputs: Tensor
    gradient: Tensor  # (S, H) of the completion tokens' log-probabilities, to the embedded tokens of the batch


def enable_packing(model: Any, name: str) -> None:
    """Enable packing in a model that supports it; for another, warn that it reads padded rows.

    Args:
        model: a causal language model, or a reward model (with a `score`), on the device where it is used.
        name: of the model, for messages.

    Raises:
        AssentError: the family supports neither way; the error names the family and the reason.
    """
    kind = type(model.base_model if isinstance(model, RewardModel) else model).__name__
    family = f"{name} is a {kind} ({model.config.model_type})"
    is_float32 = next(model.parameters()).dtype == torch.float32  # in bfloat16, rounding in deep models reaches 10 %
    try:
        with _frozen(model):
            if _try_packing(model, TOLERANCE if is_float32 else 0.3):
                return
            reason = _padding_flaw(model, TOLERANCE if is_float32 else 0.5)
    except Exception as error:  # noqa: BLE001 (the code of a model may raise anything)
        reason = str(error).strip().partition("\n")[0]
        raise AssentError(f"{family}, which fails on a few tokens: {type(error).__name__}: {reason}") from None
    if reason:
        raise AssentError(f"{family}, {reason}")
    if not has_score_head(model):
        model.generation_config.use_cache = _has_exact_cache(model, TOLERANCE if is_float32 else 0.5)
    _warn_padded(family)


@cache
def _warn_padded(family: str) -> None:
    """Warn once for a model, however often it is loaded: as policy, as reference, as reward model."""
    warn(
        f"{family}, which does not support packing with shared prefixes: each completion is encoded with its prompt, "
        "with equal results, more slowly"
    )


class LargestDifference(NamedTuple):
    """The largest differences to transformers' own forward pass, on a few tokens."""

    logprobs: float  # nats
    gradients: float  # relative to the largest gradient


def compare_with_transformers(model: Any, plain: Any) -> LargestDifference:
    """Return the largest differences between a policy and the same model in transformers' own attention.

    Args:
        model: a policy as assent loads it.
        plain: the same weights in a second model, with transformers' own attention.
    """
    a, b, c, d, e, f = _probe_tokens(model, 7, 5, 3, 4, 8, 2)
    batch = _pack(model, SharedPrefix(a, (b, c)), SharedPrefix(d, (e, f)))
    read = _packed_outputs if supports_packing(model.base_model) else _padded_outputs
    with _frozen(model), _frozen(plain):
        actual = _measure(model, batch, lambda: read(model, batch))
        expected = _measure(plain, batch, lambda: _reference_outputs(plain, batch))
    gradients = float((actual.gradient - expected.gradient).abs().max() / expected.gradient.abs().max())
    return LargestDifference(float((actual.outputs - expected.outputs).abs().max()), gradients)


def sampling_config(stop_ids: frozenset[int], max_new_tokens: int) -> "GenerationConfig":
    """Return a generation config that changes no probabilities, in place of a model's recommended one."""
    from transformers import GenerationConfig

    ids = {"eos_token_id": sorted(stop_ids) or None, "pad_token_id": min(stop_ids, default=0)}
    return GenerationConfig(max_new_tokens=max_new_tokens, use_cache=True, **ids)


def _try_packing(model: Any, tolerance: float) -> bool:
    """Enable packing in a model, and disable it again if the results are not those of plain rows.

    Some families mix tokens by other means than attention (Mamba), number positions themselves, or add biases of their
    own (ALiBi). Some transform their logits in ways unknown here.
    """
    config = model.config
    if "chunked_attention" in (getattr(config.get_text_config(), "layer_types", None) or ()):
        return False
    a, b, c, d, e, f, neighbor = _probe_tokens(model, 7, 5, 5, 4, 8, 8, 5)
    batch = _pack(model, SharedPrefix(a, (b, c)), SharedPrefix(d, (e, f)))  # rows of one length
    expected = _measure(model, batch, lambda: _reference_outputs(model, batch))
    parts = {"": config, **{name: getattr(config, name) for name in config.sub_configs}}
    original = {name: part._attn_implementation for name, part in parts.items() if part and part._attn_implementation}
    is_policy = not has_score_head(model)
    try:
        if not is_policy or _has_known_lm_head(model, d):
            model.set_attn_implementation(ATTN_IMPLEMENTATION)
        if config._attn_implementation == ATTN_IMPLEMENTATION:
            packed = _measure(model, batch, lambda: _packed_outputs(model, batch))
            # the outputs of a completion do not depend on its neighbors, not even by rounding in half precision
            changed = _packed_outputs(model, _pack(model, SharedPrefix(a, (neighbor, c)), SharedPrefix(d, (e, f))))
            second = expected.outputs[[1, len(b) + len(c) + 1]]  # predictions of each first completion's second token
            if (
                _is_close(changed[len(b) :], packed.outputs[len(b) :], TOLERANCE)
                and _is_close(packed.outputs, expected.outputs, tolerance)
                and _is_close(packed.gradient, expected.gradient, tolerance)
                and (not is_policy or _is_close(_decoded_outputs(model, (a, d), (b[0], e[0])), second, tolerance))
            ):
                return True
    except Exception:  # noqa: BLE001 (as above: then it does not support packing)
        pass
    model.set_attn_implementation(original)
    return False


def _padding_flaw(model: Any, tolerance: float) -> str:
    """Return why a model cannot read padded rows either; empty if it can."""
    a, b, c, d = _probe_tokens(model, 7, 5, 3, 4)
    batch = _pack(model, SharedPrefix(a, (b, c)), SharedPrefix(d, (a, b)))
    expected = _measure(model, batch, lambda: _reference_outputs(model, batch))
    truncated = _reference_outputs(model, _pack(model, SharedPrefix(a, (b[:2],))))
    if not _is_close(truncated, expected.outputs[: len(truncated)], tolerance):
        return "which attends to later tokens: it is no causal language model"
    padded = _measure(model, batch, lambda: _padded_outputs(model, batch))
    is_equal = _is_close(padded.outputs, expected.outputs, tolerance)
    if is_equal and _is_close(padded.gradient, expected.gradient, tolerance):
        return ""
    return "whose outputs for a row depend on its padding or on the other rows"


@torch.no_grad()
def _has_exact_cache(model: Any, tolerance: float) -> bool:
    """Return whether decoding with the family's own cache gives the logits of its forward pass over all tokens."""
    ids = torch.tensor(_probe_tokens(model, 5, 5), device=model.device)
    original = model.generation_config
    model.generation_config = sampling_config(frozenset(), 4)
    try:
        generated = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        logits = model(input_ids=generated.sequences, use_cache=False).logits[:, ids.shape[1] - 1 : -1]
    except Exception:  # noqa: BLE001 (as above)
        return False
    finally:
        model.generation_config = original
    decoded = torch.stack(generated.logits, 1)
    return _is_close(decoded.float().log_softmax(-1), logits.float().log_softmax(-1), tolerance)


def _probe_tokens(model: Any, *lengths: int) -> list[tuple[int, ...]]:
    """Return rows of tokens without the pad token, whose embedding may be zero and without a gradient."""
    config = model.config.get_text_config()
    order = torch.randperm(int(config.vocab_size), generator=torch.Generator().manual_seed(0)).tolist()
    ids = cycle(token for token in order if token != config.pad_token_id)
    return [tuple(next(ids) for _ in range(length)) for length in lengths]


def _pack(model: Any, *shared_prefixes: SharedPrefix) -> PackedBatch:
    return pack(shared_prefixes).to(model.device)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within the context, no weight requires a gradient, so that no gradients of their size are computed."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _measure(model: Any, batch: PackedBatch, read: Callable[[], Tensor]) -> Measured:
    """Return outputs with the gradient of the completions' log-probabilities, or of the states in a fixed direction."""
    embedded: list[Tensor] = []

    def capture(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1] + 0  # a copy, which the model may change in place

    hook = model.get_input_embeddings().register_forward_hook(capture)
    try:
        with torch.enable_grad():
            outputs = read()
            if has_score_head(model):
                direction = torch.randn(outputs.shape[1], generator=torch.Generator().manual_seed(0))
                value = outputs @ direction.to(outputs.device)
            else:
                value = outputs.gather(1, batch.targets[:, None])
            gradients = torch.autograd.grad(value.sum(), embedded)
    finally:
        hook.remove()
    return Measured(outputs.detach(), _to_packed(batch, gradients))


def _to_packed(batch: PackedBatch, gradients: tuple[Tensor, ...]) -> Tensor:
    """Return gradients to the tokens of a batch, (S, H), of those to the batch, to single rows, or to padded rows."""
    if len(gradients) == 1 and len(gradients[0]) == 1:
        return gradients[0][0].float()
    rows = [row for part in gradients for row in part]
    flat = torch.cat([row[:kv_len] for row, kv_len in zip(rows, batch.kv_lens, strict=True)]).float()
    return flat.new_zeros(batch.input_ids.shape[1], flat.shape[1]).index_add(0, batch.kv_index, flat)


def _reference_outputs(model: Any, batch: PackedBatch) -> Tensor:
    """Return outputs of transformers for rows without padding, with the family's own attention and head."""
    rows = batch.input_ids[0][batch.kv_index].split(batch.kv_lens)
    inputs = [torch.stack(rows)] if len(set(batch.kv_lens)) == 1 else [row[None] for row in rows]
    parts = [part for ids in inputs for part in _outputs(model, ids)]
    lengths = batch.completion_lens.tolist()
    return torch.cat([part[-length - 1 : -1] for part, length in zip(parts, lengths, strict=True)])


def _outputs(model: Any, ids: Tensor) -> Tensor:
    """Return log-probabilities, or states, at every token of (R, L)."""
    if has_score_head(model):
        states: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states.float()
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float().log_softmax(-1)


def _padded_outputs(model: Any, batch: PackedBatch) -> Tensor:
    if has_score_head(model):
        return padded_hidden_states(model.base_model, batch)[batch.predictor_index].float()
    return padded_logits(model, batch).float().log_softmax(-1)


def _packed_outputs(model: Any, batch: PackedBatch) -> Tensor:
    hidden = packed_hidden_states(model.base_model, batch)[batch.predictor_index]
    return hidden.float() if has_score_head(model) else lm_head(model)(hidden).float().log_softmax(-1)


@torch.no_grad()
def _decoded_outputs(model: Any, prompts: tuple[tuple[int, ...], ...], tokens: tuple[int, ...]) -> Tensor:
    """Return the predictions after one decoded token of each prompt, with the prompts in a KV cache: (prompts, V)."""
    cache = KVCache.empty([len(ids) for ids in prompts], 1, 1, model.device)
    packed_hidden_states(model.base_model, _pack(model, *(SharedPrefix(ids, ((),)) for ids in prompts)), cache)
    hidden = decode_hidden_states(model.base_model, torch.tensor(tokens, device=model.device), cache)
    return lm_head(model)(hidden).float().log_softmax(-1)


@torch.no_grad()
def _has_known_lm_head(model: Any, tokens: tuple[int, ...]) -> bool:
    """Return whether `lm_head` gives the model's own logits, for large states too."""
    states: list[Tensor] = []

    def enlarge(module: nn.Module, args: Any, out: Any) -> Any:
        out.last_hidden_state = out.last_hidden_state * STATE_SCALE
        states.append(out.last_hidden_state[0])
        return out

    hook = model.base_model.register_forward_hook(enlarge)
    try:
        logits = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0]
    finally:
        hook.remove()
    # where the body is not called as a whole, the log-probabilities alone show what the head does
    return not states or _is_close(lm_head(model)(states[0]).float(), logits.float(), 10 * TOLERANCE)


def _is_close(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Return whether two differ by rounding only, relative to the deviation of each expected row from its mean."""
    expected = expected.float()
    deviation = (expected - expected.mean(-1, keepdim=True)).norm()
    return bool((actual.float() - expected).norm() <= tolerance * deviation)
