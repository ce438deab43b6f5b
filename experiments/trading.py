"""Trading: an agent learns somebody's taste for risk from comparisons of accounts. It claims no profit.

    python experiments/trading.py
    python experiments/trading.py --seeds 0 --risk-aversions 1 --steps 10000

A simulated person with the utility "log-return - lambda x largest loss" compares two accounts over the same days of a
real share, and is wrong once in ten. A linear reward of a day is fitted to 300 comparisons of the years until 2009, and
PPO learns from it. Measured from 2009-09 on: how often the reward agrees with the person, beside the rule "who earned
more wins", and what the agent's account does, for several lambda. Beside it: an agent with the person's utility itself,
one with random labels, and three accounts that never trade. An agent that is done is not trained again.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from assent.api import Run
from assent.config import read_recipe
from assent.control.agent import Agent
from assent.control.reward_model import StepReward
from assent.environments.trading import Outcome, Trading, measure_actions, measure_baselines
from assent.errors import AssentError
from assent.functional.finite import replace_nonfinite

ROOT = Path(__file__).parent.parent
ARMS: Mapping[str, Mapping[str, Any]] = {
    "comparisons": {},
    "true reward": {"reward": "true"},
    "random labels": {"random_labels": True},
}
UNSEEN = range(1_000_000, 1_000_512)
"""Seeds of windows of the later years."""


def main() -> None:
    """Train and measure every agent, print the tables and a line of JSON."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "trading-experiment")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--risk-aversions", type=float, nargs="+", default=[0.0, 1.0, 4.0])
    flags.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    flags.add_argument("--steps", type=int, help="default: those of the recipe")
    arguments = flags.parse_args()
    rows = {
        arm: {
            f"{risk_aversion:g}": {seed: train(arguments, arm, risk_aversion, seed) for seed in arguments.seeds}
            for risk_aversion in sorted(arguments.risk_aversions)
        }
        for arm in arguments.arms
    }
    baselines = {name: describe(outcome) for name, outcome in measure_baselines(UNSEEN).items()}
    print_table(rows, baselines)
    line = {"experiment": "trading", "windows": len(UNSEEN), "arms": rows, "baselines": baselines}
    print(json.dumps(replace_nonfinite(line), allow_nan=False))


def train(arguments: argparse.Namespace, arm: str, risk_aversion: float, seed: int) -> dict[str, float]:
    """Train one agent, and measure its account and its reward on the later years."""
    recipe = read_recipe(ROOT / "examples" / "trading.toml")["control"]
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    run = Run(arguments.folder / f"{arm.replace(' ', '-')}-{risk_aversion:g}-{seed}", seed=seed, held_out=0.0)
    run.control(**{**recipe, "risk_aversion": risk_aversion, **steps, **ARMS[arm]})
    folder = run.folder / "control"
    measured = describe(measure_actions(UNSEEN, Agent.load(folder).play(UNSEEN, 0).actions))
    if (folder / "reward_model.safetensors").exists():
        measured |= measure_agreement(StepReward.load(folder), risk_aversion)
    return measured


def describe(outcome: Outcome) -> dict[str, float]:
    """Return an account's mean return and largest loss in a window, and the worst of these losses, in per cent."""
    return {
        "return": 100 * float(np.expm1(outcome.log_returns).mean()),
        "drawdown": 100 * float(outcome.max_drawdowns.mean()),
        "worst": 100 * float(outcome.max_drawdowns.max()),
    }


def measure_agreement(reward: StepReward, risk_aversion: float) -> dict[str, float]:
    """Return how often the reward prefers the account that the person prefers, of two that trade at random.

    `naive` is the same for the rule "who earned more wins".
    """
    environment = Trading(risk_aversion=risk_aversion)
    sums = []
    for first in (True, False):
        episodes = environment.begin(list(UNSEEN))
        rng = np.random.default_rng(int(first))
        exposures = rng.integers(environment.action_space.n, size=len(UNSEEN))
        steps = []
        for _ in range(environment.horizon):
            changes = rng.random(len(UNSEEN)) < 0.1
            exposures = np.where(changes, rng.integers(environment.action_space.n, size=len(UNSEEN)), exposures)
            steps.append(episodes.step(exposures))
        features = np.stack([step.features for step in steps])
        rewards = reward.mean_rewards(features).sum(0)
        sums.append((rewards, sum(step.true_rewards for step in steps), features[..., 0].sum(0)))
    learned, true, earned = (np.asarray(a) - np.asarray(b) for a, b in zip(*sums, strict=True))
    return {"agreement": float((learned * true > 0).mean()), "naive": float((earned * true > 0).mean())}


def print_table(rows: Mapping[str, Any], baselines: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row for each agent, the figures of its seeds side by side, and the accounts that never trade."""
    columns = ("agreement", "naive", "return", "drawdown", "worst")
    print(
        "\n| agent | lambda | agrees with the person | naive rule agrees | return % | largest loss % | worst window % |"
    )
    print("|---|---|---|---|---|---|---|")
    for arm, by_risk in rows.items():
        for risk, by_seed in by_risk.items():
            cells = [
                ", ".join(f"{row[name]:.{2 if name in columns[:2] else 1}f}" for row in by_seed.values() if name in row)
                for name in columns
            ]
            print(f"| {arm} | {risk} | {' | '.join(cells)} |")
    for name, row in baselines.items():
        print(f"| {name} | | | | {row['return']:.1f} | {row['drawdown']:.1f} | {row['worst']:.1f} |")
    for arm, by_risk in rows.items():
        means = [fmean(row["drawdown"] for row in by_seed.values()) for by_seed in by_risk.values()]
        if len(means) > 1:
            trend = "falls" if all(a > b for a, b in pairwise(means)) else "does not fall"
            print(f"{arm}: the largest loss {trend} with lambda: {', '.join(f'{mean:.1f} %' for mean in means)}")


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"trading: {error}")
