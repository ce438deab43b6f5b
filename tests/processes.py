"""Processes of their own that are born in a moment: forked from one that has imported everything and done nothing."""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import assent as package

LATE = (
    "alembic.command",
    "psycopg",
    "scipy.stats",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
"""What is imported only when it is needed."""


@cache
def nursery() -> ForkServerContext:
    """Where they come from; it begins with the first of them and ends with us."""
    made = get_context("forkserver")
    ours = [module.name for module in walk_packages(package.__path__, "assent.") if "migrations" not in module.name]
    made.set_forkserver_preload([*ours, *LATE])
    return made


class Process:
    """A function in a process of its own; what it says, on standard output and error, is written to a file."""

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        log: Path,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        log.write_text("")
        where = log.absolute(), cwd or Path.cwd(), {"CUDA_VISIBLE_DEVICES": "", **(environment or {})}
        made = nursery().Process(target=_live, args=(where, function, arguments), daemon=True)
        made.start()
        self._process: ForkServerProcess = made
        self.pid: int = made.pid or 0

    @property
    def status(self) -> int | None:
        """As `subprocess.Popen.poll` says it: None while it lives, the negative signal if one has killed it."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        return self.log.read_text()

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Its exit status."""
        self._process.join(seconds)
        assert self.status is not None, f"still at work after {seconds} s: {self.said}"
        return self.status

    def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        self._process.kill()
        self._process.join()


def _live(where: tuple[Path, Path, dict[str, str]], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    log, cwd, environment = where
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdin.close()
    os.environ.update(environment)
    os.chdir(cwd)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def command(*words: str, **where: Any) -> Process:
    """`assent WORDS`, as people give it."""
    return Process(_command, words, **where)


def _command(words: tuple[str, ...]) -> int:
    from assent.__main__ import main

    sys.argv = ["assent", *words]
    return main()


def assent(*words: str, status: int = 0, cwd: Path | None = None, seconds: float = 300) -> str:
    """What `assent WORDS` says until it ends, which must be in time and with this exit status."""
    with tempfile.TemporaryDirectory() as folder:
        process = command(*words, log=Path(folder) / "log", cwd=cwd)
        try:
            assert process.wait(seconds) == status, process.said
            return process.said
        finally:
            process.kill()
