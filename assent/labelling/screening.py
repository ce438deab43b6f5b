"""Screening: practice items and a test that new annotators take before they get real tasks."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa

from assent.labelling.gold import GoldBank, Use, matches_gold
from assent.records import Task
from assent.store import schema

NUM_PRACTICE = 10
"""Items with an explanation after each judgement."""
NUM_TEST = 20
"""Items without an explanation."""
PASS_MARK = 15
"""Test items of `NUM_TEST` that must be right; shorter tests need the same share."""
SECTIONS: tuple[tuple[Use, int], ...] = (("practice", NUM_PRACTICE), ("test", NUM_TEST))


class ScreeningResult(NamedTuple):
    """The progress of an annotator in the screening."""

    state: Literal["in progress", "passed", "failed"]
    num_correct: int
    num_tested: int


@dataclass(frozen=True)
class Screening:
    """The screening of a store: the practice and test items of its gold bank."""

    gold: GoldBank

    def is_configured(self) -> bool:
        """Return whether the gold bank has practice or test items."""
        gold = schema.gold.c
        with self.gold.store.reading() as connection:
            any_item = sa.select(gold.seq).where(gold.use.in_(("practice", "test"))).limit(1)
            return connection.scalar(any_item) is not None

    def result(self, annotator: str) -> ScreeningResult:
        """Return an annotator's result: the first judgement of each test item counts, and a skipped item is wrong."""
        gold = schema.gold.c
        assignments = schema.assignments.c
        with self.gold.store.reading() as connection:
            assigned = sa.select(gold.task, gold.use, assignments.state).join(
                schema.assignments, gold.task == assignments.task
            )
            assigned = assigned.where(assignments.annotator == annotator, gold.use.in_(("practice", "test")))
            rows = connection.execute(assigned).all()
            bank = connection.execute(sa.select(gold.use, sa.func.count().label("n")).group_by(gold.use)).all()
        num_correct = self._count_correct(annotator)
        finished = [row for row in rows if row.state != "out"]
        num_tested = sum(row.use == "test" for row in finished)
        bank_sizes = {row.use: row.n for row in bank}
        total = sum(min(bank_sizes.get(use, 0), size) for use, size in SECTIONS)
        if len(finished) < total:
            return ScreeningResult("in progress", num_correct, num_tested)
        has_passed = num_correct >= PASS_MARK / NUM_TEST * num_tested
        return ScreeningResult("passed" if has_passed else "failed", num_correct, num_tested)

    def _count_correct(self, annotator: str) -> int:
        first = {event.task: event.judgement for event in reversed(list(self.gold.store.feedback(annotator=annotator)))}
        tests = (item for item in self.gold.items() if item.use == "test" and item.task.id in first)
        return sum(matches_gold(item.judgement, first[item.task.id]) for item in tests)

    def next_item(self, connection: sa.Connection, annotator: str, salt: str) -> Task | None:
        """Return the next practice item, or else test item, of an annotator; None if the screening is complete."""
        gold = schema.gold.c
        assignments = schema.assignments
        for use, size in SECTIONS:
            assigned = (
                sa.select(sa.func.count()).select_from(assignments).join(schema.gold, gold.task == assignments.c.task)
            )
            num_assigned = connection.scalar(assigned.where(assignments.c.annotator == annotator, gold.use == use)) or 0
            task = self.gold.draw(connection, annotator, use, salt) if num_assigned < size else None
            if task is not None:
                return task
        return None
