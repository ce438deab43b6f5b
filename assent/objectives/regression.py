"""Regression: score a completion as its rating, each annotator's ratings brought to mean 0 and deviation 1 before.

    L = (r(x, y) - z)^2

Ratings in place of choices, as in Wang et al. 2023 (HelpSteer, arXiv:2311.09528).
"""

from dataclasses import dataclass

from torch import Tensor

from assent.batch import Loss


@dataclass(frozen=True)
class Ratings:
    """Scores and what they should be: rows are completions."""

    scores: Tensor  # (B,) r(x, y)
    targets: Tensor  # (B,) z-score of the rating among its annotator's
    weight: Tensor  # (B,)
    total: float = 0.0
    """Weight of the whole step's ratings; 0: this batch is the whole step."""

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean of (B,) over the ratings of the whole step -> ()."""
        return (values * self.weight).sum() / (self.total or self.weight.sum())


@dataclass(frozen=True)
class Regression:
    """Mean squared error; predicting the mean of every annotator costs about 1."""

    def __call__(self, batch: Ratings) -> Loss:
        miss = batch.scores - batch.targets
        loss = batch.mean(miss.square())
        return Loss(loss, {"loss": loss.detach(), "miss": batch.mean(miss.detach().abs())})
