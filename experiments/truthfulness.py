"""Truthfulness: SFT on "I don't know" over-refuses, and reinforcement learning wins the right answers back.

    python experiments/truthfulness.py
    python experiments/truthfulness.py --seeds 0
    python experiments/truthfulness.py --model FOLDER --questions FILE --steps 2
    python experiments/truthfulness.py --transfer trivia_qa.jsonl

SmolLM2-135M-Instruct half knows the questions of the package. `abstain` writes what it knows, and "I don't know" for
the rest; `sft` trains on that, and GRPO on a reward of 1 for a right answer, 0 for a refusal, -1 for a wrong one
(TruthRL, arXiv:2509.25760). Two controls: SFT alone, and GRPO that never pays for a refusal. A third policy is trained
with the confidence target 3/4 (Kalai et al. 2025, arXiv:2509.04664), which charges 3 for a wrong answer. All are
measured greedily on questions that nothing was trained on. `--transfer` also asks questions of another kind, from a
file with a column `answers`: is a refusal learned on ours of any use there? A stage that is done is not done again.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from assent.api import Run
from assent.config import read_recipe
from assent.errors import AssentError
from assent.evaluation.truthfulness import grade_responses, measure_truthfulness
from assent.files import replacing_folder, write_atomically
from assent.formats.files.importing import read_file
from assent.functional.finite import replace_nonfinite
from assent.functional.grading import Grade
from assent.generation.local import LocalGenerator
from assent.generation.responses import sample_responses
from assent.generation.sampling import Sampling
from assent.models.load import LoadedModel, load_policy
from assent.records import Prompt
from assent.rewards.truthful import has_answers
from assent.run import open_run
from assent.seeds import named_rng
from assent.training.batching import chunks

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "examples" / "truthfulness.toml"
ARMS: Mapping[str, Mapping[str, float]] = {
    "GRPO": {},
    "GRPO, refusals unpaid": {"refuse": -1.0},
    "GRPO, target 3/4": {"confidence_target": 0.75},
}
"""Settings of the reward of each policy that starts from SFT."""
POLICIES = (("base", "start"), ("sft", "SFT"), ("grpo", ""))
"""Policies of a run and their names in the tables; that of GRPO is the arm's."""
COLUMNS = ("right", "refused", "wrong", "selective_accuracy", "over_refusal", "still_wrong")

Measures = Mapping[str, Any]
"""The truthfulness of one policy, as `evaluate` measures it."""


def main() -> None:
    """Train and measure every policy, print the tables and a line of JSON."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "truthfulness-experiment")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    flags.add_argument("--model", default="", help="a hub id or a folder; default: that of the recipe")
    flags.add_argument("--questions", type=Path, default=ROOT / "assent" / "data" / "quiz.jsonl")
    flags.add_argument("--steps", type=int, help="steps of GRPO; default: those of the recipe")
    flags.add_argument("--transfer", type=Path, help="file of questions of another kind, asked as well")
    flags.add_argument("--num-transfer", type=int, default=300, help="questions of that file to ask")
    arguments = flags.parse_args()
    questions = read_questions(arguments.transfer, arguments.num_transfer) if arguments.transfer else []
    rows: dict[str, dict[int, Measures]] = {}
    transfer: dict[str, dict[int, Measures]] = {}
    for seed in arguments.seeds:
        runs = train_seed(arguments, seed)
        for table, measured in ((rows, read_measures(runs)), (transfer, measure_transfer(runs, questions))):
            for policy, measures in measured.items():
                table.setdefault(policy, {})[seed] = measures
    print_table(rows)
    aims = check_aims(rows)
    line = {"experiment": "truthfulness", "seeds": arguments.seeds, "aims": aims, "policies": rows}
    if transfer:
        print(f"\n{len(questions)} questions of {arguments.transfer}")
        print_table(transfer)
        line["transfer"] = transfer
    print(json.dumps(replace_nonfinite(line), allow_nan=False))


def train_seed(arguments: argparse.Namespace, seed: int) -> dict[str, Run]:
    """Return the run of each arm, with its policies trained and measured."""
    folder = arguments.folder / f"seed-{seed}"
    recipe = read_recipe(RECIPE)
    model = {"model": arguments.model} if arguments.model else {}
    base = Run(folder / "sft", seed=seed, **model)
    base.import_(str(arguments.questions))
    base.abstain(**recipe["abstain"]).sft(**recipe["sft"])
    names = {arm: arm.replace(", ", "-").replace(" ", "-").replace("/", "-") for arm in arguments.arms}
    return {arm: train_arm(base, folder / name, arm, arguments.steps) for arm, name in names.items()}


def read_measures(runs: Mapping[str, Run]) -> dict[str, Measures]:
    """Return the truthfulness of each policy on the held-out questions, as `evaluate` measured it."""
    measured: dict[str, Measures] = {}
    for arm, run in runs.items():
        policies = run.results["evaluate"]["policies"]
        for name, title in POLICIES:
            figures = {key: value for key, value in policies[name]["truthfulness"].items() if key != "curve"}
            measured.setdefault(title or arm, figures)
    return measured


def measure_transfer(runs: Mapping[str, Run], questions: list[Prompt]) -> dict[str, Measures]:
    """Return the truthfulness of each policy on questions of another kind; the answers stay in the runs' folders."""
    measured: dict[str, Measures] = {}
    baseline: dict[str, Grade] | None = None
    for arm, run in runs.items() if questions else ():
        with open_run(run.setup) as opened:
            for name, title in POLICIES:
                if (title or arm) in measured:
                    continue
                path = opened.folder / f"transfer-{name}-{len(questions)}.json"
                if not path.exists():
                    policy = load_policy(opened.policy(name), opened.dtype, opened.device, opened.rendering)
                    write_atomically(path, json.dumps(answer(policy, questions)))
                grades = json.loads(path.read_text(encoding="utf-8"))
                measured[title or arm] = measure_truthfulness(grades, baseline)
                baseline = baseline or grades
    return measured


def answer(policy: LoadedModel, questions: list[Prompt]) -> dict[str, Grade]:
    """Return the grade of a policy's greedy answer to each question, by the question's id."""
    asked = questions if policy.tokenizer.chat_template is None else [question.as_chat() for question in questions]
    generator = LocalGenerator()
    generator.load(policy)
    greedy = Sampling(temperature=0.0, max_new_tokens=16)
    batches = (sample_responses(generator, policy.chat_tokenizer, batch, 1, greedy, 0) for batch in chunks(asked, 64))
    return grade_responses(asked, [response for batch in batches for response in batch])


def read_questions(path: Path, count: int) -> list[Prompt]:
    """Return questions that have a column `answers`, the same for all policies."""
    questions = [prompt for prompt in read_file(path).prompts if has_answers(prompt)]
    if not questions:
        raise AssentError(f"{path} has no question with `answers`; name another file")
    return named_rng("transfer").sample(questions, min(count, len(questions)))


def train_arm(base: Run, folder: Path, arm: str, steps: int | None) -> Run:
    """Train a policy from SFT in a copy of its run, and measure all three."""
    recipe = read_recipe(RECIPE)
    if not folder.exists():
        with replacing_folder(folder) as partial:
            shutil.copytree(base.folder, partial)
    grpo = {**recipe["grpo"], **ARMS[arm], **({"steps": steps} if steps else {})}
    return Run(folder).grpo(**grpo).evaluate(**recipe["evaluate"])


def print_table(rows: Mapping[str, Mapping[int, Measures]]) -> None:
    """Print a row for each policy and seed, then the mean over seeds; intervals are Wilson's."""
    header = (
        "policy",
        "seed",
        "right",
        "refused",
        "wrong",
        "right of answered",
        "over-refusal",
        "still wrong",
        "AUROC",
    )
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for policy, by_seed in rows.items():
        for seed, measured in by_seed.items():
            cells = [_rate(measured.get(name)) for name in COLUMNS]
            print(f"| {policy} | {seed} | {' | '.join([*cells, _number(measured.get('auroc'))])} |")
        means = [_mean(by_seed.values(), name) for name in COLUMNS]
        cells = ["" if math.isnan(mean) else f"{100 * mean:.1f} %" for mean in means]
        print(f"| {policy} | mean | {' | '.join(cells)} | |")


def check_aims(rows: Mapping[str, Mapping[int, Measures]]) -> dict[str, dict[str, Any]]:
    """Print and return, for each policy, its wrong and right answers relative to the start's, over the seeds."""
    start = rows["start"].values()
    aims: dict[str, dict[str, Any]] = {}
    print()
    for policy, by_seed in rows.items():
        if policy == "start":
            continue
        wrong, right = (_ratio(_mean(by_seed.values(), name), _mean(start, name)) for name in ("wrong", "right"))
        is_met = wrong <= 0.6 and right >= 1
        aims[policy] = {"wrong": wrong, "right": right, "is_met": is_met}
        verdict = "both aims are met" if is_met else "not both aims are met"
        shares = f"wrong answers {100 * wrong:.0f} % of the start's (aim: 60), right {100 * right:.0f} % (aim: 100)"
        print(f"{policy}: {shares}; {verdict}")
    return aims


def _rate(interval: Mapping[str, float] | None) -> str:
    if not interval or interval["rate"] is None:
        return ""
    return f"{100 * interval['rate']:.1f} % [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(value: float, start: float) -> float:
    return value / start if start else math.nan


def _mean(measured: Iterable[Measures], name: str) -> float:
    rates = [row[name]["rate"] for row in measured if row.get(name) and row[name]["rate"] is not None]
    return fmean(rates) if rates else math.nan


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"truthfulness: {error}")
