"""Screening of annotators: Wald's sequential probability ratio test on gold items, repeated indefinitely.

Wald 1945 (doi:10.1214/aoms/1177731118): add up log P(judgement | bad) - log P(judgement | good), and decide as soon
as the sum leaves an interval. An annotator who passes is tested again, since attention may fall. Repeated unchanged,
the test would fail a good annotator once in 200 tests: 8 % of them within 200 gold items and a third within 1000. So
the n-th test spends 6 alpha / (pi n)^2, and all of them together alpha.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

Status = Literal["in progress", "passed", "failed"]


class GoldTestState(NamedTuple):
    """The state of an annotator's test; `passed` may still become `failed`, and `failed` is final."""

    status: Status = "in progress"
    correct: int = 0
    total: int = 0
    passes: int = 0
    """Number of tests passed."""
    log_odds: float = 0.0
    """Of the running test: log P(judgements | bad) - log P(judgements | good)."""
    failed_at: int = 0
    """Number of gold items until the failure; 0: not failed."""


@dataclass(frozen=True)
class SequentialTest:
    """A test of good against bad annotators by their judgements of gold items."""

    good: float = 0.9
    """Probability that a good annotator is right."""
    bad: float = 0.6
    """Probability that a bad annotator is right."""
    alpha: float = 0.01
    """Probability that a good annotator ever fails, however long they work."""
    beta: float = 0.05
    """Probability that a bad annotator passes the first test."""

    def __post_init__(self) -> None:
        if not 0 < self.bad < self.good < 1:
            raise ValueError(f"good is {self.good} and bad {self.bad}: choose 0 < bad < good < 1")
        if not (self.alpha > 0 and self.beta > 0 and self.alpha + self.beta < 1):
            raise ValueError(f"alpha is {self.alpha} and beta {self.beta}: choose both above 0, together below 1")

    def __call__(self, outcomes: Iterable[bool]) -> GoldTestState:
        """Return the state after judgements of gold items, in their order: True where the annotator was right."""
        return reduce(self.update, outcomes, GoldTestState())

    def update(self, state: GoldTestState, is_correct: bool) -> GoldTestState:
        """Return the state after one more judgement."""
        likelihood_ratio = self.bad / self.good if is_correct else (1 - self.bad) / (1 - self.good)
        log_odds = state.log_odds + math.log(likelihood_ratio)
        counted = state._replace(correct=state.correct + bool(is_correct), total=state.total + 1)
        if state.status == "failed":
            return counted
        alpha = 6 * self.alpha / (math.pi * (state.passes + 1)) ** 2
        if log_odds >= math.log((1 - self.beta) / alpha):
            return counted._replace(status="failed", log_odds=log_odds, failed_at=counted.total)
        if log_odds <= math.log(self.beta / (1 - alpha)):
            return counted._replace(status="passed", log_odds=0.0, passes=state.passes + 1)
        return counted._replace(log_odds=log_odds)
