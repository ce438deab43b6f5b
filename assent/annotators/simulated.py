"""Simulated annotators: a documented utility, seen through Bradley-Terry noise, mistakes and ties.

An annotator of sharpness s prefers answer a to b with probability sigmoid(s (u(a) - u(b))); with probability `mistakes`
a choice is turned round; with probability `ties` a pair of utilities at most a twelfth apart is called a tie. A ranking
is drawn best first with odds e^(s u), and mistakes and ties befall neighbours in it: of two answers it says the same as
a comparison. Bradley & Terry 1952, Plackett 1975; mistakes as in Christiano et al. 2017, section 2.2.3
(arXiv:1706.03741).
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from assent.errors import AssentError, did_you_mean
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.functional.conciseness import utility
from assent.records import Feedback, Prompt, Response, Task
from assent.types import PositiveInt

CLOSE = 1.5 / 12
"""Answers whose utilities differ by less may be called a tie: by no more than half of one of the six marks."""


@dataclass(frozen=True)
class NoiseModel:
    """How one annotator differs from the noise-free judge."""

    rationality: float
    error_prob: float
    tie_prob: float


PROFILES: Mapping[str, NoiseModel] = {
    "careful": NoiseModel(rationality=60.0, error_prob=0.02, tie_prob=0.5),
    "usual": NoiseModel(rationality=30.0, error_prob=0.08, tie_prob=0.3),
    "hasty": NoiseModel(rationality=15.0, error_prob=0.2, tie_prob=0.1),
}
"""The three annotators of the demo, most reliable first."""


@dataclass(frozen=True)
class Simulated:
    """Annotators whose utility is `functional/conciseness.py`, each query answered by one of them or by several."""

    batch_size: ClassVar[int] = 500
    human: ClassVar[bool] = False

    profiles: tuple[str, ...] = tuple(PROFILES)
    """Names from careful, usual, hasty; each query goes to one of them by lot."""
    votes: PositiveInt = 1
    """How many of them answer each query, or all if they are fewer; every answer is kept."""
    random_labels: bool = False
    """Negative control: every choice is decided by a coin, so that nothing can be learned."""

    def __post_init__(self) -> None:
        if not self.profiles:
            raise AssentError("nobody is there to answer: people is empty")
        for name in self.profiles:
            if name not in PROFILES:
                raise AssentError(f"no simulated annotator '{name}'{did_you_mean(name, PROFILES)}")

    def answer(
        self,
        queries: Iterable[Task],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        desk: object = None,
        batch: str = "",
    ) -> Iterator[Feedback]:
        """Answer comparisons and rankings; each follows from the seed and the query alone, whatever was asked before.

        Args:
            prompts, responses: by id, at least those that the queries name.
            now: written on every answer (a simulated annotator has no clock of its own).
        """
        for query in queries:
            if query.kind not in ("comparison", "ranking"):
                raise AssentError(f"simulated annotators answer comparisons and rankings, not {query.kind}s")
            says = _compare if query.kind == "comparison" else _rank
            worth = {item: true_utility(prompts[query.prompt], responses[item]) for item in query.items}
            for name, luck in self._voters(f"{seed} {query.id}"):
                shown = list(query.items)
                luck.shuffle(shown)
                yield Feedback(
                    task=query.id,
                    annotator=f"simulated:{name}",
                    judgement=says(shown, [worth[item] for item in shown], PROFILES[name], luck, self.random_labels),
                    created_at=now.isoformat(),
                    duration=round(luck.lognormvariate(2.0, 0.5), 1),
                    display_order=tuple(shown),
                )

    def _voters(self, lot: str) -> Iterator[tuple[str, random.Random]]:
        """Who answers a query, each with luck of his own; more votes leave the first as it was."""
        luck = random.Random(lot)
        first = luck.choice(self.profiles)
        yield first, luck
        others = [name for name in dict.fromkeys(self.profiles) if name != first]
        random.Random(f"{lot} others").shuffle(others)
        for name in others[: self.votes - 1]:
            yield name, random.Random(f"{lot} {name}")


def true_utility(prompt: Prompt, response: Response) -> float:
    """The noise-free judge."""
    return utility(prompt.text, response.text, response.finished)


def _compare(
    shown: Sequence[str], worth: Sequence[float], person: NoiseModel, luck: random.Random, shuffled: bool
) -> Comparison:
    gap = worth[0] - worth[1]
    if shuffled:
        return Comparison(preferred=luck.choice(shown))
    if abs(gap) < CLOSE and luck.random() < person.tie_prob:
        return Comparison(verdict="tie")
    first = luck.random() < 1 / (1 + math.exp(-person.rationality * gap))
    if luck.random() < person.error_prob:
        first = not first
    strength = 1 if abs(gap) < 1 / 6 else 2 if abs(gap) < 1 / 3 else 3
    return Comparison(preferred=shown[0] if first else shown[1], strength=strength)


def _rank(
    shown: Sequence[str], worth: Sequence[float], person: NoiseModel, luck: random.Random, shuffled: bool
) -> Ranking:
    if shuffled:
        return Ranking(tuple((item,) for item in luck.sample(shown, len(shown))))
    # Utilities plus Gumbel noise fall in the order of Plackett-Luce (Yellott 1977, doi:10.1016/0022-2496(77)90026-8).
    drawn = [person.rationality * u - math.log(-math.log(luck.random() or 0.5)) for u in worth]
    order = sorted(range(len(shown)), key=lambda i: -drawn[i])
    for i in range(len(order) - 1):
        if luck.random() < person.error_prob:
            order[i], order[i + 1] = order[i + 1], order[i]
    tiers: list[list[int]] = [order[:1]]
    for i in order[1:]:
        if abs(worth[i] - worth[tiers[-1][-1]]) < CLOSE and luck.random() < person.tie_prob:
            tiers[-1].append(i)
        else:
            tiers.append([i])
    return Ranking(tuple(tuple(shown[i] for i in tier) for tier in tiers))
