"""Answers by who gave them, of which kind, with which flag and words: what the page of answers shows and exports."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa

from assent.errors import AssentError
from assent.records import Feedback
from assent.store import schema
from assent.store.database import Store, by_person

State = Literal["", "standing", "superseded", "sent back"]


class Row(NamedTuple):
    """An answer and its place in the order of arrival."""

    seq: int
    feedback: Feedback


class Lease(NamedTuple):
    """How a query stands with the person who answered it."""

    state: str
    remark: str
    """What a reviewer said who sent the answer back."""


@dataclass(frozen=True)
class Filter:
    """Which answers; an empty field admits all."""

    person: str = ""
    """The pseudonym of who gave it."""
    kind: str = ""
    flag: str = ""
    words: str = ""
    """Text that was written in the answer, its note or the prompt, in capitals or not."""
    state: State = "standing"
    """Whether a later answer replaced it, or a reviewer sent it back."""

    def conditions(self, store: Store) -> list[sa.ColumnElement[bool]]:
        """What a row of `feedback` has to fulfil."""
        f = schema.feedback.c
        equal = ((f.annotator, self.person), (f.kind, self.kind))
        conditions = [column == value for column, value in equal if value]
        if self.flag:
            spelt = json.dumps(self.flag, ensure_ascii=False)
            conditions.append(sa.cast(f.flags, sa.Text).contains(spelt, autoescape=True))
        if self.words:
            conditions.append(self._mentions(store))
        if self.state == "sent back":
            le = schema.leases.c
            conditions.append(sa.exists().where(le.query == f.query, le.person == f.annotator, le.state == "back"))
        if self.state:
            newer = schema.feedback.alias("newer").c
            replaced = sa.exists().where(newer.supersedes == f.id)
            conditions.append(replaced if self.state == "superseded" else ~replaced)
        return conditions

    def _mentions(self, store: Store) -> sa.ColumnElement[bool]:
        f, p, q = schema.feedback.c, schema.prompts.c, schema.queries.c
        texts = (f.note, f.answer["text"].as_string(), f.answer["quote"].as_string())
        asked = sa.exists().where(q.id == f.query, p.id == q.prompt, store.messages_contain(p.messages, self.words))
        return sa.or_(*(store.contains(text, self.words) for text in texts), asked)


def answers(store: Store, wanted: Filter, limit: int, before: int = 0) -> list[Row]:
    """Up to `limit` answers, the newest first, of those that arrived before the one with `seq` = `before` (0: all)."""
    f = schema.feedback.c
    where = [*wanted.conditions(store), *([f.seq < before] if before else [])]
    with store.reading() as on:
        page = on.execute(sa.select(f.seq, f.id).where(*where).order_by(f.seq.desc()).limit(limit)).all()
    events = {event.id: event for event in store.feedback(ids=[row.id for row in page])}
    return [Row(row.seq, events[row.id]) for row in page]


def number(store: Store, wanted: Filter) -> int:
    """How many answers there are."""
    with store.reading() as on:
        return on.scalar(sa.select(sa.func.count()).select_from(schema.feedback).where(*wanted.conditions(store))) or 0


def annotators(store: Store) -> list[str]:
    """Who has answered, sorted."""
    f = schema.feedback.c
    with store.reading() as on:
        return list(on.scalars(sa.select(f.annotator).distinct().order_by(f.annotator)))


def superseding(store: Store, ids: list[str]) -> dict[str, str]:
    """The ids of those that were replaced, with the id of what replaced them."""
    f = schema.feedback.c
    with store.reading() as on:
        return dict(on.execute(sa.select(f.supersedes, f.id).where(f.supersedes.in_(ids))).all())


def opinions(store: Store, without_flag: str, chunk: int = 200) -> Iterator[list[Feedback]]:
    """The standing answers of people to each query that two or more of them answered, and not alike, the newest first.

    Gold items are left out.

    Args:
        without_flag: queries with an answer that carries this flag are left out.
    """
    f, q, newer = schema.feedback.c, schema.queries.c, schema.feedback.alias("newer").c
    standing = [~sa.exists().where(newer.supersedes == f.id)]
    people = by_person()
    flagged = sa.cast(f.flags, sa.Text).contains(json.dumps(without_flag), autoescape=True)
    several = sa.select(f.query).where(*standing, *people, f.query.in_(sa.select(q.id).where(q.purpose != "gold")))
    several = several.group_by(f.query).having(
        sa.func.count(f.annotator.distinct()) > 1,
        sa.func.count(sa.cast(f.answer, sa.Text).distinct()) > 1,
        sa.func.sum(sa.case((flagged, 1), else_=0)) == 0,
    )
    with store.reading() as on:
        names = list(on.scalars(several.order_by(sa.func.max(f.seq).desc())))
    for start in range(0, len(names), chunk):
        part = names[start : start + chunk]
        with store.reading() as on:
            ids = list(on.scalars(sa.select(f.id).where(f.query.in_(part), *standing, *people).order_by(f.seq)))
        by_query: dict[str, list[Feedback]] = {name: [] for name in part}
        for event in store.feedback(ids=ids):
            by_query[event.task].append(event)
        yield from by_query.values()


def lease_of(store: Store, event: Feedback) -> Lease | None:
    """The lease under which an answer was given; None for answers that were not given on the label page."""
    le = schema.leases.c
    with store.reading() as on:
        mine = (le.query == event.task, le.person == event.annotator)
        row = on.execute(sa.select(le.state, le.remark).where(*mine)).first()
    return Lease(row.state, row.remark) if row else None


def arrived_after(store: Store, cursor: str, limit: int) -> list[Feedback]:
    """Up to `limit` answers in the order of arrival, after the one with the id `cursor` (empty: from the first).

    Raises:
        AssentError: no answer has this id.
    """
    f = schema.feedback.c
    with store.reading() as on:
        seq = on.scalar(sa.select(f.seq).where(f.id == cursor)) if cursor else 0
        if seq is None:
            raise AssentError(f"no answer '{cursor}' here: the id is mistyped, or a restored backup does not hold it")
        ids = list(on.scalars(sa.select(f.id).where(f.seq > seq).order_by(f.seq).limit(limit)))
    events = {event.id: event for event in store.feedback(ids=ids)}
    return [events[name] for name in ids]
