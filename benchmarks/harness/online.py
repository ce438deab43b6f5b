"""Our side of the benchmarks in which a policy learns from its own completions."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from assent.generation.sampling import Sample, Sampling
from assent.models.forward import logprobs
from assent.models.load import LoadedModel, load_policy
from assent.models.packing import SharedPrefix, pack
from assent.online.models import OnlineModels
from assent.online.trainer import OnlineTrainer, RolloutSettings
from assent.protocols import OnlineObjective, Reward
from assent.records import Prompt, Response
from assent.run import Run
from assent.scoring import WeightedReward, WeightedRewards
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from harness.clock import Clock
from harness.data import prompts_from_json
from harness.roofline import Cost


class LengthReward:
    """A reward that costs nothing: hundreds of letters."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Score responses, (N,)."""
        return torch.tensor([len(response.text) / 100 for response in responses])


class _FixedFirstStep(OnlineTrainer):
    """The stage's own trainer, whose first step uses given responses."""

    responses: Mapping[str, list[list[int]]]  # by prompt id
    num_sampled = 0

    def sample(self, prompts: list[Prompt], number: int, attempt: int = 0) -> list[list[Sample]]:
        """Return the given responses in step 0, samples of the policy afterwards."""
        if number:
            groups = super().sample(prompts, number, attempt)
            self.num_sampled += sum(len(sample.token_ids) for group in groups for sample in group)
            return groups
        return [self._given_samples(i, prompt) for i, prompt in enumerate(prompts)]

    def _given_samples(self, index: int, prompt: Prompt) -> list[Sample]:
        prefix = SharedPrefix(self.prompt_ids[prompt.id], tuple(map(tuple, self.responses[prompt.id])))
        with torch.no_grad():
            values = logprobs(self.policy.model, pack([prefix]).to(self.run.device), self.temperature).logprobs
        parts = values.cpu().split([len(ids) for ids in prefix.completions])
        return [
            Sample(index, ids, tuple(part.tolist()), False) for ids, part in zip(prefix.completions, parts, strict=True)
        ]


def run_online(
    work: dict[str, Any],
    clock: Clock,
    objective: OnlineObjective,
    reward: Reward,
    compared: Sequence[str],
    value: LoadedModel | None = None,
) -> Mapping[str, Any]:
    """Take the steps of an online stage: each samples responses to all prompts of the work, and learns from them.

    Args:
        compared: metrics of the first step that are compared.
        value: the value model, if the objective needs one.
    """
    device = torch.device(work["device"])
    dtype = getattr(torch, work["dtype"])
    prompts = prompts_from_json(work["messages"])
    settings = RolloutSettings(
        n=work["n"], missing_eos_score="off", sampling=Sampling(work["temperature"], work["max_new_tokens"])
    )
    training = Training(
        lr=work["lr"], epochs=work["epochs"], batch_size=len(prompts), lr_scheduler_type="constant", warmup_ratio=0.0,
        max_grad_norm=work["max_grad_norm"],
    ).on(device)  # fmt: skip
    updates = work["steps"] * work["epochs"]
    policy = load_policy(work["model"], device=device)
    states = {"policy": ReplicatedState(policy, training, updates, dtype)}
    if value is not None:
        states["value"] = ReplicatedState(value, training, updates, dtype)
    reference = load_policy(work["model"], dtype, device).model.requires_grad_(False)
    run = cast(Run, SimpleNamespace(seed=0, device=device, dtype=dtype))
    vars(policy.chat_tokenizer)["stop_ids"] = frozenset()  # so that both sides sample the same number of tokens
    models = OnlineModels(policy, reference, WeightedRewards((WeightedReward("reward", reward, 1.0),)), value)
    extra_state = {"beta": work["beta"]}
    trainer = _FixedFirstStep(run, settings, objective, training, models, states, prompts, [], extra_state)
    trainer.responses = {prompt.id: group for prompt, group in zip(prompts, work["responses"], strict=True)}
    for number in range(work["steps"]):
        clock.begin()
        metrics = trainer.step(number)
        clock.end()
        if number == 0:
            clock.record(**{name: metrics[name] for name in compared})
    # unavoidable: sampling, the reference, every epoch of training; reward and value model likewise
    prompt_tokens = sum(map(len, work["prompts"]))
    sampled = trainer.num_sampled
    cost = Cost.of(policy.model)
    flops = cost.forward(prompt_tokens + sampled, sampled) * 2
    flops += work["epochs"] * cost.training(prompt_tokens + sampled, sampled)
    if value is not None:
        body = Cost(cost.body, 0)
        flops += 2 * body.forward(prompt_tokens + sampled) + work["epochs"] * body.training(prompt_tokens + sampled)
    return {"drawn": sampled, "flops": flops}
