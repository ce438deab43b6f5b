"""Pendulum: what 200 comparisons of clips teach an agent, beside the true reward and beside nothing.

    python experiments/pendulum.py
    python experiments/pendulum.py --seeds 0 --steps 20000

An agent that never sees the environment's reward swings a pendulum up (Christiano et al. 2017, arXiv:1706.03741).
Simulated annotators compare clips of 25 steps, without errors or with one wrong choice in ten. Beside it: PPO on the
true reward, and three negative controls, which must fail: random labels, a constant reward, a random reward. All are
measured on 64 episodes from seeds of their own, with the policy's mean action. An arm that is done is not done again.
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
ARMS: Mapping[str, Mapping[str, Any]] = {
    "comparisons": {},
    "comparisons, 1 in 10 wrong": {"profiles": ["one_in_ten_wrong"], "stop_accuracy": 0.9},
    "comparisons at random": {"acquisition": "uniform"},
    "true reward": {"reward": "true"},
    "random labels": {"random_labels": True},
    "constant reward": {"reward": "constant"},
    "random reward": {"reward": "random"},
}
"""Settings of each arm; the last three are negative controls."""
TARGET = -250.0
"""The least median return of `comparisons`."""


def main() -> None:
    """Train and measure every arm, print a table and a line of JSON."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "pendulum-experiment")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    flags.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    flags.add_argument("--labels", type=int, default=200)
    flags.add_argument("--steps", type=int, default=100_000)
    arguments = flags.parse_args()
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for arm in arguments.arms:
        rows[arm] = {seed: train(arguments, arm, seed) for seed in arguments.seeds}
    print_table(rows)
    line = {"experiment": "pendulum", "labels": arguments.labels, "steps": arguments.steps, "arms": rows}
    print(json.dumps(replace_nonfinite(line), allow_nan=False))


def train(arguments: argparse.Namespace, arm: str, seed: int) -> dict[str, Any]:
    """Train and measure one agent."""
    name = arm.replace(", ", "-").replace(" ", "-")
    run = Run(arguments.folder / f"{name}-{seed}", seed=seed, held_out=0.0)
    run.control(**{"labels": arguments.labels, "steps": arguments.steps, **ARMS[arm]})
    result = run.results["control"]
    last = run.metrics[-1]
    return {
        "return": result["true_return"]["mean"],
        "comparisons": result["comparisons"],
        "correlation": last["correlation"],
        "seconds": result["seconds"],
    }


def print_table(rows: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
    """Print a row for each arm: the return by seed, its median, and what it took."""
    seeds = list(next(iter(rows.values())))
    print(f"\n| arm | comparisons | {' | '.join(f'seed {seed}' for seed in seeds)} | median | correlation | seconds |")
    print("|---|---|" + "---|" * (len(seeds) + 3))
    for arm, by_seed in rows.items():
        returns = [row["return"] for row in by_seed.values()]
        comparisons, correlation, seconds = (
            median(row[name] for row in by_seed.values()) for name in ("comparisons", "correlation", "seconds")
        )
        cells = [f"{comparisons:.0f}", *(f"{value:.0f}" for value in returns), f"{median(returns):.0f}"]
        print(f"| {arm} | {' | '.join(cells)} | {correlation:.2f} | {seconds:.0f} |")
    if "comparisons" in rows:
        reached = median(row["return"] for row in rows["comparisons"].values())
        verdict = "reached" if reached >= TARGET else "missed"
        print(f"\nmedian return from comparisons {reached:.0f}: the target of {TARGET:.0f} is {verdict}")


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"pendulum: {error}")
