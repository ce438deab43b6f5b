"""Killed training stages resume and end bit-equal to uninterrupted ones."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import tiny
from processes import Process, assent, command

pytestmark = pytest.mark.slow
SHARED = ["--lr", "1e-3", "--save-every", "1", "--max-tokens-per-batch", "200"]
SHORT = ["--max-new-tokens", "8", "--temperature", "1"]
STAGES = {
    "pretrain": [
        "--num-layers",
        "1",
        "--hidden-size",
        "64",
        "--vocab-size",
        "400",
        "--epochs",
        "1",
        "--data",
        str(tiny.STORIES),
    ],
    "sft": ["--batch-size", "2", "--epochs", "4"],
    "reward": ["--batch-size", "2"],
    "dpo": ["--batch-size", "2"],
    "kto": ["--batch-size", "2"],
    "ppo": [
        "--ungated",
        "--batch-size",
        "4",
        "--steps",
        "6",
        "--epochs",
        "2",
        "--minibatches",
        "2",
        "--target-kl",
        "1",
        *SHORT,
    ],
    "ppo --value-head": ["--ungated", "--batch-size", "4", "--steps", "6", "--epochs", "2", "--value-head", *SHORT],
    "grpo": ["--ungated", "--batch-size", "4", "--steps", "6", "--lora-rank", "4", "--target-kl", "1", *SHORT],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with responses, comparisons, demonstrations and a reward model."""
    folder = tmp_path_factory.mktemp("resume")
    model = tiny.make(folder / "model")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tell me of the {w} in the garden."}) + "\n" for w in WORDS))
    examples = folder / "demonstrations.jsonl"
    rows = [{"prompt": [{"role": "user", "content": f"Who is {w}?"}], "completion": f"A friend, {w}."} for w in WORDS]
    rows = [row | {"completion": [{"role": "assistant", "content": row["completion"]}]} for row in rows]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = folder / "run"
    flags = ["--model", str(model), "--prompts", str(prompts), "--dtype", "float32", *SHORT]
    for words in (["generate", *flags], ["label"], ["import", str(examples)], ["reward", "--lr", "1e-3"]):
        assent(*words, "--run", str(run))
    return run


WORDS = [
    "duck", "cat", "dog", "king", "queen", "ball", "hat", "cake", "tree", "boat",
    "moon", "frog", "bird", "fish", "star", "bear", "house", "sea", "road", "pond",
]  # fmt: skip


def weights(run: Path, stage: str) -> bytes:
    return (run / stage / "model.safetensors").read_bytes()


def read_steps(run: Path, stage: str) -> list[int]:
    """Return the steps of a stage with complete lines."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line["step"] for line in map(json.loads, (x for x in lines if x.endswith("}"))) if line["stage"] == stage]


def run_and_interrupt(name: str, run: Path, number: int) -> int:
    """Start a stage of `STAGES`, send it a signal after its second (or first new) step, and return its exit status."""
    stage = name.partition(" ")[0]
    enough = max(2, len(read_steps(run, stage)) + 1)
    process = start_stage(stage, *SHARED, *STAGES[name], run=run)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.status is None:
        if len(read_steps(run, stage)) >= enough:
            break
        time.sleep(0.01)
    assert process.status is None, f"{stage} ended before it could be interrupted: {process.output}"
    process.send(number)
    status = process.wait(120)
    assert not (run / "done" / f"{stage}.json").exists(), f"{stage} finished before it could be interrupted"
    return status


def start_stage(*words: str, run: Path) -> Process:
    return command(*words, "--run", str(run), log=run.with_name("log"))


@pytest.mark.parametrize("name", STAGES)
def test_killed_stage_ends_bit_equal_to_an_uninterrupted_one(name: str, prepared: Path, tmp_path: Path) -> None:
    stage = name.partition(" ")[0]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        shutil.copytree(prepared, run)
        if stage == "reward":
            assent_forget(run, stage)
    assent(stage, *SHARED, *STAGES[name], "--run", str(whole))
    assert run_and_interrupt(name, broken, signal.SIGKILL) == -signal.SIGKILL
    assert run_and_interrupt(name, broken, signal.SIGINT) == 130
    assent(stage, *SHARED, *STAGES[name], "--run", str(broken))
    assert weights(whole, stage) == weights(broken, stage)
    steps = read_steps(broken, stage)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 3


def assent_forget(run: Path, stage: str) -> None:
    from assent.run import Setup, open_run

    with open_run(Setup(run, json_model(run), dtype="float32")) as opened:
        opened.move_aside(stage, {})
        shutil.rmtree(run / "replaced")
    lines = [line for line in (run / "metrics.jsonl").read_text().splitlines() if f'"{stage}"' not in line]
    (run / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))


def json_model(run: Path) -> str:
    from assent.config import read_recipe

    return str(read_recipe(run / "recipe.toml")["model"])


def test_killed_generation_resumes_to_the_same_responses(prepared: Path, tmp_path: Path) -> None:
    from assent.store.database import Store

    settings = ["--generation-batch-size", "8", "--n", "4", "--overwrite", *SHORT]
    result = []
    for name in ("whole", "broken"):
        run = tmp_path / name
        shutil.copytree(prepared, run)
        (run / "feedback.db").unlink()
        prompts = str(prepared.parent / "prompts.jsonl")
        words = ["generate", "--prompts", prompts, *settings]
        if name == "broken":
            process = start_stage(*words, run=run)
            until = time.monotonic() + 60
            while time.monotonic() < until and process.status is None:
                if (run / "feedback.db").exists() and Store.open(run / "feedback.db").counts().responses >= 8:
                    break
            process.kill()
            words.remove("--overwrite")
        assent(*words, "--run", str(run))
        result.append([(r.prompt, r.text, r.policy) for r in Store.open(run / "feedback.db").responses()])
    assert result[0] == result[1]
    assert len(result[0]) > 40


def test_saved_reference_logprobs_are_not_recomputed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    import torch
    from test_models import random_prefixes

    from assent.models.load import load_policy
    from assent.training import reference

    model = load_policy(tiny.make(tmp_path / "model")).model
    trees = random_prefixes(10, 3)
    computed: list[int] = []
    ask = reference.completion_logprobs

    def count(model: Any, chunk: Any, device: torch.device) -> torch.Tensor:
        if sum(computed) >= 6 and not is_resumed:
            raise KeyboardInterrupt
        computed.append(len(chunk))
        return ask(model, chunk, device)

    def sums(folder: str) -> list[torch.Tensor]:
        run = SimpleNamespace(folder=tmp_path / folder, device=torch.device("cpu"))
        return reference.reference_logprobs(cast(Any, run), "dpo", model, trees, 200)

    monkeypatch.setattr(reference, "SAVE_EVERY", 3)
    whole = sums("whole")
    assert [len(values) for values in whole] == [len(tree.completions) for tree in trees]
    monkeypatch.setattr(reference, "completion_logprobs", count)
    is_resumed = False
    with pytest.raises(KeyboardInterrupt):
        sums("broken")
    assert sum(computed) == 6
    is_resumed = True
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(sums("broken"), whole, strict=True))
        assert sum(computed) == 10


@pytest.mark.parametrize("origin", ["of other examples", "by another version"])
def test_reference_logprobs_of_other_examples_are_recomputed(
    origin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    import torch
    from test_models import random_prefixes

    from assent.models.load import load_policy
    from assent.training.reference import completion_logprobs, reference_logprobs

    model = load_policy(tiny.make(tmp_path / "model")).model
    trees = random_prefixes(10, 3)
    run: Any = cast(Any, SimpleNamespace(folder=tmp_path / "run", device=torch.device("cpu")))
    with torch.no_grad():
        reference_logprobs(run, "dpo", model, trees[5:] + trees[:5], 200)
        if origin == "by another version":
            torch.save(torch.zeros(3), tmp_path / "run" / "state" / "dpo" / "reference.pt")
        sums = reference_logprobs(run, "dpo", model, trees, 200)
        expected = [completion_logprobs(model, [tree], run.device) for tree in trees]
        warning = "note: dpo: the saved reference log-probabilities belong to other examples"
        assert capsys.readouterr().err.count(warning) == 1
        again = reference_logprobs(run, "dpo", model, trees, 200)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(sums, expected, strict=True))
    assert all(map(torch.equal, sums, again)) and "note" not in capsys.readouterr().err
