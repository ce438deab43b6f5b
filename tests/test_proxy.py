"""The server behind a reverse proxy: the configurations of docs/deployment.md run; trusted headers."""

from __future__ import annotations

import configparser
import getpass
import html
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import tiny
from browsing import PASSWORD, PATIENCE, Account, LabellingRun, Screen, Server, make_run, make_task
from processes import Process, command, free_port
from test_docs import blocks_of

from assent.cli import main
from assent.registry import ROOT
from assent.tools.doctor import find_browser, find_program
from assent.web.app import STATIC
from assent.web.security import COOKIE, MAX_BODY_BYTES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGE = ROOT.parent / "docs" / "deployment.md"
BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
"""Headers of a browser besides Origin."""
UNTRUSTED_ADDRESS = "127.0.0.2"
"""An address of this machine that servers trust only if it is configured."""


def snippet(heading: str, language: str) -> str:
    """Return the first block of a language under a heading of docs/deployment.md."""
    return next(b.text for b in blocks_of(PAGE) if (b.heading, b.language) == (heading, language))


def flags(heading: str) -> list[str]:
    """Return the flags of the first `assent serve` under a heading of docs/deployment.md."""
    text = snippet(heading, "console").splitlines()[0]
    assert text.startswith("assent serve runs ")
    return shlex.split(text)[3:]


def replace_all(text: str, new: Mapping[str, object]) -> str:
    """Replace ports, hosts and paths in a configuration; each of them must occur in it."""
    for old in sorted(new, key=len, reverse=True):
        assert old in text
        text = text.replace(old, str(new[old]))
    return text


# Servers, proxies and certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `fullchain.pem` and `privkey.pem` for localhost."""
    folder = tmp_path_factory.mktemp("certificate")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", "privkey.pem", "-out", "fullchain.pem"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*words.split(), *files, *names], cwd=folder, check=True, capture_output=True)
    return folder


def accepts_connections(port: int, tls: bool) -> bool:
    """Return whether a server listens at a port and, with TLS, has a certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as line:
            if tls:
                context.wrap_socket(line, server_hostname="localhost").close()
            return True
    except OSError:
        return False


def wait_for(port: int, alive: Callable[[], bool], log: Callable[[], str], tls: bool = False) -> None:
    """Wait until a server accepts connections at a port."""
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline and alive():
        if accepts_connections(port, tls):
            return
        time.sleep(0.02)
    raise AssertionError(f"no server listens at {port}: {log()}")


@contextmanager
def running(words: Sequence[str], folder: Path, port: int, environment: dict[str, str]) -> Iterator[None]:
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=environment, cwd=folder)
    try:
        wait_for(port, lambda: process.poll() is None, log.read_text, tls=True)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(folder: Path, servers: str, port: int) -> Iterator[None]:
    """Run nginx with these `server` blocks; all its files are in a folder."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""  # else workers may not enter the folder
    frame = f"{user}\ndaemon off;\nmaster_process on;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\n"
    log = "access_log off;\n"
    config = folder / "nginx.conf"
    config.write_text(f"{frame}events {{}}\nhttp {{\n{log}{places}{servers}}}\n")
    program = find_program("nginx")
    assert program
    words = [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]
    with running(words, folder, port, dict(os.environ)):
        yield


@contextmanager
def caddy(folder: Path, sites: str, plain: int, secure: int) -> Iterator[None]:
    """Run Caddy with these sites at free ports; it creates local certificates instead of requesting them."""
    options = f"admin off\nlocal_certs\nskip_install_trust\nhttp_port {plain}\nhttps_port {secure}\n"
    config = folder / "Caddyfile"
    if sites.startswith("{\n"):  # the docs have global options already
        config.write_text(sites.replace("{\n", f"{{\n{options}", 1))
    else:
        config.write_text(f"{{\n{options}}}\n\n{sites}")
    program = find_program("caddy")
    assert program
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    words = [program, "run", "--config", str(config), "--adapter", "caddyfile"]
    with running(words, folder, secure, environment):
        yield


class Public(NamedTuple):
    """The public address of a proxy."""

    origin: str
    authority: Path
    """The certificate to trust."""
    plain: int
    """The port without TLS."""


class Upstream(NamedTuple):
    """An `assent serve` of a folder with one run."""

    process: Process
    port: int
    work: LabellingRun

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass
class Site:
    """An `assent serve` behind a proxy, as users see it."""

    public: Public
    upstream: Upstream
    base: str = ""
    """The path below the host."""

    @property
    def work(self) -> LabellingRun:
        return self.upstream.work

    @property
    def origin(self) -> str:
        return self.public.origin

    @property
    def url(self) -> str:
        """Return the public address, without a slash at the end."""
        return self.origin + self.base

    @cached_property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.public.authority))

    def browser(self, address: str = "127.0.0.1") -> httpx.Client:
        """Return a client like a browser at an address of this machine; it stores cookies and follows no redirect."""
        transport = httpx.HTTPTransport(verify=self.trust, local_address=address)
        return httpx.Client(transport=transport, headers={**BROWSER, "origin": self.origin}, timeout=2 * PATIENCE)

    def at(self, path: str) -> str:
        """Return the address of a page of the run."""
        return f"{self.url}/r/{self.work.name}{path}"

    @property
    def first_link(self) -> str:
        """Return the set-up link with the public address in front, as documented."""
        link = re.search(r"create the owner account at (\S+)", self.upstream.process.error)
        assert link
        assert link[1].startswith(f"http://{self.upstream.address}{self.base}/join/")
        return link[1].replace(f"http://{self.upstream.address}", self.origin)

    @cached_property
    def owner_joined(self) -> tuple[httpx.Client, httpx.Response]:
        """Return the owner's browser, and the response to the form of the set-up link."""
        client = self.browser()
        page = client.get(self.first_link)
        assert page.status_code == 200, page.text
        action = re.search(r'<form method="post" action="([^"]+)" class="stack">', page.text)
        assert action
        return client, client.post(urljoin(self.first_link, action[1]), data={"name": "Olga", "password": PASSWORD})

    @property
    def owner(self) -> httpx.Client:
        client, response = self.owner_joined
        assert response.status_code == 303, response.text
        return client

    def invite(self, count: int = 1, role: str = "labeller") -> list[str]:
        """Create invite links as the owner, and return them."""
        page = self.owner.post(self.at("/invite"), data={"role": role, "count": count})
        assert page.status_code == 200, page.text
        return re.findall(r"<code>([^<]*/join/[^<]*)</code>", page.text)

    @cached_property
    def token(self) -> str:
        """Return an API token of the owner."""
        page = self.owner.post(self.at("/token"), data={"note": "a test"})
        (token,) = re.findall(r"<p><code>([^<]+)</code>", page.text)
        return str(token)


@contextmanager
def run_server(folder: Path, *words: str) -> Iterator[Upstream]:
    """Run `assent serve` on a folder with one run, which has two tasks and a small model for the chat."""
    root = folder / "runs"
    root.mkdir(parents=True)
    work = make_run(root, make_task("comparison"), make_task("comparison"), model=str(tiny.make(folder / "model")))
    port = free_port()
    process = command("serve", str(root), *words, "--port", str(port), log=root / "log")
    try:
        wait_for(port, lambda: process.status is None, lambda: process.output)
        yield Upstream(process, port, work)
    finally:
        process.send(signal.SIGTERM)
        process.wait(30)


def in_server(location: str) -> str:
    """Return a `location` of the docs inside the `server` block of the docs."""
    head, _, _ = snippet("Behind nginx", "nginx").rpartition("    location / {")
    return head + location + "}\n"


@contextmanager
def run_proxy(
    folder: Path, setup: str, upstream: str, certificate: Path, change: Callable[[str], str] = str
) -> Iterator[Public]:
    """Run the proxy under a heading of the docs, after `change` has edited its configuration."""
    plain, secure = free_port(), free_port()
    tls = {f"/etc/ssl/lab.example.org/{name}.pem": certificate / f"{name}.pem" for name in ("fullchain", "privkey")}
    names = {"lab.example.org": "localhost", "127.0.0.1:8000": upstream}
    folder.mkdir()
    if "nginx" in setup:
        text = snippet(setup, "nginx")
        text = text if text.startswith("server") else in_server(text)
        names |= {"listen 80;": f"listen {plain};", "listen 443 ssl;": f"listen {secure} ssl;"}
        proxy = nginx(folder, change(replace_all(text, {**names, **tls})), secure)
        authority = certificate / "fullchain.pem"
    else:
        text = snippet(setup, "caddyfile")
        own = "tls " in text
        proxy = caddy(folder, change(replace_all(text, {**names, **(tls if own else {})})), plain, secure)
        authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        authority = certificate / "fullchain.pem" if own else authority
    with proxy:
        yield Public(f"https://localhost:{secure}", authority, plain)


def root_path(words: Sequence[str]) -> str:
    return words[words.index("--root-path") + 1] if "--root-path" in words else ""


@contextmanager
def run_site(folder: Path, setup: str, certificate: Path, change: Callable[[str], str] = str) -> Iterator[Site]:
    """Run the command and the proxy under a heading of the docs."""
    words = flags(setup)
    with (
        run_server(folder, *words) as upstream,
        run_proxy(folder / "p", setup, upstream.address, certificate, change) as at,
    ):
        yield Site(at, upstream, root_path(words))


SETUPS = ("Behind nginx", "Behind nginx, below a path", "Behind Caddy", "Behind Caddy, below a path")


@pytest.fixture(scope="module", params=SETUPS)
def site(request: pytest.FixtureRequest, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_site(tmp_path_factory.mktemp("site"), request.param, certificate) as site:
        yield site


# Behind real proxies


@pytest.mark.proxy
def test_setup_link_behind_proxy_sets_a_secure_cookie(site: Site) -> None:
    client, response = site.owner_joined
    assert (response.status_code, response.headers["location"]) == (303, f"{site.base}/")
    words = {word.strip().lower() for word in response.headers["set-cookie"].split(";")}
    assert {"secure", "httponly", "samesite=lax", f"path={site.base or '/'}"} <= words
    home = client.get(f"{site.url}/")
    assert home.status_code == 200
    assert f'href="{site.base}/r/{site.work.name}/admin"' in home.text


@pytest.mark.proxy
def test_invite_link_has_the_public_address(site: Site) -> None:
    (link,) = site.invite()
    assert link.startswith(f"{site.url}/join/")
    with site.browser() as client:
        assert client.get(link).status_code == 200
        joined = client.post(link, data={"name": "Lea", "password": PASSWORD})
        assert (joined.status_code, joined.headers["location"]) == (303, f"{site.base}/r/{site.work.name}/guidelines")
        assert client.get(urljoin(link, joined.headers["location"])).status_code == 200


@pytest.mark.proxy
def test_invites_api_returns_the_public_address(site: Site) -> None:
    program = httpx.Client(verify=site.trust, headers={"authorization": f"Bearer {site.token}"})
    created = program.post(f"{site.url}/api/invites", json={"external_ids": ["one"]})
    assert created.status_code == 200, created.text
    assert created.json()[0]["link"].startswith(f"{site.url}/join/")
    assert program.get(f"{site.url}/openapi.json").json().get("servers") == (
        [{"url": site.base}] if site.base else None
    )


@pytest.mark.proxy
def test_every_url_of_every_page_is_below_the_root_path(site: Site) -> None:
    pages = [f"{site.url}/", *map(site.at, ("/label", "/admin", "/progress", "/chat", "/guidelines", "/review"))]
    seen: set[str] = set()
    while pages:
        page = pages.pop()
        response = site.owner.get(page)
        assert response.status_code == 200, f"{page}: {response.status_code}"
        for kind, written in re.findall(r'\b(href|src|action)="([^"#]+)"', response.text):
            address = urljoin(page, html.unescape(written))
            if address in seen:
                continue
            seen.add(address)
            assert address.startswith(f"{site.url}/"), f"{page} leads to {written}"
            if kind == "action":
                assert site.owner.request("OPTIONS", address).status_code == 405, f"{page}: no form goes to {written}"
            elif "text/html" in site.owner.get(address).headers["content-type"]:
                pages.append(address)
    assert len(seen) > 15


@pytest.mark.proxy
def test_static_files_are_served_unchanged(site: Site) -> None:
    for path in (path for path in STATIC.rglob("*") if path.is_file()):
        response = site.owner.get(f"{site.url}/static/{path.relative_to(STATIC)}")
        assert (response.status_code, response.content) == (200, path.read_bytes())


@pytest.mark.proxy
def test_sign_in_form_returns_to_the_requested_page(site: Site) -> None:
    with site.browser() as client:
        (link,) = site.invite()
        client.post(link, data={"name": "Max", "password": PASSWORD})
        out = client.post(f"{site.url}/logout")
        assert (out.status_code, out.headers["location"]) == (303, f"{site.base}/login")
        assert COOKIE not in client.cookies
        sent = client.get(site.at("/label"))
        assert sent.status_code == 303
        form = client.get(urljoin(site.url, sent.headers["location"]))
        assert f'action="{site.base}/login"' in form.text
        (after,) = re.findall(r'name="next" value="([^"]*)"', form.text)
        back = client.post(f"{site.url}/login", data={"name": "Max", "password": PASSWORD, "next": after})
        assert (back.status_code, back.headers["location"]) == (303, urlsplit(site.at("/label")).path)
        assert client.get(site.at("/label")).status_code == 200


@pytest.mark.proxy
def test_http_redirects_to_https_and_root_path_to_home(site: Site) -> None:
    with site.browser() as client:
        plain = client.get(f"http://localhost:{site.public.plain}{site.base}/login")
        assert plain.status_code in (301, 308)
        to = urlsplit(plain.headers["location"])
        assert (to.scheme, to.hostname, to.path) == ("https", "localhost", f"{site.base}/login")
        first = client.get(site.url, follow_redirects=True)
        assert (first.status_code, first.url.path) == (200, f"{site.base}/login")


@pytest.mark.proxy
@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES - 100, 422), (MAX_BODY_BYTES + 1, 413)])
def test_proxy_passes_requests_up_to_the_body_limit(site: Site, size: int, status: int) -> None:
    headers = {"content-type": "application/json"}
    assert site.owner.post(site.at("/api/chat"), content=b" " * size, headers=headers).status_code == status


def streamed(site: Site, client: httpx.Client) -> bool:
    """Return whether the first word of a chat response arrives in the first half of its time."""
    talk = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_new_tokens": 24}

    def comes_early() -> bool:
        times = [time.monotonic()]
        lines = list[str]()
        with client.stream("POST", site.at("/api/chat"), json=talk) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                lines.append(line)
                times.append(time.monotonic())
        assert json.loads(lines[-1]).get("done"), lines[-1]
        return times[1] - times[0] < (times[-1] - times[0]) / 2

    return any(comes_early() for _ in range(10))  # the first response waits for the model; a busy machine is slow


@pytest.mark.proxy
def test_chat_streams_through_the_proxy(site: Site) -> None:
    assert streamed(site, site.owner)


@pytest.mark.proxy
def test_head_through_the_proxy_matches_get(site: Site) -> None:
    for path in ("/", "/login", "/static/assent.css"):
        with site.browser() as client:
            head, get = client.head(f"{site.url}{path}"), client.get(f"{site.url}{path}")
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers.get("location") == get.headers.get("location")


@pytest.mark.proxy
def test_client_cannot_forge_forwarded_headers(site: Site) -> None:
    with site.browser("127.0.0.3") as client, site.browser("127.0.0.4") as other:
        tries = [
            client.get(f"{site.url}/join/wrong", headers={"x-forwarded-for": f"10.1.1.{n}"}).status_code
            for n in range(21)
        ]
        assert tries == [403] * 20 + [429]
        assert other.get(f"{site.url}/join/wrong").status_code == 403
    forged = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "authorization": f"Bearer {site.token}"}
    created = httpx.post(f"{site.url}/api/invites", verify=site.trust, headers=forged, json={})
    assert created.json()[0]["link"].startswith(f"{site.url}/join/")


@pytest.mark.proxy
def test_own_certificate_behind_caddy(certificate: Path, tmp_path: Path) -> None:
    with run_server(tmp_path, *flags("Behind Caddy")) as upstream:
        setup = "Behind Caddy, with your own certificate"
        with run_proxy(tmp_path / "p", setup, upstream.address, certificate) as public:
            site = Site(public, upstream)
            assert "Secure" in site.owner_joined[1].headers["set-cookie"]
            assert site.invite()[0].startswith(f"{site.url}/join/")


@pytest.mark.proxy
@pytest.mark.parametrize("setup", ["Behind nginx, below a path", "Behind Caddy, below a path"])
def test_proxy_may_strip_the_root_path(setup: str, certificate: Path, tmp_path: Path) -> None:
    def remove(text: str) -> str:
        caddy_directive = re.sub(r"reverse_proxy /lab/\* (\S+)", r"handle_path /lab/* {\n\treverse_proxy \1\n}", text)
        return re.sub(r"(proxy_pass \S+);", r"\1/;", caddy_directive)

    with run_site(tmp_path, setup, certificate, remove) as site:
        _, joined = site.owner_joined
        assert (joined.status_code, joined.headers["location"]) == (303, "/lab/")
        assert site.owner.get(site.at("/admin")).status_code == 200
        assert site.owner.get(f"{site.url}/static/label.js").status_code == 200


# In a browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


@pytest.mark.proxy
@pytest.mark.browser
def test_browser_labels_and_chats_through_the_proxy(site: Site, chromium: Browser) -> None:
    (link,) = site.invite()
    context = chromium.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
    nobody = Account("", "", "")
    screen = Screen(context.new_page(), Server(site.work.folder.parent, site.url), site.work, nobody)
    page = screen.page
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    before = len(site.work.feedback())
    page.goto(link)
    page.get_by_label("Name").fill("Bea")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="Start").click()
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector("#controls:not([hidden])")
    screen.submit("1")
    screen.stored(before + 1)
    page.get_by_role("link", name="Chat").click()
    page.wait_for_selector("body[data-ready]")
    page.get_by_label("Your message").fill("Tell me a story.")
    page.get_by_role("button", name="Send").click()
    page.wait_for_function("() => document.querySelectorAll('#conversation button').length > 0")
    screen.check()
    context.close()
    assert [call for call in calls if not call.startswith(f"{site.url}/")] == []
    assert {site.at("/api/judgements"), site.at("/api/chat")} <= {call.partition("?")[0] for call in calls}


# What you see, and what is missing


@dataclass
class ReducedSetup:
    """A server with accounts; each test runs nginx in front of it with a part of the configuration removed."""

    upstream: Upstream
    certificate: Path
    place: Path
    admin: Account = field(init=False)
    token: str = field(init=False)

    def __post_init__(self) -> None:
        server = Server(self.upstream.work.folder.parent)
        self.admin = server.user_with_role("admin")
        self.token = server.accounts.credentials.issue_token(server.accounts.get(self.admin.id), "")

    @contextmanager
    def site(self, old: str, new: str = "", setup: str = "Behind nginx") -> Iterator[Site]:
        """Run the setup of the docs with a part of its text replaced."""

        def change(text: str) -> str:
            assert re.search(old, text)
            return re.sub(old, new, text)

        folder = self.place / str(free_port())
        with run_proxy(folder, setup, self.upstream.address, self.certificate, change) as public:
            yield Site(public, self.upstream)

    def signed_in(self, site: Site, address: str = "127.0.0.1") -> httpx.Client:
        client = site.browser(address)
        client.cookies.set(COOKIE, self.admin.session)
        return client


@pytest.fixture(scope="module")
def reduced_setup(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReducedSetup]:
    folder = tmp_path_factory.mktemp("reduced_setup")
    with run_server(folder, *flags("Behind nginx")) as upstream:
        yield ReducedSetup(upstream, certificate, folder)


def assert_in_docs(words: str) -> None:
    """Fail if the table of the docs does not contain these words."""
    _, _, after = PAGE.read_text().partition("## What you see, and what is missing")
    assert words in after.partition("\n## ")[0]


@pytest.mark.proxy
def test_missing_host_header_is_refused_with_both_addresses(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"proxy_set_header (Host|X-Forwarded-Host) \$http_host;") as site:
        refused = site.browser().post(f"{site.url}/login", data={"name": "Olga", "password": PASSWORD})
    assert refused.status_code == 403
    words = f"cross-site request refused: Origin is {site.origin}, Host is {reduced_setup.upstream.address}"
    assert refused.text.startswith(words)
    assert_in_docs(
        words.replace(site.origin, "https://lab.example.org").replace(reduced_setup.upstream.address, "127.0.0.1:8000")
    )


@pytest.mark.proxy
def test_x_forwarded_host_is_enough(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"proxy_set_header Host \$http_host;") as site:
        page = reduced_setup.signed_in(site).post(site.at("/invite"), data={"role": "labeller"})
    assert f"<code>{site.url}/join/" in page.text


@pytest.mark.proxy
def test_host_header_without_port_is_refused(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"\$http_host", "$host") as site:
        refused = site.browser().post(f"{site.url}/login", data={"name": "Olga", "password": PASSWORD})
    assert (refused.status_code, "Host is localhost;" in refused.text) == (403, True)
    assert_in_docs("Host is lab.example.org")


@pytest.mark.proxy
def test_missing_x_forwarded_proto_makes_http_links(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"proxy_set_header X-Forwarded-Proto \$scheme;") as site:
        headers = {"authorization": f"Bearer {reduced_setup.token}"}
        created = httpx.post(f"{site.url}/api/invites", verify=site.trust, headers=headers, json={})
        assert created.json()[0]["link"].startswith("http://localhost")
        page = reduced_setup.signed_in(site).post(site.at("/invite"), data={"role": "labeller"})
        assert f"<code>{site.url}/join/" in page.text, "a browser says by itself that it is at https://"


@pytest.mark.proxy
def test_missing_x_forwarded_for_shares_one_rate_limit(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"proxy_set_header X-Forwarded-For \$remote_addr;") as site:
        client, other = site.browser("127.0.0.3"), site.browser("127.0.0.4")
        tries = [client.get(f"{site.url}/join/wrong").status_code for _ in range(20)]
        refused = other.get(f"{site.url}/join/wrong")
    assert (tries, refused.status_code) == ([403] * 20, 429)
    assert "too many attempts" in refused.text
    assert_in_docs("`too many attempts` for everybody at once")


@pytest.mark.proxy
def test_proxy_buffering_delays_the_chat_stream(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"proxy_buffering off;") as site:
        assert not streamed(site, reduced_setup.signed_in(site))


@pytest.mark.proxy
def test_default_client_max_body_size_refuses_large_bodies(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"client_max_body_size 2m;") as site:
        headers = {"content-type": "application/json"}
        refused = reduced_setup.signed_in(site).post(
            site.at("/api/chat"), content=b" " * (MAX_BODY_BYTES - 100), headers=headers
        )
    assert (refused.status_code, "413 Request Entity Too Large" in refused.text) == (413, True)
    assert_in_docs("413 Request Entity Too Large")


@pytest.mark.proxy
def test_nginx_reports_a_stopped_server(reduced_setup: ReducedSetup) -> None:
    with reduced_setup.site(r"proxy_pass \S+;", f"proxy_pass http://127.0.0.1:{free_port()};") as site:
        refused = site.browser().get(f"{site.url}/login")
    assert (refused.status_code, "502 Bad Gateway" in refused.text) == (502, True)
    assert_in_docs("502 Bad Gateway")


@pytest.mark.proxy
def test_missing_root_path_breaks_pages_below_a_path(reduced_setup: ReducedSetup) -> None:
    setup = "Behind nginx, below a path"
    with reduced_setup.site(r"\Z", setup=setup) as site:
        assert site.browser().get(f"{site.origin}/lab/login").status_code == 404
    with reduced_setup.site(r"(proxy_pass \S+);", r"\1/;", setup=setup) as site:
        page = site.browser().get(f"{site.origin}/lab/login")
        assert (page.status_code, 'href="/static/assent.css"' in page.text) == (200, True)
        assert site.browser().get(f"{site.origin}/static/assent.css").status_code == 404


ELSEWHERE = "In a container, or with the proxy on another machine"


@pytest.mark.proxy
@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_forwarded_allow_ips_trusts_a_remote_proxy(named: bool, certificate: Path, tmp_path: Path) -> None:
    words = [word.replace("10.0.0.2", UNTRUSTED_ADDRESS) for word in flags(ELSEWHERE)]
    if not named:
        words = words[: words.index("--forwarded-allow-ips")]

    def bind(text: str) -> str:
        return text.replace("proxy_pass", f"proxy_bind {UNTRUSTED_ADDRESS};\n        proxy_pass")

    with (
        run_server(tmp_path, *words) as upstream,
        run_proxy(tmp_path / "p", "Behind nginx", upstream.address, certificate, bind) as public,
    ):
        site = Site(public, upstream)
        for n in (3, 4):
            with site.browser(f"127.0.0.{n}") as client:
                statuses = [client.get(f"{site.url}/join/wrong").status_code for _ in range(20)]
                assert statuses == [403 if named or n == 3 else 429] * 20
        warnings = [line for line in upstream.process.error.splitlines() if "is not trusted" in line]
    sends = f"{UNTRUSTED_ADDRESS} sends x-forwarded-host, x-forwarded-for, x-forwarded-proto but is not trusted"
    start = f"--behind-proxy --forwarded-allow-ips {UNTRUSTED_ADDRESS}"
    assert warnings == ([] if named else [f"{sends}; if it is your proxy, start with {start}"])
    assert_in_docs(sends.replace(UNTRUSTED_ADDRESS, "10.0.0.2"))
    assert_in_docs(start.replace(UNTRUSTED_ADDRESS, "10.0.0.2"))


SLOW_REQUESTS = {
    "no request": b"",
    "half a header": b"POST /login HTTP/1.1\r\nhost: localhost\r\n",
    "half a body": b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1234",
}


@pytest.mark.proxy
@pytest.mark.parametrize("setup", ["Behind nginx", "Behind Caddy"])
def test_proxy_closes_slow_requests(setup: str, certificate: Path, tmp_path: Path) -> None:
    def shorten(text: str) -> str:
        assert text.count(" 20s") == 2
        return text.replace(" 20s", " 1s")

    with run_site(tmp_path, setup, certificate, shorten) as site:
        port = urlsplit(site.origin).port
        assert port
        connections = {}
        start = time.monotonic()
        for name, data in SLOW_REQUESTS.items():
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            connections[name] = site.trust.wrap_socket(connection, server_hostname="localhost")
            connections[name].sendall(data)
        for name, connection in connections.items():
            while connection.recv(1000):
                pass
            assert 0.5 < time.monotonic() - start < 10, name
            connection.close()
        assert site.browser().get(f"{site.url}/login").status_code == 200


# Without a proxy, and as a service


def test_own_certificate_without_a_proxy(certificate: Path, tmp_path: Path) -> None:
    words = flags("Without a proxy, with your own certificate")
    words = [str(certificate / word) if word.endswith(".pem") else word for word in words]
    assert words[2:4] == ["--port", "8443"]
    with run_server(tmp_path, *words[:2], *words[4:]) as upstream:
        site = Site(Public(f"https://localhost:{upstream.port}", certificate / "fullchain.pem", 0), upstream)
        link = re.search(r"create the owner account at (\S+)", upstream.process.error)
        assert link
        assert link[1].startswith("https://")
        with site.browser() as client:
            joined = client.post(site.url + urlsplit(link[1]).path, data={"name": "Olga", "password": PASSWORD})
        assert (joined.status_code, "Secure" in joined.headers["set-cookie"]) == (303, True)


def test_systemd_service_starts_and_stops(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(snippet("As a service of systemd", "ini"))
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.startswith(service["WorkingDirectory"])
    assert words[:2] == ["serve", "runs"]
    with run_server(tmp_path, *words[2:]) as upstream, socket.create_connection(("127.0.0.1", upstream.port)):
        begun = time.monotonic()
        upstream.process.send(signal.SIGTERM)
        assert upstream.process.wait(30) in (0, -signal.SIGTERM), "which systemd takes for success"
        assert time.monotonic() - begun < 8
    assert main(["serve", str(tmp_path / "nothing")]) == int(service["RestartPreventExitStatus"])


def test_hundred_simultaneous_connections(tmp_path: Path) -> None:
    with run_server(tmp_path) as upstream:
        server = Server(upstream.work.folder.parent)
        owner = server.accounts.get(server.user_with_role("owner").id)
        links = [
            f"http://{upstream.address}/join/{secret}"
            for secret in server.accounts.invite(owner, "labeller", [""] * 100)
        ]
        together = threading.Barrier(len(links))

        def opened(link: str) -> int:
            together.wait()
            return httpx.get(link, timeout=2 * PATIENCE).status_code

        with ThreadPoolExecutor(len(links)) as pool:
            assert set(pool.map(opened, links)) == {200}
