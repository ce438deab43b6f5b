"""When to stop asking whether an annotator is good: Wald's sequential test on gold items, which goes on watching.

Wald 1945 (doi:10.1214/aoms/1177731118): add up log P(answer | bad) - log P(answer | good), and decide as soon as the
sum leaves an interval. Who passes is tested anew, for people tire. Restarted as it is, the test would stop a good
annotator once in 200 tests, hence 8 % of them within 200 gold items and a third within 1000; so the n-th test spends
6 alpha / (pi n)^2, and all of them together alpha.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

State = Literal["going on", "passed", "failed"]


class Standing(NamedTuple):
    """Where an annotator stands; `passed` may still become `failed`, and `failed` stays."""

    state: State = "going on"
    right: int = 0
    asked: int = 0
    passes: int = 0
    """Tests passed so far."""
    evidence: float = 0.0
    """Of the test that runs: log-odds by which the answers speak for bad."""
    failed_at: int = 0
    """The number of the answer that decided it; 0: none did."""


@dataclass(frozen=True)
class SequentialTest:
    """Good against bad annotators, by their answers to items with a known answer."""

    good: float = 0.9
    """Chance of a good annotator being right."""
    bad: float = 0.6
    """Chance of a bad one being right."""
    alpha: float = 0.01
    """Chance of ever stopping a good annotator, however long they work."""
    beta: float = 0.05
    """Chance of a bad annotator passing the first test."""

    def __post_init__(self) -> None:
        if not 0 < self.bad < self.good < 1:
            raise ValueError(f"good is {self.good} and bad {self.bad}: 0 < bad < good < 1 must hold")
        if not (self.alpha > 0 and self.beta > 0 and self.alpha + self.beta < 1):
            raise ValueError(f"alpha is {self.alpha} and beta {self.beta}: both above 0, together below 1")

    def __call__(self, answers: Iterable[bool]) -> Standing:
        """Where the answers lead, in the order in which they were given."""
        return reduce(self.after, answers, Standing())

    def after(self, standing: Standing, right: bool) -> Standing:
        """Where one more answer leads."""
        odds = self.bad / self.good if right else (1 - self.bad) / (1 - self.good)
        evidence = standing.evidence + math.log(odds)
        told = standing._replace(right=standing.right + bool(right), asked=standing.asked + 1)
        if standing.state == "failed":
            return told
        alpha = 6 * self.alpha / (math.pi * (standing.passes + 1)) ** 2
        if evidence >= math.log((1 - self.beta) / alpha):
            return told._replace(state="failed", evidence=evidence, failed_at=told.asked)
        if evidence <= math.log(self.beta / (1 - alpha)):
            return told._replace(state="passed", evidence=0.0, passes=standing.passes + 1)
        return told._replace(evidence=evidence)
