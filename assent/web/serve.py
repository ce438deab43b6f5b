"""`assent serve RUN`: a run, or a folder of runs, on pages in a browser."""

import fcntl
import ipaddress
import logging
import re
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Annotated, ClassVar

from annotated_types import Interval

from assent.config import read_recipe
from assent.errors import AssentError
from assent.web.workspace import Office

ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")  # a browser takes /. and /.. out of an address
OWN = ("api", "join", "login", "logout", "openapi.json", "r", "static", "account", "reset")
"""First parts of the addresses of the server's own pages."""


@dataclass(frozen=True)
class Serve:
    """Serve a run, or a folder of runs, to people's browsers."""

    tool: ClassVar[bool] = True

    folder: Path = Path("runs")
    """A run's folder, or a folder of runs; the first word of the command."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 for all of this machine's."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000
    """The port; 0 takes a free one."""
    database: str = ""
    """Where accounts and the feedback of a single run lie, as a database URL; empty: files in the folder."""
    certificate: str = ""
    """A file with a TLS certificate and its chain; with it goes `private_key`."""
    private_key: str = ""
    """The certificate's private key."""
    behind_proxy: bool = False
    """A reverse proxy in front speaks TLS and sends X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host or Host."""
    forwarded_allow_ips: str = "127.0.0.1, ::1"
    """Addresses and networks from which that proxy calls, with commas; the forwarded headers of others are ignored."""
    root_path: str = ""
    """The path below the host at which the proxy serves it, such as /lab; empty: the host is its own."""
    insecure: bool = False
    """Serve other machines without TLS: passwords and answers can be read on the way."""

    def __call__(self) -> None:
        """Serve until Ctrl-C.

        Raises:
            AssentError: no run there, an address in use, or one that others reach without TLS.
        """
        import uvicorn

        from assent.web.app import make_app
        from assent.web.connection import Connection, lines
        from assent.web.proxy import Proxied, networks

        self._demand_certificate()
        office = self.office()
        alone = self._alone()
        taken = self._listen()
        address = f"{'https' if self.certificate else 'http'}://{_shown(self.host)}:{taken.getsockname()[1]}"
        office.address, office.root_path = address, self.root_path
        for name in office.runs():
            office.project(name)
        if secret := office.people.setup():
            print(f"first start: make yourself the owner at {address}{self.root_path}/join/{secret}", file=sys.stderr)
            print("(the link works once, for a day; a new start gives a new one)", file=sys.stderr)
        print(f"serving {', '.join(office.runs()) or 'no runs yet'} at {address} (Ctrl-C stops)", file=sys.stderr)
        sys.stderr.flush()
        Thread(target=_nightly, args=(office,), daemon=True).start()
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(
            Proxied(make_app(office), networks(self.forwarded_allow_ips) if self.behind_proxy else (), self.root_path),
            log_level="warning", access_log=False, server_header=False, date_header=False, proxy_headers=False,
            ssl_certfile=self.certificate or None, ssl_keyfile=self.private_key or None,
            timeout_graceful_shutdown=3, limit_concurrency=lines(), http=Connection, ws="none",
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[taken])
        except KeyboardInterrupt:
            pass
        finally:
            office.close()
            taken.close()
            alone.close()

    def office(self) -> Office:
        """What is to be served."""
        if not self.folder.is_dir():
            raise AssentError(f"no run at {self.folder}: 'assent generate --run {self.folder}' makes one")
        recipe = self.folder / "recipe.toml"
        kept = str(read_recipe(recipe).get("database", "")) if recipe.exists() else self.database
        if self.database and kept != self.database:
            raise AssentError(f"{self.folder} is a run with database = '{kept}': leave --database out")
        return Office(self.folder, self.database)

    def check(self) -> None:
        """Refuse what would let others listen in, and what no proxy could mean."""
        from assent.web.proxy import networks

        if bool(self.certificate) != bool(self.private_key):
            raise AssentError("a certificate goes with its private_key: give both")
        if self.database and "://" not in self.database:
            raise AssentError(f"no database URL: '{self.database}'; write postgresql+psycopg://user@host/name")
        networks(self.forwarded_allow_ips)
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            raise AssentError(f"no path below a host: '{self.root_path}'; write it as /lab, without a slash at the end")
        if self.root_path.split("/")[1:2] and self.root_path.split("/")[1] in OWN:
            raise AssentError(f"{self.root_path} begins like a page of the server: take another path")
        if not (_is_local(self.host) or self.certificate or self.behind_proxy or self.insecure):
            raise AssentError(
                f"others can reach {self.host}, and nothing would be encrypted: give --certificate and --private-key, "
                "--behind-proxy if a proxy speaks TLS, or --insecure if you know that nobody listens"
            )

    def _demand_certificate(self) -> None:
        try:
            if self.certificate:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            files = f"{self.certificate} with the key {self.private_key}"
            raise AssentError(f"no certificate {files}: {error.strerror or error}; name two PEM files") from None

    def _alone(self) -> IO[str]:
        """Hold the folder: a second server would take the set-up link and the address from the first.

        Raises:
            AssentError: another one holds it.
        """
        held = (self.folder / ".serving").open("a+")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.close()
            raise AssentError(f"{self.folder} is served already: stop that server, or use it") from None
        return held

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol named, asyncio turns Nagle's algorithm off, which costs 40 ms an answer.
        taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((self.host, self.port))
        except OSError as error:
            taken.close()
            raise AssentError(f"cannot listen at {self.host}:{self.port}: {error.strerror}; try --port 0") from None
        return taken


def _nightly(office: Office) -> None:
    while True:
        try:
            office.back_up()
        except (AssentError, OSError) as error:
            print(f"assent: no backup: {error}", file=sys.stderr)
        time.sleep(3600)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(host: str) -> str:
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"[{host}]" if ":" in host else host
