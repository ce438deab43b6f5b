"""Best-of-n sampling: sample several responses, and take the one with the highest reward."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from assent.functional.overoptimization import best_of_n_kl
from assent.generation.responses import GenerationJob, generate_responses, prompts_of_split, response_label
from assent.generation.sampling import Sampling
from assent.models.load import LoadedModel, load_policy
from assent.protocols import Stage
from assent.records import Prompt, Response, content_id
from assent.run import Run
from assent.scoring import RewardSource
from assent.types import PositiveInt


@dataclass(frozen=True)
class SamplingPlan:
    """Number and sampling settings of the responses to choose from."""

    n: PositiveInt = 8
    """Number of responses per prompt; the best one is taken."""
    generation_batch_size: PositiveInt = 64
    """Number of responses generated at a time."""
    sampling: Sampling = Sampling(temperature=0.7)

    def label(self) -> str:
        """Return the settings as text; it decides the seed of sampling, so its words stay those of version 0.1."""
        return f"Draws(n={self.n}, rows={self.generation_batch_size}, sampling={self.sampling})"


class BestResponses(NamedTuple):
    """The best response to each prompt, in the order of the prompts."""

    responses: list[Response]
    mean_score: float
    """Mean score of all responses."""
    mean_best_score: float
    """Mean score of the best responses."""


@dataclass(frozen=True)
class BestOfN(Stage):
    """Take the best of n responses to each held-out prompt, as a baseline for trained policies; nothing is trained.

    Sampling costs n times as much. The KL to the policy is at most log n - (n - 1) / n, whatever the reward (Stiennon
    et al. 2020, arXiv:2009.01325, appendix G.3; proven by Beirami et al. 2024, arXiv:2401.01879).
    """

    aim: ClassVar[str] = "the reward picks the best responses"
    policy: str = ""
    """Policy to sample from: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    reward_source: RewardSource = RewardSource()
    sampling_plan: SamplingPlan = SamplingPlan()

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        policy = self.policy or run.base_policy
        language = load_policy(run.policy(policy), run.dtype, run.device, run.rendering)
        prompts = prompts_of_split(run, language, self.sampling_plan.sampling.max_new_tokens, "held_out")
        best = sample_best(run, key, policy, language, prompts, self.reward_source, self.sampling_plan)
        name = f"{best.responses[0].policy} best#{content_id(*(response.id for response in best.responses))[:6]}"
        run.store.add_responses(replace(response, policy=name) for response in best.responses)
        n = self.sampling_plan.n
        return {
            "prompts": len(prompts),
            "score": best.mean_score,
            "best_score": best.mean_best_score,
            "kl": best_of_n_kl(n),
            "policy": policy,
            "chosen": name,
        }


def sample_best(
    run: Run,
    key: str,
    policy: str,
    language: LoadedModel,
    prompts: list[Prompt],
    reward_source: RewardSource,
    plan: SamplingPlan,
) -> BestResponses:
    """Sample responses into the store, score them, and return the best for each prompt; of equal scores the first."""
    reward = reward_source.load(run)
    label = response_label(run, key, policy, plan.label())
    job = GenerationJob(language, label, plan.sampling, plan.generation_batch_size, key)
    responses = generate_responses(run, job, prompts, plan.n)
    prompts_by_id = {prompt.id: prompt for prompt in prompts}
    scores = reward.score([prompts_by_id[response.prompt] for response in responses], responses).total.tolist()
    best: dict[str, tuple[float, Response]] = {}
    for response, score in zip(responses, scores, strict=True):
        if response.prompt not in best or score > best[response.prompt][0]:
            best[response.prompt] = (score, response)
    mean_best_score = sum(score for score, _ in best.values()) / len(best)
    return BestResponses([best[prompt.id][1] for prompt in prompts], sum(scores) / len(scores), mean_best_score)
