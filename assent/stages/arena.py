"""A rating of policies: annotators compare their responses to held-out prompts, by Bradley-Terry."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np

from assent.annotators.simulated import Simulated
from assent.config import plugin
from assent.errors import AssentError
from assent.evaluation.candidates import (
    generate_candidate,
    held_out_prompts,
    selected_candidate,
    selection_label,
    trained_policies,
)
from assent.evaluation.win_rates import INSTRUCTION, comparison_task
from assent.functional.acquisition import double_thompson
from assent.generation.responses import prompts_within_context
from assent.generation.sampling import Sampling
from assent.labelling.arena import pairwise_outcomes, rate_policies, win_counts
from assent.labelling.collect import collect_judgements
from assent.models.checkpoints import weights_digest
from assent.models.load import load_policy
from assent.protocols import Annotator, Stage
from assent.records import Feedback, Prompt, Response, Task
from assent.registry import names
from assent.run import Run
from assent.seeds import named_rng
from assent.training.batching import chunks
from assent.types import PositiveInt

WAVE_SIZE = 20
"""Comparisons that are asked before Thompson sampling chooses the next pairs."""

Responses = dict[str, dict[str, Response]]
"""Responses by policy, then by prompt."""


@dataclass(frozen=True)
class Arena(Stage):
    """Have annotators compare policies, and rate the policies."""

    aim: ClassVar[str] = "annotators compare the checkpoints"
    policies: tuple[str, ...] = ()
    """Policies to compare; empty: the one that the first round started from, and all that this round trained."""
    tasks_per_prompt: PositiveInt = 1
    """Pairs of policies that are compared on each held-out prompt."""
    pairs: Literal["even", "best"] = "even"
    """Pairs to compare: `even`, each pair equally often at random, which rates all policies; `best`, pairs that may
    contain the best policy, by double Thompson sampling, which finds the best with fewer comparisons."""
    instruction: str = INSTRUCTION
    """The question to the annotators."""
    sampling: Sampling = Sampling(temperature=0.7)
    annotator: Annotator = plugin("annotators", Simulated(), lambda: names("annotators"))
    """The annotator: `human` waits for people on the pages of `assent serve`."""

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        policies = list(dict.fromkeys(self.policies or (run.initial_policy, *trained_policies(run))))
        if len(policies) < 2:
            raise AssentError(f"{run.folder} has {len(policies)} policy to compare; train one, or name some")
        prompts, responses = self._responses(run, key, policies)
        policies_by_item: dict[str, frozenset[str]] = {}
        for policy, by_prompt in responses.items():
            for response in by_prompt.values():
                policies_by_item[response.id] = policies_by_item.get(response.id, frozenset()) | {policy}
        tasks: dict[str, Task] = {}
        feedback: list[Feedback] = []
        for wave in self._waves(run, prompts, responses, tasks, feedback, policies_by_item):
            tasks |= {task.id: task for task in wave}
            feedback += collect_judgements(run, key, wave, self.annotator)
        ratings = rate_policies(feedback, tasks, policies_by_item, policies[0])
        return {
            "prompts": len(prompts),
            "comparisons": ratings.comparisons,
            "annotators": ratings.annotators,
            "clusters": dict(ratings.clusters),
            "connected": ratings.connected,
            "policies": {row.policy: row._asdict() for row in ratings.rows},
            "weights": {name: selection_label(run, name) or weights_digest(run.policy(name)) for name in policies},
        }

    def _responses(self, run: Run, key: str, policies: list[str]) -> tuple[list[Prompt], Responses]:
        """Return the prompts that fit every policy's context, and one response of each policy to each of them."""
        prompts = held_out_prompts(run)
        for policy in policies:
            if chosen := selection_label(run, policy):
                answered = {response.prompt for response in run.store.responses(policy=chosen)}
                prompts = [prompt for prompt in prompts if prompt.id in answered]
        responses: Responses = {}
        for policy in policies:
            if selection_label(run, policy):
                candidate = selected_candidate(run, policy, prompts, policies[0])
            else:
                model = load_policy(run.policy(policy), run.dtype, run.device, run.rendering)
                prompts = prompts_within_context(prompts, model, self.sampling.max_new_tokens)
                candidate = generate_candidate(run, policy, model, prompts, key, self.sampling)
            responses[policy] = {response.prompt: response for response in candidate.responses}
        return prompts, responses

    def _waves(
        self,
        run: Run,
        prompts: list[Prompt],
        responses: Responses,
        tasks: dict[str, Task],
        feedback: list[Feedback],
        policies_by_item: dict[str, frozenset[str]],
    ) -> Iterator[list[Task]]:
        """Yield tasks that can be asked at once; those of `best` depend on the feedback on the waves before."""
        policies = list(responses)
        pairs_per_prompt = min(self.tasks_per_prompt, len(policies) * (len(policies) - 1) // 2)
        turns = [prompt for prompt in prompts for _ in range(pairs_per_prompt)]
        if self.pairs == "even":
            yield self._tasks(zip(turns, self._even_pairs(run, policies), strict=False), responses, ())
            return
        for wave, wave_prompts in enumerate(chunks(turns, WAVE_SIZE)):
            rng = np.random.default_rng([run.seed, wave])
            counts = win_counts(pairwise_outcomes(feedback, tasks, policies_by_item), policies)
            pairs = [double_thompson(counts, rng) for _ in wave_prompts]
            names_of_pairs = [(policies[i], policies[j]) for i, j in pairs]
            yield self._tasks(zip(wave_prompts, names_of_pairs, strict=True), responses, tasks)

    def _tasks(
        self, pairs: Iterable[tuple[Prompt, tuple[str, str]]], responses: Responses, asked_before: Collection[str]
    ) -> list[Task]:
        """Return the comparisons that were not asked before, each once; two equal responses need none."""
        tasks: dict[str, Task] = {}
        for prompt, (first, second) in pairs:
            items = sorted({responses[first][prompt.id].id, responses[second][prompt.id].id})
            if len(items) == 2:
                task = comparison_task(prompt.id, (items[0], items[1]), self.instruction)
                if task.id not in asked_before:
                    tasks[task.id] = task
        return list(tasks.values())

    def _even_pairs(self, run: Run, policies: list[str]) -> Iterator[tuple[str, str]]:
        """Yield pairs of policies in random order without end; their counts differ by at most one."""
        pairs = list(combinations(policies, 2))
        rng = named_rng(run.seed, "arena")
        while True:
            rng.shuffle(pairs)
            yield from pairs
