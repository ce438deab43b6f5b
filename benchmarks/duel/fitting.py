"""Our side of the benchmarks in which a reward model is fitted to judgements."""

from collections.abc import Mapping
from typing import Any

import torch

from assent.batch import Loss
from assent.models.attention import pack
from assent.models.forward import scores
from assent.models.load import load_reward
from assent.protocols import Objective
from assent.training.microbatch import optimizer_step
from assent.training.preferences import FEEDS, Compared
from assent.training.replicated import Training, TrainState
from duel.clock import Clock
from duel.limit import Cost


def fit(
    work: dict[str, Any], clock: Clock, examples: list[Compared], objective: Objective[Any], takes: str
) -> Mapping[str, Any]:
    """Step by step as `assent reward` takes them.

    Args:
        examples: `work["trees"]` of them make a step.
        takes: what the objective is fed with.
    """
    device, feed, size = torch.device(work["device"]), FEEDS[takes], work["trees"]
    batches = [examples[i : i + size] for i in range(0, len(examples), size)]
    training = Training(lr=work["lr"], batch_size=size, warmup_ratio=0.0).on(device)
    trainee = TrainState(
        load_reward(work["reward"], device=device), training, len(batches), getattr(torch, work["dtype"])
    )
    for number, some in enumerate(batches):
        total = feed.weight(some)

        def loss(part: list[int], some: list[Compared] = some, total: float = total) -> Loss:
            chosen = [some[i] for i in part]
            scored = scores(trainee.model, pack([c.tree for c in chosen]).to(device))[:, 0]
            return objective(feed.batch(scored, chosen, total))

        clock.begin()
        metrics = optimizer_step(trainee, number, [example.tree for example in some], loss)
        clock.end()
        clock.found_in_step(**{name: metrics[name] for name in ("loss", "accuracy", "grad_norm")})
    rest = [example for some in batches[1:] for example in some]
    apart = sum(len(e.tree.prefix) + len(e.tree.completions[b]) for e in rest for p in e.pairs for b in p[:2])
    encoded = sum(e.tree.size for e in rest)
    return {"tokens": apart, "encoded": encoded, "flops": Cost.of(trainee.model).training(encoded)}
