"""Several reward models that disagree: made, kept, scored, and held against the policy."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch

from assent import RewardModel
from assent.cli import main
from assent.functional.ensemble import combine, disagreement
from assent.models.load import load_reward
from assent.records import Prompt, Response
from assent.rewards.model import Model
from assent.training.logging import read_metrics as metrics_of

FAST = ["--lr", "3e-3", "--batch-size", "4", "--epochs", "2"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with comparisons of the tiny model's answers, of which a longer one is better."""
    top = tmp_path_factory.mktemp("labelled")
    tiny.make(top / "model")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {i}?"}],
            "chosen": [{"role": "assistant", "content": "Yes, it is so."}],
            "rejected": [{"role": "assistant", "content": "No no no no."}],
        }
        for i in range(40)
    ]
    (top / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["import", str(top / "pairs.jsonl"), "--run", str(top / "run")]) == 0
    return top


def begin(labelled: Path, folder: Path) -> list[str]:
    shutil.copytree(labelled / "run", folder)
    return ["--run", str(folder), "--model", str(labelled / "model"), "--device", "cpu", "--dtype", "float32"]


def test_members_are_reduced_by_their_mean_their_least_or_a_lower_bound() -> None:
    scores = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert combine(scores).tolist() == [2.0, 0.0]
    assert combine(scores, "minimum").tolist() == [1.0, 0.0]
    assert combine(scores, "lower", 0.5).tolist() == pytest.approx([2 - 0.5 * 2**0.5, 0.0])
    alone = torch.tensor([1.0, 2.0])
    assert all(combine(alone, how).tolist() == [1.0, 2.0] for how in ("mean", "minimum", "lower"))
    assert combine(alone[:, None], "lower").tolist() == [1.0, 2.0]  # one member deviates by nothing, not by NaN
    assert disagreement(alone).tolist() == disagreement(alone[:, None]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("many", "heads", "members"), [("heads", 3, 1), ("members", 1, 3)])
def test_an_ensemble_is_trained_kept_and_heard(
    labelled: Path, tmp_path: Path, many: str, heads: int, members: int
) -> None:
    run = begin(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, f"--{many}", "3"]) == 0
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    assert result["accuracy"] > 0.8 and result["disagreement"] > 0
    model = Model.load(str(tmp_path / "run" / "reward"))
    assert len(model.members) == members
    assert all(one.model.config.num_labels == heads for one in model.members)
    asked = Prompt.ask("Question 77?")
    answers = [Response(asked.id, text, "") for text in ("Yes, it is so.", "No no no no.")]
    scores = model.score([asked] * 2, answers)
    assert scores.shape == (2, 3) and len(set(scores[0].tolist())) == 3
    assert (scores[0] > scores[1]).all()
    fitted = RewardModel(str(tmp_path / "run" / "reward"), result)
    assert fitted.score(asked, ["Yes, it is so.", "No no no no."]) == pytest.approx(scores.mean(1).tolist(), abs=1e-5)
    assert fitted.uncertainty(asked, ["Yes, it is so."])[0] == pytest.approx(float(scores[0].std()), abs=1e-5)


def test_heads_of_one_body_are_saved_and_loaded(labelled: Path, tmp_path: Path) -> None:
    run = begin(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, "--heads", "2", "--lora-rank", "4"]) == 0
    from transformers import AutoModelForSequenceClassification

    ours = load_reward(tmp_path / "run" / "reward")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "reward")
    assert theirs.config.num_labels == 2
    assert torch.equal(ours.model.state_dict()["score.weight"], theirs.score.weight)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(ours.model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5)


@pytest.mark.parametrize("how", ["minimum", "lower"])
def test_the_policy_is_trained_against_the_cautious_score(labelled: Path, tmp_path: Path, how: str) -> None:
    run = begin(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, "--members", "2"]) == 0
    small = ["--steps", "2", "--batch-size", "4", "--n", "2", "--max-new-tokens", "6"]
    assert main(["ppo", *run, *small, "--ensemble", how, "--uncertainty-coef", "2"]) == 0
    lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert all(line["disagreement"] > 0 for line in lines)
    assert main(["ppo", *run, *small, "--overwrite"]) == 0  # by their mean
    other = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert lines[0]["score"] < other[0]["score"] and lines[0]["length"] == other[0]["length"]


@pytest.mark.parametrize("lora", [[], ["--lora-rank", "4"]], ids=["all weights", "LoRA"])
def test_a_stopped_ensemble_goes_on_with_the_member_it_had_come_to(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: list[str]
) -> None:
    run, flags = begin(labelled, tmp_path / "whole"), [*FAST, *lora, "--members", "2"]
    assert main(["reward", *run, *flags]) == 0
    again = begin(labelled, tmp_path / "run")
    from assent.stages.reward import Reward

    fit, calls = Reward._fit, list[int]()

    def interrupted(self: Reward, *given: object) -> object:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Reward, "_fit", interrupted)
        assert main(["reward", *again, *flags]) == 130
    assert main(["reward", *again, *flags]) == 0
    for file in ("model.safetensors", os.path.join("member-2", "model.safetensors")):
        one, other = ((tmp_path / name / "reward" / file).read_bytes() for name in ("whole", "run"))
        assert one == other, file


def test_a_reward_model_in_place_of_an_ensemble_leaves_nothing_of_it(labelled: Path, tmp_path: Path) -> None:
    run = begin(labelled, tmp_path / "run")
    assert main(["reward", *run, *FAST, "--members", "2"]) == 0
    assert {line["stage"] for line in metrics_of(tmp_path / "run")} == {"reward/1", "reward/2"}
    assert main(["reward", *run, *FAST, "--overwrite"]) == 0
    assert {line["stage"] for line in metrics_of(tmp_path / "run")} == {"reward"}
    assert not list((tmp_path / "run" / "reward").glob("member-*"))
    assert len(Model.load(str(tmp_path / "run" / "reward")).members) == 1


def test_a_head_whose_sample_has_nothing_of_a_step_does_not_thin_its_loss(labelled: Path, tmp_path: Path) -> None:
    run = begin(labelled, tmp_path / "run")
    assert main(["reward", *run, "--heads", "2", "--batch-size", "1", "--lr", "1e-6"]) == 0
    losses = [line["loss"] for line in metrics_of(tmp_path / "run")]
    assert min(losses) > 0.5  # never half of ln 2
