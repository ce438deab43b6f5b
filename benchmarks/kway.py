"""Rankings of four answers beside TRL, which reads each as the six comparisons that it holds, one by one."""

import argparse
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from duel import Duel
from duel.clock import Clock
from duel.fitting import fit
from duel.material import common, rankings, reward

from assent.models.attention import SharedPrefix
from assent.objectives.kway import KWay
from assent.training.preferences import Compared, Pair, Ranks

RANKINGS, K, LR = 2, 4, 1e-5
"""Rankings in one step, answers in one ranking."""


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Rankings, and their pairs: the first answer is the best, the last the worst."""
    ranked = rankings(flags.model, flags.count, K)
    some = [
        {"prompt_ids": prompt, "chosen_ids": group[a], "rejected_ids": group[b]}
        for prompt, group in ranked
        for a, b in combinations(range(K), 2)
    ]
    return common(flags) | {
        "reward": reward(flags.model),
        "rankings": ranked,
        "pairs": some,
        "batch_size": RANKINGS * K * (K - 1) // 2,
        "trees": RANKINGS,
        "lr": LR,
    }


def ours(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """A tree for each ranking."""
    told = tuple(Pair(a, b) for a, b in combinations(range(K), 2))
    ranks = Ranks(tuple(range(K)), tuple(range(K)), 1.0)
    trees = [SharedPrefix(tuple(prompt), tuple(map(tuple, group))) for prompt, group in work["rankings"]]
    return fit(work, clock, [Compared("", tree, told, (ranks,)) for tree in trees], KWay(), "Rankings")


if __name__ == "__main__":
    close = {"loss": (1e-3, 0.05), "accuracy": (1e-6, 0.5), "grad_norm": (5e-3, 0.1)}
    Duel("K-way, K = 4", prepare, ours, "trl_reward.py", "trl", close, minutes=7, count=4, dtypes=("float32",)).run()
