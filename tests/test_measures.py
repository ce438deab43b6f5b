"""What `evaluate` measures beside win rates, on a policy that was trained on demonstrations."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from assent.cli import main

COLOURS = ("red", "blue", "green", "white", "black", "brown", "pink", "grey")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with questions, and a policy that learned to answer all of them with the same word."""
    folder = tmp_path_factory.mktemp("measures")
    questions = [
        {
            "prompt": f"Which colour has the {thing}?",
            "answers": [COLOURS[i % len(COLOURS)]],
            "incorrect_answers": [colour for colour in COLOURS if colour != COLOURS[i % len(COLOURS)]],
            "category": "knowledge",
        }
        for i, thing in enumerate(f"{size} {animal}" for size in ("big", "small", "old") for animal in ANIMALS)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    demonstrations = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "red"}]}
        for row in questions
    ]
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in demonstrations))
    (folder / "texts.txt").write_text("A frog sat on a stone.\n\nThe bird sang all day long.\n")
    model = tiny.make(folder / "model")
    at = ("--run", str(folder / "run"), "--model", str(model), "--dtype", "float32")
    for name in ("questions", "demonstrations"):
        assert main(["import", str(folder / f"{name}.jsonl"), *at]) == 0
    assert main(["sft", "--epochs", "12", "--lr", "3e-3", *at]) == 0
    return folder


ANIMALS = ("frog", "bird", "fish", "horse", "snail", "mouse", "goose", "tiger")


def evaluate(run: Path, *words: str) -> dict[str, Any]:
    command = ["evaluate", "--run", str(run / "run"), "--overwrite", "--judge", "truthful", "--baseline", "base"]
    assert main([*command, "--policies", "sft", "--temperature", "0", "--max-new-tokens", "4", *words]) == 0
    result: dict[str, Any] = json.loads((run / "run" / "done" / "evaluate.json").read_text())
    return result


@pytest.fixture(scope="module")
def result(run: Path) -> dict[str, Any]:
    files = ("--questions", str(run / "questions.jsonl"), "--texts", str(run / "texts.txt"))
    return evaluate(run, *files, "--num-questions", "10", "--draws", "3", "--draw-prompts", "4", "--temperature", "1")


def test_every_policy_is_measured(result: dict[str, Any]) -> None:
    measures = {"text", "within_prompt", "references", "categories", "likelihood", "truthfulness", "calibration"}
    for policy in ("base", "sft"):
        assert measures <= result["policies"][policy].keys()


def test_policy_that_says_one_word_has_one_response(result: dict[str, Any]) -> None:
    base, sft = (result["policies"][policy]["within_prompt"] for policy in ("base", "sft"))
    assert base["prompts"] == 4 and base["n"] == 12
    assert sft["vendi"] < 1.5 < base["vendi"]


def test_right_answers_are_graded_by_the_questions(result: dict[str, Any], run: Path) -> None:
    graded = result["policies"]["sft"]["truthfulness"]
    assert graded["n"] == result["prompts"] and graded["refused"]["rate"] == 0
    knowledge = result["policies"]["sft"]["categories"]["knowledge"]
    assert knowledge["right"]["rate"] == graded["right"]["rate"]
    assert graded["still_wrong"]["n"] + graded["over_refusal"]["n"] <= graded["n"]


def test_calibration_is_compared_with_the_baseline(result: dict[str, Any]) -> None:
    base, sft = (result["policies"][policy]["calibration"] for policy in ("base", "sft"))
    assert base["choices"]["n"] == sft["choices"]["n"] == result["prompts"]  # those that nothing was trained on
    assert base["choices"]["prompts"] == sft["choices"]["prompts"]
    assert "change" not in base["choices"]
    difference = sft["choices"]["brier"] - base["choices"]["brier"]
    assert sft["choices"]["change"]["brier"]["value"] == pytest.approx(difference, abs=1e-4)
    assert sft["answers"]["n"] == result["prompts"]


def test_text_that_was_not_trained_on_costs_more_bits(result: dict[str, Any]) -> None:
    base, sft = (result["policies"][policy]["likelihood"] for policy in ("base", "sft"))
    assert base["documents"] == sft["documents"] == 2 and base["bytes"] == sft["bytes"]
    assert sft["bits_per_byte"] > base["bits_per_byte"] > 0


def test_without_a_reward_model_there_is_no_curve(result: dict[str, Any]) -> None:
    assert result["draws"]["best_of_n"]["curve"] == [] and result["draws"]["cards"] == {}
    assert set(result["draws"]["best_of_n"]["policies"]) == {"sft"}


def test_measures_are_left_out_unless_they_are_asked_for(run: Path) -> None:
    result = evaluate(run)
    assert "draws" not in result
    assert {"within_prompt", "likelihood"}.isdisjoint(result["policies"]["sft"])
    assert "choices" not in result["policies"]["sft"]["calibration"]


def test_responses_of_generate_serve_the_same_sampling_only(run: Path) -> None:
    sampling = ("--temperature", "1", "--max-new-tokens", "4")
    assert main(["generate", "--run", str(run / "run"), "--policy", "base", "--n-held-out", "1", *sampling]) == 0
    names = [evaluate(run, *words)["policies"]["base"]["responses"] for words in (sampling, ())]
    assert [name.partition(":")[0] for name in names] == ["generate", "evaluate"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--questions", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--questions", "examples/openings.jsonl"), "no question with `answers`"),
        (("--texts", "nowhere.txt"), "nowhere.txt"),
        (("--draws", "-1"), "--draws"),
        (("--draws", "2", "--temperature", "0"), "temperature = 0 gives equal draws"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    words: tuple[str, ...], problem: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--run", str(run / "run"), "--overwrite", "--judge", "truthful", "--baseline", "base"]
    assert main([*command, "--policies", "sft", *words]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert problem in last and last.startswith("assent: ")
