"""Families of models: each equals transformers as docs/families.md documents, or is refused."""

import importlib.util
import inspect
import json
import shutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from assent.cli import main
from assent.errors import AssentError
from assent.generation.local import kv_cache_bytes, sample_completions
from assent.generation.sampling import Sampling
from assent.models import heads
from assent.models.adapters import add_adapter, lora_config
from assent.models.attention import supports_packing
from assent.models.checkpoints import save
from assent.models.families import enable_packing
from assent.models.forward import decoder_layers, lm_head, logprobs, packed_hidden_states, scores
from assent.models.heads import RewardModel, read_head
from assent.models.load import context_length, load_policy, load_reward, new_reward
from assent.models.packing import SharedPrefix, pack

TOP = Path(__file__).parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_families", TOP / "benchmarks" / "families.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


table = load()
DOCUMENTED = table.read_table(table.PAGE.read_text(encoding="utf-8"))


def make(family: str, folder: Path) -> Path:
    path: Path = table.make(family, folder / "model")
    return path


def change(folder: Path, name: str, **settings: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_every_family_is_documented() -> None:
    assert list(DOCUMENTED) == list(table.FAMILIES)
    assert len(DOCUMENTED) >= 60


@pytest.mark.parametrize("family", table.FAMILIES)
def test_families_equal_transformers_as_documented(family: str, tmp_path: Path) -> None:
    row = table.measure(family, tmp_path)
    documented = DOCUMENTED[family]
    for column in ("way", "draws", "reward", "bfloat16", "lora", "value_layers", "note"):
        assert getattr(row, column) == getattr(documented, column)
    if row.way != "refused":
        assert row.logprobs < 1e-4 and row.gradients < 1e-3 and row.draws.startswith("equal")
        assert row.bfloat16 == "works"
    if row.reward in ("assent", "transformers"):
        assert row.score < 1e-5


@pytest.mark.parametrize("family", ["hyperclovax", "recurrent_gemma", "falcon_h1"])
def test_enable_packing_rejects_an_unknown_lm_head(family: str, tmp_path: Path) -> None:
    model: Any = load_policy(make(family, tmp_path)).model
    assert not supports_packing(model.base_model)
    ids = torch.tensor([[20, 21, 22, 23]])
    with torch.no_grad():
        actual = lm_head(model)(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        assert not torch.allclose(actual, model(input_ids=ids, use_cache=False).logits, rtol=1e-2)


@pytest.mark.parametrize(
    ("family", "packs"), [("llama", True), ("phimoe", True), ("falcon_h1", False), ("lfm2", False)]
)
def test_enable_packing_distinguishes_rounding_from_mixing(family: str, packs: bool, tmp_path: Path) -> None:
    path = make(family, tmp_path)
    policy = load_policy(path, torch.bfloat16).model
    reward = new_reward(path, 0, torch.bfloat16).model
    assert supports_packing(policy.base_model) == supports_packing(reward.base_model) == packs
    with torch.no_grad():
        assert scores(reward, pack(table.make_prefixes(280))).isfinite().all()


def test_enable_packing_notices_a_cap_of_large_logits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model: Any = load_policy(make("llama", tmp_path)).model
    assert supports_packing(model.base_model)

    def cap(module: Any, args: Any, out: Any) -> Any:
        out.logits = 30 * torch.tanh(out.logits / 30)
        return out

    model.register_forward_hook(cap)
    model.set_attn_implementation("sdpa")  # as transformers loads it
    enable_packing(model, "capped")
    assert not supports_packing(model.base_model)
    assert "capped is a LlamaForCausalLM (llama), which does not support packing" in capfd.readouterr().err


def test_enable_packing_leaves_the_weights_unchanged(tmp_path: Path) -> None:
    for family in ("llama", "mamba"):
        path = make(family, tmp_path / family)
        stored = load_file(path / "model.safetensors")
        model = load_policy(path).model
        named = dict(model.named_parameters())
        assert all(weight.requires_grad and weight.grad is None for weight in named.values())
        assert all(torch.equal(named[name], weight) for name, weight in stored.items())


def test_rwkv_forward_keeps_the_saved_weights(tmp_path: Path) -> None:
    path = make("rwkv", tmp_path)  # its configuration halves the weights of the second block
    stored = load_file(path / "model.safetensors")
    policy = load_policy(path)
    with torch.no_grad():
        before = logprobs(policy.model, pack(table.make_prefixes(280))).logprobs
    save(policy, tmp_path / "saved")
    written = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(torch.equal(written[name], weight) for name, weight in stored.items())
    with torch.no_grad():
        assert torch.allclose(
            logprobs(load_policy(tmp_path / "saved").model, pack(table.make_prefixes(280))).logprobs, before
        )


def test_load_policy_refuses_a_model_that_is_not_causal(tmp_path: Path) -> None:
    path = make("roberta", tmp_path)
    change(path, "config.json", is_decoder=False)
    with pytest.raises(
        AssentError, match=r"^.* is a RobertaForCausalLM \(roberta\), which attends to later tokens: .*$"
    ):
        load_policy(path)


def test_attention_refuses_a_mask_of_the_layer(tmp_path: Path) -> None:
    """Use Doge, whose mask is learned; at its initial value it changes only the gradient."""
    model: Any = load_policy(make("doge", tmp_path)).model
    logprobs(model, pack(table.make_prefixes(280))).logprobs.sum().backward()
    assert float(model.base_model.layers[0].self_attn.A.grad.abs().max()) > 0
    model.set_attn_implementation("assent")
    with pytest.raises(NotImplementedError, match="mask of its own"):
        packed_hidden_states(model.base_model, pack(table.make_prefixes(280)))


def test_vision_model_trains_its_text_part_only(tmp_path: Path) -> None:
    model: Any = load_policy(make("gemma3", tmp_path)).model
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen and all("vision" in name or "projector" in name for name in frozen)
    assert decoder_layers(model) is model.base_model.language_model.layers
    assert kv_cache_bytes(model, [10], 2, 5) > 0


@pytest.mark.parametrize(("family", "positions"), [("gpt2", 128), ("mpt", 128), ("gemma3", 128), ("bloom", 1 << 30)])
def test_context_length_reads_every_config_name(family: str, positions: int, tmp_path: Path) -> None:
    assert context_length(load_policy(make(family, tmp_path)).model) == positions


def test_kv_cache_bytes_without_attention(tmp_path: Path) -> None:
    mamba, llama = (load_policy(make(family, tmp_path / family)).model for family in ("mamba", "llama"))
    rows = [kv_cache_bytes(mamba, [10], n, 5) for n in (1, 2, 4)]
    assert rows[1] == 2 * rows[0] and rows[2] == 4 * rows[0]  # each row stores its prompt
    assert kv_cache_bytes(llama, [10], 2, 5) < 2 * kv_cache_bytes(llama, [10], 1, 5)  # a prompt is stored once


def test_kv_cache_bytes_counts_each_layer(tmp_path: Path) -> None:
    model = load_policy(make("gemma4_text", tmp_path)).model  # 2 layers of 2 keys, 8 wide and 512
    vocabulary = int(model.config.vocab_size)
    assert kv_cache_bytes(model, [10], 2, 5) == 2 * 2 * (8 + 512) * 4 * (10 + 2 * 5) + 2 * 4 * 4 * vocabulary


# Dtypes


def halved(family: str, folder: Path) -> Any:
    """Return a policy whose weights, but not its buffers, are converted to bfloat16 after loading, as in a stage."""
    model = load_policy(make(family, folder)).model
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    return model


def test_float32_buffers_are_cast_in_the_forward_pass_only(tmp_path: Path) -> None:
    for family in ("minimax", "openai-gpt", "xglm"):
        model = halved(family, tmp_path / family)
        before = dict(model.named_buffers())
        samples = sample_completions(model, [(20, 21, 22)], 2, Sampling(1.0, 3), frozenset({3}), 0)
        logprobs_of_batch = logprobs(
            model, pack([SharedPrefix((20, 21, 22), tuple(sample.token_ids for sample in samples))])
        ).logprobs
        sampled = torch.tensor([logprob for sample in samples for logprob in sample.logprobs])
        assert torch.allclose(logprobs_of_batch, sampled, atol=0.2)
        assert all(buffer is before[name] for name, buffer in model.named_buffers())


def test_dtype_that_a_model_cannot_compute_is_refused(tmp_path: Path) -> None:
    model = halved("llama", tmp_path)
    model.model.layers[1].mlp.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    pattern = r"^a LlamaForCausalLM cannot be computed in bfloat16 \(.*dtype.*\); use --dtype float32$"
    with pytest.raises(AssentError, match=pattern):
        logprobs(model, pack(table.make_prefixes(280)))
    with pytest.raises(AssentError, match=pattern):
        sample_completions(model, [(20, 21, 22)], 2, Sampling(1.0, 3), frozenset({3}), 0)
    for weight in model.parameters():
        weight.data = weight.data.float()
    assert logprobs(model, pack(table.make_prefixes(280))).logprobs.isfinite().all()


# Reward models


def snippet() -> str:
    """Return the indented lines of the docstring of heads.py."""
    doc = inspect.getdoc(heads) or ""
    return textwrap.dedent("\n".join(line for line in doc.splitlines() if line.startswith("    ") or not line))


@pytest.mark.parametrize("family", ["granite", "mamba", "llama4_text"])
def test_head_file_scores_with_plain_transformers(family: str, tmp_path: Path) -> None:
    reward = new_reward(make(family, tmp_path), seed=1, heads=2)
    assert isinstance(reward.model, RewardModel)
    reward.model.score.weight.data.mul_(100)
    reward.model.config.reward_mean = [0.5, 0.5]
    reward.model.config.reward_std = [2.0, 2.0]
    save(reward, tmp_path / "reward")
    actual = load_reward(tmp_path / "reward")
    assert (actual.model.config.reward_heads, actual.model.config.reward_mean) == (2, [0.5, 0.5])
    names: dict[str, Any] = {
        "folder": str(tmp_path / "reward"),
        "conversation": [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "An owl."}],
    }
    exec(snippet(), names)
    text = "<|im_start|>user\nName a bird.<|im_end|>\n<|im_start|>assistant\nAn owl.<|im_end|>"
    ids = tuple(actual.tokenizer(text)["input_ids"])
    with torch.no_grad():
        score = scores(actual.model, pack([SharedPrefix(ids[:5], (ids[5:],))]))[0, 0]
    assert float(names["score"]) == pytest.approx(float(score), abs=1e-5)
    assert abs(float(score)) > 1e-2


def test_load_policy_refuses_a_folder_with_a_head_file(tmp_path: Path) -> None:
    path = make("granite", tmp_path)
    with pytest.raises(AssentError, match=r"^.*has no reward head, it is a policy.*$"):
        load_reward(path)
    save(new_reward(path, seed=0), tmp_path / "reward")
    with pytest.raises(AssentError, match=r"^.*is a reward model, not a policy$"):
        load_policy(tmp_path / "reward")


def test_head_file_takes_precedence_over_a_classifier(tmp_path: Path) -> None:
    from transformers import AutoModel

    path = make("llama", tmp_path)
    policy = load_policy(path)
    save(policy._replace(model=RewardModel(AutoModel.from_pretrained(path), 1)), tmp_path / "reward")  # type: ignore[arg-type]
    assert isinstance(load_reward(tmp_path / "reward").model, RewardModel)


def test_read_head_finds_either_kind(tmp_path: Path) -> None:
    assert read_head(make("granite", tmp_path)) is None
    for family in ("granite", "llama"):
        reward = new_reward(make(family, tmp_path / family), seed=3)
        save(reward, tmp_path / family / "reward")
        stored = read_head(tmp_path / family / "reward")
        assert stored is not None and torch.equal(stored, reward.model.state_dict()["score.weight"])


@pytest.mark.parametrize("family", ["granite", "mamba", "llama4_text"])
def test_head_file_works_in_every_stage(family: str, tmp_path: Path) -> None:
    path = make(family, tmp_path)
    run = ["--run", str(tmp_path / "run"), "--dtype", "float32", "--device", "cpu"]
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Name bird {i}."}],
            "chosen": [{"role": "assistant", "content": "An owl."}],
            "rejected": [{"role": "assistant", "content": "No, another."}],
        }
        for i in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run += ["--model", str(path)]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *run]) == 0
    assert main(["reward", *run, "--lr", "1e-2", "--epochs", "2"]) == 0
    short = ["--steps", "1", "--n", "2", "--batch-size", "2", "--max-new-tokens", "4"]
    assert main(["ppo", *run, *short, "--trainable-value-layers", "1"]) == 0
    assert main(["reward", *run, "--overwrite", "--lr", "1e-2", "--lora-rank", "4"]) == 0
    assert main(["ppo", *run, *short, "--overwrite", "--lora-rank", "4"]) == 0


# Layers and adapters


def test_too_many_trainable_value_layers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Name bird {i}: ", "chosen": "An owl.", "rejected": "No."} for i in range(9)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny.make(tmp_path / "model", chat=False)
    run = ["--run", str(tmp_path / "run"), "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *run, "--no-apply-chat-template"]) == 0
    assert main(["reward", *run, "--lr", "1e-2"]) == 0
    assert main(["ppo", *run, "--ungated", "--trainable-value-layers", "3"]) == 2
    assert "--trainable-value-layers is 3; the value model has 2 layers" in capsys.readouterr().err


def test_decoder_layers_are_not_guessed(tmp_path: Path) -> None:
    from transformers import XLMConfig, XLMModel

    model = XLMModel(XLMConfig(vocab_size=50, emb_dim=16, n_layers=2, n_heads=2))
    with pytest.raises(
        AssentError, match=r"^cannot tell which layers of a XLMModel come last; leave --trainable-value-layers out$"
    ):
        decoder_layers(model)


def test_lora_excludes_modules_of_mamba_kernels(tmp_path: Path) -> None:
    for family in ("mamba", "mamba2"):
        model = load_policy(make(family, tmp_path / family)).model
        adapted = {
            name.rpartition(".lora_")[0]
            for name, _ in add_adapter(model, lora_config(4)).named_modules()
            if "lora_" in name
        }
        assert any(name.endswith("in_proj") for name in adapted)
        assert not any(name.endswith(("out_proj", "conv1d")) for name in adapted)


# Checkpoints that cannot be trained without changes


def test_load_policy_runs_no_code_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("llama", tmp_path)
    (path / "modeling_own.py").write_text("raise SystemExit('this code ran')\n")
    auto_map = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    change(path, "config.json", model_type="own", auto_map=auto_map)
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("input() was called"))
    with pytest.raises(AssentError, match=r"^.*it needs its own code \(auto_map\), and assent runs no code.*$"):
        load_policy(path)


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    path = make("llama", tmp_path)
    weights = load_file(path / "model.safetensors")
    save_file({name: w[:-5] if "embed" in name else w for name, w in weights.items()}, path / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    size = len(weights["model.embed_tokens.weight"])
    pattern = rf"^.* model\.embed_tokens\.weight is {size - 5} x 32 in its weights and {size} x 32 by its config\.json$"
    with pytest.raises(AssentError, match=pattern):
        load_policy(path)


def test_load_reward_refuses_a_classifier_of_two_labels(tmp_path: Path) -> None:
    path = make("llama", tmp_path)
    save(new_reward(path, seed=0, heads=2), tmp_path / "two")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "reward_heads"}))
    with pytest.raises(AssentError, match=r"^.* is a classifier of 2 labels; a reward model has 1$"):
        load_reward(tmp_path / "two")


def test_load_policy_warns_of_a_value_head(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = make("llama", tmp_path)
    value_head = {"v_head.summary.weight": torch.zeros(1, 32), "v_head.summary.bias": torch.zeros(1)}
    save_file(load_file(path / "model.safetensors") | value_head, path / "model.safetensors", {"format": "pt"})
    load_policy(path)
    printed = capfd.readouterr().err
    assert "holds a value head (v_head.summary.bias, v_head.summary.weight), which is left out" in printed


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_load_policy_refuses_quantised_weights(method: str, tmp_path: Path) -> None:
    path = make("llama", tmp_path)
    config = {"quant_method": method, "bits": 4, "group_size": 32, "load_in_4bit": True}
    change(path, "config.json", quantization_config=config)
    with pytest.raises(AssentError, match=rf"^.* is quantised \({method}\), .*$"):
        load_policy(path)


def test_token_without_an_embedding_row_is_refused(tmp_path: Path) -> None:
    path = make("llama", tmp_path)
    rows = len(load_file(path / "model.safetensors")["model.embed_tokens.weight"])
    shutil.copytree(path, tmp_path / "text")
    for folder, special in ((path, True), (tmp_path / "text", False)):
        tokenizer = table.make_tokenizer()
        tokenizer.add_tokens(["<mark>"], special_tokens=special)
        assert tokenizer.convert_tokens_to_ids("<mark>") == rows
        tokenizer.save_pretrained(folder)
    load_policy(path)
    pattern = rf"^the tokenizer of .* writes '<mark>' as token {rows}, and its embedding has {rows} rows; .*$"
    with pytest.raises(AssentError, match=pattern):
        load_policy(tmp_path / "text")
