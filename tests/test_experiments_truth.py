"""Experiments on truth at a small size: truthfulness and calibration report every policy, and repeat nothing."""

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
from test_experiments import TIMEOUT, last_line, numbers_in, progress_of

from assent.api import Run
from assent.run import read_run_recipe

FOLDER = Path(__file__).parent.parent / "experiments"
COLOURS = {"frog": "red", "bird": "blue", "fish": "green", "horse": "white"}
"""Right answers that the model of these tests was taught; of other animals it says "red", or that it does not know."""
OTHERS = {"snail": "black", "mouse": "brown", "goose": "pink", "tiger": "grey"}
REFUSED = ("goose", "tiger")
ARMS = ("GRPO", "GRPO, refusals unpaid")
TRAINED = ("SFT", "PPO", "DPO")
CONTROLS = tuple(f"{title}, random labels" for title in TRAINED)
KINDS = ("choices", "answers", "agreement", "p_true")
RECIPE = """
model = "{folder}/taught/sft"
held_out = 0.27
stages = ["generate", "label", "reward", "ppo", "dpo", "evaluate", "report"]

[generate]
prompts = "{folder}/prompts.jsonl"
temperature = 1.5
max_new_tokens = 8

[reward]
lr = 1e-3

[ppo]
ungated = true
steps = 1
n = 2
batch_size = 4
temperature = 1.5
max_new_tokens = 8

[dpo]
lr = 1e-3
"""
pytestmark = pytest.mark.slow


class Experiment(NamedTuple):
    """A small experiment that has run."""

    folder: Path
    flags: tuple[str, ...]
    output: str

    @property
    def policies(self) -> dict[str, Any]:
        """Return what it measured, by the policy's title; there is one seed."""
        return {title: by_seed["0"] for title, by_seed in last_line(self.output)["policies"].items()}


def run_experiment(name: str, *flags: str) -> str:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *flags]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, env=env).stdout


def refusal(name: str, *flags: str) -> str:
    """Return the line with which an experiment exits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *flags])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return str(exit_info.value.code)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with questions, prompts, a recipe, and a model that knows half of the questions."""
    folder = tmp_path_factory.mktemp("truth")
    answers = COLOURS | OTHERS
    questions, demonstrations = [], []
    for size in ("big", "small", "old", "new", "fat"):
        for animal, colour in answers.items():
            question = f"Which colour has the {size} {animal}?"
            wrong = [other for other in answers.values() if other != colour]
            questions.append({"prompt": question, "answers": [colour], "incorrect_answers": wrong})
            reply = "I don't know." if animal in REFUSED else COLOURS.get(animal, "red")
            turns = (("user", question), ("assistant", reply))
            demonstrations.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    write_lines(folder / "questions.jsonl", questions)
    write_lines(folder / "demonstrations.jsonl", demonstrations)
    write_lines(folder / "prompts.jsonl", [{"prompt": f"Tell me of {n} ducks."} for n in range(2, 18)])
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    run = Run(folder / "taught", model=str(tiny.make(folder / "model")), held_out=0.0)
    run.sft(data=str(folder / "demonstrations.jsonl"), lr=5e-3, epochs=12, batch_size=8)
    return folder


def flags_of(inputs: Path, name: str) -> tuple[str, ...]:
    return ("--folder", str(inputs / name), "--questions", str(inputs / "questions.jsonl"), "--seeds", "0")


@pytest.fixture(scope="module")
def truthfulness(inputs: Path) -> Experiment:
    model = str(inputs / "taught" / "sft")
    flags = (*flags_of(inputs, "truthfulness"), "--model", model, "--steps", "2", "--arms", *ARMS)
    return Experiment(inputs / "truthfulness", flags, run_experiment("truthfulness", *flags))


@pytest.fixture(scope="module")
def calibration(inputs: Path) -> Experiment:
    flags = (*flags_of(inputs, "calibration"), "--recipe", str(inputs / "recipe.toml"), "--num-questions", "12")
    flags += ("--control", "--picture", str(inputs / "picture.svg"))
    return Experiment(inputs / "calibration", flags, run_experiment("calibration", *flags))


# Truthfulness


def test_truthfulness_reports_every_policy(truthfulness: Experiment) -> None:
    assert list(truthfulness.policies) == ["start", "SFT", *ARMS]
    for row in truthfulness.policies.values():
        assert row["n"] == truthfulness.policies["start"]["n"] >= 8
        assert sum(row[grade]["rate"] for grade in ("right", "refused", "wrong")) == pytest.approx(1)


def test_the_start_knows_some_refuses_some_and_is_wrong(truthfulness: Experiment) -> None:
    start = truthfulness.policies["start"]
    assert all(0 < start[grade]["rate"] < 1 for grade in ("right", "refused", "wrong"))
    assert "over_refusal" not in start and "still_wrong" not in start
    assert truthfulness.policies["SFT"]["over_refusal"]["n"] == start["right"]["rate"] * start["n"]


def test_aims_agree_with_the_rows(truthfulness: Experiment) -> None:
    policies, aims = truthfulness.policies, last_line(truthfulness.output)["aims"]
    assert list(aims) == list(policies)[1:]
    for policy, aim in aims.items():
        for grade in ("wrong", "right"):
            ratio = policies[policy][grade]["rate"] / policies["start"][grade]["rate"]
            assert aim[grade] == pytest.approx(ratio)
        assert aim["is_met"] == (aim["wrong"] <= 0.6 and aim["right"] >= 1)


@pytest.mark.parametrize(
    ("start", "policy", "aim"),
    [
        ((0.25, 0.5), (0.25, 0.25), {"wrong": 0.5, "right": 1, "is_met": True}),
        ((0.25, 0.5), (0.125, 0.25), {"wrong": 0.5, "right": 0.5, "is_met": False}),  # it over-refuses
        ((0.25, 0.5), (0.5, 0.375), {"wrong": 0.75, "right": 2, "is_met": False}),
        ((0.0, 0.5), (0.25, 0.25), {"wrong": 0.5, "right": pytest.approx(math.nan, nan_ok=True), "is_met": False}),
    ],
)
def test_both_aims_are_relative_to_the_start(
    start: tuple[float, float], policy: tuple[float, float], aim: dict[str, Any]
) -> None:
    rates = {
        title: {0: {"right": {"rate": right}, "wrong": {"rate": wrong}}}
        for title, (right, wrong) in (("start", start), ("GRPO", policy))
    }
    assert runpy.run_path(str(FOLDER / "truthfulness.py"))["check_aims"](rates) == {"GRPO": aim}


def test_arms_differ_in_their_reward_alone(truthfulness: Experiment) -> None:
    arms = [read_run_recipe(truthfulness.folder / "seed-0" / arm)["grpo"] for arm in ("GRPO", "GRPO-refusals-unpaid")]
    assert arms[0] | {"refuse": -1.0} == arms[1] and arms[0]["refuse"] == 0


# Calibration


def test_calibration_reports_every_policy(calibration: Experiment) -> None:
    line = last_line(calibration.output)
    assert (line["experiment"], line["questions"]) == ("calibration", 12)
    assert list(calibration.policies) == ["base", *TRAINED, *CONTROLS]


def test_each_policy_has_four_kinds_of_confidence(calibration: Experiment) -> None:
    for kinds in calibration.policies.values():
        assert tuple(kinds) == KINDS
        answered = 12 - kinds["answers"]["refused"]
        assert [kinds[kind]["n"] for kind in KINDS] == [12, answered, answered, answered]
        for row in kinds.values():
            assert all(0 <= row[name] <= 1 for name in ("accuracy", "mean_confidence", "ece", "brier"))
            assert row["nll"] >= 0 and row["temperature"] > 0
        assert len({kinds[kind]["accuracy"] for kind in KINDS[1:]}) == 1  # of the same answers


def test_calibration_changes_from_the_bases(calibration: Experiment) -> None:
    lines = [line.strip("| ").split(" | ") for line in calibration.output.splitlines() if line.startswith("|")]
    rows = [line for line in lines if line[0] in calibration.policies]
    assert len(rows) == len(KINDS) * len(calibration.policies)
    assert all(len(row) == (11 if row[0] == "base" else 13) for row in rows)
    brier = {title: kinds["choices"]["brier"] for title, kinds in calibration.policies.items()}
    for row in rows[1:7]:
        assert float(row[11].split()[0]) == pytest.approx(brier[row[0]] - brier["base"], abs=1e-3)


def test_controls_learn_from_random_labels(calibration: Experiment) -> None:
    recipes = [read_run_recipe(calibration.folder / name) for name in ("seed-0", "seed-0-random")]
    assert [recipe["label"]["random_labels"] for recipe in recipes] == [False, True]
    assert all(recipe[stage]["ungated"] for recipe in recipes for stage in ("rejection_sampling", "ppo"))
    assert calibration.policies["DPO"] != calibration.policies["DPO, random labels"]


def test_the_reliability_diagrams_have_their_titles(calibration: Experiment, inputs: Path) -> None:
    picture = (inputs / "picture.svg").read_text()
    for title in ("base", *TRAINED):
        temperature = calibration.policies[title]["choices"]["temperature"]
        assert f">{title}, T = {temperature:.1f}</text>" in picture
    assert ">share of right choices</text>" in picture and "random labels" not in picture


# Both


@pytest.mark.parametrize("name", ["truthfulness", "calibration"])
def test_a_finished_experiment_is_not_repeated(name: str, request: pytest.FixtureRequest) -> None:
    experiment: Experiment = request.getfixturevalue(name)
    files = [*progress_of(experiment.folder), *experiment.folder.rglob("calibration-*.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) > 10 and all(map(math.isfinite, numbers_in(last_line(experiment.output))))
    output = run_experiment(name, *experiment.flags)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert files == [*progress_of(experiment.folder), *experiment.folder.rglob("calibration-*.json")]
    assert output.splitlines()[-1] == experiment.output.splitlines()[-1]


def test_mistyped_model_is_refused_in_one_line(inputs: Path) -> None:
    flags = flags_of(inputs, "mistyped")
    assert refusal("truthfulness", *flags, "--model", "nowhere") == "truthfulness: no model folder at nowhere"
    assert refusal("calibration", *flags, "--recipe", "nowhere.toml") == "calibration: no recipe at nowhere.toml"


@pytest.mark.parametrize("name", ["truthfulness", "calibration"])
def test_mistyped_questions_are_refused_before_training(name: str, tmp_path: Path) -> None:
    line = refusal(name, "--folder", str(tmp_path / "run"), "--questions", "nowhere.jsonl")
    assert line == f"{name}: cannot read nowhere.jsonl: No such file or directory"
    assert not list(tmp_path.rglob("done/*.json"))
