"""A table of judgements: columns that grow as feedback arrives, so that statistics need not read the store again."""

from array import array
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.feedback.comparison import Comparison
from assent.labelling.gold import matches_gold
from assent.labelling.units import NO_OUTCOME, TEXT, UnitLabel, comparison_outcome, unit_labels
from assent.records import Feedback, Judgement, Task

Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

OUTCOME_SCORES = np.array([0, 1, 0, 0.5, 0.5])
"""The score of a task's first item, by the outcome of the comparison."""


class VoteShare(NamedTuple):
    """The votes of human annotators on one comparison."""

    share: float
    """Of the votes, for the first item; a tie is half a vote."""
    votes: int


class Judgements(NamedTuple):
    """Columns of N current judgements: those that no later one supersedes."""

    annotator: Indices  # (N,)
    is_comparison: Indices  # (N,), 0 or 1
    outcome: Indices  # (N,), of `units`
    preferred_first_shown: Indices  # (N,), 1 or 0; -1 if no item is preferred
    duration: Floats  # (N,), seconds


class Labels(NamedTuple):
    """Columns of N labels: the latest current label of each annotator and unit."""

    annotator: Indices  # (N,)
    unit: Indices  # (N,)
    prompt: Indices  # (N,)
    measure: Indices  # (N,), kind and axis
    value: Floats  # (N,), of a pair FIRST, SECOND or TIE
    is_gold: Flags  # (N,)
    row: Indices  # (N,), the place of the label in the table

    def select(self, is_selected: Flags) -> "Labels":
        """Return the selected rows."""
        return Labels._make(column[is_selected] for column in self)


class JudgementTable:
    """Judgements in columns, in the order of arrival: less than 400 bytes each, without texts.

    Args:
        gold_ids: ids of tasks that are gold items, besides those with the purpose `gold`.
    """

    def __init__(self, gold_ids: Collection[str] = ()) -> None:
        self._gold_ids = frozenset(gold_ids)
        self.annotators: dict[str, int] = {}
        """The index of each annotator."""
        self.measures: dict[tuple[str, str], int] = {}
        """The index of each kind and axis."""
        self._is_human = array("b")  # by annotator
        self._tasks: dict[str, int] = {}
        self._is_gold = array("b")  # by task
        # By judgement. Ids are stored as hashes: they only tell which judgements are superseded.
        self._id_hash = array("q")
        self._superseded_hash = array("q")
        self._annotator = array("l")
        self._task = array("l")
        self._is_comparison = array("b")
        self._outcome = array("b")
        self._preferred_first_shown = array("b")
        self._duration = array("d")
        self._created_at: list[str] = []
        # By label.
        self._judgement = array("l")
        self._unit = array("l")
        self._value = array("d")
        self._text_ids: dict[int, str] = {}
        # By unit.
        self._units: dict[int, int] = {}
        self._prompts: dict[str, int] = {}
        self._unit_prompt = array("l")
        self._unit_measure = array("l")
        # Gold items, and the judgements of them with their rows.
        self._gold_judgements: list[tuple[int, str, Judgement]] = []
        self._gold_tasks: dict[str, Task] = {}

    def __len__(self) -> int:
        return len(self._id_hash)

    def add(self, event: Feedback, task: Task) -> None:
        """Add a judgement, before or after the one that it supersedes."""
        row = len(self)
        judgement = event.judgement
        self._id_hash.append(hash(event.id))
        if event.supersedes:
            self._superseded_hash.append(hash(event.supersedes))
        if event.annotator not in self.annotators:
            self._is_human.append(event.is_human)
        if task.id not in self._tasks:
            self._is_gold.append(task.purpose == "gold")
        self._annotator.append(self.annotators.setdefault(event.annotator, len(self.annotators)))
        self._task.append(self._tasks.setdefault(task.id, len(self._tasks)))
        self._created_at.append(event.created_at)
        self._duration.append(event.duration)
        self._is_comparison.append(isinstance(judgement, Comparison))
        self._outcome.append(comparison_outcome(judgement, task))
        preferred = judgement.preferred if isinstance(judgement, Comparison) else ""
        is_known = bool(preferred and event.display_order)
        self._preferred_first_shown.append(event.display_order[0] == preferred if is_known else -1)
        if task.purpose == "gold" or task.id in self._gold_ids:
            self._gold_judgements.append((row, task.id, judgement))
            self._gold_tasks.setdefault(task.id, task)
        for label in unit_labels(judgement, task):
            if label.axis == TEXT:
                self._text_ids[len(self._judgement)] = event.id
            self._judgement.append(row)
            self._unit.append(self._unit_index(label, task))
            self._value.append(label.value)

    def _unit_index(self, label: UnitLabel, task: Task) -> int:
        """Return the index of a label's unit; a new unit gets the next one."""
        unit = self._units.setdefault(label.key(task), len(self._units))
        if unit == len(self._unit_measure):
            measure = (label.kind, label.axis)
            self._unit_measure.append(self.measures.setdefault(measure, len(self.measures)))
            self._unit_prompt.append(self._prompts.setdefault(task.prompt, len(self._prompts)))
        return unit

    def text_id(self, label_row: int) -> str:
        """Return the feedback id of a label with the axis `TEXT`."""
        return self._text_ids[label_row]

    def current_judgements(self) -> Judgements:
        """Return the judgements that no later one supersedes."""
        is_current = self._is_current()
        return Judgements(
            np.array(self._annotator)[is_current],
            np.array(self._is_comparison)[is_current],
            np.array(self._outcome)[is_current],
            np.array(self._preferred_first_shown)[is_current],
            np.array(self._duration)[is_current],
        )

    def labels(self, gold: Collection[str]) -> Labels:
        """Return the latest current label of each annotator and unit.

        Args:
            gold: ids of the tasks that are gold items.
        """
        # (judgements,), the place of each judgement in the order of time
        order = np.empty(len(self), dtype=np.intp)
        order[sorted(range(len(self)), key=self._created_at.__getitem__)] = np.arange(len(self))
        judgement = np.array(self._judgement)
        units = np.array(self._unit)
        row = np.flatnonzero(self._is_current()[judgement])
        row = row[np.argsort(-order[judgement[row]], kind="stable")]
        annotator = np.array(self._annotator)[judgement[row]]
        _, latest = np.unique(annotator * len(self._units) + units[row], return_index=True)
        row = row[latest]
        unit = units[row]
        return Labels(
            annotator[latest],
            unit,
            np.array(self._unit_prompt)[unit],
            np.array(self._unit_measure)[unit],
            np.array(self._value)[row],
            self._is_gold_task(gold)[np.array(self._task)[judgement[row]]],
            row,
        )

    def human_labels(self, labels: Labels) -> Labels:
        """Return the labels of human annotators on tasks that are no gold items."""
        is_human = np.array(self._is_human, dtype=bool)[labels.annotator]
        return labels.select(is_human & ~labels.is_gold)

    def of_kind(self, labels: Labels, kind: str, axis: str = "") -> Labels:
        """Return the labels of one kind of judgement and axis."""
        return labels.select(labels.measure == self.measures.get((kind, axis), -1))

    def gold_labels(self, gold: Mapping[str, Judgement]) -> list[tuple[int, float]]:
        """Return the unit and the value of each known comparison in the gold bank."""
        return [
            (self._units[key], label.value)
            for id, task in self._gold_tasks.items()
            if id in gold
            for label in unit_labels(gold[id], task)
            if label.kind == "comparison" and (key := label.key(task)) in self._units
        ]

    def gold_results(self, gold: Mapping[str, Judgement]) -> list[list[bool]]:
        """Return, for each annotator, whether their current judgement of each gold item is right, in order of time."""
        is_current = self._is_current()
        by_annotator: dict[int, dict[str, Judgement]] = defaultdict(dict)
        for row, id, judgement in sorted(self._gold_judgements, key=lambda entry: self._created_at[entry[0]]):
            if is_current[row] and id in gold:
                by_annotator[self._annotator[row]][id] = judgement
        return [
            [matches_gold(gold[id], judgement) for id, judgement in by_annotator[index].items()]
            for index in range(len(self.annotators))
        ]

    def vote_shares(self, gold: Collection[str]) -> dict[str, VoteShare]:
        """Return the votes of human annotators on each comparison, by task id; gold items are left out."""
        task = np.array(self._task)
        outcome = np.array(self._outcome)
        size = len(self._tasks)
        is_human = np.array(self._is_human, dtype=bool)[np.array(self._annotator)]
        is_counted = self._is_current() & is_human & (outcome != NO_OUTCOME) & ~self._is_gold_task(gold)[task]
        task = task[is_counted]
        votes = np.bincount(task, minlength=size)
        scores = np.bincount(task, OUTCOME_SCORES[outcome[is_counted]], size)
        shares = (scores / np.maximum(votes, 1)).tolist()
        return {id: VoteShare(shares[i], int(votes[i])) for id, i in self._tasks.items() if votes[i]}

    def _is_current(self) -> Flags:
        """Return whether no other judgement supersedes a judgement, (judgements,)."""
        return ~np.isin(np.array(self._id_hash), np.array(self._superseded_hash))

    def _is_gold_task(self, gold: Collection[str]) -> Flags:
        """Return whether a task is a gold item, (tasks,)."""
        is_gold = np.array(self._is_gold, dtype=bool)
        is_gold[[self._tasks[id] for id in gold if id in self._tasks]] = True
        return is_gold
