"""The task queue under random sequences of actions, and with many threads and processes at once."""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
from clock import Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queued_tasks import AT, RANKS, assigned_ids, enqueue_comparisons, ids_of, make_task, tiers

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.labelling.assignments import Assignment, NotAssigned
from assent.labelling.queue import AlreadyJudged, TaskQueue, TaskRequest
from assent.records import Feedback, Judgement
from assent.store.database import Store
from assent.store.errors import Conflict

NEXT_NUMBER = count()


@dataclass
class LabellingStateMachine:
    """Some annotators of a queue, and the feedback that the queue acknowledged."""

    database: str
    number: int = field(default_factory=lambda: next(NEXT_NUMBER))
    next_id: Iterator[int] = field(default_factory=count)
    clock: Clock = field(default_factory=Clock)
    acknowledged: list[Feedback] = field(default_factory=list)
    screens: dict[tuple[str, str], Assignment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = TaskQueue(Store.open(self.database), self.clock)
        self.annotators = [f"{name}-{self.number}" for name in ("ann", "bob", "cleo")]
        kinds = [("comparison", 2, 1), ("comparison", 2, 3), ("ranking", 3, 2), ("rating", 1, 1), ("approval", 1, 2)]
        requests = [
            TaskRequest(
                make_task(self.queue.store, kind, items, f"party {self.number}, {n}"), required, priority=self.number
            )
            for n, (kind, items, required) in enumerate(kinds)
        ]
        self.queue.enqueue(requests, f"party {self.number}")

    def step(self, act: str, name: int, pick: int, rng: random.Random) -> None:
        annotator = self.annotators[name]
        assigned = [assignment for (name, _), assignment in self.screens.items() if name == annotator]
        judged_events = [event for event in self.acknowledged if event.annotator == annotator]
        fresh = [entry for entry in assigned if entry.task.id not in {event.task for event in judged_events}]
        if act == "take":
            for assignment in self.queue.next_tasks(annotator, 2):
                assert self.screens.setdefault((annotator, assignment.task.id), assignment) == assignment
        elif act == "answer" and fresh:
            self._submit_and_record(self._make_feedback(fresh[pick % len(fresh)], annotator, rng))
        elif act == "undo" and judged_events:
            last = {event.task: event for event in judged_events}
            before = list(last.values())[pick % len(last)]
            assignment = self.screens[annotator, before.task]
            self._submit_and_record(replace(self._make_feedback(assignment, annotator, rng), supersedes=before.id))
        elif act == "repeat" and judged_events:
            event = judged_events[pick % len(judged_events)]
            assert [self.queue.submit(replace(event, created_at=str(n))) for n in range(10)] == [event] * 10
        elif act == "another body" and judged_events:
            with pytest.raises(Conflict):
                self.queue.submit(replace(judged_events[pick % len(judged_events)], comment="another"))
        elif act == "twice" and judged_events:
            assignment = self.screens[annotator, judged_events[pick % len(judged_events)].task]
            with pytest.raises(AlreadyJudged):
                self.queue.submit(self._make_feedback(assignment, annotator, rng))
        elif act == "turned round" and assigned:
            assignment = assigned[pick % len(assigned)]
            if len(assignment.display_order) > 1:
                with pytest.raises(NotAssigned):
                    self.queue.submit(
                        replace(
                            self._make_feedback(assignment, annotator, rng),
                            display_order=assignment.display_order[::-1],
                        )
                    )
        elif act == "skip" and fresh:
            self.queue.assignments.skip(annotator, fresh[pick % len(fresh)].task.id)
        elif act == "wait":
            self.clock.minutes(10)
        elif act == "restart":
            self.queue.store.close()
            self.queue = TaskQueue(Store.open(self.database), self.clock)

    def _submit_and_record(self, event: Feedback) -> None:
        assert self.queue.submit(event) == event
        self.acknowledged.append(event)

    def _make_feedback(self, assignment: Assignment, annotator: str, rng: random.Random) -> Feedback:
        display_order = assignment.display_order
        judgement: Judgement
        match assignment.task.kind:
            case "comparison":
                judgement = rng.choice(
                    [*(Comparison(s, n) for s in display_order for n in (1, 2, 3)), Comparison(verdict="tie")]
                )
            case "ranking":
                ranks = rng.choice(RANKS)
                judgement = Ranking(tiers(display_order, ranks))
            case "rating":
                judgement = Rating((("helpful", rng.randint(1, 7)),))
            case _:
                judgement = Approval(rng.random() < 0.5)
        id = f"{self.number}-{next(self.next_id)}"
        note = rng.choice(["", "why"])
        flags = rng.choice([(), ("harm",)])
        return Feedback(
            assignment.task.id, annotator, judgement, AT, rng.random(), display_order, note, id=id, flags=flags
        )


ACTS = ["take", "take", "answer", "answer", "answer", "undo", "repeat", "another body", "twice", "turned round"]
ACTS += ["skip", "wait", "restart"]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 2), st.integers(0, 5)), min_size=10, max_size=30),
    st.integers(0, 2**32),
)
def test_acknowledged_judgements_are_those_in_the_store(
    database: str, steps: list[tuple[str, int, int]], seed: int
) -> None:
    machine = LabellingStateMachine(database)
    rng = random.Random(seed)
    try:
        for act, name, pick in steps:
            machine.step(act, name, pick, rng)
    finally:
        machine.queue.store.close()
    with Store.open(database) as store:
        everything = list(store.feedback())
        stored = Counter(event for event in everything if event.annotator in machine.annotators)
        assert stored == Counter(machine.acknowledged)
        for event in stored:
            assert event.display_order == machine.screens[event.annotator, event.task].display_order
        assert store.verify() == len(everything)


# Concurrency


def test_concurrent_threads_get_different_tasks(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 40)
    annotators = [f"person-{n}" for n in range(4)]
    barrier = threading.Barrier(len(annotators))

    def next_ids(annotator: str) -> list[str]:
        barrier.wait()
        taken: list[str] = []
        while assignment := queue.next_tasks(annotator, 2, on_screen=taken):
            taken += assigned_ids(assignment)
        return taken

    with ThreadPoolExecutor(len(annotators)) as pool:
        taken = [future.result() for future in [pool.submit(next_ids, annotator) for annotator in annotators]]
    assert sorted(name for group in taken for name in group) == sorted(ids_of(tasks))


def test_two_tabs_of_an_annotator_get_the_same_tasks(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 20)
    for _ in range(5):
        barrier = threading.Barrier(4)

        def next_ids(barrier: threading.Barrier = barrier) -> list[str]:
            barrier.wait()
            return assigned_ids(queue.next_tasks("ann", 4))

        with ThreadPoolExecutor(4) as pool:
            taken = [future.result() for future in [pool.submit(next_ids) for _ in range(4)]]
        assert taken == [ids_of(tasks)[:4]] * 4


def test_concurrent_threads_respect_required_votes(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 5, required=3)
    barrier = threading.Barrier(8)

    def next_ids(annotator: str) -> list[str]:
        barrier.wait()
        return assigned_ids(queue.next_tasks(annotator, 5))

    with ThreadPoolExecutor(8) as pool:
        taken = [future.result() for future in [pool.submit(next_ids, f"person-{n}") for n in range(8)]]
    assert Counter(name for group in taken for name in group) == dict.fromkeys(ids_of(tasks), 3)


LABELLER = """
import sys
from assent.feedback.comparison import Comparison
from assent.records import Feedback
from assent.store.database import Store
from assent.labelling.queue import TaskQueue
database, annotator = sys.argv[1:]
with Store.open(database) as store:
    queue = TaskQueue(store)
    print("ready", flush=True)
    sys.stdin.readline()
    while assignments := queue.next_tasks(annotator, 1):
        task, display_order, _ = assignments[0]
        judgement = Comparison(display_order[0], 2)
        event = queue.submit(Feedback(task.id, annotator, judgement, "", display_order=display_order))
        print(event.id, task.id, flush=True)
"""


def test_concurrent_processes_lose_no_judgement(queue: TaskQueue, database: str) -> None:
    tasks = enqueue_comparisons(queue, 60)
    root = Path(__file__).parents[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", LABELLER, database, f"person-{n}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        )
        for n in range(3)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    output = [line.split() for worker in workers for line in worker.communicate(timeout=120)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(task for _, task in output) == sorted(ids_of(tasks))
    assert sorted(event.id for event in queue.store.feedback()) == sorted(event for event, _ in output)
    assert queue.progress() == (60, 60)
    assert queue.store.verify() == 60
