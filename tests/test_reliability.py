"""The sequential test on gold items, and the reliability of annotators by Dawid-Skene and by kappa."""

import math
import random
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest

from assent.functional.reliability import dawid_skene, peer_kappa
from assent.functional.sequential import GoldTestState, SequentialTest

# Gold items: the sequential test


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ("", "in progress"),
        ("rrrrrrr", "in progress"),  # 7 log(2/3) = -2.84 is above log(.05 / .994) = -2.99
        ("rrrrrrrr", "passed"),  # 8 log(2/3) = -3.24
        ("www", "in progress"),  # 3 log 4 = 4.16 is below log(.95 / .0061) = 5.05
        ("wwww", "failed"),  # 4 log 4 = 5.55
        ("rrrrrrrrwwww", "passed"),  # the second test spends a quarter: 6.44, so four are not enough (5.55)
        ("rrrrrrrrwwwww", "failed"),  # 5 log 4 = 6.93
    ],
)
def test_sequential_test_limits(results: str, status: str) -> None:
    result = SequentialTest()(letter == "r" for letter in results)
    assert result.status == status
    assert (result.correct, result.total) == (results.count("r"), len(results))


def test_sequential_test_continues_after_a_pass() -> None:
    result = SequentialTest()([True] * 8 + [False] * 5 + [True] * 50)
    assert (result.status, result.passes, result.failed_at, result.total) == ("failed", 1, 13, 63)


def test_sequential_test_update_equals_batch() -> None:
    test = SequentialTest()
    random = np.random.default_rng(0)
    results = (random.random(60) < 0.8).tolist()
    state = GoldTestState()
    for right in results:
        state = test.update(state, right)
    assert state == test(results)


def stopping_points(chance: float, items: int, num_annotators: int = 3000, is_restarted: bool = False) -> list[int]:
    """Return the number of the gold item at which each stopped annotator was stopped."""
    test = SequentialTest(alpha=0.01 * math.pi**2 / 6) if is_restarted else SequentialTest()
    rng = np.random.default_rng(0)
    result = []
    for _ in range(num_annotators):
        state = GoldTestState()
        for right in (rng.random(items) < chance).tolist():
            state = test.update(state._replace(passes=0) if is_restarted else state, right)
            if state.status == "failed":
                result.append(state.failed_at)
                break
    return result


def test_sequential_test_stops_a_random_clicker_early() -> None:
    result = stopping_points(0.5, 200, num_annotators=1000)
    assert len(result) == 1000
    assert 8 <= np.median(result) <= 11
    assert 9.5 < np.mean(result) < 12.5
    assert np.mean(stopping_points(1 / 3, 200, num_annotators=1000)) < 8  # with a third key for ties


def test_sequential_test_rarely_stops_a_good_annotator() -> None:
    assert 0.002 < len(stopping_points(0.9, 200)) / 3000 < 0.009
    assert not stopping_points(0.95, 200, num_annotators=1000)


def test_restarted_sequential_test_stops_good_annotators() -> None:
    # Wald's test with alpha = .01 has both error rates until it is passed; restarted, it stops good annotators in time.
    assert 9 < np.mean(stopping_points(0.5, 200, num_annotators=1000, is_restarted=True)) < 11.5
    assert len(stopping_points(0.9, 14, num_annotators=3000, is_restarted=True)) / 3000 < 0.009
    assert 0.055 < len(stopping_points(0.9, 200, num_annotators=1500, is_restarted=True)) / 1500 < 0.10


def test_sequential_test_notices_a_late_decline() -> None:
    test = SequentialTest()
    rng = np.random.default_rng(1)
    late = []
    for _ in range(300):
        results = [*(rng.random(100) < 0.95).tolist(), *(rng.random(100) < 0.5).tolist()]
        result = test(results)
        assert result.status == "failed"
        late.append(result.failed_at - 100)
    assert min(late) > 0
    assert np.mean(late) < 25


@pytest.mark.parametrize("settings", [(0.6, 0.9, 0.01, 0.05), (0.9, 0.6, 0.0, 0.05), (1.0, 0.6, 0.01, 0.05)])
def test_sequential_test_refuses_impossible_settings(settings: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"0 < bad < good < 1|below 1"):
        SequentialTest(*settings)


# Reliability from agreement only


class Crowd(NamedTuple):
    """Votes of annotators, one per entry."""

    items: list[int]
    annotators: list[str]
    labels: list[int]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, str, int]]) -> "Crowd":
        return cls(*(list(column) for column in zip(*rows, strict=True)))

    @classmethod
    def sample(
        cls, skills: dict[str, float], items: int = 200, votes_per_item: int = 3, labels: int = 3, seed: int = 0
    ) -> "Crowd":
        """Sample votes: an annotator gives the true label with the probability of their skill, else any label."""
        rng = random.Random(seed)
        rows = []
        for item in range(items):
            truth = rng.randrange(labels)
            for annotator in rng.sample(sorted(skills), votes_per_item):
                label = truth if rng.random() < skills[annotator] else rng.randrange(labels)
                rows.append((item, annotator, label))
        return cls.of(rows)


def test_dawid_skene_recovers_skills_and_labels() -> None:
    skills = {"a": 1.0, "b": 0.8, "c": 0.6, "d": 0.3, "e": 0.0}
    crowd = Crowd.sample(skills, items=1500, votes_per_item=4)
    result = dawid_skene(*crowd)
    peers = peer_kappa(*crowd)
    assert result.annotators.tolist() == peers.annotators.tolist() == list("abcde")
    # The weight is the skill itself: 1/3 + 2/3 skill are right about each label.
    assert result.weight == pytest.approx(list(skills.values()), abs=0.1)
    assert result.accuracy == pytest.approx([1 / 3 + 2 / 3 * skill for skill in skills.values()], abs=0.07)
    assert np.argsort(-peers.kappa).tolist() == list(range(5))
    assert abs(peers.kappa[4]) < 0.06
    assert peers.items.sum() == result.shared.sum() == 6000
    assert result.posterior.sum(1) == pytest.approx(np.ones(1500))
    assert result.confusion.sum(2) == pytest.approx(np.ones((5, 3)))


def test_dawid_skene_gives_a_constant_annotator_no_weight() -> None:
    rng = random.Random(0)
    truths = [int(rng.random() < 0.2) for _ in range(300)]
    rows = [(i, annotator, t if rng.random() < 0.9 else 1 - t) for i, t in enumerate(truths) for annotator in "abc"]
    crowd = Crowd.of(rows + [(i, "lazy", 0) for i in range(300)])
    result = dawid_skene(*crowd)
    peers = peer_kappa(*crowd)
    assert result.accuracy[3] == pytest.approx(0.8, abs=0.06)
    assert result.weight[3] < 0.1 < 0.7 < result.weight[:3].min()
    assert peers.kappa[3] == pytest.approx(0, abs=1e-9)


def test_dawid_skene_trusts_an_expert_over_two_guessers() -> None:
    crowd = Crowd.sample(
        {"expert": 0.95, "other": 0.95, "third": 0.9, "x": 0.05, "y": 0.05}, items=400, votes_per_item=5
    )
    result = dawid_skene(*crowd)
    label_of = dict(zip(zip(crowd.items, crowd.annotators, strict=True), crowd.labels, strict=True))
    disputed = [
        i for i in range(400) if label_of[i, "x"] == label_of[i, "y"] != label_of[i, "expert"] == label_of[i, "other"]
    ]
    assert len(disputed) > 20
    assert np.mean([result.posterior[i].argmax() == label_of[i, "expert"] for i in disputed]) > 0.95


def test_peer_kappa_by_hand() -> None:
    # a and the others: (0, 0), (0, 0), (1, 1), (1, one each): 3.5 of 4 agree. Either says 0 in 2 of 4, the others in
    # 2.5: 1/2 by chance. For b the others are a and c, who agree on all items.
    items = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1]
    result = peer_kappa(items, list("abc") * 4, labels)
    assert result.kappa[0] == pytest.approx((3.5 / 4 - 1 / 2) / (1 - 1 / 2))
    # b labels 0, 0, 1, 0 and the others 0, 0, 1, 1: 3 of 4, and 3/4 * 1/2 + 1/4 * 1/2 by chance.
    assert result.kappa[1] == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
    assert result.items.tolist() == [4, 4, 4]


def test_dawid_skene_prior_by_hand() -> None:
    # The prior of each label is 10 / 2 judgements: 5 (0.6 + 0.4 / 2) = 4 right and 1 wrong. Two annotators agree on one
    # item: at most one more correct label each, (4 + 1) / (5 + 1), and almost no data on the other label.
    result = dawid_skene([0, 0], ["a", "b"], [0, 0], among=(0, 1))
    assert result.confusion[0, 1] == pytest.approx([1 / 5, 4 / 5], abs=0.04)
    assert 4 / 5 < result.confusion[0, 0, 0] < 5 / 6
    assert result.prior_weight == pytest.approx(3 / 5)


def test_dawid_skene_ignores_items_of_one_annotator() -> None:
    crowd = Crowd.sample({"a": 0.9, "b": 0.9, "c": 0.9})
    before = dawid_skene(*crowd)
    rows = list(zip(*crowd, strict=True)) + [
        (1000 + i, annotator, i % 3) for i in range(500) for annotator in ("new", "a")[i % 2 :][:1]
    ]
    result = dawid_skene(*Crowd.of(rows))
    peers = peer_kappa(*Crowd.of(rows))
    assert result.annotators.tolist() == ["a", "b", "c", "new"]
    assert result.weight[3] == pytest.approx(result.prior_weight) == pytest.approx(0.6)
    assert (result.shared[3], peers.items[3], math.isnan(peers.kappa[3])) == (0, 0, True)
    assert result.weight[:3] == pytest.approx(before.weight, abs=1e-6)


def test_dawid_skene_of_a_single_label() -> None:
    result = dawid_skene([0, 0, 1], list("aba"), [7, 7, 7])
    peers = peer_kappa([0, 0, 1], list("aba"), [7, 7, 7])
    assert result.weight.tolist() == [1, 1]
    assert np.isnan(peers.kappa).all()


def test_dawid_skene_of_no_judgements() -> None:
    assert dawid_skene([], [], []).weight.tolist() == peer_kappa([], [], []).kappa.tolist() == []
    assert dawid_skene([], [], [], among=(0, 1)).prior_weight == pytest.approx(0.6)


def test_dawid_skene_refuses_unequal_shapes() -> None:
    with pytest.raises(ValueError, match="give one of each per judgement"):
        dawid_skene([0, 1], ["a"], [0, 1])
