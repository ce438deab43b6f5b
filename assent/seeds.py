"""Seeds of random draws, each derived from the run's seed and the purpose of the draw.

A draw depends on its own numbers alone and never on the draws before it, so a resumed run repeats the same draws.
"""

from enum import IntEnum
from random import Random


class Purpose(IntEnum):
    """Purposes of random draws: the second number of a seed; a new purpose takes a new number."""

    GENERATION = 1
    """`assent generate` and every stage that samples responses to prompts: batch number, bytes of the policy's name."""
    ROLLOUT = 2
    """Completions of an online step: step; and attempt and rank, unless both are 0."""
    MINIBATCHES = 3
    """Order of a rollout's prompts in one epoch of updates: step, epoch."""
    RESPONSE = 4
    """`RLHF.generate`: one response to one prompt."""
    RESAMPLING = 5
    """Prompts that replace those whose rewards are all equal (dynamic sampling): step, attempt."""
    PROBE = 6
    """Completions of every probe of a stage: they share their random numbers."""
    EPISODE = 7
    """Actions and updates of an iteration of an agent: iteration; and the seeds of its episodes: iteration, number."""
    AGENT = 8
    """First weights of an agent."""
    STEP_REWARD = 9
    """First weights of a reward model of steps; and the order of the comparisons in a fit: iteration."""


def derive(seed: int, purpose: Purpose, *numbers: int) -> int:
    """Return the seed of one draw, from 0 to 2^63 - 1.

    Args:
        seed: of the run.
        purpose: of the draw.
        numbers: what distinguishes the draws of one purpose: step, attempt, rank, ...
    """
    return _mix(seed, purpose, *numbers)


def derive_epoch(seed: int, epoch: int) -> int:
    """Return the seed for the order of the training examples in an epoch (0, 1, ...).

    It has no purpose number; its values for epochs 1 to 5 equal those of a `Purpose` without further numbers.
    """
    return _mix(seed, epoch)


def named_rng(*parts: object) -> Random:
    """Return a generator that is seeded by the words of `parts`, joined by spaces: `named_rng(seed, "arena")`."""
    return Random(" ".join(map(str, parts)))


def _mix(*numbers: int) -> int:
    """Mix numbers as SplitMix64 does: multiply by its constants and shift."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        mixed = ((mixed ^ (number + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed ^= mixed >> 31
    return mixed % 2**63
