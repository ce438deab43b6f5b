"""A reward model beside TRL: the same pairs in the same order, the same first head, the same losses."""

import argparse
from collections.abc import Mapping
from typing import Any

from duel import Duel
from duel.clock import Clock
from duel.fitting import fit
from duel.material import common, pairs, reward

from assent.models.attention import SharedPrefix
from assent.objectives.bradley_terry import BradleyTerry
from assent.training.preferences import Compared, Pair

BATCH, LR = 4, 1e-5


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The first pairs, as ids, and a reward model to start from."""
    some = pairs(flags.data, flags.model, flags.count)
    return common(flags) | {"reward": reward(flags.model), "pairs": some, "batch_size": BATCH, "trees": BATCH, "lr": LR}


def ours(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """A tree for each pair."""
    trees = [
        SharedPrefix(tuple(p["prompt_ids"]), (tuple(p["chosen_ids"]), tuple(p["rejected_ids"]))) for p in work["pairs"]
    ]
    return fit(work, clock, [Compared("", tree, (Pair(0, 1),)) for tree in trees], BradleyTerry(), "Scores")


if __name__ == "__main__":
    close = {"loss": (1e-3, 0.05), "accuracy": (1e-6, 0.5), "grad_norm": (5e-3, 0.1)}
    Duel("reward model", prepare, ours, "trl_reward.py", "trl", close, minutes=8, count=12).run()
