"""Work that is too large for one forward pass, done in token-bounded batches with the same result."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from assent.batch import Loss
from assent.models.packing import SharedPrefix
from assent.protocols import TrainState
from assent.training.batching import plan_batches
from assent.training.distributed import all_gather, reduce_dict, shard, world_size
from assent.training.logging import ProgressBar, add_metrics


def optimizer_step(
    train_state: TrainState, step: int, prefixes: Sequence[SharedPrefix], loss: Callable[[list[int]], Loss]
) -> dict[str, float]:
    """Take one optimizer step on the loss of all prefixes with their completions, and return its metrics.

    Args:
        step: its number, from 0.
        loss: returns the loss of the prefixes with these indices, as a part of the step.
    """
    metrics: dict[str, float] = {}
    for indices in shard(plan_batches(prefixes, train_state.training.max_tokens_per_batch)):
        part = loss(indices)
        part.value.backward()
        add_metrics(metrics, part.metrics)
    metrics = reduce_dict(metrics)
    grad_norm = train_state.step(step)
    return metrics | {"grad_norm": grad_norm, "lr": train_state.training.rate(step, train_state.steps)}


@torch.no_grad()
def evaluate_loss(
    key: str, prefixes: Sequence[SharedPrefix], max_tokens: int, loss: Callable[[list[int]], Loss]
) -> dict[str, float]:
    """Return the metrics of a loss on held-out prefixes, as `held_out_NAME`; none if there are no prefixes."""
    metrics: dict[str, float] = {}
    if not prefixes:
        return metrics
    with ProgressBar(f"{key}: held-out", len(prefixes)) as bar:
        for indices in shard(plan_batches(prefixes, max_tokens)):
            add_metrics(metrics, loss(indices).metrics)
            bar.advance(len(indices) * world_size())
    return {f"held_out_{name}": value for name, value in reduce_dict(metrics).items()}


@torch.no_grad()
def map_batches(
    prefixes: Sequence[SharedPrefix],
    max_tokens: int,
    compute: Callable[[list[SharedPrefix]], Tensor],
    advance: Callable[[int], None] = lambda count: None,
) -> list[Tensor]:
    """Compute a number for every completion: on the CPU, (K,) for each prefix, in their order.

    Args:
        compute: returns the values of all completions of some prefixes, (B,).
        advance: is called with the number of prefixes that are done.
    """
    own_values: dict[int, Tensor] = {}
    for indices in shard(plan_batches(prefixes, max_tokens)):
        sizes = [len(prefixes[i].completions) for i in indices]
        values = compute([prefixes[i] for i in indices]).cpu()
        for i, part in zip(indices, values.split(sizes), strict=True):
            own_values[i] = part.clone()  # a view would be saved with the whole tensor
        advance(len(indices) * world_size())
    by_index = {i: values for rank_values in all_gather(own_values) for i, values in rank_values.items()}
    return [by_index[i] for i in range(len(prefixes))]
