"""The update of online training: epochs of minibatches on one rollout, checked before the first optimizer step."""

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from assent.batch import Advantages, PolicyBatch, Rollout
from assent.errors import AssentError
from assent.functional.kl import sequence_kl
from assent.functional.logprobs import TokenLogprobs
from assent.generation.rollout_batch import RolloutBatch
from assent.generation.sampling import Sample
from assent.models.packing import pack
from assent.online.models import policy_logprobs
from assent.protocols import OnlineObjective
from assent.seeds import Purpose
from assent.training import distributed
from assent.training.batching import chunks, generator, plan_batches
from assent.training.logging import add_metrics

if TYPE_CHECKING:
    from assent.online.trainer import OnlineTrainer


class OldPolicy(NamedTuple):
    """The policy before the update, on the tokens of a rollout."""

    logprobs: Tensor  # (B, T) float32 on the CPU
    entropy: Tensor  # (B, T)


class PolicyUpdate:
    """Epochs of optimizer steps on one rollout.

    `rollout` and `entropy` hold the old policy's log-probabilities and entropy, computed before the update or in it.
    """

    def __init__(
        self,
        trainer: "OnlineTrainer",
        number: int,
        objective: OnlineObjective,
        completions: RolloutBatch,
        rollout: Rollout,
        estimate: Advantages,
        old: OldPolicy | None,
    ) -> None:
        self.trainer = trainer
        self.number = number
        self.objective = objective
        self.completions = completions
        self.rollout = rollout
        self.estimate = estimate
        self.is_deferred = old is None
        self.entropy = completions.zeros() if old is None else old.entropy

    def run(self) -> dict[str, float]:
        """Update the policy and the value model; return the metrics' means over the optimizer steps."""
        trainer, training = self.trainer, self.trainer.training
        steps: list[dict[str, float]] = []
        for epoch in range(training.epochs):
            rng = generator(trainer.run.seed, Purpose.MINIBATCHES, self.number, epoch)
            order = torch.randperm(len(self.completions.shared_prefixes), generator=rng).tolist()
            for chosen in chunks(order, -(-len(order) // trainer.settings.minibatches)):
                metrics = self.backward(sorted(chosen))  # sorted: packed as before, so rounded alike
                if not steps:
                    self.check(metrics)
                step = self.number * trainer.updates + len(steps)
                metrics |= trainer.ptx_backward(step)
                metrics["grad_norm"] = trainer.policy.step(step)
                metrics["lr"] = training.rate(step, trainer.policy.steps)
                if trainer.value:
                    metrics["value_grad_norm"] = trainer.value.step(step)
                steps.append(metrics)
        return {name: sum(metrics[name] for metrics in steps) / len(steps) for name in steps[0]}

    def backward(self, chosen: list[int]) -> dict[str, float]:
        """Compute the gradients of a minibatch, the completions of some prompts; return its metrics."""
        prefixes = [self.completions.shared_prefixes[i] for i in chosen]
        rows = self.completions.row_indices(chosen)
        token_count, sequence_count = float(self.completions.mask[rows].sum()), float(len(rows))
        logprobs_now, entropy_now = self.completions.zeros(), self.completions.zeros()
        metrics: dict[str, float] = {}
        for local in distributed.shard(plan_batches(prefixes, self.trainer.max_tokens)):
            policy_batch = self.policy_batch([chosen[i] for i in local], logprobs_now, entropy_now)
            loss = self.objective(replace(policy_batch, tokens=token_count, sequences=sequence_count))
            loss.value.backward()
            add_metrics(metrics, loss.metrics)
        if self.is_deferred:
            distributed.all_reduce([logprobs_now, entropy_now])
            self.rollout, self.entropy = replace(self.rollout, logprobs=logprobs_now), entropy_now
        return distributed.reduce_dict(metrics)

    def policy_batch(self, part: list[int], logprobs_now: Tensor, entropy_now: Tensor) -> PolicyBatch:
        """Return the completions of some prompts under the models now, with gradient, and as they were.

        Args:
            logprobs_now, entropy_now: (B, T), filled in if the policy was not read before the update.
        """
        trainer, rollout, estimate = self.trainer, self.rollout, self.estimate
        device = trainer.run.device
        packed = pack([self.completions.shared_prefixes[i] for i in part]).to(device)
        rows = self.completions.row_indices(part)
        longest = int(packed.completion_lens.max())

        def cut(full: Tensor) -> Tensor:
            return full[rows, :longest].to(device)

        now, values_now = policy_logprobs(
            trainer.policy.model, trainer.value_model, packed, trainer.temperature, self.is_deferred
        )
        old = rollout.logprobs
        if self.is_deferred:
            self.completions.scatter(logprobs_now, part, packed, now.logprobs.detach())
            self.completions.scatter(entropy_now, part, packed, token_entropy(now))
            old = logprobs_now
        return PolicyBatch(
            mask=cut(rollout.mask),
            logprobs=packed.pad_completions(now.logprobs),
            old_logprobs=cut(old),
            reference_logprobs=cut(rollout.reference_logprobs),
            advantages=cut(estimate.advantages),
            values=None if values_now is None else packed.pad_completions(values_now),
            old_values=None if rollout.values is None else cut(rollout.values),
            returns=None if estimate.returns is None else cut(estimate.returns),
        )

    def check(self, metrics: dict[str, float]) -> None:
        """Check what must hold before the first optimizer step on a rollout.

        Raises:
            AssentError: sampling, policy and reference do not agree, which is a fault of assent.
        """
        rollout, is_float32 = self.rollout, self.trainer.run.dtype == torch.float32
        if not bool(rollout.mask.any()):
            return
        # packs of another shape round otherwise: in bfloat16 single log-probabilities move by a few hundredths
        if abs(metrics["ratio"] - 1) > (1e-3 if is_float32 else 2e-2):
            _fail_check(f"the first importance ratio is {metrics['ratio']:.4f}, not 1")
        kl = float(sequence_kl(rollout.logprobs, rollout.reference_logprobs, rollout.mask).metrics["kl"])
        if self.number == 0 and abs(kl) > 1e-3:
            _fail_check(f"policy and reference differ before the first step (KL {kl:.4f})")
        difference = sampler_logprob_diff(rollout, self.completions.samples)
        # a policy that is read only once has no first ratio to tell that sampling and training disagree
        if self.is_deferred and difference > (1e-2 if is_float32 else 0.1):
            _fail_check(f"the sampler's log-probabilities differ from the trainer's by {difference:.3f}")


def sampler_logprob_diff(rollout: Rollout, samples: list[Sample]) -> float:
    """Return the mean absolute difference between the sampler's and the trainer's log-probabilities of a token."""
    sampler = torch.tensor([value for s in samples for value in s.logprobs])
    return float((rollout.logprobs[rollout.mask] - sampler).abs().mean())


def _fail_check(problem: str) -> None:
    raise AssentError(f"internal check failed: {problem}; please report this with the command and recipe.toml")


def token_entropy(now: TokenLogprobs) -> Tensor:
    """Return the entropy that was asked for, (N,)."""
    assert now.entropy is not None
    return now.entropy
