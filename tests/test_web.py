"""The server, by real requests to the real application: who may do what, what is told to whom, and what cannot run."""

import asyncio
import html
import json
import random
import re
import shutil
import socket
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from html.parser import HTMLParser
from itertools import chain, permutations
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import sqlalchemy as sa
from clock import Clock
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assent.errors import AssentError
from assent.feedback import body
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.labelling.accounts import People, Person
from assent.labelling.queue import Ask, change_setting
from assent.records import Feedback, Message, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.serve import Serve
from assent.web.text import Cover, render, render_answer, render_turn, show_invisible
from assent.web.workspace import Office, Project

PASSWORD = "correct horse battery"
ROLES = ("owner", "admin", "reviewer", "labeller", "viewer")
NAMES = dict(owner="Olga", admin="Adam", reviewer="Rita", labeller="Ann", viewer="Vic")
MODEL = "acme/secret-model-7b"
POLICY = "generate:secret-policy#1a2b3c"
PROMPT = Prompt.ask("Which is the largest planet?", source="secret-source")
ITEMS = tuple(Response(PROMPT.id, text, POLICY) for text in ("Jupiter.", "Saturn.", "It is Neptune."))
COMPARED = Task("comparison", PROMPT.id, (ITEMS[0].id, ITEMS[1].id))
RANKED = Task("ranking", PROMPT.id, tuple(item.id for item in ITEMS), "evaluate")
ONE_ITEM = tuple(Task(kind, PROMPT.id, (ITEMS[0].id,)) for kind in ("rating", "approval", "critique", "correction"))
WRITTEN = Task("demonstration", PROMPT.id, ())
QUERIES = (COMPARED, RANKED, *ONE_ITEM, WRITTEN)
OTHERS_NOTE = "words of a reviewer"
EXPLANATION = "because gold says so"


pytestmark = pytest.mark.usefixtures("quick_hashes")


@dataclass
class Server:
    """An application that serves `demo`, and somebody of each role."""

    office: Office
    app: FastAPI
    clock: Clock
    people: dict[str, Person]

    @classmethod
    def of(cls, root: Path) -> "Server":
        """What was built before, open."""
        office, clock = Office(root), Clock()
        office.people = People(office.people.store, clock)
        return cls(office, make_app(office), clock, {role: office.people.get(name) for role, name in NAMES.items()})

    @property
    def demo(self) -> Project:
        return self.office.project("demo")

    def client(self, role: str = "", token: bool = False, **more: Any) -> TestClient:
        """A browser in which somebody of this role has signed in, or a program with their token."""
        client = TestClient(self.app, follow_redirects=False, **more)
        if role and token:
            client.headers["authorization"] = f"Bearer {self.office.people.issue_token(self.people[role], '')}"
        elif role:
            client.cookies.set(COOKIE, self.office.people.open_session(self.people[role]))
        return client

    def asked(self, name: str) -> str:
        """The query that somebody's page calls so."""
        with self.demo.store.reading() as on:
            found: str = on.exec_driver_sql(f"SELECT query FROM leases WHERE name = '{name}'").scalar_one()
        return found

    def invite(self, role: str = "labeller", external: str = "") -> str:
        return self.office.people.invite(self.people["owner"], role, [external])[0]

    def content(self) -> list[Any]:
        """Every row of every database, but for the sessions and tokens of those who look."""
        stores = {id(store): store for store in (self.demo.store, self.office.people.store)}
        found: list[Any] = []
        for store in stores.values():
            with store.reading() as on:
                found += [on.execute(sa.select(t)).all() for t in schema.metadata.sorted_tables if t.name != "keys"]
                found += [
                    on.execute(sa.select(schema.keys).where(schema.keys.c.kind.not_in(("session", "token")))).all()
                ]
        return found


def build(root: Path, single: bool) -> Path:
    """Write a run, or a folder of two, with somebody of each role, questions, and an answer of the reviewer."""
    for name in ("demo",) if single else ("demo", "hidden-project"):
        with open_run(Setup(run=root / name, model=MODEL)) as run:
            run.store.add_prompts([PROMPT])
            run.store.add_responses(ITEMS)
            run.store.add_tasks(QUERIES)
            run.store.close()
    office = Office(root / "demo" if single else root)
    people = People(office.people.store, Clock())
    owner = people.join(people.setup(), NAMES["owner"], PASSWORD)
    for role in ROLES[1:]:
        people.join(people.invite(owner, role)[0], NAMES[role], PASSWORD)
    desk, rita = office.project("demo").desk, people.get(NAMES["reviewer"]).id
    desk.post([Ask(query, 3) for query in QUERIES], "label")
    (lent,) = desk.take(rita, 1)
    said = Comparison(lent.shown[0], 3)
    desk.answer(Feedback(lent.query.id, rita, said, "2026-11-20", display_order=lent.shown, comment=OTHERS_NOTE))
    office.people.store.close()
    office.close()
    return office.root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"), single=True)


@pytest.fixture
def server(built: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server.of(Path(shutil.copytree(built, tmp_path / "demo")))
    yield made
    made.office.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A folder of runs that many tests look at and none depends on what another one left."""
    made = Server.of(build(tmp_path_factory.mktemp("house"), single=False))
    yield made
    made.office.close()


@pytest.fixture(scope="module")
def answered(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A labeller who answered a comparison as `0192-first`; nothing is added to it."""
    made = Server.of(Path(shutil.copytree(built, tmp_path_factory.mktemp("answered") / "demo")))
    made.client("labeller").post("/r/demo/api/feedback", json=given_to(comparison_of(made)))
    yield made
    made.office.close()


def comparison_of(server: Server) -> dict[str, Any]:
    """The comparison as it stands, or stood, on the labeller's page."""
    browser, ann = server.client("labeller"), server.people["labeller"].id
    found = [item for item in next_items(browser) if item["kind"] == "comparison"]
    if found:
        return found[0]
    name = server.demo.desk.names(ann, [COMPARED.id])[COMPARED.id]
    shown: dict[str, Any] = browser.get(f"/r/demo/api/item/{name}").json()
    return shown


def next_items(client: TestClient, number: int = 10) -> list[dict[str, Any]]:
    reply = client.get("/r/demo/api/next", params={"count": number})
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    return items


def given_to(item: dict[str, Any], id: str = "0192-first", **more: Any) -> dict[str, Any]:
    """What the page posts of an item: an answer that prefers what stands first."""
    shown = [each["id"] for each in item["items"]]
    answers: dict[str, Any] = {
        "comparison": lambda: {"preferred": shown[0], "strength": 2},
        "ranking": lambda: {"tiers": [[each] for each in shown]},
        "rating": lambda: {"axes": {"helpful": 5}},
        "approval": lambda: {"approved": True},
    }
    made = answers.get(item["kind"], lambda: {"text": "My own words."})
    return {"id": id, "query": item["query"], "answer": made(), "shown": shown, "seconds": 3.5, **more}


# Signing in


def test_the_setup_link_leads_to_an_owner_who_is_signed_in(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "demo")) as run:
        assert run.store.counts().tasks == 0
    office = Office(tmp_path / "demo")
    browser = TestClient(make_app(office), follow_redirects=False)
    assert browser.get("/").headers["location"].startswith("/login")
    secret = office.people.setup()
    assert "Set up this server" in browser.get(f"/join/{secret}").text
    reply = browser.post(f"/join/{secret}", data={"name": "Olga", "password": PASSWORD})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    assert browser.get("/r/demo/admin").status_code == 200
    for method in (browser.get, partial(browser.post, data={"name": "Mallory", "password": PASSWORD})):
        assert method(f"/join/{secret}").status_code == 403
    office.close()


def test_an_invite_lets_one_person_in(server: Server) -> None:
    link, browser = f"/join/{server.invite(external='worker-1')}", server.client()
    assert "labeller" in browser.get(link).text
    for wrong in ({"name": "Bob", "password": "short"}, {"name": "ANN", "password": PASSWORD}):
        reply = browser.post(link, data=wrong)
        assert (reply.status_code, COOKIE in reply.headers.get("set-cookie", "")) == (422, False)
    assert browser.post(link, data={"name": "Bob", "password": PASSWORD}).status_code == 303
    assert browser.get("/api/me").json()["name"] == "Bob"
    assert server.client().post(link, data={"name": "Mallory", "password": PASSWORD}).status_code == 403
    assert server.office.people.get("Bob").external == "worker-1"


def test_signing_in_and_out(server: Server) -> None:
    browser = server.client()
    wrong = [{"name": "Ann", "password": "wrong"}, {"name": "Nobody", "password": PASSWORD}]
    replies = [browser.post("/login", data=data) for data in wrong]
    assert [reply.status_code for reply in replies] == [403, 403]
    assert not any("set-cookie" in reply.headers for reply in replies)
    alike = {reply.text.replace("Nobody", "Ann") for reply in replies}
    assert len(alike) == 1  # which of the two was wrong is not told
    reply = browser.post("/login", data={"name": "Ann", "password": PASSWORD, "next": "/r/demo/label"})
    assert (reply.status_code, reply.headers["location"]) == (303, "/r/demo/label")
    old = browser.cookies[COOKIE]
    assert browser.get("/api/me").json() == {"id": server.people["labeller"].id, "name": "Ann", "role": "labeller"}
    assert browser.post("/logout").status_code == 303
    assert browser.get("/api/me").status_code == 401
    browser.cookies.set(COOKIE, old)
    assert browser.get("/api/me").status_code == 401


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_of_a_session_is_for_the_server_alone(server: Server, scheme: str) -> None:
    browser = server.client(base_url=f"{scheme}://testserver")
    reply = browser.post("/login", data={"name": "Ann", "password": PASSWORD})
    name, *attributes = [part.strip() for part in reply.headers["set-cookie"].split(";")]
    found = {part.split("=")[0].lower(): part.partition("=")[2].lower() for part in attributes}
    assert len(name.split("=")[1]) >= 40
    assert "httponly" in found
    assert found["samesite"] in ("lax", "strict")
    assert found["path"] == "/"
    assert "domain" not in found
    assert ("secure" in found) == (scheme == "https")


ELSEWHERE = ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)"]
ELSEWHERE += ["/\t/evil.example", "/\n/evil.example", "https:evil.example", "///evil.example", " //evil.example", ""]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_who_signs_in_is_sent_to_no_other_place(house: Server, path: str) -> None:
    browser = TestClient(make_app(house.office), follow_redirects=False)
    check_page(browser.get("/login", params={"next": path}).text)
    reply = browser.post("/login", data={"name": "Vic", "password": PASSWORD, "next": path})
    as_browsers_read = re.sub(r"[\t\r\n]", "", reply.headers["location"]).replace("\\", "/").strip()
    there = urlsplit(urljoin("http://testserver/login", as_browsers_read))
    assert (there.scheme, there.netloc) == ("http", "testserver")


def test_a_session_that_ends_loses_nothing(server: Server) -> None:
    browser = server.client("labeller")
    (item, *_) = next_items(browser)
    server.clock.now += 31 * 86400
    assert browser.post("/r/demo/api/feedback", json=given_to(item)).status_code == 401
    assert server.demo.store.counts().feedback == 1
    browser.cookies.clear()
    browser.post("/login", data={"name": "Ann", "password": PASSWORD})
    assert browser.post("/r/demo/api/feedback", json=given_to(item)).status_code == 200
    assert [one["id"] for one in browser.get("/r/demo/api/mine").json()] == ["0192-first"]


def test_who_is_erased_is_out_at_once(server: Server) -> None:
    browser = server.client("labeller")
    server.office.people.erase("owner", server.people["labeller"].id)
    assert browser.get("/r/demo/api/next").status_code == 401


def test_who_is_paused_is_asked_nothing_more_and_loses_nothing(server: Server) -> None:
    browser = server.client("labeller")
    (item, *_) = next_items(browser)
    server.office.people.change("owner", server.people["labeller"].id, "a rest", state="paused")
    assert browser.get("/r/demo/api/next").status_code == 403
    assert browser.post("/r/demo/api/feedback", json=given_to(item)).status_code == 200


# Answers


def test_an_answer_that_was_acknowledged_is_in_the_database(server: Server) -> None:
    browser = server.client("labeller")
    items = {item["kind"]: item for item in next_items(browser)}
    assert set(items) == {query.kind for query in QUERIES}
    posts = [
        given_to(item, f"0192-{kind}", note="why", flags=["Harm"]) if kind == "comparison" else given_to(item, kind)
        for kind, item in items.items()
    ]
    for post in posts:
        reply = browser.post("/r/demo/api/feedback", json=post)
        assert reply.status_code == 200, reply.text
        assert (reply.json()["id"], reply.json()["query"]) == (post["id"], post["query"])
    with Store.open(server.demo.store.name) as store:
        stored = {event.id: event for event in store.feedback(annotator=server.people["labeller"].id)}
        assert store.verify() == len(QUERIES) + 1
    assert set(stored) == {post["id"] for post in posts}
    for post in posts:
        event = stored[post["id"]]
        assert (event.task, list(event.display_order), event.duration) == (
            server.asked(post["query"]),
            post["shown"],
            3.5,
        )
        told = body(event.judgement)
        for name, value in post["answer"].items():
            assert (dict(told[name]) if name == "axes" else told[name]) == value
    assert (stored["0192-comparison"].comment, stored["0192-comparison"].flags) == ("why", ("Harm",))
    mine = browser.get("/r/demo/api/mine").json()
    assert [one["id"] for one in mine] == [post["id"] for post in posts][::-1]
    assert next_items(browser) == []


def test_ten_posts_of_an_answer_store_one_and_say_the_same(server: Server) -> None:
    browser = server.client("labeller")
    (item, *_) = next_items(browser)
    replies = [browser.post("/r/demo/api/feedback", json=given_to(item)) for _ in range(10)]
    assert [reply.status_code for reply in replies] == [200] * 10
    assert len({reply.text for reply in replies}) == 1
    assert server.demo.store.counts().feedback == 2


def test_an_item_is_shown_again_as_it_stood_and_an_answer_superseded(server: Server) -> None:
    browser = server.client("labeller")
    item = next(one for one in next_items(browser) if one["kind"] == "comparison")
    assert browser.get(f"/r/demo/api/item/{item['query']}").json() == item
    assert browser.post("/r/demo/api/feedback", json=given_to(item)).status_code == 200
    assert browser.get(f"/r/demo/api/item/{item['query']}").json() == item
    second = given_to(item, "0192-second", note="on second thoughts")
    reply = browser.post("/r/demo/api/feedback", json=second)
    assert (reply.status_code, reply.json()["detail"]["before"]) == (409, "0192-first")
    assert browser.post("/r/demo/api/feedback", json={**second, "supersedes": "0192-first"}).status_code == 200
    assert [one["id"] for one in browser.get("/r/demo/api/mine").json()] == ["0192-second", "0192-first"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (dict(note="another body"), 409),
        (dict(id="0192-second"), 409),
        (dict(id="0192-x", query="nowhere"), 404),
        (dict(id="0192-x", shown=[]), 404),
        (dict(id=""), 422),
        (dict(id="x" * 81), 422),
        (dict(id="a b"), 422),
        (dict(id="0192-x", supersedes="0192-first", answer={"preferred": "elsewhere"}), 422),
        (dict(id="0192-x", answer={}), 422),
        (dict(id="0192-x", answer={"strength": 9}), 422),
        (dict(id="0192-x", answer=[]), 422),
        (dict(id="0192-x", seconds=-1), 422),
        (dict(id="0192-x", seconds="long"), 422),
        (dict(id="0192-x", note="x" * 10_001), 422),
        (dict(id="0192-x", flags=["x"] * 21), 422),
        (dict(id="0192-x", annotator="somebody else"), 422),
        (dict(id="0192-x", at="1999-01-01"), 422),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_answer_is_told_by_its_status_and_changes_nothing(
    answered: Server, change: dict[str, Any], status: int
) -> None:
    post, before = {**given_to(comparison_of(answered)), **change}, answered.content()
    assert answered.client("labeller").post("/r/demo/api/feedback", json=post).status_code == status
    assert answered.content() == before


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *(("comparison", name) for name in ("weight", "certainty", "margin")),
        *((kind, "weight") for kind in ("ranking", "rating", "approval", "demonstration")),
    ],
)
def test_a_labeller_does_not_say_how_much_their_own_answer_counts(server: Server, kind: str, field: str) -> None:
    browser = server.client("labeller")
    post = given_to(next(one for one in next_items(browser) if one["kind"] == kind))
    value = {"weight": 1e9, "certainty": 0.5, "margin": 1e9}[field]
    reply = browser.post("/r/demo/api/feedback", json={**post, "answer": {**post["answer"], field: value}})
    assert reply.status_code == 422
    assert server.demo.store.counts().feedback == 1


def test_a_heartbeat_keeps_items_and_a_skip_gives_them_away(server: Server) -> None:
    desk = server.demo.desk
    desk.clock = server.clock
    desk.post([Ask(replace(COMPARED, instruction="only once"), priority=1)], "label")
    browser, other = server.client("labeller"), server.client("admin")
    (item,) = next_items(browser, 1)
    for _ in range(3):
        server.clock.now += 14 * 60
        assert browser.post("/r/demo/api/heartbeat", json={"queries": [item["query"]]}).status_code == 204
        assert server.asked(item["query"]) not in [server.asked(one["query"]) for one in next_items(other)]
    assert browser.post("/r/demo/api/skip", json={"queries": [item["query"]]}).status_code == 204
    assert server.asked(item["query"]) in [server.asked(one["query"]) for one in next_items(other)]
    assert item["query"] not in [one["query"] for one in next_items(browser)]


def test_what_is_on_the_page_is_not_sent_again(server: Server) -> None:
    browser = server.client("labeller")
    first, second = next_items(browser, 2)
    reply = browser.get("/r/demo/api/next", params={"count": 2, "hold": f"{first['query']},{second['query']}"})
    assert {first["query"], second["query"]}.isdisjoint(one["query"] for one in reply.json()["items"])


def test_the_better_answer_can_be_corrected_by_whom_it_was_shown_to(server: Server) -> None:
    browser = server.client("labeller")
    item = next(one for one in next_items(browser) if one["kind"] == "comparison")
    shown = [each["id"] for each in item["items"]]
    asked = browser.post("/r/demo/api/correct", json={"query": item["query"], "item": shown[0]})
    assert (asked.status_code, asked.json()["kind"]) == (200, "correction")
    assert [each["id"] for each in asked.json()["items"]] == shown[:1]
    assert browser.post("/r/demo/api/feedback", json=given_to(asked.json())).status_code == 200
    stranger = server.client("admin").post("/r/demo/api/correct", json={"query": item["query"], "item": shown[0]})
    assert stranger.status_code == 404
    unseen = browser.post("/r/demo/api/correct", json={"query": item["query"], "item": ITEMS[2].id})
    assert unseen.status_code == 404


def test_a_full_disk_is_507_and_the_same_post_goes_through_later(server: Server) -> None:
    browser, store = server.client("labeller"), server.demo.store
    item = next(one for one in next_items(browser) if one["kind"] == "critique")
    post = given_to(item, note="n" * 10_000) | {"answer": {"text": "x" * 199_000}}
    with store.reading() as on:
        pages = on.exec_driver_sql("PRAGMA page_count").scalar()
        on.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    assert browser.post("/r/demo/api/feedback", json=post).status_code == 507
    assert store.counts().feedback == 1
    with store.reading() as on:
        on.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert browser.post("/r/demo/api/feedback", json=post).status_code == 200
    assert store.counts().feedback == 2


@pytest.mark.parametrize("path", ["/r/demo/api/feedback", "/login", "/join/x", "/r/demo/settings"])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
def test_a_request_that_is_too_large_is_413(house: Server, path: str, announced: bool) -> None:
    pieces = [b"x" * 2**16] * 40
    kind = "application/json" if "/api/" in path else "application/x-www-form-urlencoded"
    content = b"".join(pieces) if announced else iter(pieces)
    reply = house.client("owner").post(path, content=content, headers={"content-type": kind})
    assert reply.status_code == 413


def test_near_identical_answers_are_never_shown_together(server: Server) -> None:
    twin = Response(PROMPT.id, "  jupiter. ", "another policy")
    server.demo.store.add_responses([twin])
    ask = {"kind": "comparison", "prompt": PROMPT.id, "items": [ITEMS[0].id, twin.id]}
    server.client("reviewer").post("/r/demo/api/ask", json={"queries": [ask]})
    for item in next_items(server.client("labeller")):
        assert not {ITEMS[0].id, twin.id} <= {each["id"] for each in item["items"]}


# Too often


def test_guessing_a_password_is_slowed_down(server: Server) -> None:
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
def test_another_spelling_of_a_name_is_no_way_round_the_limit(server: Server, spelled: Callable[[int], str]) -> None:
    browser = server.client()
    assert browser.post("/login", data={"name": spelled(3), "password": PASSWORD}).status_code == 303
    statuses = [browser.post("/login", data={"name": spelled(n), "password": "wrong"}).status_code for n in range(40)]
    assert 429 in statuses


def test_trying_one_password_with_many_names_is_slowed_down(server: Server) -> None:
    browser = server.client()
    statuses = {browser.post("/login", data={"name": f"p{n}", "password": PASSWORD}).status_code for n in range(300)}
    assert 429 in statuses


def test_guessing_links_is_slowed_down(server: Server) -> None:
    browser = server.client()
    statuses = [browser.get(f"/join/{n}").status_code for n in range(100)]
    assert statuses[0] == 403
    assert statuses[-1] == 429


# Who may do what

PUBLIC = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("GET", "/join/{secret}"),
    ("POST", "/join/{secret}"),
    ("GET", "/reset/{secret}"),
    ("POST", "/reset/{secret}"),
    ("GET", "/static/{file}"),
    ("GET", "/openapi.json"),  # what the API can do, which our source tells as well
}
RIGHTS = {
    "signed in": [
        ("GET", "/"),
        ("GET", "/account"),
        ("POST", "/account/password"),
        ("POST", "/account/withdraw"),
    ],
    "label": [
        ("GET", "/api/me"),
        ("GET", "/r/{run}/label"),
        ("GET", "/r/{run}/guidelines"),
        ("GET", "/r/{run}/api/next"),
        ("GET", "/r/{run}/api/item/{query}"),
        ("GET", "/r/{run}/api/mine"),
        ("POST", "/r/{run}/api/feedback"),
        ("POST", "/r/{run}/api/correct"),
        ("POST", "/r/{run}/api/heartbeat"),
        ("POST", "/r/{run}/api/skip"),
        ("POST", "/r/{run}/api/unskip"),
    ],
    "chat": [("GET", "/r/{run}/chat"), ("POST", "/r/{run}/api/chat")],
    "look": [
        ("GET", "/r/{run}/progress"),
        ("GET", "/r/{run}/api/metrics"),
        ("GET", "/r/{run}/prompts"),
        ("GET", "/r/{run}/prompts/{prompt}"),
    ],
    "review": [
        ("GET", "/r/{run}/disagreements"),
        ("GET", "/r/{run}/review"),
        ("GET", "/r/{run}/skipped"),
        ("GET", "/r/{run}/answers"),
        ("GET", "/r/{run}/answers/{answer}"),
        ("GET", "/r/{run}/answers.{form}"),
        ("POST", "/r/{run}/answers/{answer}/back"),
        ("POST", "/r/{run}/ask-again"),
        ("GET", "/r/{run}/api/events"),
        ("POST", "/r/{run}/api/ask"),
        ("POST", "/r/{run}/ask"),
        ("POST", "/r/{run}/decide"),
        ("POST", "/r/{run}/score"),
    ],
    "manage": [
        ("GET", "/r/{run}/admin"),
        ("GET", "/r/{run}/completions.csv"),
        ("POST", "/api/invites"),
        ("POST", "/r/{run}/invite"),
        ("POST", "/r/{run}/people"),
        ("POST", "/r/{run}/reset"),
        ("POST", "/r/{run}/withdraw"),
        ("POST", "/r/{run}/settings"),
        ("POST", "/r/{run}/token"),
    ],
}
MAY = {
    "nobody": set[str](),
    "viewer": {"signed in", "look"},
    "labeller": {"signed in", "label", "chat"},
    "reviewer": {"signed in", "label", "chat", "look", "review"},
    "admin": set(RIGHTS),
    "owner": set(RIGHTS),
}
RIGHT = {route: right for right, some in RIGHTS.items() for route in some}


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """(method, path) of everything that the application answers to."""

    def walk(some: Any) -> Iterator[tuple[str, str]]:
        for route in some:
            inner = getattr(route, "original_router", None)
            if inner is not None:  # newer FastAPI keeps an included router as one route
                yield from walk(inner.routes)
            elif getattr(route, "methods", None):
                yield from ((method, route.path) for method in route.methods - {"HEAD"})
            else:
                yield "GET", f"{route.path}/{{file}}"

    return set(walk(app.routes))


def test_the_matrix_names_every_route(house: Server) -> None:
    found = routes(house.app)
    described = {(method.upper(), path) for path, methods in house.app.openapi()["paths"].items() for method in methods}
    assert described <= found
    assert len(described) >= 12
    assert found == PUBLIC | RIGHT.keys()


FORMS: dict[str, dict[str, str]] = {
    "/r/{run}/ask": {"query": COMPARED.id},
    "/r/{run}/decide": {"query": COMPARED.id, "right": ITEMS[0].id},
    "/r/{run}/score": {},
    "/r/{run}/invite": {"role": "viewer"},
    "/r/{run}/people": {"id": "Vic", "role": "viewer"},
    "/r/{run}/settings": {"guidelines": "Be kind.", "flags": "Harm", "axes": "helpful"},
    "/r/{run}/token": {"note": "a script"},
    "/r/{run}/reset": {"id": "Vic"},
    "/r/{run}/withdraw": {"key": "0"},
    "/r/{run}/ask-again": {"query": COMPARED.id},
    "/account/password": {"old": "not the password", "new": "not the password"},
    "/account/withdraw": {"key": "0"},
}
BODIES: dict[str, dict[str, Any]] = {
    "/r/{run}/api/feedback": {"id": "x", "query": "nowhere", "answer": {"preferred": ITEMS[0].id}, "shown": []},
    "/r/{run}/api/correct": {"query": COMPARED.id, "item": ITEMS[0].id},
    "/r/{run}/api/heartbeat": {"queries": [COMPARED.id]},
    "/r/{run}/api/skip": {"queries": ["nowhere"]},
    "/r/{run}/api/unskip": {"queries": ["nowhere"]},
    "/r/{run}/api/chat": {"messages": [{"role": "assistant", "content": "the last word must be the user's"}]},
    "/r/{run}/api/ask": {"queries": []},
    "/api/invites": {"role": "viewer"},
}


def send(client: TestClient, method: str, path: str, run: str = "demo", **more: Any) -> Any:
    """A request that would do something, if it may."""
    there = path.format(
        run=run, query=COMPARED.id, prompt=PROMPT.id, secret="x", file="assent.css", answer="x", form="jsonl"
    )
    if method != "POST":
        return client.request(method, there, **more)
    if path in BODIES:
        return client.post(there, json=BODIES[path], **more)
    return client.post(there, data=FORMS.get(path, {}), **more)


def denied(reply: Any) -> bool:
    to_sign_in = reply.status_code == 303 and reply.headers["location"].startswith("/login")
    return reply.status_code in (401, 403) or to_sign_in


@pytest.mark.parametrize("token", [False, True], ids=["cookie", "token"])
@pytest.mark.parametrize("role", ["nobody", "viewer", "labeller", "reviewer", "admin", "owner"])
def test_what_a_role_may_is_answered_and_all_else_is_denied(house: Server, role: str, token: bool) -> None:
    client = house.client("" if role == "nobody" else role, token)
    if role == "nobody" and token:
        client.headers["authorization"] = "Bearer " + "x" * 43
    before = house.content()
    for (method, path), right in sorted(RIGHT.items()):
        if right not in MAY[role]:
            reply = send(client, method, path)
            assert denied(reply), (method, path, reply.status_code)
            if role == "nobody" and "/api/" in path:
                assert reply.status_code == 401, (method, path)  # by which the page asks to sign in again
            assert len(reply.text) < 1500, (method, path)  # an error, and not what was asked for
    assert house.content() == before
    for (method, path), right in sorted(RIGHT.items()):
        if right in MAY[role]:
            reply = send(client, method, path)
            assert not denied(reply) and reply.status_code < 500, (method, path, reply.status_code)


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": f"{COOKIE}="},
        {"cookie": f"{COOKIE}=x"},
        {"cookie": f"{COOKIE}=" + "é" * 10},
        {"authorization": "Bearer "},
        {"authorization": "Bearer"},
        {"authorization": "Basic T2xnYTpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="},
        {"x-forwarded-user": "Olga"},
    ],
    ids=str,
)
def test_a_secret_that_is_none_is_nobodys(house: Server, headers: dict[str, str]) -> None:
    raw = {name: value.encode("utf-8") for name, value in headers.items()}
    for method, path in sorted(RIGHT):
        assert denied(send(house.client(), method, path, headers=raw)), (method, path)


def test_a_link_or_a_session_is_no_token(house: Server) -> None:
    link, session = house.invite("admin"), house.office.people.open_session(house.people["owner"])
    for secret in (link, session):
        assert house.client().get("/api/me", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    client = house.client()
    for secret in (link, house.office.people.issue_token(house.people["owner"], "")):
        client.cookies.set(COOKIE, secret)
        assert client.get("/api/me").status_code == 401


def test_a_stranger_is_not_told_which_runs_there_are(house: Server) -> None:
    for method, path in sorted(RIGHT):
        if "{run}" in path:
            reply = send(house.client(), method, path, run="hidden-projekt")
            assert "hidden-project" not in reply.text, (method, path)
            assert denied(reply), (method, path, reply.status_code)


def test_a_run_that_is_not_there_is_not_found(house: Server) -> None:
    for method, path in sorted(RIGHT):
        if "{run}" in path:
            assert send(house.client("owner"), method, path, run="nowhere").status_code == 404, (method, path)
    for run in ("..", "%2e%2e", "demo%2f..%2fhidden-project", "."):
        assert house.client("owner").get(f"/r/{run}/api/metrics").status_code == 404


def test_an_admin_makes_no_owner(server: Server) -> None:
    admin = server.client("admin")
    before = [person.role for person in server.office.people.all()]
    assert admin.post("/r/demo/people", data={"id": "Adam", "role": "owner"}).status_code == 403
    assert admin.post("/r/demo/invite", data={"role": "owner"}).status_code == 403
    assert admin.post("/api/invites", json={"role": "owner"}).status_code in (403, 422)
    assert admin.post("/r/demo/people", data={"id": "Olga", "role": "viewer"}).status_code in (403, 422)
    assert [person.role for person in server.office.people.all()] == before


# Other sites

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://testserver.evil.example"},
    {"origin": "http://testserver:81"},
    {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "http://testserver", "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_another_site_sends_in_somebodys_name_is_refused(house: Server, headers: dict[str, str]) -> None:
    browser = house.client("owner")
    browser.headers.update(headers)
    before = house.content()
    unsafe = [route for route in sorted(routes(house.app)) if route[0] != "GET"]
    assert len(unsafe) > 15
    for method, path in unsafe:
        reply = send(browser, method, path)
        assert reply.status_code == 403, (method, path)
        assert "set-cookie" not in reply.headers
    assert house.content() == before
    assert browser.get("/").status_code in (200, 303)  # a link on another site may lead here


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://testserver"},
        {"origin": "http://testserver", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {},
    ],
    ids=str,
)
def test_what_our_own_pages_send_is_taken(house: Server, headers: dict[str, str]) -> None:
    browser = house.client("labeller")
    reply = browser.post("/r/demo/api/heartbeat", json={"queries": []}, headers=headers)
    assert reply.status_code == 204


def test_no_other_site_may_read_an_answer(house: Server) -> None:
    for origin in ("https://evil.example", "null"):
        reply = house.client("owner").get("/api/me", headers={"origin": origin})
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        asked = {"origin": origin, "access-control-request-method": "POST"}
        reply = house.client("owner").options("/r/demo/api/feedback", headers=asked)
        assert not [name for name in reply.headers if name.startswith("access-control-")]


# What every response carries


def policy(value: str) -> dict[str, list[str]]:
    parts = [part.split() for part in value.split(";") if part.strip()]
    assert len({name for name, *_ in parts}) == len(parts)
    return {name: values for name, *values in parts}


def check_headers(reply: Any) -> None:
    there = policy(reply.headers["content-security-policy"])
    assert there["default-src"] == ["'none'"]
    assert there["script-src"] == ["'self'"]
    for name in ("script-src-elem", "script-src-attr", "object-src", "frame-src", "worker-src"):
        assert there.get(name, ["'none'"]) in (["'none'"], ["'self'"])
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"} & set(chain.from_iterable(there.values()))
    assert there["connect-src"] == there["form-action"] == ["'self'"]
    assert there["frame-ancestors"] == there["base-uri"] == ["'none'"]
    assert there["require-trusted-types-for"] == ["'script'"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] in ("same-origin", "no-referrer", "strict-origin")
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in reply.headers and "x-powered-by" not in reply.headers


def test_every_response_carries_the_headers(house: Server) -> None:
    seen: dict[int, int] = {}
    everything = sorted(routes(house.app))
    for role in ("", "labeller", "owner"):
        client = house.client(role)
        for method, path in everything:
            if path != "/logout":
                reply = send(client, method, path)
                seen[reply.status_code] = seen.get(reply.status_code, 0) + 1
                check_headers(reply)
    owner = house.client("owner")
    odd = [
        owner.get("/nowhere"),
        owner.get("/static/nowhere.js"),
        owner.get("/static/../app.py"),
        owner.put("/login"),
        owner.head("/login"),
        owner.options("/r/demo/api/feedback"),
        owner.get("/nowhere", headers={"accept": "text/html"}),
        owner.post("/login", headers={"origin": "https://evil.example"}),
        owner.post("/login", content=b"x" * (3 * 2**20)),
        owner.post("/r/demo/api/skip", content=b"{", headers={"content-type": "application/json"}),
        *(owner.get("/join/x") for _ in range(25)),
    ]
    for reply in odd:
        seen[reply.status_code] = seen.get(reply.status_code, 0) + 1
        check_headers(reply)
    assert {200, 204, 303, 401, 403, 404, 405, 413, 422, 429} <= seen.keys()


def test_a_response_to_our_own_mistake_carries_the_headers_too_and_tells_nothing(server: Server) -> None:
    @server.app.get("/mistake")
    def mistake() -> None:
        raise RuntimeError("the secret of the server")

    reply = server.client("owner", raise_server_exceptions=False).get("/mistake")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    check_headers(reply)


class Read(HTMLParser):
    """What a page holds."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.odd: list[str] = []
        self._within: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._within.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._within and self._within[-1] in ("script", "style") and data.strip():
            self.odd.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    def handle_pi(self, data: str) -> None:
        self.odd.append(data)

    def unknown_decl(self, data: str) -> None:
        self.odd.append(data)

    def handle_decl(self, decl: str) -> None:
        if decl.lower() != "doctype html":
            self.odd.append(decl)


def harmless(place: str) -> bool:
    """Whether a link leads to a web page: browsers leave out white space and control characters, then read a scheme."""
    plain = re.sub(r"[\x00-\x20\x7f]", "", place).lower()
    scheme = re.match(r"[a-z][a-z0-9+.-]*:", plain)
    return scheme is None or scheme[0] in ("http:", "https:")


def check_page(text: str) -> Read:
    """That a page of ours runs nothing but our files, and loads nothing from anywhere else."""
    page = Read(text)
    assert page.odd == []
    for tag, attributes in page.tags:
        assert tag not in ("base", "iframe", "object", "embed", "applet", "style", "svg", "math", "template"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")], attributes
        assert (tag == "script") <= attributes.get("src", "").startswith("/static/"), attributes
        for name in ("src", "href", "action", "formaction", "poster", "background", "ping"):
            place = attributes.get(name, "")
            if name == "href" and tag == "a":
                assert harmless(place), place
            else:
                assert place == "" or (place.startswith("/") and not place.startswith("//")), place
    return page


def test_our_pages_run_nothing_but_our_own_files(house: Server) -> None:
    pages = [path for method, path in sorted(RIGHT) if method == "GET"] + ["/login", f"/join/{house.invite()}", "/no"]
    read = 0
    for role in ("owner", "labeller"):
        client = house.client(role, headers={"accept": "text/html"})
        for path in pages:
            reply = send(client, "GET", path)
            if reply.headers.get("content-type", "").startswith("text/html"):
                check_page(reply.text)
                read += 1
    assert read > 20


def test_what_people_said_is_told_to_those_who_run_the_project(server: Server) -> None:
    for role, better in (("labeller", 0), ("admin", 1), ("owner", 1)):
        browser = server.client(role)
        for item in next_items(browser):
            post = given_to(item, f"{role}-{item['kind']}")
            if item["kind"] == "comparison":
                post["answer"] = {"preferred": COMPARED.items[better], "strength": 2}
            assert browser.post("/r/demo/api/feedback", json=post).status_code == 200
    owner = server.client("owner", headers={"accept": "text/html"})
    pages = {name: owner.get(f"/r/demo/{name}") for name in ("progress", "review", "admin", "disagreements", "prompts")}
    assert {name: page.status_code for name, page in pages.items()} == dict.fromkeys(pages, 200)
    for page in pages.values():
        check_page(page.text)
    assert COMPARED.id in pages["review"].text
    assert "secret-policy" in owner.get(f"/r/demo/prompts/{PROMPT.id}").text
    gold = {"query": COMPARED.id, "right": "labeller-comparison", "use": "practice", "explanation": EXPLANATION}
    assert owner.post("/r/demo/decide", data=gold).status_code == 303
    ((query, answer, use),) = server.demo.desk.gold()
    assert (query, answer, use) == (replace(COMPARED, purpose="gold"), Comparison(COMPARED.items[0], 2), "practice")
    events = [json.loads(line) for line in owner.get("/r/demo/api/events").text.splitlines()]
    assert [event["id"] for event in events] == [event.id for event in server.demo.store.feedback()]
    # Who decided has said so under their own name, in place of what they said before, and the dispute is over.
    *before, decision = server.demo.store.feedback(server.people["owner"].id, COMPARED.id)
    assert decision.judgement == Comparison(COMPARED.items[0], 2)
    assert (decision.comment, decision.flags) == (EXPLANATION, ("decided",))
    assert decision.supersedes == (before[-1].id if before else "")
    assert owner.post("/r/demo/decide", data=gold | {"use": "", "right": "tie"}).status_code == 303
    *_, last = server.demo.store.feedback(server.people["owner"].id, COMPARED.id)
    assert (last.supersedes, last.judgement) == (decision.id, Comparison(verdict="tie"))
    assert COMPARED.id not in owner.get("/r/demo/review").text


def test_earlier_guidelines_stay_to_be_read(server: Server) -> None:
    owner = server.client("owner")
    for words in ("Be kind.", "Be *kind*, and quick."):
        owner.post("/r/demo/settings", data={"guidelines": words, "flags": "Harm", "axes": "true"})
    page = owner.get("/r/demo/admin").text
    assert "1 earlier version of" in page and page.index("quick.") < page.index("Be kind.")


def test_answers_of_people_who_are_paused_are_counted_with_an_alarm(server: Server) -> None:
    item = comparison_of(server)
    server.client("labeller").post("/r/demo/api/feedback", json=given_to(item))
    owner = server.client("owner")
    assert "who are paused" not in owner.get("/r/demo/progress").text
    server.office.people.change("owner", "Ann", "", state="paused")
    page = owner.get("/r/demo/progress").text
    assert "1 of 2 answers (50 %) come from people who are paused" in page and "more than a tenth" in page
    assert server.demo.store.counts().feedback == 2


# What a labeller is not told


def spoken(value: Any) -> Iterator[str]:
    """Every key and every value in JSON, as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from spoken(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from spoken(inner)
    else:
        yield str(value)


def test_nothing_that_a_labeller_gets_names_a_policy_a_purpose_a_gold_answer_or_another_person(server: Server) -> None:
    desk = server.demo.desk
    gold = replace(COMPARED, purpose="gold", instruction="Which is the better one?")
    desk.add_gold(gold, Comparison(ITEMS[0].id, 2), "hidden", EXPLANATION)
    desk.lend(server.people["labeller"].id, gold)
    browser = server.client("labeller")
    replies = [send(browser, method, path) for method, path in sorted(RIGHT) if path != "/r/{run}/api/feedback"]
    items = next_items(browser)
    assert gold.id in [server.asked(item["query"]) for item in items]
    for number, item in enumerate(items):
        replies += [browser.get(f"/r/demo/api/item/{item['query']}")]
        replies += [browser.post("/r/demo/api/feedback", json=given_to(item, f"id-{number}")) for _ in range(2)]
        replies += [browser.post("/r/demo/api/feedback", json=given_to(item, f"other-{number}"))]
        replies += [browser.post("/r/demo/api/feedback", json={**given_to(item, f"id-{number}"), "answer": {}})]
    replies += [browser.get("/r/demo/api/mine"), browser.get("/r/demo/api/next"), browser.get("/r/nowhere/label")]
    replies += [send(browser, method, path, headers={"accept": "text/html"}) for method, path in sorted(RIGHT)]
    assert len(replies) > 80
    others = [server.people[role] for role in ROLES if role != "labeller"]
    never = [POLICY, "secret-policy", MODEL, "secret-model", "secret-source", "purpose", EXPLANATION, OTHERS_NOTE]
    never += [word for person in others for word in (person.id, person.name)]
    for reply in replies:
        assert reply.status_code < 500
        for word in never:
            assert word not in reply.text, (word, reply.request.url)
        if reply.content and reply.headers.get("content-type", "").startswith("application/json"):
            told = set(spoken(reply.json()))
            assert not {"policy", "policies", "model", "purpose", "gold", "train", "evaluate", "hidden"} & told
            if reply.status_code == 200 and isinstance(reply.json(), dict):
                assert reply.json().get("right") is None  # of an item that is none of the practice


def test_a_labeller_cannot_tell_a_gold_item_from_others_by_what_the_page_gets(server: Server) -> None:
    """Who has our source can hash prompt, items and purpose into the names that queries have."""
    gold = replace(COMPARED, purpose="gold")
    server.demo.desk.add_gold(gold, Comparison(ITEMS[0].id))
    server.demo.desk.lend(server.people["labeller"].id, gold)
    for item in next_items(server.client("labeller")):
        prompt = Prompt.ask(html.unescape(re.sub("<[^>]*>", "", item["prompt"][0]["html"])).strip())
        shown = [each["id"] for each in item["items"]]
        assert prompt.id == PROMPT.id
        for order in permutations(shown):
            assert item["query"] != Task(item["kind"], prompt.id, order, "gold", item["instruction"]).id


def test_a_labeller_can_neither_learn_nor_use_the_names_that_queries_have(server: Server) -> None:
    """Else who has hashed a query of purpose `gold` asks for it, and is told whether it is one."""
    gold = replace(COMPARED, purpose="gold")
    server.demo.desk.add_gold(gold, Comparison(ITEMS[0].id))
    server.demo.desk.lend(server.people["labeller"].id, gold)
    browser = server.client("labeller")
    items = next_items(browser)
    replies = [browser.get(f"/r/demo/api/item/{name}") for name in (gold.id, COMPARED.id, RANKED.id)]
    assert [reply.status_code for reply in replies] == [404] * 3
    hold = browser.get("/r/demo/api/next", params={"count": 10, "hold": gold.id})
    assert len(hold.json()["items"]) == len(items)
    for name in (gold.id, COMPARED.id):
        replies += [browser.post("/r/demo/api/skip", json={"queries": [name]})]
        replies += [browser.post("/r/demo/api/correct", json={"query": name, "item": ITEMS[0].id})]
        posts = [given_to({**items[0], "query": name}, f"id-{name}"), {**given_to(items[0], "x"), "query": name}]
        replies += [browser.post("/r/demo/api/feedback", json=post) for post in posts]
    assert [item["query"] for item in next_items(browser)] == [item["query"] for item in items]
    assert server.demo.store.counts().feedback == 1
    for number, item in enumerate(items):
        good = given_to(item, f"id-{number}")
        odd: list[dict[str, Any]] = [
            dict(shown=[*good["shown"], "more"]),
            dict(shown=[], id="other"),
            dict(answer={"preferred": "elsewhere"}),
            dict(answer={"tiers": [["elsewhere"], ["too"]]}),
            dict(answer={"approved": True}),
            dict(supersedes="elsewhere"),
            dict(),
            dict(note="another"),
            dict(id="other"),
        ]
        replies += [browser.post("/r/demo/api/feedback", json={**good, **change}) for change in odd]
        replies += [browser.get(f"/r/demo/api/item/{item['query']}")]
    replies += [browser.get("/r/demo/api/mine"), hold]
    real = [query.id for query in server.demo.store.tasks()]
    for reply in replies:
        for name in real:
            sent = (reply.request.content or b"").decode() + str(reply.request.url)
            assert name in sent or name not in reply.text, (reply.request.url, reply.text)


def test_what_a_labeller_hears_of_a_model_that_fails_does_not_name_it(server: Server) -> None:
    browser = server.client("labeller")
    reply = browser.post("/r/demo/api/chat", json={"messages": [{"role": "user", "content": "Who are you?"}]})
    assert reply.status_code == 200
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert list(lines[-1]) == ["failed"]
    assert "secret-model" not in reply.text
    assert server.demo.store.counts() == (1, 3, len(QUERIES), 1)  # void: nothing is kept


KINDS = {"comparison": 2, "ranking": 2, "rating": 1, "approval": 1, "critique": 1, "correction": 1}
TELLING = (
    "I am ChatGPT.",
    "As GPT-4o, I think",
    "Made by OpenAI.",
    "I'm Claude.",
    "secret-model-7b speaking",
    MODEL.upper(),
)


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_names_a_model_does_not_reach_the_page(server: Server, kind: str) -> None:
    change_setting(server.demo.store, "names", ["ChatGPT", "GPT-4", "OpenAI", "Claude"], "owner", "2026-11-20")
    made = [[Response(PROMPT.id, told, POLICY) for told in (text, f"Hello. {text}")] for text in TELLING]
    server.demo.store.add_responses(chain.from_iterable(made))
    for pair in made:
        query = Task(kind, PROMPT.id, tuple(one.id for one in pair[: KINDS[kind]]))
        server.demo.desk.lend(server.people["labeller"].id, query)
    told = json.dumps([one for one in next_items(server.client("labeller")) if one["kind"] == kind]).lower()
    assert told.count('"query"') >= len(TELLING)
    for name in ("chatgpt", "gpt-4", "openai", "claude", "secret-model"):
        assert name not in told


def test_an_answer_is_stored_as_it_was_written_although_a_name_was_taken_out_of_it(server: Server) -> None:
    made = [Response(PROMPT.id, text, POLICY) for text in ("I am ChatGPT.", "I am nobody.")]
    server.demo.store.add_responses(made)
    server.demo.desk.lend(server.people["labeller"].id, Task("comparison", PROMPT.id, (made[0].id, made[1].id)))
    next_items(server.client("labeller"))
    assert [one.text for one in server.demo.store.responses(ids=[made[0].id])] == ["I am ChatGPT."]


@pytest.mark.parametrize(
    ("mended", "stored"),
    [
        (lambda text: f"{text} Really.", "ChatGPT is kinder than Claude. Really."),
        (lambda text: text.replace("kinder", "nicer"), "ChatGPT is nicer than Claude."),
        (lambda text: text, "ChatGPT is kinder than Claude."),
        (lambda text: "Nobody is kind.", "Nobody is kind."),
    ],
    ids=["added", "changed", "as it was", "anew"],
)
def test_a_correction_keeps_the_names_that_were_covered_on_the_page(
    server: Server, mended: Callable[[str], str], stored: str
) -> None:
    browser = server.client("labeller")
    item = correction_of(server, "ChatGPT is kinder than Claude.")
    answer = {"text": mended(item["items"][0]["text"])}
    assert browser.post("/r/demo/api/feedback", json=given_to(item, answer=answer)).status_code == 200
    assert [body(event.judgement) for event in server.demo.store.feedback(ids=["0192-first"])] == [{"text": stored}]
    for path in ("mine", f"item/{item['query']}"):
        told = browser.get(f"/r/demo/api/{path}").text.lower()
        assert "chatgpt" not in told and "claude" not in told, path


THOUGHTS = {
    "reasoning_content": "Claude said so.\n\u05db\u05df.",
    "tool_calls": [{"function": {"name": "ask ChatGPT"}}],
}


@pytest.mark.parametrize("text", ["ChatGPT is kinder than Claude.", "Nobody\u200e is kind.\r\n"])
def test_of_an_answer_with_thoughts_and_calls_the_text_alone_is_mended(server: Server, text: str) -> None:
    browser, item = server.client("labeller"), correction_of(server, text, THOUGHTS)
    (shown,) = item["items"]
    assert "ChatGPT" not in str(shown) and "Claude" not in str(shown)
    assert "&gt;" not in shown["html"] and "said so" in shown["html"] and "tool_calls" in shown["html"]
    assert shown["text"].startswith("> ⟦model 1⟧ said so.") and "> \u05db\u05df.\n\n" in shown["text"]
    assert browser.post("/r/demo/api/feedback", json=given_to(item, answer={"text": shown["raw"]})).status_code == 200
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert body(event.judgement) == {"text": text}
    (mine,) = browser.get("/r/demo/api/mine").json()
    assert mine["answer"] == {"text": shown["raw"]}


def test_a_quote_has_the_names_that_stood_there_whichever_stood_in_the_thoughts(server: Server) -> None:
    correction = correction_of(server, "ChatGPT is kinder than Claude.", THOUGHTS)
    server.demo.desk.lend(server.people["labeller"].id, Task("critique", PROMPT.id, (correction["items"][0]["id"],)))
    items = next_items(server.client("labeller"))
    item = next(one for one in items if one["kind"] == "critique" and one["items"] == correction["items"])
    quote = item["items"][0]["text"].splitlines()[3]
    answer = {"text": "No.", "quote": quote}
    assert quote.endswith("is kinder than ⟦model 1⟧.")
    server.client("labeller").post("/r/demo/api/feedback", json=given_to(item, answer=answer))
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert body(event.judgement) == {"text": "No.", "quote": "ChatGPT is kinder than Claude."}


def correction_of(server: Server, text: str, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """A text as it stands on the labeller's page, to be corrected."""
    made = Response(PROMPT.id, text, POLICY, extra=extra or {})
    change_setting(server.demo.store, "names", ["ChatGPT", "Claude", "GPT-4"], "owner", "2026-11-20")
    server.demo.store.add_responses([made])
    server.demo.desk.lend(server.people["labeller"].id, Task("correction", PROMPT.id, (made.id,)))
    return next(
        one
        for one in next_items(server.client("labeller"))
        if one["kind"] == "correction" and one["items"][0]["id"] == made.id
    )


def test_a_correction_never_gets_a_name_that_did_not_stand_there(server: Server) -> None:
    item = correction_of(server, "ChatGPT is kinder than Claude.")
    rest = item["items"][0]["text"].partition(" is kinder")[2]  # the second name alone
    server.client("labeller").post("/r/demo/api/feedback", json=given_to(item, answer={"text": f"Be kinder{rest}"}))
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert "ChatGPT" not in body(event.judgement)["text"]


def test_events_go_out_under_pseudonyms(server: Server) -> None:
    server.office.people.change("owner", "Rita", "", role="reviewer")
    reply = server.client("admin").get("/r/demo/api/events")
    (event,) = [json.loads(line) for line in reply.text.splitlines()]
    assert event["annotator"] == server.people["reviewer"].id
    for name in NAMES.values():
        assert name not in reply.text


# Screening, and watching


def newcomer(server: Server, name: str = "Newt") -> TestClient:
    browser = server.client()
    reply = browser.post(f"/join/{server.invite()}", data={"name": name, "password": PASSWORD})
    assert reply.status_code == 303
    return browser


def fill_bank(server: Server, use: str, number: int) -> dict[str, str]:
    """Gold items, and the id of the item that is the right answer."""
    prompts = [Prompt.ask(f"{use} question {n}") for n in range(number)]
    pairs = [[Response(prompt.id, text, POLICY) for text in ("Yes.", "No.")] for prompt in prompts]
    server.demo.store.add_prompts(prompts)
    server.demo.store.add_responses(chain.from_iterable(pairs))
    for prompt, (a, b) in zip(prompts, pairs, strict=True):
        query = Task("comparison", prompt.id, (a.id, b.id), "gold")
        server.demo.desk.add_gold(query, Comparison(a.id), use, EXPLANATION)
    return {Task("comparison", p.id, (a.id, b.id), "gold").id: a.id for p, (a, b) in zip(prompts, pairs, strict=True)}


@pytest.mark.parametrize(("wrong", "state"), [(5, "active"), (6, "paused")])
def test_a_newcomer_practises_is_tested_and_let_in_with_15_of_20_right(server: Server, wrong: int, state: str) -> None:
    bank = {use: fill_bank(server, use, number) for use, number in (("practice", 10), ("test", 20))}
    browser = newcomer(server)
    assert server.office.people.get("Newt").state == "new"
    seen: list[str] = []
    while len(seen) < 30:
        first = browser.get("/r/demo/api/next", params={"count": 5}).json()
        assert first["screening"] is True
        assert EXPLANATION not in json.dumps(first)
        for item in first["items"]:
            use = "practice" if len(seen) < 10 else "test"
            right = bank[use][server.asked(item["query"])]
            missed = len(seen) < 3 or 10 <= len(seen) < 10 + wrong
            preferred = next(each["id"] for each in item["items"] if (each["id"] == right) != missed)
            post = given_to(item, f"id-{len(seen)}", answer={"preferred": preferred, "strength": 2})
            kept = browser.post("/r/demo/api/feedback", json=post).json()
            if use == "practice":
                assert (kept["right"], kept["explanation"]) == (not missed, EXPLANATION)
            else:
                assert (kept["right"], kept["explanation"]) == (None, "")
            seen.append(item["query"])
    assert len(set(seen)) == 30
    assert server.office.people.get("Newt").state == state
    reply = browser.get("/r/demo/api/next")
    if state == "active":
        assert reply.json()["screening"] is False
        assert {server.asked(item["query"]) for item in reply.json()["items"]} <= {query.id for query in QUERIES}
    else:
        assert reply.status_code == 403


@pytest.mark.parametrize("skipped", [1, 20])
def test_who_skips_the_last_items_of_the_test_is_not_stuck_in_it(server: Server, skipped: int) -> None:
    right = fill_bank(server, "practice", 10) | fill_bank(server, "test", 20)
    browser, seen = newcomer(server), 0
    while (reply := browser.get("/r/demo/api/next")).status_code == 200 and reply.json()["screening"] and seen < 60:
        assert reply.json()["items"], "nothing is left to answer, and nobody is let in"
        for item in reply.json()["items"]:
            if 30 - skipped <= seen < 30:
                browser.post("/r/demo/api/skip", json={"queries": [item["query"]]})
            else:
                answer = {"preferred": right[server.asked(item["query"])], "strength": 2}
                browser.post("/r/demo/api/feedback", json=given_to(item, f"id-{seen}", answer=answer))
            seen += 1
    assert server.office.people.get("Newt").state == ("active" if skipped == 1 or seen > 30 else "paused")


def test_without_a_bank_a_newcomer_starts_at_once(server: Server) -> None:
    first = newcomer(server).get("/r/demo/api/next").json()
    assert first["screening"] is False
    assert first["items"]


def test_who_answers_gold_items_wrong_is_paused_and_keeps_what_they_said(server: Server) -> None:
    """Good .90 against bad .60, alpha .01, beta .05: four wrong answers in a row are enough."""
    right = fill_bank(server, "hidden", 40)
    prompts = [Prompt.ask(f"ordinary question {n}") for n in range(300)]
    pairs = [[Response(prompt.id, text, POLICY) for text in ("Yes.", "No.")] for prompt in prompts]
    server.demo.store.add_prompts(prompts)
    server.demo.store.add_responses(chain.from_iterable(pairs))
    asks = [Ask(Task("comparison", p.id, (a.id, b.id))) for p, (a, b) in zip(prompts, pairs, strict=True)]
    server.demo.desk.post(asks, "label")
    browser, given, wrong = server.client("labeller"), 0, 0
    with browser:
        while (reply := browser.get("/r/demo/api/next", params={"count": 10})).status_code == 200 and wrong < 8:
            assert reply.json()["items"], "there was nothing left to answer"
            for item in reply.json()["items"]:
                post = given_to(item, f"id-{given}")
                real = server.asked(item["query"])
                if real in right:
                    post["answer"]["preferred"] = next(each for each in post["shown"] if each != right[real])
                    wrong += 1
                kept = browser.post("/r/demo/api/feedback", json=post)
                given += 1
                assert kept.status_code == 200
                assert kept.json()["right"] is None
    assert wrong >= 4
    assert len(list(server.demo.store.feedback(annotator=server.people["labeller"].id))) == given
    assert (reply.status_code, server.office.people.get("Ann").state) == (403, "paused")


def test_who_was_paused_and_let_in_again_by_hand_is_not_paused_for_the_same_answers(server: Server) -> None:
    right = fill_bank(server, "hidden", 8)
    browser, desk, ann = server.client("labeller"), server.demo.desk, server.people["labeller"].id
    gold = [query for query, _, _ in desk.gold()]
    for query in gold:
        desk.lend(ann, query)
    items = {item["items"][0]["id"]: item for item in next_items(browser) if item["kind"] == "comparison"}
    told = [item for item in items.values() if {each["id"] for each in item["items"]} & set(right.values())]
    assert len(told) == 8
    for number, item in enumerate(told):
        good = next(each["id"] for each in item["items"] if each["id"] in right.values())
        bad = next(each["id"] for each in item["items"] if each["id"] != good)
        if number == 6:
            assert server.office.people.get("Ann").state == "paused"
            server.office.people.change("owner", ann, "we talked", state="active")
        answer = {"preferred": good if number >= 6 else bad, "strength": 2}
        assert (
            browser.post("/r/demo/api/feedback", json=given_to(item, f"id-{number}", answer=answer)).status_code == 200
        )
    assert server.office.people.get("Ann").state == "active"


# Bad bodies

WORDS = st.text(st.one_of(st.characters(), st.sampled_from("\x00\ud800\udfff\u202e'\"<")), max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.sampled_from([10**400, -1, 0]))
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=10
)
FIELDS = ("id", "query", "answer", "shown", "seconds", "note", "flags", "supersedes", "more")
POINTS = ("preferred", "strength", "verdict", "certainty", "tiers", "axes", "weight", "approved", "text", "quote")


@pytest.fixture(scope="module")
def sink(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What anything is thrown at."""
    made = Server.of(Path(shutil.copytree(built, tmp_path_factory.mktemp("sink") / "demo")))
    yield made
    made.office.close()


@pytest.fixture(scope="module")
def posts(sink: Server) -> dict[str, dict[str, Any]]:
    """A good post of each kind."""
    return {item["kind"]: given_to(item, f"good-{item['kind']}") for item in next_items(sink.client("labeller"))}


def refused(reply: Any) -> None:
    assert reply.status_code in (200, 204, 303, 400, 401, 403, 404, 409, 413, 422), reply.text
    assert reply.headers["content-security-policy"]


@settings(max_examples=50)
@given(JSON)
@example({"\ud800": 1})
@example([])
@example("")
@example(float("nan"))
def test_any_json_is_refused_in_order(sink: Server, value: Any) -> None:
    with sink.client("labeller") as browser:
        for path in ("feedback", "correct", "heartbeat", "skip", "chat"):
            content = json.dumps(value)
            reply = browser.post(f"/r/demo/api/{path}", content=content, headers={"content-type": "application/json"})
            assert reply.status_code in (400, 422), reply.text
            assert reply.json()["detail"]


@settings(max_examples=100)
@given(st.sampled_from(sorted({query.kind for query in QUERIES})), st.sampled_from(FIELDS), JSON)
@example("comparison", "answer", {"\ud800": 1})
@example("comparison", "answer", {"verdict": "\ud800"})
def test_a_post_with_one_odd_field_is_no_mistake_of_the_server(
    sink: Server, posts: dict[str, dict[str, Any]], kind: str, name: str, value: Any
) -> None:
    post = json.dumps({**posts[kind], name: value})
    with sink.client("labeller") as browser:
        refused(browser.post("/r/demo/api/feedback", content=post, headers={"content-type": "application/json"}))


@settings(max_examples=100)
@given(st.sampled_from(sorted({query.kind for query in QUERIES})), st.sampled_from(POINTS), JSON)
@example("ranking", "tiers", [[""], [{}]])
@example("rating", "axes", [["helpful", 10**400]])
@example("rating", "axes", {"\ud800": 3})
def test_an_answer_with_one_odd_field_is_no_mistake_of_the_server(
    sink: Server, posts: dict[str, dict[str, Any]], kind: str, name: str, value: Any
) -> None:
    post = json.dumps({**posts[kind], "answer": {**posts[kind]["answer"], name: value}})
    with sink.client("labeller") as browser:
        refused(browser.post("/r/demo/api/feedback", content=post, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("depth", [10, 100, 300, 500, 900, 3000, 100_000])
@pytest.mark.parametrize("name", ["preferred", "tiers", "axes", "text"])
def test_a_deep_answer_is_no_mistake_of_the_server(
    sink: Server, posts: dict[str, dict[str, Any]], name: str, depth: int
) -> None:
    kind = {"preferred": "comparison", "tiers": "ranking", "axes": "rating", "text": "critique"}[name]
    post = json.dumps({**posts[kind], "answer": {name: "here"}}).replace('"here"', "[" * depth + "]" * depth)
    reply = sink.client("labeller").post(
        "/r/demo/api/feedback", content=post, headers={"content-type": "application/json"}
    )
    assert reply.status_code in (400, 422)
    assert len(reply.text) < 2000


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"\xef\xbb\xbf{}", "application/json"),
        (b"[" * 10_000, "application/json"),
        (b"1" * 10_000, "application/json"),
        (b"NaN", "application/json"),
        (b"{}", "text/plain"),
        (b"id=1", "application/x-www-form-urlencoded"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"{}", "application/json; charset=utf-16"),
    ],
    ids=str,
)
def test_a_body_that_is_none_is_no_mistake_of_the_server(sink: Server, content: bytes, kind: str) -> None:
    with sink.client("owner") as browser:
        for method, path in sorted(routes(sink.app)):
            if method == "POST" and path != "/logout":
                there = path.format(run="demo", secret="x", answer="x")
                reply = browser.post(there, content=content, headers={"content-type": kind})
                assert reply.status_code < 500, path
                if path == "/r/{run}/api/feedback":
                    assert reply.status_code in (400, 415, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/r/demo/api/item/%00",
        "/r/demo/api/item/" + "x" * 5000,
        "/r/demo/api/item/%ED%A0%80",
        "/r/%00/label",
        "/r/demo/api/next?count=0",
        "/r/demo/api/next?count=999999999999999999999",
        "/r/demo/api/next?hold=" + "%00,'" * 100,
        "/r/demo/api/mine?count=-1",
        "/r/demo/prompts?after=-1",
        "/r/demo/prompts?words=%00%FF",
        "/r/demo/prompts/%00",
        "/r/demo/api/events?after=%ED%A0%80&count=1",
        "/join/%00",
        "/login?next=%00%0d%0aset-cookie:x",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fweb%2fapp.py",
        "/static/%00",
    ],
)
def test_an_odd_address_is_no_mistake_of_the_server(sink: Server, path: str) -> None:
    reply = sink.client("owner").get(path)
    assert reply.status_code < 500
    assert "set-cookie" not in reply.headers
    assert "make_app" not in reply.text
    check_headers(reply)


# Text of models and of strangers

ALLOWED = {
    "p", "br", "em", "strong", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5",
    "h6", "hr", "a", "table", "thead", "tbody", "tr", "th", "td", "mark",
}  # fmt: skip
UNSEEN = [
    *"\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e",
    *"\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206f\u3164\ufeff\uffa0\ufff9\ufffa\ufffb",
    *"\U0001d173\U000e0001\U000e0020\U000e0041\U000e007f",
]
"""Characters without a shape, or that turn the text around them; tags (U+E00xx) can hide whole sentences."""
HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<script\x20type='text/javascript'>alert(1);</script>",
    "<script\n>alert(1)</script\n>",
    "\x00<script>alert(1)</script>",
    "<\x00script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img/src/onerror=alert(1)>",
    "<img src=\"x`<script>alert(1)</script>\"` `>",
    "<body onload=alert(1)>",
    "<div onmouseover='alert(1)'>x</div>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<a href=\"javascript:alert(1)\">x</a>",
    "<a href=javascript&colon;alert(1)>x</a>",
    "<a onclick=alert(1)>x</a>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<form><button formaction=javascript:alert(1)>x",
    "<isindex type=image src=1 onerror=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<style>@import '//evil.example/x.css';</style>",
    "<p style='background:url(javascript:alert(1))'>x</p>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<svg><foreignObject><iframe src=javascript:alert(1)></foreignObject></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<math><mi//xlink:href=\"data:x,<script>alert(1)</script>\">",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "<template><script>alert(1)</script></template>",
    "<!--><script>alert(1)</script>-->",
    "<!-- x --!><img src=x onerror=alert(1)>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<!DOCTYPE html [<!ENTITY x '<script>'>]>&x;",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](java&#10;script:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x]( \x01javascript:alert(1))",
    "[x](%6aavascript:alert(1))",
    "[x](javascript%3Aalert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](data:image/svg+xml,<svg/onload=alert(1)>)",
    "[x](data:image/png;base64,AAAA)",
    "[x](file:///etc/passwd)",
    "[x](blob:http://testserver/1)",
    "[x](filesystem:http://testserver/1)",
    "[x](about:blank)",
    "[x](ms-word:ofe|u|//evil.example/x)",
    "[x][1]\n\n[1]: javascript:alert(1)",
    "[x][1]\n\n[1]: <javascript:alert(1)> 'title'",
    "[x](http://evil.example \"onclick=alert(1)\")",
    "[x](http://evil.example/'onmouseover='alert(1))",
    "[x](http://evil.example/\"onmouseover=\"alert(1))",
    "[<img src=x onerror=alert(1)>](http://evil.example)",
    "[![x](javascript:alert(1))](javascript:alert(2))",
    "![x](javascript:alert(1))",
    "![x](http://evil.example/track.png)",
    "![x](x \"onerror=alert(1)\")",
    "![x\" onerror=\"alert(1)](y)",
    "<javascript:alert(1)>",
    "<http://evil.example/\"onmouseover=alert(1)>",
    "<JAVASCRIPT:alert(1)@evil.example>",
    "`<script>alert(1)</script>`",
    "```html\n<script>alert(1)</script>\n```",
    "```\"><script>alert(1)</script>\nx\n```",
    "    <script>alert(1)</script>",
    "> <script>alert(1)</script>",
    "* <img src=x onerror=alert(1)>\n* x",
    "| a | b |\n|:--|--:|\n| <img src=x onerror=alert(1)> | [x](javascript:alert(1)) |",
    "# <svg onload=alert(1)>",
    "**<b onmouseover=alert(1)>x</b>**",
    "***[x](java*script*:alert(1))***",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&amp;lt;script&amp;gt;alert(1)",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\\<script\\>alert(1)\\</script\\>",
    "<a\nhref\n=\n\"javascript:alert(1)\"\n>x</a>",
    "＜script＞alert(1)＜/script＞",
    "</div></main><script>alert(1)</script>",
    "\u202egnp.exe <script>alert(1)</script>",
    "<scr\u200bipt>alert(1)</scr\u200bipt>",
    "[x](java\u200bscript:alert(1))",
    "[x](\u202ejavascript:alert(1))",
    "{{ 7 * 7 }} {% import os %} ${7*7} #{7*7}",
]  # fmt: skip


def check_text(source: str) -> Read:
    """That nothing of a text can run, load or hide."""
    made = render(source)
    read = Read(made)
    assert read.odd == []
    for tag, attributes in read.tags:
        assert tag in ALLOWED, made
        assert set(attributes) <= ({"href", "rel", "title"} if tag == "a" else set()), made
        if "href" in attributes:
            assert harmless(attributes["href"]), made
            assert "noopener" in attributes["rel"]
    words = "".join(read.words)
    for unseen in UNSEEN:
        assert unseen not in words and unseen not in made, (hex(ord(unseen)), made)
    return read


@pytest.mark.parametrize("source", HOSTILE)
def test_nothing_of_a_hostile_text_runs(source: str) -> None:
    assert len(HOSTILE) >= 60
    check_text(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("<b>bold</b> & <i>more</i>", "<b>bold</b> & <i>more</i>"),
        ("1 < 2 && 3 > 2", "1 < 2 && 3 > 2"),
        ("Use `<br>` there.", "Use <br> there."),
        ("![a picture](http://evil.example/x.png)", "a picture"),
        ("نص عربي", "نص عربي"),
        ("👩‍👩‍👧 क्‍ष", "👩‍👩‍👧 क्‍ष"),
    ],
)
def test_what_somebody_wrote_can_still_be_read(source: str, words: str) -> None:
    assert words in "".join(check_text(source).words)


FORMULAS = [
    r"The roots are \(x_1 = 2\) and \(x_2 = 3\).",
    "\\[ x = \\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a} \\]",
    "\\[\na * b\n- c * d\n\\]",
    r"In general $a_i * b_i * c_i$ and $\{1, 2\} \subset A_1$.",
    "$$\n\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}\n$$",
    r"Outside of a formula \{1, 2\}, \[0, 1\], 50\% and a \\ b.",
    "\\begin{align} a &= b \\\\ c &= d \\end{align}",
    "It costs $5 and then $6 * 2 * 3.",
]


@pytest.mark.parametrize("source", FORMULAS)
def test_a_formula_stands_as_it_was_written(source: str) -> None:
    shown = html.unescape(re.sub("<[^>]+>", "", render(source)))
    assert shown.strip() == source
    assert "<em>" not in render(source)


def test_a_backslash_still_takes_the_meaning_from_signs_of_markdown() -> None:
    assert render(r"\*not emphasis\* \_nor this\_ 1\. \# \`x\`") == "<p>*not emphasis* _nor this_ 1. # `x`</p>\n"


def test_what_people_wrote_is_no_markdown() -> None:
    written = "Use __init__:\n\n    indented  twice\n- dash &lt;b&gt; <b>"
    escaped = "Use __init__:\n\n    indented  twice\n- dash &amp;lt;b&amp;gt; &lt;b&gt;"
    assert render_turn(Message("user", written)) == render_turn(Message("text", written)) == escaped
    assert "<strong>" in render_turn(Message("assistant", written))
    assert render_answer(" and so on", Prompt.plain("He ran")) == " and so on"
    assert render_answer("*so*", Prompt.ask("Why?")) == "<p><em>so</em></p>\n"


def test_markdown_becomes_what_it_means() -> None:
    read = check_text(
        "# Title\n\n**bold** *it*\n\n* one\n* two\n\n```python\nx = 1\n```\n\n[here](https://example.org)"
    )
    assert {"h1", "strong", "em", "ul", "li", "pre", "code", "a"} <= {tag for tag, _ in read.tags}
    assert [told["href"] for tag, told in read.tags if tag == "a"] == ["https://example.org"]


PLACES = ["a{}b", "`a{}b`", "**{}**", "[a{}b](http://example.org)", "[x](http://example.org/{})", "| {} |\n|--|\n| x |"]


@pytest.mark.parametrize("unseen", UNSEEN, ids=lambda unseen: f"U+{ord(unseen):04X}")
def test_a_character_that_nobody_sees_is_made_visible(unseen: str) -> None:
    for place in (*PLACES, "<http://example.org/{}>"):
        check_text(place.replace("{}", unseen))


NAMED = ["&ZeroWidthSpace;", "&lrm;", "&rlm;", "&NoBreak;", "&InvisibleTimes;", "&af;"]
NUMBERED = [
    form.format(number) for number in (0x200B, 0x202E, 0x2066, 0xFEFF) for form in ("&#{};", "&#x{:x};", "&#X0{:X};")
]


@pytest.mark.parametrize("entity", NAMED + NUMBERED)
def test_a_character_that_an_entity_names_is_made_visible_too(entity: str) -> None:
    for place in PLACES:
        check_text(place.replace("{}", entity))


@pytest.mark.parametrize("place", ["http://example.org/%E2%80%AEgnp.exe", "http://example.org/%E2%80%8Bx"])
def test_a_link_that_is_shown_as_its_own_address_hides_nothing(place: str) -> None:
    check_text(f"<{place}>")


@pytest.mark.parametrize(
    "text",
    ["Die Donau\u00addampf\u00adschiff.", "من از API\u200cها و نرم\u200cافزار", "\u200fשלום!\u200f וגם C#\u200e.",
     "क्\u200dष", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
     "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"],
    ids=["soft hyphens", "Persian beside Latin", "marks in Hebrew", "Hindi", "a family", "England's flag"],
)  # fmt: skip
def test_what_a_script_or_an_emoji_needs_stays(text: str) -> None:
    assert show_invisible(text) == text == Cover(text).text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("pass\u00ad", "pass⟦U+00AD⟧"), ("a\u200fb", "a⟦U+200F⟧b"),
     ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4⟦U+E0067⟧⟦U+E007F⟧"),
     ("\U0001f600\u200da", "\U0001f600⟦U+200D⟧a"), ("שלום\u202eabc", "שלום⟦U+202E⟧abc")],
    ids=["at the end", "no Hebrew about", "no flag", "joins nothing", "an override"],
)  # fmt: skip
def test_the_same_characters_are_made_visible_where_nothing_needs_them(text: str, shown: str) -> None:
    assert show_invisible(text) == shown
    assert Cover(text).off(Cover(text).text) == text


def test_a_joiner_between_latin_letters_is_made_visible() -> None:
    assert "\u200d" not in render("pass\u200dword") and "\u200c" not in render("pass\u200cword")
    assert "\u200d" not in render("pass&zwj;word") and "\u200c" not in render("pass&zwnj;word")


PIECES = [
    "<",
    ">",
    '"',
    "'",
    "`",
    "&",
    "#",
    ";",
    "x",
    ":",
    "/",
    "(",
    ")",
    "[",
    "]",
    "!",
    "*",
    "_",
    "\\",
    "\n",
    " ",
    "=",
]
PIECES += [
    "<script>",
    "</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:",
    "data:",
    "http://a",
    "&#x6a;",
    "\u202e",
]
PIECES += ["&#x202e;", "<!--", "-->", "<![CDATA[", "|", "-", "~~~", "\t", "\x00", "<svg", "onload=", "&colon;", "1."]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60))
def test_nothing_of_any_text_runs(source: str) -> None:
    made = render(source)
    read = Read(made)
    assert read.odd == []
    for tag, attributes in read.tags:
        assert tag in ALLOWED
        assert set(attributes) <= ({"href", "rel", "title"} if tag == "a" else set())
        assert harmless(attributes.get("href", ""))


def test_hostile_text_in_any_place_runs_on_no_page(server: Server) -> None:
    store, owner = server.demo.store, server.client("owner", headers={"accept": "text/html"})
    nasty = [source.replace("\x00", "") for source in HOSTILE]
    prompts = [Prompt.ask(source, source="</script><script>alert(1)</script>") for source in nasty]
    store.add_prompts(prompts)
    made = [[Response(p.id, f"{s} {n}", f"evaluate:<img src=x onerror=alert({n})>#1") for n in "12"] for p, s in
            zip(prompts, nasty, strict=True)]  # fmt: skip
    store.add_responses(chain.from_iterable(made))
    queries = [Task("comparison", p.id, (a.id, b.id), "evaluate", nasty[0]) for p, (a, b) in
               zip(prompts, made, strict=True)]  # fmt: skip
    store.add_tasks(queries)
    events = [
        Feedback(query.id, who, answer, "2026-11-20", comment=note)
        for query, note in zip(queries, nasty, strict=True)
        for who, answer in (
            ("<svg onload=alert(1)>", Comparison(query.items[0])),
            ("'><b>", Comparison(query.items[1])),
        )
    ]
    store.add_feedback(events)
    people = server.office.people
    for number, source in enumerate(HOSTILE[:12]):
        (link,) = people.invite(server.people["owner"], "labeller", [source], source)
        seen = "".join(c for c in source if not unicodedata.category(c).startswith("C"))
        stranger = people.join(link, f"{number}{seen}"[:60], PASSWORD)
        people.change(server.people["owner"].id, stranger.id, source, state="paused")
    form = {
        "guidelines": "\n\n".join(nasty),
        "flags": '"><script>alert(1)</script>',
        "axes": "'\"><svg onload=alert(1)>",
    }
    assert owner.post("/r/demo/settings", data=form).status_code == 303
    pages = [f"/r/demo/{name}" for name in ("admin", "review", "progress", "prompts", "label", "guidelines", "chat")]
    pages += ["/r/demo/disagreements", *(f"/r/demo/prompts/{prompt.id}" for prompt in prompts[::4])]
    pages += ["/login?next=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "/r/%3Cscript%3Ealert(1)%3C/script%3E/label"]
    pages += ["/r/demo/prompts?words=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"]
    for path in pages:
        reply = owner.get(path)
        assert reply.status_code < 500
        check_page(reply.text)
    reply = server.client().post("/login", data={"name": '"><script>alert(1)</script>', "password": "wrong"})
    check_page(reply.text)


# Starting it


def test_a_public_address_needs_tls_or_a_word_of_consent() -> None:
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


def test_a_single_run_keeps_its_accounts_and_its_answers_in_one_file(server: Server) -> None:
    with sqlite3.connect(server.demo.store.name) as raw:
        assert raw.execute("SELECT count(*) FROM people").fetchone() == (5,)
        assert raw.execute("SELECT count(*) FROM feedback").fetchone() == (1,)


# What a stranger stumbled over


def test_looking_at_the_label_page_is_not_yet_work_that_others_wait_for(server: Server) -> None:
    desk = server.demo.desk
    desk.post([Ask(WRITTEN, 3)], "label")
    desk.take(server.people["owner"].id, 10)  # who only wants to see it
    for person in (server.people["reviewer"].id, server.people["labeller"].id):
        for query, shown, _ in desk.take(person, 10):
            if query == WRITTEN:
                desk.answer(
                    Feedback(query.id, person, Demonstration("It is Jupiter."), "2026-11-21", display_order=shown)
                )
    assert desk.wanting([query.id for query in QUERIES]) == {query.id for query in QUERIES}
    assert desk.progress().answered == 1


def test_what_everybody_skips_holds_nothing_up(server: Server) -> None:
    desk, people = server.demo.desk, (server.people["reviewer"].id, server.people["labeller"].id)
    before = desk.progress().answered
    for person in people:
        desk.take(person, 10)
        desk.skip(person, WRITTEN.id)
    assert desk.progress().answered == before + 1


def test_who_works_already_is_not_put_to_a_test_later(server: Server) -> None:
    server.office.people.change("owner", "Ann", "", state="new")
    browser = server.client("labeller")
    assert browser.post("/r/demo/api/feedback", json=given_to(next_items(browser)[0])).status_code == 200
    assert server.office.people.get("Ann").state == "active"
    fill_bank(server, "test", 3)
    assert not browser.get("/r/demo/api/next").json()["screening"]


def test_answers_in_a_talk_are_not_asked_about_again(server: Server) -> None:
    browser, ann = server.client("labeller"), server.people["labeller"].id
    before = len(next_items(browser))
    lent = server.demo.desk.lend(ann, Task("approval", PROMPT.id, (ITEMS[1].id,), "train", "Good?"), aside=True)
    assert len(next_items(browser)) == before
    post = {"id": "0192-talk", "query": lent.name, "answer": {"approved": True}, "shown": list(lent.shown)}
    assert browser.post("/r/demo/api/feedback", json=post).status_code == 200


def test_a_query_that_says_nothing_is_asked_in_usual_words(server: Server) -> None:
    for item in next_items(server.client("labeller")):
        assert len(item["instruction"]) > 10


def test_who_joins_reads_the_guidelines_first(server: Server) -> None:
    reply = server.client().post(f"/join/{server.invite()}", data={"name": "Nia", "password": PASSWORD})
    assert reply.headers["location"] == "/r/demo/guidelines"


def test_many_links_are_made_at_once(server: Server) -> None:
    page = server.client("owner").post("/r/demo/invite", data={"role": "labeller", "count": "10"}).text
    assert len(set(re.findall(r"/join/[\w-]+", page))) == 10


def test_a_folder_is_served_once(tmp_path: Path) -> None:
    first = Serve(tmp_path)._alone()
    with pytest.raises(AssentError, match="served already"):
        Serve(tmp_path)._alone()
    first.close()
    Serve(tmp_path)._alone().close()


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (dict(certificate="/nope.pem", private_key="/nope.key"), "no certificate /nope.pem with the key /nope.key"),
        (dict(database="blah"), "no database URL: 'blah'"),
    ],
    ids=["certificate", "database"],
)
def test_what_cannot_be_served_is_told_before_anything_else(tmp_path: Path, serve: Any, words: str) -> None:
    def begin(told: Serve) -> None:
        told.check()
        told()

    with pytest.raises(AssentError, match=words):
        begin(Serve(tmp_path, **serve))


# What an attacker tried


def test_the_order_of_items_does_not_tell_what_a_query_is_for(server: Server) -> None:
    desk, ann = server.demo.desk, server.people["labeller"].id
    answers = [Response(PROMPT.id, f"Number {n}.", POLICY) for n in range(40)]
    server.demo.store.add_responses(answers)
    guessed = []
    for n in range(36):
        query = Task("ranking", PROMPT.id, tuple(sorted(one.id for one in answers[n : n + 4])), "gold")
        likely = list(query.items)
        random.Random(f"{query.id} {ann}").shuffle(likely)  # all that a labeller knows
        guessed.append(desk.lend(ann, query).shown == tuple(likely))
    assert sum(guessed) < 8  # by chance 1.5


def test_the_first_page_tells_a_labeller_nothing_of_what_counts(house: Server) -> None:
    page = house.client("labeller", headers={"accept": "text/html"}).get("/").text
    assert "hidden-project" in page and "queries answered" not in page and "<progress" not in page
    assert "queries answered" in house.client("viewer", headers={"accept": "text/html"}).get("/").text


def test_the_first_answer_to_a_gold_item_counts(server: Server) -> None:
    gold, ann = replace(COMPARED, purpose="gold"), server.people["labeller"].id
    server.demo.desk.add_gold(gold, Comparison(gold.items[0]))
    lent = server.demo.desk.lend(ann, gold)
    browser, before = server.client("labeller"), ""
    for n, choice in enumerate((gold.items[1], gold.items[0])):
        post = {"id": f"id-{n}", "query": lent.name, "answer": {"preferred": choice}, "shown": list(lent.shown)}
        assert browser.post("/r/demo/api/feedback", json={**post, "supersedes": before}).status_code == 200
        before = f"id-{n}"
    assert server.demo.desk.gold_answers(ann) == [False]


def test_one_person_cannot_take_the_whole_desk(server: Server) -> None:
    prompts = [Prompt.ask(f"And number {n}?") for n in range(60)]
    server.demo.store.add_prompts(prompts)
    server.demo.desk.post([Ask(Task("demonstration", prompt.id, ())) for prompt in prompts], "more")
    browser, held = server.client("labeller"), list[str]()
    for _ in range(10):
        held += [
            item["query"] for item in browser.get(f"/r/demo/api/next?count=10&hold={','.join(held)}").json()["items"]
        ]
    assert len(set(held)) == len(held) == 20
    assert len(next_items(server.client("admin"))) == 10


def test_a_completion_code_is_for_what_was_asked_of_those_who_may_answer(server: Server) -> None:
    change_setting(server.demo.store, "completion", 2, "owner", "2026-11-21")
    server.office.people.join(server.invite(external="w-7"), "Wim", PASSWORD)
    wim = server.office.people.get("Wim").id
    browser = TestClient(server.app)
    browser.cookies.set(COOKIE, server.office.people.open_session(server.office.people.get("Wim")))
    for n, said in enumerate(ITEMS):  # as after chats
        lent = server.demo.desk.lend(wim, Task("approval", PROMPT.id, (said.id,), "train", f"chat {n}"))
        post = {"id": f"id-{n}", "query": lent.name, "answer": {"approved": True}, "shown": list(lent.shown)}
        assert browser.post("/r/demo/api/feedback", json=post).status_code == 200
    assert browser.get("/r/demo/api/next").json()["code"] == ""
    assert ",0,False," in server.client("owner").get("/r/demo/completions.csv").text
    for n, item in enumerate(next_items(browser, 2)):
        browser.post("/r/demo/api/feedback", json=given_to(item, f"more-{n}"))
    code = browser.get("/r/demo/api/next").json()["code"]
    assert code and f",2,True,{code}" in server.client("owner").get("/r/demo/completions.csv").text
    server.office.people.change("owner", "Wim", "", state="new")
    assert browser.get("/r/demo/api/next").json()["code"] == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(flags=["decided"]), "for those who review"),
        (dict(answer={"text": "x" * 250_000}), "at most 200000 characters"),
        (dict(answer={"axes": [["<img src=x>", 7]]}), "the axes are helpful"),
        (dict(answer={"verdict": "y" * 100_000}), ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_page_would_never_send_is_refused_in_few_words(
    server: Server, change: dict[str, Any], words: str
) -> None:
    browser = server.client("labeller")
    kind = "rating" if "axes" in str(change) else "critique" if "text" in str(change) else "comparison"
    found = [item for item in next_items(browser) if item["kind"] == kind] or [comparison_of(server)]
    reply = browser.post("/r/demo/api/feedback", json=given_to(found[0]) | change)
    assert reply.status_code == 422 and words in reply.text and len(reply.text) < 1000
    assert server.demo.store.counts().feedback == 1


def test_who_sends_answers_without_end_is_slowed_down(server: Server) -> None:
    browser, item = server.client("labeller"), next_items(server.client("labeller"))[0]
    replies = [browser.post("/r/demo/api/feedback", json=given_to(item)).status_code for _ in range(310)]
    assert replies[0] == 200 and set(replies[300:]) == {429} and 429 not in replies[:300]


def test_an_admin_neither_changes_an_owner_nor_lets_themselves_in_again(server: Server) -> None:
    people, admin = server.office.people, server.client("admin")
    people.change("owner", people.join(server.invite("owner"), "Second", PASSWORD).id, "", state="active")
    for change in ({"role": "viewer"}, {"state": "paused"}):
        assert admin.post("/r/demo/people", data={"id": server.people["owner"].id, **change}).status_code == 403
    me = {"id": server.people["admin"].id, "state": "active"}
    assert admin.post("/r/demo/people", data=me).status_code == 403
    token = server.client("admin", token=True)
    people.change("owner", me["id"], "", state="paused")
    for client in (admin, token):
        assert client.post("/r/demo/people", data=me).status_code == 403
        assert client.get("/r/demo/admin").status_code == client.get("/r/demo/progress").status_code == 403
    assert people.get(me["id"]).state == "paused"


def test_who_is_paused_makes_no_new_work_but_a_late_answer_counts(server: Server) -> None:
    browser = server.client("labeller")
    item = comparison_of(server)
    server.office.people.change("owner", "Ann", "", state="paused")
    better = {"query": item["query"], "item": item["items"][0]["id"]}
    assert browser.post("/r/demo/api/correct", json=better).status_code == 403
    talk = {"messages": [{"role": "user", "content": "Hello?"}]}
    assert browser.post("/r/demo/api/chat", json=talk).status_code == 403
    assert browser.post("/r/demo/api/feedback", json=given_to(item)).status_code == 200


def test_who_is_erased_leaves_no_name_in_any_file(server: Server) -> None:
    people, owner = server.office.people, server.people["owner"]
    people.invite(owner, "labeller", ["platform-4711"])  # never used
    people.join(people.invite(owner, "labeller", ["platform-4711"])[0], "Theophrastus", PASSWORD)
    people.change(owner.id, "Theophrastus", "Theophrastus asked for a rest", state="paused")
    known = people.get("Theophrastus").id
    people.erase(owner.id, "Theophrastus")
    for path in Path(people.store.name).parent.glob("*.db*"):
        for words in (b"Theophrastus", b"platform-4711"):
            assert words not in path.read_bytes(), path
    assert known in str([act.about for act in people.acts()])


@pytest.mark.parametrize("name", ["a\x1b[31mred", "b\u202ec", "d\u200b", "\x07", "person-1234567890", "erased x"])
def test_a_name_is_no_disguise(server: Server, name: str) -> None:
    reply = server.client().post(f"/join/{server.invite()}", data={"name": name, "password": PASSWORD})
    assert reply.status_code == 422
    assert name not in [person.name for person in server.office.people.all()]


@pytest.mark.parametrize("origin", ["http://[", "null", "nonsense", "://", "http://testserver.evil.example"])
def test_an_origin_that_is_none_is_refused(house: Server, origin: str) -> None:
    reply = house.client("labeller").post("/logout", headers={"origin": origin})
    assert reply.status_code == 403
    check_headers(reply)


def test_who_has_seen_an_item_is_not_given_it_as_gold(server: Server) -> None:
    desk, ann = server.demo.desk, server.people["labeller"].id
    gold = Task("comparison", PROMPT.id, COMPARED.items[::-1], "gold", "Which of the two?")
    desk.add_gold(gold, Comparison(gold.items[0]), "practice")
    desk.lend(ann, COMPARED)
    assert desk.take(ann, 20, [COMPARED.id], screened=False) == []
    assert [one.query for one in desk.take("somebody", 20, screened=False)] == [gold]


LISTED = ("ChatGPT", "GPT-3", "GPT-4", "Claude", "Llama", "Qwen", "DeepSeek", "Phi-4", "QwQ", "o3-mini", "Falcon",
          "SmolLM", "Command R+", "Moonshot AI", "Yi-34B", "acme/none-1b")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["ChatGPT4", "GPT-35", "GPT\u20114", "Claude_3", "claude-3.5", "Llama_3", "Qwen_2", "Qwen2.5-7B", "DeepSeekR1",
     "Phi-4", "QwQ-32B", "o3-mini", "Falcon-40b", "SmolLM2", "GPT-4o-mini", "Command R+", "MOONSHOT AI", "MoonshotAI",
     "yi 34b", "acme/none-1b"],
)  # fmt: skip
def test_a_model_may_spell_its_name_as_it_likes(name: str) -> None:
    text = f"I am {name}, of course."
    cover = Cover(text, LISTED)
    assert cover.text == "I am ⟦model 1⟧, of course." and cover.off(cover.text) == text


@pytest.mark.parametrize("text", ["A llamasoft game.", "Nonetheless, clauded skies.", "Use 3 or 4 of them."])
def test_words_that_are_like_a_name_stay(text: str) -> None:
    assert Cover(text, LISTED).text == text


@pytest.mark.parametrize(
    "text",
    ["Claude Monet painted water lilies.", "A llama is a camelid; llamas hum.", "Gemini follows Taurus.",
     "The copilot landed the Falcon 9b.", "I grok it.", "Phi 2 is the golden ratio squared?", "Gemma is my sister."],
)  # fmt: skip
def test_ordinary_words_are_covered_only_if_a_project_lists_them(server: Server, text: str) -> None:
    assert Cover(text, server.demo.names).text == text
    assert Cover("I am OpenAI's secret-model-7b.", server.demo.names).text == "I am ⟦model 1⟧'s ⟦model 2⟧."


def test_a_project_lists_the_names_that_are_covered(server: Server) -> None:
    form = {"guidelines": "Be kind.", "flags": "Harm", "axes": "helpful", "names": "Kimi, Moonshot\nGranite"}
    assert server.client("admin").post("/r/demo/settings", data=form).status_code == 303
    assert server.demo.names[-3:] == ("Kimi", "Moonshot", "Granite")
    assert "Kimi, Moonshot, Granite" in server.client("admin").get("/r/demo/admin").text
    (told,) = [turn["text"] for turn in [correction_of(server, "As Kimi, I am not Claude.")["items"][0]]]
    assert "Claude" not in told  # `correction_of` lists that one


def test_what_nobody_sees_is_seen_where_a_text_stands_as_written_and_stored_as_it_was(server: Server) -> None:
    item = correction_of(server, "Left \u202eright\u202c, and GPT-4\u200b.")
    assert item["items"][0]["text"] == "Left ⟦U+202E⟧right⟦U+202C⟧, and ⟦model 1⟧⟦U+200B⟧."
    assert item["items"][0]["raw"] is None
    server.client("labeller").post(
        "/r/demo/api/feedback", json=given_to(item, answer={"text": item["items"][0]["text"]})
    )
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert body(event.judgement) == {"text": "Left \u202eright\u202c, and GPT-4\u200b."}


def test_a_line_on_which_no_request_comes_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    from assent.web import connection

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.0)  # an answer may take longer than a question
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    monkeypatch.setattr(connection, "PATIENCE", 0.4)
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http=connection.Connection)
    served = uvicorn.Server(config)
    taken = config.bind_socket()
    work = threading.Thread(target=served.run, kwargs={"sockets": [taken]})
    work.start()
    while not served.started:
        time.sleep(0.01)
    lines: list[socket.socket] = []
    try:
        for begin in (
            b"",
            b"GET / HTTP/1.1\r\nhost: x\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1234",
        ):
            lines.append(socket.create_connection(taken.getsockname(), timeout=10))
            lines[-1].sendall(begin)
        lines.append(whole := socket.create_connection(taken.getsockname(), timeout=10))
        whole.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        begun = time.monotonic()
        for line in lines[:3]:
            while line.recv(1000):
                pass
        assert time.monotonic() - begun < 5
        told = b""
        while piece := whole.recv(1000):
            told += piece
        assert told.endswith(b"ok")
    finally:
        served.should_exit = True
        work.join()
        for line in (*lines, taken):
            line.close()
