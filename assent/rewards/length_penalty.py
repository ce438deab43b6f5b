"""A penalty for long responses, to be added to another reward: reward models have a length bias.

    score = -max(0, words / target_words - 1)

Singhal et al. 2023 (arXiv:2310.03716) show how much of a reward model's score is length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.records import Prompt, Response
from assent.types import PositiveInt


@dataclass(frozen=True)
class LengthPenalty:
    """The share of words beyond a target, as a negative score."""

    target_words: PositiveInt = 50
    """Words without a penalty; the penalty is 1 at twice this length."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        words = torch.tensor([float(len(response.text.split())) for response in responses])
        return -(words / self.target_words - 1).clamp(min=0)
