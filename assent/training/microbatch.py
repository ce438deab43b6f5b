"""What is too large for one pass is done in parts, pack by pack, and comes out as if it had been done at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from assent.batch import Loss
from assent.models.attention import Tree
from assent.training.batching import packs
from assent.training.distributed import gather, mine, size, sums
from assent.training.logging import Bar, add
from assent.training.replicated import Trainee


def descend(
    trainee: Trainee, number: int, trees: Sequence[Tree], loss: Callable[[list[int]], Loss]
) -> dict[str, float]:
    """Take step `number` down the loss of some trees, and return its metrics.

    Args:
        loss: of the trees with these indices, as a part of the step.
    """
    metrics: dict[str, float] = {}
    for part in mine(packs(trees, trainee.training.tokens_per_pack)):
        made = loss(part)
        made.value.backward()
        add(metrics, made.metrics)
    return sums(metrics) | {"grad_norm": trainee.step(number), "lr": trainee.training.rate(number, trainee.steps)}


@torch.no_grad()
def held_out(key: str, trees: Sequence[Tree], tokens: int, loss: Callable[[list[int]], Loss]) -> dict[str, float]:
    """The metrics of a loss on trees that nothing is trained on, named so; nothing if there are none."""
    metrics: dict[str, float] = {}
    if not trees:
        return metrics
    with Bar(f"{key}: held-out", len(trees)) as bar:
        for part in mine(packs(trees, tokens)):
            add(metrics, loss(part).metrics)
            bar.advance(len(part) * size())
    return {f"held_out_{name}": value for name, value in sums(metrics).items()}


@torch.no_grad()
def by_tree(
    trees: Sequence[Tree],
    tokens: int,
    values: Callable[[list[Tree]], Tensor],
    advance: Callable[[int], None] = lambda done: None,
) -> list[Tensor]:
    """A number for every branch, on the CPU: (K,) for each tree, in their order.

    Args:
        values: of all branches of some trees, (B,).
        advance: is told how many trees were done.
    """
    found: dict[int, Tensor] = {}
    for part in mine(packs(trees, tokens)):
        sizes = [len(trees[i].branches) for i in part]
        for i, made in zip(part, values([trees[i] for i in part]).cpu().split(sizes), strict=True):
            found[i] = made.clone()  # by itself: a piece of a larger tensor is saved with all of it
        advance(len(part) * size())
    everywhere = {i: made for each in gather(found) for i, made in each.items()}
    return [everywhere[i] for i in range(len(trees))]
