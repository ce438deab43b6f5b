"""What each stage says that it needs, beside what its process came to hold: commands, one after the other, on one run.

    python benchmarks/memory.py                             three stages, in float32
    python benchmarks/memory.py --stages pretrain kto reward grpo
    python benchmarks/memory.py --dtype bfloat16 --stages reward ppo --device cuda

A GB is 10^9 bytes. Fails if what a stage said is more than a fifth from what was held.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from duel import ROOT, device_name, keep
from duel.clock import Clock
from duel.material import PROMPTS

SLACK = 0.2
"""How far the estimate may be off, as a share of what was held."""
STORIES = ROOT.parent / "examples" / "stories.txt"
BEFORE = (["generate", "--prompts", "{asked}", "--n-held-out", "1"], ["label"])
"""Answers and judgements, which most stages learn from."""
STAGES = {
    "pretrain": ["pretrain", "--data", "{stories}", "--hidden-size", "576", "--num-layers", "20", "--epochs", "1"],
    "sft": ["sft", "--data", "{shown}"],
    "reward": ["reward"],
    "dpo": ["dpo"],
    "kto": ["kto"],
    "grpo": ["grpo", "--steps", "2", "--batch-size", "12"],
    "ppo": ["ppo", "--steps", "2", "--batch-size", "12"],
    "dpo-lora": ["dpo", "--lora-rank", "16", "--overwrite"],
    "ppo-lora": ["ppo", "--lora-rank", "16", "--steps", "2", "--batch-size", "12", "--overwrite"],
}
"""In the order in which they are done: GRPO and PPO want the reward model first."""


def main() -> None:
    """Do every stage in a process of its own, print the table, keep its line; fail if an estimate is too far off."""
    if sys.argv[1:2] == ["--ours"]:
        stage(sys.argv[2], sys.argv[3:])
        return
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--prompts", type=int, default=36, help="how many, of which three in ten are held out")
    flags.add_argument("--stages", nargs="+", choices=STAGES, default=["sft", "reward", "dpo"], metavar="STAGE")
    asked = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked, Path(folder))
    print(f"\n{'stage':14}{'told':>8}{'held':>8}")
    for name, (told, held) in found.items():
        print(f"{name:14}{told:>7.1f} {held:>7.1f}  {told / held - 1:+.0%}")
    far = [name for name, (told, held) in found.items() if abs(told - held) > SLACK * held]
    line = {
        "what": "memory told before training", "device": device_name(asked.device), "dtype": asked.dtype,
        "gb_told_and_held": found, "within": SLACK, "too_far": far, "ours_seconds": None, "peer_seconds": None,
        "ratio": None, "ours_peak_gb": max(held for _, held in found.values()), "peer_peak_gb": None,
        "losses_agree": None, "command": " ".join(["python", "benchmarks/memory.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(line), flush=True)
    keep(line, asked.device)
    if far:
        sys.exit(f"what {', '.join(far)} said is more than {SLACK:.0%} from what was held")


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, tuple[float, float]]:
    """GB that each stage told of, and that its process came to."""
    (folder / "shown.jsonl").write_text("\n".join(demonstrations()))
    (folder / "asked.jsonl").write_text("\n".join(PROMPTS.read_text().splitlines()[: asked.prompts]))
    (folder / "stories.txt").write_text("\n\n".join(stories()))
    words = {path.stem: str(path) for path in folder.iterdir()}
    found = {}
    rewarded = any(STAGES[name][0] in ("grpo", "ppo") for name in asked.stages)
    wanted = {*asked.stages, *(["reward"] if rewarded else [])}
    for name, words_of_it in [*((one[0], one) for one in BEFORE), *((n, STAGES[n]) for n in STAGES if n in wanted)]:
        where = folder / ("text" if name == "pretrain" else "run")  # what is pretrained would be the others' start
        run = ["--run", str(where), "--model", asked.model, "--device", asked.device, "--dtype", asked.dtype]
        command = [word.format(**words) for word in words_of_it] + run
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT.parent)}
        does = [sys.executable, __file__, "--ours", asked.device, *command]
        done = subprocess.run(does, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr[-4000:]}\nfailed: assent {' '.join(command)}")
        if name in asked.stages:
            told = re.search(r"needs about ([\d.]+) GB", done.stderr)
            assert told, f"{name} did not say what it needs: {done.stderr[-4000:]}"
            held = json.loads(done.stdout.splitlines()[-1])["peak_gb"]
            found[name] = (float(told[1]), round(held, 2))
            print(f"  {name}: told {told[1]} GB, held {held:.2f}", file=sys.stderr, flush=True)
    return found


def stories() -> list[str]:
    """Some of the texts of the smallest example."""
    return STORIES.read_text().split("\n\n")[:64]


def demonstrations() -> list[str]:
    """The same, the first sentence of each asking for the rest."""
    parts = (story.partition(". ") for story in stories())
    return [json.dumps({"prompt": f"{begin}.", "completion": rest}) for begin, _, rest in parts if rest]


def stage(device: str, command: list[str]) -> None:
    """One command, and then how much memory it came to."""
    from assent.cli import main as assent

    if status := assent(command):
        sys.exit(status)
    print(json.dumps({"peak_gb": Clock(device).peak()}))


if __name__ == "__main__":
    main()
