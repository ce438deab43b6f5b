"""Learning to write what stands there: one loop for documents (pretraining) and for demonstrations (SFT)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from assent.batch import TokenLogprobsBatch
from assent.models.attention import SharedPrefix, pack
from assent.models.forward import logprobs
from assent.objectives.cross_entropy import CrossEntropy
from assent.training.batching import batch
from assent.training.loop import train
from assent.training.microbatch import evaluate_loss, optimizer_step
from assent.training.replicated import TrainState


class TokenizedExample(NamedTuple):
    """A text to imitate: the branches of a tree, each token of which counts `weight`."""

    tree: SharedPrefix
    weight: float = 1.0


def train_supervised(
    folder: Path,
    key: str,
    trainee: TrainState,
    texts: list[TokenizedExample],
    objective: CrossEntropy,
    seed: int,
) -> None:
    """Train on texts; every trained token of a step counts by its weight alone, however the step is cut.

    Args:
        folder: the run's; state and metrics go there under the name `key`.
        seed: decides the order of the texts.
    """
    training = trainee.training

    def step(number: int) -> dict[str, float]:
        chosen = batch(texts, training.batch_size, number, seed)
        trees = [text.tree for text in chosen]
        made = optimizer_step(trainee, number, trees, lambda part: objective(tokens(trainee.model, chosen, part)))
        return made | {"tokens": float(sum(len(branch) for tree in trees for branch in tree.completions))}

    train(folder, key, {"policy": trainee}, trainee.steps, step, [text.tree for text in texts])


def measure(
    key: str, model: nn.Module, texts: list[TokenizedExample], objective: CrossEntropy, tokens_per_pack: int
) -> dict[str, float]:
    """The objective's metrics on held-out texts; nothing if there are none."""
    trees = [text.tree for text in texts]
    return evaluate_loss(key, trees, tokens_per_pack, lambda part: objective(tokens(model, texts, part)))


def tokens(model: nn.Module, texts: Sequence[TokenizedExample], part: Sequence[int]) -> TokenLogprobsBatch:
    """The trained tokens of those texts of a step that `part` numbers, as a part of the step."""
    some = [texts[i] for i in part]
    values = logprobs(model, pack([text.tree for text in some]).to(next(model.parameters()).device)).logprobs
    weights = [text.weight for text in some for branch in text.tree.completions for _ in branch]
    total = sum(text.weight * len(branch) for text in texts for branch in text.tree.completions)
    return TokenLogprobsBatch(values, torch.tensor(weights, device=values.device), total)
