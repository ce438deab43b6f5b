"""The task queue: next tasks, leases and submitted judgements, on SQLite and on a real PostgreSQL."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from clock import Clock
from queued_tasks import (
    AT,
    RANKS,
    assigned_ids,
    comparisons,
    enqueue_comparisons,
    ids_of,
    is_in_interval,
    judge_once,
    make_feedback,
    make_task,
    tiers,
)

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.labelling.assignments import Assignment, NotAssigned
from assent.labelling.queue import AlreadyJudged, TaskQueue, TaskRequest, required_votes
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.store import schema
from assent.store.database import Store
from assent.store.errors import Busy, Conflict, DiskFull

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
POSTGRESQL = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


# Next tasks


def test_next_tasks_assigns_a_task_to_one_annotator(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 3)
    assert assigned_ids(queue.next_tasks("ann", 2)) == ids_of(tasks)[:2]
    assert assigned_ids(queue.next_tasks("bob", 2)) == ids_of(tasks)[2:]
    assert queue.next_tasks("cleo", 2) == []
    assert assigned_ids(queue.next_tasks("ann", 9)) == ids_of(tasks)[:2]


def test_task_of_three_votes_is_assigned_to_three_annotators(queue: TaskQueue) -> None:
    judge_once(queue, "ann", "bob", "cleo")
    enqueue_comparisons(queue, 1, required=3)
    assignment = {name: queue.next_tasks(name, 5) for name in ("ann", "bob", "cleo", "dan")}
    assert [len(entry) for entry in assignment.values()] == [1, 1, 1, 0]
    for name in ("ann", "bob", "cleo"):
        assert queue.progress("label") == (1, 0)
        queue.submit(make_feedback(assignment[name][0], name))
        assert queue.next_tasks(name, 5) == []
    assert queue.progress("label") == (1, 1)
    assert queue.next_tasks("dan", 5) == []


def test_next_tasks_never_repeats_a_judged_task(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1, required=2)
    (assignment,) = queue.next_tasks("ann", 5)
    queue.submit(make_feedback(assignment, "ann"))
    assert queue.next_tasks("ann", 5) == []
    assert assigned_ids(queue.next_tasks("bob", 5)) == [assignment.task.id]


def test_next_tasks_leaves_out_tasks_on_screen(queue: TaskQueue) -> None:
    tasks = ids_of(enqueue_comparisons(queue, 4))
    first, second = queue.next_tasks("ann", 2)
    assert assigned_ids(queue.next_tasks("ann", 2, on_screen=[first.task.id])) == [second.task.id, tasks[2]]
    assert assigned_ids(queue.next_tasks("ann", 3)) == tasks[:3]


def test_enqueue_adds_a_task_once(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 3)
    assert queue.enqueue([TaskRequest(task) for task in tasks], "label") == 0
    assert queue.enqueue([TaskRequest(task) for task in tasks[:1]], "another") == 0
    assert queue.progress() == queue.progress("label") == (3, 0)


def test_request_votes_puts_tasks_first(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 3)
    (assignment,) = queue.next_tasks("ann", 1)
    queue.submit(make_feedback(assignment, "ann"))
    queue.request_votes(tasks[0].id, 2, "disagreement")
    queue.request_votes(tasks[2].id, 1, "disagreement")
    assert assigned_ids(queue.next_tasks("bob", 9)) == [tasks[0].id, tasks[2].id, tasks[1].id]
    assert assigned_ids(queue.next_tasks("cleo", 9)) == [tasks[0].id]
    assert queue.next_tasks("ann", 9) == []


def test_required_votes_has_the_documented_rates() -> None:
    tasks = [Task("comparison", f"prompt {n}", ("a", "b")) for n in range(20_000)]
    required = Counter(map(required_votes, tasks))
    assert set(required) == {1, 3, 5}
    assert is_in_interval(20_000, 0.15, required[3]), required
    assert is_in_interval(20_000, 0.02, required[5]), required
    assert [required_votes(task) for task in reversed(tasks)] == [required_votes(task) for task in tasks][::-1]


@pytest.mark.parametrize("strength", [1, 2, 3])
def test_slight_preference_requests_a_second_vote(queue: TaskQueue, strength: int) -> None:
    judge_once(queue, "ann", "bob")
    enqueue_comparisons(queue, 2)
    (assignment,) = queue.next_tasks("ann", 1)
    (bob_assignment,) = queue.next_tasks("bob", 1)
    queue.submit(make_feedback(assignment, "ann", strength=strength))
    if strength == 1:
        assert queue.progress("label") == (2, 0)
        (repeated,) = queue.next_tasks("bob", 1, on_screen=[bob_assignment.task.id])
        queue.submit(make_feedback(repeated, "bob", strength=1))
    assert queue.progress("label") == (2, 1)
    assert queue.next_tasks("cleo", 1) == []


def test_tie_requests_no_second_vote(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    queue.submit(
        Feedback(assignment.task.id, "ann", Comparison(verdict="tie"), AT, display_order=assignment.display_order)
    )
    assert queue.progress() == (1, 1)
    assert queue.next_tasks("bob", 1) == []


def test_skipped_task_is_assigned_to_others_at_once(queue: TaskQueue) -> None:
    tasks = ids_of(enqueue_comparisons(queue, 2))
    queue.next_tasks("ann", 1)
    queue.assignments.skip("ann", tasks[0])
    assert assigned_ids(queue.next_tasks("ann", 9)) == tasks[1:]
    assert assigned_ids(queue.next_tasks("bob", 9)) == tasks[:1]
    assert assigned_ids(queue.next_tasks("ann", 9)) == tasks[1:]


def test_skip_needs_an_assignment(queue: TaskQueue) -> None:
    tasks = ids_of(enqueue_comparisons(queue, 1))
    queue.next_tasks("ann", 1)
    queue.assignments.skip("bob", tasks[0])
    assert queue.next_tasks("cleo", 1) == []
    assert assigned_ids(queue.next_tasks("ann", 1)) == tasks


# Leases


def test_lease_lasts_15_minutes(queue: TaskQueue, clock: Clock) -> None:
    tasks = ids_of(enqueue_comparisons(queue, 1))
    queue.next_tasks("ann", 1)
    clock.minutes(14.99)
    assert queue.next_tasks("bob", 1) == []
    clock.minutes(0.02)
    assert assigned_ids(queue.next_tasks("bob", 1)) == tasks


def test_renewed_lease_lasts_15_minutes_more(queue: TaskQueue, clock: Clock) -> None:
    tasks = ids_of(enqueue_comparisons(queue, 1))
    queue.next_tasks("ann", 1)
    for _ in range(4):
        clock.minutes(14)
        queue.assignments.renew("ann", tasks)
        queue.assignments.renew("cleo", tasks)  # the task is not assigned to cleo
        assert queue.next_tasks("bob", 1) == []
    clock.minutes(14.99)
    assert queue.next_tasks("bob", 1) == []
    clock.minutes(0.02)
    assert assigned_ids(queue.next_tasks("bob", 1)) == tasks


def test_late_judgement_counts(queue: TaskQueue, clock: Clock) -> None:
    enqueue_comparisons(queue, 1)
    (late,) = queue.next_tasks("ann", 1)
    clock.minutes(16)
    (assignment,) = queue.next_tasks("bob", 1)
    queue.submit(make_feedback(assignment, "bob"))
    clock.minutes(24 * 60)
    assert queue.submit(make_feedback(late, "ann", preferred=1)) == make_feedback(late, "ann", preferred=1)
    assert [event.annotator for event in queue.store.feedback()] == ["bob", "ann"]
    assert queue.progress() == (1, 1)


def test_late_judgement_leaves_other_assignments(queue: TaskQueue, clock: Clock) -> None:
    enqueue_comparisons(queue, 1)
    (late,) = queue.next_tasks("ann", 1)
    clock.minutes(16)
    (assignment,) = queue.next_tasks("bob", 1)
    queue.submit(make_feedback(late, "ann"))
    queue.submit(make_feedback(assignment, "bob"))
    assert queue.store.counts().feedback == 2


def test_expired_assignment_is_offered_again_unchanged(queue: TaskQueue, clock: Clock) -> None:
    enqueue_comparisons(queue, 3)
    before = queue.next_tasks("ann", 3)
    clock.minutes(60)
    assert queue.next_tasks("ann", 3) == before


@pytest.mark.parametrize("is_judged", [False, True], ids=["others have it", "others judged it"])
def test_expired_assignment_that_others_took_is_gone(queue: TaskQueue, clock: Clock, is_judged: bool) -> None:
    enqueue_comparisons(queue, 1)
    queue.next_tasks("ann", 1)
    clock.minutes(16)
    (assignment,) = queue.next_tasks("bob", 1)
    if is_judged:
        queue.submit(make_feedback(assignment, "bob"))
    assert queue.next_tasks("ann", 1) == []


def test_late_renewal_does_not_reclaim_a_task(queue: TaskQueue, clock: Clock) -> None:
    tasks = ids_of(enqueue_comparisons(queue, 1))
    queue.next_tasks("ann", 1)
    clock.minutes(16)
    queue.next_tasks("bob", 1)
    queue.assignments.renew("ann", tasks)  # after her lease ended
    clock.minutes(10)
    queue.assignments.skip("bob", tasks[0])
    assert assigned_ids(queue.next_tasks("cleo", 1)) == tasks


# Submit


def test_submit_is_idempotent(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    event = make_feedback(assignment, "ann", id="0192-first", flags=("harm",), comment="Saturn is smaller.")
    # The server sets the time of arrival, so a repeated request has another one.
    values = [queue.submit(replace(event, created_at=AT.replace("00:00.000", f"00:0{n}.000"))) for n in range(10)]
    assert values == [event] * 10
    assert list(queue.store.feedback()) == [event]
    assert queue.store.verify() == 1


def test_concurrent_submits_store_one_judgement(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    event = make_feedback(assignment, "ann", id="0192-first")
    barrier = threading.Barrier(10)

    def post() -> Feedback:
        barrier.wait()
        return queue.submit(event)

    with ThreadPoolExecutor(10) as pool:
        assert [future.result() for future in [pool.submit(post) for _ in range(10)]] == [event] * 10
    assert list(queue.store.feedback()) == [event]


@pytest.mark.parametrize(
    "change",
    [
        dict(judgement=Comparison(verdict="tie")),
        dict(comment="another"),
        dict(duration=3.6),
        dict(flags=("harm",)),
        dict(supersedes="0192-first"),
        dict(annotator="bob"),
    ],
    ids=lambda change: next(iter(change)),
)
def test_submit_refuses_an_id_with_other_contents(queue: TaskQueue, change: dict[str, Any]) -> None:
    enqueue_comparisons(queue, 1, required=2)
    (assignment,) = queue.next_tasks("ann", 1)
    (bob_assignment,) = queue.next_tasks("bob", 1)
    event = make_feedback(assignment, "ann", id="0192-first")
    queue.submit(event)
    changed = replace(event, **change)
    if changed.annotator == "bob":
        changed = replace(changed, display_order=bob_assignment.display_order)
    with pytest.raises(Conflict, match="0192-first"):
        queue.submit(changed)
    assert list(queue.store.feedback()) == [event]


def test_submit_refuses_an_id_for_a_second_task(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 2)
    first, second = queue.next_tasks("ann", 2)
    queue.submit(make_feedback(first, "ann", id="0192-first"))
    with pytest.raises(Conflict, match="0192-first"):
        queue.submit(make_feedback(second, "ann", id="0192-first"))
    assert queue.progress() == (2, 1)


def test_second_judgement_must_supersede_the_first(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    first = queue.submit(make_feedback(assignment, "ann", id="0192-first"))
    for repeated in (
        make_feedback(assignment, "ann", id="0192-second"),
        make_feedback(assignment, "ann", id="0192-second", supersedes="nothing"),
    ):
        with pytest.raises(AlreadyJudged, match="0192-first") as error:
            queue.submit(repeated)
        assert error.value.current_id == "0192-first"
    assert list(queue.store.feedback()) == [first]


def test_superseding_judgement_is_a_new_event(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    first = queue.submit(make_feedback(assignment, "ann", id="0192-first"))
    with queue.store.reading() as connection:
        before = connection.execute(sa.select(schema.feedback)).one()
    second = queue.submit(make_feedback(assignment, "ann", id="0192-second", preferred=1, supersedes="0192-first"))
    third = queue.submit(make_feedback(assignment, "ann", id="0192-third", supersedes="0192-second"))
    assert list(queue.store.feedback()) == [first, second, third]
    with queue.store.reading() as connection:
        assert connection.execute(sa.select(schema.feedback).order_by(schema.feedback.c.seq)).first() == before
    assert queue.store.verify() == 3
    with pytest.raises(AlreadyJudged) as error:
        queue.submit(make_feedback(assignment, "ann", id="0192-fork", preferred=1, supersedes="0192-first"))
    assert error.value.current_id == "0192-third"
    for event in (first, second, third):  # a lost reply is requested again
        assert queue.submit(event) == event
    assert queue.store.counts().feedback == 3
    assert queue.progress() == (1, 1)


def test_judgement_of_others_cannot_be_superseded(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1, required=2)
    (assignment,) = queue.next_tasks("ann", 1)
    (bob_assignment,) = queue.next_tasks("bob", 1)
    queue.submit(make_feedback(assignment, "ann", id="0192-first"))
    with pytest.raises(AssentError, match="cannot supersede 0192-first"):
        queue.submit(make_feedback(bob_assignment, "bob", supersedes="0192-first"))
    queue.submit(make_feedback(bob_assignment, "bob", id="0192-bob"))
    with pytest.raises(AlreadyJudged):
        queue.submit(make_feedback(assignment, "ann", supersedes="0192-bob"))


def test_submit_refuses_an_unassigned_task(queue: TaskQueue) -> None:
    first, second = enqueue_comparisons(queue, 2)
    queue.next_tasks("ann", 1)
    for task in (first, second, Task("comparison", "nowhere", ("a", "b"))):
        unseen = Assignment(task, task.items)
        with pytest.raises(NotAssigned, match="was not shown to you"):
            queue.submit(make_feedback(unseen, "bob"))
    with pytest.raises(NotAssigned):
        queue.submit(make_feedback(Assignment(second, second.items), "ann"))
    assert queue.store.counts().feedback == 0


def test_submit_refuses_another_display_order(queue: TaskQueue) -> None:
    task = make_task(queue.store, "ranking", 3)
    queue.enqueue([TaskRequest(task)], "label")
    (assignment,) = queue.next_tasks("ann", 1)
    judgement = Ranking(tuple((item,) for item in assignment.display_order))
    wrong = [order for order in permutations(task.items) if order != assignment.display_order]
    for display_order in (
        *wrong,
        assignment.display_order[:2],
        (),
        (*assignment.display_order, "more"),
        (assignment.display_order[0],) * 3,
    ):
        with pytest.raises(NotAssigned):
            queue.submit(Feedback(task.id, "ann", judgement, AT, display_order=display_order))
    assert queue.store.counts().feedback == 0
    queue.submit(Feedback(task.id, "ann", judgement, AT, display_order=assignment.display_order))


@pytest.mark.parametrize(
    "judgement", [Comparison("elsewhere"), Approval(True), Ranking((("elsewhere",), ("too",)))], ids=str
)
def test_submit_refuses_a_judgement_that_does_not_fit(queue: TaskQueue, judgement: Judgement) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    with pytest.raises(AssentError):
        queue.submit(Feedback(assignment.task.id, "ann", judgement, AT, display_order=assignment.display_order))
    assert queue.store.counts().feedback == 0
    assert queue.progress() == (1, 0)
    assert queue.next_tasks("ann", 1) == [assignment]


@pytest.mark.parametrize("statement", ["UPDATE feedback SET comment = 'changed'", "DELETE FROM feedback"])
def test_database_refuses_to_change_feedback(queue: TaskQueue, statement: str) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    queue.submit(make_feedback(assignment, "ann"))
    with pytest.raises(AssentError, match="append-only"), queue.store.writing() as connection:
        connection.execute(sa.text(statement))
    assert list(queue.store.feedback()) == [make_feedback(assignment, "ann")]


def test_submitted_judgement_is_visible_to_other_processes(queue: TaskQueue, database: str) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    stored = queue.submit(make_feedback(assignment, "ann"))
    with Store.open(database) as second_store:
        assert list(second_store.feedback()) == [stored]


def test_flags_are_part_of_the_digest_chain(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 2)
    plain, flagged = queue.next_tasks("ann", 2)
    queue.submit(make_feedback(plain, "ann"))
    queue.submit(make_feedback(flagged, "ann", flags=("harm", "pii")))
    assert [event.flags for event in queue.store.feedback()] == [(), ("harm", "pii")]
    assert queue.store.verify() == 2
    loose = {
        "sqlite": "DROP TRIGGER feedback_no_update",
        "postgresql": "DROP TRIGGER feedback_no_change ON feedback",
    }
    with queue.store.writing() as connection:
        connection.execute(sa.text(loose[connection.dialect.name]))
        connection.execute(sa.update(schema.feedback).where(schema.feedback.c.seq == 2).values(flags=["harm"]))
    with pytest.raises(AssentError, match="was changed after it was stored"):
        queue.store.verify()


def test_latest_feedback_is_newest_first(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 5)
    events = [queue.submit(make_feedback(assignment, "ann")) for assignment in queue.next_tasks("ann", 5)]
    assert queue.latest_feedback("ann") == events[::-1]
    assert queue.latest_feedback("ann", 2) == events[:2:-1]
    assert queue.latest_feedback("bob") == []
    assert (queue.count_judgements("ann"), queue.count_judgements("bob")) == (5, 0)


def test_feedback_id_without_flags_is_that_of_version_0_1() -> None:
    display_order = ("f8dd4c2e71b7b1e5f4f0", "5e79f16bdaa8d9105d6b")
    judgement = Comparison("5e79f16bdaa8d9105d6b", 2)
    event = Feedback("138e5cd2f28ffba3fd9e", "ann", judgement, "2026-11-20T10:00:00Z", 3.5, display_order, "clear")
    assert event.id == "c2f173cb3ef58c68946b"  # the id that assent 0.1 gave it, with tables of version 0002
    assert replace(event, id="", flags=("harm",)).id != event.id


@SQLITE
def test_old_store_keeps_its_digest_chain(database: str) -> None:
    prompt = Prompt.ask("Which is the largest planet?")
    a, b = (Response(prompt.id, text, "sft") for text in ("Jupiter.", "Saturn."))
    task = Task("comparison", prompt.id, (a.id, b.id))
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        command.upgrade(config, "0002")
        messages = json.dumps([dict(role="user", content=prompt.text)])
        connection.exec_driver_sql(
            "INSERT INTO prompts (id, messages, mode, source) VALUES (?, ?, '', '')", (prompt.id, messages)
        )
        columns = ("id", "prompt", "text", "policy", "finished", "sampling")  # there were no others
        connection.execute(
            sa.insert(schema.responses), [{name: getattr(entry, name) for name in columns} for entry in (a, b)]
        )
        columns_of_task = "id, kind, prompt, items, purpose, instruction"
        insert = f"INSERT INTO queries ({columns_of_task}) VALUES (?, 'comparison', ?, ?, 'train', '')"
        connection.exec_driver_sql(insert, (task.id, prompt.id, json.dumps(task.items)))
        # The row and its digest as version 0002 wrote them.
        connection.exec_driver_sql(
            "INSERT INTO feedback (id, query, annotator, kind, answer, at, seconds, shown, note, supersedes, digest) "
            "VALUES ('c2f173cb3ef58c68946b', ?, 'ann', 'comparison', ?, '2026-11-20T10:00:00Z', 3.5, ?, 'clear', '', "
            "'02c4dcff6b059c07111c6d48a7f649a7dcc3c6a5016668a56c6a3a40f40a1e0a')",
            (
                task.id,
                f'{{"preferred":"{a.id}","strength":2,"verdict":"better","certainty":1.0,"margin":0.0,"weight":1.0}}',
                f'["{b.id}","{a.id}"]',
            ),
        )
    engine.dispose()
    with Store.open(database) as store:
        (event,) = store.feedback()
        assert (event.judgement, event.display_order, event.flags) == (Comparison(a.id, 2), (b.id, a.id), ())
        assert store.verify() == 1
        queue = TaskQueue(store)
        queue.enqueue([TaskRequest(task, 2)], "label")
        (assignment,) = queue.next_tasks("bob", 1)
        queue.submit(make_feedback(assignment, "bob", flags=("harm",)))
        assert store.verify() == 2
        assert queue.progress() == (1, 1)


# Failures


@SQLITE
def test_full_disk_raises_disk_full(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 50)
    assignment = queue.next_tasks("ann", 50)
    stored = [queue.submit(make_feedback(entry, "ann")) for entry in assignment[:3]]

    def until_full() -> None:
        for entry in assignment[3:]:
            answered = queue.submit(make_feedback(entry, "ann", comment="x" * 3000))
            stored.append(answered)

    with queue.store.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        until_full()
    assert list(queue.store.feedback()) == stored
    with queue.store.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    queue.submit(make_feedback(assignment[len(stored)], "ann", comment="x" * 3000))
    assert queue.store.verify() == len(stored) + 1


@POSTGRESQL
def test_full_disk_of_postgresql_raises_disk_full(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    with (
        queue.store.writing() as connection
    ):  # a full disk would break the other tests: this raises the server's own error
        connection.exec_driver_sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING "
            "ERRCODE = 'disk_full', HINT = 'Check free disk space.', "
            "MESSAGE = 'could not extend file \"base/16384/16397\": No space left on device'; END $$"
        )
        connection.exec_driver_sql("CREATE TRIGGER write_error BEFORE INSERT ON feedback EXECUTE FUNCTION full_disk()")
    with pytest.raises(DiskFull):
        queue.submit(make_feedback(assignment, "ann"))
    with queue.store.writing() as connection:
        connection.exec_driver_sql("DROP TRIGGER write_error ON feedback")
    assert queue.submit(make_feedback(assignment, "ann")) == make_feedback(assignment, "ann")


@POSTGRESQL
def test_restarted_postgresql_needs_one_retry(queue: TaskQueue, database: str) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    second_store = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    with second_store.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    second_store.dispose()
    # With any other error the page would reject the judgement instead of sending it again.
    try:
        queue.submit(make_feedback(assignment, "ann"))
    except Busy:
        queue.submit(make_feedback(assignment, "ann"))
    assert list(queue.store.feedback()) == [make_feedback(assignment, "ann")]


# Display order


@SQLITE
def test_display_order_is_random_by_task_and_annotator(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 50, required=20)
    annotators = [f"person-{n:02}" for n in range(20)]
    first = {
        name: {entry.task.id: entry.display_order == entry.task.items for entry in queue.next_tasks(name, 50)}
        for name in annotators
    }
    assert all(len(values) == 50 for values in first.values())
    assert is_in_interval(1000, 0.5, sum(sum(values.values()) for values in first.values()))
    # By annotator, by task and between neighbours: the chi-square limits contain 999 runs of 1000.
    chi2_by_annotator = sum((sum(values.values()) - 25) ** 2 / 12.5 for values in first.values())
    chi2_by_task = sum((sum(values[task.id] for values in first.values()) - 10) ** 2 / 5 for task in tasks)
    assert 5.9 < chi2_by_annotator < 45.3
    assert 24.7 < chi2_by_task < 86.7
    in_order = [[values[task.id] for task in tasks] for values in first.values()]
    same = sum(a == b for values in in_order for a, b in pairwise(values))
    assert is_in_interval(20 * 49, 0.5, same)


@SQLITE
def test_display_order_of_three_items_is_uniform(queue: TaskQueue) -> None:
    task = make_task(queue.store, "ranking", 3)
    queue.enqueue([TaskRequest(task, 300)], "label")
    orders = Counter(queue.next_tasks(f"person-{n}", 1)[0].display_order for n in range(300))
    assert set(orders) == set(permutations(task.items))
    assert sum((observed - 50) ** 2 / 50 for observed in orders.values()) < 20.5  # chi-square of 5, 999 in 1000


def test_display_order_is_stable(queue: TaskQueue, database: str, clock: Clock) -> None:
    tasks = enqueue_comparisons(queue, 20, required=2)
    before = queue.next_tasks("ann", 20)
    with Store.open(database) as second_store:
        repeated = TaskQueue(second_store, clock)
        assert repeated.next_tasks("ann", 20) == before
        clock.minutes(60)
        assert repeated.next_tasks("ann", 20) == before
        assert [repeated.assignments.find("ann", entry.alias) for entry in before] == before
        repeated.submit(make_feedback(before[0], "ann"))
        assert repeated.assignments.find("ann", before[0].alias) == before[0]
        assert repeated.assignments.find("bob", before[0].alias) is None
        assert all(repeated.assignments.find("ann", task.id) is None for task in tasks)


def test_stored_display_order_is_the_one_shown(queue: TaskQueue, database: str) -> None:
    assert len(RANKS) == 13
    acknowledged: dict[str, tuple[tuple[str, ...], Any]] = {}
    ranked = make_task(queue.store, "ranking", 3)
    for n, (display_order, ranks) in enumerate(product(permutations(ranked.items), RANKS)):
        queue.assignments.assign(f"ranker-{n}", ranked, display_order)
        event = queue.submit(
            Feedback(ranked.id, f"ranker-{n}", Ranking(tiers(display_order, ranks)), AT, display_order=display_order)
        )
        acknowledged[event.id] = display_order, ranks
    (pair,) = comparisons(queue.store, 1)
    sides = [("left", 1), ("left", 2), ("left", 3), ("right", 1), ("right", 2), ("right", 3)]
    verdicts = [*sides, ("tie", 1), ("both bad", 1), ("cannot tell", 1)]
    for n, (display_order, (side, strength)) in enumerate(product(permutations(pair.items), verdicts)):
        queue.assignments.assign(f"judge-{n}", pair, display_order)
        preferred = {"left": display_order[0], "right": display_order[1]}.get(side)
        judgement = Comparison(preferred, strength) if preferred else Comparison(verdict=side)  # type: ignore[arg-type]
        event = queue.submit(Feedback(pair.id, f"judge-{n}", judgement, AT, display_order=display_order))
        acknowledged[event.id] = display_order, (side, strength)

    stored: dict[str, tuple[tuple[str, ...], Any]] = {}
    with Store.open(database) as second_store, second_store.reading() as connection:
        for row in connection.execute(sa.select(schema.feedback)):
            display_order = tuple(row.display_order)
            values = row.judgement
            if row.kind == "ranking":
                gold_places = {item: tier for tier, group in enumerate(values["tiers"]) for item in group}
                stored[row.id] = display_order, tuple(gold_places[item] for item in display_order)
            else:
                side = (
                    ("left", "right")[display_order.index(values["preferred"])]
                    if values["preferred"]
                    else values["verdict"]
                )
                stored[row.id] = display_order, (side, values["strength"])
    assert len(stored) == 6 * 13 + 2 * 9
    assert stored == acknowledged
