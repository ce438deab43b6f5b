"""An adapter's folder as peft writes it, merged into the weights of its base."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from assent.errors import AssentError
from assent.models.heads import HEAD, RewardModel, own_head

CONFIG = "adapter_config.json"
BASE = "base.json"
"""What assent writes beside its own adapters: whose weights they were trained on, and the scale of their rewards."""
VOCABULARY = "embed_tokens.", "lm_head."
"""What peft keeps whole where tokens were added, in tied models twice."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    whole = next((path for name in ("model*.safetensors", "pytorch_model*.bin") for path in folder.glob(name)), None)
    return (folder / CONFIG).exists() and whole is None


def base_of(adapter: Path) -> str:
    """The folder or hub id of the model that an adapter was trained on.

    Raises:
        AssentError: its configuration is broken, names none, or leads back to itself.
    """
    base = _base_of(adapter)
    place, passed = Path(base).expanduser(), {adapter.resolve()}
    while place.is_dir() and is_adapter(place):
        if place.resolve() in passed:
            raise AssentError(
                f"{adapter} is an adapter of itself, and so of no model: write the folder or id of the model that it "
                f"was trained on as base_model_name_or_path into {place / CONFIG}"
            )
        passed.add(place.resolve())
        place = Path(_base_of(place)).expanduser()
    return base


def _base_of(adapter: Path) -> str:
    base = _config(adapter).get("base_model_name_or_path")
    if not base:
        raise AssentError(f"{adapter / CONFIG} names no base model: write its folder or id as base_model_name_or_path")
    return str(base)


def merge(adapter: Path, place: str) -> Any:
    """The base in float32 with an adapter in its weights: a reward model where it was trained as a classifier.

    Raises:
        AssentError: peft cannot merge the two.
    """
    try:
        return _merged(adapter, place)
    except AssentError:
        raise
    except Exception as error:  # noqa: BLE001 (peft, torch and transformers raise any kind)
        lines = [line.strip() for line in str(error).splitlines() if not line.rstrip().endswith(":")]
        why = f"{type(error).__name__}: {lines[0] if lines else ''}"
        raise AssentError(f"cannot merge the adapter in {adapter} into {place}: {why}") from None


def _merged(adapter: Path, place: str) -> Any:
    from peft.utils.save_and_load import load_peft_weights
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    task, weights = _config(adapter).get("task_type"), load_peft_weights(str(adapter), device="cpu")
    heads = next((len(weight) for name, weight in weights.items() if name.endswith(HEAD)), 0)
    own = own_head(adapter)
    if (task or "CAUSAL_LM") not in ("CAUSAL_LM", "SEQ_CLS") and not own:
        raise AssentError(f"{adapter} is an adapter for the task {task}: one for CAUSAL_LM or SEQ_CLS is needed")
    if not heads and not own and (task == "SEQ_CLS" or _was_reward(adapter)):
        raise AssentError(f"{adapter} holds no reward head ({HEAD}): name the folder of the merged model instead")
    if heads:
        model: Any = AutoModelForSequenceClassification.from_pretrained(place, dtype=torch.float32, num_labels=heads)
    else:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    tables = [weight for name, weight in weights.items() if any(f"{part}weight" in name for part in VOCABULARY)]
    rows = max(map(len, tables), default=0)
    if rows > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model = _unloaded(adapter, place, model)
    if own:
        weight = load_file(own)[HEAD]
        model = RewardModel(model.base_model, len(weight))
        model.score.weight.data.copy_(weight)
    if heads or own:
        scale = adapter / BASE
        known = json.loads(scale.read_text(encoding="utf-8")).get("config", {}) if scale.exists() else {}
        model.config.update({"reward_heads": len(model.score.weight), **known})
    return model


def _unloaded(adapter: Path, place: str, model: Any) -> Any:
    """A model with an adapter in its weights."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters of it is in `load_adapter`'s result
        peft: Any = PeftModel.from_pretrained(model, str(adapter))
        if peft.active_peft_config.is_prompt_learning:
            kind = peft.active_peft_config.peft_type.value
            raise AssentError(f"{adapter} is an adapter of the kind {kind}, which cannot be merged into weights")
        loaded = peft.load_adapter(str(adapter), "default")
        besides = [name for name in loaded.unexpected_keys if not any(part in name for part in VOCABULARY)]
        if odd := [*loaded.missing_keys, *besides]:
            raise AssentError(f"the adapter in {adapter} does not fit {place}: {odd[0]} is in one of them only")
        return peft.merge_and_unload()


def _config(adapter: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssentError(f"cannot read {adapter / CONFIG}: {error}") from None
    return config


def _was_reward(adapter: Path) -> bool:
    """Whether an adapter was written before heads were: the merged reward model lies around it."""
    around = adapter.parent / "config.json"
    return (adapter / BASE).exists() and around.exists() and "reward_heads" in around.read_text(encoding="utf-8")
