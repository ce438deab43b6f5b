"""The smallest example learns the annotators' preferences, and learns nothing from random labels."""

import json
import shutil
from pathlib import Path

import pytest
from processes import assent

from assent.functional.statistics import wilson

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "examples" / "tiny.toml"
TIMEOUT = 900.0
"""Seconds that some stages may take while other tests run."""
pytestmark = pytest.mark.slow


def win_rates(run: Path) -> dict[str, dict[str, float]]:
    policies = json.loads((run / "done" / "evaluate.json").read_text())["policies"]
    return {name: policies[name]["win"] for name in ("ppo", "dpo")}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the run up to its responses, before any judgement."""
    run = tmp_path_factory.mktemp("tiny") / "generated"
    assent("run", str(RECIPE), "--stages", "pretrain,generate", "--run", str(run), cwd=ROOT, seconds=TIMEOUT)
    return run


@pytest.fixture(scope="module")
def trained(generated: Path) -> Path:
    return finish(generated, generated.with_name("trained"), RECIPE)


def finish(generated: Path, run: Path, recipe: Path) -> Path:
    shutil.copytree(generated, run)
    assent("run", str(recipe), "--run", str(run), cwd=ROOT, seconds=TIMEOUT)
    return run


def test_tiny_recipe_wins_on_held_out_prompts(trained: Path) -> None:
    for name, win in win_rates(trained).items():
        assert win["n"] >= 100
        assert win["low"] > 0.5, f"{name} wins {win}"
    assert (trained / "report.html").stat().st_size > 10_000
    assert json.loads((trained / "summary.json").read_text())["win_rate"]["dpo"]["low"] > 0.5


def test_checkpoints_load_with_plain_transformers(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for name in ("pretrain", "ppo", "dpo"):
        ids = AutoTokenizer.from_pretrained(trained / name)("Tom had a red ball.", return_tensors="pt")
        assert AutoModelForCausalLM.from_pretrained(trained / name)(input_ids=ids["input_ids"]).logits.isfinite().all()
    head = AutoModelForSequenceClassification.from_pretrained(trained / "reward").score.weight
    assert head.shape[0] == 1
    assert float(head.detach().abs().max()) > 0


def test_random_labels_do_not_improve_the_policy(generated: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "random_labels.toml"
    ungated = RECIPE.read_text().replace("[ppo]\n", "[ppo]\nungated = true\n")
    recipe.write_text(ungated.replace("[label]\n", "[label]\nrandom_labels = true\n"))
    assert "random_labels = true" in recipe.read_text().splitlines()
    run = finish(generated, tmp_path / "random_labels", recipe)
    assert "random_labels = true" in (run / "recipe.toml").read_text().splitlines()
    for name, win in win_rates(run).items():
        # The scorer may slightly prefer the direction of random labels (docs/log.md). Runs vary more than the interval
        # of one policy shows, so this interval is 99.9 %.
        low = wilson(win["rate"] * win["n"], int(win["n"]), 0.999).low
        assert low <= 0.5, f"{name} wins {win} although the labels are random"
