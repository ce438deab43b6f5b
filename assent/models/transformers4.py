"""The files of transformers 5 with the keys of version 4 added, which many programs still read checkpoints with.

Version 5 moved RoPE's parameters into `rope_parameters`, where version 4 does not look; it would use a base of 10,000.
"""

from collections.abc import Mapping
from typing import Any

ROPE_NAMES = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "modernbert-decoder": {"rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
}
"""Names of RoPE's parameters in version 4, for families that do not use the standard ones."""


def add_config_keys(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `config.json` of version 5 with the keys of version 4: `torch_dtype`, `rope_theta`, `rope_scaling`."""
    names = ROPE_NAMES.get(written.get("model_type", ""), {})
    older: dict[str, Any] = {names.get(name, name): value for name, value in _version_4_rope(written).items()}
    if written.get("model_type") == "qwen3_moe":
        older["num_experts"] = written["num_local_experts"]
    if "dtype" in written:
        older["torch_dtype"] = written["dtype"]
    if "text_config" in written:
        older["text_config"] = add_config_keys(written["text_config"])
    return {**written, **older}


def add_tokenizer_keys(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `tokenizer_config.json` for version 4: with a class that it has and its key for more special tokens."""
    older = dict(written)
    if older.get("tokenizer_class") == "TokenizersBackend":
        older["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(older.get("extra_special_tokens"), list):
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older


def _version_4_rope(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return RoPE's parameters under the standard names of version 4."""
    parameters = written.get("rope_parameters") or {}
    full, sliding = parameters.get("full_attention", parameters), parameters.get("sliding_attention")
    if not full or "rope_theta" not in full:
        return {}
    scaling = {key: full[key] for key in full.keys() - {"rope_theta", "partial_rotary_factor"}}
    if written.get("model_type") == "phi3":  # version 4 requires these three and has the others elsewhere
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
