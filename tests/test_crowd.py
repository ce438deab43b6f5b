"""A simulated crowd under the real rules: who is let in, caught and weighed, and that nothing they said is lost."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain, combinations
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from assent.annotators.human import Human
from assent.errors import Waiting
from assent.feedback.comparison import Comparison
from assent.functional.agreement import cohen_kappa
from assent.functional.sequential import SequentialTest, Standing
from assent.labelling.accounts import Person
from assent.labelling.quality import LEAST, AnnotatorQuality, Quality, quality, reliabilities
from assent.labelling.queue import Ask, TaskQueue, agrees, change_setting, overlap
from assent.preferences.convert import examples
from assent.records import Feedback, Prompt, Purpose, Response, Task
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Office

AT = "2026-11-20T10:00:00.000+00:00"
SALT = "known here, so that every run of these tests is the same"
RIGHT = {"good": 0.95, "noisy": 0.75, "random": 0.5, "adversarial": 0.0}
"""How often each kind of annotator prefers the better item; one more kind, `left`, prefers what it is shown first."""


def expected(trials: float, share: float, found: float, deviations: float = 4.5) -> bool:
    """Whether a binomial count lies where all but one in 100,000 lie."""
    return abs(found - trials * share) <= deviations * sqrt(trials * share * (1 - share)) + 0.5


# What is asked, and who answers


def tasks(store: Store, number: int, purpose: Purpose = "train", words: str = "question") -> dict[Task, str]:
    """Comparisons, and the id of the better item of each; it is named first in half of them."""
    luck, made, prompts, told = random.Random(words), dict[Task, str](), list[Prompt](), list[Response]()
    for n in range(number):
        prompt = Prompt.ask(f"{words} {n}")
        pair = [Response(prompt.id, f"This is right, and number {n}.", "sft"), Response(prompt.id, "No idea!", "sft")]
        prompts.append(prompt)
        told += pair
        items = tuple(one.id for one in luck.sample(pair, 2))
        made[Task("comparison", prompt.id, items, purpose)] = pair[0].id
    store.add_prompts(prompts)
    store.add_responses(told)
    return made


def bank(desk: TaskQueue, number: int, use: str) -> dict[Task, str]:
    """Gold items, and the better item of each."""
    made = tasks(desk.store, number, "gold", f"{use} item")
    for query, better in made.items():
        desk.add_gold(query, Comparison(better), use, "because it is right")
    return made


def kind_of(person: str) -> str:
    return person.split("-")[0]


def choose(person: str, shown: Sequence[str], better: str, luck: random.Random) -> str:
    """The item that somebody prefers, by the kind of annotator that they are named for."""
    if kind_of(person) == "left":
        return shown[0]
    (worse,) = (item for item in shown if item != better)
    return better if luck.random() < RIGHT[kind_of(person)] else worse


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crowd")


def desk_at(path: Path) -> TaskQueue:
    """A new desk whose lots are the same in every run."""
    store = Store.open(path)
    change_setting(store, "salt", SALT, "server", AT)
    return TaskQueue(store)


# Whole careers under the sequential test


class Career(NamedTuple):
    """What the rule does to annotators who are right with one chance, added up over all that they might answer."""

    stopped: list[float]
    """The chance of being stopped at each gold item."""
    passes: float
    """The chance of passing the first test."""

    @property
    def ever(self) -> float:
        return sum(self.stopped)

    @property
    def mean(self) -> float:
        """The gold item at which those who are stopped are stopped."""
        return sum(n * chance for n, chance in enumerate(self.stopped, 1)) / self.ever


@cache
def career(chance: float, items: int = 150) -> Career:
    """The same for each of so many gold items: every standing that can be reached, with its probability.

    At one item in twenty 150 of them are three thousand answers.
    """
    test, stopped, passes = SequentialTest(), list[float](), 0.0
    after = cache(test.after)
    there: Mapping[Standing, float] = {Standing(): 1.0}
    for _ in range(items):
        stops, then = 0.0, defaultdict[Standing, float](float)
        for standing, share in there.items():
            for right, part in ((True, share * chance), (False, share * (1 - chance))):
                told = after(standing, right)
                if told.state == "failed":
                    stops += part
                elif part > 1e-12:
                    passes += part * (standing.passes == 0 < told.passes)
                    then[Standing(passes=told.passes, evidence=round(told.evidence, 9))] += part
        stopped.append(stops)
        there = then
    return Career(stopped, passes)


def test_a_random_clicker_is_caught_after_about_ten_gold_items() -> None:
    clicker = career(0.5)
    assert 9.5 < clicker.mean < 12
    assert 7 <= int(np.searchsorted(np.cumsum(clicker.stopped), 0.5)) + 1 <= 10
    assert sum(clicker.stopped[:30]) > 0.95
    assert clicker.ever > 0.9999


def test_about_one_in_two_hundred_who_are_right_nine_times_in_ten_is_stopped_in_a_whole_career() -> None:
    assert 0.0045 < career(0.9).ever < 0.0065
    assert sum(career(0.9).stopped[100:]) < career(0.9).ever / 10  # it hardly grows with the years
    assert career(0.95).ever < 0.0005
    assert career(0.9).passes > 0.98


def test_who_is_bad_passes_the_first_test_in_one_of_twenty_and_is_caught_later() -> None:
    assert 0.02 < career(0.6).passes <= 0.05
    assert career(0.6).ever > 0.99
    assert career(0.6).mean < 25


def test_the_worse_somebody_is_the_sooner_they_are_caught() -> None:
    stops = [career(chance) for chance in (0.0, 0.5, 0.6, 0.75, 0.9)]
    assert stops[0].stopped[:4] == [0, 0, 0, 1]
    assert [one.mean for one in stops[:4]] == sorted(one.mean for one in stops[:4])
    soon = [sum(one.stopped[:40]) for one in stops]
    assert soon == sorted(soon, reverse=True)
    # Who is right three times in four lies between good and bad: about half of them are asked to talk.
    assert 0.3 < soon[3] < 0.7


@pytest.mark.parametrize(
    ("kind", "chance", "people", "items"),
    [
        ("good", 0.95, 1500, 100),
        ("usual", 0.9, 3000, 150),
        ("noisy", 0.75, 1500, 60),
        ("random", 0.5, 1500, 60),
        ("left", 0.5, 1000, 40),
        ("adversarial", 0.0, 200, 8),
    ],
)
def test_simulated_careers_end_as_often_as_the_rule_says(
    kind: str, chance: float, people: int, items: int, tmp_path: Path
) -> None:
    desk = TaskQueue(Store.open(tmp_path / "store.db"))
    change_setting(desk.store, "salt", SALT, "server", AT)
    test, luck, stopped = SequentialTest(), random.Random(kind), list[int]()
    gold = [
        Task("comparison", f"prompt {n}", luck.choice([("right", "wrong"), ("wrong", "right")])) for n in range(items)
    ]
    for n in range(people):
        person = f"{kind}-{n}"
        if kind == "left":  # whose luck is how the items are laid before them
            answers = [choose(person, desk.order(query, person), "right", luck) == "right" for query in gold]
        else:
            answers = [luck.random() < chance for _ in gold]
        if (standing := test(answers)).state == "failed":
            stopped.append(standing.failed_at)
    exact = career(chance).stopped[:items]
    assert expected(people, sum(exact), len(stopped)), (len(stopped), people * sum(exact))
    early = sum(exact[:10])
    assert expected(people, early, sum(at <= 10 for at in stopped))
    if kind == "usual":
        assert not expected(people, 0.02, len(stopped))  # a rule twice as strict as alpha says would be found


# Where gold items stand


Places = list[list[bool]]
"""For each of thirty people, whether a gold item stood at each place of their work."""


@pytest.fixture(scope="module")
def places(folder: Path) -> Places:
    desk = desk_at(folder / "places.db")
    desk.post([Ask(query, 100) for query in tasks(desk.store, 140)], "label")
    gold = {query.id for query in bank(desk, 60, "hidden")}
    found = [[lent.query.id in gold for lent in desk.take(f"person-{n}", 140)] for n in range(30)]
    desk.store.close()
    return found


def test_one_in_eight_of_the_first_forty_items_is_gold_and_one_in_twenty_later(places: Places) -> None:
    early = sum(sum(some[:40]) for some in places)
    late = sum(sum(some[40:]) for some in places)
    assert expected(30 * 40, 1 / 8, early) and not expected(30 * 40, 1 / 20, early)
    assert expected(30 * 100, 1 / 20, late) and not expected(30 * 100, 1 / 8, late)
    for begin in range(0, 40, 10):  # not all of them in one part
        assert expected(30 * 10, 1 / 8, sum(sum(some[begin : begin + 10]) for some in places))


def test_gold_items_stand_elsewhere_for_everybody(places: Places) -> None:
    assert len({tuple(some) for some in places}) == 30
    pairs = list(combinations(places, 2))
    same = sum(sum(a and b for a, b in zip(one[:40], other[:40], strict=True)) for one, other in pairs)
    assert expected(len(pairs) * 40, 1 / 64, same)
    by_place = np.array(places).sum(0)
    assert by_place[:40].max() < 14  # 3.75 on average
    assert by_place[40:].max() < 11  # 1.5 on average


def test_from_where_gold_items_stood_nobody_can_tell_where_the_next_one_stands(places: Places) -> None:
    for lag in range(1, 25):
        after = [b for some in places for a, b in zip(some[:40], some[lag:40], strict=False) if a]
        assert expected(len(after), 1 / 8, sum(after)), f"a gold item {lag} after another"


@pytest.mark.parametrize("period", [8, 20])
def test_who_answers_well_at_every_eighth_or_twentieth_place_gains_nothing(places: Places, period: int) -> None:
    chance = (0.95 + 0.5 * (period - 1)) / period
    stopped, likely = 0, 0.0
    for offset in range(period):
        luck, marks = random.Random(f"{period} {offset}"), list[bool]()
        for some in places:
            mine = [luck.random() < (0.95 if n % period == offset else 0.5) for n, gold in enumerate(some) if gold]
            stopped += SequentialTest()(mine).state == "failed"
            likely += sum(career(chance).stopped[: len(mine)])
            marks += mine
        assert expected(len(marks), chance, sum(marks)), f"it pays to try at place {offset} of {period}"
    # As many are stopped as if they were right with this chance everywhere.
    assert likely > 30 * period / 5
    assert abs(stopped - likely) < 4.5 * sqrt(30 * period) / 2


# Screening


def test_who_is_good_passes_the_screening_and_who_does_not_look_fails(folder: Path) -> None:
    desk = desk_at(folder / "screening.db")
    better = {query.id: item for query, item in (bank(desk, 10, "practice") | bank(desk, 20, "test")).items()}
    test = {query.id for query, _, use in desk.gold() if use == "test"}
    crowd = {"good": 8, "random": 10, "left": 10, "adversarial": 2}
    passed = Counter[str]()
    for person in (f"{kind}-{n}" for kind, number in crowd.items() for n in range(number)):
        luck, right = random.Random(person), 0
        lent = desk.take(person, 99, screened=False)
        assert [one.query.id in test for one in lent] == [False] * 10 + [True] * 20
        for one in lent:
            said = choose(person, one.shown, better[one.query.id], luck)
            right += one.query.id in test and said == better[one.query.id]
            desk.answer(Feedback(one.query.id, person, Comparison(said, 2), AT, display_order=one.shown))
        assert desk.screening(person) == ("passed" if right >= 15 else "failed", right, 20)
        passed[kind_of(person)] += right >= 15
    # 15 of 20: .95 each fails in 3 of 10,000, .5 each passes in 1 of 48.
    assert passed["good"] == 8
    assert passed["random"] + passed["left"] <= 3
    assert passed["adversarial"] == 0
    assert desk.store.counts().feedback == 30 * 30
    desk.store.close()


# Servers


@dataclass
class Server:
    """An application that serves `demo`."""

    office: Office
    app: FastAPI

    @classmethod
    def at(cls, root: Path) -> "Server":
        with open_run(Setup(run=root / "demo")) as run:
            change_setting(run.store, "salt", SALT, "server", AT)
            run.store.close()
        office = Office(root / "demo")
        return cls(office, make_app(office))

    @property
    def desk(self) -> TaskQueue:
        return self.office.project("demo").desk

    @property
    def store(self) -> Store:
        return self.desk.store

    def person(self, id: str, role: str = "labeller", state: str = "active") -> TestClient:
        """The browser of somebody new, whose pseudonym is told, so that every run is the same."""
        person = Person(id, id.title(), role, state=state, at=AT)
        with self.store.writing() as on:
            on.execute(sa.insert(schema.people), {**vars(person), "secret": ""})
        client = TestClient(self.app, follow_redirects=False)
        client.cookies.set(COOKIE, self.office.people.open_session(person))
        return client

    def state(self, id: str) -> str:
        return self.office.people.get(id).state


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server.at(tmp_path)
    yield made
    made.office.close()


def post_of(person: str, item: Mapping[str, Any], number: int, luck: random.Random) -> dict[str, Any]:
    """What somebody posts who reads what stands on the page; every fifth answer is 'slightly'."""
    (better,) = (each["id"] for each in item["items"] if "This is right" in each["text"])
    shown = [each["id"] for each in item["items"]]
    answer = {"preferred": choose(person, shown, better, luck), "strength": luck.choice([1, 2, 2, 3, 3])}
    return {"id": f"{person}-{number}", "query": item["query"], "answer": answer, "shown": shown, "seconds": 2.0}


@pytest.mark.parametrize("kind", ["good", "noisy", "random", "left", "adversarial"])
def test_a_newcomer_is_screened_and_let_in_or_paused_by_what_they_said(server: Server, kind: str) -> None:
    server.desk.post(map(Ask, tasks(server.store, 3)), "label")
    test = {query.id for query in bank(server.desk, 20, "test")}
    bank(server.desk, 10, "practice")
    person, luck = f"{kind}-0", random.Random(kind)
    right = said = 0
    with server.person(person, state="new") as browser:
        while (reply := browser.get("/r/demo/api/next").json()).get("screening"):
            for item in reply["items"]:
                post = post_of(person, item, said, luck)
                kept = browser.post("/r/demo/api/feedback", json=post).json()
                (event,) = server.store.feedback(ids=[post["id"]])
                judged = server.desk.judge(event)
                assert judged and (event.task in test) == (said >= 10)
                if said < 10:
                    assert (judged.use, kept["right"], kept["explanation"]) == (
                        "practice",
                        judged.right,
                        "because it is right",
                    )
                else:
                    assert (judged.use, kept["right"], kept["explanation"]) == ("test", None, "")
                    right += judged.right
                said += 1
        assert said == 30
        assert server.state(person) == ("active" if right >= 15 else "paused")
        assert (browser.get("/r/demo/api/next").status_code == 200) == (right >= 15)
    if kind != "noisy":  # who may have luck or not
        assert (right >= 15) == (kind == "good")
    assert len(list(server.store.feedback(annotator=person))) == 30


@pytest.mark.parametrize(
    ("answers", "quick"),
    [
        ("r" * 9, False),
        ("r" * 10, True),
        ("r" * 9 + "w", True),
        ("w" + "r" * 8 + "w", False),
        ("rw" * 3 + "r" * 8, False),
    ],
)
def test_quick_mode_is_for_who_has_nine_of_ten_gold_items_right(server: Server, answers: str, quick: bool) -> None:
    gold = bank(server.desk, len(answers), "hidden")
    with server.person("ann") as browser:
        for number, ((query, better), mark) in enumerate(zip(gold.items(), answers, strict=True)):
            lent = server.desk.lend("ann", query)
            (worse,) = (item for item in lent.shown if item != better)
            answer = {"preferred": better if mark == "r" else worse, "strength": 3}
            post = {"id": f"ann-{number}", "query": lent.name, "answer": answer, "shown": [*lent.shown]}
            assert browser.post("/r/demo/api/feedback", json=post).status_code == 200
        assert browser.get("/r/demo/api/next").json()["quick"] is quick


def test_who_was_paused_and_is_let_in_by_hand_starts_a_new_test(server: Server) -> None:
    gold, said = iter(bank(server.desk, 40, "hidden").items()), 0
    owner, browser, people = server.person("olga", "owner"), server.person("ann"), server.office.people

    def answer(*marks: bool) -> str:
        """Answer gold items, rightly or not, and return the state in which that leaves Ann."""
        nonlocal said
        for right, (query, better) in zip(marks, gold, strict=False):
            lent = server.desk.lend("ann", query)
            (worse,) = (item for item in lent.shown if item != better)
            body = {"preferred": better if right else worse, "strength": 2}
            post = {"id": f"ann-{said}", "query": lent.name, "answer": body, "shown": [*lent.shown]}
            assert browser.post("/r/demo/api/feedback", json=post).status_code == 200
            said += 1
        return server.state("ann")

    def let_in() -> None:
        form = {"id": "ann", "state": "active", "why": "we talked"}
        assert owner.post("/r/demo/people", data=form).status_code == 303
        assert server.desk.gold_answers("ann", people.let_in("ann")) == []

    assert people.let_in("ann") == ""
    assert [answer(False) for _ in range(4)] == ["active", "active", "active", "paused"]
    assert browser.get("/r/demo/api/next").status_code == 403
    let_in()
    assert browser.get("/r/demo/api/next").status_code == 200
    # As many as before, neither fewer for what was said then nor more for a second chance.
    assert [answer(False) for _ in range(4)] == ["active", "active", "active", "paused"]
    assert server.desk.gold_answers("ann", people.let_in("ann")) == [False] * 4
    let_in()
    assert answer(*[True] * 8) == "active"
    assert server.desk.gold_answers("ann", people.let_in("ann")) == [True] * 8
    assert [answer(False) for _ in range(5)] == ["active"] * 4 + ["paused"]  # the second test asks for more
    assert server.desk.gold_answers("ann") == [False] * 8 + [True] * 8 + [False] * 5
    assert [event.id for event in server.store.feedback()] == [f"ann-{n}" for n in range(said)]
    assert server.store.verify() == said == 21


# A crowd at work


@dataclass
class Work:
    """What a crowd did at a server."""

    server: Server
    batch: int
    """Items on a page."""
    queries: list[Task]
    posts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """What was acknowledged, by person, in order."""
    quick: list[tuple[str, int, bool]] = field(default_factory=list)
    """Who, after how many answers, was told that one key may submit."""
    refused: set[str] = field(default_factory=set)
    """Who was given nothing more, as paused."""

    @cached_property
    def marks(self) -> dict[str, list[tuple[int, bool]]]:
        """The place of each gold item among somebody's answers, and whether they were right."""
        right = {query.id: answer for query, answer, _ in self.server.desk.gold()}
        said = {event.id: event for event in self.server.store.feedback()}
        events = {person: [said[post["id"]] for post in posts] for person, posts in self.posts.items()}
        return {
            person: [(n, agrees(right[e.task], e.judgement)) for n, e in enumerate(some, 1) if e.task in right]
            for person, some in events.items()
        }


QUOTAS = {
    "good-0": 260, "good-1": 110, "good-2": 110, "noisy-0": 110, "noisy-1": 110,
    "random-0": 460, "random-1": 460, "left-0": 460, "adversarial-0": 200,
}  # fmt: skip
"""How many answers each of them wants to give: those who do not read are quick."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    server = Server.at(tmp_path_factory.mktemp("work"))
    queries = list(tasks(server.store, 900))
    bank(server.desk, 60, "hidden")
    prompts = {prompt.id: prompt for prompt in server.store.prompts()}
    responses = {one.id: one for one in server.store.responses()}
    with pytest.raises(Waiting):  # the stage lays its questions on the desk
        next(Human(wait=0).answer(queries, prompts, responses, 0, None, server.desk, "label"))  # type: ignore[arg-type]
    made = Work(server, 6, queries)
    browsers = {person: server.person(person) for person in QUOTAS}
    lucks = {person: random.Random(person) for person in QUOTAS}
    at_work = list(QUOTAS)
    while at_work:
        for person in list(at_work):
            with browsers[person] as browser:
                if not go_on(made, person, browser, lucks[person]):
                    at_work.remove(person)
    yield made
    server.office.close()


def go_on(work: Work, person: str, browser: TestClient, luck: random.Random) -> bool:
    """Answer a page of items; whether somebody wants, and may, answer more."""
    said = work.posts[person]
    reply = browser.get("/r/demo/api/next", params={"count": work.batch})
    if reply.status_code == 403:
        work.refused.add(person)
        return False
    told = reply.json()
    assert told["items"], "there is nothing left to answer"
    work.quick.append((person, len(said), told["quick"]))
    for item in told["items"]:
        post = post_of(person, item, len(said), luck)
        kept = browser.post("/r/demo/api/feedback", json=post)
        assert kept.status_code == 200, kept.text
        assert kept.json()["right"] is None  # nobody is told which items are gold
        said.append(post)
    return len(said) < QUOTAS[person]


def test_who_does_not_look_is_paused_and_who_does_is_not(work: Work) -> None:
    paused = {person for person in QUOTAS if work.server.state(person) == "paused"}
    assert paused == work.refused
    assert {"random-0", "random-1", "left-0", "adversarial-0"} <= paused
    assert not {"good-0", "good-1", "good-2"} & paused


def test_a_pause_comes_with_the_very_answer_that_decides_it(work: Work) -> None:
    for person, posts in work.posts.items():
        marks = work.marks[person]
        standing = SequentialTest()(right for _, right in marks)
        assert (standing.state == "failed") == (person in work.refused)
        if standing.failed_at:
            decided, _ = marks[standing.failed_at - 1]
            assert len(posts) - decided < work.batch, "what was on the page is still taken, and nothing after"
    wrong = [right for _, right in work.marks["adversarial-0"]][:4]
    assert (wrong, len(work.posts["adversarial-0"]) < 90) == ([False] * 4, True)


def test_somebody_who_is_paused_loses_nothing(work: Work) -> None:
    said = {post["id"]: (person, post["answer"]["preferred"]) for person, p in work.posts.items() for post in p}
    stored = list(work.server.store.feedback())
    assert {event.id: (event.annotator, event.judgement.items[0]) for event in stored} == said
    assert len(stored) == len(said) == work.server.store.verify()
    weights = reliabilities(work.server.store)
    assert weights.keys() == QUOTAS.keys()
    assert min(weights.values()) == LEAST > 0
    store = work.server.store
    made = examples(stored, store.tasks(), store.prompts(), store.responses(), weights)
    gold = {query.id for query, _, _ in work.server.desk.gold()}
    assert {source for one in made for source in one.feedback_ids} == {one.id for one in stored if one.task not in gold}


def test_the_share_of_answers_of_paused_people_is_shown_with_an_alarm(work: Work) -> None:
    paused = sum(len(work.posts[person]) for person in work.refused)
    everything = sum(map(len, work.posts.values()))
    assert paused > everything / 10
    with work.server.person("vic", "viewer") as browser:
        page = browser.get("/r/demo/progress").text
    assert f'role="alert">{paused} of {everything} answers' in page


def test_15_in_100_items_are_asked_of_three_and_2_of_five_and_nobody_is_asked_twice(work: Work) -> None:
    with work.server.store.reading() as on:
        asks = {row.query: row for row in on.execute(sa.select(schema.asks))}
    assert asks.keys() == {query.id for query in work.queries}
    voices, first = defaultdict[str, list[str]](list), dict[str, Comparison]()
    for event in work.server.store.feedback():
        voices[event.task].append(event.annotator)
        assert isinstance(event.judgement, Comparison)
        first.setdefault(event.task, event.judgement)
    for query in work.queries:
        there, wanted = asks[query.id], overlap(query)
        if wanted == 1 and query.id in first and first[query.id].strength == 1:
            wanted = 2  # a second opinion where the answer was "slightly"
        assert (there.wanted, there.given) == (wanted, len(voices[query.id]))
        assert len(voices[query.id]) == len(set(voices[query.id])) <= wanted
    shares = Counter(map(overlap, work.queries))
    assert expected(900, 0.15, shares[3]) and expected(900, 0.02, shares[5])
    heard = Counter(len(people) for query, people in voices.items() if query in asks)
    assert heard[3] > 30 and heard[5] > 3
    once = [query.id for query in work.queries if overlap(query) == 1 and query.id in first]
    slightly = [query for query in once if first[query].strength == 1]
    assert expected(len(once), 0.2, len(slightly))
    assert sum(len(voices[query]) == 2 for query in slightly) > len(slightly) / 2  # the others wait for it


def test_quick_mode_comes_and_goes_with_the_gold_answers(work: Work) -> None:
    seen = Counter[tuple[str, bool]]()
    for person, said, quick in work.quick:
        right = [mark for place, mark in work.marks[person] if place <= said]
        assert quick == (len(right) >= 10 and sum(right) >= 0.9 * len(right))
        seen[kind_of(person), quick] += 1
    assert seen["good", True] > 0
    assert not any(seen[kind, True] for kind in ("random", "left", "adversarial"))


def test_at_work_too_the_better_weigh_more(work: Work) -> None:
    weights = defaultdict[str, list[float]](list)
    for person, weight in reliabilities(work.server.store).items():
        weights[kind_of(person)].append(weight)
    assert min(weights["good"]) > 0.6
    assert np.mean(weights["good"]) > np.mean(weights["noisy"]) > np.mean(weights["random"] + weights["left"])
    assert weights["adversarial"] == [LEAST]


# What is found out about a crowd


CROWD = [
    *(f"{kind}-{n}" for kind in ("good", "noisy") for n in range(3)),
    *("random-0", "random-1", "left-0", "adversarial-0"),
]


@dataclass
class Panel:
    """Everybody answered everything, and a few gold items among it."""

    store: Store
    queries: dict[str, Task]
    gold: dict[str, Comparison]
    said: dict[str, list[Feedback]]

    def look(self, *kinds: str, gold: bool = True) -> Quality:
        """At annotators of these kinds, or at all."""
        events = [event for who, some in self.said.items() if not kinds or kind_of(who) in kinds for event in some]
        known = self.gold if gold else {}
        plain = [event for event in events if gold or event.task not in self.gold]
        return quality(plain, self.queries, known, resamples=200)

    def of(self, gold: bool = True) -> dict[str, AnnotatorQuality]:
        return {each.annotator: each for each in self.look(gold=gold).annotators}


@pytest.fixture(scope="module")
def panel(folder: Path) -> Iterator[Panel]:
    desk = desk_at(folder / "panel.db")
    asked = tasks(desk.store, 240)
    desk.post([Ask(query, len(CROWD)) for query in asked], "label")
    hidden = bank(desk, 60, "hidden")
    better = {query.id: item for query, item in (asked | hidden).items()}
    said: dict[str, list[Feedback]] = {}
    for person in CROWD:
        luck = random.Random(person)
        said[person] = [
            Feedback(
                one.query.id,
                person,
                Comparison(choose(person, one.shown, better[one.query.id], luck), 2),
                AT,
                display_order=one.shown,
            )
            for one in desk.take(person, 250)
        ]
    desk.store.add_feedback(chain.from_iterable(said.values()))
    gold = {query.id: Comparison(item) for query, item in hidden.items()}
    yield Panel(desk.store, {query.id: query for query in desk.store.tasks()}, gold, said)
    desk.store.close()


@pytest.mark.parametrize("gold", [True, False], ids=["with gold items", "from agreement alone"])
def test_reliability_ranks_good_above_noisy_above_random_and_gives_the_adversary_nothing(
    panel: Panel, gold: bool
) -> None:
    found = panel.of(gold)
    for person in CROWD:
        # 2 p - 1 for who is right with chance p; of 250 answers, 4.5 standard deviations of it.
        usual = 2 * RIGHT.get(kind_of(person), 0.5) - 1
        assert found[person].reliability == pytest.approx(max(0, usual), abs=0.28 if usual < 0.6 else 0.1), person
    weights = [[found[who].weight for who in CROWD if kind_of(who) == kind] for kind in ("good", "noisy", "random")]
    assert min(weights[0]) > max(weights[1])
    assert min(weights[1]) > max(*weights[2], found["left-0"].weight)
    assert (found["adversarial-0"].reliability, found["adversarial-0"].weight) == (0, LEAST)
    assert found["adversarial-0"].peers < -0.4 < -0.2 < found["left-0"].peers < 0.2


def test_who_always_takes_the_first_is_seen_by_the_left_rate(panel: Panel) -> None:
    found = panel.of()
    assert (found["left-0"].left.rate, found["left-0"].left.n) == (1, 250)
    assert found["left-0"].left.low > 0.98
    for person in CROWD[:-2] + CROWD[-1:]:
        assert expected(250, 0.5, 250 * found[person].left.rate), person
    assert found["left-0"].gold.high < 0.95  # half of the sides are right


def test_gold_is_marked_for_each_as_they_are(panel: Panel) -> None:
    for person, found in panel.of().items():
        assert found.gold.n == sum(event.task in panel.gold for event in panel.said[person]) > 3
        assert expected(found.gold.n, RIGHT.get(kind_of(person), 0.5), found.gold.n * found.gold.rate)


def test_the_good_agree_and_those_who_do_not_look_do_not(panel: Panel) -> None:
    good, noisy, blind = (panel.look(*kinds) for kinds in (("good",), ("noisy",), ("random", "left")))
    # Two who are right with chance p agree in p^2 + (1 - p)^2; half of that is chance: alpha is (2 p - 1)^2.
    assert good.alpha.value == pytest.approx(0.81, abs=0.09)
    assert noisy.alpha.value == pytest.approx(0.25, abs=0.17)
    assert blind.alpha.value == pytest.approx(0, abs=0.17)
    assert good.alpha.low > noisy.alpha.high and noisy.alpha.low > 0.05
    assert good.agreement.decisive.value == pytest.approx(0.905, abs=0.05)
    assert blind.agreement.decisive.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("one", "other", "kappa"),
    [("good-0", "good-1", 0.81), ("good-0", "noisy-0", 0.45), ("good-0", "random-0", 0.0), ("left-0", "random-0", 0.0),
     ("good-0", "adversarial-0", -0.9)],
)  # fmt: skip
def test_kappa_of_two_is_the_product_of_what_each_knows(panel: Panel, one: str, other: str, kappa: float) -> None:
    def sides(person: str) -> dict[str, int]:
        """Which item of its query each of somebody's answers prefers."""
        return {e.task: panel.queries[e.task].items.index(e.judgement.items[0]) for e in panel.said[person]}

    first, second = sides(one), sides(other)
    both = [query for query in first if query in second]
    assert len(both) > 200
    found = cohen_kappa([first[query] for query in both], [second[query] for query in both], resamples=100)
    assert found.value == pytest.approx(kappa, abs=4.5 * sqrt((1 - kappa**2) / len(both)))


def test_a_pause_is_advised_for_those_whom_the_gold_items_speak_against(panel: Panel) -> None:
    for person, found in panel.of().items():
        assert found.pause == (SequentialTest()(TaskQueue(panel.store).gold_answers(person)).state == "failed")
    advised = {kind_of(person) for person, found in panel.of().items() if found.pause}
    assert "adversarial" in advised and "good" not in advised
