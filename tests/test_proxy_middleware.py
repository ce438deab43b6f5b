"""The proxy middleware and rate limits on the application alone: trusted headers and the root path."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from browsing import PASSWORD, make_run, make_task
from starlette.testclient import TestClient
from web_server import routes

from assent.cli import main
from assent.labelling.users import User
from assent.registry import ROOT
from assent.web.app import make_app
from assent.web.pages import Limits
from assent.web.proxy import ProxyMiddleware, parse_networks
from assent.web.security import COOKIE, RateLimit
from assent.web.serve import RESERVED
from assent.web.workspace import Workspace

PAGE = ROOT.parent / "docs" / "deployment.md"


@contextmanager
def application(root: Path, trusted: str = "127.0.0.1, ::1", base: str = "") -> Iterator[Application]:
    """Return the application as `assent serve` runs it."""
    workspace = Workspace(root)
    workspace.root_path = base
    app = make_app(workspace)
    try:
        yield Application(workspace, app, ProxyMiddleware(app, parse_networks(trusted), base))
    finally:
        workspace.close()


class Application(NamedTuple):
    workspace: Workspace
    app: Any
    outermost: ProxyMiddleware

    def client(self, address: str = "127.0.0.1", **headers: str) -> TestClient:
        """Return a client like a browser; `forwarded_for` is the header X-Forwarded-For."""
        sent = {"accept": "text/html", **{f"x-{name.replace('_', '-')}": text for name, text in headers.items()}}
        return TestClient(
            self.outermost, base_url="http://inside:8000", client=(address, 5000), follow_redirects=False, headers=sent
        )

    def owner(self) -> User:
        return self.workspace.accounts.join(self.workspace.accounts.issue_setup(), "Olga", PASSWORD)

    def links(self, count: int) -> list[str]:
        return self.workspace.accounts.invite(self.owner(), "labeller", [""] * count)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with one run."""
    return make_run(tmp_path / "runs", make_task("comparison")).folder.parent


FORWARDED = {"forwarded_for": "10.1.1.1", "forwarded_proto": "https", "forwarded_host": "lab.example.org"}


@pytest.mark.parametrize(
    ("trusted", "address", "believed"),
    [
        ("127.0.0.1, ::1", "127.0.0.1", True),
        ("127.0.0.1, ::1", "::1", True),
        ("127.0.0.1, ::1", "127.0.0.2", False),
        ("172.16.0.0/12", "172.18.0.3", True),
        ("172.16.0.0/12", "172.32.0.1", False),
        ("172.18.0.0/16, fd00::/8", "fd12::3", True),
        ("172.18.0.1/16", "172.18.9.9", True),
        ("fd00::/8", "fe80::1", False),
        ("", "127.0.0.1", False),
        ("127.0.0.1", "testclient", False),
        pytest.param("127.0.0.1", "::ffff:127.0.0.1", True),
        pytest.param("172.16.0.0/12", "::ffff:172.18.0.3", True),
        ("172.16.0.0/12", "::ffff:10.0.0.1", False),
    ],
)
def test_forwarded_headers_of_trusted_addresses_are_used(
    trusted: str, address: str, believed: bool, runs: Path
) -> None:
    with application(runs, trusted) as at:
        token = at.workspace.accounts.credentials.issue_token(at.owner(), "")
        program = at.client(address, **FORWARDED)
        link = program.post("/api/invites", json={}, headers={"authorization": f"Bearer {token}"}).json()[0]["link"]
        assert link.startswith("https://lab.example.org/join/" if believed else "http://inside:8000/join/")
        origin = {"origin": "https://lab.example.org"}
        form = program.post("/login", data={"name": "Olga", "password": "wrong"}, headers=origin)
        assert ("cross-site request refused" in form.text) is not believed


def test_client_address_is_the_last_untrusted_one(runs: Path) -> None:
    with application(runs, "127.0.0.1, 10.0.0.0/8") as at:
        for n in range(21):
            client = at.client(forwarded_for=f"203.0.113.{n}, 198.51.100.7, 10.0.0.2")
            status = client.get("/join/wrong").status_code
        assert status == 429
        assert at.client(forwarded_for="198.51.100.8, 10.0.0.2").get("/join/wrong").status_code == 403


def test_untrusted_proxy_is_logged_once(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with application(runs) as at:
        for address in ("10.0.0.2", "10.0.0.2", "10.0.0.3", "127.0.0.1"):
            at.client(address, **FORWARDED).get("/login")
        at.client("10.0.0.4").get("/login")
    warnings = [record.getMessage() for record in caplog.records if record.name == "assent.web"]
    assert [line.split()[0] for line in warnings] == ["10.0.0.2", "10.0.0.3"]
    assert all(
        re.search(r"sends x-forwarded-for, x-forwarded-proto, x-forwarded-host but is not trusted", line)
        for line in warnings
    )


def test_log_of_untrusted_proxies_is_bounded(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with application(runs) as at:
        for n in range(150):
            at.client(f"10.0.1.{n}", forwarded_for="10.1.1.1").get("/login")
    assert len([record for record in caplog.records if record.name == "assent.web"]) == 100


@pytest.mark.parametrize("addresses", ["nginx", "*", "10.0.0.0/33", "10.0.0", "10.0.0.1 10.0.0.2", "10.0.0.1;10.0.0.2"])
def test_invalid_forwarded_allow_ips_is_refused(addresses: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(runs), "--behind-proxy", "--forwarded-allow-ips", addresses]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "write them as 127.0.0.1 or 172.16.0.0/12" in error


@pytest.mark.parametrize(
    "path",
    [
        *("lab", "/", "/lab/", "//lab", "/lab//two", "/lab?x", "/l b", "https://lab.example.org/lab"),
        "/..",
        "/lab/./two",
    ],
)
def test_invalid_root_path_is_refused(path: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(runs), "--root-path", path]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "write it as /lab, without a slash at the end" in error


def test_reserved_root_path_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with application(runs) as at:
        first = {path.split("/")[1] for _, path in routes(at.app)} - {""}
    assert first <= set(RESERVED)
    for part in RESERVED:
        assert main(["serve", str(runs), "--root-path", f"/{part}/lab"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "choose another path" in error


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "removed"])
def test_root_path_may_be_stripped_or_kept(is_kept: bool, runs: Path) -> None:
    with application(runs, base="/lab") as at:
        client = at.client()
        front = "/lab" if is_kept else ""
        secret = at.workspace.accounts.issue_setup()
        page = client.get(f"{front}/join/{secret}")
        assert f'action="/lab/join/{secret}"' in page.text
        joined = client.post(f"{front}/join/{secret}", data={"name": "Olga", "password": PASSWORD})
        assert (joined.status_code, joined.headers["location"]) == (303, "/lab/")
        assert "Path=/lab;" in joined.headers["set-cookie"]
        client.cookies.set(COOKIE, at.workspace.accounts.credentials.open_session(at.workspace.accounts.get("Olga")))
        (run,) = at.workspace.runs()
        assert 'data-base="/lab"' in client.get(f"{front}/r/{run}/label").text
        assert client.get(f"{front}/static/label.js").status_code == 200
        out = client.post(f"{front}/logout")
        assert (out.headers["location"], "Path=/lab;" in out.headers["set-cookie"]) == ("/lab/login", True)


@pytest.mark.parametrize("path", ["/labour", "/labour/login", "/lab/lab/login", "/laboratory"])
def test_similar_path_is_not_the_root_path(path: str, runs: Path) -> None:
    with application(runs, base="/lab") as at:
        assert at.client().get(path).status_code == 404


@pytest.mark.parametrize("path", ["/login/", "/join/secret/", "/static"])
def test_double_slash_stays_below_the_root_path(path: str, runs: Path) -> None:
    with application(runs, base="/lab") as at:
        response = at.client().get(f"/lab{path}")
        assert response.status_code == 404 or urlsplit(response.headers["location"]).path.startswith("/lab/")


def test_session_cookies_of_two_servers_on_one_host(runs: Path) -> None:
    with application(runs, base="/lab") as at:
        session = at.workspace.accounts.credentials.open_session(at.owner())
        both = {"cookie": f"{COOKIE}={session}; {COOKIE}=of-the-other-server"}
        assert at.client().get("/lab/", headers=both).status_code == 200


def test_head_of_every_page_matches_get(runs: Path) -> None:
    with application(runs, base="/lab") as at:
        session = at.workspace.accounts.credentials.open_session(at.owner())
        (run,) = at.workspace.runs()
        paths = {
            path.replace("{run}", run) for method, path in routes(at.app) if method == "GET" and "/api/" not in path
        }
        assert len(paths) > 12
        for signed_in in (True, False):
            client = at.client()
            if signed_in:
                client.cookies.set(COOKIE, session)
            for path in sorted(paths):
                get, head = client.get(path), client.head(path)
                assert (head.status_code, head.content) == (get.status_code, b""), path
                for name in ("content-type", "location", "content-length", "content-security-policy"):
                    assert head.headers.get(name) == get.headers.get(name), f"{path}: {name}"


def test_rate_limits_match_the_docs() -> None:
    rows = re.findall(r"^\| (wrong \w+) \| (\d+) in (\d+) seconds \| ([\w ]+) \|$", PAGE.read_text(), re.MULTILINE)
    limits = Limits()
    limits_by_key = {
        ("wrong password", "address and name"): limits.sign_in,
        ("wrong password", "address"): limits.sign_in_address,
        ("wrong password", "name"): limits.sign_in_name,
        ("wrong link", "address"): limits.join,
    }
    limits_in_docs = {(failure, key): (int(count), float(seconds)) for failure, count, seconds, key in rows}
    assert limits_in_docs == {key: (rate.count, rate.seconds) for key, rate in limits_by_key.items()}


@pytest.mark.usefixtures("quick_hashes")
def test_join_rate_limit_counts_wrong_links_only(runs: Path) -> None:
    with application(runs, base="/lab") as at:
        begun = time.monotonic()
        links = at.links(30)
        for n, secret in enumerate(links):
            client = at.client()
            assert client.get(f"/lab/join/{secret}").status_code == 200
            short = client.post(f"/lab/join/{secret}", data={"name": f"Pupil {n}", "password": "short"})
            assert short.status_code == 422, "a password that is too short is no wrong link"
            joined = client.post(f"/lab/join/{secret}", data={"name": f"Pupil {n}", "password": PASSWORD})
            assert joined.status_code == 303
        client = at.client()
        wrong = [client.get(f"/lab/join/{secret}").status_code for secret in [*links[:10], *map(str, range(10))]]
        assert wrong == [403] * 20
        (last,) = at.workspace.accounts.invite(at.workspace.accounts.get("Olga"), "labeller")
        refused = client.get(f"/lab/join/{last}")
        assert time.monotonic() - begun < 60
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert f'<a class="button main" href="/lab/join/{last}">Try again</a>' in refused.text
        at.app.state.limits.join = RateLimit(20, 60)  # the time is over
        assert client.get(f"/lab/join/{last}").status_code == 200


@pytest.mark.usefixtures("quick_hashes")
def test_sign_in_rate_limit_counts_failures_only(runs: Path) -> None:
    with application(runs) as at:
        at.owner()
        client, second_address = at.client("10.1.1.1"), at.client("10.1.1.2")

        def sign_in(client: TestClient, password: str) -> int:
            return client.post("/login", data={"name": "Olga", "password": password}).status_code

        assert {sign_in(client, PASSWORD) for _ in range(70)} == {303}
        assert {sign_in(client, "wrong") for _ in range(10)} == {403}
        assert sign_in(client, PASSWORD) == 429
        page = client.post("/login", data={"name": "Olga", "password": PASSWORD})
        assert re.search(r"too many attempts: wait \d+ seconds", page.text)
        assert '<a class="button main" href="/login">Try again</a>' in page.text
        assert sign_in(second_address, PASSWORD) == 303, "another address is not refused"


def test_rate_limit_ends_after_its_window(runs: Path) -> None:
    with application(runs) as at:
        at.app.state.limits.join = RateLimit(2, 0.2)
        client = at.client()
        assert [client.get("/join/wrong").status_code for _ in range(3)] == [403, 403, 429]
        time.sleep(0.25)
        assert client.get("/join/wrong").status_code == 403


@pytest.mark.parametrize(
    ("first_address", "second_address", "shared"),
    [
        ("2001:db8:1:2::3", "2001:db8:1:2:4:5:6:7", True),
        ("2001:db8:1:2::3", "2001:db8:1:3::3", False),
        ("192.0.2.1", "192.0.2.2", False),
        pytest.param("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_rate_limit_counts_ipv6_by_network(first_address: str, second_address: str, shared: bool, runs: Path) -> None:
    with application(runs) as at:
        assert [at.client(first_address).get("/join/wrong").status_code for _ in range(21)] == [403] * 20 + [429]
        assert at.client(second_address).get("/join/wrong").status_code == (429 if shared else 403)
