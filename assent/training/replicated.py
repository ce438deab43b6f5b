"""A model under training: weights in the computing dtype, float32 masters and moments, one step at a time."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from assent.errors import AssentError
from assent.models.adapters import FOLDER as ADAPTER
from assent.models.adapters import AdapterView, attach, lora, save_adapter
from assent.models.checkpoints import dtype_of, save
from assent.models.load import LoadedModel
from assent.training.distributed import all_reduce, is_rank0
from assent.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from peft import PeftModel


ALIGNED = 16
"""Numbers between one weight's begin and the next: a multiple of 64 bytes, as the fast kernels like it."""


@dataclass(frozen=True)
class Training:
    """How a model is moved: the settings that every training stage shares."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate of AdamW."""
    epochs: PositiveInt = 1
    """Times that the data is gone through."""
    batch_size: PositiveInt = 16
    """Prompts (documents, in pretraining) in one step of the optimiser."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls from its peak to the end."""
    warmup_ratio: Fraction = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay, on matrices only."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm."""
    lora_rank: NonNegativeInt = 0
    """0 trains all weights; otherwise LoRA of this rank on every linear map (arXiv:2106.09685)."""
    lora_alpha: NonNegativeInt = 0
    """LoRA's scale; 0: twice the rank."""
    max_tokens_per_batch: NonNegativeInt = 0
    """Tokens in one forward pass: bounds memory, changes results by rounding only; 0: 1024 on a CPU, 8192 on a GPU."""
    save_every: NonNegativeInt = 0
    """Steps between resumable checkpoints; 0: by the clock, so that saving takes at most a twentieth of the time."""
    save_dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Type of the checkpoint's weights; auto: that of the model it started from. Two bytes round small updates away."""

    def on(self, device: torch.device) -> "Training":
        """The same with a size of packs that suits a device, unless one was asked for."""
        return replace(self, max_tokens_per_batch=self.max_tokens_per_batch or (1024 if device.type == "cpu" else 8192))

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0..steps-1."""
        warm = self.warmup_ratio * steps
        if step < warm:
            return self.lr * (step + 1) / (warm + 1)
        done = (step - warm) / max(1.0, steps - warm)
        if self.lr_scheduler_type == "linear":
            return self.lr * (1 - done)
        if self.lr_scheduler_type == "cosine":
            return float(self.lr * 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
        return self.lr


class TrainState:
    """A model whose trainable weights are moved by AdamW in float32.

    Each backward pass adds its gradients to float32 accumulators as they are made, so parts of a step add up exactly
    as if they were one, and low-precision gradients live one layer at a time. The masters keep all digits of the
    checkpoint: were they rounded to bfloat16 first, a small step would be rounded away from almost every weight at
    once.

    Args:
        language: a float32 model, or a view of a body through an adapter; what is trained is then kept in `dtype`.
        steps: how many there will be, for the schedule.
    """

    def __init__(
        self, language: LoadedModel, training: Training, steps: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.training = training
        self.steps = steps
        self.language, self.model = language, language.model
        self._peft: PeftModel | None = None
        if training.lora_rank and not isinstance(self.model, AdapterView):
            made = lora(training.lora_rank, training.lora_alpha, hasattr(self.model, "score"))
            self._peft = attach(self.model, made)
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        if other := next((name for name, weight in trained.items() if weight.dtype != torch.float32), ""):
            raise AssertionError(f"{other} is {trained[other].dtype}: load what is trained in float32")
        matrices = {name: weight for name, weight in trained.items() if weight.ndim >= 2}
        others = {name: weight for name, weight in trained.items() if name not in matrices}
        groups = ((matrices, training.weight_decay), (others, 0.0))
        self._rows = [_Row(named, decay) for named, decay in groups if named]
        _cast(self.model, dtype)
        for row in self._rows:
            row.attach()
        self._adam = torch.optim.AdamW(
            [{"params": [row.master], "weight_decay": row.decay} for row in self._rows],
            lr=training.lr,
            eps=1e-5,
            betas=(0.9, 0.95),
            fused=True,
        )
        for row in self._rows:  # made now, below what comes and goes
            moments = {name: torch.zeros_like(row.master) for name in ("exp_avg", "exp_avg_sq")}
            self._adam.state[row.master] = {"step": torch.zeros((), device=row.master.device), **moments}

    def step(self, step: int) -> float:
        """Take step number `step` with the gradients gathered, and clear them. Returns their norm before clipping.

        Raises:
            AssentError: the gradients are not finite; nothing was moved.
        """
        gradients = [row.gathered() for row in self._rows]
        all_reduce(gradients)
        # weight by weight: one sum over all of them, in float32, would be wrong in its second digit
        norm = torch.nn.utils.get_total_norm([part for row in self._rows for part in row.gradients])
        if not bool(norm.isfinite()):
            raise AssentError("the gradient is not finite")
        scale = float(self.training.max_grad_norm / (norm + 1e-6))
        if scale < 1:
            torch._foreach_mul_(gradients, scale)
        for group in self._adam.param_groups:
            group["lr"] = self.training.rate(step, self.steps)
        self._adam.step()
        for row in self._rows:
            row.give()
        return float(norm)

    @property
    def taken(self) -> int:
        """Steps that have moved the weights."""
        return int(self._adam.state[self._rows[0].master]["step"])

    def release(self) -> None:
        """Training is over: what is dropped from now on is freed. No step can be taken after this."""
        for row in self._rows:
            row.release()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        masters = {name: view for row in self._rows for name, view in zip(row.names, row.views, strict=True)}
        return {"masters": masters, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            ValueError, KeyError: it is of other weights.
        """
        for row in self._rows:
            for name, view in zip(row.names, row.views, strict=True):
                view.copy_(state["masters"][name])
            row.give()
        self._adam.load_state_dict(state["adam"])

    def save(self, folder: Path) -> None:
        """Write the trained model as a Hugging Face folder, with LoRA in its weights and, in float32, beside them.

        LoRA is merged in float32, before the weights become what `save_dtype` says. Nothing can be trained after this.

        Raises:
            AssentError: weights that are not finite.
        """
        self._settle()
        aside = folder.with_name(folder.name + ".adapter")
        if is_rank0():
            shutil.rmtree(aside, ignore_errors=True)
            if self._peft is not None:
                save_adapter(self._peft, "default", aside)
            elif isinstance(self.model, AdapterView):
                self.model.body.keep(self.model.name, aside)
            merged, wanted = self._merged(), self.training.save_dtype
            started_from = str(merged.model.name_or_path)
            _cast(merged.model, dtype_of(started_from) if wanted == "auto" else getattr(torch, wanted))
            save(merged, folder)
            if aside.exists():
                (aside / ADAPTER).rename(folder / ADAPTER)
                aside.rmdir()

    def _settle(self) -> None:
        """Give the weights all digits of their masters."""
        _cast(self.model, torch.float32)
        for row in self._rows:
            for name, view in zip(row.names, row.views, strict=True):
                if not bool(view.isfinite().all()):
                    raise AssentError(f"training ended in numbers that are not finite, in {name}: try a smaller lr")
            row.give()

    def _merged(self) -> LoadedModel:
        """The model with LoRA in its weights."""
        if isinstance(self.model, AdapterView):
            return self.model.body.merged(self.model.name)
        if self._peft is None:
            return self.language
        return LoadedModel(self._peft.merge_and_unload(), self.language.codec)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Change the type of the weights, not of the buffers: rotary frequencies in bfloat16 would bend every position."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


class _Row:
    """Weights that are moved alike, end to end in one float32 tensor, with their gradients in another.

    What lives as long as the training lies in few large pieces then, and what comes and goes leaves no holes between.
    """

    def __init__(self, named: dict[str, nn.Parameter], decay: float) -> None:
        self.names, self.weights, self.decay = list(named), list(named.values()), decay
        self._room = [-(-weight.numel() // ALIGNED) * ALIGNED for weight in self.weights]
        device = self.weights[0].device
        self.master, self.gradient = (torch.zeros(sum(self._room), device=device) for _ in range(2))
        self.views, self.gradients = self._cut(self.master), self._cut(self.gradient)
        for weight, view in zip(self.weights, self.views, strict=True):
            view.copy_(weight.detach())
        self._empty = set(range(len(self.weights)))
        self._hooks: list[Any] = []

    def attach(self) -> None:
        """Let each weight's gradients be gathered as they are made; float32 weights are the masters themselves.

        Who makes a gradient piece by piece may add it to what the weight's `main_grad` gives, and leave autograd out.
        """
        for number, (weight, view) in enumerate(zip(self.weights, self.views, strict=True)):
            if weight.dtype == torch.float32:
                weight.data = view
            self._hooks.append(weight.register_post_accumulate_grad_hook(self._gather(number)))
            weight.main_grad = partial(self._begun, number)  # type: ignore[attr-defined]

    def release(self) -> None:
        """Let the weights know nothing of this any more: no collector finds a cycle that goes through their hooks."""
        for hook in self._hooks:
            hook.remove()
        for weight in self.weights:
            vars(weight).pop("main_grad", None)

    def gathered(self) -> Tensor:
        """All gradients since the last step; the next are gathered anew."""
        for number in self._empty:
            self.gradients[number].zero_()
        self._empty = set(range(len(self.gradients)))
        self.master.grad = self.gradient
        return self.gradient

    @torch.no_grad()
    def give(self) -> None:
        """Let the weights be what their masters are."""
        for weight, view in zip(self.weights, self.views, strict=True):
            if weight.data_ptr() != view.data_ptr():
                weight.copy_(view)

    def _cut(self, row: Tensor) -> list[Tensor]:
        parts = zip(row.split(self._room), self.weights, strict=True)
        return [part[: weight.numel()].view(weight.shape) for part, weight in parts]

    def _begun(self, number: int) -> Tensor:
        """The gradient of a weight so far, to be added to."""
        if number in self._empty:
            self._empty.remove(number)
            self.gradients[number].zero_()
        return self.gradients[number]

    def _gather(self, number: int) -> Callable[[Tensor], None]:
        def gather(weight: Tensor) -> None:
            if weight.grad is None:  # all of it went to `main_grad`
                return
            if number in self._empty:
                self._empty.remove(number)
                self.gradients[number].copy_(weight.grad)
            else:
                self.gradients[number].add_(weight.grad)
            weight.grad = None

        return gather
