"""`assent serve` that dies where a test says, and finds the disk full while a file lies there."""

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


class Mortal:
    """An application that kills its process at the first answer: when it is `asked`, has `stored` it, or `told` so."""

    def __init__(self, app: Any, moment: str) -> None:
        self.app, self.moment = app, moment

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/feedback"):
            await self.app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            self.dies("stored")
            await send(message)

        self.dies("asked")
        await self.app(scope, receive, telling)
        self.dies("told")

    def dies(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def live(root: str, port: int, die: str = "", full: str = "") -> int:
    """Serve until killed."""
    if die:
        vars(assent.web.app)["make_app"] = _mortally(assent.web.app.make_app, die)
    if full:

        @sa.event.listens_for(sa.Pool, "checkout")
        def leave_no_room(connection: Any, *_: object) -> None:
            # SQLite takes no fewer pages than there are; a new one then finds the "database or disk is full".
            connection.execute(f"PRAGMA max_page_count = {1 if Path(full).exists() else 2**30}")

    return main(["serve", root, "--port", str(port)])


def _mortally(make: Callable[[Any], Any], moment: str) -> Callable[[Any], Mortal]:
    return lambda office: Mortal(make(office), moment)
