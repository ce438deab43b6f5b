"""Probes for over-optimisation: an independent judge scores held-out completions while the policy trains.

The reward that a policy is trained on is a proxy: optimised too far, it rises while the quality falls (Gao et al. 2022,
arXiv:2210.10760). Every few steps the policy completes the same held-out prompts with the same random numbers, and a
judge that the policy is not trained on scores the completions. The alarm of `functional/alarm.py` compares each probe
with the best one so far. When it fires, training stops, and the policy of the best probe is kept.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from assent.errors import AssentError, warn
from assent.functional.alarm import Alarm, AlarmState
from assent.functional.ensemble import combine
from assent.functional.kl import sequence_kl
from assent.generation.responses import prompts_of_split
from assent.generation.rollout_batch import RolloutBatch
from assent.models.forward import logprobs
from assent.models.load import LoadedModel
from assent.models.packing import pack
from assent.online.trainer import OnlineTrainer
from assent.protocols import Reward
from assent.records import Prompt, Response
from assent.registry import names
from assent.run import Run
from assent.scoring import THIS_ROUND, load_scorer, renderable_prompts
from assent.seeds import Purpose, derive, named_rng
from assent.training.batching import plan_batches
from assent.training.distributed import is_rank0, on_rank0
from assent.training.loop import read_state, write_state
from assent.types import PositiveInt

NUM_EXAMPLES = 3
"""Prompts whose completions at the best probe and at the alarm are kept: those with the greatest falls."""


@dataclass(frozen=True)
class ProbeSettings:
    """The alarm against over-optimisation."""

    probe_judge: str = ""
    """Judge that scores held-out completions while the policy trains: a file of rewards/, your own file, or another
    reward model, but no reward that the policy is trained on; empty: no probes."""
    probe_steps: PositiveInt = 4
    """Steps from one probe to the next."""
    probe_prompts: PositiveInt = 64
    """Held-out prompts of a probe, the same for all probes."""
    watch_only: bool = False
    """Report an alarm and train on; otherwise training stops, and the policy of the best probe is kept."""

    def __post_init__(self) -> None:
        if self.probe_prompts < 2:
            raise ValueError("probe_prompts = 1 has no standard error; use 2 or more")
        if self.watch_only and not self.probe_judge:
            raise ValueError("watch_only is about the alarm of a judge; name one with probe_judge")


class Measurement(NamedTuple):
    """What a probe measures; means are over its prompts."""

    scores: list[float]
    """The judge's score of each completion."""
    reward: float
    """Mean of the reward that the policy is trained on."""
    kl: float
    """Divergence from the reference in nats a completion (k1)."""
    texts: list[str]


class Probe:
    """The probes of one online stage.

    Args:
        steps: of the whole training; the last one is always followed by a probe.
        extra_state: saved with the training state, and restored; its key `probe` holds what has been measured.
    """

    def __init__(
        self,
        run: Run,
        key: str,
        settings: ProbeSettings,
        trainer: OnlineTrainer,
        steps: int,
        extra_state: dict[str, Any],
    ) -> None:
        self._trainer = trainer
        self._settings = settings
        self._steps = steps
        self._folder: Path = run.folder / "state" / key
        self._extra_state = extra_state
        self._extra_state.setdefault("probe", {})
        self._seed = run.seed
        judge = run.key(THIS_ROUND) if settings.probe_judge == THIS_ROUND else settings.probe_judge
        self._judge = load_probe_judge(run, judge)
        if _is_one_of(judge, [term.name for term in trainer.rewards.terms]):
            warn(
                f"the policy is trained on probe_judge = '{settings.probe_judge}', so it may rise while the quality "
                "falls; name an independent judge"
            )
        policy = LoadedModel(trainer.policy.model, trainer.tokenizer)
        prompts = prompts_of_split(run, policy, trainer.settings.sampling.max_new_tokens, "held_out")
        prompts = renderable_prompts(trainer.rewards.renderable(prompts), self._judge)
        if len(prompts) < 2:
            raise AssentError(f"a probe needs two held-out prompts, and {run.folder} has {len(prompts)}; add prompts")
        self._held_out = {prompt.id: prompt for prompt in prompts}

    def _prompts(self) -> list[Prompt]:
        """Return the prompts of every probe: those of the first one, although prompts may have been added since."""
        ids = self._state.get("prompts")
        if ids is None:
            count = min(self._settings.probe_prompts, len(self._held_out))
            ids = named_rng(self._seed, "probe").sample(list(self._held_out), count)
        if gone := sum(prompt not in self._held_out for prompt in ids):
            raise AssentError(f"{gone} of {len(ids)} prompts of the earlier probes are gone; rerun with --overwrite")
        return [self._held_out[prompt] for prompt in ids]

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._extra_state["probe"]
        return state

    @property
    def _alarm(self) -> AlarmState:
        return AlarmState.from_dict(self._state["alarm"]) if self._state else AlarmState()

    def step(self, number: int) -> dict[str, float]:
        """Take training step `number`, with the probes that are due before and after it; return its metrics."""
        if not self._state:
            self._probe(number)
        metrics = self._trainer.step(number)
        if (number + 1) % self._settings.probe_steps == 0 or number + 1 == self._steps:
            metrics |= self._probe(number + 1)
        return metrics

    def should_stop(self) -> bool:
        """Return whether training has to end before its last step."""
        return not self._settings.watch_only and self._alarm.fired

    def finish(self) -> dict[str, Any]:
        """Give the policy the weights of the best probe if the alarm stopped training; return what was measured."""
        alarm, is_stopped = self._alarm, self.should_stop()
        if is_stopped and is_rank0():
            self._trainer.policy.load_weights(read_state(self._weights_file(alarm.best_step)))
        return {
            "judge": self._settings.probe_judge,
            "prompts": len(self._state["prompts"]),
            "points": self._state["points"],
            "fired_at": alarm.fired_at,
            "best_step": self._state.get("best_step_at_alarm", alarm.best_step),
            "kept_step": alarm.best_step if is_stopped else self._state["points"][-1]["step"],
            "stopped": is_stopped,
            "examples": self._state.get("examples", []),
        }

    def _probe(self, step: int) -> dict[str, float]:
        """Measure the policy after `step` steps, and keep its weights if it is the best so far."""
        prompts = self._prompts()
        measured = on_rank0(lambda: self._measure(prompts))
        before = self._alarm
        alarm = Alarm().update(before, step, measured.scores)
        scores = torch.tensor(measured.scores, dtype=torch.float64)
        point = {
            "step": step,
            "score": float(scores.mean()),
            "score_se": float(scores.std()) / math.sqrt(len(scores)),
            "score_sd": float(scores.std()),
            "reward": measured.reward,
            "kl": measured.kl,
            "z": alarm.z_now if step != alarm.best_step else 0.0,
        }
        state = self._state
        state["prompts"] = [prompt.id for prompt in prompts]
        state["points"] = [*state.get("points", []), point]
        state["alarm"] = alarm.to_dict()
        if alarm.best_step == step:
            state["best_texts"] = measured.texts
            if is_rank0() and not self._settings.watch_only:
                self._save_weights(step)
        if alarm.fired and not before.fired:
            state |= {"best_step_at_alarm": alarm.best_step, "examples": self._examples(alarm, measured, prompts)}
        return {
            "probe_score": point["score"],
            "probe_reward": point["reward"],
            "probe_kl": point["kl"],
            "probe_z": point["z"],
        }

    @torch.no_grad()
    def _measure(self, prompts: list[Prompt]) -> Measurement:
        trainer, seed = self._trainer, derive(self._seed, Purpose.PROBE)
        prompt_ids = [trainer.tokenizer.encode_prompt(prompt) for prompt in prompts]
        samples = trainer.generator.generate(prompt_ids, 1, trainer.settings.sampling, seed)
        completions = RolloutBatch(prompt_ids, [[sample] for sample in samples])
        policy, reference = completions.zeros(), completions.zeros()
        for row, sample in enumerate(samples):
            policy[row, : len(sample.logprobs)] = torch.tensor(sample.logprobs)
        for part in plan_batches(completions.shared_prefixes, trainer.max_tokens):
            packed = pack([completions.shared_prefixes[i] for i in part]).to(trainer.run.device)
            completions.scatter(
                reference, part, packed, logprobs(trainer.reference, packed, trainer.temperature).logprobs
            )
        responses = [
            Response.of(prompt.id, trainer.tokenizer.to_completion(prompt, sample.token_ids, sample.finished), "")
            for prompt, sample in zip(prompts, samples, strict=True)
        ]
        scores = combine(self._judge.score(prompts, responses))
        if not bool(scores.isfinite().all()):
            raise AssentError(f"probe_judge = '{self._settings.probe_judge}' gave a score that is not finite")
        return Measurement(
            scores=scores.tolist(),
            reward=float(trainer.rewards.score(prompts, responses).total.mean()),
            kl=float(sequence_kl(policy, reference, completions.mask).k1.mean()),
            texts=[response.text for response in responses],
        )

    def _weights_file(self, step: int | None) -> Path:
        return self._folder / f"best-{step}.pt"

    def _save_weights(self, step: int) -> None:
        """Write the weights, and delete older ones; those of the saved state stay, as a resumed process needs them."""
        path, saved = self._weights_file(step), self._folder / "state.pt"
        write_state(path, self._trainer.policy.weights())
        older = {file: file.stat().st_mtime_ns for file in self._folder.glob("best-*.pt") if file != path}
        if saved.exists():
            known = [file for file, time in older.items() if time <= saved.stat().st_mtime_ns]
            older.pop(max(known, key=older.__getitem__, default=path), None)
        for file in older:
            file.unlink()

    def _examples(self, alarm: AlarmState, measured: Measurement, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """Return the prompts with the greatest falls, with their completions at the best and at the last probe."""
        falls = [best - last for best, last in zip(alarm.best_scores, measured.scores, strict=True)]
        worst = sorted(range(len(falls)), key=lambda i: -falls[i])[:NUM_EXAMPLES]
        return [
            {"prompt": prompts[i].text, "best": self._state["best_texts"][i], "last": measured.texts[i]}
            for i in worst
            if falls[i] > 0
        ]


def load_probe_judge(run: Run, name: str) -> Reward:
    """Load the judge of the probes.

    Raises:
        AssentError: no reward has this name, or it is an annotator, which gives no scores.
    """
    if name in names("annotators"):
        raise AssentError(f"probe_judge = '{name}' is an annotator, which gives no scores; name a reward")
    return load_scorer(run, name)


def _is_one_of(judge: str, rewards: Iterable[str]) -> bool:
    """Return whether a judge is one of the rewards, by name or as the same file."""
    return any(judge == reward or Path(judge).resolve() == Path(reward).resolve() for reward in rewards)
