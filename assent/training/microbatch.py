"""What is too large for one pass is done in parts, pack by pack, and comes out as if it had been done at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from assent.batch import Loss
from assent.models.attention import SharedPrefix
from assent.training.batching import packs
from assent.training.distributed import all_gather, reduce_dict, shard, world_size
from assent.training.logging import ProgressBar, add
from assent.training.replicated import TrainState


def optimizer_step(
    trainee: TrainState, number: int, trees: Sequence[SharedPrefix], loss: Callable[[list[int]], Loss]
) -> dict[str, float]:
    """Take step `number` down the loss of some trees, and return its metrics.

    Args:
        loss: of the trees with these indices, as a part of the step.
    """
    metrics: dict[str, float] = {}
    for part in shard(packs(trees, trainee.training.max_tokens_per_batch)):
        made = loss(part)
        made.value.backward()
        add(metrics, made.metrics)
    return reduce_dict(metrics) | {
        "grad_norm": trainee.step(number),
        "lr": trainee.training.rate(number, trainee.steps),
    }


@torch.no_grad()
def evaluate_loss(
    key: str, trees: Sequence[SharedPrefix], tokens: int, loss: Callable[[list[int]], Loss]
) -> dict[str, float]:
    """The metrics of a loss on trees that nothing is trained on, named so; nothing if there are none."""
    metrics: dict[str, float] = {}
    if not trees:
        return metrics
    with ProgressBar(f"{key}: held-out", len(trees)) as bar:
        for part in shard(packs(trees, tokens)):
            add(metrics, loss(part).metrics)
            bar.advance(len(part) * world_size())
    return {f"held_out_{name}": value for name, value in reduce_dict(metrics).items()}


@torch.no_grad()
def map_batches(
    trees: Sequence[SharedPrefix],
    tokens: int,
    values: Callable[[list[SharedPrefix]], Tensor],
    advance: Callable[[int], None] = lambda done: None,
) -> list[Tensor]:
    """A number for every branch, on the CPU: (K,) for each tree, in their order.

    Args:
        values: of all branches of some trees, (B,).
        advance: is told how many trees were done.
    """
    found: dict[int, Tensor] = {}
    for part in shard(packs(trees, tokens)):
        sizes = [len(trees[i].completions) for i in part]
        for i, made in zip(part, values([trees[i] for i in part]).cpu().split(sizes), strict=True):
            found[i] = made.clone()  # by itself: a piece of a larger tensor is saved with all of it
        advance(len(part) * world_size())
    everywhere = {i: made for each in all_gather(found) for i, made in each.items()}
    return [everywhere[i] for i in range(len(trees))]
