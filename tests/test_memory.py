"""Memory: reckoned before training, saved where it is scarce, refused where it cannot do, at no price in digits."""

import copy
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_models import STRANGERS, family, forest, gradients

from assent.cli import main
from assent.errors import AssentError
from assent.models import memory
from assent.models.attention import SharedPrefix, pack
from assent.models.forward import logprobs, states
from assent.models.load import LoadedModel, load_policy, new_reward
from assent.training import memory_plan
from assent.training.batching import largest, packs
from assent.training.loop import train
from assent.training.replicated import Training, TrainState

GB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def language(folder: Path) -> LoadedModel:
    return load_policy(folder)


def test_what_a_forward_pass_keeps_grows_with_its_tokens_and_with_nothing_else(language: LoadedModel) -> None:
    each = memory.activation_bytes(language.model)
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {weight.untyped_storage().data_ptr() for weight in language.model.parameters()}
    packed = pack(forest(12, 3, seed=2))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        made = states(language.model, packed)
    truth = sum(size for place, size in kept.items() if place not in own)
    assert each * len(made) == pytest.approx(truth, rel=0.2)


def test_where_rows_are_read_their_logits_are_counted(tmp_path: Path, language: LoadedModel) -> None:
    settings = STRANGERS["mamba"]
    folder = family(tmp_path / "mamba", "mamba", settings, language)
    policy, reward = load_policy(folder).model, new_reward(folder, 0).model
    logits = 4 * policy.config.vocab_size
    assert logits <= memory.activation_bytes(policy) - memory.activation_bytes(reward) <= 4 * logits


def test_blocks_that_are_gone_through_twice_keep_less_and_come_to_the_same(language: LoadedModel) -> None:
    packed, once = pack(forest(5, 3)), memory.activation_bytes(language.model)
    first = logprobs(language.model, packed).logprobs
    first.sum().backward()
    expected = gradients(language.model)
    assert memory.enable_checkpointing(language.model) == 2
    assert memory.activation_bytes(language.model) < 0.5 * once
    again = logprobs(language.model, packed).logprobs
    again.sum().backward()
    assert torch.equal(first, again)
    for ours, theirs in zip(gradients(language.model), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_the_estimate_holds_gradients_moments_and_what_a_pack_keeps(language: LoadedModel) -> None:
    before = memory.used(torch.device("cpu"))
    trainee = TrainState(language, Training(), 1)
    numbers = sum(weight.numel() for weight in language.model.parameters())
    moments = [trainee._adam.state[row.master] for row in trainee._rows]
    held = [part for row in trainee._rows for part in (row.master, row.gradient)]
    held += [state[name] for state in moments for name in ("exp_avg", "exp_avg_sq")]
    assert sum(part.nbytes for part in held) == pytest.approx(16 * numbers, rel=0.01)  # all of float32, all there
    few, many = (memory_plan.estimate({"policy": trainee}, tokens) for tokens in (1000, 21_000))
    assert many - few == pytest.approx(
        memory_plan.HOLES * 20_000 * memory.activation_bytes(language.model), rel=0.05, abs=2**20
    )
    assert few >= before


def test_what_a_stage_has_left_is_given_back_before_the_next() -> None:
    class Holder:
        def __init__(self) -> None:
            self.me, self.room = self, [torch.ones(2**18) for _ in range(200)]  # 200 MB in a cycle, a megabyte each

    memory.release()  # else what is kept free would have room for it
    before = memory.used(torch.device("cpu"))
    Holder()
    assert memory.used(torch.device("cpu")) - before > 150 * 2**20
    memory.release()
    assert memory.used(torch.device("cpu")) - before < 50 * 2**20


def test_a_trainee_that_is_done_is_freed(language: LoadedModel, tmp_path: Path) -> None:
    trainee, packed = TrainState(language, Training(), 1), pack(forest(3, 2))
    rows = [weakref.ref(row) for row in trainee._rows]

    def step(number: int) -> dict[str, float]:
        logprobs(language.model, packed).logprobs.sum().backward()
        trainee.step(number)
        return {"loss": 0.0}

    train(tmp_path, "dpo", {"policy": trainee}, 1, step, forest(3, 2))
    trainee = step = None  # type: ignore[assignment]
    memory.release()
    assert all(row() is None for row in rows)  # though the model lives on


@pytest.mark.parametrize(("there", "told"), [(8 * GB, "needs about"), (0, "are to be had")])
def test_what_cannot_fit_is_refused_before_it_begins(
    there: int, told: str, language: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(memory, "free", lambda device: there)
    begun: list[int] = []

    def step(number: int) -> dict[str, float]:
        begun.append(number)
        return {"loss": 0.0}

    trainee = TrainState(language, Training(), 1)
    if there:
        train(tmp_path, "dpo", {"policy": trainee}, 1, step, forest(3, 2))
        assert told in capsys.readouterr().err and begun == [0]
    else:
        with pytest.raises(AssentError, match=told):
            train(tmp_path, "dpo", {"policy": trainee}, 1, step, [SharedPrefix((1,), ((1,) * 10_000_000,))])
        assert not begun


def test_scarce_memory_is_saved_by_going_through_blocks_twice(
    language: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainees = {"policy": TrainState(language, Training(), 1)}
    tokens = 2_000_000
    once, twice = (memory_plan.estimate(trainees, tokens, twice=more) for more in (False, True))
    assert twice < 0.6 * once
    room = once - memory.used(torch.device("cpu"))
    monkeypatch.setattr(memory, "free", lambda device: room)
    memory_plan.check("dpo", trainees, tokens)
    assert "gone through twice" in capsys.readouterr().err
    assert any(getattr(block, "gradient_checkpointing", False) for block in language.model.modules())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_ends_in_one_line(error: Exception, language: LoadedModel, tmp_path: Path) -> None:
    def step(number: int) -> dict[str, float]:
        if number == 2:
            raise error
        return {"loss": 0.0}

    with pytest.raises(AssentError, match="ran out of memory at step 3 of 4: lower tokens_per_pack") as told:
        train(tmp_path, "dpo", {"policy": TrainState(language, Training(save_every=1), 4)}, 4, step, forest(3, 2))
    assert "after step 2" in str(told.value)


def test_other_failures_are_not_taken_for_it(language: LoadedModel, tmp_path: Path) -> None:
    def step(number: int) -> dict[str, float]:
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        train(tmp_path, "dpo", {"policy": TrainState(language, Training(), 1)}, 1, step, forest(3, 2))


@pytest.mark.parametrize("half_way", [False, True])
def test_a_state_in_the_middle_of_a_step_is_not_kept(half_way: bool, language: LoadedModel, tmp_path: Path) -> None:
    trainee, packed = TrainState(language, Training(), 8), pack(forest(3, 2))

    def move(number: int, factor: float) -> None:
        (logprobs(language.model, packed).logprobs.sum() * factor).backward()
        trainee.step(number)

    def step(number: int) -> dict[str, float]:
        if number < 2 or half_way:
            move(number, 1.0)
        if number == 2:
            move(number, float("nan"))
        return {"loss": 0.0}

    state = tmp_path / "state" / "dpo" / "state.pt"
    with pytest.raises(AssentError, match="dpo stopped at step 3 of 4: the gradient is not finite") as told:
        train(tmp_path, "dpo", {"policy": trainee}, 4, step, forest(3, 2))
    assert ("after step 2 is kept" in str(told.value)) != half_way
    assert state.exists() != half_way


def test_a_state_that_another_version_kept_is_refused_in_one_line(language: LoadedModel, tmp_path: Path) -> None:
    state = {"masters": {}, "adam": torch.optim.AdamW([torch.zeros(1)]).state_dict()}
    (tmp_path / "state" / "dpo").mkdir(parents=True)
    torch.save({"step": 1, "trainees": {"policy": state}, "memory": {}}, tmp_path / "state" / "dpo" / "state.pt")
    with pytest.raises(AssentError, match="delete it to start this stage again"):
        train(tmp_path, "dpo", {"policy": TrainState(language, Training(), 2)}, 2, lambda number: {}, forest(3, 2))


def test_the_norm_of_a_large_gradient_is_right_in_its_digits() -> None:
    """One sum over a hundred million squares, in float32, is wrong in the second digit: it is made weight by weight."""
    trainee = TrainState(_Wide.language(), Training(max_grad_norm=1e9), 1)
    for weight in trainee.model.parameters():
        (weight * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    exact = sum(float(part.double().square().sum()) for row in trainee._rows for part in row.gradients) ** 0.5
    assert trainee.step(0) == pytest.approx(exact, rel=1e-4)


class _Wide(torch.nn.Module):
    """Many weights of a million numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.some = torch.nn.ParameterList(torch.zeros(1000, 1000) for _ in range(24))

    @classmethod
    def language(cls) -> LoadedModel:
        return LoadedModel(cls(), None)  # type: ignore[arg-type]


def test_a_tree_larger_than_a_pack_is_reckoned_with() -> None:
    trees = forest(9, 2, seed=3)
    sizes = sorted((tree.size for tree in trees), reverse=True)
    assert largest(trees, 1, 4) == sizes[0]
    assert largest(trees, 10_000, 2) == sizes[0] + sizes[1]
    assert (
        largest(trees, 10_000, 100) == sum(sizes) == sum(trees[i].size for part in packs(trees, 10_000) for i in part)
    )


def test_a_command_that_cannot_fit_says_so_and_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: -memory.used(device) + 2**20)
    data = tmp_path / "shown.jsonl"
    rows = [{"prompt": f"What has {who}?", "completion": f"{who} has a ball."} for who in ("Tom", "Sue", "Ben", "Ann")]
    data.write_text("\n".join(map(json.dumps, rows)))
    run = ["sft", "--run", str(tmp_path / "run"), "--model", str(folder), "--device", "cpu", "--data", str(data)]
    assert main(run) == 2
    assert "lower tokens_per_pack" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(run) == 0


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_that_go_straight_to_their_sum_are_those_of_autograd(
    tied: bool, dtype: torch.dtype, language: LoadedModel
) -> None:
    """Of the words' table and of the head; a padding token is asked about too, of whose row torch learns nothing."""
    model = language.model
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    table = model.get_input_embeddings()
    assert isinstance(table, torch.nn.Embedding)
    table.padding_idx = 7
    trees = [SharedPrefix((5, 7, 9), ((7, 2), (11, 12, 2))), *forest(4, 3)]
    plain: Any = copy.deepcopy(model)
    plain.to(dtype)
    logprobs(plain, pack(trees)).logprobs.square().sum().backward()
    trainee = TrainState(language, Training(), 1, dtype)
    for part in (trees[:2], trees[2:]):  # two packs, added up
        logprobs(model, pack(part)).logprobs.square().sum().backward()
    ours = dict(zip(trainee._rows[0].names, trainee._rows[0].gradients, strict=True))
    names = ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"])
    for name in names:
        expected = plain.get_parameter(name).grad.float()
        gap = (ours[name] - expected).norm() / expected.norm()
        assert gap < (1e-5 if dtype == torch.float32 else 2e-2), name
        assert all(weight.grad is None for weight in model.parameters())
    if not tied:
        assert not ours[names[0]][7].any() and ours[names[0]][9].any()
