"""Drawing answers beside transformers' `generate`, as TRL calls it; that both read the model alike is seen greedily."""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from duel import Duel
from duel.clock import Clock
from duel.limit import Cost
from duel.material import common, encoded, questions

from assent.generation.local import Sampling, sample
from assent.models.load import load_policy

N, LENGTH, COMPARED = 4, 64, 8
ENDS = frozenset[int]()
"""Nothing ends an answer on either side, so that both draw as many tokens."""


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same prompts twice: greedily, to compare, and drawn, to be timed."""
    prompts = encoded(flags.model, questions(flags.data, flags.model, flags.count))
    return common(flags) | {
        "steps": [prompts, prompts],
        "n": N,
        "max_new_tokens": [COMPARED, LENGTH],
        "temperature": 1.0,
    }


def ours(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """By the sampler that every stage draws with."""
    language = load_policy(work["model"], getattr(torch, work["dtype"]), work["device"])
    dice, drawn = torch.Generator().manual_seed(0), 0
    for step, prompts in enumerate(work["steps"]):
        how = Sampling(work["temperature"] if step else 0.0, work["max_new_tokens"][step])
        clock.begin()
        made = sample(language.model, [tuple(ids) for ids in prompts], work["n"] if step else 1, how, ENDS, dice)
        clock.end()
        if step:
            drawn += sum(len(one.ids) for one in made)
        else:
            for one in made:
                clock.found_in_step(greedy=sum(one.logprobs) / len(one.logprobs))
    encoded = sum(map(len, work["steps"][1]))
    return {"drawn": drawn, "flops": Cost.of(language.model).forward(encoded + drawn, drawn)}


if __name__ == "__main__":
    close = {"greedy": (1e-3, 0.3)}
    Duel(
        "generation", prepare, ours, "transformers_generate.py", "trl", close, minutes=5, count=8, dtypes=("float32",)
    ).run()
