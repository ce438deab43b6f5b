"""Agreement by hand, by published examples, and of random labels."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public_data import read_llmfao_votes

from assent.functional.agreement import (
    Level,
    krippendorff_alpha,
    near_agreement,
    raw_agreement,
)
from assent.functional.reliability import dawid_skene
from assent.functional.statistics import bootstrap, clustered_win_rate, wilson

NAN = math.nan

FOUR_OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
"""Example C of Krippendorff 2011, "Computing Krippendorff's alpha-reliability"."""
UNITS = np.broadcast_to(np.arange(12), (4, 12))


# Krippendorff


# Values of the paper. Nominal: 32 of 40 coincidences are equal and the marginals are 9, 13, 10, 5, 3, so
# alpha = 1 - 39 * (40 - 32) / (40^2 - 384) = 0.743.
@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_equals_krippendorffs_example(level: Level, alpha: float) -> None:
    result = krippendorff_alpha(UNITS.ravel(), FOUR_OBSERVERS.ravel(), level)
    assert result.value == pytest.approx(alpha, abs=5e-4)
    assert result.n == 11  # the last unit has one label only
    assert result.low < result.value < result.high


def test_alpha_by_hand() -> None:
    # Two items, labels aa and ab: 2 of 4 ordered pairs within items differ, of all ordered pairs 2 * 3 of 12.
    assert krippendorff_alpha([0, 0, 1, 1], ["a", "a", "a", "b"]).value == pytest.approx(1 - (2 / 4) / (6 / 12))
    # aa and bb: none differ within; aa, bb, ab: 2 of 6, and 2 * 3 * 3 of 30.
    assert krippendorff_alpha([0, 0, 1, 1], ["a", "a", "b", "b"]).value == 1
    assert krippendorff_alpha([0, 0, 1, 1, 2, 2], list("aabbab")).value == pytest.approx(1 - (2 / 6) / (18 / 30))


def test_missing_labels_are_ignored() -> None:
    items = UNITS.ravel()
    values = FOUR_OBSERVERS.ravel()
    is_present = ~np.isnan(values)
    assert krippendorff_alpha(items, values, "interval") == krippendorff_alpha(
        items[is_present], values[is_present], "interval"
    )


def alpha_by_definition(items: Sequence[int], values: Sequence[int], level: Level) -> float:
    """Return alpha by its definition, pair by pair."""
    by_item = [[v for i, v in zip(items, values, strict=True) if i == item] for item in sorted(set(items))]
    by_item = [labels for labels in by_item if len(labels) > 1]
    every = [v for labels in by_item for v in labels]

    def distance(a: int, b: int) -> float:
        if level == "ordinal":
            between = sum(min(a, b) <= v <= max(a, b) for v in every)
            return (between - (every.count(a) + every.count(b)) / 2) ** 2 if a != b else 0
        return (a - b) ** 2 if level == "interval" else a != b

    within = sum(sum(distance(a, b) for a, b in permutations(labels, 2)) / (len(labels) - 1) for labels in by_item)
    across = sum(distance(a, b) for a, b in permutations(every, 2))
    return 1 - within * (len(every) - 1) / across if across else NAN


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), max_size=25),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_alpha_equals_its_definition(labels: list[tuple[int, int]], level: Level) -> None:
    items, values = [i for i, _ in labels], [v for _, v in labels]
    result = krippendorff_alpha(items, values, level, resamples=20)
    assert result.value == pytest.approx(alpha_by_definition(items, values, level), nan_ok=True)
    shuffled = np.random.default_rng(len(labels)).permutation(len(labels))
    again = krippendorff_alpha(np.array(items)[shuffled], np.array(values)[shuffled], level, resamples=0)
    assert again.value == pytest.approx(result.value, nan_ok=True)


def test_alpha_of_random_judgements_is_0_and_of_copies_1() -> None:
    random = np.random.default_rng(0)
    items = np.repeat(np.arange(400), 3)
    values = random.integers(3, size=1200)
    truth = np.repeat(random.integers(3, size=400), 3)
    chance = krippendorff_alpha(items, values)
    assert chance.low < 0 < chance.high
    assert krippendorff_alpha(items, truth).value == pytest.approx(1)
    half = np.where(random.random(1200) < 0.5, truth, values)  # equal if both copy (1/4), else one time in three
    mixed = krippendorff_alpha(items, half)
    assert mixed.low < 0.25 < mixed.high
    assert mixed.high - mixed.low < 0.15


def test_alpha_intervals_over_items_cover_the_truth() -> None:
    # Two labels are equal for sure if both copy the truth, 1/2 * 1/2, and else by chance: alpha is 1/4.
    is_covered = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        truth = np.repeat(random.integers(2, size=100), 3)
        values = np.where(random.random(300) < 0.5, truth, random.integers(2, size=300))
        result = krippendorff_alpha(np.repeat(np.arange(100), 3), values, resamples=200)
        is_covered.append(result.low <= 0.25 <= result.high)
    assert 0.88 < np.mean(is_covered) < 0.99


def test_bootstrap_resamples_items_of_a_prompt_together() -> None:
    random = np.random.default_rng(1)
    prompts = np.repeat(np.arange(40), 60)  # twenty items of three labels each
    clear = np.repeat(random.random(40), 60)
    values = np.where(random.random(2400) < clear, 0, random.integers(2, size=2400))
    values = np.where(random.random(40).repeat(60) < 0.5, values, 1 - values)
    items = np.arange(2400) // 3
    alone = krippendorff_alpha(items, values)
    together = krippendorff_alpha(items, values, clusters=prompts)
    assert alone.value == together.value
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    raw = [raw_agreement(items, values, None, clusters).three_way for clusters in (None, prompts)]
    assert raw[1].high - raw[1].low > 1.5 * (raw[0].high - raw[0].low)


def test_alpha_interval_repeats_with_its_seed() -> None:
    items = UNITS.ravel()
    values = FOUR_OBSERVERS.ravel()
    assert krippendorff_alpha(items, values, seed=1) == krippendorff_alpha(items, values, seed=1)
    assert krippendorff_alpha(items, values, seed=1) != krippendorff_alpha(items, values, seed=2)


# Raw agreement


def test_raw_agreement_counts_pairs_of_labels() -> None:
    # aab: 1 of 3; a-tie: 0 of 1; tie-tie: 1 of 1. Without ties: 1 of 3, and two items have too few labels left.
    items, values = [0, 0, 0, 1, 1, 2, 2, 3], ["a", "a", "b", "a", "tie", "tie", "tie", "a"]
    result = raw_agreement(items, values, "tie")
    assert result.decisive.value == pytest.approx(1 / 3)
    assert result.three_way.value == pytest.approx(2 / 5)
    assert (result.decisive.n, result.three_way.n) == (1, 3)
    assert raw_agreement(items, values).decisive == raw_agreement(items, values).three_way


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 7)), max_size=25), st.sampled_from([0, 1, 2.5]))
def test_near_agreement_counts_pairs_within_a_step(labels: list[tuple[int, int]], step: float) -> None:
    pairs = [abs(a - b) <= step for (i, a), (j, b) in combinations(labels, 2) if i == j]
    items, values = [i for i, _ in labels], [v for _, v in labels]
    result = near_agreement(items, values, step, resamples=0)
    assert result.value == pytest.approx(np.mean(pairs) if pairs else NAN, nan_ok=True)
    assert result.n == len({i for i in items if items.count(i) > 1})
    assert near_agreement(items, values, 0, resamples=9) == raw_agreement(items, values, resamples=9).three_way


# Dawid and Skene


def sample_labels(skill: float, labels: int, items: int, seed: int) -> tuple[list[int], list[str], list[int]]:
    """Return labels of four annotators for each item: the truth with the probability of their skill, else any label."""
    random = np.random.default_rng(seed)
    is_true = random.random((items, 4)) < skill
    judgements = np.where(is_true, random.integers(labels, size=(items, 1)), random.integers(labels, size=(items, 4)))
    return np.repeat(np.arange(items), 4).tolist(), list("abcd") * items, judgements.ravel().tolist()


@pytest.mark.parametrize("skill", [0.5, 0.8])
def test_reliability_weight_does_not_depend_on_label_count(skill: float) -> None:
    two, seven = (
        np.mean(
            [dawid_skene(*sample_labels(skill, labels, 100, seed), among=range(labels)).weight for seed in range(10)]
        )
        for labels in (2, 7)
    )
    assert two == pytest.approx(seven, abs=0.06)
    assert seven == pytest.approx(skill, abs=0.06)


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("items", [0, 42, 420])
def test_dawid_skene_prior_is_ten_judgements_of_weight_0_6(labels: int, items: int) -> None:
    # Six annotators always agree, so each is right `items` times. The prior is ten judgements, six of them right.
    truth = np.arange(items) % labels
    result = dawid_skene(
        np.repeat(np.arange(items), 6), list("abcdef") * items, np.repeat(truth, 6), among=range(labels)
    )
    assert result.weight == pytest.approx([(6 + items) / (10 + items)] * (6 if items else 0), abs=2e-3)
    assert result.prior_weight == 0.6


def test_dawid_skene_prior_matters_less_with_more_judgements() -> None:
    truth = np.arange(300) % 2
    items = np.repeat(np.arange(300), 5)
    annotators = list("abcde") * 300
    labels = np.repeat(truth, 5)
    few = dawid_skene([*items, 0, 1, 2], [*annotators, *["new"] * 3], [*labels, *truth[:3]])
    many = dawid_skene([*items, *range(300)], [*annotators, *["new"] * 300], [*labels, *truth])
    assert few.annotators[5] == many.annotators[5] == "new"
    assert 0.65 < few.weight[5] < 0.75  # about (6 + 3) / (10 + 3)
    assert many.weight[5] > 0.98


# Intervals without width


# Limits n / (n + z^2) of n of n and z^2 / (n + z^2) of 0 of n, z = 1.96: 8 / 11.84 = 0.68, 3.84 / 15.84 = 0.24.
@pytest.mark.parametrize(("same", "prompts", "low", "high"), [(True, 8, 68, 100), (False, 12, 0, 24)])
def test_raw_agreement_of_0_or_1_has_wilson_limits_of_prompts(same: bool, prompts: int, low: int, high: int) -> None:
    items = np.repeat(np.arange(prompts), 2)
    share = raw_agreement(items, np.tile([0, 0 if same else 1], prompts)).three_way
    assert [round(100 * share.low), round(100 * share.high)] == [low, high]
    assert share[:3] == wilson(prompts if same else 0, prompts)[:3]
    # Three pairs of a prompt are no more certain than one, since the pairs of a prompt are one cluster.
    tripled = raw_agreement(np.arange(6 * prompts) // 2, np.tile([0, 0 if same else 1], 3 * prompts), None,
                           np.arange(6 * prompts) // 6).three_way  # fmt: skip
    assert (tripled[:3], tripled.n) == (share[:3], 3 * prompts)


def test_win_rate_equal_in_every_prompt_has_wilson_limits() -> None:
    prompts = np.repeat(np.arange(10), 2)
    for outcomes in ([0.5, 0.5], [1, 0]):
        rate = clustered_win_rate(np.tile(outcomes, 10), prompts)
        assert rate[:3] == wilson(5, 10)[:3]
    won = clustered_win_rate(np.ones(20), prompts)
    assert won[:4] == (*wilson(10, 10)[:3], 20)
    assert bootstrap([1.0, 1.0], ["a", "a"])[:3] == wilson(1, 1)[:3]


def test_alpha_constant_over_resamples_has_no_limits() -> None:
    result = krippendorff_alpha([0, 0, 1, 1, 2, 2, 3, 3], list("aabbaabb"))
    assert result.value == 1 and np.isnan([result.low, result.high]).all()


# Undefined agreement


def test_agreement_of_equal_judgements_is_undefined() -> None:
    items = [0, 0, 1, 1, 2, 2]
    same = [4] * 6
    for level in ("nominal", "ordinal", "interval"):
        result = krippendorff_alpha(items, same, level)
        assert np.isnan(result[:3]).all()
        assert result.n == 3
    assert raw_agreement(items, same).three_way[:3] == wilson(3, 3)[:3]


@pytest.mark.parametrize(("items", "values"), [([], []), ([0], [1]), ([0, 1, 2], [1, 2, 1]), ([0, 0], [NAN, 1])])
def test_agreement_of_single_labels_is_undefined(items: list[int], values: list[float]) -> None:
    for result in (krippendorff_alpha(items, values), *raw_agreement(items, values)):
        assert np.isnan(result[:3]).all()
        assert result.n == 0


def test_alpha_of_one_item_has_no_limits() -> None:
    result = krippendorff_alpha([0, 0, 0], list("aab"))
    assert result.value == pytest.approx(0)  # the disagreement within the item is all disagreement
    assert np.isnan([result.low, result.high]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: krippendorff_alpha([0], [1, 2]), "give one of each per judgement"),
        (lambda: krippendorff_alpha([0, 0], ["a", "b"], "interval"), "have no differences"),
    ],
)
def test_alpha_refuses_invalid_input_with_a_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Real votes and other implementations


def test_clustered_alpha_of_real_votes_is_wider() -> None:
    rows = read_llmfao_votes()
    items, prompts = [row["id"] for row in rows], [row["prompt"] for row in rows]
    swapped = [int(row["model_x"]) > int(row["model_y"]) for row in rows]
    mirrored = {"left": "right", "right": "left", "tie": "tie"}
    values = [mirrored[row["winner"]] if flip else row["winner"] for row, flip in zip(rows, swapped, strict=True)]
    raw = raw_agreement(items, values, "tie")
    alpha = krippendorff_alpha(items, values)
    # 4737 of the 6755 pairs without a tie are equal, and 8043 of all 15112. Alpha is 1 - 0.4691 / 0.6621, observed
    # by expected disagreement.
    assert raw.decisive.value == pytest.approx(0.701, abs=5e-4)
    assert raw.three_way.value == pytest.approx(0.532, abs=5e-4)
    assert alpha.value == pytest.approx(0.29, abs=5e-3)
    assert alpha.high - alpha.low < 0.05
    together = krippendorff_alpha(items, values, clusters=prompts)
    assert together.high - together.low > 2.5 * (alpha.high - alpha.low)


def test_alpha_is_inflated_by_labels_of_single_items() -> None:
    # Labels are names of models: few items share a label, so little agreement by chance is expected:
    # 1 - 0.4691 / 0.8374, where labels of sides have 1 - 0.4691 / 0.6621.
    rows = read_llmfao_votes()
    named = {"left": "model_x", "right": "model_y"}
    values = [row[named[row["winner"]]] if row["winner"] in named else "tie" for row in rows]
    assert krippendorff_alpha([row["id"] for row in rows], values, resamples=0).value == pytest.approx(0.44, abs=5e-3)


@pytest.mark.conformance
@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_agrees_with_the_krippendorff_package(level: Level) -> None:
    module: Any = pytest.importorskip("krippendorff", reason="needs krippendorff: pip install krippendorff==0.9.0")
    random = np.random.default_rng(0)
    truth = random.integers(5, size=80)
    table = np.clip(truth + random.integers(-1, 2, size=(6, 80)), 0, 4).astype(float)
    table[random.random(table.shape) < 0.4] = NAN
    expected = module.alpha(table, level_of_measurement=level)
    items = np.broadcast_to(np.arange(80), table.shape)
    assert krippendorff_alpha(items.ravel(), table.ravel(), level).value == pytest.approx(expected, abs=1e-12)


def test_raw_agreement_is_the_share_of_equal_pairs() -> None:
    random = np.random.default_rng(2)
    items, values = random.integers(20, size=120), random.integers(3, size=120)
    pairs = [(a, b) for item in range(20) for a, b in combinations(values[items == item].tolist(), 2)]
    decided = [(a, b) for a, b in pairs if 2 not in (a, b)]
    result = raw_agreement(items, values, 2)
    assert result.three_way.value == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert result.decisive.value == pytest.approx(np.mean([a == b for a, b in decided]))
