"""Learning to write what stands there: one loop for documents (pretraining) and for demonstrations (SFT)."""

from pathlib import Path

import torch
from torch import nn

from assent.batch import Tokens
from assent.models.attention import Tree, pack
from assent.models.forward import logprobs
from assent.objectives.cross_entropy import CrossEntropy
from assent.training.batching import batch
from assent.training.loop import train
from assent.training.optimizer import Trainee
from assent.training.parts import descend, held_out


def imitate(
    folder: Path,
    key: str,
    trainee: Trainee,
    trees: list[Tree],
    objective: CrossEntropy,
    seed: int,
) -> None:
    """Train on the branches of the trees; every trained token of a step counts alike, however the step is cut.

    Args:
        folder: the run's; state and metrics go there under the name `key`.
        seed: decides the order of the trees.
    """
    training = trainee.training

    def step(number: int) -> dict[str, float]:
        chosen = batch(trees, training.batch_size, number, seed)
        total = float(sum(map(_tokens, chosen)))
        made = descend(
            trainee, number, chosen, lambda part: objective(tokens(trainee.model, [chosen[i] for i in part], total))
        )
        return made | {"tokens": total}

    train(folder, key, {"policy": trainee}, trainee.steps, step, training.save_every)


def measure(model: nn.Module, trees: list[Tree], objective: CrossEntropy, tokens_per_pack: int) -> dict[str, float]:
    """The objective's metrics on held-out trees; nothing if there are none."""
    total = float(sum(map(_tokens, trees)))
    return held_out(trees, tokens_per_pack, lambda part: objective(tokens(model, [trees[i] for i in part], total)))


def tokens(model: nn.Module, trees: list[Tree], total: float) -> Tokens:
    """The trained tokens of some trees under a model, as a part of a step of `total` tokens."""
    values = logprobs(model, pack(trees).to(next(model.parameters()).device)).logprobs
    return Tokens(values, torch.ones_like(values), total)


def _tokens(tree: Tree) -> int:
    return sum(map(len, tree.branches))
