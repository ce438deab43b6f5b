"""Backflip: a hopper learns what nobody wrote a reward for, from 900 comparisons of clips.

    python experiments/backflip.py
    python experiments/backflip.py --seeds 0 --labels 40 --steps 51200

Christiano et al. 2017, section 3.2 (arXiv:1706.03741), with simulated annotators: they prefer the clip with more net
backward turns in the air, and a fall costs more than a turn. Beside the comparisons: one wrong choice in ten; PPO on
the annotators' own reward; and two negative controls, random labels and a constant reward, which must fail. What counts
is no reward but a count: clean flips on 32 episodes from seeds of their own. An arm that is done is not done again.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from assent.api import Run
from assent.clips import ShapeClip, draw_clip, draw_film
from assent.config import read_recipe
from assent.control.agent import Agent
from assent.control.comparisons import cut_segment
from assent.environments.hopper import DT, Posture, count_flips
from assent.errors import AssentError
from assent.functional.finite import replace_nonfinite
from assent.replay import prompt_of

ROOT = Path(__file__).parent.parent
ARMS: Mapping[str, Mapping[str, Any]] = {
    "comparisons": {},
    "comparisons, 1 in 10 wrong": {"profiles": ["one_in_ten_wrong"], "stop_accuracy": 0.9},
    "true reward": {"reward": "true"},
    "random labels": {"random_labels": True},
    "constant reward": {"reward": "constant"},
}
"""Settings of each arm; the last two are negative controls."""
FIRST_SEED = 1_000_000
EPISODES = 32
"""Episodes that are measured, from seeds that training never used."""
LENGTH = 3
"""Their length in episodes of training: 9.6 s."""
TARGET = 0.25
"""The least clean flips a second in the median of the seeds."""


def main() -> None:
    """Train and measure every arm, print a table and a line of JSON."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "backflip-experiment")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    flags.add_argument("--labels", type=int, default=900)
    flags.add_argument("--steps", type=int, help="default: those of the recipe")
    flags.add_argument("--film", type=Path, help="also write a film of the first agent as an SVG file")
    arguments = flags.parse_args()
    rows = {arm: {seed: train(arguments, arm, seed) for seed in arguments.seeds} for arm in arguments.arms}
    if arguments.film:
        folder = folder_of(arguments, arguments.arms[0], arguments.seeds[0])
        arguments.film.write_text(draw_episode(Agent.load(folder / "control")), encoding="utf-8")
    print_table(rows)
    line = {"experiment": "backflip", "labels": arguments.labels, "arms": rows}
    print(json.dumps(replace_nonfinite(line), allow_nan=False))


def folder_of(arguments: argparse.Namespace, arm: str, seed: int) -> Path:
    """Return the run folder of an agent."""
    folder: Path = arguments.folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    return folder


def train(arguments: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """Train one agent, and count its flips."""
    recipe = read_recipe(ROOT / "examples" / "backflip.toml")["control"]
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    run = Run(folder_of(arguments, arm, seed), seed=seed, held_out=0.0)
    run.control(**{**recipe, "labels": arguments.labels, **steps, **ARMS[arm]})
    result = run.results["control"]
    flips = measure_flips(Agent.load(run.folder / "control"))
    return {**flips, "comparisons": result["comparisons"], "steps": result["steps"], "seconds": result["seconds"]}


def measure_flips(agent: Agent) -> dict[str, float]:
    """Return what an agent does with its mean actions on unseen seeds.

    `clean` and `half_turns` are flights a second, `airborne` and `fallen` shares of the time, `in_a_row` the most clean
    flips of any episode without a fall between them, and `flippers` the share of the episodes with a clean flip.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + EPISODES)
    episodes: Any = agent.environment.begin(list(seeds))
    steps = LENGTH * agent.environment.horizon
    postures: list[Posture] = []
    for _ in range(steps):
        episodes.step(agent.predict(episodes.observations))
        postures.append(episodes.posture)
    trace = Posture(*map(np.stack, zip(*postures, strict=True)))
    flips = count_flips(trace)
    seconds = steps * DT * EPISODES
    return {
        "clean": float(flips.clean.sum()) / seconds,
        "half_turns": float(flips.half_turns.sum()) / seconds,
        "in_a_row": int(flips.in_a_row.max()),
        "flippers": float((flips.clean > 0).mean()),
        "airborne": float(((trace.foot >= 0) & (trace.body >= 0)).mean()),
        "fallen": float((trace.body < 0).mean()),
    }


def draw_episode(agent: Agent) -> str:
    """Return the first of the measured episodes as an SVG document: every second step, at half speed."""
    rollout = agent.play([FIRST_SEED], seed=0)
    steps = agent.environment.horizon
    clip = draw_clip(prompt_of(agent.environment, FIRST_SEED), cut_segment(rollout, 0, 0, steps).text)
    assert isinstance(clip, ShapeClip)
    film = draw_film(ShapeClip(clip.fps / 2, clip.frames[::2]))
    colours = "<style>.clip-ink{color:#57606a}.clip-accent{color:#2a6fbb}.clip-muted{color:#b0b6bc}</style>"
    document = film.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" width="320"', 1)
    return document.replace("<style>", f"{colours}<style>", 1)


def print_table(rows: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
    """Print a row for each arm and seed."""
    columns = (
        "comparisons",
        "steps",
        "clean",
        "half_turns",
        "in_a_row",
        "flippers",
        "airborne",
        "fallen",
        "seconds",
    )
    header = "arm | seed | comparisons | steps | clean flips/s | half turns/s | most in a row "
    print(f"\n| {header}| episodes with one | in the air | on the floor | seconds |\n|{'---|' * (len(columns) + 2)}")
    formats = {
        "clean": ".2f",
        "half_turns": ".2f",
        "flippers": ".0%",
        "airborne": ".0%",
        "fallen": ".0%",
    }
    for arm, by_seed in rows.items():
        for seed, row in by_seed.items():
            cells = [format(row[name], formats.get(name, ".0f")) for name in columns]
            print(f"| {arm} | {seed} | {' | '.join(cells)} |")
    for arm, by_seed in rows.items():
        rate = median(row["clean"] for row in by_seed.values())
        print(f"{arm}: {rate:.2f} clean flips a second in the median{_verdict(arm, rate)}")


def _verdict(arm: str, rate: float) -> str:
    if not arm.startswith("comparisons"):
        return ""
    return f"; the target of {TARGET} is {'reached' if rate >= TARGET else 'missed'}"


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"backflip: {error}")
