"""Linear maps on a CPU where torch's own way to multiply is slow: a head's, and all while tokens are drawn.

Measured on an AMD EPYC with AVX2 (docs/log.md). With AVX-512 nothing is changed, for it was not measured there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

WIDE = 8192
"""Outputs from which a map counts as a head."""


@cache
def slow() -> bool:
    """Whether this CPU is of the kind on which other ways were measured to be quicker."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.mkldnn.is_available()


def suits(weight: Tensor) -> bool:
    """Whether the other ways are to be taken with a weight."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and slow()


def wide(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (..., H) @ weight (V, H)^T + bias -> (..., V), without a gradient, for many outputs: by oneDNN."""
    if not suits(weight):
        return linear(rows, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


def turned(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same for few rows: the weight stands first, and the result lies in memory column by column."""
    out = (weight @ rows.flatten(0, -2).t()).t().view(*rows.shape[:-1], len(weight))
    return out if bias is None else out + bias


@contextmanager
def few_rows(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model's linear maps go the way that suits few rows; nothing may ask for gradients."""
    maps = [m for m in model.modules() if type(m) is nn.Linear and suits(m.weight)]
    for one in maps:
        way = wide if one.out_features >= WIDE else turned
        one.forward = partial(way, weight=one.weight, bias=one.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for one in maps:
            vars(one).pop("forward", None)  # another thread that draws from it may have been here
