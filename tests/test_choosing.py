"""Best-of-n and rejection sampling, a user's own reward file, dynamic sampling and the ptx loss."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import tiny

from assent.cli import main
from assent.functional.conciseness import conciseness_score
from assent.loggers.jsonl import read_metrics as metrics_of
from assent.store.database import Store

SMALL = ["--max-new-tokens", "8", "--rewards", "conciseness_rubric"]


@pytest.fixture(scope="module")
def model_and_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choosing")
    tiny.make(folder / "model", chat=False)
    rows = [{"prompt": f"The cat saw {i} birds and"} for i in range(30)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def start_run(model_and_prompts: Path, folder: Path) -> list[str]:
    run = ["--run", str(folder), "--model", str(model_and_prompts / "model"), "--device", "cpu", "--dtype", "float32"]
    assert (
        main(["import", str(model_and_prompts / "prompts.jsonl"), "--run", str(folder), "--no-apply-chat-template"])
        == 0
    )
    return run


def read_result(folder: Path, stage: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "done" / f"{stage}.json").read_text())
    return result


def write_reward(folder: Path, name: str, body: str) -> str:
    """Write a reward file whose `score` returns this expression."""
    file = folder / f"{name}.py"
    file.write_text(f"import torch\n\nclass Mine:\n    def score(self, prompts, responses):\n        return {body}\n")
    return str(file)


def test_best_of_n_takes_the_best_and_is_evaluated(model_and_prompts: Path, tmp_path: Path) -> None:
    run = start_run(model_and_prompts, tmp_path / "run")
    assert main(["best_of_n", *run, *SMALL, "--n", "6"]) == 0
    result = read_result(tmp_path / "run", "best_of_n")
    # The bound of best-of-n, log n - (n - 1) / n.
    assert result["kl"] == pytest.approx(math.log(6) - 5 / 6)
    assert result["best_score"] > result["score"]
    store = Store.open(tmp_path / "run" / "feedback.db")
    prompts = {prompt.id: prompt for prompt in store.prompts()}
    sampled: dict[str, list[float]] = {}
    best: dict[str, float] = {}
    for response in store.responses():
        score = conciseness_score(prompts[response.prompt].text, response.text, response.finished)
        if response.policy == result["chosen"]:
            best[response.prompt] = score
        else:
            sampled.setdefault(response.prompt, []).append(score)
    assert len(best) == result["prompts"] == len(sampled)
    assert all(len(scores) == 6 and best[prompt] == max(scores) for prompt, scores in sampled.items())
    assert main(["evaluate", *run, "--judge", "conciseness_rubric", "--max-new-tokens", "8"]) == 0
    evaluation = read_result(tmp_path / "run", "evaluate")["policies"]["best_of_n"]
    assert evaluation["win"]["rate"] > 0.6 and evaluation["kl"] == result["kl"]
    assert main(["arena", *run, "--max-new-tokens", "8", "--profiles", "low_noise"]) == 0
    ratings = read_result(tmp_path / "run", "arena")["policies"]
    assert ratings["best_of_n"]["rating"] > ratings["base"]["rating"]
    assert main(["report", *run]) == 0


def test_rejection_sampling_trains_on_the_best_responses(model_and_prompts: Path, tmp_path: Path) -> None:
    run = start_run(model_and_prompts, tmp_path / "run")
    fast = ["--n", "4", "--lr", "3e-3", "--epochs", "4", "--batch-size", "4"]
    assert main(["rejection_sampling", *run, *SMALL, *fast]) == 0
    result = read_result(tmp_path / "run", "rejection_sampling")
    assert result["best_score"] > result["score"]
    losses = [line["loss"] for line in metrics_of(tmp_path / "run") if line["stage"] == "rejection_sampling"]
    assert losses[-1] < losses[0] - 0.3
    assert main(["evaluate", *run, "--judge", "conciseness_rubric", "--max-new-tokens", "8"]) == 0
    assert "rejection_sampling" in read_result(tmp_path / "run", "evaluate")["policies"]
    assert main(["generate", *run, "--round", "2", "--max-new-tokens", "4"]) == 0  # round 2 starts from it
    assert read_result(tmp_path / "run", "generate-2")["policy"] == "rejection_sampling"


def test_ptx_loss_keeps_the_policy_close_to_its_texts(model_and_prompts: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(tiny.STORIES.read_text().split("\n\n")[:20]))
    forget = ["--steps", "6", "--batch-size", "4", "--n", "2", "--lr", "3e-3", "--lr-scheduler-type", "constant"]
    losses: dict[str, list[float]] = {}
    for name, flags in (("none", ["--ptx-coef", "1e-9"]), ("some", ["--ptx-coef", "5"])):
        run = start_run(model_and_prompts, tmp_path / name)
        assert main(["grpo", *run, *SMALL, *forget, *flags, "--ptx-data", str(texts)]) == 0
        losses[name] = [line["ptx_loss"] for line in metrics_of(tmp_path / name)]
    assert losses["none"][0] == pytest.approx(losses["some"][0])
    assert losses["some"][-1] < losses["none"][-1] - 0.2


def test_ptx_coef_without_ptx_data_is_refused(
    model_and_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start_run(model_and_prompts, tmp_path / "run")
    assert main(["ppo", *run, "--ptx-coef", "1"]) == 2
    assert "ptx_coef = 1.0 needs texts; name a file with ptx_data" in capsys.readouterr().err
    assert main(["grpo", *run, *SMALL, "--ptx-coef", "1", "--ptx-data", str(tmp_path / "none.txt")]) == 2
    assert "no file at" in capsys.readouterr().err


def test_best_of_n_without_a_reward_model_is_refused(
    model_and_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start_run(model_and_prompts, tmp_path / "run")
    for command in ("best_of_n", "rejection_sampling"):
        assert main([command, *run]) == 2
        assert "has no reward model; run 'assent reward' first, or name one with --rewards" in capsys.readouterr().err


BROKEN_REWARD_FILES = {
    "gone": (None, "no file at"),
    "broken": ("def score(:\n", "cannot be read: SyntaxError"),
    "empty": ("import torch\n", "must define one class with a method 'score'; it has 0"),
    "two": ("class A:\n    def score(self): ...\nclass B:\n    def score(self): ...\n", "it has 2"),
}


@pytest.mark.parametrize("name", BROKEN_REWARD_FILES)
def test_broken_reward_file_is_refused_with_the_reason(
    name: str, model_and_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, reason = BROKEN_REWARD_FILES[name]
    file = tmp_path / f"{name}.py"
    if text is not None:
        file.write_text(text)
    assert main(["grpo", *start_run(model_and_prompts, tmp_path / "run"), "--rewards", str(file)]) == 2
    error = capsys.readouterr().err
    assert reason in error and len([line for line in error.splitlines() if line.startswith("assent:")]) == 1


def test_dynamic_sampling_and_overlong_buffer(model_and_prompts: Path, tmp_path: Path) -> None:
    # the responses to most prompts have equal scores
    reward = write_reward(
        tmp_path, "some", "[float(('1' in p.text) * len(r.text)) for p, r in zip(prompts, responses)]"
    )
    flags = ["--steps", "2", "--batch-size", "4", "--n", "3", "--max-new-tokens", "8", "--missing-eos-score", "off"]
    lines: dict[str, list[dict[str, Any]]] = {}
    for name, setting in (
        ("plain", []),
        ("dynamic_sampling", ["--dynamic-sampling", "5"]),
        ("overlong_buffer", ["--overlong-buffer", "4"]),
    ):
        run = start_run(model_and_prompts, tmp_path / name)
        assert main(["dapo", *run, "--rewards", reward, *flags, *setting]) == 0
        lines[name] = metrics_of(tmp_path / name)
    zero_std = {name: fmean(line["frac_reward_zero_std"] for line in lines[name]) for name in lines}
    assert sum(line["resampled"] for line in lines["dynamic_sampling"]) > 0
    assert zero_std["dynamic_sampling"] < zero_std["plain"]
    plain, overlong = lines["plain"][0], lines["overlong_buffer"][0]
    assert overlong["length"] == plain["length"] > 4
    assert plain["score"] - 1 <= overlong["score"] < plain["score"]


def test_best_of_n_with_another_reward_is_evaluated_again(model_and_prompts: Path, tmp_path: Path) -> None:
    run = start_run(model_and_prompts, tmp_path / "run")
    mean_words: dict[str, float] = {}
    for name, sign in (("long", ""), ("short", "-")):
        reward = write_reward(tmp_path, name, f"torch.tensor([{sign}float(len(r.text)) for r in responses])")
        flags = ["--rewards", reward, "--n", "6", "--max-new-tokens", "8", "--overwrite"]
        assert main(["best_of_n", *run, *flags]) == 0
        assert main(["evaluate", *run, "--judge", "conciseness_rubric", "--max-new-tokens", "8"]) == 0
        mean_words[name] = read_result(tmp_path / "run", "evaluate")["policies"]["best_of_n"]["mean_words"]
    assert mean_words["long"] > mean_words["short"]


RETURNED_SCORES = {
    "a list": ("[float(len(r.text)) for r in responses]", ""),
    "whole numbers": ("torch.tensor([len(r.text) for r in responses])", ""),
    "too few": ("torch.zeros(1)", "returned (1,) scores for"),
    "not a number": ("torch.full((len(responses),), float('nan'))", "returned scores that are not finite"),
    "an exception": ("torch.zeros(len(nothing))", "failed: NameError: name 'nothing' is not defined"),
}


@pytest.mark.parametrize("name", RETURNED_SCORES)
def test_scores_of_a_reward_file_are_checked(
    name: str, model_and_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, reason = RETURNED_SCORES[name]
    flags = ["--steps", "1", "--batch-size", "2", "--n", "2", "--max-new-tokens", "4"]
    run = start_run(model_and_prompts, tmp_path / "run")
    assert main(["grpo", *run, *flags, "--rewards", write_reward(tmp_path, "mine", body)]) == (2 if reason else 0)
    assert reason in capsys.readouterr().err


def test_best_responses_that_are_all_too_long_are_refused(
    model_and_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["rejection_sampling", *start_run(model_and_prompts, tmp_path / "run"), *SMALL, "--max-length", "2"]) == 2
    )
    assert "best responses are empty or, with their prompt, longer than 2 tokens" in capsys.readouterr().err
    assert not (tmp_path / "run" / "rejection_sampling").exists()


def test_policy_stage_must_train_a_policy(
    model_and_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'stages = ["generate", "best_of_n", "rejection_sampling"]\nrounds = 2\npolicy_stage = "best_of_n"\n'
    )
    assert main(["run", str(recipe), *start_run(model_and_prompts, tmp_path / "run")]) == 2
    assert "= 'best_of_n' is n" in capsys.readouterr().err
