"""Our own sampler: each prompt is read once for its n samples, finished rows leave, one code path on CPU and GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from assent.functional.onednn import few_rows
from assent.generation.cuda_graph import Decoder
from assent.models.attention import Cache, SharedPrefix, pack, shares
from assent.models.families import drawing
from assent.models.forward import head, in_its_type, packed_states, whole
from assent.types import NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: from the model's own distribution at a temperature, nothing cut off."""

    temperature: NonNegativeFloat = 1.0
    """Divides the logits; the same value is used wherever log-probabilities are computed. 0: the likeliest token."""
    max_new_tokens: PositiveInt = 48
    """A completion is cut here; one that was cut has no end token."""


class Sample(NamedTuple):
    """One completion as the model drew it."""

    prompt: int  # which of the prompts
    ids: tuple[int, ...]  # with the end token, if it came
    logprobs: tuple[float, ...]  # of each id when it was drawn: a diagnostic, the trainer computes its own
    finished: bool


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[tuple[int, ...]],
    n: int,
    sampling: Sampling,
    ends: frozenset[int],
    generator: torch.Generator,
    told: Callable[[list[int], list[int]], None] | None = None,
) -> list[Sample]:
    """Draw n completions of each prompt, in order of prompts.

    Args:
        prompts: token ids, at least one each.
        ends: ids that end a completion.
        generator: decides every draw, each completion's by itself, whoever has left; it lives on the CPU or on the
            model's device.
        told: hears of each step which completions (numbered in order of prompts) got which token; may raise to stop.
    """
    body = model.base_model
    assert isinstance(body, nn.Module)
    draw = _from_packs if shares(body) else _generate
    return in_its_type(model, partial(draw, model, prompts, n, sampling, ends, generator, told))


def _from_packs(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    n: int,
    sampling: Sampling,
    ends: frozenset[int],
    generator: torch.Generator,
    told: Callable[[list[int], list[int]], None] | None,
) -> list[Sample]:
    """For models that read packs: each prompt is read once, and what is kept of it serves all its completions."""
    body, device = model.base_model, next(model.parameters()).device
    to_logits = head(model)
    trees = pack([SharedPrefix(ids, ((),)) for ids in prompts]).to(device)
    cache = Cache.empty([len(ids) for ids in prompts], n, sampling.max_new_tokens, device)
    decode = Decoder(body, to_logits, cache)
    hidden = packed_states(body, trees, cache)[trees.last]  # (prompts, H)
    logits = to_logits(hidden).float().repeat_interleave(n, 0)  # (R, V)
    rows = torch.arange(len(prompts) * n, device=device)  # which completion each live row is
    stop = torch.tensor(sorted(ends), device=device)
    ids = torch.full((len(rows), sampling.max_new_tokens), -1, device=device)
    drawn = torch.zeros(len(rows), sampling.max_new_tokens, device=device)
    alive = torch.ones(len(rows), dtype=torch.bool, device=device)
    with few_rows(whole(model)):
        for step in range(sampling.max_new_tokens):
            token, logprob = _draw(logits, sampling.temperature, _dice(len(ids), generator, device)[rows])
            ids[rows[alive], step] = token[alive]
            drawn[rows[alive], step] = logprob[alive]
            if told is not None:
                told(rows[alive].tolist(), token[alive].tolist())
            alive = alive & ~torch.isin(token, stop)
            left = int(alive.sum())
            if left == 0 or step + 1 == sampling.max_new_tokens:
                break
            if left <= (0.5 if cache.fixed else 0.75) * len(rows):  # a recording is made anew
                keep = alive.nonzero()[:, 0]
                cache.keep(keep)
                rows, token, alive = rows[keep], token[keep], alive[keep]
            logits = decode(token)
    return [
        _finished(i // n, row, logprobs, ends)
        for i, (row, logprobs) in enumerate(zip(ids.tolist(), drawn.tolist(), strict=True))
    ]


def _dice(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A number in [0, 1) for each completion, (count, 1)."""
    return torch.rand(count, 1, generator=generator, device=generator.device).to(device)


def _draw(logits: Tensor, temperature: float, dice: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability, each (R,); what is drawn is decided by (R, 1) numbers in [0, 1)."""
    if temperature == 0:
        token = logits.argmax(-1)
        logprobs = logits.log_softmax(-1)
    else:
        logprobs = (logits / temperature).log_softmax(-1)
        cumulative = logprobs.exp().cumsum(-1)  # (R, V); the point that a uniform draw falls on, scaled to its end
        token = torch.searchsorted(cumulative, dice * cumulative[:, -1:], right=True)[:, 0].clamp(
            max=logits.shape[-1] - 1
        )
    return token, logprobs.gather(-1, token[:, None])[:, 0]


def _finished(prompt: int, row: list[int], logprobs: list[float], ends: frozenset[int]) -> Sample:
    length = next((i for i, token in enumerate(row) if token < 0), len(row))
    ids = tuple(row[:length])
    return Sample(prompt, ids, tuple(logprobs[:length]), bool(ids) and ids[-1] in ends)


def kv_cache_bytes(model: nn.Module, prompts: Sequence[int], n: int, new_tokens: int) -> int:
    """Bytes that n completions of so many tokens take while they are drawn, for each prompt of these lengths.

    What a family without attention keeps does not grow with the tokens: for it this is more than it takes.
    """
    config, weight = cast(Any, model.config).get_text_config(), next(model.parameters())
    apart = getattr(config, "is_heterogeneous", False)  # Gemma 4: heads of some layers are wider
    layers = config.per_layer_config if apart else [config] * int(config.num_hidden_layers)
    size = 4 if weight.device.type == "cpu" else weight.element_size()
    tokens = max(prompts) + n * new_tokens if shares(cast(Any, model.base_model)) else n * (max(prompts) + new_tokens)
    cached = 2 * sum(map(_width, layers)) * size * tokens
    return len(prompts) * (cached + n * 4 * 4 * int(config.vocab_size))


def _width(layer: Any) -> int:
    """Numbers in a token's keys in one layer, of such a configuration."""
    queries = getattr(layer, "num_attention_heads", None) or 1
    heads = int(getattr(layer, "num_key_value_heads", None) or queries)
    return heads * int(getattr(layer, "head_dim", None) or layer.hidden_size // queries)


def _generate(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    n: int,
    sampling: Sampling,
    ends: frozenset[int],
    generator: torch.Generator,
    told: Callable[[list[int], list[int]], None] | None,
) -> list[Sample]:
    """The same by transformers' own `generate`, for models that cannot read packs; our draws, handed to it one by one.

    Prompts of one length go together, so that no row is padded: not every such model knows what padding is.
    """
    causal = whole(model)
    usual = causal.generation_config
    # what a model recommends would bend our draws
    causal.generation_config = drawing(ends, sampling.max_new_tokens)
    found: dict[int, list[Sample]] = {}
    try:
        for length in sorted({len(ids) for ids in prompts}):
            asked = [i for i, ids in enumerate(prompts) if len(ids) == length]
            rows = torch.tensor([prompts[i] for i in asked for _ in range(n)], device=causal.device)
            draws = _Drawing(sampling.temperature, ends, generator, [i * n + k for i in asked for k in range(n)], told)
            if usual.use_cache is False:
                _generate_without_cache(causal, rows, sampling.max_new_tokens, draws)
            else:
                causal.generate(input_ids=rows, attention_mask=torch.ones_like(rows), logits_processor=[draws])
            for i, start in zip(asked, range(0, len(rows), n), strict=True):
                drawn = zip(draws.ids[start : start + n], draws.logprobs[start : start + n], strict=True)
                found[i] = [Sample(i, tuple(ids), tuple(ps), bool(ids) and ids[-1] in ends) for ids, ps in drawn]
    finally:
        causal.generation_config = usual
    return [one for i in range(len(prompts)) for one in found[i]]


def _generate_without_cache(model: Any, rows: Tensor, new_tokens: int, draws: "_Drawing") -> None:
    """For families that would draw by other numbers with their cache than without: each step reads all of a row."""
    for _ in range(new_tokens):
        scores = draws(rows, model(input_ids=rows, use_cache=False).logits[:, -1])
        rows = torch.cat([rows, scores.argmax(-1, keepdim=True)], 1)
        if all(ids[-1] in draws.ends for ids in draws.ids):
            break


@dataclass
class _Drawing:
    """Draws each row's next token and leaves `generate` no other choice; rows that have ended are let be."""

    temperature: float
    ends: frozenset[int]
    generator: torch.Generator
    numbers: list[int]  # of the completions, in order of prompts
    told: Callable[[list[int], list[int]], None] | None

    def __post_init__(self) -> None:
        self.ids: list[list[int]] = [[] for _ in self.numbers]
        self.logprobs: list[list[float]] = [[] for _ in self.numbers]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores, (R, V), that say only what was drawn."""
        dice = _dice(len(scores), self.generator, scores.device)
        token, logprob = _draw(scores.float(), self.temperature, dice)
        live = [row for row, ids in enumerate(self.ids) if not ids or ids[-1] not in self.ends]
        for row in live:
            self.ids[row].append(int(token[row]))
            self.logprobs[row].append(float(logprob[row]))
        if self.told is not None:
            self.told([self.numbers[row] for row in live], [self.ids[row][-1] for row in live])
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)
