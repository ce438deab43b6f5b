"""Choosing among a policy's own answers, teaching it the best of them, and keeping what it knew."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import tiny

from assent.cli import main
from assent.functional.conciseness import utility
from assent.store.database import Store
from assent.training.logging import read_metrics as metrics_of

SMALL = ["--max-new-tokens", "8", "--reward", "conciseness_rubric"]


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choosing")
    tiny.make(folder / "model", chat=False)
    rows = [{"prompt": f"The cat saw {i} birds and"} for i in range(30)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def begin(top: Path, folder: Path) -> list[str]:
    run = ["--run", str(folder), "--model", str(top / "model"), "--device", "cpu", "--dtype", "float32"]
    assert main(["import", str(top / "prompts.jsonl"), "--run", str(folder), "--no-chat"]) == 0
    return run


def done(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "done" / f"{stage}.json").read_text())
    return found


def rule(folder: Path, name: str, body: str) -> str:
    file = folder / f"{name}.py"
    file.write_text(f"import torch\n\nclass Mine:\n    def score(self, prompts, responses):\n        return {body}\n")
    return str(file)


def test_best_of_n_keeps_the_best_and_is_measured_beside_the_start(top: Path, tmp_path: Path) -> None:
    run = begin(top, tmp_path / "run")
    assert main(["best_of_n", *run, *SMALL, "--n", "6"]) == 0
    result = done(tmp_path / "run", "best_of_n")
    assert result["kl"] == pytest.approx(math.log(6) - 5 / 6)
    assert result["best_score"] > result["score"]
    store = Store.open(tmp_path / "run" / "feedback.db")
    prompts = {prompt.id: prompt for prompt in store.prompts()}
    worth: dict[str, list[float]] = {}
    kept: dict[str, float] = {}
    for response in store.responses():
        mark = utility(prompts[response.prompt].text, response.text, response.finished)
        if response.policy == result["chosen"]:
            kept[response.prompt] = mark
        else:
            worth.setdefault(response.prompt, []).append(mark)
    assert len(kept) == result["prompts"] == len(worth)
    assert all(len(marks) == 6 and kept[prompt] == max(marks) for prompt, marks in worth.items())
    assert main(["evaluate", *run, "--max-new-tokens", "8"]) == 0
    measured = json.loads((tmp_path / "run" / "done" / "evaluate.json").read_text())["policies"]["best_of_n"]
    assert measured["win"]["rate"] > 0.6 and measured["kl"] == result["kl"]
    assert main(["report", *run]) == 0


def test_rejection_sampling_teaches_the_best_answers_and_no_others(top: Path, tmp_path: Path) -> None:
    run = begin(top, tmp_path / "run")
    fast = ["--n", "4", "--lr", "3e-3", "--epochs", "4", "--batch-size", "4"]
    assert main(["rejection", *run, *SMALL, *fast]) == 0
    result = done(tmp_path / "run", "rejection")
    assert result["best_score"] > result["score"]
    losses = [line["loss"] for line in metrics_of(tmp_path / "run") if line["stage"] == "rejection"]
    assert losses[-1] < losses[0] - 0.3
    assert main(["evaluate", *run, "--max-new-tokens", "8"]) == 0
    assert "rejection" in json.loads((tmp_path / "run" / "done" / "evaluate.json").read_text())["policies"]
    assert main(["generate", *run, "--round", "2", "--max-new-tokens", "4"]) == 0  # round 2 goes on from it
    assert done(tmp_path / "run", "generate-2")["policy"] == "rejection"


def test_a_policy_is_kept_from_forgetting_its_texts(top: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(tiny.STORIES.read_text().split("\n\n")[:20]))
    forget = ["--steps", "6", "--batch-size", "4", "--n", "2", "--lr", "3e-3", "--lr-scheduler-type", "constant"]
    seen: dict[str, list[float]] = {}
    for name, flags in (("none", ["--ptx-coef", "1e-9"]), ("some", ["--ptx-coef", "5"])):
        run = begin(top, tmp_path / name)
        assert main(["grpo", *run, *SMALL, *forget, *flags, "--ptx-data", str(texts)]) == 0
        seen[name] = [line["ptx_loss"] for line in metrics_of(tmp_path / name)]
    assert seen["none"][0] == pytest.approx(seen["some"][0])
    assert seen["some"][-1] < seen["none"][-1] - 0.2


def test_ptx_without_texts_is_refused(top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(top, tmp_path / "run")
    assert main(["ppo", *run, "--ptx-coef", "1"]) == 2
    assert "name the texts with ptx_data" in capsys.readouterr().err
    assert main(["grpo", *run, *SMALL, "--ptx-coef", "1", "--ptx-data", str(tmp_path / "none.txt")]) == 2
    assert "no file at" in capsys.readouterr().err


def test_best_of_n_without_a_reward_model_says_so(
    top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(top, tmp_path / "run")
    for command in ("best_of_n", "rejection"):
        assert main([command, *run]) == 2
        assert "has no reward model: run 'assent reward' first, or name one with --reward" in capsys.readouterr().err


FILES = {
    "gone": (None, "no file at"),
    "broken": ("def score(:\n", "cannot be read: SyntaxError"),
    "empty": ("import torch\n", "holds 0 classes with a method 'score'"),
    "two": ("class A:\n    def score(self): ...\nclass B:\n    def score(self): ...\n", "holds 2 classes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_rule_of_ones_own_that_will_not_do_is_refused_with_the_reason(
    name: str, top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, reason = FILES[name]
    file = tmp_path / f"{name}.py"
    if text is not None:
        file.write_text(text)
    assert main(["grpo", *begin(top, tmp_path / "run"), "--reward", str(file)]) == 2
    error = capsys.readouterr().err
    assert reason in error and len([line for line in error.splitlines() if line.startswith("assent:")]) == 1


def test_prompts_that_teach_nothing_make_room_and_long_answers_cost(top: Path, tmp_path: Path) -> None:
    # the answers to most prompts score alike
    some = rule(tmp_path, "some", "[float(('1' in p.text) * len(r.text)) for p, r in zip(prompts, responses)]")
    flags = ["--steps", "2", "--batch-size", "4", "--n", "3", "--max-new-tokens", "8", "--missing-eos-score", "off"]
    seen = {}
    for name, more in (
        ("plain", []),
        ("redraw", ["--dynamic-sampling", "5"]),
        ("overlong", ["--overlong-buffer", "4"]),
    ):
        run = begin(top, tmp_path / name)
        assert main(["dapo", *run, "--reward", some, *flags, *more]) == 0
        seen[name] = metrics_of(tmp_path / name)
    assert sum(line["redrawn"] for line in seen["redraw"]) > 0
    assert fmean(x["flat_groups"] for x in seen["redraw"]) < fmean(x["flat_groups"] for x in seen["plain"])
    first = {name: lines[0] for name, lines in seen.items()}
    assert first["overlong"]["length"] == first["plain"]["length"] > 4
    assert first["plain"]["score"] - 1 <= first["overlong"]["score"] < first["plain"]["score"]


def test_choosing_by_another_rule_is_measured_anew(top: Path, tmp_path: Path) -> None:
    run, words = begin(top, tmp_path / "run"), {}
    for name, sign in (("long", ""), ("short", "-")):
        mine = rule(tmp_path, name, f"torch.tensor([{sign}float(len(r.text)) for r in responses])")
        flags = ["--reward", mine, "--n", "6", "--max-new-tokens", "8", "--overwrite"]
        assert main(["best_of_n", *run, *flags]) == 0
        assert main(["evaluate", *run, "--max-new-tokens", "8"]) == 0
        told = json.loads((tmp_path / "run" / "done" / "evaluate.json").read_text())["policies"]["best_of_n"]
        words[name] = told["words"]
    assert words["long"] > words["short"]


GIVEN = {
    "a list": ("[float(len(r.text)) for r in responses]", ""),
    "whole numbers": ("torch.tensor([len(r.text) for r in responses])", ""),
    "too few": ("torch.zeros(1)", "gave (1,) scores for"),
    "not a number": ("torch.full((len(responses),), float('nan'))", "gave scores that are not finite"),
    "an exception": ("torch.zeros(len(nothing))", "failed: NameError: name 'nothing' is not defined"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_rule_gives_is_taken_or_refused_in_one_line(
    name: str, top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, reason = GIVEN[name]
    flags = ["--steps", "1", "--batch-size", "2", "--n", "2", "--max-new-tokens", "4"]
    run = begin(top, tmp_path / "run")
    assert main(["grpo", *run, *flags, "--reward", rule(tmp_path, "mine", body)]) == (2 if reason else 0)
    assert reason in capsys.readouterr().err


def test_best_answers_that_are_all_too_long_teach_nothing_and_that_is_said(
    top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rejection", *begin(top, tmp_path / "run"), *SMALL, "--max-length", "2"]) == 2
    assert "best answers are empty or longer than 2 tokens" in capsys.readouterr().err
    assert not (tmp_path / "run" / "rejection").exists()


def test_a_round_cannot_go_on_from_what_trained_nothing(
    top: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('stages = ["generate", "best_of_n", "rejection"]\nrounds = 2\ncarry = "best_of_n"\n')
    assert main(["run", str(recipe), *begin(top, tmp_path / "run")]) == 2
    assert "carry = 'best_of_n' is none of the stages that improve the policy" in capsys.readouterr().err
