"""Assignments: the tasks on each annotator's page, in which order of items, and until when.

An assignment is a row of the table `assignments`, in one of these states:

    out      on the annotator's page; when the lease ends, the task is offered to others
    aside    on the annotator's page, but not offered to them again (a chat, a correction)
    done     judged
    skipped  skipped by the annotator; it stays available to others
    back     returned by a reviewer, to be judged again
"""

import hashlib
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import sqlalchemy as sa

from assent.errors import AssentError
from assent.labelling.settings import read_salt
from assent.records import Feedback, Task
from assent.store import schema
from assent.store.database import Store
from assent.store.rows import row_to_task

LEASE_SECONDS = 15 * 60.0
"""Seconds after which a task is offered to others, unless the annotator's page renews the lease."""
ALIAS_CACHE_SECONDS = 60.0
"""Seconds for which the aliases of all tasks are cached for an annotator whose page asks for unknown ones."""


class NotAssigned(AssentError):
    """A judgement of a task that this annotator was not shown."""


class Assignment(NamedTuple):
    """A task on an annotator's page."""

    task: Task
    display_order: tuple[str, ...]
    """Its items (ids) in the order in which the page shows them."""
    alias: str = ""
    """The name of the task on this page: a hash, so that it does not reveal the task's purpose."""


class SkippedTask(NamedTuple):
    """A task that annotators skipped."""

    task_id: str
    skip_count: int


class _AliasCache(NamedTuple):
    annotator: str = ""
    created_at: float = 0.0
    task_ids: Mapping[str, str] = MappingProxyType({})


@dataclass
class Assignments:
    """The assignments of a store."""

    store: Store
    clock: Callable[[], float] = field(default=time.time)
    _alias_cache: _AliasCache = field(default=_AliasCache(), init=False)

    @cached_property
    def salt(self) -> str:
        """Return the store's secret."""
        return read_salt(self.store)

    def assign(
        self, annotator: str, task: Task, display_order: tuple[str, ...] = (), aside: bool = False
    ) -> Assignment:
        """Put one task on an annotator's page, whether or not it is in the queue.

        Args:
            display_order: the items as the page shows them already; empty: a random order.
            aside: do not offer the task to the annotator again.
        """
        self.store.add_tasks([task])
        assignment = self.prepare(annotator, task, display_order)
        assignments = schema.assignments.c
        with self.store.writing() as connection:
            existing = sa.select(assignments.alias, assignments.display_order).where(
                assignments.annotator == annotator, assignments.task == task.id
            )
            row = connection.execute(existing).first()
            if row is not None:
                return Assignment(task, tuple(row.display_order), row.alias)
            self.insert(connection, annotator, assignment, self.clock(), "aside" if aside else "out")
            return assignment

    def prepare(self, annotator: str, task: Task, display_order: tuple[str, ...] = ()) -> Assignment:
        """Return a new assignment that is not stored yet.

        It needs `salt`, which may have to be written: within a transaction, read `salt` before that opens.
        """
        return Assignment(task, display_order or self.display_order(task, annotator), self._alias(task.id, annotator))

    def insert(
        self, connection: sa.Connection, annotator: str, assignment: Assignment, now: float, state: str = "out"
    ) -> None:
        """Store a new assignment within the caller's transaction."""
        row = {
            "task": assignment.task.id,
            "annotator": annotator,
            "display_order": list(assignment.display_order),
            "alias": assignment.alias,
            "state": state,
            "expires_at": now + LEASE_SECONDS,
        }
        connection.execute(sa.insert(schema.assignments), row)

    def display_order(self, task: Task, annotator: str) -> tuple[str, ...]:
        """Return the task's items in random order, the same each time for the same annotator.

        The store's secret is part of the seed: without it, the order would reveal tasks whose purpose is `gold`.
        """
        items = list(task.items)
        random.Random(f"{self.salt} {task.id} {annotator}").shuffle(items)
        return tuple(items)

    def _alias(self, task_id: str, annotator: str) -> str:
        return hashlib.sha256(f"{self.salt} {task_id} {annotator}".encode()).hexdigest()[:20]

    def task_ids(self, annotator: str, aliases: Collection[str]) -> list[str]:
        """Return the ids of the tasks that an annotator's page knows by these aliases; leave out unknown ones."""
        assignments = schema.assignments.c
        if not aliases:
            return []
        with self.store.reading() as connection:
            assigned = sa.select(assignments.task).where(
                assignments.annotator == annotator, assignments.alias.in_(list(aliases))
            )
            return list(connection.scalars(assigned))

    def aliases(self, annotator: str, task_ids: Collection[str]) -> dict[str, str]:
        """Return the aliases of tasks on an annotator's page, by task id."""
        assignments = schema.assignments.c
        with self.store.reading() as connection:
            assigned = sa.select(assignments.alias, assignments.task).where(
                assignments.annotator == annotator, assignments.task.in_(list(task_ids))
            )
            return {row.task: row.alias for row in connection.execute(assigned)}

    def find(self, annotator: str, alias: str) -> Assignment | None:
        """Return the assignment of an annotator with this alias, judged or not; None if there is none."""
        assignments = schema.assignments.c
        tasks = schema.tasks
        assigned = sa.select(tasks, assignments.display_order, assignments.alias).join(
            schema.assignments, assignments.task == tasks.c.id
        )
        with self.store.reading() as connection:
            row = connection.execute(
                assigned.where(assignments.annotator == annotator, assignments.alias == alias)
            ).first()
        return None if row is None else Assignment(row_to_task(row), tuple(row.display_order), row.alias)

    def restore(self, annotator: str, alias: str) -> Assignment | None:
        """Assign a task again that was assigned after the backup from which this store was restored.

        The alias is a hash of the task's id, so it is compared with those of all tasks in the queue and the gold bank.
        """
        cache = self._alias_cache
        if cache.annotator != annotator or self.clock() - cache.created_at > ALIAS_CACHE_SECONDS:
            queued = sa.select(schema.queue.c.task)
            with self.store.reading() as connection:
                task_ids = connection.scalars(queued.union(sa.select(schema.gold.c.task))).all()
            by_alias = {self._alias(task_id, annotator): task_id for task_id in task_ids}
            cache = self._alias_cache = _AliasCache(annotator, self.clock(), by_alias)
        tasks = self.store.tasks(ids=[cache.task_ids.get(alias, "")])
        return next((self.assign(annotator, task) for task in tasks), None)

    def open(self, connection: sa.Connection, annotator: str, now: float) -> list[Assignment]:
        """Return an annotator's unjudged assignments, without those that expired and went to others."""
        leases = schema.assignments
        queue = schema.queue
        tasks = schema.tasks
        is_available = sa.or_(
            queue.c.seq.is_(None), leases.c.expires_at > now, has_free_slot(leases.c.task, annotator, now)
        )
        is_open = sa.or_(sa.and_(leases.c.state == "out", is_available), leases.c.state == "back")
        rows = sa.select(tasks, leases.c.display_order, leases.c.alias).join(leases, leases.c.task == tasks.c.id)
        rows = rows.outerjoin(queue, queue.c.task == tasks.c.id).where(leases.c.annotator == annotator, is_open)
        ordered = connection.execute(rows.order_by(leases.c.seq)).all()
        return [Assignment(row_to_task(row), tuple(row.display_order), row.alias) for row in ordered]

    def renew(self, annotator: str, task_ids: Collection[str]) -> None:
        """Renew the leases on these tasks, except on those that went to others in the meantime."""
        with self.store.writing() as connection:
            open_ids = {assignment.task.id for assignment in self.open(connection, annotator, self.clock())}
            self.extend(connection, annotator, open_ids & set(task_ids))

    def extend(self, connection: sa.Connection, annotator: str, task_ids: Collection[str]) -> None:
        """Extend the leases on these tasks within the caller's transaction."""
        assignments = schema.assignments.c
        leased = (assignments.annotator == annotator, assignments.task.in_(list(task_ids)), assignments.state == "out")
        expires_at = self.clock() + LEASE_SECONDS
        connection.execute(sa.update(schema.assignments).where(*leased).values(expires_at=expires_at))

    def release(self, annotator: str) -> None:
        """End an annotator's leases when they sign out; tasks that nobody else takes are offered to them again."""
        assignments = schema.assignments.c
        with self.store.writing() as connection:
            leased = (assignments.annotator == annotator, assignments.state == "out")
            connection.execute(sa.update(schema.assignments).where(*leased).values(expires_at=0.0))

    def check_display(self, connection: sa.Connection, event: Feedback) -> None:
        """Check that the annotator was shown the task, with its items in the same order.

        Raises:
            NotAssigned: the task was not on the annotator's page, or in another order.
        """
        assignments = schema.assignments.c
        leased = (assignments.annotator == event.annotator, assignments.task == event.task)
        lease = connection.execute(sa.select(schema.assignments).where(*leased)).first()
        if lease is None:
            raise NotAssigned("this task was not shown to you; take the next one")
        if list(event.display_order) != lease.display_order:
            raise NotAssigned("these items were shown to you in another order; reload the page")

    def close(self, connection: sa.Connection, annotator: str, task_id: str) -> None:
        """Mark an assignment as judged within the caller's transaction."""
        assignments = schema.assignments.c
        leased = (assignments.annotator == annotator, assignments.task == task_id)
        connection.execute(sa.update(schema.assignments).where(*leased).values(state="done"))

    def skip(self, annotator: str, task_id: str) -> None:
        """Take a task off an annotator's page for good; others may still get it.

        If a reviewer sent a judgement back and the annotator skips it, the judgement stands.
        """
        self._change_state(annotator, task_id, {"out": "skipped", "back": "done"})

    def unskip(self, annotator: str, task_id: str) -> None:
        """Put a task that an annotator skipped back on their page."""
        self._change_state(annotator, task_id, {"skipped": "out"})

    def send_back(self, annotator: str, task_id: str, remark: str) -> None:
        """Ask an annotator to judge a task again; until then their judgement stands.

        Raises:
            AssentError: they have not judged it, or it is a gold item, where the first judgement counts.
        """
        gold = schema.gold.c
        with self.store.reading() as connection:
            if connection.scalar(sa.select(gold.seq).where(gold.task == task_id)):
                raise AssentError("a gold item cannot be sent back: its first judgement counts")
        if not self._change_state(annotator, task_id, {"done": "back"}, remark=remark):
            raise AssentError("cannot send this back: it was not judged on the label page")

    def review_remarks(self, annotator: str, task_ids: Collection[str]) -> dict[str, str]:
        """Return the reviewer's remark on each of these tasks that was sent back to an annotator, by task id."""
        assignments = schema.assignments.c
        sent_back = (
            assignments.annotator == annotator,
            assignments.state == "back",
            assignments.task.in_(list(task_ids)),
        )
        with self.store.reading() as connection:
            return dict(connection.execute(sa.select(assignments.task, assignments.remark).where(*sent_back)).all())

    def _change_state(self, annotator: str, task_id: str, states: Mapping[str, str], **values: Any) -> bool:
        """Replace the state of an assignment as `states` maps it; return whether it was in one of these states."""
        assignments = schema.assignments.c
        leased = (assignments.annotator == annotator, assignments.task == task_id, assignments.state.in_(states))
        state = sa.case(states, value=assignments.state)
        expires_at = self.clock() + LEASE_SECONDS
        change = sa.update(schema.assignments).where(*leased).values(state=state, expires_at=expires_at, **values)
        with self.store.writing() as connection:
            return connection.execute(change).rowcount > 0

    def skipped_tasks(self) -> list[SkippedTask]:
        """Return the open tasks that annotators skipped, the most skipped first."""
        queue = schema.queue.c
        assignments = schema.assignments.c
        skip_count = sa.func.count(assignments.seq).label("skip_count")
        rows = (
            sa.select(queue.task, skip_count)
            .join(schema.assignments, assignments.task == queue.task)
            .where(assignments.state == "skipped")
        )
        rows = (
            rows.where(queue.received < queue.required)
            .group_by(queue.task, queue.seq)
            .order_by(skip_count.desc(), queue.seq)
        )
        with self.store.reading() as connection:
            return [SkippedTask(row.task, row.skip_count) for row in connection.execute(rows)]

    def skip_counts(self) -> dict[str, int]:
        """Return the number of tasks that each annotator skipped."""
        assignments = schema.assignments.c
        counts = (
            sa.select(assignments.annotator, sa.func.count())
            .where(assignments.state == "skipped")
            .group_by(assignments.annotator)
        )
        with self.store.reading() as connection:
            return dict(connection.execute(counts).all())

    def offer_again(self, task_id: str) -> None:
        """Offer a queued task once more to all annotators who skipped it."""
        assignments = schema.assignments.c
        with self.store.writing() as connection:
            queued = sa.select(schema.queue.c.task).where(schema.queue.c.task == task_id)
            connection.execute(
                sa.delete(schema.assignments).where(assignments.task.in_(queued), assignments.state == "skipped")
            )


def has_free_slot(task_id: Any, annotator: str, now: float) -> sa.ColumnElement[bool]:
    """Return the condition that a queued task needs another annotator.

    Judgements that it has received and current leases of others count against its required votes.

    Args:
        task_id: the column of the task's id; the table `queue` is part of the statement.
    """
    queue = schema.queue.c
    assignments = schema.assignments.alias("others").c
    is_leased = (
        assignments.task == task_id,
        assignments.annotator != annotator,
        assignments.state == "out",
        assignments.expires_at > now,
    )
    num_leases = sa.select(sa.func.count(assignments.seq)).where(*is_leased)
    return queue.received + num_leases.scalar_subquery() < queue.required
