"""Online training: a step in seven steps, from prompts to updates and checks.

Prompts are encoded once for all their completions. Parts of a step are shared out to the processes of torchrun.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from assent.batch import Rollout
from assent.functional.kl import adapt_beta, sequence_kl
from assent.generation.local import LocalGenerator, kv_cache_bytes
from assent.generation.rollout_batch import RolloutBatch
from assent.generation.sampling import Sample, Sampling
from assent.models.forward import logprobs
from assent.models.load import LoadedModel
from assent.models.packing import SharedPrefix, pack
from assent.objectives.cross_entropy import CrossEntropy
from assent.online.models import OnlineModels, policy_logprobs
from assent.online.update import OldPolicy, PolicyUpdate, sampler_logprob_diff, token_entropy
from assent.protocols import Generator, OnlineObjective
from assent.records import Prompt, Response
from assent.rewards.model import Model
from assent.run import Run
from assent.scoring import Scores
from assent.seeds import Purpose, derive
from assent.training import distributed
from assent.training.batching import generator, plan_batches, select_batch
from assent.training.logging import add_metrics
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.supervised import TokenizedExample, token_batch
from assent.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class RolloutSettings:
    """Rollouts, and what is done to their scores."""

    n: PositiveInt = 4
    """Completions of each prompt."""
    minibatches: PositiveInt = 1
    """Minibatches per epoch of a rollout; each is one optimizer step."""
    missing_eos_score: Literal["lowest", "off"] | float = "lowest"
    """Score of a completion without EOS: the rollout's lowest minus 1 (lowest), a number, or its own score (off)."""
    overlong_buffer: NonNegativeInt = 0
    """Tokens before the length limit over which a penalty grows to 1 (DAPO, arXiv:2503.14476, eq. 13); 0: none."""
    dynamic_sampling: NonNegativeInt = 0
    """Maximum resampling rounds per step for prompts whose completions all have the same score (DAPO)."""
    target_kl: NonNegativeFloat = 0.0
    """KL in nats per completion towards which `beta` is adapted, such as 6; 0: `beta` is fixed."""
    kl_horizon: PositiveFloat = 10000.0
    """Completions over which the controller changes `beta` by at most about 20 %."""
    ptx_coef: NonNegativeFloat = 0.0
    """Weight of the pretraining loss on `ptx_data` in every optimizer step (InstructGPT: 27.8); 0: none."""
    ptx_data: str = ""
    """A file of texts or demonstrations for the pretraining loss; each step takes `batch_size` of them."""
    sampling: Sampling = Sampling(temperature=0.7)


class ScoredRollout(NamedTuple):
    """Completions of one step, with their scores."""

    prompts: list[Prompt]
    completions: RolloutBatch
    scores: Scores = Scores(torch.empty(0), {})
    """Empty until they are computed."""
    resampled: int = 0
    """Prompts that replaced others whose completions all had the same score."""


class OnlineTrainer:
    """The state of online training, and one step of it."""

    def __init__(
        self,
        run: Run,
        settings: RolloutSettings,
        objective: OnlineObjective,
        training: Training,
        models: OnlineModels,
        states: dict[str, ReplicatedState],
        prompts: list[Prompt],
        ptx_examples: list[TokenizedExample],
        extra_state: dict[str, Any],
    ) -> None:
        self.run = run
        self.settings = settings
        self.base_objective = objective
        self.training = training
        self.policy = states["policy"]
        self.value = states.get("value")
        self.value_model = self.value.model if self.value else None
        self.reference = models.reference
        self.rewards = models.rewards
        self.tokenizer = models.policy.chat_tokenizer
        self.generator: Generator = LocalGenerator()
        self.generator.load(LoadedModel(self.policy.model, self.tokenizer))
        self.prompts = prompts
        self.ptx_examples = ptx_examples
        self.extra_state = extra_state
        """`beta`, as the controller leaves it."""
        self.updates = training.epochs * settings.minibatches
        self.temperature = settings.sampling.temperature
        self.max_tokens = training.max_tokens_per_batch
        self.prompt_ids = {prompt.id: self.tokenizer.encode_prompt(prompt) for prompt in prompts}

    def largest_step(self) -> tuple[list[SharedPrefix], int]:
        """Return the largest sequences that a step may train on, and the bytes that generation takes."""
        settings = self.settings
        count, n, length = self.training.batch_size, settings.n, settings.sampling.max_new_tokens
        longest = sorted(self.prompt_ids.values(), key=len)[-count:]
        cache_bytes = kv_cache_bytes(self.policy.model, [len(ids) for ids in longest], n, length)
        sequences = [SharedPrefix(ids, ((0,) * length,) * n) for ids in longest]
        return [*sequences, *(example.tokens for example in self.ptx_examples)], cache_bytes

    def step(self, number: int) -> dict[str, float]:
        """Run one step, and return its metrics."""
        objective = self.objective()
        prompts = select_batch(self.prompts, self.training.batch_size, number, self.run.seed)  # 1. prompts
        sampled = self.generate(prompts, number)  # 2. completions
        sampled = self.score(sampled)  # 3. scores
        sampled = self.resample_flat_groups(sampled, number)  # (DAPO's dynamic sampling)
        rollout, old = self.compute_logprobs(sampled, objective)  # 4. old policy, reference, values
        estimate = objective.advantages(rollout)  # 5. advantages and returns
        update = PolicyUpdate(self, number, objective, sampled.completions, rollout, estimate, old)
        learned = update.run()  # 6. epochs of minibatches, checked before the first optimizer step
        metrics = sampled.scores.metrics | {name: float(value) for name, value in estimate.metrics.items()}
        metrics |= self.rollout_metrics(sampled, update.rollout, update.entropy) | learned
        self.adapt_beta(metrics["kl"], len(sampled.completions.samples))  # 7. the KL controller
        return metrics | {"beta": self.extra_state["beta"]}

    def objective(self) -> OnlineObjective:
        """Return the objective at the controller's beta."""
        objective: Any = self.base_objective
        adapted: OnlineObjective = (
            replace(objective, beta=self.extra_state["beta"]) if self.settings.target_kl else objective
        )
        return adapted

    def generate(self, prompts: list[Prompt], number: int) -> ScoredRollout:
        """Generate completions of each prompt."""
        groups = self.sample(prompts, number)
        return ScoredRollout(prompts, RolloutBatch([self.prompt_ids[prompt.id] for prompt in prompts], groups))

    def resample_flat_groups(self, sampled: ScoredRollout, number: int) -> ScoredRollout:
        """Replace prompts whose completions all have the same score, at most `dynamic_sampling` times."""
        used = {prompt.id for prompt in sampled.prompts}
        for attempt in range(1, self.settings.dynamic_sampling + 1):
            flat = _flat_groups(sampled.scores.total, len(sampled.prompts))
            fresh = self.unused_prompts(used, len(flat), number, attempt)
            if not fresh:
                break
            used |= {prompt.id for prompt in fresh}
            prompts, groups = list(sampled.prompts), sampled.completions.groups()
            for i, prompt, group in zip(flat, fresh, self.sample(fresh, number, attempt), strict=False):
                prompts[i], groups[i] = prompt, group
            completions = RolloutBatch([self.prompt_ids[prompt.id] for prompt in prompts], groups)
            sampled = self.score(ScoredRollout(prompts, completions, resampled=sampled.resampled + len(fresh)))
        return sampled

    def sample(self, prompts: list[Prompt], number: int, attempt: int = 0) -> list[list[Sample]]:
        """Return completions of each prompt; each process generates those of its share of the prompts."""
        ids = [self.prompt_ids[prompt.id] for prompt in prompts]
        share = distributed.shard(range(len(ids)))
        # one process in its first attempt takes the plain number of the step
        numbers = [attempt, distributed.rank()] if attempt or distributed.rank() else []
        seed = derive(self.run.seed, Purpose.ROLLOUT, number, *numbers)
        own = [ids[i] for i in share]
        samples = self.generator.generate(own, self.settings.n, self.settings.sampling, seed) if own else []
        gathered = distributed.all_gather([s._replace(prompt_index=share[s.prompt_index]) for s in samples])
        groups: list[list[Sample]] = [[] for _ in ids]
        for part in gathered:
            for completion in part:
                groups[completion.prompt_index].append(completion)
        return groups

    def unused_prompts(self, used: set[str], count: int, number: int, attempt: int) -> list[Prompt]:
        """Return up to `count` random prompts that this step has not used."""
        unused = [prompt for prompt in self.prompts if prompt.id not in used]
        rng = generator(self.run.seed, Purpose.RESAMPLING, number, attempt)
        order = torch.randperm(len(unused), generator=rng).tolist()
        return [unused[i] for i in order[:count]]

    def score(self, sampled: ScoredRollout) -> ScoredRollout:
        """Score the completions; a reward model with the policy's own tokenizer reads the sampled ids themselves."""
        prompts, completions = sampled.prompts, sampled.completions
        prompt_of_each = [prompts[s.prompt_index] for s in completions.samples]
        responses: list[Response] = []
        parts: list[Tensor] = []
        for term in self.rewards.terms:
            if isinstance(term.reward, Model) and self._same_tokens(term.reward, prompts, completions):
                parts.append(term.reward.score_prefixes(completions.shared_prefixes))
                continue
            if not responses:
                for prompt, s in zip(prompt_of_each, completions.samples, strict=True):
                    completion = self.tokenizer.to_completion(prompt, s.token_ids, s.finished)
                    responses.append(Response.of(prompt.id, completion, ""))
            parts.append(term.reward.score(prompt_of_each, responses))
        return sampled._replace(scores=self.rewards.add(parts))

    def _same_tokens(self, model: Model, prompts: list[Prompt], completions: RolloutBatch) -> bool:
        """Return whether a reward model encodes these prompts and completions as the very tokens that were sampled."""
        tokenizer = model.first.chat_tokenizer
        return (
            tokenizer.fingerprint == self.tokenizer.fingerprint
            and all(tokenizer.encode_prompt(prompt) == self.prompt_ids[prompt.id] for prompt in prompts)
            and all(
                s.token_ids[-1] == tokenizer.end_id(prompts[s.prompt_index]) for s in completions.samples if s.finished
            )
        )

    def apply_penalties(self, scores: Tensor, completions: RolloutBatch) -> Tensor:
        """Return the scores, (B,), with the overlong penalty and the score of a missing EOS."""
        if buffer := self.settings.overlong_buffer:
            lengths = completions.mask.sum(1)
            scores = scores + ((self.settings.sampling.max_new_tokens - buffer - lengths) / buffer).clamp(-1, 0)
        missing = self.settings.missing_eos_score
        if missing == "off":
            return scores
        unfinished = torch.tensor([not s.finished for s in completions.samples])
        return torch.where(unfinished, scores.min() - 1 if missing == "lowest" else float(missing), scores)

    @torch.no_grad()
    def compute_logprobs(self, sampled: ScoredRollout, objective: OnlineObjective) -> tuple[Rollout, OldPolicy | None]:
        """Return the rollout with log-probabilities and values before the update.

        With one update on a rollout, and an objective whose advantages need no log-probabilities, the update itself
        computes those of the old policy: they are None here, and 0 in the rollout.
        """
        completions = sampled.completions
        is_deferred = self.updates == 1 and not objective.needs_logprobs and self.value is None
        old, reference, entropy = completions.zeros(), completions.zeros(), completions.zeros()
        estimates = completions.zeros() if self.value else None
        for part in distributed.shard(plan_batches(completions.shared_prefixes, self.max_tokens)):
            packed = pack([completions.shared_prefixes[i] for i in part]).to(self.run.device)
            if not is_deferred:
                now, values_now = policy_logprobs(self.policy.model, self.value_model, packed, self.temperature, True)
                completions.scatter(old, part, packed, now.logprobs)
                completions.scatter(entropy, part, packed, token_entropy(now))
                if values_now is not None and estimates is not None:
                    completions.scatter(estimates, part, packed, values_now)
            reference_now = logprobs(self.reference, packed, self.temperature)
            completions.scatter(reference, part, packed, reference_now.logprobs)
        # each process filled in its own rows of zeros
        distributed.all_reduce([old, reference, entropy, *([] if estimates is None else [estimates])])
        scores = self.apply_penalties(sampled.scores.total, completions)
        groups = torch.tensor([s.prompt_index for s in completions.samples])
        rollout = Rollout(completions.mask, old, reference, scores, groups, estimates)
        return rollout, None if is_deferred else OldPolicy(old, entropy)

    def adapt_beta(self, kl: float, count: int) -> None:
        """Move beta towards the KL target, if there is one.

        Args:
            kl: of this step, in nats per completion.
            count: completions of this step.
        """
        if target := self.settings.target_kl:
            beta = adapt_beta(self.extra_state["beta"], kl, target, count, self.settings.kl_horizon)
            self.extra_state["beta"] = beta

    def rollout_metrics(self, sampled: ScoredRollout, rollout: Rollout, entropy: Tensor) -> dict[str, float]:
        """Return what is measured on the completions themselves."""
        kl = sequence_kl(rollout.logprobs, rollout.reference_logprobs, rollout.mask)
        metrics = {name: float(value) for name, value in kl.metrics.items()}
        if self.settings.dynamic_sampling:
            metrics["resampled"] = float(sampled.resampled)
        samples = sampled.completions.samples
        metrics["length"] = float(rollout.mask.sum(1).float().mean())
        metrics["eos_rate"] = sum(s.finished for s in samples) / len(samples)
        metrics["sampler_logprob_diff"] = sampler_logprob_diff(rollout, samples)
        metrics["entropy"] = float(entropy[rollout.mask].mean())
        return metrics

    def ptx_backward(self, update: int) -> dict[str, float]:
        """Add the gradient of the ptx loss on texts (PPO-ptx: Ouyang et al. 2022, eq. 2, arXiv:2203.02155)."""
        metrics: dict[str, float] = {}
        if not self.ptx_examples:
            return metrics
        chosen = select_batch(self.ptx_examples, self.training.batch_size, update, self.run.seed)
        for part in distributed.shard(plan_batches([example.tokens for example in chosen], self.max_tokens)):
            loss = CrossEntropy()(token_batch(self.policy.model, chosen, part))
            (self.settings.ptx_coef * loss.value).backward()
            add_metrics(metrics, {"ptx_loss": loss.value.detach()})
        return distributed.reduce_dict(metrics)


def _flat_groups(scores: Tensor, prompts: int) -> list[int]:
    """Return the prompts whose completions all have the same score, so that advantages vanish."""
    return [i for i, row in enumerate(scores.view(prompts, -1)) if bool((row == row[0]).all())]
