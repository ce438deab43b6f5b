"""The loop: a recipe's stages one after another, round after round; each reads what the last one wrote."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from assent.config import override, table
from assent.errors import AssentError, Waiting, did_you_mean
from assent.files import write_atomically
from assent.limits import Count
from assent.registry import name_of, names, resolve, takes
from assent.store.runs import POLICY_STAGES, Run, improving

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
        made = {name: override(stage(name), recipe.get(name, {}), f"[{name}]") for name in self.stages}
        better = [name for name in self.stages if name in improving()]
        carry = self.carry or (better[0] if better else "")
        if self.carry and self.carry not in better:
            known = f"none of the stages that improve the policy{did_you_mean(self.carry, better)}"
            raise AssentError(f"carry = '{self.carry}' is {known}")
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
    return [*policies(), "rejection", "best_of_n"]


def policies() -> list[str]:
    """Objectives that are commands."""
    return [name for name in names("objectives") if takes(name) in FED_BY]


def perform(run: Run, command: str, settings: Any) -> dict[str, Any]:
    """Do a stage unless it is done, and keep what it reports; a tool (`report`, `export`, ...) is done every time.

    Where torchrun started several processes, those of a `shared` stage share its work; the first does any other alone.
    """
    import torch

    from assent.models import memory
    from assent.training import parallel

    key = run.key(command)
    if getattr(settings, "tool", False):
        return parallel.alone(lambda: dict(settings(run, key) or {}))
    begun = parallel.alone(lambda: _begin(run, command, settings))
    run.recipe = begun.recipe
    if begun.done is not None:
        return begun.done
    if (training := getattr(settings, "training", None)) is not None:
        settings = replace(settings, training=training.on(run.device))
    memory.give_back()  # of the stage before
    torch.manual_seed(run.seed)  # for what libraries draw themselves, such as the first weights of LoRA
    start = time.monotonic() - begun.seconds  # with the steps of processes that were stopped
    try:
        if getattr(settings, "shared", False):
            with parallel.together():
                result: dict[str, Any] = settings(run, key)
        else:
            result = parallel.alone(lambda: settings(run, key))
    except Exception as error:
        if parallel.first():
            _fail(run, command, begun, error)
        raise
    result["seconds"] = round(time.monotonic() - start, 1)
    result["peak_gb"] = round(memory.most() / 1e9, 2)
    parallel.alone(lambda: _describe(run, key, settings, result))
    parallel.alone(lambda: run.finish(command, result))
    return result


def _describe(run: Run, key: str, settings: Any, result: dict[str, Any]) -> None:
    """Write the card of a policy; a reward model has one already."""
    from assent.models import card

    folder, start = run.folder / key, getattr(settings, "policy", "start")
    if not (folder / "config.json").exists() or (folder / card.NAME).exists():
        return
    base = run.setup.model if start in ("", "start", *run.models) else start
    objective = name_of(settings.objective) if hasattr(settings, "objective") else key
    data = {name: n for name, n in result.items() if isinstance(n, int) and name not in ("n", "held_out_n", "weights")}
    origin = card.Origin("random weights" if key == "pretrain" else base, objective, data)
    write_atomically(folder / card.NAME, card.policy(origin))


class _Begun(NamedTuple):
    """Where a stage stands when a process comes to it."""

    recipe: dict[str, Any]
    done: dict[str, Any] | None
    """What it reported, if it is done."""
    new: bool
    """Whether its settings were not known to the run before."""
    seconds: float
    """What stopped processes spent on it."""
    held: Any
    """How much the store held."""


def _begin(run: Run, command: str, settings: Any) -> _Begun:
    from assent.training.meter import read

    key = run.key(command)
    if run.result(key) is not None:
        run.bring_back(command)  # after a kill while --again put things aside
    new = run.claim(command, table(settings))
    done = run.result(key)
    if done is not None and hasattr(settings, "stale") and settings.stale(run, key, done):
        done = None
    lines = read(run.folder) if (run.folder / "state" / key).exists() else []
    spent = {
        line["stage"]: line["seconds"] for line in lines if line["stage"].partition("/")[0] == key
    }  # the last each
    return _Begun(run.recipe, done, new, sum(spent.values()), run.store.counts())


def _fail(run: Run, command: str, begun: _Begun, error: Exception) -> None:
    """Bring back what the attempt was to replace, or forget the settings of one that left nothing."""
    from assent.training.loop import Stopped

    if isinstance(error, Stopped | Waiting):
        return
    if run.bring_back(command) and isinstance(error, AssentError):
        said = str(error).partition("; the state after step ")[0]
        raise AssentError(f"{said}; what '{run.key(command)}' was before is back in its place") from None
    if begun.new and run.store.counts() == begun.held:
        run.unclaim(command)
