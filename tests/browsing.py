"""Labellers at a real server in a real browser: runs with tasks, accounts, and pages that report their errors."""

from __future__ import annotations

import os
import re
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

import crashing_server
from processes import Process, free_port

from assent.feedback import to_values
from assent.feedback.comparison import Comparison
from assent.labelling.accounts import ACCOUNTS_FILE as PEOPLE
from assent.labelling.accounts import Accounts
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.records import Feedback, Message, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.web.security import COOKIE

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, Route

PATIENCE = 30.0
"""Seconds after which an expected event counts as missing."""
PASSWORD = "correct horse"
ITEM_COUNTS = {"comparison": 2, "ranking": 4, "demonstration": 0}
"""Items of a task if a test gives no number; every other kind has one."""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SUBMIT_KEYS = ("Enter", "Control+Enter", "Meta+Enter", "s")
NUMBER = count(1)
ERROR_SCRIPT = """
globalThis.pageErrors = [];
addEventListener("securitypolicyviolation", (event) =>
  pageErrors.push(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample} ${event.sourceFile}`));
"""


@dataclass(frozen=True)
class TaskSpec:
    """A task with an instruction that no other task of its run has."""

    task: Task
    prompt: Prompt
    responses: tuple[Response, ...]
    required: int = 1


def make_task(kind: str, *texts: str, turns: Sequence[tuple[str, str]] = (), k: int = 0, required: int = 1) -> TaskSpec:
    """Make a task of a kind, about `k` responses or about these texts."""
    n = next(NUMBER)
    texts = texts or tuple(f"Answer {i} of {n}, and a few more words." for i in range(k or ITEM_COUNTS.get(kind, 1)))
    prompt = Prompt(tuple(Message(*turn) for turn in turns or [("user", f"What is the answer to question {n}?")]))
    responses = tuple(Response(prompt.id, text, "sft") for text in texts)
    items = tuple(response.id for response in responses)
    return TaskSpec(Task(kind, prompt.id, items, "train", f"Item {n}: a {kind}, please."), prompt, responses, required)


@dataclass
class LabellingRun:
    """A run with tasks in its queue."""

    folder: Path
    tasks: tuple[TaskSpec, ...]

    @cached_property
    def store(self) -> Store:
        return Store.open(self.folder / "feedback.db")

    @property
    def name(self) -> str:
        return self.folder.name

    def feedback(self) -> list[Feedback]:
        """Return the stored feedback, in the order of arrival."""
        return list(self.store.feedback())

    def judgements(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (task, judgement) of the stored feedback, in the order of arrival."""
        return [(event.task, to_values(event.judgement)) for event in self.feedback()]


def make_run(root: Path, *tasks: TaskSpec, model: str = "acme/none") -> LabellingRun:
    """Make a run with these tasks in its queue, in this order."""
    folder = root / f"run-{next(NUMBER)}"
    with open_run(Setup(run=folder, model=model)):
        pass
    return add_tasks(LabellingRun(folder, ()), *tasks)


def add_tasks(work: LabellingRun, *tasks: TaskSpec) -> LabellingRun:
    """Add tasks to the queue of a run."""
    work.store.add_prompts(task.prompt for task in tasks)
    work.store.add_responses(response for task in tasks for response in task.responses)
    TaskQueue(work.store).enqueue([TaskRequest(task.task, task.required) for task in tasks], "label")
    work.tasks += tasks
    return work


class Account(NamedTuple):
    """A user with an open session."""

    id: str
    name: str
    session: str


@dataclass
class Server:
    """A server of a folder of runs, in its own process."""

    root: Path
    url: str = ""
    _users_by_role: dict[str, Account] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.root / "log"

    @cached_property
    def accounts(self) -> Accounts:
        return Accounts(Store.open(self.root / PEOPLE))

    def user_with_role(self, role: str = "labeller") -> Account:
        """Return the user with this role; all calls return the same user."""
        if role not in self._users_by_role:
            self._users_by_role[role] = self.new_user(role)
        return self._users_by_role[role]

    def new_user(self, role: str = "labeller") -> Account:
        """Make a user."""
        secret = self.accounts.issue_setup() if role == "owner" else self._secret(role)
        user = self.accounts.join(secret, f"Lou {next(NUMBER)}", PASSWORD)
        return Account(user.id, user.name, self.accounts.credentials.open_session(user))

    def _secret(self, role: str) -> str:
        owner = self.accounts.get(self.user_with_role("owner").id)
        (secret,) = self.accounts.invite(owner, role)
        return secret

    def invite(self, role: str = "labeller") -> str:
        """Return an invite link."""
        return f"{self.url}/join/{self._secret(role)}"


@contextmanager
def serving(root: Path, home: Path | None = None) -> Iterator[Server]:
    """Run `python -m assent serve` until the end of the block; `home` holds another copy of the package."""
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
    """Return the address of a server from its log, once it listens."""
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
class CrashingServers(Server):
    """Consecutive servers at one address; each is killed in the end."""

    full: bool = False
    """Whether the disk can be made full."""
    num_starts: int = 0
    process: Process | None = None

    @cached_property
    def port(self) -> int:
        return free_port()

    @property
    def flag(self) -> Path:
        return self.root / "full"

    def start(self, die: str = "") -> None:
        """Start the next server. It runs until `kill`, or crashes at the first judgement; see `crashing_server.py`."""
        full = str(self.flag) if self.full else ""
        self.process = Process(crashing_server.serve, str(self.root), self.port, die, full, log=self.log)
        self.num_starts += 1
        self.url = _address(self.log, self.alive)

    def alive(self) -> bool:
        return self.process is not None and self.process.status is None

    def kill(self) -> None:
        """Kill the server with SIGKILL and wait for its end."""
        if self.process:
            self.process.kill()


@contextmanager
def crashing_servers(root: Path, full: bool = False) -> Iterator[CrashingServers]:
    """Return a folder whose servers start quickly and can crash."""
    root.mkdir(parents=True, exist_ok=True)
    server = CrashingServers(root, full=full)
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Screen:
    """A page in the browser of a user."""

    page: Page
    server: Server
    run: LabellingRun
    user: Account
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.add_init_script(ERROR_SCRIPT)
        self.page.on("dialog", self._interrupted)
        self.page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        self.page.on("console", self._record_console_error)
        self.page.on("request", self._record_request)

    def _interrupted(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _record_console_error(self, message: ConsoleMessage) -> None:
        expected = message.text.startswith("Failed to load resource")  # expected in tests of offline pages
        if message.type in ("error", "warning") and not expected:
            self.errors.append(f"console: {message.text}")

    def _record_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.netloc != urlsplit(self.server.url).netloc:
            self.errors.append(f"request to another host: {request.url}")

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
        return f"/r/{self.run.name}{path}"

    def reload(self) -> Screen:
        self.page.reload()
        self.page.wait_for_selector("body[data-ready]")
        return self

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression is true."""
        self.page.wait_for_function(condition, arg=argument)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"condition not met in {PATIENCE:.0f} s; the page shows: {self.state!r} {self.notice!r}"
                )
            self.page.wait_for_timeout(15)

    def press(self, *keys: str) -> Screen:
        for key in keys:
            if key in SUBMIT_KEYS:
                self.wait_until_ready()
            self.page.keyboard.press(key)
        return self

    def wait_until_ready(self) -> Screen:
        """Wait until the page accepts a submission: it ignores them for a moment after each new task."""
        self.wait("() => !document.querySelector('#controls[data-delayed]')")
        return self

    def submit(self, *keys: str, by: str = "Enter") -> Screen:
        """Press keys and submit; return when the next task is shown."""
        self.press(*keys)
        before = self.instruction
        self.press(by)
        self.wait_for_next_task(before)
        return self

    def wait_for_next_task(self, before: str) -> None:
        """Wait until another task than the one with this instruction is shown, or none."""
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
    def task(self) -> Task | None:
        """Return the task on the page."""
        if self.page.locator("#controls").is_hidden():
            return None
        found = [task.task for task in self.run.tasks if task.task.instruction == self.instruction]
        return found[0] if found else None

    @property
    def display_order(self) -> list[str]:
        """Return the ids of the items, in their order on the page."""
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
        """Return the labels of the pressed buttons."""
        found: list[str] = self.page.eval_on_selector_all(
            "#controls [aria-pressed=true]",
            "nodes => nodes.map(n => (n.querySelector('span') ?? n).textContent.trim())",
        )
        return found

    def stored(self, n: int) -> list[Feedback]:
        """Wait until n judgements are stored and the page says so; return them. Fail if there are more."""
        self.wait_until(lambda: len(self.run.feedback()) >= n)
        self.wait("() => document.querySelector('#state').dataset.state === 'saved'")
        events = self.run.feedback()
        assert len(events) == n, f"{len(events)} judgements are stored, not {n}: {events}"
        return events

    def hold(self, address: str) -> HeldRequests:
        """Hold all further requests to an address until the test releases them."""
        held = HeldRequests(self)
        self.context.route(address, held.handle)
        return held

    def tab(self) -> Screen:
        """Open another tab of the same browser."""
        return Screen(self.context.new_page(), self.server, self.run, self.user, self.errors)

    def sign_in_as(self, account: Account) -> None:
        cookie = {"name": COOKIE, "value": account.session, "url": self.server.url, "httpOnly": True, "sameSite": "Lax"}
        self.context.add_cookies([cookie])  # type: ignore[list-item]

    def check(self) -> None:
        """Fail if a page of the browser reported an error."""
        for page in self.context.pages:
            if page.url.startswith("http"):
                self.errors += page.evaluate("() => globalThis.pageErrors ?? []")
        assert not self.errors, "\n".join(self.errors)


@dataclass
class HeldRequests:
    """Requests that wait until they are released."""

    screen: Screen
    routes: list[Route] = field(default_factory=list)
    is_released: bool = False
    """Whether further requests pass."""

    def handle(self, route: Route) -> None:
        if self.is_released:
            route.continue_()
        else:
            self.routes.append(route)

    def wait(self) -> None:
        """Wait until a request is held."""
        self.screen.wait_until(lambda: bool(self.routes))

    def release(self) -> None:
        """Release the first request."""
        self.routes.pop(0).continue_()


OpenPage = Callable[..., Screen]
"""Make a run of some tasks and open a page of it; see the fixture `open_page`."""


def button(screen: Screen, name: str) -> Any:
    """Return a button of the controls."""
    return screen.page.locator("#controls").get_by_role("button", name=name)


def dialog(screen: Screen, name: str) -> Any:
    """Return a dialog by its title."""
    return screen.page.get_by_role("dialog", name=name)


VERDICTS: dict[str, Callable[[list[str]], Comparison]] = {
    "1": lambda items: Comparison(items[0], 3),
    "2": lambda items: Comparison(items[0], 2),
    "3": lambda items: Comparison(items[0], 1),
    "4": lambda _: Comparison(verdict="tie"),
    "0": lambda _: Comparison(verdict="both bad"),
    "5": lambda items: Comparison(items[1], 1),
    "6": lambda items: Comparison(items[1], 2),
    "7": lambda items: Comparison(items[1], 3),
}


def box_of(locator: Any) -> Any:
    """Return the position and size of an element on the screen."""
    box = locator.bounding_box()
    assert box, "it is not on the page"
    return box


def is_reachable(locator: Any, corner: bool = False) -> bool:
    """Return whether a tap at the middle of an element (or at a corner) reaches it without scrolling."""
    reached: bool = locator.evaluate(
        """(node, corner) => {
            const { left, right, top, bottom, width, height } = node.getBoundingClientRect();
            const corners = [[left + 6, top + 6], [right - 6, bottom - 6]];
            const points = corner ? corners : [[(left + right) / 2, (top + bottom) / 2]];
            const whole = left >= 0 && top >= 0 && right <= innerWidth + 0.5 && bottom <= innerHeight + 0.5;
            return width > 0 && height > 0 && (corner || whole)
                && points.some((point) => node.contains(document.elementFromPoint(...point)));
        }""",
        corner,
    )
    return reached
