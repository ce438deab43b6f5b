"""Plackett-Luce: a ranking is chosen best first, each time from the rest, with odds e^score.

    L = -sum_i [s_i - log sum_{j: tier(j) >= tier(i)} e^{s_j}]

Luce 1959; Plackett 1975 (doi:10.2307/2346567); for language models: Rafailov et al. 2023, appendix A.3
(arXiv:2305.18290). With two completions it is Bradley-Terry. Equals: Breslow 1974 (doi:10.2307/2529620), by which
each of them is chosen from the whole tier.
"""

from dataclasses import dataclass
from typing import ClassVar

from assent.batch import Loss, RankedScores
from assent.functional.losses import plackett_luce_loss, ranking_accuracy


@dataclass(frozen=True)
class PlackettLuce:
    """Maximum likelihood of rankings."""

    stage: ClassVar[str] = "reward"
    batch: ClassVar[type] = RankedScores

    def __call__(self, batch: RankedScores) -> Loss:
        losses = plackett_luce_loss(batch.scores, batch.tiers, batch.mask)
        accuracy = ranking_accuracy(batch.scores, batch.tiers, batch.mask)
        return Loss.of_rows(batch, losses, {"accuracy": accuracy})
