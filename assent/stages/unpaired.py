"""Optimise the policy on answers that were approved or disapproved one by one: KTO; a choice counts as one of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from assent.batch import Loss
from assent.batch import UnpairedLogprobs as Judgements
from assent.errors import AssentError
from assent.labelling.quality import reliabilities
from assent.models.attention import SharedPrefix
from assent.models.load import context, load_policy
from assent.models.tokenizer import ChatTokenizer, Unrenderable
from assent.objectives.kto import KTO
from assent.preferences.convert import examples
from assent.protocols import Objective
from assent.records import Completion, Example, Preference, Prompt, RankedCompletions, ScoredCompletion
from assent.run import Run
from assent.split import split
from assent.training.batching import batch, steps_of
from assent.training.left_out import LeftOut
from assent.training.loop import train
from assent.training.microbatch import evaluate_loss, map_batches, optimizer_step
from assent.training.reference import branch_sums, reference_sums
from assent.training.replicated import Training, TrainState
from assent.training.stage import PolicyStage
from assent.types import PositiveInt


class Judged(NamedTuple):
    """A prompt, its completions, and what was said of each."""

    tree: SharedPrefix
    desirable: tuple[bool, ...]
    weights: tuple[float, ...]


class Known(NamedTuple):
    """What is known of a prompt before training."""

    reference: Tensor  # (K,) log-probabilities of its completions under the start
    strange: SharedPrefix
    """The prompt with a completion of another one: what KTO's reference point is measured on."""
    strange_reference: Tensor  # (1,)


@dataclass(frozen=True)
class Unpaired(PolicyStage):
    """Train a policy directly on approvals, held to its own start."""

    policy: str = ""
    """What it starts from, and its reference: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    max_length: PositiveInt = 1024
    """Answers with more tokens (prompt and completion) are left out and counted."""
    objective: Objective[Judgements] = KTO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = load_policy(run.policy(self.policy or run.base), device=run.device, rendering=run.rendering)
        codec = language.codec
        kept, held, left_out = judgements(run, codec, min(self.max_length, context(language.model)))
        everything = [*kept, *held]
        # The reference point of KTO: each prompt also carries the first completion of the next one.
        strange = [
            SharedPrefix(one.tree.prefix, (other.tree.completions[0],))
            for side in (kept, held)
            for one, other in zip(side, [*side[1:], *side[:1]], strict=True)
        ]
        tokens = self.training.max_tokens_per_batch
        steps = steps_of(len(kept), self.training.batch_size, self.training.epochs)
        trainee = TrainState(language, self.training, steps, run.dtype)
        reference = reference_sums(run, key, trainee.model, [*(e.tree for e in everything), *strange], tokens)
        rows = zip(reference, strange, reference[len(everything) :], strict=False)
        known = {id(e): Known(*row) for e, row in zip(everything, rows, strict=True)}

        def step(number: int) -> dict[str, float]:
            chosen = batch(kept, self.training.batch_size, number, run.seed)
            loss = self._loss(run, trainee.model, chosen, known)
            return optimizer_step(trainee, number, [e.tree for e in chosen], loss)

        train(run.folder, key, {"policy": trainee}, steps, step, [e.tree for e in kept])
        measured = {}
        if held:
            measured = evaluate_loss(key, [e.tree for e in held], tokens, self._loss(run, trainee.model, held, known))
        trainee.save(run.folder / key)
        counts = {"answers": sum(len(e.weights) for e in kept), "prompts": len(kept), **left_out.report()}
        return counts | measured

    def _loss(
        self, run: Run, model: nn.Module, chosen: Sequence[Judged], known: Mapping[int, Known]
    ) -> Callable[[list[int]], Loss]:
        """The loss of a part of a step, for a reference point that is the mean over the whole step."""
        about = [known[id(e)] for e in chosen]
        tokens = self.training.max_tokens_per_batch
        now = map_batches([k.strange for k in about], tokens, lambda trees: branch_sums(model, trees, run.device))
        point = float((torch.cat(now) - torch.cat([k.strange_reference for k in about])).mean())
        total = sum(weight for e in chosen for weight in e.weights)

        def loss(part: list[int]) -> Loss:
            some = [chosen[i] for i in part]
            sums = branch_sums(model, [e.tree for e in some], run.device)
            return self.objective(
                Judgements(
                    sums,
                    torch.cat([about[i].reference for i in part]).to(run.device),
                    torch.tensor([d for e in some for d in e.desirable], device=run.device),
                    torch.tensor([w for e in some for w in e.weights], device=run.device),
                    torch.full_like(sums, point),
                    total,
                )
            )

        return loss


def judgements(run: Run, codec: ChatTokenizer, max_tokens: int) -> tuple[list[Judged], list[Judged], LeftOut]:
    """The run's approvals, and both sides of its choices, by prompt: (to train on, held out, what was left out).

    Raises:
        AssentError: there are none.
    """
    store = run.store
    prompts = list(store.prompts())
    said: dict[str, dict[tuple[int, ...], list[tuple[bool, float]]]] = {}
    about: dict[str, Prompt] = {}
    left_out = LeftOut()
    weights = reliabilities(store) if run.setup.weight_annotators else None
    for example in examples(store.feedback(), store.tasks(), prompts, store.responses(), weights):
        for verdicts in _approvals(example):
            try:
                encoded = [codec.encode(example.prompt, completion) for completion, _, _ in verdicts]
            except Unrenderable as error:
                left_out.refuse(example.prompt, str(error))
                continue
            if len(verdicts) == 2 and encoded[0] == encoded[1]:
                left_out.alike += 1
                continue
            for ids, (_, good, weight) in zip(encoded, verdicts, strict=True):
                if len(ids.prompt) + len(ids.completion) > max_tokens:
                    left_out.too_long += 1
                    continue
                about[example.prompt.id] = example.prompt
                said.setdefault(example.prompt.id, {}).setdefault(ids.completion, []).append((good, weight))
    held_ids = split(prompts, run.setup.held_out).held_out
    kept: list[Judged] = []
    held: list[Judged] = []
    for name, answers in said.items():
        rows = [(ids, good, weight) for ids, votes in answers.items() for good, weight in _verdicts(votes)]
        tree = SharedPrefix(codec.prompt(about[name]), tuple(row[0] for row in rows))
        judged = Judged(tree, tuple(row[1] for row in rows), tuple(row[2] for row in rows))
        (held if name in held_ids else kept).append(judged)
    if not kept:
        raise AssentError(
            f"{run.folder} holds no approvals or comparisons to train on: "
            "'assent label' makes some, 'assent import' reads them"
        )
    return kept, held, left_out


def _approvals(example: Example) -> list[list[tuple[Completion, bool, float]]]:
    """(Completion, whether it was approved, weight) of a label, and of both sides of each choice."""
    match example:
        case ScoredCompletion(value=value) if value != 0.5:  # of ratings, what lies above the middle is approved
            return [[(example.completion, value > 0.5, example.weight)]]
        case Preference() | RankedCompletions():
            choices = [p for p in example.preferences if p.p_chosen != 0.5]
            return [[(p.chosen, p.p_chosen > 0.5, p.weight), (p.rejected, p.p_chosen < 0.5, p.weight)] for p in choices]
    return []


def _verdicts(votes: list[tuple[bool, float]]) -> list[tuple[bool, float]]:
    """One row for those who approve and one for those who do not, each with its weight."""
    sums = {good: sum(weight for vote, weight in votes if vote == good) for good in (True, False)}
    return [(good, weight) for good, weight in sums.items() if weight > 0]
