"""Is it any better? Every policy answers the held-out prompts, and a judge compares it with the start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.functional.ensemble import combine
from assent.functional.kl import sequence_kl
from assent.functional.statistics import accuracy, win_rate
from assent.generation.local import Sampling
from assent.generation.responses import answer, answers_of, fitting
from assent.models.attention import SharedPrefix, pack
from assent.models.checkpoints import weights_of
from assent.models.forward import logprobs
from assent.models.load import LoadedModel, load_policy
from assent.protocols import Reward, Stage
from assent.records import CHAT, Feedback, Prompt, Response, Task, content_id
from assent.run import Run, policy_optimisers
from assent.scoring import scorable, scorer
from assent.split import split
from assent.training.batching import READING, packs
from assent.training.logging import ProgressBar

KL_PROMPTS = 64
"""Held-out prompts on which the distance from the start is measured."""


def held_out(run: Run) -> list[Prompt]:
    """Prompts that nothing was trained on; those that come up in talks would change what is measured on the way.

    Raises:
        AssentError: there are none.
    """
    prompts = [prompt for prompt in run.store.prompts() if prompt.source != CHAT]
    ids = split(prompts, run.setup.held_out).held_out
    if not ids:
        raise AssentError(f"{run.folder} has no held-out prompts: take another --run with a higher --held-out")
    return [prompt for prompt in prompts if prompt.id in ids]


@dataclass(frozen=True)
class Evaluate(Stage):
    """Compare policies on prompts that nothing was trained on."""

    policies: tuple[str, ...] = ()
    """Checkpoints of the run to measure; empty: all policies that were trained in this round."""
    baseline: str = ""
    """What they are compared with; empty: `start`, or what pretraining and fine-tuning made of it."""
    judge: str = "conciseness_rubric"
    """Who judges: a file of rewards/ (noise-free), your own (`mine.py`), or a reward model (a checkpoint, a folder)."""
    sampling: Sampling = Sampling(temperature=0.7)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        against = self.baseline or base_of(run)
        policies = list(self.policies) or trained(run)
        if not policies:
            raise AssentError(f"{run.folder} has no trained policy to measure: run 'assent ppo' or 'assent dpo' first")
        held = held_out(run)
        if against in policies:
            raise AssentError(f"'{against}' cannot be compared with itself: leave it out of policies")
        for name in policies:
            if not _chosen(run, name):
                run.policy(name)  # that there is none should be said before the first answer is drawn
        judge = scorer(run, self.judge)
        base = load_policy(run.policy(against), run.dtype, run.device, run.rendering)
        held = scorable(fitting(held, base, self.sampling.max_new_tokens), judge)
        answers = {against: answers_to(run, against, base, held, key, self.sampling)}
        distance: dict[str, float] = {}
        for name in policies:
            if label := _chosen(run, name):
                there = {response.prompt: response for response in run.store.responses(policy=label)}
                if any(prompt.id not in there for prompt in held):
                    raise AssentError(f"'{name}' has not answered every held-out prompt of now: do it with --overwrite")
                answers[name] = [there[prompt.id] for prompt in held]
                told = run.result(name) or {}
                if told.get("policy") == against:  # its bound is on the distance from who drew
                    distance[name] = told["kl"]
                continue
            language = load_policy(run.policy(name), run.dtype, run.device, run.rendering)
            answers[name] = answers_to(run, name, language, held, key, self.sampling)
            distance[name] = self._kl(run, (language, base), held, answers[name], f"{key}: KL of {name}")
        worth = {name: combine(judge.score(held, answers[name])).tolist() for name in answers}
        found: dict[str, Any] = {}
        for name in (against, *policies):
            one = answers[name]
            found[name] = {
                "utility": sum(worth[name]) / len(held),
                "words": sum(len(r.text.split()) for r in one) / len(held),
                "finished": sum(r.finished for r in one) / len(held),
                "answers": one[0].policy,
            }
        for name in policies:
            found[name] |= self._compare(run, held, answers[against], answers[name], worth[against], worth[name])
            found[name]["kl"] = distance.get(name)
        return {
            "against": against,
            "judge": self.judge,
            "prompts": len(held),
            "policies": found,
            "reward_model": self._reward_model(run, held, key, judge),
            "weights": self._weights(run),
        }

    def is_stale(self, run: Run, key: str, result: Mapping[str, Any]) -> bool:
        """Return whether a compared model was trained since this was measured."""
        return bool(result.get("weights") != self._weights(run))

    def _weights(self, run: Run) -> dict[str, str]:
        names = (*(self.policies or trained(run)), self.baseline or base_of(run), self.judge, run.key("reward"))
        known = {name: weights_of(str(run.folder / name)) for name in names if name in run.models}
        known |= {name: label for name in names if (label := _chosen(run, name))}
        rule = Path(self.judge)
        return known | ({self.judge: content_id(rule.read_text())} if rule.suffix == ".py" and rule.exists() else {})

    def _compare(
        self,
        run: Run,
        held: Sequence[Prompt],
        before: Sequence[Response],
        after: Sequence[Response],
        worth_before: Sequence[float],
        worth_after: Sequence[float],
    ) -> dict[str, Any]:
        """Judge every held-out prompt, keep the judgements in the store, and count them."""
        outcome: dict[str, list[int]] = {}
        queries, feedback = list[Task](), list[Feedback]()
        now = datetime.now(UTC).isoformat()
        for prompt, old, new, low, high in zip(held, before, after, worth_before, worth_after, strict=True):
            sign = (high > low) - (high < low) if old.id != new.id else 0
            for mode in dict.fromkeys(("", prompt.category)):
                outcome.setdefault(mode, []).append(sign)
            if old.id != new.id:
                query = Task("comparison", prompt.id, (old.id, new.id), "evaluate")
                said = Comparison(preferred=(old.id, new.id)[sign > 0]) if sign else Comparison(verdict="tie")
                queries.append(query)
                feedback.append(Feedback(query.id, f"judge:{self.judge}", said, now, id=f"{self.judge}:{query.id}"))
        run.store.add_tasks(queries)
        known = {event.id for event in run.store.feedback(annotator=f"judge:{self.judge}")}
        run.store.add_feedback(event for event in feedback if event.id not in known)
        rates = {
            mode: win_rate(signs.count(1), signs.count(0), signs.count(-1))._asdict() for mode, signs in outcome.items()
        }
        return {"win": rates.pop(""), "by_mode": rates}

    @torch.no_grad()
    def _kl(
        self, run: Run, languages: tuple[LoadedModel, LoadedModel], held: list[Prompt], made: list[Response], name: str
    ) -> float:
        """Mean over answers of the summed log-ratio to what it is compared with (k1), at the sampling temperature."""
        codec = languages[0].codec
        some = list(zip(held, made, strict=True))[:KL_PROMPTS]
        trees = [SharedPrefix(codec.prompt(p), (codec.completion(p, r.completion),)) for p, r in some]
        total = 0.0
        with ProgressBar(name, len(trees)) as bar:
            for part in packs(trees, READING):
                packed = pack([trees[i] for i in part]).to(run.device)
                temperature = self.sampling.temperature or 1.0
                one, other = (packed.padded(logprobs(lang.model, packed, temperature).logprobs) for lang in languages)
                mask = torch.arange(one.shape[1], device=run.device) < packed.lengths[:, None]
                total += float(sequence_kl(one, other, mask).k1.sum())
                bar.advance(len(part))
        return total / len(trees)

    def _reward_model(self, run: Run, held: list[Prompt], key: str, judge: Reward) -> dict[str, Any]:
        """How often the round's reward model prefers the same of two held-out answers as the judge does."""
        folder = run.folder / run.key("reward")
        if not (folder / "config.json").exists() or self.judge == run.key("reward"):
            return {}
        about: dict[str, list[Response]] = {}
        label = (run.result(run.key("generate")) or {}).get("label", "")
        for response in run.store.responses(policy=label) if label else ():
            about.setdefault(response.prompt, []).append(response)
        rows = [(p, r) for p in held for r in about.get(p.id, [])]
        if not rows:
            return {}
        asked, answers = [p for p, _ in rows], [r for _, r in rows]
        with ProgressBar(f"{key}: reward model", 1) as bar:
            guess = combine(scorer(run, run.key("reward")).score(asked, answers)).tolist()
            bar.advance()
        truth = combine(judge.score(asked, answers)).tolist()
        right: list[float] = []
        clusters: list[str] = []
        by_prompt: dict[str, list[int]] = {}
        for i, prompt in enumerate(asked):
            by_prompt.setdefault(prompt.id, []).append(i)
        for name, members in by_prompt.items():
            for i, j in combinations(members, 2):
                if truth[i] != truth[j]:
                    right.append(0.5 if guess[i] == guess[j] else float((guess[i] > guess[j]) == (truth[i] > truth[j])))
                    clusters.append(name)
        return accuracy(right, clusters)._asdict() | {"accuracy": sum(right) / len(right)} if right else {}


def answers_to(
    run: Run, name: str, language: LoadedModel, held: list[Prompt], key: str, sampling: Sampling
) -> list[Response]:
    """One answer of a policy to each held-out prompt; those that `generate` drew are used if they are there."""
    drawn: dict[str, Response] = {}
    for stage in ("generate", run.key("generate")):
        there = run.result(stage) or {}
        if there.get("policy") == name and there.get("weights") == weights_of(run.policy(name)):
            for response in run.store.responses(policy=there["label"]):
                drawn.setdefault(response.prompt, response)
    if not all(prompt.id in drawn for prompt in held):
        label = answers_of(run, key, name, sampling)
        made = answer(run, language.codec, language.model, held, 1, sampling, label, 64, f"{key}: {name}")
        drawn = {}
        for response in made:
            drawn.setdefault(response.prompt, response)
    return [drawn[prompt.id] for prompt in held]


def base_of(run: Run) -> str:
    """What the first round began with."""
    return next((name for name in ("sft", "pretrain") if run.result(name) is not None), "start")


def trained(run: Run) -> list[str]:
    """What this round's stages made of the policy, in the order of the recipe."""
    keys = [run.key(name) for name in (*policy_optimisers(), "best_of_n")]
    return [k for k in run.recipe if k in keys and ((run.folder / k / "config.json").exists() or _chosen(run, k))]


def _chosen(run: Run, name: str) -> str:
    """Under what name the store keeps the answers of a stage that chose some and trained nothing; else nothing."""
    return str((run.result(name) or {}).get("chosen", ""))
