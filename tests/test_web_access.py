"""Access to every route: permissions of each role, cross-site requests, security headers and harmless pages."""

import unicodedata
from itertools import chain
from typing import Any

import pytest
from web_server import (
    HOSTILE,
    PASSWORD,
    PERMISSION_BY_ROUTE,
    ROUTES_BY_PERMISSION,
    Server,
    check_headers,
    check_page,
    routes,
    send,
)

from assent.feedback.comparison import Comparison
from assent.records import Feedback, Prompt, Response, Task
from assent.web.security import COOKIE

pytestmark = pytest.mark.usefixtures("quick_hashes")


@pytest.mark.parametrize("path", ["/r/demo/api/judgements", "/login", "/join/x", "/r/demo/settings"])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
def test_oversized_request_is_413(shared_server: Server, path: str, announced: bool) -> None:
    pieces = [b"x" * 2**16] * 40
    kind = "application/json" if "/api/" in path else "application/x-www-form-urlencoded"
    content = b"".join(pieces) if announced else iter(pieces)
    reply = shared_server.client("owner").post(path, content=content, headers={"content-type": kind})
    assert reply.status_code == 413


PUBLIC = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("GET", "/join/{secret}"),
    ("POST", "/join/{secret}"),
    ("GET", "/reset/{secret}"),
    ("POST", "/reset/{secret}"),
    ("GET", "/static/{file}"),
    ("GET", "/openapi.json"),  # the description of the API, which the public source contains too
}


PERMISSIONS_BY_ROLE = {
    "nobody": set[str](),
    "viewer": {"signed in", "look"},
    "labeller": {"signed in", "label", "chat"},
    "reviewer": {"signed in", "label", "chat", "look", "review"},
    "admin": set(ROUTES_BY_PERMISSION),
    "owner": set(ROUTES_BY_PERMISSION),
}


def test_permission_table_lists_every_route(shared_server: Server) -> None:
    all_routes = routes(shared_server.app)
    described = {
        (method.upper(), path) for path, methods in shared_server.app.openapi()["paths"].items() for method in methods
    }
    assert described <= all_routes
    assert len(described) >= 12
    assert all_routes == PUBLIC | PERMISSION_BY_ROUTE.keys()


def is_denied(reply: Any) -> bool:
    to_sign_in = reply.status_code == 303 and reply.headers["location"].startswith("/login")
    return reply.status_code in (401, 403) or to_sign_in


@pytest.mark.parametrize("token", [False, True], ids=["cookie", "token"])
@pytest.mark.parametrize("role", ["nobody", "viewer", "labeller", "reviewer", "admin", "owner"])
def test_each_role_reaches_only_its_permitted_routes(shared_server: Server, role: str, token: bool) -> None:
    client = shared_server.client("" if role == "nobody" else role, token)
    if role == "nobody" and token:
        client.headers["authorization"] = "Bearer " + "x" * 43
    before = shared_server.content()
    for (method, path), right in sorted(PERMISSION_BY_ROUTE.items()):
        if right not in PERMISSIONS_BY_ROLE[role]:
            reply = send(client, method, path)
            assert is_denied(reply), (method, path, reply.status_code)
            if role == "nobody" and "/api/" in path:
                assert reply.status_code == 401, (method, path)  # on 401 the page asks to sign in again
            assert len(reply.text) < 1500, (method, path)  # an error, not the requested content
    assert shared_server.content() == before
    for (method, path), right in sorted(PERMISSION_BY_ROUTE.items()):
        if right in PERMISSIONS_BY_ROLE[role]:
            reply = send(client, method, path)
            assert not is_denied(reply) and reply.status_code < 500, (method, path, reply.status_code)


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
def test_invalid_credentials_reach_no_route(shared_server: Server, headers: dict[str, str]) -> None:
    raw = {name: value.encode("utf-8") for name, value in headers.items()}
    for method, path in sorted(PERMISSION_BY_ROUTE):
        assert is_denied(send(shared_server.client(), method, path, headers=raw)), (method, path)


def test_link_or_session_secret_is_not_a_token(shared_server: Server) -> None:
    link = shared_server.invite("admin")
    session = shared_server.workspace.accounts.credentials.open_session(shared_server.users["owner"])
    for secret in (link, session):
        assert shared_server.client().get("/api/me", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    client = shared_server.client()
    for secret in (link, shared_server.workspace.accounts.credentials.issue_token(shared_server.users["owner"], "")):
        client.cookies.set(COOKIE, secret)
        assert client.get("/api/me").status_code == 401


def test_run_names_are_hidden_without_a_session(shared_server: Server) -> None:
    for method, path in sorted(PERMISSION_BY_ROUTE):
        if "{run}" in path:
            reply = send(shared_server.client(), method, path, run="hidden-projekt")
            assert "hidden-project" not in reply.text, (method, path)
            assert is_denied(reply), (method, path, reply.status_code)


def test_unknown_run_is_404(shared_server: Server) -> None:
    for method, path in sorted(PERMISSION_BY_ROUTE):
        if "{run}" in path:
            assert send(shared_server.client("owner"), method, path, run="nowhere").status_code == 404, (method, path)
    for run in ("..", "%2e%2e", "demo%2f..%2fhidden-project", "."):
        assert shared_server.client("owner").get(f"/r/{run}/api/metrics").status_code == 404


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
def test_cross_site_requests_are_refused(shared_server: Server, headers: dict[str, str]) -> None:
    browser = shared_server.client("owner")
    browser.headers.update(headers)
    before = shared_server.content()
    unsafe = [route for route in sorted(routes(shared_server.app)) if route[0] != "GET"]
    assert len(unsafe) > 15
    for method, path in unsafe:
        reply = send(browser, method, path)
        assert reply.status_code == 403, (method, path)
        assert "set-cookie" not in reply.headers
    assert shared_server.content() == before
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
def test_same_origin_requests_are_accepted(shared_server: Server, headers: dict[str, str]) -> None:
    browser = shared_server.client("labeller")
    reply = browser.post("/r/demo/api/heartbeat", json={"tasks": []}, headers=headers)
    assert reply.status_code == 204


def test_no_response_allows_another_origin(shared_server: Server) -> None:
    for origin in ("https://evil.example", "null"):
        reply = shared_server.client("owner").get("/api/me", headers={"origin": origin})
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        request_headers = {"origin": origin, "access-control-request-method": "POST"}
        reply = shared_server.client("owner").options("/r/demo/api/judgements", headers=request_headers)
        assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_every_response_has_the_security_headers(shared_server: Server) -> None:
    counts: dict[int, int] = {}
    everything = sorted(routes(shared_server.app))
    for role in ("", "labeller", "owner"):
        client = shared_server.client(role)
        for method, path in everything:
            if path != "/logout":
                reply = send(client, method, path)
                counts[reply.status_code] = counts.get(reply.status_code, 0) + 1
                check_headers(reply)
    owner = shared_server.client("owner")
    odd = [
        owner.get("/nowhere"),
        owner.get("/static/nowhere.js"),
        owner.get("/static/../app.py"),
        owner.put("/login"),
        owner.head("/login"),
        owner.options("/r/demo/api/judgements"),
        owner.get("/nowhere", headers={"accept": "text/html"}),
        owner.post("/login", headers={"origin": "https://evil.example"}),
        owner.post("/login", content=b"x" * (3 * 2**20)),
        owner.post("/r/demo/api/skip", content=b"{", headers={"content-type": "application/json"}),
        *(owner.get("/join/x") for _ in range(25)),
    ]
    for reply in odd:
        counts[reply.status_code] = counts.get(reply.status_code, 0) + 1
        check_headers(reply)
    assert {200, 204, 303, 401, 403, 404, 405, 413, 422, 429} <= counts.keys()


def test_internal_error_has_the_headers_and_no_details(server: Server) -> None:
    @server.app.get("/mistake")
    def mistake() -> None:
        raise RuntimeError("the secret of the server")

    reply = server.client("owner", raise_server_exceptions=False).get("/mistake")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    check_headers(reply)


def test_pages_load_only_local_scripts_and_styles(shared_server: Server) -> None:
    pages = [path for method, path in sorted(PERMISSION_BY_ROUTE) if method == "GET"] + [
        "/login",
        f"/join/{shared_server.invite()}",
        "/no",
    ]
    read = 0
    for role in ("owner", "labeller"):
        client = shared_server.client(role, headers={"accept": "text/html"})
        for path in pages:
            reply = send(client, "GET", path)
            if reply.headers.get("content-type", "").startswith("text/html"):
                check_page(reply.text)
                read += 1
    assert read > 20


def test_hostile_text_is_harmless_on_every_page(server: Server) -> None:
    store = server.demo.store
    owner = server.client("owner", headers={"accept": "text/html"})
    nasty = [source.replace("\x00", "") for source in HOSTILE]
    prompts = [Prompt.ask(source, source="</script><script>alert(1)</script>") for source in nasty]
    store.add_prompts(prompts)
    pairs = [[Response(p.id, f"{s} {n}", f"evaluate:<img src=x onerror=alert({n})>#1") for n in "12"] for p, s in
            zip(prompts, nasty, strict=True)]  # fmt: skip
    store.add_responses(chain.from_iterable(pairs))
    tasks = [Task("comparison", p.id, (a.id, b.id), "evaluate", nasty[0]) for p, (a, b) in
               zip(prompts, pairs, strict=True)]  # fmt: skip
    store.add_tasks(tasks)
    events = [
        Feedback(task.id, annotator, judgement, "2026-11-20", comment=note)
        for task, note in zip(tasks, nasty, strict=True)
        for annotator, judgement in (
            ("<svg onload=alert(1)>", Comparison(task.items[0])),
            ("'><b>", Comparison(task.items[1])),
        )
    ]
    store.add_feedback(events)
    accounts = server.workspace.accounts
    for number, source in enumerate(HOSTILE[:12]):
        (link,) = accounts.invite(server.users["owner"], "labeller", [source], source)
        printable = "".join(c for c in source if not unicodedata.category(c).startswith("C"))
        new_user = accounts.join(link, f"{number}{printable}"[:60], PASSWORD)
        accounts.change(server.users["owner"].id, new_user.id, source, state="paused")
    form = {
        "guidelines": "\n\n".join(nasty),
        "flags": '"><script>alert(1)</script>',
        "axes": "'\"><svg onload=alert(1)>",
    }
    assert owner.post("/r/demo/settings", data=form).status_code == 303
    pages = [f"/r/demo/{name}" for name in ("admin", "review", "progress", "prompts", "label", "guidelines", "chat")]
    pages += ["/r/demo/disagreements", *(f"/r/demo/prompts/{prompt.id}" for prompt in prompts[::4])]
    pages += ["/login?next=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "/r/%3Cscript%3Ealert(1)%3C/script%3E/label"]
    pages += ["/r/demo/prompts?text=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"]
    for path in pages:
        reply = owner.get(path)
        assert reply.status_code < 500
        check_page(reply.text)
    reply = server.client().post("/login", data={"name": '"><script>alert(1)</script>', "password": "wrong"})
    check_page(reply.text)


def test_home_page_hides_progress_from_labellers(shared_server: Server) -> None:
    page = shared_server.client("labeller", headers={"accept": "text/html"}).get("/").text
    assert "hidden-project" in page and "tasks completed" not in page and "<progress" not in page
    assert "tasks completed" in shared_server.client("viewer", headers={"accept": "text/html"}).get("/").text


@pytest.mark.parametrize("origin", ["http://[", "null", "nonsense", "://", "http://testserver.evil.example"])
def test_malformed_origin_is_refused(shared_server: Server, origin: str) -> None:
    reply = shared_server.client("labeller").post("/logout", headers={"origin": origin})
    assert reply.status_code == 403
    check_headers(reply)
