"""Experiments on agents at a small size: each reports every arm, and trains no agent twice."""

import math
import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from test_experiments import last_line, numbers_in, progress_of
from test_experiments_truth import refusal

pytest.importorskip("stable_baselines3")
pytest.importorskip("mujoco")

FOLDER = Path(__file__).parent.parent / "experiments"
FLAGS = {
    "pendulum": ("--labels", "40", "--steps", "6400", "--arms", "comparisons", "constant reward"),
    "trading": ("--risk-aversions", "4", "0", "--steps", "3840", "--arms", "comparisons"),
    "backflip": ("--labels", "200", "--steps", "25600", "--arms", "comparisons"),
}
"""Two rollouts, or one of hoppers."""
ROWS = {"pendulum": 2, "trading": 2 + 3, "backflip": 1}
"""Rows of each table: arms, and in trading three accounts that never trade."""


class Experiment(NamedTuple):
    """A small experiment that has run."""

    name: str
    folder: Path
    output: str


def run_experiment(name: str, folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as output:
        patch.setattr(sys, "argv", [name, "--folder", str(folder), "--seeds", "0", *FLAGS[name]])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return output.getvalue()


@pytest.fixture(scope="module", params=list(FLAGS))
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp(request.param)
    return Experiment(request.param, folder, run_experiment(request.param, folder))


@pytest.mark.slow
def test_agents_report_a_row_and_finite_numbers_for_each_arm(experiment: Experiment) -> None:
    line = last_line(experiment.output)
    assert line["experiment"] == experiment.name
    rows = [row for row in experiment.output.splitlines() if row.startswith("|")][2:]
    assert len(rows) == ROWS[experiment.name] and len({row.count("|") for row in rows}) == 1
    numbers = list(numbers_in(line))
    assert len(numbers) > 5 and all(map(math.isfinite, numbers))


@pytest.mark.slow
def test_a_finished_agent_is_not_trained_again(experiment: Experiment) -> None:
    before = {path: path.stat().st_mtime_ns for path in progress_of(experiment.folder)}
    output = run_experiment(experiment.name, experiment.folder)
    assert len(before) >= 2 and {path: path.stat().st_mtime_ns for path in progress_of(experiment.folder)} == before
    assert output.splitlines()[-1] == experiment.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([5.0], ""),
        ([5.0, 2.0], "the largest loss falls with lambda: 5.0 %, 2.0 %"),
        ([5.0, 2.0, 2.0], "the largest loss does not fall with lambda: 5.0 %, 2.0 %, 2.0 %"),
    ],
)
def test_a_trend_needs_two_lambdas(losses: list[float], words: str) -> None:
    by_risk = {str(risk): {0: {"return": 1.0, "drawdown": loss, "worst": 9.0}} for risk, loss in enumerate(losses)}
    with redirect_stdout(StringIO()) as output:
        runpy.run_path(str(FOLDER / "trading.py"))["print_table"]({"comparisons": by_risk}, {})
    table, *trends = output.getvalue().strip().split("\ncomparisons: ")
    assert table.startswith("| agent") and trends == [words] * bool(words)


@pytest.mark.parametrize("name", list(FLAGS))
@pytest.mark.parametrize(("flag", "value"), [("--seeds", "-1"), ("--steps", "-5"), ("--steps", "0")])
def test_a_wrong_number_is_refused_in_one_line(name: str, flag: str, value: str, tmp_path: Path) -> None:
    line = refusal(name, "--folder", str(tmp_path), flag, value)
    assert line.startswith(f"{name}: ") and f"{flag[2:].removesuffix('s')}" in line and "\n" not in line
    assert not list(tmp_path.rglob("done/*.json"))
