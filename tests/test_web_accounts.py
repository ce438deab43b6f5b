"""Accounts on the web server: signing in, invites, rate limits, roles, and the settings of `assent serve`."""

import re
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient
from web_server import PASSWORD, Server, check_page, comparison_of, judgement_of, next_tasks

from assent.errors import AssentError
from assent.labelling.erasure import erase_user
from assent.run import Setup, open_run
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.serve import Serve
from assent.web.workspace import Workspace

pytestmark = pytest.mark.usefixtures("quick_hashes")


def test_setup_link_creates_a_signed_in_owner(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "demo")) as run:
        assert run.store.counts().tasks == 0
    workspace = Workspace(tmp_path / "demo")
    browser = TestClient(make_app(workspace), follow_redirects=False)
    assert browser.get("/").headers["location"].startswith("/login")
    secret = workspace.accounts.issue_setup()
    assert "Set up this server" in browser.get(f"/join/{secret}").text
    reply = browser.post(f"/join/{secret}", data={"name": "Olga", "password": PASSWORD})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    assert browser.get("/r/demo/admin").status_code == 200
    for method in (browser.get, partial(browser.post, data={"name": "Mallory", "password": PASSWORD})):
        assert method(f"/join/{secret}").status_code == 403
    workspace.close()


def test_invite_link_creates_one_account(server: Server) -> None:
    link = f"/join/{server.invite(external='worker-1')}"
    browser = server.client()
    assert "labeller" in browser.get(link).text
    for wrong in ({"name": "Bob", "password": "short"}, {"name": "ANN", "password": PASSWORD}):
        reply = browser.post(link, data=wrong)
        assert (reply.status_code, COOKIE in reply.headers.get("set-cookie", "")) == (422, False)
    assert browser.post(link, data={"name": "Bob", "password": PASSWORD}).status_code == 303
    assert browser.get("/api/me").json()["name"] == "Bob"
    assert server.client().post(link, data={"name": "Mallory", "password": PASSWORD}).status_code == 403
    assert server.workspace.accounts.get("Bob").external_id == "worker-1"


def test_sign_in_and_sign_out(server: Server) -> None:
    browser = server.client()
    wrong = [{"name": "Ann", "password": "wrong"}, {"name": "Nobody", "password": PASSWORD}]
    replies = [browser.post("/login", data=data) for data in wrong]
    assert [reply.status_code for reply in replies] == [403, 403]
    assert not any("set-cookie" in reply.headers for reply in replies)
    alike = {reply.text.replace("Nobody", "Ann") for reply in replies}
    assert len(alike) == 1  # the reply does not reveal which of the two was wrong
    reply = browser.post("/login", data={"name": "Ann", "password": PASSWORD, "next": "/r/demo/label"})
    assert (reply.status_code, reply.headers["location"]) == (303, "/r/demo/label")
    old = browser.cookies[COOKIE]
    assert browser.get("/api/me").json() == {"id": server.users["labeller"].id, "name": "Ann", "role": "labeller"}
    assert browser.post("/logout").status_code == 303
    assert browser.get("/api/me").status_code == 401
    browser.cookies.set(COOKIE, old)
    assert browser.get("/api/me").status_code == 401


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_session_cookie_attributes(server: Server, scheme: str) -> None:
    browser = server.client(base_url=f"{scheme}://testserver")
    reply = browser.post("/login", data={"name": "Ann", "password": PASSWORD})
    name, *attributes = [part.strip() for part in reply.headers["set-cookie"].split(";")]
    attributes_found = {part.split("=")[0].lower(): part.partition("=")[2].lower() for part in attributes}
    assert len(name.split("=")[1]) >= 40
    assert "httponly" in attributes_found
    assert attributes_found["samesite"] in ("lax", "strict")
    assert attributes_found["path"] == "/"
    assert "domain" not in attributes_found
    assert ("secure" in attributes_found) == (scheme == "https")


ELSEWHERE = ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)"]
ELSEWHERE += ["/\t/evil.example", "/\n/evil.example", "https:evil.example", "///evil.example", " //evil.example", ""]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_sign_in_redirects_only_to_this_server(shared_server: Server, path: str) -> None:
    browser = TestClient(make_app(shared_server.workspace), follow_redirects=False)
    check_page(browser.get("/login", params={"next": path}).text)
    reply = browser.post("/login", data={"name": "Vic", "password": PASSWORD, "next": path})
    as_browsers_read = re.sub(r"[\t\r\n]", "", reply.headers["location"]).replace("\\", "/").strip()
    target = urlsplit(urljoin("http://testserver/login", as_browsers_read))
    assert (target.scheme, target.netloc) == ("http", "testserver")


def test_expired_session_loses_no_judgement(server: Server) -> None:
    browser = server.client("labeller")
    (item, *_) = next_tasks(browser)
    server.clock.now += 31 * 86400
    assert browser.post("/r/demo/api/judgements", json=judgement_of(item)).status_code == 401
    assert server.demo.store.counts().feedback == 1
    browser.cookies.clear()
    browser.post("/login", data={"name": "Ann", "password": PASSWORD})
    assert browser.post("/r/demo/api/judgements", json=judgement_of(item)).status_code == 200
    assert [entry["id"] for entry in browser.get("/r/demo/api/judgements/mine").json()] == ["0192-first"]


def test_erased_user_loses_the_session_at_once(server: Server) -> None:
    browser = server.client("labeller")
    erase_user(server.workspace.accounts, "owner", server.users["labeller"].id)
    assert browser.get("/r/demo/api/tasks/next").status_code == 401


def test_paused_user_gets_no_tasks_but_may_submit(server: Server) -> None:
    browser = server.client("labeller")
    (item, *_) = next_tasks(browser)
    server.workspace.accounts.change("owner", server.users["labeller"].id, "a rest", state="paused")
    assert browser.get("/r/demo/api/tasks/next").status_code == 403
    assert browser.post("/r/demo/api/judgements", json=judgement_of(item)).status_code == 200


def test_rate_limit_on_wrong_passwords(server: Server) -> None:
    browser = server.client()
    guess = {"name": "Olga", "password": "wrong"}
    statuses = [browser.post("/login", data=guess).status_code for _ in range(30)]
    assert statuses[0] == 403
    assert set(statuses[15:]) == {429}
    reply = browser.post("/login", data={"name": "Olga", "password": PASSWORD})
    assert reply.status_code == 429
    assert 0 < int(reply.headers["retry-after"]) <= 3600


@pytest.mark.parametrize(
    "spelled",
    [
        lambda n: "Olga" + " " * n,
        lambda n: " " * n + "Olga",
        lambda n: "\t" * n + "Olga",
        lambda n: "".join(c.upper() if n >> i & 1 else c.lower() for i, c in enumerate("Olga" * (n < 16) or "Olga")),
    ],
    ids=["space behind", "space before", "tabs", "case"],
)
def test_rate_limit_normalises_the_name(server: Server, spelled: Callable[[int], str]) -> None:
    browser = server.client()
    assert browser.post("/login", data={"name": spelled(3), "password": PASSWORD}).status_code == 303
    statuses = [browser.post("/login", data={"name": spelled(n), "password": "wrong"}).status_code for n in range(40)]
    assert 429 in statuses


def test_rate_limit_on_names_from_one_address(server: Server) -> None:
    browser = server.client()
    statuses = {browser.post("/login", data={"name": f"p{n}", "password": PASSWORD}).status_code for n in range(300)}
    assert 429 in statuses


def test_rate_limit_on_wrong_links(server: Server) -> None:
    browser = server.client()
    statuses = [browser.get(f"/join/{n}").status_code for n in range(100)]
    assert statuses[0] == 403
    assert statuses[-1] == 429


def test_admin_cannot_create_an_owner(server: Server) -> None:
    admin = server.client("admin")
    before = [user.role for user in server.workspace.accounts.all()]
    assert admin.post("/r/demo/users", data={"id": "Adam", "role": "owner"}).status_code == 403
    assert admin.post("/r/demo/invite", data={"role": "owner"}).status_code == 403
    assert admin.post("/api/invites", json={"role": "owner"}).status_code in (403, 422)
    assert admin.post("/r/demo/users", data={"id": "Olga", "role": "viewer"}).status_code in (403, 422)
    assert [user.role for user in server.workspace.accounts.all()] == before


def test_serve_refuses_a_public_address_without_tls() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        Serve(host=host).check()
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(AssentError):
            Serve(host=host).check()
        Serve(host=host, certificate="c.pem", private_key="k.pem").check()
        Serve(host=host, insecure=True).check()
        Serve(host=host, behind_proxy=True).check()
    with pytest.raises(AssentError):
        Serve(certificate="c.pem").check()


def test_single_run_stores_accounts_and_feedback_in_one_file(server: Server) -> None:
    with sqlite3.connect(server.demo.store.name) as raw:
        assert raw.execute("SELECT count(*) FROM users").fetchone() == (5,)
        assert raw.execute("SELECT count(*) FROM feedback").fetchone() == (1,)


def test_new_labeller_is_sent_to_the_guidelines(server: Server) -> None:
    reply = server.client().post(f"/join/{server.invite()}", data={"name": "Nia", "password": PASSWORD})
    assert reply.headers["location"] == "/r/demo/guidelines"


def test_invite_makes_many_links_at_once(server: Server) -> None:
    page = server.client("owner").post("/r/demo/invite", data={"role": "labeller", "count": "10"}).text
    assert len(set(re.findall(r"/join/[\w-]+", page))) == 10


def test_serve_locks_the_folder(tmp_path: Path) -> None:
    first = Serve(tmp_path)._lock_folder()
    with pytest.raises(AssentError, match="another server is serving"):
        Serve(tmp_path)._lock_folder()
    first.close()
    Serve(tmp_path)._lock_folder().close()


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (
            dict(certificate="/nope.pem", private_key="/nope.key"),
            "cannot load certificate /nope.pem with the key /nope.key",
        ),
        (dict(database="blah"), "invalid database URL 'blah'"),
    ],
    ids=["certificate", "database"],
)
def test_serve_reports_bad_settings_first(tmp_path: Path, serve: Any, words: str) -> None:
    def begin(settings: Serve) -> None:
        settings.check()
        settings()

    with pytest.raises(AssentError, match=words):
        begin(Serve(tmp_path, **serve))


def test_admin_cannot_change_owners_or_unpause_themselves(server: Server) -> None:
    accounts = server.workspace.accounts
    admin = server.client("admin")
    accounts.change("owner", accounts.join(server.invite("owner"), "Second", PASSWORD).id, "", state="active")
    for change in ({"role": "viewer"}, {"state": "paused"}):
        assert admin.post("/r/demo/users", data={"id": server.users["owner"].id, **change}).status_code == 403
    me = {"id": server.users["admin"].id, "state": "active"}
    assert admin.post("/r/demo/users", data=me).status_code == 403
    token = server.client("admin", token=True)
    accounts.change("owner", me["id"], "", state="paused")
    for client in (admin, token):
        assert client.post("/r/demo/users", data=me).status_code == 403
        assert client.get("/r/demo/admin").status_code == client.get("/r/demo/progress").status_code == 403
    assert accounts.get(me["id"]).state == "paused"


def test_paused_user_can_submit_but_not_start_new_work(server: Server) -> None:
    browser = server.client("labeller")
    item = comparison_of(server)
    server.workspace.accounts.change("owner", "Ann", "", state="paused")
    better = {"task": item["task"], "item": item["items"][0]["id"]}
    assert browser.post("/r/demo/api/corrections", json=better).status_code == 403
    talk = {"messages": [{"role": "user", "content": "Hello?"}]}
    assert browser.post("/r/demo/api/chat", json=talk).status_code == 403
    assert browser.post("/r/demo/api/judgements", json=judgement_of(item)).status_code == 200


def test_erased_user_leaves_no_name_in_the_files(server: Server) -> None:
    accounts = server.workspace.accounts
    owner = server.users["owner"]
    accounts.invite(owner, "labeller", ["platform-4711"])  # never used
    accounts.join(accounts.invite(owner, "labeller", ["platform-4711"])[0], "Theophrastus", PASSWORD)
    accounts.change(owner.id, "Theophrastus", "Theophrastus asked for a rest", state="paused")
    user_id = accounts.get("Theophrastus").id
    erase_user(accounts, owner.id, "Theophrastus")
    for path in Path(accounts.store.name).parent.glob("*.db*"):
        for words in (b"Theophrastus", b"platform-4711"):
            assert words not in path.read_bytes(), path
    assert user_id in str([act.details for act in accounts.audit_log.entries()])


@pytest.mark.parametrize("name", ["a\x1b[31mred", "b\u202ec", "d\u200b", "\x07", "person-1234567890", "erased x"])
def test_join_refuses_misleading_names(server: Server, name: str) -> None:
    reply = server.client().post(f"/join/{server.invite()}", data={"name": name, "password": PASSWORD})
    assert reply.status_code == 422
    assert name not in [user.name for user in server.workspace.accounts.all()]
