"""assent's own sampling engine: shared prompts, a KV cache, finished rows leave; one code path on CPU and GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from assent.generation.cuda_graph import Decoder
from assent.generation.sampling import Sample, Sampling
from assent.models.attention import supports_packing
from assent.models.families import sampling_config
from assent.models.forward import causal_lm, lm_head, packed_hidden_states, run_in_weight_dtype
from assent.models.kv_cache import KVCache
from assent.models.linear import patch_decode_linears
from assent.models.packing import SharedPrefix, pack

if TYPE_CHECKING:
    from assent.models.load import LoadedModel

OnToken = Callable[[list[int], list[int]], None]
"""Is called at each step with completions (numbered in order of prompts) and their new tokens; may raise to stop."""


class LocalGenerator:
    """A `Generator` that samples with the policy's own model in this process."""

    def __init__(self, on_token: OnToken | None = None) -> None:
        self._on_token = on_token
        self._policy: LoadedModel | None = None

    def load(self, policy: "LoadedModel") -> None:
        """Sample from this model; no copy is made, so later updates of its weights count without another call."""
        self._policy = policy

    def generate(self, prompt_ids: Sequence[tuple[int, ...]], n: int, sampling: Sampling, seed: int) -> list[Sample]:
        """Sample n completions of each prompt, in order of prompts; see `protocols.Generator`."""
        assert self._policy is not None, "load() comes first"
        stop_ids = self._policy.chat_tokenizer.stop_ids
        return sample_completions(self._policy.model, prompt_ids, n, sampling, stop_ids, seed, self._on_token)


class _Request(NamedTuple):
    """The arguments of `sample_completions`, with the generator of its seed."""

    prompt_ids: Sequence[tuple[int, ...]]
    n: int
    sampling: Sampling
    stop_ids: frozenset[int]
    rng: torch.Generator
    on_token: OnToken | None


@torch.no_grad()
def sample_completions(
    model: nn.Module,
    prompt_ids: Sequence[tuple[int, ...]],
    n: int,
    sampling: Sampling,
    stop_ids: frozenset[int],
    seed: int,
    on_token: OnToken | None = None,
) -> list[Sample]:
    """Sample n completions of each prompt, in order of prompts.

    Args:
        prompt_ids: at least one id each.
        stop_ids: ids that end a completion.
        seed: 0 to 2^63 - 1; decides every draw. The draws of a completion do not depend on which others have ended.
    """
    body = model.base_model
    assert isinstance(body, nn.Module)
    # on the CPU, so that every device gets the same numbers
    rng = torch.Generator().manual_seed(seed)
    request = _Request(prompt_ids, n, sampling, stop_ids, rng, on_token)
    sample = _sample_packed if supports_packing(body) else _sample_padded
    return run_in_weight_dtype(model, partial(sample, model, request))


def _sample_packed(model: Any, request: _Request) -> list[Sample]:
    """Sample with a model that supports packing: each prompt is encoded once and cached for all its completions."""
    device = next(model.parameters()).device
    n, sampling = request.n, request.sampling
    count = len(request.prompt_ids) * n
    to_logits = lm_head(model)
    batch = pack([SharedPrefix(ids, ((),)) for ids in request.prompt_ids]).to(device)
    cache = KVCache.empty([len(ids) for ids in request.prompt_ids], n, sampling.max_new_tokens, device)
    decode = Decoder(model.base_model, to_logits, cache)
    hidden = packed_hidden_states(model.base_model, batch, cache)[batch.last_index]  # (prompts, H)
    logits = to_logits(hidden).float().repeat_interleave(n, 0)  # (R, V)
    rows = torch.arange(count, device=device)  # the completion of each row
    stop_ids = torch.tensor(sorted(request.stop_ids), device=device)
    token_ids = torch.full((count, sampling.max_new_tokens), -1, device=device)
    logprobs = torch.zeros(count, sampling.max_new_tokens, device=device)
    is_active = torch.ones(count, dtype=torch.bool, device=device)
    with patch_decode_linears(causal_lm(model)):
        for step in range(sampling.max_new_tokens):
            token, logprob = _sample_token(logits, sampling.temperature, _uniforms(count, request.rng, device)[rows])
            token_ids[rows[is_active], step] = token[is_active]
            logprobs[rows[is_active], step] = logprob[is_active]
            if request.on_token is not None:
                request.on_token(rows[is_active].tolist(), token[is_active].tolist())
            is_active = is_active & ~torch.isin(token, stop_ids)
            num_active = int(is_active.sum())
            if num_active == 0 or step + 1 == sampling.max_new_tokens:
                break
            if num_active <= (0.5 if cache.is_static else 0.75) * len(rows):  # dropping rows costs a new recording
                active_rows = is_active.nonzero()[:, 0]
                cache.select_rows(active_rows)
                rows, token, is_active = rows[active_rows], token[active_rows], is_active[active_rows]
            logits = decode(token)
    return [
        _to_sample(i // n, ids, values, request.stop_ids)
        for i, (ids, values) in enumerate(zip(token_ids.tolist(), logprobs.tolist(), strict=True))
    ]


def _uniforms(count: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Return a number in [0, 1) for each completion, (count, 1)."""
    return torch.rand(count, 1, generator=rng, device=rng.device).to(device)


def _sample_token(logits: Tensor, temperature: float, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Return one token a row and its log-probability, each (R,), by inverting the cumulative distribution.

    Args:
        uniforms: (R, 1) in [0, 1).
    """
    if temperature == 0:
        token = logits.argmax(-1)
        logprobs = logits.log_softmax(-1)
    else:
        logprobs = (logits / temperature).log_softmax(-1)
        cumulative = logprobs.exp().cumsum(-1)  # (R, V); rounding leaves its end near 1, so the number is scaled to it
        token = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)[:, 0].clamp(
            max=logits.shape[-1] - 1
        )
    return token, logprobs.gather(-1, token[:, None])[:, 0]


def _to_sample(prompt_index: int, row: list[int], logprobs: list[float], stop_ids: frozenset[int]) -> Sample:
    """Return a row of ids as a sample; negative ids are padding."""
    length = next((i for i, token in enumerate(row) if token < 0), len(row))
    ids = tuple(row[:length])
    return Sample(prompt_index, ids, tuple(logprobs[:length]), bool(ids) and ids[-1] in stop_ids)


def kv_cache_bytes(model: nn.Module, prompt_lens: Sequence[int], n: int, max_new_tokens: int) -> int:
    """Return the bytes for sampling n completions of each prompt: keys, values and logits.

    The state of a family without attention does not grow with the tokens; for it this is an upper bound.
    """
    config = cast(Any, model.config).get_text_config()
    weight = next(model.parameters())
    is_heterogeneous = getattr(config, "is_heterogeneous", False)  # Gemma 4: heads of some layers are wider
    layers = config.per_layer_config if is_heterogeneous else [config] * int(config.num_hidden_layers)
    value_bytes = 4 if weight.device.type == "cpu" else weight.element_size()
    if supports_packing(cast(Any, model.base_model)):
        tokens = max(prompt_lens) + n * max_new_tokens
    else:
        tokens = n * (max(prompt_lens) + max_new_tokens)
    cache = 2 * sum(map(_kv_width, layers)) * value_bytes * tokens
    return len(prompt_lens) * (cache + n * 4 * 4 * int(config.vocab_size))


def _kv_width(layer: Any) -> int:
    """Return how many numbers the keys of a token have in a layer with this configuration."""
    queries = getattr(layer, "num_attention_heads", None) or 1
    heads = int(getattr(layer, "num_key_value_heads", None) or queries)
    return heads * int(getattr(layer, "head_dim", None) or layer.hidden_size // queries)


def _sample_padded(model: Any, request: _Request) -> list[Sample]:
    """Sample by transformers' own `generate`, for models that do not support packing, with this module's draws.

    Prompts of one length go together, so that no row is padded: some of these models do not support padding.
    """
    model = causal_lm(model)
    original_config = model.generation_config
    # a model's recommended settings would change the distribution
    model.generation_config = sampling_config(request.stop_ids, request.sampling.max_new_tokens)
    n = request.n
    samples: dict[int, list[Sample]] = {}
    try:
        for length in sorted({len(ids) for ids in request.prompt_ids}):
            indices = [i for i, ids in enumerate(request.prompt_ids) if len(ids) == length]
            rows = torch.tensor([request.prompt_ids[i] for i in indices for _ in range(n)], device=model.device)
            sampler = _TokenSampler(request, [i * n + k for i in indices for k in range(n)])
            if original_config.use_cache is False:
                _generate_without_cache(model, rows, request.sampling.max_new_tokens, sampler)
            else:
                model.generate(input_ids=rows, attention_mask=torch.ones_like(rows), logits_processor=[sampler])
            for i, first_row in zip(indices, range(0, len(rows), n), strict=True):
                samples[i] = [
                    _to_sample(i, ids, logprobs, request.stop_ids)
                    for ids, logprobs in zip(
                        sampler.token_ids[first_row : first_row + n],
                        sampler.logprobs[first_row : first_row + n],
                        strict=True,
                    )
                ]
    finally:
        model.generation_config = original_config
    return [sample for i in range(len(request.prompt_ids)) for sample in samples[i]]


def _generate_without_cache(model: Any, rows: Tensor, max_new_tokens: int, sampler: "_TokenSampler") -> None:
    """Generate for families whose own cache changes the logits: each step encodes whole rows."""
    for _ in range(max_new_tokens):
        scores = sampler(rows, model(input_ids=rows, use_cache=False).logits[:, -1])
        rows = torch.cat([rows, scores.argmax(-1, keepdim=True)], 1)
        if all(ids[-1] in sampler.request.stop_ids for ids in sampler.token_ids):
            break


@dataclass
class _TokenSampler:
    """A logits processor that samples each row's next token and leaves `generate` no other choice.

    Rows that have ended stay in the batch; their further tokens are ignored.
    """

    request: _Request
    completions: list[int]  # the number of each row's completion, in order of prompts

    def __post_init__(self) -> None:
        self.token_ids: list[list[int]] = [[] for _ in self.completions]
        self.logprobs: list[list[float]] = [[] for _ in self.completions]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (R, V) that allow the sampled token only."""
        stop_ids, on_token = self.request.stop_ids, self.request.on_token
        uniforms = _uniforms(len(scores), self.request.rng, scores.device)
        token, logprob = _sample_token(scores.float(), self.request.sampling.temperature, uniforms)
        active = [row for row, ids in enumerate(self.token_ids) if not ids or ids[-1] not in stop_ids]
        for row in active:
            self.token_ids[row].append(int(token[row]))
            self.logprobs[row].append(float(logprob[row]))
        if on_token is not None:
            on_token([self.completions[row] for row in active], [self.token_ids[row][-1] for row in active])
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)
