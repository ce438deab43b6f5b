"""A step of decoding that is recorded once. What a CUDA graph needs of it is seen without a GPU: it is traced into a
list of operations on fixed tensors, and those are run again and again with no Python between, as a graph's kernels are.
"""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_models import FAMILIES, family, forest
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from assent.generation import cuda_graph
from assent.generation.cuda_graph import Decoder
from assent.generation.local import Sample, Sampling, sample
from assent.models.attention import Cache, SharedPrefix, pack
from assent.models.forward import logprobs
from assent.models.load import LoadedModel, load_policy
from assent.training.replicated import Training, TrainState


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_policy(tiny.make(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches as they are on a GPU, where nothing has failed yet."""
    monkeypatch.setattr(Decoder, "works", True)
    empty = Cache.empty
    monkeypatch.setattr(Cache, "empty", lambda *told: replace(empty(*told), fixed=True))


class Tracer:
    """Records as `cuda_graph.record` does, by tracing: what it returns knows operations and addresses, nothing else."""

    def __init__(self) -> None:
        self.recorded: list[Tensor] = []
        self.launched = 0

    def __call__(self, step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        traced: Any = make_fx(lambda: step())()  # noqa: PLW0108 (it must not look like a method)
        self.recorded.append(step())

        def launch() -> Tensor:
            self.launched += 1
            made: Tensor = traced()
            return made

        return launch


def draw(model: Any) -> list[Sample]:
    prompts, ends = [tree.prefix for tree in forest(4, 1, seed=5)], frozenset(range(20))
    return sample(model, prompts, 5, Sampling(0.7, 40), ends, torch.Generator().manual_seed(3))


def same(found: list[Sample], expected: list[Sample]) -> None:
    assert [one.ids for one in found] == [one.ids for one in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_a_recorded_step_draws_what_plain_steps_draw(
    name: str, language: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model: Any = language.model
    if name != "llama":
        model = load_policy(family(tmp_path / name, name, FAMILIES[name], language)).model
    expected = draw(model)
    lengths = [len(one.ids) for one in expected]
    assert max(lengths) == 40
    assert sum(length < 20 for length in lengths) >= 10  # so that rows leave while a recording still pays
    request.getfixturevalue("fixed")
    tracer = Tracer()
    monkeypatch.setattr(cuda_graph, "record", tracer)
    same(draw(model), expected)
    rows = [len(made) for made in tracer.recorded]
    assert rows[0] == 20
    assert all(2 * after <= before for before, after in pairwise(rows))
    assert len(rows) > 1
    assert tracer.launched > 20


def test_what_cannot_be_recorded_is_said_once_and_done_step_by_step(
    language: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand a long story")

    expected = draw(language.model)
    request.getfixturevalue("fixed")
    monkeypatch.setattr(cuda_graph, "record", record)
    for _ in range(2):
        same(draw(language.model), expected)
    told = capfd.readouterr().err
    assert told.count("note:") == 1
    assert "operation not permitted" in told
    assert "long story" not in told


def test_a_recording_that_comes_out_otherwise_is_not_relied_on(
    language: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    expected = draw(language.model)
    request.getfixturevalue("fixed")
    monkeypatch.setattr(cuda_graph, "record", lambda step, device: lambda: step() * 1.1)
    same(draw(language.model), expected)
    assert "comes out 0.1 apart" in capfd.readouterr().err


def test_a_recording_that_knows_a_number_of_its_first_step_is_found_out(
    language: LoadedModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        once = step()
        return lambda: once

    expected = draw(language.model)
    request.getfixturevalue("fixed")
    monkeypatch.setattr(cuda_graph, "record", record)
    same(draw(language.model), expected)
    assert "apart" in capfd.readouterr().err


def test_what_was_kept_while_drawing_goes_at_once(language: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Cache]] = []
    empty = Cache.empty

    def watched(*told: Any) -> Cache:
        cache = empty(*told)
        made.append(weakref.ref(cache))
        return cache

    monkeypatch.setattr(Cache, "empty", watched)
    gc.collect()
    gc.disable()
    try:
        draw(language.model)
        assert made and made[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_records_a_step_of_decoding(dtype: torch.dtype, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model: Any = load_policy(tiny.make(tmp_path / "model"), dtype, torch.device("cuda")).model
    drawn, prompts = draw(model), [tree.prefix for tree in forest(4, 1, seed=5)]
    assert "note:" not in capfd.readouterr().err
    with torch.no_grad():
        trees = pack([SharedPrefix(prompts[one.prompt], (one.ids,)) for one in drawn]).to("cuda")
        again = logprobs(model, trees, temperature=0.7).logprobs.cpu()
    near = 1e-3 if dtype == torch.float32 else 0.2
    assert torch.allclose(torch.tensor([x for one in drawn for x in one.logprobs]), again, atol=near)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
def test_cuda_trains_in_half_precision_as_a_cpu_does(tmp_path: Path) -> None:
    where, found = tiny.make(tmp_path / "model"), []
    for device in ("cpu", "cuda"):
        language = load_policy(where, device=torch.device(device))
        trainee = TrainState(language, Training(), 2, torch.bfloat16)
        packed = pack(forest(5, 3)).to(device)
        said = logprobs(language.model, packed).logprobs
        said.sum().backward()
        found.append((float(said.detach().sum()), trainee.step(0)))
    for cpu, gpu in zip(*found, strict=True):
        assert gpu == pytest.approx(cpu, rel=0.02)
