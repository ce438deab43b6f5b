"""A rule-based reward: the conciseness rubric of `functional/conciseness.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assent.functional.conciseness import conciseness_score, score_rubric
from assent.records import Prompt, Response


@dataclass(frozen=True)
class ConcisenessRubric:
    """Scores by the noise-free utility."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        pairs = zip(prompts, responses, strict=True)
        return torch.tensor([conciseness_score(prompt.text, r.text, r.finished) for prompt, r in pairs])

    def criteria(self, prompt: Prompt, response: Response) -> dict[str, float]:
        """Return the score of each of the six questions, 0, 1/2 or 1."""
        return score_rubric(prompt.text, response.text, response.finished)._asdict()
