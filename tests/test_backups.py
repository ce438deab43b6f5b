"""Copies of a store: whole although people go on answering, audited, few, and good to go back to."""

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
from assent.web.workspace import Office

AT = "2026-11-21T12:00:00.000+00:00"
PROMPT = Prompt.ask("Is it good?")
RESPONSE = Response(PROMPT.id, "It is.", "sft")
QUERY = Task("approval", PROMPT.id, (RESPONSE.id,), "train", "Is it?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run in which ten people have answered."""
    folder = tmp_path / "run"
    with open_run(Setup(run=folder)) as run:
        run.store.add_prompts([PROMPT])
        run.store.add_responses([RESPONSE])
        run.store.add_tasks([QUERY])
    say(folder, 0, 10)
    return folder


def say(folder: Path, first: int, last: int) -> None:
    with Store.open(folder / "feedback.db") as store:
        for n in range(first, last):
            store.add_feedback([Feedback(QUERY.id, f"person {n}", Approval(n % 3 > 0), AT, id=f"event {n}")])


def said(path: Path) -> list[str]:
    with Store.open(path) as store:
        store.verify()
        return [event.id for event in store.feedback()]


def command(folder: Path, *words: str, code: int = 0) -> None:
    assert main([*words, "--run", str(folder)]) == code


def test_a_copy_holds_everything_and_people_go_on_meanwhile(folder: Path) -> None:
    stop = threading.Event()

    def people() -> None:
        n = 10
        while not stop.is_set():
            say(folder, n, n + 1)
            n += 1

    crowd = threading.Thread(target=people)
    crowd.start()
    try:
        with Store.open(folder / "feedback.db") as store:
            lengths = [store.copy(folder / f"copy {n}.db") for n in range(5)]
    finally:
        stop.set()
        crowd.join()
    everything = said(folder / "feedback.db")
    copies = [said(folder / f"copy {n}.db") for n in range(5)]
    assert [len(copy) for copy in copies] == lengths == sorted(lengths)
    assert all(copy == everything[: len(copy)] for copy in copies) and 10 <= lengths[0] < len(everything)
    assert not list(folder.glob("*.partial*"))


def test_going_back_to_a_copy_keeps_what_was_there_and_the_server_need_not_stop(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(folder, "backup")
    (copy,) = backups.made(folder)
    say(folder, 10, 15)
    with Store.open(folder / "feedback.db") as server:  # which has it open all the while
        assert server.counts().feedback == 15
        time.sleep(1.1)  # copies are named by the second
        command(folder, "backup", "--restore", str(copy))
        assert [event.id for event in server.feedback()] == [f"event {n}" for n in range(10)]
        say(folder, 20, 21)
        assert [event.id for event in server.feedback()][-1] == "event 20"
        server.verify()
    assert len(said(backups.made(folder)[-1])) == 15
    assert "is as in" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["changed", "cut", "of something else", "missing"])
def test_a_copy_that_does_not_hold_is_not_gone_back_to(
    folder: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = folder / "copy.db"
    with Store.open(folder / "feedback.db") as store:
        store.copy(copy)
    match harm:
        case "changed":
            engine = sa.create_engine(f"sqlite:///{copy}")
            with engine.begin() as raw:
                raw.exec_driver_sql("DROP TRIGGER feedback_no_update")
                raw.execute(sa.update(schema.feedback).where(schema.feedback.c.id == "event 3").values(note="paid"))
            engine.dispose()
        case "cut":
            copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
        case "of something else":
            copy.write_bytes(b"a picture")
        case "missing":
            copy.unlink()
    command(folder, "backup", "--restore", str(copy), code=2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert len(said(folder / "feedback.db")) == 10


def test_a_store_that_was_changed_behind_its_back_makes_no_copy(folder: Path) -> None:
    with Store.open(folder / "feedback.db") as store:
        with store.writing() as on:
            on.exec_driver_sql("DROP TRIGGER feedback_no_update")
            on.execute(sa.update(schema.feedback).where(schema.feedback.c.id == "event 3").values(note="paid"))
        with pytest.raises(AssentError, match="not what was stored"):
            backups.make(store, folder)
    assert not list((folder / "backups").iterdir())


def test_fourteen_copies_stay(folder: Path) -> None:
    (folder / "backups").mkdir()
    for day in range(10, 30):
        (folder / "backups" / f"2026-10-{day}T00-00-00.db").touch()
    with Store.open(folder / "feedback.db") as store:
        made = backups.make(store, folder)
    there = backups.made(folder)
    assert len(there) == 14 and there[-1] == made.path and there[0].name == "2026-10-17T00-00-00.db"


def test_the_server_copies_every_store_once_a_day_if_something_was_said(folder: Path) -> None:
    office = Office(folder.parent)
    office.people.join(office.people.setup(), "olive", "correct horse")
    rooms = (folder, folder.parent)

    def copies(hours: float) -> list[int]:
        """How many there are when the server looks after so many hours."""
        for path in (path for room in rooms for path in (*room.glob("*.db*"), *backups.made(room))):
            before = path.stat().st_mtime - 3600 * hours
            os.utime(path, (before, before))
        office.back_up()
        return [len(backups.made(room)) for room in rooms]

    assert copies(0) == [1, 1]
    time.sleep(1.1)  # copies are named by the second
    assert copies(1) == [1, 1]
    assert copies(25) == [1, 1]  # nothing was said
    say(folder, 10, 11)
    assert copies(0) == [2, 1]
    time.sleep(1.1)
    say(folder, 11, 12)
    assert copies(1) == [2, 1]  # too soon
    assert copies(24) == [3, 1]
    office.close()
