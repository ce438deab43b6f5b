"""Which checkpoint do people like best? Policies answer held-out prompts, and annotators compare the answers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from assent.annotators.simulated import Simulated
from assent.config import plugin
from assent.errors import AssentError
from assent.generation.local import Sampling
from assent.limits import Count
from assent.models.load import load_policy, weights_of
from assent.preferences.arena import table
from assent.preferences.convert import split
from assent.protocols import Annotator
from assent.records import Prompt, Query, Response
from assent.registry import names
from assent.stages.evaluate import answers_to, base_of, trained
from assent.stages.generate import fitting
from assent.stages.label import gather
from assent.store.desk import Desk
from assent.store.runs import Run


@dataclass(frozen=True)
class Arena:
    """Have policies compared by annotators, and rate them."""

    policies: tuple[str, ...] = ()
    """Checkpoints to compare; empty: where the run began, and all policies that were trained in this round."""
    per_prompt: Count = 1
    """Pairs of policies that are compared on each held-out prompt, by lot."""
    instruction: str = "Which answer is the better one?"
    """What the annotators are asked."""
    sampling: Sampling = Sampling(temperature=0.7)
    annotator: Annotator[Desk] = plugin("annotators", Simulated(), lambda: names("annotators"))
    """Who answers: `human` waits for people on the pages of `assent serve`."""

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        policies = list(dict.fromkeys(self.policies or (base_of(run), *trained(run))))
        if len(policies) < 2:
            raise AssentError(f"{run.folder} has {len(policies)} policy to compare: train one, or name some")
        prompts = list(run.store.prompts())
        held_ids = split(prompts, run.setup.held_out).held_out
        held = [prompt for prompt in prompts if prompt.id in held_ids]
        if not held:
            raise AssentError(f"{run.folder} has no held-out prompts: take another --run with a higher --held-out")
        answers: dict[str, list[Response]] = {}
        for name in policies:
            language = load_policy(run.policy(name), run.dtype, run.device)
            held = fitting(held, language, self.sampling.max_new_tokens)
            answers[name] = answers_to(run, name, language, held, key, self.sampling)
        by_prompt = {name: {response.prompt: response for response in some} for name, some in answers.items()}
        queries = list(self._queries(run, held, by_prompt))
        told = gather(run, key, queries, self.annotator)
        authors: dict[str, frozenset[str]] = {}
        for name, some in answers.items():
            for response in some:
                authors[response.id] = authors.get(response.id, frozenset()) | {name}
        found = table(told, {query.id: query for query in queries}, authors, policies[0])
        return {
            "prompts": len(held),
            "comparisons": found.comparisons,
            "annotators": found.annotators,
            "clusters": dict(found.clusters),
            "connected": found.connected,
            "policies": {row.policy: row._asdict() for row in found.rows},
            "weights": {name: weights_of(run.policy(name)) for name in policies},
        }

    def _queries(self, run: Run, held: list[Prompt], answers: dict[str, dict[str, Response]]) -> Iterator[Query]:
        """Pairs of policies by lot, each as often as any other within one; the same words need no comparison."""
        pairs = list(combinations(answers, 2))
        turn = 0
        luck = random.Random(f"{run.seed} arena")
        for prompt in held:
            for _ in range(min(self.per_prompt, len(pairs))):
                if turn % len(pairs) == 0:
                    luck.shuffle(pairs)
                items = tuple(answers[name][prompt.id].id for name in pairs[turn % len(pairs)])
                turn += 1
                if len(set(items)) == 2:
                    yield Query("comparison", prompt.id, items, "evaluate", self.instruction)
