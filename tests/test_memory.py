"""Memory: estimated before training, saved if scarce, refused if insufficient; results stay exact."""

import copy
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_models import UNPACKED_FAMILIES, make_family, random_prefixes, take_gradients

from assent.cli import main
from assent.errors import AssentError
from assent.models import memory
from assent.models.forward import hidden_states, logprobs
from assent.models.load import LoadedModel, load_policy, new_reward
from assent.models.packing import SharedPrefix, pack
from assent.training import memory_plan
from assent.training.batching import max_batch_tokens, plan_batches
from assent.training.loop import train
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training

GB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def policy(folder: Path) -> LoadedModel:
    return load_policy(folder)


def test_activation_bytes_grow_with_tokens_only(policy: LoadedModel) -> None:
    bytes_per_token = memory.activation_bytes(policy.model)
    storages: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in policy.model.parameters()}
    packed = pack(random_prefixes(12, 3, seed=2))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = hidden_states(policy.model, packed)
    truth = sum(size for place, size in storages.items() if place not in weights)
    assert bytes_per_token * len(output) == pytest.approx(truth, rel=0.2)


def test_activation_bytes_of_padded_rows_include_logits(tmp_path: Path, policy: LoadedModel) -> None:
    settings = UNPACKED_FAMILIES["mamba"]
    folder = make_family(tmp_path / "mamba", "mamba", settings, policy)
    padded = load_policy(folder).model
    reward = new_reward(folder, 0).model
    logits = 4 * padded.config.vocab_size
    assert logits <= memory.activation_bytes(padded) - memory.activation_bytes(reward) <= 4 * logits


def test_checkpointing_saves_activations_and_is_exact(policy: LoadedModel) -> None:
    packed = pack(random_prefixes(5, 3))
    once = memory.activation_bytes(policy.model)
    first = logprobs(policy.model, packed).logprobs
    first.sum().backward()
    expected = take_gradients(policy.model)
    assert memory.enable_checkpointing(policy.model) == 2
    assert memory.activation_bytes(policy.model) < 0.5 * once
    again = logprobs(policy.model, packed).logprobs
    again.sum().backward()
    assert torch.equal(first, again)
    for actual, theirs in zip(take_gradients(policy.model), expected, strict=True):
        assert torch.equal(actual, theirs)


def test_memory_plan_counts_gradients_and_moments(policy: LoadedModel) -> None:
    before = memory.used(torch.device("cpu"))
    trainee = ReplicatedState(policy, Training(), 1)
    numbers = sum(weight.numel() for weight in policy.model.parameters())
    moments = [trainee._adam.state[row.master] for row in trainee._groups]
    tensors = [part for row in trainee._groups for part in (row.master, row.grad)]
    tensors += [state[name] for state in moments for name in ("exp_avg", "exp_avg_sq")]
    assert sum(part.nbytes for part in tensors) == pytest.approx(16 * numbers, rel=0.01)  # all in float32, and complete
    few, many = (memory_plan.estimate({"policy": trainee}, tokens) for tokens in (1000, 21_000))
    assert many - few == pytest.approx(
        memory_plan.FRAGMENTATION * 20_000 * memory.activation_bytes(policy.model), rel=0.05, abs=2**20
    )
    assert few >= before


def test_release_frees_memory_between_stages() -> None:
    class Holder:
        def __init__(self) -> None:
            self.cycle = self
            self.tensors = [torch.ones(2**18) for _ in range(200)]  # 200 MB in a cycle, a megabyte each

    memory.release()  # otherwise freed memory would be reused for it
    before = memory.used(torch.device("cpu"))
    Holder()
    assert memory.used(torch.device("cpu")) - before > 150 * 2**20
    memory.release()
    assert memory.used(torch.device("cpu")) - before < 50 * 2**20


def test_finished_train_state_is_freed(policy: LoadedModel, tmp_path: Path) -> None:
    trainee = ReplicatedState(policy, Training(), 1)
    packed = pack(random_prefixes(3, 2))
    rows = [weakref.ref(row) for row in trainee._groups]

    def step(number: int) -> dict[str, float]:
        logprobs(policy.model, packed).logprobs.sum().backward()
        trainee.step(number)
        return {"loss": 0.0}

    train(tmp_path, "dpo", {"policy": trainee}, 1, step, random_prefixes(3, 2))
    trainee = step = None  # type: ignore[assignment]
    memory.release()
    assert all(row() is None for row in rows)  # although the model still exists


@pytest.mark.parametrize(("available", "message"), [(8 * GB, "needs about"), (0, "available: lower")])
def test_memory_plan_refuses_what_cannot_fit(
    available: int, message: str, policy: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(memory, "available", lambda device: available)
    begun: list[int] = []

    def step(number: int) -> dict[str, float]:
        begun.append(number)
        return {"loss": 0.0}

    trainee = ReplicatedState(policy, Training(), 1)
    if available:
        train(tmp_path, "dpo", {"policy": trainee}, 1, step, random_prefixes(3, 2))
        assert message in capsys.readouterr().err and begun == [0]
    else:
        with pytest.raises(AssentError, match=message):
            train(tmp_path, "dpo", {"policy": trainee}, 1, step, [SharedPrefix((1,), ((1,) * 10_000_000,))])
        assert not begun


def test_memory_plan_enables_checkpointing(
    policy: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainees = {"policy": ReplicatedState(policy, Training(), 1)}
    tokens = 2_000_000
    once, twice = (memory_plan.estimate(trainees, tokens, recompute=recompute) for recompute in (False, True))
    assert twice < 0.6 * once
    budget = once - memory.used(torch.device("cpu"))
    monkeypatch.setattr(memory, "available", lambda device: budget)
    memory_plan.check("dpo", trainees, tokens)
    assert "activation checkpointing" in capsys.readouterr().err
    assert any(getattr(block, "gradient_checkpointing", False) for block in policy.model.modules())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_reported_in_one_line(error: Exception, policy: LoadedModel, tmp_path: Path) -> None:
    def step(number: int) -> dict[str, float]:
        if number == 2:
            raise error
        return {"loss": 0.0}

    with pytest.raises(AssentError, match="ran out of memory at step 3 of 4: lower --max-tokens-per-batch") as message:
        train(
            tmp_path,
            "dpo",
            {"policy": ReplicatedState(policy, Training(save_every=1), 4)},
            4,
            step,
            random_prefixes(3, 2),
        )
    assert "after step 2" in str(message.value)


def test_other_errors_are_not_reported_as_out_of_memory(policy: LoadedModel, tmp_path: Path) -> None:
    def step(number: int) -> dict[str, float]:
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        train(tmp_path, "dpo", {"policy": ReplicatedState(policy, Training(), 1)}, 1, step, random_prefixes(3, 2))


@pytest.mark.parametrize("half_way", [False, True])
def test_train_state_is_not_saved_within_a_step(half_way: bool, policy: LoadedModel, tmp_path: Path) -> None:
    trainee = ReplicatedState(policy, Training(), 8)
    packed = pack(random_prefixes(3, 2))

    def move(number: int, factor: float) -> None:
        (logprobs(policy.model, packed).logprobs.sum() * factor).backward()
        trainee.step(number)

    def step(number: int) -> dict[str, float]:
        if number < 2 or half_way:
            move(number, 1.0)
        if number == 2:
            move(number, float("nan"))
        return {"loss": 0.0}

    state = tmp_path / "state" / "dpo" / "state.pt"
    with pytest.raises(AssentError, match="dpo stopped at step 3 of 4: the gradient is not finite") as message:
        train(tmp_path, "dpo", {"policy": trainee}, 4, step, random_prefixes(3, 2))
    assert ("after step 2 is saved" in str(message.value)) != half_way
    assert state.exists() != half_way


def test_train_state_of_another_version_is_refused(policy: LoadedModel, tmp_path: Path) -> None:
    state = {"masters": {}, "adam": torch.optim.AdamW([torch.zeros(1)]).state_dict()}
    (tmp_path / "state" / "dpo").mkdir(parents=True)
    torch.save(
        {"step": 1, "train_states": {"policy": state}, "extra_state": {}}, tmp_path / "state" / "dpo" / "state.pt"
    )
    with pytest.raises(AssentError, match="delete it to restart this stage"):
        train(
            tmp_path,
            "dpo",
            {"policy": ReplicatedState(policy, Training(), 2)},
            2,
            lambda number: {},
            random_prefixes(3, 2),
        )


def test_gradient_norm_is_exact_for_large_gradients() -> None:
    """Sum the norm weight by weight: a single float32 sum over many squares is wrong in the second digit."""
    trainee = ReplicatedState(_Wide.policy(), Training(max_grad_norm=1e9), 1)
    for weight in trainee.model.parameters():
        (weight * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    exact = sum(float(part.double().square().sum()) for row in trainee._groups for part in row.grad_views) ** 0.5
    assert trainee.step(0) == pytest.approx(exact, rel=1e-4)


class _Wide(torch.nn.Module):
    """A model of many weights with a million numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.some = torch.nn.ParameterList(torch.zeros(1000, 1000) for _ in range(24))

    @classmethod
    def policy(cls) -> LoadedModel:
        return LoadedModel(cls(), None)  # type: ignore[arg-type]


def test_max_batch_tokens_includes_a_longer_prefix() -> None:
    prefixes = random_prefixes(9, 2, seed=3)
    sizes = sorted((tree.num_tokens for tree in prefixes), reverse=True)
    assert max_batch_tokens(prefixes, 1, 4) == sizes[0]
    assert max_batch_tokens(prefixes, 10_000, 2) == sizes[0] + sizes[1]
    assert (
        max_batch_tokens(prefixes, 10_000, 100)
        == sum(sizes)
        == sum(prefixes[i].num_tokens for part in plan_batches(prefixes, 10_000) for i in part)
    )


def test_command_out_of_memory_keeps_its_results(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: -memory.used(device) + 2**20)
    data = tmp_path / "shown.jsonl"
    rows = [
        {"prompt": f"What has {name}?", "completion": f"{name} has a ball."} for name in ("Tom", "Sue", "Ben", "Ann")
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    run = ["sft", "--run", str(tmp_path / "run"), "--model", str(folder), "--device", "cpu", "--data", str(data)]
    assert main(run) == 2
    assert "lower --max-tokens-per-batch" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(run) == 0


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_accumulated_gradients_equal_autograd(tied: bool, dtype: torch.dtype, policy: LoadedModel) -> None:
    """Check the embedding and the head; torch gives the row of the padding token no gradient."""
    model = policy.model
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    table = model.get_input_embeddings()
    assert isinstance(table, torch.nn.Embedding)
    table.padding_idx = 7
    prefixes = [SharedPrefix((5, 7, 9), ((7, 2), (11, 12, 2))), *random_prefixes(4, 3)]
    plain: Any = copy.deepcopy(model)
    plain.to(dtype)
    logprobs(plain, pack(prefixes)).logprobs.square().sum().backward()
    trainee = ReplicatedState(policy, Training(), 1, dtype)
    for part in (prefixes[:2], prefixes[2:]):  # two batches, added up
        logprobs(model, pack(part)).logprobs.square().sum().backward()
    actual = dict(zip(trainee._groups[0].names, trainee._groups[0].grad_views, strict=True))
    names = ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"])
    for name in names:
        expected = plain.get_parameter(name).grad.float()
        gap = (actual[name] - expected).norm() / expected.norm()
        assert gap < (1e-5 if dtype == torch.float32 else 2e-2), name
        assert all(weight.grad is None for weight in model.parameters())
    if not tied:
        assert not actual[names[0]][7].any() and actual[names[0]][9].any()
