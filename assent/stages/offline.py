"""Offline preference optimisation on stored comparisons: DPO and its family, one command for each objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from assent.batch import LogprobPairs, Loss, ScorePairs
from assent.functional.statistics import wilson
from assent.models.forward import logprobs
from assent.models.load import context_length, load_policy
from assent.models.packing import SharedPrefix, pack
from assent.objectives.dpo import DPO
from assent.preferences.data import load_preferences
from assent.protocols import Objective
from assent.run import Run
from assent.training.batching import count_steps, select_batch
from assent.training.loop import train
from assent.training.microbatch import evaluate_loss, optimizer_step
from assent.training.preferences import BATCH_SPECS, PromptGroup, is_decided, pair_tensors
from assent.training.reference import reference_logprobs
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import PolicyStage
from assent.types import PositiveInt

DECIDED_PAIRS = BATCH_SPECS[ScorePairs]._replace(accepts=is_decided)
"""Comparisons and rankings without plain ties, which give the policy no direction."""


class Example(NamedTuple):
    """Compared completions of a prompt, with their log-probabilities under the reference policy."""

    group: PromptGroup
    reference_logprobs: Tensor  # (K,)


@dataclass(frozen=True)
class Offline(PolicyStage):
    """Train the policy on comparisons."""

    aim: ClassVar[str] = "the policy learns from comparisons"
    policy: str = ""
    """Policy to train, and the reference: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    max_length: PositiveInt = 1024
    """Maximum tokens of prompt and completion; pairs with a longer side are left out and counted."""
    objective: Objective[LogprobPairs] = DPO()
    training: Training = Training(lr=2e-5, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        language = load_policy(run.policy(self.policy or run.base_policy), device=run.device, rendering=run.rendering)
        max_length = min(self.max_length, context_length(language.model))
        data = load_preferences(run, language.chat_tokenizer, max_length, DECIDED_PAIRS)

        steps = count_steps(len(data.train), self.training.batch_size, self.training.epochs)
        state = ReplicatedState(language, self.training, steps, run.dtype)
        max_tokens = self.training.max_tokens_per_batch
        groups = [*data.train, *data.held_out]
        reference = reference_logprobs(run, key, state.model, [group.tokens for group in groups], max_tokens)
        examples = [Example(*row) for row in zip(groups, reference, strict=True)]
        train_examples, held_out = examples[: len(data.train)], examples[len(data.train) :]

        def step(number: int) -> dict[str, float]:
            batch = select_batch(train_examples, self.training.batch_size, number, run.seed)
            return optimizer_step(state, number, _tokens(batch), lambda part: self._loss(state.model, batch, part))

        train(run.folder, key, {"policy": state}, steps, step, _tokens(train_examples))
        metrics = evaluate_loss(
            key, _tokens(held_out), max_tokens, lambda part: self._loss(state.model, held_out, part)
        )
        state.save(run.folder / key)
        num_pairs = sum(len(group.pairs) for group in data.train)
        counts = {"pairs": num_pairs, "prompts": len(data.train), **data.left_out.report()}
        return counts | metrics | _accuracy_interval(metrics, len({group.prompt for group in data.held_out}))

    def _loss(self, model: nn.Module, batch: Sequence[Example], part: Sequence[int]) -> Loss:
        """Return the loss of the examples of a batch whose indices are in `part`."""
        total_weight = DECIDED_PAIRS.total_weight(example.group for example in batch)
        return self.objective(compute_pairs(model, [batch[i] for i in part], total_weight))


def compute_pairs(model: nn.Module, examples: Sequence[Example], total_weight: float) -> LogprobPairs:
    """Return the pairs of some examples under a model, as a part of a step of this total weight."""
    device = next(model.parameters()).device
    packed = pack(_tokens(examples)).to(device)
    policy = packed.sum_completions(logprobs(model, packed).logprobs)  # (N,)
    reference = torch.cat([example.reference_logprobs for example in examples]).to(device)  # (N,)
    pairs = pair_tensors([example.group for example in examples], device)
    return LogprobPairs(
        policy[pairs.chosen],
        policy[pairs.rejected],
        reference[pairs.chosen],
        reference[pairs.rejected],
        packed.completion_lens[pairs.chosen],
        packed.completion_lens[pairs.rejected],
        pairs.p_chosen,
        pairs.weight,
        total_weight,
    )


def _tokens(examples: Sequence[Example]) -> list[SharedPrefix]:
    return [example.group.tokens for example in examples]


def _accuracy_interval(metrics: dict[str, float], num_prompts: int) -> dict[str, float]:
    """Return the 95 % interval of the held-out accuracy, as if each held-out prompt had one pair."""
    if "held_out_accuracy" not in metrics:
        return {}
    interval = wilson(metrics["held_out_accuracy"] * num_prompts, num_prompts)
    return {"held_out_low": interval.low, "held_out_high": interval.high, "held_out_n": num_prompts}
