"""A simulated crowd under the real rules: screening, gold items and pauses, and no judgement is lost."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from simulated_crowd import AT, SALT, add_gold, add_tasks, choose, is_in_interval, kind_of, open_queue

from assent.annotators.human import Human
from assent.errors import Waiting
from assent.feedback.comparison import Comparison
from assent.functional.sequential import GoldTestState, SequentialTest
from assent.labelling.gold import matches_gold
from assent.labelling.quality import MIN_WEIGHT, annotator_weights
from assent.labelling.queue import TaskQueue, TaskRequest, required_votes
from assent.labelling.settings import change_setting
from assent.labelling.users import User
from assent.preferences.convert import to_examples
from assent.records import Feedback, Task
from assent.run import Setup, open_run
from assent.store import schema
from assent.store.database import Store
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crowd")


# Careers under the sequential test


class CareerProbabilities(NamedTuple):
    """The exact effect of the sequential test on annotators with one accuracy, over all their possible results."""

    stopped: list[float]
    """The probability of being paused at each gold item."""
    passes: float
    """The probability of passing the first test."""

    @property
    def total(self) -> float:
        return sum(self.stopped)

    @property
    def mean(self) -> float:
        """Return the mean number of gold items before the end, among careers that end."""
        return sum(n * chance for n, chance in enumerate(self.stopped, 1)) / self.total


@cache
def career_probabilities(chance: float, items: int = 150) -> CareerProbabilities:
    """Return the exact probabilities, from every state of the test that can be reached.

    Args:
        items: gold items; at a rate of 1/20, 150 of them are in 3,000 tasks.
    """
    test = SequentialTest()
    stopped = list[float]()
    passes = 0.0
    after = cache(test.update)
    probabilities: Mapping[GoldTestState, float] = {GoldTestState(): 1.0}
    for _ in range(items):
        stop_probability = 0.0
        next_probabilities = defaultdict[GoldTestState, float](float)
        for state, share in probabilities.items():
            for right, part in ((True, share * chance), (False, share * (1 - chance))):
                updated = after(state, right)
                if updated.status == "failed":
                    stop_probability += part
                elif part > 1e-12:
                    passes += part * (state.passes == 0 < updated.passes)
                    next_probabilities[GoldTestState(passes=updated.passes, log_odds=round(updated.log_odds, 9))] += (
                        part
                    )
        stopped.append(stop_probability)
        probabilities = next_probabilities
    return CareerProbabilities(stopped, passes)


def test_career_of_a_random_clicker_ends_early() -> None:
    clicker = career_probabilities(0.5)
    assert 9.5 < clicker.mean < 12
    assert 7 <= int(np.searchsorted(np.cumsum(clicker.stopped), 0.5)) + 1 <= 10
    assert sum(clicker.stopped[:30]) > 0.95
    assert clicker.total > 0.9999


def test_career_of_a_good_annotator_rarely_ends() -> None:
    assert 0.0045 < career_probabilities(0.9).total < 0.0065
    assert (
        sum(career_probabilities(0.9).stopped[100:]) < career_probabilities(0.9).total / 10
    )  # it hardly grows with time
    assert career_probabilities(0.95).total < 0.0005
    assert career_probabilities(0.9).passes > 0.98


def test_career_of_a_bad_annotator_ends_later() -> None:
    assert 0.02 < career_probabilities(0.6).passes <= 0.05
    assert career_probabilities(0.6).total > 0.99
    assert career_probabilities(0.6).mean < 25


def test_career_length_decreases_with_accuracy() -> None:
    stop_probability = [career_probabilities(chance) for chance in (0.0, 0.5, 0.6, 0.75, 0.9)]
    assert stop_probability[0].stopped[:4] == [0, 0, 0, 1]
    assert [entry.mean for entry in stop_probability[:4]] == sorted(entry.mean for entry in stop_probability[:4])
    early_stops = [sum(entry.stopped[:40]) for entry in stop_probability]
    assert early_stops == sorted(early_stops, reverse=True)
    # An accuracy of 3/4 is between good and bad: about half of these annotators are paused.
    assert 0.3 < early_stops[3] < 0.7


@pytest.mark.parametrize(
    ("kind", "chance", "num_annotators", "items"),
    [
        ("good", 0.95, 1500, 100),
        ("usual", 0.9, 3000, 150),
        ("noisy", 0.75, 1500, 60),
        ("random", 0.5, 1500, 60),
        ("left", 0.5, 1000, 40),
        ("adversarial", 0.0, 200, 8),
    ],
)
def test_simulated_careers_match_the_exact_probabilities(
    kind: str, chance: float, num_annotators: int, items: int, tmp_path: Path
) -> None:
    queue = TaskQueue(Store.open(tmp_path / "store.db"))
    change_setting(queue.store, "salt", SALT, "server", AT)
    test = SequentialTest()
    rng = random.Random(kind)
    stopped = list[int]()
    gold = [
        Task("comparison", f"prompt {n}", rng.choice([("right", "wrong"), ("wrong", "right")])) for n in range(items)
    ]
    for n in range(num_annotators):
        annotator = f"{kind}-{n}"
        if kind == "left":  # the display order is the only random part
            marks = [
                choose(annotator, queue.assignments.display_order(task, annotator), "right", rng) == "right"
                for task in gold
            ]
        else:
            marks = [rng.random() < chance for _ in gold]
        if (standing := test(marks)).status == "failed":
            stopped.append(standing.failed_at)
    exact = career_probabilities(chance).stopped[:items]
    assert is_in_interval(num_annotators, sum(exact), len(stopped)), (len(stopped), num_annotators * sum(exact))
    early = sum(exact[:10])
    assert is_in_interval(num_annotators, early, sum(at <= 10 for at in stopped))
    if kind == "usual":
        assert not is_in_interval(num_annotators, 0.02, len(stopped))  # a test with twice its alpha would be noticed


# Places of gold items


Places = list[list[bool]]
"""For each of thirty annotators, whether each of their tasks was a gold item."""


@pytest.fixture(scope="module")
def gold_places(folder: Path) -> Places:
    queue = open_queue(folder / "places.db")
    queue.enqueue([TaskRequest(task, 100) for task in add_tasks(queue.store, 140)], "label")
    gold = {task.id for task in add_gold(queue, 60, "hidden")}
    result = [[assignment.task.id in gold for assignment in queue.next_tasks(f"person-{n}", 140)] for n in range(30)]
    queue.store.close()
    return result


def test_gold_rate_is_1_in_8_then_1_in_20(gold_places: Places) -> None:
    early = sum(sum(places_of_annotator[:40]) for places_of_annotator in gold_places)
    late = sum(sum(places_of_annotator[40:]) for places_of_annotator in gold_places)
    assert is_in_interval(30 * 40, 1 / 8, early) and not is_in_interval(30 * 40, 1 / 20, early)
    assert is_in_interval(30 * 100, 1 / 20, late) and not is_in_interval(30 * 100, 1 / 8, late)
    for begin in range(0, 40, 10):  # in every part of the first forty
        assert is_in_interval(
            30 * 10, 1 / 8, sum(sum(places_of_annotator[begin : begin + 10]) for places_of_annotator in gold_places)
        )


def test_gold_places_differ_between_annotators(gold_places: Places) -> None:
    assert len({tuple(places_of_annotator) for places_of_annotator in gold_places}) == 30
    pairs = list(combinations(gold_places, 2))
    same = sum(sum(a and b for a, b in zip(entry[:40], second[:40], strict=True)) for entry, second in pairs)
    assert is_in_interval(len(pairs) * 40, 1 / 64, same)
    by_place = np.array(gold_places).sum(0)
    assert by_place[:40].max() < 14  # 3.75 on average
    assert by_place[40:].max() < 11  # 1.5 on average


def test_gold_places_are_independent(gold_places: Places) -> None:
    for lag in range(1, 25):
        after = [
            b
            for places_of_annotator in gold_places
            for a, b in zip(places_of_annotator[:40], places_of_annotator[lag:40], strict=False)
            if a
        ]
        assert is_in_interval(len(after), 1 / 8, sum(after)), f"a gold item {lag} after another"


@pytest.mark.parametrize("period", [8, 20])
def test_gold_places_cannot_be_exploited_periodically(gold_places: Places, period: int) -> None:
    chance = (0.95 + 0.5 * (period - 1)) / period
    stopped = 0
    expected_stops = 0.0
    for offset in range(period):
        rng = random.Random(f"{period} {offset}")
        marks = list[bool]()
        for places_of_annotator in gold_places:
            own_marks = [
                rng.random() < (0.95 if n % period == offset else 0.5)
                for n, gold in enumerate(places_of_annotator)
                if gold
            ]
            stopped += SequentialTest()(own_marks).status == "failed"
            expected_stops += sum(career_probabilities(chance).stopped[: len(own_marks)])
            marks += own_marks
        assert is_in_interval(len(marks), chance, sum(marks)), f"it pays to try at place {offset} of {period}"
    # As many are paused as with this accuracy everywhere.
    assert expected_stops > 30 * period / 5
    assert abs(stopped - expected_stops) < 4.5 * sqrt(30 * period) / 2


# Screening


def test_screening_passes_good_annotators_only(folder: Path) -> None:
    queue = open_queue(folder / "screening.db")
    better_item = {
        task.id: item for task, item in (add_gold(queue, 10, "practice") | add_gold(queue, 20, "test")).items()
    }
    test = {task.id for task, _, use in queue.gold.items() if use == "test"}
    crowd = {"good": 8, "random": 10, "left": 10, "adversarial": 2}
    passed = Counter[str]()
    for annotator in (f"{kind}-{n}" for kind, number in crowd.items() for n in range(number)):
        rng = random.Random(annotator)
        right = 0
        assignment = queue.next_tasks(annotator, 99, is_screened=False)
        assert [entry.task.id in test for entry in assignment] == [False] * 10 + [True] * 20
        for entry in assignment:
            preferred = choose(annotator, entry.display_order, better_item[entry.task.id], rng)
            right += entry.task.id in test and preferred == better_item[entry.task.id]
            queue.submit(
                Feedback(entry.task.id, annotator, Comparison(preferred, 2), AT, display_order=entry.display_order)
            )
        assert queue.screening.result(annotator) == ("passed" if right >= 15 else "failed", right, 20)
        passed[kind_of(annotator)] += right >= 15
    # 15 of 20: .95 each fails in 3 of 10,000, .5 each passes in 1 of 48.
    assert passed["good"] == 8
    assert passed["random"] + passed["left"] <= 3
    assert passed["adversarial"] == 0
    assert queue.store.counts().feedback == 30 * 30
    queue.store.close()


# Servers


@dataclass
class Server:
    """An application that serves `demo`."""

    workspace: Workspace
    app: FastAPI

    @classmethod
    def at(cls, root: Path) -> "Server":
        with open_run(Setup(run=root / "demo")) as run:
            change_setting(run.store, "salt", SALT, "server", AT)
            run.store.close()
        workspace = Workspace(root / "demo")
        return cls(workspace, make_app(workspace))

    @property
    def queue(self) -> TaskQueue:
        return self.workspace.project("demo").queue

    @property
    def store(self) -> Store:
        return self.queue.store

    def open_browser(self, id: str, role: str = "labeller", state: str = "active") -> TestClient:
        """Add a user with this id, which is equal in every run, and return their browser."""
        annotator = User(id, id.title(), role, state=state, created_at=AT)
        with self.store.writing() as connection:
            connection.execute(sa.insert(schema.users), {**vars(annotator), "password_hash": ""})
        client = TestClient(self.app, follow_redirects=False)
        client.cookies.set(COOKIE, self.workspace.accounts.credentials.open_session(annotator))
        return client

    def state(self, id: str) -> str:
        return self.workspace.accounts.get(id).state


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    opened = Server.at(tmp_path)
    yield opened
    opened.workspace.close()


def judgement_body(annotator: str, item: Mapping[str, Any], number: int, rng: random.Random) -> dict[str, Any]:
    """Return the judgement of an annotator who reads the page; every fifth judgement has strength 1."""
    (better_item,) = (item_view["id"] for item_view in item["items"] if "This is right" in item_view["text"])
    display_order = [item_view["id"] for item_view in item["items"]]
    judgement = {
        "preferred": choose(annotator, display_order, better_item, rng),
        "strength": rng.choice([1, 2, 2, 3, 3]),
    }
    return {
        "id": f"{annotator}-{number}",
        "task": item["task"],
        "judgement": judgement,
        "display_order": display_order,
        "duration": 2.0,
    }


@pytest.mark.parametrize("kind", ["good", "noisy", "random", "left", "adversarial"])
def test_screening_activates_or_pauses_a_new_user(server: Server, kind: str) -> None:
    server.queue.enqueue(map(TaskRequest, add_tasks(server.store, 3)), "label")
    test = {task.id for task in add_gold(server.queue, 20, "test")}
    add_gold(server.queue, 10, "practice")
    annotator = f"{kind}-0"
    rng = random.Random(kind)
    right = num_judged = 0
    with server.open_browser(annotator, state="new") as browser:
        while (reply := browser.get("/r/demo/api/tasks/next").json()).get("screening"):
            for item in reply["tasks"]:
                body = judgement_body(annotator, item, num_judged, rng)
                stored = browser.post("/r/demo/api/judgements", json=body).json()
                (event,) = server.store.feedback(ids=[body["id"]])
                gold_result = server.queue.gold.check(event)
                assert gold_result and (event.task in test) == (num_judged >= 10)
                if num_judged < 10:
                    assert (gold_result.use, stored["correct"], stored["explanation"]) == (
                        "practice",
                        gold_result.is_correct,
                        "because it is right",
                    )
                else:
                    assert (gold_result.use, stored["correct"], stored["explanation"]) == ("test", None, "")
                    right += gold_result.is_correct
                num_judged += 1
        assert num_judged == 30
        assert server.state(annotator) == ("active" if right >= 15 else "paused")
        assert (browser.get("/r/demo/api/tasks/next").status_code == 200) == (right >= 15)
    if kind != "noisy":  # a noisy annotator may pass or fail
        assert (right >= 15) == (kind == "good")
    assert len(list(server.store.feedback(annotator=annotator))) == 30


@pytest.mark.parametrize(
    ("marks", "quick_submit"),
    [
        ("r" * 9, False),
        ("r" * 10, True),
        ("r" * 9 + "w", True),
        ("w" + "r" * 8 + "w", False),
        ("rw" * 3 + "r" * 8, False),
    ],
)
def test_quick_submit_needs_9_of_10_gold_items_right(server: Server, marks: str, quick_submit: bool) -> None:
    gold = add_gold(server.queue, len(marks), "hidden")
    with server.open_browser("ann") as browser:
        for number, ((task, better_item), mark) in enumerate(zip(gold.items(), marks, strict=True)):
            assignment = server.queue.assignments.assign("ann", task)
            (worse,) = (item for item in assignment.display_order if item != better_item)
            judgement = {"preferred": better_item if mark == "r" else worse, "strength": 3}
            body = {
                "id": f"ann-{number}",
                "task": assignment.alias,
                "judgement": judgement,
                "display_order": [*assignment.display_order],
            }
            assert browser.post("/r/demo/api/judgements", json=body).status_code == 200
        assert browser.get("/r/demo/api/tasks/next").json()["quick_submit"] is quick_submit


def test_reactivated_user_starts_a_new_gold_test(server: Server) -> None:
    gold = iter(add_gold(server.queue, 40, "hidden").items())
    num_judged = 0
    owner = server.open_browser("olga", "owner")
    browser = server.open_browser("ann")
    accounts = server.workspace.accounts

    def judgement(*marks: bool) -> str:
        """Judge gold items, rightly or not, and return Ann's state."""
        nonlocal num_judged
        for right, (task, better_item) in zip(marks, gold, strict=False):
            assignment = server.queue.assignments.assign("ann", task)
            (worse,) = (item for item in assignment.display_order if item != better_item)
            body = {"preferred": better_item if right else worse, "strength": 2}
            body = {
                "id": f"ann-{num_judged}",
                "task": assignment.alias,
                "judgement": body,
                "display_order": [*assignment.display_order],
            }
            assert browser.post("/r/demo/api/judgements", json=body).status_code == 200
            num_judged += 1
        return server.state("ann")

    def activate() -> None:
        form = {"id": "ann", "state": "active", "reason": "we talked"}
        assert owner.post("/r/demo/users", data=form).status_code == 303
        assert server.queue.gold.results("ann", accounts.audit_log.activated_at("ann")) == []

    assert accounts.audit_log.activated_at("ann") == ""
    assert [judgement(False) for _ in range(4)] == ["active", "active", "active", "paused"]
    assert browser.get("/r/demo/api/tasks/next").status_code == 403
    activate()
    assert browser.get("/r/demo/api/tasks/next").status_code == 200
    # As many as before: the new test ignores the earlier judgements.
    assert [judgement(False) for _ in range(4)] == ["active", "active", "active", "paused"]
    assert server.queue.gold.results("ann", accounts.audit_log.activated_at("ann")) == [False] * 4
    activate()
    assert judgement(*[True] * 8) == "active"
    assert server.queue.gold.results("ann", accounts.audit_log.activated_at("ann")) == [True] * 8
    assert [judgement(False) for _ in range(5)] == ["active"] * 4 + ["paused"]  # the second test needs more evidence
    assert server.queue.gold.results("ann") == [False] * 8 + [True] * 8 + [False] * 5
    assert [event.id for event in server.store.feedback()] == [f"ann-{n}" for n in range(num_judged)]
    assert server.store.verify() == num_judged == 21


# A crowd at a server


@dataclass
class CrowdRun:
    """The judgements of a crowd at a server."""

    server: Server
    batch: int
    """Tasks on a page."""
    tasks: list[Task]
    bodies: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """The acknowledged judgements of each annotator, in order."""
    quick_submit: list[tuple[str, int, bool]] = field(default_factory=list)
    """Annotator, number of judgements, and whether one key could submit then."""
    refused: set[str] = field(default_factory=set)
    """The annotators who got no more tasks because they were paused."""

    @cached_property
    def marks(self) -> dict[str, list[tuple[int, bool]]]:
        """Return the place of each gold item in an annotator's judgements, and whether it was judged right."""
        right = {task.id: judgement for task, judgement, _ in self.server.queue.gold.items()}
        events_by_id = {event.id: event for event in self.server.store.feedback()}
        events = {annotator: [events_by_id[body["id"]] for body in bodies] for annotator, bodies in self.bodies.items()}
        return {
            annotator: [
                (n, matches_gold(right[e.task], e.judgement))
                for n, e in enumerate(places_of_annotator, 1)
                if e.task in right
            ]
            for annotator, places_of_annotator in events.items()
        }


QUOTAS = {
    "good-0": 260, "good-1": 110, "good-2": 110, "noisy-0": 110, "noisy-1": 110,
    "random-0": 460, "random-1": 460, "left-0": 460, "adversarial-0": 200,
}  # fmt: skip
"""The largest number of judgements of each kind of annotator; careless annotators are fast."""


@pytest.fixture(scope="module")
def crowd_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrowdRun]:
    server = Server.at(tmp_path_factory.mktemp("work"))
    tasks = list(add_tasks(server.store, 900))
    add_gold(server.queue, 60, "hidden")
    prompts = {prompt.id: prompt for prompt in server.store.prompts()}
    responses = {entry.id: entry for entry in server.store.responses()}
    with pytest.raises(Waiting):  # the stage enqueues its tasks
        next(Human(wait=0).annotate(tasks, prompts, responses, 0, None, server.queue, "label"))  # type: ignore[arg-type]
    crowd_run = CrowdRun(server, 6, tasks)
    browsers = {annotator: server.open_browser(annotator) for annotator in QUOTAS}
    rngs = {annotator: random.Random(annotator) for annotator in QUOTAS}
    at_work = list(QUOTAS)
    while at_work:
        for annotator in list(at_work):
            with browsers[annotator] as browser:
                if not judge_page(crowd_run, annotator, browser, rngs[annotator]):
                    at_work.remove(annotator)
    yield crowd_run
    server.workspace.close()


def judge_page(crowd_run: CrowdRun, annotator: str, browser: TestClient, rng: random.Random) -> bool:
    """Judge a page of tasks, and return whether the annotator continues."""
    bodies_sent = crowd_run.bodies[annotator]
    reply = browser.get("/r/demo/api/tasks/next", params={"count": crowd_run.batch})
    if reply.status_code == 403:
        crowd_run.refused.add(annotator)
        return False
    page = reply.json()
    assert page["tasks"], "no task is left"
    crowd_run.quick_submit.append((annotator, len(bodies_sent), page["quick_submit"]))
    for item in page["tasks"]:
        body = judgement_body(annotator, item, len(bodies_sent), rng)
        stored = browser.post("/r/demo/api/judgements", json=body)
        assert stored.status_code == 200, stored.text
        assert stored.json()["correct"] is None  # the reply does not reveal gold items
        bodies_sent.append(body)
    return len(bodies_sent) < QUOTAS[annotator]


@pytest.mark.slow
def test_careless_annotators_are_paused(crowd_run: CrowdRun) -> None:
    paused = {annotator for annotator in QUOTAS if crowd_run.server.state(annotator) == "paused"}
    assert paused == crowd_run.refused
    assert {"random-0", "random-1", "left-0", "adversarial-0"} <= paused
    assert not {"good-0", "good-1", "good-2"} & paused


def test_pause_follows_the_deciding_gold_item(crowd_run: CrowdRun) -> None:
    for annotator, bodies in crowd_run.bodies.items():
        marks = crowd_run.marks[annotator]
        standing = SequentialTest()(right for _, right in marks)
        assert (standing.status == "failed") == (annotator in crowd_run.refused)
        if standing.failed_at:
            deciding_number, _ = marks[standing.failed_at - 1]
            assert len(bodies) - deciding_number < crowd_run.batch, (
                "tasks on the page are still accepted, and none after them"
            )
    wrong = [right for _, right in crowd_run.marks["adversarial-0"]][:4]
    assert (wrong, len(crowd_run.bodies["adversarial-0"]) < 90) == ([False] * 4, True)


def test_judgements_of_paused_users_are_kept(crowd_run: CrowdRun) -> None:
    preferred_by_id = {
        body["id"]: (annotator, body["judgement"]["preferred"])
        for annotator, p in crowd_run.bodies.items()
        for body in p
    }
    stored = list(crowd_run.server.store.feedback())
    assert {event.id: (event.annotator, event.judgement.items[0]) for event in stored} == preferred_by_id
    assert len(stored) == len(preferred_by_id) == crowd_run.server.store.verify()
    weights = annotator_weights(crowd_run.server.store)
    assert weights.keys() == QUOTAS.keys()
    assert min(weights.values()) == MIN_WEIGHT > 0
    store = crowd_run.server.store
    examples = to_examples(stored, store.tasks(), store.prompts(), store.responses(), weights)
    gold = {task.id for task, _, _ in crowd_run.server.queue.gold.items()}
    assert {source for entry in examples for source in entry.feedback_ids} == {
        entry.id for entry in stored if entry.task not in gold
    }


def test_progress_page_shows_the_share_of_paused_users(crowd_run: CrowdRun) -> None:
    paused = sum(len(crowd_run.bodies[annotator]) for annotator in crowd_run.refused)
    everything = sum(map(len, crowd_run.bodies.values()))
    assert paused > everything / 10
    with crowd_run.server.open_browser("vic", "viewer") as browser:
        page = browser.get("/r/demo/progress").text
    assert f'role="alert">{paused} of {everything} judgements' in page


def test_votes_per_task_match_required_votes(crowd_run: CrowdRun) -> None:
    with crowd_run.server.store.reading() as connection:
        queued = {row.task: row for row in connection.execute(sa.select(schema.queue))}
    assert queued.keys() == {task.id for task in crowd_run.tasks}
    annotators_by_task = defaultdict[str, list[str]](list)
    first = dict[str, Comparison]()
    for event in crowd_run.server.store.feedback():
        annotators_by_task[event.task].append(event.annotator)
        assert isinstance(event.judgement, Comparison)
        first.setdefault(event.task, event.judgement)
    for task in crowd_run.tasks:
        row = queued[task.id]
        required = required_votes(task)
        if required == 1 and task.id in first and first[task.id].strength == 1:
            required = 2  # a second opinion after a slight preference
        assert (row.required, row.received) == (required, len(annotators_by_task[task.id]))
        assert len(annotators_by_task[task.id]) == len(set(annotators_by_task[task.id])) <= required
    shares = Counter(map(required_votes, crowd_run.tasks))
    assert is_in_interval(900, 0.15, shares[3]) and is_in_interval(900, 0.02, shares[5])
    vote_counts = Counter(len(names) for task, names in annotators_by_task.items() if task in queued)
    assert vote_counts[3] > 30 and vote_counts[5] > 3
    once = [task.id for task in crowd_run.tasks if required_votes(task) == 1 and task.id in first]
    slightly = [task for task in once if first[task].strength == 1]
    assert is_in_interval(len(once), 0.2, len(slightly))
    assert (
        sum(len(annotators_by_task[task]) == 2 for task in slightly) > len(slightly) / 2
    )  # the rest still wait for it


def test_quick_submit_follows_the_gold_results(crowd_run: CrowdRun) -> None:
    counts = Counter[tuple[str, bool]]()
    for annotator, num_judged, quick_submit in crowd_run.quick_submit:
        right = [mark for place, mark in crowd_run.marks[annotator] if place <= num_judged]
        assert quick_submit == (len(right) >= 10 and sum(right) >= 0.9 * len(right))
        counts[kind_of(annotator), quick_submit] += 1
    assert counts["good", True] > 0
    assert not any(counts[kind, True] for kind in ("random", "left", "adversarial"))


def test_annotator_weights_rank_the_crowd(crowd_run: CrowdRun) -> None:
    weights = defaultdict[str, list[float]](list)
    for annotator, weight in annotator_weights(crowd_run.server.store).items():
        weights[kind_of(annotator)].append(weight)
    assert min(weights["good"]) > 0.6
    assert np.mean(weights["good"]) > np.mean(weights["noisy"]) > np.mean(weights["random"] + weights["left"])
    assert weights["adversarial"] == [MIN_WEIGHT]
