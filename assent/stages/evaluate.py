"""Win rates: policies respond to held-out prompts, a judge compares them with the baseline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from assent.config import NamedPlugin, plugins
from assent.errors import AssentError, warn
from assent.evaluation.agreement import reward_model_agreement
from assent.evaluation.candidates import (
    Candidate,
    generate_candidate,
    held_out_prompts,
    selected_candidate,
    selection_label,
    trained_policies,
)
from assent.evaluation.judges import Judge, Judged, judge_choices, judge_class, load_judge
from assent.evaluation.measures import (
    MeasureInputs,
    Measures,
    ModelMeasures,
    compare_policies,
    measure_draws,
    measure_model,
)
from assent.evaluation.win_rates import WinRates, compute_win_rates, control_length
from assent.functional.kl import sequence_kl
from assent.functional.length_control import LengthControlled
from assent.generation.responses import prompts_within_context
from assent.generation.sampling import Sampling
from assent.models.checkpoints import weights_digest
from assent.models.forward import logprobs
from assent.models.load import LoadedModel, load_policy
from assent.models.packing import SharedPrefix, pack
from assent.protocols import Stage
from assent.records import Prompt, content_id
from assent.run import Run
from assent.training.batching import INFERENCE_TOKENS, plan_batches
from assent.training.logging import ProgressBar

KL_PROMPTS = 64
"""Held-out prompts on which the divergence from the baseline is measured."""


@dataclass(frozen=True)
class PolicyResult:
    """What was measured of one policy."""

    judge_score: float | None
    """Mean of the judge's scores; None: the judge gives none."""
    mean_words: float
    eos_rate: float
    """Share of responses that ended by themselves, before the limit on new tokens."""
    responses: str
    """The store's name for the responses."""
    win_rates: WinRates | None = None
    """None for the baseline."""
    length_controlled: LengthControlled | None = None
    """The win rate at equal length; None for the baseline."""
    kl: float | None = None
    """Divergence from the baseline in nats a response, if it is known."""
    measures: Mapping[str, Any] = field(default_factory=dict)
    """What `evaluation/measures.py` measured, as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        row: dict[str, Any] = {
            "judge_score": self.judge_score,
            "mean_words": self.mean_words,
            "eos_rate": self.eos_rate,
            "responses": self.responses,
            **self.measures,
        }
        if self.win_rates is None:
            return row
        by_category = {category: rate._asdict() for category, rate in self.win_rates.by_category.items()}
        row |= {"win": self.win_rates.overall._asdict(), "by_category": by_category, "kl": self.kl}
        return row | ({"length_controlled": self.length_controlled._asdict()} if self.length_controlled else {})


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` reports."""

    baseline: str
    judge: str
    prompts: int
    policies: Mapping[str, PolicyResult]
    """The baseline comes first."""
    reward_model: Mapping[str, float]
    """Agreement of the reward model with the judge; empty: not measured."""
    draws: Mapping[str, Any]
    """Best-of-n and the reward model on several responses to one prompt; empty: not measured."""
    weights: Mapping[str, str]
    """Fingerprints of all that was compared, to notice when it has changed."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        policies = {name: result.to_dict() for name, result in self.policies.items()}
        return {
            "baseline": self.baseline,
            "judge": self.judge,
            "prompts": self.prompts,
            "policies": policies,
            "reward_model": dict(self.reward_model),
            **({"draws": dict(self.draws)} if self.draws else {}),
            "weights": dict(self.weights),
        }


@dataclass(frozen=True)
class Evaluate(Stage):
    """Compare policies with a baseline on held-out prompts."""

    aim: ClassVar[str] = "a judge compares policies and base"
    policies: tuple[str, ...] = ()
    """Policies to measure, by the name of their stage; empty: all that were trained in this round."""
    baseline: str = ""
    """The policy to compare with; empty: the one that the first round started from."""
    judge: str = ""
    """A reward, whose scores are compared (a file of rewards/, your own `mine.py`, a reward model), or an annotator
    (`human`, `simulated`); empty: this round's reward model, which is biased towards policies trained
    on it."""
    judge_plugins: tuple[NamedPlugin, ...] = plugins("judge", judge_class, judge_choices)
    measures: Measures = Measures()
    sampling: Sampling = Sampling(temperature=0.7)

    def __post_init__(self) -> None:
        if self.measures.draws > 1 and not self.sampling.temperature:
            raise ValueError("temperature = 0 gives equal draws; leave draws out, or set the temperature above 0")

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if run.key("control") in run.recipe and not trained_policies(run):
            raise AssentError(
                f"{run.folder} trains an agent: 'assent control' measures it at its end, and 'assent report' shows it"
            )
        baseline = self.baseline or run.initial_policy
        policies = self._policies(run)
        prompts = held_out_prompts(run)
        if baseline in policies:
            raise AssentError(f"'{baseline}' is the baseline; leave it out of --policies")
        for name in policies:
            if not selection_label(run, name):
                run.policy(name)  # raises for an unknown policy before the first response is generated
        judge = self._load_judge(run)
        baseline_model = load_policy(run.policy(baseline), run.dtype, run.device, run.rendering)
        prompts = judge.renderable(prompts_within_context(prompts, baseline_model, self.sampling.max_new_tokens))
        inputs = self.measures.load(run, prompts, baseline_model, judge)
        candidates, measured = self._candidates(run, key, baseline, baseline_model, policies, prompts, inputs)
        responses = {candidate.policy: candidate.responses for candidate in candidates}
        judged = judge.compare(run, key, prompts, responses, baseline)
        agreement = reward_model_agreement(run, key, prompts, judge, judged)
        measures = compare_policies(run, prompts, candidates, measured)
        return EvaluationResult(
            baseline=baseline,
            judge=judge.name,
            prompts=len(prompts),
            policies={
                candidate.policy: measure_policy(candidate, judged, candidates[0], measures[candidate.policy])
                for candidate in candidates
            },
            reward_model=agreement._asdict() | {"accuracy": agreement.rate} if agreement else {},
            draws=measure_draws(judge, inputs, candidates, measured),
            weights=self._weights(run),
        ).to_dict()

    def is_stale(self, run: Run, key: str, result: Mapping[str, Any]) -> bool:
        """Return whether a compared model was trained since this was measured."""
        return bool(result.get("weights") != self._weights(run))

    def _policies(self, run: Run) -> list[str]:
        policies = list(self.policies) or trained_policies(run)
        if not policies:
            raise AssentError(f"{run.folder} has no trained policy to measure; run 'assent ppo' or 'assent dpo' first")
        return policies

    def _judge_name(self, run: Run) -> str:
        return self.judge or run.key("reward")

    def _load_judge(self, run: Run) -> Judge:
        """Load the judge, and warn if it is the reward model only because none was named."""
        name = self._judge_name(run)
        if not self.judge:
            if not (run.folder / name / "config.json").exists():
                raise AssentError(
                    f"{run.folder} has no reward model to judge with; "
                    f"name a judge with --judge (a reward or an annotator), or run 'assent reward' first"
                )
            warn(
                f"the judge is the run's own reward model '{name}': its win rates are biased towards policies that "
                f"were trained on it or on the same feedback; name an independent judge with --judge"
            )
        return load_judge(run, name, self.judge_plugins[0].plugin if self.judge_plugins else None)

    def _candidates(
        self,
        run: Run,
        key: str,
        baseline: str,
        baseline_model: LoadedModel,
        policies: list[str],
        prompts: list[Prompt],
        inputs: MeasureInputs,
    ) -> tuple[list[Candidate], dict[str, ModelMeasures]]:
        """Return the responses of each policy, the baseline first, and what is measured on the weights of each."""
        candidates: list[Candidate] = []
        measured: dict[str, ModelMeasures] = {}
        for name in (baseline, *policies):
            if name != baseline and selection_label(run, name):
                candidates.append(selected_candidate(run, name, prompts, baseline))
                continue
            model = baseline_model
            if name != baseline:
                model = load_policy(run.policy(name), run.dtype, run.device, run.rendering)
            candidate = generate_candidate(run, name, model, prompts, key, self.sampling)
            if name != baseline:
                temperature = self.sampling.temperature or 1.0
                kl = _measure_kl(model, baseline_model, prompts, candidate, temperature, f"{key}: KL of {name}")
                candidate = candidate._replace(kl=kl)
            candidates.append(candidate)
            measured[name] = measure_model(run, key, model, candidate, prompts, inputs, self.sampling)
        return candidates, measured

    def _weights(self, run: Run) -> dict[str, str]:
        judge = self._judge_name(run)
        baseline = self.baseline or run.initial_policy
        models = (*(self.policies or trained_policies(run)), baseline, judge, run.key("reward"))
        weights = {name: weights_digest(str(run.folder / name)) for name in models if name in run.models}
        weights |= {name: label for name in models if (label := selection_label(run, name))}
        rule = Path(judge)
        if rule.suffix == ".py" and rule.exists():
            weights[judge] = content_id(rule.read_text())
        return weights


def measure_policy(
    candidate: Candidate, judged: Judged, baseline: Candidate, measures: Mapping[str, Any] | None = None
) -> PolicyResult:
    """Summarise a policy's responses and the votes on them."""
    responses, scores = candidate.responses, judged.scores.get(candidate.policy)
    outcomes = judged.outcomes.get(candidate.policy)
    return PolicyResult(
        judge_score=sum(scores) / len(responses) if scores else None,
        mean_words=sum(len(response.text.split()) for response in responses) / len(responses),
        eos_rate=sum(response.finished for response in responses) / len(responses),
        responses=responses[0].policy,
        win_rates=None if outcomes is None else compute_win_rates(outcomes),
        length_controlled=None if outcomes is None else control_length(outcomes, responses, baseline.responses),
        kl=candidate.kl,
        measures=measures or {},
    )


@torch.no_grad()
def _measure_kl(
    model: LoadedModel,
    baseline_model: LoadedModel,
    prompts: list[Prompt],
    candidate: Candidate,
    temperature: float,
    progress: str,
) -> float:
    """Return the mean over responses of the summed log-ratio to the baseline (k1), at the sampling temperature."""
    tokenizer, device = model.chat_tokenizer, baseline_model.model.device
    rows = list(zip(prompts, candidate.responses, strict=True))[:KL_PROMPTS]
    sequences = [
        SharedPrefix(tokenizer.encode_prompt(prompt), (tokenizer.encode_completion(prompt, response.completion),))
        for prompt, response in rows
    ]
    total = 0.0
    with ProgressBar(progress, len(sequences)) as bar:
        for indices in plan_batches(sequences, INFERENCE_TOKENS):
            packed = pack([sequences[i] for i in indices]).to(device)
            policy_logprobs = packed.pad_completions(logprobs(model.model, packed, temperature).logprobs)
            baseline_logprobs = packed.pad_completions(logprobs(baseline_model.model, packed, temperature).logprobs)
            mask = torch.arange(policy_logprobs.shape[1], device=device) < packed.completion_lens[:, None]
            total += float(sequence_kl(policy_logprobs, baseline_logprobs, mask).k1.sum())
            bar.advance(len(indices))
    return total / len(sequences)
