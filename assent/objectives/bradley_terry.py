"""Bradley-Terry: the difference of two scores is the log-odds of the choice between their completions.

    d = r(chosen) - r(rejected) - margin,  L = -[p log s(d) + (1 - p) log s(-d)] + c (r(chosen) + r(rejected))^2

Bradley & Terry 1952; Christiano et al. 2017 (arXiv:1706.03741), whose annotators choose at random with probability e:
s(d) becomes (1 - e) s(d) + e/2. Margins: Touvron et al. 2023 (arXiv:2307.09288). Centring: Eisenstein et al. 2023
(arXiv:2312.09244). Ties as an outcome of their own: Rao & Kupper 1967, Davidson 1970.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt, Interval
from torch import Tensor
from torch.nn.functional import logsigmoid

from assent.batch import Loss, ScorePairs
from assent.functional.losses import pair_metrics
from assent.types import NonNegativeFloat, PositiveFloat


@dataclass(frozen=True)
class BradleyTerry:
    """Maximum likelihood of comparisons."""

    stage: ClassVar[str] = "reward"
    batch: ClassVar[type] = ScorePairs

    ties: Literal["half", "davidson", "rao_kupper"] = "half"
    """Meaning of a target of 1/2: half a win for each side, or a tie as an outcome by one of two formulas."""
    nu: PositiveFloat = 1.0
    """Davidson: equal scores tie with probability nu / (2 + nu); above 0."""
    eta: Annotated[float, Gt(1)] = 2.0
    """Rao-Kupper: equal scores tie with probability (eta - 1) / (eta + 1); above 1."""
    error_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Probability that a judgement is random; from 0 to 1, .1 for humans who compare clips (Christiano et al.)."""
    center_rewards_coefficient: NonNegativeFloat = 0.0
    """Weight of the squared sum of both scores, which keeps scores near 0; 0 to .1, usually .01."""

    def __call__(self, batch: ScorePairs) -> Loss:
        difference = batch.chosen - batch.rejected - batch.margin
        loss = batch.mean(self._negative_log_likelihood(difference, batch.p_chosen))
        loss = loss + self.center_rewards_coefficient * batch.mean((batch.chosen + batch.rejected).square())
        metrics = pair_metrics(batch.chosen, batch.rejected, batch.p_chosen)
        return Loss.of(loss, {name: batch.mean(values) for name, values in metrics.items()})

    def _negative_log_likelihood(self, d: Tensor, p: Tensor) -> Tensor:
        """Return -log P(outcome), (B,)."""
        if self.ties == "half":
            won, lost = self._with_errors(logsigmoid(d), 2), self._with_errors(logsigmoid(-d), 2)
            return -(p * won + (1 - p) * lost)
        if self.ties == "davidson":
            total = torch.logaddexp(torch.logaddexp(d / 2, -d / 2), torch.full_like(d, math.log(self.nu)))
            won, tied, lost = d / 2 - total, math.log(self.nu) - total, -d / 2 - total
        else:
            won, lost = logsigmoid(d - math.log(self.eta)), logsigmoid(-d - math.log(self.eta))
            tied = math.log(self.eta**2 - 1) + won + lost
        won, tied, lost = (self._with_errors(outcome, 3) for outcome in (won, tied, lost))
        return -torch.where(p == 0.5, tied, p * won + (1 - p) * lost)

    def _with_errors(self, log_probability: Tensor, outcomes: int) -> Tensor:
        """Return log((1 - e) P + e / outcomes)."""
        if not self.error_rate:
            return log_probability
        random = torch.full_like(log_probability, math.log(self.error_rate / outcomes))
        return torch.logaddexp(math.log1p(-self.error_rate) + log_probability, random)
