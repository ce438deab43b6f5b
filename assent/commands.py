"""The table of commands: stages, tools, and the objectives that a stage runs under their own names."""

from dataclasses import replace
from typing import Any

from assent.errors import AssentError, did_you_mean
from assent.protocols import Stage, Tool
from assent.registry import declared, names, resolve

PREPARATION = ("pretrain", "sft", "generate", "label", "reward")
"""Stages before the policy is optimised, in the order of the loop."""
OBJECTIVE_STAGES = ("offline", "unpaired", "online")
"""Stages without a command of their own: each objective that they run is one, such as `dpo`, `kto`, `ppo`."""


def command(name: str) -> Stage | Tool:
    """Return the stage or tool that a command names, with its default settings.

    Raises:
        AssentError: no such command; the message names the nearest one.
    """
    if name in names("tools"):
        tool: Tool = resolve("tools", name)()
        return tool
    return stage(name)


def stage(name: str) -> Stage:
    """Return the stage that a command names, with its default settings.

    Raises:
        AssentError: no such stage; the message names the nearest one.
    """
    if name in names("objectives"):
        objective: Any = resolve("objectives", name)()
        if objective.stage not in OBJECTIVE_STAGES:
            raise AssentError(f"'{name}' is a loss of the stage '{objective.stage}', not a stage")
        runner: Any = resolve("stages", objective.stage)()
        run_by: Stage = replace(runner, objective=objective)
        return run_by
    if name not in names("stages") or name in OBJECTIVE_STAGES:
        raise AssentError(f"no stage '{name}'{did_you_mean(name, stage_names())}")
    made: Stage = resolve("stages", name)()
    return made


def stage_names() -> list[str]:
    """Every stage that can be named, in the order of the loop."""
    first = [*PREPARATION, *policy_optimisers()]
    return [*first, *(name for name in names("stages") if name not in (*first, *OBJECTIVE_STAGES))]


def command_names() -> list[str]:
    """Every command that `command` knows."""
    return [*stage_names(), *names("tools")]


def policy_optimisers() -> list[str]:
    """Commands that improve the policy."""
    return [*policy_objectives(), "rejection_sampling", "best_of_n"]


def policy_objectives() -> list[str]:
    """Objectives that are commands."""
    return [name for group in OBJECTIVE_STAGES for name in objectives_of(group)]


def objectives_of(stage_name: str) -> list[str]:
    """Objectives that a stage runs, sorted, without importing them."""
    return [name for name in names("objectives") if declared("objectives", name, "stage") == stage_name]
