"""A labeller at a real server: runs with queries on the desk, accounts, and a page that tells what went wrong in it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import mortal
from conftest import BROWSERS
from processes import Process, free_port

from assent.feedback import body
from assent.labelling.accounts import FILE as PEOPLE
from assent.labelling.accounts import People
from assent.labelling.queue import Ask, TaskQueue
from assent.records import Feedback, Message, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.web.security import COOKIE

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, Route

PATIENCE = 30.0
"""Seconds after which what should have come counts as missing."""
PASSWORD = "correct horse"
SHOWS = {"comparison": 2, "ranking": 4, "demonstration": 0}
"""How many items a query shows if a test does not care; every other kind shows one."""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SUBMITS = ("Enter", "Control+Enter", "Meta+Enter", "s")
NUMBER = count(1)
WATCH = """
globalThis.trouble = [];
addEventListener("securitypolicyviolation", (event) =>
  trouble.push(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample} ${event.sourceFile}`));
"""


# What people are asked


@dataclass(frozen=True)
class ItemSpec:
    """A query that no other test asks; its instruction tells it from the others of its run."""

    query: Task
    prompt: Prompt
    responses: tuple[Response, ...]
    wanted: int = 1


def ask(kind: str, *texts: str, turns: Sequence[tuple[str, str]] = (), k: int = 0, wanted: int = 1) -> ItemSpec:
    """A query of a kind, about `k` answers, or about these texts."""
    n = next(NUMBER)
    texts = texts or tuple(f"Answer {i} of {n}, and a few more words." for i in range(k or SHOWS.get(kind, 1)))
    prompt = Prompt(tuple(Message(*turn) for turn in turns or [("user", f"What is the answer to question {n}?")]))
    responses = tuple(Response(prompt.id, text, "sft") for text in texts)
    items = tuple(response.id for response in responses)
    return ItemSpec(Task(kind, prompt.id, items, "train", f"Item {n}: a {kind}, please."), prompt, responses, wanted)


@dataclass
class Work:
    """A run on whose desk queries lie."""

    folder: Path
    tasks: tuple[ItemSpec, ...]

    @cached_property
    def store(self) -> Store:
        return Store.open(self.folder / "feedback.db")

    @property
    def name(self) -> str:
        return self.folder.name

    def said(self) -> list[Feedback]:
        """What is stored, in the order of arrival."""
        return list(self.store.feedback())

    def answers(self) -> list[tuple[str, dict[str, Any]]]:
        """Query and answer of what is stored, in the order of arrival."""
        return [(event.task, body(event.judgement)) for event in self.said()]


def lay(root: Path, *tasks: ItemSpec, model: str = "acme/none") -> Work:
    """Make a run with these queries on its desk, to be answered in this order."""
    folder = root / f"run-{next(NUMBER)}"
    with open_run(Setup(run=folder, model=model)):
        pass
    return more(Work(folder, ()), *tasks)


def more(work: Work, *tasks: ItemSpec) -> Work:
    """Lay more queries on a run's desk."""
    work.store.add_prompts(task.prompt for task in tasks)
    work.store.add_responses(response for task in tasks for response in task.responses)
    TaskQueue(work.store).post([Ask(task.query, task.wanted) for task in tasks], "label")
    work.tasks += tasks
    return work


# Servers


class Account(NamedTuple):
    """Somebody who may come in."""

    id: str
    name: str
    session: str


@dataclass
class Server:
    """A server of a folder of runs, in a process of its own."""

    root: Path
    url: str = ""
    _usual: dict[str, Account] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.root / "log"

    @cached_property
    def people(self) -> People:
        return People(Store.open(self.root / PEOPLE))

    def usual(self, role: str = "labeller") -> Account:
        """Somebody with this role, the same each time."""
        if role not in self._usual:
            self._usual[role] = self.account(role)
        return self._usual[role]

    def account(self, role: str = "labeller") -> Account:
        """Somebody new."""
        secret = self.people.setup() if role == "owner" else self._secret(role)
        person = self.people.join(secret, f"Lou {next(NUMBER)}", PASSWORD)
        return Account(person.id, person.name, self.people.open_session(person))

    def _secret(self, role: str) -> str:
        owner = self.people.get(self.usual("owner").id)
        (secret,) = self.people.invite(owner, role)
        return secret

    def invite(self, role: str = "labeller") -> str:
        """The address at which somebody new may come in."""
        return f"{self.url}/join/{self._secret(role)}"


@contextmanager
def serving(root: Path, home: Path | None = None) -> Iterator[Server]:
    """`python -m assent serve` until the end of the block; `home` holds another copy of the package."""
    root.mkdir(parents=True, exist_ok=True)
    server = Server(root)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if home:
        environment["PYTHONPATH"] = str(home)
    command = [sys.executable, "-m", "assent", "serve", str(root), "--port", "0"]
    with server.log.open("w") as log:
        process = subprocess.Popen(command, stderr=log, env=environment, cwd=home)
    try:
        server.url = _address(server.log, lambda: process.poll() is None)
        yield server
    finally:
        process.terminate()
        process.wait()


def _address(log: Path, alive: Callable[[], bool]) -> str:
    """Where the server whose log this is listens, once it does."""
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline and alive():
        found = re.search(r"^serving .* at (\S+) \(Ctrl-C", log.read_text() if log.exists() else "", re.MULTILINE)
        if found:
            with socket.socket() as line:
                if not line.connect_ex((urlsplit(found[1]).hostname or "", urlsplit(found[1]).port or 0)):
                    return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {log.read_text()}")


@dataclass
class Mortals(Server):
    """Servers at one address, one after the other, each of them killed in the end."""

    full: bool = False
    """Whether the disk can be made full."""
    lives: int = 0
    process: Process | None = None

    @cached_property
    def port(self) -> int:
        return free_port()

    @property
    def flag(self) -> Path:
        return self.root / "full"

    def start(self, die: str = "") -> None:
        """Let the next one live, until `kill`, or until it dies by itself at the first answer: see `mortal.py`."""
        full = str(self.flag) if self.full else ""
        self.process = Process(mortal.live, str(self.root), self.port, die, full, log=self.log)
        self.lives += 1
        self.url = _address(self.log, self.alive)

    def alive(self) -> bool:
        return self.process is not None and self.process.status is None

    def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        if self.process:
            self.process.kill()


@contextmanager
def mortals(root: Path, full: bool = False) -> Iterator[Mortals]:
    """A place where servers are born in a moment."""
    root.mkdir(parents=True, exist_ok=True)
    server = Mortals(root, full=full)
    try:
        yield server
    finally:
        server.kill()


def browser_path() -> str | None:
    """The machine's own Chromium."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


# Pages


@dataclass
class Screen:
    """A page of somebody's browser."""

    page: Page
    server: Server
    work: Work
    person: Account
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.add_init_script(WATCH)
        self.page.on("dialog", self._interrupted)
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("console", self._heard)
        self.page.on("request", self._asked)

    def _interrupted(self, dialog: Dialog) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _heard(self, message: ConsoleMessage) -> None:
        expected = message.text.startswith("Failed to load resource")  # which a test of an offline page is about
        if message.type in ("error", "warning") and not expected:
            self.trouble.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        there = urlsplit(request.url)
        if there.scheme not in ("data", "blob") and there.netloc != urlsplit(self.server.url).netloc:
            self.trouble.append(f"request to another host: {request.url}")

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    def go(self, path: str = "/label") -> Screen:
        """Open a page of the run; a path with a host or with `//` in front is taken as it is."""
        address = path if "://" in path else self.server.url + (path[1:] if path[:2] == "//" else self.at(path))
        self.page.goto(address)
        if path in ("/label", "/chat", "/progress"):
            self.page.wait_for_selector("body[data-ready]")
        return self

    def at(self, path: str) -> str:
        return f"/r/{self.work.name}{path}"

    def reload(self) -> Screen:
        self.page.reload()
        self.page.wait_for_selector("body[data-ready]")
        return self

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression is true."""
        self.page.wait_for_function(condition, arg=argument)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"it never came to be; the page says: {self.state!r} {self.notice!r}")
            self.page.wait_for_timeout(15)

    def press(self, *keys: str) -> Screen:
        for key in keys:
            if key in SUBMITS:
                self.listens()
            self.page.keyboard.press(key)
        return self

    def listens(self) -> Screen:
        """Wait until the page takes a submission: it is deaf for a moment after each new item."""
        self.wait("() => !document.querySelector('#controls[data-deaf]')")
        return self

    def submit(self, *keys: str, by: str = "Enter") -> Screen:
        """Press keys and submit; returns when the next item is there."""
        self.press(*keys)
        before = self.instruction
        self.press(by)
        self.moved(before)
        return self

    def moved(self, before: str) -> None:
        """Wait until another item than that with this instruction is there, or none."""
        self.wait(
            """(before) => (!document.querySelector("#controls").hidden
                 && document.querySelector("#instruction").textContent !== before)
                 || !document.querySelector("#empty").hidden""",
            before,
        )

    @property
    def instruction(self) -> str:
        return self.page.locator("#instruction").text_content() or ""

    @property
    def query(self) -> Task | None:
        """What is asked on the page now."""
        if self.page.locator("#controls").is_hidden():
            return None
        found = [task.query for task in self.work.tasks if task.query.instruction == self.instruction]
        return found[0] if found else None

    @property
    def shown(self) -> list[str]:
        """Ids of the items, in the order in which they stand there."""
        found: list[str] = self.page.eval_on_selector_all("#items .item", "nodes => nodes.map(n => n.dataset.item)")
        return found

    @property
    def state(self) -> str:
        return self.page.locator("#state").inner_text().strip()

    @property
    def notice(self) -> str:
        notice = self.page.locator("#notice")
        return notice.inner_text().strip() if notice.is_visible() else ""

    @property
    def pressed(self) -> list[str]:
        """Names of the choices that are made."""
        found: list[str] = self.page.eval_on_selector_all(
            "#controls [aria-pressed=true]",
            "nodes => nodes.map(n => (n.querySelector('span') ?? n).textContent.trim())",
        )
        return found

    def stored(self, n: int) -> list[Feedback]:
        """Wait until n answers are stored and the page says so; they must be no more."""
        self.until(lambda: len(self.work.said()) >= n)
        self.wait("() => document.querySelector('#state').dataset.state === 'saved'")
        events = self.work.said()
        assert len(events) == n, f"{len(events)} answers are stored, not {n}: {events}"
        return events

    def hold(self, address: str) -> Held:
        """Requests to an address wait, from now on, until the test lets them go."""
        held = Held(self)
        self.context.route(address, held.take)
        return held

    def tab(self) -> Screen:
        """Another tab of the same browser."""
        return Screen(self.context.new_page(), self.server, self.work, self.person, self.trouble)

    def sign_in_as(self, person: Account) -> None:
        cookie = {"name": COOKIE, "value": person.session, "url": self.server.url, "httpOnly": True, "sameSite": "Lax"}
        self.context.add_cookies([cookie])  # type: ignore[list-item]

    def check(self) -> None:
        """Nothing may have gone wrong that a test did not ask for."""
        for page in self.context.pages:
            if page.url.startswith("http"):
                self.trouble += page.evaluate("() => globalThis.trouble ?? []")
        assert not self.trouble, "\n".join(self.trouble)


@dataclass
class Held:
    """Requests that wait on their way."""

    screen: Screen
    routes: list[Route] = field(default_factory=list)
    free: bool = False
    """Whether those that come now go through."""

    def take(self, route: Route) -> None:
        if self.free:
            route.continue_()
        else:
            self.routes.append(route)

    def wait(self) -> None:
        """Wait until there is one."""
        self.screen.until(lambda: bool(self.routes))

    def release(self) -> None:
        """Let the first one go on."""
        self.routes.pop(0).continue_()
