"""The gate before policy optimisation: which reward models are refused, and how to go on."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from assent.cli import main
from assent.evaluation.gate import refusal

SHORT = ["--steps", "1", "--n", "2", "--batch-size", "4", "--max-new-tokens", "6", "--temperature", "1"]


def result(
    rate: float, low: float, high: float, longer_wins: float = 0.5, within: float | None = 0.0
) -> dict[str, Any]:
    accuracy = {"rate": rate, "low": low, "high": high, "n": 200}
    card = {
        "accuracy": accuracy,
        "longer_wins": {"rate": longer_wins},
        "length_correlation": {"within_prompts": within},
    }
    return {**accuracy, "accuracy": rate, "report_card": card}


def test_accuracy_above_chance_passes() -> None:
    assert refusal(result(0.6, 0.51, 0.69)) == ""


def test_accuracy_that_may_be_chance_is_refused() -> None:
    assert refusal(result(0.58, 0.5, 0.66)) == "its accuracy of 58% [50, 66] on 200 held-out judgements may be chance"


def test_model_without_held_out_pairs_is_refused() -> None:
    assert refusal({"pairs": 40}) == "no held-out prompt was compared, so nothing shows what it learned"


def test_model_that_knows_length_alone_is_refused() -> None:
    reason = "it is no better than the rule that the longer response wins (70% [60, 80] against 65%)"
    assert refusal(result(0.7, 0.6, 0.8, longer_wins=0.65, within=0.61)) == reason
    assert "(60% [55, 65] against 80%)" in refusal(result(0.6, 0.55, 0.65, longer_wins=0.8, within=0.9))
    assert refusal(result(0.7, 0.66, 0.8, longer_wins=0.65, within=0.61)) == ""
    assert refusal(result(0.7, 0.6, 0.8, longer_wins=0.65, within=0.6)) == ""
    assert refusal(result(0.7, 0.6, 0.8, longer_wins=0.65, within=None)) == ""


@pytest.mark.parametrize(
    "measured",
    [{"spearman": 0.5, "n": 12}, {"spearman": -0.9, "n": 30}, {"spearman": None}, {"spearman": 1.0, "n": 3}, {}],
)
def test_ratings_whose_correlation_may_be_chance_are_refused(measured: dict[str, Any]) -> None:
    # Fisher's z of .5 is .5493, and 1.96 sqrt(1.125 / 27) = .4001, but 1.96 sqrt(1.125 / 9) = .6930.
    assert refusal({"ratings": 70, "spearman": 0.5, "n": 30}) == ""
    assert "nothing shows that its scores rise" in refusal({"ratings": 70, **measured})


def test_card_of_an_earlier_version_passes_by_its_accuracy() -> None:
    assert refusal({"accuracy": 0.7, "low": 0.6, "high": 0.8, "n": 90}) == ""
    assert "may be chance" in refusal({"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 90})


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """Return the flags of a run whose reward model was trained on contradictions."""
    rows = [
        {"prompt": f"Name bird {i}: ", "chosen": good, "rejected": bad}
        for i in range(20)
        for good, bad in (("An owl.", "No."), ("No.", "An owl."))
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = str(tiny.make(tmp_path / "model", chat=False))
    flags = ["--run", str(tmp_path / "run"), "--model", model, "--dtype", "float32", "--device", "cpu"]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *flags]) == 0
    assert main(["reward", *flags, "--lr", "1e-2"]) == 0
    return flags


@pytest.mark.parametrize("command", ["ppo", "rejection_sampling"])
def test_refused_model_trains_a_policy_only_ungated(
    command: str, run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = SHORT if command == "ppo" else ["--n", "2", "--max-new-tokens", "6"]
    capsys.readouterr()
    assert main([command, *run, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("assent: the reward model 'reward' is not fit to train a policy: its accuracy of 50% [")
    assert line.endswith("label more prompts, or go on with --ungated (in a recipe: ungated = true)")
    assert not (Path(run[1]) / command).exists()
    assert main([command, *run, *flags, "--ungated"]) == 0
    assert (Path(run[1]) / command / "config.json").exists()


def test_rule_needs_no_gate(run: list[str]) -> None:
    assert main(["ppo", *run, *SHORT, "--rewards", "conciseness_rubric"]) == 0
