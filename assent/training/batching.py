"""Examples of a step and token-bounded batches of a forward pass; seeds and sizes alone decide both."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from assent.models.packing import SharedPrefix
from assent.seeds import Purpose, derive, derive_epoch

T = TypeVar("T")
INFERENCE_TOKENS = 2048
"""Default of the tokens in a batch without gradients."""


def plan_batches(prefixes: Sequence[SharedPrefix], max_tokens: int) -> list[list[int]]:
    """Return batches of indices, longest prefix first, of at most `max_tokens` tokens (or a single longer one)."""
    order = sorted(range(len(prefixes)), key=lambda i: (-prefixes[i].num_tokens, i))
    batches: list[list[int]] = []
    free_tokens = 0
    for i in order:
        if not batches or prefixes[i].num_tokens > free_tokens:
            batches.append([])
            free_tokens = max_tokens
        batches[-1].append(i)
        free_tokens -= prefixes[i].num_tokens
    return batches


def max_batch_tokens(prefixes: Sequence[SharedPrefix], max_tokens: int, batch_size: int) -> int:
    """Return the tokens of the largest batch in a step of the `batch_size` longest prefixes."""
    longest = sorted(prefixes, key=lambda prefix: -prefix.num_tokens)[:batch_size]
    return max(sum(longest[i].num_tokens for i in indices) for indices in plan_batches(longest, max_tokens))


def generator(seed: int, purpose: Purpose, *numbers: int) -> torch.Generator:
    """Return a new generator for one draw: see `assent.seeds.derive`."""
    return torch.Generator().manual_seed(derive(seed, purpose, *numbers))


def count_steps(count: int, batch_size: int, epochs: int) -> int:
    """Return the steps of `epochs` passes over `count` examples; the last batch of a pass may be smaller."""
    return epochs * -(-count // batch_size)


def select_batch(examples: Sequence[T], batch_size: int, step: int, seed: int) -> list[T]:
    """Return the examples of a step; every epoch goes through all of them in a new order."""
    steps_per_epoch = -(-len(examples) // batch_size)
    rng = torch.Generator().manual_seed(derive_epoch(seed, step // steps_per_epoch))
    order = torch.randperm(len(examples), generator=rng).tolist()
    start = (step % steps_per_epoch) * batch_size
    return [examples[i] for i in order[start : start + batch_size]]


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield consecutive chunks of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
