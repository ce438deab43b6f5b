"""The loop over rounds: the stages of a recipe in order; each reads what the one before it wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from assent.commands import command, command_names
from assent.config import override
from assent.errors import AssentError, did_you_mean
from assent.run import Run
from assent.stage_names import POLICY_STAGES, policy_training_stages
from assent.types import PositiveInt


@dataclass(frozen=True)
class Iterate:
    """Run the stages of a recipe."""

    stages: tuple[str, ...] = ("generate", "label", "reward", "ppo", "evaluate", "report")
    """Stages to run, in order."""
    rounds: PositiveInt = 1
    """Number of rounds; each starts with the policy of the round before."""
    policy_stage: str = ""
    """The stage whose policy the next round starts from; empty: the first of `stages` that trains one."""

    def __call__(self, run: Run, recipe: Mapping[str, Any]) -> None:
        """Run every stage that is not done.

        Raises:
            AssentError: an unknown stage or setting; nothing has run then.
        """
        from assent.runner import perform

        if not self.stages:
            raise AssentError(f"stages is empty; name at least one of {', '.join(command_names())}")
        jobs = {name: override(command(name), recipe.get(name, {}), f"[{name}]") for name in self.stages}
        policy_stage = self._policy_stage()
        run.recipe |= {"stages": list(self.stages), "rounds": self.rounds, "policy_stage": policy_stage}
        for number in range(1, self.rounds + 1):
            round_run = Run(replace(run.setup, round=number), run.recipe)
            for name in self.stages:
                if number == 1 or name not in POLICY_STAGES:
                    own = recipe.get(f"{name}-{number}", {})
                    perform(round_run, name, override(jobs[name], own, f"[{name}-{number}]"))

    def _policy_stage(self) -> str:
        """Return the stage whose policy the next round starts from; empty if there is none and no other round."""
        trained = [name for name in self.stages if name in policy_training_stages()]
        if self.policy_stage and self.policy_stage not in trained:
            hint = did_you_mean(self.policy_stage, trained)
            raise AssentError(f"policy_stage = '{self.policy_stage}' is no policy-training stage of this recipe{hint}")
        policy_stage = self.policy_stage or (trained[0] if trained else "")
        if self.rounds > 1 and not policy_stage:
            raise AssentError(
                "a second round needs a stage that trains the policy, such as ppo or dpo; add one to stages"
            )
        return policy_stage
