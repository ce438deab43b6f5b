"""Labels of annotation units, as Krippendorff's alpha and Dawid-Skene take them.

Comparisons and rankings become labels of pairs of responses, ratings and approvals become values of one response.
Annotators are compared unit by unit.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.records import Judgement, Response, Task

FIRST, SECOND, TIE = range(3)
"""The labels of a pair of items: the better one, in the order of their ids, or a tie."""
NO_OUTCOME, PREFERS_FIRST, PREFERS_SECOND, IS_TIE, BOTH_BAD = range(5)
"""The outcomes of a comparison, in the order of the task's items; `NO_OUTCOME`: not a comparison, or `cannot tell`."""
TEXT = "text"
"""The axis of the label that says that an annotator wrote a text."""


class UnitLabel(NamedTuple):
    """The label of one unit."""

    kind: str
    axis: str
    """Of a rating, or `TEXT`; else empty."""
    items: tuple[str, ...]
    value: float

    def key(self, task: Task) -> int:
        """Return the hash of the unit; labels of the same items from the same question have the same."""
        return hash((self.kind, self.axis, task.instruction, task.prompt, self.items))


def unit_labels(judgement: Judgement, task: Task) -> Iterator[UnitLabel]:
    """Return the labels of a judgement; of pairs of items, in the order of their ids."""
    match judgement:
        case Comparison(verdict="cannot tell"):
            return
        case Comparison():
            first, second = sorted(task.items)
            label = {first: FIRST, second: SECOND}.get(judgement.preferred, TIE)
            yield UnitLabel("comparison", "", (first, second), label)
        case Ranking():
            yield from _ranking_labels(judgement)
        case Rating():
            for axis, value in judgement.axes:
                yield UnitLabel("rating", axis, task.items, value)
        case Approval():
            yield UnitLabel("approval", "", task.items, judgement.approved)
        case Correction():
            # The id of a response is a hash of its text, so the item need not be read from the store.
            unchanged = {Response(task.prompt, judgement.text, "", finished).id for finished in (True, False)}
            yield UnitLabel("correction", "", task.items, task.items[0] not in unchanged)
            yield UnitLabel("correction", TEXT, task.items, 0)
        case Demonstration():
            yield UnitLabel("demonstration", TEXT, (), 0)
        case Critique():
            yield UnitLabel("critique", TEXT, task.items, 0)


def _ranking_labels(ranking: Ranking) -> Iterator[UnitLabel]:
    tier_of = {item: index for index, tier in enumerate(ranking.tiers) for item in tier}
    for first, second in combinations(sorted(tier_of), 2):
        label = TIE
        if tier_of[first] != tier_of[second]:
            label = FIRST if tier_of[first] < tier_of[second] else SECOND
        yield UnitLabel("comparison", "", (first, second), label)


def comparison_outcome(judgement: Judgement, task: Task) -> int:
    """Return the outcome of a judgement as a comparison."""
    match judgement:
        case Comparison(verdict="better"):
            return PREFERS_FIRST if judgement.preferred == task.items[0] else PREFERS_SECOND
        case Comparison(verdict="tie"):
            return IS_TIE
        case Comparison(verdict="both bad"):
            return BOTH_BAD
        case _:
            return NO_OUTCOME
