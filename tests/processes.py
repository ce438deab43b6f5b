"""Processes that start fast: they are forked from one that has imported everything."""

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

LAZY_IMPORTS = (
    "alembic.command",
    "psycopg",
    "scipy.stats",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
"""Modules that are imported when they are needed."""
COLOUR_VARIABLES = "FORCE_COLOR", "NO_COLOR"
"""Variables of the environment that a test must not inherit."""


@cache
def fork_server() -> ForkServerContext:
    """Return the server that forks the processes; it starts with the first of them and ends with the test run."""
    context = get_context("forkserver")
    modules = [module.name for module in walk_packages(package.__path__, "assent.") if "migrations" not in module.name]
    context.set_forkserver_preload([*modules, *LAZY_IMPORTS])
    return context


class Process:
    """A function in its own process.

    Args:
        log: file of its standard error; a file beside it gets its standard output.
        environment: variables to set.
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
        variables = {"CUDA_VISIBLE_DEVICES": "", **(environment or {})}
        run_arguments = self._files, cwd or Path.cwd(), variables, function, arguments
        self._process: ForkServerProcess = fork_server().Process(target=_run, args=run_arguments, daemon=True)
        self._process.start()

    @property
    def status(self) -> int | None:
        """Return the status as `subprocess.Popen.poll` does: None while it runs, the negative signal that killed it."""
        return self._process.exitcode

    @property
    def output(self) -> str:
        """Return standard output and error so far."""
        return self.out + self.error

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def error(self) -> str:
        return self._files[1].read_text()

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.status is None:
            assert self._process.pid
            os.kill(self._process.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Wait for the end, and return the exit status."""
        self._process.join(seconds)
        assert self.status is not None, f"still running after {seconds} s: {self.output}"
        return self.status

    def kill(self) -> None:
        """Kill the process with signal 9, and wait for its end."""
        self._process.kill()
        self._process.join()


def _run(
    files: tuple[Path, Path],
    cwd: Path,
    environment: Mapping[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    gc.freeze()  # imported modules are never garbage
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.stdin.close()
    for name in COLOUR_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(environment)
    os.chdir(cwd)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def command(*words: str, **where: Any) -> Process:
    """Start `assent WORDS`."""
    return Process(_command, words, **where)


def _command(words: tuple[str, ...]) -> int:
    from assent.__main__ import main

    sys.argv = ["assent", *words]
    return main()


def completed(*words: str, seconds: float = 300, **where: Any) -> CompletedProcess[str]:
    """Run `assent WORDS` to its end, which must come in time."""
    with TemporaryDirectory() as folder:
        process = command(*words, log=Path(folder) / "log", **where)
        try:
            return CompletedProcess(words, process.wait(seconds), process.out, process.error)
        finally:
            process.kill()


def assent(*words: str, status: int = 0, **where: Any) -> str:
    """Run `assent WORDS`, check its exit status, and return its output."""
    process = completed(*words, **where)
    output = process.stdout + process.stderr
    assert process.returncode == status, output
    return output


def free_port() -> int:
    """Return a TCP port that is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
