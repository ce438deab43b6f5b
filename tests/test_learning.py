"""Every objective learns what it is meant to, on a task that a rule can check, and unlearns it with the sign turned."""

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
ASKED = [(first, last) for first in range(26) for last in range(first + 1, min(26, first + 8))]
SHARED = ["--device", "cpu", "--dtype", "float32"]
pytestmark = pytest.mark.slow


def question(first: int, last: int) -> str:
    return f"from {LETTERS[first]} to {LETTERS[last]} :"


def answer(first: int, last: int) -> str:
    return "".join(f" {letter}" for letter in LETTERS[first : last + 1]) + " ."


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that says the alphabet from one letter on, and stops at the right one about one time in four."""
    folder = tmp_path_factory.mktemp("learning")
    rng = random.Random(0)
    texts = set()
    for first, last in ASKED:
        for _ in range(6):
            end = last if rng.random() < 0.5 else rng.randrange(first + 1, min(26, first + 8))
            texts.add(question(first, last) + answer(first, end))
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
    prompts = [{"prompt": question(*prompt)} for prompt in ASKED]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return folder


def begin(top: Path, run: Path, seed: int = 0) -> list[str]:
    return ["--run", str(run), "--model", str(top / "text" / "pretrain"), "--seed", str(seed), *SHARED]


TRIALS = {
    "grpo": ["--lr", "1e-3", "--beta", "0.01"],
    "rloo": ["--lr", "1e-3", "--beta", "0.01"],
    "ppo": ["--lr", "1e-3", "--beta", "0.01", "--value-lr", "3e-3"],
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TRIALS)
def test_trials_solve_the_task_and_a_turned_sign_unlearns_it(name: str, seed: int, top: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.py"
    turned.write_text(RULE.read_text().replace("float(r.finished and", "-float(r.finished and"))
    assert "-float" in turned.read_text()
    rollout = ["--n", "8", "--batch-size", "16", "--max-new-tokens", "12", "--temperature", "1"]
    training = [*rollout, "--lr-scheduler-type", "constant"]
    right: dict[str, dict[str, float]] = {}
    shares: dict[str, list[float]] = {}
    for sign, rule, steps in (("kept", RULE, "50"), ("turned", turned, "30")):  # to unlearn is quicker
        run = begin(top, tmp_path / sign, seed)
        assert (
            main(["import", str(top / "prompts.jsonl"), "--run", str(tmp_path / sign), "--no-apply-chat-template"]) == 0
        )
        assert main([name, *run, "--rewards", str(rule), "--steps", steps, *TRIALS[name], *training]) == 0
        flags = ["--judge", str(RULE), "--temperature", "1", "--max-new-tokens", "12"]
        assert main(["evaluate", *run, *flags]) == 0
        scores = [abs(line["score"]) for line in metrics_of(tmp_path / sign) if line["stage"] == name]
        shares[sign] = [fmean(scores[:5]), fmean(scores[-10:])]  # shares of right answers in the rollouts
        policies = json.loads((tmp_path / sign / "done" / "evaluate.json").read_text())["policies"]
        right[sign] = {
            policy: policies[policy]["judge_score"] for policy in ("base", name)
        }  # share of right answers, held out
    assert shares["kept"][1] > shares["kept"][0] + 0.2 and right["kept"][name] > right["kept"]["base"] + 0.1, (
        shares,
        right,
    )
    assert shares["turned"][1] < 0.4 * shares["turned"][0] and right["turned"][name] < right["turned"]["base"], (
        shares,
        right,
    )


LONG = [(first, last) for first, last in ASKED if last > first + 1]


def sides(first: int, last: int) -> list[str]:
    """Return the completion to prefer, one letter short, and the right one, which the base model finds likelier."""
    return [answer(first, last - 1), answer(first, last)]


def pairs(folder: Path, coin: bool) -> Path:
    """A file of comparisons; as a control, decided by a coin."""
    rng, rows = random.Random(1), []
    for item in LONG:
        chosen, rejected = sides(*item) if not coin else rng.sample(sides(*item), 2)
        rows.append({"prompt": question(*item), "chosen": chosen, "rejected": rejected})
    path = folder / f"pairs-{coin}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@torch.no_grad()
def likelier(folder: Path, held_out: list[tuple[int, int]]) -> float:
    """The share of questions on which a policy finds the preferred answer likelier than the other."""
    language, trees = load_policy(folder), []
    for item in held_out:
        prompt = Prompt.plain(question(*item))
        texts = tuple(language.chat_tokenizer.encode_completion(prompt, Completion(text)) for text in sides(*item))
        trees.append(SharedPrefix(language.chat_tokenizer.encode_prompt(prompt), texts))
    sums = map_batches(trees, 2048, lambda chunk: completion_logprobs(language.model, chunk, torch.device("cpu")))
    return fmean(float(item[0] > item[1]) for item in sums)


OFFLINE = {
    "dpo": ["--lr", "1e-3"],
    "ipo": ["--lr", "1e-3"],
    "kto": ["--lr", "1e-3", "--epochs", "20"],
    "simpo": ["--lr", "1e-3"],
    "orpo": ["--lr", "2e-3"],
}


@pytest.mark.parametrize("name", OFFLINE)
def test_comparisons_teach_what_is_preferred_and_a_coin_does_not(name: str, top: Path, tmp_path: Path) -> None:
    """In the mean of two seeds: 39 held-out questions alone tell a share to within 0.15."""
    held_ids = split([Prompt.plain(question(*item)) for item in LONG], 0.3).held_out
    held_out = [item for item in LONG if Prompt.plain(question(*item)).id in held_ids]
    before, after = likelier(top / "text" / "pretrain", held_out), dict[bool, list[float]]()
    for coin, seed in product((False, True), (0, 1)):
        folder = tmp_path / f"{coin}-{seed}"
        assert main(["import", str(pairs(tmp_path, coin)), "--run", str(folder), "--no-apply-chat-template"]) == 0
        flags = ["--epochs", "10", "--batch-size", "8", *OFFLINE[name]]
        assert main([name, *begin(top, folder, seed), *flags]) == 0
        after.setdefault(coin, []).append(likelier(folder / name, held_out))
    assert before < 0.3 and fmean(after[False]) > 0.7, (before, after)
    assert fmean(after[True]) < fmean(after[False]) - 0.2, (before, after)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_reward_model_comes_near_the_limit_that_the_noise_sets(seed: int, top: Path, tmp_path: Path) -> None:
    rng, rows, limit = random.Random(seed), list[Any](), 0.0
    for _ in range(900):
        first = rng.randrange(20)
        ends = rng.sample(range(first + 1, min(26, first + 8)), 2)
        chance = 1 / (1 + math.exp(-0.6 * (ends[0] - ends[1])))  # annotators like long answers, by Bradley-Terry
        limit += max(chance, 1 - chance) / 900
        if rng.random() > chance:
            ends.reverse()
        texts = [answer(first, end) for end in ends]
        rows.append({"prompt": f"{rng.randrange(10**6)} {LETTERS[first]} :", "chosen": texts[0], "rejected": texts[1]})
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert (
        main(["import", str(tmp_path / "pairs.jsonl"), "--run", str(tmp_path / "run"), "--no-apply-chat-template"]) == 0
    )
    assert main(["reward", *begin(top, tmp_path / "run", seed), "--lr", "1e-3", "--batch-size", "8"]) == 0
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    assert 0.75 < limit < 0.9
    assert result["low"] - 0.02 < limit < result["high"] + 0.05, (result, limit)
    assert result["accuracy"] > limit - 0.06, (result, limit)
