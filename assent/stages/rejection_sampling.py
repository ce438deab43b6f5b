"""Rejection sampling: sample several responses to each prompt, fine-tune on the best ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.evaluation.gate import check_gate
from assent.generation.responses import prompts_of_split
from assent.models.load import context_length, load_policy
from assent.models.packing import SharedPrefix
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.cross_entropy import CrossEntropy
from assent.records import Prompt, Response
from assent.run import Run
from assent.scoring import RewardSource
from assent.stages.best_of_n import BestResponses, SamplingPlan, sample_best
from assent.training.batching import count_steps
from assent.training.distributed import on_rank0
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import PolicyStage
from assent.training.supervised import TokenizedExample, train_supervised
from assent.types import PositiveInt


@dataclass(frozen=True)
class RejectionSampling(PolicyStage):
    """Fine-tune the policy on the best of its own responses (RAFT, expert iteration).

    Dong et al. 2023 (arXiv:2304.06767); Touvron et al. 2023, section 3.2.3 (arXiv:2307.09288).
    """

    aim: ClassVar[str] = "the policy imitates its best responses"
    policy: str = ""
    """Policy to sample from and to train: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    max_length: PositiveInt = 1024
    """Maximum tokens of prompt and response; longer ones are left out and counted."""
    ungated: bool = False
    """Train on a reward model of which the report card does not show that it learned something."""
    reward_source: RewardSource = RewardSource()
    sampling_plan: SamplingPlan = SamplingPlan()
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=1e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if not self.ungated:
            check_gate(run, self.reward_source.models(run))
        policy = self.policy or run.base_policy
        prompts, best = on_rank0(lambda: self._sample(run, key, policy))
        language = load_policy(run.policy(policy), device=run.device, rendering=run.rendering)
        max_length = min(self.max_length, context_length(language.model))
        pairs = zip(prompts, best.responses, strict=True)
        examples = _tokenize(pairs, language.chat_tokenizer, max_length)
        if not examples:
            raise AssentError(
                f"all {len(prompts)} best responses are empty or, with their prompt, longer than {max_length} tokens; "
                "raise --max-length, or lower --max-new-tokens"
            )
        steps = count_steps(len(examples), self.training.batch_size, self.training.epochs)
        state = ReplicatedState(language, self.training, steps, run.dtype)
        train_supervised(run.folder, key, state, examples, self.objective, run.seed)
        state.save(run.folder / key)
        return {
            "prompts": len(examples),
            "too_long": len(prompts) - len(examples),
            "score": best.mean_score,
            "best_score": best.mean_best_score,
        }

    def _sample(self, run: Run, key: str, policy: str) -> tuple[list[Prompt], BestResponses]:
        """Return the training prompts and the best response to each."""
        language = load_policy(run.policy(policy), run.dtype, run.device, run.rendering)
        prompts = prompts_of_split(run, language, self.sampling_plan.sampling.max_new_tokens, "train")
        return prompts, sample_best(run, key, policy, language, prompts, self.reward_source, self.sampling_plan)


def _tokenize(
    pairs: Iterable[tuple[Prompt, Response]], tokenizer: ChatTokenizer, max_length: int
) -> list[TokenizedExample]:
    """Return the examples that are neither empty nor too long."""
    examples: list[TokenizedExample] = []
    for prompt, response in pairs:
        ids = tokenizer.encode(prompt, response.completion)
        if ids.completion_ids and len(ids.prompt_ids) + len(ids.completion_ids) <= max_length:
            examples.append(TokenizedExample(SharedPrefix(ids.prompt_ids, (ids.completion_ids,))))
    return examples
