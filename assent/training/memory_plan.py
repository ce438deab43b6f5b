"""Will it fit? What a stage is going to take is told before it begins, and what cannot fit is refused."""

import sys
from collections.abc import Mapping
from typing import Any

import torch

from assent.errors import AssentError
from assent.functional.logprobs import CHUNK
from assent.models import memory
from assent.training.distributed import is_rank0
from assent.training.replicated import TrainState

MARGIN = 0.8
"""Of the free memory, what an estimate may take before blocks are gone through twice to save some."""
HOLES = 1.6
"""On a CPU, what the heap comes to beside what comes and goes: packs of many sizes leave holes (docs/log.md)."""
HOLES_OF_ADAPTERS = 2.0
"""The same for adapters: beside what a map made lies what is added to it, and the sum; only the sum is kept."""


def estimate(trainees: Mapping[str, TrainState], tokens: int, drawing: int = 0, twice: bool = False) -> int:
    """Bytes that this process will hold at the most.

    Args:
        trainees: what is trained, loaded, before its first step here.
        tokens: of the largest pack.
        drawing: bytes that drawing takes, before there are gradients.
        twice: whether blocks keep only what they are given, and are gone through again.
    """
    some = list(trainees.values())
    learning = sum(tokens * _kept(trainee.model, twice) + _logits(trainee.model, tokens) for trainee in some)
    device = _device(some)
    holes = 1.0 if device.type != "cpu" else HOLES_OF_ADAPTERS if some[0].training.lora_rank else HOLES
    return memory.used(device) + int(max(drawing, learning) * holes)


def check(name: str, trainees: Mapping[str, TrainState], tokens: int, drawing: int = 0) -> None:
    """Say how much memory a stage needs; save some if it is scarce.

    Raises:
        AssentError: it cannot fit.
    """
    some = list(trainees.values())
    device = _device(some)
    memory.release()  # what loading has left
    there = memory.used(device) + memory.available(device)
    needed, how = estimate(trainees, tokens, drawing), ""
    if needed > MARGIN * there:
        less = estimate(trainees, tokens, drawing, twice=True)
        if less < needed and all(memory.enable_checkpointing(trainee.model) for trainee in some):
            needed, how = less, ", with every block gone through twice to save memory"
    if is_rank0():
        print(f"{name}: needs about {_gb(needed)} of {_gb(there)}{how}", file=sys.stderr, flush=True)
    if needed > there:
        raise AssentError(
            f"{name} needs about {_gb(needed)} of memory and {_gb(there)} are to be had: lower tokens_per_pack (it is "
            f"{some[0].training.max_tokens_per_batch}), train adapters with lora_rank = 16, or take a smaller model"
        )


def _kept(model: Any, twice: bool) -> int:
    """Bytes a token."""
    kept = memory.activation_bytes(model)
    if not twice:
        return kept
    config = model.config.get_text_config()
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    return kept // layers + layers * width * int(next(model.parameters()).element_size())


def _logits(model: Any, tokens: int) -> int:
    """Bytes of a chunk of logits and of their gradients, in the computing type and in float32."""
    if hasattr(model, "score"):
        return 0
    head: torch.Tensor = model.get_output_embeddings().weight
    return min(CHUNK, tokens) * int(head.shape[0]) * 2 * (head.element_size() + 4)


def _device(trainees: list[TrainState]) -> torch.device:
    return next(trainees[0].model.parameters()).device


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
