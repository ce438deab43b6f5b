"""Checkpoints: files of a model are saved unchanged and readable by other programs; adapters; model cards."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reading
import tiny
import torch
from conftest import TRANSFORMERS_4
from safetensors.torch import load_file

from assent.cli import main
from assent.errors import AssentError
from assent.models import card, transformers4
from assent.models.checkpoints import locate, model_folder, save, stored_dtype, weights_digest
from assent.models.load import load_policy
from assent.models.rendering import Rendering
from assent.records import Message, Prompt, Response
from assent.rewards.model import Model

ON = ["--dtype", "float32", "--device", "cpu", "--held-out", "0"]
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a chat model, with a file of comparisons beside it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_pairs(folder / "pairs.jsonl")
    return tiny.make(folder / "model")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSENT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_pairs(path: Path, chat: bool = True) -> None:
    def side(text: str) -> Any:
        return [{"role": "assistant", "content": text}] if chat else text

    rows = [
        {
            "prompt": [{"role": "user", "content": f"Who is {i}?"}] if chat else f"Who is {i}?",
            "chosen": side("Yes, it is the heron."),
            "rejected": side("No no no."),
        }
        for i in range(16)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


def trained(stage: str, model: Path, run: Path, *words: str, chat: bool = True) -> Path:
    """Return the checkpoint of a stage that trains on comparisons."""
    pairs = run.parent / "pairs.jsonl"
    write_pairs(pairs, chat)
    flags = ["--run", str(run), "--model", str(model), *ON]
    assert main(["import", str(pairs), "--run", str(run), *([] if chat else ["--no-apply-chat-template"])]) == 0
    assert main([stage, *flags, "--lr", "3e-3", "--epochs", "2", "--batch-size", "8", *words]) == 0
    return run / stage


def network(kind: str, folder: Path, like: Path, **settings: Any) -> Path:
    """Return a random model of a family as version 5 writes it, with the tokenizer of another model."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(like)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|start|>", "<|endoftext|>"]})  # Qwen2's class adds it
    usual = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**usual, **settings})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def again(source: Path, folder: Path) -> Path:
    """Return a model as assent saves it after loading."""
    save(load_policy(source), folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Tokenizer files


def as_published(folder: Path, like: Path) -> Path:
    """Return a model with tokenizer files of 2024, which version 5 would write differently or not at all."""
    shutil.copytree(like, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "made_by": "others"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text('{"eos_token":"<|end|>"}')
    (folder / "added_tokens.json").write_text('{"<|end|>":0}')
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("#version: 0.2")
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "generation_config.json").write_text('{"do_sample":false,"temperature":0.5,"eos_token_id":[0,1]}')
    return folder


def test_save_copies_tokenizer_files_byte_for_byte(base: Path, tmp_path: Path) -> None:
    published = as_published(tmp_path / "published", base)
    original = {name: text for name, text in files(published).items() if "model" not in name and name != "config.json"}
    assert len(original) == 10
    saved = files(again(again(published, tmp_path / "first"), tmp_path / "second"))
    assert {name: saved.get(name) for name in original} == original


def test_reward_model_keeps_the_tokenizer_files(base: Path, tmp_path: Path) -> None:
    published = as_published(tmp_path / "published", base)
    original = files(published)
    saved = files(trained("reward", published, tmp_path / "run"))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "vocab.json"):
        assert saved[name] == original[name]


def test_model_folder_of_a_hub_id_is_in_the_cache(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--herons--tiny"
    snapshot = place / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    assert model_folder("herons/tiny") == snapshot
    assert model_folder("herons/other") is None
    assert stored_dtype("herons/tiny") == torch.float32


def test_new_tokenizer_is_written_by_transformers(base: Path) -> None:
    config = json.loads((base / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == ["<|start|>"] and "extra_special_tokens" not in config


# The last version 4 of transformers

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 300000.0, "factor": 4.0, "original_max_position_embeddings": 64}
FACTORS = [1.0 + 0.1 * i for i in range(8)]
LONG = {"rope_type": "longrope", "rope_theta": 50000.0, "partial_rotary_factor": 1.0}
LONG = {**LONG, "short_factor": FACTORS, "long_factor": [2 * factor for factor in FACTORS]}
EACH = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3},
    "qwen2": {"rope_parameters": YARN},
    "qwen3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "head_dim": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
    "gemma2": {"rope_parameters": {"rope_type": "default", "rope_theta": 70000.0}, "head_dim": 16, "sliding_window": 8},
    "gemma3_text": {"rope_parameters": EACH, "head_dim": 16, "layer_types": list(EACH), "sliding_window": 8},
    "mistral": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "sliding_window": None},
    "phi3": {"rope_parameters": LONG, "original_max_position_embeddings": 64},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.5}},
    "smollm3": {"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}, "no_rope_layers": [1, 0]},
}


def read_by_version_4(*folders: Path) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-W", "ignore", reading.__file__, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(TRANSFORMERS_4), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    output: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    assert output["version"] == "4.57.6"
    return {Path(name).name: contents for name, contents in output["read"].items()}


@pytest.mark.transformers4
@pytest.mark.slow
def test_transformers_4_reads_the_same_checkpoint(base: Path, tmp_path: Path) -> None:
    folders = [
        again(network(kind, tmp_path / "source" / kind, base, **settings), tmp_path / kind)
        for kind, settings in FAMILIES.items()
    ]
    run = tmp_path / "run"
    folders += [base, trained("reward", base, run), trained("dpo", base, run, "--save-dtype", "bfloat16")]
    before = read_by_version_4(*folders)
    for folder in folders:
        now = reading.read(folder)
        then = before[folder.name]
        a, b = (torch.tensor(contents.pop("logits")) for contents in (now, then))
        assert float((a - b).abs().max()) < 1e-4, folder.name
        assert then == now, folder.name
    for kind in FAMILIES:  # version 5 reads the same with and without the added keys
        assert reading.read(tmp_path / kind) == reading.read(tmp_path / "source" / kind)


def test_add_config_keys_covers_the_text_config() -> None:
    written = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "rope_parameters": EACH}}
    text = transformers4.add_config_keys(written)["text_config"]
    assert (text["rope_theta"], text["rope_local_base_freq"]) == (900000.0, 20000.0)
    assert text["rope_scaling"] == {"rope_type": "linear", "factor": 8.0} and text["rope_parameters"] == EACH


# Adapters as models


def adapted(base: Path, folder: Path, kind: str, **settings: Any) -> torch.Tensor:
    """Write an adapter with random weights as peft does; return the logits of the base with it."""
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_pretrained(base)
    if settings.pop("more", 0):
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["heron", "wren"])
        network.resize_token_embeddings(len(tokenizer))
        tokenizer.save_pretrained(folder)
    model: Any = peft.get_peft_model(network, getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=IDS).logits
    return logits


LINEAR = {"r": 4, "target_modules": "all-linear"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("Lora", LINEAR),
    "DoRA": ("Lora", {**LINEAR, "use_dora": True}),
    "PiSSA": ("Lora", {**LINEAR, "init_lora_weights": "pissa"}),
    "ranks": ("Lora", {**LINEAR, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True}),
    "IA3": ("IA3", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "new tokens": ("Lora", {**LINEAR, "more": 2, "modules_to_save": ["embed_tokens"]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_load_policy_reads_a_peft_adapter(kind: str, base: Path, tmp_path: Path) -> None:
    expected = adapted(base, tmp_path / "adapter", KINDS[kind][0], **KINDS[kind][1])
    policy = load_policy(tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(policy.model(IDS).logits, expected, atol=1e-4)
    assert len(policy.tokenizer) == policy.model.config.vocab_size


def test_adapter_is_merged_once_for_its_content(base: Path, tmp_path: Path, own_cache: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    adapted(tmp_path / "model", tmp_path / "adapter", "Lora", **LINEAR)
    place = Path(locate(tmp_path / "adapter"))
    written = (place / "model.safetensors").stat().st_mtime_ns
    assert locate(tmp_path / "adapter") == str(place) and place.parent == own_cache
    assert (place / "model.safetensors").stat().st_mtime_ns == written
    assert files(place)["tokenizer.json"] == files(base)["tokenizer.json"]
    before = weights_digest(str(tmp_path / "adapter"))
    tiny.make(tmp_path / "model", seed=1)
    assert weights_digest(str(tmp_path / "adapter")) != before and locate(tmp_path / "adapter") != str(place)
    assert len(list(own_cache.iterdir())) == 2  # and no partial folder


@pytest.mark.slow
def test_concurrent_merges_of_an_adapter_share_a_folder(base: Path, tmp_path: Path, own_cache: Path) -> None:
    adapted(base, tmp_path / "adapter", "Lora", **LINEAR)
    program = "import sys; from assent.models.checkpoints import locate; print(locate(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "adapter")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = {process.communicate(timeout=120)[0].splitlines()[-1] for process in both}
    assert [str(path) for path in own_cache.iterdir()] == [*places]


def test_stage_accepts_an_adapter_as_model(base: Path, tmp_path: Path) -> None:
    adapted(base, tmp_path / "adapter", "Lora", **LINEAR)
    run = tmp_path / "run"
    trained("reward", base, run, "--lora-rank", "4")
    words = ["--policy", str(tmp_path / "adapter"), "--rewards", str(run / "reward" / "adapter"), "--beta", "0"]
    short = ["--steps", "1", "--n", "2", "--batch-size", "4", "--max-new-tokens", "4", "--lr", "1e-9"]
    assert main(["grpo", "--run", str(run), "--model", str(base), *ON, *words, *short]) == 0
    with torch.no_grad():
        a, b = (load_policy(folder).model(IDS).logits for folder in (tmp_path / "adapter", run / "grpo"))
    assert torch.allclose(a, b, atol=1e-4)  # training started from there


@pytest.mark.parametrize("stage", ["dpo", "reward"])
@pytest.mark.parametrize("kind", ["llama", "granite"])
def test_adapter_folder_equals_its_checkpoint(kind: str, stage: str, base: Path, tmp_path: Path) -> None:
    model = base if kind == "llama" else network(kind, tmp_path / "granite", base)
    saved = trained(stage, model, tmp_path / "run", "--lora-rank", "4")
    shutil.copytree(saved / "adapter", tmp_path / "elsewhere")
    if stage == "dpo":
        with torch.no_grad():
            first, second = (load_policy(folder).model(IDS).logits for folder in (saved, tmp_path / "elsewhere"))
    else:
        first, second = (score(folder) for folder in (saved, tmp_path / "elsewhere"))
    assert torch.allclose(first, second, atol=1e-5)


def spoil(change: Callable[[dict[str, Any]], None], adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    change(config)
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def test_unmergeable_adapter_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    def refused(adapter: Path, words: str) -> None:
        with pytest.raises(AssentError, match=words) as error:
            locate(adapter)
        assert "\n" not in str(error.value)

    adapted(base, tmp_path / "prompt", "PromptTuning", num_virtual_tokens=4)
    refused(tmp_path / "prompt", "is a PROMPT_TUNING adapter, which cannot be merged into weights")
    adapter = tmp_path / "adapter"
    adapted(base, adapter, "Lora", **LINEAR)
    wide = network("llama", tmp_path / "wide", base, hidden_size=128)
    spoil(lambda config: config.update(base_model_name_or_path=str(wide)), adapter)
    refused(adapter, "cannot merge the adapter .* into .*wide: RuntimeError: size mismatch for")
    low = network("llama", tmp_path / "low", base, num_hidden_layers=1, intermediate_size=128)
    spoil(lambda config: config.update(base_model_name_or_path=str(low)), adapter)
    refused(adapter, r"does not fit .*low: base_model.model.model.layers.1\S* is in one of them only")
    spoil(lambda config: config.update(base_model_name_or_path="gone/away", task_type="TOKEN_CLS"), adapter)
    refused(adapter, "is an adapter of 'gone/away', which cannot be loaded: cannot get the model 'gone/away'")
    spoil(lambda config: config.update(base_model_name_or_path=str(base)), adapter)
    refused(adapter, "for the task TOKEN_CLS; one for CAUSAL_LM or SEQ_CLS is needed")
    spoil(lambda config: config.update(base_model_name_or_path=None), adapter)
    refused(adapter, "names no base model")
    (adapter / "adapter_config.json").write_text("{")
    refused(adapter, "cannot read .*adapter_config.json")


def test_adapter_of_itself_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    for name, of in (("self", "self"), ("first", "second"), ("second", "first"), ("outer", "self")):
        adapted(base, tmp_path / name, "Lora", **LINEAR)
        spoil(lambda config, of=of: config.update(base_model_name_or_path=str(tmp_path / of)), tmp_path / name)  # type: ignore[misc]
    for name in ("self", "first", "outer"):
        for ask in (locate, weights_digest):
            with pytest.raises(AssentError, match=r"^.* is an adapter of itself, and so of no model; .*$"):
                ask(str(tmp_path / name))


# GGUF


def gguf_file(path: Path, like: Path, seed: int) -> Path:
    """Write a Llama of one block with random weights, as llama.cpp does."""
    import gguf

    core = json.loads((like / "tokenizer.json").read_text())
    ids = core["model"]["vocab"] | {token["content"]: token["id"] for token in core["added_tokens"]}
    vocabulary = sorted(ids, key=lambda token: int(ids[token]))
    writer = gguf.GGUFWriter(path, "llama")
    rng = torch.Generator().manual_seed(seed)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in core["model"]["merges"]])
    writer.add_eos_token_id(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(vocabulary), 32), "output_norm": (32,)}
    shapes |= {f"blk.0.{part}_norm": (32,) for part in ("attn", "ffn")}
    shapes |= {f"blk.0.attn_{part}": (32, 32) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape, generator=rng).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_changed_gguf_file_is_converted_again(base: Path, tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "model.gguf", base, seed=0)
    size = path.stat().st_size
    first = locate(path)
    assert locate(path) == first
    weights = load_file(Path(first) / "model.safetensors")
    gguf_file(path, base, seed=1)
    second = locate(path)
    assert path.stat().st_size == size and second != first
    changed = load_file(Path(second) / "model.safetensors")
    assert not torch.equal(weights["model.embed_tokens.weight"], changed["model.embed_tokens.weight"])


# Dtypes


def test_stored_dtype_of_an_adapter_is_its_bases(base: Path, tmp_path: Path) -> None:
    half = trained("dpo", base, tmp_path / "half", "--save-dtype", "bfloat16")
    adapted(half, tmp_path / "adapter", "Lora", **LINEAR)
    adapted(base, tmp_path / "single", "Lora", **LINEAR)
    assert stored_dtype(locate(tmp_path / "single")) == torch.float32
    saved = trained("dpo", tmp_path / "adapter", tmp_path / "run", "--save-dtype", "auto")
    assert {weight.dtype for weight in load_file(saved / "model.safetensors").values()} == {torch.bfloat16}
    assert not (saved / "merged.json").exists()


def test_checkpoint_is_saved_in_the_requested_dtype(base: Path, tmp_path: Path) -> None:
    def types(folder: Path) -> set[torch.dtype]:
        return {weight.dtype for weight in load_file(folder).values()}

    half = trained("dpo", base, tmp_path / "half", "--save-dtype", "bfloat16", "--lora-rank", "4")
    config = json.loads((half / "config.json").read_text())
    assert types(half / "model.safetensors") == {torch.bfloat16}
    assert types(half / "adapter" / "adapter_model.safetensors") == {torch.float32}
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    same = trained("dpo", half, tmp_path / "same", "--save-dtype", "auto")
    assert types(same / "model.safetensors") == {torch.bfloat16} == {stored_dtype(str(half))}
    usual = trained("reward", half, tmp_path / "usual")
    assert types(usual / "model.safetensors") == {torch.float32}
    whole = trained("dpo", base, tmp_path / "whole", "--lora-rank", "4")
    for name, weight in load_file(whole / "model.safetensors").items():  # merged first, then rounded
        assert torch.equal(load_file(half / "model.safetensors")[name], weight.bfloat16())


def test_weights_digest_covers_bin_files(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    before = weights_digest(str(folder))
    assert before not in (str(folder), weights_digest(str(base)))
    torch.save({name: weight + 1 for name, weight in weights.items()}, folder / "pytorch_model.bin")
    assert weights_digest(str(folder)) != before


# Cards


CONVERSATIONS = [("Who is it?", "Yes, it is the heron."), ("Name a bird.", "No."), ("Why?", "No no no.")]


def score(folder: Path, chat: bool = True, date: str = "") -> torch.Tensor:
    """Return assent's scores of the completions, the mean over all heads."""
    prompts = [Prompt((Message("user", q),)) if chat else Prompt.plain(q) for q, _ in CONVERSATIONS]
    return (
        Model.load(str(folder), rendering=Rendering(date=date))
        .score(prompts, [Response(p.id, a, "") for p, (_, a) in zip(prompts, CONVERSATIONS, strict=True)])
        .mean(1)
    )


def by_its_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """Return the function in the code of a card."""
    block = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert block
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder)
    exec(block[1], names)
    actual: Callable[..., float] = names["score"]
    return actual


TEMPLATES = {
    "a new line behind the end": tiny.CHATML,
    "the end last": tiny.CHATML.replace("<|end|>\n", "<|end|>"),
    "the end before the next turn": (
        "{% for m in messages %}{{ '<|end|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|end|>assistant\n' }}{% endif %}"
    ),
}
REWARD_CASES: dict[str, tuple[str, list[str]]] = {
    "a classifier": ("llama", []),
    "an ensemble": ("llama", ["--heads", "2", "--members", "2"]),
    "bfloat16": ("llama", ["--save-dtype", "bfloat16"]),
    "a head of ours": ("granite", []),
}


def chat_model(folder: Path, base: Path, kind: str = "llama", **settings: Any) -> Path:
    model = network(kind, folder, base)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, **settings}))
    if "chat_template" in settings:
        (model / "chat_template.jinja").unlink()
    return model


def holds(folder: Path, monkeypatch: pytest.MonkeyPatch, date: str = "") -> None:
    expected = score(folder, date=date)
    actual = by_its_card(folder, monkeypatch)
    scores = [actual([{"role": "user", "content": q}, {"role": "assistant", "content": a}]) for q, a in CONVERSATIONS]
    assert scores == pytest.approx(expected.tolist(), abs=1e-4)
    assert max(scores) - min(scores) > 0.01


@pytest.mark.parametrize("template", TEMPLATES)
def test_card_code_gives_the_reward_scores(
    template: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = chat_model(tmp_path / "model", base, chat_template=TEMPLATES[template])
    holds(trained("reward", model, tmp_path / "run"), monkeypatch)


def test_card_code_keeps_the_template_date(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dated = """{{ '<|start|>system\n' + strftime_now("%d %b %Y") + '<|end|>\n' }}""" + tiny.CHATML
    model = chat_model(tmp_path / "model", base, chat_template=dated)
    saved = trained("reward", model, tmp_path / "run", "--date", "2024-07-26")
    holds(saved, monkeypatch, "2024-07-26")
    assert not torch.allclose(score(saved, date="2024-07-26"), score(saved, date="2031-01-05"), atol=1e-3)


@pytest.mark.parametrize("case", REWARD_CASES)
def test_card_code_fits_every_kind_of_reward_model(
    case: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, words = REWARD_CASES[case]
    holds(trained("reward", chat_model(tmp_path / "model", base, kind), tmp_path / "run", *words), monkeypatch)


def test_reward_does_not_depend_on_the_pad_token(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chat_model(tmp_path / "model", base, pad_token="<|end|>")
    saved = trained("reward", model, tmp_path / "run")
    assert json.loads((saved / "tokenizer_config.json").read_text())["pad_token"] == "<|end|>"
    holds(saved, monkeypatch)


def test_card_code_scores_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = trained("reward", tiny.make(tmp_path / "model", chat=False), tmp_path / "run", chat=False)
    expected = score(saved, chat=False)
    actual = by_its_card(saved, monkeypatch)
    assert [actual(q, a) for q, a in CONVERSATIONS] == pytest.approx(expected.tolist(), abs=1e-4)


def test_card_has_no_code_for_a_complex_template(base: Path, tmp_path: Path) -> None:
    opening = tiny.CHATML.replace("'<|start|>assistant\n'", "'<|start|>assistant\n<think>\n'")
    tokenizer = load_policy(chat_model(tmp_path / "model", base, chat_template=opening)).chat_tokenizer
    text = card.reward_card(card.ModelOrigin("herons/tiny", "bradley_terry", {}), tokenizer, [tmp_path / "model"])
    assert "score it with `assent` itself" in text and "```" not in text


def test_card_is_valid_and_has_no_local_path(base: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    saved = trained("reward", base, tmp_path / "run")
    text = (saved / "README.md").read_text()
    config: Any = ModelCard(text).data
    assert config.library_name == "transformers" and config.pipeline_tag == "text-classification"
    assert config.tags == ["assent", "reward-model", "bradley-terry"] and config.base_model is None
    assert "- data: 16 pairs, 16 prompts\n" in text and "- base model: model\n" in text
    assert str(tmp_path) not in text and str(base.parent) not in text
    hub: Any = ModelCard(card.policy_card(card.ModelOrigin("herons/tiny", "dpo", {"pairs": 16}))).data
    assert hub.base_model == "herons/tiny" and hub.pipeline_tag == "text-generation"
