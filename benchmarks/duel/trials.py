"""Our side of the benchmarks in which a policy learns from its own answers."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from assent.generation.local import Sample, Sampling
from assent.models.attention import SharedPrefix, pack
from assent.models.forward import logprobs
from assent.models.load import LoadedModel, load_policy
from assent.protocols import OnlineObjective, Reward
from assent.records import Prompt, Response
from assent.run import Run
from assent.stages.online import Online, OnlineTrainer
from assent.training.replicated import Training, TrainState
from duel.clock import Clock
from duel.limit import Cost
from duel.material import from_json


class Length:
    """A rule that costs nothing: hundreds of letters."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        return torch.tensor([len(response.text) / 100 for response in responses])


class _Given(OnlineTrainer):
    """The stage's own worker, but the first step is given its answers."""

    given: Mapping[str, list[list[int]]]  # of each prompt
    drawn = 0

    def _draw(self, asked: list[Prompt], number: int, again: int = 0) -> list[list[Sample]]:
        if number:
            groups = super()._draw(asked, number, again)
            self.drawn += sum(len(s.ids) for group in groups for s in group)
            return groups
        groups = []
        for i, prompt in enumerate(asked):
            tree = SharedPrefix(self.ids[prompt.id], tuple(map(tuple, self.given[prompt.id])))
            with torch.no_grad():
                said = logprobs(self.policy.model, pack([tree]).to(self.run.device), self.temperature).logprobs
            parts = said.cpu().split([len(ids) for ids in tree.completions])
            groups.append(
                [Sample(i, a, tuple(b.tolist()), False) for a, b in zip(tree.completions, parts, strict=True)]
            )
        return groups


def trials(
    work: dict[str, Any],
    clock: Clock,
    objective: OnlineObjective,
    judge: Reward,
    found: Sequence[str],
    value: LoadedModel | None = None,
) -> Mapping[str, Any]:
    """Step by step as the stage takes them: each draws answers to all prompts of the work and learns from them.

    Args:
        found: metrics of the first step that are compared.
        value: where the objective wants one.
    """
    device, dtype = torch.device(work["device"]), getattr(torch, work["dtype"])
    prompts = from_json(work["asked"])
    settings = Online(
        n=work["n"],
        steps=work["steps"],
        missing_eos_score="off",
        sampling=Sampling(work["temperature"], work["max_new_tokens"]),
        objective=objective,
        training=Training(
            lr=work["lr"], epochs=work["epochs"], batch_size=len(prompts), lr_scheduler_type="constant", warmup_ratio=0.0,
            max_grad_norm=work["max_grad_norm"],
        ).on(device),
    )  # fmt: skip
    updates = work["steps"] * work["epochs"]
    language = load_policy(work["model"], device=device)
    trainees = {"policy": TrainState(language, settings.training, updates, dtype)}
    if value is not None:
        trainees["value"] = TrainState(value, settings.training, updates, dtype)
    reference = load_policy(work["model"], dtype, device).model.requires_grad_(False)
    run = cast(Run, SimpleNamespace(seed=0, device=device, dtype=dtype))
    codec = language.codec
    vars(codec)["ends"] = frozenset()  # nothing ends an answer on either side, so that both draw as many tokens
    worker = _Given(settings, run, codec, prompts, trainees, reference, judge, {"beta": work["beta"]}, [])
    worker.given = {prompt.id: group for prompt, group in zip(prompts, work["given"], strict=True)}
    for number in range(work["steps"]):
        clock.begin()
        metrics = worker.step(number)
        clock.end()
        if number == 0:
            clock.found_in_step(**{name: metrics[name] for name in found})
    # what cannot be done without: to draw, to ask the reference, to learn in each epoch; judge and value model likewise
    prompt, new = sum(map(len, work["prompts"])), worker.drawn
    cost, other = Cost.of(language.model), Cost(Cost.of(language.model).body, 0)
    flops = cost.forward(prompt + new, new) * 2 + work["epochs"] * cost.training(prompt + new, new)
    if value is not None:
        flops += 2 * other.forward(prompt + new) + work["epochs"] * other.training(prompt + new)
    return {"drawn": worker.drawn, "flops": flops}
