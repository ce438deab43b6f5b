"""The server behind a reverse proxy: trusted proxies, a path below the host, and HEAD as GET without a body.

uvicorn reads X-Forwarded-For and X-Forwarded-Proto of a trusted proxy. This file adds X-Forwarded-Host, a path below
the host (`--root-path /lab`), and a warning in the log about a proxy that is not trusted.
"""

import ipaddress
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from assent.errors import AssentError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")


def parse_networks(addresses: str) -> tuple[Network, ...]:
    """Parse addresses and networks separated by commas, such as `127.0.0.1, 172.16.0.0/12`.

    Raises:
        AssentError: a word is neither an address nor a network.
    """
    parsed: list[Network] = []
    for word in filter(None, (part.strip() for part in addresses.split(","))):
        try:
            parsed.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            raise AssentError(
                f"invalid address or network '{word}'; write them as 127.0.0.1 or 172.16.0.0/12"
            ) from None
    return tuple(parsed)


def as_ipv4(host: str) -> str:
    """Return an IPv4 address in its usual form: a dual-stack socket (`--host ::`) writes it as ::ffff:192.0.2.1."""
    try:
        ipv4 = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return str(ipv4) if ipv4 else host


class ProxyMiddleware:
    """The outermost middleware of the server.

    Args:
        trusted: networks of proxies; forwarded headers of all others are ignored.
        root_path: the path below the host at which users reach the server, such as `/lab`. Requests arrive with or
            without it.
    """

    def __init__(self, app: Any, trusted: Sequence[Network] = (), root_path: str = "") -> None:
        self._app = app
        self._trusted = tuple(trusted)
        self._root_path = root_path
        self._app_behind_proxy = ProxyHeadersMiddleware(app, [str(network) for network in trusted])
        self._ignored: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        root = self._root_path
        if root and (path == root or path.startswith(f"{root}/")):
            scope["path"] = path.removeprefix(root) or "/"
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope["method"] = "GET"

        async def send_adapted(message: Message) -> None:
            if message["type"] == "http.response.start" and root:
                message["headers"] = [_add_root_path(root, *header) for header in message["headers"]]
            if is_head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        client, port = scope.get("client") or ("", 0)
        client = as_ipv4(client)
        scope["client"] = (client, port) if client else None
        if self._is_trusted(client):
            _use_forwarded_host(scope)
            await self._app_behind_proxy(scope, receive, send_adapted)  # type: ignore[arg-type]  # uvicorn's types are narrower
        else:
            self._warn_untrusted(client, scope)
            await self._app(scope, receive, send_adapted)

    def _is_trusted(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)

    def _warn_untrusted(self, client: str, scope: Scope) -> None:
        """Log once per proxy that it is not trusted: otherwise links and rate limits would be silently wrong."""
        names = [name.decode() for name, _ in scope["headers"] if name in FORWARDED]
        if names and client not in self._ignored and len(self._ignored) < 100:
            self._ignored.add(client)
            advice = f"--behind-proxy --forwarded-allow-ips {client}"
            logging.getLogger("assent.web").warning(
                "%s sends %s but is not trusted; if it is your proxy, start with %s", client, ", ".join(names), advice
            )


def _use_forwarded_host(scope: Scope) -> None:
    headers = dict(scope["headers"])
    if host := headers.get(b"x-forwarded-host", b"").split(b",")[0].strip():
        other_headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*other_headers, (b"host", host)]


def _add_root_path(root: str, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a response header with the root path before a local address and in the path of a cookie."""
    if name.lower() == b"location" and value.startswith(b"/"):
        return name, root.encode() + value
    if name.lower() == b"set-cookie":
        return name, value.replace(b"Path=/", b"Path=" + root.encode())
    return name, value
