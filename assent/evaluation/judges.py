"""Judges of two responses to one prompt: a reward compares their scores, an annotator compares the responses.

The name of a judge is that of a file of rewards/ or annotators/, of a user's own file, or of a reward model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from assent.errors import AssentError, did_you_mean
from assent.evaluation.win_rates import (
    INSTRUCTION,
    LOSS,
    TIE,
    WIN,
    Outcome,
    ResponsePair,
    comparison_task,
    pair_responses,
)
from assent.feedback.comparison import Comparison
from assent.functional.ensemble import combine
from assent.functional.near_identical import is_near_identical
from assent.labelling.arena import current, item_outcomes
from assent.labelling.collect import collect_judgements
from assent.legacy import scorer_annotators
from assent.protocols import Annotator, Reward
from assent.records import Feedback, Prompt, Response, Task, utc_now
from assent.registry import names, resolve
from assent.run import Run
from assent.scoring import RULES, CheckedRule, is_rule, load_scorer, may_be_model, renderable_prompts, rule_class


class DecidedPair(NamedTuple):
    """Two responses to one prompt, of which a judge prefers `chosen`."""

    prompt: Prompt
    chosen: Response
    rejected: Response


class Judged(NamedTuple):
    """A judge's comparisons of candidates with the baseline."""

    outcomes: dict[str, list[Outcome]]
    """The votes on each candidate, by policy."""
    scores: dict[str, list[float]]
    """The score of each response, by policy, the baseline's too; empty: the judge gives no scores."""
    decided: list[DecidedPair]
    """The pairs that an annotator decided; empty for a reward, which can score any pair."""


@dataclass(frozen=True)
class RewardJudge:
    """A judge that prefers the response with the higher score."""

    name: str
    reward: Reward

    def renderable(self, prompts: list[Prompt]) -> list[Prompt]:
        """Return the prompts that the reward can read."""
        return renderable_prompts(prompts, self.reward)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Score each response; of a reward-model ensemble, the members' mean."""
        scores: list[float] = combine(self.reward.score(prompts, responses)).tolist()
        return scores

    def compare(
        self, run: Run, key: str, prompts: list[Prompt], responses: Mapping[str, list[Response]], baseline: str
    ) -> Judged:
        """Compare each policy's responses with those of the baseline, and store the comparisons.

        Args:
            responses: of each policy, one to each prompt, the baseline's among them.
        """
        scores = {policy: self.score(prompts, policy_responses) for policy, policy_responses in responses.items()}
        outcomes: dict[str, list[Outcome]] = {}
        for policy in responses:
            if policy != baseline:
                pairs = pair_responses(prompts, responses[baseline], responses[policy])
                outcomes[policy] = self._compare(run, pairs, scores[baseline], scores[policy])
        return Judged(outcomes, scores, [])

    def _compare(
        self, run: Run, pairs: list[ResponsePair], baseline_scores: list[float], candidate_scores: list[float]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        verdicts: dict[Task, Comparison] = {}
        for pair, before, after in zip(pairs, baseline_scores, candidate_scores, strict=True):
            value = TIE if pair.is_same or before == after else WIN if after > before else LOSS
            outcomes.append(Outcome(pair.prompt, value))
            if not pair.is_same:
                items = (pair.baseline.id, pair.candidate.id)
                verdict = Comparison(verdict="tie") if value == TIE else Comparison(preferred=items[value == WIN])
                verdicts[comparison_task(pair.prompt.id, items)] = verdict
        self._store(run, verdicts)
        return outcomes

    def _store(self, run: Run, verdicts: Mapping[Task, Comparison]) -> None:
        """Store the verdicts; one that differs from an earlier one of this judge supersedes it."""
        run.store.add_tasks(verdicts)
        earlier = {
            event.task: event
            for name in scorer_annotators(self.name)
            for event in run.store.feedback(annotator=name, current=True)
        }
        feedback: list[Feedback] = []
        for task, verdict in verdicts.items():
            event = earlier.get(task.id)
            if event is None or event.judgement != verdict:
                superseded = "" if event is None else event.id
                feedback.append(
                    Feedback(task.id, f"judge:{self.name}", verdict, utc_now(), supersedes=superseded, source="scorer")
                )
        run.store.add_feedback(feedback)


@dataclass(frozen=True)
class AnnotatorJudge:
    """A judge that reads both responses: simulated annotators, people on the pages of `assent serve`, a model."""

    name: str
    annotator: Annotator

    def renderable(self, prompts: list[Prompt]) -> list[Prompt]:
        """Return the prompts that annotators can read: all."""
        return prompts

    def compare(
        self, run: Run, key: str, prompts: list[Prompt], responses: Mapping[str, list[Response]], baseline: str
    ) -> Judged:
        """Ask the annotator to compare each policy's responses with those of the baseline; arguments as for a reward.

        Responses that are near-identical and were therefore not asked about are a tie. A vote of "cannot tell" does
        not count.
        """
        pairs = {
            policy: pair_responses(prompts, responses[baseline], responses[policy])
            for policy in responses
            if policy != baseline
        }
        different = [pair for policy_pairs in pairs.values() for pair in policy_pairs if not pair.is_same]
        tasks = {task.id: task for task in map(_task_of, different)}
        votes: dict[str, list[Comparison]] = {}
        for event in current(collect_judgements(run, key, list(tasks.values()), self.annotator)):
            if isinstance(event.judgement, Comparison):
                votes.setdefault(event.task, []).append(event.judgement)
        outcomes: dict[str, list[Outcome]] = {policy: [] for policy in pairs}
        decided: list[DecidedPair] = []
        for policy, policy_pairs in pairs.items():
            for pair in policy_pairs:
                votes_on_pair = _outcomes(pair, votes)
                outcomes[policy] += votes_on_pair
                decided += [_decided(pair, outcome) for outcome in votes_on_pair if outcome.value != TIE]
        return Judged(outcomes, {}, decided)


Judge = RewardJudge | AnnotatorJudge


def judge_class(name: str) -> type | None:
    """Return the class of an annotator or a rule, whose fields are settings of the stage; None for a reward model."""
    cls: type | None = resolve("annotators", name) if name in names("annotators") else rule_class(name)
    return cls


def judge_choices() -> list[str]:
    """Return the judges that have a file."""
    return [*RULES, *names("annotators")]


def load_judge(run: Run, name: str, plugin: Any = None) -> Judge:
    """Load a judge by name.

    Args:
        plugin: the annotator or rule with its settings; None: with its default settings.

    Raises:
        AssentError: no judge has this name.
    """
    if name in names("annotators"):
        return AnnotatorJudge(name, resolve("annotators", name)() if plugin is None else plugin)
    if is_rule(name) and plugin is not None:
        return RewardJudge(name, CheckedRule(name, plugin))
    if not is_rule(name) and not may_be_model(run, name):
        choices = [*judge_choices(), *run.models]
        raise AssentError(f"no judge '{name}'{did_you_mean(name, choices)}")
    return RewardJudge(name, load_scorer(run, name))


def _task_of(pair: ResponsePair) -> Task:
    """Return the task that annotators get; it is the same whichever of the two is the baseline."""
    first, second = sorted((pair.baseline.id, pair.candidate.id))
    return comparison_task(pair.prompt.id, (first, second), INSTRUCTION)


def _outcomes(pair: ResponsePair, votes: Mapping[str, list[Comparison]]) -> list[Outcome]:
    """Return one outcome for each vote on a pair."""
    if pair.is_same:
        return [Outcome(pair.prompt, TIE)]
    task = _task_of(pair)
    if task.id not in votes and is_near_identical(pair.baseline.text, pair.candidate.text):
        return [Outcome(pair.prompt, TIE)]
    outcomes = [outcome for vote in votes.get(task.id, []) for outcome in item_outcomes(vote, task)]
    return [
        Outcome(pair.prompt, outcome if first == pair.candidate.id else 1 - outcome) for first, _, outcome in outcomes
    ]


def _decided(pair: ResponsePair, outcome: Outcome) -> DecidedPair:
    if outcome.value == WIN:
        return DecidedPair(pair.prompt, pair.candidate, pair.baseline)
    return DecidedPair(pair.prompt, pair.baseline, pair.candidate)
