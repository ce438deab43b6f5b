"""No acknowledged feedback is lost: processes are killed at any point of a request, and posts are sent ten times."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count, permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.pool import Pool

from assent.feedback import parse, to_values
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.labelling.accounts import Accounts
from assent.labelling.assignments import Assignment
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.labelling.users import User
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.registry import name_of
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Workspace

Post = dict[str, Any]

KILLS = 200
NEVER = 10**9
"""A moment that no process reaches."""
MOMENTS: tuple[tuple[Any, str], ...] = (
    (sa.Engine, "begin"),
    (sa.Engine, "before_cursor_execute"),
    (sa.Engine, "after_cursor_execute"),
    (sa.Engine, "commit"),  # just before it
    (Pool, "checkin"),  # just after it
)
"""Moments of a request; a process may be killed at each of them."""
COMPARISON_KEYS = [*product(("left", "right"), (1, 2, 3)), ("tie", 1), ("both bad", 1), ("cannot tell", 1)]
RANKINGS_OF_THREE = [ranks for ranks in product(range(3), repeat=3) if set(ranks) == set(range(max(ranks) + 1))]
"""Every ranking of three places of a screen, with ties: 13."""
NUMBER = count(1)


# Tasks and judgements


def make_tasks(store: Store, *sizes: int) -> list[Task]:
    """Return comparisons of two responses and rankings of more, about new prompts."""
    prompts = [Prompt.ask(f"What is the answer to question {next(NUMBER)}?") for _ in sizes]
    store.add_prompts(prompts)
    tasks: list[Task] = []
    for prompt, size in zip(prompts, sizes, strict=True):
        responses = [Response(prompt.id, f"Answer {n} to '{prompt.text}'", "sft") for n in range(size)]
        store.add_responses(responses)
        kind = "comparison" if size == 2 else "ranking"
        tasks.append(Task(kind, prompt.id, tuple(response.id for response in responses)))
    return tasks


def assign_tasks(task_queue: TaskQueue, annotator: str, number: int) -> list[Assignment]:
    """Put new comparisons and rankings on an annotator's page."""
    task_queue.enqueue(map(TaskRequest, make_tasks(task_queue.store, *(2 + n % 2 for n in range(number)))), "label")
    assignments = task_queue.next_tasks(annotator, number)
    assert len(assignments) == number
    return assignments


def tiers(display_order: tuple[str, ...], ranks: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """Return the items of a screen in tiers, from the rank of each of its places."""
    items = list(zip(display_order, ranks, strict=True))
    return tuple(tuple(item for item, rank in items if rank == tier) for tier in sorted(set(ranks)))


def key_judgement(display_order: tuple[str, ...], side: str, strength: int) -> Comparison:
    """Return the judgement of a key of the label page."""
    if side in ("left", "right"):
        return Comparison(display_order[side == "right"], strength)
    return Comparison(verdict=side)  # type: ignore[arg-type]


def random_judgement(display_order: tuple[str, ...], rng: random.Random) -> Judgement:
    if len(display_order) == 2:
        return key_judgement(display_order, *rng.choice(COMPARISON_KEYS))
    return Ranking(tiers(display_order, tuple(rng.randrange(3) for _ in display_order)))


def make_feedback(assignments: list[Assignment], annotator: str, rng: random.Random) -> list[Feedback]:
    """Return a judgement of each task, and sometimes a second one that supersedes it."""
    events: list[Feedback] = []
    for task, display_order, _ in assignments:
        for supersedes in (False, True) if rng.random() < 0.2 else (False,):
            event = Feedback(
                task.id, annotator, random_judgement(display_order, rng), "", round(rng.uniform(1, 9), 1),
                display_order, comment=rng.choice(["", "Ünïcode, and 'quotes'"]), id=f"0192-{next(NUMBER)}",
                supersedes=events[-1].id if supersedes else "", flags=rng.choice([(), ("harm", "pii")]),
            )  # fmt: skip
            events.append(event)
    return events


def to_post(event: Feedback) -> Post:
    return {**vars(event), "kind": name_of(event.judgement), "judgement": to_values(event.judgement)}


def from_post(post: Post) -> Feedback:
    values: Post = {name: tuple(value) if isinstance(value, list) else value for name, value in post.items()}
    values["judgement"] = parse(values.pop("kind"), values["judgement"])
    return Feedback(**values)


# Processes that are killed


def fork_children() -> None:
    """Fork a process for each line of standard input, and report its end."""
    with suppress(ImportError):
        import psycopg  # noqa: F401 (before the fork, so that a fork is fast)
    with TemporaryDirectory() as folder, Store.open(Path(folder) / "warm.db") as store:
        task_queue = TaskQueue(store)
        for event in make_feedback(assign_tasks(task_queue, "nobody", 2), "nobody", random.Random(0)):
            task_queue.submit(event)
    send_line("ready")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                store_and_die(**json.loads(line))
            finally:  # reached only if it failed instead of being killed
                traceback.print_exc()
                os._exit(1)
        send_line("dead", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def store_and_die(database: str, posts: list[Post], moment: int) -> None:
    """Store feedback and acknowledge each; die at this moment, or at the end, or (0) when killed."""
    signal.alarm(60)  # a test that fails to kill it must not hang
    send_line("started", os.getpid())
    passed: list[str] = []

    def pass_by(name: str, *_: Any) -> None:
        passed.append(name)
        if len(passed) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    with Store.open(database) as store:
        task_queue = TaskQueue(store)
        for kind, name in MOMENTS:
            sa.event.listen(kind, name, partial(pass_by, name))
        for post in posts:
            stored = task_queue.submit(replace(from_post(post), created_at=datetime.now(UTC).isoformat()))
            pass_by("before the reply")
            send_line("acknowledged", to_post(stored))
            pass_by("after the reply")
        send_line("passed", passed[:50])
        if not moment:
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)


def send_line(kind: str, body: Any = None) -> None:
    """Write one line at once: a pipe takes that few bytes atomically."""
    line = json.dumps([kind, body]).encode() + b"\n"
    assert len(line) < 4096
    os.write(1, line)


class Child(NamedTuple):
    """The output of a process until it was killed."""

    acknowledged: list[Feedback]
    passed: list[str]
    """The moments of its requests, if it came to the end."""


class ForkServer:
    """A process that forks children, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.test_durability import fork_children; fork_children()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip

    def receive(self) -> tuple[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the fork server has ended"
        kind, body = json.loads(line)
        return kind, body

    def start_child(self, database: str, posts: list[Feedback], moment: int) -> int:
        """Start a child, and return its process id."""
        assert self.process.stdin
        values = {"database": database, "posts": [to_post(event) for event in posts], "moment": moment}
        self.process.stdin.write(json.dumps(values) + "\n")
        self.process.stdin.flush()
        kind, pid = self.receive()
        assert kind == "started"
        return int(pid)

    def wait(self) -> Child:
        """Wait until the child is dead."""
        stored, passed = list[Feedback](), list[str]()
        while True:
            kind, body = self.receive()
            if kind == "acknowledged":
                stored.append(from_post(body))
            elif kind == "passed":
                passed = body
            else:
                assert (kind, body) == ("dead", -signal.SIGKILL), "the child failed instead of being killed"
                return Child(stored, passed)

    def run_child(self, database: str, posts: list[Feedback], moment: int = NEVER) -> Child:
        """Run a child until this moment, or until all is stored."""
        self.start_child(database, posts, moment)
        return self.wait()

    def kill_child(self, database: str, posts: list[Feedback], seconds: float) -> Child:
        """Run a child, and kill it after some seconds."""
        pid = self.start_child(database, posts, 0)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        return self.wait()


@pytest.fixture(scope="module")
def fork_servers() -> Iterator[list[ForkServer]]:
    """Return two fork servers."""
    servers = [ForkServer() for _ in range(2)]
    try:
        for server in servers:
            assert server.receive() == ("ready", None)
        yield servers
    finally:
        for server in servers:
            server.process.kill()
            server.process.communicate()


def are_as_sent(stored: list[Feedback], sent: list[Feedback]) -> bool:
    """Return whether replies equal the posts, except for the time of arrival, which the server sets."""
    return stored == [replace(event, created_at=reply.created_at) for event, reply in zip(sent, stored, strict=False)]


def ids_in(database: str) -> list[str]:
    with Store.open(database) as store, store.reading() as on:
        return list(on.scalars(sa.select(schema.feedback.c.id).order_by(schema.feedback.c.seq)))


@pytest.mark.slow
def test_200_kills_lose_and_duplicate_no_feedback(database: str, fork_servers: list[ForkServer]) -> None:
    rng = random.Random(1)
    with Store.open(database) as store:
        assignments = assign_tasks(TaskQueue(store), "ann", 2 * KILLS)
    sent = make_feedback(assignments, "ann", rng)
    waiting = list(sent)
    replies = list[Feedback]()
    unacknowledged = set[str]()
    watched = None

    started_at = time.monotonic()
    first, second = (fork_servers[0].run_child(database, waiting[:1]) for _ in range(2))
    seconds = (time.monotonic() - started_at) / 2
    first_points = first.passed
    repeat_points = second.passed
    assert first.acknowledged == second.acknowledged and len(first_points) > len(repeat_points) > 10
    committed = first_points.index("commit") + 2
    replied = first_points.index("before the reply") + 1
    replies += first.acknowledged
    del waiting[:1]
    for number in range(KILLS):
        posts = waiting[: rng.randint(1, 3)]
        if number % 4 == 0:
            child = fork_servers[0].kill_child(database, posts, rng.uniform(0, 2 * seconds))
        else:  # during the last reply: half of all between commit and reply, a quarter anywhere
            before = sum(len(repeat_points if event.id in unacknowledged else first_points) for event in posts[:-1])
            inside = rng.randint(1, len(first_points)) if number % 4 == 1 else rng.randint(committed, replied)
            child = fork_servers[0].run_child(database, posts, before + inside)
        assert are_as_sent(child.acknowledged, posts)
        replies += child.acknowledged
        del waiting[: len(child.acknowledged)]
        stored = ids_in(database)
        acknowledged = [event.id for event in replies]
        assert stored[: len(acknowledged)] == acknowledged, f"acknowledged feedback is lost after kill {number}"
        stored_only = stored[len(acknowledged) :]
        assert stored_only in ([], [event.id for event in waiting[:1]]), (
            f"feedback is stored twice, or was never sent, after kill {number}"
        )
        unacknowledged.update(stored_only)
        if rng.random() < 0.1:  # sometimes another process has it open, so the killed one was not its last user
            if watched:
                watched.close()
            watched = None if watched else Store.open(database)
    if watched:
        watched.close()
    assert len(unacknowledged) > KILLS / 4, "too few kills between commit and reply"
    assert KILLS / 2 < len(sent) - len(waiting) < len(sent)
    replies += fork_servers[0].run_child(database, waiting).acknowledged

    assert are_as_sent(replies, sent) and len(replies) == len(sent)
    with Store.open(database) as store:
        everything = list(store.feedback())
        assert Counter(everything) == Counter(replies)
        assert len({event.id for event in everything}) == len(everything) == store.verify() == len(sent)
        task_queue = TaskQueue(store)
        assert task_queue.progress() == (len(assignments), len(assignments))
        assert task_queue.next_tasks("ann", 1) == []


def test_killed_process_does_not_affect_other_processes(database: str, fork_servers: list[ForkServer]) -> None:
    surviving_server, killed_server = fork_servers
    rng = random.Random(2)
    with Store.open(database) as store:
        task_queue = TaskQueue(store)
        bobs = make_feedback(assign_tasks(task_queue, "bob", 120), "bob", rng)
        anns = make_feedback(assign_tasks(task_queue, "ann", 40), "ann", rng)
    waiting, replies = list(anns), list[Feedback]()
    surviving_server.start_child(database, bobs, NEVER)
    for _ in range(20):
        posts = waiting[:2]
        child = killed_server.run_child(database, posts, rng.randint(1, 60))
        assert are_as_sent(child.acknowledged, posts)
        replies += child.acknowledged
        del waiting[: len(child.acknowledged)]
    replies += killed_server.run_child(database, waiting).acknowledged
    values = surviving_server.wait().acknowledged
    assert are_as_sent(replies, anns) and len(replies) == len(anns)
    assert are_as_sent(values, bobs) and len(values) == len(bobs)
    with Store.open(database) as store:
        assert Counter(store.feedback()) == Counter(replies + values)
        assert store.verify() == len(anns) + len(bobs)


def test_same_feedback_of_two_processes_is_stored_once(database: str, fork_servers: list[ForkServer]) -> None:
    with Store.open(database) as store:
        sent = make_feedback(assign_tasks(TaskQueue(store), "ann", 60), "ann", random.Random(3))
    for fork_server in fork_servers:
        fork_server.start_child(database, sent, NEVER)
    first, second = (fork_server.wait().acknowledged for fork_server in fork_servers)
    assert first == second
    assert are_as_sent(first, sent) and len(first) == len(sent)
    with Store.open(database) as store:
        assert list(store.feedback()) == first
        assert store.verify() == len(sent)


# Repeated posts


@dataclass
class Server:
    """The web application of one run, and the labeller Ann."""

    workspace: Workspace
    app: FastAPI
    ann: str
    session: str

    @property
    def queue(self) -> TaskQueue:
        return self.workspace.project("demo").queue

    def browser(self) -> TestClient:
        """Return a client in which Ann has signed in."""
        client = TestClient(self.app, follow_redirects=False)
        client.cookies.set(COOKIE, self.session)
        return client

    def enqueue(self, *sizes: int) -> list[Post]:
        """Enqueue tasks of these numbers of items, and return them as Ann's page gets them."""
        self.queue.enqueue(map(TaskRequest, make_tasks(self.queue.store, *sizes)), "label")
        items: list[Post] = self.browser().get("/r/demo/api/tasks/next", params={"count": len(sizes)}).json()["tasks"]
        assert len(items) == len(sizes)
        return items

    def post_concurrently(self, sendings: list[Post], threads: int = 5) -> list[tuple[Post, int, Any]]:
        """Post from several tabs at once; return each post with the status and body of the reply."""
        barrier = threading.Barrier(threads)

        def tab(posts: list[Post]) -> list[tuple[Post, int, Any]]:
            with self.browser() as browser:
                barrier.wait()
                replies = [browser.post("/r/demo/api/judgements", json=post) for post in posts]
            return [(post, reply.status_code, reply.json()) for post, reply in zip(posts, replies, strict=True)]

        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(tab, sendings[n::threads]) for n in range(threads)]
            return [reply for job in jobs for reply in job.result()]


@pytest.fixture
def server(tmp_path: Path, database: str) -> Iterator[Server]:
    ann = User("person-1", "Ann", "labeller")
    with open_run(Setup(run=tmp_path / "demo", database=database)) as run:
        with run.store.writing() as on:
            on.execute(sa.insert(schema.users), {**vars(ann), "password_hash": ""})
        session = Accounts(run.store).credentials.open_session(ann)
        run.store.close()
    workspace = Workspace(tmp_path / "demo")
    yield Server(workspace, make_app(workspace), ann.id, session)
    workspace.close()


def make_post(task: Post, rng: random.Random, **fields: Any) -> Post:
    """Return the post of the page for a task."""
    display_order = [item["id"] for item in task["items"]]
    values = to_values(random_judgement(tuple(display_order), rng))
    judgement = {name: values[name] for name in ("preferred", "strength", "verdict", "tiers") if name in values}
    post = {"id": f"0192-{next(NUMBER)}", "task": task["task"], "judgement": judgement, "display_order": display_order}
    return {**post, "duration": 3.5, **fields}


def test_post_sent_ten_times_is_stored_once(server: Server) -> None:
    rng = random.Random(4)
    posts = [make_post(task, rng, flags=["Harm"], comment="why") for task in server.enqueue(2, 3, 2, 3, 2, 3, 2, 3)]
    sendings = 10 * posts
    rng.shuffle(sendings)
    replies_by_id: dict[str, list[Any]] = {post["id"]: [] for post in posts}
    for post, status, reply in server.post_concurrently(sendings):
        assert status == 200, reply
        replies_by_id[post["id"]].append(reply)
    assert [len(replies) for replies in replies_by_id.values()] == [10] * len(posts)
    stored = {event.id: event for event in server.queue.store.feedback()}
    assert stored.keys() == replies_by_id.keys()
    for post in posts:
        event = stored[post["id"]]
        reply, *repeated = replies_by_id[post["id"]]
        assert repeated == [reply] * 9
        assert (reply["id"], reply["task"], reply["created_at"]) == (post["id"], post["task"], event.created_at)
        assert post["judgement"].items() <= to_values(event.judgement).items()
        assert [*event.display_order] == post["display_order"]
    assert server.queue.store.counts().feedback == server.queue.store.verify() == len(posts)


def test_concurrent_bodies_of_one_id_store_one(server: Server) -> None:
    rng = random.Random(5)
    for task in server.enqueue(2, 3, 2, 3):
        first = make_post(task, rng, comment="one")
        second = make_post(task, rng, comment="other")
        second["id"] = first["id"]
        replies = server.post_concurrently([first, second] * 6, threads=4)
        (event,) = server.queue.store.feedback(ids=[first["id"]])
        assert event.comment in ("one", "other")
        for post, status, reply in replies:
            assert status == (200 if post["comment"] == event.comment else 409), reply
    assert server.queue.store.counts().feedback == server.queue.store.verify() == 4


def test_concurrent_judgements_of_one_task_store_one(server: Server) -> None:
    rng = random.Random(6)
    for task in server.enqueue(2, 3, 2, 3):
        tabs = [make_post(task, rng) for _ in range(4)]
        replies = server.post_concurrently(tabs, threads=4)
        (stored,) = [post["id"] for post, status, _ in replies if status == 200]
        refused = [(status, reply["detail"]["existing_id"]) for post, status, reply in replies if post["id"] != stored]
        assert refused == [(409, stored)] * 3
    assert server.queue.store.counts().feedback == server.queue.store.verify() == 4


@pytest.mark.parametrize("timing", ["at once", "after other judgements", "after superseding it"])
def test_late_body_under_a_stored_id_is_refused(server: Server, timing: str) -> None:
    rng = random.Random(7)
    task, *later_tasks = server.enqueue(2, 2, 2)
    display_order = tuple(item["id"] for item in task["items"])
    first = make_post(task, rng, judgement={"preferred": display_order[0], "strength": 2})
    ((_, _, first_reply),) = server.post_concurrently([first], threads=1)
    if timing == "after other judgements":
        server.post_concurrently([make_post(later, rng) for later in later_tasks], threads=2)
    if timing == "after superseding it":
        server.post_concurrently([make_post(task, rng, supersedes=first["id"])], threads=1)
    before = list(server.queue.store.feedback())
    changed: list[Post] = [
        {"judgement": {"preferred": display_order[1], "strength": 2}},
        {"judgement": {"preferred": display_order[0], "strength": 3}},
        {"judgement": {"verdict": "tie"}},
        {"comment": "another"},
        {"duration": 3.6},
        {"flags": ["Harm"]},
        {"supersedes": "0192-first"},
    ]
    for change in changed:
        ((_, status, reply),) = server.post_concurrently([{**first, **change}], threads=1)
        assert (status, first["id"] in reply["detail"]) == (409, True), change
    ((_, status, _),) = server.post_concurrently([{**first, "display_order": [*display_order[::-1]]}], threads=1)
    assert status == 404  # the page showed another order
    assert server.post_concurrently([first], threads=1) == [(first, 200, first_reply)]
    assert list(server.queue.store.feedback()) == before


# Display order


def assign_in_order(server: Server, order: tuple[int, ...]) -> Post:
    """Return a new task as Ann's page gets it, with its items in this order."""
    (task,) = make_tasks(server.queue.store, len(order))
    assignment = server.queue.assignments.assign(server.ann, task, tuple(task.items[n] for n in order))
    view: Post = server.browser().get(f"/r/demo/api/tasks/{assignment.alias}").json()
    assert [item["text"][:8] for item in view["items"]] == [f"Answer {n}" for n in order]
    return view


def stored_texts(server: Server, id: str) -> tuple[list[str], Any]:
    """Return the stored display order and judgement, in the texts of the items."""
    with server.queue.store.reading() as on:
        row = on.execute(sa.select(schema.feedback).where(schema.feedback.c.id == id)).one()
        responses = on.execute(sa.select(schema.responses.c.id, schema.responses.c.text)).all()
    words = {response.id: response.text for response in responses}
    if row.kind == "ranking":
        return [words[item] for item in row.display_order], [
            [words[item] for item in tier] for tier in row.judgement["tiers"]
        ]
    value = words[row.judgement["preferred"]] if row.judgement["preferred"] else row.judgement["verdict"]
    return [words[item] for item in row.display_order], (value, row.judgement["strength"])


def check_ranking(server: Server, order: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    """Rank the places of a page, and compare the stored ranking with it."""
    task = assign_in_order(server, order)
    texts = [item["text"] for item in task["items"]]
    display_order = tuple(item["id"] for item in task["items"])
    post = make_post(task, random.Random(), judgement={"tiers": tiers(display_order, ranks)})
    ((_, status, reply),) = server.post_concurrently([post], threads=1)
    assert status == 200, reply
    assert stored_texts(server, post["id"]) == (texts, [list(tier) for tier in tiers(tuple(texts), ranks)])


def check_comparison(server: Server, order: tuple[int, ...], side: str, strength: int) -> None:
    task = assign_in_order(server, order)
    texts = [item["text"] for item in task["items"]]
    display_order = tuple(item["id"] for item in task["items"])
    values = to_values(key_judgement(display_order, side, strength))
    judgement = {name: values[name] for name in ("preferred", "strength", "verdict")}
    post = make_post(task, random.Random(), judgement=judgement)
    ((_, status, reply),) = server.post_concurrently([post], threads=1)
    assert status == 200, reply
    preferred = {"left": texts[0], "right": texts[1]}.get(side, side)
    assert stored_texts(server, post["id"]) == (texts, (preferred, strength))


def test_display_order_is_stored_for_every_permutation(server: Server) -> None:
    for sides, (side, strength) in product(permutations(range(2)), COMPARISON_KEYS):
        check_comparison(server, sides, side, strength)
    for order, ranks in product(permutations(range(3)), RANKINGS_OF_THREE):
        check_ranking(server, order, ranks)
    assert server.queue.store.counts().feedback == server.queue.store.verify() == 2 * 9 + 6 * 13


SCREENS = st.integers(4, 9).flatmap(
    lambda k: st.tuples(st.permutations(range(k)), st.lists(st.integers(0, k - 1), min_size=k, max_size=k))
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(SCREENS)
def test_rankings_of_up_to_nine_items_are_stored(server: Server, screen: tuple[list[int], list[int]]) -> None:
    check_ranking(server, tuple(screen[0]), tuple(screen[1]))
