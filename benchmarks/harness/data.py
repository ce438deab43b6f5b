"""Data of the benchmarks: prompts and comparisons as token ids, so that both sides see the same tokens."""

import argparse
import atexit
import itertools
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from assent.formats.files.importing import read_file
from assent.generation.local import sample_completions
from assent.generation.sampling import Sampling
from assent.models.checkpoints import locate, save
from assent.models.load import LoadedModel, load_policy, new_reward
from assent.records import Message, Preference, Prompt

HH = Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf" / "harmless-base.jsonl.gz"
"""The test split of harmless-base (arXiv:2204.05862), used if it exists."""
PROMPTS = Path(__file__).parents[2] / "assent" / "data" / "prompts.jsonl"
MAX_LENGTH = 512
"""Most tokens of a prompt with its response."""


def common_settings(flags: argparse.Namespace) -> dict[str, Any]:
    """Return the model's folder, since a peer reads folders only, and its padding token."""
    return {"model": locate(flags.model), "pad": _load(flags.model).tokenizer.pad_token_id}


@cache
def make_reward_model(model: str) -> str:
    """Return a folder with a new reward model on the body of a model."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save(new_reward(model, seed=0), Path(folder) / "reward")
    return str(Path(folder) / "reward")


def load_pairs(data: str, model: str, count: int) -> list[dict[str, list[int]]]:
    """Return the first comparisons of a file that are short enough, as ids; without a file, own responses."""
    language = _load(model)
    path = _find_data(data)
    if path is None:
        samples = sample_rankings(model, count, 2)
        return [{"prompt_ids": p, "chosen_ids": a, "rejected_ids": b} for p, (a, b) in samples]
    tokenizer = language.chat_tokenizer
    rows: list[dict[str, list[int]]] = []
    for example in itertools.islice(read_file(path).examples, 20 * count):
        if isinstance(example, Preference) and len(rows) < count:
            prompt = tokenizer.encode_prompt(example.prompt)
            sides = [tokenizer.encode_completion(example.prompt, text) for text in (example.chosen, example.rejected)]
            if all(0 < len(side) <= MAX_LENGTH - len(prompt) for side in sides) and sides[0] != sides[1]:
                chosen, rejected = map(list, sides)
                rows.append({"prompt_ids": list(prompt), "chosen_ids": chosen, "rejected_ids": rejected})
    return rows


def load_prompts(data: str, model: str, count: int, longest: int = 200) -> list[Prompt]:
    """Return the first prompts of a file of comparisons with fewer than `longest` tokens; without a file, our own."""
    language = _load(model)
    path = _find_data(data)
    prompts = (e.prompt for e in read_file(path).examples if isinstance(e, Preference)) if path else _own_prompts()
    short = (prompt for prompt in prompts if len(language.chat_tokenizer.encode_prompt(prompt)) < longest)
    return list(itertools.islice(dict.fromkeys(short), count))


def encode_prompts(model: str, prompts: list[Prompt]) -> list[list[int]]:
    """Return prompts as token ids."""
    return [list(_load(model).chat_tokenizer.encode_prompt(prompt)) for prompt in prompts]


def sample_responses(model: str, prompts: list[Prompt], n: int, length: int) -> list[list[list[int]]]:
    """Sample n responses of one length to each prompt: an end token is replaced by the first token."""
    language = _load(model)
    ids = [language.chat_tokenizer.encode_prompt(prompt) for prompt in prompts]
    samples = sample_completions(language.model, ids, n, Sampling(1.0, length), frozenset(), 0)
    stop_ids = language.chat_tokenizer.stop_ids
    token_ids = [[s.token_ids[0] if token in stop_ids else token for token in s.token_ids] for s in samples]
    return [token_ids[i * n : (i + 1) * n] for i in range(len(ids))]


def sample_rankings(model: str, count: int, n: int, length: int = 64) -> list[tuple[list[int], list[list[int]]]]:
    """Return some of our prompts, each with n responses of the model."""
    prompts = _own_prompts()[:count]
    tokenizer = _load(model).chat_tokenizer
    responses = sample_responses(model, prompts, n, length)
    return [(list(tokenizer.encode_prompt(prompt)), group) for prompt, group in zip(prompts, responses, strict=True)]


def prompts_to_json(prompts: list[Prompt]) -> list[list[list[str]]]:
    """Return prompts as pairs of role and content."""
    return [[[m.role, m.content] for m in prompt.messages] for prompt in prompts]


def prompts_from_json(rows: list[list[list[str]]]) -> list[Prompt]:
    """Return prompts from pairs of role and content."""
    return [Prompt(tuple(Message(role, content) for role, content in messages)) for messages in rows]


@cache
def _load(model: str) -> LoadedModel:
    return load_policy(model)


def _own_prompts() -> list[Prompt]:
    return [Prompt.ask(prompt.text) for prompt in read_file(PROMPTS).prompts]


def _find_data(data: str) -> Path | None:
    path = Path(data) if data else HH
    if path.exists():
        return path
    if data:
        sys.exit(f"no comparisons at {data}")
    print("no comparisons: using the prompts of assent and the model's own responses", file=sys.stderr)
    return None
