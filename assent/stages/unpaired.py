"""Optimise the policy on answers that were approved or disapproved one by one: KTO; a choice counts as one of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assent import batch as batches
from assent.errors import AssentError
from assent.models.attention import Tree, pack
from assent.models.forward import logprobs
from assent.models.load import context, load_policy, save
from assent.models.tokenization import Codec
from assent.objectives.kto import KTO
from assent.preferences.convert import examples, split
from assent.protocols import Objective
from assent.records import Label, Preference, Prompt
from assent.stages.offline import reference_sums
from assent.store.runs import Run
from assent.training.batching import batch, packs, steps_of
from assent.training.loop import train
from assent.training.meter import add
from assent.training.optimizer import Trainee, Training


class Judged(NamedTuple):
    """A prompt, its completions, and what was said of each."""

    tree: Tree
    desirable: tuple[bool, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Unpaired:
    """Train a policy directly on approvals, held to its own start."""

    policy: str = ""
    """What it starts from, and its reference: a checkpoint of the run, a folder or a hub id; empty: the round's base."""
    max_tokens: int = 1024
    """Answers with more tokens (prompt and completion) are left out and counted."""
    objective: Objective[batches.Unpaired] = KTO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16, tokens_per_pack=1024)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        where = run.policy(self.policy or run.base)
        language = load_policy(where, run.dtype, run.device)
        codec = Codec(language.tokenizer)
        codec.require(where)
        kept, held, too_long = judgements(run, codec, min(self.max_tokens, context(language.model)))
        everything = [*kept, *held]
        # The reference point of KTO: each prompt also carries the first completion of the next one.
        strange = [
            Tree(one.tree.prefix, (other.tree.branches[0],))
            for side in (kept, held)
            for one, other in zip(side, [*side[1:], *side[:1]], strict=True)
        ]
        tokens = self.training.tokens_per_pack
        reference = reference_sums(run, key, language.model, [*(e.tree for e in everything), *strange], tokens)
        known = {id(e): (reference[i], strange[i], reference[len(everything) + i]) for i, e in enumerate(everything)}
        steps = steps_of(len(kept), self.training.batch_size, self.training.epochs)
        trainee = Trainee(language, self.training, steps)

        def step(number: int) -> dict[str, float]:
            chosen = batch(kept, self.training.batch_size, number, run.seed)
            metrics = self._part(run, trainee.model, chosen, known, backward=True)
            return metrics | {"grad_norm": trainee.step(number), "lr": self.training.rate(number, steps)}

        train(run, key, {"policy": trainee}, steps, step, self.training.save_every)
        finished = trainee.finished()
        with torch.no_grad():
            measured = self._part(run, finished.model, held, known, backward=False) if held else {}
        save(finished, run.folder / key)
        counts = {"answers": sum(len(e.weights) for e in kept), "prompts": len(kept), "too_long": too_long}
        return counts | {f"held_out_{name}": value for name, value in measured.items()}

    def _part(
        self,
        run: Run,
        model: Any,
        chosen: Sequence[Judged],
        known: dict[int, tuple[Tensor, Tree, Tensor]],
        backward: bool,
    ) -> dict[str, float]:
        """The metrics of a whole step, and its gradients if asked for."""
        tokens, metrics = self.training.tokens_per_pack, dict[str, float]()
        total = sum(weight for e in chosen for weight in e.weights)
        with torch.no_grad():
            gaps = 0.0
            for part in packs([known[id(e)][1] for e in chosen], tokens):
                packed = pack([known[id(chosen[i])][1] for i in part]).to(run.device)
                now = packed.sums(logprobs(model, packed).logprobs).cpu()
                before = torch.cat([known[id(chosen[i])][2] for i in part])
                gaps += float((now - before).sum())
        point = gaps / len(chosen)
        for part in packs([e.tree for e in chosen], tokens):
            some = [chosen[i] for i in part]
            packed = pack([e.tree for e in some]).to(run.device)
            sums = packed.sums(logprobs(model, packed).logprobs)
            loss = self.objective(
                batches.Unpaired(
                    sums,
                    torch.cat([known[id(e)][0] for e in some]).to(run.device),
                    torch.tensor([d for e in some for d in e.desirable], device=run.device),
                    torch.tensor([w for e in some for w in e.weights], device=run.device),
                    torch.full_like(sums, point).detach(),
                    total,
                )
            )
            if backward:
                loss.value.backward()  # type: ignore[no-untyped-call]
            add(metrics, loss.metrics)
        return metrics


def judgements(run: Run, codec: Codec, max_tokens: int) -> tuple[list[Judged], list[Judged], int]:
    """The run's approvals, and both sides of its choices, by prompt: (to train on, held out, how many were too long).

    Raises:
        AssentError: there are none.
    """
    store = run.store
    prompts = list(store.prompts())
    said: dict[str, dict[tuple[int, ...], list[tuple[bool, float]]]] = {}
    about: dict[str, Prompt] = {}
    too_long = 0
    for example in examples(store.feedback(), store.queries(), prompts, store.responses()):
        sides: list[tuple[str, bool, bool]] = []
        if isinstance(example, Label) and example.value in (0.0, 1.0):
            sides = [(example.completion, example.finished, example.value == 1.0)]
        elif isinstance(example, Preference) and example.p_chosen != 0.5:
            won = example.p_chosen > 0.5
            sides = [
                (example.chosen, example.chosen_finished, won),
                (example.rejected, example.rejected_finished, not won),
            ]
        for text, ended, good in sides:
            prompt, completion = codec.encode(example.prompt, text, ended)
            if len(prompt) + len(completion) > max_tokens:
                too_long += 1
                continue
            about[example.prompt.id] = example.prompt
            said.setdefault(example.prompt.id, {}).setdefault(completion, []).append((good, example.weight))
    held_ids = split(prompts, run.setup.held_out).held_out
    kept: list[Judged] = []
    held: list[Judged] = []
    for name, answers in said.items():
        rows = [(ids, good, weight) for ids, votes in answers.items() for good, weight in _verdicts(votes)]
        tree = Tree(codec.prompt(about[name]), tuple(row[0] for row in rows))
        judged = Judged(tree, tuple(row[1] for row in rows), tuple(row[2] for row in rows))
        (held if name in held_ids else kept).append(judged)
    if not kept:
        raise AssentError(
            f"{run.folder} holds no approvals or comparisons to train on: 'assent label' makes some, 'assent import' reads them"
        )
    return kept, held, too_long


def _verdicts(votes: list[tuple[bool, float]]) -> list[tuple[bool, float]]:
    """One row for those who approve and one for those who do not, each with its weight."""
    sums = {good: sum(weight for vote, weight in votes if vote == good) for good in (True, False)}
    return [(good, weight) for good, weight in sums.items() if weight > 0]
