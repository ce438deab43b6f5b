"""What the sides work on: real comparisons, as token ids, so that both see the very same tokens."""

import itertools
import sys
from pathlib import Path

import torch

from assent.generation.local import Sampling, sample
from assent.models.load import Language, load_policy, locate
from assent.records import Preference, Prompt
from assent.store.exchange import read

HH = Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf" / "harmless-base.jsonl.gz"
"""The test split of harmless-base (arXiv:2204.05862), where somebody has put it."""
LONGEST = 512


def pairs(data: str, model: str, count: int) -> list[dict[str, list[int]]]:
    """The first comparisons of a file that are short enough, as ids; without a file, two answers of the model's own."""
    language = load_policy(model)
    path = Path(data) if data else HH
    if not path.exists():
        print(f"no comparisons at {path}: two answers of the model to each of our prompts instead", file=sys.stderr)
        drawn = answers(language, count, 2)
        return [{"prompt_ids": list(p), "chosen_ids": list(a), "rejected_ids": list(b)} for p, (a, b) in drawn]
    codec, found = language.codec, list[dict[str, list[int]]]()
    for example in itertools.islice(read(path).examples, 20 * count):
        if isinstance(example, Preference) and len(found) < count:
            prompt = codec.prompt(example.prompt)
            sides = [codec.completion(example.prompt, text) for text in (example.chosen, example.rejected)]
            if all(0 < len(side) <= LONGEST - len(prompt) for side in sides) and sides[0] != sides[1]:
                found.append({"prompt_ids": list(prompt), "chosen_ids": list(sides[0]), "rejected_ids": list(sides[1])})
    return found


def answers(language: Language, count: int, n: int) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """So many of the demo's prompts, each with n answers of the model's own."""
    prompts = read(Path(__file__).parents[2] / "assent" / "data" / "prompts.jsonl").prompts[:count]
    ids = [language.codec.prompt(Prompt.ask(p.text)) for p in prompts]
    drawn = sample(language.model, ids, n, Sampling(0.7, 64), language.codec.ends, torch.Generator().manual_seed(0))
    return [(one, [s.ids for s in drawn if s.prompt == i]) for i, one in enumerate(ids)]


def folder(model: str) -> str:
    """Where a model lies, for a peer that knows folders only."""
    return locate(model)
