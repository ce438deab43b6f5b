"""Offline preference optimisation on completions that were approved or disapproved one by one: KTO."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from assent.batch import Loss, UnpairedLogprobs
from assent.models.load import context_length, load_policy
from assent.models.packing import SharedPrefix
from assent.objectives.kto import KTO
from assent.preferences.unpaired import UnpairedData, UnpairedGroup, load_unpaired
from assent.protocols import Objective
from assent.run import Run
from assent.training.batching import count_steps, select_batch
from assent.training.loop import train
from assent.training.microbatch import evaluate_loss, map_batches, optimizer_step
from assent.training.reference import completion_logprobs, reference_logprobs
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import PolicyStage
from assent.types import PositiveInt


class Example(NamedTuple):
    """Completions of a prompt, with log-probabilities under the reference policy."""

    group: UnpairedGroup
    reference_logprobs: Tensor  # (K,)
    mismatched: SharedPrefix
    """The prompt with a completion of another prompt: KTO estimates its KL reference point on such pairs."""
    mismatched_reference_logprobs: Tensor  # (1,)


@dataclass(frozen=True)
class Unpaired(PolicyStage):
    """Train the policy on approvals and disapprovals."""

    aim: ClassVar[str] = "the policy learns from single judgements"
    policy: str = ""
    """Policy to train, and the reference: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    max_length: PositiveInt = 1024
    """Maximum tokens of prompt and completion; longer ones are left out and counted."""
    objective: Objective[UnpairedLogprobs] = KTO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = load_policy(run.policy(self.policy or run.base_policy), device=run.device, rendering=run.rendering)
        max_length = min(self.max_length, context_length(language.model))
        data = load_unpaired(run, language.chat_tokenizer, max_length)

        steps = count_steps(len(data.train), self.training.batch_size, self.training.epochs)
        state = ReplicatedState(language, self.training, steps, run.dtype)
        examples = self._add_reference(run, key, state.model, data)
        train_examples, held_out = examples[: len(data.train)], examples[len(data.train) :]

        def step(number: int) -> dict[str, float]:
            batch = select_batch(train_examples, self.training.batch_size, number, run.seed)
            kl_reference = self._kl_reference(state.model, batch)
            return optimizer_step(
                state, number, _tokens(batch), lambda part: self._loss(state.model, batch, part, kl_reference)
            )

        train(run.folder, key, {"policy": state}, steps, step, _tokens(train_examples))
        metrics = self._evaluate(key, state.model, held_out)
        state.save(run.folder / key)
        num_completions = sum(len(group.weights) for group in data.train)
        counts = {"completions": num_completions, "prompts": len(data.train), **data.left_out.report()}
        return counts | metrics

    def _add_reference(self, run: Run, key: str, model: nn.Module, data: UnpairedData) -> list[Example]:
        """Compute the log-probabilities under the reference policy, which is the model before training."""
        groups = [*data.train, *data.held_out]
        mismatched = [*_mismatch(data.train), *_mismatch(data.held_out)]
        prefixes = [*(group.tokens for group in groups), *mismatched]
        logprobs = reference_logprobs(run, key, model, prefixes, self.training.max_tokens_per_batch)
        rows = zip(groups, logprobs[: len(groups)], mismatched, logprobs[len(groups) :], strict=True)
        return [Example(*row) for row in rows]

    def _kl_reference(self, model: nn.Module, batch: Sequence[Example]) -> float:
        """Return KTO's reference point z, not clamped: the batch's mean log-ratio of the mismatched completions."""
        device = next(model.parameters()).device
        policy = map_batches(
            [example.mismatched for example in batch],
            self.training.max_tokens_per_batch,
            lambda prefixes: completion_logprobs(model, prefixes, device),
        )
        reference = torch.cat([example.mismatched_reference_logprobs for example in batch])
        return float((torch.cat(policy) - reference).mean())

    def _loss(self, model: nn.Module, batch: Sequence[Example], part: Sequence[int], kl_reference: float) -> Loss:
        """Return the loss of the examples of a batch whose indices are in `part`."""
        device = next(model.parameters()).device
        examples = [batch[i] for i in part]
        policy = completion_logprobs(model, _tokens(examples), device)  # (N,)
        return self.objective(
            UnpairedLogprobs(
                policy,
                torch.cat([example.reference_logprobs for example in examples]).to(device),
                torch.tensor([is_good for example in examples for is_good in example.group.desirable], device=device),
                torch.tensor([weight for example in examples for weight in example.group.weights], device=device),
                torch.full_like(policy, kl_reference),
                sum(weight for example in batch for weight in example.group.weights),
            )
        )

    def _evaluate(self, key: str, model: nn.Module, held_out: Sequence[Example]) -> dict[str, float]:
        if not held_out:
            return {}
        kl_reference = self._kl_reference(model, held_out)
        max_tokens = self.training.max_tokens_per_batch
        return evaluate_loss(
            key, _tokens(held_out), max_tokens, lambda part: self._loss(model, held_out, part, kl_reference)
        )


def _mismatch(groups: Sequence[UnpairedGroup]) -> list[SharedPrefix]:
    """Pair each prompt with the first completion of the next one; the last prompt takes that of the first."""
    next_groups = [*groups[1:], *groups[:1]]
    return [
        SharedPrefix(group.tokens.prefix, (following.tokens.completions[0],))
        for group, following in zip(groups, next_groups, strict=True)
    ]


def _tokens(examples: Sequence[Example]) -> list[SharedPrefix]:
    return [example.group.tokens for example in examples]
