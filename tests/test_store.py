"""The store, on real SQLite files and with real processes."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from assent.feedback import to_values
from assent.feedback.comparison import Comparison
from assent.feedback.critique import Critique
from assent.feedback.rating import Rating
from assent.labelling.accounts import Accounts
from assent.labelling.queue import TaskQueue
from assent.labelling.settings import read_settings
from assent.records import Feedback, Message, Prompt, Response, Task
from assent.store import schema
from assent.store.database import Store
from assent.store.errors import Busy, Conflict, DiskFull

PROMPT = Prompt.ask("Which is the largest planet?", category="knowledge", source="quiz")
ITEMS = tuple(Response(PROMPT.id, text, "sft", sampling="temperature 0.7") for text in ("Jupiter.", "Saturn."))
A, B = (item.id for item in ITEMS)
TASK = Task("comparison", PROMPT.id, (A, B))
EVENT = Feedback(TASK.id, "ann", Comparison(A, 2), "2026-11-20T10:00:00Z", 3.5, (B, A), "clear", id="0192-first")

DATA = Path(__file__).parent / "data"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as store:
        yield fill(store)


def fill(store: Store) -> Store:
    store.add_prompts([PROMPT])
    store.add_responses(ITEMS)
    store.add_tasks([TASK])
    return store


def events(count: int, annotator: str = "ann") -> list[Feedback]:
    return [Feedback(TASK.id, annotator, Comparison(A), f"2026-11-20T10:00:00.{n:06}Z") for n in range(count)]


def test_store_returns_records_as_added(store: Store) -> None:
    assert store.add_feedback([EVENT]) == 1
    assert list(store.prompts()) == [PROMPT]
    assert list(store.responses()) == list(ITEMS)
    assert list(store.tasks()) == [TASK]
    assert list(store.feedback()) == [EVENT]
    assert store.counts() == (1, 2, 1, 1)


def test_database_errors_hide_parameters(store: Store) -> None:
    with store.reading() as on, pytest.raises(sa.exc.DBAPIError) as error:
        on.execute(sa.text("SELECT nothing FROM prompts WHERE source = :words"), {"words": "a secret"})
    assert "nothing" in str(error.value) and "a secret" not in str(error.value)


def test_records_are_visible_to_the_next_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        fill(store).add_feedback([EVENT])
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        assert list(store.feedback()) == [EVENT]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), TEXT, TEXT, TEXT)
def test_any_text_round_trips(store: Store, turns: list[tuple[str, str]], a: str, b: str, c: str) -> None:
    prompt = Prompt(tuple(Message(role, content) for role, content in turns), a, b)
    response = Response(prompt.id, c, b, finished=False)
    task = Task("critique", prompt.id, (response.id,), instruction=a)
    event = Feedback(task.id, b, Critique(f"!{c}", a), a, comment=c)
    store.add_prompts([prompt])
    store.add_responses([response])
    store.add_tasks([task])
    store.add_feedback([event])
    assert list(store.feedback(ids=[event.id])) == [event]
    assert response in list(store.responses(prompt=prompt.id))
    assert list(store.tasks(ids=[task.id])) == [task]
    assert [item.messages for item in store.prompts(ids=[prompt.id])] == [prompt.messages]


def test_repeated_feedback_changes_nothing(store: Store) -> None:
    assert [store.add_feedback([EVENT]) for _ in range(10)] == [1] + [0] * 9
    assert store.add_feedback([*events(3), *events(4)]) == 4
    assert (store.add_prompts([PROMPT]), store.add_responses(ITEMS), store.add_tasks([TASK, TASK])) == (0, 0, 0)
    assert store.counts() == (1, 2, 1, 5)


def test_same_id_with_another_body_is_a_conflict(store: Store) -> None:
    store.add_feedback([EVENT])
    another = Feedback(TASK.id, "ann", Comparison(B, 2), EVENT.created_at, id=EVENT.id)
    with pytest.raises(Conflict, match="0192-first is stored with another body"):
        store.add_feedback([*events(1), another])
    assert list(store.feedback()) == [EVENT]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Feedback("nowhere", "ann", Comparison(A), ""), "judges task 'nowhere', which is not in"),
        (Feedback(TASK.id, "ann", Comparison("C"), ""), "did not show item 'C'"),
        (Feedback(TASK.id, "ann", Rating((("helpful", 3),)), ""), "asks for a comparison, not for a rating"),
        (Feedback(TASK.id, "ann", Comparison(A), "", comment="\ud800"), r"unpaired surrogate \(U\+D800\)"),
    ],
)
def test_feedback_that_fits_no_task_is_refused(store: Store, event: Feedback, message: str) -> None:
    with pytest.raises(AssentError, match=message):
        store.add_feedback([event])
    assert store.counts().feedback == 0


def test_orphan_rows_are_refused(store: Store) -> None:
    with pytest.raises(AssentError, match="names a prompt that is not stored: add prompts first"):
        store.add_responses([Response("nowhere", "text", "sft")])


def test_same_text_of_two_policies_is_two_responses(store: Store) -> None:
    echo = Response(PROMPT.id, "Jupiter.", "ppo")
    assert echo.id == A
    assert store.add_responses([echo]) == 1
    assert list(store.responses(policy="ppo")) == [echo]
    assert len(list(store.responses(prompt=PROMPT.id))) == 3


def test_store_filters(store: Store) -> None:
    another = Prompt.plain("Once upon a time", category="creative", source="tales")
    gold = Task("comparison", PROMPT.id, (B, A), purpose="gold")
    store.add_prompts([another])
    store.add_tasks([gold])
    store.add_feedback([EVENT])
    assert list(store.prompts(source="tales")) == list(store.prompts(category="creative")) == [another]
    assert list(store.prompts(source="tales", category="knowledge")) == []
    assert list(store.tasks(purpose="gold")) == list(store.tasks(not_judged_by="ann")) == [gold]
    assert list(store.tasks(not_judged_by="bob")) == [TASK, gold]
    assert list(store.feedback(annotator="bob")) == []
    assert list(store.feedback(task=TASK.id)) == [EVENT]


def test_long_reading_keeps_order_beside_writers(store: Store) -> None:
    many = [Prompt.ask(f"question {number}") for number in range(6000)]
    assert store.add_prompts(many) == 6000
    prompts = []
    for prompt in store.prompts():
        prompts.append(prompt)
        if len(prompts) % 1000 == 0:
            store.add_prompts([Prompt.ask(f"late {len(prompts)}")])
    assert prompts == [PROMPT, *many]
    assert store.counts().prompts == 6007
    assert list(store.prompts(ids=[prompt.id for prompt in many[:1200]])) == many[:1200]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE feedback SET comment = 'changed'",
        "DELETE FROM feedback",
        "INSERT OR REPLACE INTO feedback SELECT * FROM feedback",
        (
            "REPLACE INTO feedback SELECT 99, id, task, 'x', kind, judgement, created_at, 0, display_order, comment, "
            "'', NULL, 'human', '' FROM feedback"
        ),
    ],
)
def test_triggers_refuse_to_change_or_delete_feedback(store: Store, statement: str) -> None:
    store.add_feedback([EVENT])
    with sqlite3.connect(store.name) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    assert list(store.feedback()) == [EVENT]


def test_edit_without_triggers_breaks_the_hash_chain(store: Store) -> None:
    store.add_feedback(events(5))
    assert store.verify() == 5
    with sqlite3.connect(store.name) as raw:
        raw.execute("DROP TRIGGER feedback_no_update")
        raw.execute("UPDATE feedback SET annotator = 'eve' WHERE seq = 3")
    with pytest.raises(AssentError, match=f"feedback {events(3)[2].id} was changed after it was stored"):
        store.verify()


def test_sqlite_syncs_every_commit(store: Store) -> None:
    with store.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


# Migrations


def test_migrations_create_the_tables_of_the_schema(store: Store) -> None:
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []


def test_migration_keeps_rows_of_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        command.upgrade(config, "0001")
        insert = "INSERT INTO prompts (id, messages, mode, source) VALUES (?, '[]', 'knowledge', 'an old file')"
        connection.exec_driver_sql(insert, (PROMPT.id,))
    with Store.open(path) as store:
        assert [prompt.source for prompt in store.prompts()] == ["an old file"]
        fill(store).add_feedback([EVENT])
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("DELETE FROM feedback")


def test_file_of_a_newer_version_is_refused(store: Store) -> None:
    with sqlite3.connect(store.name) as raw:
        raw.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(AssentError, match="has version 9999, this assent knows 0007: install a newer assent"):
        Store.open(store.name)


# Errors


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mail.db") as raw:
        raw.execute("CREATE TABLE letters (text)")
    with pytest.raises(AssentError, match="a database of something else, with tables letters"):
        Store.open(tmp_path / "mail.db")


@pytest.mark.parametrize("location", ["missing/store.db", "folder", "text.db", "nodriver://x/y", "://"])
def test_unopenable_store_is_one_line_of_error(tmp_path: Path, location: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("This is a letter and no database at all. " * 50)
    with pytest.raises(AssentError) as error:
        Store.open(location if "://" in location else tmp_path / location)
    assert "\n" not in str(error.value)


def test_damaged_file_is_one_line_of_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        fill(store).add_feedback(events(2000))
    data = bytearray(path.read_bytes())
    data[4096 * 6 :] = b"\x5a" * (len(data) - 4096 * 6)
    path.write_bytes(data)
    with pytest.raises(AssentError, match=r"damaged.*restore a backup") as error, Store.open(path) as store:
        store.verify()
    assert "\n" not in str(error.value)


def test_full_disk_loses_nothing_acknowledged(store: Store) -> None:
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


def test_stuck_lock_raises_busy(store: Store) -> None:
    holder = sqlite3.connect(store.name, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Store.open(store.name, timeout=0.1) as another:
        assert another.counts().prompts == 1  # readers are not blocked
        with pytest.raises(Busy, match="locked by another process"):
            another.add_feedback([EVENT])
        holder.execute("ROLLBACK")
        assert another.add_feedback([EVENT]) == 1
    holder.close()


# Several processes

WRITER = """
import sys
from tests.test_store import A, B, TASK, fill
from assent.feedback.comparison import Comparison
from assent.records import Feedback
from assent.store.database import Store
path, annotator, count = sys.argv[1:]
with Store.open(path) as store:
    fill(store)
    for number in range(int(count)):
        event = Feedback(TASK.id, annotator, Comparison((A, B)[number % 2]), str(number))
        store.add_feedback([event])
        print(event.id, flush=True)
"""


def writer(path: Path, annotator: str, count: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), annotator, str(count)], stdout=subprocess.PIPE, text=True, cwd=root
    )


def test_concurrent_writers_of_a_new_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = []
    for process in [writer(path, f"annotator {number}", 100) for number in range(3)]:
        acknowledged += process.communicate(timeout=120)[0].split()
        assert process.returncode == 0
    with Store.open(path) as store:
        assert len(acknowledged) == 300
        assert sorted(event.id for event in store.feedback()) == sorted(acknowledged)
        assert store.verify() == 300


def test_new_file_is_opened_concurrently(tmp_path: Path) -> None:
    for number in range(20):
        barrier = threading.Barrier(4)

        def opened(path: Path = tmp_path / f"{number}.db", barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            with Store.open(path) as store:
                return fill(store).counts().tasks

        with ThreadPoolExecutor(4) as pool:
            assert [job.result() for job in [pool.submit(opened) for _ in range(4)]] == [1] * 4


@pytest.mark.parametrize("seed", range(3))
def test_killed_writer_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store.db"
    process = writer(path, "ann", 1_000_000)
    assert process.stdout
    acknowledged = [process.stdout.readline().strip() for _ in range(random.Random(seed).randint(1, 300))]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.communicate()[0].split()
    with Store.open(path) as store:
        stored = [event.id for event in store.feedback()]
        # The last event may be committed although its writer was killed before or while it acknowledged it.
        assert stored[: len(acknowledged) - 1] == acknowledged[:-1]
        assert len(stored) - len(acknowledged) in (0, 1)
        assert store.verify() == len(stored)
        assert store.add_feedback([EVENT]) == 1


# Older versions


def test_migration_of_0004_counts_human_judgements(database: str) -> None:
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
        for annotator in ("ann", "simulated:hasty"):
            row = {
                "query": "q",
                "annotator": annotator,
                "kind": "demonstration",
                "answer": '{"text": "So."}',
                "at": "2026",
            }
            defaults = {
                "seconds": 0.0,
                "shown": "[]",
                "note": "",
                "supersedes": "",
                "digest": annotator,
                "id": annotator,
            }
            rows[f"feedback {annotator}"] = row | defaults
        for table, row in rows.items():
            names = ", ".join(f'"{name}"' for name in row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(sa.text(f"INSERT INTO {table.split()[0]} ({names}) VALUES ({values})"), row)
    engine.dispose()
    with Store.open(database) as opened:
        queue = TaskQueue(opened)
        assert queue.open_tasks(["q"]) == {"q"}  # one human judged; the judgement of a program no longer counts
        queue.assignments.send_back("ann", "q", "Why so?")
        assert queue.assignments.review_remarks("ann", ["q"]) == {"q": "Why so?"}


def test_migration_of_0005_keeps_ids(database: str) -> None:
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
    tool_prompt = Prompt((Message("tool", "", {"name": "look"}),), tools=({"type": "function"},))
    with Store.open(database) as opened:
        assert (list(opened.prompts()), list(opened.responses())) == ([PROMPT], [ITEMS[0]])
        assert (PROMPT.id, A) == ("f035841ca103e8812f88", "5e79f16bdaa8d9105d6b"), "as 0005 named them"
        opened.add_prompts([PROMPT, tool_prompt])
        opened.add_responses([ITEMS[0], called])
        assert (list(opened.prompts()), list(opened.responses())) == ([PROMPT, tool_prompt], [ITEMS[0], called])
        assert [item.token_ids for item in opened.responses()] == [(), (5, 2)]


def load_0006(database: str) -> dict[str, list[dict[str, Any]]]:
    """Create a database of version 0006 with the rows that assent 0.1 wrote, and return them by table."""
    tables: dict[str, list[dict[str, Any]]] = json.loads((DATA / "store_0006.json").read_text())
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    engine = sa.create_engine(database if "://" in database else f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        for table, rows in tables.items():
            columns = ", ".join(f'"{name}"' for name in rows[0])
            values = ", ".join(f":{name}" for name in rows[0])
            connection.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), rows)
    engine.dispose()
    return tables


SOURCES_0006 = ["human"] * 4 + ["simulated", "model", "scorer", "human", "human"]


def test_migration_of_0006_keeps_records_and_hash_chain(database: str) -> None:
    old = load_0006(database)
    with Store.open(database) as store:
        assert store.verify() == 9
        assert store.last_arrival() == (9, old["feedback"][-1]["digest"])
        prompts = list(store.prompts())
        assert [prompt.id for prompt in prompts] == [row["id"] for row in old["prompts"]]
        assert [(prompt.category, prompt.meta) for prompt in prompts] == [("knowledge", {}), ("grounded", {})]
        responses = list(store.responses())
        assert [response.id for response in responses] == [row["id"] for row in old["responses"]]
        labels = ["generate:base#0123ab", "evaluate:ppo#a7f4d2", "generate:sft#f71884", "imported:gpt"]
        assert [response.policy for response in responses] == [*labels, "evaluate:base#9f00aa"]
        assert [task.id for task in store.tasks()] == [row["id"] for row in old["queries"]]
        assert store.counts() == (2, 5, 7, 9)
        for event, row in zip(store.feedback(), old["feedback"], strict=True):
            assert (event.id, event.task, event.annotator) == (row["id"], row["query"], row["annotator"])
            assert to_values(event.judgement) == json.loads(row["answer"])
            assert (event.created_at, event.duration, event.comment) == (row["at"], row["seconds"], row["note"])
            assert [*event.display_order] == json.loads(row["shown"])
        assert [event.source for event in store.feedback()] == SOURCES_0006


def test_migration_of_0006_renames_the_policy_of_chats(database: str) -> None:
    response = load_0006(database)["responses"][0]
    columns = ", ".join(f'"{name}"' for name in response if name not in ("seq", "policy"))
    engine = sa.create_engine(database if "://" in database else f"sqlite:///{database}")
    with engine.begin() as connection:
        for policy in ("chat:start", "chat:start-2", "rejection-2:ppo#0123ab"):
            values = f"SELECT {columns}, '{policy}' FROM responses WHERE id = '{response['id']}' LIMIT 1"
            connection.execute(sa.text(f"INSERT INTO responses ({columns}, policy) {values}"))
    engine.dispose()
    with Store.open(database) as store:
        policies = [item.policy for item in store.responses(ids=[response["id"]])]
        assert policies[1:] == ["chat:base", "chat:start-2", "rejection_sampling-2:ppo#0123ab"]


def test_migration_of_0006_keeps_queue_and_accounts(database: str) -> None:
    old = load_0006(database)
    ann = old["people"][1]
    with Store.open(database) as store:
        queue = TaskQueue(store)
        assert queue.progress() == (6, 0)
        for row in old["leases"]:
            assignment = queue.assignments.find(row["person"], row["name"])
            assert assignment is not None
            assert (assignment.task.id, [*assignment.display_order]) == (row["query"], json.loads(row["shown"]))
        (item,) = queue.gold.items()
        assert (item.task.id, item.use) == (old["gold"][0]["query"], "hidden")
        accounts = Accounts(store)
        user = accounts.sign_in("Ann", "another password")
        assert (user.id, user.external_id, user.created_at) == (ann["id"], "platform-7", ann["at"])
        assert read_settings(store) == {row["name"]: json.loads(row["value"]) for row in old["settings"]}


def test_migrated_database_is_append_only_and_detects_edits(database: str) -> None:
    load_0006(database)
    edit = "UPDATE feedback SET source = 'human' WHERE annotator = 'simulated:hasty'"
    with Store.open(database) as store:
        for statement in (edit, "DELETE FROM feedback"):
            with pytest.raises(AssentError, match="append-only"), store.writing() as connection:
                connection.execute(sa.text(statement))
        with store.writing() as connection:
            name = connection.dialect.name
            trigger = "feedback_no_update" if name == "sqlite" else "feedback_no_change ON feedback"
            connection.execute(sa.text(f"DROP TRIGGER {trigger}"))
            connection.execute(sa.text(edit))
        with pytest.raises(AssentError, match="was changed after it was stored"):
            store.verify()


# Additions of version 0007


def test_prompt_meta_is_stored_and_not_part_of_the_id(database: str) -> None:
    meta = {"reference": "Jupiter", "group": 3}
    prompt = Prompt(PROMPT.messages, meta=meta)
    assert prompt.id == PROMPT.id and prompt != Prompt(PROMPT.messages)
    with Store.open(database) as store:
        store.add_prompts([prompt])
        assert [stored.meta for stored in store.prompts()] == [meta]
        assert prompt.as_chat() is prompt
        assert Prompt((Message("text", "Once"),), "creative", "tales", meta=meta).as_chat() == Prompt(
            (Message("user", "Once"),), "creative", "tales", meta=meta
        )


def test_feedback_source_is_stored_and_enters_the_hash_chain(database: str) -> None:
    with Store.open(database) as store:
        fill(store)
        event = Feedback(TASK.id, "gpt", Comparison(A), "2026-11-20T10:00:00Z", source="model")
        store.add_feedback([event])
        assert list(store.feedback()) == [event] and store.verify() == 1
        with pytest.raises(Conflict):
            store.add_feedback([replace(event, source="human")])
        with store.writing() as connection:
            name = connection.dialect.name
            trigger = "feedback_no_update" if name == "sqlite" else "feedback_no_change ON feedback"
            connection.execute(sa.text(f"DROP TRIGGER {trigger}"))
            connection.execute(sa.text("UPDATE feedback SET source = 'human'"))
        with pytest.raises(AssentError, match="was changed after it was stored"):
            store.verify()


def test_current_feedback_leaves_out_superseded_events(store: Store) -> None:
    first, second = events(2)
    third = replace(first, id="third", supersedes=first.id)
    fourth = replace(first, id="fourth", supersedes="third")
    store.add_feedback([first, second, third, fourth])
    assert list(store.feedback(current=True)) == [second, fourth]
    assert list(store.feedback(annotator="ann", ids=[first.id, "fourth"], current=True)) == [fourth]
    assert list(store.feedback()) == [first, second, third, fourth]
