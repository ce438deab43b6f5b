"""What people are asked next: a query lies on one screen at a time, comes back if nobody answers, and is never lost."""

import hashlib
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from assent.errors import AssentError
from assent.feedback import parse
from assent.labelling.accounts import People
from assent.records import Feedback, Judgement, Task
from assent.store import schema
from assent.store.database import Store, as_task, by_person

LEASE = 15 * 60.0
"""Seconds that a query stays with somebody who gives no sign of life."""
THRICE, FIVE = 0.15, 0.02
"""Shares of the queries that three people answer, for agreement, and five, for the ceiling that noise sets."""
PROBATION = 40
"""Answers after which gold items become rarer."""
LOOKED_UP = 60.0
"""Seconds for which the names that all queries have on somebody's page are kept, if they ask for unknown ones."""
GOLD_AT_FIRST, GOLD_LATER = 1 / 8, 1 / 20
PRACTICE, TEST, PASS = 10, 20, 15
"""Screening: items with an explanation after each, items without, and how many of those have to be right."""


class NotShown(AssentError):
    """An answer to a query that this person was not shown."""


class Answered(AssentError):
    """An answer to a query that this person answered before, which it does not supersede."""

    def __init__(self, before: str) -> None:
        super().__init__(f"you answered this already: the answer {before} stands until one supersedes it")
        self.before = before


class Lent(NamedTuple):
    """A query on somebody's screen."""

    query: Task
    shown: tuple[str, ...]
    """Its items in the order in which they stand there."""
    name: str = ""
    """What it is called there: who can compute ids cannot tell from it what the query is for."""


class Progress(NamedTuple):
    """How far a batch of queries has come."""

    asked: int
    answered: int


class Skipped(NamedTuple):
    """A query and how many people skipped it."""

    query: str
    people: int


class Judged(NamedTuple):
    """A gold item that somebody answered."""

    right: bool
    use: str
    explanation: str


class Screening(NamedTuple):
    """How far somebody has come in the test that comes before the work."""

    state: Literal["going on", "passed", "failed"]
    right: int
    tested: int


@dataclass(frozen=True)
class Ask:
    """A query that people are to answer, and why it was chosen."""

    query: Task
    wanted: int = 1
    rule: str = "uniform"
    propensity: float | None = None
    priority: float = 0.0
    """The highest first."""


@dataclass
class TaskQueue:
    """The queries of a store that wait for people."""

    store: Store
    clock: Callable[[], float] = field(default=time.time)
    people: People | None = None
    """The accounts of those who may come; those of the store itself if not told."""
    _before: tuple[str, float, Mapping[str, str]] = field(default=("", 0.0, MappingProxyType({})), init=False)

    @cached_property
    def salt(self) -> str:
        """The store's own secret: who knows this program cannot tell from it which items are gold."""
        name = "salt"
        with self.store.writing() as on:
            s = schema.settings.c
            there = on.scalar(sa.select(s.value).where(s.name == name).order_by(s.seq).limit(1))
            if there is None:
                there = secrets.token_hex(16)
                row = {"name": name, "value": there, "by": "server", "at": datetime.now(UTC).isoformat()}
                on.execute(sa.insert(schema.settings), row)
        return str(there)

    def post(self, asks: Iterable[Ask], batch: str) -> int:
        """Lay queries on the desk, once each, and return how many are new there; the others may want more answers."""
        asks, _ = list(asks), self.salt
        self.store.add_tasks(ask.query for ask in asks)
        new = 0
        with self.store.writing() as on:
            for ask in asks:
                there = on.scalar(sa.select(schema.asks.c.wanted).where(schema.asks.c.query == ask.query.id))
                if there is not None and there < ask.wanted:
                    mine = schema.asks.c.query == ask.query.id
                    on.execute(sa.update(schema.asks).where(mine).values(wanted=ask.wanted))
                if there is None:
                    row = {"query": ask.query.id, "batch": batch, "rule": ask.rule, "propensity": ask.propensity}
                    given = self._voices(on, ask.query.id)
                    row |= {"wanted": ask.wanted, "given": given, "priority": -ask.priority}
                    on.execute(sa.insert(schema.asks), row)
                    new += 1
        return new

    def ask_more(self, query: str, more: int, rule: str) -> None:
        """Ask so many more people about a query, before anything else."""
        a = schema.asks.c
        with self.store.writing("no such query") as on:
            there = on.scalar(sa.select(a.seq).where(a.query == query))
            given = self._voices(on, query)
            if there is None:
                row = {"query": query, "batch": rule, "rule": rule, "propensity": None, "given": given}
                on.execute(sa.insert(schema.asks), {**row, "wanted": given + more, "priority": -1.0})
            else:
                ask = sa.update(schema.asks).where(a.query == query)
                on.execute(ask.values(wanted=given + more, priority=-1.0))

    def wanting(self, queries: Collection[str]) -> set[str]:
        """Those of these queries that want more answers."""
        a = schema.asks.c
        with self.store.reading() as on:
            return set(on.scalars(sa.select(a.query).where(a.query.in_(list(queries)), a.given < a.wanted)))

    def progress(self, batch: str = "") -> Progress:
        """Queries of a batch (or all), and how many of them have as many answers as they want.

        None wants more answers than there are people: labellers with an account, and others who have answered
        something; but for those who are paused or gone, or who skipped it.
        """
        a, le, f = schema.asks.c, schema.leases.c, schema.feedback.c
        where = [a.batch == batch] if batch else []
        accounts = list((self.people or People(self.store)).all())
        expected = {one.id for one in accounts if one.role == "labeller" and one.state == "active"}
        away = {one.id for one in accounts if one.state not in ("new", "active")}
        with self.store.reading() as on:
            asked = on.scalar(sa.select(sa.func.count()).select_from(schema.asks).where(*where)) or 0
            persons = sa.select(f.annotator).distinct().where(*by_person()).subquery()
            asked_of = sa.exists().where(f.annotator == persons.c.annotator, f.query == a.query)
            active = on.scalars(sa.select(persons.c.annotator).where(asked_of))
            people = {*active, *expected} - away
            skips = (le.query == a.query, le.state == "skipped", le.person.in_(people))
            skipped = sa.select(sa.func.count(le.seq)).where(*skips).correlate(schema.asks).scalar_subquery()
            left = max(1, len(people)) - skipped
            enough = sa.case((a.wanted > left, left), else_=a.wanted)
            done = sa.select(sa.func.count()).select_from(schema.asks).where(a.given >= enough, *where)
            return Progress(asked, on.scalar(done) or 0)

    def take(
        self, person: str, count: int, hold: Collection[str] = (), screened: bool = True, most: int = 10**6
    ) -> list[Lent]:
        """Lend somebody the next queries: first what they have already and did not answer, then new ones.

        Args:
            hold: ids of queries that are on their screen now, which are not given again.
            screened: whether they may see real queries; if not, they get practice and test items.
            most: queries that they may have at once, so that something is left for others.
        """
        now, _ = self.clock(), self.salt  # which may have to be written: this transaction would wait for that
        with self.store.writing() as on:
            out = self._out(on, person, now)
            lent = [one for one in out if one.query.id not in hold]
            count = min(count, len(lent) + max(0, most - len(out)))
            le, screening = schema.leases.c, sa.select(schema.gold.c.query).where(schema.gold.c.use != "hidden")
            mine = (le.person == person, le.query.not_in(screening))
            seen = on.scalar(sa.select(sa.func.count()).where(*mine)) or 0
            while len(lent) < count:
                query = self._next(on, person, seen, now) if screened else self._screening(on, person)
                if query is None:
                    break
                lent.append(self._lend(on, person, query, self.order(query, person), now))
                seen += 1
            lent = lent[:count]
            self._renew(on, person, [one.query.id for one in lent])
            return lent

    def lend(self, person: str, query: Task, shown: tuple[str, ...] = (), aside: bool = False) -> Lent:
        """Put one query on somebody's screen, and on nobody else's.

        Args:
            shown: how its items stand there already.
            aside: they may answer it there, and are not asked again.
        """
        self.store.add_tasks([query])
        shown, _ = shown or self.order(query, person), self.salt
        le = schema.leases.c
        with self.store.writing() as on:
            mine = sa.select(le.name, le.shown).where(le.person == person, le.query == query.id)
            there = on.execute(mine).first()
            if there is not None:
                return Lent(query, tuple(there.shown), there.name)
            return self._lend(on, person, query, shown, self.clock(), "aside" if aside else "out")

    def _lend(
        self, on: sa.Connection, person: str, query: Task, shown: tuple[str, ...], now: float, state: str = "out"
    ) -> Lent:
        lent = Lent(query, shown, self._name(query.id, person))
        row = {"query": query.id, "person": person, "shown": list(shown), "name": lent.name}
        on.execute(sa.insert(schema.leases), {**row, "state": state, "until": now + LEASE})
        return lent

    def order(self, query: Task, person: str) -> tuple[str, ...]:
        """The order in which a query's items stand on this person's screen: by lot, the same each time.

        The store's secret is in the lot: else the order would tell whether a query's purpose is `gold`.
        """
        items = list(query.items)
        random.Random(f"{self.salt} {query.id} {person}").shuffle(items)
        return tuple(items)

    def _name(self, query: str, person: str) -> str:
        return hashlib.sha256(f"{self.salt} {query} {person}".encode()).hexdigest()[:20]

    def named(self, person: str, names: Collection[str]) -> list[str]:
        """Ids of the queries that somebody's page calls by these names; what it does not call so is left out."""
        le = schema.leases.c
        if not names:
            return []
        with self.store.reading() as on:
            mine = sa.select(le.query).where(le.person == person, le.name.in_(list(names)))
            return list(on.scalars(mine))

    def names(self, person: str, queries: Collection[str]) -> dict[str, str]:
        """What somebody's page calls queries, by id."""
        le = schema.leases.c
        with self.store.reading() as on:
            mine = sa.select(le.name, le.query).where(le.person == person, le.query.in_(list(queries)))
            return {row.query: row.name for row in on.execute(mine)}

    def renew(self, person: str, queries: Collection[str]) -> None:
        """Say that somebody is still at these queries; what went to others in the meantime stays with them."""
        with self.store.writing() as on:
            mine = {one.query.id for one in self._out(on, person, self.clock())}
            self._renew(on, person, mine & set(queries))

    def skip(self, person: str, query: str) -> None:
        """Take a query off somebody's screen for good; others may still get it.

        An answer that was sent back to them stands if they skip it.
        """
        self._change_lease(person, query, {"out": "skipped", "back": "done"})

    def unskip(self, person: str, query: str) -> None:
        """Put a query that somebody skipped on their screen again."""
        self._change_lease(person, query, {"skipped": "out"})

    def send_back(self, person: str, query: str, remark: str) -> None:
        """Ask somebody to answer a query again; until they do, what they said stands.

        Raises:
            AssentError: they have not answered it, or it is a gold item, of which first answers count.
        """
        g = schema.gold.c
        with self.store.reading() as on:
            if on.scalar(sa.select(g.seq).where(g.query == query)):
                raise AssentError("a gold item is not sent back: the first answer to it counts")
        if not self._change_lease(person, query, {"done": "back"}, remark=remark):
            raise AssentError("nobody can be asked again: this answer was not given on the label page")

    def sent_back(self, person: str, queries: Collection[str]) -> dict[str, str]:
        """Those of these queries that a reviewer sent back to somebody, and what the reviewer said."""
        le = schema.leases.c
        back = (le.person == person, le.state == "back", le.query.in_(list(queries)))
        with self.store.reading() as on:
            return dict(on.execute(sa.select(le.query, le.remark).where(*back)).all())

    def _change_lease(self, person: str, query: str, states: Mapping[str, str], **values: Any) -> bool:
        """Bring somebody's lease from one state to another; return whether it was in such a state."""
        le = schema.leases.c
        mine = (le.person == person, le.query == query, le.state.in_(states))
        state = sa.case(states, value=le.state)
        change = sa.update(schema.leases).where(*mine).values(state=state, until=self.clock() + LEASE, **values)
        with self.store.writing() as on:
            return on.execute(change).rowcount > 0

    def give_back(self, person: str) -> None:
        """Offer what lies with somebody to others, because they left; it is theirs again if nobody took it."""
        le = schema.leases.c
        with self.store.writing() as on:
            mine = (le.person == person, le.state == "out")
            on.execute(sa.update(schema.leases).where(*mine).values(until=0.0))

    def others_hold(self, person: str) -> bool:
        """Whether queries that this person was not shown still want answers: other people are at them."""
        a, le = schema.asks.c, schema.leases.c
        mine = sa.exists().where(le.query == a.query, le.person == person)
        with self.store.reading() as on:
            return on.scalar(sa.select(a.seq).where(a.given < a.wanted, ~mine).limit(1)) is not None

    def skips(self) -> list[Skipped]:
        """Queries that somebody skipped and that still want answers, the most skipped first."""
        a, le = schema.asks.c, schema.leases.c
        count = sa.func.count(le.seq).label("people")
        rows = sa.select(a.query, count).join(schema.leases, le.query == a.query).where(le.state == "skipped")
        rows = rows.where(a.given < a.wanted).group_by(a.query, a.seq).order_by(count.desc(), a.seq)
        with self.store.reading() as on:
            return [Skipped(row.query, row.people) for row in on.execute(rows)]

    def skips_of(self) -> dict[str, int]:
        """How many queries each person skipped."""
        le = schema.leases.c
        counts = sa.select(le.person, sa.func.count()).where(le.state == "skipped").group_by(le.person)
        with self.store.reading() as on:
            return dict(on.execute(counts).all())

    def ask_again(self, query: str) -> None:
        """Offer a query once more to everybody who skipped it."""
        le = schema.leases.c
        with self.store.writing() as on:
            asked = sa.select(schema.asks.c.query).where(schema.asks.c.query == query)
            on.execute(sa.delete(schema.leases).where(le.query.in_(asked), le.state == "skipped"))

    def answer(self, event: Feedback) -> Feedback:
        """Store an answer; once this returns it outlives a crash. A late one counts, a repeated one changes nothing.

        Returns:
            What is stored under its id.

        Raises:
            NotShown: the query was never on this person's screen, or stood there in another order.
            Conflict: the id is stored with another body.
            Answered: they answered before, and this does not supersede what they said last.
            AssentError: it is no answer to its query.
        """
        le = schema.leases.c
        with self.store.writing() as on:
            mine = (le.person == event.annotator, le.query == event.task)
            lease = on.execute(sa.select(schema.leases).where(*mine)).first()
            if lease is None:
                raise NotShown("this was not shown to you: take the next one")
            if list(event.display_order) != lease.shown:
                raise NotShown("these items were shown to you in another order: reload the page")
            self._demand_succession(on, event)
            if self.store.append(on, [event]):
                on.execute(sa.update(schema.leases).where(*mine).values(state="done"))
                self._count(on, event)
        return next(iter(self.store.feedback(ids=[event.id])))

    def said_of(self, batch: str) -> list[Feedback]:
        """Everything that was said of a batch's queries, in the order of arrival."""
        a, f = schema.asks.c, schema.feedback
        with self.store.reading() as on:
            asked = sa.select(f.c.id).join(schema.asks, a.query == f.c.query).where(a.batch == batch)
            ids = on.scalars(asked.order_by(f.c.seq)).all()
        found = {event.id: event for event in self.store.feedback(ids=ids)}
        return [found[id] for id in ids]

    def last(self, person: str, count: int = 50) -> list[Feedback]:
        """What somebody said last, the newest first."""
        f = schema.feedback.c
        with self.store.reading() as on:
            newest = sa.select(f.id).where(f.annotator == person).order_by(f.seq.desc()).limit(count)
            ids = on.scalars(newest).all()
        found = {event.id: event for event in self.store.feedback(ids=ids)}
        return [found[id] for id in ids]

    def lent(self, person: str, name: str) -> Lent | None:
        """A query by the name that somebody's page has for it, as it stood there, answered or not."""
        le, q = schema.leases.c, schema.queries
        mine = sa.select(q, le.shown, le.name).join(schema.leases, le.query == q.c.id)
        with self.store.reading() as on:
            row = on.execute(mine.where(le.person == person, le.name == name)).first()
        return None if row is None else Lent(as_task(row), tuple(row.shown), row.name)

    def lent_before(self, person: str, name: str) -> Lent | None:
        """A query that was lent after the backup from which this store was restored: it is lent once more."""
        if self._before[0] != person or self.clock() - self._before[1] > LOOKED_UP:
            asked, bank = sa.select(schema.asks.c.query), sa.select(schema.gold.c.query)
            with self.store.reading() as on:
                known = on.scalars(asked.union(bank)).all()
            self._before = (person, self.clock(), {self._name(one, person): one for one in known})
        query = self._before[2].get(name, "")
        return next((self.lend(person, one) for one in self.store.tasks(ids=[query])), None)

    def add_gold(self, query: Task, answer: Judgement, use: str = "hidden", explanation: str = "") -> None:
        """Put an item with a known answer into the bank; the query's purpose is `gold`."""
        from assent.feedback import body, check

        if query.purpose != "gold":
            raise AssentError(f"a gold item is a query with purpose 'gold', not '{query.purpose}'")
        check(answer, query)
        agrees(answer, answer)
        self.store.add_tasks([query])
        with self.store.writing() as on:
            on.execute(sa.delete(schema.gold).where(schema.gold.c.query == query.id))
            row = {"query": query.id, "use": use, "answer": body(answer), "explanation": explanation}
            on.execute(sa.insert(schema.gold), row)

    def gold(self) -> Iterator[tuple[Task, Judgement, str]]:
        """The bank: query, right answer, use."""
        with self.store.reading() as on:
            rows = on.execute(sa.select(schema.gold).order_by(schema.gold.c.seq)).all()
        queries = {query.id: query for query in self.store.tasks(ids=[row.query for row in rows])}
        return ((queries[r.query], parse(queries[r.query].kind, r.answer), r.use) for r in rows)

    def judge(self, event: Feedback) -> Judged | None:
        """Whether an answer to a gold item is right; None for any other item."""
        g = schema.gold
        with self.store.reading() as on:
            row = on.execute(sa.select(g).where(g.c.query == event.task)).first()
        if row is None:
            return None
        kind = next(iter(self.store.tasks(ids=[event.task]))).kind
        return Judged(agrees(parse(kind, row.answer), event.judgement), row.use, row.explanation)

    def screens(self) -> bool:
        """Whether the bank holds practice or test items."""
        g = schema.gold.c
        with self.store.reading() as on:
            return on.scalar(sa.select(g.seq).where(g.use.in_(("practice", "test"))).limit(1)) is not None

    def screening(self, person: str) -> "Screening":
        """How somebody did on the test items: their first answers count, and one that is skipped is wrong."""
        g, le = schema.gold.c, schema.leases.c
        with self.store.reading() as on:
            mine = sa.select(g.query, g.use, le.state).join(schema.leases, g.query == le.query)
            rows = on.execute(mine.where(le.person == person, g.use.in_(("practice", "test")))).all()
            sizes = on.execute(sa.select(g.use, sa.func.count().label("n")).group_by(g.use)).all()
        bank = {query.id: right for query, right, use in self.gold() if use == "test"}
        first = {event.task: event.judgement for event in reversed(list(self.store.feedback(annotator=person)))}
        correct = sum(query in first and agrees(right, first[query]) for query, right in bank.items())
        over = [row for row in rows if row.state != "out"]
        tested = sum(row.use == "test" for row in over)
        most = {
            row.use: min(row.n, PRACTICE if row.use == "practice" else TEST) for row in sizes if row.use != "hidden"
        }
        if len(over) < sum(most.values()):
            return Screening("going on", correct, tested)
        return Screening("passed" if correct >= PASS / TEST * tested else "failed", correct, tested)

    def gold_answers(self, person: str, since: str = "") -> list[bool]:
        """Whether somebody was right, for each hidden gold item, in the order of their first answers.

        Only these count: else whoever finds out which item was gold could try what is right.

        Args:
            since: a time before which answers do not count, ISO 8601 in UTC.
        """
        f, g = schema.feedback.c, schema.gold.c
        mine = sa.select(f.query, f.kind, f.answer, g.answer.label("right")).join(schema.gold, g.query == f.query)
        with self.store.reading() as on:
            rows = on.execute(mine.where(f.annotator == person, g.use == "hidden", f.at >= since).order_by(f.seq)).all()
        first: dict[str, bool] = {}
        for row in rows:
            if row.query not in first:
                first[row.query] = agrees(parse(row.kind, row.right), parse(row.kind, row.answer))
        return list(first.values())

    def said(self, person: str) -> int:
        """How many queries somebody has answered, of those that were laid before people: not practice, not chat."""
        f, g = schema.feedback.c, schema.gold.c
        asked, hidden = sa.select(schema.asks.c.query), sa.select(g.query).where(g.use == "hidden")
        mine = (f.annotator == person, sa.or_(f.query.in_(asked), f.query.in_(hidden)))
        with self.store.reading() as on:
            return on.scalar(sa.select(sa.func.count(f.query.distinct())).where(*mine)) or 0

    def _out(self, on: sa.Connection, person: str, now: float) -> list[Lent]:
        """What lies with somebody unanswered, but for what expired and others have taken since."""
        le, q, a = schema.leases, schema.queries, schema.asks
        wanted = sa.or_(a.c.seq.is_(None), le.c.until > now, self._free(le.c.query, person, now))
        there = sa.or_(sa.and_(le.c.state == "out", wanted), le.c.state == "back")
        mine = sa.select(q, le.c.shown, le.c.name).join(le, le.c.query == q.c.id).outerjoin(a, a.c.query == q.c.id)
        rows = on.execute(mine.where(le.c.person == person, there).order_by(le.c.seq)).all()
        return [Lent(as_task(row), tuple(row.shown), row.name) for row in rows]

    def _free(self, query: Any, person: str, now: float) -> sa.ColumnElement[bool]:
        """Whether a query of `asks` wants more answers than it has, counting those that others are about to give."""
        a, le = schema.asks.c, schema.leases.alias("others").c
        about_to = (le.query == query, le.person != person, le.state == "out", le.until > now)
        others = sa.select(sa.func.count(le.seq)).where(*about_to)
        return a.given + others.scalar_subquery() < a.wanted

    def _next(self, on: sa.Connection, person: str, seen: int, now: float) -> Task | None:
        """A gold item at hidden random places, else the open query that is most wanted."""
        a, q, le = schema.asks.c, schema.queries, schema.leases.c
        if _lot(self.salt, "gold", person, seen) < (GOLD_AT_FIRST if seen < PROBATION else GOLD_LATER):
            found = self._from_bank(on, person, "hidden")
            if found is not None:
                return found
        mine = sa.exists().where(le.query == a.query, le.person == person)
        free = self._free(a.query, person, now)
        wanted = sa.select(q).join(schema.asks, a.query == q.c.id).where(a.given < a.wanted, ~mine, free)
        row = on.execute(wanted.order_by(a.priority, a.seq).limit(1)).first()
        return as_task(row) if row else None

    def _screening(self, on: sa.Connection, person: str) -> Task | None:
        g, le = schema.gold.c, schema.leases
        for use, most in (("practice", PRACTICE), ("test", TEST)):
            seen = sa.select(sa.func.count()).select_from(le).join(schema.gold, g.query == le.c.query)
            if (on.scalar(seen.where(le.c.person == person, g.use == use)) or 0) < most:
                found = self._from_bank(on, person, use)
                if found is not None:
                    return found
        return None

    def _from_bank(self, on: sa.Connection, person: str, use: str) -> Task | None:
        """A gold item of which this person has not seen the like, drawn by a lot of their own."""
        g, q, le = schema.gold.c, schema.queries, schema.leases.c
        bank = sa.select(q).join(schema.gold, g.query == q.c.id).where(g.use == use)
        about = sa.select(q.c.prompt).join(schema.gold, g.query == q.c.id).where(g.use == use)
        mine = sa.select(q).join(schema.leases, le.query == q.c.id).where(le.person == person, q.c.prompt.in_(about))
        seen = {(row.prompt, frozenset(row.items)) for row in on.execute(mine)}
        rows = [row for row in on.execute(bank) if (row.prompt, frozenset(row.items)) not in seen]
        return as_task(min(rows, key=lambda row: _lot(self.salt, use, person, row.id))) if rows else None

    def _renew(self, on: sa.Connection, person: str, queries: Collection[str]) -> None:
        le = schema.leases.c
        mine = (le.person == person, le.query.in_(list(queries)), le.state == "out")
        on.execute(sa.update(schema.leases).where(*mine).values(until=self.clock() + LEASE))

    def _demand_succession(self, on: sa.Connection, event: Feedback) -> None:
        """Refuse a new answer that leaves what this person said last of the query standing beside it."""
        f = schema.feedback.c
        mine = sa.select(f.id).where(f.annotator == event.annotator, f.query == event.task)
        told = on.scalars(mine.order_by(f.seq)).all()
        if event.id in told or event.supersedes == (told[-1] if told else ""):
            return
        if told:
            raise Answered(told[-1])
        raise AssentError(f"{event.supersedes} is no answer of yours to this")

    def _count(self, on: sa.Connection, event: Feedback) -> None:
        """Keep the ask's count of voices; who finds a pair almost alike calls for a second opinion."""
        a = schema.asks.c
        ask = sa.update(schema.asks).where(a.query == event.task)
        on.execute(ask.values(given=self._voices(on, event.task)))
        if getattr(event.judgement, "strength", 0) == 1 and getattr(event.judgement, "preferred", ""):
            on.execute(ask.where(a.wanted == 1).values(wanted=2))

    def _voices(self, on: sa.Connection, query: str) -> int:
        """How many people answered a query; programs do not count."""
        f = schema.feedback.c
        return on.scalar(sa.select(sa.func.count(f.annotator.distinct())).where(f.query == query, *by_person())) or 0


def overlap(query: Task) -> int:
    """How many people a query is for, decided by the query itself: five, three, or mostly one."""
    lot = _lot("overlap", query.id)
    return 5 if lot < FIVE else 3 if lot < FIVE + THRICE else 1


def agrees(right: Judgement, given: Judgement) -> bool:
    """Whether an answer to a gold item counts as right.

    Raises:
        AssentError: a kind of answer that nothing can be compared with.
    """
    if not hasattr(right, "agrees"):
        kinds = "give a comparison, ranking, rating or approval"
        raise AssentError(f"a gold answer of type {type(right).__name__} cannot be marked: {kinds}")
    return bool(right.agrees(given))


def _lot(*what: Any) -> float:
    """A number from 0 to 1 that depends on nothing but its arguments."""
    told = hashlib.sha256(" ".join(map(str, what)).encode()).digest()
    return int.from_bytes(told[:6], "big") / 2**48


def settings(store: Store) -> Mapping[str, Any]:
    """What the project's people set, the newest value of each name."""
    s = schema.settings.c
    newest = sa.select(sa.func.max(s.seq)).group_by(s.name)
    with store.reading() as on:
        rows = on.execute(sa.select(s.name, s.value).where(s.seq.in_(newest))).all()
    return {row.name: row.value for row in rows}


def history(store: Store, name: str) -> list[tuple[str, str, Any]]:
    """(when, by whom, what) something was set, the newest first."""
    s = schema.settings.c
    with store.reading() as on:
        rows = on.execute(sa.select(s.at, s.by, s.value).where(s.name == name).order_by(s.seq.desc())).all()
    return [(row.at, row.by, row.value) for row in rows]


def change_setting(store: Store, name: str, value: Any, by: str, at: str) -> None:
    """Set something; what held before stays readable."""
    with store.writing() as on:
        on.execute(sa.insert(schema.settings), {"name": name, "value": value, "by": by, "at": at})
