"""Which checkpoint do people like best? Policies answer held-out prompts, and annotators compare the answers."""

import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from assent.annotators.simulated import Simulated
from assent.config import plugin
from assent.errors import AssentError
from assent.functional.acquisition import double_thompson
from assent.generation.local import Sampling
from assent.generation.responses import fitting
from assent.labelling.arena import games, table, wins
from assent.models.checkpoints import weights_of
from assent.models.load import load_policy
from assent.protocols import Annotator, Stage
from assent.records import Feedback, Prompt, Response, Task
from assent.registry import names
from assent.run import Run
from assent.stages.evaluate import answers_to, base_of, held_out, trained
from assent.stages.label import gather
from assent.training.batching import chunks
from assent.types import PositiveInt

WAVE = 20
"""Comparisons that are put at once before it is looked who may still be the best."""


@dataclass(frozen=True)
class Arena(Stage):
    """Have policies compared by annotators, and rate them."""

    policies: tuple[str, ...] = ()
    """Checkpoints to compare; empty: where the run began, and all policies that were trained in this round."""
    tasks_per_prompt: PositiveInt = 1
    """Pairs of policies that are compared on each held-out prompt."""
    pairs: Literal["even", "best"] = "even"
    """Which policies meet: each as often as the others, by lot, to rate them all; or those between which it is open
    which is the best, by double Thompson sampling after every few answers, to find it with fewer."""
    instruction: str = "Which answer is the better one?"
    """What the annotators are asked."""
    sampling: Sampling = Sampling(temperature=0.7)
    annotator: Annotator = plugin("annotators", Simulated(), lambda: names("annotators"))
    """Who answers: `human` waits for people on the pages of `assent serve`."""

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        policies = list(dict.fromkeys(self.policies or (base_of(run), *trained(run))))
        if len(policies) < 2:
            raise AssentError(f"{run.folder} has {len(policies)} policy to compare: train one, or name some")
        held = held_out(run)
        answers: dict[str, list[Response]] = {}
        for name in policies:
            language = load_policy(run.policy(name), run.dtype, run.device, run.rendering)
            held = fitting(held, language, self.sampling.max_new_tokens)
            answers[name] = answers_to(run, name, language, held, key, self.sampling)
        by_prompt = {name: {response.prompt: response for response in some} for name, some in answers.items()}
        authors: dict[str, frozenset[str]] = {}
        for name, some in answers.items():
            for response in some:
                authors[response.id] = authors.get(response.id, frozenset()) | {name}
        queries: dict[str, Task] = {}
        told: list[Feedback] = []
        for wave in self._waves(run, held, by_prompt, queries, told, authors):
            queries |= {query.id: query for query in wave}
            told += gather(run, key, wave, self.annotator)
        found = table(told, queries, authors, policies[0])
        return {
            "prompts": len(held),
            "comparisons": found.comparisons,
            "annotators": found.annotators,
            "clusters": dict(found.clusters),
            "connected": found.connected,
            "policies": {row.policy: row._asdict() for row in found.rows},
            "weights": {name: weights_of(run.policy(name)) for name in policies},
        }

    def _waves(
        self, run: Run, held: list[Prompt], answers: dict[str, dict[str, Response]], asked: dict[str, Task],
        told: list[Feedback], authors: dict[str, frozenset[str]],
    ) -> Iterator[list[Task]]:  # fmt: skip
        """Queries that can be put at once; those of `best` depend on what was told of the ones before."""
        most = min(self.tasks_per_prompt, len(answers) * (len(answers) - 1) // 2)
        turns = [prompt for prompt in held for _ in range(most)]
        if self.pairs == "even":
            even = self._even(run, list(answers))
            yield self._new(zip(turns, even, strict=False), answers, ())
            return
        policies = list(answers)
        for wave, some in enumerate(chunks(turns, WAVE)):
            dice, so_far = np.random.default_rng([run.seed, wave]), wins(games(told, asked, authors), policies)
            met = [double_thompson(so_far, dice) for _ in some]
            yield self._new(zip(some, ((policies[i], policies[j]) for i, j in met), strict=True), answers, asked)

    def _new(
        self, meetings: Iterable[tuple[Prompt, tuple[str, str]]], answers: dict[str, dict[str, Response]],
        asked: Collection[str],
    ) -> list[Task]:  # fmt: skip
        """Comparisons, each once; the same words need none."""
        made: dict[str, Task] = {}
        for prompt, pair in meetings:
            items = tuple(sorted({answers[name][prompt.id].id for name in pair}))
            query = Task("comparison", prompt.id, items, "evaluate", self.instruction)
            if len(items) == 2 and query.id not in asked:
                made[query.id] = query
        return list(made.values())

    def _even(self, run: Run, policies: list[str]) -> Iterator[tuple[str, str]]:
        """Pairs of policies by lot, each as often as any other within one, for ever."""
        pairs, luck = list(combinations(policies, 2)), random.Random(f"{run.seed} arena")
        while True:
            luck.shuffle(pairs)
            yield from pairs
