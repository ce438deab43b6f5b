"""DPO compared with TRL: the same pairs in the same order, the same optimizer, the same losses."""

import argparse
from typing import Any

import torch
from harness import Benchmark
from harness.clock import Clock
from harness.data import common_settings, load_pairs
from harness.roofline import Cost

from assent.batch import LogprobPairs, Loss
from assent.models.load import load_policy
from assent.models.packing import SharedPrefix
from assent.objectives.dpo import DPO
from assent.stages.offline import DECIDED_PAIRS, Example, compute_pairs
from assent.training.microbatch import map_batches, optimizer_step
from assent.training.preferences import Pair, PromptGroup
from assent.training.reference import completion_logprobs
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training

BATCH_SIZE = 4
LR = 1e-5
TOLERANCES = {"loss": (2e-3, 0.1), "grad_norm": (5e-3, 0.1), "chosen": (1e-3, 0.02), "rejected": (1e-3, 0.02)}


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return the first pairs, as token ids."""
    pairs = load_pairs(flags.data, flags.model, flags.count)
    return common_settings(flags) | {"pairs": pairs, "batch_size": BATCH_SIZE, "lr": LR}


def run_assent(work: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Compute the reference once, then take the steps of `assent dpo`."""
    device = torch.device(work["device"])
    training = Training(lr=work["lr"], batch_size=work["batch_size"], warmup_ratio=0.0).on(device)
    groups = [_to_group(row) for row in work["pairs"]]
    batches = [groups[i : i + training.batch_size] for i in range(0, len(groups), training.batch_size)]
    policy = load_policy(work["model"], device=device)
    state = ReplicatedState(policy, training, len(batches), getattr(torch, work["dtype"]))

    def compute_reference(part: list[PromptGroup]) -> list[Example]:
        prefixes = [group.tokens for group in part]
        sums = map_batches(
            prefixes, training.max_tokens_per_batch, lambda chunk: completion_logprobs(state.model, chunk, device)
        )
        return [Example(*row) for row in zip(part, sums, strict=True)]

    # The reference is the base policy: TRL computes it in every step, assent once, before the first update.
    clock.begin()
    examples = compute_reference(batches[0])
    clock.end()
    clock.begin()
    examples += compute_reference([group for batch in batches[1:] for group in batch])
    clock.end()
    reference_seconds = clock.seconds
    clock.seconds = []
    for number in range(len(batches)):
        batch = examples[number * training.batch_size : (number + 1) * training.batch_size]
        computed: list[LogprobPairs] = []

        def loss(indices: list[int], batch: list[Example] = batch, computed: list[LogprobPairs] = computed) -> Loss:
            total_weight = DECIDED_PAIRS.total_weight(example.group for example in batch)
            pairs = compute_pairs(state.model, [batch[i] for i in indices], total_weight)
            computed.append(pairs)
            return DPO()(pairs)

        clock.begin()
        metrics = optimizer_step(state, number, [example.group.tokens for example in batch], loss)
        clock.end()
        chosen = torch.cat([pairs.chosen.detach() for pairs in computed]).mean()
        rejected = torch.cat([pairs.rejected.detach() for pairs in computed]).mean()
        clock.record(
            loss=metrics["loss"], grad_norm=metrics["grad_norm"], chosen=float(chosen), rejected=float(rejected)
        )
    for number, seconds in enumerate(reference_seconds):
        clock.seconds[number] += seconds
    timed = [group.tokens for batch in batches[1:] for group in batch]
    tokens = sum(2 * len(prefix.prefix) + sum(map(len, prefix.completions)) for prefix in timed)
    encoded = sum(prefix.num_tokens for prefix in timed)
    predicted = sum(len(ids) for prefix in timed for ids in prefix.completions)
    cost = Cost.of(state.model)
    flops = cost.forward(encoded, predicted) + cost.training(encoded, predicted)
    return {"tokens": tokens, "encoded": encoded, "flops": flops}


def _to_group(row: dict[str, list[int]]) -> PromptGroup:
    completions = (tuple(row["chosen_ids"]), tuple(row["rejected_ids"]))
    return PromptGroup("", SharedPrefix(tuple(row["prompt_ids"]), completions), (Pair(0, 1),))


if __name__ == "__main__":
    Benchmark("DPO", prepare, run_assent, "trl_dpo.py", "trl", TOLERANCES, minutes=11, count=12).run()
