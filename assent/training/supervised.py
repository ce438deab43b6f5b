"""Supervised training on documents (pretraining) and on demonstrations (SFT)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from assent.batch import Loss, TokenLogprobsBatch
from assent.models.forward import logprobs
from assent.models.packing import SharedPrefix, pack
from assent.objectives.cross_entropy import CrossEntropy
from assent.protocols import TrainState
from assent.training.batching import select_batch
from assent.training.loop import train
from assent.training.microbatch import evaluate_loss, optimizer_step


class TokenizedExample(NamedTuple):
    """A prompt with completions to imitate; each completion token counts `weight`."""

    tokens: SharedPrefix
    weight: float = 1.0


def train_supervised(
    folder: Path,
    key: str,
    train_state: TrainState,
    examples: list[TokenizedExample],
    objective: CrossEntropy,
    seed: int,
) -> None:
    """Train on examples; a step is a mean over all its completion tokens, in however many batches it is computed.

    Args:
        folder: of the run; state and metrics are written there under the name `key`.
        seed: decides the order of the examples.
    """
    training = train_state.training

    def step(number: int) -> dict[str, float]:
        batch = select_batch(examples, training.batch_size, number, seed)
        prefixes = [example.tokens for example in batch]

        def loss(indices: list[int]) -> Loss:
            return objective(token_batch(train_state.model, batch, indices))

        metrics = optimizer_step(train_state, number, prefixes, loss)
        trained = sum(len(completion) for prefix in prefixes for completion in prefix.completions)
        return metrics | {"tokens": float(trained)}

    train(folder, key, {"policy": train_state}, train_state.steps, step, [example.tokens for example in examples])


def evaluate(
    key: str, model: nn.Module, examples: list[TokenizedExample], objective: CrossEntropy, max_tokens: int
) -> dict[str, float]:
    """Return the objective's metrics on held-out examples; none if there are no examples."""
    prefixes = [example.tokens for example in examples]
    return evaluate_loss(key, prefixes, max_tokens, lambda indices: objective(token_batch(model, examples, indices)))


def token_batch(model: nn.Module, examples: Sequence[TokenizedExample], indices: Sequence[int]) -> TokenLogprobsBatch:
    """Return the completion tokens of the examples with these indices, as a part of the step on all examples."""
    part = [examples[i] for i in indices]
    values = logprobs(model, pack([example.tokens for example in part]).to(next(model.parameters()).device)).logprobs
    weights = [example.weight for example in part for completion in example.tokens.completions for _ in completion]
    total = sum(example.weight * len(completion) for example in examples for completion in example.tokens.completions)
    return TokenLogprobsBatch(values, torch.tensor(weights, device=values.device), total)
