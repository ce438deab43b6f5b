"""Nothing acknowledged is ever lost: processes are killed at any point of an answer, and posts are sent ten times."""

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
from itertools import chain, count, permutations, product
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

from assent.feedback import body, parse
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.labelling.accounts import People, Person
from assent.labelling.queue import Ask, Lent, TaskQueue
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.registry import name_of
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Office

Post = dict[str, Any]

KILLS = 200
NEVER = 10**9
"""A moment that no process lives to see."""
MOMENTS: tuple[tuple[Any, str], ...] = (
    (sa.Engine, "begin"),
    (sa.Engine, "before_cursor_execute"),
    (sa.Engine, "after_cursor_execute"),
    (sa.Engine, "commit"),  # just before it
    (Pool, "checkin"),  # just after it
)
"""What a process passes in an answer; at each of them it may be its last."""
SAYS = [*product(("left", "right"), (1, 2, 3)), ("tie", 1), ("both bad", 1), ("cannot tell", 1)]
RANKS = [ranks for ranks in product(range(3), repeat=3) if set(ranks) == set(range(max(ranks) + 1))]
"""Every way to rank three places of a screen, with ties: 13."""
NUMBER = count(1)


# What people are asked, and say


def ask(store: Store, *sizes: int) -> list[Task]:
    """Comparisons of two answers and rankings of more, about questions that were never asked before."""
    prompts = [Prompt.ask(f"What is the answer to question {next(NUMBER)}?") for _ in sizes]
    told = [
        [Response(prompt.id, f"Answer {n} to '{prompt.text}'", "sft") for n in range(items)]
        for prompt, items in zip(prompts, sizes, strict=True)
    ]
    store.add_prompts(prompts)
    store.add_responses(chain.from_iterable(told))
    return [Task("comparison" if len(r) == 2 else "ranking", r[0].prompt, tuple(one.id for one in r)) for r in told]


def lent_to(desk: TaskQueue, person: str, number: int) -> list[Lent]:
    """So many new comparisons and rankings on somebody's screen."""
    desk.post(map(Ask, ask(desk.store, *(2 + n % 2 for n in range(number)))), "label")
    lent = desk.take(person, number)
    assert len(lent) == number
    return lent


def tiers(shown: tuple[str, ...], ranks: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """The items of a screen in tiers, from the rank of each of its places."""
    return tuple(tuple(item for item, r in zip(shown, ranks, strict=True) if r == tier) for tier in sorted(set(ranks)))


def judgement(shown: tuple[str, ...], side: str, strength: int) -> Comparison:
    """What a key of the label page says."""
    if side in ("left", "right"):
        return Comparison(shown[side == "right"], strength)
    return Comparison(verdict=side)  # type: ignore[arg-type]


def anything(shown: tuple[str, ...], luck: random.Random) -> Judgement:
    if len(shown) == 2:
        return judgement(shown, *luck.choice(SAYS))
    return Ranking(tiers(shown, tuple(luck.randrange(3) for _ in shown)))


def outbox(lent: list[Lent], person: str, luck: random.Random) -> list[Feedback]:
    """What somebody's page has to send: an answer to each query, and now and then second thoughts."""
    made: list[Feedback] = []
    for one in lent:
        for supersedes in (False, True) if luck.random() < 0.2 else (False,):
            event = Feedback(
                one.query.id, person, anything(one.shown, luck), "", round(luck.uniform(1, 9), 1), one.shown,
                comment=luck.choice(["", "Ünïcode, and 'quotes'"]), id=f"0192-{next(NUMBER)}",
                supersedes=made[-1].id if supersedes else "", flags=luck.choice([(), ("harm", "pii")]),
            )  # fmt: skip
            made.append(event)
    return made


def post_of(event: Feedback) -> Post:
    return {**vars(event), "kind": name_of(event.judgement), "answer": body(event.judgement)}


def event_of(post: Post) -> Feedback:
    told: Post = {name: tuple(value) if isinstance(value, list) else value for name, value in post.items()}
    told["answer"] = parse(told.pop("kind"), told["answer"])
    return Feedback(**told)


# Processes that are killed


def nursery() -> None:
    """Fork a process for each line of standard input, and say when it is dead."""
    with suppress(ImportError):
        import psycopg  # noqa: F401 (before the fork, so that a birth is quick)
    with TemporaryDirectory() as folder, Store.open(Path(folder) / "warm.db") as store:
        desk = TaskQueue(store)
        for event in outbox(lent_to(desk, "nobody", 2), "nobody", random.Random(0)):
            desk.answer(event)
    tell("ready")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                live(**json.loads(line))
            finally:  # who comes here was not killed, but failed
                traceback.print_exc()
                os._exit(1)
        tell("dead", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def live(database: str, posts: list[Post], moment: int) -> None:
    """Store answers and acknowledge each; die at the moment of this number, or at the end, or (0) when killed."""
    signal.alarm(60)  # else a test that fails to kill it would wait for ever
    tell("born", os.getpid())
    passed: list[str] = []

    def pass_by(name: str, *_: Any) -> None:
        passed.append(name)
        if len(passed) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    with Store.open(database) as store:
        desk = TaskQueue(store)
        for kind, name in MOMENTS:
            sa.event.listen(kind, name, partial(pass_by, name))
        for post in posts:
            kept = desk.answer(replace(event_of(post), created_at=datetime.now(UTC).isoformat()))
            pass_by("before the reply")
            tell("kept", post_of(kept))
            pass_by("after the reply")
        tell("passed", passed[:50])
        if not moment:
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)


def tell(what: str, about: Any = None) -> None:
    """One line in one piece: a pipe takes so few bytes whole or not at all."""
    line = json.dumps([what, about]).encode() + b"\n"
    assert len(line) < 4096
    os.write(1, line)


class Life(NamedTuple):
    """What a process said before it was killed."""

    kept: list[Feedback]
    passed: list[str]
    """The moments of its first answer, if it came to the end."""


class Nursery:
    """Where processes are born in a moment, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.test_durability import nursery; nursery()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip

    def hear(self) -> tuple[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the nursery is gone"
        what, about = json.loads(line)
        return what, about

    def begin(self, database: str, posts: list[Feedback], moment: int) -> int:
        """Let a process live, and return its number."""
        assert self.process.stdin
        told = {"database": database, "posts": [post_of(event) for event in posts], "moment": moment}
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        what, pid = self.hear()
        assert what == "born"
        return int(pid)

    def end(self) -> Life:
        """Wait until it is dead."""
        kept, passed = list[Feedback](), list[str]()
        while True:
            what, about = self.hear()
            if what == "kept":
                kept.append(event_of(about))
            elif what == "passed":
                passed = about
            else:
                assert (what, about) == ("dead", -signal.SIGKILL), "it was not killed, but failed"
                return Life(kept, passed)

    def life(self, database: str, posts: list[Feedback], moment: int = NEVER) -> Life:
        """Until this moment, or until everything is said."""
        self.begin(database, posts, moment)
        return self.end()

    def cut_short(self, database: str, posts: list[Feedback], seconds: float) -> Life:
        """Until it is killed from outside."""
        pid = self.begin(database, posts, 0)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        return self.end()


@pytest.fixture(scope="module")
def nurseries() -> Iterator[list[Nursery]]:
    """Two of them."""
    made = [Nursery() for _ in range(2)]
    try:
        for each in made:
            assert each.hear() == ("ready", None)
        yield made
    finally:
        for each in made:
            each.process.kill()
            each.process.communicate()


def as_sent(kept: list[Feedback], sent: list[Feedback]) -> bool:
    """Whether replies are what was posted, but for the time of arrival, which the server gives."""
    return kept == [replace(event, created_at=reply.created_at) for event, reply in zip(sent, kept, strict=False)]


def ids_in(database: str) -> list[str]:
    with Store.open(database) as store, store.reading() as on:
        return list(on.scalars(sa.select(schema.feedback.c.id).order_by(schema.feedback.c.seq)))


def test_200_kills_at_random_points_lose_nothing_acknowledged_and_store_nothing_twice(
    database: str, nurseries: list[Nursery]
) -> None:
    luck = random.Random(1)
    with Store.open(database) as store:
        lent = lent_to(TaskQueue(store), "ann", 2 * KILLS)
    sent = outbox(lent, "ann", luck)
    waiting, replies, doubted, watched = list(sent), list[Feedback](), set[str](), None

    start = time.monotonic()
    first, second = (nurseries[0].life(database, waiting[:1]) for _ in range(2))
    seconds, anew, again = (time.monotonic() - start) / 2, first.passed, second.passed
    assert first.kept == second.kept and len(anew) > len(again) > 10
    committed, replied = anew.index("commit") + 2, anew.index("before the reply") + 1
    replies += first.kept
    del waiting[:1]
    for number in range(KILLS):
        posts = waiting[: luck.randint(1, 3)]
        if number % 4 == 0:
            life = nurseries[0].cut_short(database, posts, luck.uniform(0, 2 * seconds))
        else:  # in the last of its answers: half of all between commit and reply, a quarter anywhere
            before = sum(len(again if event.id in doubted else anew) for event in posts[:-1])
            inside = luck.randint(1, len(anew)) if number % 4 == 1 else luck.randint(committed, replied)
            life = nurseries[0].life(database, posts, before + inside)
        assert as_sent(life.kept, posts)
        replies += life.kept
        del waiting[: len(life.kept)]
        stored, acknowledged = ids_in(database), [event.id for event in replies]
        assert stored[: len(acknowledged)] == acknowledged, f"something acknowledged is lost after kill {number}"
        unsaid = stored[len(acknowledged) :]
        assert unsaid in ([], [event.id for event in waiting[:1]]), (
            f"something is stored twice, or was never sent, after kill {number}"
        )
        doubted.update(unsaid)
        if luck.random() < 0.1:  # now and then somebody else has it open, so that the dead was not its last user
            if watched:
                watched.close()
            watched = None if watched else Store.open(database)
    if watched:
        watched.close()
    assert len(doubted) > KILLS / 4, "too few died between commit and reply"
    assert KILLS / 2 < len(sent) - len(waiting) < len(sent)
    replies += nurseries[0].life(database, waiting).kept

    assert as_sent(replies, sent) and len(replies) == len(sent)
    with Store.open(database) as store:
        everything = list(store.feedback())
        assert Counter(everything) == Counter(replies)
        assert len({event.id for event in everything}) == len(everything) == store.verify() == len(sent)
        desk = TaskQueue(store)
        assert desk.progress() == (len(lent), len(lent))
        assert desk.take("ann", 1) == []


def test_a_process_that_is_killed_again_and_again_costs_another_one_nothing(
    database: str, nurseries: list[Nursery]
) -> None:
    steady, mortal = nurseries
    luck = random.Random(2)
    with Store.open(database) as store:
        desk = TaskQueue(store)
        bobs = outbox(lent_to(desk, "bob", 120), "bob", luck)
        anns = outbox(lent_to(desk, "ann", 40), "ann", luck)
    waiting, replies = list(anns), list[Feedback]()
    steady.begin(database, bobs, NEVER)
    for _ in range(20):
        posts = waiting[:2]
        life = mortal.life(database, posts, luck.randint(1, 60))
        assert as_sent(life.kept, posts)
        replies += life.kept
        del waiting[: len(life.kept)]
    replies += mortal.life(database, waiting).kept
    told = steady.end().kept
    assert as_sent(replies, anns) and len(replies) == len(anns)
    assert as_sent(told, bobs) and len(told) == len(bobs)
    with Store.open(database) as store:
        assert Counter(store.feedback()) == Counter(replies + told)
        assert store.verify() == len(anns) + len(bobs)


def test_two_processes_that_send_the_same_at_once_store_it_once_and_are_told_the_same(
    database: str, nurseries: list[Nursery]
) -> None:
    with Store.open(database) as store:
        sent = outbox(lent_to(TaskQueue(store), "ann", 60), "ann", random.Random(3))
    for each in nurseries:
        each.begin(database, sent, NEVER)
    one, other = (each.end().kept for each in nurseries)
    assert one == other
    assert as_sent(one, sent) and len(one) == len(sent)
    with Store.open(database) as store:
        assert list(store.feedback()) == one
        assert store.verify() == len(sent)


# Posts that are sent again


@dataclass
class Server:
    """The application that serves one run, and the labeller Ann."""

    office: Office
    app: FastAPI
    ann: str
    session: str

    @property
    def desk(self) -> TaskQueue:
        return self.office.project("demo").desk

    def browser(self) -> TestClient:
        """One in which Ann has signed in."""
        client = TestClient(self.app, follow_redirects=False)
        client.cookies.set(COOKIE, self.session)
        return client

    def lay(self, *sizes: int) -> list[Post]:
        """New queries about so many items each, as they stand on Ann's page."""
        self.desk.post(map(Ask, ask(self.desk.store, *sizes)), "label")
        items: list[Post] = self.browser().get("/r/demo/api/next", params={"count": len(sizes)}).json()["items"]
        assert len(items) == len(sizes)
        return items

    def at_once(self, sendings: list[Post], threads: int = 5) -> list[tuple[Post, int, Any]]:
        """Post from several tabs at the same moment: each post with its status and what the server says."""
        barrier = threading.Barrier(threads)

        def tab(mine: list[Post]) -> list[tuple[Post, int, Any]]:
            with self.browser() as browser:
                barrier.wait()
                replies = [browser.post("/r/demo/api/feedback", json=post) for post in mine]
            return [(post, reply.status_code, reply.json()) for post, reply in zip(mine, replies, strict=True)]

        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(tab, sendings[n::threads]) for n in range(threads)]
            return [told for job in jobs for told in job.result()]


@pytest.fixture
def server(tmp_path: Path, database: str) -> Iterator[Server]:
    ann = Person("person-1", "Ann", "labeller")
    with open_run(Setup(run=tmp_path / "demo", database=database)) as run:
        with run.store.writing() as on:
            on.execute(sa.insert(schema.people), {**vars(ann), "secret": ""})
        session = People(run.store).open_session(ann)
        run.store.close()
    office = Office(tmp_path / "demo")
    yield Server(office, make_app(office), ann.id, session)
    office.close()


def given_to(item: Post, luck: random.Random, **more: Any) -> Post:
    """What the page posts of an item."""
    shown = [each["id"] for each in item["items"]]
    answer = body(anything(tuple(shown), luck))
    told = {name: answer[name] for name in ("preferred", "strength", "verdict", "tiers") if name in answer}
    post = {"id": f"0192-{next(NUMBER)}", "query": item["query"], "answer": told, "shown": shown}
    return {**post, "seconds": 3.5, **more}


def test_every_post_sent_ten_times_by_several_tabs_at_once_stores_one_and_is_told_the_same(server: Server) -> None:
    luck = random.Random(4)
    posts = [given_to(item, luck, flags=["Harm"], note="why") for item in server.lay(2, 3, 2, 3, 2, 3, 2, 3)]
    sendings = 10 * posts
    luck.shuffle(sendings)
    told: dict[str, list[Any]] = {post["id"]: [] for post in posts}
    for post, status, reply in server.at_once(sendings):
        assert status == 200, reply
        told[post["id"]].append(reply)
    assert [len(replies) for replies in told.values()] == [10] * len(posts)
    stored = {event.id: event for event in server.desk.store.feedback()}
    assert stored.keys() == told.keys()
    for post in posts:
        event, (reply, *others) = stored[post["id"]], told[post["id"]]
        assert others == [reply] * 9
        assert (reply["id"], reply["query"], reply["at"]) == (post["id"], post["query"], event.created_at)
        assert post["answer"].items() <= body(event.judgement).items()
        assert [*event.display_order] == post["shown"]
    assert server.desk.store.counts().feedback == server.desk.store.verify() == len(posts)


def test_of_two_bodies_sent_under_one_id_at_once_one_is_kept_and_the_other_always_refused(server: Server) -> None:
    luck = random.Random(5)
    for item in server.lay(2, 3, 2, 3):
        one, other = given_to(item, luck, note="one"), given_to(item, luck, note="other")
        other["id"] = one["id"]
        replies = server.at_once([one, other] * 6, threads=4)
        (event,) = server.desk.store.feedback(ids=[one["id"]])
        assert event.comment in ("one", "other")
        for post, status, reply in replies:
            assert status == (200 if post["note"] == event.comment else 409), reply
    assert server.desk.store.counts().feedback == server.desk.store.verify() == 4


def test_of_two_tabs_that_answer_one_item_at_once_one_is_kept_and_the_other_is_told_of_it(server: Server) -> None:
    luck = random.Random(6)
    for item in server.lay(2, 3, 2, 3):
        tabs = [given_to(item, luck) for _ in range(4)]
        replies = server.at_once(tabs, threads=4)
        (kept,) = [post["id"] for post, status, _ in replies if status == 200]
        refused = [(status, reply["detail"]["before"]) for post, status, reply in replies if post["id"] != kept]
        assert refused == [(409, kept)] * 3
    assert server.desk.store.counts().feedback == server.desk.store.verify() == 4


@pytest.mark.parametrize("again", ["at once", "after other answers", "after second thoughts"])
def test_another_body_under_an_id_is_refused_however_late_and_the_first_is_told_again(
    server: Server, again: str
) -> None:
    luck = random.Random(7)
    item, *others = server.lay(2, 2, 2)
    shown = tuple(each["id"] for each in item["items"])
    first = given_to(item, luck, answer={"preferred": shown[0], "strength": 2})
    (_, _, told), *_ = server.at_once([first], threads=1)
    if again == "after other answers":
        server.at_once([given_to(other, luck) for other in others], threads=2)
    if again == "after second thoughts":
        server.at_once([given_to(item, luck, supersedes=first["id"])], threads=1)
    before = list(server.desk.store.feedback())
    changed: list[Post] = [
        {"answer": {"preferred": shown[1], "strength": 2}},
        {"answer": {"preferred": shown[0], "strength": 3}},
        {"answer": {"verdict": "tie"}},
        {"note": "another"},
        {"seconds": 3.6},
        {"flags": ["Harm"]},
        {"supersedes": "0192-first"},
    ]
    for change in changed:
        ((_, status, reply),) = server.at_once([{**first, **change}], threads=1)
        assert (status, first["id"] in reply["detail"]) == (409, True), change
    ((_, status, _),) = server.at_once([{**first, "shown": [*shown[::-1]]}], threads=1)
    assert status == 404  # it did not stand there so
    assert server.at_once([first], threads=1) == [(first, 200, told)]
    assert list(server.desk.store.feedback()) == before


# Sides and ranks


def stands(server: Server, order: tuple[int, ...]) -> Post:
    """A new query whose items stand on Ann's page in this order, as the page gets it."""
    (query,) = ask(server.desk.store, len(order))
    lent = server.desk.lend(server.ann, query, tuple(query.items[n] for n in order))
    item: Post = server.browser().get(f"/r/demo/api/item/{lent.name}").json()
    assert [each["text"][:8] for each in item["items"]] == [f"Answer {n}" for n in order]
    return item


def stored(server: Server, id: str) -> tuple[list[str], Any]:
    """What the database holds of an answer, in the words of the items: as they stood, and what was said of them."""
    with server.desk.store.reading() as on:
        row = on.execute(sa.select(schema.feedback).where(schema.feedback.c.id == id)).one()
        words = {one.id: one.text for one in on.execute(sa.select(schema.responses.c.id, schema.responses.c.text))}
    if row.kind == "ranking":
        return [words[item] for item in row.shown], [[words[item] for item in tier] for tier in row.answer["tiers"]]
    said = words[row.answer["preferred"]] if row.answer["preferred"] else row.answer["verdict"]
    return [words[item] for item in row.shown], (said, row.answer["strength"])


def rank(server: Server, order: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    """Rank the places of a page, and look whether that is what the database holds of what stood there."""
    item = stands(server, order)
    seen, shown = [each["text"] for each in item["items"]], tuple(each["id"] for each in item["items"])
    post = given_to(item, random.Random(), answer={"tiers": tiers(shown, ranks)})
    ((_, status, reply),) = server.at_once([post], threads=1)
    assert status == 200, reply
    assert stored(server, post["id"]) == (seen, [list(tier) for tier in tiers(tuple(seen), ranks)])


def compare(server: Server, order: tuple[int, ...], side: str, strength: int) -> None:
    item = stands(server, order)
    seen, shown = [each["text"] for each in item["items"]], tuple(each["id"] for each in item["items"])
    said = body(judgement(shown, side, strength))
    answer = {name: said[name] for name in ("preferred", "strength", "verdict")}
    post = given_to(item, random.Random(), answer=answer)
    ((_, status, reply),) = server.at_once([post], threads=1)
    assert status == 200, reply
    preferred = {"left": seen[0], "right": seen[1]}.get(side, side)
    assert stored(server, post["id"]) == (seen, (preferred, strength))


def test_what_stood_on_the_page_is_what_is_stored_under_every_permutation_of_sides_and_ranks(server: Server) -> None:
    for sides, (side, strength) in product(permutations(range(2)), SAYS):
        compare(server, sides, side, strength)
    for order, ranks in product(permutations(range(3)), RANKS):
        rank(server, order, ranks)
    assert server.desk.store.counts().feedback == server.desk.store.verify() == 2 * 9 + 6 * 13


SCREENS = st.integers(4, 9).flatmap(
    lambda k: st.tuples(st.permutations(range(k)), st.lists(st.integers(0, k - 1), min_size=k, max_size=k))
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(SCREENS)
def test_rankings_of_up_to_nine_are_stored_as_they_stood_and_were_ranked(
    server: Server, screen: tuple[list[int], list[int]]
) -> None:
    rank(server, tuple(screen[0]), tuple(screen[1]))
