"""Our side of the benchmarks that train a reward model."""

from collections.abc import Mapping
from typing import Any

import torch

from assent.batch import Loss
from assent.models.forward import scores
from assent.models.load import load_reward
from assent.models.packing import pack
from assent.protocols import RewardObjective
from assent.training.microbatch import optimizer_step
from assent.training.preferences import BATCH_SPECS, PromptGroup
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from harness.clock import Clock
from harness.roofline import Cost


def train_reward_model(
    work: dict[str, Any], clock: Clock, groups: list[PromptGroup], objective: RewardObjective
) -> Mapping[str, Any]:
    """Take the steps of `assent reward`, each on `work["groups"]` groups, and return tokens and operations."""
    device = torch.device(work["device"])
    spec = BATCH_SPECS[objective.batch]
    size = work["groups"]
    batches = [groups[i : i + size] for i in range(0, len(groups), size)]
    training = Training(lr=work["lr"], batch_size=size, warmup_ratio=0.0).on(device)
    reward = load_reward(work["reward"], device=device)
    state = ReplicatedState(reward, training, len(batches), getattr(torch, work["dtype"]))
    for number, batch in enumerate(batches):
        total_weight = spec.total_weight(batch)

        def loss(indices: list[int], batch: list[PromptGroup] = batch, total_weight: float = total_weight) -> Loss:
            part = [batch[i] for i in indices]
            values = scores(state.model, pack([group.tokens for group in part]).to(device))[:, 0]
            return objective(spec.build(values, part, total_weight))

        clock.begin()
        metrics = optimizer_step(state, number, [group.tokens for group in batch], loss)
        clock.end()
        clock.record(**{name: metrics[name] for name in ("loss", "accuracy", "grad_norm")})
    timed = [group.tokens for batch in batches[1:] for group in batch]
    pairs = [(group.tokens, pair) for batch in batches[1:] for group in batch for pair in group.pairs]
    tokens = sum(
        len(prefix.prefix) + len(prefix.completions[i]) for prefix, pair in pairs for i in (pair.chosen, pair.rejected)
    )
    encoded = sum(prefix.num_tokens for prefix in timed)
    return {"tokens": tokens, "encoded": encoded, "flops": Cost.of(state.model).training(encoded)}
