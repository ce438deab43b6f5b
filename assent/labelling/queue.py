"""The task queue: the tasks of a store that need judgements, the next tasks of each annotator, and the progress.

A task is on as many annotators' pages as it needs judgements, and it is offered to others when a lease ends without a
judgement.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import sqlalchemy as sa

from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.labelling.accounts import Accounts
from assent.labelling.assignments import Assignment, Assignments, has_free_slot
from assent.labelling.gold import GoldBank
from assent.labelling.screening import Screening
from assent.labelling.settings import read_salt
from assent.records import Feedback, Task, unit_hash
from assent.store import schema
from assent.store.database import Store
from assent.store.rows import row_to_task

THREE_VOTES_FRACTION = 0.15
"""Fraction of the tasks that need three judgements: they measure agreement."""
FIVE_VOTES_FRACTION = 0.02
"""Fraction of the tasks that need five judgements: they measure the accuracy that noise allows."""
NUM_EARLY_TASKS = 40
"""Tasks of an annotator before gold items become rarer."""
EARLY_GOLD_RATE = 1 / 8
GOLD_RATE = 1 / 20
UNLIMITED = 10**6


class AlreadyJudged(AssentError):
    """A judgement of a task that this annotator judged before, without superseding the earlier one."""

    def __init__(self, current_id: str) -> None:
        super().__init__(f"you judged this task already; a new judgement must supersede {current_id}")
        self.current_id = current_id


class Progress(NamedTuple):
    """The progress of a batch of tasks."""

    total: int
    completed: int


@dataclass(frozen=True)
class TaskRequest:
    """A task for the queue, and how it was selected."""

    task: Task
    required: int = 1
    """Annotators who have to judge it."""
    acquisition: str = "uniform"
    """The strategy that selected it."""
    propensity: float | None = None
    """The probability with which it was selected; None: unknown."""
    priority: float = 0.0
    """Tasks with the highest priority come first."""


@dataclass
class TaskQueue:
    """The tasks of a store that need judgements of annotators."""

    store: Store
    clock: Callable[[], float] = field(default=time.time)
    accounts: Accounts | None = None
    """The accounts of the annotators; None: those of the store itself."""

    @cached_property
    def assignments(self) -> Assignments:
        """Return the tasks on each annotator's page."""
        return Assignments(self.store, self.clock)

    @cached_property
    def gold(self) -> GoldBank:
        """Return the tasks with a known judgement."""
        return GoldBank(self.store)

    @cached_property
    def screening(self) -> Screening:
        """Return the practice and the test of new annotators."""
        return Screening(self.gold)

    @property
    def salt(self) -> str:
        """Return the store's secret: without it, nobody can compute which tasks are gold items."""
        return self.assignments.salt

    def enqueue(self, requests: Iterable[TaskRequest], batch: str) -> int:
        """Add tasks to the queue and return how many are new; for the others, only a larger `required` is stored.

        Args:
            batch: the name of the stage or caller that adds the tasks.
        """
        read_salt(self.store)  # every backup that holds tasks must hold the secret: page aliases are hashes of it
        requests = list(requests)
        self.store.add_tasks(request.task for request in requests)
        queue = schema.queue.c
        num_new = 0
        with self.store.writing() as connection:
            for request in requests:
                is_queued = queue.task == request.task.id
                required = connection.scalar(sa.select(queue.required).where(is_queued))
                if required is None:
                    self._insert(connection, request, batch)
                    num_new += 1
                elif required < request.required:
                    connection.execute(sa.update(schema.queue).where(is_queued).values(required=request.required))
        return num_new

    def _insert(self, connection: sa.Connection, request: TaskRequest, batch: str) -> None:
        row = {
            "task": request.task.id,
            "batch": batch,
            "acquisition": request.acquisition,
            "propensity": request.propensity,
            "required": request.required,
            "received": _count_annotators(connection, request.task.id),
            "priority": -request.priority,
        }
        connection.execute(sa.insert(schema.queue), row)

    def request_votes(self, task_id: str, count: int, acquisition: str) -> None:
        """Request judgements of `count` more annotators, before all other tasks."""
        queue = schema.queue.c
        with self.store.writing("no such task") as connection:
            is_queued = connection.scalar(sa.select(queue.seq).where(queue.task == task_id)) is not None
            received = _count_annotators(connection, task_id)
            values = {"required": received + count, "priority": -1.0}
            if is_queued:
                connection.execute(sa.update(schema.queue).where(queue.task == task_id).values(**values))
            else:
                row = {"task": task_id, "batch": acquisition, "acquisition": acquisition, "propensity": None}
                connection.execute(sa.insert(schema.queue), {**row, "received": received, **values})

    def open_tasks(self, task_ids: Collection[str]) -> set[str]:
        """Return those of these tasks that need more judgements."""
        queue = schema.queue.c
        with self.store.reading() as connection:
            is_open = (queue.task.in_(list(task_ids)), queue.received < queue.required)
            return set(connection.scalars(sa.select(queue.task).where(*is_open)))

    def progress(self, batch: str = "") -> Progress:
        """Return how many tasks a batch (or the whole queue) has, and how many of them have enough judgements.

        No task needs more judgements than there are annotators. Annotators are the active labellers with an account,
        and all others with a judgement in the queue. Paused and erased users do not count, nor do users who skipped
        the task.
        """
        queue = schema.queue.c
        assignments = schema.assignments.c
        feedback = schema.feedback.c
        in_batch = [queue.batch == batch] if batch else []
        users = list((self.accounts or Accounts(self.store)).all())
        labellers = {user.id for user in users if user.role == "labeller" and user.state == "active"}
        absent = {user.id for user in users if user.state not in ("new", "active")}
        with self.store.reading() as connection:
            total = connection.scalar(sa.select(sa.func.count()).select_from(schema.queue).where(*in_batch)) or 0
            annotators = sa.select(feedback.annotator).distinct().where(schema.IS_HUMAN).subquery()
            has_judged = sa.exists().where(feedback.annotator == annotators.c.annotator, feedback.task == queue.task)
            active = connection.scalars(sa.select(annotators.c.annotator).where(has_judged))
            available = {*active, *labellers} - absent
            is_skip = (
                assignments.task == queue.task,
                assignments.state == "skipped",
                assignments.annotator.in_(available),
            )
            num_skips = (
                sa.select(sa.func.count(assignments.seq)).where(*is_skip).correlate(schema.queue).scalar_subquery()
            )
            num_left = max(1, len(available)) - num_skips
            required = sa.case((queue.required > num_left, num_left), else_=queue.required)
            completed = (
                sa.select(sa.func.count()).select_from(schema.queue).where(queue.received >= required, *in_batch)
            )
            return Progress(total, connection.scalar(completed) or 0)

    def next_tasks(
        self,
        annotator: str,
        count: int,
        on_screen: Collection[str] = (),
        is_screened: bool = True,
        max_assigned: int = UNLIMITED,
    ) -> list[Assignment]:
        """Assign an annotator the next tasks: first those that they have and did not judge, then new ones.

        Args:
            on_screen: ids of tasks that the page shows already; they are left out.
            is_screened: whether they may get real tasks; if not, they get practice and test items.
            max_assigned: the number of unjudged tasks that they may have at once, so that others get some too.
        """
        now = self.clock()
        salt = self.salt  # read before the transaction: it may have to be written, which would wait for this one
        with self.store.writing() as connection:
            open_assignments = self.assignments.open(connection, annotator, now)
            assignments = [assignment for assignment in open_assignments if assignment.task.id not in on_screen]
            count = min(count, len(assignments) + max(0, max_assigned - len(open_assignments)))
            num_assigned = self._count_assigned(connection, annotator)
            while len(assignments) < count:
                if is_screened:
                    task = self._next_task(connection, annotator, num_assigned, now)
                else:
                    task = self.screening.next_item(connection, annotator, salt)
                if task is None:
                    break
                assignment = self.assignments.prepare(annotator, task)
                self.assignments.insert(connection, annotator, assignment, now)
                assignments.append(assignment)
                num_assigned += 1
            assignments = assignments[:count]
            self.assignments.extend(connection, annotator, [assignment.task.id for assignment in assignments])
            return assignments

    def _count_assigned(self, connection: sa.Connection, annotator: str) -> int:
        """Return the number of tasks that an annotator was ever assigned, without those of the screening."""
        assignments = schema.assignments.c
        screening = sa.select(schema.gold.c.task).where(schema.gold.c.use != "hidden")
        assigned = (assignments.annotator == annotator, assignments.task.not_in(screening))
        return connection.scalar(sa.select(sa.func.count()).where(*assigned)) or 0

    def _next_task(self, connection: sa.Connection, annotator: str, num_assigned: int, now: float) -> Task | None:
        """Return a gold item at random places, else the open task with the highest priority."""
        gold_rate = EARLY_GOLD_RATE if num_assigned < NUM_EARLY_TASKS else GOLD_RATE
        if unit_hash(self.salt, "gold", annotator, num_assigned, num_bytes=6) < gold_rate:
            item = self.gold.draw(connection, annotator, "hidden", self.salt)
            if item is not None:
                return item
        queue = schema.queue.c
        assignments = schema.assignments.c
        tasks = schema.tasks
        is_assigned = sa.exists().where(assignments.task == queue.task, assignments.annotator == annotator)
        is_free = has_free_slot(queue.task, annotator, now)
        open_tasks = sa.select(tasks).join(schema.queue, queue.task == tasks.c.id)
        open_tasks = open_tasks.where(queue.received < queue.required, ~is_assigned, is_free)
        row = connection.execute(open_tasks.order_by(queue.priority, queue.seq).limit(1)).first()
        return row_to_task(row) if row else None

    def is_waiting_for_others(self, annotator: str) -> bool:
        """Return whether open tasks are left that this annotator was never assigned, because others have them."""
        queue = schema.queue.c
        assignments = schema.assignments.c
        is_assigned = sa.exists().where(assignments.task == queue.task, assignments.annotator == annotator)
        with self.store.reading() as connection:
            open_task = sa.select(queue.seq).where(queue.received < queue.required, ~is_assigned).limit(1)
            return connection.scalar(open_task) is not None

    def submit(self, event: Feedback) -> Feedback:
        """Store a judgement, count it and close its assignment in one transaction; it outlives a crash from then on.

        A judgement after the end of its lease counts. The same judgement again changes nothing.

        Returns:
            The feedback that is stored under this id.

        Raises:
            NotAssigned: the task was not on the annotator's page, or in another order.
            Conflict: the id is stored with other contents.
            AlreadyJudged: the annotator judged the task before, and this does not supersede their latest judgement.
            AssentError: the judgement does not fit the task.
        """
        with self.store.writing() as connection:
            self.assignments.check_display(connection, event)
            _check_supersedes(connection, event)
            if self.store.append(connection, [event]):
                self.assignments.close(connection, event.annotator, event.task)
                _count_judgement(connection, event)
        return next(iter(self.store.feedback(ids=[event.id])))

    def feedback_for(self, batch: str) -> list[Feedback]:
        """Return all feedback on the tasks of a batch, in the order of arrival."""
        feedback = schema.feedback.c
        queued = sa.select(feedback.id).join(schema.queue, schema.queue.c.task == feedback.task)
        with self.store.reading() as connection:
            ids = connection.scalars(queued.where(schema.queue.c.batch == batch).order_by(feedback.seq)).all()
        return self._feedback_in_order(ids)

    def latest_feedback(self, annotator: str, count: int = 50) -> list[Feedback]:
        """Return the latest feedback of an annotator, the newest first."""
        feedback = schema.feedback.c
        with self.store.reading() as connection:
            newest = (
                sa.select(feedback.id).where(feedback.annotator == annotator).order_by(feedback.seq.desc()).limit(count)
            )
            ids = connection.scalars(newest).all()
        return self._feedback_in_order(ids)

    def _feedback_in_order(self, ids: Collection[str]) -> list[Feedback]:
        events = {event.id: event for event in self.store.feedback(ids=ids)}
        return [events[id] for id in ids]

    def count_judgements(self, annotator: str) -> int:
        """Return how many queued tasks and hidden gold items an annotator judged: not practice, test or chat."""
        feedback = schema.feedback.c
        queued = sa.select(schema.queue.c.task)
        hidden = sa.select(schema.gold.c.task).where(schema.gold.c.use == "hidden")
        judged = (feedback.annotator == annotator, sa.or_(feedback.task.in_(queued), feedback.task.in_(hidden)))
        with self.store.reading() as connection:
            return connection.scalar(sa.select(sa.func.count(feedback.task.distinct())).where(*judged)) or 0


def required_votes(task: Task) -> int:
    """Return how many annotators judge a task: five, three or mostly one, by a hash of its id."""
    position = unit_hash("overlap", task.id, num_bytes=6)
    if position < FIVE_VOTES_FRACTION:
        return 5
    return 3 if position < FIVE_VOTES_FRACTION + THREE_VOTES_FRACTION else 1


def _check_supersedes(connection: sa.Connection, event: Feedback) -> None:
    """Check that a new judgement supersedes the annotator's latest one of the task, if there is one.

    Raises:
        AlreadyJudged: it leaves an earlier judgement current.
        AssentError: it supersedes a judgement that the annotator did not give.
    """
    feedback = schema.feedback.c
    earlier = sa.select(feedback.id).where(feedback.annotator == event.annotator, feedback.task == event.task)
    ids = connection.scalars(earlier.order_by(feedback.seq)).all()
    latest = ids[-1] if ids else ""
    if event.id in ids or event.supersedes == latest:
        return
    if latest:
        raise AlreadyJudged(latest)
    raise AssentError(f"cannot supersede {event.supersedes}: it is not a judgement of yours of this task")


def _count_judgement(connection: sa.Connection, event: Feedback) -> None:
    """Update the number of judgements of a task; a slight preference requests a second opinion."""
    queue = schema.queue.c
    update = sa.update(schema.queue).where(queue.task == event.task)
    connection.execute(update.values(received=_count_annotators(connection, event.task)))
    match event.judgement:
        case Comparison(verdict="better", strength=1):
            connection.execute(update.where(queue.required == 1).values(required=2))


def _count_annotators(connection: sa.Connection, task_id: str) -> int:
    """Return how many human annotators judged a task."""
    feedback = schema.feedback.c
    judged = (feedback.task == task_id, schema.IS_HUMAN)
    return connection.scalar(sa.select(sa.func.count(feedback.annotator.distinct())).where(*judged)) or 0
