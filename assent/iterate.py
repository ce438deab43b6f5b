"""The loop: a recipe's stages one after another, round after round; each reads what the last one wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from assent.commands import command, command_names
from assent.config import override
from assent.errors import AssentError, did_you_mean
from assent.run import POLICY_STAGES, Run, policy_optimisers
from assent.types import PositiveInt


@dataclass(frozen=True)
class Iterate:
    """Run the stages of a recipe."""

    stages: tuple[str, ...] = ("generate", "label", "reward", "ppo", "evaluate", "report")
    """What to do, in order."""
    rounds: PositiveInt = 1
    """How often; from the second round on, with the policy that the last one improved."""
    policy_stage: str = ""
    """The stage whose policy the next round starts from; empty: the first of `stages` that improves one."""

    def __call__(self, run: Run, recipe: Mapping[str, Any]) -> None:
        """Do whatever is not done yet.

        Raises:
            AssentError: an unknown stage, or a setting that a stage does not have (before anything is started).
        """
        from assent.runner import perform

        if not self.stages:
            raise AssentError(f"stages is empty: name some of {', '.join(command_names())}")
        jobs = {name: override(command(name), recipe.get(name, {}), f"[{name}]") for name in self.stages}
        carry = self._policy_stage()
        run.recipe |= {"stages": list(self.stages), "rounds": self.rounds, "policy_stage": carry}
        for number in range(1, self.rounds + 1):
            round_run = Run(replace(run.setup, round=number), run.recipe)
            for name in self.stages:
                if number == 1 or name not in POLICY_STAGES:
                    own = recipe.get(f"{name}-{number}", {})
                    perform(round_run, name, override(jobs[name], own, f"[{name}-{number}]"))

    def _policy_stage(self) -> str:
        """The stage whose policy the next round starts from; empty if there is none and no other round."""
        trained = [name for name in self.stages if name in policy_optimisers()]
        if self.policy_stage and self.policy_stage not in trained:
            hint = did_you_mean(self.policy_stage, trained)
            raise AssentError(f"carry = '{self.policy_stage}' is none of the stages that improve the policy{hint}")
        carry = self.policy_stage or (trained[0] if trained else "")
        if self.rounds > 1 and not carry:
            raise AssentError(
                "a second round needs a stage that improves the policy, such as ppo or dpo, among the stages"
            )
        return carry
