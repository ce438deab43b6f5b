"""Judgements of held-out prompts, with the reward model's scores of what was judged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.models.rendering import Unrenderable
from assent.models.tokenizer import ChatTokenizer
from assent.preferences.data import PURPOSES, read_judgements
from assent.records import (
    Completion,
    Example,
    Feedback,
    Preference,
    Prompt,
    RankedCompletions,
    ScoredCompletion,
    Task,
)
from assent.run import Run


class RewardScore(NamedTuple):
    """The reward model's score of a completion, the mean of its heads."""

    score: float
    """In standard deviations of the scores of training completions."""
    logit: float
    """In the units of the loss: of a model that was trained on pairs or rankings, the difference of two is the log-odds
    of a preference."""


class ScoredText(NamedTuple):
    """A completion with its score."""

    prompt: str  # id
    words: int
    score: float


class JudgedPair(NamedTuple):
    """A comparison of two completions that an annotator decided."""

    prompt: str  # id
    category: str
    annotator: str
    strength: int
    """1 slightly, 2 clearly, 3 much better; 0: it comes from a ranking or a correction."""
    margin: float
    """Score of the chosen completion minus that of the rejected one."""
    logit_margin: float
    """The same of their logits."""
    extra_words: int
    """Words of the chosen completion minus those of the rejected one."""


class JudgedApproval(NamedTuple):
    """A completion that an annotator approved or disapproved."""

    prompt: str  # id
    score: float
    is_approved: bool


class DoubleVote(NamedTuple):
    """Two annotators who decided the same comparison."""

    prompt: str  # id
    agree: bool


@dataclass(frozen=True)
class HeldOutJudgements:
    """What annotators said about held-out prompts, beside the scores."""

    pairs: tuple[JudgedPair, ...]
    approvals: tuple[JudgedApproval, ...]
    texts: tuple[ScoredText, ...]
    """Each judged completion once."""
    choices: tuple[tuple[float, ...], ...]
    """For each ranking of at least two completions with a single best one: the scores, the best first."""
    double_votes: tuple[DoubleVote, ...]
    """Of all prompts, held out or not: annotators disagree on both alike."""


Scores = Mapping[tuple[str, tuple[int, ...]], RewardScore]
"""The scores by prompt (id) and tokens of the completion."""


def read_held_out(run: Run, tokenizer: ChatTokenizer, scores: Scores) -> HeldOutJudgements:
    """Read the judgements of held-out prompts that training would use; completions without a score are left out."""
    feedback, tasks, sides, examples = read_judgements(run)
    events = {event.id: event for event in feedback}
    reader = _Reader(tokenizer, scores)
    pairs: list[JudgedPair] = []
    approvals: list[JudgedApproval] = []
    choices: list[tuple[float, ...]] = []
    for example in examples:
        if example.prompt.id in sides.held_out:
            pairs += reader.pairs(example, events)
            approvals += reader.approvals(example, events)
            choices += reader.choices(example)
    texts = tuple(reader.texts.values())
    return HeldOutJudgements(tuple(pairs), tuple(approvals), texts, tuple(choices), _double_votes(feedback, tasks))


class _Reader:
    """Looks up the scores of judged completions, and notes each completion once."""

    def __init__(self, tokenizer: ChatTokenizer, scores: Scores) -> None:
        self._tokenizer = tokenizer
        self._scores = scores
        self._ids: dict[tuple[str, Completion], tuple[int, ...] | None] = {}
        self.texts: dict[tuple[str, Completion], ScoredText] = {}

    def pairs(self, example: Example, events: Mapping[str, Feedback]) -> Iterator[JudgedPair]:
        """Yield the decided pairs of a comparison or a ranking."""
        if not isinstance(example, Preference | RankedCompletions):
            return
        judgement = events[example.feedback_ids[0]].judgement
        strength = judgement.strength if isinstance(judgement, Comparison) else 0
        for pair in example.preferences:
            sides = (pair.chosen, pair.rejected) if pair.p_chosen > 0.5 else (pair.rejected, pair.chosen)
            chosen, rejected = (self._score(pair.prompt, text) for text in sides)
            is_same = self._encode(pair.prompt, sides[0]) == self._encode(pair.prompt, sides[1])
            if pair.p_chosen != 0.5 and chosen is not None and rejected is not None and not is_same:
                yield JudgedPair(
                    prompt=pair.prompt.id,
                    category=pair.prompt.category,
                    annotator=pair.annotator,
                    strength=strength,
                    margin=chosen.score - rejected.score,
                    logit_margin=chosen.logit - rejected.logit,
                    extra_words=_count_words(sides[0]) - _count_words(sides[1]),
                )

    def approvals(self, example: Example, events: Mapping[str, Feedback]) -> Iterator[JudgedApproval]:
        """Yield the approval, if it is one."""
        if isinstance(example, ScoredCompletion):
            judgement = events[example.feedback_ids[0]].judgement
            score = self._score(example.prompt, example.completion)
            if isinstance(judgement, Approval) and score is not None:
                yield JudgedApproval(example.prompt.id, score.score, judgement.approved)

    def choices(self, example: Example) -> Iterator[tuple[float, ...]]:
        """Yield the scores of a ranking with a single best completion, the best first."""
        if isinstance(example, RankedCompletions) and len(example.tiers) > 1 and len(example.tiers[0]) == 1:
            scores = [self._score(example.prompt, text) for tier in example.tiers for text in tier]
            if all(score is not None for score in scores):
                yield tuple(score.score for score in scores if score is not None)

    def _score(self, prompt: Prompt, text: Completion) -> RewardScore | None:
        ids = self._encode(prompt, text)
        score = None if ids is None else self._scores.get((prompt.id, ids))
        if score is not None:
            self.texts[prompt.id, text] = ScoredText(prompt.id, _count_words(text), score.score)
        return score

    def _encode(self, prompt: Prompt, text: Completion) -> tuple[int, ...] | None:
        """Return the tokens of a completion; None if the chat template refuses it."""
        key = prompt.id, text
        if key not in self._ids:
            try:
                self._ids[key] = self._tokenizer.encode_completion(prompt, text)
            except Unrenderable:
                self._ids[key] = None
        return self._ids[key]


def _count_words(completion: Completion) -> int:
    return len(completion.text.split())


def _double_votes(feedback: list[Feedback], tasks: list[Task]) -> tuple[DoubleVote, ...]:
    """Return every two decided comparisons of one task by two annotators; where people judged, theirs alone."""
    superseded = {event.supersedes for event in feedback}
    judged_by_humans = {event.task for event in feedback if event.is_human}
    prompts = {task.id: task.prompt for task in tasks if task.purpose in PURPOSES}
    by_task: dict[str, dict[str, str]] = {}
    for event in feedback:
        is_replaced = event.source == "simulated" and event.task in judged_by_humans
        if event.id in superseded or is_replaced or event.task not in prompts:
            continue
        if isinstance(event.judgement, Comparison) and event.judgement.preferred:
            by_task.setdefault(event.task, {})[event.annotator] = event.judgement.preferred
    return tuple(
        DoubleVote(prompts[task], first == second)
        for task, votes in by_task.items()
        for first, second in combinations(votes.values(), 2)
    )
