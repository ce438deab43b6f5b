"""Optimise the policy by its own trials: PPO, GRPO, RLOO and kin, each by the name of its objective.

A step draws answers to some prompts, scores them, measures how far the policy has moved from its reference, turns both
into advantages, and takes one or more optimiser steps on them. Prompts are encoded once for all their answers.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from assent.batch import Advantages, PolicyBatch, Rollout
from assent.errors import AssentError
from assent.functional.ensemble import disagreement
from assent.functional.kl import adapt_beta, sequence_kl
from assent.functional.logprobs import TokenLogprobs
from assent.generation.local import Sample, Sampling, kv_cache_bytes, sample
from assent.generation.responses import on_side
from assent.generation.rollout_batch import RolloutBatch
from assent.models.adapters import SharedBase, matches_base
from assent.models.attention import PackedBatch, SharedPrefix, pack
from assent.models.forward import blocks, logprobs, values
from assent.models.load import LoadedModel, context, load_policy, load_reward, new_reward
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.cross_entropy import CrossEntropy
from assent.objectives.ppo import PPO
from assent.protocols import OnlineObjective, Reward
from assent.records import Prompt, Response
from assent.rewards.model import Model
from assent.run import Run
from assent.scoring import RewardSource, is_rule, scorable, scorer
from assent.training import distributed
from assent.training.batching import batch, chunks, generator, packs
from assent.training.logging import add
from assent.training.loop import train
from assent.training.replicated import Training, TrainState
from assent.training.stage import PolicyStage
from assent.training.supervised import TokenizedExample, tokens
from assent.training.texts import read_texts
from assent.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class Online(PolicyStage):
    """Train a policy on scores of its own answers, on a leash to where it started."""

    policy: str = ""
    """What it starts from, and its reference: a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    judge: RewardSource = RewardSource()
    steps: PositiveInt = 20
    """Rollouts, each of `batch_size` prompts."""
    n: PositiveInt = 4
    """Answers to each prompt."""
    minibatches: PositiveInt = 1
    """Optimiser steps in one pass over a rollout; `epochs` passes are made."""
    value_lr: NonNegativeFloat = 0.0
    """Peak learning rate of the value model; 0: that of the policy."""
    trainable_value_layers: NonNegativeInt = 0
    """Layers of the value model that are trained, from the top; 0: all of them."""
    missing_eos_score: Literal["lowest", "off"] | float = "lowest"
    """Score of an answer that was cut: the rollout's lowest minus 1, a number, or off: the score it got."""
    overlong_buffer: NonNegativeInt = 0
    """The last so many tokens before the limit cost an answer up to 1 (DAPO, arXiv:2503.14476, eq. 13); 0: nothing."""
    dynamic_sampling: NonNegativeInt = 0
    """Times in a step that prompts whose answers all score alike make room for others (DAPO's dynamic sampling)."""
    target_kl: NonNegativeFloat = 0.0
    """Nats an answer that the adaptive controller steers `beta` towards, such as 6; 0 leaves `beta` fixed."""
    kl_horizon: PositiveFloat = 10000.0
    """Answers over which the controller may change `beta` by a fifth."""
    ptx_coef: NonNegativeFloat = 0.0
    """Weight of the loss on `ptx_data` in every optimiser step, against forgetting (InstructGPT took 27.8); 0: none."""
    ptx_data: str = ""
    """What is not to be forgotten: a file of texts or demonstrations, of which each step takes `batch_size`."""
    sampling: Sampling = Sampling(temperature=0.7)
    objective: OnlineObjective = PPO()
    training: Training = Training(lr=3e-6, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        where = run.policy(self.policy or run.base)
        made = self._on_one_body(run, where) if self.training.lora_rank else self._apart(run, where)
        language = made.policy
        codec = language.codec
        prompts = scorable(on_side(run, language, self.sampling.max_new_tokens, "train"), made.judge)
        updates = self.steps * self.training.epochs * self.minibatches
        trainees = {"policy": TrainState(language, self.training, updates, run.dtype)}
        if made.value:
            training = self.training if not self.value_lr else replace(self.training, lr=self.value_lr)
            trainees["value"] = TrainState(made.value, training, updates, run.dtype)
        memory = {"beta": getattr(self.objective, "beta", 0.0)}
        texts = read_texts(self.ptx_data, codec, context(language.model)) if self.ptx_coef else []
        worker = OnlineTrainer(self, run, codec, prompts, trainees, made.reference, made.judge, memory, texts)
        train(run.folder, key, trainees, self.steps, worker.step, *worker.room(), memory)
        trainees["policy"].save(run.folder / key)
        return {"prompts": len(prompts), "steps": self.steps, "beta": memory["beta"]}

    def __post_init__(self) -> None:
        if self.n < self.objective.min_completions:
            raise ValueError(
                f"n = {self.n}: {type(self.objective).__name__} compares {self.objective.min_completions} or more"
            )
        if self.trainable_value_layers and self.training.lora_rank:
            raise ValueError("value_layers trains whole layers, lora_rank adapters: leave one of them out")
        if self.ptx_coef and not self.ptx_data:
            raise ValueError(f"ptx = {self.ptx_coef}: name the texts with ptx_data")
        if self.target_kl and not getattr(self.objective, "beta", 0.0):
            raise ValueError(f"target_kl = {self.target_kl} steers beta by shares of it: give it a beta above 0")
        if self.overlong_buffer > self.sampling.max_new_tokens:
            raise ValueError(
                f"overlong = {self.overlong_buffer} is more than max_new_tokens = {self.sampling.max_new_tokens}"
            )
        if not self.sampling.temperature:
            raise ValueError("temperature = 0 draws the same answer every time, from which nothing can be learned")

    def _apart(self, run: Run, where: str) -> "_Models":
        """Each model with weights of its own."""
        policy = load_policy(where, device=run.device, rendering=run.rendering)
        reference = load_policy(where, run.dtype, run.device, run.rendering).model.requires_grad_(False)
        judge = scorer(run, self.judge.name(run), self.training.max_tokens_per_batch)
        return _Models(policy, reference, judge, self._critic(run) if self.objective.needs_values else None)

    def _on_one_body(self, run: Run, where: str) -> "_Models":
        """All of them as adapters on one frozen body, which alone is the reference.

        A reward model that was not trained as an adapter of this very body stands apart, and the value model with it.
        """
        name = self.judge.name(run)
        folder = run.folder / name if (run.folder / name).exists() else Path(name)
        body = SharedBase(load_policy(where, run.dtype, run.device, run.rendering))
        policy = body.adapter("policy", self.training.lora_rank, self.training.lora_alpha)
        shares = matches_base(folder, where) and not list(folder.glob("member-*"))
        if shares:
            judge: Reward = Model((body.load_adapter(folder, "reward"),), self.training.max_tokens_per_batch)
        else:
            judge = scorer(run, name, self.training.max_tokens_per_batch)
        value = None
        if self.objective.needs_values and shares:
            value = body.load_adapter(folder, "value", train=True)
            _begin_at_zero(value)
        elif self.objective.needs_values:
            value = self._critic(run)
        return _Models(policy, body.base_model().model, judge, value)

    def _critic(self, run: Run) -> LoadedModel:
        """A value model on the reward model's body; on the policy's, if the judge is a rule and there is none."""
        own = run.key("reward")
        name = own if is_rule(self.judge.reward) else self.judge.name(run)
        if name != own or (run.folder / own).exists():
            language = load_reward(run.policy(name), device=run.device, rendering=run.rendering)
        else:
            language = new_reward(
                run.policy(self.policy or run.base), run.seed, device=run.device, rendering=run.rendering
            )
        _begin_at_zero(language)
        if self.trainable_value_layers:
            layers = blocks(language.model)
            if self.trainable_value_layers > len(layers):
                raise AssentError(
                    f"value_layers is {self.trainable_value_layers}, and the value model has {len(layers)} layers"
                )
            language.model.base_model.requires_grad_(False)
            for layer in layers[-self.trainable_value_layers :]:
                layer.requires_grad_(True)
        return language


class _Models(NamedTuple):
    """Who takes part."""

    policy: LoadedModel
    reference: Any
    judge: Reward
    value: LoadedModel | None


def _begin_at_zero(value: LoadedModel) -> None:
    """Let a value model first estimate 0, the mean score, everywhere.

    The reward model's own head would say of every unfinished answer that it is bad, and so of every end token that it
    is a great gain: the policy then learns to stop, whatever it says.
    """
    head = value.model.get_submodule("score").weight
    assert isinstance(head, Tensor)
    torch.nn.init.zeros_(head)


class OnlineTrainer:
    """One step of online training: draws, scores, looks, learns."""

    def __init__(
        self,
        settings: Online,
        run: Run,
        codec: ChatTokenizer,
        prompts: list[Prompt],
        trainees: dict[str, TrainState],
        reference: Any,
        judge: Any,
        memory: dict[str, float],
        texts: list[TokenizedExample],
    ) -> None:
        self.settings, self.run, self.codec, self.prompts = settings, run, codec, prompts
        self.policy, self.value = trainees["policy"], trainees.get("value")
        self.reference, self.judge, self.memory, self.texts = reference, judge, memory, texts
        self.temperature = settings.sampling.temperature
        self.tokens = settings.training.max_tokens_per_batch
        self.updates = settings.training.epochs * settings.minibatches
        self.ids = {prompt.id: codec.prompt(prompt) for prompt in prompts}

    def room(self) -> tuple[list[SharedPrefix], int]:
        """What a step may come to if every answer is as long as it may be: its trees, and bytes that drawing takes."""
        settings = self.settings
        count, n, length = settings.training.batch_size, settings.n, settings.sampling.max_new_tokens
        longest = sorted(self.ids.values(), key=len)[-count:]
        drawing = kv_cache_bytes(self.policy.model, [len(ids) for ids in longest], n, length)
        return [
            *(SharedPrefix(ids, ((0,) * length,) * n) for ids in longest),
            *(text.tree for text in self.texts),
        ], drawing

    def step(self, number: int) -> dict[str, float]:
        asked = batch(self.prompts, self.settings.training.batch_size, number, self.run.seed)
        groups, known, redrawn = self._draw(asked, number), {prompt.id for prompt in asked}, 0
        drawn = RolloutBatch([self.ids[prompt.id] for prompt in asked], groups)
        scores, metrics = self._score(asked, drawn)
        for again in range(1, self.settings.dynamic_sampling + 1):
            alike = _alike(scores, len(asked))
            fresh = self._others(known, len(alike), number, again)
            if not fresh:
                break
            for i, prompt, group in zip(alike, fresh, self._draw(fresh, number, again), strict=False):
                asked[i], groups[i] = prompt, group
            known |= {prompt.id for prompt in fresh}
            redrawn += len(fresh)
            drawn = RolloutBatch([self.ids[prompt.id] for prompt in asked], groups)
            scores, metrics = self._score(asked, drawn)
        objective = self._objective()
        known_later = self.updates == 1 and not objective.needs_logprobs
        rollout, entropy = self._look(drawn, self._charge(scores, drawn), known_later)
        estimate = objective.advantages(rollout)
        metrics |= {name: float(value) for name, value in estimate.metrics.items()}
        learned = self._update(number, objective, drawn, rollout, estimate, entropy if known_later else None)
        kl = sequence_kl(rollout.logprobs, rollout.reference_logprobs, rollout.mask)
        metrics |= {name: float(value) for name, value in kl.metrics.items()}
        if number == 0 and abs(metrics["kl"]) > 1e-3:
            raise AssentError(
                f"the KL to the reference is {metrics['kl']:.4f} before the first step, not 0: they differ"
            )
        if self.settings.dynamic_sampling:
            metrics["redrawn"] = float(redrawn)
        metrics["length"] = float(rollout.mask.sum(1).float().mean())
        metrics["finished"] = sum(s.finished for s in drawn.samples) / len(drawn.samples)
        engine = torch.tensor([x for s in drawn.samples for x in s.logprobs])
        metrics["rollout_gap"] = float((rollout.logprobs[rollout.mask] - engine).abs().mean())
        # nothing else tells that sampling and training disagree, if the policy is asked once only
        if known_later and metrics["rollout_gap"] > (1e-2 if self.run.dtype == torch.float32 else 0.1):
            raise AssentError(
                f"answers were drawn with log-probabilities {metrics['rollout_gap']:.3f} from those that are trained: "
                "sampling and training disagree"
            )
        metrics["entropy"] = float(entropy[rollout.mask].mean())
        metrics |= learned
        self._adapt(metrics["kl"], len(drawn.samples))
        return metrics | {"beta": self.memory["beta"]}

    def _objective(self) -> OnlineObjective:
        """The objective at the controller's beta."""
        objective: Any = self.settings.objective
        adapted: OnlineObjective = (
            replace(objective, beta=self.memory["beta"]) if self.settings.target_kl else objective
        )
        return adapted

    def _draw(self, asked: list[Prompt], number: int, again: int = 0) -> list[list[Sample]]:
        """Answers to each prompt; each process draws for its share of them."""
        ids = [self.ids[prompt.id] for prompt in asked]
        share = distributed.shard(range(len(ids)))
        # one process that draws once takes the plain number of the step
        dice = generator(
            self.run.seed, 2, number, *([again, distributed.rank()] if again or distributed.rank() else [])
        )
        sampling, ends = self.settings.sampling, self.codec.stop_ids
        some = [ids[i] for i in share]
        drawn = sample(self.policy.model, some, self.settings.n, sampling, ends, dice) if some else []
        everywhere = [
            s for part in distributed.all_gather([s._replace(prompt=share[s.prompt]) for s in drawn]) for s in part
        ]
        return [[s for s in everywhere if s.prompt == i] for i in range(len(ids))]

    def _others(self, known: set[str], count: int, number: int, again: int) -> list[Prompt]:
        """Prompts that this step has not asked yet."""
        rest = [prompt for prompt in self.prompts if prompt.id not in known]
        order = torch.randperm(len(rest), generator=generator(self.run.seed, 5, number, again)).tolist()
        return [rest[i] for i in order[:count]]

    @torch.no_grad()
    def _look(self, drawn: RolloutBatch, scores: Tensor, later: bool) -> tuple[Rollout, Tensor]:
        """Log-probabilities under policy and reference, and values, before anything moves; the policy's entropy.

        Args:
            later: the policy is asked when it learns from the rollout, which it does once only.
        """
        old, reference, entropy = drawn.blank(), drawn.blank(), drawn.blank()
        seen = drawn.blank() if self.value else None
        for part in distributed.shard(packs(drawn.trees, self.tokens)):
            packed = pack([drawn.trees[i] for i in part]).to(self.run.device)
            if not later:
                now = logprobs(self.policy.model, packed, self.temperature, entropy=True)
                _write(now, drawn, part, packed, old, entropy)
            drawn.place(reference, part, packed, logprobs(self.reference, packed, self.temperature).logprobs)
            if self.value and seen is not None:
                drawn.place(seen, part, packed, values(self.value.model, packed))
        distributed.all_reduce([old, reference, entropy, *([] if seen is None else [seen])])  # each wrote its own rows
        about = torch.tensor([s.prompt for s in drawn.samples])
        return Rollout(drawn.mask, old, reference, scores, about, seen), entropy

    def _score(self, asked: list[Prompt], drawn: RolloutBatch) -> tuple[Tensor, dict[str, float]]:
        """Scores of the answers, (B,), as the judge gives them; and how far the members of an ensemble disagree."""
        if isinstance(self.judge, Model) and self._reads_alike(self.judge.language.codec, asked, drawn):
            scores = self.judge.score_trees(drawn.trees)
        else:
            about = [asked[s.prompt] for s in drawn.samples]
            replies = [self.codec.drawn(p, s.ids, s.finished) for p, s in zip(about, drawn.samples, strict=True)]
            texts = [Response.of(p.id, reply, "") for p, reply in zip(about, replies, strict=True)]
            scores = self.judge.score(about, texts)
        unsure = {"disagreement": float(disagreement(scores).mean())} if scores.ndim > 1 and scores.shape[1] > 1 else {}
        return self.settings.judge.one(scores), unsure

    def _reads_alike(self, codec: ChatTokenizer, asked: list[Prompt], drawn: RolloutBatch) -> bool:
        """Whether a reward model reads these prompts and answers as the very tokens that were drawn."""
        return (
            codec.fingerprint == self.codec.fingerprint
            and all(codec.prompt(prompt) == self.ids[prompt.id] for prompt in asked)
            and all(s.ids[-1] == codec.end(asked[s.prompt]) for s in drawn.samples if s.finished)
        )

    def _charge(self, scores: Tensor, drawn: RolloutBatch) -> Tensor:
        """Scores, (B,), with answers that came near the limit charged, and those that were cut put in their place."""
        if room := self.settings.overlong_buffer:
            lengths = drawn.mask.sum(1)
            scores = scores + ((self.settings.sampling.max_new_tokens - room - lengths) / room).clamp(-1, 0)
        missing = self.settings.missing_eos_score
        if missing == "off":
            return scores
        cut = torch.tensor([not s.finished for s in drawn.samples])
        return torch.where(cut, scores.min() - 1 if missing == "lowest" else float(missing), scores)

    def _update(
        self,
        number: int,
        objective: OnlineObjective,
        drawn: RolloutBatch,
        rollout: Rollout,
        estimate: Advantages,
        entropy: Tensor | None,
    ) -> dict[str, float]:
        """Epochs of optimiser steps on one rollout; metrics are means over them.

        Args:
            entropy: (B, T), where it is to be written, and with it the rollout's log-probabilities.
        """
        training, gathered = self.settings.training, list[dict[str, float]]()
        for epoch in range(training.epochs):
            order = torch.randperm(len(drawn.trees), generator=generator(self.run.seed, 3, number, epoch)).tolist()
            for chosen in chunks(order, -(-len(order) // self.settings.minibatches)):
                some = sorted(chosen)  # all of them make the packs in which they were looked at, which round alike
                rows = drawn.rows(some)
                tokens, sequences = float(drawn.mask[rows].sum()), float(len(rows))
                metrics: dict[str, float] = {}
                for local in distributed.shard(packs([drawn.trees[i] for i in some], self.tokens)):
                    part = [some[i] for i in local]
                    seen = self._actions(drawn, part, rollout, estimate, entropy)
                    loss = objective(replace(seen, tokens=tokens, sequences=sequences))
                    loss.value.backward()
                    add(metrics, loss.metrics)
                metrics = distributed.reduce_dict(metrics)
                # packs of another shape round otherwise: in bfloat16 single log-probabilities move by a few hundredths
                slack = 1e-3 if self.run.dtype == torch.float32 else 2e-2
                if tokens and not gathered and abs(metrics["ratio"] - 1) > slack:
                    raise AssentError(
                        f"the first ratio is {metrics['ratio']:.4f}, not 1: sampling and training disagree"
                    )
                update = number * self.updates + len(gathered)
                metrics |= self._remember(update)
                metrics["grad_norm"] = self.policy.step(update)
                metrics["lr"] = training.rate(update, self.policy.steps)
                if self.value:
                    metrics["value_grad_norm"] = self.value.step(update)
                gathered.append(metrics)
        if entropy is not None:
            distributed.all_reduce([rollout.logprobs, entropy])
        return {name: sum(m[name] for m in gathered) / len(gathered) for name in gathered[0]}

    def _remember(self, update: int) -> dict[str, float]:
        """Add the gradient of the texts that are not to be forgotten (PPO-ptx: Ouyang et al. 2022, eq. 2)."""
        metrics: dict[str, float] = {}
        if not self.texts:
            return metrics
        chosen = batch(self.texts, self.settings.training.batch_size, update, self.run.seed)
        for part in distributed.shard(packs([text.tree for text in chosen], self.tokens)):
            loss = CrossEntropy()(tokens(self.policy.model, chosen, part))
            (self.settings.ptx_coef * loss.value).backward()
            add(metrics, {"ptx_loss": loss.value.detach()})
        return distributed.reduce_dict(metrics)

    def _actions(
        self, drawn: RolloutBatch, part: list[int], rollout: Rollout, estimate: Advantages, entropy: Tensor | None
    ) -> PolicyBatch:
        """What some trees' answers are under the models now, with gradient, beside what they were."""
        device = self.run.device
        packed = pack([drawn.trees[i] for i in part]).to(device)
        rows = drawn.rows(part)
        longest = int(packed.lengths.max())

        def cut(full: Tensor) -> Tensor:
            return full[rows, :longest].to(device)

        now = logprobs(self.policy.model, packed, self.temperature, entropy=entropy is not None)
        if entropy is not None:
            _write(now, drawn, part, packed, rollout.logprobs, entropy)
        critic = packed.padded(values(self.value.model, packed)) if self.value else None
        return PolicyBatch(
            mask=cut(rollout.mask),
            logprobs=packed.padded(now.logprobs),
            old_logprobs=cut(rollout.logprobs),
            reference_logprobs=cut(rollout.reference_logprobs),
            advantages=cut(estimate.advantages),
            values=critic,
            old_values=None if rollout.values is None else cut(rollout.values),
            returns=None if estimate.returns is None else cut(estimate.returns),
        )

    def _adapt(self, kl: float, n: int) -> None:
        if target := self.settings.target_kl:
            self.memory["beta"] = adapt_beta(self.memory["beta"], kl, target, n, self.settings.kl_horizon)


def _write(
    now: TokenLogprobs, drawn: RolloutBatch, part: list[int], packed: PackedBatch, old: Tensor, entropy: Tensor
) -> None:
    """Keep what the policy says of a pack's answers in their rows, both (B, T)."""
    assert now.entropy is not None
    drawn.place(old, part, packed, now.logprobs.detach())
    drawn.place(entropy, part, packed, now.entropy)


def _alike(scores: Tensor, prompts: int) -> list[int]:
    """Prompts whose answers all score alike, from which nothing can be learned."""
    return [i for i, row in enumerate(scores.view(prompts, -1)) if bool((row == row[0]).all())]
