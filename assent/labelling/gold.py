"""Gold items: tasks with a known judgement, which measure annotators."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa

from assent.errors import AssentError
from assent.feedback import ComparableJudgement, check, parse, to_values
from assent.records import Feedback, Judgement, Task, unit_hash
from assent.store import schema
from assent.store.database import Store
from assent.store.rows import row_to_task

Use = Literal["practice", "test", "hidden"]
"""`practice` items explain the right judgement, `test` items decide the screening, `hidden` ones are between tasks."""


class GoldItem(NamedTuple):
    """A task and its known judgement."""

    task: Task
    judgement: Judgement
    use: Use


class GoldResult(NamedTuple):
    """The outcome of a judgement of a gold item."""

    is_correct: bool
    use: Use
    explanation: str


@dataclass(frozen=True)
class GoldBank:
    """The gold items of a store."""

    store: Store

    def add(self, task: Task, judgement: Judgement, use: Use = "hidden", explanation: str = "") -> None:
        """Add a gold item, or replace the one with the same task.

        Args:
            task: its purpose is `gold`.

        Raises:
            AssentError: another purpose, a judgement that does not fit the task, or a kind without one right answer.
        """
        if task.purpose != "gold":
            raise AssentError(f"a gold item needs a task with purpose 'gold', got '{task.purpose}'")
        check(judgement, task)
        matches_gold(judgement, judgement)
        self.store.add_tasks([task])
        with self.store.writing() as connection:
            connection.execute(sa.delete(schema.gold).where(schema.gold.c.task == task.id))
            row = {"task": task.id, "use": use, "judgement": to_values(judgement), "explanation": explanation}
            connection.execute(sa.insert(schema.gold), row)

    def items(self) -> Iterator[GoldItem]:
        """Return the gold items in the order in which they were added."""
        with self.store.reading() as connection:
            rows = connection.execute(sa.select(schema.gold).order_by(schema.gold.c.seq)).all()
        tasks = {task.id: task for task in self.store.tasks(ids=[row.task for row in rows])}
        return (GoldItem(tasks[row.task], parse(tasks[row.task].kind, row.judgement), row.use) for row in rows)

    def check(self, event: Feedback) -> GoldResult | None:
        """Compare a judgement of a gold item with the known one; return None for any other task."""
        gold = schema.gold
        with self.store.reading() as connection:
            row = connection.execute(sa.select(gold).where(gold.c.task == event.task)).first()
        if row is None:
            return None
        kind = next(iter(self.store.tasks(ids=[event.task]))).kind
        return GoldResult(matches_gold(parse(kind, row.judgement), event.judgement), row.use, row.explanation)

    def results(self, annotator: str, since: str = "") -> list[bool]:
        """Return whether an annotator was right on each hidden gold item, in the order of their first judgements.

        Later judgements do not count: an annotator who learns that an item was gold could try all of them.

        Args:
            since: leave out judgements before this time, ISO 8601 in UTC.
        """
        feedback = schema.feedback.c
        gold = schema.gold.c
        judged = sa.select(feedback.task, feedback.kind, feedback.judgement, gold.judgement.label("right")).join(
            schema.gold, gold.task == feedback.task
        )
        judged = judged.where(
            feedback.annotator == annotator, gold.use == "hidden", feedback.created_at >= since
        ).order_by(feedback.seq)
        with self.store.reading() as connection:
            rows = connection.execute(judged).all()
        first_results: dict[str, bool] = {}
        for row in rows:
            if row.task not in first_results:
                first_results[row.task] = matches_gold(parse(row.kind, row.right), parse(row.kind, row.judgement))
        return list(first_results.values())

    def draw(self, connection: sa.Connection, annotator: str, use: Use, salt: str) -> Task | None:
        """Return a random gold item whose prompt and items are new to an annotator; None if there is none.

        Args:
            salt: the store's secret, part of the seed; each annotator has an order of their own.
        """
        gold = schema.gold.c
        tasks = schema.tasks
        assignments = schema.assignments.c
        bank = sa.select(tasks).join(schema.gold, gold.task == tasks.c.id).where(gold.use == use)
        prompts = sa.select(tasks.c.prompt).join(schema.gold, gold.task == tasks.c.id).where(gold.use == use)
        assigned = sa.select(tasks).join(schema.assignments, assignments.task == tasks.c.id)
        assigned = assigned.where(assignments.annotator == annotator, tasks.c.prompt.in_(prompts))
        seen_items = {(row.prompt, frozenset(row.items)) for row in connection.execute(assigned)}
        rows = [row for row in connection.execute(bank) if (row.prompt, frozenset(row.items)) not in seen_items]
        if not rows:
            return None
        return row_to_task(min(rows, key=lambda row: unit_hash(salt, use, annotator, row.id, num_bytes=6)))


def matches_gold(gold: Judgement, judgement: Judgement) -> bool:
    """Return whether a judgement of a gold item counts as right.

    Raises:
        AssentError: the kind has no single right answer.
    """
    if not isinstance(gold, ComparableJudgement):
        kind = type(gold).__name__.lower()
        raise AssentError(f"a {kind} cannot be a gold item; use a comparison, ranking, rating or approval")
    return bool(gold.agrees(judgement))
