"""Accounts: links that work once, secrets stored as hashes, roles, and erasure."""

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
from assent.labelling.accounts import Accounts
from assent.labelling.erasure import erase_user, export_user
from assent.labelling.passwords import dummy_hash
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.labelling.users import AccessDenied, User
from assent.records import Feedback, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.workspace import Workspace

PASSWORD = "correct horse battery"
ROLES = ("owner", "admin", "reviewer", "labeller", "viewer")


@pytest.fixture
def slow_hashes() -> None:
    """Keep the real parameters, for tests of the hashes."""


@pytest.fixture(autouse=True)
def fast_hashes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Use the fastest parameters of argon2id, except in tests of the parameters."""
    dummy_hash.cache_clear()
    if "slow_hashes" not in request.fixturenames:
        hasher = argon2.PasswordHasher
        monkeypatch.setattr(argon2, "PasswordHasher", lambda: hasher(time_cost=1, memory_cost=8, parallelism=1))
    yield
    dummy_hash.cache_clear()


@pytest.fixture
def accounts(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Accounts]:
    """Return accounts in a file, and on a PostgreSQL server too in tests with the fixture `database`."""
    file = str(tmp_path / "store.db")
    location: str = request.getfixturevalue("database") if "database" in request.fixturenames else file
    with Store.open(location) as store:
        yield Accounts(store, clock)


@pytest.fixture
def owner(accounts: Accounts) -> User:
    return accounts.join(accounts.issue_setup(), "Olga", PASSWORD)


def join_user(accounts: Accounts, inviter: User, name: str, role: str = "labeller", **fields: Any) -> User:
    (secret,) = accounts.invite(inviter, role, **fields)
    return accounts.join(secret, name, PASSWORD)


# Set-up


@pytest.mark.usefixtures("database")
def test_setup_link_creates_the_only_owner(accounts: Accounts) -> None:
    secret = accounts.issue_setup()
    assert accounts.invited_role(secret) == "owner"
    owner = accounts.join(secret, "Olga", PASSWORD)
    assert (owner.role, owner.state) == ("owner", "active")
    with pytest.raises(AccessDenied, match="used already"):
        accounts.join(secret, "Mallory", PASSWORD)
    assert accounts.issue_setup() == ""
    assert Accounts(accounts.store).issue_setup() == ""
    assert [user.name for user in accounts.all()] == ["Olga"]


def test_new_setup_link_replaces_the_old_one(accounts: Accounts) -> None:
    old = accounts.issue_setup()
    new = accounts.issue_setup()
    with pytest.raises(AccessDenied):
        accounts.join(old, "Mallory", PASSWORD)
    assert accounts.join(new, "Olga", PASSWORD).role == "owner"


def test_setup_link_expires_after_a_day(accounts: Accounts, clock: Clock) -> None:
    secret = accounts.issue_setup()
    clock.days(1.01)
    with pytest.raises(AccessDenied, match="has expired"):
        accounts.join(secret, "Mallory", PASSWORD)
    assert list(accounts.all()) == []


def test_store_has_no_default_account(accounts: Accounts) -> None:
    accounts.issue_setup()
    for name, password in product(("admin", "owner", "root", "assent", ""), ("admin", "password", "assent", "")):
        with pytest.raises(AccessDenied):
            accounts.sign_in(name, password)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("kind", ["setup", "invite"])
def test_concurrent_joins_use_a_link_once(accounts: Accounts, kind: str) -> None:
    secret = accounts.issue_setup()
    if kind == "invite":
        (secret,) = accounts.invite(accounts.join(secret, "Olga", PASSWORD), "labeller")
    before = len(list(accounts.all()))
    barrier = threading.Barrier(4)

    def join(number: int) -> bool:
        barrier.wait()
        try:
            accounts.join(secret, f"person {number}", PASSWORD)
        except AccessDenied:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(future.result() for future in [pool.submit(join, number) for number in range(4)]) == 1
    assert len(list(accounts.all())) == before + 1


# Invites


def test_invite_gives_role_and_external_id_once(accounts: Accounts, owner: User) -> None:
    invites = accounts.invite(owner, "labeller", ["worker-1", "worker-2"], "a crowd")
    assert len(set(invites)) == 2
    assert all(len(secret) >= 40 for secret in invites)  # 240 bits or more in base 64
    ann = accounts.join(invites[1], "Ann", PASSWORD)
    assert (ann.role, ann.external_id) == ("labeller", "worker-2")
    assert accounts.get("Ann") == ann == accounts.get(ann.id)
    with pytest.raises(AccessDenied, match="used already"):
        accounts.join(invites[1], "Mallory", PASSWORD)
    with pytest.raises(AccessDenied, match="used already"):
        accounts.invited_role(invites[1])
    assert accounts.join(invites[0], "Bob", PASSWORD).external_id == "worker-1"


def test_invite_expires(accounts: Accounts, owner: User, clock: Clock) -> None:
    (secret,) = accounts.invite(owner, "labeller")
    clock.days(13.9)
    assert accounts.invited_role(secret) == "labeller"
    clock.days(0.2)
    with pytest.raises(AccessDenied, match="has expired"):
        accounts.invited_role(secret)
    with pytest.raises(AccessDenied, match="has expired"):
        accounts.join(secret, "Late", PASSWORD)


@pytest.mark.parametrize(
    ("name", "password", "message"),
    [("Ann", "short", "at least 8"), ("OLGA", PASSWORD, "taken"), ("  ", PASSWORD, "name"), ("x" * 61, PASSWORD, "60")],
)
def test_invite_survives_a_failed_join(accounts: Accounts, owner: User, name: str, password: str, message: str) -> None:
    (secret,) = accounts.invite(owner, "labeller", ["worker-1"])
    with pytest.raises(AssentError, match=message):
        accounts.join(secret, name, password)
    assert accounts.join(secret, "Ann", PASSWORD).external_id == "worker-1"


def test_join_refuses_unknown_secrets(accounts: Accounts, owner: User) -> None:
    session = accounts.credentials.open_session(owner)
    for secret in ("", "x", session, owner.id, "x" * 43):
        with pytest.raises(AccessDenied, match="is unknown"):
            accounts.join(secret, "Mallory", PASSWORD)


def test_join_makes_unscreened_labellers_new(accounts: Accounts, owner: User) -> None:
    labeller, viewer = (accounts.invite(owner, role)[0] for role in ("labeller", "viewer"))
    assert accounts.join(labeller, "Ann", PASSWORD, is_screened=False).state == "new"
    assert accounts.join(viewer, "Vic", PASSWORD, is_screened=False).state == "active"


@pytest.mark.parametrize("role", ROLES)
def test_invite_refuses_a_higher_role(accounts: Accounts, owner: User, role: str) -> None:
    inviter = owner if role == "owner" else join_user(accounts, owner, "Inviter", role)
    higher_roles = ROLES[: ROLES.index(role)]
    for changes in higher_roles:
        with pytest.raises(AccessDenied):
            accounts.invite(inviter, changes)
    if role in ("owner", "admin"):
        assert accounts.invite(inviter, role)


def test_unknown_role_is_refused_with_a_suggestion(accounts: Accounts, owner: User) -> None:
    with pytest.raises(AssentError, match="no role 'labeler'; did you mean 'labeller'"):
        accounts.invite(owner, "labeler")
    with pytest.raises(AssentError, match="no role 'god'"):
        accounts.change(owner.id, owner.id, role="god")


# Passwords


def rows(accounts: Accounts, table: sa.Table) -> list[dict[str, Any]]:
    with accounts.store.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(table).order_by(table.c.seq))]


@pytest.mark.usefixtures("slow_hashes")
def test_password_hashes_are_argon2id(accounts: Accounts) -> None:
    accounts.join(accounts.issue_setup(), "Olga", PASSWORD)
    (row,) = rows(accounts, schema.users)
    parameters = argon2.extract_parameters(row["password_hash"])
    assert parameters.type is argon2.Type.ID
    assert parameters.memory_cost >= 19 * 1024 and parameters.time_cost >= 2  # OWASP's minimum
    assert parameters.salt_len >= 16
    assert accounts.sign_in("Olga", PASSWORD).name == "Olga"


def test_equal_passwords_have_different_hashes(accounts: Accounts, owner: User) -> None:
    join_user(accounts, owner, "Ann")
    assert len({row["password_hash"] for row in rows(accounts, schema.users)}) == 2


def test_database_file_contains_no_secret(accounts: Accounts, tmp_path: Path) -> None:
    secrets = [accounts.issue_setup()]
    owner = accounts.join(secrets[0], "Olga", PASSWORD)
    secrets += accounts.invite(owner, "labeller", ["worker-1", "worker-2"])
    ann = accounts.join(secrets[1], "Ann", "another long password")
    secrets += [
        accounts.credentials.open_session(owner),
        accounts.credentials.open_session(ann),
        accounts.credentials.issue_token(owner, "for a script"),
    ]
    with pytest.raises(AccessDenied):
        accounts.sign_in("Ann", "a password that is wrong")
    with pytest.raises(AccessDenied):
        accounts.join(secrets[1], "Mallory", "a password of Mallory")
    accounts.credentials.revoke(secrets[3])
    erase_user(accounts, owner.id, ann.id)
    contents = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"Olga" in contents and b"$argon2id$" in contents  # so the search works
    words = [PASSWORD, "another long password", "a password that is wrong", "a password of Mallory"]
    for secret in (*secrets, *words):
        assert secret.encode() not in contents
        assert base64.b64encode(secret.encode()).rstrip(b"=") not in contents
        assert secret.encode().hex().encode() not in contents
    for secret in secrets:
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        assert raw not in contents and raw.hex().encode() not in contents


@pytest.mark.usefixtures("slow_hashes")
def test_sign_in_hashes_once_for_unknown_names_too(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = accounts.join(accounts.issue_setup(), "Olga", PASSWORD)
    ann = join_user(accounts, owner, "Ann")
    erase_user(accounts, owner.id, ann.id)
    verified: list[str] = []
    verify = argon2.PasswordHasher.verify

    def verify_counted(hasher: argon2.PasswordHasher, hash: str | bytes, password: str | bytes) -> Any:
        verified.append(str(hash))
        return verify(hasher, hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify_counted)
    attempts = [("Olga", "wrong password"), ("Nobody", PASSWORD), ("Ann", PASSWORD), ("erased " + ann.id, PASSWORD)]
    words = set()
    for name, password in attempts:
        before = len(verified)
        with pytest.raises(AccessDenied) as error:
            accounts.sign_in(name, password)
        assert len(verified) == before + 1, name
        words.add(str(error.value))
    assert accounts.sign_in("Olga", PASSWORD) == owner
    assert len(verified) == 5
    assert len({hash.rsplit("$", 2)[0] for hash in verified}) == 1  # with equal parameters
    assert words == {"no account with this name and password"}  # which of the two is wrong stays secret


@pytest.mark.parametrize("name", ["Olga", "olga", "OLGA", "  Olga ", "Ol\nga"])
def test_sign_in_ignores_case_and_spaces_of_a_name(accounts: Accounts, owner: User, name: str) -> None:
    if name == "Ol\nga":
        with pytest.raises(AccessDenied):
            accounts.sign_in(name, PASSWORD)
    else:
        assert accounts.sign_in(name, PASSWORD) == owner


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("name", ["Ärne Öst", "Éric", "Жанна", "Ωμέγα", "王小明", "José-María O'Neill", "Straße"])
def test_user_name_may_be_of_any_language(accounts: Accounts, owner: User, name: str) -> None:
    user = join_user(accounts, owner, name)
    for spelled in (name, name.lower(), name.upper() if name != "Straße" else name):
        assert accounts.sign_in(spelled, PASSWORD) == user
    for spelled in (name, name.lower()):
        (secret,) = accounts.invite(owner, "labeller")
        with pytest.raises(AssentError, match="is taken; choose another"):
            accounts.join(secret, spelled, PASSWORD)


# Sessions and tokens


@pytest.mark.usefixtures("database")
def test_session_authenticates_until_it_ends(accounts: Accounts, owner: User, clock: Clock) -> None:
    secret = accounts.credentials.open_session(owner)
    second = accounts.credentials.open_session(owner)
    assert secret != second and len(secret) >= 40
    assert accounts.credentials.authenticate(secret) == accounts.credentials.authenticate(second) == owner
    accounts.credentials.revoke(secret)
    assert accounts.credentials.authenticate(secret) is None
    assert accounts.credentials.authenticate(second) == owner
    clock.days(29.9)
    assert accounts.credentials.authenticate(second) == owner
    clock.days(0.2)
    assert accounts.credentials.authenticate(second) is None
    accounts.credentials.open_session(owner)
    assert (
        len([row for row in rows(accounts, schema.credentials) if row["kind"] == "session"]) == 1
    )  # expired ones are deleted


def test_token_authenticates_until_it_ends(accounts: Accounts, owner: User, clock: Clock) -> None:
    secret = accounts.credentials.issue_token(owner, "nightly")
    short = accounts.credentials.issue_token(owner, "for a day", days=1)
    assert (
        accounts.credentials.authenticate(secret, "token") == accounts.credentials.authenticate(short, "token") == owner
    )
    clock.days(1.1)
    assert accounts.credentials.authenticate(short, "token") is None
    assert accounts.credentials.authenticate(secret, "token") == owner
    accounts.credentials.revoke(secret)
    assert accounts.credentials.authenticate(secret, "token") is None


def test_authenticate_distinguishes_kinds_of_secrets(accounts: Accounts, owner: User) -> None:
    session = accounts.credentials.open_session(owner)
    token = accounts.credentials.issue_token(owner, "")
    (invite,) = accounts.invite(owner, "admin")
    for secret in (token, invite, "", owner.id, "x"):
        assert accounts.credentials.authenticate(secret) is None
    for secret in (session, invite, "", owner.id):
        assert accounts.credentials.authenticate(secret, "token") is None


def test_role_change_applies_to_open_sessions(accounts: Accounts, owner: User) -> None:
    ann = join_user(accounts, owner, "Ann", "admin")
    session = accounts.credentials.open_session(ann)
    accounts.change(owner.id, ann.id, "she asked for it", role="viewer")
    parameters = accounts.credentials.authenticate(session)
    assert parameters is not None
    assert parameters.role == "viewer" and not parameters.can("manage")


# Roles

PERMISSIONS_BY_ROLE = {
    "owner": {"label", "chat", "look", "review", "manage"},
    "admin": {"label", "chat", "look", "review", "manage"},
    "reviewer": {"label", "chat", "look", "review"},
    "labeller": {"label", "chat"},
    "viewer": {"look"},
}


@pytest.mark.parametrize(
    ("role", "permission"), list(product((*ROLES, "", "god"), ("label", "chat", "look", "review", "manage", "", "all")))
)
def test_permissions_of_each_role(role: str, permission: str) -> None:
    user = User("person-1", "Ann", role)
    assert user.can(permission) == (permission in PERMISSIONS_BY_ROLE.get(role, ()))
    assert not replace(user, state="erased").can(permission)


def test_only_owner_cannot_be_removed(accounts: Accounts, owner: User) -> None:
    for changes in (dict(role="admin"), dict(state="paused"), dict(state="new")):
        with pytest.raises(AssentError, match="only owner"):
            accounts.change(owner.id, owner.id, **changes)
    with pytest.raises(AssentError, match="only owner"):
        erase_user(accounts, owner.id, owner.id)
    second = join_user(accounts, owner, "Otto", "owner")
    accounts.change(second.id, owner.id, role="labeller")
    assert [user.role for user in accounts.all()] == ["labeller", "owner"]
    with pytest.raises(AssentError, match="only owner"):
        erase_user(accounts, second.id, second.id)
    assert accounts.issue_setup() == ""


def test_audit_log_records_account_changes(accounts: Accounts, owner: User) -> None:
    ann = join_user(accounts, owner, "Ann")
    accounts.change(owner.id, ann.id, "gold at chance", state="paused")
    assert accounts.get("Ann").state == "paused"
    values = [(row.author, row.action) for row in accounts.audit_log.entries()]
    assert values == [(owner.id, "change"), (ann.id, "join"), (owner.id, "invite"), (owner.id, "join")]
    (details, *_) = [json.loads(row.details) for row in accounts.audit_log.entries()]
    assert details == {"person": ann.id, "state": "paused", "why": "gold at chance"}


# Export and erasure


@pytest.fixture
def judged(accounts: Accounts, owner: User) -> tuple[User, list[Feedback]]:
    """Return a user, her feedback, and the feedback of another user."""
    prompt = Prompt.ask("Which is the largest planet?")
    a, b = (Response(prompt.id, text, "sft") for text in ("Jupiter.", "Saturn."))
    task = Task("comparison", prompt.id, (a.id, b.id))
    accounts.store.add_prompts([prompt])
    accounts.store.add_responses([a, b])
    ann = join_user(accounts, owner, "Annabella Quux", external_ids=["worker-4711"], comment="from the crowd")
    queue = TaskQueue(accounts.store)
    queue.enqueue([TaskRequest(task, 2)], "label")
    for annotator, comment in ((ann.id, "Annabella's words"), (owner.id, "words of Olga")):
        (assignment,) = queue.next_tasks(annotator, 1)
        queue.submit(
            Feedback(
                task.id,
                annotator,
                Comparison(a.id, 2),
                "2026-11-20T10:00:00Z",
                display_order=assignment.display_order,
                comment=comment,
            )
        )
    return ann, list(accounts.store.feedback())


def test_export_user_holds_only_that_users_data(
    accounts: Accounts, owner: User, judged: tuple[User, list[Feedback]]
) -> None:
    ann, (event, other_event) = judged
    session = accounts.credentials.open_session(ann)
    token = accounts.credentials.issue_token(ann, "my script")
    for name in (ann.id, ann.name):
        values = export_user(accounts, name)
        text = json.dumps(values)
        assert values["account"]["name"] == "Annabella Quux"
        assert values["account"]["external_id"] == "worker-4711"
        assert [row["id"] for row in values["feedback"]] == [event.id]
        assert values["feedback"][0]["comment"] == "Annabella's words"
        assert {"join", "token"} <= {row["action"] for row in values["audit_log"]}
        for secret in ("argon2", session, token, other_event.comment, owner.id, owner.name):
            assert secret not in text
    with pytest.raises(AssentError, match="no user 'Anabella Quux'; did you mean 'Annabella Quux'"):
        export_user(accounts, "Anabella Quux")


def test_export_user_includes_reasons_of_changes(accounts: Accounts, owner: User) -> None:
    ann = join_user(accounts, owner, "Ann")
    accounts.change(owner.id, ann.id, "gold at chance", state="paused")
    assert "gold at chance" in json.dumps(export_user(accounts, "Ann"))


@pytest.mark.usefixtures("database")
def test_erase_user_keeps_judgements_by_pseudonym(
    accounts: Accounts, owner: User, judged: tuple[User, list[Feedback]]
) -> None:
    ann, events = judged
    session = accounts.credentials.open_session(ann)
    token = accounts.credentials.issue_token(ann, "a script")
    erased = erase_user(accounts, owner.id, "Annabella Quux")
    assert (erased.id, erased.state, erased.external_id) == (ann.id, "erased", "")
    assert accounts.credentials.authenticate(session) is None
    assert accounts.credentials.authenticate(token, "token") is None
    for name in ("Annabella Quux", erased.name):
        with pytest.raises(AccessDenied):
            accounts.sign_in(name, PASSWORD)
    for table in (schema.users, schema.credentials, schema.audit_log, schema.settings, schema.assignments):
        values = json.dumps(rows(accounts, table))
        assert "Annabella Quux" not in values
        assert "worker-4711" not in values
    assert list(accounts.store.feedback()) == events
    assert accounts.store.verify() == 2
    assert join_user(accounts, owner, "Annabella Quux").id != ann.id  # the name is free again


def test_erase_user_leaves_nothing_in_the_file(
    accounts: Accounts, owner: User, judged: tuple[User, list[Feedback]], tmp_path: Path
) -> None:
    erase_user(accounts, owner.id, judged[0].id)
    accounts.store.close()
    with sqlite3.connect(tmp_path / "store.db") as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    contents = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert b"Olga" in contents
    assert b"Annabella Quux" not in contents
    assert b"worker-4711" not in contents


def test_erased_user_cannot_be_changed(accounts: Accounts, owner: User) -> None:
    ann = join_user(accounts, owner, "Ann")
    erase_user(accounts, owner.id, ann.id)
    for changes in (dict(state="active"), dict(role="admin")):
        with pytest.raises(AssentError):
            accounts.change(owner.id, ann.id, **changes)
    assert accounts.get(ann.id).state == "erased"


@pytest.mark.parametrize("is_run", [True, False], ids=["a run", "a folder of runs"])
def test_user_command_exports_and_erases(tmp_path: Path, capsys: pytest.CaptureFixture[str], is_run: bool) -> None:
    run = tmp_path / "runs" / "demo"
    with open_run(Setup(run=run)) as opened:
        assert opened.store.counts().prompts == 0
    workspace = Workspace(run if is_run else run.parent)
    accounts = workspace.accounts
    owner = accounts.join(accounts.issue_setup(), "Olga", PASSWORD)
    ann = join_user(accounts, owner, "Annabella Quux")

    def command(*words: str) -> tuple[int, str]:
        code = cli.main(["user", *words, "--run", str(run)])
        return code, capsys.readouterr().out

    code, out = command("--export", "Annabella Quux")
    assert code == 0
    assert json.loads(out)["account"]["id"] == ann.id
    code, out = command("--erase", "Annabella Quux")
    assert (code, accounts.get(ann.id).state) == (0, "erased")
    assert ann.id in out
    workspace.close()


FailingCall = Callable[[Accounts, User], object]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda accounts, owner: accounts.get("nobody"),
        lambda accounts, owner: export_user(accounts, "nobody"),
        lambda accounts, owner: erase_user(accounts, owner.id, "nobody"),
        lambda accounts, owner: accounts.change(owner.id, "nobody", state="paused"),
        lambda accounts, owner: accounts.change(owner.id, owner.id, state="pausd"),
        lambda accounts, owner: accounts.invite(owner, ""),
    ],
)
def test_account_errors_are_one_line(accounts: Accounts, owner: User, attempt: FailingCall) -> None:
    with pytest.raises(AssentError) as error:
        attempt(accounts, owner)
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
