"""Cross-entropy: imitate the tokens of demonstrations; one mean over all trained tokens of the step.

    L = -sum_t w_t log pi(y_t | x, y_<t) / sum_t w_t

The supervised stage of Ouyang et al. 2022 (arXiv:2203.02155).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from assent.batch import Loss, TokenLogprobsBatch


@dataclass(frozen=True)
class CrossEntropy:
    """Negative log-likelihood of the trained tokens."""

    stage: ClassVar[str] = "sft"

    def __call__(self, batch: TokenLogprobsBatch) -> Loss:
        logprobs = torch.where(batch.weight > 0, batch.logprobs, 0.0)  # an untrained -inf would be 0 * inf = NaN
        return Loss.of_rows(batch, -logprobs, {})
