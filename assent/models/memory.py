"""Memory: available, used and peak bytes, activations of a model, and the settings of the allocator."""

import ctypes
import gc
import os
import resource
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from assent.models.attention import supports_packing
from assent.models.forward import hidden_states, logprobs
from assent.models.heads import has_score_head
from assent.models.packing import SharedPrefix, pack

CGROUP = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's `mallopt`."""
CACHED_SHAPES = "128"
"""Shapes of half-precision products that oneDNN caches; a packed batch has about 24."""


@cache
def tune_allocator() -> None:
    """Set this process's allocator to keep freed memory, and oneDNN to cache few shapes; called when a stage begins.

    glibc returns large blocks to the kernel, which must clear the pages of the next one: a quarter of a training step
    on a CPU (docs/log.md). Systems without glibc stay as they are. The shapes of one batch seldom occur again, and a
    thousand of them take half a gigabyte, scattered over the heap.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, CACHED_SHAPES)
    if _has_glibc():
        ctypes.CDLL(None).mallopt(M_MMAP_MAX, 0)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, -1)


def release() -> None:
    """Free unused objects, reference cycles included, and return freed memory to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def used(device: torch.device) -> int:
    """Return the bytes that this process holds; on a CPU they include freed memory that the allocator keeps."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Return the peak of this process's main memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _has_glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def available(device: torch.device) -> int:
    """Return the bytes that this process may still allocate: free memory of the machine, or of its container."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    if (limit := _container_limit()) is not None:
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - int((CGROUP / "memory.current").read_text()) + int(stat["inactive_file"]))
    return free


def total() -> int:
    """Return the bytes of main memory of the machine, or of its container."""
    installed = int(psutil.virtual_memory().total)
    return min(installed, _container_limit() or installed)


def _container_limit() -> int | None:
    path = CGROUP / "memory.max"
    limit = path.read_text().strip() if path.exists() else "max"
    return int(limit) if limit.isdigit() else None


def activation_bytes(model: nn.Module) -> int:
    """Return the bytes that a forward pass saves for the backward pass, for each token; measured on a few tokens.

    For a model that reads padded rows they include the logits.
    """
    body = model.base_model
    assert isinstance(body, nn.Module)
    device = next(model.parameters()).device
    probe = pack([SharedPrefix((0,), (tuple(0 for _ in range(31)),)) for _ in range(2)]).to(device)
    weights = {weight.untyped_storage().data_ptr() for weight in body.parameters()}
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        # kept until all is counted, so that no storage reuses the address of another
        reads_states = supports_packing(body) or has_score_head(model)
        outputs = hidden_states(model, probe) if reads_states else logprobs(model, probe)
    del outputs
    return sum(storages.values()) // probe.input_ids.shape[1]


def enable_checkpointing(model: nn.Module) -> int:
    """Recompute each block in the backward pass from its inputs (activation checkpointing, arXiv:1604.06174).

    Returns:
        The number of blocks.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    body = model.base_model
    assert isinstance(body, nn.Module)
    blocks = [block for block in body.modules() if isinstance(block, GradientCheckpointingLayer)]
    for block in blocks:
        block.gradient_checkpointing = True
        recompute: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        block._gradient_checkpointing_func = recompute
        block.training = True  # of the block alone; its modules still apply no dropout
    return len(blocks)
