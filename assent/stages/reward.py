"""Reward modelling: fit a scalar head on the policy's body to comparisons, rankings or ratings."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from assent.batch import Loss
from assent.config import plugin
from assent.errors import AssentError
from assent.evaluation.held_out import RewardScore, Scores, read_held_out
from assent.evaluation.report_card import report_card
from assent.files import replacing_folder, write_atomically
from assent.functional.ensemble import combine, ensemble_std
from assent.functional.statistics import accuracy
from assent.models import card as model_card
from assent.models.forward import scores, standardize_scores
from assent.models.load import LoadedModel, context_length, load_reward, new_reward
from assent.models.packing import SharedPrefix, pack
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.bradley_terry import BradleyTerry
from assent.preferences.data import PreferenceData, load_preferences
from assent.protocols import RewardObjective
from assent.registry import name_of
from assent.run import BASE, Run
from assent.seeds import named_rng
from assent.stage_names import objectives_of
from assent.training.batching import count_steps, select_batch
from assent.training.distributed import all_gather, on_rank0
from assent.training.logging import ProgressBar
from assent.training.loop import train
from assent.training.microbatch import map_batches, optimizer_step
from assent.training.preferences import BATCH_SPECS, BatchSpec, PromptGroup
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import TrainingStage
from assent.types import PositiveInt

HeadGroups = tuple[PromptGroup, ...]
"""One group of completions, once for each head and weighted by that head's bootstrap sample."""
MEMBER_SEED_STEP = 1_000_003
"""Difference between the seeds of an ensemble's members."""
SCALE_GROUPS = 64
"""Number of training groups that set the mean and the scale of the scores."""


@dataclass(frozen=True)
class Reward(TrainingStage):
    """Train a reward model."""

    aim: ClassVar[str] = "a model learns what annotators prefer"
    policy: str = ""
    """Model to start from; a new head replaces its language-model head: a checkpoint of the run, a folder, a hub id;
    empty: the round's base."""
    max_length: PositiveInt = 1024
    """Maximum tokens of prompt and completion; longer ones are left out and counted."""
    heads: PositiveInt = 1
    """Number of heads on one body (ensemble); each has its own initial weights and bootstrap sample of prompts."""
    members: PositiveInt = 1
    """Number of whole models (ensemble); each also has its own order of prompts."""
    objective: RewardObjective = plugin("objectives", BradleyTerry(), lambda: objectives_of("reward"))
    """Loss on comparisons (bradley_terry), rankings (kway, plackett_luce) or ratings (regression)."""
    training: Training = Training(lr=9e-6)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if self.members == 1:
            state, data = self._fit(run, key, 0)
            result = self._evaluate(run, key, [state.loaded], data)
            state.save(run.folder / key)
            tokenizer = state.loaded.chat_tokenizer
        else:
            folders = self._fit_members(run, key)
            models = [load_reward(folder, run.dtype, run.device, run.rendering) for folder in folders]
            result = self._evaluate(run, key, models, self._load_data(run, models[0]))
            on_rank0(lambda: _join_members(folders, run.folder / key))
            tokenizer = models[0].chat_tokenizer
        on_rank0(lambda: self._write_card(run, key, tokenizer, result))
        return result

    def _fit_members(self, run: Run, key: str) -> list[Path]:
        """Train the members one after another, each into a folder; a resumed stage skips those that are complete."""
        folders = [run.folder / "state" / key / f"member-{member + 1}" for member in range(self.members)]
        for member, folder in enumerate(folders):
            if not on_rank0((folder / "config.json").exists):
                state, _ = self._fit(run, f"{key}/{member + 1}", member)
                state.save(folder)
        all_gather(0)  # wait until rank 0 has written the last member
        return folders

    def _fit(self, run: Run, name: str, member: int) -> tuple[ReplicatedState, PreferenceData]:
        """Train one model, and store the mean and the scale of its scores in its configuration."""
        seed = run.seed + MEMBER_SEED_STEP * member
        torch.manual_seed(seed)  # LoRA draws its initial weights; a resumed stage must draw the same for this member
        policy = run.policy(self.policy or run.base_policy)
        language = new_reward(policy, seed, device=run.device, heads=self.heads, rendering=run.rendering)
        data = self._load_data(run, language)
        examples = self._bootstrap(data.train, seed)
        steps = count_steps(len(examples), self.training.batch_size, self.training.epochs)
        state = ReplicatedState(language, self.training, steps, run.dtype)

        def step(number: int) -> dict[str, float]:
            batch = select_batch(examples, self.training.batch_size, number, seed)
            return optimizer_step(state, number, _tokens(batch), lambda part: self._loss(state.model, batch, part))

        train(run.folder, name, {"reward": state}, steps, step, [group.tokens for group in data.train])
        self._store_scale(state, data.train[:SCALE_GROUPS], f"{name}: scale")
        return state, data

    @property
    def _spec(self) -> BatchSpec:
        return BATCH_SPECS[self.objective.batch]

    def _load_data(self, run: Run, language: LoadedModel) -> PreferenceData:
        max_length = min(self.max_length, context_length(language.model))
        return load_preferences(run, language.chat_tokenizer, max_length, self._spec)

    def _bootstrap(self, groups: Sequence[PromptGroup], seed: int) -> list[HeadGroups]:
        """Return each group with the weight of each head's bootstrap sample; a single model has no bootstrap.

        Groups that no head drew are left out.
        """
        if self.heads == self.members == 1:
            return [(group,) for group in groups]
        indices = range(len(groups))
        counts = [Counter(named_rng(seed, head).choices(indices, k=len(groups))) for head in range(self.heads)]
        examples: list[HeadGroups] = []
        for i, group in enumerate(groups):
            if any(count[i] for count in counts):
                examples.append(tuple(group.reweighted(count[i]) for count in counts))
        return examples

    def _loss(self, model: nn.Module, batch: Sequence[HeadGroups], part: Sequence[int]) -> Loss:
        """Return the heads' mean loss of the examples of a batch whose indices are in `part`.

        A head whose bootstrap sample has nothing in the batch adds 0 to the loss, and nothing to the metrics.
        """
        examples = [batch[i] for i in part]
        packed = pack(_tokens(examples)).to(next(model.parameters()).device)
        predicted = scores(model, packed)  # (N, heads)
        totals = [self._spec.total_weight(groups[head] for groups in batch) for head in range(self.heads)]
        num_active = sum(total > 0 for total in totals)
        value = predicted.sum() * 0
        metrics: dict[str, Tensor] = {}
        for head, total in enumerate(totals):
            if total:
                groups = [groups[head] for groups in examples]
                loss = self.objective(self._spec.build(predicted[:, head], groups, total))
                value = value + loss.value / self.heads
                for name, metric in loss.metrics.items():
                    metrics[name] = metrics.get(name, torch.zeros(())) + metric.cpu() / num_active
        return Loss(value, metrics)

    def _store_scale(self, state: ReplicatedState, groups: Sequence[PromptGroup], name: str) -> None:
        predicted = torch.cat(predict(state.loaded, groups, self.training.max_tokens_per_batch, name))  # (N, heads)
        if not bool((predicted.std(0) > 0).all()):  # NaN if the scores are not finite
            raise AssentError("the reward model gives every response the same score; try another --lr")
        config: Any = state.model.config
        config.reward_mean = predicted.mean(0).tolist()
        config.reward_std = predicted.std(0).tolist()

    @torch.no_grad()
    def _evaluate(self, run: Run, key: str, models: Sequence[LoadedModel], data: PreferenceData) -> dict[str, Any]:
        """Return counts of the training data, and how well the members' mean predicts held-out judgements."""
        num_items = sum(len(self._spec.select(group)) for group in data.train)
        result: dict[str, Any] = {self._spec.noun: num_items, "prompts": len(data.train), **data.left_out.report()}
        max_tokens = self.training.max_tokens_per_batch
        logits_by_model = [predict(model, data.held_out, max_tokens, f"{key}: held-out") for model in models]
        scores_by_model = [
            [standardize_scores(model.model, logits) for logits in groups]
            for model, groups in zip(models, logits_by_model, strict=True)
        ]
        by_group = [torch.cat(columns, 1) for columns in zip(*scores_by_model, strict=True)]  # (K, heads of all models)
        logit_means = [torch.cat(columns, 1).mean(1) for columns in zip(*logits_by_model, strict=True)]  # (K,)
        if by_group and by_group[0].shape[1] > 1:
            result["disagreement"] = float(ensemble_std(torch.cat(by_group)).mean())
        means = [combine(columns) for columns in by_group]  # (K,)
        result |= _rank_correlation(data.held_out, means) | _accuracy(data.held_out, means)
        held_out_scores = _by_completion(data.held_out, means, logit_means)
        card = on_rank0(lambda: self._report_card(run, models[0].chat_tokenizer, held_out_scores))
        return result | ({"report_card": card} if card else {})

    def _report_card(self, run: Run, tokenizer: ChatTokenizer, held_out_scores: Scores) -> dict[str, Any]:
        return report_card(read_held_out(run, tokenizer, held_out_scores), has_logits=self._spec.noun != "ratings")

    def _write_card(self, run: Run, key: str, tokenizer: ChatTokenizer, result: dict[str, Any]) -> None:
        """Write the model card, which says how to compute the scores."""
        folder = run.folder / key
        policy = self.policy or run.base_policy
        base = run.setup.model if policy in (BASE, *run.models) else policy
        data = {noun: result[noun] for noun in (self._spec.noun, "prompts")}
        folders = [folder, *(folder / f"member-{member}" for member in range(2, self.members + 1))]
        text = model_card.reward_card(model_card.ModelOrigin(base, name_of(self.objective), data), tokenizer, folders)
        write_atomically(folder / model_card.CARD_NAME, text)


@torch.no_grad()
def predict(language: LoadedModel, groups: Sequence[PromptGroup], max_tokens: int, name: str) -> list[Tensor]:
    """Return the logits of every completion, (K, heads) for each group."""
    model = language.model
    with ProgressBar(name, len(groups)) as bar:
        return map_batches(
            [group.tokens for group in groups],
            max_tokens,
            lambda prefixes: scores(model, pack(prefixes).to(model.device)),
            bar.advance,
        )


def _tokens(examples: Sequence[HeadGroups]) -> list[SharedPrefix]:
    return [groups[0].tokens for groups in examples]


def _by_completion(
    groups: Sequence[PromptGroup], means: Sequence[Tensor], logits: Sequence[Tensor]
) -> dict[tuple[str, tuple[int, ...]], RewardScore]:
    """Return the score of each held-out completion, by its prompt and tokens."""
    rows: dict[tuple[str, tuple[int, ...]], RewardScore] = {}
    for group, group_means, group_logits in zip(groups, means, logits, strict=True):
        values = zip(group.tokens.completions, group_means.tolist(), group_logits.tolist(), strict=True)
        rows |= {(group.prompt, ids): RewardScore(mean, logit) for ids, mean, logit in values}
    return rows


def _rank_correlation(groups: Sequence[PromptGroup], predicted: Sequence[Tensor]) -> dict[str, float]:
    """Return Spearman's correlation of predicted scores with ratings; nothing if the ratings do not differ."""
    pairs: list[tuple[float, float]] = []
    for group, group_scores in zip(groups, predicted, strict=True):
        pairs += [(float(group_scores[rating.completion]), rating.value) for rating in group.ratings]
    if len({rating for _, rating in pairs}) < 2:
        return {}
    return {"spearman": float(spearmanr(*zip(*pairs, strict=True)).statistic), "n": len(pairs)}


def _accuracy(groups: Sequence[PromptGroup], predicted: Sequence[Tensor]) -> dict[str, float]:
    """Return the accuracy on decided pairs, half for equal scores, with an interval clustered by prompt."""
    is_correct: list[float] = []
    prompts: list[str] = []
    for group, group_scores in zip(groups, predicted, strict=True):
        for pair in group.pairs:
            if pair.p_chosen != 0.5:
                sign = 1 if pair.p_chosen > 0.5 else -1
                margin = float(group_scores[pair.chosen] - group_scores[pair.rejected]) * sign
                is_correct.append(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0)
                prompts.append(group.prompt)
    if not is_correct:
        return {}
    interval = accuracy(is_correct, prompts)
    return {"accuracy": interval.rate, "low": interval.low, "high": interval.high, "n": interval.n}


def _join_members(folders: Sequence[Path], target: Path) -> None:
    """Copy the first member to `target` and the others into folders inside it; atomic, for a kill at any time."""
    with replacing_folder(target) as partial:
        try:
            shutil.copytree(folders[0], partial)
            for folder in folders[1:]:
                shutil.copytree(folder, partial / folder.name)
        except (OSError, shutil.Error) as error:
            raise AssentError(f"cannot write {target}: {error}") from None
