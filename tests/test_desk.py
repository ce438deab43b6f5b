"""The desk: who is asked what and when, and that nothing acknowledged is lost, on SQLite and on a real PostgreSQL."""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count, pairwise, permutations, product
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from clock import Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.labelling.queue import Answered, Ask, Lent, NotShown, TaskQueue, agrees, change_setting, overlap
from assent.records import Feedback, Judgement, Prompt, Purpose, Response, Task
from assent.store import schema
from assent.store.database import Busy, Conflict, DiskFull, Store

AT = "2026-11-20T10:00:00.000+00:00"
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
POSTGRESQL = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(database: str, clock: Clock) -> Iterator[TaskQueue]:
    with Store.open(database) as store:
        change_setting(store, "salt", "as good as any", "server", "2026-11-21")  # so that lots fall alike each time
        yield TaskQueue(store, clock)


def comparisons(store: Store, number: int, purpose: Purpose = "train", words: str = "question") -> list[Task]:
    prompts = [Prompt.ask(f"{words} {n}") for n in range(number)]
    pairs = [(Response(prompt.id, "Yes.", "sft"), Response(prompt.id, "No.", "sft")) for prompt in prompts]
    store.add_prompts(prompts)
    store.add_responses(item for pair in pairs for item in pair)
    return [Task("comparison", p.id, (a.id, b.id), purpose) for p, (a, b) in zip(prompts, pairs, strict=True)]


def query_of(store: Store, kind: str, items: int, words: str = "ask") -> Task:
    prompt = Prompt.ask(words)
    made = [Response(prompt.id, f"Answer {n}.", "sft") for n in range(items)]
    store.add_prompts([prompt])
    store.add_responses(made)
    return Task(kind, prompt.id, tuple(item.id for item in made))


def posted(desk: TaskQueue, number: int, wanted: int = 1) -> list[Task]:
    queries = comparisons(desk.store, number)
    desk.post([Ask(query, wanted) for query in queries], "label")
    return queries


def come(desk: TaskQueue, *people: str) -> None:
    """Everybody answers something: what wants several opinions waits for as many people as there are."""
    (query,) = comparisons(desk.store, 1, words="hello")
    desk.post([Ask(query, len(people))], "hello")
    for person in people:
        desk.answer(say(desk.lend(person, query), person))


def say(lent: Lent, person: str, id: str = "", better: int = 0, strength: int = 2, **more: Any) -> Feedback:
    """What somebody posts who prefers the item at this place of the screen."""
    answer = Comparison(lent.shown[better], strength)
    return Feedback(lent.query.id, person, answer, AT, 3.5, lent.shown, id=id, **more)


def asked(lent: list[Lent]) -> list[str]:
    return [one.query.id for one in lent]


def ids(queries: list[Task]) -> list[str]:
    return [query.id for query in queries]


def expected(trials: int, share: float, found: int, deviations: float = 3.29) -> bool:
    """Whether a count lies in the interval that holds it 999 times in 1000, or in a wider one."""
    return abs(found - trials * share) <= deviations * sqrt(trials * share * (1 - share)) + 0.5


# Who gets what


def test_a_query_lies_with_one_person_at_a_time(desk: TaskQueue) -> None:
    queries = posted(desk, 3)
    assert asked(desk.take("ann", 2)) == ids(queries)[:2]
    assert asked(desk.take("bob", 2)) == ids(queries)[2:]
    assert desk.take("cleo", 2) == []
    assert asked(desk.take("ann", 9)) == ids(queries)[:2]


def test_a_query_that_wants_three_lies_with_three_and_with_no_fourth(desk: TaskQueue) -> None:
    come(desk, "ann", "bob", "cleo")
    posted(desk, 1, wanted=3)
    lent = {name: desk.take(name, 5) for name in ("ann", "bob", "cleo", "dan")}
    assert [len(one) for one in lent.values()] == [1, 1, 1, 0]
    for name in ("ann", "bob", "cleo"):
        assert desk.progress("label") == (1, 0)
        desk.answer(say(lent[name][0], name))
        assert desk.take(name, 5) == []
    assert desk.progress("label") == (1, 1)
    assert desk.take("dan", 5) == []


def test_nobody_is_asked_the_same_question_twice_although_it_wants_another_answer(desk: TaskQueue) -> None:
    posted(desk, 1, wanted=2)
    (lent,) = desk.take("ann", 5)
    desk.answer(say(lent, "ann"))
    assert desk.take("ann", 5) == []
    assert asked(desk.take("bob", 5)) == [lent.query.id]


def test_what_is_on_the_screen_is_not_given_again_and_what_was_fetched_before_comes_first(desk: TaskQueue) -> None:
    queries = ids(posted(desk, 4))
    first, second = desk.take("ann", 2)
    assert asked(desk.take("ann", 2, hold=[first.query.id])) == [second.query.id, queries[2]]
    assert asked(desk.take("ann", 3)) == queries[:3]


def test_a_query_is_laid_on_the_desk_once(desk: TaskQueue) -> None:
    queries = posted(desk, 3)
    assert desk.post([Ask(query) for query in queries], "label") == 0
    assert desk.post([Ask(query) for query in queries[:1]], "another") == 0
    assert desk.progress() == desk.progress("label") == (3, 0)


def test_what_more_people_are_to_be_asked_about_comes_before_anything_else(desk: TaskQueue) -> None:
    queries = posted(desk, 3)
    (lent,) = desk.take("ann", 1)
    desk.answer(say(lent, "ann"))
    desk.ask_more(queries[0].id, 2, "disagreement")
    desk.ask_more(queries[2].id, 1, "disagreement")
    assert asked(desk.take("bob", 9)) == [queries[0].id, queries[2].id, queries[1].id]
    assert asked(desk.take("cleo", 9)) == [queries[0].id]
    assert desk.take("ann", 9) == []


def test_15_in_100_queries_are_for_three_people_and_2_for_five_the_rest_for_one() -> None:
    queries = [Task("comparison", f"prompt {n}", ("a", "b")) for n in range(20_000)]
    wanted = Counter(map(overlap, queries))
    assert set(wanted) == {1, 3, 5}
    assert expected(20_000, 0.15, wanted[3]), wanted
    assert expected(20_000, 0.02, wanted[5]), wanted
    assert [overlap(query) for query in reversed(queries)] == [overlap(query) for query in queries][::-1]


@pytest.mark.parametrize("strength", [1, 2, 3])
def test_slightly_calls_for_a_second_opinion(desk: TaskQueue, strength: int) -> None:
    come(desk, "ann", "bob")
    posted(desk, 2)
    (lent,), (bobs,) = desk.take("ann", 1), desk.take("bob", 1)
    desk.answer(say(lent, "ann", strength=strength))
    if strength == 1:
        assert desk.progress("label") == (2, 0)
        (again,) = desk.take("bob", 1, hold=[bobs.query.id])
        desk.answer(say(again, "bob", strength=1))
    assert desk.progress("label") == (2, 1)
    assert desk.take("cleo", 1) == []


def test_a_tie_needs_no_second_opinion(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    desk.answer(Feedback(lent.query.id, "ann", Comparison(verdict="tie"), AT, display_order=lent.shown))
    assert desk.progress() == (1, 1)
    assert desk.take("bob", 1) == []


def test_a_skipped_query_is_gone_for_good_and_others_get_it_at_once(desk: TaskQueue) -> None:
    queries = ids(posted(desk, 2))
    desk.take("ann", 1)
    desk.skip("ann", queries[0])
    assert asked(desk.take("ann", 9)) == queries[1:]
    assert asked(desk.take("bob", 9)) == queries[:1]
    assert asked(desk.take("ann", 9)) == queries[1:]


def test_nobody_can_skip_for_another(desk: TaskQueue) -> None:
    queries = ids(posted(desk, 1))
    desk.take("ann", 1)
    desk.skip("bob", queries[0])
    assert desk.take("cleo", 1) == []
    assert asked(desk.take("ann", 1)) == queries


# Leases


def test_a_lease_lasts_15_minutes(desk: TaskQueue, clock: Clock) -> None:
    queries = ids(posted(desk, 1))
    desk.take("ann", 1)
    clock.minutes(14.99)
    assert desk.take("bob", 1) == []
    clock.minutes(0.02)
    assert asked(desk.take("bob", 1)) == queries


def test_a_lease_that_is_renewed_lasts_15_minutes_more(desk: TaskQueue, clock: Clock) -> None:
    queries = ids(posted(desk, 1))
    desk.take("ann", 1)
    for _ in range(4):
        clock.minutes(14)
        desk.renew("ann", queries)
        desk.renew("cleo", queries)  # who has not got it
        assert desk.take("bob", 1) == []
    clock.minutes(14.99)
    assert desk.take("bob", 1) == []
    clock.minutes(0.02)
    assert asked(desk.take("bob", 1)) == queries


def test_a_late_answer_still_counts(desk: TaskQueue, clock: Clock) -> None:
    posted(desk, 1)
    (late,) = desk.take("ann", 1)
    clock.minutes(16)
    (lent,) = desk.take("bob", 1)
    desk.answer(say(lent, "bob"))
    clock.minutes(24 * 60)
    assert desk.answer(say(late, "ann", better=1)) == say(late, "ann", better=1)
    assert [event.annotator for event in desk.store.feedback()] == ["bob", "ann"]
    assert desk.progress() == (1, 1)


def test_a_late_answer_that_comes_first_takes_the_query_from_nobodys_screen(desk: TaskQueue, clock: Clock) -> None:
    posted(desk, 1)
    (late,) = desk.take("ann", 1)
    clock.minutes(16)
    (lent,) = desk.take("bob", 1)
    desk.answer(say(late, "ann"))
    desk.answer(say(lent, "bob"))
    assert desk.store.counts().feedback == 2


def test_who_comes_back_late_finds_what_nobody_else_took_as_it_stood(desk: TaskQueue, clock: Clock) -> None:
    posted(desk, 3)
    before = desk.take("ann", 3)
    clock.minutes(60)
    assert desk.take("ann", 3) == before


@pytest.mark.parametrize("answers", [False, True], ids=["others have it", "others answered it"])
def test_who_comes_back_late_is_not_given_what_others_took(desk: TaskQueue, clock: Clock, answers: bool) -> None:
    posted(desk, 1)
    desk.take("ann", 1)
    clock.minutes(16)
    (lent,) = desk.take("bob", 1)
    if answers:
        desk.answer(say(lent, "bob"))
    assert desk.take("ann", 1) == []


def test_a_heartbeat_that_comes_too_late_does_not_take_a_query_back(desk: TaskQueue, clock: Clock) -> None:
    queries = ids(posted(desk, 1))
    desk.take("ann", 1)
    clock.minutes(16)
    desk.take("bob", 1)
    desk.renew("ann", queries)  # her page was asleep
    clock.minutes(10)
    desk.skip("bob", queries[0])
    assert asked(desk.take("cleo", 1)) == queries


# What is kept


def test_ten_posts_of_an_answer_store_one_and_say_the_same(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    event = say(lent, "ann", id="0192-first", flags=("harm",), note="Saturn is smaller.")
    # A server gives the time of arrival, so that of a repeated post is another one.
    told = [desk.answer(replace(event, created_at=AT.replace("00:00.000", f"00:0{n}.000"))) for n in range(10)]
    assert told == [event] * 10
    assert list(desk.store.feedback()) == [event]
    assert desk.store.verify() == 1


def test_ten_posts_at_the_same_moment_store_one(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    event, barrier = say(lent, "ann", id="0192-first"), threading.Barrier(10)

    def post() -> Feedback:
        barrier.wait()
        return desk.answer(event)

    with ThreadPoolExecutor(10) as pool:
        assert [job.result() for job in [pool.submit(post) for _ in range(10)]] == [event] * 10
    assert list(desk.store.feedback()) == [event]


@pytest.mark.parametrize(
    "change",
    [
        dict(answer=Comparison(verdict="tie")),
        dict(note="another"),
        dict(seconds=3.6),
        dict(flags=("harm",)),
        dict(supersedes="0192-first"),
        dict(annotator="bob"),
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_id_with_another_body_is_a_conflict(desk: TaskQueue, change: dict[str, Any]) -> None:
    posted(desk, 1, wanted=2)
    (lent,), (bobs,) = desk.take("ann", 1), desk.take("bob", 1)
    event = say(lent, "ann", id="0192-first")
    desk.answer(event)
    other = replace(event, **change)
    if other.annotator == "bob":
        other = replace(other, display_order=bobs.shown)
    with pytest.raises(Conflict, match="0192-first"):
        desk.answer(other)
    assert list(desk.store.feedback()) == [event]


def test_an_id_answers_one_query(desk: TaskQueue) -> None:
    posted(desk, 2)
    first, second = desk.take("ann", 2)
    desk.answer(say(first, "ann", id="0192-first"))
    with pytest.raises(Conflict, match="0192-first"):
        desk.answer(say(second, "ann", id="0192-first"))
    assert desk.progress() == (2, 1)


def test_a_second_answer_is_refused_unless_it_supersedes_the_first(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    first = desk.answer(say(lent, "ann", id="0192-first"))
    for again in (say(lent, "ann", id="0192-second"), say(lent, "ann", id="0192-second", supersedes="nothing")):
        with pytest.raises(Answered, match="0192-first") as error:
            desk.answer(again)
        assert error.value.before == "0192-first"
    assert list(desk.store.feedback()) == [first]


def test_undo_is_a_new_event_and_nothing_is_edited(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    first = desk.answer(say(lent, "ann", id="0192-first"))
    with desk.store.reading() as on:
        before = on.execute(sa.select(schema.feedback)).one()
    second = desk.answer(say(lent, "ann", id="0192-second", better=1, supersedes="0192-first"))
    third = desk.answer(say(lent, "ann", id="0192-third", supersedes="0192-second"))
    assert list(desk.store.feedback()) == [first, second, third]
    with desk.store.reading() as on:
        assert on.execute(sa.select(schema.feedback).order_by(schema.feedback.c.seq)).first() == before
    assert desk.store.verify() == 3
    with pytest.raises(Answered) as error:
        desk.answer(say(lent, "ann", id="0192-fork", better=1, supersedes="0192-first"))
    assert error.value.before == "0192-third"
    for event in (first, second, third):  # what was lost on the way is sent again
        assert desk.answer(event) == event
    assert desk.store.counts().feedback == 3
    assert desk.progress() == (1, 1)


def test_nobody_supersedes_what_another_said(desk: TaskQueue) -> None:
    posted(desk, 1, wanted=2)
    (lent,), (bobs,) = desk.take("ann", 1), desk.take("bob", 1)
    desk.answer(say(lent, "ann", id="0192-first"))
    with pytest.raises(AssentError, match="0192-first is no answer of yours"):
        desk.answer(say(bobs, "bob", supersedes="0192-first"))
    desk.answer(say(bobs, "bob", id="0192-bob"))
    with pytest.raises(Answered):
        desk.answer(say(lent, "ann", supersedes="0192-bob"))


def test_an_answer_to_what_was_not_shown_is_refused(desk: TaskQueue) -> None:
    first, second = posted(desk, 2)
    desk.take("ann", 1)
    for query in (first, second, Task("comparison", "nowhere", ("a", "b"))):
        unseen = Lent(query, query.items)
        with pytest.raises(NotShown, match="was not shown to you"):
            desk.answer(say(unseen, "bob"))
    with pytest.raises(NotShown):
        desk.answer(say(Lent(second, second.items), "ann"))
    assert desk.store.counts().feedback == 0


def test_an_answer_with_items_as_they_were_not_shown_is_refused(desk: TaskQueue) -> None:
    query = query_of(desk.store, "ranking", 3)
    desk.post([Ask(query)], "label")
    (lent,) = desk.take("ann", 1)
    answer = Ranking(tuple((item,) for item in lent.shown))
    wrong = [order for order in permutations(query.items) if order != lent.shown]
    for shown in (*wrong, lent.shown[:2], (), (*lent.shown, "more"), (lent.shown[0],) * 3):
        with pytest.raises(NotShown):
            desk.answer(Feedback(query.id, "ann", answer, AT, display_order=shown))
    assert desk.store.counts().feedback == 0
    desk.answer(Feedback(query.id, "ann", answer, AT, display_order=lent.shown))


@pytest.mark.parametrize(
    "answer", [Comparison("elsewhere"), Approval(True), Ranking((("elsewhere",), ("too",)))], ids=str
)
def test_what_is_no_answer_to_its_query_is_refused_before_it_is_acknowledged(
    desk: TaskQueue, answer: Judgement
) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    with pytest.raises(AssentError):
        desk.answer(Feedback(lent.query.id, "ann", answer, AT, display_order=lent.shown))
    assert desk.store.counts().feedback == 0
    assert desk.progress() == (1, 0)
    assert desk.take("ann", 1) == [lent]


@pytest.mark.parametrize("statement", ["UPDATE feedback SET note = 'changed'", "DELETE FROM feedback"])
def test_the_database_itself_refuses_to_change_or_delete_an_answer(desk: TaskQueue, statement: str) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    desk.answer(say(lent, "ann"))
    with pytest.raises(AssentError, match="append-only"), desk.store.writing() as on:
        on.execute(sa.text(statement))
    assert list(desk.store.feedback()) == [say(lent, "ann")]


def test_an_answer_is_there_for_the_next_process_before_it_is_acknowledged(desk: TaskQueue, database: str) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    kept = desk.answer(say(lent, "ann"))
    with Store.open(database) as other:
        assert list(other.feedback()) == [kept]


def test_flags_are_kept_and_stand_in_the_chain(desk: TaskQueue) -> None:
    posted(desk, 2)
    plain, flagged = desk.take("ann", 2)
    desk.answer(say(plain, "ann"))
    desk.answer(say(flagged, "ann", flags=("harm", "pii")))
    assert [event.flags for event in desk.store.feedback()] == [(), ("harm", "pii")]
    assert desk.store.verify() == 2
    loose = {
        "sqlite": "DROP TRIGGER feedback_no_update",
        "postgresql": "DROP TRIGGER feedback_no_change ON feedback",
    }
    with desk.store.writing() as on:
        on.execute(sa.text(loose[on.dialect.name]))
        on.execute(sa.update(schema.feedback).where(schema.feedback.c.seq == 2).values(flags=["harm"]))
    with pytest.raises(AssentError, match="is not what was stored"):
        desk.store.verify()


def test_what_somebody_said_last_comes_first(desk: TaskQueue) -> None:
    posted(desk, 5)
    events = [desk.answer(say(lent, "ann")) for lent in desk.take("ann", 5)]
    assert desk.last("ann") == events[::-1]
    assert desk.last("ann", 2) == events[:2:-1]
    assert desk.last("bob") == []
    assert (desk.said("ann"), desk.said("bob")) == (5, 0)


def test_an_event_without_flags_keeps_the_name_that_it_had_before_there_were_flags() -> None:
    shown = ("f8dd4c2e71b7b1e5f4f0", "5e79f16bdaa8d9105d6b")
    answer = Comparison("5e79f16bdaa8d9105d6b", 2)
    event = Feedback("138e5cd2f28ffba3fd9e", "ann", answer, "2026-11-20T10:00:00Z", 3.5, shown, "clear")
    assert event.id == "c2f173cb3ef58c68946b"  # as assent 0.1 with tables of version 0002 called it
    assert replace(event, id="", flags=("harm",)).id != event.id


@SQLITE
def test_answers_of_an_older_file_keep_their_chain(database: str) -> None:
    prompt = Prompt.ask("Which is the largest planet?")
    a, b = (Response(prompt.id, text, "sft") for text in ("Jupiter.", "Saturn."))
    query = Task("comparison", prompt.id, (a.id, b.id))
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as on:
        config = Config(attributes={"connection": on})
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        command.upgrade(config, "0002")
        told = [dict(role="user", content=prompt.text)]
        on.execute(sa.insert(schema.prompts), dict(id=prompt.id, messages=told, mode="", source=""))
        columns = ("id", "prompt", "text", "policy", "finished", "sampling")  # there were no others
        on.execute(sa.insert(schema.responses), [{name: getattr(one, name) for name in columns} for one in (a, b)])
        on.execute(sa.insert(schema.queries), {"id": query.id, **vars(query), "items": list(query.items)})
        # The row and its digest as version 0002 wrote them.
        on.exec_driver_sql(
            "INSERT INTO feedback (id, query, annotator, kind, answer, at, seconds, shown, note, supersedes, digest) "
            "VALUES ('c2f173cb3ef58c68946b', ?, 'ann', 'comparison', ?, '2026-11-20T10:00:00Z', 3.5, ?, 'clear', '', "
            "'02c4dcff6b059c07111c6d48a7f649a7dcc3c6a5016668a56c6a3a40f40a1e0a')",
            (
                query.id,
                f'{{"preferred":"{a.id}","strength":2,"verdict":"better","certainty":1.0,"margin":0.0,"weight":1.0}}',
                f'["{b.id}","{a.id}"]',
            ),
        )
    engine.dispose()
    with Store.open(database) as store:
        (event,) = store.feedback()
        assert (event.judgement, event.display_order, event.flags) == (Comparison(a.id, 2), (b.id, a.id), ())
        assert store.verify() == 1
        desk = TaskQueue(store)
        desk.post([Ask(query, 2)], "label")
        (lent,) = desk.take("bob", 1)
        desk.answer(say(lent, "bob", flags=("harm",)))
        assert store.verify() == 2
        assert desk.progress() == (1, 1)


# What goes wrong


@SQLITE
def test_a_full_disk_is_told_as_such(desk: TaskQueue) -> None:
    posted(desk, 50)
    lent = desk.take("ann", 50)
    kept = [desk.answer(say(one, "ann")) for one in lent[:3]]

    def until_full() -> None:
        for one in lent[3:]:
            answered = desk.answer(say(one, "ann", note="x" * 3000))
            kept.append(answered)

    with desk.store.reading() as on:
        pages = on.exec_driver_sql("PRAGMA page_count").scalar()
        on.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        until_full()
    assert list(desk.store.feedback()) == kept
    with desk.store.reading() as on:
        on.exec_driver_sql("PRAGMA max_page_count = 100000")
    desk.answer(say(lent[len(kept)], "ann", note="x" * 3000))
    assert desk.store.verify() == len(kept) + 1


@POSTGRESQL
def test_a_full_disk_of_a_server_is_told_as_such(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    with desk.store.writing() as on:  # a real one would take the other tests with it: this says what the server says
        on.exec_driver_sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING "
            "ERRCODE = 'disk_full', HINT = 'Check free disk space.', "
            "MESSAGE = 'could not extend file \"base/16384/16397\": No space left on device'; END $$"
        )
        on.exec_driver_sql("CREATE TRIGGER no_room BEFORE INSERT ON feedback EXECUTE FUNCTION full_disk()")
    with pytest.raises(DiskFull):
        desk.answer(say(lent, "ann"))
    with desk.store.writing() as on:
        on.exec_driver_sql("DROP TRIGGER no_room ON feedback")
    assert desk.answer(say(lent, "ann")) == say(lent, "ann")


@POSTGRESQL
def test_a_server_that_was_restarted_costs_an_answer_another_try_at_most(desk: TaskQueue, database: str) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    other = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    with other.connect() as on:
        on.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    other.dispose()
    # Any other error would be told to the page as the answer's own fault, and it would not send it again.
    try:
        desk.answer(say(lent, "ann"))
    except Busy:
        desk.answer(say(lent, "ann"))
    assert list(desk.store.feedback()) == [say(lent, "ann")]


# Sides


@SQLITE
def test_sides_are_drawn_by_lot_for_each_query_and_person(desk: TaskQueue) -> None:
    queries, people = posted(desk, 50, wanted=20), [f"person-{n:02}" for n in range(20)]
    first = {who: {one.query.id: one.shown == one.query.items for one in desk.take(who, 50)} for who in people}
    assert all(len(told) == 50 for told in first.values())
    assert expected(1000, 0.5, sum(sum(told.values()) for told in first.values()))
    # Each person and each query by itself, and neighbours with each other: chi-square, 999 times in 1000 below.
    by_person = sum((sum(told.values()) - 25) ** 2 / 12.5 for told in first.values())
    by_query = sum((sum(told[query.id] for told in first.values()) - 10) ** 2 / 5 for query in queries)
    assert 5.9 < by_person < 45.3
    assert 24.7 < by_query < 86.7
    in_order = [[told[query.id] for query in queries] for told in first.values()]
    same = sum(a == b for told in in_order for a, b in pairwise(told))
    assert expected(20 * 49, 0.5, same)


@SQLITE
def test_every_order_of_three_items_is_as_likely(desk: TaskQueue) -> None:
    query = query_of(desk.store, "ranking", 3)
    desk.post([Ask(query, 300)], "label")
    orders = Counter(desk.take(f"person-{n}", 1)[0].shown for n in range(300))
    assert set(orders) == set(permutations(query.items))
    assert sum((found - 50) ** 2 / 50 for found in orders.values()) < 20.5  # chi-square of 5, 999 in 1000


def test_a_query_stands_the_same_way_at_each_showing(desk: TaskQueue, database: str, clock: Clock) -> None:
    queries = posted(desk, 20, wanted=2)
    before = desk.take("ann", 20)
    with Store.open(database) as other:
        again = TaskQueue(other, clock)
        assert again.take("ann", 20) == before
        clock.minutes(60)
        assert again.take("ann", 20) == before
        assert [again.lent("ann", one.name) for one in before] == before
        again.answer(say(before[0], "ann"))
        assert again.lent("ann", before[0].name) == before[0]
        assert again.lent("bob", before[0].name) is None
        assert all(again.lent("ann", query.id) is None for query in queries)


RANKS = [ranks for ranks in product(range(3), repeat=3) if set(ranks) == set(range(max(ranks) + 1))]
"""Every way to rank three places of a screen, with ties: 13."""


def tiers(shown: tuple[str, ...], ranks: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(shown[i] for i in range(3) if ranks[i] == tier) for tier in sorted(set(ranks)))


def test_what_was_shown_is_what_was_stored_under_every_permutation_of_sides_and_ranks(
    desk: TaskQueue, database: str
) -> None:
    assert len(RANKS) == 13
    acknowledged: dict[str, tuple[tuple[str, ...], Any]] = {}
    ranked = query_of(desk.store, "ranking", 3)
    for n, (shown, ranks) in enumerate(product(permutations(ranked.items), RANKS)):
        desk.lend(f"ranker-{n}", ranked, shown)
        kept = desk.answer(Feedback(ranked.id, f"ranker-{n}", Ranking(tiers(shown, ranks)), AT, display_order=shown))
        acknowledged[kept.id] = shown, ranks
    (pair,) = comparisons(desk.store, 1)
    sides = [("left", 1), ("left", 2), ("left", 3), ("right", 1), ("right", 2), ("right", 3)]
    says = [*sides, ("tie", 1), ("both bad", 1), ("cannot tell", 1)]
    for n, (shown, (side, strength)) in enumerate(product(permutations(pair.items), says)):
        desk.lend(f"judge-{n}", pair, shown)
        better = {"left": shown[0], "right": shown[1]}.get(side)
        answer = Comparison(better, strength) if better else Comparison(verdict=side)  # type: ignore[arg-type]
        kept = desk.answer(Feedback(pair.id, f"judge-{n}", answer, AT, display_order=shown))
        acknowledged[kept.id] = shown, (side, strength)

    stored: dict[str, tuple[tuple[str, ...], Any]] = {}
    with Store.open(database) as other, other.reading() as on:
        for row in on.execute(sa.select(schema.feedback)):
            shown, told = tuple(row.shown), row.answer
            if row.kind == "ranking":
                places = {item: tier for tier, some in enumerate(told["tiers"]) for item in some}
                stored[row.id] = shown, tuple(places[item] for item in shown)
            else:
                side = ("left", "right")[shown.index(told["preferred"])] if told["preferred"] else told["verdict"]
                stored[row.id] = shown, (side, told["strength"])
    assert len(stored) == 6 * 13 + 2 * 9
    assert stored == acknowledged


PARTY = count()


@dataclass
class Party:
    """Some people at a desk, and what the desk acknowledged to them."""

    database: str
    number: int = field(default_factory=lambda: next(PARTY))
    ids: Iterator[int] = field(default_factory=count)
    clock: Clock = field(default_factory=Clock)
    acknowledged: list[Feedback] = field(default_factory=list)
    screens: dict[tuple[str, str], Lent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.desk = TaskQueue(Store.open(self.database), self.clock)
        self.people = [f"{name}-{self.number}" for name in ("ann", "bob", "cleo")]
        kinds = [("comparison", 2, 1), ("comparison", 2, 3), ("ranking", 3, 2), ("rating", 1, 1), ("approval", 1, 2)]
        asks = [
            Ask(query_of(self.desk.store, kind, items, f"party {self.number}, {n}"), wanted, priority=self.number)
            for n, (kind, items, wanted) in enumerate(kinds)
        ]
        self.desk.post(asks, f"party {self.number}")

    def step(self, act: str, who: int, pick: int, luck: random.Random) -> None:
        person = self.people[who]
        mine = [lent for (name, _), lent in self.screens.items() if name == person]
        said = [event for event in self.acknowledged if event.annotator == person]
        fresh = [one for one in mine if one.query.id not in {event.task for event in said}]
        if act == "take":
            for lent in self.desk.take(person, 2):
                assert self.screens.setdefault((person, lent.query.id), lent) == lent
        elif act == "answer" and fresh:
            self._keep(self._answer(fresh[pick % len(fresh)], person, luck))
        elif act == "undo" and said:
            last = {event.task: event for event in said}
            before = list(last.values())[pick % len(last)]
            lent = self.screens[person, before.task]
            self._keep(replace(self._answer(lent, person, luck), supersedes=before.id))
        elif act == "repeat" and said:
            event = said[pick % len(said)]
            assert [self.desk.answer(replace(event, created_at=str(n))) for n in range(10)] == [event] * 10
        elif act == "another body" and said:
            with pytest.raises(Conflict):
                self.desk.answer(replace(said[pick % len(said)], comment="another"))
        elif act == "twice" and said:
            lent = self.screens[person, said[pick % len(said)].task]
            with pytest.raises(Answered):
                self.desk.answer(self._answer(lent, person, luck))
        elif act == "turned round" and mine:
            lent = mine[pick % len(mine)]
            if len(lent.shown) > 1:
                with pytest.raises(NotShown):
                    self.desk.answer(replace(self._answer(lent, person, luck), display_order=lent.shown[::-1]))
        elif act == "skip" and fresh:
            self.desk.skip(person, fresh[pick % len(fresh)].query.id)
        elif act == "wait":
            self.clock.minutes(10)
        elif act == "restart":
            self.desk.store.close()
            self.desk = TaskQueue(Store.open(self.database), self.clock)

    def _keep(self, event: Feedback) -> None:
        assert self.desk.answer(event) == event
        self.acknowledged.append(event)

    def _answer(self, lent: Lent, person: str, luck: random.Random) -> Feedback:
        shown = lent.shown
        answer: Judgement
        match lent.query.kind:
            case "comparison":
                answer = luck.choice([*(Comparison(s, n) for s in shown for n in (1, 2, 3)), Comparison(verdict="tie")])
            case "ranking":
                ranks = luck.choice(RANKS)
                answer = Ranking(tiers(shown, ranks))
            case "rating":
                answer = Rating((("helpful", luck.randint(1, 7)),))
            case _:
                answer = Approval(luck.random() < 0.5)
        id, note, flags = f"{self.number}-{next(self.ids)}", luck.choice(["", "why"]), luck.choice([(), ("harm",)])
        return Feedback(lent.query.id, person, answer, AT, luck.random(), shown, note, id=id, flags=flags)


ACTS = ["take", "take", "answer", "answer", "answer", "undo", "repeat", "another body", "twice", "turned round"]
ACTS += ["skip", "wait", "restart"]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 2), st.integers(0, 5)), min_size=10, max_size=30),
    st.integers(0, 2**32),
)
def test_the_acknowledged_answers_are_the_answers_in_the_database(
    database: str, steps: list[tuple[str, int, int]], seed: int
) -> None:
    party, luck = Party(database), random.Random(seed)
    try:
        for act, who, pick in steps:
            party.step(act, who, pick, luck)
    finally:
        party.desk.store.close()
    with Store.open(database) as store:
        everything = list(store.feedback())
        stored = Counter(event for event in everything if event.annotator in party.people)
        assert stored == Counter(party.acknowledged)
        for event in stored:
            assert event.display_order == party.screens[event.annotator, event.task].shown
        assert store.verify() == len(everything)


# Many at once


def test_threads_that_take_at_once_never_get_the_same_query(desk: TaskQueue) -> None:
    queries, people = posted(desk, 40), [f"person-{n}" for n in range(4)]
    barrier = threading.Barrier(len(people))

    def work(person: str) -> list[str]:
        barrier.wait()
        taken: list[str] = []
        while lent := desk.take(person, 2, hold=taken):
            taken += asked(lent)
        return taken

    with ThreadPoolExecutor(len(people)) as pool:
        taken = [job.result() for job in [pool.submit(work, person) for person in people]]
    assert sorted(name for some in taken for name in some) == sorted(ids(queries))


def test_two_tabs_of_one_person_that_take_at_once_get_the_same(desk: TaskQueue) -> None:
    queries = posted(desk, 20)
    for _ in range(5):
        barrier = threading.Barrier(4)

        def take(barrier: threading.Barrier = barrier) -> list[str]:
            barrier.wait()
            return asked(desk.take("ann", 4))

        with ThreadPoolExecutor(4) as pool:
            taken = [job.result() for job in [pool.submit(take) for _ in range(4)]]
        assert taken == [ids(queries)[:4]] * 4


def test_a_query_that_wants_three_is_never_given_to_a_fourth_at_the_same_moment(desk: TaskQueue) -> None:
    queries, barrier = posted(desk, 5, wanted=3), threading.Barrier(8)

    def take(person: str) -> list[str]:
        barrier.wait()
        return asked(desk.take(person, 5))

    with ThreadPoolExecutor(8) as pool:
        taken = [job.result() for job in [pool.submit(take, f"person-{n}") for n in range(8)]]
    assert Counter(name for some in taken for name in some) == dict.fromkeys(ids(queries), 3)


LABELLER = """
import sys
from assent.feedback.comparison import Comparison
from assent.records import Feedback
from assent.store.database import Store
from assent.labelling.queue import Desk
where, who = sys.argv[1:]
with Store.open(where) as store:
    desk = Desk(store)
    print("ready", flush=True)
    sys.stdin.readline()
    while lent := desk.take(who, 1):
        query, shown = lent[0].query, lent[0].shown
        print(desk.answer(Feedback(query.id, who, Comparison(shown[0], 2), "", shown=shown)).id, query.id, flush=True)
"""


def test_processes_that_take_at_once_never_get_the_same_query_and_lose_nothing(desk: TaskQueue, database: str) -> None:
    queries = posted(desk, 60)
    root = Path(__file__).parents[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", LABELLER, database, f"person-{n}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        )
        for n in range(3)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    lines = [line.split() for worker in workers for line in worker.communicate(timeout=120)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(query for _, query in lines) == sorted(ids(queries))
    assert sorted(event.id for event in desk.store.feedback()) == sorted(event for event, _ in lines)
    assert desk.progress() == (60, 60)
    assert desk.store.verify() == 60


# Gold and screening


def bank(desk: TaskQueue, number: int, use: str) -> list[Task]:
    """Gold items of which the first item of the query is the right answer."""
    queries = comparisons(desk.store, number, "gold", f"{use} question")
    for query in queries:
        desk.add_gold(query, Comparison(query.items[0]), use, f"because of {query.id}")
    return queries


@SQLITE
def test_gold_items_stand_at_random_places_1_in_8_at_first_and_1_in_20_later(desk: TaskQueue) -> None:
    posted(desk, 200, wanted=100)
    gold = set(ids(bank(desk, 50, "hidden")))
    places = []
    for person in (f"person-{n}" for n in range(16)):
        desk.store.add_feedback(say(lent, person) for lent in desk.take(person, 40))
        order = asked(desk.take(person, 190))
        assert len(order) == len(set(order)) == 190
        places.append({place for place, query in enumerate(order) if query in gold})
    early = sum(len([place for place in some if place < 40]) for some in places)
    late = sum(len([place for place in some if place >= 40]) for some in places)
    # Drawn anew each time: so wide that one run in 100,000 fails, and still too narrow for the other rate.
    assert expected(16 * 40, 1 / 8, early, deviations=4.5), early
    assert expected(16 * 150, 1 / 20, late, deviations=4.5), late
    assert not expected(16 * 40, 1 / 8, round(16 * 40 / 20), deviations=4.5)
    assert not expected(16 * 150, 1 / 20, round(16 * 150 / 8), deviations=4.5)
    assert len({frozenset(some) for some in places}) == 16
    gaps = {b - a for some in places for a, b in pairwise(sorted(some))}
    assert len(gaps) > 15
    assert desk.progress().asked == 200


@SQLITE
def test_who_knows_this_program_and_their_own_pseudonym_cannot_tell_where_gold_items_stand(
    desk: TaskQueue, tmp_path: Path, clock: Clock
) -> None:
    def places(here: TaskQueue) -> list[int]:
        posted(here, 150)
        gold = set(ids(bank(here, 40, "hidden")))
        return [place for place, lent in enumerate(here.take("person-0123456789", 150)) if lent.query.id in gold]

    with Store.open(tmp_path / "their own.db") as store:
        assert places(TaskQueue(store, clock)) != places(desk)


def test_a_gold_item_is_given_once_and_then_ordinary_ones_go_on(desk: TaskQueue) -> None:
    queries, gold = posted(desk, 80), bank(desk, 1, "hidden")
    lent = asked(desk.take("ann", 81))
    assert sorted(lent) == sorted([*ids(queries), *ids(gold)])


def test_screening_is_practice_then_a_test_and_nothing_else(desk: TaskQueue) -> None:
    posted(desk, 5)
    bank(desk, 5, "hidden")
    practice, test = bank(desk, 10, "practice"), bank(desk, 20, "test")
    assert desk.screens()
    orders = set()
    for person in ("ann", "bob"):
        lent = asked(desk.take(person, 99, screened=False))
        assert set(lent[:10]) == set(ids(practice))
        assert set(lent[10:]) == set(ids(test))
        assert len(lent) == 30
        orders.add(tuple(lent))
    assert len(orders) == 2


@SQLITE
def test_screening_takes_10_practice_and_20_test_items_however_many_the_bank_holds(desk: TaskQueue) -> None:
    bank(desk, 14, "practice")
    test = set(ids(bank(desk, 30, "test")))
    lent = desk.take("ann", 99, screened=False)
    assert len(lent) == 30
    assert sum(one.query.id in test for one in lent) == 20


@SQLITE
@pytest.mark.parametrize(("right", "state"), [(20, "passed"), (15, "passed"), (14, "failed"), (0, "failed")])
def test_who_has_15_of_20_right_passes(desk: TaskQueue, right: int, state: str) -> None:
    test = set(ids(bank(desk, 20, "test")))
    bank(desk, 10, "practice")
    lent = desk.take("ann", 30, screened=False)
    for one in lent:
        assert desk.screening("ann").state == "going on"
        good = one.query.items[0]
        tested = desk.screening("ann").tested
        wanted = one.query.id not in test or tested < right
        answer = Comparison(good if wanted else one.query.items[1])
        event = desk.answer(Feedback(one.query.id, "ann", answer, AT, display_order=one.shown))
        judged = desk.judge(event)
        assert judged is not None
        assert judged.right == wanted
        assert judged.use == ("test" if one.query.id in test else "practice")
        assert judged.explanation == f"because of {one.query.id}"
    assert desk.screening("ann") == (state, right, 20)
    assert desk.screening("bob") == ("going on", 0, 0)


@SQLITE
@pytest.mark.parametrize("use", ["practice", "test"])
def test_who_skips_an_item_of_the_screening_is_not_stuck_in_it(desk: TaskQueue, use: str) -> None:
    """It may come back, or count as wrong; 19 others are right."""
    skipped = {"practice": ids(bank(desk, 10, "practice"))[0], "test": ids(bank(desk, 20, "test"))[0]}[use]
    for _ in range(3):
        for one in desk.take("ann", 99, screened=False):
            if one.query.id == skipped:
                desk.skip("ann", skipped)
            else:
                desk.answer(Feedback(one.query.id, "ann", Comparison(one.query.items[0]), AT, display_order=one.shown))
    for one in desk.take("ann", 99, screened=False):
        desk.answer(Feedback(one.query.id, "ann", Comparison(one.query.items[0]), AT, display_order=one.shown))
    assert desk.screening("ann").state == "passed"


def test_an_ordinary_item_is_not_judged(desk: TaskQueue) -> None:
    posted(desk, 1)
    (lent,) = desk.take("ann", 1)
    assert desk.judge(desk.answer(say(lent, "ann"))) is None
    assert not desk.screens()


A, B, C, D, E, F = "ABCDEF"


def ranking(*tiers: str) -> Ranking:
    return Ranking(tuple(tuple(tier) for tier in tiers))


@pytest.mark.parametrize(
    ("right", "given", "same"),
    [
        (Comparison(A, 3), Comparison(A, 1), True),
        (Comparison(A), Comparison(B), False),
        (Comparison(A), Comparison(verdict="tie"), False),
        (Comparison(verdict="tie"), Comparison(verdict="tie"), True),
        (Comparison(verdict="tie"), Comparison(verdict="both bad"), False),
        (Comparison(verdict="tie"), Comparison(verdict="cannot tell"), False),
        (Approval(True), Approval(True), True),
        (Approval(True), Approval(False), False),
        (Rating((("helpful", 5),)), Rating((("helpful", 4),)), True),
        (Rating((("helpful", 5),)), Rating((("helpful", 6),)), True),
        (Rating((("helpful", 5),)), Rating((("helpful", 3),)), False),
        (Rating((("helpful", 5), ("true", 1))), Rating((("helpful", 5), ("true", 3))), False),
        (Rating((("helpful", 5), ("true", 1))), Rating((("helpful", 5),)), False),
        # Of ten pairs one, two and three stand the other way round.
        (ranking(A, B, C, D, E), ranking(A, B, C, D, E), True),
        (ranking(A, B, C, D, E), ranking(B, A, C, D, E), True),
        (ranking(A, B, C, D, E), ranking(B, A, D, C, E), True),
        (ranking(A, B, C, D, E), ranking(C, B, A, D, E), False),
        (ranking(A, B, C, D, E), ranking(E, D, C, B, A), False),
        # A tie does not tell apart what should be told apart, and what is tied may stand in any order.
        (ranking(A, B), ranking("AB"), False),
        (ranking("AB", C), ranking(B, A, C), True),
        (ranking("AB", C), ranking(C, "AB"), False),
        # The best of four, or of six, was not judged: three pairs of six, and five of fifteen, are not in order.
        (ranking(A, B, C, D), ranking(B, C, D), False),
        (ranking(A, B, C, D, E, F), ranking(B, C, D, E, F), False),
    ],
    ids=str,
)
def test_an_answer_agrees_with_the_right_one(right: Judgement, given: Judgement, same: bool) -> None:
    assert agrees(right, given) == same


@pytest.mark.parametrize("answer", [Critique("Too long."), Correction("Better."), Demonstration("An answer.")], ids=str)
def test_words_have_no_right_answer_and_make_no_gold_item(tmp_path: Path, answer: Judgement) -> None:
    with pytest.raises(AssentError):
        agrees(answer, answer)
    with Store.open(tmp_path / "store.db") as store:
        items = 0 if isinstance(answer, Demonstration) else 1
        query = replace(query_of(store, type(answer).__name__.lower(), items), purpose="gold")
        with pytest.raises(AssentError):  # else nobody's answer to it could be judged, and screening would end there
            TaskQueue(store).add_gold(query, answer, "practice")


@SQLITE
def test_a_gold_item_fits_its_query_and_says_that_it_is_gold(desk: TaskQueue) -> None:
    (query,) = comparisons(desk.store, 1)
    with pytest.raises(AssentError, match="purpose 'gold'"):
        desk.add_gold(query, Comparison(query.items[0]))
    gold = replace(query, purpose="gold")
    with pytest.raises(AssentError, match="did not show"):
        desk.add_gold(gold, Comparison("elsewhere"))
    assert list(desk.gold()) == []
    desk.add_gold(gold, Comparison(query.items[0]))
    desk.add_gold(gold, Comparison(query.items[1]), "test")  # second thoughts
    assert list(desk.gold()) == [(gold, Comparison(query.items[1]), "test")]
