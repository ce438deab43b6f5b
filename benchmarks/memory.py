"""The memory that each stage estimates, compared with the peak of its process; the stages share one run.

    python benchmarks/memory.py                             three stages, in float32
    python benchmarks/memory.py --stages pretrain kto reward grpo
    python benchmarks/memory.py --dtype bfloat16 --stages reward ppo --device cuda

A GB is 10^9 bytes. The command fails if an estimate is more than a fifth away from the peak.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import ROOT, append_result, device_name
from harness.clock import Clock
from harness.data import PROMPTS

TOLERANCE = 0.2
"""Accepted relative error of an estimate."""
STORIES = ROOT.parent / "examples" / "stories.txt"
PREPARATION = (["generate", "--prompts", "{prompts}", "--n-held-out", "1"], ["label"])
"""Responses and judgements, which most stages train on."""
STAGES = {
    "pretrain": ["pretrain", "--data", "{stories}", "--hidden-size", "576", "--num-layers", "20", "--epochs", "1"],
    "sft": ["sft", "--data", "{demonstrations}"],
    "reward": ["reward"],
    "dpo": ["dpo"],
    "kto": ["kto"],
    "grpo": ["grpo", "--steps", "2", "--batch-size", "12"],
    "ppo": ["ppo", "--steps", "2", "--batch-size", "12"],
    "dpo-lora": ["dpo", "--lora-rank", "16", "--overwrite"],
    "ppo-lora": ["ppo", "--lora-rank", "16", "--steps", "2", "--batch-size", "12", "--overwrite"],
}
"""In order: GRPO and PPO need the reward model."""


def main() -> None:
    """Run every stage in its own process, print the table and store a line; fail if an estimate is too far off."""
    if sys.argv[1:2] == ["--assent"]:
        stage(sys.argv[2], sys.argv[3:])
        return
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--prompts", type=int, default=36, help="how many, of which three in ten are held out")
    flags.add_argument("--stages", nargs="+", choices=STAGES, default=["sft", "reward", "dpo"], metavar="STAGE")
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments, Path(folder))
    print(f"\n{'stage':14}{'estimate':>10}{'peak':>8}")
    for name, (estimate, peak) in results.items():
        print(f"{name:14}{estimate:>9.1f} {peak:>7.1f}  {estimate / peak - 1:+.0%}")
    far = [name for name, (estimate, peak) in results.items() if abs(estimate - peak) > TOLERANCE * peak]
    line = {
        "what": "estimated memory", "device": device_name(arguments.device), "dtype": arguments.dtype,
        "estimated_and_peak_gb": results, "within": TOLERANCE, "too_far": far,
        "ours_seconds": None, "peer_seconds": None, "ratio": None,
        "ours_peak_gb": max(peak for _, peak in results.values()), "peer_peak_gb": None,
        "losses_agree": None, "command": " ".join(["python", "benchmarks/memory.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(line), flush=True)
    append_result(line, arguments.device)
    if far:
        sys.exit(f"the estimate of {', '.join(far)} is more than {TOLERANCE:.0%} away from the peak")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, tuple[float, float]]:
    """Return the estimate of each stage and the peak of its process, in GB."""
    (folder / "demonstrations.jsonl").write_text("\n".join(demonstrations()))
    (folder / "prompts.jsonl").write_text("\n".join(PROMPTS.read_text().splitlines()[: arguments.prompts]))
    (folder / "stories.txt").write_text("\n\n".join(stories()))
    files = {path.stem: str(path) for path in folder.iterdir()}
    results = {}
    needs_reward = any(STAGES[name][0] in ("grpo", "ppo") for name in arguments.stages)
    selected = {*arguments.stages, *(["reward"] if needs_reward else [])}
    commands = [(words[0], words) for words in PREPARATION]
    commands += [(name, words) for name, words in STAGES.items() if name in selected]
    for name, words in commands:
        # a pretrained model would be the base policy of the other stages
        run_folder = folder / ("text" if name == "pretrain" else "run")
        run = ["--run", str(run_folder), "--model", arguments.model]
        run += ["--device", arguments.device, "--dtype", arguments.dtype]
        command = [word.format(**files) for word in words] + run
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT.parent)}
        program = [sys.executable, __file__, "--assent", arguments.device, *command]
        process = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
        if process.returncode:
            sys.exit(f"{process.stderr[-4000:]}\nfailed: assent {' '.join(command)}")
        if name in arguments.stages:
            estimate = re.search(r"needs about ([\d.]+) GB", process.stderr)
            assert estimate, f"{name} printed no estimate: {process.stderr[-4000:]}"
            peak = json.loads(process.stdout.splitlines()[-1])["peak_gb"]
            results[name] = (float(estimate[1]), round(peak, 2))
            print(f"  {name}: estimate {estimate[1]} GB, peak {peak:.2f}", file=sys.stderr, flush=True)
    return results


def stories() -> list[str]:
    """Return texts of the smallest example."""
    return STORIES.read_text().split("\n\n")[:64]


def demonstrations() -> list[str]:
    """Return the same texts as demonstrations: the first sentence is the prompt."""
    parts = (story.partition(". ") for story in stories())
    return [
        json.dumps({"prompt": f"{prompt}.", "completion": completion}) for prompt, _, completion in parts if completion
    ]


def stage(device: str, command: list[str]) -> None:
    """Run one command, then print its peak memory."""
    from assent.cli import main as assent

    if status := assent(command):
        sys.exit(status)
    print(json.dumps({"peak_gb": Clock(device).peak()}))


if __name__ == "__main__":
    main()
