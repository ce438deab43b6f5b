"""The quality of a simulated crowd: reliability, agreement and pauses recover the known accuracies."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from annotator_quality import Quality, measure_quality
from simulated_crowd import AT, RIGHT, add_gold, add_tasks, choose, is_in_interval, kind_of, open_queue

from assent.feedback.comparison import Comparison
from assent.functional.sequential import SequentialTest
from assent.labelling.quality import MIN_WEIGHT, AnnotatorQuality
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.records import Feedback, Task
from assent.store.database import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crowd")


CROWD = [
    *(f"{kind}-{n}" for kind in ("good", "noisy") for n in range(3)),
    *("random-0", "random-1", "left-0", "adversarial-0"),
]


@dataclass
class JudgedCrowd:
    """A crowd in which every annotator judged every item, with a few gold items."""

    store: Store
    tasks: dict[str, Task]
    gold: dict[str, Comparison]
    events_by_annotator: dict[str, list[Feedback]]

    def measure(self, *kinds: str, gold: bool = True) -> Quality:
        """Measure annotators of these kinds, or all."""
        events = [
            event
            for annotator, places_of_annotator in self.events_by_annotator.items()
            if not kinds or kind_of(annotator) in kinds
            for event in places_of_annotator
        ]
        gold_judgements = self.gold if gold else {}
        plain = [event for event in events if gold or event.task not in self.gold]
        return measure_quality(plain, self.tasks, gold_judgements, resamples=200)

    def by_annotator(self, gold: bool = True) -> dict[str, AnnotatorQuality]:
        return {item_view.annotator: item_view for item_view in self.measure(gold=gold).annotators}


@pytest.fixture(scope="module")
def judged_crowd(folder: Path) -> Iterator[JudgedCrowd]:
    queue = open_queue(folder / "panel.db")
    ordinary_tasks = add_tasks(queue.store, 240)
    queue.enqueue([TaskRequest(task, len(CROWD)) for task in ordinary_tasks], "label")
    hidden = add_gold(queue, 60, "hidden")
    better_item = {task.id: item for task, item in (ordinary_tasks | hidden).items()}
    events_by_annotator: dict[str, list[Feedback]] = {}
    for annotator in CROWD:
        rng = random.Random(annotator)
        events_by_annotator[annotator] = [
            Feedback(
                entry.task.id,
                annotator,
                Comparison(choose(annotator, entry.display_order, better_item[entry.task.id], rng), 2),
                AT,
                display_order=entry.display_order,
            )
            for entry in queue.next_tasks(annotator, 250)
        ]
    queue.store.add_feedback(chain.from_iterable(events_by_annotator.values()))
    gold = {task.id: Comparison(item) for task, item in hidden.items()}
    yield JudgedCrowd(queue.store, {task.id: task for task in queue.store.tasks()}, gold, events_by_annotator)
    queue.store.close()


@pytest.mark.parametrize("gold", [True, False], ids=["with gold items", "from agreement alone"])
def test_reliability_ranks_good_noisy_random_adversarial(judged_crowd: JudgedCrowd, gold: bool) -> None:
    result = judged_crowd.by_annotator(gold)
    for annotator in CROWD:
        # 2 p - 1 for an annotator with accuracy p, within 4.5 standard deviations of 250 judgements.
        expected_reliability = 2 * RIGHT.get(kind_of(annotator), 0.5) - 1
        assert result[annotator].reliability == pytest.approx(
            max(0, expected_reliability), abs=0.28 if expected_reliability < 0.6 else 0.1
        ), annotator
    weights = [
        [result[annotator].weight for annotator in CROWD if kind_of(annotator) == kind]
        for kind in ("good", "noisy", "random")
    ]
    assert min(weights[0]) > max(weights[1])
    assert min(weights[1]) > max(*weights[2], result["left-0"].weight)
    assert (result["adversarial-0"].reliability, result["adversarial-0"].weight) == (0, MIN_WEIGHT)
    assert result["adversarial-0"].peer_kappa < -0.4 < -0.2 < result["left-0"].peer_kappa < 0.2


def test_first_shown_rate_reveals_a_position_bias(judged_crowd: JudgedCrowd) -> None:
    result = judged_crowd.by_annotator()
    assert (result["left-0"].first_shown_rate.rate, result["left-0"].first_shown_rate.n) == (1, 250)
    assert result["left-0"].first_shown_rate.low > 0.98
    for annotator in CROWD[:-2] + CROWD[-1:]:
        assert is_in_interval(250, 0.5, 250 * result[annotator].first_shown_rate.rate), annotator
    assert result["left-0"].gold_accuracy.high < 0.95  # half of its judgements are right


def test_gold_accuracy_of_each_annotator(judged_crowd: JudgedCrowd) -> None:
    for annotator, result in judged_crowd.by_annotator().items():
        assert (
            result.gold_accuracy.n
            == sum(event.task in judged_crowd.gold for event in judged_crowd.events_by_annotator[annotator])
            > 3
        )
        assert is_in_interval(
            result.gold_accuracy.n,
            RIGHT.get(kind_of(annotator), 0.5),
            result.gold_accuracy.n * result.gold_accuracy.rate,
        )


def test_alpha_of_good_noisy_and_random_annotators(judged_crowd: JudgedCrowd) -> None:
    good, noisy, blind = (judged_crowd.measure(*kinds) for kinds in (("good",), ("noisy",), ("random", "left")))
    # Two annotators with accuracy p agree with probability p^2 + (1 - p)^2, and by chance 1/2: alpha is (2 p - 1)^2.
    assert good.alpha.value == pytest.approx(0.81, abs=0.09)
    assert noisy.alpha.value == pytest.approx(0.25, abs=0.17)
    assert blind.alpha.value == pytest.approx(0, abs=0.17)
    assert good.alpha.low > noisy.alpha.high and noisy.alpha.low > 0.05
    assert good.agreement.decisive.value == pytest.approx(0.905, abs=0.05)
    assert blind.agreement.decisive.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("annotator", "peer", "kappa"),
    [("good-0", "good-1", 0.81), ("good-0", "noisy-0", 0.45), ("good-0", "random-0", 0.0), ("left-0", "random-0", 0.0),
     ("good-0", "adversarial-0", -0.9)],
)  # fmt: skip
def test_kappa_of_two_is_the_product_of_their_skills(
    judged_crowd: JudgedCrowd, annotator: str, peer: str, kappa: float
) -> None:
    def sides(annotator: str) -> dict[str, int]:
        """Return the index of the preferred item in each judgement of an annotator."""
        return {
            e.task: judged_crowd.tasks[e.task].items.index(e.judgement.items[0])
            for e in judged_crowd.events_by_annotator[annotator]
        }

    first, second = sides(annotator), sides(peer)
    shared_tasks = [task for task in first if task in second]
    assert len(shared_tasks) > 200
    choices = np.array([[first[task], second[task]] for task in shared_tasks])
    agreement = (choices[:, 0] == choices[:, 1]).mean()
    shares = [np.mean(choices == label, axis=0) for label in (0, 1)]  # of each label, by annotator
    chance = sum(share.prod() for share in shares)
    assert (agreement - chance) / (1 - chance) == pytest.approx(
        kappa, abs=4.5 * sqrt((1 - kappa**2) / len(shared_tasks))
    )


def test_should_pause_follows_the_gold_test(judged_crowd: JudgedCrowd) -> None:
    for annotator, result in judged_crowd.by_annotator().items():
        assert result.should_pause == (
            SequentialTest()(TaskQueue(judged_crowd.store).gold.results(annotator)).status == "failed"
        )
    advised = {kind_of(annotator) for annotator, result in judged_crowd.by_annotator().items() if result.should_pause}
    assert "adversarial" in advised and "good" not in advised
