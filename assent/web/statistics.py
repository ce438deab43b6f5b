"""Statistics of a project's judgements for the pages, computed in a background thread.

Events never change, so each is read once: only events after the last `seq` are new. A page waits a moment for an
update, then shows the last results with their age.
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
from assent.labelling.accounts import Accounts
from assent.labelling.agreement import Consensus, measure_consensus
from assent.labelling.arena import RatingTable, rate_policies
from assent.labelling.judgement_table import JudgementTable, VoteShare
from assent.labelling.quality import AnnotatorQuality, measure_annotators
from assent.records import Prompt
from assent.store import schema
from assent.store.database import Store
from assent.web.text import text_of
from assent.web.workspace import Project

WAIT_SECONDS = 0.3
"""Seconds that a page of a large store waits for an update."""
SMALL_STORE = 5000
"""Events up to which a page waits for the whole update, at most `MAX_WAIT_SECONDS`."""
MAX_WAIT_SECONDS = 30.0
RESAMPLES = 200
NUM_DAYS = 14
"""Days for which judgements are counted."""
PACE_DAYS = 7
"""Days over which the pace of the forecast is measured."""
MIN_JUDGEMENTS = 20
"""Judgements without which there is no forecast."""
MAX_DISAGREEMENTS = 50
"""Disagreements that a page shows."""


class DayCount(NamedTuple):
    """The number of human judgements of a day (UTC)."""

    date: str
    judgements: int


class Forecast(NamedTuple):
    """The time that the open tasks will take at the pace of the last days."""

    required: int
    """Judgements that are still required."""
    pace: float
    """Judgements a day."""
    measured_days: float
    """Days over which the pace was measured."""

    @property
    def days(self) -> float:
        return self.required / self.pace


class Disagreement(NamedTuple):
    """A pair on which the annotators and the reward model disagree."""

    task: str
    prompt: Prompt
    first: str
    second: str
    annotator_share: float
    """Share of annotators who prefer the first, ties counting half."""
    votes: int
    model_prob: float
    """Probability that the first is better, by the reward model."""

    @property
    def gap(self) -> float:
        return abs(self.annotator_share - self.model_prob)


@dataclass(frozen=True)
class StatisticsView:
    """The results at one moment."""

    annotators: tuple[AnnotatorQuality, ...] = ()
    """All annotators except rule-based scorers. Counts go up to `counted`, agreement with peers up to `computed`."""
    days: tuple[DayCount, ...] = ()
    counted: int = 0
    """`seq` of the newest counted event."""
    consensus: Consensus | None = None
    arena: RatingTable | None = None
    forecast: Forecast | None = None
    computed: int = 0
    """`seq` of the newest event in consensus, arena and forecast."""
    computed_at: datetime | None = None
    """When these were computed; None: never."""
    disagreements: tuple[Disagreement, ...] = ()
    error: str = ""
    """The error of the last update."""
    newest: int = 0
    """`seq` of the newest event of the store at the request."""

    @property
    def num_behind(self) -> int:
        """The number of events since the last computation."""
        return max(0, self.newest - self.computed)


class UpdateRequest(NamedTuple):
    """A request to bring the statistics up to date."""

    number: int
    newest: int
    """`seq` of the newest event at the request."""
    deadline: float
    """When the page stops waiting, by `time.monotonic`."""


@dataclass
class _ReadState:
    """The events of a store that were read so far, in aggregate."""

    table: JudgementTable = field(default_factory=JudgementTable)
    seq: int = 0
    digest: str = ""
    judgements_by_day: Counter[str] = field(default_factory=Counter)
    num_held_out: int = 0
    """Events about held-out prompts."""


class Statistics:
    """The statistics of one project. One thread reads and computes; it ends when no request is open."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._num_requested = 0
        self._num_served = 0
        self._is_running = False
        self._scores: Mapping[str, float] | None = None
        self._view = StatisticsView()
        self._read_state = _ReadState()
        # What each result was computed from; it is computed again if that changes.
        self._consensus_key: object = None
        self._arena_key: object = None
        self._forecast_key: object = None
        self._disagreements_key: object = None

    def view(self, project: Project, scores: Mapping[str, float] | None = None) -> StatisticsView:
        """Return the results, after waiting a moment for an update.

        Args:
            scores: the reward model's, by response; if given, the disagreements with it are computed too.
        """
        return self.wait(self.request_update(project, scores))

    def request_update(self, project: Project, scores: Mapping[str, float] | None = None) -> UpdateRequest:
        """Start an update in the background; `wait` returns its results."""
        newest = project.store.last_arrival()[0]
        with self._condition:
            self._num_requested += 1
            self._scores = self._scores if scores is None else scores
            if not self._is_running:
                self._is_running = True
                Thread(target=self._work, args=(project,), daemon=True).start()
            seconds = WAIT_SECONDS if newest > SMALL_STORE else MAX_WAIT_SECONDS
            return UpdateRequest(self._num_requested, newest, time.monotonic() + seconds)

    def wait(self, ticket: UpdateRequest) -> StatisticsView:
        """Return the results once the requested update is done, or at its deadline."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._num_served >= ticket.number, max(0.0, ticket.deadline - time.monotonic())
            )
            return replace(self._view, newest=ticket.newest)

    def _work(self, project: Project) -> None:
        while True:
            with self._condition:
                serving = self._num_requested
                scores = self._scores
                self._scores = None
            error_text = ""
            try:
                self._update(project)
                if scores is not None:
                    self._update_disagreements(project, scores)
            except AssentError as error:
                error_text = str(error)
            except Exception as error:  # noqa: BLE001 (the page shows it)
                error_text = f"the statistics failed: {type(error).__name__}: {error}"
                self._read_state = _ReadState()
            with self._condition:
                self._view = replace(self._view, error=error_text)
                self._num_served = serving
                self._condition.notify_all()
                if self._num_requested == serving:
                    self._is_running = False
                    return

    def _update(self, project: Project) -> None:
        state = self._read_state
        if project.store.last_arrival(state.seq) != (state.seq, state.digest):  # a backup was restored
            state = self._read_state = _ReadState()
            self._consensus_key = self._arena_key = self._forecast_key = self._disagreements_key = None
            self._view = StatisticsView()
        _read_new_events(project.store, state)
        gold = {task.id: judgement for task, judgement, _ in project.queue.gold.items()}
        now = datetime.fromtimestamp(project.queue.clock(), UTC)
        peers = self._view.consensus.peers if self._view.consensus else {}
        self._publish(
            annotators=measure_annotators(state.table, gold, peers), days=_last_days(state.judgements_by_day, now),
            counted=state.seq,
        )  # fmt: skip
        if (consensus_key := (len(state.table), gold)) != self._consensus_key:
            consensus = measure_consensus(state.table, gold, lambda ids: _texts(project.store, ids), RESAMPLES)
            self._publish(annotators=measure_annotators(state.table, gold, consensus.peers), consensus=consensus)
            self._consensus_key = consensus_key
        if (arena_key := (state.num_held_out, project.store.counts().responses)) != self._arena_key:
            self._publish(arena=arena_table(project.store))
            self._arena_key = arena_key
        if (forecast_key := (state.seq, _total_required(project.store), now.date())) != self._forecast_key:
            self._publish(forecast=forecast(project, now))
            self._forecast_key = forecast_key
        self._publish(computed=state.seq, computed_at=now)

    def _update_disagreements(self, project: Project, scores: Mapping[str, float]) -> None:
        gold = [task.id for task, _, _ in project.queue.gold.items()]
        table = self._read_state.table
        key = len(table), gold, id(scores), len(scores)
        if key != self._disagreements_key:
            self._publish(disagreements=largest_disagreements(project.store, table.vote_shares(gold), scores))
            self._disagreements_key = key

    def _publish(self, **values: object) -> None:
        self._view = replace(self._view, **values)  # type: ignore[arg-type]


_STATISTICS: WeakKeyDictionary[Store, Statistics] = WeakKeyDictionary()
_STATISTICS_LOCK = Lock()


def statistics_of(project: Project) -> Statistics:
    """Return the statistics of a project's store; they live as long as the store is open."""
    with _STATISTICS_LOCK:
        return _STATISTICS.setdefault(project.store, Statistics())


def arena_table(store: Store) -> RatingTable:
    """Rate the policies by all judgements of their responses to held-out prompts; ratings are relative."""
    arrivals = list(store.arrivals(purpose="evaluate"))
    tasks = {arrival.task.id: arrival.task for arrival in arrivals}
    policies: dict[str, frozenset[str]] = {}
    for response in store.responses(ids={item for task in tasks.values() for item in task.items}):
        policies[response.id] = policies.get(response.id, frozenset()) | {policy_name(response.policy)}
    return rate_policies((arrival.event for arrival in arrivals), tasks, policies)


def policy_name(label: str) -> str:
    """Return the policy in the label of a response: `evaluate:ppo#1a2b3c` is from `ppo`."""
    return label.partition(":")[2].partition("#")[0] or label


def largest_disagreements(
    store: Store, vote_shares: Mapping[str, VoteShare], scores: Mapping[str, float], count: int = MAX_DISAGREEMENTS
) -> tuple[Disagreement, ...]:
    """Return compared pairs, those first on which the reward model is furthest from the annotators."""

    def preference_prob(first: str, second: str) -> float:
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, scores[first] - scores[second]))))

    scored = (task for task in store.tasks(ids=vote_shares) if all(item in scores for item in task.items))
    predicted = ((task, preference_prob(*task.items)) for task in scored)
    largest = nlargest(count, predicted, key=lambda pair: abs(vote_shares[pair[0].id].share - pair[1]))
    prompts = {prompt.id: prompt for prompt in store.prompts(ids=[task.prompt for task, _ in largest])}
    return tuple(
        Disagreement(task.id, prompts[task.prompt], task.items[0], task.items[1], *vote_shares[task.id], model_prob)
        for task, model_prob in largest
    )


def forecast(project: Project, now: datetime) -> Forecast | None:
    """Estimate how long the open tasks will take; None with fewer than twenty judgements, or less than a day."""
    queue, feedback = schema.queue.c, schema.feedback.c
    accounts = list((project.queue.accounts or Accounts(project.store)).all())
    active = {account.id for account in accounts if account.role == "labeller" and account.state == "active"}
    inactive = {account.id for account in accounts if account.state not in ("new", "active")}
    since = (now - timedelta(days=PACE_DAYS)).isoformat()
    first_judgements = (feedback.task == queue.task, feedback.supersedes == "", schema.IS_HUMAN)
    with project.store.reading() as connection:
        rows = connection.execute(
            sa.select(
                feedback.annotator,
                sa.func.min(feedback.created_at).label("first"),
                sa.func.count().filter(feedback.created_at >= since).label("recent"),
            )
            .join(schema.queue, sa.and_(*first_judgements))
            .group_by(feedback.annotator)
        ).all()
        # No task can get more judgements than there are annotators.
        max_votes = max(1, len(({row.annotator for row in rows} | active) - inactive))
        missing = sa.case((queue.required > max_votes, max_votes), else_=queue.required) - queue.received
        required = connection.scalar(sa.select(sa.func.sum(missing)).where(missing > 0)) or 0
    recent = sum(row.recent for row in rows)
    if recent < MIN_JUDGEMENTS or not required:
        return None
    days = min(float(PACE_DAYS), (now - _parse_time(min(row.first for row in rows))) / timedelta(days=1))
    return Forecast(int(required), recent / days, days) if days >= 1 else None


def _total_required(store: Store) -> int:
    """Return how many judgements all tasks require, received or not."""
    with store.reading() as connection:
        return connection.scalar(sa.select(sa.func.sum(schema.queue.c.required))) or 0


def _parse_time(text: str) -> datetime:
    """Parse a time; an imported file may hold anything there, which counts as long ago."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _read_new_events(store: Store, state: _ReadState) -> None:
    for arrival in store.arrivals(state.seq):
        event = arrival.event
        if event.source != "scorer":
            state.table.add(event, arrival.task)
        state.num_held_out += arrival.task.purpose == "evaluate"
        state.judgements_by_day[event.created_at[:10]] += event.is_human and not event.supersedes
        state.seq, state.digest = arrival.seq, arrival.digest


def _last_days(days: Mapping[str, int], now: datetime) -> tuple[DayCount, ...]:
    dates = [(now - timedelta(days=back)).date().isoformat() for back in reversed(range(NUM_DAYS))]
    return tuple(DayCount(date, days.get(date, 0)) for date in dates)


def _texts(store: Store, ids: Collection[str]) -> Mapping[str, str]:
    return {event.id: text_of(event.judgement) for event in store.feedback(ids=ids)}
