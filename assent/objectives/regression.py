"""Regression: score a completion as its rating, each annotator's ratings brought to mean 0 and deviation 1 before.

    L = (r(x, y) - z)^2

Ratings in place of choices, as in Wang et al. 2023 (HelpSteer, arXiv:2311.09528).
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import Loss, RatedScores


@dataclass(frozen=True)
class Regression:
    """Mean squared error; predicting the mean of every annotator costs about 1."""

    stage: ClassVar[str] = "reward"
    batch: ClassVar[type] = RatedScores

    def __call__(self, batch: RatedScores) -> Loss:
        miss = batch.scores - batch.targets
        loss = batch.mean(miss.square())
        return Loss.of(loss, {"miss": batch.mean(miss.abs())})
