"""The loop: a recipe's stages one after another, round after round; each reads what the last one wrote."""

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from assent.config import override, table
from assent.errors import AssentError, did_you_mean
from assent.limits import Count
from assent.registry import names, resolve, takes
from assent.store.runs import IMPROVING, POLICY_STAGES, Run

FED_BY = {"Pairs": "offline", "Unpaired": "unpaired", "Actions": "online"}
"""Which stage feeds an objective, by the type of its batch."""
HIDDEN = (*FED_BY.values(), "iterate")
"""Files of stages/ that are reached by other names."""


@dataclass(frozen=True)
class Iterate:
    """Run the stages of a recipe."""

    stages: tuple[str, ...] = ("generate", "label", "reward", "ppo", "evaluate", "report")
    """What to do, in order."""
    rounds: Count = 1
    """How often; from the second round on, with the policy that the last one improved."""
    carry: str = ""
    """The stage whose policy the next round starts from; empty: the first of `stages` that improves one."""

    def __call__(self, run: Run, recipe: Mapping[str, Any]) -> None:
        """Do whatever is not done yet.

        Raises:
            AssentError: an unknown stage, or a setting that a stage does not have (before anything is started).
        """
        if not self.stages:
            raise AssentError(f"stages is empty: name some of {', '.join(commands())}")
        if self.carry and self.carry not in self.stages:
            raise AssentError(f"carry = '{self.carry}' is none of the stages{did_you_mean(self.carry, self.stages)}")
        made = {name: override(stage(name), recipe.get(name, {}), f"[{name}]") for name in self.stages}
        improving = [name for name in self.stages if name in (*names("objectives"), *IMPROVING)]
        carry = self.carry or (improving[0] if improving else "")
        if self.rounds > 1 and not carry:
            raise AssentError(
                "a second round needs a stage that improves the policy, such as ppo or dpo, among the stages"
            )
        run.recipe |= {"stages": list(self.stages), "rounds": self.rounds, "carry": carry}
        for number in range(1, self.rounds + 1):
            here = Run(replace(run.setup, round=number), run.recipe)
            for name in self.stages:
                if number == 1 or name not in POLICY_STAGES:
                    perform(here, name, override(made[name], recipe.get(f"{name}-{number}", {}), f"[{name}-{number}]"))


def stage(command: str) -> Any:
    """The stage that a command names, with its defaults: a file of stages/, or an objective in the stage that uses it.

    Raises:
        AssentError: there is no such command.
    """
    if command in names("objectives"):
        if command not in policies():
            raise AssentError(f"'{command}' is the loss of a stage, not a stage; known: {', '.join(commands())}")
        return replace(resolve("stages", FED_BY[takes(command)])(), objective=resolve("objectives", command)())
    if command not in names("stages") or command in HIDDEN:
        raise AssentError(f"no stage '{command}'{did_you_mean(command, commands())}")
    return resolve("stages", command)()


def commands() -> list[str]:
    """Every stage that can be named, in the order of the story."""
    story = ["pretrain", "sft", "generate", "label", "reward", *better()]
    return [*story, *(name for name in names("stages") if name not in (*story, *HIDDEN))]


def better() -> list[str]:
    """What makes a policy better, each a command: the objectives that a stage of another name feeds, and stages."""
    return [*policies(), *IMPROVING, "best_of_n"]


def policies() -> list[str]:
    """Objectives that are commands."""
    return [name for name in names("objectives") if takes(name) in FED_BY]


def perform(run: Run, command: str, settings: Any) -> dict[str, Any]:
    """Do a stage unless it is done, and keep what it reports; a tool (`report`, `export`, ...) is done every time."""
    key = run.key(command)
    if getattr(settings, "tool", False):
        return dict(settings(run, key) or {})
    if run.result(key) is not None:
        run.bring_back(command)  # after a kill while --again put things aside
    new = run.claim(command, table(settings))
    if (done := run.result(key)) is not None and not (hasattr(settings, "stale") and settings.stale(run, key, done)):
        return done
    import torch

    from assent.training.loop import Stopped
    from assent.training.meter import read

    torch.manual_seed(run.seed)  # for what libraries draw themselves, such as the first weights of LoRA
    begun = [line for line in read(run.folder) if line["stage"] == key] if (run.folder / "state" / key).exists() else []
    start = time.monotonic() - (begun[-1]["seconds"] if begun else 0)  # with the steps of processes that were stopped
    held = run.store.counts()
    try:
        result: dict[str, Any] = settings(run, key)
    except Stopped:
        raise
    except Exception as error:
        if run.bring_back(command) and isinstance(error, AssentError):
            said = str(error).partition("; the state before it is kept")[0]
            raise AssentError(f"{said}; what '{key}' was before is back in its place") from None
        if new and run.store.counts() == held:
            run.unclaim(command)
        raise
    result["seconds"] = round(time.monotonic() - start, 1)
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    run.finish(command, result)
    return result
