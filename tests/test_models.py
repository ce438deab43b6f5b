"""What the model says must not depend on how it is asked: packed, shared, padded, cached, saved and loaded."""

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
from assent.generation.local import Sample, Sampling, sample
from assent.models import attention
from assent.models.attention import Cache, SharedPrefix, pack
from assent.models.checkpoints import save
from assent.models.forward import logprobs, next_states, packed_states, scores, values
from assent.models.load import LoadedModel, load_policy, load_reward, new_reward
from assent.objectives.cross_entropy import CrossEntropy
from assent.records import Completion, Prompt
from assent.training.microbatch import evaluate_loss, map_batches, optimizer_step
from assent.training.replicated import Training, TrainState
from assent.training.supervised import TokenizedExample, tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def language(folder: Path) -> LoadedModel:
    return load_policy(folder)


def forest(count: int, branches: int, seed: int = 0) -> list[SharedPrefix]:
    dice = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(dice.randrange(2, 300) for _ in range(dice.randint(low, high)))

    return [SharedPrefix(ids(1, 9), tuple(ids(1, 7) for _ in range(branches))) for _ in range(count)]


def plain(model: torch.nn.Module, tree: SharedPrefix, branch: int) -> torch.Tensor:
    """The same log-probabilities by transformers alone: one row, no packing, no sharing."""
    ids = torch.tensor([[*tree.prefix, *tree.completions[branch]]])
    logits = model(input_ids=ids).logits[0].float().log_softmax(-1)
    start = len(tree.prefix)
    found: torch.Tensor = logits[start - 1 : -1].gather(-1, ids[0, start:, None])[:, 0]
    return found


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    """What the weights have gathered; afterwards they have nothing."""
    found = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    return found


def test_packed_shared_prefixes_give_the_log_probabilities_of_one_row_a_sequence(language: LoadedModel) -> None:
    trees = forest(5, 3)
    expected = torch.cat([plain(language.model, tree, i) for tree in trees for i in range(3)])
    assert torch.allclose(logprobs(language.model, pack(trees)).logprobs, expected, atol=1e-5)


def test_gradients_of_a_pack_are_those_of_its_rows(language: LoadedModel) -> None:
    trees = forest(3, 2, seed=1)
    logprobs(language.model, pack(trees)).logprobs.sum().backward()
    ours = gradients(language.model)
    torch.cat([plain(language.model, tree, i) for tree in trees for i in range(2)]).sum().backward()
    for a, b in zip(ours, gradients(language.model), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_step_in_many_packs_is_the_step_in_one(folder: Path) -> None:
    trees, moved = forest(6, 2, seed=7), []
    texts = [TokenizedExample(tree, weight) for tree, weight in zip(trees, (1.0, 2.0, 0.0, 1.0, 0.5, 1.0), strict=True)]
    for room in (10_000, 30):
        trainee = TrainState(load_policy(folder), Training(lr=1e-3, max_tokens_per_batch=room), steps=2)

        def loss(part: list[int], trainee: TrainState = trainee) -> Loss:
            return CrossEntropy()(tokens(trainee.model, texts, part))

        moved.append((optimizer_step(trainee, 0, trees, loss), evaluate_loss("it", trees, room, loss)))
    (one, after_one), (many, after_many) = moved
    assert many == pytest.approx(one, rel=1e-4)
    assert after_many == pytest.approx(after_one, rel=1e-4)
    assert after_one["held_out_loss"] < one["loss"]


def test_numbers_of_branches_come_back_in_the_order_of_the_trees() -> None:
    trees = [SharedPrefix((1,), tuple((2,) * (length + k) for k in range(1 + length % 3))) for length in (3, 9, 1, 4)]
    found = map_batches(
        trees, 12, lambda some: torch.tensor([float(len(b)) for tree in some for b in tree.completions])
    )
    assert [row.tolist() for row in found] == [[len(branch) for branch in tree.completions] for tree in trees]


def test_neighbours_in_a_pack_change_nothing(language: LoadedModel) -> None:
    trees = forest(6, 2, seed=2)
    with torch.no_grad():
        together = logprobs(language.model, pack(trees)).logprobs
        alone = torch.cat([logprobs(language.model, pack([tree])).logprobs for tree in trees])
    assert torch.allclose(together, alone, atol=1e-5)


def test_entropy_is_that_of_the_whole_distribution(language: LoadedModel) -> None:
    tree = forest(1, 1, seed=3)[0]
    ids = torch.tensor([[*tree.prefix, *tree.completions[0]]])
    with torch.no_grad():
        logits = (language.model(input_ids=ids).logits[0] / 0.7).log_softmax(-1)[len(tree.prefix) - 1 : -1]
        found = logprobs(language.model, pack([tree]), temperature=0.7, entropy=True).entropy
    assert found is not None
    assert torch.allclose(found, -(logits.exp() * logits).sum(-1), atol=1e-4)


def test_the_sampler_and_the_trainer_agree_on_every_log_probability(language: LoadedModel) -> None:
    codec = language.codec
    prompts = [codec.prompt(Prompt.ask(text)) for text in ("Tom had a ball.", "Where is the very old king?", "Hi")]
    drawn = sample(language.model, prompts, 3, Sampling(0.7, 12), codec.stop_ids, torch.Generator().manual_seed(3))
    trees = [SharedPrefix(prompts[s.prompt], (s.ids,)) for s in drawn]
    with torch.no_grad():
        again = logprobs(language.model, pack(trees), temperature=0.7).logprobs
    assert torch.allclose(torch.tensor([x for s in drawn for x in s.logprobs]), again, atol=1e-4)


def test_finished_rows_leave_without_disturbing_the_others(language: LoadedModel) -> None:
    codec = language.codec
    prompts = [codec.prompt(Prompt.ask("Tom had a ball."))]
    many_ends = frozenset(range(200))  # about half of the vocabulary ends a completion: rows leave at each step
    drawn = sample(language.model, prompts, 32, Sampling(1.0, 10), many_ends, torch.Generator().manual_seed(0))
    assert len({len(s.ids) for s in drawn}) > 2
    trees = [SharedPrefix(prompts[0], tuple(s.ids for s in drawn))]
    with torch.no_grad():
        again = logprobs(language.model, pack(trees)).logprobs
    assert torch.allclose(torch.tensor([x for s in drawn for x in s.logprobs]), again, atol=1e-4)
    assert all(s.finished == (s.ids[-1] in many_ends) for s in drawn)
    assert not any(token in many_ends for s in drawn for token in s.ids[:-1])


@pytest.mark.parametrize("name", ["qwen2", "gpt_oss"])
def test_the_ways_of_few_rows_draw_what_torchs_own_draws(
    name: str, language: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With biases and without, through both other ways, on whatever processor this is."""
    model: Any = load_policy(family(tmp_path / name, name, FAMILIES[name], language)).model
    prompts = [tree.prefix for tree in forest(4, 1, seed=5)]

    def draw() -> list[Sample]:
        return sample(model, prompts, 3, Sampling(0.7, 9), frozenset(range(60)), torch.Generator().manual_seed(3))

    monkeypatch.setattr(onednn, "slow", lambda: False)
    expected = draw()
    wide, turned = Mock(wraps=onednn.wide), Mock(wraps=onednn.turned)  # they only count
    monkeypatch.setattr(onednn, "wide", wide)
    monkeypatch.setattr(onednn, "turned", turned)
    monkeypatch.setattr(onednn, "slow", lambda: True)
    monkeypatch.setattr(onednn, "WIDE", len(language.tokenizer))
    found = draw()
    assert [one.ids for one in found] == [one.ids for one in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert 0 < wide.call_count < 9
    assert turned.call_count >= 16 * wide.call_count

    def stop(rows: list[int], tokens: list[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(model, prompts, 3, Sampling(0.7, 9), frozenset(), torch.Generator(), stop)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_heads_other_way_trains_alike(language: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, expected = pack(forest(4, 2)), None
    suits = Mock(wraps=onednn.suits)  # it only counts
    monkeypatch.setattr(onednn, "suits", suits)
    for slow in (False, True):
        monkeypatch.setattr(onednn, "slow", lambda slow=slow: slow)
        found = logprobs(language.model, asked).logprobs
        found.sum().backward()
        assert suits.called
        suits.reset_mock()
        made = [found.detach(), *gradients(language.model)]
        expected = expected or made
        for a, b in zip(made, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


@torch.no_grad()
def test_a_prompt_is_held_once_for_its_rows_and_goes_with_the_last(language: LoadedModel) -> None:
    body: Any = language.model.base_model
    prompts = [(5, 6, 7, 8), (9, 10), (11, 12, 13)]
    cache = Cache.empty([4, 2, 3], 2, 5, torch.device("cpu"))
    packed_states(body, pack([SharedPrefix(ids, ((),)) for ids in prompts]), cache)
    said = [(20, 30), (21, 31), (22, 32), (23, 33), (24, 34), (25, 35)]
    next_states(body, torch.tensor([one[0] for one in said]), cache)
    cache.advance()
    heads = cache.prompts[0][0].shape[1]
    assert [part.shape[:3] for part in cache.prompts[0]] == [(3, heads, 4)] * 2
    assert [part.shape[:3] for part in cache.rows[0]] == [(6, heads, 5)] * 2
    left = [1, 4, 5]
    cache.keep(torch.tensor(left))
    assert [part.shape[:3] for part in cache.prompts[-1]] == [(2, heads, 4)] * 2
    found = next_states(body, torch.tensor([said[row][1] for row in left]), cache)
    whole = pack([SharedPrefix(prompts[row // 2], (said[row],)) for row in left])
    assert torch.allclose(found, packed_states(body, whole)[whole.last], atol=1e-5)


def test_draws_follow_the_models_own_distribution(language: LoadedModel) -> None:
    prompt = language.codec.prompt(Prompt.ask("Hi"))
    with torch.no_grad():
        expected = (language.model(input_ids=torch.tensor([prompt])).logits[0, -1] / 1.3).softmax(-1)
    n = 8000
    drawn = sample(language.model, [prompt], n, Sampling(1.3, 1), frozenset(), torch.Generator().manual_seed(5))
    counts = torch.zeros(len(expected)).index_add(0, torch.tensor([s.ids[0] for s in drawn]), torch.ones(n))
    often = expected > 5 / n  # chi-square wants cells that are expected at least five times
    gap = (counts - n * expected)[often].square() / (n * expected[often])
    cells = int(often.sum())
    assert cells > 50
    assert float(gap.sum()) < cells + 5 * (2 * cells) ** 0.5


def test_temperature_zero_takes_the_likeliest_token(language: LoadedModel) -> None:
    prompt = language.codec.prompt(Prompt.ask("Hi"))
    drawn = sample(language.model, [prompt], 1, Sampling(0.0, 5), frozenset(), torch.Generator())[0].ids
    ids = list(prompt)
    with torch.no_grad():
        for token in drawn:
            assert int(language.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_a_reward_model_scores_alike_here_and_in_plain_transformers(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made = new_reward(folder, seed=1)
    save(made, tmp_path / "reward")
    ours = load_reward(tmp_path / "reward")
    codec = ours.codec
    prompt = Prompt.ask("Where is the cat?")
    texts = ["In the garden.", "I do not know where she went with the dog.", "No."]
    answers = [Completion(text) for text in texts]
    rows = [list(sum(codec.encode(prompt, answer), ())) for answer in answers]
    with torch.no_grad():
        found = scores(
            ours.model, pack([SharedPrefix(codec.prompt(prompt), tuple(codec.completion(prompt, a) for a in answers))])
        )
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
        padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
        expected = theirs(**padded).logits
    assert theirs.config.num_labels == 1
    assert torch.allclose(found, expected, atol=1e-4)
    assert len(set(found[:, 0].tolist())) == 3


def test_the_value_before_a_token_does_not_know_the_token(folder: Path) -> None:
    critic = new_reward(folder, seed=1).model
    with torch.no_grad():
        one = values(critic, pack([SharedPrefix((5, 6), ((7, 8, 9),))]))
        other = values(critic, pack([SharedPrefix((5, 6), ((7, 8, 100),))]))
    assert torch.equal(one, other)


SMALL = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip
GPT = {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": SMALL,
    "qwen3": SMALL,
    "mistral": SMALL | {"sliding_window": 4},
    "gemma2": SMALL | {"sliding_window": 4, "attn_logit_softcapping": 2.0},
    "gemma3_text": SMALL | {"sliding_window": 4},
    "gpt_oss": SMALL | {"sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_scaling": None},
    "gpt2": GPT,
    "gpt_neox": SMALL,
}
STRANGERS: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 300, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mamba": {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
    "gptj": GPT | {"rotary_dim": 8},
    "qwen3_next": SMALL
    | {
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    },
}  # fmt: skip
"""Families that cannot read packs: ALiBi, a state space, attention of their own, layers that mix as they go."""


def family(folder: Path, name: str, settings: dict[str, Any], like: LoadedModel) -> Path:
    """A model of another family in a folder, with weights large enough to make a mistake plain."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(name, **settings | {"vocab_size": len(like.tokenizer)} | ends)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    save(LoadedModel(model, like.codec), folder)
    return folder


@pytest.mark.parametrize("name", [*FAMILIES, *STRANGERS])
def test_other_families_say_of_packs_what_they_say_of_rows(
    name: str, language: LoadedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Capped scores, sinks, windows, learned positions, and models that no pack can be shown to."""
    from transformers import AutoModelForCausalLM

    where = family(tmp_path / name, name, {**FAMILIES, **STRANGERS}[name], language)
    model = load_policy(where).model
    told = capfd.readouterr().err
    assert ("cannot read packs" in told) == (name in STRANGERS)
    rows = AutoModelForCausalLM.from_pretrained(where, attn_implementation="eager").eval()
    trees = forest(4, 2, seed=4)
    expected = torch.cat([plain(rows, tree, i) for tree in trees for i in range(2)])
    found = logprobs(model, pack(trees)).logprobs
    assert torch.allclose(found, expected, atol=2e-4)
    found.sum().backward()
    ours = gradients(model)
    expected.sum().backward()
    for a, b in zip(ours, gradients(rows), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2", "gpt_oss", *STRANGERS])
def test_what_other_families_draw_is_what_they_find_likely(name: str, language: LoadedModel, tmp_path: Path) -> None:
    model = load_policy(family(tmp_path / name, name, {**FAMILIES, **STRANGERS}[name], language)).model
    model.generation_config.repetition_penalty = 5.0  # what a model recommends is not what it says
    prompts, ends = [t.prefix for t in forest(4, 1, seed=5)], frozenset(range(60))
    heard: dict[int, list[int]] = {}

    def told(rows: list[int], tokens: list[int]) -> None:
        for row, token in zip(rows, tokens, strict=True):
            heard.setdefault(row, []).append(token)

    drawn = sample(model, prompts, 3, Sampling(0.7, 9), ends, torch.Generator().manual_seed(3), told)
    assert [s.prompt for s in drawn] == [i for i in range(4) for _ in range(3)]
    assert [list(s.ids) for s in drawn] == [heard[row] for row in range(12)]
    assert all(s.finished == (s.ids[-1] in ends) for s in drawn)
    assert not any(token in ends for s in drawn for token in s.ids[:-1])
    assert len({len(s.ids) for s in drawn}) > 1
    with torch.no_grad():
        again = logprobs(
            model, pack([SharedPrefix(prompts[s.prompt], (s.ids,)) for s in drawn]), temperature=0.7
        ).logprobs
    assert torch.allclose(torch.tensor([x for s in drawn for x in s.logprobs]), again, atol=2e-4)
    assert model.generation_config.repetition_penalty == 5.0


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="holds no model"):
        load_policy(tmp_path)
    with pytest.raises(AssentError, match="no model folder at"):
        load_policy(tmp_path / "missing")


def test_a_hub_that_cannot_be_reached_is_asked_once_and_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"  # listens at that port
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked: list[Any] = []
    monkeypatch.setitem(get_session().event_hooks, "request", [asked.append])
    with pytest.raises(AssentError, match=r"^cannot get the model 'no/such': .* hub cannot be reached .*$"):
        load_policy("no/such")
    assert sum("/no/such/" in str(request.url) for request in asked) == 1  # transformers by itself: again and again


def by_the_letter(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """torch's `varlen_attn` as it is documented, row by row: causal from the lower right, the last `window` keys."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and window_size[1] == 0
    assert enable_gqa is (query.shape[1] != key.shape[1])
    found = []
    for i in range(len(cu_seq_q) - 1):
        q, k, v = (
            part[int(ends[i]) : int(ends[i + 1])].transpose(0, 1)
            for part, ends in ((query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k))
        )
        assert q.shape[1] <= max_q and k.shape[1] <= max_k
        k, v = (part.repeat_interleave(len(q) // len(part), 0) for part in (k, v))
        behind = torch.arange(k.shape[1])[-q.shape[1] :, None] - torch.arange(k.shape[1])
        sees = (behind >= 0) & ((behind <= window_size[0]) if window_size[0] >= 0 else True)
        scores = (q @ k.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)).masked_fill(~sees, -torch.inf)
        found.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("window", [None, 4])
def test_the_kernel_of_a_gpu_is_asked_for_what_the_blocks_compute(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    packed = pack(forest(5, 3))
    size = packed.tokens.shape[1]
    shapes = (6, 2, 2)
    ours, theirs = ([torch.randn(1, h, size, 8, generator=torch.Generator().manual_seed(h + i)).requires_grad_()
                     for i, h in enumerate(shapes)] for _ in range(2))  # fmt: skip
    layer = torch.nn.Module()
    blocks, _ = attention.attend(layer, ours[0], ours[1], ours[2], None, 0.3, packed, sliding_window=window)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", by_the_letter)
    monkeypatch.setattr(attention, "_has_kernel", lambda q: True)
    kernel, _ = attention.attend(layer, theirs[0], theirs[1], theirs[2], None, 0.3, packed, sliding_window=window)
    assert torch.allclose(blocks, kernel, atol=1e-5)
    for made, parts in ((blocks, ours), (kernel, theirs)):
        made.square().sum().backward()
        assert all(part.grad is not None for part in parts)
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None and other.grad is not None and torch.allclose(one.grad, other.grad, atol=1e-4)


def test_the_kernel_of_a_gpu_takes_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and types only, as torch itself checks them where there is no GPU."""
    packed = pack(forest(5, 3))
    assert packed.begins.dtype == packed.views.dtype == torch.int32
    assert len(packed.begins) == len(packed.views) == len(packed.spans) + 1
    assert packed.begins[-1] == packed.tokens.shape[1] and packed.views[-1] == len(packed.looks)
    kinds = {name: (getattr(packed, name).shape, getattr(packed, name).dtype) for name in ("looks", "begins", "views")}
    with FakeTensorMode():
        there: dict[str, Any] = {
            name: torch.empty(shape, dtype=dtype, device="cuda") for name, (shape, dtype) in kinds.items()
        }
        q, k, v = (torch.empty(packed.tokens.shape[1], h, 64, dtype=torch.bfloat16, device="cuda") for h in (6, 2, 2))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert not attention._has_kernel(q)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert attention._has_kernel(q) and not attention._has_kernel(q.float())
        made = attention._in_one_call(q, k, v, replace(packed, **there), 16, None)
    assert made.shape == q.shape and made.dtype == q.dtype
