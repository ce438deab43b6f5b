"""Our own sampler: each prompt is read once for its n samples, finished rows leave, one code path on CPU and GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from assent.limits import Count, NonNegative
from assent.models.attention import Cache, Pack, Tree, pack
from assent.models.forward import head


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: from the model's own distribution at a temperature, nothing cut off."""

    temperature: NonNegative = 1.0
    """Divides the logits; the same value is used wherever log-probabilities are computed. 0: the likeliest token."""
    max_new_tokens: Count = 48
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
        generator: decides every draw; it lives on the CPU or on the model's device.
        told: hears of each step which completions (numbered in order of prompts) got which token; may raise to stop.
    """
    device = next(model.parameters()).device
    to_logits = head(model)
    trees = pack([Tree(ids, ((),)) for ids in prompts]).to(device)
    cache = Cache.empty([len(ids) for ids in prompts], n, sampling.max_new_tokens, device)
    hidden = _prefill(model, trees, cache)
    logits = to_logits(hidden).float().repeat_interleave(n, 0)  # (R, V)
    rows = torch.arange(len(prompts) * n, device=device)  # which completion each live row is
    stop = torch.tensor(sorted(ends), device=device)
    ids = torch.full((len(rows), sampling.max_new_tokens), -1, device=device)
    drawn = torch.zeros(len(rows), sampling.max_new_tokens, device=device)
    alive = torch.ones(len(rows), dtype=torch.bool, device=device)
    for step in range(sampling.max_new_tokens):
        token, logprob = _draw(logits, sampling.temperature, generator)
        ids[rows[alive], step] = token[alive]
        drawn[rows[alive], step] = logprob[alive]
        if told is not None:
            told(rows[alive].tolist(), token[alive].tolist())
        alive = alive & ~torch.isin(token, stop)
        left = int(alive.sum())
        if left == 0 or step + 1 == sampling.max_new_tokens:
            break
        if left <= 0.75 * len(rows):
            keep = alive.nonzero()[:, 0]
            cache.keep(keep)
            rows, token, alive = rows[keep], token[keep], alive[keep]
        logits = to_logits(_step(model, token, cache)).float()
    return [
        _finished(i // n, row, logprobs, ends)
        for i, (row, logprobs) in enumerate(zip(ids.tolist(), drawn.tolist(), strict=True))
    ]


def _prefill(model: nn.Module, trees: Pack, cache: Cache) -> Tensor:
    """Read the prompts and return the state of each one's last token, (prompts, H)."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    out = body(
        input_ids=trees.tokens,
        position_ids=trees.positions,
        attention_mask=trees.mask,
        shared=trees,
        cache=cache,
        use_cache=False,
    )
    state: Tensor = out.last_hidden_state[0][trees.last]
    return state


def _step(model: nn.Module, token: Tensor, cache: Cache) -> Tensor:
    """Read one token a row, (R,), and return its state, (R, H)."""
    body = model.base_model
    assert isinstance(body, nn.Module)
    out = body(
        input_ids=token[:, None],
        position_ids=cache.filled[:, None],
        attention_mask=cache.mask(),
        cache=cache,
        use_cache=False,
    )
    cache.advance()
    state: Tensor = out.last_hidden_state[:, 0]
    return state


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability, each (R,)."""
    if temperature == 0:
        token = logits.argmax(-1)
        logprobs = logits.log_softmax(-1)
    else:
        logprobs = (logits / temperature).log_softmax(-1)
        cumulative = logprobs.exp().cumsum(-1)  # (R, V); the point that a uniform draw falls on, scaled to its end
        dice = torch.rand(len(logits), 1, generator=generator, device=generator.device).to(logits.device)
        token = torch.searchsorted(cumulative, dice * cumulative[:, -1:], right=True)[:, 0].clamp(
            max=logits.shape[-1] - 1
        )
    return token, logprobs.gather(-1, token[:, None])[:, 0]


def _finished(prompt: int, row: list[int], logprobs: list[float], ends: frozenset[int]) -> Sample:
    length = next((i for i, token in enumerate(row) if token < 0), len(row))
    ids = tuple(row[:length])
    return Sample(prompt, ids, tuple(logprobs[:length]), bool(ids) and ids[-1] in ends)
