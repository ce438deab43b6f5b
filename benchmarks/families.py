"""Every family of models by the same measures: which way assent reads it, and how far from transformers' own numbers.

    python benchmarks/families.py [family ...]

A tiny model of each with random weights, made on the spot. Without names, the table of docs/families.md is written.
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
from assent.generation.local import Sampling, kv_cache_bytes, sample
from assent.models.adapters import attach, lora
from assent.models.attention import SharedPrefix, pack, shares
from assent.models.checkpoints import quiet, save
from assent.models.families import drawing
from assent.models.forward import blocks, logprobs, scores
from assent.models.heads import RewardModel, stored_head
from assent.models.load import LoadedModel, load_policy, load_reward, new_reward
from assent.training.replicated import Training, TrainState

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WINDOW = 6
"""Tokens that a layer with a window sees: fewer than the trees below have."""

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
USUAL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
BARE = {"hidden_size": 32, "num_hidden_layers": 2}
HEADS = USUAL | {"head_dim": 8}
LATENT = USUAL | {
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
    "apertus": USUAL,
    "arcee": USUAL,
    "bamba": USUAL | SSM | {"attn_layer_indices": [1]},
    "bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    },
    "biogpt": USUAL,
    "bitnet": USUAL,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": GPT | {"rotary_dim": 4},
    "cohere": USUAL | {"logit_scale": 0.25},
    "cohere2": HEADS | {"logit_scale": 0.25, "sliding_window": WINDOW},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "dff": 64},
    "deepseek_v2": LATENT | ROUTED,
    "deepseek_v3": LATENT | ROUTED,
    "diffllama": USUAL,
    "doge": USUAL,
    "dots1": HEADS | ROUTED | {"n_shared_experts": 1},
    "electra": USUAL | {"is_decoder": True, "embedding_size": 32},
    "ernie4_5": HEADS,
    "exaone4": USUAL | {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "falcon": USUAL,
    "falcon_h1": USUAL | SSM | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.25},
    "falcon_mamba": BARE | {"state_size": 8},
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
    "gpt_neox": USUAL,
    "gpt_neox_japanese": USUAL,
    "gpt_oss": HEADS | LOCAL | MIXED | {"rope_scaling": None},
    "gptj": GPT | {"rotary_dim": 4},
    "granite": USUAL | {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "granitemoe": USUAL | LOCAL | {"logits_scaling": 4.0},
    "granitemoehybrid": USUAL | LOCAL | SSM | {
        "logits_scaling": 4.0, "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"],
    },
    "helium": HEADS,
    "hunyuan_v1_dense": HEADS,
    "hyperclovax": HEADS | {"logits_scaling": 0.25},
    "jamba": USUAL | {
        "mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
        "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False,
    },
    "jetmoe": USUAL | LOCAL | {"kv_channels": 8},
    "lfm2": USUAL | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "llama": USUAL,
    "llama4_text": HEADS | {
        "num_local_experts": 4, "intermediate_size_mlp": 64, "attention_chunk_size": WINDOW, "no_rope_layers": [1, 0],
    },
    "mamba": BARE | {"state_size": 8},
    "mamba2": BARE | {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "minicpm3": LATENT | {"dim_model_base": 16, "scale_emb": 2, "scale_depth": 1.4},
    "minimax": HEADS | LOCAL,
    "ministral3": USUAL,
    "mistral": USUAL | {"sliding_window": WINDOW},
    "mixtral": USUAL | LOCAL,
    "modernbert-decoder": USUAL | {"local_attention": WINDOW, "global_attn_every_n_layers": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "nanochat": USUAL,
    "nemotron": USUAL,
    "olmo": USUAL,
    "olmo2": USUAL,
    "olmo3": USUAL | {"sliding_window": WINDOW},
    "olmoe": USUAL | EXPERTS,
    "openai-gpt": GPT,
    "opt": USUAL | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": USUAL,
    "phi": USUAL,
    "phi3": USUAL,
    "phimoe": USUAL | LOCAL,
    "qwen2": USUAL | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen2_moe": USUAL | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3": HEADS,
    "qwen3_5_text": HEADS | LINEAR,
    "qwen3_moe": HEADS | EXPERTS,
    "qwen3_next": HEADS | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16},
    "recurrent_gemma": HEADS | {
        "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": WINDOW, "logits_soft_cap": 2.0,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "roberta": USUAL | {"is_decoder": True},
    "rwkv": BARE | {"attention_hidden_size": 32, "rescale_every": 1},
    "seed_oss": HEADS,
    "smollm3": USUAL | {"no_rope_layers": [1, 0]},
    "stablelm": USUAL,
    "starcoder2": USUAL | {"sliding_window": WINDOW},
    "vaultgemma": HEADS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": 128},
    "xlstm": {"hidden_size": 32, "embedding_dim": 32, "num_blocks": 2, "num_heads": 4},
    "zamba2": USUAL | {
        "num_key_value_heads": 4, "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4, "mamba_headdim": 16,
        "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "use_mamba_kernels": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What was measured of one family; a cell that is empty could not be."""

    way: str
    """`packs`, `rows`, or `refused`."""
    logprobs: float | str = ""
    gradients: float | str = ""
    draws: str = ""
    reward: str = ""
    """Whose head: `transformers`, `assent`, or none."""
    score: float | str = ""
    bfloat16: str = ""
    """Whether a step of training, drawing and scoring come to finite numbers in it."""
    lora: str = ""
    value_layers: str = ""
    note: str = ""

    def cells(self) -> list[str]:
        return [f"{cell:.0e}" if isinstance(cell, float) else cell for cell in vars(self).values()]


COLUMNS = (
    "family", "read as", "log-probabilities", "gradients", "draws", "reward head", "score", "bfloat16", "LoRA",
    "value layers", "what was refused",
)  # fmt: skip


def trees(size: int) -> list[SharedPrefix]:
    """Two prompts with three answers."""
    dice = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, size, (length,), generator=dice).tolist())

    return [SharedPrefix(ids(11), (ids(8), ids(5))), SharedPrefix(ids(4), (ids(14),))]


def make_tokenizer() -> Any:
    """Bytes and a few merges, with ChatML."""
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
    """Write a model of a family with weights large enough to make a mistake plain."""
    from transformers import AutoConfig, AutoModelForCausalLM

    quiet()
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 1}
    settings = FAMILIES[family]
    if "text_config" in settings:
        config = AutoConfig.for_model(family, **settings | {"text_config": settings["text_config"] | ids})
    else:
        more = {"vocab_size_per_layer_input": len(tokenizer)} if family.startswith("gemma") else {}
        config = AutoConfig.for_model(family, **settings | ids | more)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def theirs(model: Any, forest: list[SharedPrefix], read: Callable[[Any], Tensor]) -> list[Tensor]:
    """What transformers' own forward says of each branch, row by row."""
    rows = [(torch.tensor([[*t.prefix, *b]]), len(b)) for t in forest for b in t.completions]
    return [read(model(input_ids=ids, use_cache=False))[-length - 1 : -1].gather(1, ids[0, -length:, None])[:, 0]
            for ids, length in rows]  # fmt: skip


def gap(ours: Tensor, expected: Tensor) -> float:
    """The largest difference."""
    return float((ours - expected).abs().max())


def gradients(model: Any) -> dict[str, Tensor]:
    """What the weights have gathered; afterwards they have nothing."""
    named = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return named


def measure(family: str, folder: Path) -> Row:
    """All measures of one family."""
    from transformers import AutoModelForCausalLM

    make(family, folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            policy = load_policy(folder)
    except AssentError as error:
        return Row("refused", note=str(error).replace(str(folder), "it"))
    model: Any = policy.model
    plain: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    forest = trees(model.config.get_text_config().vocab_size)
    ours = logprobs(model, pack(forest)).logprobs
    expected = torch.cat(theirs(plain, forest, lambda out: out.logits[0].float().log_softmax(-1)))
    ours.sum().backward()
    expected.sum().backward()
    own, usual = gradients(model), gradients(plain)
    largest, nothing = max(float(grad.abs().max()) for grad in usual.values()), torch.zeros(())
    apart = [gap(own.get(name, nothing), usual.get(name, nothing)) for name in {*own, *usual}]
    row = Row(
        "packs" if shares(model.base_model) else "rows",
        gap(ours.detach(), expected.detach()),
        max(apart) / largest,
        draws(model, plain, forest[0].prefix),
        bfloat16=halved(policy, forest),
    )
    return adapted(rewarded(row, folder, forest), folder, forest)


def draws(model: Any, plain: Any, prompt: tuple[int, ...]) -> str:
    """Whether the likeliest tokens are those of transformers' `generate`, and others as likely as its forward says."""
    ends, ids = frozenset({3}), torch.tensor([prompt])
    assert kv_cache_bytes(model, [len(prompt)], 2, 8) > 0  # what every online stage asks first
    cached = model.generation_config.use_cache is not False
    plain.generation_config = drawing(ends, 8)
    if cached:
        usual = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)[0, len(prompt) :].tolist()
    else:
        for _ in range(8):
            ids = torch.cat([ids, plain(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        usual = ids[0, len(prompt) :].tolist()
    likeliest = sample(model, [prompt], 2, Sampling(0.0, 8), ends, torch.Generator())[0].ids
    prompts = [prompt, prompt[::-1], prompt[:3]]
    drawn = sample(model, prompts, 2, Sampling(1.0, 8), ends, torch.Generator().manual_seed(0))
    ours = torch.cat([torch.tensor(each.logprobs) for each in drawn])
    forest = [SharedPrefix(prompts[each.prompt], (each.ids,)) for each in drawn]
    with torch.no_grad():
        expected = torch.cat(theirs(plain, forest, lambda out: out.logits[0].float().log_softmax(-1)))
    equal = list(likeliest) == usual[: len(likeliest)] and gap(ours, expected) < 1e-3
    return ("equal" if equal else "different") + ("" if cached else ", without a cache")


def halved(language: LoadedModel, forest: list[SharedPrefix]) -> str:
    """Whether a model is drawn from and moved, or scores and is moved, in bfloat16; it is no more what it was then."""
    trainee = TrainState(language, Training(), 1, torch.bfloat16)
    model: Any = trainee.model
    try:
        if hasattr(model, "score"):
            said = scores(model, pack(forest))[:, 0]
        else:
            sample(model, [tree.prefix for tree in forest], 2, Sampling(1.0, 2), frozenset({3}), torch.Generator())
            packed = pack(forest)
            said = packed.sums(logprobs(model, packed).logprobs)
        loss = -torch.nn.functional.logsigmoid(said[0] - said[1])
        loss.backward()
        trainee.step(0)
    except (AssentError, RuntimeError) as error:
        return f"fails: {str(error).splitlines()[0]}"
    finally:
        trainee.release()
    return "works" if bool(loss.isfinite()) else "not finite"


def rewarded(row: Row, folder: Path, forest: list[SharedPrefix]) -> Row:
    """With a reward model of the family, written, read again, and read the usual way."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            reward = new_reward(folder, 0)
            save(reward, folder / "reward")
            again = load_reward(folder / "reward")
    except AssentError as error:
        return replace(row, reward="none", note=str(error).replace(str(folder), "it"))
    rows = [torch.tensor([[*t.prefix, *b]]) for t in forest for b in t.completions]
    with torch.no_grad():
        ours = scores(again.model, pack(forest))[:, 0]
        if isinstance(reward.model, RewardModel):
            body, head = AutoModel.from_pretrained(folder / "reward").eval(), stored_head(folder / "reward")
            assert head is not None
            single = [(body(input_ids=ids, use_cache=False).last_hidden_state[0, -1] @ head.T)[0] for ids in rows]
        else:
            usual: Any = AutoModelForSequenceClassification.from_pretrained(folder / "reward").eval()
            usual.config.pad_token_id = None  # rows one by one: the last token counts
            single = [usual(input_ids=ids, use_cache=False).logits[0, 0] for ids in rows]
    expected = torch.stack(single)
    own = "assent" if isinstance(reward.model, RewardModel) else "transformers"
    row = replace(row, reward=own, score=gap(ours, expected) / float(expected.abs().max()))
    return replace(row, bfloat16=halved(again, forest)) if row.bfloat16 == "works" else row


def adapted(row: Row, folder: Path, forest: list[SharedPrefix]) -> Row:
    """With what an adapter does, and the layers of a value model."""
    with contextlib.redirect_stderr(io.StringIO()):
        language = load_policy(folder)
    try:
        count = f"{len(blocks(language.model))}"
    except AssentError:
        count = "none"
    row = replace(row, value_layers=count)
    try:
        with torch.no_grad():
            before = logprobs(language.model, pack(forest)).logprobs
        peft: Any = attach(language.model, lora(4))
        logprobs(language.model, pack(forest)).logprobs.sum().backward()
        with torch.no_grad():
            for weight in language.model.parameters():
                if weight.grad is not None:
                    weight.add_(1e-2 * weight.grad.sign())
            after = logprobs(language.model, pack(forest)).logprobs
            merged = logprobs(peft.merge_and_unload(), pack(forest)).logprobs
    except AssentError as error:
        return replace(row, lora="refused", note=str(error))
    works = gap(after, before) > 1e-4 and gap(merged, after) < 1e-3
    return replace(row, lora="works" if works else f"different by {gap(merged, after):.0e}")


def table(rows: dict[str, Row]) -> str:
    """Markdown, under the versions that were measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    lines = [f"Measured with {versions}.", "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    return "\n".join([*lines, *(f"| {' | '.join([f'`{family}`', *row.cells()])} |" for family, row in rows.items())])


def written(page: str) -> dict[str, Row]:
    """What a page says of each family."""
    lines = [line for line in page.partition(BEGIN)[2].partition(END)[0].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): Row(*rest) for first, *rest in cells}


def main(families: list[str]) -> None:
    """Measure, tell, and without names write the table."""
    warnings.filterwarnings("ignore")
    rows: dict[str, Row] = {}
    for family in families or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows[family] = measure(family, Path(folder))
        print(family, *(cell or "-" for cell in rows[family].cells()), sep="  ", flush=True)
    if not families:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
