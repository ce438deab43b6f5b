"""Loss and gradient do not depend on the layout of the tokens: padded, packed, shared, chunked or in microbatches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from assent.batch import LogprobPairs, PolicyBatch, RankedScores, ScorePairs
from assent.cli import main
from assent.functional.logprobs import token_logprobs
from assent.loggers.jsonl import read_metrics as metrics_of
from assent.models.forward import hidden_states, lm_head, logprobs, scores, values
from assent.models.load import load_policy, new_reward
from assent.models.packing import SharedPrefix, pack
from assent.objectives.bradley_terry import BradleyTerry
from assent.objectives.dpo import DPO
from assent.objectives.grpo import GRPO
from assent.objectives.kway import KWay
from assent.objectives.orpo import ORPO
from assent.objectives.ppo import PPO
from assent.online import models, trainer

PREFIXES = [
    SharedPrefix((5, 9, 30, 41), ((8, 9, 77, 2), (10, 11), (12, 60, 61, 62, 2))),
    SharedPrefix((4,), ((20, 21, 2), (22, 23, 24, 25, 26, 2), (27, 2))),
    SharedPrefix((100, 101, 102, 103, 104, 105, 106), ((31, 2), (32, 33, 34, 2), (35, 36, 2))),
]
ROWS = [(prefix.prefix, branch) for prefix in PREFIXES for branch in prefix.completions]
"""Nine completions of three prompts."""
LONGEST = max(len(branch) for _, branch in ROWS)
SEPARATE_ROWS = [SharedPrefix(prefix, (branch,)) for prefix, branch in ROWS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


def padded(side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and positions of all rows, padded with a token of the vocabulary."""
    width = max(len(prefix) + len(branch) for prefix, branch in ROWS) + 3
    ids, mask, positions = (torch.zeros(len(ROWS), width, dtype=torch.long) for _ in range(3))
    for i, (prefix, branch) in enumerate(ROWS):
        n = len(prefix) + len(branch)
        columns = slice(width - n, width) if side == "left" else slice(0, n)
        ids[i] = 7
        ids[i, columns] = torch.tensor([*prefix, *branch])
        mask[i, columns] = 1
        positions[i, columns] = torch.arange(n)
    return ids, mask, positions


def hidden_rows(model: Any, side: str) -> list[Tensor]:
    """Return the last hidden states of each row without its padding, by transformers alone."""
    ids, mask, positions = padded(side)
    hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state
    return [row[row_mask.bool()] for row, row_mask in zip(hidden, mask, strict=True)]


def pad_rows(rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.nn.functional.pad(row, (0, LONGEST - len(row))) for row in rows])


def with_transformers(side: str) -> Callable[[Any], Tensor]:
    def compute_logprobs(model: Any) -> Tensor:
        rows = []
        for (prefix, branch), hidden in zip(ROWS, hidden_rows(model, side), strict=True):
            logits = model.lm_head(hidden[len(prefix) - 1 : -1]).float().log_softmax(-1)
            rows.append(logits.gather(-1, torch.tensor(branch)[:, None])[:, 0])
        return pad_rows(rows)

    return compute_logprobs


def with_packing(batches: list[list[SharedPrefix]]) -> Callable[[Any], Tensor]:
    def compute_logprobs(model: Any) -> Tensor:
        rows = []
        for chunk in batches:
            packed = pack(chunk)
            rows += logprobs(model, packed).logprobs.split(packed.completion_lens.tolist())
        return pad_rows(rows)

    return compute_logprobs


def with_chunked_head(size: int) -> Callable[[Any], Tensor]:
    def compute_logprobs(model: Any) -> Tensor:
        packed = pack(PREFIXES)
        hidden = hidden_states(model, packed)[packed.predictor_index]
        result = token_logprobs(hidden, packed.targets, lm_head(model), chunk=size).logprobs
        return pad_rows(list(result.split(packed.completion_lens.tolist())))

    return compute_logprobs


LAYOUTS: dict[str, Callable[[Any], Tensor]] = {
    "shared prefixes": with_packing([PREFIXES]),
    "one prompt per batch": with_packing([[prefix] for prefix in PREFIXES]),
    "packed, nothing shared": with_packing([SEPARATE_ROWS]),
    "one row per batch": with_packing([[prefix] for prefix in SEPARATE_ROWS]),
    "padded on the left": with_transformers("left"),
    "padded on the right": with_transformers("right"),
    **{f"chunks of {size}": with_chunked_head(size) for size in (1, 5, 1000)},
}
"""Log-probabilities of all completions, (9, T), padded on the right with 0."""


def preference_loss(objective: Any, logprobs: Tensor) -> Tensor:
    sums = logprobs.sum(1)
    lengths = torch.tensor([float(len(branch)) for _, branch in ROWS])
    chosen, rejected = torch.tensor([0, 2, 3, 8]), torch.tensor([1, 1, 5, 6])
    reference = torch.linspace(-9, -20, len(ROWS))
    sides = sums[chosen], sums[rejected], reference[chosen], reference[rejected], lengths[chosen], lengths[rejected]
    loss: Tensor = objective(LogprobPairs(*sides, torch.tensor([1.0, 1, 0.7, 1]), torch.tensor([1.0, 2, 1, 0.5]))).value
    return loss


def rollout_loss(logprobs: Tensor) -> Tensor:
    mask = torch.tensor([[t < len(branch) for t in range(LONGEST)] for _, branch in ROWS])
    rng = torch.Generator().manual_seed(0)
    old = torch.where(mask, logprobs.detach() + 0.1 * torch.randn(mask.shape, generator=rng), 0.0)
    actions = PolicyBatch(mask, logprobs, old, old, torch.randn(mask.shape, generator=rng))
    return PPO()(actions).value


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "dpo": lambda logprobs: preference_loss(DPO(), logprobs),
    "orpo": lambda logprobs: preference_loss(ORPO(), logprobs),
    "ppo": rollout_loss,
}


def gradient(loss: Tensor, model: Any) -> Tensor:
    parts = torch.autograd.grad(loss, [w for w in model.parameters() if w.requires_grad], allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def assert_close(result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert torch.allclose(result[0], expected[0], rtol=1e-5)
    assert float((result[1] - expected[1]).norm() / expected[1].norm()) < 1e-4


@pytest.mark.parametrize("objective", LOSSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_policy_loss_and_gradient_do_not_depend_on_layout(layout: str, objective: str, folder: Path) -> None:
    model = load_policy(folder).model
    results = []
    for compute_logprobs in (LAYOUTS[layout], LAYOUTS["padded on the right"]):
        result = compute_logprobs(model)
        # the log-probabilities of PPO's old policy are these plus fixed noise, so they are the same in every layout
        loss = LOSSES[objective](result)
        results.append((loss.detach(), gradient(loss, model)))
    assert_close(*results)


def scores_of(model: Any, layout: str) -> Tensor:
    if layout.startswith("padded"):
        rows = hidden_rows(model, layout.rpartition(" ")[2])
        return torch.stack([model.score(row[-1])[0] for row in rows])
    trees = PREFIXES if layout == "shared prefixes" else SEPARATE_ROWS
    batches = [trees] if layout != "one row per batch" else [[prefix] for prefix in trees]
    return torch.cat([scores(model, pack(chunk))[:, 0] for chunk in batches])


@pytest.mark.parametrize("objective", ["bradley_terry", "kway"])
@pytest.mark.parametrize(
    "layout",
    ["shared prefixes", "packed, nothing shared", "one row per batch", "padded on the left", "padded on the right"],
)
def test_reward_loss_and_gradient_do_not_depend_on_layout(layout: str, objective: str, folder: Path) -> None:
    model = new_reward(folder, seed=3).model
    results = []
    for name in (layout, "padded on the right"):
        result = scores_of(model, name)
        if objective == "kway":
            tiers = torch.tensor([[0, 1, 1], [2, 1, 0], [0, 1, 2]])
            mask = torch.ones(3, 3, dtype=torch.bool)
            loss = KWay()(RankedScores(result.view(3, 3), tiers, mask, torch.ones(3))).value
        else:
            sides = result[torch.tensor([0, 3, 8])], result[torch.tensor([1, 5, 6])]
            ones = torch.ones(3)
            loss = BradleyTerry()(ScorePairs(*sides, ones, 0.3 * ones, ones)).value
        results.append((loss.detach(), gradient(loss, model)))
    assert_close(*results)


def test_values_are_aligned_with_tokens_in_every_layout(folder: Path) -> None:
    model = new_reward(folder, seed=4).model
    with torch.no_grad():
        shared = values(model, pack(PREFIXES))
        alone = torch.cat([values(model, pack([prefix])) for prefix in SEPARATE_ROWS])
        for side in ("left", "right"):
            rows = zip(ROWS, hidden_rows(model, side), strict=True)
            by_hand = torch.cat([model.score(h[len(p) - 1 : -1])[:, 0] for (p, _), h in rows])  # type: ignore[operator]
            assert torch.allclose(by_hand, shared, atol=1e-5)
    assert torch.allclose(alone, shared, atol=1e-5)


def test_one_update_per_rollout_needs_one_forward_pass(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "Where is the {w}?"}}\n' for w in ("duck", "hat")))
    prompts = ["--prompts", str(tmp_path / "prompts.jsonl"), "--n-held-out", "1"]
    short = ["--n", "4", "--max-new-tokens", "8", "--temperature", "1", "--dtype", "float32", "--device", "cpu"]
    flags = ["--steps", "3", "--batch-size", "2", "--lr", "1e-3"]
    flags += ["--rewards", "conciseness_rubric", "--missing-eos-score", "off"]
    reads: dict[str, int] = {}
    for name in ("once", "twice"):
        monkeypatch.setattr(GRPO, "needs_logprobs", name == "twice")
        passes: list[bool] = []
        for module in (trainer, models):
            monkeypatch.setattr(
                module, "logprobs", lambda *a, calls=passes, **k: (calls.append(True), logprobs(*a, **k))[1]
            )
        run = ["--run", str(tmp_path / name), "--model", str(folder), *short]
        assert main(["generate", *run, *prompts]) == 0
        assert main(["grpo", *run, *flags]) == 0
        reads[name] = len(passes)
    first, second = (load_file(tmp_path / name / "grpo" / "model.safetensors") for name in reads)
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    assert reads["twice"] * 2 == reads["once"] * 3  # twice: policy, reference, policy; once: reference, policy
    lines = [[x for x in metrics_of(tmp_path / n) if x["stage"] == "grpo"] for n in reads]
    assert all(a | {"seconds": 0} == b | {"seconds": 0} for a, b in zip(*lines, strict=True))
    assert lines[0][-1]["kl"] != 0 and lines[0][-1]["entropy"] > 0
