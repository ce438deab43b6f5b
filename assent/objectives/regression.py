"""Regression: the score of a completion is its rating, standardised to mean 0 and deviation 1 for each annotator.

    L = (r(x, y) - z)^2

Ratings instead of choices, as in Wang et al. 2023 (HelpSteer, arXiv:2311.09528).
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import Loss, RatedScores


@dataclass(frozen=True)
class Regression:
    """Mean squared error; predicting every annotator's mean has a loss of about 1."""

    stage: ClassVar[str] = "reward"
    batch: ClassVar[type] = RatedScores

    def __call__(self, batch: RatedScores) -> Loss:
        errors = batch.scores - batch.targets
        return Loss.of_rows(batch, errors.square(), {"mae": errors.abs()})
