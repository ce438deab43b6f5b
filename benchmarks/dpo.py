"""DPO beside TRL: the same pairs in the same order, the same optimiser, the same losses."""

import argparse
from typing import Any

import torch
from duel import Duel
from duel.clock import Clock
from duel.limit import Cost
from duel.material import common, pairs

from assent.batch import Loss
from assent.models.attention import SharedPrefix
from assent.models.load import load_policy
from assent.objectives.dpo import DPO
from assent.stages import offline
from assent.training.microbatch import map_batches, optimizer_step
from assent.training.preferences import Compared, Pair
from assent.training.replicated import Training, TrainState

BATCH, LR = 4, 1e-5


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The first pairs, as ids."""
    return common(flags) | {"pairs": pairs(flags.data, flags.model, flags.count), "batch_size": BATCH, "lr": LR}


def ours(work: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """The reference asked once, then step by step as `assent dpo` takes them."""
    device = torch.device(work["device"])
    training = Training(lr=work["lr"], batch_size=work["batch_size"], warmup_ratio=0.0).on(device)
    examples = [
        Compared(
            "", SharedPrefix(tuple(p["prompt_ids"]), (tuple(p["chosen_ids"]), tuple(p["rejected_ids"]))), (Pair(0, 1),)
        )
        for p in work["pairs"]
    ]
    batches = [examples[i : i + training.batch_size] for i in range(0, len(examples), training.batch_size)]
    language = load_policy(work["model"], device=device)
    trainee = TrainState(language, training, len(batches), getattr(torch, work["dtype"]))

    def look(some: list[Compared]) -> list[torch.Tensor]:
        trees = [example.tree for example in some]
        return map_batches(
            trees, training.max_tokens_per_batch, lambda part: offline.branch_sums(trainee.model, part, device)
        )

    # The reference is the start: TRL asks it in every step, we once, before the first one moves the weights.
    clock.begin()
    reference = look(batches[0])
    clock.end()
    clock.begin()
    reference += look([example for some in batches[1:] for example in some])
    clock.end()
    asked = clock.seconds
    clock.seconds = []
    known = dict(zip(map(id, examples), reference, strict=True))
    for number, some in enumerate(batches):
        found: list[offline.LogprobPairs] = []

        def loss(part: list[int], some: list[Compared] = some, found: list[offline.LogprobPairs] = found) -> Loss:
            chosen = [some[i] for i in part]
            total = offline.CHOICES.weight(some)
            made = offline.pairs(trainee.model, chosen, [known[id(c)] for c in chosen], device, total)
            found.append(made)
            return DPO()(made)

        clock.begin()
        metrics = optimizer_step(trainee, number, [example.tree for example in some], loss)
        clock.end()
        chosen, rejected = (
            torch.cat([getattr(one, side).detach() for one in found]).mean() for side in ("chosen", "rejected")
        )
        clock.found_in_step(loss=metrics["loss"], grad_norm=metrics["grad_norm"], chosen=chosen, rejected=rejected)
    clock.seconds = [asked[0] + clock.seconds[0], asked[1] + clock.seconds[1], *clock.seconds[2:]]
    timed = [example.tree for some in batches[1:] for example in some]
    apart = sum(2 * len(tree.prefix) + sum(map(len, tree.completions)) for tree in timed)
    encoded, predicted = sum(tree.size for tree in timed), sum(len(ids) for tree in timed for ids in tree.completions)
    cost = Cost.of(trainee.model)
    flops = cost.forward(encoded, predicted) + cost.training(encoded, predicted)
    return {"tokens": apart, "encoded": encoded, "flops": flops}


if __name__ == "__main__":
    close = {"loss": (2e-3, 0.1), "grad_norm": (5e-3, 0.1), "chosen": (1e-3, 0.02), "rejected": (1e-3, 0.02)}
    Duel("DPO", prepare, ours, "trl_dpo.py", "trl", close, minutes=11, count=12).run()
