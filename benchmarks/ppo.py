"""PPO compared with TRL 1.12, the last that has it: four models, two epochs on each rollout."""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from harness import Benchmark
from harness.clock import Clock
from harness.data import (
    common_settings,
    encode_prompts,
    load_prompts,
    make_reward_model,
    prompts_to_json,
    sample_responses,
)
from harness.online import run_online

from assent.models.load import load_reward
from assent.objectives.ppo import PPO
from assent.rewards.model import Model
from assent.training.settings import Training

N, LENGTH, STEPS, EPOCHS = 4, 32, 2, 2
TOLERANCES = {
    "policy_loss": (2e-3, 0.05),
    "value_loss": (2e-3, 0.05),
    "score": (1e-3, 0.05),
    "kl": (1e-3, 0.05),
    "ratio": (1e-3, 0.05),
}


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return prompts, and responses for the first step; the peer samples one for each of N copies of a prompt."""
    prompts = load_prompts(flags.data, flags.model, flags.count)
    return common_settings(flags) | {
        "reward": make_reward_model(flags.model),
        "messages": prompts_to_json(prompts),
        "prompts": encode_prompts(flags.model, prompts),
        "responses": sample_responses(flags.model, prompts, N, LENGTH),
        "n": N,
        "max_new_tokens": LENGTH,
        "steps": STEPS,
        "epochs": EPOCHS,
        "lr": 1e-6,
        "max_grad_norm": 1e9,  # the peer does not clip
        "beta": 0.05,
        "temperature": 1.0,
    }


def run_assent(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Take the steps of `assent ppo`; the value model starts from the reward model, with a head of zeros."""
    device = torch.device(work["device"])
    value = load_reward(work["reward"], device=device)
    torch.nn.init.zeros_(value.model.get_submodule("score").get_parameter("weight"))
    reward = Model(
        (load_reward(work["reward"], getattr(torch, work["dtype"]), device),),
        Training().on(device).max_tokens_per_batch,
    )
    return run_online(work, clock, PPO(beta=work["beta"]), reward, list(TOLERANCES), value)


if __name__ == "__main__":
    Benchmark(
        "PPO", prepare, run_assent, "trl_ppo.py", "ppo", TOLERANCES, minutes=13, count=4, dtypes=("float32",)
    ).run()
