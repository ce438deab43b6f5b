"""Sampling speed compared with transformers' `generate` as TRL calls it; greedy log-probabilities must agree."""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from harness import Benchmark
from harness.clock import Clock
from harness.data import common_settings, encode_prompts, load_prompts
from harness.roofline import Cost

from assent.generation.local import sample_completions
from assent.generation.sampling import Sampling
from assent.models.load import load_policy

N = 4
MAX_NEW_TOKENS = 64
GREEDY_TOKENS = 8
STOP_IDS = frozenset[int]()
"""No token ends a completion on either side, so that both sample the same number of tokens."""


def prepare(flags: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return the same prompts twice: greedy, to compare, and sampled, to be timed."""
    prompts = encode_prompts(flags.model, load_prompts(flags.data, flags.model, flags.count))
    return common_settings(flags) | {
        "steps": [prompts, prompts],
        "n": N,
        "max_new_tokens": [GREEDY_TOKENS, MAX_NEW_TOKENS],
        "temperature": 1.0,
    }


def run_assent(work: dict[str, Any], clock: Clock) -> Mapping[str, Any]:
    """Sample with the engine that every stage uses."""
    policy = load_policy(work["model"], getattr(torch, work["dtype"]), work["device"])
    num_sampled = 0
    for step, prompts in enumerate(work["steps"]):
        sampling = Sampling(work["temperature"] if step else 0.0, work["max_new_tokens"][step])
        clock.begin()
        prompt_ids = [tuple(ids) for ids in prompts]
        n = work["n"] if step else 1
        samples = sample_completions(policy.model, prompt_ids, n, sampling, STOP_IDS, step)
        clock.end()
        if step:
            num_sampled += sum(len(sample.token_ids) for sample in samples)
        else:
            for sample in samples:
                clock.record(greedy=sum(sample.logprobs) / len(sample.logprobs))
    encoded = sum(map(len, work["steps"][1]))
    flops = Cost.of(policy.model).forward(encoded + num_sampled, num_sampled)
    return {"drawn": num_sampled, "flops": flops}


if __name__ == "__main__":
    close = {"greedy": (1e-3, 0.3)}
    Benchmark(
        "generation",
        prepare,
        run_assent,
        "transformers_generate.py",
        "trl",
        close,
        minutes=5,
        count=8,
        dtypes=("float32",),
    ).run()
