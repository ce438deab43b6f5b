"""The settings of sampling and its result; neither needs torch."""

from dataclasses import dataclass
from typing import NamedTuple

from assent.types import NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class Sampling:
    """Sample from the model's own distribution at a temperature, without top-k, top-p or penalties."""

    temperature: NonNegativeFloat = 1.0
    """Divides the logits, for sampling and wherever log-probabilities are computed. 0: the most likely token."""
    max_new_tokens: PositiveInt = 48
    """Tokens after which a completion is truncated; a truncated one has no end token."""


class Sample(NamedTuple):
    """One completion as the model sampled it."""

    prompt_index: int  # of its prompt, in the order of the request
    token_ids: tuple[int, ...]  # with the end token, if there is one
    logprobs: tuple[float, ...]  # of each id when it was sampled: for diagnosis, the trainer computes its own
    finished: bool
