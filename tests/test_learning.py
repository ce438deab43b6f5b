"""Every objective learns a task that a rule can check; with the negated rule, a policy unlearns it."""

import json
import math
import random
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from assent.cli import main
from assent.loggers.jsonl import read_metrics as metrics_of
from assent.models.load import load_policy
from assent.models.packing import SharedPrefix
from assent.records import Completion, Prompt
from assent.split import split
from assent.training.microbatch import map_batches
from assent.training.reference import completion_logprobs

ROOT = Path(__file__).parent.parent
RULE = ROOT / "examples" / "alphabet.py"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROMPTS = [(first, last) for first in range(26) for last in range(first + 1, min(26, first + 8))]
SHARED = ["--device", "cpu", "--dtype", "float32"]
pytestmark = pytest.mark.slow


def prompt_text(first: int, last: int) -> str:
    return f"from {LETTERS[first]} to {LETTERS[last]} :"


def completion_text(first: int, last: int) -> str:
    return "".join(f" {letter}" for letter in LETTERS[first : last + 1]) + " ."


@pytest.fixture(scope="module")
def base_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small model that recites the alphabet; about one completion of four ends correctly."""
    folder = tmp_path_factory.mktemp("learning")
    rng = random.Random(0)
    texts = set()
    for first, last in PROMPTS:
        for _ in range(6):
            end = last if rng.random() < 0.5 else rng.randrange(first + 1, min(26, first + 8))
            texts.add(prompt_text(first, last) + completion_text(first, end))
    shuffled = sorted(texts)
    rng.shuffle(shuffled)
    (folder / "texts.txt").write_text("\n\n".join(shuffled))
    size = [
        "--vocab-size",
        "300",
        "--num-layers",
        "2",
        "--hidden-size",
        "64",
        "--context-length",
        "32",
        "--epochs",
        "40",
    ]
    data = ["--data", str(folder / "texts.txt"), "--held-out", "0.05", "--lr", "3e-3"]
    assert main(["pretrain", "--run", str(folder / "text"), *data, *size, *SHARED]) == 0
    prompts = [{"prompt": prompt_text(*prompt)} for prompt in PROMPTS]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return folder


def common_flags(base_model_folder: Path, run: Path, seed: int = 0) -> list[str]:
    return ["--run", str(run), "--model", str(base_model_folder / "text" / "pretrain"), "--seed", str(seed), *SHARED]


ONLINE_FLAGS = {
    "grpo": ["--lr", "1e-3", "--beta", "0.01"],
    "rloo": ["--lr", "1e-3", "--beta", "0.01"],
    "ppo": ["--lr", "1e-3", "--beta", "0.01", "--value-lr", "3e-3"],
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ONLINE_FLAGS)
def test_online_objectives_learn_the_rule_and_its_negation(
    name: str, seed: int, base_model_folder: Path, tmp_path: Path
) -> None:
    negated = tmp_path / "negated.py"
    negated.write_text(RULE.read_text().replace("float(r.finished and", "-float(r.finished and"))
    assert "-float" in negated.read_text()
    rollout = ["--n", "8", "--batch-size", "16", "--max-new-tokens", "12", "--temperature", "1"]
    training = [*rollout, "--lr-scheduler-type", "constant"]
    scores_of_policies: dict[str, dict[str, float]] = {}
    accuracies: dict[str, list[float]] = {}
    for sign, rule, steps in (("rule", RULE, "50"), ("negated", negated, "30")):  # unlearning needs fewer steps
        run = common_flags(base_model_folder, tmp_path / sign, seed)
        assert (
            main(
                [
                    "import",
                    str(base_model_folder / "prompts.jsonl"),
                    "--run",
                    str(tmp_path / sign),
                    "--no-apply-chat-template",
                ]
            )
            == 0
        )
        assert main([name, *run, "--rewards", str(rule), "--steps", steps, *ONLINE_FLAGS[name], *training]) == 0
        flags = ["--judge", str(RULE), "--temperature", "1", "--max-new-tokens", "12"]
        assert main(["evaluate", *run, *flags]) == 0
        scores = [abs(line["score"]) for line in metrics_of(tmp_path / sign) if line["stage"] == name]
        accuracies[sign] = [fmean(scores[:5]), fmean(scores[-10:])]  # fractions of correct completions in the rollouts
        policies = json.loads((tmp_path / sign / "done" / "evaluate.json").read_text())["policies"]
        scores_of_policies[sign] = {
            policy: policies[policy]["judge_score"] for policy in ("base", name)
        }  # fraction of correct completions to held-out prompts
    assert (
        accuracies["rule"][1] > accuracies["rule"][0] + 0.2
        and scores_of_policies["rule"][name] > scores_of_policies["rule"]["base"] + 0.1
    ), (
        accuracies,
        scores_of_policies,
    )
    assert (
        accuracies["negated"][1] < 0.4 * accuracies["negated"][0]
        and scores_of_policies["negated"][name] < scores_of_policies["negated"]["base"]
    ), (
        accuracies,
        scores_of_policies,
    )


COMPARED_PROMPTS = [(first, last) for first, last in PROMPTS if last > first + 1]


def chosen_and_rejected(first: int, last: int) -> list[str]:
    """Return the chosen completion, one letter short, and the correct one, which is likelier under the base model."""
    return [completion_text(first, last - 1), completion_text(first, last)]


def write_comparisons(folder: Path, random_labels: bool) -> Path:
    """Write a file of comparisons, with random labels as a control."""
    rng = random.Random(1)
    rows = []
    for item in COMPARED_PROMPTS:
        chosen, rejected = (
            chosen_and_rejected(*item) if not random_labels else rng.sample(chosen_and_rejected(*item), 2)
        )
        rows.append({"prompt": prompt_text(*item), "chosen": chosen, "rejected": rejected})
    path = folder / f"pairs-{random_labels}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@torch.no_grad()
def preference_accuracy(folder: Path, held_out: list[tuple[int, int]]) -> float:
    """Return the fraction of prompts for which the chosen completion is likelier than the rejected one."""
    loaded = load_policy(folder)
    prefixes = []
    for item in held_out:
        prompt = Prompt.plain(prompt_text(*item))
        texts = tuple(
            loaded.chat_tokenizer.encode_completion(prompt, Completion(text)) for text in chosen_and_rejected(*item)
        )
        prefixes.append(SharedPrefix(loaded.chat_tokenizer.encode_prompt(prompt), texts))
    sums = map_batches(prefixes, 2048, lambda chunk: completion_logprobs(loaded.model, chunk, torch.device("cpu")))
    return fmean(float(item[0] > item[1]) for item in sums)


OFFLINE_FLAGS = {
    "dpo": ["--lr", "1e-3"],
    "ipo": ["--lr", "1e-3"],
    "kto": ["--lr", "1e-3", "--epochs", "20"],
    "simpo": ["--lr", "1e-3"],
    "orpo": ["--lr", "2e-3"],
}


@pytest.mark.parametrize("name", OFFLINE_FLAGS)
def test_offline_objectives_learn_preferences_not_random_labels(
    name: str, base_model_folder: Path, tmp_path: Path
) -> None:
    """Compare means over two seeds: the accuracy on 39 held-out prompts has an error of about 0.15."""
    held_out_ids = split([Prompt.plain(prompt_text(*item)) for item in COMPARED_PROMPTS], 0.3).held_out
    held_out = [item for item in COMPARED_PROMPTS if Prompt.plain(prompt_text(*item)).id in held_out_ids]
    before = preference_accuracy(base_model_folder / "text" / "pretrain", held_out)
    after = dict[bool, list[float]]()
    for random_labels, seed in product((False, True), (0, 1)):
        folder = tmp_path / f"{random_labels}-{seed}"
        assert (
            main(
                [
                    "import",
                    str(write_comparisons(tmp_path, random_labels)),
                    "--run",
                    str(folder),
                    "--no-apply-chat-template",
                ]
            )
            == 0
        )
        flags = ["--epochs", "10", "--batch-size", "8", *OFFLINE_FLAGS[name]]
        assert main([name, *common_flags(base_model_folder, folder, seed), *flags]) == 0
        after.setdefault(random_labels, []).append(preference_accuracy(folder / name, held_out))
    assert before < 0.3 and fmean(after[False]) > 0.7, (before, after)
    assert fmean(after[True]) < fmean(after[False]) - 0.2, (before, after)


@pytest.mark.parametrize("seed", [0, 1])
def test_reward_model_accuracy_is_near_the_noise_limit(seed: int, base_model_folder: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = list[Any]()
    limit = 0.0
    for _ in range(900):
        first = rng.randrange(20)
        ends = rng.sample(range(first + 1, min(26, first + 8)), 2)
        chance = 1 / (1 + math.exp(-0.6 * (ends[0] - ends[1])))  # annotators prefer long completions, by Bradley-Terry
        limit += max(chance, 1 - chance) / 900
        if rng.random() > chance:
            ends.reverse()
        texts = [completion_text(first, end) for end in ends]
        rows.append({"prompt": f"{rng.randrange(10**6)} {LETTERS[first]} :", "chosen": texts[0], "rejected": texts[1]})
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert (
        main(["import", str(tmp_path / "pairs.jsonl"), "--run", str(tmp_path / "run"), "--no-apply-chat-template"]) == 0
    )
    assert (
        main(["reward", *common_flags(base_model_folder, tmp_path / "run", seed), "--lr", "1e-3", "--batch-size", "8"])
        == 0
    )
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    assert 0.75 < limit < 0.9
    assert result["low"] - 0.02 < limit < result["high"] + 0.05, (result, limit)
    assert result["accuracy"] > limit - 0.06, (result, limit)
