"""Measure every family of models: whether it supports packing, and how far it is from transformers' own results.

    python benchmarks/families.py [family ...]

Each is a tiny model with random weights. Without names, the table of docs/families.md is written.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.errors import AssentError
from assent.generation.local import kv_cache_bytes, sample_completions
from assent.generation.sampling import Sampling
from assent.models.adapters import add_adapter, lora_config
from assent.models.attention import supports_packing
from assent.models.checkpoints import save, silence_transformers
from assent.models.families import sampling_config
from assent.models.forward import decoder_layers, logprobs, scores
from assent.models.heads import RewardModel, read_head
from assent.models.load import LoadedModel, load_policy, load_reward, new_reward
from assent.models.packing import SharedPrefix, pack
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WINDOW = 6
"""Tokens that a layer with a window sees: fewer than the sequences below have."""

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
BASIC = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
NO_ATTENTION = {"hidden_size": 32, "num_hidden_layers": 2}
HEADS = BASIC | {"head_dim": 8}
LATENT = BASIC | {
    "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}  # fmt: skip
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
SSM = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "afmoe": HEADS | ROUTED | {"num_experts": 4, "num_dense_layers": 1, "sliding_window": WINDOW},
    "apertus": BASIC,
    "arcee": BASIC,
    "bamba": BASIC | SSM | {"attn_layer_indices": [1]},
    "bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    },
    "biogpt": BASIC,
    "bitnet": BASIC,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": GPT | {"rotary_dim": 4},
    "cohere": BASIC | {"logit_scale": 0.25},
    "cohere2": HEADS | {"logit_scale": 0.25, "sliding_window": WINDOW},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "dff": 64},
    "deepseek_v2": LATENT | ROUTED,
    "deepseek_v3": LATENT | ROUTED,
    "diffllama": BASIC,
    "doge": BASIC,
    "dots1": HEADS | ROUTED | {"n_shared_experts": 1},
    "electra": BASIC | {"is_decoder": True, "embedding_size": 32},
    "ernie4_5": HEADS,
    "exaone4": BASIC | {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "falcon": BASIC,
    "falcon_h1": BASIC | SSM | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.25},
    "falcon_mamba": NO_ATTENTION | {"state_size": 8},
    "gemma": HEADS,
    "gemma2": HEADS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma3": {
        "text_config": HEADS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4, "image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7,
    },
    "gemma3_text": HEADS | {"sliding_window": WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8},
    "gemma3n_text": HEADS | MIXED | {
        "hidden_size_per_layer_input": 8, "altup_num_inputs": 2, "laurel_rank": 4, "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": HEADS | {"sliding_window": WINDOW, "hidden_size_per_layer_input": 8},
    "glm": HEADS,
    "glm4": HEADS,
    "glm4_moe": HEADS | ROUTED,
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 128, "window_size": WINDOW,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": BASIC,
    "gpt_neox_japanese": BASIC,
    "gpt_oss": HEADS | LOCAL | MIXED | {"rope_scaling": None},
    "gptj": GPT | {"rotary_dim": 4},
    "granite": BASIC | {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "granitemoe": BASIC | LOCAL | {"logits_scaling": 4.0},
    "granitemoehybrid": BASIC | LOCAL | SSM | {
        "logits_scaling": 4.0, "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"],
    },
    "helium": HEADS,
    "hunyuan_v1_dense": HEADS,
    "hyperclovax": HEADS | {"logits_scaling": 0.25},
    "jamba": BASIC | {
        "mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
        "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False,
    },
    "jetmoe": BASIC | LOCAL | {"kv_channels": 8},
    "lfm2": BASIC | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "llama": BASIC,
    "llama4_text": HEADS | {
        "num_local_experts": 4, "intermediate_size_mlp": 64, "attention_chunk_size": WINDOW, "no_rope_layers": [1, 0],
    },
    "mamba": NO_ATTENTION | {"state_size": 8},
    "mamba2": NO_ATTENTION | {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "minicpm3": LATENT | {"dim_model_base": 16, "scale_emb": 2, "scale_depth": 1.4},
    "minimax": HEADS | LOCAL,
    "ministral3": BASIC,
    "mistral": BASIC | {"sliding_window": WINDOW},
    "mixtral": BASIC | LOCAL,
    "modernbert-decoder": BASIC | {"local_attention": WINDOW, "global_attn_every_n_layers": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "nanochat": BASIC,
    "nemotron": BASIC,
    "olmo": BASIC,
    "olmo2": BASIC,
    "olmo3": BASIC | {"sliding_window": WINDOW},
    "olmoe": BASIC | EXPERTS,
    "openai-gpt": GPT,
    "opt": BASIC | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": BASIC,
    "phi": BASIC,
    "phi3": BASIC,
    "phimoe": BASIC | LOCAL,
    "qwen2": BASIC | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen2_moe": BASIC | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3": HEADS,
    "qwen3_5_text": HEADS | LINEAR,
    "qwen3_moe": HEADS | EXPERTS,
    "qwen3_next": HEADS | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16},
    "recurrent_gemma": HEADS | {
        "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": WINDOW, "logits_soft_cap": 2.0,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "roberta": BASIC | {"is_decoder": True},
    "rwkv": NO_ATTENTION | {"attention_hidden_size": 32, "rescale_every": 1},
    "seed_oss": HEADS,
    "smollm3": BASIC | {"no_rope_layers": [1, 0]},
    "stablelm": BASIC,
    "starcoder2": BASIC | {"sliding_window": WINDOW},
    "vaultgemma": HEADS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": 128},
    "xlstm": {"hidden_size": 32, "embedding_dim": 32, "num_blocks": 2, "num_heads": 4},
    "zamba2": BASIC | {
        "num_key_value_heads": 4, "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4, "mamba_headdim": 16,
        "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "use_mamba_kernels": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The measurements of one family; a cell is empty where the measurement was impossible."""

    way: str
    """`packs` (supports packing), `rows` (padded rows), or `refused`."""
    logprobs: float | str = ""
    gradients: float | str = ""
    draws: str = ""
    reward: str = ""
    """The library that has the head: `transformers`, `assent`, or none."""
    score: float | str = ""
    bfloat16: str = ""
    """Whether a training step, sampling and scoring give finite numbers in bfloat16."""
    lora: str = ""
    value_layers: str = ""
    note: str = ""

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        return [f"{cell:.0e}" if isinstance(cell, float) else cell for cell in vars(self).values()]


COLUMNS = (
    "family", "read as", "log-probabilities", "gradients", "draws", "reward head", "score", "bfloat16", "LoRA",
    "value layers", "what was refused",
)  # fmt: skip


def make_prefixes(vocab_size: int) -> list[SharedPrefix]:
    """Return two prompts with three completions."""
    rng = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, vocab_size, (length,), generator=rng).tolist())

    return [SharedPrefix(ids(11), (ids(8), ids(5))), SharedPrefix(ids(4), (ids(14),))]


def make_tokenizer() -> Any:
    """Return a tokenizer of bytes and a few merges, with ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        ["Name a bird. An owl. A wren. Another?"] * 4,
        trainers.BpeTrainer(
            vocab_size=280, special_tokens=names, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHATML
    return tokenizer


def make(family: str, folder: Path) -> Path:
    """Write a model of a family with weights large enough to make an error visible."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 1}
    settings = FAMILIES[family]
    if "text_config" in settings:
        config = AutoConfig.for_model(family, **settings | {"text_config": settings["text_config"] | ids})
    else:
        extra = {"vocab_size_per_layer_input": len(tokenizer)} if family.startswith("gemma") else {}
        config = AutoConfig.for_model(family, **settings | ids | extra)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reference_logprobs(model: Any, prefixes: list[SharedPrefix], read: Callable[[Any], Tensor]) -> list[Tensor]:
    """Return the log-probabilities of each completion by transformers' own forward pass, row by row."""
    rows = [(torch.tensor([[*p.prefix, *c]]), len(c)) for p in prefixes for c in p.completions]
    return [read(model(input_ids=ids, use_cache=False))[-length - 1 : -1].gather(1, ids[0, -length:, None])[:, 0]
            for ids, length in rows]  # fmt: skip


def max_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((actual - expected).abs().max())


def take_gradients(model: Any) -> dict[str, Tensor]:
    """Return the gradients of the weights, and clear them."""
    named = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return named


def measure(family: str, folder: Path) -> Row:
    """Return all measurements of one family."""
    from transformers import AutoModelForCausalLM

    make(family, folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            policy = load_policy(folder)
    except AssentError as error:
        return Row("refused", note=str(error).replace(str(folder), "it"))
    model: Any = policy.model
    plain: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    prefixes = make_prefixes(model.config.get_text_config().vocab_size)
    actual = logprobs(model, pack(prefixes)).logprobs
    expected = torch.cat(reference_logprobs(plain, prefixes, lambda out: out.logits[0].float().log_softmax(-1)))
    actual.sum().backward()
    expected.sum().backward()
    gradients = take_gradients(model)
    reference = take_gradients(plain)
    largest = max(float(grad.abs().max()) for grad in reference.values())
    zero = torch.zeros(())
    differences = [
        max_difference(gradients.get(name, zero), reference.get(name, zero)) for name in {*gradients, *reference}
    ]
    row = Row(
        "packs" if supports_packing(model.base_model) else "rows",
        max_difference(actual.detach(), expected.detach()),
        max(differences) / largest,
        compare_samples(model, plain, prefixes[0].prefix),
        bfloat16=try_bfloat16(policy, prefixes),
    )
    return measure_adapter(measure_reward(row, folder, prefixes), folder, prefixes)


def compare_samples(model: Any, plain: Any, prompt: tuple[int, ...]) -> str:
    """Compare greedy tokens with transformers' `generate`, and log-probabilities of samples with its forward pass."""
    stop_ids = frozenset({3})
    ids = torch.tensor([prompt])
    assert kv_cache_bytes(model, [len(prompt)], 2, 8) > 0  # every online stage calls it first
    has_cache = model.generation_config.use_cache is not False
    plain.generation_config = sampling_config(stop_ids, 8)
    if has_cache:
        expected_ids = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)[
            0, len(prompt) :
        ].tolist()
    else:
        for _ in range(8):
            ids = torch.cat([ids, plain(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        expected_ids = ids[0, len(prompt) :].tolist()
    greedy = sample_completions(model, [prompt], 2, Sampling(0.0, 8), stop_ids, 0)[0].token_ids
    prompts = [prompt, prompt[::-1], prompt[:3]]
    samples = sample_completions(model, prompts, 2, Sampling(1.0, 8), stop_ids, 0)
    actual = torch.cat([torch.tensor(sample.logprobs) for sample in samples])
    prefixes = [SharedPrefix(prompts[sample.prompt_index], (sample.token_ids,)) for sample in samples]
    with torch.no_grad():
        expected = torch.cat(reference_logprobs(plain, prefixes, lambda out: out.logits[0].float().log_softmax(-1)))
    is_equal = list(greedy) == expected_ids[: len(greedy)] and max_difference(actual, expected) < 1e-3
    return ("equal" if is_equal else "different") + ("" if has_cache else ", without a cache")


def try_bfloat16(loaded: LoadedModel, prefixes: list[SharedPrefix]) -> str:
    """Sample from a policy (or score with a reward model) in bfloat16 and train one step; the model is changed."""
    state = ReplicatedState(loaded, Training(), 1, torch.bfloat16)
    model: Any = state.model
    try:
        if hasattr(model, "score"):
            values = scores(model, pack(prefixes))[:, 0]
        else:
            sample_completions(model, [shared.prefix for shared in prefixes], 2, Sampling(1.0, 2), frozenset({3}), 0)
            packed = pack(prefixes)
            values = packed.sum_completions(logprobs(model, packed).logprobs)
        loss = -torch.nn.functional.logsigmoid(values[0] - values[1])
        loss.backward()
        state.step(0)
    except (AssentError, RuntimeError) as error:
        return f"fails: {str(error).splitlines()[0]}"
    finally:
        state.release()
    return "works" if bool(loss.isfinite()) else "not finite"


def measure_reward(row: Row, folder: Path, prefixes: list[SharedPrefix]) -> Row:
    """Add a reward model of the family: saved, loaded again, and compared with plain transformers."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            reward = new_reward(folder, 0)
            save(reward, folder / "reward")
            loaded = load_reward(folder / "reward")
    except AssentError as error:
        return replace(row, reward="none", note=str(error).replace(str(folder), "it"))
    rows = [torch.tensor([[*p.prefix, *c]]) for p in prefixes for c in p.completions]
    with torch.no_grad():
        actual = scores(loaded.model, pack(prefixes))[:, 0]
        if isinstance(reward.model, RewardModel):
            body, head = AutoModel.from_pretrained(folder / "reward").eval(), read_head(folder / "reward")
            assert head is not None
            single = [(body(input_ids=ids, use_cache=False).last_hidden_state[0, -1] @ head.T)[0] for ids in rows]
        else:
            classifier: Any = AutoModelForSequenceClassification.from_pretrained(folder / "reward").eval()
            classifier.config.pad_token_id = None  # rows one by one: the last token counts
            single = [classifier(input_ids=ids, use_cache=False).logits[0, 0] for ids in rows]
    expected = torch.stack(single)
    library = "assent" if isinstance(reward.model, RewardModel) else "transformers"
    row = replace(row, reward=library, score=max_difference(actual, expected) / float(expected.abs().max()))
    return replace(row, bfloat16=try_bfloat16(loaded, prefixes)) if row.bfloat16 == "works" else row


def measure_adapter(row: Row, folder: Path, prefixes: list[SharedPrefix]) -> Row:
    """Add the effect of a LoRA adapter, and the number of layers that a value model can train."""
    with contextlib.redirect_stderr(io.StringIO()):
        policy = load_policy(folder)
    try:
        count = f"{len(decoder_layers(policy.model))}"
    except AssentError:
        count = "none"
    row = replace(row, value_layers=count)
    try:
        with torch.no_grad():
            before = logprobs(policy.model, pack(prefixes)).logprobs
        peft: Any = add_adapter(policy.model, lora_config(4))
        logprobs(policy.model, pack(prefixes)).logprobs.sum().backward()
        with torch.no_grad():
            for weight in policy.model.parameters():
                if weight.grad is not None:
                    weight.add_(1e-2 * weight.grad.sign())
            after = logprobs(policy.model, pack(prefixes)).logprobs
            merged = logprobs(peft.merge_and_unload(), pack(prefixes)).logprobs
    except AssentError as error:
        return replace(row, lora="refused", note=str(error))
    works = max_difference(after, before) > 1e-4 and max_difference(merged, after) < 1e-3
    return replace(row, lora="works" if works else f"different by {max_difference(merged, after):.0e}")


def table(rows: dict[str, Row]) -> str:
    """Return the table in Markdown, below the versions of the libraries."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    lines = [f"Measured with {versions}.", "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    return "\n".join([*lines, *(f"| {' | '.join([f'`{family}`', *row.cells()])} |" for family, row in rows.items())])


def read_table(page: str) -> dict[str, Row]:
    """Return the rows of a page by family."""
    lines = [line for line in page.partition(BEGIN)[2].partition(END)[0].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): Row(*row[1:]) for row in cells}


def main(families: list[str]) -> None:
    """Measure families and print the results; without names, measure all and write the table."""
    warnings.filterwarnings("ignore")
    rows: dict[str, Row] = {}
    for family in families or FAMILIES:
        with silence_transformers(), tempfile.TemporaryDirectory() as folder:
            rows[family] = measure(family, Path(folder))
        print(family, *(cell or "-" for cell in rows[family].cells()), sep="  ", flush=True)
    if not families:
        before, _, after = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
