"""A rule as a reward: the utility of `functional/conciseness.py`, for rewards that nobody needs to learn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.functional.conciseness import utility
from assent.records import Prompt, Response


@dataclass(frozen=True)
class ConcisenessRubric:
    """Scores by the noise-free utility."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        pairs = zip(prompts, responses, strict=True)
        return torch.tensor([utility(prompt.text, r.text, r.finished) for prompt, r in pairs])
