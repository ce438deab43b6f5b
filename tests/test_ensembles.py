"""Reward-model ensembles: training, saving, scoring, reduction in PPO, and active learning."""

import json
import os
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import tiny
import torch

from assent import RewardModel
from assent.cli import main
from assent.functional.ensemble import Reduction, combine, ensemble_std
from assent.loggers.jsonl import read_metrics as metrics_of
from assent.models.load import load_reward
from assent.preferences.candidates import add_items, candidate_pairs, compute_signals, previous_pairs
from assent.preferences.select import Acquisition, select
from assent.records import Prompt, Response, Task
from assent.rewards.model import Model
from assent.run import Setup
from assent.split import split
from assent.store.database import Store

FAST = ["--lr", "3e-3", "--batch-size", "4", "--epochs", "2"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run with imported comparisons, and the folder of a tiny model."""
    folder = tmp_path_factory.mktemp("labelled")
    tiny.make(folder / "model")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {i}?"}],
            "chosen": [{"role": "assistant", "content": "Yes, it is so."}],
            "rejected": [{"role": "assistant", "content": "No no no no."}],
        }
        for i in range(40)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["import", str(folder / "pairs.jsonl"), "--run", str(folder / "run")]) == 0
    return folder


def start_run(labelled: Path, folder: Path) -> list[str]:
    shutil.copytree(labelled / "run", folder)
    return ["--run", str(folder), "--model", str(labelled / "model"), "--device", "cpu", "--dtype", "float32"]


def test_combine_reduces_an_ensemble_to_one_score() -> None:
    scores = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert combine(scores).tolist() == [2.0, 0.0]
    assert combine(scores, "worst_case").tolist() == [1.0, 0.0]
    # Mean 2 less 0.5 times the unbiased deviation of 1 and 3, sqrt(2).
    assert combine(scores, "uncertainty_weighted", 0.5).tolist() == pytest.approx([2 - 0.5 * 2**0.5, 0.0])
    single = torch.tensor([1.0, 2.0])
    assert all(combine(single, reduction).tolist() == [1.0, 2.0] for reduction in get_args(Reduction))
    assert combine(single[:, None], "uncertainty_weighted").tolist() == [1.0, 2.0]  # not NaN
    assert ensemble_std(single).tolist() == ensemble_std(single[:, None]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("flag", "heads", "members"), [("--heads", 3, 1), ("--members", 1, 3)])
def test_ensemble_is_trained_saved_and_scored(
    labelled: Path, tmp_path: Path, flag: str, heads: int, members: int
) -> None:
    run = start_run(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, flag, "3"]) == 0
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    assert result["accuracy"] > 0.8 and result["disagreement"] > 0
    model = Model.load(str(tmp_path / "run" / "reward"))
    assert len(model.members) == members
    assert all(member.model.config.num_labels == heads for member in model.members)
    prompt = Prompt.ask("Question 77?")
    responses = [Response(prompt.id, text, "") for text in ("Yes, it is so.", "No no no no.")]
    scores = model.score([prompt] * 2, responses)
    assert scores.shape == (2, 3) and len(set(scores[0].tolist())) == 3
    assert (scores[0] > scores[1]).all()
    fitted = RewardModel(str(tmp_path / "run" / "reward"), result)
    assert fitted.score(prompt, ["Yes, it is so.", "No no no no."]) == pytest.approx(scores.mean(1).tolist(), abs=1e-5)
    assert fitted.uncertainty(prompt, ["Yes, it is so."])[0] == pytest.approx(float(scores[0].std()), abs=1e-5)


def test_heads_load_with_plain_transformers(labelled: Path, tmp_path: Path) -> None:
    run = start_run(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, "--heads", "2", "--lora-rank", "4"]) == 0
    from transformers import AutoModelForSequenceClassification

    loaded = load_reward(tmp_path / "run" / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "reward")
    assert plain.config.num_labels == 2
    assert torch.equal(loaded.model.state_dict()["score.weight"], plain.score.weight)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(loaded.model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5)


@pytest.mark.parametrize("reduction", ["worst_case", "uncertainty_weighted"])
def test_ppo_uses_the_ensemble_reduction(labelled: Path, tmp_path: Path, reduction: str) -> None:
    run = start_run(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, "--members", "2"]) == 0
    small = ["--steps", "2", "--batch-size", "4", "--n", "2", "--max-new-tokens", "6"]
    assert main(["ppo", *run, *small, "--ensemble", reduction, "--uncertainty-coef", "2"]) == 0
    lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert all(line["disagreement"] > 0 for line in lines)
    assert main(["ppo", *run, *small, "--overwrite"]) == 0  # the mean
    mean_lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert lines[0]["score"] < mean_lines[0]["score"] and lines[0]["length"] == mean_lines[0]["length"]


@pytest.mark.parametrize("lora", [[], ["--lora-rank", "4"]], ids=["all weights", "LoRA"])
def test_interrupted_ensemble_resumes_at_its_member(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: list[str]
) -> None:
    run = start_run(labelled, tmp_path / "whole")
    flags = [*FAST, *lora, "--members", "2"]
    assert main(["reward", *run, *flags]) == 0
    resumed = start_run(labelled, tmp_path / "run")
    from assent.stages.reward import Reward

    fit = Reward._fit
    calls: list[int] = []

    def interrupted(self: Reward, *arguments: object) -> object:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Reward, "_fit", interrupted)
        assert main(["reward", *resumed, *flags]) == 130
    assert main(["reward", *resumed, *flags]) == 0
    for file in ("model.safetensors", os.path.join("member-2", "model.safetensors")):
        whole, interrupted_run = ((tmp_path / name / "reward" / file).read_bytes() for name in ("whole", "run"))
        assert whole == interrupted_run, file


def test_overwritten_ensemble_leaves_no_members(labelled: Path, tmp_path: Path) -> None:
    run = start_run(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, "--members", "2"]) == 0
    assert {line["stage"] for line in metrics_of(tmp_path / "run")} == {"reward/1", "reward/2"}
    assert main(["reward", *run, *FAST, "--overwrite"]) == 0
    assert {line["stage"] for line in metrics_of(tmp_path / "run")} == {"reward"}
    assert not list((tmp_path / "run" / "reward").glob("member-*"))
    assert len(Model.load(str(tmp_path / "run" / "reward")).members) == 1


def test_head_without_examples_in_a_step_keeps_the_loss(labelled: Path, tmp_path: Path) -> None:
    run = start_run(labelled, tmp_path / "run")
    assert main(["reward", *run, "--heads", "2", "--batch-size", "1", "--lr", "1e-6"]) == 0
    losses = [line["loss"] for line in metrics_of(tmp_path / "run")]
    assert min(losses) > 0.5  # never half of ln 2


# Active learning


def pairs_of(tasks: Iterable[Task]) -> set[frozenset[str]]:
    return {frozenset(task.items) for task in tasks}


def train_tasks(folder: Path) -> dict[str, Task]:
    with Store.open(folder / "feedback.db") as store:
        return {task.id: task for task in store.tasks("train")}


def generate_and_train(labelled: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Make a run with responses and a reward ensemble; return its flags, and those of `label` for its responses."""
    run = start_run(labelled, folder)
    generate = ["--n", "3", "--n-held-out", "1", "--max-new-tokens", "8", "--temperature", "1"]
    assert main(["generate", *run, *generate]) == 0
    assert main(["reward", *run, *FAST, "--heads", "2"]) == 0
    policy = json.loads((folder / "done" / "generate.json").read_text())["label"]
    return run, ["--policy", policy, "--num-tasks", "6"]


@pytest.mark.parametrize("acquisition", get_args(Acquisition))
def test_label_queues_no_pair_twice(labelled: Path, tmp_path: Path, acquisition: str) -> None:
    run, flags = generate_and_train(labelled, tmp_path / "run")
    tasks = [train_tasks(tmp_path / "run")]
    for round_number in (1, 2):
        assert main(["label", *run, *flags, "--acquisition", acquisition, "--round", str(round_number)]) == 0
        tasks.append(train_tasks(tmp_path / "run"))
    new_pairs = [pairs_of(after[id] for id in after.keys() - before.keys()) for before, after in pairwise(tasks)]
    assert [len(pairs) for pairs in new_pairs] == [6, 6]
    assert not new_pairs[0] & new_pairs[1]
    label = ["label", *run, *flags, "--acquisition", acquisition, "--round", "2", "--overwrite"]
    assert main(label) == 0
    assert train_tasks(tmp_path / "run") == tasks[-1], "a repeated stage selects its own pairs again"


def test_d_optimal_starts_from_previous_pairs(labelled: Path, tmp_path: Path) -> None:
    run, flags = generate_and_train(labelled, tmp_path / "run")
    flags = [*flags, "--acquisition", "d_optimal", "--random-fraction", "0"]
    assert main(["label", *run, *flags]) == 0
    before = train_tasks(tmp_path / "run")
    assert main(["label", *run, *flags, "--round", "2"]) == 0
    after = train_tasks(tmp_path / "run")
    selected = pairs_of(after[id] for id in after.keys() - before.keys())

    with Store.open(tmp_path / "run" / "feedback.db") as store:
        prompts = {prompt.id: prompt for prompt in store.prompts()}
        train = split(prompts.values(), Setup().held_out).train
        responses: dict[str, list[Response]] = {}
        for response in store.responses(policy=flags[1]):
            if response.prompt in train:
                responses.setdefault(response.prompt, []).append(response)
        previous = [pair for pair in previous_pairs(store, "label-2", humans_only=False) if pair.prompt in train]
        candidates, _ = candidate_pairs(responses, previous)
        model = Model.load(str(tmp_path / "run" / "reward"))
        signals = compute_signals(model, prompts, add_items(responses, previous, store))
    assert {frozenset(pair[1:]) for pair in previous} == pairs_of(
        task for task in before.values() if task.prompt in train
    )
    expected, from_nothing = (
        select(candidates, "d_optimal", 6, *signals, random_fraction=0, previous=pairs) for pairs in (previous, [])
    )
    assert selected == {frozenset(pair.candidate[1:]) for pair in expected}
    assert selected != {frozenset(pair.candidate[1:]) for pair in from_nothing}
