"""`assent serve`: a web server for labelling, review and progress of a run or a folder of runs."""

import fcntl
import ipaddress
import logging
import re
import resource
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Annotated

from annotated_types import Interval

from assent.config import read_recipe
from assent.errors import AssentError
from assent.web.workspace import Workspace

ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")  # browsers remove /. and /.. from an address
RESERVED = ("api", "join", "login", "logout", "openapi.json", "r", "static", "account", "reset")
"""First parts of the paths of the server's own pages."""
KEEP_ALIVE_SECONDS = 5
"""Seconds for which an idle connection stays open after a response."""
MAX_HEADER_BYTES = 16 * 1024
"""Bytes of a request line and its headers."""


@dataclass(frozen=True)
class Serve:
    """Serve a run, or a folder of runs, to web browsers."""

    folder: Path = Path("runs")
    """A run's folder, or a folder of runs; the first word of the command."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for all addresses of this machine."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000
    """The port; 0 chooses a free one."""
    database: str = ""
    """Database URL of the accounts, and of the feedback of a single run; empty: files in the folder."""
    certificate: str = ""
    """A PEM file with a TLS certificate and its chain; needs `private_key`."""
    private_key: str = ""
    """A PEM file with the private key of the certificate."""
    behind_proxy: bool = False
    """A reverse proxy terminates TLS and sends X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host or Host."""
    forwarded_allow_ips: str = "127.0.0.1, ::1"
    """Addresses and networks of the proxy, separated by commas; forwarded headers of others are ignored."""
    root_path: str = ""
    """The path below the host at which the proxy serves the pages, such as /lab; empty: the root."""
    insecure: bool = False
    """Serve other machines without TLS, so that passwords and judgements can be read on the network."""

    def __call__(self) -> None:
        """Serve until Ctrl-C.

        Raises:
            AssentError: no run in the folder, an address in use, or one that others reach without TLS.
        """
        import uvicorn

        from assent.web.app import make_app
        from assent.web.proxy import ProxyMiddleware, parse_networks

        self._check_certificate()
        workspace = self.workspace()
        lock = self._lock_folder()
        listener = self._listen()
        address = f"{'https' if self.certificate else 'http'}://{_host_in_url(self.host)}:{listener.getsockname()[1]}"
        workspace.address = address
        workspace.root_path = self.root_path
        for name in workspace.runs():
            workspace.project(name)
        if secret := workspace.accounts.issue_setup():
            print(f"first start: create the owner account at {address}{self.root_path}/join/{secret}", file=sys.stderr)
            print(
                "(the link works once, for a day; each start makes a new link until there is an owner)", file=sys.stderr
            )
        print(f"serving {', '.join(workspace.runs()) or 'no runs yet'} at {address} (Ctrl-C stops)", file=sys.stderr)
        sys.stderr.flush()
        Thread(target=_back_up_hourly, args=(workspace,), daemon=True).start()
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        proxies = parse_networks(self.forwarded_allow_ips) if self.behind_proxy else ()
        config = uvicorn.Config(
            ProxyMiddleware(make_app(workspace), proxies, self.root_path),
            log_level="warning", access_log=False, server_header=False, date_header=False, proxy_headers=False,
            ssl_certfile=self.certificate or None, ssl_keyfile=self.private_key or None,
            timeout_graceful_shutdown=3, limit_concurrency=max_connections(),
            timeout_keep_alive=KEEP_ALIVE_SECONDS, h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            http="h11", ws="none",
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            workspace.close()
            listener.close()
            lock.close()

    def workspace(self) -> Workspace:
        """Return the workspace to serve."""
        if not self.folder.is_dir():
            raise AssentError(f"no run at {self.folder}; make one with 'assent generate --run {self.folder}'")
        recipe = self.folder / "recipe.toml"
        run_database = str(read_recipe(recipe).get("database", "")) if recipe.exists() else self.database
        if self.database and run_database != self.database:
            raise AssentError(f"{self.folder} is a run with database = '{run_database}'; leave --database out")
        return Workspace(self.folder, self.database)

    def check(self) -> None:
        """Refuse settings that serve others without encryption, or that cannot work behind a proxy."""
        from assent.web.proxy import parse_networks

        if bool(self.certificate) != bool(self.private_key):
            raise AssentError("--certificate needs --private-key and the reverse; give both")
        if self.database and "://" not in self.database:
            raise AssentError(f"invalid database URL '{self.database}'; write postgresql+psycopg://user@host/name")
        parse_networks(self.forwarded_allow_ips)
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            raise AssentError(f"invalid --root-path '{self.root_path}'; write it as /lab, without a slash at the end")
        if self.root_path.split("/")[1:2] and self.root_path.split("/")[1] in RESERVED:
            raise AssentError(f"--root-path {self.root_path} begins like a page of the server; choose another path")
        if not (_is_local(self.host) or self.certificate or self.behind_proxy or self.insecure):
            raise AssentError(
                f"other machines can reach {self.host} without TLS; give --certificate and --private-key, "
                "--behind-proxy if a proxy terminates TLS, or --insecure on a network that you trust"
            )

    def _check_certificate(self) -> None:
        try:
            if self.certificate:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            files = f"{self.certificate} with the key {self.private_key}"
            raise AssentError(
                f"cannot load certificate {files}: {error.strerror or error}; name two PEM files"
            ) from None

    def _lock_folder(self) -> IO[str]:
        """Lock the folder: a second server would replace the set-up link and the address of the first.

        Raises:
            AssentError: another server has locked it.
        """
        lock = (self.folder / ".serving").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise AssentError(f"another server is serving {self.folder}; stop it, or use it") from None
        return lock

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol named, asyncio turns Nagle's algorithm off, which costs 40 ms a response.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise AssentError(f"cannot listen on {self.host}:{self.port}: {error.strerror}; try --port 0") from None
        return listener


def max_connections() -> int:
    """Return how many connections may be open at once: at most 2,000, and 200 less than the limit on open files.

    The limit on open files is raised to 4,096 where the system allows it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return 2000 if soft == resource.RLIM_INFINITY else max(20, min(2000, soft - 200))


def _back_up_hourly(workspace: Workspace) -> None:
    while True:
        try:
            workspace.back_up()
        except (AssentError, OSError) as error:
            print(f"assent: no backup: {error}", file=sys.stderr)
        time.sleep(3600)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_in_url(host: str) -> str:
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"[{host}]" if ":" in host else host
