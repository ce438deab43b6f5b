"""The rewards that a stage scores with: rules, reward models, or a user's own file; several are added with weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assent.config import NamedPlugin, plugins, with_defaults
from assent.errors import AssentError, did_you_mean
from assent.functional.ensemble import Reduction, combine, ensemble_std
from assent.protocols import Reward
from assent.records import Prompt, Response
from assent.registry import names, resolve, resolve_file
from assent.rewards.model import Model
from assent.run import Run
from assent.training.batching import INFERENCE_TOKENS
from assent.training.distributed import on_rank0
from assent.types import NonNegativeFloat

RULES = tuple(name for name in names("rewards") if name != "model")
"""Files of rewards/ that need no model."""
THIS_ROUND = "reward"
"""The name of this round's reward model."""


def is_rule(name: str) -> bool:
    """Return whether a reward is a file of rewards/ or a user's own file, and no reward model."""
    return name in RULES or name.endswith(".py")


def rule_class(name: str) -> type | None:
    """Return the class of a rule, or None for the name of a reward model.

    Raises:
        AssentError: the file cannot be read, or has no class with a method `score`.
    """
    if not is_rule(name):
        return None
    cls: type = resolve_file(name, "score") if name.endswith(".py") else resolve("rewards", name)
    return cls


@dataclass(frozen=True)
class RewardSource:
    """The reward of a response."""

    rewards: tuple[str, ...] = ()
    """Rewards to add up: files of rewards/, your own file with a class that has `score` (`mine.py`), or reward models
    (`reward` for this round's, a checkpoint of the run, a folder); empty: `reward`."""
    reward_weights: tuple[float, ...] = ()
    """Weight of each reward, in the same order; empty: 1 for each."""
    rules: tuple[NamedPlugin, ...] = plugins("rewards", rule_class, lambda: RULES)
    ensemble: Reduction = "mean"
    """Score of a reward-model ensemble: the members' mean, the lowest (worst_case), or the mean minus
    `uncertainty_coef` standard deviations (uncertainty_weighted)."""
    uncertainty_coef: NonNegativeFloat = 1.0
    """Standard deviations of the members that `uncertainty_weighted` subtracts."""

    def __post_init__(self) -> None:
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            raise ValueError(
                f"{len(self.reward_weights)} reward_weights for {len(self.rewards)} rewards; give one for each, or none"
            )

    def names(self, run: Run) -> tuple[str, ...]:
        """Return the rewards by name, `reward` replaced by this round's reward model.

        Raises:
            AssentError: this round has no reward model.
        """
        own = run.key(THIS_ROUND)
        names = tuple(own if name == THIS_ROUND else name for name in self.rewards or (THIS_ROUND,))
        if own in names and not (run.folder / own).exists():
            raise AssentError(
                f"{run.folder} has no reward model; run 'assent reward' first, or name one with --rewards"
            )
        return names

    def models(self, run: Run) -> list[str]:
        """Return the names that are reward models."""
        return [name for name in self.names(run) if not is_rule(name)]

    def load(self, run: Run, max_tokens_per_batch: int = INFERENCE_TOKENS) -> "WeightedRewards":
        """Load every reward.

        Raises:
            AssentError: no reward has this name.
        """
        loaded = {name: load_reward_model(run, name, max_tokens_per_batch) for name in self.models(run)}
        return self.combined(run, loaded)

    def combined(self, run: Run, models: dict[str, Model]) -> "WeightedRewards":
        """Return the rewards with these reward models, by name, in the order of the settings."""
        names, rules = self.names(run), {part.name: part.plugin for part in self.rules}
        weights = self.reward_weights or (1.0,) * len(names)
        terms: list[WeightedReward] = []
        for name, weight in zip(names, weights, strict=True):
            reward = models[name] if name in models else CheckedRule(name, rules.get(name) or load_rule(name))
            terms.append(WeightedReward(name, reward, weight))
        return WeightedRewards(tuple(terms), self.ensemble, self.uncertainty_coef)


class WeightedReward(NamedTuple):
    """One reward of a sum."""

    name: str
    reward: Reward
    weight: float


class Scores(NamedTuple):
    """Scores of responses."""

    total: Tensor  # (N,)
    metrics: dict[str, float]
    """The mean of each reward, if there are several, and the ensemble's disagreement."""


@dataclass(frozen=True)
class WeightedRewards:
    """The weighted sum of rewards."""

    terms: tuple[WeightedReward, ...]
    ensemble: Reduction = "mean"
    uncertainty_coef: float = 1.0

    @property
    def models(self) -> list[Model]:
        """The reward models among the rewards."""
        return [term.reward for term in self.terms if isinstance(term.reward, Model)]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Scores:
        """Score responses to these prompts, N of each."""
        return self.add([term.reward.score(prompts, responses) for term in self.terms])

    def add(self, scores: Sequence[Tensor]) -> Scores:
        """Add up the scores of each reward, (N,) or (N, members)."""
        reduced = [combine(part, self.ensemble, self.uncertainty_coef) for part in scores]
        total = reduced[0] * self.terms[0].weight
        for part, term in zip(reduced[1:], self.terms[1:], strict=True):
            total = total + term.weight * part
        metrics: dict[str, float] = {}
        ensembles = [part for part in scores if part.ndim > 1 and part.shape[1] > 1]
        if ensembles:
            metrics["disagreement"] = float(torch.stack([ensemble_std(part) for part in ensembles]).mean())
        if len(self.terms) > 1:
            for part, term in zip(reduced, self.terms, strict=True):
                metrics[f"rewards/{term.name}"] = float(part.mean())
        return Scores(total, metrics)

    def renderable(self, prompts: list[Prompt]) -> list[Prompt]:
        """Return the prompts that the chat template of every reward model can render; a rule takes all."""
        for term in self.terms:
            prompts = renderable_prompts(prompts, term.reward)
        return prompts


@dataclass(frozen=True)
class CheckedRule:
    """A rule whose scores are checked, because it may be a user's own code."""

    name: str
    rule: Reward

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Score on one process for all, because a rule may use randomness or call a server.

        Raises:
            AssentError: the rule fails, or does not return one finite number (or row of them) for each response.
        """
        return on_rank0(lambda: self._checked(prompts, responses))

    def _checked(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        try:
            scores = torch.as_tensor(self.rule.score(prompts, responses), dtype=torch.float32).cpu()
        except AssentError:
            raise
        except Exception as error:  # noqa: BLE001 (it is anybody's code)
            raise AssentError(f"the reward {self.name} failed: {type(error).__name__}: {error}") from None
        if scores.ndim not in (1, 2) or len(scores) != len(responses):
            shape = tuple(scores.shape)
            raise AssentError(f"the reward {self.name} returned {shape} scores for {len(responses)} responses")
        if not bool(scores.isfinite().all()):
            raise AssentError(f"the reward {self.name} returned scores that are not finite")
        return scores


def load_rule(name: str) -> Any:
    """Return a rule with its default settings.

    Raises:
        AssentError: a setting lacks a default that works.
    """
    cls = rule_class(name)
    assert cls is not None
    return with_defaults(cls, f"the reward {name}")


def may_be_model(run: Run, name: str) -> bool:
    """Return whether a name can be that of a reward model: a checkpoint of the run, a folder, or a hub id."""
    return "/" in name or name in run.models or Path(name).is_dir()


def load_reward_model(run: Run, name: str, max_tokens_per_batch: int = INFERENCE_TOKENS) -> Model:
    """Load a reward model: a checkpoint of the run, a folder, or a hub id.

    Raises:
        AssentError: no reward has this name.
    """
    if not may_be_model(run, name):
        raise AssentError(f"no reward '{name}'{did_you_mean(name, [*RULES, *run.models])}")
    return Model.load(run.policy(name), run.dtype, run.device, run.rendering, max_tokens_per_batch)


def load_scorer(run: Run, name: str, max_tokens_per_batch: int = INFERENCE_TOKENS) -> Reward:
    """Load one reward by name: a rule with its default settings, or a reward model.

    Raises:
        AssentError: no reward has this name.
    """
    if is_rule(name):
        return CheckedRule(name, load_rule(name))
    return load_reward_model(run, name, max_tokens_per_batch)


def renderable_prompts(prompts: list[Prompt], reward: Reward) -> list[Prompt]:
    """Return the prompts that the chat template of a reward model can render; a rule takes all."""
    return reward.first.chat_tokenizer.select_renderable(prompts) if isinstance(reward, Model) else prompts
