"""Memory of a training stage: estimated before it begins, saved by checkpointing, refused where it cannot fit."""

import sys
from collections.abc import Mapping
from typing import Any

import torch

from assent.errors import AssentError
from assent.functional.logprobs import CHUNK
from assent.models import memory
from assent.models.heads import ValueHead
from assent.protocols import TrainState
from assent.training.distributed import is_rank0

MARGIN = 0.8
"""Share of the free memory that an estimate may take before activations are recomputed to save some."""
FRAGMENTATION = 1.6
"""On a CPU, the heap divided by its live part: batches of many sizes fragment it (docs/log.md)."""
FRAGMENTATION_WITH_ADAPTERS = 2.0
"""The same for adapters: a linear layer's output, the adapter's and their sum exist at once; only the sum is kept."""


def estimate(
    train_states: Mapping[str, TrainState], tokens: int, generation_bytes: int = 0, recompute: bool = False
) -> int:
    """Estimate the most bytes that this process will hold.

    Args:
        train_states: the models, before their first step here.
        tokens: of the largest batch.
        generation_bytes: memory that generation takes, before there are gradients.
        recompute: whether blocks keep their inputs alone and are computed again in the backward pass.
    """
    states = _states_with_body(train_states)
    training_bytes = sum(
        tokens * _activation_bytes(state.model, recompute) + _logits_bytes(state.model, tokens) for state in states
    )
    device = _device(states)
    factor = FRAGMENTATION_WITH_ADAPTERS if states[0].training.lora_rank else FRAGMENTATION
    if device.type != "cpu":
        factor = 1.0
    return memory.used(device) + int(max(generation_bytes, training_bytes) * factor)


def check(name: str, train_states: Mapping[str, TrainState], tokens: int, generation_bytes: int = 0) -> None:
    """Print how much memory a stage needs; enable activation checkpointing if memory is scarce.

    Raises:
        AssentError: it cannot fit.
    """
    states = _states_with_body(train_states)
    device = _device(states)
    memory.release()  # garbage of loading
    available = memory.used(device) + memory.available(device)
    needed = estimate(train_states, tokens, generation_bytes)
    remark = ""
    if needed > MARGIN * available:
        needed_recomputing = estimate(train_states, tokens, generation_bytes, recompute=True)
        if needed_recomputing < needed and all(memory.enable_checkpointing(state.model) for state in states):
            needed = needed_recomputing
            remark = ", with activation checkpointing"
    if is_rank0():
        line = f"{name}: needs about {_gigabytes(needed)} of {_gigabytes(available)}{remark}"
        print(line, file=sys.stderr, flush=True)
    if needed > available:
        raise AssentError(
            f"{name} needs about {_gigabytes(needed)} of memory, {_gigabytes(available)} available: lower "
            f"--max-tokens-per-batch (now {states[0].training.max_tokens_per_batch}), train adapters with "
            "--lora-rank 16, or take a smaller model"
        )


def _states_with_body(train_states: Mapping[str, TrainState]) -> list[TrainState]:
    """Return the states without that of a value head, which keeps nothing for the backward pass but what is there."""
    return [state for state in train_states.values() if not isinstance(state.model, ValueHead)]


def _activation_bytes(model: Any, recompute: bool) -> int:
    """Return the bytes of activations that the backward pass needs for each token."""
    activation_bytes = memory.activation_bytes(model)
    if not recompute:
        return activation_bytes
    config = model.config.get_text_config()
    layers = int(config.num_hidden_layers)
    return activation_bytes // layers + layers * int(config.hidden_size) * int(next(model.parameters()).element_size())


def _logits_bytes(model: Any, tokens: int) -> int:
    """Return the bytes of a chunk of logits and of its gradients, in the computing dtype and in float32."""
    if hasattr(model, "score"):
        return 0
    head: torch.Tensor = model.get_output_embeddings().weight
    return min(CHUNK, tokens) * int(head.shape[0]) * 2 * (head.element_size() + 4)


def _device(states: list[TrainState]) -> torch.device:
    device: torch.device = next(states[0].model.parameters()).device
    return device


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
