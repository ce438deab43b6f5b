"""LoRA: policy, value model and reward model as adapters on one frozen model; the reference is the model alone.

Hu et al. 2021 (arXiv:2106.09685). Each adapter adds B A to every linear map; a reward or value model also has a head.
One model in memory serves all of them, one at a time.
"""

import json
import warnings
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assent.errors import AssentError
from assent.models.checkpoints import locate, weights_digest
from assent.models.heads import HEAD_FILE, HEAD_KEY, RewardModel, read_head
from assent.models.load import LoadedModel
from assent.models.merging import BASE_FILE

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

ADAPTER_FOLDER = "adapter"
"""Folder of a checkpoint for the adapter, beside the merged weights."""
PEFT_HEAD_KEY = f"base_model.model.{HEAD_KEY}"
"""Name of a classifier's head in an adapter of peft."""
SCORE_SCALE_KEYS = ("reward_heads", "reward_mean", "reward_std")
"""Keys of a reward model's configuration about its scores."""


def add_adapter(model: "PreTrainedModel", config: "LoraConfig", name: str = "default") -> "PeftModel":
    """Put a new adapter into a model, in place, and freeze the rest.

    Raises:
        AssentError: peft does not support the model.
    """
    from peft import get_peft_model

    config.exclude_modules = _excluded_modules(model)
    with warnings.catch_warnings():  # peft uses an old name of transformers 5
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return get_peft_model(model, config, adapter_name=name)
        except ValueError as error:
            reason = str(error).strip().partition("\n")[0]
            raise AssentError(f"peft cannot add LoRA to a {type(model.base_model).__name__}: {reason}") from None


def _excluded_modules(model: nn.Module) -> list[str] | None:
    """Return the linear maps that get no LoRA.

    They are routers of experts, which return more than a product, and maps of a state space model (Mamba) whose kernels
    use the weights directly, past any adapter.
    """
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and not _is_product(part)]
    for name, part in model.named_modules():
        if hasattr(part, "A_log") and hasattr(part, "D"):
            names += [f"{name}.{child}" for child in ("conv1d", "out_proj")]
    return names or None


@torch.no_grad()
def _is_product(part: nn.Linear) -> bool:
    """Return whether a linear map, perhaps of a derived class, returns one product."""
    return type(part) is nn.Linear or isinstance(part(part.weight[:1]), Tensor)


def lora_config(rank: int, alpha: int = 0, head: bool = False) -> "LoraConfig":
    """Return LoRA's configuration for every linear map; `head`: train a new head in full. Alpha 0: twice the rank."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,
        target_modules="all-linear",
        modules_to_save=["score"] if head else None,
    )


def save_adapter(peft: "PeftModel", name: str, folder: Path) -> None:
    """Write an adapter into `folder/adapter` as peft reads it, with its reward head and a digest of its base's weights.

    The head of a `RewardModel` goes into a file of its own: peft has no class for it.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    model: Any = peft.base_model.model
    has_head_file = isinstance(model, RewardModel)
    place = str(model.name_or_path)
    target = folder / ADAPTER_FOLDER
    state = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
    matrices = {key: value.contiguous() for key, value in state.items() if "lora_" in key or key.endswith(HEAD_KEY)}
    target.mkdir(parents=True, exist_ok=True)
    head: Tensor | None = matrices.pop(PEFT_HEAD_KEY) if has_head_file else matrices.get(PEFT_HEAD_KEY)
    if has_head_file and head is not None:
        save_file({HEAD_KEY: head}, target / HEAD_FILE, {"format": "pt"})
    save_file(matrices, target / "adapter_model.safetensors", {"format": "pt"})
    config: Any = copy(peft.peft_config[name])
    config.modules_to_save = ["score"] if PEFT_HEAD_KEY in matrices else None
    config.task_type = "FEATURE_EXTRACTION" if has_head_file else "CAUSAL_LM" if head is None else "SEQ_CLS"
    config.base_model_name_or_path = str(Path(place).resolve()) if Path(place).is_dir() else place
    config.inference_mode = True
    config.save_pretrained(target)
    scale = {key: value for key in SCORE_SCALE_KEYS if (value := getattr(model.config, key, None)) is not None}
    base = {"base": config.base_model_name_or_path, "weights": weights_digest(place), "config": scale}
    (target / BASE_FILE).write_text(json.dumps(base) + "\n")


def matches_base(folder: Path, model_id: str) -> bool:
    """Return whether a checkpoint is a reward model that was trained as an adapter of the weights now at `model_id`."""
    path = folder / ADAPTER_FOLDER / BASE_FILE
    if not path.exists() or read_head(folder) is None:
        return False
    try:
        return bool(json.loads(path.read_text())["weights"] == weights_digest(locate(model_id)))
    except (ValueError, KeyError):
        raise AssentError(f"{path} is broken; train {folder.name} again") from None


class SharedBase:
    """A language model with frozen weights and several adapters, of which one is active at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model: Any = loaded.model.requires_grad_(False)
        self._peft: PeftModel | None = None
        self._active: str | None = None
        self._trained: list[Tensor] = []

    def new_adapter(self, name: str, rank: int, alpha: int = 0) -> LoadedModel:
        """Return the model with a new adapter, which at first changes nothing."""
        return self._add_view(name, lora_config(rank, alpha), None, self.model.config)

    def load_adapter(self, folder: Path, name: str, train: bool = False) -> LoadedModel:
        """Return the model with a reward model's adapter and head.

        Args:
            folder: a checkpoint with an adapter.
            train: make its weights trainable.
        """
        from peft import LoraConfig, set_peft_model_state_dict
        from safetensors.torch import load_file
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder)
        adapter = folder / ADAPTER_FOLDER
        matrices = load_file(adapter / "adapter_model.safetensors")
        weight = matrices.pop(PEFT_HEAD_KEY, None)
        if weight is None:  # a head file, or an adapter of a version that did not save heads
            weight = read_head(adapter)
        if weight is None:
            weight = read_head(folder)
        assert weight is not None, "`matches_base` found a head"
        head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        head.weight.data.copy_(weight)
        lora: Any = LoraConfig.from_pretrained(str(adapter))
        lora.modules_to_save = lora.task_type = None  # the model is a policy; the head stays outside of peft
        # trained weights begin in float32, the dtype of the optimizer's masters
        head.to(self.model.device, torch.float32 if train else self.model.dtype)
        view = self._add_view(name, lora, head, config, train)
        assert self._peft is not None
        result: Any = set_peft_model_state_dict(self._peft, matrices, adapter_name=name)
        if result.unexpected_keys:
            raise AssentError(
                f"{adapter} does not fit the model: it has the unknown weight {result.unexpected_keys[0]}"
            )
        return view

    def base_model(self) -> LoadedModel:
        """Return the model without any adapter: the reference."""
        return LoadedModel(AdapterView(self, "", None, self.model.config), self.loaded.chat_tokenizer)  # type: ignore[arg-type]

    def merge_adapter(self, name: str) -> LoadedModel:
        """Return the model in float32 with one adapter merged in; no other adapter can be used afterwards."""
        assert self._peft is not None
        for weight in self.model.parameters():
            weight.data = weight.data.float()
        merged: Any = self._peft.merge_and_unload(adapter_names=[name])
        return LoadedModel(merged, self.loaded.chat_tokenizer)

    def save_adapter(self, name: str, folder: Path) -> None:
        """Write one adapter into a checkpoint folder."""
        assert self._peft is not None
        save_adapter(self._peft, name, folder)

    def adapter_parameters(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and matrices of one adapter."""
        for key, weight in self.model.named_parameters():
            _, marker, suffix = key.rpartition("lora_")
            if marker and name in suffix.split("."):
                yield key, weight

    def activate(self, name: str) -> nn.Module:
        """Make one adapter active, or none, and return the model's body."""
        if self._peft is not None and name != self._active:
            tuner: Any = self._peft.base_model
            if name:
                tuner.enable_adapter_layers()
                tuner.set_adapter(name)
            else:
                tuner.disable_adapter_layers()
            self._active = name
            for weight in self._trained:  # peft freezes inactive adapters, whose optimizer step is still to come
                weight.requires_grad_(True)
        body: nn.Module = self.model.base_model
        return body

    def _add_view(
        self, name: str, lora: "LoraConfig", head: nn.Linear | None, config: Any, train: bool = True
    ) -> LoadedModel:
        """Add an adapter to the model, active, and return the view of it."""
        if self._peft is None:
            self._peft = add_adapter(self.model, lora, name)
        else:
            lora.exclude_modules = _excluded_modules(self.model)
            self._peft.add_adapter(name, lora)
        if train:
            self._trained += [weight for _, weight in self.adapter_parameters(name)]
        self._active = None  # peft has activated another, or none
        self.activate(name)
        for _, weight in self.adapter_parameters(name):
            weight.requires_grad_(train)
        return LoadedModel(AdapterView(self, name, head, config), self.loaded.chat_tokenizer)  # type: ignore[arg-type]


class AdapterView(nn.Module):
    """A shared model with one adapter, its own head and configuration; the rest of assent uses it like a model."""

    shared_base: SharedBase  # not a module: its weights are not this one's
    name: str

    def __init__(self, shared_base: SharedBase, name: str, head: nn.Linear | None, config: Any) -> None:
        super().__init__()
        self.shared_base = shared_base
        self.name = name
        self.config = config
        self.base_model = _AdaptedBody(shared_base, name)
        if head is not None:
            self.score = head

    @property
    def device(self) -> torch.device:
        device: torch.device = self.shared_base.model.device
        return device

    def get_output_embeddings(self) -> nn.Module:
        linear: nn.Module = self.shared_base.model.get_output_embeddings()
        return linear

    def causal_lm(self) -> "PreTrainedModel":
        """Activate this adapter and return the shared model; it stays active until another is activated."""
        self.shared_base.activate(self.name)
        model: PreTrainedModel = self.shared_base.model
        return model

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.shared_base.adapter_parameters(self.name)
        yield from super().named_parameters(*args, **kwargs)


class _AdaptedBody(nn.Module):
    """The body of the shared model with one adapter."""

    shared_base: SharedBase
    name: str

    def __init__(self, shared_base: SharedBase, name: str) -> None:
        super().__init__()
        self.shared_base = shared_base
        self.name = name
        self.config = shared_base.model.config

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.shared_base.model.named_parameters(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        table: nn.Module = self.shared_base.model.get_input_embeddings()
        return table

    def forward(self, **inputs: Any) -> Any:
        return self.shared_base.activate(self.name)(**inputs)
