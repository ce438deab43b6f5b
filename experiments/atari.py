"""Agents that see pixels: a dot that drifts, and Freeway of the Atari 2600, from comparisons of clips.

    python experiments/atari.py
    python experiments/atari.py --games moving_dot --seeds 0 --steps 800 --labels 12

What two cores can show of Christiano et al. 2017, section 3.1.2 (arXiv:1706.03741): the games there took 50 million
frames. In Freeway a chicken crosses a road: the game's points are no help to an agent that acts at random, which never
gets across, but people see which of two chickens gets further, and the simulated annotators compare just that. Beside
the comparisons: PPO on the annotators' own reward, and two negative controls, random labels and a constant reward.
Freeway needs the extra `atari`. An agent that is done is not trained again.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from assent.api import Run
from assent.errors import AssentError
from assent.functional.finite import replace_nonfinite

ROOT = Path(__file__).parent.parent
GAMES: Mapping[str, Mapping[str, Any]] = {
    "moving_dot": {"steps": 40_000, "labels": 200, "gamma": 0.9},
    "freeway": {
        "environment": "atari",
        "game": "freeway",
        "steps": 102_400,
        "labels": 300,
        "episodes": 8,
        "epochs": 3,
        "batch_size": 256,
        "lr": 5e-4,
        "gamma": 0.99,
        "entropy_coef": 0.01,
        "reward_epochs": 10,
        "evaluation_episodes": 16,
    },
}
"""Settings of each; the others are those of `assent control`."""
ARMS: Mapping[str, Mapping[str, Any]] = {
    "comparisons": {},
    "true reward": {"reward": "true"},
    "random labels": {"random_labels": True},
    "constant reward": {"reward": "constant"},
}
"""The last two are negative controls."""


def main() -> None:
    """Train and measure every agent, print a table and a line of JSON."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "atari-experiment")
    flags.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    flags.add_argument("--steps", type=int, help="default: 40,000 of the dot, 102,400 of Freeway")
    flags.add_argument("--labels", type=int, help="default: 200 for the dot, 300 for Freeway")
    arguments = flags.parse_args()
    rows = {
        game: {arm: {seed: train(arguments, game, arm, seed) for seed in arguments.seeds} for arm in arguments.arms}
        for game in arguments.games
    }
    print_table(rows)
    print(json.dumps(replace_nonfinite({"experiment": "atari", "games": rows}), allow_nan=False))


def train(arguments: argparse.Namespace, game: str, arm: str, seed: int) -> dict[str, Any]:
    """Train one agent, and return the mean true return of unseen episodes; `before`: of its first rollout."""
    asked = {name: value for name in ("steps", "labels") if (value := getattr(arguments, name)) is not None}
    run = Run(arguments.folder / f"{game}-{arm.replace(' ', '-')}-{seed}", seed=seed, held_out=0.0)
    run.control(**{"environment": game, **GAMES[game], **asked, **ARMS[arm]})
    result = run.results["control"]
    return {
        "before": run.metrics[0]["true_return"],
        "return": result["true_return"]["mean"],
        "sampled": result["true_return_sampled"]["mean"],
        "comparisons": result["comparisons"],
        "steps": result["steps"],
        "correlation": run.metrics[-1]["correlation"],
        "seconds": result["seconds"],
    }


def print_table(rows: Mapping[str, Mapping[str, Mapping[int, Mapping[str, Any]]]]) -> None:
    """Print a row for each game and arm: what its seeds returned, side by side."""
    print("\n| game | arm | comparisons | steps | return before | after | after, sampled actions | correlation | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for game, by_arm in rows.items():
        for arm, by_seed in by_arm.items():
            first = next(iter(by_seed.values()))
            before, after, sampled = (
                ", ".join(f"{row[name]:.1f}" for row in by_seed.values()) for name in ("before", "return", "sampled")
            )
            correlation = median(row["correlation"] for row in by_seed.values())
            seconds = median(row["seconds"] for row in by_seed.values())
            counts = f"{first['comparisons']} | {first['steps']}"
            print(f"| {game} | {arm} | {counts} | {before} | {after} | {sampled} | {correlation:.2f} | {seconds:.0f} |")


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"atari: {error}")
