"""Processes of their own that are born in a moment: forked from one that has imported everything and done nothing."""

import gc
import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from pkgutil import walk_packages
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
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
COLOURS = "FORCE_COLOR", "NO_COLOR"
"""What whoever runs the tests may have said about colours."""


@cache
def nursery() -> ForkServerContext:
    """Where they come from; it begins with the first of them and ends with us."""
    made = get_context("forkserver")
    ours = [module.name for module in walk_packages(package.__path__, "assent.") if "migrations" not in module.name]
    made.set_forkserver_preload([*ours, *LATE])
    return made


class Process:
    """A function in a process of its own.

    Args:
        log: where its standard error is written to; its standard output lies beside it.
        environment: set besides what we have.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        log: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._files = log.with_name(f"{log.name}.out").absolute(), log.absolute()
        for file in self._files:
            file.write_text("")
        told = self._files, cwd or Path.cwd(), {"CUDA_VISIBLE_DEVICES": "", **(environment or {})}, function, arguments
        self._process: ForkServerProcess = nursery().Process(target=_live, args=told, daemon=True)
        self._process.start()

    @property
    def status(self) -> int | None:
        """As `subprocess.Popen.poll` says it: None while it lives, the negative signal if one has killed it."""
        return self._process.exitcode

    @property
    def said(self) -> str:
        """All that it has said so far."""
        return self.out + self.error

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def error(self) -> str:
        return self._files[1].read_text()

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:
            assert self._process.pid
            os.kill(self._process.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Its exit status."""
        self._process.join(seconds)
        assert self.status is not None, f"still at work after {seconds} s: {self.said}"
        return self.status

    def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        self._process.kill()
        self._process.join()


def _live(
    files: tuple[Path, Path],
    cwd: Path,
    environment: Mapping[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    gc.freeze()  # what was imported is no garbage
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.stdin.close()
    for name in COLOURS:
        os.environ.pop(name, None)
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


def completed(*words: str, seconds: float = 300, **where: Any) -> CompletedProcess[str]:
    """The same when it has ended, which must be in time."""
    with TemporaryDirectory() as folder:
        process = command(*words, log=Path(folder) / "log", **where)
        try:
            return CompletedProcess(words, process.wait(seconds), process.out, process.error)
        finally:
            process.kill()


def assent(*words: str, status: int = 0, **where: Any) -> str:
    """What `assent WORDS` says until it ends, which must be with this exit status."""
    done = completed(*words, **where)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
