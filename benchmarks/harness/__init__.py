"""Comparisons with other libraries: both sides do the same work, in turn, each in its own process.

    python benchmarks/dpo.py                    three rounds in each dtype that the device multiplies natively
    python benchmarks/dpo.py --device cuda      the same on a GPU; results go to benchmarks/results
    python benchmarks/dpo.py --rounds 1 --count 8 --dtypes bfloat16
    python benchmarks/dpo.py --minutes 60       three rounds on a slow machine too

A benchmark defines the work and our side of it. The peer's side is a script in `benchmarks/peers`, run in an
environment with the packages of its list (`make bench` creates it). The first step of each side is not timed.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from harness.clock import Clock
from harness.roofline import measure_peak

ROOT = Path(__file__).parent.parent
PEERS = Path(sys.prefix) / "peers"
"""Environments of the peers, next to ours."""


@dataclass(frozen=True)
class Benchmark:
    """One comparison with a peer.

    Args:
        name: in the results.
        prepare: (flags, dtype) -> the work, as JSON, that both sides read; `model`, `dtype`, `device` are in it.
        run_assent: does the work step by step, and returns more numbers about it.
        peer: a script of `peers/`.
        environment: name of the peer's list of packages, and of its environment.
        tolerances: by the name of a recorded number, the largest difference between the sides in float32 and in
            bfloat16: relative for numbers above 1, else absolute.
        minutes: for all rounds in one dtype. On a slow machine fewer rounds are done: another one begins only if
            there is time for it.
    """

    name: str
    prepare: Callable[[argparse.Namespace, str], dict[str, Any]]
    run_assent: Callable[[dict[str, Any], Clock], Mapping[str, Any]]
    peer: str
    environment: str
    tolerances: Mapping[str, tuple[float, float]]
    minutes: float
    count: int = 16
    dtypes: tuple[str, ...] = ("float32", "bfloat16")

    def run(self) -> None:
        """Run our side if the command line says `--assent WORK`, else all rounds of both sides."""
        if sys.argv[1:2] == ["--assent"]:
            work = json.loads(Path(sys.argv[2]).read_text())
            clock = Clock(work["device"])
            numbers = self.run_assent(work, clock)
            clock.report(**numbers, matrix_peak=measure_peak(work["device"], getattr(torch, work["dtype"])))
            return
        from assent.run import Run, Setup  # not at the top: the peers import this package too, and have no assent

        flags = self._flags()
        native = str(Run(Setup(device=flags.device)).dtype).partition(".")[2]  # bfloat16 if the device multiplies it
        dtypes = [name for name in self.dtypes if name in ("float32", native)]
        for dtype in flags.dtypes or dtypes or ["float32"]:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(self.prepare(flags, dtype) | {"dtype": dtype, "device": flags.device}, file)
                file.flush()
                self._run_rounds(flags, dtype, file.name)

    def _flags(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
        parser.add_argument("--data", default="", help="comparisons in any format that `assent import` reads")
        parser.add_argument("--count", type=int, default=self.count, help="examples")
        parser.add_argument("--rounds", type=int, default=3, help="largest number, if the time suffices")
        parser.add_argument("--minutes", type=float, default=self.minutes, help="for all rounds in one dtype")
        parser.add_argument("--dtypes", nargs="+")
        parser.add_argument("--device", default="cpu")
        return parser.parse_args()

    def _run_rounds(self, flags: argparse.Namespace, dtype: str, work: str) -> None:
        python = PEERS / self.environment / "bin" / "python"
        if not python.exists():
            sys.exit(f"no environment for the peer at {python.parent.parent}: create it with `make bench`")
        assent_rounds: list[dict[str, Any]] = []
        peer_rounds: list[dict[str, Any]] = []
        start = time.monotonic()
        for turn in range(flags.rounds):
            if not has_time_for_round(turn, time.monotonic() - start, 60 * flags.minutes):
                print(f"  no time for more than {turn} of {flags.rounds} rounds: --minutes gives more", file=sys.stderr)
                break
            assent_rounds.append(run_side("assent", [sys.executable, sys.argv[0], "--assent", work], turn))
            peer_rounds.append(run_side("peer", [str(python), str(ROOT / "peers" / self.peer), work], turn))
        rounds = [
            self.compare(a["results"], b["results"], dtype) for a, b in zip(assent_rounds, peer_rounds, strict=True)
        ]
        differences = [max(column, key=lambda row: row[1]) for column in zip(*rounds, strict=True)]
        agree = all(gap <= allowed for _, gap, allowed in differences)
        sides = assent_rounds, peer_rounds
        seconds, peer_seconds = (median(sum(turn["seconds"]) for turn in side) for side in sides)
        peak, peer_peak = (max(turn["peak_gb"] for turn in side) for side in sides)
        first = assent_rounds[0]
        line = {
            "what": self.name, "device": device_name(flags.device), "dtype": dtype,
            "ours_seconds": round(seconds, 2), "peer_seconds": round(peer_seconds, 2),
            "ratio": round(peer_seconds / seconds, 2),
            "ours_peak_gb": round(peak, 2), "peer_peak_gb": round(peer_peak, 2), "losses_agree": agree,
            "apart": {name: float(f"{gap:.1e}") for name, gap, _ in differences},
            "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "rounds": {"ours": _round_seconds(assent_rounds), "peer": _round_seconds(peer_rounds)},
            "peer": peer_rounds[0]["peer"], "torch": first["torch"], "threads": first["threads"],
            "matrix_share": round(
                median(turn["flops"] / sum(turn["seconds"]) / turn["matrix_peak"] for turn in assent_rounds), 3
            ),
            "matrix_peak_gflops": round(median(turn["matrix_peak"] for turn in assent_rounds) / 1e9),
            "drawn": {"ours": first["drawn"], "peer": peer_rounds[0]["drawn"]} if "drawn" in first else None,
        } | {name: value for name, value in first.items() if name in ("tokens", "encoded")}  # fmt: skip
        _print_table(line, differences)
        print(json.dumps(line), flush=True)
        append_result(line, flags.device)
        if not agree:
            sys.exit(f"{self.name}: the results of the two sides differ, so their times cannot be compared")

    def compare(
        self, results: list[dict[str, float]], peer_results: list[dict[str, float]], dtype: str
    ) -> list[tuple[str, float, float]]:
        """Return for each compared number its name, the largest difference over the steps, and the tolerance."""
        assert len(results) == len(peer_results) and results, f"{len(results)} steps compared with {len(peer_results)}"
        rows = []
        for name, allowed in self.tolerances.items():
            gaps = [abs(a[name] - b[name]) / max(1.0, abs(b[name])) for a, b in zip(results, peer_results, strict=True)]
            gap = max(gaps) if all(map(math.isfinite, gaps)) else math.inf
            rows.append((name, gap, allowed[0 if dtype == "float32" else 1]))
        return rows


def has_time_for_round(rounds: int, spent: float, seconds: float) -> bool:
    """Return whether one more round, as long as those before, ends in time; the first is always done."""
    return not rounds or spent * (rounds + 1) / rounds <= seconds


def append_result(line: Mapping[str, Any], device: str) -> None:
    """Append a line to the results of a type of device."""
    path = ROOT / "results" / f"{device.split(':')[0]}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def run_side(name: str, command: list[str], turn: int) -> dict[str, Any]:
    """Run a side and return what it reports.

    Raises:
        SystemExit: it failed; its error output is printed.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | quiet | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT.parent)))}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, check=False
        )
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{errors.read()[-4000:]}\n{name} failed: {' '.join(command)}")
    report: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
    print(
        f"  round {turn + 1}, {name}: {sum(report['seconds']):.2f} s, {report['peak_gb']:.2f} GB",
        file=sys.stderr,
        flush=True,
    )
    return report


def _round_seconds(side: list[dict[str, Any]]) -> list[float]:
    return [round(sum(turn["seconds"]), 2) for turn in side]


def device_name(name: str) -> str:
    """Return the name of the GPU, or number and type of the CPU's cores."""
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    kind = models[0].partition(": ")[2] if models else platform.processor()
    return f"{len(os.sched_getaffinity(0))} cores of {kind}"


def _print_table(line: Mapping[str, Any], differences: list[tuple[str, float, float]]) -> None:
    print(f"\n{line['what']}, {line['dtype']}, {line['device']}")
    print(f"  {'':10}{'seconds':>10}{'GB':>8}")
    print(f"  {'assent':10}{line['ours_seconds']:>10}{line['ours_peak_gb']:>8}")
    print(f"  {line['peer']:10}{line['peer_seconds']:>10}{line['peer_peak_gb']:>8}")
    print(f"  {line['ratio']} times as fast, {line['ours_peak_gb'] / line['peer_peak_gb']:.2f} of the memory")
    print(f"  {line['matrix_share']:.0%} of {line['matrix_peak_gflops']} GFLOP/s, one large matrix product")
    for name, gap, allowed in differences:
        print(f"  {name}: at most {gap:.1e} apart (allowed {allowed:.0e})")
