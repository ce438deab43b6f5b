"""Calibration before and after: does preference training make a policy surer than it is right?

    python experiments/calibration.py --picture docs/pictures/calibration.svg
    python experiments/calibration.py --seeds 0 --control

The demo's training, on SmolLM2-135M-Instruct: the reward prefers concise responses, and knows nothing of facts. Base,
SFT on its own best responses, PPO and DPO answer the questions of the package. GPT-4's report (arXiv:2303.08774, figure
8) shows what to look for. Four confidences: the greatest of four options' probabilities; and of the policy's own greedy
answer the exponential of the mean log-probability, the share of samples that agree with it, and P(True). With
--control, the same policies are trained on random labels too: what they lose is the price of moving, not of the
preferences. A stage that is done is not done again.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assent.api import Run
from assent.config import read_recipe
from assent.errors import AssentError
from assent.evaluation.calibration import calibration_result, compare_calibration, measure_answers, measure_choices
from assent.evaluation.confidence import p_true, pose_choices, sample_agreement
from assent.files import write_atomically
from assent.formats.files.importing import read_file
from assent.functional.finite import replace_nonfinite
from assent.generation.local import LocalGenerator
from assent.generation.responses import sample_responses
from assent.generation.sampling import Sampling
from assent.models.load import LoadedModel, load_policy
from assent.records import Prompt, Response
from assent.rewards.truthful import grade_response
from assent.run import open_run
from assent.seeds import Purpose, derive, named_rng
from assent.training.batching import chunks

ROOT = Path(__file__).parent.parent
POLICIES = {"base": "base", "SFT": "rejection_sampling", "PPO": "ppo", "DPO": "dpo"}
"""The stages that train the policies, by title."""
SFT = dict(n=4, lr=2e-5, epochs=2, batch_size=16)
SAMPLES = 5
"""Samples that agree or not with the greedy answer."""
CONFIDENCES = {
    "choices": "four options",
    "answers": "mean log-probability",
    "agreement": "agreement of samples",
    "p_true": "P(True)",
}

Results = Mapping[str, Mapping[str, Any]]
"""The calibration of one policy, by kind of confidence."""


def main() -> None:
    """Train and measure every policy, print the tables and a line of JSON, and draw the picture."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "runs" / "calibration")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--control", action="store_true", help="train on random labels too")
    flags.add_argument("--recipe", type=Path, default=ROOT / "assent" / "data" / "demo.toml")
    flags.add_argument("--questions", type=Path, default=ROOT / "assent" / "data" / "quiz.jsonl")
    flags.add_argument("--num-questions", type=int, default=200)
    flags.add_argument("--picture", type=Path, help="file to draw, .svg or .png")
    arguments = flags.parse_args()
    questions = read_questions(arguments.questions, arguments.num_questions)
    rows: dict[str, dict[int, Results]] = {}
    for seed in arguments.seeds:
        for is_control in (False, True) if arguments.control else (False,):
            run = train(arguments.folder / f"seed-{seed}{'-random' if is_control else ''}", seed, arguments, is_control)
            for title, results in measure(run, questions).items():
                name = f"{title}, random labels" if is_control else title
                if title != "base" or not is_control:
                    rows.setdefault(name, {})[seed] = results
    print_tables(rows)
    if arguments.picture:
        draw_diagrams(rows, arguments.picture)
    settings = {"seeds": arguments.seeds, "questions": len(questions), "samples": SAMPLES}
    policies = {
        title: {seed: _figures(results) for seed, results in by_seed.items()} for title, by_seed in rows.items()
    }
    line = {"experiment": "calibration", **settings, "policies": policies}
    print(json.dumps(replace_nonfinite(line), allow_nan=False))


def train(folder: Path, seed: int, arguments: argparse.Namespace, is_control: bool) -> Run:
    """Train SFT, PPO and DPO as the recipe says."""
    recipe = read_recipe(arguments.recipe)
    setup = {name: recipe[name] for name in ("model", "held_out", "dtype") if name in recipe}
    run = Run(folder, seed=seed, **setup)
    ppo = {**recipe["ppo"], **({"ungated": True} if is_control else {})}
    shared = {name: ppo[name] for name in ("temperature", "max_new_tokens", "ungated") if name in ppo}
    for stage in recipe["stages"]:
        if stage in ("evaluate", "report"):
            continue
        if stage == "label":
            run.label(**{**recipe.get("label", {}), "random_labels": is_control})
        elif stage == "ppo":
            run.rejection_sampling(**SFT, **shared).ppo(**ppo)
        else:
            getattr(run, stage)(**recipe.get(stage, {}))
    return run


def measure(run: Run, questions: list[Prompt]) -> dict[str, Results]:
    """Return the calibration of each policy, which stays in the run's folder."""
    results: dict[str, Results] = {}
    with open_run(run.setup) as opened:
        for title, policy in POLICIES.items():
            path = opened.folder / f"calibration-{policy}-{len(questions)}.json"
            if not path.exists():
                model = load_policy(opened.policy(policy), opened.dtype, opened.device, opened.rendering)
                as_chat = model.tokenizer.chat_template is not None
                asked = [question.as_chat() for question in questions] if as_chat else questions
                measured = replace_nonfinite(measure_policy(model, asked, opened.seed))
                write_atomically(path, json.dumps(measured))
            results[title] = json.loads(path.read_text(encoding="utf-8"))
    return results


def read_questions(path: Path, count: int) -> list[Prompt]:
    """Return questions that have an answer and wrong ones beside it, the same for all policies."""
    prompts = [p for p in read_file(path).prompts if p.meta.get("answers") and p.meta.get("incorrect_answers")]
    if not prompts:
        raise AssentError(f"{path} has no question with `answers` and `incorrect_answers`; name another file")
    return named_rng("questions").sample(prompts, min(count, len(prompts)))


def measure_policy(model: LoadedModel, questions: list[Prompt], seed: int) -> Results:
    """Return the calibration of a policy by each kind of confidence."""
    greedy, warm = (Sampling(temperature=value, max_new_tokens=16) for value in (0.0, 0.7))
    answers = [row[0] for row in draw(model, questions, greedy, 1, seed)]
    samples = draw(model, questions, warm, SAMPLES, seed)
    grades = [grade_response(*pair) for pair in zip(questions, answers, strict=True)]
    answered = [i for i, grade in enumerate(grades) if grade != "refused"]
    asked, own = [questions[i] for i in answered], [answers[i] for i in answered]
    correct = [grades[i] == "right" for i in answered]
    agreement = sample_agreement([r.text for r in own], [[r.text for r in samples[i]] for i in answered])
    return {
        "choices": measure_choices(model, pose_choices(questions, seed=0)),
        "answers": measure_answers(model, questions, answers),
        "agreement": calibration_result(asked, agreement, correct),
        "p_true": calibration_result(asked, p_true(model, asked, own).tolist(), correct),
    }


def draw(model: LoadedModel, prompts: list[Prompt], sampling: Sampling, n: int, seed: int) -> list[Sequence[Response]]:
    """Return n responses to each prompt."""
    generator = LocalGenerator()
    generator.load(model)
    responses: list[Sequence[Response]] = []
    for number, batch in enumerate(chunks(prompts, max(1, 64 // n))):
        step_seed = derive(seed, Purpose.GENERATION, number)
        drawn = sample_responses(generator, model.chat_tokenizer, batch, n, sampling, step_seed)
        responses += chunks(drawn, n)
    return responses


def print_tables(rows: Mapping[str, Mapping[int, Results]]) -> None:
    """Print a table for each kind of confidence: a row for each policy and seed, with its change from the base's."""
    header = [
        "policy",
        "seed",
        "n",
        "accuracy",
        "confidence",
        "ECE",
        "of a perfect model",
        "Brier",
        "NLL",
        "AUROC",
        "T",
    ]
    header += ["change of Brier", "change of NLL"]
    for kind, title in CONFIDENCES.items():
        print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for policy, by_seed in rows.items():
            for seed, results in by_seed.items():
                result = results[kind]
                names = ("accuracy", "mean_confidence", "ece", "floor_median", "brier", "nll", "auroc", "temperature")
                cells = [_number(result[name]) for name in names]
                change = compare_calibration(rows["base"][seed][kind], result) if policy != "base" else {}
                changes = [_difference(change[name]) if change else "" for name in ("brier", "nll")]
                print(f"| {policy} | {seed} | {result['n']} | {' | '.join([*cells, *changes])} |")


def draw_diagrams(rows: Mapping[str, Mapping[int, Results]], path: Path) -> None:
    """Draw the reliability diagrams of choices side by side, a thin line for each seed."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "calibration", "font.size": 9}
    titles = [title for title in rows if "," not in title]
    figure, panels = plt.subplots(1, len(titles), figsize=(9.4, 2.9), sharey=True, layout="constrained")
    for panel, title in zip(panels, titles, strict=True):
        panel.plot([0, 1], [0, 1], ":", color="#8a8a8a", lw=1)
        for results in rows[title].values():
            bins = results["choices"]["bins"]
            columns = [[point[name] for point in bins] for name in ("confidence", "accuracy")]
            panel.plot(*columns, "o-", color="#2a6fbb", lw=1, ms=3, alpha=0.7)
        first = next(iter(rows[title].values()))["choices"]
        panel.set(
            title=f"{title}, T = {first['temperature']:.1f}", xlabel="confidence", xlim=(0.2, 1.02), ylim=(0, 1.02)
        )
        panel.grid(visible=True, alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of right choices")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _figures(results: Results) -> dict[str, dict[str, Any]]:
    """Return the results without their lists."""
    return {
        kind: {name: value for name, value in result.items() if not isinstance(value, list)}
        for kind, result in results.items()
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _difference(change: Mapping[str, float]) -> str:
    return f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"


if __name__ == "__main__":
    try:
        main()
    except AssentError as error:
        sys.exit(f"calibration: {error}")
