"""An agent that learns a pendulum from 200 comparisons, compared with imitation: true return and seconds.

    python benchmarks/pendulum.py                               seeds 0 to 2
    python benchmarks/pendulum.py --iterations 60 --rollouts 1  more iterations of the peer, about 2.5 times the steps

Both sides have episodes of 200 steps, about 100,000 steps in all, 200 comparisons without errors, and a process of one
thread for each seed. 64 unseen episodes, the same of both, measure the policy's mean action.

Each side has the settings that its authors chose for this environment: `examples/pendulum.toml`, and imitation's
tutorial, whose five iterations here take seven rollouts instead of one. So PPO learns from rollouts of 3,200 steps in
batches of 400 with gamma .9 (the peer: 2,048, 64, .97: six times as many updates), and clips have 25 steps (100). The
peer plays a seventh of its steps for clips alone; we hold a tenth of the comparisons out.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from harness import PEERS, ROOT, append_result, device_name, run_side
from harness.clock import Clock

from assent.api import Run

RECIPE = ROOT.parent / "examples" / "pendulum.toml"
Report = dict[str, Any]


def main() -> None:
    """Train and measure both sides for each seed, print a table, and store a line."""
    if sys.argv[1:2] == ["--assent"]:
        train(json.loads(Path(sys.argv[2]).read_text()))
        return
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--labels", type=int, default=200, help="comparisons, of both sides")
    flags.add_argument("--episodes", type=int, default=64, help="unseen ones, which measure")
    flags.add_argument("--steps", type=int, default=100_000, help="ours")
    flags.add_argument("--iterations", type=int, default=5, help="of the peer: comparisons, a fit, PPO; and one before")
    flags.add_argument("--rollouts", type=int, default=7, help="of the peer's PPO in each, 2048 steps each")
    arguments = flags.parse_args()
    sides = run_sides(vars(arguments))
    line = summarise(sides, arguments.seeds)
    print_table(sides, arguments.seeds)
    print(json.dumps(line), flush=True)
    append_result(line, "cpu")


def run_sides(arguments: Mapping[str, Any]) -> dict[str, list[Report]]:
    """Return the reports of both sides, one for each seed; a side is named after its library."""
    python = PEERS / "imitation" / "bin" / "python"
    if not python.exists():
        sys.exit(f"no environment for the peer at {python.parent.parent}: create it with `make bench`")
    os.environ["OMP_NUM_THREADS"] = "1"  # of both sides
    ours, peer = [sys.executable, __file__, "--assent"], [str(python), str(ROOT / "peers" / "imitation_pendulum.py")]
    reports: dict[str, list[Report]] = {"assent": [], "peer": []}
    for turn, seed in enumerate(arguments["seeds"]):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({**arguments, "seed": seed}, file)
            file.flush()
            for name, command in (("assent", ours), ("peer", peer)):
                reports[name].append(run_side(name, [*command, file.name], turn))
    return reports


def train(work: Mapping[str, Any]) -> None:
    """Train and measure our agent by the recipe, and report."""
    torch.set_num_threads(1)
    recipe = tomllib.loads(RECIPE.read_text())
    sizes = {"steps": work["steps"], "labels": work["labels"], "evaluation_episodes": work["episodes"]}
    clock = Clock("cpu")
    with tempfile.TemporaryDirectory() as folder:
        clock.begin()
        run = Run(Path(folder) / "run", seed=work["seed"], held_out=recipe["held_out"])
        importlib.import_module("assent.stages.control")
        clock.end()
        clock.begin()
        start = time.process_time()
        run.control(**recipe["control"] | sizes)
        clock.end()
        result = run.results["control"]
        cpu_seconds = time.process_time() - start
    counts = {name: result[name] for name in ("steps", "comparisons")}
    clock.report(true_return=result["true_return"]["mean"], cpu_seconds=cpu_seconds, **counts)


def summarise(sides: Mapping[str, list[Report]], seeds: list[int]) -> dict[str, Any]:
    """Return the line of both sides that is stored: medians over the seeds, and what each seed reached."""
    ours, peer = sides["assent"], sides["peer"]
    seconds, peer_seconds = (median(sum(report["seconds"]) for report in side) for side in (ours, peer))
    return {
        "what": "pendulum", "device": device_name("cpu"), "dtype": "float32",
        "ours_seconds": round(seconds, 2), "peer_seconds": round(peer_seconds, 2),
        "ratio": round(peer_seconds / seconds, 2),
        "ours_peak_gb": round(max(report["peak_gb"] for report in ours), 2),
        "peer_peak_gb": round(max(report["peak_gb"] for report in peer), 2),
        "losses_agree": None, "command": " ".join(["python", "benchmarks/pendulum.py", *sys.argv[1:]]),
        "seeds": seeds,
        **{name: {"ours": [report[name] for report in ours], "peer": [report[name] for report in peer]}
           for name in ("true_return", "cpu_seconds", "steps", "comparisons")},
        "peer": peer[0]["peer"], "torch": ours[0]["torch"], "threads": ours[0]["threads"],
    }  # fmt: skip


def print_table(sides: Mapping[str, list[Report]], seeds: list[int]) -> None:
    """Print a row for each side: returns by seed, their median, and what it took."""
    print(f"\n| | steps | {' | '.join(f'seed {seed}' for seed in seeds)} | median return | seconds | of the CPU |")
    print("|---|---|" + "---|" * (len(seeds) + 3))
    for name, reports in sides.items():
        returns = [report["true_return"] for report in reports]
        cells = [f"{value:.0f}" for value in (*returns, median(returns))]
        seconds = median(sum(report["seconds"]) for report in reports)
        cpu_seconds = median(report["cpu_seconds"] for report in reports)
        label = reports[0].get("peer", name)
        print(f"| {label} | {reports[0]['steps']:,} | {' | '.join(cells)} | {seconds:.0f} | {cpu_seconds:.0f} |")


if __name__ == "__main__":
    main()
