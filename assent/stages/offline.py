"""Optimise the policy on comparisons alone: DPO and its family, each by the name of its objective."""

import hashlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assent.batch import Loss, Pairs, Scores
from assent.errors import warn
from assent.files import no_room, replacing
from assent.functional.statistics import wilson
from assent.models.attention import Tree, pack
from assent.models.forward import logprobs
from assent.models.load import context, load_policy
from assent.objectives.dpo import DPO
from assent.protocols import Objective
from assent.run import Run
from assent.stages.reward import judged
from assent.training.batching import batch, chunks, steps_of
from assent.training.distributed import first, gather
from assent.training.logging import Bar
from assent.training.loop import read_state, train
from assent.training.microbatch import by_tree, descend, held_out
from assent.training.preferences import FEEDS, Compared, columns, decided
from assent.training.replicated import Trainee, Training
from assent.training.stage import PolicyStage
from assent.types import Count

PORTION = 512
"""Trees that the reference is asked about before what it says is kept."""
CHOICES = FEEDS[Scores]._replace(reads=decided)
"""Ties say nothing of what the policy should do."""


@dataclass(frozen=True)
class Offline(PolicyStage):
    """Train a policy directly on the comparisons of the run, held to its own start."""

    policy: str = ""
    """What it starts from, and its reference: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    max_tokens: Count = 1024
    """Pairs with a longer side (prompt and completion) are left out and counted."""
    objective: Objective[Pairs] = DPO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = load_policy(run.policy(self.policy or run.base), device=run.device, rendering=run.rendering)
        codec = language.codec
        kept, held, left_out = judged(run, codec, min(self.max_tokens, context(language.model)), CHOICES)
        examples, tokens = [*kept, *held], self.training.tokens_per_pack
        steps = steps_of(len(kept), self.training.batch_size, self.training.epochs)
        trainee = Trainee(language, self.training, steps, run.dtype)
        reference = reference_sums(run, key, trainee.model, [example.tree for example in examples], tokens)
        known = dict(zip(map(id, examples), reference, strict=True))

        def loss(model: nn.Module, chosen: list[Compared], part: list[int]) -> Loss:
            some = [chosen[i] for i in part]
            return self.objective(pairs(model, some, [known[id(c)] for c in some], run.device, CHOICES.weight(chosen)))

        def step(number: int) -> dict[str, float]:
            chosen = batch(kept, self.training.batch_size, number, run.seed)
            trees = [c.tree for c in chosen]
            return descend(trainee, number, trees, lambda part: loss(trainee.model, chosen, part))

        train(run.folder, key, {"policy": trainee}, steps, step, [c.tree for c in kept])
        measured = held_out(key, [c.tree for c in held], tokens, lambda part: loss(trainee.model, held, part))
        trainee.save(run.folder / key)
        counts = {"pairs": sum(len(c.pairs) for c in kept), "prompts": len(kept), **left_out.report()}
        return counts | measured | _sure(measured, len({c.prompt for c in held}))


def reference_sums(run: Run, key: str, model: nn.Module, trees: list[Tree], tokens: int) -> list[Tensor]:
    """Summed log-probabilities of every branch under the start, (K,) a tree: made once, kept for a resumed run."""
    path, examples = run.folder / "state" / key / "reference.pt", _digest(trees)
    sizes = [len(tree.branches) for tree in trees]
    kept: Any = read_state(path) if path.exists() else (examples, torch.empty(0))
    if not isinstance(kept, tuple) or kept[0] != examples:  # older files hold the sums alone
        warn(f"{key}: what the reference said is of other examples, or of another version's: it is asked anew")
        kept = examples, torch.empty(0)
    made: Tensor = kept[1]  # (branches of the trees that are done,)
    done = bisect([*accumulate(sizes)], len(made))
    gather(done)  # all have read before the first one writes
    if done == len(trees):
        return list(made.split(sizes))
    with Bar(f"{key}: reference", len(trees), done) as bar:
        for some in chunks(trees[done:], PORTION):
            sums = by_tree(some, tokens, lambda part: branch_sums(model, part, run.device), bar.advance)
            made = torch.cat((made, *sums))
            if first():
                _keep((examples, made), path)
    return list(made.split(sizes))


def branch_sums(model: nn.Module, trees: Sequence[Tree], device: torch.device) -> Tensor:
    """Summed log-probabilities of every branch of some trees, (B,)."""
    packed = pack(trees).to(device)
    return packed.sums(logprobs(model, packed).logprobs)


def pairs(
    model: nn.Module, examples: list[Compared], reference: list[Tensor], device: torch.device, total: float
) -> Pairs:
    """The comparisons of some trees under a model, as a part of a step of weight `total`."""
    packed = pack([example.tree for example in examples]).to(device)
    sums = packed.sums(logprobs(model, packed).logprobs)  # (branches,)
    known = torch.cat(reference).to(device)
    c = columns(examples, device)
    return Pairs(
        sums[c.chosen],
        sums[c.rejected],
        known[c.chosen],
        known[c.rejected],
        packed.lengths[c.chosen],
        packed.lengths[c.rejected],
        c.p_chosen,
        c.weight,
        total,
    )


def _sure(measured: dict[str, float], n: int) -> dict[str, float]:
    """How far the accuracy on the pairs of n held-out prompts can be trusted, as if each had one pair."""
    if "held_out_accuracy" not in measured:
        return {}
    found = wilson(measured["held_out_accuracy"] * n, n)
    return {"held_out_low": found.low, "held_out_high": found.high, "held_out_n": n}


def _digest(trees: Sequence[Tree]) -> str:
    """A name for trees in their order."""
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(repr(tuple(tree)).encode())
    return digest.hexdigest()


def _keep(known: tuple[str, Tensor], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_room(error, path) from None
    with replacing(path) as file:
        torch.save(known, file)
