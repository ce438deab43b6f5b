"""The settings that every training stage shares."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from assent.errors import did_you_mean
from assent.registry import names
from assent.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class Training:
    """How a model is trained: optimizer, schedule, LoRA, batch size, checkpoints, loggers."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate of AdamW."""
    epochs: PositiveInt = 1
    """Passes over the data; in online stages, passes over each rollout."""
    batch_size: PositiveInt = 16
    """Prompts (documents, in pretraining) in one optimizer step."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls from its peak to the end."""
    warmup_ratio: Fraction = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay, on matrices only."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm."""
    lora_rank: NonNegativeInt = 0
    """0 trains all weights; otherwise LoRA of this rank on every linear layer (arXiv:2106.09685)."""
    lora_alpha: NonNegativeInt = 0
    """LoRA's scale; 0: twice the rank."""
    max_tokens_per_batch: NonNegativeInt = 0
    """Tokens in one forward pass: bounds memory, changes results by rounding only; 0: 1024 on a CPU, 8192 on a GPU."""
    save_every: NonNegativeInt = 0
    """Steps between resumable checkpoints; 0: by the clock, so that saving takes at most a twentieth of the time."""
    save_dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Type of the checkpoint's weights; auto: that of the model it started from. 16-bit formats lose small updates."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Loggers besides metrics.jsonl, separated by commas: tensorboard, wandb, trackio; empty: none."""

    def __post_init__(self) -> None:
        for name in self.report_to:
            if name not in names("loggers") or name == "jsonl":
                known = [logger for logger in names("loggers") if logger != "jsonl"]
                raise ValueError(f"report_to: no logger '{name}'{did_you_mean(name, known)}")

    def on(self, device: torch.device) -> "Training":
        """Return the settings with `max_tokens_per_batch` filled in for the device, if it is 0."""
        return replace(self, max_tokens_per_batch=self.max_tokens_per_batch or (1024 if device.type == "cpu" else 8192))

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0 .. steps - 1."""
        warmup = self.warmup_ratio * steps
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1.0, steps - warmup)
        if self.lr_scheduler_type == "linear":
            return self.lr * (1 - progress)
        if self.lr_scheduler_type == "cosine":
            return float(self.lr * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi, dtype=torch.float64))))
        return self.lr
