"""Over-optimisation: a policy's score by its reward model rises on, while the reward that the model learned falls.

    python experiments/overoptimization.py --picture docs/pictures/overoptimization.svg
    python experiments/overoptimization.py --seeds 0 --sizes 400
    python experiments/overoptimization.py --small

Gao, Schulman & Hilton 2022 (arXiv:2210.10760), on a model of half a million weights. The gold reward is a rule, the
conciseness rubric. Noisy simulated annotators compare responses by it, reward models learn from 100, 400 and 1,600
comparisons, and each trains a policy without a KL penalty. Two controls: random labels, which teach nothing, and the
rubric itself as the reward, which cannot fall behind. Rewards are in standard deviations of the initial policy's own
completions, from their mean; the distance d is sqrt(KL(policy || initial policy)). A finished run is not done again.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.api import Run
from assent.config import read_recipe
from assent.errors import AssentError
from assent.files import replacing, replacing_folder
from assent.functional.finite import replace_nonfinite
from assent.functional.overoptimization import best_of_n_curve, fit_best_of_n, fit_rl
from assent.generation.local import LocalGenerator
from assent.generation.responses import prompts_of_split, sample_responses
from assent.generation.sampling import Sampling
from assent.models.load import load_policy
from assent.records import Prompt, Response
from assent.run import open_run
from assent.scoring import RewardSource
from assent.seeds import Purpose, derive

ROOT = Path(__file__).parent.parent
GOLD = "conciseness_rubric"
SAMPLING = Sampling(temperature=1.0, max_new_tokens=48)
NUM_PROMPTS = 60
"""Held-out prompts of best-of-n."""
GRPO = dict(
    n=4, batch_size=32, lr=1e-4, lr_scheduler_type="constant", beta=0.0, missing_eos_score="off",
    temperature=SAMPLING.temperature, max_new_tokens=SAMPLING.max_new_tokens, ungated=True,
    probe_judge=GOLD, probe_steps=4, probe_prompts=64, watch_only=True,
)  # fmt: skip
COLOURS = ("#d98200", "#009e73", "#0b62b0")
"""Of the numbers of comparisons, the smallest first."""
RANDOM_COLOUR = "#8a8a8a"

Floats = NDArray[np.float64]


class Arm(NamedTuple):
    """One of the policies of a seed."""

    name: str
    reward: str
    """What it is trained on: `reward`, a reward model, or the rubric itself."""
    comparisons: int = 0
    random_labels: bool = False


class Point(NamedTuple):
    """One probe of a policy, or one n of best-of-n; rewards are means over prompts."""

    number: int
    """Training steps, or n."""
    d: float
    gold: float
    gold_se: float
    proxy: float


class Outcome(NamedTuple):
    """The measurements of one policy."""

    seed: int
    arm: str
    accuracy: float
    """Accuracy of the reward model on held-out comparisons; NaN without one."""
    rl: list[Point]
    best_of_n: list[Point]
    fall: float
    """Gold reward at its highest probe minus that at the last one, which is high by chance too."""
    fall_se: float
    """Its standard error, of paired differences over prompts; NaN if the last probe is the highest."""
    alarm: int | None
    """Training steps at which the alarm fired."""

    @property
    def peak(self) -> Point:
        """Return the probe with the highest gold reward."""
        return max(self.rl, key=lambda point: point.gold)

    def best_of(self, n: int) -> float:
        """Return the gold reward of best-of-n; NaN if n is more than the samples."""
        return next((point.gold for point in self.best_of_n if point.number == n), math.nan)


def main() -> None:
    """Train and measure every policy, print the tables and a line of JSON, and draw the picture."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "overoptimization")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--sizes", type=int, nargs="+", default=[100, 400, 1600], help="numbers of comparisons")
    flags.add_argument("--steps", type=int, default=120, help="training steps of each policy")
    flags.add_argument("--samples", type=int, default=256, help="completions of a prompt for best-of-n")
    flags.add_argument("--picture", type=Path, help="file to draw, .svg or .png")
    flags.add_argument("--small", action="store_true", help="one seed, 60 comparisons, 8 steps, 8 samples: a test")
    arguments = flags.parse_args()
    if arguments.small:
        vars(arguments).update(seeds=[0], sizes=[60], steps=8, samples=8)
    arms = [Arm(str(size), "reward", size) for size in sorted(arguments.sizes)]
    arms += [arms[-1]._replace(name="random labels", random_labels=True), Arm("rubric itself", GOLD)]
    minutes = len(arguments.seeds) * (0.6 + len(arms) * (0.25 + arguments.steps / 80))
    print(
        f"about {minutes:.0f} minutes on one core of a CPU for what is not done yet in {arguments.folder}", flush=True
    )
    outcomes: list[Outcome] = []
    for seed in arguments.seeds:
        outcomes += _measure_seed(arguments.folder / f"seed-{seed}", seed, arms, arguments.steps, arguments.samples)
    print_outcomes(outcomes, arms)
    fits = print_fits(outcomes, arms)
    if arguments.picture:
        draw(outcomes, arms, arguments.picture)
    runs = [{**outcome._asdict(), **_curves(outcome)} for outcome in outcomes]
    settings = {"seeds": arguments.seeds, "sizes": arguments.sizes, "steps": arguments.steps}
    line = {"experiment": "overoptimization", **settings, "samples": arguments.samples, "runs": runs, "fits": fits}
    print(json.dumps(replace_nonfinite(line), allow_nan=False))


def _measure_seed(folder: Path, seed: int, arms: Sequence[Arm], steps: int, samples: int) -> list[Outcome]:
    base = train_base(folder / "base", seed)
    draws = cache(lambda: draw_completions(base, samples))  # only if a policy is not measured yet
    outcomes = []
    for arm in arms:
        run = train_arm(base, folder / arm.name.replace(" ", "-"), arm, steps)
        outcomes.append(_measure(run, arm, seed, _score(run, arm, samples, draws)))
    return outcomes


def train_base(folder: Path, seed: int) -> Run:
    """Pretrain the initial policy, and generate the responses that annotators compare."""
    recipe = read_recipe(ROOT / "examples" / "tiny.toml")
    run = Run(folder, seed=seed, held_out=recipe["held_out"], dtype=recipe["dtype"])
    run.pretrain(**{**recipe["pretrain"], "data": str(ROOT / recipe["pretrain"]["data"])})
    return run.generate(**{**recipe["generate"], "prompts": str(ROOT / recipe["generate"]["prompts"])})


def train_arm(base: Run, folder: Path, arm: Arm, steps: int) -> Run:
    """Train a reward model and a policy in a copy of the base run."""
    recipe = read_recipe(ROOT / "examples" / "tiny.toml")
    if not folder.exists():
        with replacing_folder(folder) as partial:
            shutil.copytree(base.folder, partial)
    run = Run(folder)
    if arm.comparisons:
        run.label(num_tasks=arm.comparisons, random_labels=arm.random_labels, **recipe["label"])
        run.reward(**recipe["reward"])
    return run.grpo(steps=steps, rewards=[arm.reward], **GRPO)


class Draws(NamedTuple):
    """Completions of the initial policy: N of each of P prompts."""

    prompts: list[Prompt]
    responses: list[list[Response]]


def draw_completions(base: Run, samples: int) -> Draws:
    """Draw the completions of which every reward chooses the best."""
    with open_run(base.setup) as run:
        policy = load_policy(run.policy(run.base_policy), run.dtype, run.device, run.rendering)
        prompts = prompts_of_split(run, policy, SAMPLING.max_new_tokens, "held_out")[:NUM_PROMPTS]
    tokenizer, generator = policy.chat_tokenizer, LocalGenerator()
    generator.load(policy)
    seeds = [derive(run.seed, Purpose.GENERATION, i) for i in range(len(prompts))]
    responses = [
        sample_responses(generator, tokenizer, [prompt], samples, SAMPLING, seed)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return Draws(prompts, responses)


class Scored(NamedTuple):
    """Rewards of the initial policy's completions."""

    proxy: Floats  # (P, N)
    gold: Floats  # (P, N)


def _score(run: Run, arm: Arm, samples: int, draws: Callable[[], Draws]) -> Scored:
    """Return the rewards of the draws, which stay in the run's folder."""
    path = run.folder / f"best-of-{samples}.npz"
    if not path.exists():
        prompts, responses = draws()
        with open_run(run.setup) as opened:
            rewards = [RewardSource((name,)).load(opened) for name in (arm.reward, GOLD)]
        columns = [
            [
                reward.score([prompt] * len(row), row).total.numpy()
                for prompt, row in zip(prompts, responses, strict=True)
            ]
            for reward in rewards
        ]
        with replacing(path) as file:
            np.savez(file, proxy=np.array(columns[0], np.float64), gold=np.array(columns[1], np.float64))
    with np.load(path) as stored:
        return Scored(stored["proxy"], stored["gold"])


def _measure(run: Run, arm: Arm, seed: int, scored: Scored) -> Outcome:
    """Return the measurements of a finished run, in standard deviations of the initial policy's completions."""
    results, (proxy, gold) = run.results, scored
    probe = results["grpo"]["probe"]
    rl = [
        Point(
            number=point["step"],
            d=math.sqrt(max(point["kl"], 0.0)) if point["step"] else 0.0,  # the estimate may be negative near 0
            gold=(point["score"] - gold.mean()) / gold.std(),
            gold_se=point["score_se"] / gold.std(),
            proxy=(point["reward"] - proxy.mean()) / proxy.std(),
        )
        for point in probe["points"]
    ]
    numbers = [2**i for i in range(gold.shape[1].bit_length())]
    curve = best_of_n_curve((proxy - proxy.mean()) / proxy.std(), (gold - gold.mean()) / gold.std(), numbers)
    fall, z = max(point.gold for point in rl) - rl[-1].gold, probe["points"][-1]["z"]
    return Outcome(
        arm=arm.name,
        seed=seed,
        accuracy=results["reward"]["accuracy"] if arm.comparisons else math.nan,
        rl=rl,
        best_of_n=[Point(point.n, math.sqrt(point.kl), point.gold, point.gold_se, point.proxy) for point in curve],
        fall=fall,
        fall_se=fall / z if z else math.nan,
        alarm=probe["fired_at"],
    )


def mean_over_seeds(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the mean curves of an arm, with the peak of the mean; the standard error of its fall is over seeds."""
    rl, best_of_n = (
        [Point(*np.mean(points, axis=0).tolist()) for points in zip(*curves, strict=True)]
        for curves in ([outcome.rl for outcome in outcomes], [outcome.best_of_n for outcome in outcomes])
    )
    peak = max(range(len(rl)), key=lambda i: rl[i].gold)
    falls = [outcome.rl[peak].gold - outcome.rl[-1].gold for outcome in outcomes]
    return outcomes[0]._replace(
        accuracy=float(np.mean([outcome.accuracy for outcome in outcomes])),
        rl=rl,
        best_of_n=best_of_n,
        fall=float(np.mean(falls)),
        fall_se=float(np.std(falls, ddof=1)) / math.sqrt(len(falls)) if any(falls) and len(falls) > 1 else math.nan,
    )


def print_outcomes(outcomes: Sequence[Outcome], arms: Sequence[Arm]) -> None:
    """Print a row for each policy, and then for the mean over seeds of each arm."""
    many = outcomes[0].best_of_n[-1].number
    columns = ["comparisons", "seed", "accuracy", "gold at start", "at peak (step, d)", "at end (d)", "fall"]
    columns += ["proxy at peak -> end", "alarm at", f"gold of best of {_few(many)}", f"of {many}"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for outcome in outcomes:
        print(_row(outcome, str(outcome.seed), "-" if outcome.alarm is None else str(outcome.alarm)))
    for arm in arms:
        group = [outcome for outcome in outcomes if outcome.arm == arm.name]
        fired = sum(outcome.alarm is not None for outcome in group)
        print(_row(mean_over_seeds(group), "mean", f"{fired} of {len(group)}"))


def _row(outcome: Outcome, seed: str, alarm: str) -> str:
    start, peak, end = outcome.rl[0], outcome.peak, outcome.rl[-1]
    many = outcome.best_of_n[-1].number
    cells = [
        outcome.arm,
        seed,
        f"{outcome.accuracy:.3f}",
        f"{start.gold:+.2f}",
        f"{peak.gold:+.2f} ({peak.number:.0f}, {peak.d:.1f})",
        f"{end.gold:+.2f} ({end.d:.1f})",
        f"{outcome.fall:.2f} ± {outcome.fall_se:.2f}",
        f"{peak.proxy:.2f} -> {end.proxy:.2f}",
        alarm,
        *(f"{outcome.best_of(n):+.2f}" for n in (_few(many), many)),
    ]
    return f"| {' | '.join(cells)} |".replace("nan", "-")


def _few(samples: float) -> int:
    """Return a quarter of the samples, the smaller n of the table."""
    return max(1, int(samples) // 4)


def print_fits(outcomes: Sequence[Outcome], arms: Sequence[Arm]) -> dict[str, dict[str, dict[str, float]]]:
    """Fit R(d) to all seeds of each arm; a peak beyond the last d is an extrapolation."""
    print("\n| comparisons | R(d) of | alpha | beta | peak at d | gold there | last d |\n|---|---|---|---|---|---|---|")
    fits: dict[str, dict[str, dict[str, float]]] = {}
    for arm in arms:
        group = [outcome for outcome in outcomes if outcome.arm == arm.name]
        rl = [point for outcome in group for point in outcome.rl]
        best_of_n = [point for outcome in group for point in outcome.best_of_n]
        fits[arm.name] = {}
        for name, fit, points in (("RL", fit_rl, rl), ("best-of-n", fit_best_of_n, best_of_n)):
            fitted = fit([point.d for point in points], [point.gold for point in points])
            fits[arm.name][name] = fitted._asdict()
            last = max(point.d for point in points)
            print(f"| {arm.name} | {name} | {' | '.join(f'{value:.3g}' for value in (*fitted, last))} |")
    return fits


def draw(outcomes: Sequence[Outcome], arms: Sequence[Arm], path: Path) -> None:
    """Draw gold and proxy rewards against d, for RL and for best-of-n: mean over seeds, and thinly the gold of each."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "overoptimization", "font.size": 9}
    figure, panels = plt.subplots(1, 2, figsize=(9.4, 3.8), sharey=True, layout="constrained")
    trained = [arm for arm in arms if arm.reward != GOLD]
    colours = [RANDOM_COLOUR if arm.random_labels else COLOURS[i % len(COLOURS)] for i, arm in enumerate(trained)]
    groups = [[outcome for outcome in outcomes if outcome.arm == arm.name] for arm in trained]
    means = [mean_over_seeds(group) for group in groups]
    for panel, curve, title in zip(panels, ("rl", "best_of_n"), ("reinforcement learning", "best-of-n"), strict=True):
        for group, mean, colour in zip(groups, means, colours, strict=True):
            for outcome in group:
                panel.plot(*_columns(getattr(outcome, curve), "gold"), color=colour, lw=0.7, alpha=0.4)
            points = getattr(mean, curve)
            panel.plot(*_columns(points, "proxy"), "--", color=colour, lw=1.3)
            panel.plot(*_columns(points, "gold"), "-", color=colour, lw=2.2)
            if curve == "rl":
                panel.plot(*_columns(points[-1:], "gold"), "o", color=colour, ms=6)
        panel.set(title=title, xlabel="d = sqrt(KL from the initial policy)")
        panel.grid(visible=True, alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    lowest = min(point.gold for outcome in means for point in (*outcome.rl, *outcome.best_of_n))
    panels[0].set_ylim(bottom=lowest - 0.3)  # a single seed may run off
    panels[0].set_ylabel("reward, standard deviations\nof the initial policy")
    names = [f"{arm.comparisons:,} {'random labels' if arm.random_labels else 'comparisons'}" for arm in trained]
    lines = [Line2D([], [], color=colour, lw=2.2, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
    styles = (("gold", "-", 2.2, ""), ("proxy", "--", 1.3, ""), ("gold at the end of training", "", 1.0, "o"))
    keys = [Line2D([], [], color="black", ls=ls, lw=lw, marker=mark, label=label) for label, ls, lw, mark in styles]
    panels[1].legend(handles=keys, loc="lower left", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _columns(points: Sequence[Point], reward: str) -> tuple[list[float], list[float]]:
    return [point.d for point in points], [getattr(point, reward) for point in points]


def _curves(outcome: Outcome) -> dict[str, Any]:
    """Return the points of both curves as dictionaries."""
    return {
        curve: [{name: round(value, 4) for name, value in point._asdict().items()} for point in points]
        for curve, points in (("rl", outcome.rl), ("best_of_n", outcome.best_of_n))
    }


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"overoptimization: {error}")
