"""Who is let in: links that work once, secrets of which only hashes are kept, roles, and being forgotten."""

import base64
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import argon2
import pytest
import sqlalchemy as sa
from clock import Clock

from assent import cli
from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.labelling.accounts import Denied, People, Person
from assent.labelling.queue import Ask, TaskQueue
from assent.records import Feedback, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.workspace import Office

PASSWORD = "correct horse battery"
ROLES = ("owner", "admin", "reviewer", "labeller", "viewer")


@pytest.fixture
def slow_hashes() -> None:
    """Asked for by tests that look at them."""


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hashes are slow on purpose; for most tests the quickest ones of the same kind do."""
    monkeypatch.setattr("assent.labelling.accounts._NOBODY", [], raising=False)  # made once a process, and slowly
    if "slow_hashes" not in request.fixturenames:
        made = argon2.PasswordHasher
        monkeypatch.setattr(argon2, "PasswordHasher", lambda: made(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[People]:
    """In a file; in a PostgreSQL server's database too where a test asks for `database`."""
    file = str(tmp_path / "store.db")
    where: str = request.getfixturevalue("database") if "database" in request.fixturenames else file
    with Store.open(where) as store:
        yield People(store, clock)


@pytest.fixture
def owner(people: People) -> Person:
    return people.join(people.setup(), "Olga", PASSWORD)


def invited(people: People, by: Person, name: str, role: str = "labeller", **more: Any) -> Person:
    (secret,) = people.invite(by, role, **more)
    return people.join(secret, name, PASSWORD)


# The first start


@pytest.mark.usefixtures("database")
def test_the_setup_link_makes_an_owner_and_there_is_no_other_one(people: People) -> None:
    secret = people.setup()
    assert people.invited(secret) == "owner"
    owner = people.join(secret, "Olga", PASSWORD)
    assert (owner.role, owner.state) == ("owner", "active")
    with pytest.raises(Denied, match="used already"):
        people.join(secret, "Mallory", PASSWORD)
    assert people.setup() == ""
    assert People(people.store).setup() == ""
    assert [person.name for person in people.all()] == ["Olga"]


def test_a_new_start_gives_a_new_setup_link_and_the_old_one_is_dead(people: People) -> None:
    old = people.setup()
    new = people.setup()
    with pytest.raises(Denied):
        people.join(old, "Mallory", PASSWORD)
    assert people.join(new, "Olga", PASSWORD).role == "owner"


def test_the_setup_link_works_for_a_day(people: People, clock: Clock) -> None:
    secret = people.setup()
    clock.days(1.01)
    with pytest.raises(Denied, match="too old"):
        people.join(secret, "Mallory", PASSWORD)
    assert list(people.all()) == []


def test_there_is_no_account_before_somebody_made_one(people: People) -> None:
    people.setup()
    for name, password in product(("admin", "owner", "root", "assent", ""), ("admin", "password", "assent", "")):
        with pytest.raises(Denied):
            people.sign_in(name, password)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("kind", ["setup", "invite"])
def test_of_many_who_use_a_link_at_the_same_moment_one_gets_in(people: People, kind: str) -> None:
    secret = people.setup()
    if kind == "invite":
        (secret,) = people.invite(people.join(secret, "Olga", PASSWORD), "labeller")
    before, barrier = len(list(people.all())), threading.Barrier(4)

    def join(number: int) -> bool:
        barrier.wait()
        try:
            people.join(secret, f"person {number}", PASSWORD)
        except Denied:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(job.result() for job in [pool.submit(join, number) for number in range(4)]) == 1
    assert len(list(people.all())) == before + 1


# Invites


def test_an_invite_lets_one_person_in_with_its_role_and_external_id(people: People, owner: Person) -> None:
    made = people.invite(owner, "labeller", ["worker-1", "worker-2"], "a crowd")
    assert len(set(made)) == 2
    assert all(len(secret) >= 40 for secret in made)  # 240 bits or more in base 64
    ann = people.join(made[1], "Ann", PASSWORD)
    assert (ann.role, ann.external) == ("labeller", "worker-2")
    assert people.get("Ann") == ann == people.get(ann.id)
    with pytest.raises(Denied, match="used already"):
        people.join(made[1], "Mallory", PASSWORD)
    with pytest.raises(Denied, match="used already"):
        people.invited(made[1])
    assert people.join(made[0], "Bob", PASSWORD).external == "worker-1"


def test_an_invite_expires(people: People, owner: Person, clock: Clock) -> None:
    (secret,) = people.invite(owner, "labeller")
    clock.days(13.9)
    assert people.invited(secret) == "labeller"
    clock.days(0.2)
    with pytest.raises(Denied, match="too old"):
        people.invited(secret)
    with pytest.raises(Denied, match="too old"):
        people.join(secret, "Late", PASSWORD)


@pytest.mark.parametrize(
    ("name", "password", "message"),
    [("Ann", "short", "at least 8"), ("OLGA", PASSWORD, "taken"), ("  ", PASSWORD, "name"), ("x" * 61, PASSWORD, "60")],
)
def test_an_invite_outlives_a_slip_of_the_pen(
    people: People, owner: Person, name: str, password: str, message: str
) -> None:
    (secret,) = people.invite(owner, "labeller", ["worker-1"])
    with pytest.raises(AssentError, match=message):
        people.join(secret, name, password)
    assert people.join(secret, "Ann", PASSWORD).external == "worker-1"


def test_a_link_that_nobody_made_lets_nobody_in(people: People, owner: Person) -> None:
    session = people.open_session(owner)
    for secret in ("", "x", session, owner.id, "x" * 43):
        with pytest.raises(Denied, match="not known"):
            people.join(secret, "Mallory", PASSWORD)


def test_a_labeller_who_is_to_be_screened_is_new_and_others_are_not(people: People, owner: Person) -> None:
    labeller, viewer = (people.invite(owner, role)[0] for role in ("labeller", "viewer"))
    assert people.join(labeller, "Ann", PASSWORD, screened=False).state == "new"
    assert people.join(viewer, "Vic", PASSWORD, screened=False).state == "active"


@pytest.mark.parametrize("role", ROLES)
def test_nobody_invites_above_themselves(people: People, owner: Person, role: str) -> None:
    inviter = owner if role == "owner" else invited(people, owner, "Inviter", role)
    above = ROLES[: ROLES.index(role)]
    for wanted in above:
        with pytest.raises(Denied):
            people.invite(inviter, wanted)
    if role in ("owner", "admin"):
        assert people.invite(inviter, role)


def test_a_role_that_is_none_is_refused_with_the_nearest_one(people: People, owner: Person) -> None:
    with pytest.raises(AssentError, match="no role 'labeler'; did you mean 'labeller'"):
        people.invite(owner, "labeler")
    with pytest.raises(AssentError, match="no role 'god'"):
        people.change(owner.id, owner.id, role="god")


# Passwords


def rows(people: People, table: sa.Table) -> list[dict[str, Any]]:
    with people.store.reading() as on:
        return [dict(row._mapping) for row in on.execute(sa.select(table).order_by(table.c.seq))]


@pytest.mark.usefixtures("slow_hashes")
def test_passwords_are_kept_as_argon2id_hashes(people: People) -> None:
    people.join(people.setup(), "Olga", PASSWORD)
    (row,) = rows(people, schema.people)
    found = argon2.extract_parameters(row["secret"])
    assert found.type is argon2.Type.ID
    assert found.memory_cost >= 19 * 1024 and found.time_cost >= 2  # OWASP's least
    assert found.salt_len >= 16
    assert people.sign_in("Olga", PASSWORD).name == "Olga"


def test_equal_passwords_have_unequal_hashes(people: People, owner: Person) -> None:
    invited(people, owner, "Ann")
    assert len({row["secret"] for row in rows(people, schema.people)}) == 2


def test_no_secret_stands_in_the_file_of_the_database(people: People, tmp_path: Path) -> None:
    secrets = [people.setup()]
    owner = people.join(secrets[0], "Olga", PASSWORD)
    secrets += people.invite(owner, "labeller", ["worker-1", "worker-2"])
    ann = people.join(secrets[1], "Ann", "another long password")
    secrets += [people.open_session(owner), people.open_session(ann), people.issue_token(owner, "for a script")]
    with pytest.raises(Denied):
        people.sign_in("Ann", "a password that is wrong")
    with pytest.raises(Denied):
        people.join(secrets[1], "Mallory", "a password of Mallory")
    people.revoke(secrets[3])
    people.erase(owner.id, ann.id)
    there = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"Olga" in there and b"$argon2id$" in there  # so this would find what stood there
    words = [PASSWORD, "another long password", "a password that is wrong", "a password of Mallory"]
    for secret in (*secrets, *words):
        assert secret.encode() not in there
        assert base64.b64encode(secret.encode()).rstrip(b"=") not in there
        assert secret.encode().hex().encode() not in there
    for secret in secrets:
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        assert raw not in there and raw.hex().encode() not in there


@pytest.mark.usefixtures("slow_hashes")
def test_an_unknown_name_takes_as_long_as_a_wrong_password(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = people.join(people.setup(), "Olga", PASSWORD)
    ann = invited(people, owner, "Ann")
    people.erase(owner.id, ann.id)
    verified: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counted(hasher: argon2.PasswordHasher, hash: str | bytes, password: str | bytes) -> Any:
        verified.append(str(hash))
        return verify(hasher, hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    attempts = [("Olga", "wrong password"), ("Nobody", PASSWORD), ("Ann", PASSWORD), ("erased " + ann.id, PASSWORD)]
    words = set()
    for name, password in attempts:
        before = len(verified)
        with pytest.raises(Denied) as error:
            people.sign_in(name, password)
        assert len(verified) == before + 1, name
        words.add(str(error.value))
    assert people.sign_in("Olga", PASSWORD) == owner
    assert len(verified) == 5
    assert len({hash.rsplit("$", 2)[0] for hash in verified}) == 1  # the same work each time
    assert words == {"no account with this name and password"}  # which of the two was wrong is not told


@pytest.mark.parametrize("name", ["Olga", "olga", "OLGA", "  Olga ", "Ol\nga"])
def test_a_name_is_the_same_in_any_case_and_with_any_space_around(people: People, owner: Person, name: str) -> None:
    if name == "Ol\nga":
        with pytest.raises(Denied):
            people.sign_in(name, PASSWORD)
    else:
        assert people.sign_in(name, PASSWORD) == owner


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("name", ["Ärne Öst", "Éric", "Жанна", "Ωμέγα", "王小明", "José-María O'Neill", "Straße"])
def test_a_name_may_be_of_any_language(people: People, owner: Person, name: str) -> None:
    person = invited(people, owner, name)
    for spelled in (name, name.lower(), name.upper() if name != "Straße" else name):
        assert people.sign_in(spelled, PASSWORD) == person
    for spelled in (name, name.lower()):
        (secret,) = people.invite(owner, "labeller")
        with pytest.raises(AssentError, match="is taken: choose another"):
            people.join(secret, spelled, PASSWORD)


# Sessions and tokens


@pytest.mark.usefixtures("database")
def test_a_session_is_its_persons_until_it_ends(people: People, owner: Person, clock: Clock) -> None:
    secret, other = people.open_session(owner), people.open_session(owner)
    assert secret != other and len(secret) >= 40
    assert people.who(secret) == people.who(other) == owner
    people.revoke(secret)
    assert people.who(secret) is None
    assert people.who(other) == owner
    clock.days(29.9)
    assert people.who(other) == owner
    clock.days(0.2)
    assert people.who(other) is None
    people.open_session(owner)
    assert len([row for row in rows(people, schema.keys) if row["kind"] == "session"]) == 1  # the old ones are gone


def test_a_token_is_its_persons_until_it_ends(people: People, owner: Person, clock: Clock) -> None:
    secret, short = people.issue_token(owner, "nightly"), people.issue_token(owner, "for a day", days=1)
    assert people.who(secret, "token") == people.who(short, "token") == owner
    clock.days(1.1)
    assert people.who(short, "token") is None
    assert people.who(secret, "token") == owner
    people.revoke(secret)
    assert people.who(secret, "token") is None


def test_one_kind_of_secret_is_not_taken_for_another(people: People, owner: Person) -> None:
    session, token = people.open_session(owner), people.issue_token(owner, "")
    (invite,) = people.invite(owner, "admin")
    for secret in (token, invite, "", owner.id, "x"):
        assert people.who(secret) is None
    for secret in (session, invite, "", owner.id):
        assert people.who(secret, "token") is None


def test_a_new_role_holds_at_once(people: People, owner: Person) -> None:
    ann = invited(people, owner, "Ann", "admin")
    session = people.open_session(ann)
    people.change(owner.id, ann.id, "she asked for it", role="viewer")
    found = people.who(session)
    assert found is not None
    assert found.role == "viewer" and not found.may("manage")


# Roles

MAY = {
    "owner": {"label", "chat", "look", "review", "manage"},
    "admin": {"label", "chat", "look", "review", "manage"},
    "reviewer": {"label", "chat", "look", "review"},
    "labeller": {"label", "chat"},
    "viewer": {"look"},
}


@pytest.mark.parametrize(
    ("role", "right"), list(product((*ROLES, "", "god"), ("label", "chat", "look", "review", "manage", "", "all")))
)
def test_what_a_role_is_not_given_is_denied(role: str, right: str) -> None:
    person = Person("person-1", "Ann", role)
    assert person.may(right) == (right in MAY.get(role, ()))
    assert not replace(person, state="erased").may(right)


def test_the_last_owner_stays(people: People, owner: Person) -> None:
    for wanted in (dict(role="admin"), dict(state="paused"), dict(state="new")):
        with pytest.raises(AssentError, match="only owner"):
            people.change(owner.id, owner.id, **wanted)
    with pytest.raises(AssentError, match="only owner"):
        people.erase(owner.id, owner.id)
    second = invited(people, owner, "Otto", "owner")
    people.change(second.id, owner.id, role="labeller")
    assert [person.role for person in people.all()] == ["labeller", "owner"]
    with pytest.raises(AssentError, match="only owner"):
        people.erase(second.id, second.id)
    assert people.setup() == ""


def test_what_was_done_to_accounts_is_on_record(people: People, owner: Person) -> None:
    ann = invited(people, owner, "Ann")
    people.change(owner.id, ann.id, "gold at chance", state="paused")
    assert people.get("Ann").state == "paused"
    told = [(row.by, row.what) for row in people.acts()]
    assert told == [(owner.id, "change"), (ann.id, "join"), (owner.id, "invite"), (owner.id, "join")]
    (about, *_) = [json.loads(row.about) for row in people.acts()]
    assert about == {"person": ann.id, "state": "paused", "why": "gold at chance"}


# Being forgotten


@pytest.fixture
def said(people: People, owner: Person) -> tuple[Person, list[Feedback]]:
    """Ann, and what she and another said."""
    prompt = Prompt.ask("Which is the largest planet?")
    a, b = (Response(prompt.id, text, "sft") for text in ("Jupiter.", "Saturn."))
    query = Task("comparison", prompt.id, (a.id, b.id))
    people.store.add_prompts([prompt])
    people.store.add_responses([a, b])
    ann = invited(people, owner, "Annabella Quux", externals=["worker-4711"], note="from the crowd")
    desk = TaskQueue(people.store)
    desk.post([Ask(query, 2)], "label")
    for who, note in ((ann.id, "Annabella's words"), (owner.id, "words of Olga")):
        (lent,) = desk.take(who, 1)
        desk.answer(
            Feedback(query.id, who, Comparison(a.id, 2), "2026-11-20T10:00:00Z", display_order=lent.shown, comment=note)
        )
    return ann, list(people.store.feedback())


def test_an_export_holds_what_is_kept_about_somebody_and_nothing_of_others(
    people: People, owner: Person, said: tuple[Person, list[Feedback]]
) -> None:
    ann, (event, others) = said
    session = people.open_session(ann)
    token = people.issue_token(ann, "my script")
    for name in (ann.id, ann.name):
        told = people.export(name)
        text = json.dumps(told)
        assert told["account"]["name"] == "Annabella Quux"
        assert told["account"]["external"] == "worker-4711"
        assert [row["id"] for row in told["feedback"]] == [event.id]
        assert told["feedback"][0]["note"] == "Annabella's words"
        assert {"join", "token"} <= {row["what"] for row in told["acts"]}
        for secret in ("argon2", session, token, others.comment, owner.id, owner.name):
            assert secret not in text
    with pytest.raises(AssentError, match="nobody here is called 'Anabella Quux'; did you mean 'Annabella Quux'"):
        people.export("Anabella Quux")


def test_an_export_says_what_was_done_to_somebody_and_why(people: People, owner: Person) -> None:
    ann = invited(people, owner, "Ann")
    people.change(owner.id, ann.id, "gold at chance", state="paused")
    assert "gold at chance" in json.dumps(people.export("Ann"))


@pytest.mark.usefixtures("database")
def test_who_is_erased_is_forgotten_and_what_they_said_stays_under_the_pseudonym(
    people: People, owner: Person, said: tuple[Person, list[Feedback]]
) -> None:
    ann, events = said
    session, token = people.open_session(ann), people.issue_token(ann, "a script")
    gone = people.erase(owner.id, "Annabella Quux")
    assert (gone.id, gone.state, gone.external) == (ann.id, "erased", "")
    assert people.who(session) is None
    assert people.who(token, "token") is None
    for name in ("Annabella Quux", gone.name):
        with pytest.raises(Denied):
            people.sign_in(name, PASSWORD)
    for table in (schema.people, schema.keys, schema.acts, schema.settings, schema.leases):
        told = json.dumps(rows(people, table))
        assert "Annabella Quux" not in told
        assert "worker-4711" not in told
    assert list(people.store.feedback()) == events
    assert people.store.verify() == 2
    assert invited(people, owner, "Annabella Quux").id != ann.id  # the name is free again


def test_of_who_is_erased_nothing_is_left_in_the_file(
    people: People, owner: Person, said: tuple[Person, list[Feedback]], tmp_path: Path
) -> None:
    people.erase(owner.id, said[0].id)
    people.store.close()
    with sqlite3.connect(tmp_path / "store.db") as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    there = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"Olga" in there
    assert b"Annabella Quux" not in there
    assert b"worker-4711" not in there


def test_who_is_erased_cannot_be_brought_back(people: People, owner: Person) -> None:
    ann = invited(people, owner, "Ann")
    people.erase(owner.id, ann.id)
    for wanted in (dict(state="active"), dict(role="admin")):
        with pytest.raises(AssentError):
            people.change(owner.id, ann.id, **wanted)
    assert people.get(ann.id).state == "erased"


@pytest.mark.parametrize("alone", [True, False], ids=["a run", "a folder of runs"])
def test_the_command_line_exports_and_erases_whoever_the_server_let_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], alone: bool
) -> None:
    run = tmp_path / "runs" / "demo"
    with open_run(Setup(run=run)) as opened:
        assert opened.store.counts().prompts == 0
    office = Office(run if alone else run.parent)
    people = office.people
    owner = people.join(people.setup(), "Olga", PASSWORD)
    ann = invited(people, owner, "Annabella Quux")

    def command(*words: str) -> tuple[int, str]:
        code = cli.main(["person", *words, "--run", str(run)])
        return code, capsys.readouterr().out

    code, out = command("--export", "Annabella Quux")
    assert code == 0
    assert json.loads(out)["account"]["id"] == ann.id
    code, out = command("--erase", "Annabella Quux")
    assert (code, people.get(ann.id).state) == (0, "erased")
    assert ann.id in out
    office.close()


Attempt = Callable[[People, Person], object]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda people, owner: people.get("nobody"),
        lambda people, owner: people.export("nobody"),
        lambda people, owner: people.erase(owner.id, "nobody"),
        lambda people, owner: people.change(owner.id, "nobody", state="paused"),
        lambda people, owner: people.change(owner.id, owner.id, state="pausd"),
        lambda people, owner: people.invite(owner, ""),
    ],
)
def test_what_went_wrong_is_told_in_one_line(people: People, owner: Person, attempt: Attempt) -> None:
    with pytest.raises(AssentError) as error:
        attempt(people, owner)
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
