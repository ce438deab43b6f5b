"""PPO beside TRL 1.12, the last that has it: policy, reference, reward and value model, two epochs on each rollout."""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from duel import Duel
from duel.clock import Clock
from duel.material import answers, as_json, common, encoded, questions, reward
from duel.trials import trials

from assent.models.load import load_reward
from assent.objectives.ppo import PPO
from assent.rewards.model import Model
from assent.training.replicated import Training

N, LENGTH, STEPS, EPOCHS = 4, 32, 2, 2


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Prompts, and answers for the first step; the peer, which draws one answer, is asked each prompt N times."""
    asked = questions(flags.data, flags.model, flags.count)
    return common(flags) | {
        "reward": reward(flags.model),
        "asked": as_json(asked),
        "prompts": encoded(flags.model, asked),
        "given": answers(flags.model, asked, N, LENGTH),
        "n": N,
        "max_new_tokens": LENGTH,
        "steps": STEPS,
        "epochs": EPOCHS,
        "lr": 1e-6,
        "max_grad_norm": 1e9,  # the peer does not clip
        "beta": 0.05,
        "temperature": 1.0,
    }


def ours(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Steps as `assent ppo` takes them; the value model starts from the reward model, and at zero."""
    device = torch.device(work["device"])
    value = load_reward(work["reward"], device=device)
    torch.nn.init.zeros_(value.model.get_submodule("score").get_parameter("weight"))
    judge = Model(
        (load_reward(work["reward"], getattr(torch, work["dtype"]), device),),
        Training().on(device).max_tokens_per_batch,
    )
    return trials(work, clock, PPO(beta=work["beta"]), judge, list(CLOSE), value)


CLOSE = {
    "policy_loss": (2e-3, 0.05),
    "value_loss": (2e-3, 0.05),
    "score": (1e-3, 0.05),
    "kl": (1e-3, 0.05),
    "ratio": (1e-3, 0.05),
}

if __name__ == "__main__":
    Duel("PPO", prepare, ours, "trl_ppo.py", "ppo", CLOSE, minutes=13, count=4, dtypes=("float32",)).run()
