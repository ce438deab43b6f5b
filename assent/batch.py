"""Batches of objectives: small tensors, computed by the model, with the totals of the whole step.

An optimizer step may be computed in several parts (batches, ranks), whose loss values add up to the loss of the step.
Every batch carries the step's totals and averages through `mean`, so that a mean is over the whole step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from assent.functional.kl import k3
from assent.functional.surrogate import MAX_LOG_RATIO


class Loss(NamedTuple):
    """A part of a step's loss, and metrics; both add up over the parts of the step."""

    value: Tensor  # ()
    metrics: dict[str, Tensor]  # each (), detached

    @classmethod
    def of(cls, value: Tensor, metrics: Mapping[str, Tensor]) -> "Loss":
        """Return a loss with its detached metrics, the first of which is the loss itself."""
        return cls(value, {name: metric.detach() for name, metric in {"loss": value, **metrics}.items()})

    @classmethod
    def of_rows(cls, batch: "WeightedBatch", losses: Tensor, metrics: Mapping[str, Tensor]) -> "Loss":
        """Return the weighted mean of the losses (B,) of a batch's rows, with the means of its metrics, each (B,)."""
        return cls.of(batch.mean(losses), {name: batch.mean(values) for name, values in metrics.items()})


class WeightedBatch(Protocol):
    """Weighted rows: all of a step, or a part of it."""

    weight: Tensor  # (B,)
    total: float

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean of (B,) over the rows of the whole step -> (); 0, gradient 0, without weight."""
        weight = self.weight.sum()
        return (values * self.weight).sum() / (self.total or weight + (weight == 0))


@dataclass(frozen=True)
class TokenLogprobsBatch(WeightedBatch):
    """Completion tokens to imitate."""

    logprobs: Tensor  # (N,) log pi of each trained token
    weight: Tensor  # (N,)
    total: float = 0.0
    """Weight of the whole step's trained tokens; 0: this batch is the whole step."""


@dataclass(frozen=True)
class ScorePairs(WeightedBatch):
    """Comparisons of scalar scores: rows are pairs."""

    chosen: Tensor  # (B,) r(x, y_chosen)
    rejected: Tensor  # (B,)
    p_chosen: Tensor  # (B,) target probability that chosen is better: 1, 0.5 for a tie, or soft
    margin: Tensor  # (B,)
    weight: Tensor  # (B,)
    total: float = 0.0
    """Weight of the whole step's pairs; 0: this batch is the whole step."""


@dataclass(frozen=True)
class LogprobPairs(WeightedBatch):
    """Comparisons of log-probabilities summed over each completion, end token included: rows are pairs."""

    chosen: Tensor  # (B,) log pi(y_chosen | x)
    rejected: Tensor  # (B,)
    reference_chosen: Tensor  # (B,) log ref(y_chosen | x)
    reference_rejected: Tensor  # (B,)
    chosen_tokens: Tensor  # (B,) lengths
    rejected_tokens: Tensor  # (B,)
    p_chosen: Tensor  # (B,)
    weight: Tensor  # (B,)
    total: float = 0.0
    """Weight of the whole step's pairs; 0: this batch is the whole step."""

    @property
    def margin(self) -> Tensor:
        """(log pi - log ref)(chosen) - (log pi - log ref)(rejected), (B,)."""
        return (self.chosen - self.reference_chosen) - (self.rejected - self.reference_rejected)


@dataclass(frozen=True)
class RankedScores(WeightedBatch):
    """Scores of the completions of a prompt and their tiers, padded on the right: rows are rankings."""

    scores: Tensor  # (B, K)
    tiers: Tensor  # (B, K) long: the best has the lowest, equals have the same
    mask: Tensor  # (B, K) bool
    weight: Tensor  # (B,)
    total: float = 0.0
    """Weight of the whole step's rankings; 0: this batch is the whole step."""


@dataclass(frozen=True)
class RatedScores(WeightedBatch):
    """Scores and their targets: rows are completions."""

    scores: Tensor  # (B,) r(x, y)
    targets: Tensor  # (B,) z-score of the rating among its annotator's
    weight: Tensor  # (B,)
    total: float = 0.0
    """Weight of the whole step's ratings; 0: this batch is the whole step."""


@dataclass(frozen=True)
class UnpairedLogprobs(WeightedBatch):
    """Completions that are desirable or not, without pairs: rows are completions."""

    logprobs: Tensor  # (B,) log pi(y | x)
    reference_logprobs: Tensor  # (B,)
    desirable: Tensor  # (B,) bool
    weight: Tensor  # (B,)
    mismatched: Tensor  # (B,) log pi(y' | x) - log ref(y' | x) of another prompt's completion y', without gradient
    total: float = 0.0
    """Weight of the whole step's completions; 0: this batch is the whole step."""


@dataclass(frozen=True)
class Rollout:
    """Completions sampled from the policy, padded on the right: the input of advantages."""

    mask: Tensor  # (B, T) bool: completion tokens
    logprobs: Tensor  # (B, T) of the sampling policy, recomputed by the trainer; zeros before that
    reference_logprobs: Tensor  # (B, T)
    scores: Tensor  # (B,) of whole completions
    groups: Tensor  # (B,) long: index of the prompt
    values: Tensor | None = None  # (B, T) of the value model, if the objective needs one


class Advantages(NamedTuple):
    """Advantages of tokens, and the targets of the value model."""

    advantages: Tensor  # (B, T)
    returns: Tensor | None  # (B, T)
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class PolicyBatch:
    """A part of a rollout under the policy being trained, padded on the right."""

    mask: Tensor  # (B, T) bool
    logprobs: Tensor  # (B, T) of the policy now, with gradient
    old_logprobs: Tensor  # (B, T) of the policy that sampled them
    reference_logprobs: Tensor  # (B, T)
    advantages: Tensor  # (B, T)
    values: Tensor | None = None  # (B, T) of the value model now, with gradient
    old_values: Tensor | None = None  # (B, T)
    returns: Tensor | None = None  # (B, T)
    tokens: float = 0.0
    """Completion tokens in the whole step; 0: this batch is the whole step."""
    sequences: float = 0.0
    """Completions in the whole step; 0: this batch is the whole step."""

    def token_mean(self, values: Tensor) -> Tensor:
        """Return the mean of (B, T) over the completion tokens of the whole step -> (); 0, gradient 0, without any."""
        return torch.where(self.mask, values, 0.0).sum() / (self.tokens or self.mask.sum().clamp(min=1))

    def surrogate_metrics(self, log_ratios: Tensor, ratio: Tensor, clipped: Tensor | None = None) -> dict[str, Tensor]:
        """Return the mean ratio, the share of clipped elements, and the KL from the sampling policy (k3).

        Args: log_ratios: (B, T), log pi - log pi_old. ratio, clipped: (B, T) of tokens or (B,) of completions.
        """
        mean = self.token_mean if ratio.ndim == 2 else self.sequence_mean
        metrics = {"ratio": mean(ratio)}
        if clipped is not None:
            metrics["clip_fraction"] = mean(clipped)
        finite = log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        return metrics | {"approx_kl": self.token_mean(k3(-finite, 0.0))}

    def sequence_mean(self, values: Tensor) -> Tensor:
        """Return the mean of (B,) over the completions of the whole step -> (); 0 without any."""
        return values.sum() / (self.sequences or max(1, len(values)))
