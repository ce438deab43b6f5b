"""The reward that a stage scores with: a rule, a reward model, or one's own file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from assent.errors import AssentError, did_you_mean
from assent.functional.ensemble import Reduction, combine
from assent.protocols import Reward as Scorer
from assent.records import Prompt, Response
from assent.registry import names, resolve, resolve_file
from assent.rewards.model import Model
from assent.run import Run
from assent.training.batching import READING
from assent.training.distributed import on_rank0
from assent.types import NonNegativeFloat


@dataclass(frozen=True)
class RewardSource:
    """What finds an answer good."""

    reward: str = ""
    """What scores: a checkpoint of the run, a folder, a file of rewards/, your own file with a class that has `score`
    (`mine.py`); empty: this round's reward model."""
    ensemble: Reduction = "mean"
    """Of the members of a reward model: their mean, the least of them, or the mean less `deviations` of theirs."""
    uncertainty_coef: NonNegativeFloat = 1.0
    """How many standard deviations of the members `lower` takes off."""

    def name(self, run: Run) -> str:
        """What scores in this run, by name.

        Raises:
            AssentError: none was named, and this round has no reward model.
        """
        name = self.reward or run.key("reward")
        if not self.reward and not (run.folder / name).exists():
            raise AssentError(f"{run.folder} has no reward model: run 'assent reward' first, or name one with --reward")
        return name

    def one(self, scores: Tensor) -> Tensor:
        """One score for each answer, (N,), of those of all members."""
        return combine(scores, self.ensemble, self.uncertainty_coef)


RULES = tuple(name for name in names("rewards") if name != "model")
"""Files of rewards/ that need no model."""


def is_rule(name: str) -> bool:
    """Whether a reward is a file of rewards/ or of one's own, and no reward model."""
    return name in RULES or name.endswith(".py")


@dataclass(frozen=True)
class Rule:
    """A rule as a reward, whose answers are checked, for it may be anybody's code."""

    name: str
    rule: Scorer

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """As the rule does; one process asks it for all, since it may draw lots or ask others.

        Raises:
            AssentError: it fails, or gives something else than one finite number (or row of them) for each response.
        """
        return on_rank0(lambda: self._checked(prompts, responses))

    def _checked(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        try:
            found = torch.as_tensor(self.rule.score(prompts, responses), dtype=torch.float32).cpu()
        except Exception as error:  # noqa: BLE001 (it is anybody's code)
            raise AssentError(f"the reward {self.name} failed: {type(error).__name__}: {error}") from None
        if found.ndim not in (1, 2) or len(found) != len(responses):
            raise AssentError(f"the reward {self.name} gave {tuple(found.shape)} scores for {len(responses)} answers")
        if not bool(found.isfinite().all()):
            raise AssentError(f"the reward {self.name} gave scores that are not finite")
        return found


def scorer(run: Run, name: str, tokens_per_pack: int = READING) -> Scorer:
    """What scores answers: a rule (a file of rewards/ or one's own) or a reward model (checkpoint, folder, hub id).

    Raises:
        AssentError: there is nothing of that name.
    """
    if is_rule(name):
        made = resolve_file(name, "score") if name.endswith(".py") else resolve("rewards", name)
        try:
            return Rule(name, made())
        except TypeError as error:
            raise AssentError(f"the reward {name} cannot be made without arguments: {error}") from None
    if "/" not in name and name not in run.models and not Path(name).is_dir():
        raise AssentError(f"no reward '{name}'{did_you_mean(name, [*RULES, *run.models])}")
    return Model.load(run.policy(name), run.dtype, run.device, run.rendering, tokens_per_pack)


def scorable(prompts: list[Prompt], judge: object) -> list[Prompt]:
    """The prompts that a reward model's own template can render; a rule takes all."""
    return judge.language.codec.renderable(prompts) if isinstance(judge, Model) else prompts
