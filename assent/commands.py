"""The table of commands: stages, tools, and the objectives that a stage runs under their own names."""

from dataclasses import replace
from typing import Any

from assent.errors import AssentError, did_you_mean
from assent.protocols import Stage, Tool
from assent.registry import names, resolve
from assent.stage_names import OBJECTIVE_STAGES, PREPARATION, policy_commands


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
        unconfigured: Any = resolve("stages", objective.stage)()
        configured: Stage = replace(unconfigured, objective=objective)
        return configured
    if name not in names("stages") or name in OBJECTIVE_STAGES:
        raise AssentError(f"no stage '{name}'{did_you_mean(name, stage_names())}")
    named: Stage = resolve("stages", name)()
    return named


def stage_names() -> list[str]:
    """Return every stage that can be named, in the order of the loop."""
    first = [*PREPARATION, *policy_commands()]
    return [*first, *(name for name in names("stages") if name not in (*first, *OBJECTIVE_STAGES))]


def command_names() -> list[str]:
    """Return every command that `command` knows."""
    return [*stage_names(), *names("tools")]
