"""The loop over rounds: the stages of a recipe in order; each reads what the one before it wrote."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from assent.commands import command, command_names
from assent.config import override, settings
from assent.errors import AssentError, did_you_mean
from assent.files import replacing_folder
from assent.protocols import Stage, Tool
from assent.run import Run, control_folder, open_run
from assent.stage_names import POLICY_STAGES, policy_training_stages
from assent.types import NonNegativeFloat, PositiveInt


class Step(NamedTuple):
    """A stage or tool of one round."""

    round: int
    name: str
    expected: float
    """Seconds that it took where the recipe was measured; 0: unknown."""
    is_control: bool = False
    """Whether it is one of the negative control."""


@dataclass(frozen=True)
class Iterate:
    """Run the stages of a recipe."""

    stages: tuple[str, ...] = ("generate", "label", "reward", "ppo", "evaluate", "report")
    """Stages to run, in order."""
    rounds: PositiveInt = 1
    """Number of rounds; each starts with the policy of the round before."""
    policy_stage: str = ""
    """The stage whose policy the next round starts from; empty: the first of `stages` that trains one."""
    control: bool = False
    """Also run the recipe with random labels, in RUN-control: a negative control, whose policies must not win."""
    stage_seconds: tuple[NonNegativeFloat, ...] = ()
    """Seconds that each of `stages` took on some machine, to forecast the end; empty, or not one for each: no
    forecast."""

    @classmethod
    def read(cls, recipe: Mapping[str, Any], where: str) -> "Iterate":
        """Return the loop with the settings at the top of a recipe; a table is of the stage of its name."""
        own = {name: recipe[name] for name in settings(cls()) if not isinstance(recipe.get(name, {}), dict)}
        return override(cls(), own, where)

    def __call__(self, run: Run, recipe: Mapping[str, Any]) -> None:
        """Run every stage that is not done.

        Raises:
            AssentError: an unknown stage or setting; nothing has run then.
        """
        if not self.stages:
            raise AssentError(f"stages is empty; name at least one of {', '.join(command_names())}")
        steps = self._steps()
        jobs = _configure(steps, recipe)
        control_steps = [step._replace(is_control=True) for step in steps] if self.control else []
        if self.control:
            jobs |= _configure(control_steps, self._with_random_labels(run, recipe))
        loop = {"stages": list(self.stages), "rounds": self.rounds, "policy_stage": self._policy_stage()}
        run.recipe |= loop
        progress = _Progress([*steps, *control_steps])
        for step in steps:
            if self.control and step.name == "label" and step.round == 1:
                _copy_to_control(run)
            _perform(run, step, jobs[step], progress)
        if self.control:
            with open_run(replace(run.setup, run=control_folder(run.folder))) as control:
                control.recipe |= loop
                for step in control_steps:
                    _perform(control, step, jobs[step], progress)
            for step in steps:
                if step.name == "report":  # it shows the control too
                    _perform(run, step, jobs[step])

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

    def _steps(self) -> list[Step]:
        is_known = len(self.stage_seconds) == len(self.stages)  # --stages may name others than the recipe
        expected = dict(zip(self.stages, self.stage_seconds if is_known else [0.0] * len(self.stages), strict=True))
        return [
            Step(number, name, expected[name])
            for number in range(1, self.rounds + 1)
            for name in self.stages
            if number == 1 or name not in POLICY_STAGES
        ]

    def _with_random_labels(self, run: Run, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe of the negative control.

        Raises:
            AssentError: this recipe or run can have none.
        """
        label = dict(recipe.get("label", {}))
        if "label" not in self.stages or label.get("annotator", "simulated") != "simulated":
            raise AssentError("control = true needs the stage label with annotator = 'simulated'; leave it out")
        if run.setup.database:
            raise AssentError("control = true copies feedback.db, and this run has another database; leave it out")
        tables = {name: {**recipe.get(name, {}), "ungated": True} for name in self.stages if _has_gate(name)}
        return {**recipe, **tables, "label": {**label, "random_labels": True}}


def _has_gate(name: str) -> bool:
    return "ungated" in settings(command(name))


def _configure(steps: Sequence[Step], recipe: Mapping[str, Any]) -> dict[Step, Stage | Tool]:
    """Return the stage or tool of each step, with the settings of its table and of that of its round."""
    jobs: dict[Step, Stage | Tool] = {}
    for step in steps:
        jobs[step] = configure(step.name, f"{step.name}-{step.round}", recipe)
    return jobs


def configure(name: str, table: str, recipe: Mapping[str, Any], where: str = "") -> Stage | Tool:
    """Return a stage or tool with the settings of its table of a recipe, and those of a round's: [label], [label-2]."""
    job = override(command(name), recipe.get(name, {}), f"{where}[{name}]")
    return job if table == name else override(job, recipe.get(table, {}), f"{where}[{table}]")


def _perform(run: Run, step: Step, job: Stage | Tool, progress: "_Progress | None" = None) -> None:
    from assent.runner import perform

    round_run = Run(replace(run.setup, round=step.round), run.recipe)
    if progress is None:
        perform(round_run, step.name, job)
        return
    progress.begin(round_run, job)
    result = perform(round_run, step.name, job)
    progress.end(float(result.get("seconds", 0.0)))


def _copy_to_control(run: Run) -> None:
    """Copy the run as it is before the first labels, unless that was done; nothing writes there meanwhile."""
    from assent.training.distributed import on_rank0

    target = control_folder(run.folder)

    def copy() -> None:
        if not target.exists() and run.result("label") is None:
            with replacing_folder(target) as partial:
                shutil.copytree(run.folder, partial, ignore=shutil.ignore_patterns(".lock", "state", "tensorboard"))

    on_rank0(copy)


class _Progress:
    """One line at the begin of each step: which one it is, what it is for, and when all of them will be done."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._number = 0
        self._seconds = 0.0

    def begin(self, run: Run, job: Stage | Tool) -> None:
        """Announce the next step, unless it is done."""
        from assent.training.distributed import is_rank0
        from assent.training.logging import format_seconds

        step = self._steps[self._number]
        parts = [f"[{self._number + 1}/{len(self._steps)}] {run.key(step.name)}: {job.aim}"]
        if step.is_control:
            parts[0] += " (control: random labels)"
        if left := sum(following.expected for following in self._steps[self._number :]):
            done = sum(earlier.expected for earlier in self._steps[: self._number])
            pace = self._seconds / done if done else 1.0  # of this machine, relative to that of the recipe
            parts.append(f"all is done in about {format_seconds(left * pace)}")
        is_done = isinstance(job, Stage) and run.result(run.key(step.name)) is not None
        if is_rank0() and not is_done:
            print("; ".join(parts), file=sys.stderr, flush=True)

    def end(self, seconds: float) -> None:
        """Note how long the step took."""
        self._seconds += seconds
        self._number += 1
