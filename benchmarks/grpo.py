"""GRPO compared with TRL, with rollouts: the first step on the same responses, the next on each side's own samples."""

import argparse
from collections.abc import Mapping
from typing import Any

from harness import Benchmark
from harness.clock import Clock
from harness.data import common_settings, encode_prompts, load_prompts, prompts_to_json, sample_responses
from harness.online import LengthReward, run_online

from assent.objectives.grpo import GRPO

N, LENGTH, STEPS = 4, 64, 2
TOLERANCES = {
    "loss": (1e-3, 0.05),
    "score": (1e-5, 1e-5),
    "entropy": (1e-3, 0.05),
    "kl": (1e-3, 0.05),
    "grad_norm": (5e-3, 0.1),
}


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return prompts, and responses for the first step."""
    prompts = load_prompts(flags.data, flags.model, flags.count)
    responses = sample_responses(flags.model, prompts, N, LENGTH)
    return common_settings(flags) | {
        "messages": prompts_to_json(prompts),
        "prompts": encode_prompts(flags.model, prompts),
        # of several lengths: the loss of responses of one length is zero before the first step
        "responses": [[ids[: LENGTH - 12 * i] for i, ids in enumerate(group)] for group in responses],
        "n": N,
        "max_new_tokens": LENGTH,
        "steps": STEPS,
        "epochs": 1,
        "lr": 1e-6,
        "max_grad_norm": 1.0,
        "beta": 0.04,
        "temperature": 1.0,
    }


def run_assent(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Take the steps of `assent grpo`."""
    return run_online(work, clock, GRPO(beta=work["beta"], loss_type="dapo"), LengthReward(), list(TOLERANCES))


if __name__ == "__main__":
    Benchmark(
        "GRPO", prepare, run_assent, "trl_grpo.py", "trl", TOLERANCES, minutes=9, count=4, dtypes=("bfloat16",)
    ).run()
