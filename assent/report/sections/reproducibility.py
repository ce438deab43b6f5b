"""What is needed to repeat the run: stages with their time, versions, device, settings."""

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from assent.config import write_recipe
from assent.errors import AssentError
from assent.report.data import ReportData
from assent.report.formatting import percent
from assent.report.rounds import Result
from assent.run import Run

PACKAGES = ("assent", "torch", "transformers", "numpy")


class StageSummary(NamedTuple):
    """A finished stage: its time and the plain values that it reported."""

    name: str
    seconds: float
    values: str


class Reproducibility:
    """Stages, versions, device and recipe."""

    order: ClassVar[int] = 100
    title: ClassVar[str] = "Reproducibility"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        return {
            "summary": data.summary,
            "stages": _summarise_stages(data.results),
            "facts": _facts(data.run),
            "commands": _commands(data.run),
            "recipe": write_recipe(data.run.recipe),
        }


def _summarise_stages(results: Mapping[str, Result]) -> list[StageSummary]:
    stages: list[StageSummary] = []
    for key, result in results.items():
        values = [
            f"{name.replace('_', ' ')} {f'{value:.3g}' if isinstance(value, float) else value}"
            for name, value in result.items()
            if name not in ("seconds", "peak_gb") and isinstance(value, int | float | str)
        ]
        stages.append(StageSummary(key, float(result.get("seconds", 0.0)), ", ".join(values)))
    return stages


def _facts(run: Run) -> dict[str, str]:
    """Return what a reader needs to know; versions and device are those of the process that writes the report."""
    try:
        device, dtype = str(run.device), str(run.dtype).removeprefix("torch.")
    except AssentError:
        device, dtype = run.setup.device, run.setup.dtype
    return {
        "model": run.setup.model,
        "seed": str(run.seed),
        "held out": percent(run.setup.held_out) + " of the prompts",
        "device": f"{device}, {os.cpu_count()} processor cores, {platform.machine()} {platform.system()}",
        "dtype": dtype,
        "versions": ", ".join([f"Python {platform.python_version()}", *map(_version, PACKAGES)]),
    }


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} from its sources"


def _commands(run: Run) -> dict[str, str]:
    """Return the command that wrote the report, and the one that repeats the run."""
    program = Path(sys.argv[0]).name
    name = "assent" if program in ("cli.py", "__main__.py") else program
    commands = {"this command": shlex.join([name, *sys.argv[1:]])}
    if "stages" in run.recipe:
        recipe, folder = str(run.folder / "recipe.toml"), f"{run.folder}-again"
        commands["to repeat the run"] = shlex.join(["assent", "run", recipe, "--run", folder])
    return commands
