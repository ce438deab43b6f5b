"""Which trees go into one pack, and which examples into one step; both decided by seeds and sizes alone."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from assent.models.attention import SharedPrefix

T = TypeVar("T")
READING = 2048
"""Tokens a pack where nothing is learned, unless told."""


def packs(trees: Sequence[SharedPrefix], tokens: int) -> list[list[int]]:
    """Indices of trees, longest first, cut into packs of at most `tokens` tokens (or one larger tree)."""
    order = sorted(range(len(trees)), key=lambda i: (-trees[i].size, i))
    found: list[list[int]] = []
    room = 0
    for i in order:
        if not found or trees[i].size > room:
            found.append([])
            room = tokens
        found[-1].append(i)
        room -= trees[i].size
    return found


def largest(trees: Sequence[SharedPrefix], tokens: int, batch_size: int) -> int:
    """Tokens of the largest pack that a step of `batch_size` trees may come to."""
    most = sorted(trees, key=lambda tree: -tree.size)[:batch_size]
    return max(sum(most[i].size for i in part) for part in packs(most, tokens))


def generator(*seeds: int) -> torch.Generator:
    """A generator of its own for (seed, purpose, step, ...): what happened before never matters."""
    mixed = 0x9E3779B97F4A7C15
    for seed in seeds:
        mixed = ((mixed ^ (seed + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed % 2**63)


def steps_of(count: int, batch_size: int, epochs: int) -> int:
    """How many steps `epochs` passes over `count` examples take; the last batch of a pass may be smaller."""
    return epochs * -(-count // batch_size)


def batch(examples: Sequence[T], batch_size: int, step: int, seed: int) -> list[T]:
    """The examples of a step: each pass goes through all of them in an order of its own."""
    per_pass = -(-len(examples) // batch_size)
    order = torch.randperm(len(examples), generator=generator(seed, step // per_pass)).tolist()
    start = (step % per_pass) * batch_size
    return [examples[i] for i in order[start : start + batch_size]]


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
