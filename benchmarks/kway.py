"""Rankings of four responses compared with TRL, which trains on each as six separate comparisons."""

import argparse
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from harness import Benchmark
from harness.clock import Clock
from harness.data import common_settings, make_reward_model, sample_rankings
from harness.offline import train_reward_model

from assent.models.packing import SharedPrefix
from assent.objectives.kway import KWay
from assent.training.preferences import Pair, PromptGroup, TieredCompletions

RANKINGS = 2
"""Rankings in one step."""
K = 4
"""Responses in one ranking."""
LR = 1e-5
TOLERANCES = {"loss": (1e-3, 0.05), "accuracy": (1e-6, 0.5), "grad_norm": (5e-3, 0.1)}


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return rankings and their pairs: the first response is the best, the last the worst."""
    rankings = sample_rankings(flags.model, flags.count, K)
    pairs = [
        {"prompt_ids": prompt, "chosen_ids": group[a], "rejected_ids": group[b]}
        for prompt, group in rankings
        for a, b in combinations(range(K), 2)
    ]
    return common_settings(flags) | {
        "reward": make_reward_model(flags.model),
        "rankings": rankings,
        "pairs": pairs,
        "batch_size": RANKINGS * K * (K - 1) // 2,
        "groups": RANKINGS,
        "lr": LR,
    }


def run_assent(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Train on one group for each ranking."""
    pairs = tuple(Pair(a, b) for a, b in combinations(range(K), 2))
    ranking = TieredCompletions(tuple(range(K)), tuple(range(K)), 1.0)
    prefixes = [SharedPrefix(tuple(prompt), tuple(map(tuple, group))) for prompt, group in work["rankings"]]
    groups = [PromptGroup("", prefix, pairs, (ranking,)) for prefix in prefixes]
    return train_reward_model(work, clock, groups, KWay())


if __name__ == "__main__":
    Benchmark(
        "K-way, K = 4", prepare, run_assent, "trl_reward.py", "trl", TOLERANCES, minutes=7, count=4, dtypes=("float32",)
    ).run()
