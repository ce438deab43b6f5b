"""What a project's answers tell, kept up to date: each answer is read once, and what takes long is computed aside.

Events are never changed, so that only those beyond the last `seq` are read. A page waits a moment for what is new, then
shows what is known, and how old it is.
"""

import math
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from threading import Condition, Lock, Thread
from typing import NamedTuple
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from assent.errors import AssentError
from assent.labelling.accounts import People
from assent.labelling.arena import Table, table
from assent.labelling.quality import AnnotatorQuality, Consensus, Preferred, Tally
from assent.records import Prompt
from assent.store import schema
from assent.store.database import Store, by_person
from assent.web.workspace import Project

PATIENCE, SMALL = 0.3, 5000
"""Seconds that a page waits for new results, and the number of events up to which it waits until they are there."""
LONGEST = 30.0
RESAMPLES = 200
DAYS = 14
"""Days of which the answers are counted."""
PACE = 7
"""Days whose pace is taken for the future's."""
ENOUGH = 20
"""Answers from which a pace is told."""
SHOWN = 50
"""Disagreements that are kept."""


class Day(NamedTuple):
    """How many answers people gave on a day, by UTC."""

    date: str
    answers: int


class Outlook(NamedTuple):
    """How long the questions to people will take at the pace of the last days."""

    wanted: int
    """Answers that are still to come."""
    pace: float
    """Answers a day."""
    over: float
    """Days in which these came."""

    @property
    def days(self) -> float:
        return self.wanted / self.pace


class Disagreement(NamedTuple):
    """A pair that people and the reward model see differently."""

    query: str
    prompt: Prompt
    first: str
    second: str
    people: float
    """Share of the people who prefer the first, ties counting half."""
    votes: int
    model: float
    """Probability, by the reward model, that the first is the better."""

    @property
    def gap(self) -> float:
        return abs(self.people - self.model)


@dataclass(frozen=True)
class View:
    """What is known at one moment."""

    annotators: tuple[AnnotatorQuality, ...] = ()
    """Of everyone but rules that judge: how they did until `counted`, and what their peers told until `computed`."""
    days: tuple[Day, ...] = ()
    counted: int = 0
    """`seq` of the newest event that is counted."""
    consensus: Consensus | None = None
    arena: Table | None = None
    outlook: Outlook | None = None
    computed: int = 0
    """`seq` of the newest event that consensus, arena and outlook know of."""
    at: datetime | None = None
    """When these were computed; None: they never were."""
    disagreements: tuple[Disagreement, ...] = ()
    failed: str = ""
    """Why the last attempt found nothing."""
    newest: int = 0
    """`seq` of the newest event of the store when somebody looked."""

    @property
    def behind(self) -> int:
        """Events that came since the last computation."""
        return max(0, self.newest - self.computed)


class Ticket(NamedTuple):
    """That somebody asked."""

    number: int
    newest: int
    """`seq` of the newest event then."""
    until: float
    """When they stop waiting, by `time.monotonic`."""


@dataclass
class _Known:
    """What was read of a store so far."""

    tally: Tally = field(default_factory=Tally)
    seq: int = 0
    digest: str = ""
    days: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    """Events about held-out prompts."""


class Statistics:
    """Of one project. One thread reads and computes; it ends when nobody has asked in the meantime."""

    def __init__(self) -> None:
        self._turn = Condition()
        self._asked = self._served = 0
        self._running = False
        self._scores: Mapping[str, float] | None = None
        self._view = View()
        self._known = _Known()
        self._consensus_of: object = None
        self._arena_of: object = None
        self._outlook_of: object = None
        self._ranked_of: object = None

    def view(self, here: Project, scores: Mapping[str, float] | None = None) -> View:
        """What is known, after a moment in which it is brought up to date.

        Args: scores: the reward model's, by response; if given, disagreements with it are looked for.
        """
        return self.wait(self.ask(here, scores))

    def ask(self, here: Project, scores: Mapping[str, float] | None = None) -> Ticket:
        """Have it brought up to date, while whoever asks does something else."""
        newest = here.store.last_arrival()[0]
        with self._turn:
            self._asked += 1
            self._scores = self._scores if scores is None else scores
            if not self._running:
                self._running = True
                Thread(target=self._work, args=(here,), daemon=True).start()
            return Ticket(self._asked, newest, time.monotonic() + (PATIENCE if newest > SMALL else LONGEST))

    def wait(self, ticket: Ticket) -> View:
        """What is known when all that had come before is computed, or the time is over."""
        with self._turn:
            self._turn.wait_for(lambda: self._served >= ticket.number, max(0.0, ticket.until - time.monotonic()))
            return replace(self._view, newest=ticket.newest)

    def _work(self, here: Project) -> None:
        while True:
            with self._turn:
                serving, scores, self._scores = self._asked, self._scores, None
            failed = ""
            try:
                self._update(here)
                if scores is not None:
                    self._rank(here, scores)
            except AssentError as error:
                failed = str(error)
            except Exception as error:  # noqa: BLE001 (the page tells it)
                failed, self._known = f"the statistics failed: {type(error).__name__}: {error}", _Known()
            with self._turn:
                self._view = replace(self._view, failed=failed)
                self._served = serving
                self._turn.notify_all()
                if self._asked == serving:
                    self._running = False
                    return

    def _update(self, here: Project) -> None:
        known = self._known
        if here.store.last_arrival(known.seq) != (known.seq, known.digest):  # a backup was restored
            known = self._known = _Known()
            self._consensus_of = self._arena_of = self._outlook_of = self._ranked_of = None
            self._view = View()
        _read(here.store, known)
        gold = {query.id: answer for query, answer, _ in here.desk.gold()}
        now = datetime.fromtimestamp(here.desk.clock(), UTC)
        peers = self._view.consensus.peers if self._view.consensus else {}
        self._show(annotators=known.tally.annotators(gold, peers), days=_last_days(known.days, now), counted=known.seq)
        if (answers := (len(known.tally), gold)) != self._consensus_of:
            consensus = known.tally.consensus(gold, lambda ids: _texts(here.store, ids), RESAMPLES)
            self._show(annotators=known.tally.annotators(gold, consensus.peers), consensus=consensus)
            self._consensus_of = answers
        if (games := (known.compared, here.store.counts().responses)) != self._arena_of:
            self._show(arena=arena(here.store))
            self._arena_of = games
        if (questions := (known.seq, _wanted(here.store), now.date())) != self._outlook_of:
            self._show(outlook=outlook(here, now))
            self._outlook_of = questions
        self._show(computed=known.seq, at=now)

    def _rank(self, here: Project, scores: Mapping[str, float]) -> None:
        gold, tally = [query.id for query, _, _ in here.desk.gold()], self._known.tally
        ranked = len(tally), gold, id(scores), len(scores)
        if ranked != self._ranked_of:
            self._show(disagreements=disagreements(here.store, tally.preferred(gold), scores))
            self._ranked_of = ranked

    def _show(self, **values: object) -> None:
        self._view = replace(self._view, **values)  # type: ignore[arg-type]


_OF: WeakKeyDictionary[Store, Statistics] = WeakKeyDictionary()
_OF_LOCK = Lock()


def statistics_of(here: Project) -> Statistics:
    """The statistics of a project's store, for as long as that is open."""
    with _OF_LOCK:
        return _OF.setdefault(here.store, Statistics())


def arena(store: Store) -> Table:
    """Policies by what was said of their answers on held-out prompts, by anybody; their rating is relative."""
    arrivals = list(store.arrivals(purpose="evaluate"))
    queries = {arrival.task.id: arrival.task for arrival in arrivals}
    authors: dict[str, frozenset[str]] = {}
    for response in store.responses(ids={item for query in queries.values() for item in query.items}):
        authors[response.id] = authors.get(response.id, frozenset()) | {policy_of(response.policy)}
    return table((arrival.event for arrival in arrivals), queries, authors)


def policy_of(label: str) -> str:
    """The checkpoint in the name under which answers are kept: `evaluate:ppo#1a2b3c` is of `ppo`."""
    return label.partition(":")[2].partition("#")[0] or label


def disagreements(
    store: Store, preferred: Mapping[str, Preferred], scores: Mapping[str, float], count: int = SHOWN
) -> tuple[Disagreement, ...]:
    """Compared pairs, those first about which the reward model is the furthest from people."""

    def chance(first: str, second: str) -> float:
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, scores[first] - scores[second]))))

    scored = (query for query in store.tasks(ids=preferred) if all(item in scores for item in query.items))
    models = ((query, chance(*query.items)) for query in scored)
    widest = nlargest(count, models, key=lambda pair: abs(preferred[pair[0].id].share - pair[1]))
    about = {prompt.id: prompt for prompt in store.prompts(ids=[query.prompt for query, _ in widest])}
    return tuple(
        Disagreement(query.id, about[query.prompt], query.items[0], query.items[1], *preferred[query.id], model)
        for query, model in widest
    )


def outlook(here: Project, now: datetime) -> Outlook | None:
    """How long people will take; None while fewer than twenty of them answered, or for less than a day."""
    a, f = schema.asks.c, schema.feedback.c
    accounts = list((here.desk.people or People(here.store)).all())
    expected = {one.id for one in accounts if one.role == "labeller" and one.state == "active"}
    away = {one.id for one in accounts if one.state not in ("new", "active")}
    since = (now - timedelta(days=PACE)).isoformat()
    first_answers = (f.query == a.query, f.supersedes == "", *by_person())
    with here.store.reading() as on:
        came = on.execute(
            sa.select(f.annotator, sa.func.min(f.at).label("first"), sa.func.count().filter(f.at >= since).label("n"))
            .join(schema.asks, sa.and_(*first_answers))
            .group_by(f.annotator)
        ).all()
        most = max(1, len(({row.annotator for row in came} | expected) - away))
        wanted = sa.case((a.wanted > most, most), else_=a.wanted) - a.given
        left = on.scalar(sa.select(sa.func.sum(wanted)).where(wanted > 0)) or 0
    answers = sum(row.n for row in came)
    if answers < ENOUGH or not left:
        return None
    over = min(float(PACE), (now - _moment(min(row.first for row in came))) / timedelta(days=1))
    return Outlook(int(left), answers / over, over) if over >= 1 else None


def _wanted(store: Store) -> int:
    """How many answers people are asked for, given or not."""
    with store.reading() as on:
        return on.scalar(sa.select(sa.func.sum(schema.asks.c.wanted))) or 0


def _moment(at: str) -> datetime:
    """What somebody else's file says may be no time; then it is long ago."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read(store: Store, known: _Known) -> None:
    """Take in what came since."""
    for arrival in store.arrivals(known.seq):
        event = arrival.event
        if not event.annotator.startswith("judge:"):
            known.tally.add(event, arrival.task)
        known.compared += arrival.task.purpose == "evaluate"
        known.days[event.created_at[:10]] += event.by_person and not event.supersedes
        known.seq, known.digest = arrival.seq, arrival.digest


def _last_days(days: Mapping[str, int], now: datetime) -> tuple[Day, ...]:
    dates = [(now - timedelta(days=back)).date().isoformat() for back in reversed(range(DAYS))]
    return tuple(Day(date, days.get(date, 0)) for date in dates)


def _texts(store: Store, ids: Collection[str]) -> Mapping[str, str]:
    return {event.id: getattr(event.judgement, "text", "") for event in store.feedback(ids=ids)}
