"""Checks before every page: security headers, origins, body sizes, rate limits, and the rights of the current user."""

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from threading import Lock
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, HTTPException, Request

from assent.labelling.users import User
from assent.web.proxy import as_ipv4
from assent.web.workspace import Project, Workspace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "assent_session"
MAX_BODY_BYTES = 2 * 2**20
"""Bytes of a request body."""
MAX_FORM_BYTES = 2**19
"""Bytes of a form. Forms take longer to parse than JSON."""
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
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class SecurityMiddleware:
    """Middleware that adds security headers to every response and refuses cross-site and oversized requests."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        is_started = False

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                names = {name.lower() for name, _ in message["headers"]}
                added = {**HEADERS, **({} if b"cache-control" in names else {"cache-control": "no-store"})}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        max_bytes = MAX_FORM_BYTES if "form" in headers.get("content-type", "") else MAX_BODY_BYTES
        if refusal := _refusal(scope["method"], headers, max_bytes):
            await _send_text(send_with_headers, *refusal)
            return
        num_bytes = 0

        async def receive_limited() -> MutableMapping[str, Any]:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > max_bytes:
                raise HTTPException(413, f"request body too large: the limit is {max_bytes} bytes")
            return message

        try:
            await self.app(scope, receive_limited, send_with_headers)
        except Exception:
            logging.getLogger("assent.web").exception("%s %s", scope["method"], scope["path"])
            if is_started:
                raise
            await _send_text(send_with_headers, 500, "internal server error; see the server log")


class Refusal(NamedTuple):
    """The status and the text with which a request is refused."""

    status: int
    text: str


def _refusal(method: str, headers: MutableMapping[str, str], max_bytes: int) -> Refusal | None:
    """Return why a request is refused, judged by its method and headers alone; None if it is not."""
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > max_bytes:
        return Refusal(413, f"request body too large: the limit is {max_bytes} bytes")
    if method in SAFE_METHODS or headers.get("authorization", "").startswith("Bearer "):
        return None  # a browser never sends a token on its own, so a token proves intent
    site, origin, host = headers.get("sec-fetch-site", ""), headers.get("origin", ""), headers.get("host", "")
    if site not in ("", "same-origin", "none"):
        return Refusal(403, "cross-site request refused")
    if origin and origin.partition("://")[2] != host:
        advice = (
            "if a reverse proxy is in front, make it send Host or X-Forwarded-Host "
            "(nginx: proxy_set_header Host $http_host) and start the server with --behind-proxy"
        )
        return Refusal(
            403, f"cross-site request refused: Origin is {origin[:200]}, Host is {host[:200]}; {advice}"
        )  # fmt: skip
    return None


async def _send_text(send: Send, status: int, text: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


class RateLimit:
    """A limit on attempts per key in a window of time; the least recently used keys are dropped first.

    `demand` counts an attempt; call `forgive` after a success to take it back.

    Args:
        count: attempts allowed in the window.
        seconds: length of the window.
        max_keys: keys that are remembered.
    """

    def __init__(self, count: int, seconds: float, max_keys: int = 10_000) -> None:
        self.count = count
        self.seconds = seconds
        self.max_keys = max_keys
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = Lock()  # requests are answered in threads

    def demand(self, key: str) -> None:
        """Count an attempt; raise 429 if the limit was reached before."""
        self._check(*self._add(key, 1))

    def check(self, key: str) -> None:
        """Raise 429 if the limit is reached; count nothing, since the attempt has not failed yet."""
        self._check(*self._add(key, 0))

    def forgive(self, key: str) -> None:
        """Take an attempt back after a success."""
        self._add(key, -1)

    def _add(self, key: str, change: int) -> tuple[int, float]:
        """Change the count of a key; return the count before, and the seconds until its window ends."""
        now = time.monotonic()
        with self._lock:
            window_start, count = self._windows.get(key, (now, 0))
            if now - window_start > self.seconds:
                window_start, count = now, 0
            self._windows[key] = (window_start, max(0, count + change))
            self._windows.move_to_end(key)
            if len(self._windows) > self.max_keys:
                self._windows.popitem(last=False)
        return count, self.seconds - (now - window_start)

    def _check(self, count: int, seconds_left: float) -> None:
        if count >= self.count:
            wait = int(seconds_left) + 1
            raise HTTPException(429, f"too many attempts: wait {wait} seconds", {"retry-after": str(wait)})


PAUSED = "your account is paused: contact a manager of this project"


def client_address(request: Request) -> str:
    """Return the address of the client; for IPv6 its /64 network, since one machine may use all of its addresses."""
    host = as_ipv4(request.client.host) if request.client else ""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if parsed.version == 4 else str(ipaddress.ip_network(f"{host}/64", strict=False))


def public_url(request: Request) -> str:
    """Return the address at which this user's browser sees the server, without a slash at the end.

    `SecurityMiddleware` has compared Origin with Host. Origin has the browser's own scheme, which a proxy may not pass
    on.
    """
    origin = request.headers.get("origin", "")
    host = origin if "://" in origin else f"{request.url.scheme}://{request.url.netloc}"
    return host + workspace_of(request).root_path


class SignInRequired(Exception):
    """A page was requested without a session; the answer is a redirect to the sign-in page."""


def workspace_of(request: Request) -> Workspace:
    """Return the workspace that the application serves."""
    workspace: Workspace = request.app.state.workspace
    return workspace


def session_cookie(request: Request) -> str:
    """Return the secret of the session cookie. Of two, take the first: a browser sends the longer path first."""
    pairs = (part.strip().partition("=") for part in request.headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def current_user(request: Request) -> User | None:
    """Return the user of this request, by token or by session cookie; None without a valid one."""
    if not hasattr(request.state, "user"):
        accounts = workspace_of(request).accounts
        authorization = request.headers.get("authorization", "")
        if authorization.startswith("Bearer "):
            request.state.user = accounts.credentials.authenticate(
                authorization.removeprefix("Bearer ").strip(), "token"
            )
        else:
            request.state.user = accounts.credentials.authenticate(session_cookie(request), "session")
    user: User | None = request.state.user
    return user


def project_of(request: Request, run: str) -> Project:
    """Return the run that the path names. Without a session raise 401: it must not show which runs exist."""
    if current_user(request) is None:
        if "/api/" in request.url.path or request.method != "GET":
            raise HTTPException(401, SIGN_IN)
        raise SignInRequired
    return workspace_of(request).project(run)


SIGN_IN = "sign in first"
CurrentProject = Annotated[Project, Depends(project_of)]


class RequireRole:
    """A dependency that returns the current user if their role has a right.

    It raises 401 without a session (on a page: a redirect to the sign-in page), and 403 without the right.
    """

    def __init__(self, right: str, is_page: bool = False) -> None:
        self.right = right
        self.is_page = is_page

    def __call__(self, request: Request) -> User:
        user = current_user(request)
        if user is None:
            if self.is_page:
                raise SignInRequired
            raise HTTPException(401, SIGN_IN)
        if not user.can(self.right):
            raise HTTPException(403, f"a {user.role} may not do this")
        if user.state == "paused" and self.right != "label":
            raise HTTPException(403, PAUSED)
        return user
