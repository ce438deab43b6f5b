"""Collect the records of a file: examples become tasks with feedback, repeated rows are recognised."""

import json
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

from assent.errors import AssentError
from assent.feedback import check, to_values
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats import Record, TaskWithJudgements
from assent.formats.files.annotation import UNKNOWN_TIME
from assent.formats.files.results import ImportResult
from assent.formats.files.rows import RawRow
from assent.formats.rating import to_rating
from assent.records import (
    Completion,
    Example,
    Feedback,
    Judgement,
    Preference,
    Prompt,
    RankedCompletions,
    Response,
    ScoredCompletion,
    SFTExample,
    SkippedRow,
    Source,
    Task,
    content_id,
    implied_source,
)
from assent.registry import name_of

REPEATED = "repeated under one id, counted once"
ZERO_WEIGHT = "a weight of 0: not used in training"


class Attribution(NamedTuple):
    """Who judged, in the words of the user: for files that do not say so."""

    annotator: str = ""
    """Empty: the name of the file."""
    source: Source | str = ""
    """Empty: the annotator's prefix says it."""
    assumed: AbstractSet[str] = frozenset()
    """Annotators that the format knows by the columns alone: the user's word counts."""

    def apply(self, event: Feedback, default: str) -> Feedback:
        """Return feedback by the user's annotator, unless the file says who gave it; its id tells annotators apart."""
        is_default = event.annotator == default or event.annotator.startswith(f"{default}:")
        if not (self.annotator or self.source) or not (is_default or event.annotator in self.assumed):
            return event
        if not self.annotator:
            return replace(event, source=cast(Source, self.source))
        annotator = self.annotator + (event.annotator.removeprefix(default) if is_default else "")
        source = cast(Source, self.source or implied_source(annotator))
        return replace(event, annotator=annotator, source=source, id=content_id(event.id, annotator))


@dataclass
class ReadState:
    """The ids of a file so far, which connect one chunk with the next."""

    prompts: set[str] = field(default_factory=set)
    responses: set[tuple[str, str]] = field(default_factory=set)
    """Ids and policies."""
    items: set[str] = field(default_factory=set)
    tasks: dict[str, Task] = field(default_factory=dict)
    feedback_hashes: dict[str, int] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    """Equal feedback of one annotator counts as often as the file holds it."""
    origins: dict[tuple[str, ...], tuple[str, set[str]]] = field(default_factory=dict)
    """By the id in the file: the first location of feedback, and its ids."""


class ResultBuilder:
    """The records of some rows of a file."""

    def __init__(self, source: str, state: ReadState, judgement_kind: str, attribution: Attribution) -> None:
        self.skipped: list[SkippedRow] = []
        self.remarks: list[str] = []
        self.copies: list[str] = []
        self.num_rows = 0
        self.num_used = 0
        self._source = source
        self._state = state
        self._judgement_kind = judgement_kind
        self._attribution = attribution
        self._annotator = f"imported:{source}"
        self._examples: list[Example] = []
        self._prompts: dict[str, Prompt] = {}
        self._responses: dict[tuple[str, str], Response] = {}
        self._tasks: dict[str, Task] = {}
        self._feedback: list[Feedback] = []

    def build(self, format: str) -> ImportResult:
        """Return the result."""
        return ImportResult(
            format,
            tuple(self._examples),
            tuple(self._prompts.values()),
            tuple(self._responses.values()),
            tuple(self._tasks.values()),
            tuple(self._feedback),
            tuple(self.skipped),
            self.num_rows,
            self.num_used,
            tuple(self.remarks),
            tuple(self.copies),
        )

    def add(self, record: Record, row: RawRow) -> None:
        """Add a record; its prompt gets the name of the file as its source.

        Raises:
            AssentError: the file holds other feedback under the same id.
        """
        if isinstance(record, Prompt):
            self._prompts.setdefault(record.id, replace(record, source=self._source))
            return
        assert not isinstance(record, Response | Task | Feedback), "only lossless formats hold these by themselves"
        prompt = record.prompt
        if prompt.source != self._source:
            prompt = replace(prompt, source=self._source)
        prompt = self._prompts.setdefault(prompt.id, prompt)
        if isinstance(record, TaskWithJudgements):
            self._add_task(record, prompt, row)
        else:
            self._add_example(replace(record, prompt=prompt), row)

    def _add_example(self, example: Example, row: RawRow) -> None:
        judged = _to_task(example, self._annotator, self._judgement_kind)
        event = self._attribution.apply(judged.feedback[0], self._annotator)
        row_id = str((row.row or {}).get("id") or "")
        # The id of a row may be that of its prompt: only an equal judgement under an equal id is a repetition.
        if self._is_repeated(event, row_id and f"{row_id} {event.id}", row):
            return
        if not example.weight:
            self.remarks.append(ZERO_WEIGHT)
        self._state.repeats[event.id] += 1
        event = replace(event, id=content_id(event.id, self._state.repeats[event.id]))
        self._examples.append(replace(example, feedback_ids=(event.id,), annotator=event.annotator))
        self._add_judged(judged._replace(feedback=(event,)))

    def _add_task(self, judged: TaskWithJudgements, prompt: Prompt, row: RawRow) -> None:
        events = [self._attribution.apply(event, self._annotator) for event in judged.feedback]
        new = [event for event in events if not self._is_repeated(event, judged.origin_id, row)]
        judged = judged._replace(feedback=tuple(map(self._number, new)))
        responses = {item.id: item for item in judged.items}
        if judged.task.purpose == "train":
            for event in judged.feedback:
                self._examples += event.judgement.examples(judged.task, prompt, responses, event, 1.0)
        self._add_judged(judged)

    def _add_judged(self, judged: TaskWithJudgements) -> None:
        self._responses.update(((item.id, ""), item) for item in judged.items)
        self._tasks[judged.task.id] = judged.task
        self._feedback += judged.feedback

    def _is_repeated(self, event: Feedback, origin_id: str, row: RawRow) -> bool:
        """Return whether the file held equal feedback before, under the same id.

        Raises:
            AssentError: it held other feedback under that id.
        """
        if not origin_id:
            return False
        key = (origin_id, event.task, event.annotator)
        first_location, ids = self._state.origins.setdefault(key, (row.location, set()))
        if event.id in ids:
            self.remarks.append(REPEATED)
            return True
        if first_location != row.location:
            raise AssentError("the file holds another judgement under the same id")
        ids.add(event.id)
        return False

    def _number(self, event: Feedback) -> Feedback:
        """Return feedback; a repetition of equal feedback is another event."""
        self._state.repeats[event.id] += 1
        count = self._state.repeats[event.id]
        return event if count == 1 else replace(event, id=content_id(event.id, count))

    def add_event(self, record: Record) -> None:
        """Add a record of a lossless format, which refers to earlier records of the file.

        Raises:
            AssentError: the file does not hold a record that it refers to, or holds its id twice.
        """
        state = self._state
        match record:
            case Prompt() if record.id not in state.prompts:
                state.prompts.add(record.id)
                self._prompts[record.id] = record
            case Response() if (record.id, record.policy) not in state.responses:
                self._require_prompt(record.prompt)
                state.responses.add((record.id, record.policy))
                state.items.add(record.id)
                self._responses[record.id, record.policy] = record
            case Task() if record.id not in state.tasks:
                self._require_prompt(record.prompt)
                if missing := set(record.items) - state.items:
                    raise AssentError(f"its item {min(missing)} is not in this file, or broken")
                state.tasks[record.id] = record
                self._tasks[record.id] = record
            case Feedback():
                self._add_feedback_event(record)

    def _add_feedback_event(self, event: Feedback) -> None:
        state = self._state
        if event.task not in state.tasks:
            raise AssentError(f"its task {event.task} is not in this file, or broken")
        check(event.judgement, state.tasks[event.task])
        if state.feedback_hashes.get(event.id, hash(event)) != hash(event):
            raise AssentError(f"the file holds feedback {event.id} twice, with different contents")
        if event.id not in state.feedback_hashes:
            self._feedback.append(event)
        state.feedback_hashes[event.id] = hash(event)

    def _require_prompt(self, prompt_id: str) -> None:
        if prompt_id not in self._state.prompts:
            raise AssentError(f"its prompt {prompt_id} is not in this file, or broken")


def _to_task(example: Example, annotator: str, judgement_kind: str) -> TaskWithJudgements:
    """Return the task and the judgement that an imported example stands for."""
    prompt = example.prompt.id
    weight = float(example.weight)
    items: list[Response] = []
    judgement: Judgement
    match example:
        case Preference():
            items = [_to_response(prompt, side, annotator) for side in (example.chosen, example.rejected)]
            judgement = _to_comparison(example, items, weight)
        case RankedCompletions():
            tiers = [[_to_response(prompt, completion, annotator) for completion in tier] for tier in example.tiers]
            items = [item for tier in tiers for item in tier]
            judgement = Ranking(tuple(tuple(item.id for item in tier) for tier in tiers), weight)
        case ScoredCompletion():
            items = [_to_response(prompt, example.completion, annotator)]
            if judgement_kind == "rating" or example.value not in (0, 1):
                judgement = Rating((("overall", to_rating(example)),), weight)
            else:
                judgement = Approval(bool(example.value), weight)
        case SFTExample():
            extra = dict(example.completion.extra)
            extra_json = json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else ""
            judgement = Demonstration(example.completion.text, weight, extra_json)
    # Sorted by id: the order of the file would reveal the better one.
    task = Task(name_of(judgement), prompt, tuple(sorted(item.id for item in items)))
    event_id = content_id("imported", annotator, task.id, to_values(judgement))
    event = Feedback(task.id, annotator, judgement, UNKNOWN_TIME, id=event_id)
    return TaskWithJudgements(example.prompt, tuple(items), task, (event,))


def _to_comparison(example: Preference, items: list[Response], weight: float) -> Comparison:
    p_chosen = float(example.p_chosen)
    if p_chosen == 0.5:
        return Comparison(verdict="tie", weight=weight)  # a tie has no margin
    preferred = items[p_chosen < 0.5].id
    certainty = max(p_chosen, 1 - p_chosen)
    return Comparison(preferred, certainty=certainty, margin=float(example.margin), weight=weight)


def _to_response(prompt: str, completion: Completion, policy: str) -> Response:
    return Response.of(prompt, completion, policy)
