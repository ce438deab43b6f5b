"""Two sides do the same work, each in a process of its own, in turn, in one run; only then is a ratio worth its name.

    python benchmarks/dpo.py                    three rounds in each kind of numbers that the device multiplies itself
    python benchmarks/dpo.py --device cuda      the same on a GPU; results go to benchmarks/results
    python benchmarks/dpo.py --rounds 1 --count 8 --dtypes bfloat16
    python benchmarks/dpo.py --minutes 60       three rounds however slow the machine is

A benchmark says what the work is and how our side does it; the peer's side is a script in `benchmarks/peers`, run by an
environment that holds what its list names (`make bench` makes it). The first step of each side is not timed.
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

from duel.clock import Clock
from duel.limit import peak

ROOT = Path(__file__).parent.parent
PEERS = Path(sys.prefix) / "peers"
"""Environments of the peers, beside our own."""


@dataclass(frozen=True)
class Duel:
    """One claim: what is done, how we do it, and beside whom.

    Args:
        what: the name in the results.
        prepare: (flags, dtype) -> the work, as JSON, that both sides read; `model`, `dtype`, `device` are in it.
        ours: does the work step by step, and may tell more about it.
        peer: a script of `peers/`; its environment is named after the list of `needs`.
        close: name of what a step came to -> how far the sides may be apart, in float32 and in bfloat16: as a share
            of numbers above 1, else as they are.
        minutes: for all rounds in one kind of numbers. On a slow machine fewer are done than asked for: another one
            begins only if there is time for it.
    """

    what: str
    prepare: Callable[[argparse.Namespace, str], dict[str, Any]]
    ours: Callable[[dict[str, Any], Clock], Mapping[str, Any]]
    peer: str
    needs: str
    close: Mapping[str, tuple[float, float]]
    minutes: float
    count: int = 16
    dtypes: tuple[str, ...] = ("float32", "bfloat16")

    def run(self) -> None:
        if sys.argv[1:2] == ["--ours"]:
            work = json.loads(Path(sys.argv[2]).read_text())
            clock = Clock(work["device"])
            told = self.ours(work, clock)
            clock.tell(**told, matrix_peak=peak(work["device"], getattr(torch, work["dtype"])))
            return
        from assent.run import Run, Setup  # the peers, who import this package too, do not have it

        flags = self._flags()
        usual = str(Run(Setup(device=flags.device)).dtype).partition(".")[2]  # bfloat16 where it is multiplied
        suited = [name for name in self.dtypes if name in ("float32", usual)]
        for dtype in flags.dtypes or suited or ["float32"]:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(self.prepare(flags, dtype) | {"dtype": dtype, "device": flags.device}, file)
                file.flush()
                self._settle(flags, dtype, file.name)

    def _flags(self) -> argparse.Namespace:
        about = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        about.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
        about.add_argument("--data", default="", help="comparisons in any format that `assent import` reads")
        about.add_argument("--count", type=int, default=self.count, help="examples")
        about.add_argument("--rounds", type=int, default=3, help="at most, as far as there is time")
        about.add_argument("--minutes", type=float, default=self.minutes, help="for all rounds in one kind of numbers")
        about.add_argument("--dtypes", nargs="+")
        about.add_argument("--device", default="cpu")
        return about.parse_args()

    def _settle(self, flags: argparse.Namespace, dtype: str, work: str) -> None:
        python = PEERS / self.needs / "bin" / "python"
        if not python.exists():
            sys.exit(f"no environment for the peer at {python.parent.parent}: `make bench` makes it")
        mine, theirs = [], []
        start = time.monotonic()
        for turn in range(flags.rounds):
            if not time_for_another(turn, time.monotonic() - start, 60 * flags.minutes):
                print(f"  no time for more than {turn} of {flags.rounds} rounds: --minutes gives more", file=sys.stderr)
                break
            mine.append(_side("ours", [sys.executable, sys.argv[0], "--ours", work], turn))
            theirs.append(_side("peer", [str(python), str(ROOT / "peers" / self.peer), work], turn))
        rounds = [self._apart(a["found"], b["found"], dtype) for a, b in zip(mine, theirs, strict=True)]
        apart = [max(each, key=lambda one: one[1]) for each in zip(*rounds, strict=True)]
        agree = all(gap <= allowed for _, gap, allowed in apart)
        ours, peer = (median(sum(one["seconds"]) for one in side) for side in (mine, theirs))
        our_peak, peer_peak = (max(one["peak_gb"] for one in side) for side in (mine, theirs))
        line = {
            "what": self.what, "device": device_name(flags.device), "dtype": dtype,
            "ours_seconds": round(ours, 2), "peer_seconds": round(peer, 2), "ratio": round(peer / ours, 2),
            "ours_peak_gb": round(our_peak, 2), "peer_peak_gb": round(peer_peak, 2), "losses_agree": agree,
            "apart": {name: float(f"{gap:.1e}") for name, gap, _ in apart},
            "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "rounds": {"ours": _spread(mine), "peer": _spread(theirs)}, "peer": theirs[0]["peer"],
            "torch": mine[0]["torch"], "threads": mine[0]["threads"],
            "matrix_share": round(median(one["flops"] / sum(one["seconds"]) / one["matrix_peak"] for one in mine), 3),
            "matrix_peak_gflops": round(median(one["matrix_peak"] for one in mine) / 1e9),
            "drawn": {"ours": mine[0]["drawn"], "peer": theirs[0]["drawn"]} if "drawn" in mine[0] else None,
        } | {name: value for name, value in mine[0].items() if name in ("tokens", "encoded")}  # fmt: skip
        _table(line, apart)
        print(json.dumps(line), flush=True)
        keep(line, flags.device)
        if not agree:
            sys.exit(f"{self.what}: the two sides did not come to the same, so that their times say nothing")

    def _apart(
        self, ours: list[dict[str, float]], theirs: list[dict[str, float]], dtype: str
    ) -> list[tuple[str, float, float]]:
        """What was compared, the largest gap over the steps, and what is allowed."""
        assert len(ours) == len(theirs) and ours, f"{len(ours)} steps beside {len(theirs)}"
        found = []
        for name, allowed in self.close.items():
            gaps = [abs(a[name] - b[name]) / max(1.0, abs(b[name])) for a, b in zip(ours, theirs, strict=True)]
            gap = max(gaps) if all(map(math.isfinite, gaps)) else math.inf
            found.append((name, gap, allowed[0 if dtype == "float32" else 1]))
        return found


def time_for_another(rounds: int, spent: float, seconds: float) -> bool:
    """Whether one round more, as long as those that are done, ends in time; the first is done in any case."""
    return not rounds or spent * (rounds + 1) / rounds <= seconds


def keep(line: Mapping[str, Any], device: str) -> None:
    """Append a line to the results of a kind of device."""
    path = ROOT / "results" / f"{device.split(':')[0]}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _side(name: str, command: list[str], turn: int) -> dict[str, Any]:
    """What a side told in the end.

    Raises:
        SystemExit: it failed; its own words stand above.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | quiet | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT.parent)))}
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, check=False)
        if done.returncode:
            said.seek(0)
            sys.exit(f"{said.read()[-4000:]}\n{name} failed: {' '.join(command)}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(
        f"  round {turn + 1}, {name}: {sum(told['seconds']):.2f} s, {told['peak_gb']:.2f} GB",
        file=sys.stderr,
        flush=True,
    )
    return told


def _spread(side: list[dict[str, Any]]) -> list[float]:
    return [round(sum(one["seconds"]), 2) for one in side]


def device_name(name: str) -> str:
    """A GPU's own name, or how many cores of what."""
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    kind = found[0].partition(": ")[2] if found else platform.processor()
    return f"{len(os.sched_getaffinity(0))} cores of {kind}"


def _table(line: Mapping[str, Any], apart: list[tuple[str, float, float]]) -> None:
    print(f"\n{line['what']}, {line['dtype']}, {line['device']}")
    print(f"  {'':10}{'seconds':>10}{'GB':>8}")
    print(f"  {'ours':10}{line['ours_seconds']:>10}{line['ours_peak_gb']:>8}")
    print(f"  {line['peer']:10}{line['peer_seconds']:>10}{line['peer_peak_gb']:>8}")
    print(f"  {line['ratio']} times as fast, {line['ours_peak_gb'] / line['peer_peak_gb']:.2f} of the memory")
    print(f"  {line['matrix_share']:.0%} of {line['matrix_peak_gflops']} GFLOP/s, one large product's")
    for name, gap, allowed in apart:
        print(f"  {name}: at most {gap:.1e} apart (allowed {allowed:.0e})")
