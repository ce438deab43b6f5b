"""Learning to write what stands there: one loop for documents (pretraining) and for demonstrations (SFT)."""

from typing import Any

import torch

from assent.batch import Tokens
from assent.models.attention import Tree, pack
from assent.models.forward import logprobs
from assent.objectives.cross_entropy import CrossEntropy
from assent.store.runs import Run
from assent.training.batching import batch, packs, steps_of
from assent.training.loop import train
from assent.training.meter import add
from assent.training.optimizer import Trainee, Training


def imitate(
    run: Run, key: str, trainee: Trainee, trees: list[Tree], objective: CrossEntropy, training: Training
) -> None:
    """Train on the branches of the trees; every trained token of a step counts alike, however the step is cut."""
    steps = steps_of(len(trees), training.batch_size, training.epochs)

    def step(number: int) -> dict[str, float]:
        chosen = batch(trees, training.batch_size, number, run.seed)
        total, metrics = float(sum(map(_tokens, chosen))), dict[str, float]()
        for part in packs(chosen, training.tokens_per_pack):
            loss = objective(tokens(trainee.model, [chosen[i] for i in part], run.device, total))
            loss.value.backward()  # type: ignore[no-untyped-call]
            add(metrics, loss.metrics)
        return metrics | {"tokens": total, "grad_norm": trainee.step(number), "lr": training.rate(number, steps)}

    train(run, key, {"policy": trainee}, steps, step, training.save_every)


@torch.no_grad()
def measure(run: Run, model: Any, trees: list[Tree], objective: CrossEntropy, training: Training) -> dict[str, float]:
    """The objective's metrics on held-out trees; nothing if there are none."""
    total, metrics = float(sum(map(_tokens, trees))), dict[str, float]()
    for part in packs(trees, training.tokens_per_pack):
        add(metrics, objective(tokens(model, [trees[i] for i in part], run.device, total)).metrics)
    return {f"held_out_{name}": value for name, value in metrics.items()}


def tokens(model: Any, trees: list[Tree], device: torch.device, total: float) -> Tokens:
    """The trained tokens of some trees under a model, as a part of a step of `total` tokens."""
    values = logprobs(model, pack(trees).to(device)).logprobs
    return Tokens(values, torch.ones_like(values), total)


def _tokens(tree: Tree) -> int:
    return sum(map(len, tree.branches))
