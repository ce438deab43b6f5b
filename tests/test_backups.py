"""Backups: complete during concurrent writes, verified, limited in number, and restorable."""

import os
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from assent.cli import main
from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.records import Feedback, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store import backups, schema
from assent.store.database import Store
from assent.web.workspace import Workspace

AT = "2026-11-21T12:00:00.000+00:00"
PROMPT = Prompt.ask("Is it good?")
RESPONSE = Response(PROMPT.id, "It is.", "sft")
TASK = Task("approval", PROMPT.id, (RESPONSE.id,), "train", "Is it?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a run with the judgements of ten annotators."""
    folder = tmp_path / "run"
    with open_run(Setup(run=folder)) as run:
        run.store.add_prompts([PROMPT])
        run.store.add_responses([RESPONSE])
        run.store.add_tasks([TASK])
    add_feedback(folder, 0, 10)
    return folder


def add_feedback(folder: Path, first: int, last: int) -> None:
    with Store.open(folder / "feedback.db") as store:
        for n in range(first, last):
            store.add_feedback([Feedback(TASK.id, f"person {n}", Approval(n % 3 > 0), AT, id=f"event {n}")])


def feedback_ids(path: Path) -> list[str]:
    with Store.open(path) as store:
        store.verify()
        return [event.id for event in store.feedback()]


def run_command(folder: Path, *words: str, code: int = 0) -> None:
    assert main([*words, "--run", str(folder)]) == code


def test_copy_is_complete_beside_writers(folder: Path) -> None:
    stop = threading.Event()

    def write_feedback() -> None:
        n = 10
        while not stop.is_set():
            add_feedback(folder, n, n + 1)
            n += 1

    crowd = threading.Thread(target=write_feedback)
    crowd.start()
    try:
        with Store.open(folder / "feedback.db") as store:
            lengths = [store.copy(folder / f"copy {n}.db") for n in range(5)]
    finally:
        stop.set()
        crowd.join()
    everything = feedback_ids(folder / "feedback.db")
    copies = [feedback_ids(folder / f"copy {n}.db") for n in range(5)]
    assert [len(copy) for copy in copies] == lengths == sorted(lengths)
    assert all(copy == everything[: len(copy)] for copy in copies) and 10 <= lengths[0] < len(everything)
    assert not list(folder.glob("*.partial*"))


def test_restore_beside_a_server_copies_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(folder, "backup")
    (copy,) = backups.list_backups(folder)
    add_feedback(folder, 10, 15)
    with Store.open(folder / "feedback.db") as server:  # it has the store open all the time
        assert server.counts().feedback == 15
        time.sleep(1.1)  # copies are named by the second
        run_command(folder, "backup", "--restore", str(copy))
        assert [event.id for event in server.feedback()] == [f"event {n}" for n in range(10)]
        add_feedback(folder, 20, 21)
        assert [event.id for event in server.feedback()][-1] == "event 20"
        server.verify()
    assert len(feedback_ids(backups.list_backups(folder)[-1])) == 15
    assert f"feedback.db is restored from {copy}; " in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["changed", "cut", "of something else", "missing"])
def test_damaged_copy_is_not_restored(folder: Path, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    copy = folder / "copy.db"
    with Store.open(folder / "feedback.db") as store:
        store.copy(copy)
    match harm:
        case "changed":
            engine = sa.create_engine(f"sqlite:///{copy}")
            with engine.begin() as raw:
                raw.exec_driver_sql("DROP TRIGGER feedback_no_update")
                raw.execute(sa.update(schema.feedback).where(schema.feedback.c.id == "event 3").values(comment="paid"))
            engine.dispose()
        case "cut":
            copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
        case "of something else":
            copy.write_bytes(b"a picture")
        case "missing":
            copy.unlink()
    run_command(folder, "backup", "--restore", str(copy), code=2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert len(feedback_ids(folder / "feedback.db")) == 10


def test_tampered_store_is_not_copied(folder: Path) -> None:
    with Store.open(folder / "feedback.db") as store:
        with store.writing() as on:
            on.exec_driver_sql("DROP TRIGGER feedback_no_update")
            on.execute(sa.update(schema.feedback).where(schema.feedback.c.id == "event 3").values(comment="paid"))
        with pytest.raises(AssentError, match="was changed after it was stored"):
            backups.create(store, folder)
    assert not list((folder / "backups").iterdir())


def test_fourteen_copies_are_kept(folder: Path) -> None:
    (folder / "backups").mkdir()
    for day in range(10, 30):
        (folder / "backups" / f"2026-10-{day}T00-00-00.db").touch()
    with Store.open(folder / "feedback.db") as store:
        backup = backups.create(store, folder)
    copies = backups.list_backups(folder)
    assert len(copies) == 14 and copies[-1] == backup.path and copies[0].name == "2026-10-17T00-00-00.db"


def test_server_copies_changed_stores_daily(folder: Path) -> None:
    office = Workspace(folder.parent)
    office.accounts.join(office.accounts.issue_setup(), "olive", "correct horse")
    roots = (folder, folder.parent)

    def copies(hours: float) -> list[int]:
        """Return the numbers of copies when the server checks after some hours."""
        for path in (path for root in roots for path in (*root.glob("*.db*"), *backups.list_backups(root))):
            before = path.stat().st_mtime - 3600 * hours
            os.utime(path, (before, before))
        office.back_up()
        return [len(backups.list_backups(root)) for root in roots]

    assert copies(0) == [1, 1]
    time.sleep(1.1)  # copies are named by the second
    assert copies(1) == [1, 1]
    assert copies(25) == [1, 1]  # no new feedback
    add_feedback(folder, 10, 11)
    assert copies(0) == [2, 1]
    time.sleep(1.1)
    add_feedback(folder, 11, 12)
    assert copies(1) == [2, 1]  # too soon
    assert copies(24) == [3, 1]
    office.close()


def test_backup_keeps_the_newest_copies(folder: Path) -> None:
    for number in range(3):
        run_command(folder, "backup", "--keep", "2")
        add_feedback(folder, 100 + number, 101 + number)
        time.sleep(1.1)  # copies are named by the second
    copies = sorted((folder / "backups").iterdir())
    assert [len(feedback_ids(copy)) for copy in copies] == [11, 12]
