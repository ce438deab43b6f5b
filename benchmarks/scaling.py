"""The time of a DPO step by prompts, completion length, completions per prompt and model size: a plot and the slopes.

    python benchmarks/scaling.py                 DPO steps, float32; docs/pictures/scaling-cpu.svg
    python benchmarks/scaling.py --device cuda --dtype bfloat16

A slope of 1 on two logarithmic axes means proportional time. Tokens are random: they do not change the time.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import append_result, device_name
from transformers import LlamaConfig, LlamaForCausalLM

from assent.models.attention import ATTN_IMPLEMENTATION, register_attention
from assent.models.load import LoadedModel
from assent.models.memory import tune_allocator
from assent.models.packing import SharedPrefix
from assent.objectives.dpo import DPO
from assent.stages.offline import DECIDED_PAIRS, Example, compute_pairs
from assent.training.microbatch import optimizer_step
from assent.training.preferences import Pair, PromptGroup
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
VOCAB_SIZE = 49_152
PROMPT_TOKENS = 64
"""Tokens of a prompt."""
REPEATS = 2


class Size(NamedTuple):
    """The size of one step."""

    prompts: int = 2
    length: int = 64
    completions: int = 2
    hidden_size: int = 576
    num_layers: int = 30


class Axis(NamedTuple):
    """A property that is varied: its name, its sizes, and the position of a size on the axis."""

    label: str
    sizes: list[Size]
    position: Callable[[Size, Any], float]


AXES = [
    Axis("prompts a step", [Size(prompts=n) for n in (1, 2, 4, 8)], lambda size, model: size.prompts),
    Axis("tokens a completion", [Size(length=n) for n in (32, 64, 128, 256)], lambda size, model: size.length),
    Axis("completions a prompt", [Size(completions=n) for n in (2, 4, 8)], lambda size, model: size.completions),
    Axis(
        "weights of the model, millions",
        [Size(hidden_size=w, num_layers=n) for w, n in ((192, 6), (384, 12), (576, 30), (768, 30))],
        lambda size, model: sum(weight.numel() for weight in model.parameters()) / 1e6,
    ),
]


def main() -> None:
    """Measure each axis, print and store the results, and draw them."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32")
    arguments = flags.parse_args()
    tune_allocator()
    register_attention()
    lines: dict[str, list[tuple[float, float]]] = {}
    for axis in AXES:
        points = lines[axis.label] = [_measure(axis, size, arguments) for size in axis.sizes]
        slope = _slope(points)
        print(f"{axis.label}: slope {slope:.2f}")
        for x, y in points:
            print(f"  {x:>8.4g}  {y:7.2f} s")
        line = {
            "what": f"cost against {axis.label}", "device": device_name(arguments.device), "dtype": arguments.dtype,
            "slope": round(slope, 2), "points": [[round(x, 1), round(y, 3)] for x, y in points],
            "ours_seconds": round(points[-1][1], 2), "peer_seconds": None, "ratio": None, "ours_peak_gb": None,
            "peer_peak_gb": None, "losses_agree": None,
            "command": " ".join(["python", "benchmarks/scaling.py", *sys.argv[1:]]),
        }  # fmt: skip
        print(json.dumps(line), flush=True)
        append_result(line, arguments.device)
    draw(
        lines,
        f"{device_name(arguments.device)}, {arguments.dtype}",
        PICTURES / f"scaling-{arguments.device.split(':')[0]}.svg",
    )


def draw(lines: dict[str, list[tuple[float, float]]], title: str, path: Path) -> None:
    """Draw one plot for each axis, with a line of proportional time."""
    import matplotlib.pyplot as plt

    figure, places = plt.subplots(1, len(lines), figsize=(3.2 * len(lines), 3.2), sharey=True, layout="constrained")
    for (label, points), place in zip(lines.items(), places, strict=True):
        xs, ys = (np.array(column) for column in zip(*points, strict=True))
        place.loglog(xs, ys, "o-")
        place.loglog(xs, ys[-1] * xs / xs[-1], "--", color="grey")
        place.set_xticks(xs, [f"{x:.3g}" for x in xs])
        place.minorticks_off()
        place.set(title=f"slope {_slope(points):.2f}", xlabel=label)
        place.grid(visible=True, alpha=0.2)
    places[0].set_ylabel("seconds a DPO step")
    figure.suptitle(f"{title}; grey: proportional")
    figure.savefig(path)


def _slope(points: list[tuple[float, float]]) -> float:
    xs, ys = (np.log(column) for column in zip(*points, strict=True))
    return float(np.polyfit(xs, ys, 1)[0])


def _measure(axis: Axis, size: Size, arguments: argparse.Namespace) -> tuple[float, float]:
    """Return the position of a size on its axis, and the median seconds of a step."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=size.hidden_size,
        intermediate_size=size.hidden_size * 8 // 3,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.hidden_size // 64,
        num_key_value_heads=size.hidden_size // 192,
        tie_word_embeddings=True,
        attn_implementation=ATTN_IMPLEMENTATION,
    )
    device = torch.device(arguments.device)
    rng = torch.Generator().manual_seed(0)
    model = LlamaForCausalLM(config).eval().to(device)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(VOCAB_SIZE, (count,), generator=rng).tolist())

    prefixes = [
        SharedPrefix(ids(PROMPT_TOKENS), tuple(ids(size.length) for _ in range(size.completions)))
        for _ in range(size.prompts)
    ]
    pairs = tuple(Pair(i, i + 1) for i in range(size.completions - 1))
    examples = [Example(PromptGroup("", prefix, pairs), torch.zeros(size.completions)) for prefix in prefixes]
    total_weight = DECIDED_PAIRS.total_weight(example.group for example in examples)
    training = Training(batch_size=size.prompts).on(device)
    state = ReplicatedState(LoadedModel(model, None), training, 1 + REPEATS, getattr(torch, arguments.dtype))  # type: ignore[arg-type]

    def loss(part: list[int]) -> Any:
        return DPO()(compute_pairs(state.model, [examples[i] for i in part], total_weight))

    seconds = []
    for number in range(1 + REPEATS):
        begin = time.perf_counter()
        optimizer_step(state, number, prefixes, loss)  # it reads a number at the end, so the device has finished
        seconds.append(time.perf_counter() - begin)
    return axis.position(size, model), median(seconds[1:])


if __name__ == "__main__":
    main()
