"""Rejection sampling: let the policy answer several times, and teach it those of its answers that score best."""

from dataclasses import dataclass
from typing import Any

from assent.errors import AssentError
from assent.generation.responses import on_side
from assent.models.attention import SharedPrefix
from assent.models.load import context, load_policy
from assent.objectives.cross_entropy import CrossEntropy
from assent.records import Prompt
from assent.run import Run
from assent.scoring import RewardSource
from assent.stages.best_of_n import Best, SamplingPlan, best_of
from assent.training.batching import steps_of
from assent.training.distributed import on_rank0
from assent.training.replicated import Training, TrainState
from assent.training.stage import PolicyStage
from assent.training.supervised import TokenizedExample, train_supervised
from assent.types import PositiveInt


@dataclass(frozen=True)
class RejectionSampling(PolicyStage):
    """Fine-tune the policy on the best of its own answers: expert iteration, one step of it a round.

    Dong et al. 2023 (RAFT, arXiv:2304.06767); Touvron et al. 2023, section 3.2.3 (arXiv:2307.09288).
    """

    policy: str = ""
    """Who answers and is trained: a checkpoint of the run, a folder, a hub id; empty: this round's base policy."""
    max_length: PositiveInt = 1024
    """Answers that are longer, with their prompt, are left out and counted."""
    judge: RewardSource = RewardSource()
    draws: SamplingPlan = SamplingPlan()
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=1e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        name = self.policy or run.base
        prompts, best = on_rank0(lambda: self._best(run, key, name))
        language = load_policy(run.policy(name), device=run.device, rendering=run.rendering)
        limit = min(self.max_length, context(language.model))
        shown = []
        for prompt, response in zip(prompts, best.responses, strict=True):
            ids = language.codec.encode(prompt, response.completion)
            if len(ids.prompt) + len(ids.completion) <= limit and ids.completion:
                shown.append(TokenizedExample(SharedPrefix(ids.prompt, (ids.completion,))))
        if not shown:
            raise AssentError(
                f"all {len(prompts)} best answers are empty or longer than {limit} tokens with their prompt"
            )
        steps = steps_of(len(shown), self.training.batch_size, self.training.epochs)
        trainee = TrainState(language, self.training, steps, run.dtype)
        train_supervised(run.folder, key, trainee, shown, self.objective, run.seed)
        trainee.save(run.folder / key)
        told = {"prompts": len(shown), "too_long": len(prompts) - len(shown)}
        return told | {"score": best.score, "best_score": best.best_score}

    def _best(self, run: Run, key: str, name: str) -> tuple[list[Prompt], Best]:
        """The training prompts and the best answer to each."""
        language = load_policy(run.policy(name), run.dtype, run.device, run.rendering)
        prompts = on_side(run, language, self.draws.sampling.max_new_tokens, "train")
        return prompts, best_of(run, key, name, language, prompts, self.judge, self.draws)
