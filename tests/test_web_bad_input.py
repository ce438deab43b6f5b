"""Malformed requests: they are refused with a 4xx status and are no server error."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from web_server import (
    TASKS,
    Server,
    check_headers,
    comparison_of,
    judgement_of,
    next_tasks,
    routes,
)

pytestmark = pytest.mark.usefixtures("quick_hashes")


WORDS = st.text(st.one_of(st.characters(), st.sampled_from("\x00\ud800\udfff\u202e'\"<")), max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.sampled_from([10**400, -1, 0]))
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=10
)


FIELDS = ("id", "query", "judgement", "display_order", "duration", "comment", "flags", "supersedes", "more")
POINTS = ("preferred", "strength", "verdict", "certainty", "tiers", "axes", "weight", "approved", "text", "quote")
AS_JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def sink(run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server for malformed requests of any kind."""
    server = Server.of(Path(shutil.copytree(run_root, tmp_path_factory.mktemp("sink") / "demo")))
    yield server
    server.workspace.close()


@pytest.fixture(scope="module")
def posts(sink: Server) -> dict[str, dict[str, Any]]:
    """Return a valid post of each kind."""
    return {item["kind"]: judgement_of(item, f"good-{item['kind']}") for item in next_tasks(sink.client("labeller"))}


def check_refused(reply: Any) -> None:
    assert reply.status_code in (200, 204, 303, 400, 401, 403, 404, 409, 413, 422), reply.text
    assert reply.headers["content-security-policy"]


@settings(max_examples=50)
@given(JSON)
@example({"\ud800": 1})
@example([])
@example("")
@example(float("nan"))
def test_any_json_body_is_refused_with_422(sink: Server, value: Any) -> None:
    with sink.client("labeller") as browser:
        for path in ("judgements", "corrections", "heartbeat", "skip", "chat"):
            content = json.dumps(value)
            reply = browser.post(f"/r/demo/api/{path}", content=content, headers={"content-type": "application/json"})
            assert reply.status_code in (400, 422), reply.text
            assert reply.json()["detail"]


@settings(max_examples=100)
@given(st.sampled_from(sorted({task.kind for task in TASKS})), st.sampled_from(FIELDS), JSON)
@example("comparison", "judgement", {"\ud800": 1})
@example("comparison", "judgement", {"verdict": "\ud800"})
def test_odd_field_of_a_post_is_no_server_error(
    sink: Server, posts: dict[str, dict[str, Any]], kind: str, name: str, value: Any
) -> None:
    post = json.dumps({**posts[kind], name: value})
    with sink.client("labeller") as browser:
        check_refused(
            browser.post("/r/demo/api/judgements", content=post, headers={"content-type": "application/json"})
        )


@settings(max_examples=100)
@given(st.sampled_from(sorted({task.kind for task in TASKS})), st.sampled_from(POINTS), JSON)
@example("ranking", "tiers", [[""], [{}]])
@example("rating", "axes", [["helpful", 10**400]])
@example("rating", "axes", {"\ud800": 3})
def test_odd_field_of_a_judgement_is_no_server_error(
    sink: Server, posts: dict[str, dict[str, Any]], kind: str, name: str, value: Any
) -> None:
    post = json.dumps({**posts[kind], "judgement": {**posts[kind]["judgement"], name: value}})
    with sink.client("labeller") as browser:
        check_refused(
            browser.post("/r/demo/api/judgements", content=post, headers={"content-type": "application/json"})
        )


@pytest.mark.parametrize("depth", [10, 100, 300, 500, 900, 3000, 100_000])
@pytest.mark.parametrize("name", ["preferred", "tiers", "axes", "text"])
def test_deeply_nested_judgement_is_refused(
    sink: Server, posts: dict[str, dict[str, Any]], name: str, depth: int
) -> None:
    kind = {"preferred": "comparison", "tiers": "ranking", "axes": "rating", "text": "critique"}[name]
    post = json.dumps({**posts[kind], "judgement": {name: "here"}}).replace('"here"', "[" * depth + "]" * depth)
    reply = sink.client("labeller").post(
        "/r/demo/api/judgements", content=post, headers={"content-type": "application/json"}
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
def test_malformed_body_is_no_server_error(sink: Server, content: bytes, kind: str) -> None:
    with sink.client("owner") as browser:
        for method, path in sorted(routes(sink.app)):
            if method == "POST" and path != "/logout":
                address = path.format(run="demo", secret="x", judgement="x")
                reply = browser.post(address, content=content, headers={"content-type": kind})
                assert reply.status_code < 500, path
                if path == "/r/{run}/api/judgements":
                    assert reply.status_code in (400, 415, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/r/demo/api/tasks/%00",
        "/r/demo/api/tasks/" + "x" * 5000,
        "/r/demo/api/tasks/%ED%A0%80",
        "/r/%00/label",
        "/r/demo/api/tasks/next?count=0",
        "/r/demo/api/tasks/next?count=999999999999999999999",
        "/r/demo/api/tasks/next?hold=" + "%00,'" * 100,
        "/r/demo/api/judgements/mine?count=-1",
        "/r/demo/prompts?after=-1",
        "/r/demo/prompts?text=%00%FF",
        "/r/demo/prompts/%00",
        "/r/demo/api/events?after=%ED%A0%80&count=1",
        "/join/%00",
        "/login?next=%00%0d%0aset-cookie:x",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fweb%2fapp.py",
        "/static/%00",
    ],
)
def test_odd_url_is_no_server_error(sink: Server, path: str) -> None:
    reply = sink.client("owner").get(path)
    assert reply.status_code < 500
    assert "set-cookie" not in reply.headers
    assert "make_app" not in reply.text
    check_headers(reply)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(flags=["decided"]), "for reviewers"),
        (dict(judgement={"text": "x" * 250_000}), "at most 200000 characters"),
        (dict(judgement={"axes": [["<img src=x>", 7]]}), "the axes are helpful"),
        (dict(judgement={"verdict": "y" * 100_000}), ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_forged_judgement_is_refused_with_a_short_error(server: Server, change: dict[str, Any], words: str) -> None:
    browser = server.client("labeller")
    kind = "rating" if "axes" in str(change) else "critique" if "text" in str(change) else "comparison"
    candidates = [item for item in next_tasks(browser) if item["kind"] == kind] or [comparison_of(server)]
    reply = browser.post("/r/demo/api/judgements", json=judgement_of(candidates[0]) | change)
    assert reply.status_code == 422 and words in reply.text and len(reply.text) < 1000
    assert server.demo.store.counts().feedback == 1
