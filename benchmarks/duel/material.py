"""What the sides work on: real prompts and comparisons, as token ids, so that both see the very same tokens."""

import argparse
import atexit
import itertools
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from assent.formats.files.exchange import read
from assent.generation.local import Sampling, sample
from assent.models.checkpoints import locate, save
from assent.models.load import LoadedModel, load_policy, new_reward
from assent.records import Message, Preference, Prompt

HH = Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf" / "harmless-base.jsonl.gz"
"""The test split of harmless-base (arXiv:2204.05862), where somebody has put it."""
PROMPTS = Path(__file__).parents[2] / "assent" / "data" / "prompts.jsonl"
LONGEST = 512
"""Tokens of a prompt and its answer."""


def common(flags: argparse.Namespace) -> dict[str, Any]:
    """What every side must know of the model: its folder, for a peer that knows folders only, and a padding token."""
    return {"model": locate(flags.model), "pad": _language(flags.model).tokenizer.pad_token_id}


@cache
def reward(model: str) -> str:
    """A folder with a new reward model on the body of a model."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save(new_reward(model, seed=0), Path(folder) / "reward")
    return str(Path(folder) / "reward")


def pairs(data: str, model: str, count: int) -> list[dict[str, list[int]]]:
    """The first comparisons of a file that are short enough, as ids; without a file, two answers of the model's own."""
    language = _language(model)
    path = _data(data)
    if path is None:
        drawn = rankings(model, count, 2)
        return [{"prompt_ids": p, "chosen_ids": a, "rejected_ids": b} for p, (a, b) in drawn]
    codec, found = language.codec, list[dict[str, list[int]]]()
    for example in itertools.islice(read(path).examples, 20 * count):
        if isinstance(example, Preference) and len(found) < count:
            prompt = codec.prompt(example.prompt)
            sides = [codec.completion(example.prompt, text) for text in (example.chosen, example.rejected)]
            if all(0 < len(side) <= LONGEST - len(prompt) for side in sides) and sides[0] != sides[1]:
                found.append({"prompt_ids": list(prompt), "chosen_ids": list(sides[0]), "rejected_ids": list(sides[1])})
    return found


def questions(data: str, model: str, count: int, longest: int = 200) -> list[Prompt]:
    """The first prompts of a file of comparisons that are shorter than so many tokens; without a file, our own."""
    language = _language(model)
    path = _data(data)
    asked = (e.prompt for e in read(path).examples if isinstance(e, Preference)) if path else _ours()
    short = (prompt for prompt in asked if len(language.codec.prompt(prompt)) < longest)
    return list(itertools.islice(dict.fromkeys(short), count))


def encoded(model: str, prompts: list[Prompt]) -> list[list[int]]:
    """Prompts as ids."""
    return [list(_language(model).codec.prompt(prompt)) for prompt in prompts]


def answers(model: str, prompts: list[Prompt], n: int, length: int) -> list[list[list[int]]]:
    """n answers of the model's own to each prompt, all of one length: an end token counts as any other word."""
    language = _language(model)
    ids = [language.codec.prompt(prompt) for prompt in prompts]
    drawn = sample(language.model, ids, n, Sampling(1.0, length), frozenset(), torch.Generator().manual_seed(0))
    words = [[token if token not in language.codec.stop_ids else s.ids[0] for token in s.ids] for s in drawn]
    return [words[i * n : (i + 1) * n] for i in range(len(ids))]


def rankings(model: str, count: int, n: int, length: int = 64) -> list[tuple[list[int], list[list[int]]]]:
    """Some of our prompts, each with n answers of the model's own."""
    prompts = _ours()[:count]
    codec = _language(model).codec
    drawn = answers(model, prompts, n, length)
    return [(list(codec.prompt(prompt)), group) for prompt, group in zip(prompts, drawn, strict=True)]


def as_json(prompts: list[Prompt]) -> list[list[list[str]]]:
    """Prompts as roles and words."""
    return [[[m.role, m.content] for m in prompt.messages] for prompt in prompts]


def from_json(asked: list[list[list[str]]]) -> list[Prompt]:
    """The same prompts."""
    return [Prompt(tuple(Message(role, content) for role, content in messages)) for messages in asked]


@cache
def _language(model: str) -> LoadedModel:
    return load_policy(model)


def _ours() -> list[Prompt]:
    return [Prompt.ask(prompt.text) for prompt in read(PROMPTS).prompts]


def _data(data: str) -> Path | None:
    path = Path(data) if data else HH
    if path.exists():
        return path
    if data:
        sys.exit(f"no comparisons at {data}")
    print("no comparisons to be had: our own prompts and the model's own answers instead", file=sys.stderr)
    return None
