"""An `assent serve` that crashes at a chosen moment, and whose disk is full while a file exists."""

import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import assent.web.app
import assent.web.serve
from assent.cli import main

Message = MutableMapping[str, Any]


class CrashAt:
    """An application that kills its process at the first judgement.

    The moment is `received` (before the request is handled), `stored` or `acknowledged`.
    """

    def __init__(self, app: Any, moment: str) -> None:
        self.app, self.moment = app, moment

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/judgements"):
            await self.app(scope, receive, send)
            return

        async def send_unless_crashed(message: Message) -> None:
            self.crash("stored")
            await send(message)

        self.crash("received")
        await self.app(scope, receive, send_unless_crashed)
        self.crash("acknowledged")

    def crash(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def serve(root: str, port: int, crash_at: str = "", full: str = "") -> int:
    """Serve until killed."""
    if crash_at:
        vars(assent.web.app)["make_app"] = _with_crash(assent.web.app.make_app, crash_at)
    if full:

        @sa.event.listens_for(sa.Pool, "checkout")
        def fill_disk(connection: Any, *_: object) -> None:
            # SQLite takes no fewer pages than there are; a new one raises "database or disk is full".
            connection.execute(f"PRAGMA max_page_count = {1 if Path(full).exists() else 2**30}")

    return main(["serve", root, "--port", str(port)])


def _with_crash(make: Callable[[Any], Any], moment: str) -> Callable[[Any], CrashAt]:
    return lambda workspace: CrashAt(make(workspace), moment)
