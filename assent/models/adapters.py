"""LoRA: policy, value model and reward model as small adapters over one frozen body; the reference is the body alone.

Hu et al. 2021 (arXiv:2106.09685). Each adapter adds B A to every linear map of the body; a reward or value model has a
head besides. One body in memory serves all of them, one at a time.
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
from assent.models.checkpoints import locate, weights_of
from assent.models.heads import FILE as OWN_HEAD
from assent.models.heads import HEAD, RewardModel, stored_head
from assent.models.load import LoadedModel
from assent.models.merging import BASE

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

FOLDER = "adapter"
"""Where a checkpoint keeps what was trained, beside the merged weights."""
PEFT_HEAD = f"base_model.model.{HEAD}"
"""A classifier's head in an adapter of peft's."""
SCALE = ("reward_heads", "reward_mean", "reward_std")
"""What a reward model's configuration says of its scores."""


def attach(model: "PreTrainedModel", config: "LoraConfig", name: str = "default") -> "PeftModel":
    """Put a new adapter into a model, in place, and freeze the rest.

    Raises:
        AssentError: peft has no way to.
    """
    from peft import get_peft_model

    config.exclude_modules = _unfit(model)
    with warnings.catch_warnings():  # peft asks transformers 5 for something by its old name
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return get_peft_model(model, config, adapter_name=name)
        except ValueError as error:
            reason = str(error).strip().partition("\n")[0]
            raise AssentError(f"LoRA does not go with a {type(model.base_model).__name__}: {reason}") from None


def _unfit(model: nn.Module) -> list[str] | None:
    """Linear maps without LoRA: routers of experts, which return more than a product, and those of a state space
    (Mamba) whose weights its kernels take as they are, past any adapter.
    """
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and not _is_product(part)]
    for name, part in model.named_modules():
        if hasattr(part, "A_log") and hasattr(part, "D"):
            names += [f"{name}.{child}" for child in ("conv1d", "out_proj")]
    return names or None


@torch.no_grad()
def _is_product(part: nn.Linear) -> bool:
    """Whether a linear map, of a class of its own perhaps, returns one product."""
    return type(part) is nn.Linear or isinstance(part(part.weight[:1]), Tensor)


def lora(rank: int, alpha: int = 0, head: bool = False) -> "LoraConfig":
    """LoRA on every linear map; with `head`, a new head is trained whole. An alpha of 0 is twice the rank."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,
        target_modules="all-linear",
        modules_to_save=["score"] if head else None,
    )


def save_adapter(peft: "PeftModel", name: str, folder: Path) -> None:
    """Write an adapter into `folder/adapter` as peft reads it, with its reward head, and whose weights it belongs to.

    A head of ours lies beside it in a file of its own: peft knows no class that it would fit into.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    model: Any = peft.base_model.model
    own, place, target = isinstance(model, RewardModel), str(model.name_or_path), folder / FOLDER
    state = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
    matrices = {key: value.contiguous() for key, value in state.items() if "lora_" in key or key.endswith(HEAD)}
    target.mkdir(parents=True, exist_ok=True)
    head: Tensor | None = matrices.pop(PEFT_HEAD) if own else matrices.get(PEFT_HEAD)
    if own and head is not None:
        save_file({HEAD: head}, target / OWN_HEAD, {"format": "pt"})
    save_file(matrices, target / "adapter_model.safetensors", {"format": "pt"})
    config: Any = copy(peft.peft_config[name])
    config.modules_to_save = ["score"] if PEFT_HEAD in matrices else None
    config.task_type = "FEATURE_EXTRACTION" if own else "CAUSAL_LM" if head is None else "SEQ_CLS"
    config.base_model_name_or_path = str(Path(place).resolve()) if Path(place).is_dir() else place
    config.inference_mode = True
    config.save_pretrained(target)
    scale = {key: value for key in SCALE if (value := getattr(model.config, key, None)) is not None}
    about = {"base": config.base_model_name_or_path, "weights": weights_of(place), "config": scale}
    (target / BASE).write_text(json.dumps(about) + "\n")


def matches_base(folder: Path, where: str) -> bool:
    """Whether a checkpoint is a reward model that was trained as an adapter of the weights that lie in `where` now."""
    path = folder / FOLDER / BASE
    if not path.exists() or stored_head(folder) is None:
        return False
    try:
        return bool(json.loads(path.read_text())["weights"] == weights_of(locate(where)))
    except (ValueError, KeyError):
        raise AssentError(f"{path} is broken: train {folder.name} again") from None


class SharedBase:
    """A language model with frozen weights, seen through one adapter at a time."""

    def __init__(self, language: LoadedModel) -> None:
        self.language = language
        self.model: Any = language.model.requires_grad_(False)
        self._peft: PeftModel | None = None
        self._active: str | None = None
        self._trained: list[Tensor] = []

    def adapter(self, name: str, rank: int, alpha: int = 0) -> LoadedModel:
        """The body through a new adapter, which at first changes nothing."""
        return self._seen(name, lora(rank, alpha), None, self.model.config)

    def load_adapter(self, folder: Path, name: str, train: bool = False) -> LoadedModel:
        """The body through a reward model's adapter, with its head.

        Args:
            folder: a checkpoint that holds an adapter.
            train: whether it is to be trained; if not, it never asks for gradients.
        """
        from peft import LoraConfig, set_peft_model_state_dict
        from safetensors.torch import load_file
        from transformers import AutoConfig

        config, adapter = AutoConfig.from_pretrained(folder), folder / FOLDER
        matrices = load_file(adapter / "adapter_model.safetensors")
        weight = matrices.pop(PEFT_HEAD, None)
        if weight is None:  # a head of ours, or an adapter that was written before heads were
            weight = stored_head(adapter)
        if weight is None:
            weight = stored_head(folder)
        assert weight is not None, "this checkpoint fits"
        head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        head.weight.data.copy_(weight)
        made: Any = LoraConfig.from_pretrained(str(adapter))
        made.modules_to_save = made.task_type = None  # the body is a policy, and the head ours
        # what is trained begins in float32, as its masters stay
        head.to(self.model.device, torch.float32 if train else self.model.dtype)
        seen = self._seen(name, made, head, config, train)
        assert self._peft is not None
        told: Any = set_peft_model_state_dict(self._peft, matrices, adapter_name=name)
        if told.unexpected_keys:
            raise AssentError(f"{adapter} does not fit the model: it has {told.unexpected_keys[0]} besides")
        return seen

    def base_model(self) -> LoadedModel:
        """The body without any adapter: the reference."""
        return LoadedModel(AdapterView(self, "", None, self.model.config), self.language.codec)  # type: ignore[arg-type]

    def merged(self, name: str) -> LoadedModel:
        """The body in float32 with one adapter in its weights; nothing else can be seen through it afterwards."""
        assert self._peft is not None
        for weight in self.model.parameters():
            weight.data = weight.data.float()
        merged: Any = self._peft.merge_and_unload(adapter_names=[name])
        return LoadedModel(merged, self.language.codec)

    def keep(self, name: str, folder: Path) -> None:
        """Write one adapter into a checkpoint."""
        assert self._peft is not None
        save_adapter(self._peft, name, folder)

    def weights(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """The matrices of one adapter."""
        named = ((key, weight, key.rpartition("lora_")) for key, weight in self.model.named_parameters())
        return ((key, weight) for key, weight, (_, found, end) in named if found and name in end.split("."))

    def turn(self, name: str) -> nn.Module:
        """Let the body be seen through one adapter, or through none, from now on."""
        if self._peft is not None and name != self._active:
            tuner: Any = self._peft.base_model
            if name:
                tuner.enable_adapter_layers()
                tuner.set_adapter(name)
            else:
                tuner.disable_adapter_layers()
            self._active = name
            for weight in self._trained:  # peft freezes what is not active, though its step is still to come
                weight.requires_grad_(True)
        inner: nn.Module = self.model.base_model
        return inner

    def _seen(
        self, name: str, config: "LoraConfig", head: nn.Linear | None, about: Any, train: bool = True
    ) -> LoadedModel:
        if self._peft is None:
            self._peft = attach(self.model, config, name)
        else:
            config.exclude_modules = _unfit(self.model)
            self._peft.add_adapter(name, config)
        if train:
            self._trained += [weight for _, weight in self.weights(name)]
        self._active = None  # peft has turned to another, or to none
        self.turn(name)
        for _, weight in self.weights(name):
            weight.requires_grad_(train)
        return LoadedModel(AdapterView(self, name, head, about), self.language.codec)  # type: ignore[arg-type]


class AdapterView(nn.Module):
    """What the rest of assent takes for a model: a body through one adapter, with its own head and configuration."""

    body: SharedBase  # no module: its weights are not this one's
    name: str

    def __init__(self, body: SharedBase, name: str, head: nn.Linear | None, config: Any) -> None:
        super().__init__()
        self.body, self.name, self.config = body, name, config
        self.base_model = _Turned(body, name)
        if head is not None:
            self.score = head

    @property
    def device(self) -> torch.device:
        device: torch.device = self.body.model.device
        return device

    def get_output_embeddings(self) -> nn.Module:
        found: nn.Module = self.body.model.get_output_embeddings()
        return found

    def whole(self) -> "PreTrainedModel":
        """The body with its own head, seen through this adapter until another is turned to."""
        self.body.turn(self.name)
        model: PreTrainedModel = self.body.model
        return model

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.body.weights(self.name)
        yield from super().named_parameters(*args, **kwargs)


class _Turned(nn.Module):
    """The body's blocks, seen through one adapter."""

    body: SharedBase
    name: str

    def __init__(self, body: SharedBase, name: str) -> None:
        super().__init__()
        self.body, self.name = body, name
        self.config = body.model.config

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.body.model.named_parameters(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        found: nn.Module = self.body.model.get_input_embeddings()
        return found

    def forward(self, **inputs: Any) -> Any:
        return self.body.turn(self.name)(**inputs)
