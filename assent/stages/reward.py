"""Fit a reward model to comparisons: a scalar head on the policy's body, measured on prompts it was not trained on."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from assent.batch import Loss
from assent.commands import objectives_of
from assent.config import plugin
from assent.errors import AssentError
from assent.files import write_atomically
from assent.functional.ensemble import combine, disagreement
from assent.functional.statistics import accuracy
from assent.models import card
from assent.models.attention import pack
from assent.models.forward import scores, standard
from assent.models.load import LoadedModel, context, load_reward, new_reward
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.bradley_terry import BradleyTerry
from assent.preferences.data import PreferenceData, judged
from assent.protocols import RewardObjective
from assent.registry import name_of
from assent.run import Run
from assent.training.batching import batch, steps_of
from assent.training.distributed import all_gather, on_rank0
from assent.training.logging import ProgressBar
from assent.training.loop import train
from assent.training.microbatch import map_batches, optimizer_step
from assent.training.preferences import FEEDS, Compared, Feed
from assent.training.replicated import Training, TrainState
from assent.training.stage import TrainingStage
from assent.types import PositiveInt


@dataclass(frozen=True)
class Reward(TrainingStage):
    """Train a reward model on what was said of the run's answers."""

    policy: str = ""
    """Whose body it starts from: a checkpoint of the run, a folder or a hub id; empty: this round's base policy."""
    max_length: PositiveInt = 1024
    """Answers that are longer, with their prompt, are left out, and what was said of them is counted."""
    heads: PositiveInt = 1
    """Ensemble of so many heads on one body, each with first weights and a bootstrap sample of prompts of its own."""
    members: PositiveInt = 1
    """Ensemble of so many whole models, one after another, each also with its own order of prompts."""
    objective: RewardObjective = plugin("objectives", BradleyTerry(), lambda: objectives_of("reward"))
    """What it learns from: choices (bradley_terry), whole rankings (kway, plackett_luce), or ratings (regression)."""
    training: Training = Training(lr=9e-6)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if self.members == 1:
            trainee, material = self._fit(run, key, 0)
            result = self._measure(run, key, [trainee.language], material)
            trainee.save(run.folder / key)
            on_rank0(lambda: self._describe(run, key, trainee.language.codec, result))
            return result
        apart = [run.folder / "state" / key / f"member-{member + 1}" for member in range(self.members)]
        for member, folder in enumerate(apart):
            if not on_rank0((folder / "config.json").exists):
                self._fit(run, f"{key}/{member + 1}", member)[0].save(folder)
        all_gather(0)  # the last is written
        models = [load_reward(folder, run.dtype, run.device, run.rendering) for folder in apart]
        result = self._measure(run, key, models, self._material(run, models[0]))
        on_rank0(lambda: _assemble(apart, run.folder / key))
        on_rank0(lambda: self._describe(run, key, models[0].codec, result))
        return result

    def _fit(self, run: Run, name: str, member: int) -> tuple[TrainState, PreferenceData]:
        """Train one model, and keep the scale of its scores in its own configuration."""
        seed = run.seed + 1_000_003 * member
        torch.manual_seed(seed)  # for the first weights of LoRA, also of a member that another process comes to
        language = new_reward(
            run.policy(self.policy or run.base), seed, device=run.device, heads=self.heads, rendering=run.rendering
        )
        material = self._material(run, language)
        examples = self._views(material.kept, seed)
        steps = steps_of(len(examples), self.training.batch_size, self.training.epochs)
        trainee = TrainState(language, self.training, steps, run.dtype)

        def step(number: int) -> dict[str, float]:
            chosen = batch(examples, self.training.batch_size, number, seed)
            totals = [self._feed.weight(views[head] for views in chosen) for head in range(self.heads)]

            def loss(part: list[int]) -> Loss:
                some = [chosen[i] for i in part]
                scored = scores(trainee.model, pack([views[0].tree for views in some]).to(run.device))  # (N, heads)
                return self._loss(scored, some, totals)

            return optimizer_step(trainee, number, [views[0].tree for views in chosen], loss)

        train(run.folder, name, {"reward": trainee}, steps, step, [c.tree for c in material.kept])
        some = material.kept[:64]
        seen = torch.cat(
            score_all(trainee.language, some, self.training.max_tokens_per_batch, f"{name}: scale")
        )  # (N, heads)
        if not bool((seen.std(0) > 0).all()):  # of scores that are not finite it is NaN
            raise AssentError("the reward model scores every answer alike: it has learned nothing; try another lr")
        config: Any = trainee.model.config
        config.reward_mean, config.reward_std = seen.mean(0).tolist(), seen.std(0).tolist()
        return trainee, material

    def _describe(self, run: Run, key: str, codec: ChatTokenizer, result: dict[str, Any]) -> None:
        """Write the checkpoint's card, which says how its scores are read."""
        folder, start = run.folder / key, self.policy or run.base
        base = run.setup.model if start in ("start", *run.models) else start
        data = {kind: result[kind] for kind in (self._feed.noun, "prompts")}
        members = [folder, *(folder / f"member-{member}" for member in range(2, self.members + 1))]
        text = card.reward(card.Origin(base, name_of(self.objective), data), codec, members)
        write_atomically(folder / card.NAME, text)

    @property
    def _feed(self) -> Feed:
        return FEEDS[self.objective.batch]

    def _material(self, run: Run, language: LoadedModel) -> PreferenceData:
        return judged(run, language.codec, min(self.max_length, context(language.model)), self._feed)

    def _views(self, kept: list[Compared], seed: int) -> list[tuple[Compared, ...]]:
        """Each example as each head is to see it; alone, a model sees every example once."""
        if self.heads == self.members == 1:
            return [(example,) for example in kept]
        draws = [Counter(Random(f"{seed} {head}").choices(range(len(kept)), k=len(kept))) for head in range(self.heads)]
        views = [tuple(example.times(draw[i]) for draw in draws) for i, example in enumerate(kept)]
        return [view for i, view in enumerate(views) if any(draw[i] for draw in draws)]

    def _loss(self, scored: Tensor, some: list[tuple[Compared, ...]], totals: list[float]) -> Loss:
        """Mean over the heads of the loss of each; scored is (N, heads)."""
        value, metrics = scored.sum() * 0, dict[str, Tensor]()
        heard = sum(total > 0 for total in totals)  # a head whose bootstrap has nothing of this step says nothing
        for head, total in enumerate(totals):
            if total:
                part = self.objective(self._feed.batch(scored[:, head], [views[head] for views in some], total))
                value = value + part.value / self.heads
                for name, metric in part.metrics.items():
                    metrics[name] = metrics.get(name, torch.zeros(())) + metric.cpu() / heard
        return Loss(value, metrics)

    @torch.no_grad()
    def _measure(self, run: Run, key: str, models: list[LoadedModel], material: PreferenceData) -> dict[str, Any]:
        """Held-out accuracy on decided pairs, or rank correlation with ratings, by the mean of all members."""
        kept, held, left_out = material
        counts = {self._feed.noun: sum(len(self._feed.said(c)) for c in kept), "prompts": len(kept)}
        found: dict[str, Any] = {**counts, **left_out.report()}
        tokens, about = self.training.max_tokens_per_batch, f"{key}: held-out"
        each = [[standard(m.model, s) for s in score_all(m, held, tokens, about)] for m in models]
        scored = [torch.cat(columns, 1) for columns in zip(*each, strict=True)]  # (K, members) a tree
        if scored and scored[0].shape[1] > 1:
            found["disagreement"] = float(disagreement(torch.cat(scored)).mean())
        right: list[float] = []
        prompts: list[str] = []
        rated: list[tuple[float, float]] = []
        for example, columns in zip(held, scored, strict=True):
            values = combine(columns)
            rated += [(float(values[r.branch]), r.value) for r in example.ratings]
            for pair in example.pairs:
                if pair.p_chosen != 0.5:
                    gap = float(values[pair.chosen] - values[pair.rejected]) * (1 if pair.p_chosen > 0.5 else -1)
                    right.append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
                    prompts.append(example.prompt)
        if len({value for _, value in rated}) > 1:
            found |= {"spearman": float(spearmanr(*zip(*rated, strict=True)).statistic), "n": len(rated)}
        if right:
            measured = accuracy(right, prompts)
            found |= {"accuracy": measured.rate, "low": measured.low, "high": measured.high, "n": measured.n}
        return found


def _assemble(members: list[Path], folder: Path) -> None:
    """One checkpoint of several: the first, with the others in folders inside it; complete or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(members[0], partial)
        for member in members[1:]:
            shutil.copytree(member, partial / member.name)
    except (OSError, shutil.Error) as error:
        raise AssentError(f"cannot write {folder}: {error}") from None
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


@torch.no_grad()
def score_all(language: LoadedModel, examples: list[Compared], tokens: int, name: str) -> list[Tensor]:
    """The scores of every completion as the heads give them, a tensor (K, heads) for each example."""
    model, trees = language.model, [example.tree for example in examples]
    with ProgressBar(name, len(examples)) as bar:
        return map_batches(trees, tokens, lambda some: scores(model, pack(some).to(model.device)), bar.advance)
