"""K-way comparison: a ranking of K completions is one example, the mean over its pairs of different tiers.

    L = -1 / |P| sum_{(i, j) in P} log s(r_i - r_j),   P: pairs with i in the better tier; C(K, 2) of them without ties

Ouyang et al. 2022 (InstructGPT), section 3.5, eq. 1 (arXiv:2203.02155): pairs of one ranking are so correlated that
a model trained on them one by one overfits. Each ranking counts the same, however long; with K = 2 it is Bradley-Terry.
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import Loss, RankedScores
from assent.functional.losses import kway_loss, ranking_accuracy


@dataclass(frozen=True)
class KWay:
    """Mean Bradley-Terry loss of a ranking's pairs."""

    stage: ClassVar[str] = "reward"
    batch: ClassVar[type] = RankedScores

    def __call__(self, batch: RankedScores) -> Loss:
        losses = kway_loss(batch.scores, batch.tiers, batch.mask)
        accuracy = ranking_accuracy(batch.scores, batch.tiers, batch.mask)
        return Loss.of_rows(batch, losses, {"accuracy": accuracy})
