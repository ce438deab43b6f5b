"""Training with replicated state: every process holds the whole model, its float32 masters and AdamW's moments."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assent.errors import AssentError
from assent.models.adapters import ADAPTER_FOLDER as ADAPTER
from assent.models.adapters import AdapterView, add_adapter, lora_config, save_adapter
from assent.models.checkpoints import save, stored_dtype
from assent.models.gradients import attach_accumulator, detach_accumulator
from assent.models.load import LoadedModel
from assent.training.distributed import all_reduce, is_rank0
from assent.training.settings import Training

if TYPE_CHECKING:
    from peft import PeftModel


ALIGNMENT = 16
"""Weights start at multiples of so many float32 numbers (64 bytes), as fast kernels prefer."""


class ReplicatedState:
    """A `TrainState` of AdamW on float32 masters of all trainable weights.

    Each backward pass adds its gradients to float32 buffers as they are computed. So the parts of a step add up
    exactly as if they were one, and low-precision gradients exist for one layer at a time. The masters keep all digits
    of the checkpoint: in bfloat16, rounding would undo a small step in almost every weight.

    Args:
        loaded: a float32 model, or a shared base seen through an adapter; its weights are then kept in `dtype`.
        steps: optimizer steps of the whole training, for the schedule.
    """

    def __init__(self, loaded: LoadedModel, training: Training, steps: int, dtype: torch.dtype = torch.float32) -> None:
        self.training = training
        self.steps = steps
        self.loaded = loaded
        self.model = loaded.model
        self._peft: PeftModel | None = None
        if training.lora_rank and not isinstance(self.model, AdapterView):
            config = lora_config(training.lora_rank, training.lora_alpha, hasattr(self.model, "score"))
            self._peft = add_adapter(self.model, config)
        self._groups = _flatten_trainable(self.model, training.weight_decay)
        _cast(self.model, dtype)
        for group in self._groups:
            group.attach()
        self._adam = torch.optim.AdamW(
            [{"params": [group.master], "weight_decay": group.decay} for group in self._groups],
            lr=training.lr,
            eps=1e-5,
            betas=(0.9, 0.95),
            fused=True,
        )
        for group in self._groups:  # allocated before all temporary tensors, so that the heap has no holes
            moments = {name: torch.zeros_like(group.master) for name in ("exp_avg", "exp_avg_sq")}
            self._adam.state[group.master] = {"step": torch.zeros((), device=group.master.device), **moments}

    def step(self, step: int) -> float:
        """Take step number `step` with the accumulated gradients, clear them, and return their norm before clipping.

        Raises:
            AssentError: the gradients are not finite; the weights are unchanged.
        """
        grads = [group.grads() for group in self._groups]
        all_reduce(grads)
        # weight by weight: one float32 sum over all of them would be wrong in its second digit
        norm = torch.nn.utils.get_total_norm([view for group in self._groups for view in group.grad_views])
        if not bool(norm.isfinite()):
            raise AssentError("the gradient is not finite: lower --lr or --max-grad-norm")
        scale = float(self.training.max_grad_norm / (norm + 1e-6))
        if scale < 1:
            torch._foreach_mul_(grads, scale)
        for param_group in self._adam.param_groups:
            param_group["lr"] = self.training.rate(step, self.steps)
        self._adam.step()
        for group in self._groups:
            group.sync_weights()
        return float(norm)

    @property
    def step_count(self) -> int:
        """Return how many optimizer steps have changed the weights."""
        return int(self._adam.state[self._groups[0].master]["step"])

    def release(self) -> None:
        """Detach from the weights, so that dropping this object frees its memory; no step may follow."""
        for group in self._groups:
            group.release()

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {"masters": self.weights(), "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Load a saved state.

        Raises:
            ValueError, KeyError, RuntimeError: it belongs to other weights.
        """
        self.load_weights(state["masters"])
        self._adam.load_state_dict(state["adam"])

    def weights(self) -> dict[str, Tensor]:
        """Return the trained weights by name, float32; they are views, which the next step changes."""
        return {name: view for group in self._groups for name, view in group.named_masters()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load what `weights` returned.

        Raises:
            KeyError, RuntimeError: they are another model's.
        """
        for group in self._groups:
            for name, view in group.named_masters():
                view.copy_(weights[name])
            group.sync_weights()

    def save(self, folder: Path) -> None:
        """Write the trained model as a Hugging Face folder; LoRA is merged, and saved in float32 as an adapter too.

        LoRA is merged in float32, before the weights are cast to `save_dtype`. No step may follow.

        Raises:
            AssentError: weights that are not finite.
        """
        self._sync_full_precision()
        if not is_rank0():
            return
        adapter = folder.with_name(folder.name + ".adapter")
        shutil.rmtree(adapter, ignore_errors=True)
        if self._peft is not None:
            save_adapter(self._peft, "default", adapter)
        elif isinstance(self.model, AdapterView):
            self.model.shared_base.save_adapter(self.model.name, adapter)
        merged = self._merge()
        dtype = self.training.save_dtype
        origin = str(merged.model.name_or_path)
        _cast(merged.model, stored_dtype(origin) if dtype == "auto" else getattr(torch, dtype))
        save(merged, folder)
        if adapter.exists():
            (adapter / ADAPTER).rename(folder / ADAPTER)
            adapter.rmdir()

    def _sync_full_precision(self) -> None:
        """Copy the masters to the weights in float32."""
        _cast(self.model, torch.float32)
        for group in self._groups:
            for name, view in group.named_masters():
                if not bool(view.isfinite().all()):
                    raise AssentError(f"training ended with non-finite weights in {name}: lower --lr")
            group.sync_weights()

    def _merge(self) -> LoadedModel:
        """Return the model with LoRA merged into its weights."""
        if isinstance(self.model, AdapterView):
            return self.model.shared_base.merge_adapter(self.model.name)
        if self._peft is None:
            return self.loaded
        return LoadedModel(self._peft.merge_and_unload(), self.loaded.chat_tokenizer)


def _flatten_trainable(model: nn.Module, weight_decay: float) -> list["FlatParams"]:
    """Return the trainable weights in two groups: matrices, which decay, and all others."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for name, weight in trained.items():
        if weight.dtype != torch.float32:
            raise AssertionError(f"{name} is {weight.dtype}: load what is trained in float32")
    matrices = {name: weight for name, weight in trained.items() if weight.ndim >= 2}
    others = {name: weight for name, weight in trained.items() if name not in matrices}
    groups = ((matrices, weight_decay), (others, 0.0))
    return [FlatParams(named, decay) for named, decay in groups if named]


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights and not the buffers: rotary frequencies in bfloat16 would shift every position."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


class FlatParams:
    """Weights with one weight decay, laid end to end in one float32 tensor, their gradients in another.

    Few large allocations live as long as the training, so temporary tensors leave no holes between them.
    """

    def __init__(self, named: dict[str, nn.Parameter], decay: float) -> None:
        self.names = list(named)
        self.weights = list(named.values())
        self.decay = decay
        self._sizes = [-(-weight.numel() // ALIGNMENT) * ALIGNMENT for weight in self.weights]
        device = self.weights[0].device
        self.master, self.grad = (torch.zeros(sum(self._sizes), device=device) for _ in range(2))
        self.master_views = self._split(self.master)
        self.grad_views = self._split(self.grad)
        for weight, view in zip(self.weights, self.master_views, strict=True):
            view.copy_(weight.detach())
        self._unset = set(range(len(self.weights)))
        """Indices of the weights without a gradient since the last step: their views hold old values."""
        self._handles: list[Any] = []

    def named_masters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each weight's name with the view of its master."""
        return zip(self.names, self.master_views, strict=True)

    def attach(self) -> None:
        """Accumulate each weight's gradients as they are computed; float32 weights become views of the masters."""
        for index, (weight, view) in enumerate(zip(self.weights, self.master_views, strict=True)):
            if weight.dtype == torch.float32:
                weight.data = view
            self._handles.append(weight.register_post_accumulate_grad_hook(self._hook(index)))
            attach_accumulator(weight, partial(self._accumulator, index))

    def release(self) -> None:
        """Detach from the weights: the garbage collector finds no cycle that goes through their hooks."""
        for handle in self._handles:
            handle.remove()
        for weight in self.weights:
            detach_accumulator(weight)

    def grads(self) -> Tensor:
        """Return all gradients since the last step, and begin the next sum."""
        for index in self._unset:
            self.grad_views[index].zero_()
        self._unset = set(range(len(self.grad_views)))
        self.master.grad = self.grad
        return self.grad

    @torch.no_grad()
    def sync_weights(self) -> None:
        """Copy the masters to the weights."""
        for weight, view in zip(self.weights, self.master_views, strict=True):
            if weight.data_ptr() != view.data_ptr():
                weight.copy_(view)

    def _split(self, flat: Tensor) -> list[Tensor]:
        parts = zip(flat.split(self._sizes), self.weights, strict=True)
        return [part[: weight.numel()].view(weight.shape) for part, weight in parts]

    def _accumulator(self, index: int) -> Tensor:
        """Return the sum of a weight's gradients so far, to be added to in place."""
        if index in self._unset:
            self._unset.remove(index)
            self.grad_views[index].zero_()
        return self.grad_views[index]

    def _hook(self, index: int) -> Callable[[Tensor], None]:
        def accumulate(weight: Tensor) -> None:
            if weight.grad is None:  # all of it was added through the accumulator
                return
            if index in self._unset:
                self._unset.remove(index)
                self.grad_views[index].copy_(weight.grad)
            else:
                self.grad_views[index].add_(weight.grad)
            weight.grad = None

        return accumulate
