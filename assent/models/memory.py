"""How much memory there is, how much a model under training takes, and how a process keeps what it frees."""

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

from assent.models.attention import SharedPrefix, pack, shares
from assent.models.forward import logprobs, states

CONTAINER = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's `mallopt`."""
SHAPES = "128"
"""Of products in half precision that are kept ready; a pack has about 24."""


@cache
def tune_allocator() -> None:
    """Let this process keep the memory that it frees; it matters where tensors of megabytes come and go all the time.

    glibc gives each back to the kernel, which must clear the pages of the next one: a quarter of a training step on a
    CPU (docs/log.md). Elsewhere than on Linux with glibc nothing is changed. And let oneDNN remember few shapes of
    products: those of one pack are seldom met again, and a thousand of them are half a gigabyte, strewn over the heap.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, SHAPES)
    if _glibc():
        ctypes.CDLL(None).mallopt(M_MMAP_MAX, 0)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, -1)


def release() -> None:
    """Free what is no longer used, models that hang in cycles of references too, and keep nothing that was freed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def used(device: torch.device) -> int:
    """Bytes that this process holds; on a CPU with those that it freed and keeps, until it gives them back."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Bytes of main memory that this process has held at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def available(device: torch.device) -> int:
    """Bytes that this process may still take: what the machine has, or what its container allows."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    found = int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as torchrun says
    limit, used = (CONTAINER / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (most := limit.read_text().strip()).isdigit():
        stat = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        found = min(found, int(most) - int(used.read_text()) + int(stat["inactive_file"]))
    return found


def activation_bytes(model: nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass, for each token of a pack; found by trying it on a few.

    Where the model reads rows, the logits of each are among them.
    """
    body = model.base_model
    assert isinstance(body, nn.Module)
    device = next(model.parameters()).device
    few = pack([SharedPrefix((0,), (tuple(0 for _ in range(31)),)) for _ in range(2)]).to(device)
    own = {weight.untyped_storage().data_ptr() for weight in body.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # alive until all is counted, so that no storage takes the place of another
        alive = states(model, few) if shares(body) or hasattr(model, "score") else logprobs(model, few)
    del alive
    return sum(storages.values()) // few.tokens.shape[1]


def enable_checkpointing(model: nn.Module) -> int:
    """Let each block keep only what it was given and be gone through again in the backward pass (activation
    checkpointing, arXiv:1604.06174); how many blocks do.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    body = model.base_model
    assert isinstance(body, nn.Module)
    blocks = [block for block in body.modules() if isinstance(block, GradientCheckpointingLayer)]
    for block in blocks:
        block.gradient_checkpointing = True
        again: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        block._gradient_checkpointing_func = again
        block.training = True  # of the block alone: what it is made of still drops nothing out
    return len(blocks)
