"""`assent serve` that is born in a moment, dies where a test says, and finds the disk full while a file lies there.

Each line of standard input is JSON and starts a server, whose process id is printed:
{"root": "runs", "port": 8123, "log": "log", "die": "stored", "full": "flag"}
"""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn.lifespan.on
import uvicorn.loops.auto
import uvicorn.protocols.http.auto  # noqa: F401 (imported before the fork, so that a birth is quick)

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


def live(root: str, port: int, log: str, die: str = "", full: str = "") -> int:
    """Serve until killed."""
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
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


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead leave no zombies
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(live(**json.loads(line)))
        print(child, flush=True)
