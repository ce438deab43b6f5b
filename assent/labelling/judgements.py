"""Lists of judgements by annotator, kind, flag, text and state, for the pages and for export."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa

from assent.errors import AssentError
from assent.records import Feedback
from assent.store import schema
from assent.store.database import Store

State = Literal["", "current", "superseded", "sent back"]


class JudgementRow(NamedTuple):
    """A judgement and its place in the order of arrival."""

    seq: int
    feedback: Feedback


class AssignmentState(NamedTuple):
    """The state of a task on the page of the annotator who judged it."""

    state: str
    remark: str
    """The remark of a reviewer who sent the judgement back."""


@dataclass(frozen=True)
class JudgementFilter:
    """Conditions on judgements; an empty field matches all."""

    annotator: str = ""
    kind: str = ""
    flag: str = ""
    text: str = ""
    """Text in the judgement, its comment or the prompt, in any case."""
    state: State = "current"
    """Whether another judgement supersedes it, or a reviewer sent it back."""

    def conditions(self, store: Store) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on a row of `feedback`."""
        feedback = schema.feedback.c
        conditions: list[sa.ColumnElement[bool]] = []
        if self.annotator:
            conditions.append(feedback.annotator == self.annotator)
        if self.kind:
            conditions.append(feedback.kind == self.kind)
        if self.flag:
            conditions.append(_has_flag(self.flag))
        if self.text:
            conditions.append(self._has_text(store))
        if self.state == "sent back":
            assignments = schema.assignments.c
            conditions.append(
                sa.exists().where(
                    assignments.task == feedback.task,
                    assignments.annotator == feedback.annotator,
                    assignments.state == "back",
                )
            )
        if self.state:
            conditions.append(~schema.is_current() if self.state == "superseded" else schema.is_current())
        return conditions

    def _has_text(self, store: Store) -> sa.ColumnElement[bool]:
        feedback = schema.feedback.c
        prompts = schema.prompts.c
        tasks = schema.tasks.c
        texts = (feedback.comment, feedback.judgement["text"].as_string(), feedback.judgement["quote"].as_string())
        has_text = store.messages_contain(prompts.messages, self.text)
        in_prompt = sa.exists().where(tasks.id == feedback.task, prompts.id == tasks.prompt, has_text)
        return sa.or_(*(store.contains(text, self.text) for text in texts), in_prompt)


def _has_flag(flag: str) -> sa.ColumnElement[bool]:
    encoded = json.dumps(flag, ensure_ascii=False)
    return sa.cast(schema.feedback.c.flags, sa.Text).contains(encoded, autoescape=True)


def list_judgements(store: Store, judgement_filter: JudgementFilter, limit: int, before: int = 0) -> list[JudgementRow]:
    """Return up to `limit` judgements, the newest first.

    Args:
        before: the `seq` of a judgement; only those that arrived before it are returned. 0: all.
    """
    feedback = schema.feedback.c
    conditions = judgement_filter.conditions(store)
    if before:
        conditions.append(feedback.seq < before)
    with store.reading() as connection:
        page = sa.select(feedback.seq, feedback.id).where(*conditions).order_by(feedback.seq.desc()).limit(limit)
        rows = connection.execute(page).all()
    events = {event.id: event for event in store.feedback(ids=[row.id for row in rows])}
    return [JudgementRow(row.seq, events[row.id]) for row in rows]


def count_judgements(store: Store, judgement_filter: JudgementFilter) -> int:
    """Return the number of judgements."""
    count = sa.select(sa.func.count()).select_from(schema.feedback).where(*judgement_filter.conditions(store))
    with store.reading() as connection:
        return connection.scalar(count) or 0


def list_annotators(store: Store) -> list[str]:
    """Return the names of all annotators, sorted."""
    feedback = schema.feedback.c
    with store.reading() as connection:
        return list(connection.scalars(sa.select(feedback.annotator).distinct().order_by(feedback.annotator)))


def superseding_ids(store: Store, ids: list[str]) -> dict[str, str]:
    """Return the id of the judgement that supersedes each of these, by the id of the superseded one."""
    feedback = schema.feedback.c
    with store.reading() as connection:
        return dict(
            connection.execute(sa.select(feedback.supersedes, feedback.id).where(feedback.supersedes.in_(ids))).all()
        )


def disputed_judgements(store: Store, without_flag: str, chunk: int = 200) -> Iterator[list[Feedback]]:
    """Yield the current judgements of each task on which human annotators differ, the latest task first.

    Gold items are left out.

    Args:
        without_flag: leave out tasks with a judgement that carries this flag.
        chunk: tasks per query.
    """
    feedback = schema.feedback.c
    tasks = schema.tasks.c
    is_counted = (schema.is_current(), schema.IS_HUMAN)
    ordinary = sa.select(tasks.id).where(tasks.purpose != "gold")
    disputed = sa.select(feedback.task).where(*is_counted, feedback.task.in_(ordinary))
    disputed = disputed.group_by(feedback.task).having(
        sa.func.count(feedback.annotator.distinct()) > 1,
        sa.func.count(sa.cast(feedback.judgement, sa.Text).distinct()) > 1,
        sa.func.sum(sa.case((_has_flag(without_flag), 1), else_=0)) == 0,
    )
    with store.reading() as connection:
        task_ids = list(connection.scalars(disputed.order_by(sa.func.max(feedback.seq).desc())))
    for offset in range(0, len(task_ids), chunk):
        chunk_ids = task_ids[offset : offset + chunk]
        with store.reading() as connection:
            ids = list(
                connection.scalars(
                    sa.select(feedback.id).where(feedback.task.in_(chunk_ids), *is_counted).order_by(feedback.seq)
                )
            )
        by_task: dict[str, list[Feedback]] = {task_id: [] for task_id in chunk_ids}
        for event in store.feedback(ids=ids):
            by_task[event.task].append(event)
        yield from by_task.values()


def assignment_state(store: Store, event: Feedback) -> AssignmentState | None:
    """Return the state of the assignment of a judgement; None if it was not given on the label page."""
    assignments = schema.assignments.c
    is_assigned = (assignments.task == event.task, assignments.annotator == event.annotator)
    with store.reading() as connection:
        row = connection.execute(sa.select(assignments.state, assignments.remark).where(*is_assigned)).first()
    return AssignmentState(row.state, row.remark) if row else None


def judgements_after(store: Store, cursor: str, limit: int) -> list[Feedback]:
    """Return up to `limit` judgements in the order of arrival.

    Args:
        cursor: the id of a judgement; those that arrived after it are returned. Empty: from the first.

    Raises:
        AssentError: no judgement has this id.
    """
    feedback = schema.feedback.c
    with store.reading() as connection:
        seq = connection.scalar(sa.select(feedback.seq).where(feedback.id == cursor)) if cursor else 0
        if seq is None:
            raise AssentError(f"no judgement '{cursor}'; check the id, or start again without one after a restore")
        ids = list(
            connection.scalars(sa.select(feedback.id).where(feedback.seq > seq).order_by(feedback.seq).limit(limit))
        )
    events = {event.id: event for event in store.feedback(ids=ids)}
    return [events[id] for id in ids]
