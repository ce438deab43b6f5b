"""Results must not depend on the layout: packed, shared, padded, cached, saved and loaded."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import tiny
import torch
import torch.nn.attention.varlen
from huggingface_hub import constants, get_session
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from assent.batch import Loss
from assent.errors import AssentError
from assent.functional import onednn
from assent.generation.local import sample_completions
from assent.generation.sampling import Sample, Sampling
from assent.models import attention, linear
from assent.models.attention import Scoring
from assent.models.checkpoints import save
from assent.models.forward import decode_hidden_states, logprobs, packed_hidden_states, scores, values
from assent.models.kv_cache import KVCache
from assent.models.load import LoadedModel, load_policy, load_reward, new_reward
from assent.models.packing import SharedPrefix, pack
from assent.objectives.cross_entropy import CrossEntropy
from assent.records import Completion, Prompt
from assent.training.microbatch import evaluate_loss, map_batches, optimizer_step
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.supervised import TokenizedExample, token_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def policy(folder: Path) -> LoadedModel:
    return load_policy(folder)


def random_prefixes(count: int, branches: int, seed: int = 0) -> list[SharedPrefix]:
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, 300) for _ in range(rng.randint(low, high)))

    return [SharedPrefix(ids(1, 9), tuple(ids(1, 7) for _ in range(branches))) for _ in range(count)]


def plain_logprobs(model: torch.nn.Module, tree: SharedPrefix, branch: int) -> torch.Tensor:
    """Return the log-probabilities by transformers alone: one row, no packing, no sharing."""
    ids = torch.tensor([[*tree.prefix, *tree.completions[branch]]])
    logits = model(input_ids=ids).logits[0].float().log_softmax(-1)
    prompt_len = len(tree.prefix)
    actual: torch.Tensor = logits[prompt_len - 1 : -1].gather(-1, ids[0, prompt_len:, None])[:, 0]
    return actual


def take_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the gradients of the weights, and clear them."""
    actual = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    return actual


def test_packed_logprobs_equal_plain_transformers(policy: LoadedModel) -> None:
    prefixes = random_prefixes(5, 3)
    expected = torch.cat([plain_logprobs(policy.model, tree, i) for tree in prefixes for i in range(3)])
    assert torch.allclose(logprobs(policy.model, pack(prefixes)).logprobs, expected, atol=1e-5)


def test_packed_gradients_equal_plain_transformers(policy: LoadedModel) -> None:
    prefixes = random_prefixes(3, 2, seed=1)
    logprobs(policy.model, pack(prefixes)).logprobs.sum().backward()
    actual_gradients = take_gradients(policy.model)
    torch.cat([plain_logprobs(policy.model, tree, i) for tree in prefixes for i in range(2)]).sum().backward()
    for a, b in zip(actual_gradients, take_gradients(policy.model), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_optimizer_step_does_not_depend_on_batch_size(folder: Path) -> None:
    prefixes = random_prefixes(6, 2, seed=7)
    moved = []
    texts = [
        TokenizedExample(tree, weight) for tree, weight in zip(prefixes, (1.0, 2.0, 0.0, 1.0, 0.5, 1.0), strict=True)
    ]
    for max_tokens in (10_000, 30):
        trainee = ReplicatedState(load_policy(folder), Training(lr=1e-3, max_tokens_per_batch=max_tokens), steps=2)

        def loss(part: list[int], trainee: ReplicatedState = trainee) -> Loss:
            return CrossEntropy()(token_batch(trainee.model, texts, part))

        moved.append((optimizer_step(trainee, 0, prefixes, loss), evaluate_loss("it", prefixes, max_tokens, loss)))
    (first, after_one), (many, after_many) = moved
    assert many == pytest.approx(first, rel=1e-4)
    assert after_many == pytest.approx(after_one, rel=1e-4)
    assert after_one["held_out_loss"] < first["loss"]


def test_map_batches_returns_values_in_input_order() -> None:
    prefixes = [
        SharedPrefix((1,), tuple((2,) * (length + k) for k in range(1 + length % 3))) for length in (3, 9, 1, 4)
    ]
    actual = map_batches(
        prefixes, 12, lambda batch: torch.tensor([float(len(b)) for tree in batch for b in tree.completions])
    )
    assert [row.tolist() for row in actual] == [[len(branch) for branch in tree.completions] for tree in prefixes]


def test_logprobs_do_not_depend_on_packed_neighbours(policy: LoadedModel) -> None:
    prefixes = random_prefixes(6, 2, seed=2)
    with torch.no_grad():
        together = logprobs(policy.model, pack(prefixes)).logprobs
        alone = torch.cat([logprobs(policy.model, pack([tree])).logprobs for tree in prefixes])
    assert torch.allclose(together, alone, atol=1e-5)


def test_logprobs_entropy_covers_the_whole_distribution(policy: LoadedModel) -> None:
    tree = random_prefixes(1, 1, seed=3)[0]
    ids = torch.tensor([[*tree.prefix, *tree.completions[0]]])
    with torch.no_grad():
        logits = (policy.model(input_ids=ids).logits[0] / 0.7).log_softmax(-1)[len(tree.prefix) - 1 : -1]
        actual = logprobs(policy.model, pack([tree]), temperature=0.7, entropy=True).entropy
    assert actual is not None
    assert torch.allclose(actual, -(logits.exp() * logits).sum(-1), atol=1e-4)


def test_sampler_logprobs_equal_the_trainers(policy: LoadedModel) -> None:
    tokenizer = policy.chat_tokenizer
    prompts = [
        tokenizer.encode_prompt(Prompt.ask(text)) for text in ("Tom had a ball.", "Where is the very old king?", "Hi")
    ]
    samples = sample_completions(policy.model, prompts, 3, Sampling(0.7, 12), tokenizer.stop_ids, 3)
    prefixes = [SharedPrefix(prompts[s.prompt_index], (s.token_ids,)) for s in samples]
    with torch.no_grad():
        again = logprobs(policy.model, pack(prefixes), temperature=0.7).logprobs
    assert torch.allclose(torch.tensor([x for s in samples for x in s.logprobs]), again, atol=1e-4)


def test_finished_rows_leave_the_kv_cache(policy: LoadedModel) -> None:
    tokenizer = policy.chat_tokenizer
    prompts = [tokenizer.encode_prompt(Prompt.ask("Tom had a ball."))]
    many_ends = frozenset(range(200))  # about half of the vocabulary ends a completion, so rows leave at each step
    samples = sample_completions(policy.model, prompts, 32, Sampling(1.0, 10), many_ends, 0)
    assert len({len(s.token_ids) for s in samples}) > 2
    prefixes = [SharedPrefix(prompts[0], tuple(s.token_ids for s in samples))]
    with torch.no_grad():
        again = logprobs(policy.model, pack(prefixes)).logprobs
    assert torch.allclose(torch.tensor([x for s in samples for x in s.logprobs]), again, atol=1e-4)
    assert all(s.finished == (s.token_ids[-1] in many_ends) for s in samples)
    assert not any(token in many_ends for s in samples for token in s.token_ids[:-1])


@pytest.mark.parametrize("name", ["qwen2", "gpt_oss"])
def test_patched_decode_linears_sample_the_same_tokens(
    name: str, policy: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test with and without biases, with both functions, on any processor."""
    model: Any = load_policy(make_family(tmp_path / name, name, FAMILIES[name], policy)).model
    prompts = [tree.prefix for tree in random_prefixes(4, 1, seed=5)]

    def draw() -> list[Sample]:
        return sample_completions(model, prompts, 3, Sampling(0.7, 9), frozenset(range(60)), 3)

    monkeypatch.setattr(onednn, "is_slow_cpu", lambda: False)
    expected = draw()
    by_onednn = Mock(wraps=onednn.onednn_linear)  # both only count
    by_transposing = Mock(wraps=onednn.transposed_linear)
    monkeypatch.setattr(linear, "onednn_linear", by_onednn)
    monkeypatch.setattr(linear, "transposed_linear", by_transposing)
    monkeypatch.setattr(onednn, "is_slow_cpu", lambda: True)
    monkeypatch.setattr(linear, "MIN_HEAD_OUTPUTS", len(policy.tokenizer))
    actual = draw()
    assert [first.token_ids for first in actual] == [first.token_ids for first in expected]
    for a, b in zip(actual, expected, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert 0 < by_onednn.call_count < 9
    assert by_transposing.call_count >= 16 * by_onednn.call_count

    def stop(rows: list[int], tokens: list[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_completions(model, prompts, 3, Sampling(0.7, 9), frozenset(), 0, stop)
    assert not any("forward" in vars(module) for module in model.modules())


def test_onednn_head_gives_the_same_gradients(policy: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pack(random_prefixes(4, 2))
    expected = None
    suits = Mock(wraps=onednn.prefers_onednn)  # it only counts
    monkeypatch.setattr(onednn, "prefers_onednn", suits)
    for slow in (False, True):
        monkeypatch.setattr(onednn, "is_slow_cpu", lambda slow=slow: slow)
        actual = logprobs(policy.model, batch).logprobs
        actual.sum().backward()
        assert suits.called
        suits.reset_mock()
        results = [actual.detach(), *take_gradients(policy.model)]
        expected = expected or results
        for a, b in zip(results, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


@torch.no_grad()
def test_kv_cache_stores_a_prompt_once_for_its_rows(policy: LoadedModel) -> None:
    body: Any = policy.model.base_model
    prompts = [(5, 6, 7, 8), (9, 10), (11, 12, 13)]
    cache = KVCache.empty([4, 2, 3], 2, 5, torch.device("cpu"))
    packed_hidden_states(body, pack([SharedPrefix(ids, ((),)) for ids in prompts]), cache)
    completions = [(20, 30), (21, 31), (22, 32), (23, 33), (24, 34), (25, 35)]
    decode_hidden_states(body, torch.tensor([first[0] for first in completions]), cache)
    cache.advance()
    heads = cache.prompt_layers[0][0].shape[1]
    assert [part.shape[:3] for part in cache.prompt_layers[0]] == [(3, heads, 4)] * 2
    assert [part.shape[:3] for part in cache.row_layers[0]] == [(6, heads, 5)] * 2
    left = [1, 4, 5]
    cache.select_rows(torch.tensor(left))
    assert [part.shape[:3] for part in cache.prompt_layers[-1]] == [(2, heads, 4)] * 2
    actual = decode_hidden_states(body, torch.tensor([completions[row][1] for row in left]), cache)
    whole = pack([SharedPrefix(prompts[row // 2], (completions[row],)) for row in left])
    assert torch.allclose(actual, packed_hidden_states(body, whole)[whole.last_index], atol=1e-5)


def test_samples_follow_the_models_distribution(policy: LoadedModel) -> None:
    prompt = policy.chat_tokenizer.encode_prompt(Prompt.ask("Hi"))
    with torch.no_grad():
        expected = (policy.model(input_ids=torch.tensor([prompt])).logits[0, -1] / 1.3).softmax(-1)
    n = 8000
    samples = sample_completions(policy.model, [prompt], n, Sampling(1.3, 1), frozenset(), 5)
    counts = torch.zeros(len(expected)).index_add(0, torch.tensor([s.token_ids[0] for s in samples]), torch.ones(n))
    often = expected > 5 / n  # a chi-square test needs at least five expected in a cell
    gap = (counts - n * expected)[often].square() / (n * expected[often])
    cells = int(often.sum())
    assert cells > 50
    assert float(gap.sum()) < cells + 5 * (2 * cells) ** 0.5


def test_temperature_zero_samples_the_likeliest_token(policy: LoadedModel) -> None:
    prompt = policy.chat_tokenizer.encode_prompt(Prompt.ask("Hi"))
    samples = sample_completions(policy.model, [prompt], 1, Sampling(0.0, 5), frozenset(), 0)[0].token_ids
    ids = list(prompt)
    with torch.no_grad():
        for token in samples:
            assert int(policy.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_reward_scores_equal_plain_transformers(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    save(new_reward(folder, seed=1), tmp_path / "reward")
    reward = load_reward(tmp_path / "reward")
    chat_tokenizer = reward.chat_tokenizer
    prompt = Prompt.ask("Where is the cat?")
    texts = ["In the garden.", "I do not know where she went with the dog.", "No."]
    completions = [Completion(text) for text in texts]
    rows = [list(sum(chat_tokenizer.encode(prompt, completion), ())) for completion in completions]
    completion_ids = tuple(chat_tokenizer.encode_completion(prompt, completion) for completion in completions)
    with torch.no_grad():
        actual = scores(reward.model, pack([SharedPrefix(chat_tokenizer.encode_prompt(prompt), completion_ids)]))
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
        padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
        expected = theirs(**padded).logits
    assert theirs.config.num_labels == 1
    assert torch.allclose(actual, expected, atol=1e-4)
    assert len(set(actual[:, 0].tolist())) == 3


def test_values_do_not_see_the_next_token(folder: Path) -> None:
    critic = new_reward(folder, seed=1).model
    with torch.no_grad():
        first = values(critic, pack([SharedPrefix((5, 6), ((7, 8, 9),))]))
        second = values(critic, pack([SharedPrefix((5, 6), ((7, 8, 100),))]))
    assert torch.equal(first, second)


SMALL_CONFIG = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip
GPT_CONFIG = {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": SMALL_CONFIG,
    "qwen3": SMALL_CONFIG,
    "mistral": SMALL_CONFIG | {"sliding_window": 4},
    "gemma2": SMALL_CONFIG | {"sliding_window": 4, "attn_logit_softcapping": 2.0},
    "gemma3_text": SMALL_CONFIG | {"sliding_window": 4},
    "gpt_oss": SMALL_CONFIG
    | {"sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_scaling": None},
    "gpt2": GPT_CONFIG,
    "gpt_neox": SMALL_CONFIG,
}
UNPACKED_FAMILIES: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 300, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mamba": {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
    "gptj": GPT_CONFIG | {"rotary_dim": 8},
    "qwen3_next": SMALL_CONFIG
    | {
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    },
}  # fmt: skip
"""Families that do not support packing: ALiBi, a state space, special attention, linear attention."""


def make_family(folder: Path, name: str, settings: dict[str, Any], like: LoadedModel) -> Path:
    """Write a model of another family with weights large enough to make an error visible."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(name, **settings | {"vocab_size": len(like.tokenizer)} | ends)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    save(LoadedModel(model, like.chat_tokenizer), folder)
    return folder


@pytest.mark.parametrize("name", [*FAMILIES, *UNPACKED_FAMILIES])
def test_packed_logprobs_of_other_families(
    name: str, policy: LoadedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cover softcaps, sinks, windows, learned positions, and families that do not support packing."""
    from transformers import AutoModelForCausalLM

    path = make_family(tmp_path / name, name, {**FAMILIES, **UNPACKED_FAMILIES}[name], policy)
    model = load_policy(path).model
    warning = capfd.readouterr().err
    assert ("does not support packing" in warning) == (name in UNPACKED_FAMILIES)
    rows = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    prefixes = random_prefixes(4, 2, seed=4)
    expected = torch.cat([plain_logprobs(rows, tree, i) for tree in prefixes for i in range(2)])
    actual = logprobs(model, pack(prefixes)).logprobs
    assert torch.allclose(actual, expected, atol=2e-4)
    actual.sum().backward()
    actual_gradients = take_gradients(model)
    expected.sum().backward()
    for a, b in zip(actual_gradients, take_gradients(rows), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2", "gpt_oss", *UNPACKED_FAMILIES])
def test_sampler_logprobs_of_other_families(name: str, policy: LoadedModel, tmp_path: Path) -> None:
    model = load_policy(make_family(tmp_path / name, name, {**FAMILIES, **UNPACKED_FAMILIES}[name], policy)).model
    model.generation_config.repetition_penalty = 5.0  # recommended settings do not change the samples
    prompts = [t.prefix for t in random_prefixes(4, 1, seed=5)]
    ends = frozenset(range(60))
    streamed: dict[int, list[int]] = {}

    def on_token(rows: list[int], tokens: list[int]) -> None:
        for row, token in zip(rows, tokens, strict=True):
            streamed.setdefault(row, []).append(token)

    samples = sample_completions(model, prompts, 3, Sampling(0.7, 9), ends, 3, on_token)
    assert [s.prompt_index for s in samples] == [i for i in range(4) for _ in range(3)]
    assert [list(s.token_ids) for s in samples] == [streamed[row] for row in range(12)]
    assert all(s.finished == (s.token_ids[-1] in ends) for s in samples)
    assert not any(token in ends for s in samples for token in s.token_ids[:-1])
    assert len({len(s.token_ids) for s in samples}) > 1
    with torch.no_grad():
        again = logprobs(
            model, pack([SharedPrefix(prompts[s.prompt_index], (s.token_ids,)) for s in samples]), temperature=0.7
        ).logprobs
    assert torch.allclose(torch.tensor([x for s in samples for x in s.logprobs]), again, atol=2e-4)
    assert model.generation_config.repetition_penalty == 5.0


def test_load_policy_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="holds no model"):
        load_policy(tmp_path)
    with pytest.raises(AssentError, match="no model folder at"):
        load_policy(tmp_path / "missing")


def test_load_policy_requests_an_unreachable_hub_once(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = "http://127.0.0.1:9"  # no server listens on that port
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    batch: list[Any] = []
    monkeypatch.setitem(get_session().event_hooks, "request", [batch.append])
    with pytest.raises(AssentError, match=r"^cannot get the model 'no/such': .* hub cannot be reached .*$"):
        load_policy("no/such")
    assert sum("/no/such/" in str(request.url) for request in batch) == 1  # transformers alone would repeat the request


def reference_varlen_attn(
    q_rows: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Compute torch's `varlen_attn` as documented, row by row: causal from the lower right, the last `window` keys."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and window_size[1] == 0
    assert enable_gqa is (q_rows.shape[1] != key.shape[1])
    actual = []
    for i in range(len(cu_seq_q) - 1):
        q, k, v = (
            part[int(ends[i]) : int(ends[i + 1])].transpose(0, 1)
            for part, ends in ((q_rows, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k))
        )
        assert q.shape[1] <= max_q and k.shape[1] <= max_k
        k, v = (part.repeat_interleave(len(q) // len(part), 0) for part in (k, v))
        behind = torch.arange(k.shape[1])[-q.shape[1] :, None] - torch.arange(k.shape[1])
        sees = (behind >= 0) & ((behind <= window_size[0]) if window_size[0] >= 0 else True)
        scores = (q @ k.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)).masked_fill(~sees, -torch.inf)
        actual.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(actual)


@pytest.mark.parametrize("window", [None, 4])
def test_varlen_attention_equals_packed_attention(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    packed = pack(random_prefixes(5, 3))
    size = packed.input_ids.shape[1]
    shapes = (6, 2, 2)

    def inputs() -> list[Tensor]:
        rngs = [torch.Generator().manual_seed(heads + i) for i, heads in enumerate(shapes)]
        sizes = [(1, heads, size, 8) for heads in shapes]
        return [torch.randn(shape, generator=rng).requires_grad_() for shape, rng in zip(sizes, rngs, strict=True)]

    of_blocks, of_kernel = inputs(), inputs()
    layer = torch.nn.Module()
    blocks, _ = attention.attention_forward(
        layer, of_blocks[0], of_blocks[1], of_blocks[2], None, 0.3, packed, sliding_window=window
    )
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", reference_varlen_attn)
    monkeypatch.setattr(attention, "has_varlen_kernel", lambda q: True)
    kernel, _ = attention.attention_forward(
        layer, of_kernel[0], of_kernel[1], of_kernel[2], None, 0.3, packed, sliding_window=window
    )
    assert torch.allclose(blocks, kernel, atol=1e-5)
    for results, parts in ((blocks, of_blocks), (kernel, of_kernel)):
        results.square().sum().backward()
        assert all(part.grad is not None for part in parts)
    for first, second in zip(of_blocks, of_kernel, strict=True):
        assert first.grad is not None and second.grad is not None and torch.allclose(first.grad, second.grad, atol=1e-4)


def test_varlen_attention_accepts_its_inputs_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check shapes and dtypes only, as torch itself does without a GPU."""
    packed = pack(random_prefixes(5, 3))
    assert packed.cu_seqlens_q.dtype == packed.cu_seqlens_k.dtype == torch.int32
    assert len(packed.cu_seqlens_q) == len(packed.cu_seqlens_k) == len(packed.q_lens) + 1
    assert packed.cu_seqlens_q[-1] == packed.input_ids.shape[1] and packed.cu_seqlens_k[-1] == len(packed.kv_index)
    kinds = {
        name: (getattr(packed, name).shape, getattr(packed, name).dtype)
        for name in ("kv_index", "cu_seqlens_q", "cu_seqlens_k")
    }
    with FakeTensorMode():
        on_device: dict[str, Any] = {
            name: torch.empty(shape, dtype=dtype, device="cuda") for name, (shape, dtype) in kinds.items()
        }
        q, k, v = (
            torch.empty(packed.input_ids.shape[1], h, 64, dtype=torch.bfloat16, device="cuda") for h in (6, 2, 2)
        )
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert not attention.has_varlen_kernel(q)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert attention.has_varlen_kernel(q) and not attention.has_varlen_kernel(q.float())
        results = attention.varlen_attention(q, k, v, replace(packed, **on_device), Scoring(window=16))
    assert results.shape == q.shape and results.dtype == q.dtype
