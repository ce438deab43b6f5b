"""Fit a reward model to comparisons: a scalar head on the policy's body, measured on prompts it was not trained on."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from assent.batch import Loss
from assent.commands import objectives_of
from assent.config import plugin
from assent.errors import AssentError, did_you_mean, warn
from assent.files import write_atomically
from assent.functional.ensemble import Reduction, combine, disagreement
from assent.functional.statistics import accuracy
from assent.labelling.quality import reliabilities
from assent.models import card
from assent.models.attention import pack
from assent.models.forward import scores, standard
from assent.models.load import Language, context, load_reward, new_reward
from assent.models.tokenizer import Codec
from assent.objectives.bradley_terry import BradleyTerry
from assent.preferences.convert import examples, split, standardised
from assent.protocols import Reward as Scorer
from assent.protocols import RewardObjective
from assent.records import Label, Preference, Prompt, Purpose, Ranked, Response
from assent.registry import name_of, names, resolve, resolve_file
from assent.rewards.model import Model
from assent.run import Run
from assent.training.batching import READING, batch, steps_of
from assent.training.distributed import alone, gather
from assent.training.left_out import LeftOut
from assent.training.logging import Bar
from assent.training.loop import train
from assent.training.microbatch import by_tree, descend
from assent.training.preferences import FEEDS, Compared, Feed, Judgement, compare
from assent.training.replicated import Trainee, Training
from assent.training.stage import TrainingStage
from assent.types import Count, NonNegative

PURPOSES: tuple[Purpose, ...] = ("train", "evaluate")
"""Answers to queries about held-out prompts are for evaluation; imported ones were all asked for training."""


class Material(NamedTuple):
    """What was said of the run's answers, as trees."""

    kept: list[Compared]
    held: list[Compared]
    left_out: LeftOut


@dataclass(frozen=True)
class Reward(TrainingStage):
    """Train a reward model on what was said of the run's answers."""

    policy: str = ""
    """Whose body it starts from: a checkpoint of the run, a folder or a hub id; empty: this round's base policy."""
    max_tokens: Count = 1024
    """Answers that are longer, with their prompt, are left out, and what was said of them is counted."""
    heads: Count = 1
    """Ensemble of so many heads on one body, each with first weights and a bootstrap sample of prompts of its own."""
    members: Count = 1
    """Ensemble of so many whole models, one after another, each also with its own order of prompts."""
    objective: RewardObjective = plugin("objectives", BradleyTerry(), lambda: objectives_of("reward"))
    """What it learns from: choices (bradley_terry), whole rankings (kway, plackett_luce), or ratings (regression)."""
    training: Training = Training(lr=9e-6)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if self.members == 1:
            trainee, material = self._fit(run, key, 0)
            result = self._measure(run, key, [trainee.language], material)
            trainee.save(run.folder / key)
            alone(lambda: self._describe(run, key, trainee.language.codec, result))
            return result
        apart = [run.folder / "state" / key / f"member-{member + 1}" for member in range(self.members)]
        for member, folder in enumerate(apart):
            if not alone((folder / "config.json").exists):
                self._fit(run, f"{key}/{member + 1}", member)[0].save(folder)
        gather(0)  # the last is written
        models = [load_reward(folder, run.dtype, run.device, run.rendering) for folder in apart]
        result = self._measure(run, key, models, self._material(run, models[0]))
        alone(lambda: _assemble(apart, run.folder / key))
        alone(lambda: self._describe(run, key, models[0].codec, result))
        return result

    def _fit(self, run: Run, name: str, member: int) -> tuple[Trainee, Material]:
        """Train one model, and keep the scale of its scores in its own configuration."""
        seed = run.seed + 1_000_003 * member
        torch.manual_seed(seed)  # for the first weights of LoRA, also of a member that another process comes to
        language = new_reward(
            run.policy(self.policy or run.base), seed, device=run.device, heads=self.heads, rendering=run.rendering
        )
        material = self._material(run, language)
        examples = self._views(material.kept, seed)
        steps = steps_of(len(examples), self.training.batch_size, self.training.epochs)
        trainee = Trainee(language, self.training, steps, run.dtype)

        def step(number: int) -> dict[str, float]:
            chosen = batch(examples, self.training.batch_size, number, seed)
            totals = [self._feed.weight(views[head] for views in chosen) for head in range(self.heads)]

            def loss(part: list[int]) -> Loss:
                some = [chosen[i] for i in part]
                scored = scores(trainee.model, pack([views[0].tree for views in some]).to(run.device))  # (N, heads)
                return self._loss(scored, some, totals)

            return descend(trainee, number, [views[0].tree for views in chosen], loss)

        train(run.folder, name, {"reward": trainee}, steps, step, [c.tree for c in material.kept])
        some = material.kept[:64]
        seen = torch.cat(
            score_all(trainee.language, some, self.training.tokens_per_pack, f"{name}: scale")
        )  # (N, heads)
        if not bool((seen.std(0) > 0).all()):  # of scores that are not finite it is NaN
            raise AssentError("the reward model scores every answer alike: it has learned nothing; try another lr")
        config: Any = trainee.model.config
        config.reward_mean, config.reward_std = seen.mean(0).tolist(), seen.std(0).tolist()
        return trainee, material

    def _describe(self, run: Run, key: str, codec: Codec, result: dict[str, Any]) -> None:
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

    def _material(self, run: Run, language: Language) -> Material:
        return judged(run, language.codec, min(self.max_tokens, context(language.model)), self._feed)

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
    def _measure(self, run: Run, key: str, models: list[Language], material: Material) -> dict[str, Any]:
        """Held-out accuracy on decided pairs, or rank correlation with ratings, by the mean of all members."""
        kept, held, left_out = material
        counts = {self._feed.noun: sum(len(self._feed.said(c)) for c in kept), "prompts": len(kept)}
        found: dict[str, Any] = {**counts, **left_out.report()}
        tokens, about = self.training.tokens_per_pack, f"{key}: held-out"
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


@dataclass(frozen=True)
class Judge:
    """What finds an answer good."""

    reward: str = ""
    """What scores: a checkpoint of the run, a folder, a file of rewards/, your own file with a class that has `score`
    (`mine.py`); empty: this round's reward model."""
    ensemble: Reduction = "mean"
    """Of the members of a reward model: their mean, the least of them, or the mean less `deviations` of theirs."""
    deviations: NonNegative = 1.0
    """How many standard deviations of the members `lower` takes off."""

    def name(self, run: Run) -> str:
        """What scores in this run, by name.

        Raises:
            AssentError: none was named, and this round has no reward model.
        """
        name = self.reward or run.key("reward")
        if not self.reward and not (run.folder / name).exists():
            raise AssentError(f"{run.folder} has no reward model: run 'assent reward' first, or name one with --reward")
        return name

    def one(self, scores: Tensor) -> Tensor:
        """One score for each answer, (N,), of those of all members."""
        return combine(scores, self.ensemble, self.deviations)


RULES = tuple(name for name in names("rewards") if name != "model")
"""Files of rewards/ that need no model."""


def is_rule(name: str) -> bool:
    """Whether a reward is a file of rewards/ or of one's own, and no reward model."""
    return name in RULES or name.endswith(".py")


@dataclass(frozen=True)
class Rule:
    """A rule as a reward, whose answers are checked, for it may be anybody's code."""

    name: str
    rule: Scorer

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """As the rule does; one process asks it for all, since it may draw lots or ask others.

        Raises:
            AssentError: it fails, or gives something else than one finite number (or row of them) for each response.
        """
        return alone(lambda: self._checked(prompts, responses))

    def _checked(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        try:
            found = torch.as_tensor(self.rule.score(prompts, responses), dtype=torch.float32).cpu()
        except Exception as error:  # noqa: BLE001 (it is anybody's code)
            raise AssentError(f"the reward {self.name} failed: {type(error).__name__}: {error}") from None
        if found.ndim not in (1, 2) or len(found) != len(responses):
            raise AssentError(f"the reward {self.name} gave {tuple(found.shape)} scores for {len(responses)} answers")
        if not bool(found.isfinite().all()):
            raise AssentError(f"the reward {self.name} gave scores that are not finite")
        return found


def scorer(run: Run, name: str, tokens_per_pack: int = READING) -> Scorer:
    """What scores answers: a rule (a file of rewards/ or one's own) or a reward model (checkpoint, folder, hub id).

    Raises:
        AssentError: there is nothing of that name.
    """
    if is_rule(name):
        made = resolve_file(name, "score") if name.endswith(".py") else resolve("rewards", name)
        try:
            return Rule(name, made())
        except TypeError as error:
            raise AssentError(f"the reward {name} cannot be made without arguments: {error}") from None
    if "/" not in name and name not in run.models and not Path(name).is_dir():
        raise AssentError(f"no reward '{name}'{did_you_mean(name, [*RULES, *run.models])}")
    return Model.load(run.policy(name), run.dtype, run.device, run.rendering, tokens_per_pack)


def scorable(prompts: list[Prompt], judge: object) -> list[Prompt]:
    """The prompts that a reward model's own template can render; a rule takes all."""
    return judge.language.codec.renderable(prompts) if isinstance(judge, Model) else prompts


def judged(run: Run, codec: Codec, max_tokens: int, feed: Feed) -> Material:
    """What was said of the run's answers, to train on and held out, and how much of it was too long.

    Raises:
        AssentError: there is nothing to train on that the feed reads.
    """
    prompts = list(run.store.prompts())
    sides = split(prompts, run.setup.held_out)
    said = [event for event in run.store.feedback() if not event.annotator.startswith("judge:")]
    if 0 < (simulated := sum(event.annotator.startswith("simulated:") for event in said)) < len(said):
        warn(f"{simulated} of {len(said)} answers are by simulated annotators; they count where no person answered")
    queries, responses = list(run.store.queries()), list(run.store.responses())
    weights = reliabilities(run.store) if run.setup.weigh else None
    made = [e for p in PURPOSES for e in examples(said, queries, prompts, responses, weights, purpose=p)]
    fit = [e for e in made if isinstance(e, feed.kinds)]
    judgements: list[Judgement] = [e for e in fit if isinstance(e, Preference | Ranked) and feed.reads(e)]
    labels = [e for e in fit if isinstance(e, Label)]
    judgements += standardised(labels, said, sides.train)
    if lost := len(labels) - sum(isinstance(j, Label) for j in judgements):
        why = "of their annotators nothing, or one value only, is trained on"
        warn(f"{lost} of {len(labels)} ratings are left out: {why}")
    kept, left_out = compare((j for j in judgements if j.prompt.id in sides.train), codec, max_tokens)
    held, held_left_out = compare((j for j in judgements if j.prompt.id in sides.held_out), codec, max_tokens)
    if not kept:
        raise AssentError(_nothing(run.folder, feed, bool(fit), bool(held), left_out, max_tokens))
    return Material(kept, held, left_out + held_left_out)


def _nothing(folder: Path, feed: Feed, there: bool, held: bool, left_out: LeftOut, max_tokens: int) -> str:
    """Why there is nothing to train on, and what to do."""
    noun = "comparisons" if feed.noun == "pairs" else feed.noun
    if left_out.refused:
        return f"all {left_out.refused} {noun} of {folder} cannot be encoded; the first, {left_out.first}"
    if left_out.too_long:
        longer = f"longer than {max_tokens} tokens, the lesser of --max-tokens and the model's context"
        return f"all {left_out.too_long} {feed.noun} of {folder} to train on are {longer}"
    if held:
        return f"all {noun} of {folder} are about held-out prompts: take another --run with a lower --held-out"
    if there:
        return f"the {noun} of {folder} prefer nothing to anything: all are ties, or alike"
    makes = "" if feed.noun == "ratings" else "'assent label' makes some, "
    return f"{folder} holds no {noun}: {makes}'assent import' reads a file of them"


@torch.no_grad()
def score_all(language: Language, examples: list[Compared], tokens: int, name: str) -> list[Tensor]:
    """The scores of every completion as the heads give them, a tensor (K, heads) for each example."""
    model, trees = language.model, [example.tree for example in examples]
    with Bar(name, len(examples)) as bar:
        return by_tree(trees, tokens, lambda some: scores(model, pack(some).to(model.device)), bar.advance)
