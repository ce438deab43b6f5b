"""Merging an adapter, in a folder as peft writes it, into the weights of its base."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from assent.errors import AssentError
from assent.models.heads import HEAD_KEY, RewardModel, find_head_file

ADAPTER_CONFIG = "adapter_config.json"
BASE_FILE = "base.json"
"""File that assent writes beside its adapters: the weights they were trained on, and the scale of their rewards."""
VOCABULARY_PARTS = ("embed_tokens.", "lm_head.")
"""Parts that peft saves whole where tokens were added, in tied models twice."""


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no full model."""
    model_file = next(
        (path for name in ("model*.safetensors", "pytorch_model*.bin") for path in folder.glob(name)), None
    )
    return (folder / ADAPTER_CONFIG).exists() and model_file is None


def base_model_of(adapter: Path) -> str:
    """Return the folder or hub id of the model that an adapter was trained on.

    Raises:
        AssentError: the adapter's configuration is broken, names no base, or leads back to itself.
    """
    base = _read_base(adapter)
    place = Path(base).expanduser()
    visited = {adapter.resolve()}
    while place.is_dir() and is_adapter(place):
        if place.resolve() in visited:
            raise AssentError(
                f"{adapter} is an adapter of itself, and so of no model; set base_model_name_or_path in "
                f"{place / ADAPTER_CONFIG} to the folder or id of the model that it was trained on"
            )
        visited.add(place.resolve())
        place = Path(_read_base(place)).expanduser()
    return base


def _read_base(adapter: Path) -> str:
    base = _config(adapter).get("base_model_name_or_path")
    if not base:
        raise AssentError(
            f"{adapter / ADAPTER_CONFIG} names no base model; set base_model_name_or_path to its folder or id"
        )
    return str(base)


def merge(adapter: Path, place: str) -> Any:
    """Return the base in float32 with an adapter merged in; an adapter of a classifier gives a reward model.

    Raises:
        AssentError: peft cannot merge the two.
    """
    try:
        return _load_and_merge(adapter, place)
    except AssentError:
        raise
    except Exception as error:  # noqa: BLE001 (peft, torch and transformers raise any kind)
        lines = [line.strip() for line in str(error).splitlines() if not line.rstrip().endswith(":")]
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        raise AssentError(f"cannot merge the adapter in {adapter} into {place}: {reason}") from None


def _load_and_merge(adapter: Path, place: str) -> Any:
    from peft.utils.save_and_load import load_peft_weights
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    task = _config(adapter).get("task_type")
    weights = load_peft_weights(str(adapter), device="cpu")
    heads = next((len(weight) for name, weight in weights.items() if name.endswith(HEAD_KEY)), 0)
    head_file = find_head_file(adapter)
    if (task or "CAUSAL_LM") not in ("CAUSAL_LM", "SEQ_CLS") and not head_file:
        raise AssentError(f"{adapter} is an adapter for the task {task}; one for CAUSAL_LM or SEQ_CLS is needed")
    if not heads and not head_file and (task == "SEQ_CLS" or _was_reward(adapter)):
        raise AssentError(f"{adapter} holds no reward head ({HEAD_KEY}); name the folder of the merged model instead")
    if heads:
        model: Any = AutoModelForSequenceClassification.from_pretrained(place, dtype=torch.float32, num_labels=heads)
    else:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    tables = [weight for name, weight in weights.items() if any(f"{part}weight" in name for part in VOCABULARY_PARTS)]
    rows = max(map(len, tables), default=0)
    if rows > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model = _merge_weights(adapter, place, model)
    if head_file:
        weight = load_file(head_file)[HEAD_KEY]
        model = RewardModel(model.base_model, len(weight))
        model.score.weight.data.copy_(weight)
    if heads or head_file:
        base_file = adapter / BASE_FILE
        scale = json.loads(base_file.read_text(encoding="utf-8")).get("config", {}) if base_file.exists() else {}
        model.config.update({"reward_heads": len(model.score.weight), **scale})
    return model


def _merge_weights(adapter: Path, place: str, model: Any) -> Any:
    """Return a model with an adapter merged into its weights."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the result of `load_adapter` has the same facts
        peft: Any = PeftModel.from_pretrained(model, str(adapter))
        if peft.active_peft_config.is_prompt_learning:
            kind = peft.active_peft_config.peft_type.value
            raise AssentError(f"{adapter} is a {kind} adapter, which cannot be merged into weights")
        loaded = peft.load_adapter(str(adapter), "default")
        unexpected = [name for name in loaded.unexpected_keys if not any(part in name for part in VOCABULARY_PARTS)]
        if misfits := [*loaded.missing_keys, *unexpected]:
            raise AssentError(f"the adapter in {adapter} does not fit {place}: {misfits[0]} is in one of them only")
        return peft.merge_and_unload()


def _config(adapter: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssentError(f"cannot read {adapter / ADAPTER_CONFIG}: {error}") from None
    return config


def _was_reward(adapter: Path) -> bool:
    """Return whether an adapter of a reward model was written by a version that did not yet save its head with it."""
    merged = adapter.parent / "config.json"
    return (adapter / BASE_FILE).exists() and merged.exists() and "reward_heads" in merged.read_text(encoding="utf-8")
