"""The loop over rounds: progress, forecast, and the negative control."""

import json
import re
from pathlib import Path

import pytest
import tiny

from assent.cli import main
from assent.commands import stage, stage_names
from assent.run import open_store, read_run_recipe

WORDS = ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon", "frog", "bird", "house", "sea"]
STAGES = ["generate", "label", "dpo", "evaluate", "report"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe that takes seconds."""
    model = tiny.make(tmp_path / "model")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tell me of the {word}."}) + "\n" for word in WORDS))
    short = "max_new_tokens = 8\ntemperature = 1.0\n"
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'run = "{tmp_path / "run"}"\nmodel = "{model}"\ndtype = "float32"\nstages = {json.dumps(STAGES)}\n'
        f'control = true\nstage_seconds = [2, 1, 4, 2, 1]\n[generate]\nprompts = "{prompts}"\n{short}'
        f'[dpo]\nlr = 1e-3\nbatch_size = 4\n[evaluate]\njudge = "conciseness_rubric"\n{short}'
    )
    return path


def labels(run: Path) -> dict[str, object]:
    with open_store(run) as store:
        return {event.task: event.judgement for event in store.feedback() if event.source == "simulated"}


def test_control_has_the_responses_of_the_run_and_random_labels(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, control = recipe.parent / "run", recipe.parent / "run-control"
    assert main(["run", str(recipe)]) == 0
    output = capsys.readouterr()
    assert read_run_recipe(control)["label"]["random_labels"]
    assert not read_run_recipe(run)["label"]["random_labels"]
    own, random = labels(run), labels(control)
    assert own.keys() == random.keys()
    differing = sum(own[task] != random[task] for task in own)
    assert 0.2 * len(own) < differing < 0.9 * len(own)
    results = [json.loads((folder / "done" / "generate.json").read_text()) for folder in (run, control)]
    assert results[0] == results[1]
    assert "random labels" in output.out
    assert "Negative control" in (run / "report.html").read_text()
    assert "Negative control" not in (control / "report.html").read_text()


def test_loop_says_what_each_stage_is_for_and_when_all_is_done(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(recipe)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    first, *others = lines
    assert first == "[1/10] generate: the model responds to each prompt; all is done in about 0:20"
    assert [line.partition(":")[0] for line in others] == [
        *("[2/10] label", "[3/10] dpo", "[4/10] evaluate", "[5/10] report"),
        *("[7/10] label", "[8/10] dpo", "[9/10] evaluate", "[10/10] report"),
    ]  # the control takes over what was generated
    assert all(re.search(r"; all is done in about \d+:\d\d$", line) for line in others)
    assert main(["run", str(recipe)]) == 0
    again = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line.partition(":")[0] for line in again] == ["[5/10] report", "[10/10] report"]


@pytest.mark.parametrize("name", stage_names())
def test_aim_of_each_stage_has_about_six_words(name: str) -> None:
    assert 4 <= len(stage(name).aim.split()) <= 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stages", "generate"], "control = true needs the stage label with annotator = 'simulated'; leave it out"),
        (["--database", "sqlite:///x.db"], "control = true copies feedback.db, and this run has another database"),
    ],
)
def test_wrong_loop_is_refused_before_it_begins(
    recipe: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(recipe), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (recipe.parent / "run" / "done" / "generate.json").exists()


def test_other_stages_than_the_recipes_have_no_forecast(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe), "--stages", "generate", "--no-control"]) == 0
    assert "[1/1] generate: the model responds to each prompt\n" in capsys.readouterr().err
