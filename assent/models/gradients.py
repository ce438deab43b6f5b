"""Accumulators of weight gradients: buffers to which the parts of a large gradient are added in place.

The head and the embedding table have a gradient for every token of the vocabulary. A training state that owns its
gradient buffers attaches accumulators to its weights, so that no such gradient ever exists beside its buffer (as with
`main_grad` in Megatron-LM). Weights without one get their gradients from autograd.
"""

from collections.abc import Callable

from torch import Tensor

GradAccumulator = Callable[[], Tensor]
"""Returns the buffer of a weight's gradient, to be added to in place: shaped as the weight, float32."""

_ATTRIBUTE = "grad_accumulator"


def attach_accumulator(weight: Tensor, accumulator: GradAccumulator) -> None:
    """Let gradients of the weight be added to the accumulator's buffer."""
    vars(weight)[_ATTRIBUTE] = accumulator


def detach_accumulator(weight: Tensor) -> None:
    """Leave the weight's gradients to autograd again."""
    vars(weight).pop(_ATTRIBUTE, None)


def accumulator_of(weight: Tensor) -> GradAccumulator | None:
    """Return the weight's accumulator, if it has one."""
    accumulator: GradAccumulator | None = vars(weight).get(_ATTRIBUTE)
    return accumulator
