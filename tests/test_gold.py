"""Gold items and the screening of new annotators."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from clock import Clock
from queued_tasks import (
    AT,
    assigned_ids,
    comparisons,
    enqueue_comparisons,
    ids_of,
    is_in_interval,
    make_feedback,
    make_task,
)

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.labelling.gold import Use, matches_gold
from assent.labelling.queue import TaskQueue
from assent.records import Feedback, Judgement, Task
from assent.store.database import Store

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def add_gold(queue: TaskQueue, number: int, use: Use) -> list[Task]:
    """Add gold items whose first item is better."""
    tasks = comparisons(queue.store, number, "gold", f"{use} question")
    for task in tasks:
        queue.gold.add(task, Comparison(task.items[0]), use, f"because of {task.id}")
    return tasks


@SQLITE
def test_gold_rates_are_1_in_8_early_and_1_in_20_later(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 200, required=100)
    gold = set(ids_of(add_gold(queue, 50, "hidden")))
    gold_places = []
    for annotator in (f"person-{n}" for n in range(16)):
        queue.store.add_feedback(make_feedback(assignment, annotator) for assignment in queue.next_tasks(annotator, 40))
        order = assigned_ids(queue.next_tasks(annotator, 190))
        assert len(order) == len(set(order)) == 190
        gold_places.append({place for place, task in enumerate(order) if task in gold})
    early = sum(len([place for place in group if place < 40]) for group in gold_places)
    late = sum(len([place for place in group if place >= 40]) for group in gold_places)
    # Intervals so wide that one run in 100,000 fails, and still too narrow for the other rate.
    assert is_in_interval(16 * 40, 1 / 8, early, deviations=4.5), early
    assert is_in_interval(16 * 150, 1 / 20, late, deviations=4.5), late
    assert not is_in_interval(16 * 40, 1 / 8, round(16 * 40 / 20), deviations=4.5)
    assert not is_in_interval(16 * 150, 1 / 20, round(16 * 150 / 8), deviations=4.5)
    assert len({frozenset(group) for group in gold_places}) == 16
    gaps = {b - a for group in gold_places for a, b in pairwise(sorted(group))}
    assert len(gaps) > 15
    assert queue.progress().total == 200


@SQLITE
def test_gold_items_are_not_predictable(queue: TaskQueue, tmp_path: Path, clock: Clock) -> None:
    def gold_places(other_queue: TaskQueue) -> list[int]:
        enqueue_comparisons(other_queue, 150)
        gold = set(ids_of(add_gold(other_queue, 40, "hidden")))
        return [
            place
            for place, assignment in enumerate(other_queue.next_tasks("person-0123456789", 150))
            if assignment.task.id in gold
        ]

    with Store.open(tmp_path / "their own.db") as store:
        assert gold_places(TaskQueue(store, clock)) != gold_places(queue)


def test_gold_item_is_assigned_once(queue: TaskQueue) -> None:
    tasks = enqueue_comparisons(queue, 80)
    gold = add_gold(queue, 1, "hidden")
    assignment = assigned_ids(queue.next_tasks("ann", 81))
    assert sorted(assignment) == sorted([*ids_of(tasks), *ids_of(gold)])


def test_screening_has_practice_then_a_test(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 5)
    add_gold(queue, 5, "hidden")
    practice, test = add_gold(queue, 10, "practice"), add_gold(queue, 20, "test")
    assert queue.screening.is_configured()
    orders = set()
    for annotator in ("ann", "bob"):
        assignment = assigned_ids(queue.next_tasks(annotator, 99, is_screened=False))
        assert set(assignment[:10]) == set(ids_of(practice))
        assert set(assignment[10:]) == set(ids_of(test))
        assert len(assignment) == 30
        orders.add(tuple(assignment))
    assert len(orders) == 2


@SQLITE
def test_screening_takes_10_practice_and_20_test_items(queue: TaskQueue) -> None:
    add_gold(queue, 14, "practice")
    test = set(ids_of(add_gold(queue, 30, "test")))
    assignment = queue.next_tasks("ann", 99, is_screened=False)
    assert len(assignment) == 30
    assert sum(entry.task.id in test for entry in assignment) == 20


@SQLITE
@pytest.mark.parametrize(("right", "state"), [(20, "passed"), (15, "passed"), (14, "failed"), (0, "failed")])
def test_screening_pass_mark_is_15_of_20(queue: TaskQueue, right: int, state: str) -> None:
    test = set(ids_of(add_gold(queue, 20, "test")))
    add_gold(queue, 10, "practice")
    assignment = queue.next_tasks("ann", 30, is_screened=False)
    for entry in assignment:
        assert queue.screening.result("ann").state == "in progress"
        good = entry.task.items[0]
        tested = queue.screening.result("ann").num_tested
        required = entry.task.id not in test or tested < right
        judgement = Comparison(good if required else entry.task.items[1])
        event = queue.submit(Feedback(entry.task.id, "ann", judgement, AT, display_order=entry.display_order))
        judged = queue.gold.check(event)
        assert judged is not None
        assert judged.is_correct == required
        assert judged.use == ("test" if entry.task.id in test else "practice")
        assert judged.explanation == f"because of {entry.task.id}"
    assert queue.screening.result("ann") == (state, right, 20)
    assert queue.screening.result("bob") == ("in progress", 0, 0)


@SQLITE
@pytest.mark.parametrize("use", ["practice", "test"])
def test_screening_continues_after_a_skipped_item(queue: TaskQueue, use: str) -> None:
    """Skip one of 20 items: it comes back or counts as wrong."""
    skipped = {"practice": ids_of(add_gold(queue, 10, "practice"))[0], "test": ids_of(add_gold(queue, 20, "test"))[0]}[
        use
    ]
    for _ in range(3):
        for entry in queue.next_tasks("ann", 99, is_screened=False):
            if entry.task.id == skipped:
                queue.assignments.skip("ann", skipped)
            else:
                queue.submit(
                    Feedback(
                        entry.task.id, "ann", Comparison(entry.task.items[0]), AT, display_order=entry.display_order
                    )
                )
    for entry in queue.next_tasks("ann", 99, is_screened=False):
        queue.submit(
            Feedback(entry.task.id, "ann", Comparison(entry.task.items[0]), AT, display_order=entry.display_order)
        )
    assert queue.screening.result("ann").state == "passed"


def test_ordinary_task_has_no_gold_result(queue: TaskQueue) -> None:
    enqueue_comparisons(queue, 1)
    (assignment,) = queue.next_tasks("ann", 1)
    assert queue.gold.check(queue.submit(make_feedback(assignment, "ann"))) is None
    assert not queue.screening.is_configured()


A, B, C, D, E, F = "ABCDEF"


def ranking(*tiers: str) -> Ranking:
    return Ranking(tuple(tuple(tier) for tier in tiers))


@pytest.mark.parametrize(
    ("gold", "judgement", "is_match"),
    [
        (Comparison(A, 3), Comparison(A, 1), True),
        (Comparison(A), Comparison(B), False),
        (Comparison(A), Comparison(verdict="tie"), False),
        (Comparison(verdict="tie"), Comparison(verdict="tie"), True),
        (Comparison(verdict="tie"), Comparison(verdict="both bad"), False),
        (Comparison(verdict="tie"), Comparison(verdict="cannot tell"), False),
        (Approval(True), Approval(True), True),
        (Approval(True), Approval(False), False),
        (Rating((("helpful", 5),)), Rating((("helpful", 4),)), True),
        (Rating((("helpful", 5),)), Rating((("helpful", 6),)), True),
        (Rating((("helpful", 5),)), Rating((("helpful", 3),)), False),
        (Rating((("helpful", 5), ("true", 1))), Rating((("helpful", 5), ("true", 3))), False),
        (Rating((("helpful", 5), ("true", 1))), Rating((("helpful", 5),)), False),
        # One, two and three of ten pairs are inverted.
        (ranking(A, B, C, D, E), ranking(A, B, C, D, E), True),
        (ranking(A, B, C, D, E), ranking(B, A, C, D, E), True),
        (ranking(A, B, C, D, E), ranking(B, A, D, C, E), True),
        (ranking(A, B, C, D, E), ranking(C, B, A, D, E), False),
        (ranking(A, B, C, D, E), ranking(E, D, C, B, A), False),
        # A tie that the gold ranking does not have is wrong; tied items match in any order.
        (ranking(A, B), ranking("AB"), False),
        (ranking("AB", C), ranking(B, A, C), True),
        (ranking("AB", C), ranking(C, "AB"), False),
        # The best of four, or of six, is missing: three pairs of six, and five of fifteen, are not in order.
        (ranking(A, B, C, D), ranking(B, C, D), False),
        (ranking(A, B, C, D, E, F), ranking(B, C, D, E, F), False),
    ],
    ids=str,
)
def test_matches_gold_by_kind(gold: Judgement, judgement: Judgement, is_match: bool) -> None:
    assert matches_gold(gold, judgement) == is_match


@pytest.mark.parametrize(
    "judgement", [Critique("Too long."), Correction("Better."), Demonstration("An answer.")], ids=str
)
def test_written_judgement_cannot_be_a_gold_item(tmp_path: Path, judgement: Judgement) -> None:
    with pytest.raises(AssentError):
        matches_gold(judgement, judgement)
    with Store.open(tmp_path / "store.db") as store:
        items = 0 if isinstance(judgement, Demonstration) else 1
        task = replace(make_task(store, type(judgement).__name__.lower(), items), purpose="gold")
        with pytest.raises(AssentError):  # its judgements could not be compared, and screening would stop
            TaskQueue(store).gold.add(task, judgement, "practice")


@SQLITE
def test_gold_item_needs_a_fitting_gold_task(queue: TaskQueue) -> None:
    (task,) = comparisons(queue.store, 1)
    with pytest.raises(AssentError, match="purpose 'gold'"):
        queue.gold.add(task, Comparison(task.items[0]))
    gold = replace(task, purpose="gold")
    with pytest.raises(AssentError, match="did not show"):
        queue.gold.add(gold, Comparison("elsewhere"))
    assert list(queue.gold.items()) == []
    queue.gold.add(gold, Comparison(task.items[0]))
    queue.gold.add(gold, Comparison(task.items[1]), "test")  # replaces the first
    assert list(queue.gold.items()) == [(gold, Comparison(task.items[1]), "test")]
