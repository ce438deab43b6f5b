"""Responses of a round's policies to the held-out prompts, with the judge's outcome of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from assent.config import override, settings
from assent.evaluation.candidates import held_out_prompts
from assent.functional.ensemble import combine
from assent.labelling.arena import current, item_outcomes
from assent.legacy import scorer_annotators
from assent.records import Feedback, Prompt, Response, Task
from assent.registry import names
from assent.report.rounds import Round, StageKey
from assent.run import Run
from assent.scoring import RULES, load_rule


@runtime_checkable
class CriteriaReward(Protocol):
    """A reward whose score is the mean of criteria that the report shows one by one."""

    def criteria(self, prompt: Prompt, response: Response) -> Mapping[str, float]:
        """Return the score of each criterion by name, 0 to 1."""
        ...


class JudgedResponse(NamedTuple):
    """A response as the page shows it."""

    policy: str
    text: str
    finished: bool
    outcome: str
    """won, tied or lost against the baseline; empty: not judged."""
    score: float | None
    """The judge's score; None: the judge gives none, or is a model, which is not run again for a report."""
    criteria: Mapping[str, float]
    """The score of each criterion of the judge; empty: it has none."""


class PromptComparison(NamedTuple):
    """A prompt with the responses of some policies; the baseline's comes first."""

    prompt: Prompt
    responses: tuple[JudgedResponse, ...]


@dataclass(frozen=True)
class Comparisons:
    """The responses of all policies of a round to the same held-out prompts."""

    baseline: str
    prompts: tuple[Prompt, ...]
    by_policy: Mapping[str, Mapping[str, JudgedResponse]]
    """By policy, the baseline first; then by prompt."""

    @property
    def has_criteria(self) -> bool:
        """Return whether the judge scores by criteria."""
        return any(response.criteria for responses in self.by_policy.values() for response in responses.values())

    def of_prompt(self, prompt: Prompt, policies: Iterable[str]) -> PromptComparison:
        """Return the responses of some policies to a prompt."""
        return PromptComparison(prompt, tuple(self.by_policy[policy][prompt.id] for policy in policies))


def read_comparisons(run: Run, round_: Round) -> Comparisons:
    """Read the responses that a round's evaluation compared, and what the judge said of them."""
    baseline, judge = round_.evaluation["baseline"], round_.evaluation["judge"]
    responses: dict[str, dict[str, Response]] = {}
    for policy in (baseline, *round_.compared):
        by_prompt = responses.setdefault(policy, {})
        for response in run.store.responses(policy=round_.policies[policy]["responses"]):
            by_prompt.setdefault(response.prompt, response)
    prompts = tuple(
        prompt for prompt in held_out_prompts(run) if all(prompt.id in by_prompt for by_prompt in responses.values())
    )
    rule = _load_rule(run, StageKey("evaluate", round_.number), judge) if judge in RULES else None
    votes = _votes(run, judge)
    by_policy: dict[str, dict[str, JudgedResponse]] = {}
    for policy, by_prompt in responses.items():
        of_policy = [by_prompt[prompt.id] for prompt in prompts]
        scores, criteria = _score(rule, prompts, of_policy)
        by_policy[policy] = {}
        for response, score, by_criterion in zip(of_policy, scores, criteria, strict=True):
            before = responses[baseline][response.prompt]
            outcome = "" if policy == baseline else _outcome(votes, before.id, response.id)
            by_policy[policy][response.prompt] = JudgedResponse(
                policy, response.text, response.finished, outcome, score, by_criterion
            )
    return Comparisons(baseline, prompts, by_policy)


def _votes(run: Run, judge: str) -> dict[frozenset[str], dict[str, float]]:
    """Return the votes of a judge on each two responses (ids): how many each of them won, a tie counting half."""
    tasks = {task.id: task for task in run.store.tasks() if task.kind == "comparison" and task.purpose == "evaluate"}
    votes: dict[frozenset[str], dict[str, float]] = {}
    for event in current(run.store.feedback()):
        if event.task in tasks and _is_by(event, judge):
            _count_vote(votes, event, tasks[event.task])
    return votes


def _is_by(event: Feedback, judge: str) -> bool:
    """Return whether the feedback is by this judge: a kind of annotator, or a reward by its name."""
    if judge in names("annotators"):
        return event.source == (judge if judge in ("human", "simulated") else "model")
    return event.annotator in scorer_annotators(judge)


def _count_vote(votes: dict[frozenset[str], dict[str, float]], event: Feedback, task: Task) -> None:
    for first, second, outcome in item_outcomes(event.judgement, task):
        wins = votes.setdefault(frozenset((first, second)), {first: 0.0, second: 0.0})
        wins[first] += outcome
        wins[second] += 1 - outcome


def _outcome(votes: Mapping[frozenset[str], Mapping[str, float]], baseline: str, response: str) -> str:
    """Return the outcome for a response (id) against the baseline's, by the majority of votes."""
    if baseline == response:
        return "tied"
    wins = votes.get(frozenset((baseline, response)))
    if wins is None:
        return ""
    if wins[response] == wins[baseline]:
        return "tied"
    return "won" if wins[response] > wins[baseline] else "lost"


def _load_rule(run: Run, key: StageKey, judge: str) -> Any:
    """Return the rule with the settings that the evaluation had."""
    rule = load_rule(judge)
    if not is_dataclass(rule):
        return rule
    table = run.recipe.get(str(key), {})
    return override(rule, {name: table[name] for name in settings(rule) if name in table}, f"[{key}]")


def _score(
    rule: Any, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> tuple[Sequence[float | None], Sequence[Mapping[str, float]]]:
    """Return the score and the criteria of each response by a file of rewards/; nothing else is run for a report.

    Args:
        rule: None: the judge is no such file.
    """
    scores: Sequence[float | None] = [None] * len(responses)
    criteria: Sequence[Mapping[str, float]] = [{}] * len(responses)
    if responses and rule is not None:
        scores = combine(rule.score(prompts, responses)).tolist()
        if isinstance(rule, CriteriaReward):
            criteria = [rule.criteria(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    return scores, criteria
