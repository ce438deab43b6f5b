"""Two processes of torchrun train the same weights as one process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from processes import command, free_port
from safetensors.torch import load_file

from assent.cli import main
from assent.loggers.jsonl import read_metrics as metrics_of

FAST = ["--lr", "1e-3", "--batch-size", "4", "--max-tokens-per-batch", "64"]
STAGES = {
    "reward": ["reward", *FAST],
    "members": ["reward", *FAST, "--members", "2", "--heads", "2", "--objective", "kway"],
    "sft": ["sft", *FAST],
    "dpo": ["dpo", *FAST],
    "kto": ["kto", *FAST],
    "lora": ["dpo", *FAST, "--lora-rank", "4"],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, and a run with comparisons and demonstrations."""
    folder = tmp_path_factory.mktemp("parallel")
    tiny.make(folder / "model", chat=False)
    sides = [(" yes" * (1 + i % 5), " no" * (1 + i % 7)) for i in range(24)]
    pairs = [{"prompt": f"Question {i}: ", "chosen": a, "rejected": b} for i, (a, b) in enumerate(sides)]
    examples = [{"prompt": f"Say {i}: ", "completion": f" {i} it is."} for i in range(24)]
    for name, rows in (("pairs", pairs), ("shown", examples)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert (
            main(["import", str(folder / f"{name}.jsonl"), "--run", str(folder / "run"), "--no-apply-chat-template"])
            == 0
        )
    return folder


def common_flags(prepared: Path, folder: Path) -> list[str]:
    shutil.copytree(prepared / "run", folder)
    return ["--run", str(folder), "--model", str(prepared / "model"), "--device", "cpu", "--dtype", "float32"]


def run_torchrun(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
        "assent",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*launcher, *arguments], capture_output=True, text=True, timeout=300, env=environment, check=False
    )


def run_forked(words: list[str], folder: Path, status: int = 0) -> str:
    """Run two processes as torchrun does, but quickly: they are forked after all imports. Both must end so."""
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", **rendezvous}
    both = [
        command(*words, log=folder / f"log-{rank}", environment=shared | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    for process in both:
        assert process.wait() == status, process.output
    return "".join(process.output for process in both)


def weights(folder: Path) -> dict[str, Any]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.rglob("model.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_two_processes_train_the_weights_of_one(prepared: Path, tmp_path: Path, name: str) -> None:
    stage, *flags = STAGES[name]
    assert main([stage, *common_flags(prepared, tmp_path / "one"), *flags]) == 0
    output = run_forked([stage, *common_flags(prepared, tmp_path / "two"), *flags], tmp_path)
    assert output.count(f"{stage}: done in") == 1  # printed by rank 0 only
    alone, paired = weights(tmp_path / "one" / stage), weights(tmp_path / "two" / stage)
    assert alone.keys() == paired.keys() and alone
    start = load_file(prepared / "model" / "model.safetensors")
    moved = max(float((tensor - start[n.split("/", 1)[1]]).abs().max()) for n, tensor in alone.items() if "embed" in n)
    assert moved > 1e-4 or name == "lora"
    for key, tensor in alone.items():
        assert torch.allclose(tensor, paired[key], atol=2e-5), key
    lines = [metrics_of(tmp_path / folder) for folder in ("one", "two")]
    assert len(lines[0]) == len(lines[1])
    for a, b in zip(*lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5) and a["grad_norm"] == pytest.approx(
            b["grad_norm"], rel=1e-3
        )
    results = [json.loads((tmp_path / folder / "done" / f"{stage}.json").read_text()) for folder in ("one", "two")]
    cards = [result.pop("report_card", {}) for result in results]
    assert cards[0].keys() == cards[1].keys() and bool(cards[0]) == (stage == "reward")
    for name in ("accuracy", "longer_wins", "length_correlation"):
        assert cards[0].get(name) == pytest.approx(cards[1].get(name), abs=1e-4), name
    for word, value in results[0].items():
        if word not in ("seconds", "peak_gb"):
            assert results[1][word] == pytest.approx(value, abs=1e-4), word


@pytest.mark.slow
def test_two_processes_sample_score_and_train_together(prepared: Path, tmp_path: Path) -> None:
    run = common_flags(prepared, tmp_path / "run")
    assert main(["reward", *run, *FAST]) == 0
    small = ["--steps", "2", "--batch-size", "4", "--n", "2", "--max-new-tokens", "6", "--max-tokens-per-batch", "64"]
    process = run_torchrun(["ppo", *run, *small])
    assert process.returncode == 0, process.stderr[-3000:]
    lines = [line for line in metrics_of(tmp_path / "run") if line["stage"] == "ppo"]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-5) and lines[0]["ratio"] == pytest.approx(1, abs=1e-5)
    assert lines[0]["sampler_logprob_diff"] < 1e-4


@pytest.mark.slow
def test_bad_input_is_printed_once_and_ends_all_processes(prepared: Path, tmp_path: Path) -> None:
    process = run_torchrun(["reward", "--run", str(tmp_path / "empty"), "--model", str(prepared / "model")])
    assert process.returncode != 0
    assert process.stderr.count("holds no comparisons") == 1


@pytest.mark.slow
def test_stage_that_is_not_distributed_runs_on_rank_0_only(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"Say {i}: "}) for i in range(8)))
    model = ["--model", str(prepared / "model"), "--device", "cpu", "--dtype", "float32"]
    flags = ["--prompts", str(tmp_path / "prompts.jsonl"), "--max-new-tokens", "4"]
    printed = run_forked(["generate", "--run", str(tmp_path / "run"), *model, *flags], tmp_path)
    assert printed.count("generate: done in") == 1
    output = run_torchrun(["generate", "--run", str(tmp_path / "run"), "--model", "another/model"])
    assert output.returncode != 0 and "is a run with model" in output.stderr
    assert "Connection closed by peer" not in output.stderr


OWN_RULE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Own:
    target: int = 3

    def score(self, prompts, responses):
        return [-abs(float(len(response.text)) - self.target) for response in responses]
"""


def test_recipe_may_name_an_own_rule_in_two_processes(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_RULE)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"[grpo]\nrewards = ['{tmp_path / 'own.py'}']\ntarget = 5\nsteps = 1\nn = 2\nmax_new_tokens = 4")
    output = run_forked(["grpo", str(recipe), *common_flags(prepared, tmp_path / "run")], tmp_path)
    assert output.count("grpo: done in") == 1


def test_two_processes_end_while_annotators_have_yet_to_answer(prepared: Path, tmp_path: Path) -> None:
    words = ["label", *common_flags(prepared, tmp_path / "run"), "--kind", "demonstration"]
    output = run_forked([*words, "--annotator", "human", "--wait", "0"], tmp_path, status=3)
    assert output.count("tasks judged") == 1
