"""Optimise the policy on comparisons alone: DPO and its family, each by the name of its objective."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assent.batch import LogprobPairs, Loss, ScorePairs
from assent.functional.statistics import wilson
from assent.models.attention import pack
from assent.models.forward import logprobs
from assent.models.load import context, load_policy
from assent.objectives.dpo import DPO
from assent.preferences.data import judged
from assent.protocols import Objective
from assent.run import Run
from assent.training.batching import batch, steps_of
from assent.training.loop import train
from assent.training.microbatch import evaluate_loss, optimizer_step
from assent.training.preferences import FEEDS, Compared, columns, decided
from assent.training.reference import reference_sums
from assent.training.replicated import Training, TrainState
from assent.training.stage import PolicyStage
from assent.types import PositiveInt

CHOICES = FEEDS[ScorePairs]._replace(reads=decided)
"""Ties say nothing of what the policy should do."""


@dataclass(frozen=True)
class Offline(PolicyStage):
    """Train a policy directly on the comparisons of the run, held to its own start."""

    policy: str = ""
    """What it starts from, and its reference: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    max_length: PositiveInt = 1024
    """Pairs with a longer side (prompt and completion) are left out and counted."""
    objective: Objective[LogprobPairs] = DPO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = load_policy(run.policy(self.policy or run.base), device=run.device, rendering=run.rendering)
        codec = language.codec
        kept, held, left_out = judged(run, codec, min(self.max_length, context(language.model)), CHOICES)
        examples, tokens = [*kept, *held], self.training.max_tokens_per_batch
        steps = steps_of(len(kept), self.training.batch_size, self.training.epochs)
        trainee = TrainState(language, self.training, steps, run.dtype)
        reference = reference_sums(run, key, trainee.model, [example.tree for example in examples], tokens)
        known = dict(zip(map(id, examples), reference, strict=True))

        def loss(model: nn.Module, chosen: list[Compared], part: list[int]) -> Loss:
            some = [chosen[i] for i in part]
            return self.objective(pairs(model, some, [known[id(c)] for c in some], run.device, CHOICES.weight(chosen)))

        def step(number: int) -> dict[str, float]:
            chosen = batch(kept, self.training.batch_size, number, run.seed)
            trees = [c.tree for c in chosen]
            return optimizer_step(trainee, number, trees, lambda part: loss(trainee.model, chosen, part))

        train(run.folder, key, {"policy": trainee}, steps, step, [c.tree for c in kept])
        measured = evaluate_loss(key, [c.tree for c in held], tokens, lambda part: loss(trainee.model, held, part))
        trainee.save(run.folder / key)
        counts = {"pairs": sum(len(c.pairs) for c in kept), "prompts": len(kept), **left_out.report()}
        return counts | measured | _sure(measured, len({c.prompt for c in held}))


def pairs(
    model: nn.Module, examples: list[Compared], reference: list[Tensor], device: torch.device, total: float
) -> LogprobPairs:
    """The comparisons of some trees under a model, as a part of a step of weight `total`."""
    packed = pack([example.tree for example in examples]).to(device)
    sums = packed.sums(logprobs(model, packed).logprobs)  # (branches,)
    known = torch.cat(reference).to(device)
    c = columns(examples, device)
    return LogprobPairs(
        sums[c.chosen],
        sums[c.rejected],
        known[c.chosen],
        known[c.rejected],
        packed.lengths[c.chosen],
        packed.lengths[c.rejected],
        c.p_chosen,
        c.weight,
        total,
    )


def _sure(measured: dict[str, float], n: int) -> dict[str, float]:
    """How far the accuracy on the pairs of n held-out prompts can be trusted, as if each had one pair."""
    if "held_out_accuracy" not in measured:
        return {}
    found = wilson(measured["held_out_accuracy"] * n, n)
    return {"held_out_low": found.low, "held_out_high": found.high, "held_out_n": n}
