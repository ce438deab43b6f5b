"""A web application with a run, a user of each role, and helpers that send requests to it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from clock import Clock
from fastapi import FastAPI
from fastapi.testclient import TestClient

from assent.feedback.comparison import Comparison
from assent.labelling.accounts import Accounts
from assent.labelling.queue import TaskRequest
from assent.labelling.users import User
from assent.records import Feedback, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store import schema
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Project, Workspace

PASSWORD = "correct horse battery"
ROLES = ("owner", "admin", "reviewer", "labeller", "viewer")
NAMES = dict(owner="Olga", admin="Adam", reviewer="Rita", labeller="Ann", viewer="Vic")
MODEL = "acme/secret-model-7b"
POLICY = "generate:secret-policy#1a2b3c"
PROMPT = Prompt.ask("Which is the largest planet?", source="secret-source")
ITEMS = tuple(Response(PROMPT.id, text, POLICY) for text in ("Jupiter.", "Saturn.", "It is Neptune."))
COMPARISON_TASK = Task("comparison", PROMPT.id, (ITEMS[0].id, ITEMS[1].id))
RANKING_TASK = Task("ranking", PROMPT.id, tuple(item.id for item in ITEMS), "evaluate")
SINGLE_ITEM_TASKS = tuple(
    Task(kind, PROMPT.id, (ITEMS[0].id,)) for kind in ("rating", "approval", "critique", "correction")
)
DEMONSTRATION_TASK = Task("demonstration", PROMPT.id, ())
TASKS = (COMPARISON_TASK, RANKING_TASK, *SINGLE_ITEM_TASKS, DEMONSTRATION_TASK)
REVIEWER_COMMENT = "words of a reviewer"
EXPLANATION = "because gold says so"


@dataclass
class Server:
    """An application that serves the run `demo`, and a user of each role."""

    workspace: Workspace
    app: FastAPI
    clock: Clock
    users: dict[str, User]

    @classmethod
    def of(cls, root: Path) -> "Server":
        """Open a folder that `build` wrote."""
        workspace = Workspace(root)
        clock = Clock()
        workspace.accounts = Accounts(workspace.accounts.store, clock)
        return cls(
            workspace, make_app(workspace), clock, {role: workspace.accounts.get(name) for role, name in NAMES.items()}
        )

    @property
    def demo(self) -> Project:
        return self.workspace.project("demo")

    def client(self, role: str = "", token: bool = False, **options: Any) -> TestClient:
        """Return a client with a session or a token of a user with this role; without a role it has neither."""
        client = TestClient(self.app, follow_redirects=False, **options)
        if role and token:
            client.headers["authorization"] = (
                f"Bearer {self.workspace.accounts.credentials.issue_token(self.users[role], '')}"
            )
        elif role:
            client.cookies.set(COOKIE, self.workspace.accounts.credentials.open_session(self.users[role]))
        return client

    def stored_id(self, name: str) -> str:
        """Return the stored id of the task with this id on a labeller's page."""
        with self.demo.store.reading() as on:
            result: str = on.exec_driver_sql(f"SELECT task FROM assignments WHERE alias = '{name}'").scalar_one()
        return result

    def invite(self, role: str = "labeller", external: str = "") -> str:
        return self.workspace.accounts.invite(self.users["owner"], role, [external])[0]

    def content(self) -> list[Any]:
        """Return every row of every database, except sessions and tokens."""
        stores = {id(store): store for store in (self.demo.store, self.workspace.accounts.store)}
        result: list[Any] = []
        for store in stores.values():
            with store.reading() as on:
                result += [
                    on.execute(sa.select(t)).all() for t in schema.metadata.sorted_tables if t.name != "credentials"
                ]
                result += [
                    on.execute(
                        sa.select(schema.credentials).where(schema.credentials.c.kind.not_in(("session", "token")))
                    ).all()
                ]
        return result


def build_run_root(root: Path, single: bool) -> Path:
    """Write a run, or a folder of two, with a user of each role, tasks, and a judgement of the reviewer."""
    for name in ("demo",) if single else ("demo", "hidden-project"):
        with open_run(Setup(run=root / name, model=MODEL)) as run:
            run.store.add_prompts([PROMPT])
            run.store.add_responses(ITEMS)
            run.store.add_tasks(TASKS)
            run.store.close()
    workspace = Workspace(root / "demo" if single else root)
    accounts = Accounts(workspace.accounts.store, Clock())
    owner = accounts.join(accounts.issue_setup(), NAMES["owner"], PASSWORD)
    for role in ROLES[1:]:
        accounts.join(accounts.invite(owner, role)[0], NAMES[role], PASSWORD)
    queue = workspace.project("demo").queue
    rita = accounts.get(NAMES["reviewer"]).id
    queue.enqueue([TaskRequest(task, 3) for task in TASKS], "label")
    (assignment,) = queue.next_tasks(rita, 1)
    judgement = Comparison(assignment.display_order[0], 3)
    queue.submit(
        Feedback(
            assignment.task.id,
            rita,
            judgement,
            "2026-11-20",
            display_order=assignment.display_order,
            comment=REVIEWER_COMMENT,
        )
    )
    workspace.accounts.store.close()
    workspace.close()
    return workspace.root


def comparison_of(server: Server) -> dict[str, Any]:
    """Return the comparison task as the labeller's page has it, or had it."""
    browser = server.client("labeller")
    ann = server.users["labeller"].id
    result = [item for item in next_tasks(browser) if item["kind"] == "comparison"]
    if result:
        return result[0]
    name = server.demo.queue.assignments.aliases(ann, [COMPARISON_TASK.id])[COMPARISON_TASK.id]
    view: dict[str, Any] = browser.get(f"/r/demo/api/tasks/{name}").json()
    return view


def next_tasks(client: TestClient, number: int = 10) -> list[dict[str, Any]]:
    reply = client.get("/r/demo/api/tasks/next", params={"count": number})
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["tasks"]
    return items


def judgement_of(item: dict[str, Any], id: str = "0192-first", **options: Any) -> dict[str, Any]:
    """Return the post of the page for a task: a judgement that prefers the first item."""
    view = [response["id"] for response in item["items"]]
    judgements: dict[str, Any] = {
        "comparison": lambda: {"preferred": view[0], "strength": 2},
        "ranking": lambda: {"tiers": [[response] for response in view]},
        "rating": lambda: {"axes": {"helpful": 5}},
        "approval": lambda: {"approved": True},
    }
    judge = judgements.get(item["kind"], lambda: {"text": "My own words."})
    return {"id": id, "task": item["task"], "judgement": judge(), "display_order": view, "duration": 3.5, **options}


ROUTES_BY_PERMISSION = {
    "signed in": [
        ("GET", "/"),
        ("GET", "/account"),
        ("POST", "/account/password"),
        ("POST", "/account/withdraw"),
        ("GET", "/r/{run}/clip/{item}"),
        ("GET", "/r/{run}/clip/{item}.webp"),
    ],
    "label": [
        ("GET", "/api/me"),
        ("GET", "/r/{run}/label"),
        ("GET", "/r/{run}/guidelines"),
        ("GET", "/r/{run}/api/tasks/next"),
        ("GET", "/r/{run}/api/tasks/{task}"),
        ("GET", "/r/{run}/api/judgements/mine"),
        ("POST", "/r/{run}/api/judgements"),
        ("POST", "/r/{run}/api/corrections"),
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
        ("GET", "/r/{run}/judgements"),
        ("GET", "/r/{run}/judgements/{judgement}"),
        ("GET", "/r/{run}/judgements.{format}"),
        ("POST", "/r/{run}/judgements/{judgement}/send-back"),
        ("POST", "/r/{run}/ask-again"),
        ("GET", "/r/{run}/api/events"),
        ("POST", "/r/{run}/api/tasks"),
        ("POST", "/r/{run}/request-votes"),
        ("POST", "/r/{run}/decide"),
        ("POST", "/r/{run}/score"),
    ],
    "manage": [
        ("GET", "/r/{run}/admin"),
        ("GET", "/r/{run}/completion-codes.csv"),
        ("POST", "/api/invites"),
        ("POST", "/r/{run}/invite"),
        ("POST", "/r/{run}/users"),
        ("POST", "/r/{run}/reset"),
        ("POST", "/r/{run}/withdraw"),
        ("POST", "/r/{run}/settings"),
        ("POST", "/r/{run}/token"),
    ],
}


PERMISSION_BY_ROUTE = {route: right for right, routes_of in ROUTES_BY_PERMISSION.items() for route in routes_of}


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Return (method, path) of every route of the application."""

    def walk(entries: Any) -> Iterator[tuple[str, str]]:
        for route in entries:
            inner = getattr(route, "original_router", None)
            if inner is not None:  # newer FastAPI keeps an included router as one route
                yield from walk(inner.routes)
            elif getattr(route, "methods", None):
                yield from ((method, route.path.replace(":path}", "}")) for method in route.methods - {"HEAD"})
            else:
                yield "GET", f"{route.path}/{{file}}"

    return set(walk(app.routes))


FORMS: dict[str, dict[str, str]] = {
    "/r/{run}/request-votes": {"task": COMPARISON_TASK.id},
    "/r/{run}/decide": {"task": COMPARISON_TASK.id, "decision": ITEMS[0].id},
    "/r/{run}/score": {},
    "/r/{run}/invite": {"role": "viewer"},
    "/r/{run}/users": {"id": "Vic", "role": "viewer"},
    "/r/{run}/settings": {"guidelines": "Be kind.", "flags": "Harm", "axes": "helpful"},
    "/r/{run}/token": {"note": "a script"},
    "/r/{run}/reset": {"id": "Vic"},
    "/r/{run}/withdraw": {"key": "0"},
    "/r/{run}/ask-again": {"task": COMPARISON_TASK.id},
    "/account/password": {"old": "not the password", "new": "not the password"},
    "/account/withdraw": {"key": "0"},
}


BODIES: dict[str, dict[str, Any]] = {
    "/r/{run}/api/judgements": {
        "id": "x",
        "task": "nowhere",
        "judgement": {"preferred": ITEMS[0].id},
        "display_order": [],
    },
    "/r/{run}/api/corrections": {"task": COMPARISON_TASK.id, "item": ITEMS[0].id},
    "/r/{run}/api/heartbeat": {"tasks": [COMPARISON_TASK.id]},
    "/r/{run}/api/skip": {"tasks": ["nowhere"]},
    "/r/{run}/api/unskip": {"tasks": ["nowhere"]},
    "/r/{run}/api/chat": {"messages": [{"role": "assistant", "content": "the last word must be the user's"}]},
    "/r/{run}/api/tasks": {"tasks": []},
    "/api/invites": {"role": "viewer"},
}


def send(client: TestClient, method: str, path: str, run: str = "demo", **options: Any) -> Any:
    """Send a request to a route, valid as far as the path and the body go."""
    url = path.format(
        item=ITEMS[0].id,
        run=run,
        task=COMPARISON_TASK.id,
        prompt=PROMPT.id,
        secret="x",
        file="assent.css",
        judgement="x",
        format="jsonl",
    )
    if method != "POST":
        return client.request(method, url, **options)
    if path in BODIES:
        return client.post(url, json=BODIES[path], **options)
    return client.post(url, data=FORMS.get(path, {}), **options)


def policy(value: str) -> dict[str, list[str]]:
    parts = [part.split() for part in value.split(";") if part.strip()]
    assert len({name for name, *_ in parts}) == len(parts)
    return {name: values for name, *values in parts}


def check_headers(reply: Any) -> None:
    headers = policy(reply.headers["content-security-policy"])
    assert headers["default-src"] == ["'none'"]
    assert headers["script-src"] == ["'self'"]
    for name in ("script-src-elem", "script-src-attr", "object-src", "frame-src", "worker-src"):
        assert headers.get(name, ["'none'"]) in (["'none'"], ["'self'"])
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"} & set(chain.from_iterable(headers.values()))
    assert headers["connect-src"] == headers["form-action"] == ["'self'"]
    assert headers["frame-ancestors"] == headers["base-uri"] == ["'none'"]
    assert headers["require-trusted-types-for"] == ["'script'"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] in ("same-origin", "no-referrer", "strict-origin")
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in reply.headers and "x-powered-by" not in reply.headers


class ParsedPage(HTMLParser):
    """Tags and texts of a page, and the parts that no page may contain."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.suspicious: list[str] = []
        self._within: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._within.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._within and self._within[-1] in ("script", "style") and data.strip():
            self.suspicious.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_comment(self, data: str) -> None:
        self.suspicious.append(data)

    def handle_pi(self, data: str) -> None:
        self.suspicious.append(data)

    def unknown_decl(self, data: str) -> None:
        self.suspicious.append(data)

    def handle_decl(self, decl: str) -> None:
        if decl.lower() != "doctype html":
            self.suspicious.append(decl)


def is_harmless(place: str) -> bool:
    """Return whether a link leads to a web page, after dropping white space and control characters as browsers do."""
    plain = re.sub(r"[\x00-\x20\x7f]", "", place).lower()
    scheme = re.match(r"[a-z][a-z0-9+.-]*:", plain)
    return scheme is None or scheme[0] in ("http:", "https:")


def check_page(text: str) -> ParsedPage:
    """Assert that a page runs only the server's own files, and loads no other resource."""
    page = ParsedPage(text)
    assert page.suspicious == []
    for tag, attributes in page.tags:
        assert tag not in ("base", "iframe", "object", "embed", "applet", "style", "svg", "math", "template"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")], attributes
        assert (tag == "script") <= attributes.get("src", "").startswith("/static/"), attributes
        for name in ("src", "href", "action", "formaction", "poster", "background", "ping"):
            place = attributes.get(name, "")
            if name == "href" and tag == "a":
                assert is_harmless(place), place
            else:
                assert place == "" or (place.startswith("/") and not place.startswith("//")), place
    return page


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
