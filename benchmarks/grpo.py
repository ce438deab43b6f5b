"""GRPO beside TRL, rollouts and all: the first step on the same answers, the next on what each side draws itself."""

import argparse
from collections.abc import Mapping
from typing import Any

from duel import Duel
from duel.clock import Clock
from duel.material import answers, as_json, common, encoded, questions
from duel.trials import Length, trials

from assent.objectives.grpo import GRPO

N, LENGTH, STEPS = 4, 64, 2


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Prompts, and answers for the first step."""
    asked = questions(flags.data, flags.model, flags.count)
    given = answers(flags.model, asked, N, LENGTH)
    return common(flags) | {
        "asked": as_json(asked),
        "prompts": encoded(flags.model, asked),
        # of several lengths: the loss of answers that are equally long is zero before the first step
        "given": [[ids[: LENGTH - 12 * i] for i, ids in enumerate(group)] for group in given],
        "n": N,
        "max_new_tokens": LENGTH,
        "steps": STEPS,
        "epochs": 1,
        "lr": 1e-6,
        "max_grad_norm": 1.0,
        "beta": 0.04,
        "temperature": 1.0,
    }


def ours(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Steps as `assent grpo` takes them."""
    return trials(work, clock, GRPO(beta=work["beta"], loss_type="dapo"), Length(), list(CLOSE))


CLOSE = {
    "loss": (1e-3, 0.05),
    "score": (1e-5, 1e-5),
    "entropy": (1e-3, 0.05),
    "kl": (1e-3, 0.05),
    "grad_norm": (5e-3, 0.1),
}

if __name__ == "__main__":
    Duel("GRPO", prepare, ours, "trl_grpo.py", "trl", CLOSE, minutes=9, count=4, dtypes=("bfloat16",)).run()
