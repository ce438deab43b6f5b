"""What transformers 5 writes, in the words of version 4 too, which many programs still read checkpoints with.

Version 5 moved RoPE's numbers into `rope_parameters`, where version 4 does not look: it would take a base of 10,000.
"""

from collections.abc import Mapping
from typing import Any

OWN_NAMES = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "modernbert-decoder": {"rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
}
"""Families that version 4 knows RoPE's numbers of under names of their own."""


def config(written: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` of version 5 with the keys of version 4 besides: `torch_dtype`, `rope_theta`, `rope_scaling`."""
    own = OWN_NAMES.get(written.get("model_type", ""), {})
    older: dict[str, Any] = {own.get(name, name): value for name, value in _rope(written).items()}
    if written.get("model_type") == "qwen3_moe":
        older["num_experts"] = written["num_local_experts"]
    if "dtype" in written:
        older["torch_dtype"] = written["dtype"]
    if "text_config" in written:
        older["text_config"] = config(written["text_config"])
    return {**written, **older}


def tokenizer_config(written: Mapping[str, Any]) -> dict[str, Any]:
    """A `tokenizer_config.json` that version 4 reads: a class that it knows, and further special tokens by its name."""
    older = dict(written)
    if older.get("tokenizer_class") == "TokenizersBackend":
        older["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(older.get("extra_special_tokens"), list):
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older


def _rope(written: Mapping[str, Any]) -> dict[str, Any]:
    parameters = written.get("rope_parameters") or {}
    full, sliding = parameters.get("full_attention", parameters), parameters.get("sliding_attention")
    if not full or "rope_theta" not in full:
        return {}
    scaling = {key: full[key] for key in full.keys() - {"rope_theta", "partial_rotary_factor"}}
    if written.get("model_type") == "phi3":  # version 4 demands these three, and has the others elsewhere
        scaling = {"type": full["rope_type"]} | {
            key: full[key] for key in ("short_factor", "long_factor") if key in full
        }
    older = {"rope_theta": full["rope_theta"]}
    if full.get("rope_type", "default") != "default":
        older["rope_scaling"] = scaling
    if "partial_rotary_factor" in full:
        older["partial_rotary_factor"] = full["partial_rotary_factor"]
    if sliding:
        older["rope_local_base_freq"] = sliding["rope_theta"]
    return older
