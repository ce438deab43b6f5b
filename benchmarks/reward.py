"""Reward model compared with TRL: the same pairs in the same order, the same initial head, the same losses."""

import argparse
from collections.abc import Mapping
from typing import Any

from harness import Benchmark
from harness.clock import Clock
from harness.data import common_settings, load_pairs, make_reward_model
from harness.offline import train_reward_model

from assent.models.packing import SharedPrefix
from assent.objectives.bradley_terry import BradleyTerry
from assent.training.preferences import Pair, PromptGroup

BATCH_SIZE = 4
LR = 1e-5
TOLERANCES = {"loss": (1e-3, 0.05), "accuracy": (1e-6, 0.5), "grad_norm": (5e-3, 0.1)}


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return the first pairs, as token ids, and a new reward model."""
    return common_settings(flags) | {
        "reward": make_reward_model(flags.model),
        "pairs": load_pairs(flags.data, flags.model, flags.count),
        "batch_size": BATCH_SIZE,
        "groups": BATCH_SIZE,
        "lr": LR,
    }


def run_assent(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Train on one group for each pair."""
    groups = []
    for row in work["pairs"]:
        completions = (tuple(row["chosen_ids"]), tuple(row["rejected_ids"]))
        groups.append(PromptGroup("", SharedPrefix(tuple(row["prompt_ids"]), completions), (Pair(0, 1),)))
    return train_reward_model(work, clock, groups, BradleyTerry())


if __name__ == "__main__":
    Benchmark("reward model", prepare, run_assent, "trl_reward.py", "trl", TOLERANCES, minutes=8, count=12).run()
