"""The server behind a reverse proxy: which proxies are trusted, the path it lies under, and HEAD as GET without a body.

uvicorn reads X-Forwarded-For and X-Forwarded-Proto of a trusted proxy. This file adds X-Forwarded-Host, a path below
the host (`--root-path /lab`), and a line in the log when a proxy speaks that nobody has named.
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


def networks(addresses: str) -> tuple[Network, ...]:
    """Parse addresses and networks with commas between them, such as `127.0.0.1, 172.16.0.0/12`.

    Raises:
        AssentError: a word that is neither.
    """
    parsed: list[Network] = []
    for word in filter(None, (part.strip() for part in addresses.split(","))):
        try:
            parsed.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            raise AssentError(f"'{word}' is no address and no network, such as 127.0.0.1 or 172.16.0.0/12") from None
    return tuple(parsed)


def unmapped(host: str) -> str:
    """An IPv4 address as itself: a socket of both families (`--host ::`) writes it as ::ffff:192.0.2.1."""
    try:
        ipv4 = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return str(ipv4) if ipv4 else host


class Proxied:
    """Outermost middleware of the server.

    Args:
        trusted: networks from which a proxy calls; the forwarded headers of others are ignored.
        root_path: the path below the host under which people reach the server, such as `/lab`. Requests arrive with it
            or without it.
    """

    def __init__(self, app: Any, trusted: Sequence[Network] = (), root_path: str = "") -> None:
        self._app, self._trusted, self._root_path = app, tuple(trusted), root_path
        self._behind = ProxyHeadersMiddleware(app, [str(network) for network in trusted])
        self._ignored: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, root = str(scope["path"]), self._root_path
        if root and (path == root or path.startswith(f"{root}/")):
            scope["path"] = path.removeprefix(root) or "/"
        head = scope["method"] == "HEAD"
        if head:
            scope["method"] = "GET"

        async def adapted(message: Message) -> None:
            if message["type"] == "http.response.start" and root:
                message["headers"] = [_under(root, *header) for header in message["headers"]]
            if head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        client, port = scope.get("client") or ("", 0)
        client = unmapped(client)
        scope["client"] = (client, port) if client else None
        if self._trusts(client):
            _take_host(scope)
            await self._behind(scope, receive, adapted)  # type: ignore[arg-type]  # uvicorn's types are narrower
        else:
            self._warn(client, scope)
            await self._app(scope, receive, adapted)

    def _trusts(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)

    def _warn(self, client: str, scope: Scope) -> None:
        """Say once which proxy is ignored: else links and limits are wrong without a word."""
        names = [name.decode() for name, _ in scope["headers"] if name in FORWARDED]
        if names and client not in self._ignored and len(self._ignored) < 100:
            self._ignored.add(client)
            advice = f"--behind-proxy --forwarded-allow-ips {client}"
            logging.getLogger("assent.web").warning(
                "%s sends %s and is not trusted: if it is your proxy, start with %s", client, ", ".join(names), advice
            )


def _take_host(scope: Scope) -> None:
    headers = dict(scope["headers"])
    if host := headers.get(b"x-forwarded-host", b"").split(b",")[0].strip():
        rest = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*rest, (b"host", host)]


def _under(root: str, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A header of a response, with the root path in front of an address of ours and in the path of a cookie."""
    if name.lower() == b"location" and value.startswith(b"/"):
        return name, root.encode() + value
    if name.lower() == b"set-cookie":
        return name, value.replace(b"Path=/", b"Path=" + root.encode())
    return name, value
