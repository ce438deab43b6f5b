"""Families of models: each is read as docs/families.md says and comes to transformers' numbers, or is refused."""

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
from assent.generation.local import Sampling, kv_cache_bytes, sample
from assent.models import heads
from assent.models.adapters import attach, lora
from assent.models.attention import SharedPrefix, pack, shares
from assent.models.checkpoints import save
from assent.models.families import settle
from assent.models.forward import blocks, head, logprobs, packed_states, scores
from assent.models.heads import RewardModel, stored_head
from assent.models.load import context, load_policy, load_reward, new_reward

TOP = Path(__file__).parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_families", TOP / "benchmarks" / "families.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their own
    spec.loader.exec_module(module)
    return module


table = load()
DOCUMENTED = table.written(table.PAGE.read_text(encoding="utf-8"))


def make(family: str, folder: Path) -> Path:
    where: Path = table.make(family, folder / "model")
    return where


def change(folder: Path, name: str, **settings: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_every_family_is_documented() -> None:
    assert list(DOCUMENTED) == list(table.FAMILIES)
    assert len(DOCUMENTED) >= 60


@pytest.mark.parametrize("family", table.FAMILIES)
def test_a_family_is_read_as_the_docs_say_and_comes_to_transformers_own_numbers(family: str, tmp_path: Path) -> None:
    row, documented = table.measure(family, tmp_path), DOCUMENTED[family]
    for column in ("way", "draws", "reward", "bfloat16", "lora", "value_layers", "note"):
        assert getattr(row, column) == getattr(documented, column)
    if row.way != "refused":
        assert row.logprobs < 1e-4 and row.gradients < 1e-3 and row.draws.startswith("equal")
        assert row.bfloat16 == "works"
    if row.reward in ("assent", "transformers"):
        assert row.score < 1e-5


@pytest.mark.parametrize("family", ["hyperclovax", "recurrent_gemma", "falcon_h1"])
def test_a_head_that_scales_or_caps_in_an_unknown_way_is_not_imitated(family: str, tmp_path: Path) -> None:
    model: Any = load_policy(make(family, tmp_path)).model
    assert not shares(model.base_model)
    ids = torch.tensor([[20, 21, 22, 23]])
    with torch.no_grad():
        ours = head(model)(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        assert not torch.allclose(ours, model(input_ids=ids, use_cache=False).logits, rtol=1e-2)


@pytest.mark.parametrize(
    ("family", "packs"), [("llama", True), ("phimoe", True), ("falcon_h1", False), ("lfm2", False)]
)
def test_in_half_precision_rounding_is_not_taken_for_mixing_nor_mixing_for_rounding(
    family: str, packs: bool, tmp_path: Path
) -> None:
    where = make(family, tmp_path)
    policy, reward = load_policy(where, torch.bfloat16).model, new_reward(where, 0, torch.bfloat16).model
    assert shares(policy.base_model) == shares(reward.base_model) == packs
    with torch.no_grad():
        assert scores(reward, pack(table.trees(280))).isfinite().all()


def test_a_cap_that_small_logits_do_not_feel_is_noticed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model: Any = load_policy(make("llama", tmp_path)).model
    assert shares(model.base_model)

    def cap(module: Any, args: Any, out: Any) -> Any:
        out.logits = 30 * torch.tanh(out.logits / 30)
        return out

    model.register_forward_hook(cap)
    model.set_attn_implementation("sdpa")  # as it was loaded
    settle(model, "capped")
    assert not shares(model.base_model)
    assert "capped is a LlamaForCausalLM (llama), which cannot read packs" in capfd.readouterr().err


def test_trying_a_model_leaves_its_weights_as_they_were(tmp_path: Path) -> None:
    for family in ("llama", "mamba"):
        where = make(family, tmp_path / family)
        stored, model = load_file(where / "model.safetensors"), load_policy(where).model
        named = dict(model.named_parameters())
        assert all(weight.requires_grad and weight.grad is None for weight in named.values())
        assert all(torch.equal(named[name], weight) for name, weight in stored.items())


def test_the_forward_pass_of_rwkv_does_not_change_the_weights_that_are_saved(tmp_path: Path) -> None:
    where = make("rwkv", tmp_path)  # it halves those of its second block, by its own configuration
    stored, language = load_file(where / "model.safetensors"), load_policy(where)
    with torch.no_grad():
        before = logprobs(language.model, pack(table.trees(280))).logprobs
    save(language, tmp_path / "saved")
    written = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(torch.equal(written[name], weight) for name, weight in stored.items())
    with torch.no_grad():
        assert torch.allclose(logprobs(load_policy(tmp_path / "saved").model, pack(table.trees(280))).logprobs, before)


def test_a_model_that_looks_at_later_tokens_is_refused(tmp_path: Path) -> None:
    where = make("roberta", tmp_path)
    change(where, "config.json", is_decoder=False)
    with pytest.raises(AssentError, match=r"^.* is a RobertaForCausalLM \(roberta\), which looks at later tokens: .*$"):
        load_policy(where)


def test_a_mask_that_a_layer_makes_itself_is_not_passed_over(tmp_path: Path) -> None:
    """Doge's is learned, and at its first value changes nothing but the gradient."""
    model: Any = load_policy(make("doge", tmp_path)).model
    logprobs(model, pack(table.trees(280))).logprobs.sum().backward()
    assert float(model.base_model.layers[0].self_attn.A.grad.abs().max()) > 0
    model.set_attn_implementation("assent")
    with pytest.raises(NotImplementedError, match="mask of its own"):
        packed_states(model.base_model, pack(table.trees(280)))


def test_of_a_model_with_a_vision_tower_the_text_part_is_trained(tmp_path: Path) -> None:
    model: Any = load_policy(make("gemma3", tmp_path)).model
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen and all("vision" in name or "projector" in name for name in frozen)
    assert blocks(model) is model.base_model.language_model.layers
    assert kv_cache_bytes(model, [10], 2, 5) > 0


@pytest.mark.parametrize(("family", "positions"), [("gpt2", 128), ("mpt", 128), ("gemma3", 128), ("bloom", 1 << 30)])
def test_positions_are_known_under_any_name(family: str, positions: int, tmp_path: Path) -> None:
    assert context(load_policy(make(family, tmp_path)).model) == positions


def test_what_drawing_takes_is_estimated_without_attention_too(tmp_path: Path) -> None:
    mamba, llama = (load_policy(make(family, tmp_path / family)).model for family in ("mamba", "llama"))
    rows = [kv_cache_bytes(mamba, [10], n, 5) for n in (1, 2, 4)]
    assert rows[1] == 2 * rows[0] and rows[2] == 4 * rows[0]  # each row holds its prompt
    assert kv_cache_bytes(llama, [10], 2, 5) < 2 * kv_cache_bytes(llama, [10], 1, 5)  # a prompt is held once


def test_what_drawing_takes_is_counted_layer_by_layer_where_heads_are_wider_in_some(tmp_path: Path) -> None:
    model = load_policy(make("gemma4_text", tmp_path)).model  # 2 layers of 2 keys, 8 wide and 512
    vocabulary = int(model.config.vocab_size)
    assert kv_cache_bytes(model, [10], 2, 5) == 2 * 2 * (8 + 512) * 4 * (10 + 2 * 5) + 2 * 4 * 4 * vocabulary


# Types of the weights


def halved(family: str, folder: Path) -> Any:
    """A policy whose weights, not its buffers, became bfloat16 after it was loaded, as a stage does it."""
    model = load_policy(make(family, folder)).model
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    return model


def test_buffers_that_do_not_go_with_bfloat16_are_cast_only_while_a_model_is_read(tmp_path: Path) -> None:
    for family in ("minimax", "openai-gpt", "xglm"):
        model = halved(family, tmp_path / family)
        before = dict(model.named_buffers())
        draw = sample(model, [(20, 21, 22)], 2, Sampling(1.0, 3), frozenset({3}), torch.Generator().manual_seed(0))
        said = logprobs(model, pack([SharedPrefix((20, 21, 22), tuple(each.ids for each in draw))])).logprobs
        drawn = torch.tensor([logprob for each in draw for logprob in each.logprobs])
        assert torch.allclose(said, drawn, atol=0.2)
        assert all(buffer is before[name] for name, buffer in model.named_buffers())


def test_a_model_that_cannot_be_computed_in_its_type_is_refused_in_one_line(tmp_path: Path) -> None:
    model = halved("llama", tmp_path)
    model.model.layers[1].mlp.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    pattern = r"^a LlamaForCausalLM cannot be computed in bfloat16 \(.*dtype.*\): give --dtype float32$"
    with pytest.raises(AssentError, match=pattern):
        logprobs(model, pack(table.trees(280)))
    with pytest.raises(AssentError, match=pattern):
        sample(model, [(20, 21, 22)], 2, Sampling(1.0, 3), frozenset({3}), torch.Generator())
    for weight in model.parameters():
        weight.data = weight.data.float()
    assert logprobs(model, pack(table.trees(280))).logprobs.isfinite().all()


# Reward models


def snippet() -> str:
    """The indented lines of the docstring of heads.py."""
    doc = inspect.getdoc(heads) or ""
    return textwrap.dedent("\n".join(line for line in doc.splitlines() if line.startswith("    ") or not line))


@pytest.mark.parametrize("family", ["granite", "mamba", "llama4_text"])
def test_a_reward_model_with_a_head_of_ours_is_read_with_plain_transformers_as_its_docs_say(
    family: str, tmp_path: Path
) -> None:
    reward = new_reward(make(family, tmp_path), seed=1, heads=2)
    assert isinstance(reward.model, RewardModel)
    reward.model.score.weight.data.mul_(100)
    reward.model.config.reward_mean, reward.model.config.reward_std = [0.5, 0.5], [2.0, 2.0]
    save(reward, tmp_path / "reward")
    ours = load_reward(tmp_path / "reward")
    assert (ours.model.config.reward_heads, ours.model.config.reward_mean) == (2, [0.5, 0.5])
    there: dict[str, Any] = {
        "folder": str(tmp_path / "reward"),
        "conversation": [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "An owl."}],
    }
    exec(snippet(), there)
    text = "<|im_start|>user\nName a bird.<|im_end|>\n<|im_start|>assistant\nAn owl.<|im_end|>"
    ids = tuple(ours.tokenizer(text)["input_ids"])
    with torch.no_grad():
        score = scores(ours.model, pack([SharedPrefix(ids[:5], (ids[5:],))]))[0, 0]
    assert float(there["score"]) == pytest.approx(float(score), abs=1e-5)
    assert abs(float(score)) > 1e-2


def test_a_reward_model_with_a_head_of_ours_is_no_policy_and_a_policy_no_reward_model(tmp_path: Path) -> None:
    where = make("granite", tmp_path)
    with pytest.raises(AssentError, match=r"^.*has no reward head, it is a policy.*$"):
        load_reward(where)
    save(new_reward(where, seed=0), tmp_path / "reward")
    with pytest.raises(AssentError, match=r"^.*is a reward model, not a policy$"):
        load_policy(tmp_path / "reward")


def test_a_head_of_ours_is_read_though_transformers_has_a_classifier_by_now(tmp_path: Path) -> None:
    from transformers import AutoModel

    where = make("llama", tmp_path)
    language = load_policy(where)
    save(language._replace(model=RewardModel(AutoModel.from_pretrained(where), 1)), tmp_path / "reward")  # type: ignore[arg-type]
    assert isinstance(load_reward(tmp_path / "reward").model, RewardModel)


def test_heads_of_either_kind_are_found_in_a_folder(tmp_path: Path) -> None:
    assert stored_head(make("granite", tmp_path)) is None
    for family in ("granite", "llama"):
        reward = new_reward(make(family, tmp_path / family), seed=3)
        save(reward, tmp_path / family / "reward")
        stored = stored_head(tmp_path / family / "reward")
        assert stored is not None and torch.equal(stored, reward.model.state_dict()["score.weight"])


@pytest.mark.parametrize("family", ["granite", "mamba", "llama4_text"])
def test_a_head_of_ours_is_trained_by_every_stage_that_uses_it(family: str, tmp_path: Path) -> None:
    where, run = make(family, tmp_path), ["--run", str(tmp_path / "run"), "--dtype", "float32", "--device", "cpu"]
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Name bird {i}."}],
            "chosen": [{"role": "assistant", "content": "An owl."}],
            "rejected": [{"role": "assistant", "content": "No, another."}],
        }
        for i in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run += ["--model", str(where)]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *run]) == 0
    assert main(["reward", *run, "--lr", "1e-2", "--epochs", "2"]) == 0
    short = ["--steps", "1", "--n", "2", "--batch-size", "2", "--max-new-tokens", "4"]
    assert main(["ppo", *run, *short, "--trainable-value-layers", "1"]) == 0
    assert main(["reward", *run, "--overwrite", "--lr", "1e-2", "--lora-rank", "4"]) == 0
    assert main(["ppo", *run, *short, "--overwrite", "--lora-rank", "4"]) == 0


# Layers and adapters


def test_more_layers_of_a_value_model_than_there_are_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Name bird {i}: ", "chosen": "An owl.", "rejected": "No."} for i in range(9)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny.make(tmp_path / "model", chat=False)
    run = ["--run", str(tmp_path / "run"), "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *run, "--no-chat"]) == 0
    assert main(["reward", *run, "--lr", "1e-2"]) == 0
    assert main(["ppo", *run, "--trainable-value-layers", "3"]) == 2
    assert "value_layers is 3, and the value model has 2 layers" in capsys.readouterr().err


def test_layers_that_do_not_lie_in_one_list_are_not_guessed(tmp_path: Path) -> None:
    from transformers import XLMConfig, XLMModel

    model = XLMModel(XLMConfig(vocab_size=50, emb_dim=16, n_layers=2, n_heads=2))
    with pytest.raises(AssentError, match=r"^it is not known which layers of a XLMModel come last: .*$"):
        blocks(model)


def test_lora_leaves_out_what_the_kernels_of_mamba_read_past_it(tmp_path: Path) -> None:
    for family in ("mamba", "mamba2"):
        model = load_policy(make(family, tmp_path / family)).model
        adapted = {
            name.rpartition(".lora_")[0] for name, _ in attach(model, lora(4)).named_modules() if "lora_" in name
        }
        assert any(name.endswith("in_proj") for name in adapted)
        assert not any(name.endswith(("out_proj", "conv1d")) for name in adapted)


# Checkpoints that cannot be trained as they stand


def test_a_models_own_code_is_not_run_and_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = make("llama", tmp_path)
    (where / "modeling_own.py").write_text("raise SystemExit('this code ran')\n")
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    change(where, "config.json", model_type="own", auto_map=own)
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("somebody was asked"))
    with pytest.raises(AssentError, match=r"^.*needs code of its own \(auto_map\), and assent runs no code.*$"):
        load_policy(where)


def test_a_table_with_too_few_rows_is_named_with_both_sizes(tmp_path: Path) -> None:
    where = make("llama", tmp_path)
    weights = load_file(where / "model.safetensors")
    save_file({name: w[:-5] if "embed" in name else w for name, w in weights.items()}, where / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    size = len(weights["model.embed_tokens.weight"])
    pattern = rf"^.* model\.embed_tokens\.weight is {size - 5} x 32 in its weights and {size} x 32 by its config\.json$"
    with pytest.raises(AssentError, match=pattern):
        load_policy(where)


def test_a_classifier_of_two_labels_is_told_how_many_a_reward_model_has(tmp_path: Path) -> None:
    where = make("llama", tmp_path)
    save(new_reward(where, seed=0, heads=2), tmp_path / "two")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "reward_heads"}))
    with pytest.raises(AssentError, match=r"^.* is a classifier of 2 labels: a reward model has 1$"):
        load_reward(tmp_path / "two")


def test_a_value_head_in_a_policy_is_left_out_with_a_note(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = make("llama", tmp_path)
    more = {"v_head.summary.weight": torch.zeros(1, 32), "v_head.summary.bias": torch.zeros(1)}
    save_file(load_file(where / "model.safetensors") | more, where / "model.safetensors", {"format": "pt"})
    load_policy(where)
    printed = capfd.readouterr().err
    assert "holds a value head (v_head.summary.bias, v_head.summary.weight), which is left out" in printed


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_quantised_weights_are_refused_in_one_line(method: str, tmp_path: Path) -> None:
    where = make("llama", tmp_path)
    config = {"quant_method": method, "bits": 4, "group_size": 32, "load_in_4bit": True}
    change(where, "config.json", quantization_config=config)
    with pytest.raises(AssentError, match=rf"^.* is quantised \({method}\), .*$"):
        load_policy(where)


def test_a_token_without_a_row_is_refused_only_if_text_is_written_with_it(tmp_path: Path) -> None:
    where = make("llama", tmp_path)
    rows = len(load_file(where / "model.safetensors")["model.embed_tokens.weight"])
    shutil.copytree(where, tmp_path / "text")
    for folder, special in ((where, True), (tmp_path / "text", False)):
        tokenizer = table.make_tokenizer()
        tokenizer.add_tokens(["<mark>"], special_tokens=special)
        assert tokenizer.convert_tokens_to_ids("<mark>") == rows
        tokenizer.save_pretrained(folder)
    load_policy(where)
    pattern = rf"^the tokenizer of .* writes '<mark>' as token {rows}, and its embedding has {rows} rows: .*$"
    with pytest.raises(AssentError, match=pattern):
        load_policy(tmp_path / "text")
