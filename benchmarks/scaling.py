"""What a step costs against prompts, answer length, answers a prompt and model size: a plot, and the slopes.

    python benchmarks/scaling.py                 DPO steps, float32; docs/pictures/scaling-cpu.svg
    python benchmarks/scaling.py --device cuda --dtype bfloat16

A slope of 1 on two logarithmic axes is a cost in proportion. Random tokens: the cost does not depend on them.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from duel import device_name, keep
from transformers import LlamaConfig, LlamaForCausalLM

from assent.models.attention import NAME, SharedPrefix, register
from assent.models.load import LoadedModel
from assent.models.memory import tune_allocator
from assent.objectives.dpo import DPO
from assent.stages import offline
from assent.training.microbatch import optimizer_step
from assent.training.preferences import Compared, Pair
from assent.training.replicated import Training, TrainState

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
VOCABULARY = 49_152
PROMPT = 64
"""Tokens of a prompt."""
TIMES = 2


class Size(NamedTuple):
    """One step's work."""

    prompts: int = 2
    length: int = 64
    answers: int = 2
    width: int = 576
    layers: int = 30


class Axis(NamedTuple):
    """What is varied, in words, and its values."""

    label: str
    sizes: list[Size]
    of: Callable[[Size, Any], float]


AXES = [
    Axis("prompts a step", [Size(prompts=n) for n in (1, 2, 4, 8)], lambda size, model: size.prompts),
    Axis("tokens an answer", [Size(length=n) for n in (32, 64, 128, 256)], lambda size, model: size.length),
    Axis("answers a prompt", [Size(answers=n) for n in (2, 4, 8)], lambda size, model: size.answers),
    Axis(
        "weights of the model, millions",
        [Size(width=w, layers=n) for w, n in ((192, 6), (384, 12), (576, 30), (768, 30))],
        lambda size, model: sum(weight.numel() for weight in model.parameters()) / 1e6,
    ),
]


def main() -> None:
    """Measure each axis, print what was found, keep it, draw it."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32")
    asked = flags.parse_args()
    tune_allocator()
    register()
    lines: dict[str, list[tuple[float, float]]] = {}
    for axis in AXES:
        found = lines[axis.label] = [_measure(axis, size, asked) for size in axis.sizes]
        slope = _slope(found)
        print(f"{axis.label}: slope {slope:.2f}")
        for x, y in found:
            print(f"  {x:>8.4g}  {y:7.2f} s")
        line = {
            "what": f"cost against {axis.label}", "device": device_name(asked.device), "dtype": asked.dtype,
            "slope": round(slope, 2), "points": [[round(x, 1), round(y, 3)] for x, y in found],
            "ours_seconds": round(found[-1][1], 2), "peer_seconds": None, "ratio": None, "ours_peak_gb": None,
            "peer_peak_gb": None, "losses_agree": None,
            "command": " ".join(["python", "benchmarks/scaling.py", *sys.argv[1:]]),
        }  # fmt: skip
        print(json.dumps(line), flush=True)
        keep(line, asked.device)
    draw(lines, f"{device_name(asked.device)}, {asked.dtype}", PICTURES / f"scaling-{asked.device.split(':')[0]}.svg")


def draw(lines: dict[str, list[tuple[float, float]]], title: str, path: Path) -> None:
    """One plot a line, each with what would be in proportion."""
    figure, places = plt.subplots(1, len(lines), figsize=(3.2 * len(lines), 3.2), sharey=True, layout="constrained")
    for (label, found), place in zip(lines.items(), places, strict=True):
        xs, ys = (np.array(column) for column in zip(*found, strict=True))
        place.loglog(xs, ys, "o-")
        place.loglog(xs, ys[-1] * xs / xs[-1], "--", color="grey")
        place.set_xticks(xs, [f"{x:.3g}" for x in xs])
        place.minorticks_off()
        place.set(title=f"slope {_slope(found):.2f}", xlabel=label)
        place.grid(visible=True, alpha=0.2)
    places[0].set_ylabel("seconds a DPO step")
    figure.suptitle(f"{title}; grey: in proportion")
    figure.savefig(path)


def _slope(found: list[tuple[float, float]]) -> float:
    xs, ys = (np.log(column) for column in zip(*found, strict=True))
    return float(np.polyfit(xs, ys, 1)[0])


def _measure(axis: Axis, size: Size, asked: argparse.Namespace) -> tuple[float, float]:
    """Where a size lies on its axis, and seconds of a step, the median of some."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        intermediate_size=size.width * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 64,
        num_key_value_heads=size.width // 192,
        tie_word_embeddings=True,
        attn_implementation=NAME,
    )
    device, dice = torch.device(asked.device), torch.Generator().manual_seed(0)
    model = LlamaForCausalLM(config).eval().to(device)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(VOCABULARY, (count,), generator=dice).tolist())

    trees = [
        SharedPrefix(ids(PROMPT), tuple(ids(size.length) for _ in range(size.answers))) for _ in range(size.prompts)
    ]
    said = tuple(Pair(i, i + 1) for i in range(size.answers - 1))
    examples = [Compared("", tree, said) for tree in trees]
    training = Training(batch_size=size.prompts).on(device)
    trainee = TrainState(LoadedModel(model, None), training, 1 + TIMES, getattr(torch, asked.dtype))  # type: ignore[arg-type]
    known = [torch.zeros(size.answers) for _ in trees]

    def loss(part: list[int]) -> Any:
        some = [examples[i] for i in part]
        total = offline.CHOICES.weight(examples)
        return DPO()(offline.pairs(trainee.model, some, [known[i] for i in part], device, total))

    seconds = []
    for number in range(1 + TIMES):
        start = time.perf_counter()
        optimizer_step(trainee, number, trees, loss)  # it ends in a number that is read, so nothing is still under way
        seconds.append(time.perf_counter() - start)
    return axis.of(size, model), median(seconds[1:])


if __name__ == "__main__":
    main()
