"""PPO's value head: values are read from the policy's own hidden states, and teach the head alone."""

import json
from pathlib import Path

import pytest
import tiny
import torch

from assent.cli import main
from assent.models.forward import hidden_states, logprobs, logprobs_and_values
from assent.models.heads import ValueHead
from assent.models.packing import SharedPrefix, pack

SHORT = ["--ungated", "--steps", "4", "--n", "2", "--batch-size", "4", "--max-new-tokens", "6", "--temperature", "1"]


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """Return the flags of a run with a reward model."""
    tiny.make(tmp_path / "model", chat=False)
    rows = [{"prompt": f"Name bird {i}: ", "chosen": "An owl.", "rejected": "No."} for i in range(12)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = [
        "--run",
        str(tmp_path / "run"),
        "--model",
        str(tmp_path / "model"),
        "--dtype",
        "float32",
        "--device",
        "cpu",
    ]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *flags]) == 0
    assert main(["reward", *flags, "--lr", "1e-2"]) == 0
    return flags


def read_metrics(flags: list[str], stage: str) -> list[dict[str, float]]:
    rows = map(json.loads, (Path(flags[1]) / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage]


def test_value_head_reads_the_states_and_teaches_itself_alone(tmp_path: Path) -> None:
    model = tiny.load(tiny.make(tmp_path / "model")).model
    head = ValueHead(model)
    batch = pack([SharedPrefix((5, 6, 7), ((8, 9), (10,))), SharedPrefix((3,), ((4, 5, 6),))])
    zeros = logprobs_and_values(model, head, batch)[1]
    assert zeros.tolist() == [0.0] * 6, "a new head estimates 0 everywhere"
    with torch.no_grad():
        head.score.weight.normal_()
    now, values = logprobs_and_values(model, head, batch)
    states = hidden_states(model, batch)[batch.predictor_index]
    torch.testing.assert_close(values, states @ head.score.weight[0])
    torch.testing.assert_close(now.logprobs, logprobs(model, batch).logprobs)
    values.square().sum().backward()
    assert head.score.weight.grad is not None
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("lora", [[], ["--lora-rank", "4"]], ids=["whole", "lora"])
def test_value_head_learns_the_returns(run: list[str], lora: list[str]) -> None:
    assert main(["ppo", *run, *SHORT, "--steps", "12", "--value-head", "--value-lr", "3e-2", *lora]) == 0
    losses = [row["value_loss"] for row in read_metrics(run, "ppo")]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_first_rollout_is_that_of_a_separate_value_model(run: list[str]) -> None:
    assert main(["ppo", *run, *SHORT, "--value-head"]) == 0
    with_head = read_metrics(run, "ppo")[0]
    assert main(["ppo", *run, *SHORT, "--overwrite"]) == 0
    separate = read_metrics(run, "ppo")[0]
    same = ("score", "reward", "kl", "length", "policy_loss", "grad_norm", "value_loss")
    assert [with_head[name] for name in same] == pytest.approx([separate[name] for name in same], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ppo", "--value-head", "--trainable-value-layers", "1"], "value_head has no layers of its own"),
        (["grpo", "--value-head"], "value_head estimates values, which GRPO does not use"),
    ],
)
def test_value_head_is_refused_where_it_means_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
