"""Optimise the policy on comparisons alone: DPO and its family, each by the name of its objective."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assent.batch import Pairs
from assent.models.attention import Tree, pack
from assent.models.forward import logprobs
from assent.models.load import context, load_policy, save
from assent.models.tokenization import Codec
from assent.objectives.dpo import DPO
from assent.protocols import Objective
from assent.stages.reward import comparisons
from assent.store.runs import Run, no_room
from assent.training.batching import batch, packs, steps_of
from assent.training.comparisons import Compared, columns
from assent.training.loop import train
from assent.training.meter import Bar, add
from assent.training.optimizer import Trainee, Training


@dataclass(frozen=True)
class Offline:
    """Train a policy directly on the comparisons of the run, held to its own start."""

    policy: str = ""
    """What it starts from, and its reference: a checkpoint of the run, a folder or a hub id; empty: the round's base."""
    max_tokens: int = 1024
    """Pairs with a longer side (prompt and completion) are left out and counted."""
    objective: Objective[Pairs] = DPO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16, tokens_per_pack=1024)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        where = run.policy(self.policy or run.base)
        language = load_policy(where, run.dtype, run.device)
        codec = Codec(language.tokenizer)
        codec.require(where)
        kept, held, too_long = comparisons(run, codec, min(self.max_tokens, context(language.model)), ties=False)
        examples = [*kept, *held]
        trees = [example.tree for example in examples]
        reference = reference_sums(run, key, language.model, trees, self.training.tokens_per_pack)
        known = dict(zip(map(id, examples), reference, strict=True))
        steps = steps_of(len(kept), self.training.batch_size, self.training.epochs)
        trainee = Trainee(language, self.training, steps)

        def step(number: int) -> dict[str, float]:
            chosen = batch(kept, self.training.batch_size, number, run.seed)
            total, metrics = sum(pair.weight for c in chosen for pair in c.pairs), dict[str, float]()
            for part in packs([c.tree for c in chosen], self.training.tokens_per_pack):
                some = [chosen[i] for i in part]
                loss = self.objective(pairs(trainee.model, some, [known[id(c)] for c in some], run.device, total))
                loss.value.backward()  # type: ignore[no-untyped-call]
                add(metrics, loss.metrics)
            return metrics | {"grad_norm": trainee.step(number), "lr": self.training.rate(number, steps)}

        train(run, key, {"policy": trainee}, steps, step, self.training.save_every)
        finished = trainee.finished()
        measured = self._measure(run, finished.model, held, reference[len(kept) :])
        save(finished, run.folder / key)
        return {"pairs": sum(len(c.pairs) for c in kept), "prompts": len(kept), "too_long": too_long} | measured

    @torch.no_grad()
    def _measure(self, run: Run, model: Any, held: list[Compared], reference: list[Tensor]) -> dict[str, float]:
        """The objective's own metrics on held-out comparisons."""
        total = sum(pair.weight for c in held for pair in c.pairs)
        metrics: dict[str, float] = {}
        for part in packs([c.tree for c in held], self.training.tokens_per_pack):
            some = [held[i] for i in part]
            add(metrics, self.objective(pairs(model, some, [reference[i] for i in part], run.device, total)).metrics)
        return {f"held_out_{name}": value for name, value in metrics.items()}


@torch.no_grad()
def reference_sums(run: Run, key: str, model: Any, trees: list[Tree], tokens: int) -> list[Tensor]:
    """Summed log-probabilities of every branch under the start, made once and kept for a resumed run; (K,) for each tree."""
    path = run.folder / "state" / key / "reference.pt"
    if path.exists():
        kept: list[Tensor] = torch.load(path, weights_only=True)
        return kept
    found: dict[int, Tensor] = {}
    with Bar(f"{key}: reference", len(trees)) as bar:
        for part in packs(trees, tokens):
            packed = pack([trees[i] for i in part]).to(run.device)
            sums = packed.sums(logprobs(model, packed).logprobs).cpu()
            found.update(zip(part, (s.clone() for s in sums.split([len(trees[i].branches) for i in part])), strict=True))
            bar.advance(len(part))
    made = [found[i] for i in range(len(trees))]
    _keep(made, path)
    return made


def pairs(model: Any, examples: list[Compared], reference: list[Tensor], device: torch.device, total: float) -> Pairs:
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


def _keep(tensors: list[Tensor], path: Path) -> None:
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensors, partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise no_room(error, path) from None
