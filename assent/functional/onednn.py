"""Linear maps in other ways than torch's own, for CPUs on which it is slow: a head's, and all maps while decoding.

Measured on an AMD EPYC with AVX2 (docs/log.md). CPUs with AVX-512 were not measured and keep torch's own way.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear

MIN_HEAD_OUTPUTS = 8192
"""Outputs from which a map counts as a language-model head."""


@cache
def is_slow_cpu() -> bool:
    """Return whether this CPU is of the kind on which the other ways were measured to be faster."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.mkldnn.is_available()


def prefers_onednn(weight: Tensor) -> bool:
    """Return whether the other ways are to be used with a weight."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and is_slow_cpu()


def onednn_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows (..., H) @ weight (V, H)^T + bias -> (..., V) by oneDNN, which suits many outputs; no gradient."""
    if not prefers_onednn(weight):
        return linear(rows, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


def transposed_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the same by weight @ rows^T, which suits few rows; the result lies in memory column by column."""
    out = (weight @ rows.flatten(0, -2).t()).t().view(*rows.shape[:-1], len(weight))
    return out if bias is None else out + bias
