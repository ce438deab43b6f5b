"""Faster linear maps for decoding on a CPU where torch's own are slow (see `functional/onednn.py`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from assent.functional.onednn import MIN_HEAD_OUTPUTS, onednn_linear, prefers_onednn, transposed_linear


@contextmanager
def patch_decode_linears(model: nn.Module) -> Iterator[None]:
    """Within the context, compute the model's linear maps in the way that is fastest for few rows, without gradients.

    Only `forward` of the model's own modules is replaced, and removed again at the end: no class, no other model and
    no process-wide setting changes.
    """
    linears = [part for part in model.modules() if type(part) is nn.Linear and prefers_onednn(part.weight)]
    for linear in linears:
        function = onednn_linear if linear.out_features >= MIN_HEAD_OUTPUTS else transposed_linear
        linear.forward = partial(function, weight=linear.weight, bias=linear.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in linears:
            vars(linear).pop("forward", None)  # another thread that samples from the model may have removed it
