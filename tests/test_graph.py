"""Recorded decoding steps. Without a GPU, tracing replaces the recording: the step becomes a list of operations on
fixed tensors, which run again without Python in between, as the kernels of a CUDA graph do.
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
from test_models import FAMILIES, make_family, random_prefixes
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from assent.generation import cuda_graph
from assent.generation.cuda_graph import Decoder
from assent.generation.local import sample_completions
from assent.generation.sampling import Sample, Sampling
from assent.models.forward import logprobs
from assent.models.kv_cache import KVCache
from assent.models.load import LoadedModel, load_policy
from assent.models.packing import SharedPrefix, pack
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_policy(tiny.make(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make caches static, as on a GPU where no recording has failed."""
    monkeypatch.setattr(Decoder, "can_record", True)
    empty = KVCache.empty
    monkeypatch.setattr(KVCache, "empty", lambda *args: replace(empty(*args), is_static=True))


class Tracer:
    """Records like `cuda_graph.record_graph`, by tracing: the result has only operations and addresses."""

    def __init__(self) -> None:
        self.recorded: list[Tensor] = []
        self.launched = 0

    def __call__(self, step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        traced: Any = make_fx(lambda: step())()  # noqa: PLW0108 (it must not look like a method)
        self.recorded.append(step())

        def launch() -> Tensor:
            self.launched += 1
            recorded: Tensor = traced()
            return recorded

        return launch


def sample_all(model: Any) -> list[Sample]:
    prompts = [tree.prefix for tree in random_prefixes(4, 1, seed=5)]
    ends = frozenset(range(20))
    return sample_completions(model, prompts, 5, Sampling(0.7, 40), ends, 3)


def assert_same_samples(actual: list[Sample], expected: list[Sample]) -> None:
    assert [sample.token_ids for sample in actual] == [sample.token_ids for sample in expected]
    for a, b in zip(actual, expected, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_recorded_decoder_samples_the_same_tokens(
    name: str, policy: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model: Any = policy.model
    if name != "llama":
        model = load_policy(make_family(tmp_path / name, name, FAMILIES[name], policy)).model
    expected = sample_all(model)
    lengths = [len(sample.token_ids) for sample in expected]
    assert max(lengths) == 40
    assert sum(length < 20 for length in lengths) >= 10  # so that rows leave while a recording still saves time
    request.getfixturevalue("fixed")
    tracer = Tracer()
    monkeypatch.setattr(cuda_graph, "record_graph", tracer)
    assert_same_samples(sample_all(model), expected)
    rows = [len(recorded) for recorded in tracer.recorded]
    assert rows[0] == 20
    assert all(2 * after <= before for before, after in pairwise(rows))
    assert len(rows) > 1
    assert tracer.launched > 20


def test_decoder_warns_once_if_recording_fails(
    policy: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand a long story")

    expected = sample_all(policy.model)
    request.getfixturevalue("fixed")
    monkeypatch.setattr(cuda_graph, "record_graph", record)
    for _ in range(2):
        assert_same_samples(sample_all(policy.model), expected)
    output = capfd.readouterr().err
    assert output.count("note:") == 1
    assert "operation not permitted" in output
    assert "long story" not in output


def test_decoder_rejects_a_recording_with_other_logits(
    policy: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    expected = sample_all(policy.model)
    request.getfixturevalue("fixed")
    monkeypatch.setattr(cuda_graph, "record_graph", lambda step, device: lambda: step() * 1.1)
    assert_same_samples(sample_all(policy.model), expected)
    assert "logits differ by 0.1" in capfd.readouterr().err


def test_decoder_rejects_a_recording_with_a_constant(
    policy: LoadedModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        once = step()
        return lambda: once

    expected = sample_all(policy.model)
    request.getfixturevalue("fixed")
    monkeypatch.setattr(cuda_graph, "record_graph", record)
    assert_same_samples(sample_all(policy.model), expected)
    assert "logits differ by" in capfd.readouterr().err


def test_kv_cache_is_freed_after_sampling(policy: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[weakref.ref[KVCache]] = []
    empty = KVCache.empty

    def watched(*output: Any) -> KVCache:
        cache = empty(*output)
        recorded.append(weakref.ref(cache))
        return cache

    monkeypatch.setattr(KVCache, "empty", watched)
    gc.collect()
    gc.disable()
    try:
        sample_all(policy.model)
        assert recorded and recorded[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoder_records_a_step_on_cuda(dtype: torch.dtype, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model: Any = load_policy(tiny.make(tmp_path / "model"), dtype, torch.device("cuda")).model
    samples = sample_all(model)
    prompts = [tree.prefix for tree in random_prefixes(4, 1, seed=5)]
    assert "note:" not in capfd.readouterr().err
    with torch.no_grad():
        batch = pack([SharedPrefix(prompts[sample.prompt_index], (sample.token_ids,)) for sample in samples]).to("cuda")
        again = logprobs(model, batch, temperature=0.7).logprobs.cpu()
    near = 1e-3 if dtype == torch.float32 else 0.2
    assert torch.allclose(torch.tensor([x for sample in samples for x in sample.logprobs]), again, atol=near)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
def test_train_state_in_bfloat16_agrees_on_cuda_and_cpu(tmp_path: Path) -> None:
    path = tiny.make(tmp_path / "model")
    actual = []
    for device in ("cpu", "cuda"):
        policy = load_policy(path, device=torch.device(device))
        trainee = ReplicatedState(policy, Training(), 2, torch.bfloat16)
        packed = pack(random_prefixes(5, 3)).to(device)
        logprobs_of_batch = logprobs(policy.model, packed).logprobs
        logprobs_of_batch.sum().backward()
        actual.append((float(logprobs_of_batch.detach().sum()), trainee.step(0)))
    for cpu, gpu in zip(*actual, strict=True):
        assert gpu == pytest.approx(cpu, rel=0.02)
