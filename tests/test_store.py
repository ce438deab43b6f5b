"""The store, on real SQLite files and with real processes."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.feedback.critique import Critique
from assent.feedback.rating import Rating
from assent.labelling.queue import TaskQueue
from assent.records import Feedback, Message, Prompt, Response, Task
from assent.store import schema
from assent.store.database import Busy, Conflict, DiskFull, Store

PROMPT = Prompt.ask("Which is the largest planet?", mode="knowledge", source="quiz")
ITEMS = tuple(Response(PROMPT.id, text, "sft", sampling="temperature 0.7") for text in ("Jupiter.", "Saturn."))
A, B = (item.id for item in ITEMS)
QUERY = Task("comparison", PROMPT.id, (A, B))
EVENT = Feedback(QUERY.id, "ann", Comparison(A, 2), "2026-11-20T10:00:00Z", 3.5, (B, A), "clear", id="0192-first")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as store:
        yield fill(store)


def fill(store: Store) -> Store:
    store.add_prompts([PROMPT])
    store.add_responses(ITEMS)
    store.add_tasks([QUERY])
    return store


def events(count: int, annotator: str = "ann") -> list[Feedback]:
    return [Feedback(QUERY.id, annotator, Comparison(A), f"2026-11-20T10:00:00.{n:06}Z") for n in range(count)]


def test_what_was_put_in_comes_out_again(store: Store) -> None:
    assert store.add_feedback([EVENT]) == 1
    assert list(store.prompts()) == [PROMPT]
    assert list(store.responses()) == list(ITEMS)
    assert list(store.tasks()) == [QUERY]
    assert list(store.feedback()) == [EVENT]
    assert store.counts() == (1, 2, 1, 1)


def test_an_error_of_the_database_does_not_tell_what_people_said(store: Store) -> None:
    with store.reading() as on, pytest.raises(sa.exc.DBAPIError) as error:
        on.execute(sa.text("SELECT nothing FROM prompts WHERE source = :words"), {"words": "a secret"})
    assert "nothing" in str(error.value) and "a secret" not in str(error.value)


def test_what_was_put_in_is_there_for_the_next_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        fill(store).add_feedback([EVENT])
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        assert list(store.feedback()) == [EVENT]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), TEXT, TEXT, TEXT)
def test_any_text_comes_back_as_it_was(store: Store, turns: list[tuple[str, str]], a: str, b: str, c: str) -> None:
    prompt = Prompt(tuple(Message(role, content) for role, content in turns), a, b)
    response = Response(prompt.id, c, b, finished=False)
    query = Task("critique", prompt.id, (response.id,), instruction=a)
    event = Feedback(query.id, b, Critique(f"!{c}", a), a, comment=c)
    store.add_prompts([prompt])
    store.add_responses([response])
    store.add_tasks([query])
    store.add_feedback([event])
    assert list(store.feedback(ids=[event.id])) == [event]
    assert response in list(store.responses(prompt=prompt.id))
    assert list(store.tasks(ids=[query.id])) == [query]
    assert [each.messages for each in store.prompts(ids=[prompt.id])] == [prompt.messages]


def test_a_repeated_post_changes_nothing(store: Store) -> None:
    assert [store.add_feedback([EVENT]) for _ in range(10)] == [1] + [0] * 9
    assert store.add_feedback([*events(3), *events(4)]) == 4
    assert (store.add_prompts([PROMPT]), store.add_responses(ITEMS), store.add_tasks([QUERY, QUERY])) == (0, 0, 0)
    assert store.counts() == (1, 2, 1, 5)


def test_the_same_id_with_another_body_is_a_conflict_and_changes_nothing(store: Store) -> None:
    store.add_feedback([EVENT])
    other = Feedback(QUERY.id, "ann", Comparison(B, 2), EVENT.created_at, id=EVENT.id)
    with pytest.raises(Conflict, match="0192-first is stored with another body"):
        store.add_feedback([*events(1), other])
    assert list(store.feedback()) == [EVENT]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Feedback("nowhere", "ann", Comparison(A), ""), "answers query 'nowhere', which is not in"),
        (Feedback(QUERY.id, "ann", Comparison("C"), ""), "did not show item 'C'"),
        (Feedback(QUERY.id, "ann", Rating((("helpful", 3),)), ""), "asks for a comparison, not for a rating"),
        (Feedback(QUERY.id, "ann", Comparison(A), "", comment="\ud800"), r"lone surrogate \(U\+D800\)"),
    ],
)
def test_an_answer_that_fits_no_question_is_refused_before_it_is_acknowledged(
    store: Store, event: Feedback, message: str
) -> None:
    with pytest.raises(AssentError, match=message):
        store.add_feedback([event])
    assert store.counts().feedback == 0


def test_an_orphan_is_refused(store: Store) -> None:
    with pytest.raises(AssentError, match="names a prompt that is not there: add prompts first"):
        store.add_responses([Response("nowhere", "text", "sft")])


def test_two_policies_that_say_the_same_both_said_it(store: Store) -> None:
    echo = Response(PROMPT.id, "Jupiter.", "ppo")
    assert echo.id == A
    assert store.add_responses([echo]) == 1
    assert list(store.responses(policy="ppo")) == [echo]
    assert len(list(store.responses(prompt=PROMPT.id))) == 3


def test_readings_can_be_narrowed(store: Store) -> None:
    other = Prompt.plain("Once upon a time", mode="creative", source="tales")
    gold = Task("comparison", PROMPT.id, (B, A), purpose="gold")
    store.add_prompts([other])
    store.add_tasks([gold])
    store.add_feedback([EVENT])
    assert list(store.prompts(source="tales")) == list(store.prompts(mode="creative")) == [other]
    assert list(store.prompts(source="tales", mode="knowledge")) == []
    assert list(store.tasks(purpose="gold")) == list(store.tasks(unanswered_by="ann")) == [gold]
    assert list(store.tasks(unanswered_by="bob")) == [QUERY, gold]
    assert list(store.feedback(annotator="bob")) == []
    assert list(store.feedback(query=QUERY.id)) == [EVENT]


def test_a_long_reading_keeps_its_order_and_lets_others_write_meanwhile(store: Store) -> None:
    many = [Prompt.ask(f"question {number}") for number in range(6000)]
    assert store.add_prompts(many) == 6000
    seen = []
    for prompt in store.prompts():
        seen.append(prompt)
        if len(seen) % 1000 == 0:
            store.add_prompts([Prompt.ask(f"late {len(seen)}")])
    assert seen == [PROMPT, *many]
    assert store.counts().prompts == 6007
    assert list(store.prompts(ids=[prompt.id for prompt in many[:1200]])) == many[:1200]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE feedback SET note = 'changed'",
        "DELETE FROM feedback",
        "INSERT OR REPLACE INTO feedback SELECT * FROM feedback",
        "REPLACE INTO feedback SELECT 99, id, query, 'x', kind, answer, at, 0, shown, note, '', '', NULL FROM feedback",
    ],
)
def test_the_database_itself_refuses_to_change_or_delete_an_answer(store: Store, statement: str) -> None:
    store.add_feedback([EVENT])
    with sqlite3.connect(store.name) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    assert list(store.feedback()) == [EVENT]


def test_an_edit_behind_the_back_of_the_triggers_breaks_the_chain(store: Store) -> None:
    store.add_feedback(events(5))
    assert store.verify() == 5
    with sqlite3.connect(store.name) as raw:
        raw.execute("DROP TRIGGER feedback_no_update")
        raw.execute("UPDATE feedback SET annotator = 'eve' WHERE seq = 3")
    with pytest.raises(AssentError, match=f"feedback {events(3)[2].id} is not what was stored"):
        store.verify()


def test_every_commit_reaches_the_disk(store: Store) -> None:
    with store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


# Migrations


def test_the_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []


def test_an_older_file_is_brought_up_to_date_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        command.upgrade(config, "0001")
        connection.execute(
            sa.insert(schema.prompts).values(id=PROMPT.id, messages=[], mode="knowledge", source="an old file")
        )
    with Store.open(path) as store:
        assert [prompt.source for prompt in store.prompts()] == ["an old file"]
        fill(store).add_feedback([EVENT])
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("DELETE FROM feedback")


def test_a_file_of_a_newer_assent_is_told_as_such(store: Store) -> None:
    with sqlite3.connect(store.name) as raw:
        raw.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(AssentError, match="has version 9999, this assent knows 0006: install a newer assent"):
        Store.open(store.name)


# What goes wrong


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mail.db") as raw:
        raw.execute("CREATE TABLE letters (text)")
    with pytest.raises(AssentError, match="a database of something else, with tables letters"):
        Store.open(tmp_path / "mail.db")


@pytest.mark.parametrize("where", ["missing/store.db", "folder", "text.db", "nodriver://x/y", "://"])
def test_what_cannot_be_opened_is_told_in_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("This is a letter and no database at all. " * 50)
    with pytest.raises(AssentError) as error:
        Store.open(where if "://" in where else tmp_path / where)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        fill(store).add_feedback(events(2000))
    data = bytearray(path.read_bytes())
    data[4096 * 6 :] = b"\x5a" * (len(data) - 4096 * 6)
    path.write_bytes(data)
    with pytest.raises(AssentError, match=r"damaged.*restore a backup") as error, Store.open(path) as store:
        store.verify()
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_and_costs_nothing_acknowledged(store: Store) -> None:
    store.add_feedback(events(10))
    with store.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="no space left for"):
        store.add_feedback(events(4000))
    assert list(store.feedback()) == events(10)
    with store.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert store.add_feedback(events(4000)) == 3990


def test_a_lock_that_is_never_given_up_is_told(store: Store) -> None:
    holder = sqlite3.connect(store.name, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Store.open(store.name, timeout=0.1) as other:
        assert other.counts().prompts == 1  # readers do not mind
        with pytest.raises(Busy, match="locked by another process"):
            other.add_feedback([EVENT])
        holder.execute("ROLLBACK")
        assert other.add_feedback([EVENT]) == 1
    holder.close()


# Several processes

WRITER = """
import sys
from tests.test_store import A, B, QUERY, fill
from assent.feedback.comparison import Comparison
from assent.records import Feedback
from assent.store.database import Store
where, who, count = sys.argv[1:]
with Store.open(where) as store:
    fill(store)
    for number in range(int(count)):
        event = Feedback(QUERY.id, who, Comparison((A, B)[number % 2]), str(number))
        store.add_feedback([event])
        print(event.id, flush=True)
"""


def writer(path: Path, who: str, count: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), who, str(count)], stdout=subprocess.PIPE, text=True, cwd=root
    )


def test_processes_that_open_a_new_file_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = []
    for process in [writer(path, f"annotator {number}", 100) for number in range(3)]:
        acknowledged += process.communicate(timeout=120)[0].split()
        assert process.returncode == 0
    with Store.open(path) as store:
        assert len(acknowledged) == 300
        assert sorted(event.id for event in store.feedback()) == sorted(acknowledged)
        assert store.verify() == 300


def test_a_new_file_may_be_opened_by_many_at_the_same_moment(tmp_path: Path) -> None:
    for number in range(20):
        barrier = threading.Barrier(4)

        def opened(path: Path = tmp_path / f"{number}.db", barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            with Store.open(path) as store:
                return fill(store).counts().tasks

        with ThreadPoolExecutor(4) as pool:
            assert [job.result() for job in [pool.submit(opened) for _ in range(4)]] == [1] * 4


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_killed_in_the_middle_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store.db"
    process = writer(path, "ann", 1_000_000)
    assert process.stdout
    acknowledged = [process.stdout.readline().strip() for _ in range(random.Random(seed).randint(1, 300))]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.communicate()[0].split()
    with Store.open(path) as store:
        stored = [event.id for event in store.feedback()]
        # The last one may have been committed without its writer living to say so, or half said.
        assert stored[: len(acknowledged) - 1] == acknowledged[:-1]
        assert len(stored) - len(acknowledged) in (0, 1)
        assert store.verify() == len(stored)
        assert store.add_feedback([EVENT]) == 1


# Older versions


def test_a_store_of_version_0004_opens_and_counts_people_only(database: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    engine = sa.create_engine(database if "://" in database else f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        rows: dict[str, dict[str, Any]] = {
            "prompts": {"id": "p", "messages": '[{"role": "user", "content": "Why?"}]', "mode": "", "source": ""},
            "queries": {"id": "q", "kind": "demonstration", "prompt": "p", "items": "[]", "purpose": "train"}
            | {"instruction": ""},
            "asks": {"query": "q", "batch": "label", "rule": "uniform", "wanted": 2, "given": 2, "priority": 0.0},
            "leases": {"query": "q", "person": "ann", "shown": "[]", "name": "n", "state": "done", "until": 0.0},
        }
        for who in ("ann", "simulated:hasty"):
            answer = {
                "query": "q",
                "annotator": who,
                "kind": "demonstration",
                "answer": '{"text": "So."}',
                "at": "2026",
            }
            more = {"seconds": 0.0, "shown": "[]", "note": "", "supersedes": "", "digest": who, "id": who}
            rows[f"feedback {who}"] = answer | more
        for table, row in rows.items():
            names = ", ".join(f'"{name}"' for name in row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(sa.text(f"INSERT INTO {table.split()[0]} ({names}) VALUES ({values})"), row)
    engine.dispose()
    with Store.open(database) as opened:
        desk = TaskQueue(opened)
        assert desk.wanting(["q"]) == {"q"}  # one person answered, and a program that no longer counts
        desk.send_back("ann", "q", "Why so?")
        assert desk.sent_back("ann", ["q"]) == {"q": "Why so?"}


def test_a_store_of_version_0005_keeps_its_ids_and_takes_messages_with_calls(database: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    engine = sa.create_engine(database if "://" in database else f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        messages = '[{"role": "user", "content": "Which is the largest planet?"}]'
        prompt = {"id": PROMPT.id, "messages": messages, "mode": PROMPT.category, "source": PROMPT.source}
        insert = "INSERT INTO prompts (id, messages, mode, source) VALUES (:id, :messages, :mode, :source)"
        connection.execute(sa.text(insert), prompt)
        item = {"id": A, "prompt": PROMPT.id, "text": "Jupiter.", "policy": "sft", "sampling": "temperature 0.7"}
        insert = "INSERT INTO responses (id, prompt, text, policy, finished, sampling)"
        connection.execute(sa.text(f"{insert} VALUES (:id, :prompt, :text, :policy, true, :sampling)"), item)
    engine.dispose()
    called = Response(
        PROMPT.id, "", "sft", extra={"tool_calls": [{"type": "function"}]}, token_ids=(5, 2), tokenizer="t"
    )
    asked = Prompt((Message("tool", "", {"name": "look"}),), tools=({"type": "function"},))
    with Store.open(database) as opened:
        assert (list(opened.prompts()), list(opened.responses())) == ([PROMPT], [ITEMS[0]])
        assert (PROMPT.id, A) == ("f035841ca103e8812f88", "5e79f16bdaa8d9105d6b"), "as 0005 named them"
        opened.add_prompts([PROMPT, asked])
        opened.add_responses([ITEMS[0], called])
        assert (list(opened.prompts()), list(opened.responses())) == ([PROMPT, asked], [ITEMS[0], called])
        assert [each.token_ids for each in opened.responses()] == [(), (5, 2)]
