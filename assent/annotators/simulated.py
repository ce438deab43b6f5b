"""Simulated annotators: the conciseness rubric with Bradley-Terry noise, errors and ties.

An annotator of rationality b prefers response x to y with probability sigmoid(b (u(x) - u(y))), where u is the rubric's
score. With probability `error_prob` the choice is inverted; with probability `tie_prob` a pair with close scores is
called a tie. A ranking is drawn from Plackett-Luce with odds e^(b u), and errors and ties are applied to neighbours in
it, so that a ranking of two responses has the same distribution as a comparison. Bradley & Terry 1952, Plackett 1975;
errors as in Christiano et al. 2017, section 2.2.3 (arXiv:1706.03741). For clips of an environment, u is the sum of its
own reward.
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
from assent.functional.conciseness import conciseness_score
from assent.records import Feedback, Prompt, Response, Task
from assent.replay import replay, start_of
from assent.segments import is_behaviour
from assent.types import PositiveInt

MAX_TIE_GAP = 1.5 / 12
"""Responses whose scores differ by less may be called a tie: by at most half of one of the six criteria."""


@dataclass(frozen=True)
class NoiseModel:
    """The noise of one annotator."""

    rationality: float
    error_prob: float
    tie_prob: float
    seed_word: str
    """Part of the seed of further votes: the profile's name in version 0.1, so that its draws can be repeated."""


PROFILES: Mapping[str, NoiseModel] = {
    "low_noise": NoiseModel(rationality=60.0, error_prob=0.02, tie_prob=0.5, seed_word="careful"),
    "medium_noise": NoiseModel(rationality=30.0, error_prob=0.08, tie_prob=0.3, seed_word="usual"),
    "high_noise": NoiseModel(rationality=15.0, error_prob=0.2, tie_prob=0.1, seed_word="hasty"),
    "noise_free": NoiseModel(rationality=math.inf, error_prob=0.0, tie_prob=0.0, seed_word="noise_free"),
    "one_in_ten_wrong": NoiseModel(rationality=math.inf, error_prob=0.1, tie_prob=0.0, seed_word="one_in_ten_wrong"),
}
"""The three annotators of the demo, the most reliable first; and two that measure agents."""
DEMO_PROFILES = ("low_noise", "medium_noise", "high_noise")


@dataclass(frozen=True)
class Simulated:
    """Simulated annotators that prefer concise responses, or clips with more of the environment's own reward.

    Each task is judged by one or several of them.
    """

    batch_size: ClassVar[int] = 500
    is_human: ClassVar[bool] = False

    profiles: tuple[str, ...] = DEMO_PROFILES
    """Noise profiles: low_noise, medium_noise, high_noise, noise_free, one_in_ten_wrong; each task goes to one of them
    at random."""
    votes: PositiveInt = 1
    """Annotators that judge each task, at most one of each profile; all judgements are stored."""
    random_labels: bool = False
    """Negative control: every judgement is random, so that nothing can be learned."""

    def __post_init__(self) -> None:
        if not self.profiles:
            raise AssentError("profiles is empty; name at least one noise profile")
        for name in self.profiles:
            if name not in PROFILES:
                raise AssentError(f"no noise profile '{name}'{did_you_mean(name, PROFILES)}")

    def annotate(
        self,
        tasks: Iterable[Task],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        queue: object = None,
        batch: str = "",
    ) -> Iterator[Feedback]:
        """Judge comparisons and rankings; each judgement depends on the seed and the task alone, not on the order.

        Args:
            tasks: comparisons and rankings.
            prompts: by id, at least those of the tasks.
            responses: by id, at least the items of the tasks.
            now: the time of every judgement; simulated annotators have no clock.
        """
        tasks = list(tasks)
        scores_of_clips = _score_clips(tasks, prompts, responses)
        for task in tasks:
            if task.kind not in ("comparison", "ranking"):
                raise AssentError(f"simulated annotators cannot judge a {task.kind}; use a comparison or a ranking")
            draw = _draw_comparison if task.kind == "comparison" else _draw_ranking
            score_by_item = {
                item: scores_of_clips[item]
                if item in scores_of_clips
                else noise_free_score(prompts[task.prompt], responses[item])
                for item in task.items
            }
            for name, rng in self._voters(f"{seed} {task.id}"):
                display_order = list(task.items)
                rng.shuffle(display_order)
                scores = [score_by_item[item] for item in display_order]
                yield Feedback(
                    task=task.id,
                    annotator=f"simulated:{name}",
                    judgement=draw(display_order, scores, PROFILES[name], rng, self.random_labels),
                    created_at=now.isoformat(),
                    duration=round(rng.lognormvariate(2.0, 0.5), 1),
                    display_order=tuple(display_order),
                    source="simulated",
                )

    def _voters(self, seed: str) -> Iterator[tuple[str, random.Random]]:
        """Yield the profiles that judge a task, each with its own generator; more votes do not change the first one."""
        rng = random.Random(seed)
        first = rng.choice(self.profiles)
        yield first, rng
        further = [name for name in dict.fromkeys(self.profiles) if name != first]
        random.Random(f"{seed} others").shuffle(further)
        for name in further[: self.votes - 1]:
            yield name, random.Random(f"{seed} {PROFILES[name].seed_word}")


def noise_free_score(prompt: Prompt, response: Response) -> float:
    """Return the score of the conciseness rubric, from 0 to 1."""
    return conciseness_score(prompt.text, response.text, response.finished)


def _score_clips(
    tasks: Iterable[Task], prompts: Mapping[str, Prompt], responses: Mapping[str, Response]
) -> dict[str, float]:
    """Return the score of each clip among the items of tasks: its true return, in units of the environment."""
    prompt_by_item = {item: prompts[task.prompt] for task in tasks for item in task.items}
    items = [item for item, prompt in prompt_by_item.items() if is_behaviour(prompt)]
    if not items:
        return {}
    clips = replay([(prompt_by_item[item], responses[item].text) for item in items])
    scales = (start_of(prompt_by_item[item]).environment.reward_scale for item in items)
    return {item: clip.true_return / scale for item, clip, scale in zip(items, clips, scales, strict=True)}


def _draw_comparison(
    items: Sequence[str], scores: Sequence[float], noise: NoiseModel, rng: random.Random, is_random: bool
) -> Comparison:
    gap = scores[0] - scores[1]
    if is_random:
        return Comparison(preferred=rng.choice(items))
    if abs(gap) < MAX_TIE_GAP and rng.random() < noise.tie_prob:
        return Comparison(verdict="tie")
    log_odds = noise.rationality * gap if gap else 0.0
    prefers_first = rng.random() < 1 / (1 + math.exp(-max(log_odds, -700.0)))
    if rng.random() < noise.error_prob:
        prefers_first = not prefers_first
    strength = 1 if abs(gap) < 1 / 6 else 2 if abs(gap) < 1 / 3 else 3
    return Comparison(preferred=items[0] if prefers_first else items[1], strength=strength)


def _draw_ranking(
    items: Sequence[str], scores: Sequence[float], noise: NoiseModel, rng: random.Random, is_random: bool
) -> Ranking:
    if is_random:
        return Ranking(tuple((item,) for item in rng.sample(items, len(items))))
    # Utilities plus Gumbel noise have the order of Plackett-Luce (Yellott 1977, doi:10.1016/0022-2496(77)90026-8).
    utilities = [noise.rationality * score - math.log(-math.log(rng.random() or 0.5)) for score in scores]
    order = sorted(range(len(items)), key=lambda i: -utilities[i])
    for i in range(len(order) - 1):
        if rng.random() < noise.error_prob:
            order[i], order[i + 1] = order[i + 1], order[i]
    tiers: list[list[int]] = [order[:1]]
    for i in order[1:]:
        gap = abs(scores[i] - scores[tiers[-1][-1]])
        if gap < MAX_TIE_GAP and rng.random() < noise.tie_prob:
            tiers[-1].append(i)
        else:
            tiers.append([i])
    return Ranking(tuple(tuple(items[i] for i in tier) for tier in tiers))
