"""What stands before every page: headers that forbid, origins, sizes, rates; and who is asking, and may they."""

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from threading import Lock
from typing import Any

from fastapi import HTTPException, Request

from assent.labelling.accounts import Person
from assent.web.proxy import unmapped
from assent.web.workspace import Office

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "assent_session"
LARGEST = 2 * 2**20
"""Bytes of a request."""
LARGEST_FORM = 2**19
"""Bytes of a form, which takes longer to read."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; "
    "trusted-types assent"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Middleware: every response gets the headers; a request from elsewhere, or too large a one, gets no further."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        begun = False

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                there = {name.lower() for name, _ in message["headers"]}
                added = {**HEADERS, **({} if b"cache-control" in there else {"cache-control": "no-store"})}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        most = LARGEST_FORM if "form" in headers.get("content-type", "") else LARGEST
        if why := _refusal(scope["method"], headers, most):
            await _refuse(guarded, *why)
            return
        taken = 0

        async def measured() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"such a request has at most {most} bytes")
            return message

        try:
            await self.app(scope, measured, guarded)
        except Exception:
            logging.getLogger("assent.web").exception("%s %s", scope["method"], scope["path"])
            if begun:
                raise
            await _refuse(guarded, 500, "the server has made a mistake, which its log tells")


def _refusal(method: str, headers: MutableMapping[str, str], most: int) -> tuple[int, str] | None:
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
        return 413, f"such a request has at most {most} bytes"
    if method in SAFE or headers.get("authorization", "").startswith("Bearer "):
        return None  # a token is never sent by a browser on its own
    site, origin, host = headers.get("sec-fetch-site", ""), headers.get("origin", ""), headers.get("host", "")
    if site not in ("", "same-origin", "none"):
        return 403, "this came from another site"
    if origin and origin.partition("://")[2] != host:
        proxy = (
            "if a reverse proxy stands in front, it does not pass the host on: let it send Host or X-Forwarded-Host "
            "(nginx: proxy_set_header Host $http_host) and start with --behind-proxy"
        )
        return 403, f"this came from another site: Origin is {origin[:200]}, Host is {host[:200]}; {proxy}"
    return None


async def _refuse(send: Send, status: int, why: str) -> None:
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
    await send(start)
    await send({"type": "http.response.body", "body": why.encode()})


class Rate:
    """So many in a window of time, for each key; forgets the oldest keys first.

    `demand` counts; who succeeds is not counted if `forgive` follows.
    """

    def __init__(self, count: int, seconds: float, keys: int = 10_000) -> None:
        self.count, self.seconds, self.keys = count, seconds, keys
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = Lock()  # requests are answered in threads

    def demand(self, key: str) -> None:
        """Count one; raise 429 if there were too many before."""
        before, wait = self._count(key, 1)
        self._refuse(before, wait)

    def check(self, key: str) -> None:
        """Raise 429 if there were too many; count nothing: who waits for an answer has not failed yet."""
        before, wait = self._count(key, 0)
        self._refuse(before, wait)

    def forgive(self, key: str) -> None:
        """Take one back: it was no failure."""
        self._count(key, -1)

    def _count(self, key: str, more: int) -> tuple[int, float]:
        """How many there were before, and the seconds until they are forgotten."""
        now = time.monotonic()
        with self._lock:
            begun, count = self._seen.get(key, (now, 0))
            if now - begun > self.seconds:
                begun, count = now, 0
            self._seen[key] = (begun, max(0, count + more))
            self._seen.move_to_end(key)
            if len(self._seen) > self.keys:
                self._seen.popitem(last=False)
        return count, self.seconds - (now - begun)

    def _refuse(self, before: int, seconds: float) -> None:
        if before >= self.count:
            wait = int(seconds) + 1
            raise HTTPException(429, f"too many tries: wait {wait} seconds", {"retry-after": str(wait)})


PAUSED = "you are paused: somebody who runs this project will talk to you"


def address(request: Request) -> str:
    """Where a request comes from; of an IPv6 address the network, in which one machine has as many as it likes."""
    host = unmapped(request.client.host) if request.client else ""
    try:
        where = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if where.version == 4 else str(ipaddress.ip_network(f"{host}/64", strict=False))


def public_url(request: Request) -> str:
    """The address at which this person's browser sees the server, without a slash at the end.

    The guard has compared Origin with Host; its scheme is the browser's own, which a proxy may not have passed on.
    """
    origin = request.headers.get("origin", "")
    host = origin if "://" in origin else f"{request.url.scheme}://{request.url.netloc}"
    return host + office_of(request).root_path


class SignIn(Exception):
    """A page for which one has to be somebody."""


def office_of(request: Request) -> Office:
    """The office that the application serves."""
    found: Office = request.app.state.office
    return found


def session_of(request: Request) -> str:
    """The secret of the session cookie; of two, the one with the longer path, which a browser sends first."""
    pairs = (part.strip().partition("=") for part in request.headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def asking(request: Request) -> Person | None:
    """Who sends this request, by cookie or by token."""
    if not hasattr(request.state, "person"):
        people, given = office_of(request).people, request.headers.get("authorization", "")
        by_token = given.startswith("Bearer ")
        secret = given.removeprefix("Bearer ").strip() if by_token else session_of(request)
        request.state.person = people.who(secret, "token" if by_token else "session")
    found: Person | None = request.state.person
    return found


class Needs:
    """A dependency: the person who asks, if they may; else 401 or 403 (on a page: the sign-in page)."""

    def __init__(self, right: str, page: bool = False) -> None:
        self.right, self.page = right, page

    def __call__(self, request: Request) -> Person:
        person = asking(request)
        if person is None:
            if self.page:
                raise SignIn
            raise HTTPException(401, "sign in first")
        if not person.may(self.right):
            raise HTTPException(403, f"a {person.role} may not do this")
        if person.state == "paused" and self.right != "label":
            raise HTTPException(403, PAUSED)
        return person
