"""The smallest example learns what its annotators prefer, and learns nothing when a coin decides for them."""

import json
import shutil
from pathlib import Path

import pytest
from processes import assent

from assent.functional.statistics import wilson

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "examples" / "tiny.toml"
LONG = 900.0
"""Seconds that some stages may take beside other tests."""
pytestmark = pytest.mark.slow


def wins(run: Path) -> dict[str, dict[str, float]]:
    policies = json.loads((run / "done" / "evaluate.json").read_text())["policies"]
    return {name: policies[name]["win"] for name in ("ppo", "dpo")}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as far as nobody has judged anything."""
    run = tmp_path_factory.mktemp("tiny") / "answered"
    assent("run", str(RECIPE), "--stages", "pretrain,generate", "--run", str(run), cwd=ROOT, seconds=LONG)
    return run


@pytest.fixture(scope="module")
def learned(answered: Path) -> Path:
    return go_on(answered, answered.with_name("learned"), RECIPE)


def go_on(answered: Path, run: Path, recipe: Path) -> Path:
    shutil.copytree(answered, run)
    assent("run", str(recipe), "--run", str(run), cwd=ROOT, seconds=LONG)
    return run


def test_from_raw_text_to_a_policy_that_wins_on_held_out_prompts(learned: Path) -> None:
    for name, win in wins(learned).items():
        assert win["n"] >= 100
        assert win["low"] > 0.5, f"{name} wins {win}"
    assert (learned / "report.html").stat().st_size > 10_000
    assert json.loads((learned / "summary.json").read_text())["win_rate"]["dpo"]["low"] > 0.5


def test_checkpoints_load_with_plain_transformers(learned: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for name in ("pretrain", "ppo", "dpo"):
        ids = AutoTokenizer.from_pretrained(learned / name)("Tom had a red ball.", return_tensors="pt")
        assert AutoModelForCausalLM.from_pretrained(learned / name)(input_ids=ids["input_ids"]).logits.isfinite().all()
    head = AutoModelForSequenceClassification.from_pretrained(learned / "reward").score.weight
    assert head.shape[0] == 1
    assert float(head.detach().abs().max()) > 0


def test_nothing_is_learned_when_a_coin_decides(answered: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "shuffled.toml"
    recipe.write_text(RECIPE.read_text().replace("[label]\n", "[label]\nshuffled = true\n"))
    assert "shuffled = true" in recipe.read_text().splitlines()
    run = go_on(answered, tmp_path / "shuffled", recipe)
    assert "shuffled = true" in (run / "recipe.toml").read_text().splitlines()
    for name, win in wins(run).items():
        # A coin points in some direction at random, and the judge may like it a little (docs/log.md): runs differ by
        # more than an interval for one policy says, so this one is of 99.9 %.
        low = wilson(win["rate"] * win["n"], int(win["n"]), 0.999).low
        assert low <= 0.5, f"{name} wins {win} although there was nothing to learn"
