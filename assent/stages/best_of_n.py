"""Best of n: let the policy answer several times and keep what the reward model likes best; nothing is trained."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from assent.generation.local import Sampling
from assent.generation.responses import answer, answers_of, on_side
from assent.models.load import LoadedModel, load_policy
from assent.protocols import Stage
from assent.records import Prompt, Response, content_id
from assent.run import Run
from assent.scoring import RewardSource, scorer
from assent.types import PositiveInt


@dataclass(frozen=True)
class SamplingPlan:
    """How the answers to choose from are drawn."""

    n: PositiveInt = 8
    """Answers to each prompt, of which the best is kept."""
    generation_batch_size: PositiveInt = 64
    """Answers that are drawn at a time."""
    sampling: Sampling = Sampling(temperature=0.7)


class Best(NamedTuple):
    """The best answer to each prompt, and what was gained by choosing."""

    responses: list[Response]
    score: float
    """Mean score of all answers."""
    best_score: float
    """Mean score of the best."""


@dataclass(frozen=True)
class BestOfN(Stage):
    """Answer the held-out prompts n times and keep the best: what `evaluate` compares with trained policies.

    It costs n answers for one. Its KL to the policy is at most log n - (n - 1) / n, whatever the reward model (Stiennon
    et al. 2020, arXiv:2009.01325, appendix G.3; proven by Beirami et al. 2024, arXiv:2401.01879).
    """

    policy: str = ""
    """Who answers: a checkpoint of the run, a folder or a hub id; empty: this round's base policy."""
    judge: RewardSource = RewardSource()
    draws: SamplingPlan = SamplingPlan()

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = load_policy(run.policy(self.policy or run.base), run.dtype, run.device, run.rendering)
        prompts = on_side(run, language, self.draws.sampling.max_new_tokens, "held_out")
        best = best_of(run, key, self.policy or run.base, language, prompts, self.judge, self.draws)
        chosen = f"{best.responses[0].policy} best#{content_id(*(r.id for r in best.responses))[:6]}"
        run.store.add_responses(replace(response, policy=chosen) for response in best.responses)
        n = self.draws.n
        told = {"prompts": len(prompts), "score": best.score, "best_score": best.best_score}
        return told | {"kl": math.log(n) - (n - 1) / n, "policy": self.policy or run.base, "chosen": chosen}


def best_of(
    run: Run,
    key: str,
    policy: str,
    language: LoadedModel,
    prompts: list[Prompt],
    judge: RewardSource,
    draws: SamplingPlan,
) -> Best:
    """Draw answers into the store, score them, and keep the best of each prompt; the first of equals."""
    scored_by = scorer(run, judge.name(run))
    label = answers_of(run, key, policy, draws)
    made = answer(
        run, language.codec, language.model, prompts, draws.n, draws.sampling, label, draws.generation_batch_size, key
    )
    about = {prompt.id: prompt for prompt in prompts}
    scores = judge.one(scored_by.score([about[response.prompt] for response in made], made)).tolist()
    best: dict[str, tuple[float, Response]] = {}
    for response, score in zip(made, scores, strict=True):
        if response.prompt not in best or score > best[response.prompt][0]:
            best[response.prompt] = score, response
    responses = [best[prompt.id][1] for prompt in prompts]
    return Best(responses, sum(scores) / len(scores), sum(score for score, _ in best.values()) / len(best))
