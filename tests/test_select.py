"""Active learning: acquisition functions by hand, propensities by counting, and labels needed in simulations."""

import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from assent.errors import AssentError
from assent.functional.acquisition import (
    BLOCK,
    Matchup,
    bald,
    d_optimal,
    disagreement,
    double_thompson,
    fisher_weight,
    k_centre,
    predictive_entropy,
    random_projection,
    win_probabilities,
)
from assent.functional.near_identical import (
    CHARACTERS_PER_EDIT,
    MAX_EDITS,
    differs_by_few_edits,
    is_near_identical,
)
from assent.preferences.select import Acquisition, Candidate, distinct, select

LN2 = math.log(2)
Floats = NDArray[np.float64]
probabilities = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5).map(np.array)


def h(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


# Uncertainty of an ensemble


def test_disagreement_entropy_and_bald_by_hand() -> None:
    p = np.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.9]])
    # Means 0.5, 0.5, 0.9. The deviation of 0.25 and 0.75 is sqrt(2 * 0.25^2 / 1); BALD is h(mean) less the mean of h.
    assert disagreement(p) == pytest.approx([math.sqrt(0.125), 0, 0])
    assert predictive_entropy(p) == pytest.approx([LN2, LN2, h(0.9)])
    assert bald(p) == pytest.approx([LN2 - h(0.25), 0, 0], abs=1e-12)


@given(probabilities, st.floats(0, 1))
def test_bald_is_between_0_and_the_entropy(p: Floats, same: float) -> None:
    assert (
        (bald(p) >= 0).all()
        and (bald(p) <= predictive_entropy(p) + 1e-12).all()
        and (predictive_entropy(p) <= LN2 + 1e-12).all()
    )
    equal = np.full((1, 7), same)
    assert bald(equal) == pytest.approx([0], abs=1e-12)
    assert (predictive_entropy(equal)[0] > 0.1) == (h(same) > 0.1 if 0 < same < 1 else False)


@pytest.mark.parametrize("score", [disagreement, predictive_entropy, bald])
@given(p=probabilities)
def test_acquisition_scores_are_symmetric(score: Any, p: Floats) -> None:
    assert score(1 - p) == pytest.approx(score(p), abs=1e-9)


def test_bald_of_opposite_certainties_is_one_bit() -> None:
    certain = np.array([[0.0, 1.0]])
    assert bald(certain) == predictive_entropy(certain) == pytest.approx(LN2)
    assert disagreement(certain) == pytest.approx(math.sqrt(0.5))


def test_single_member_has_no_disagreement() -> None:
    single = np.array([[0.3], [0.5]])
    assert disagreement(single).tolist() == [0, 0] and bald(single) == pytest.approx([0, 0], abs=1e-12)


def test_win_probabilities_of_extreme_logits_are_finite() -> None:
    # s(log 3) = 3/4.
    p = win_probabilities([[math.log(3), 0.0], [0.0, 1e4]], [[0, 1], [1, 0]])
    assert p == pytest.approx(np.array([[0.75, 0.0], [0.25, 1.0]]))
    assert np.isfinite([disagreement(p), predictive_entropy(p), bald(p), fisher_weight(p)]).all()


# Information of a label


def test_d_optimal_prefers_uncertain_pairs_by_hand() -> None:
    weights = fisher_weight(np.array([[0.9, 0.9], [0.4, 0.6], [0.1, 0.3]]))
    # Means 0.9, 0.5, 0.2: sqrt(0.9 * 0.1), sqrt(0.5 * 0.5), sqrt(0.2 * 0.8).
    assert weights == pytest.approx([0.3, 0.5, 0.4])
    chosen = d_optimal(weights[:, None] * np.array([[1.0, 2.0]]), 3)
    assert chosen.order.tolist() == [1, 2, 0]
    # All lie along (1, 2) of squared length 5: 1 + 5 * 0.25 = 2.25, 2.25 + 5 * 0.16 = 3.05, 3.05 + 5 * 0.09 = 3.5.
    assert chosen.gains == pytest.approx([math.log(2.25), math.log(3.05 / 2.25), math.log(3.5 / 3.05)])


def test_d_optimal_prefers_new_directions() -> None:
    chosen = d_optimal(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.9]]), 9)
    assert chosen.order[:2].tolist() == [0, 3] and sorted(chosen.order) == [0, 1, 2, 3]
    # 1 + 1, then 1 + 0.9^2 across, then the first direction again: 3/2, 4/3.
    assert chosen.gains == pytest.approx([math.log(2), math.log(1.81), math.log(1.5), math.log(4 / 3)])


def test_d_optimal_starts_from_observed_directions() -> None:
    y = np.array([[1.0, 0.0], [0.0, 0.6]])
    assert d_optimal(y, 1).order.tolist() == [0]
    after = d_optimal(y, 2, observed=np.array([[2.0, 0.0]]))
    assert after.order.tolist() == [1, 0]
    # A = diag(1 + 2^2, 1): 1 + 0.6^2 and 1 + 1/5.
    assert after.gains == pytest.approx([math.log(1.36), math.log(1.2)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_observed", [0, 7])
def test_d_optimal_equals_greedy_determinants(seed: int, num_observed: int) -> None:
    y = normal(2 * BLOCK + 50, 4, seed=seed)
    observed = normal(num_observed, 4, seed=seed + 10)
    chosen = d_optimal(y, 40, ridge=0.5, observed=observed)
    information = 0.5 * np.eye(4) + observed.T @ observed
    is_left = np.ones(len(y), dtype=bool)
    for best, gain in zip(chosen.order, chosen.gains, strict=True):
        after = np.linalg.slogdet(information + y[:, :, None] * y[:, None, :]).logabsdet
        assert after[best] == pytest.approx(after[is_left].max(), abs=1e-9)
        assert gain == pytest.approx(after[best] - np.linalg.slogdet(information).logabsdet, abs=1e-9)
        information += np.outer(y[best], y[best])
        is_left[best] = False


def test_k_centre_takes_the_farthest_up_to_sign() -> None:
    chosen = k_centre(np.array([[1.0], [-1.0], [3.0], [1.5]]), 4)
    assert chosen.order.tolist() == [0, 2, 3, 1]
    # Distances up to sign: 3 - 1, 1.5 - 1, and -1 is 1.
    assert chosen.gains.tolist() == [np.inf, 2, 0.5, 0]


@pytest.mark.parametrize("seed", range(5))
def test_k_centre_visits_every_cluster_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cluster = np.r_[np.zeros(90, int), np.arange(1, 10)]  # nine of ten are alike
    x = 10 * np.eye(10)[cluster] * rng.choice([-1, 1], (99, 1)) + rng.normal(0, 0.1, (99, 10))
    assert sorted(cluster[k_centre(x, 10).order]) == list(range(10))
    assert Counter(cluster[rng.choice(99, 10, replace=False)])[0] > 5, "control: a uniform draw does not"


def test_random_projection_keeps_distances() -> None:
    features = normal(60, 1000)
    projected = random_projection(features, 64)
    distances = [np.square(f[:, None] - f[None]).sum(2)[np.triu_indices(60, 1)] for f in (features, projected)]
    ratio = distances[1] / distances[0]
    assert ratio.mean() == pytest.approx(1, abs=0.05) and ratio.std() == pytest.approx(math.sqrt(2 / 64), rel=0.3)
    assert random_projection(features, 1000) is features and (projected == random_projection(features, 64)).all()


# Double Thompson sampling


def test_double_thompson_on_a_cycle_skips_decided_pairs() -> None:
    stone, paper, scissors = 0, 1, 2
    wins = np.zeros((3, 3))
    wins[paper, stone] = wins[scissors, paper] = wins[stone, scissors] = 1000
    beats = {paper: stone, scissors: paper, stone: scissors}
    matches = Counter(double_thompson(wins, np.random.default_rng(seed)) for seed in range(60))
    assert set(matches) == set(beats.items())


def test_double_thompson_never_pairs_a_player_with_itself() -> None:
    wins = np.array([[0, 50, 6], [0, 0, 50], [4, 0, 0]])
    matches = Counter(double_thompson(wins, np.random.default_rng(seed)) for seed in range(200))
    assert matches == {Matchup(0, 2): 200}


def test_double_thompson_repeats_with_its_seed() -> None:
    wins = np.ones((8, 8)) - np.eye(8)
    matches = [double_thompson(wins, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    assert matches[0] == matches[1] and len(set(matches)) > 2


def best_player(wins: Floats) -> int:
    """Return the player with the highest Bradley-Terry strength, fitted with a small ridge."""
    count = wins + wins.T
    theta = np.zeros(len(wins))
    for _ in range(8):
        p = expit(theta[:, None] - theta)
        information = count * p * (1 - p)
        curvature = np.diag(information.sum(1) + 0.1) - information
        theta += np.linalg.solve(curvature, (wins - count * p).sum(1) - 0.1 * theta)
    return int(theta.argmax())


@cache
def success_rate(method: str, lead: float, num_matches: int, spread: float = 1.5, repeats: int = 60) -> Floats:
    """Return the share of repeats in which the best of eight players is identified, after every 25 matches."""
    successes = np.zeros(num_matches // 25)
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        theta = rng.permutation(np.r_[lead, np.linspace(0, -spread, 7)])
        wins = np.zeros((8, 8))
        all_pairs = list(combinations(range(8), 2))
        for match in range(num_matches):
            if match % 28 == 0:
                rng.shuffle(all_pairs)
            first, second = double_thompson(wins, rng) if method == "thompson" else all_pairs[match % 28]
            first_wins = rng.random() < expit(theta[first] - theta[second])
            wins[(first, second) if first_wins else (second, first)] += 1
            successes[match // 25] += match % 25 == 24 and best_player(wins) == theta.argmax()
    return successes / repeats


def test_double_thompson_needs_fewer_matches_than_round_robin() -> None:
    thompson, robin = (success_rate(method, 0.5, 350) for method in ("thompson", "robin"))
    assert thompson.max() >= 0.9 and robin.max() >= 0.9
    thompson_matches, robin_matches = (25 * (int(np.argmax(rates >= 0.9)) + 1) for rates in (thompson, robin))
    assert thompson_matches <= 0.75 * robin_matches
    assert thompson[6:].mean() > robin[6:].mean() + 0.03


def test_double_thompson_finds_no_best_among_equals() -> None:
    for method in ("thompson", "robin"):
        assert success_rate(method, 0.0, 100, spread=0.0)[-1] == pytest.approx(1 / 8, abs=0.13)


# Near-identical texts

LONG = " ".join(["The quick brown fox jumps over the lazy dog, and then it does so again."] * 5)  # 359 characters


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("Yes, it is.", "  yes,\n it IS. ", True),
        ("", "  \n", True),
        ("4", "5", False),
        ("Yes", "No", False),
        (LONG, LONG.replace("quick", "quikc", 1), True),
        (LONG, LONG.replace("lazy", "1azy", 1), False),
        (LONG, LONG.replace("dog", "dig", 3), True),
        (LONG, LONG.replace("dog", "dig"), False),
        (LONG, LONG + "!!!", True),
        (LONG, LONG + "!!!!", False),
        (LONG[:99], LONG[:99] + "!", False),
        (LONG * 3, LONG * 3 + "!!!!", False),
        (LONG + " It took 41 days.", LONG + " It took 42 days.", False),
        (LONG, LONG[::-1], False),
    ],
)
def test_near_identical_ignores_space_case_and_a_typo(a: str, b: str, near: bool) -> None:
    assert is_near_identical(a, b) == is_near_identical(b, a) == near


def distance(a: str, b: str) -> int:
    """Return the Levenshtein distance by the full table."""
    row = list(range(len(b) + 1))
    for i, char_a in enumerate(a, 1):
        previous = row
        row = [i]
        for j, char_b in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (char_a != char_b)))
    return row[-1]


@given(st.text("ab", max_size=9), st.text("ab", max_size=9), st.integers(0, 4))
def test_few_edits_equal_the_full_edit_distance(a: str, b: str, edits: int) -> None:
    prefix = "x" * (CHARACTERS_PER_EDIT * edits)
    assert differs_by_few_edits(prefix + a, prefix + b) == (distance(a, b) <= min(edits, MAX_EDITS))


def test_distinct_leaves_out_near_identical_pairs() -> None:
    texts = {"a": "It is so.", "b": "it is  so.", "c": "It is not so.", "d": "IT IS SO."}
    pairs = [Candidate("p", *pair) for pair in combinations("abcd", 2)]
    result = distinct(pairs, texts)
    assert result.candidates == [Candidate("p", *pair) for pair in ("ac", "bc", "cd")]
    assert result.near_identical == 3
    with pytest.raises(AssentError, match="item 'd' has no text"):
        distinct(pairs, {key: texts[key] for key in "abc"})


# Selection


class Pool(NamedTuple):
    candidates: list[Candidate]
    scores: dict[str, Floats]
    features: dict[str, Floats]


def pool(size: int, members: int = 4, dimensions: int = 5, seed: int = 0) -> Pool:
    """Return pairs that share no items, with random scores and features."""
    ids = [f"{index}" for index in range(2 * size)]
    scores = normal(2 * size, members, seed=seed)
    features = normal(2 * size, dimensions, seed=seed + 1)
    pairs = [Candidate(f"prompt {index}", ids[2 * index], ids[2 * index + 1]) for index in range(size)]
    return Pool(pairs, dict(zip(ids, scores, strict=True)), dict(zip(ids, features, strict=True)))


def acquisition_scores(pool: Pool, function: Any) -> Floats:
    scores = pool.scores
    return np.array([function(expit(scores[pair.first] - scores[pair.second])[None])[0] for pair in pool.candidates])


@pytest.mark.parametrize(
    ("acquisition", "score"), [("disagreement", disagreement), ("entropy", predictive_entropy), ("bald", bald)]
)
def test_select_takes_the_best_scores_without_features(acquisition: Acquisition, score: Any) -> None:
    data = pool(50)
    selected = select(data.candidates, acquisition, 8, data.scores, random_fraction=0)
    best = np.argsort(-acquisition_scores(data, score))[:8]
    assert {pair.candidate for pair in selected} == {data.candidates[index] for index in best}
    assert {(pair.acquisition, pair.propensity) for pair in selected} == {(acquisition, 1.0)}


def test_select_diversifies_the_best_with_features() -> None:
    """Let members disagree most about ten similar pairs, less about ten of four other kinds, hardly about fifty."""
    data = pool(70)
    kinds = np.eye(5)
    split_scores = np.array([1.0, -1.0])
    for index, pair in enumerate(data.candidates):
        data.scores[pair.first] = split_scores * (2.0 if index < 10 else 1.5 if index < 20 else 0.1)
        data.features[pair.first] = kinds[0 if index < 10 else 1 + index % 4] * (1 if index < 20 else 9)
        data.scores[pair.second] = np.zeros(2)
        data.features[pair.second] = np.zeros(5)
    plain = select(data.candidates, "bald", 5, data.scores, random_fraction=0)
    spread = select(data.candidates, "bald", 5, data.scores, data.features, random_fraction=0)
    groups = [{int(data.features[pair.candidate.first].argmax()) for pair in selected} for selected in (plain, spread)]
    assert groups == [{0}, {0, 1, 2, 3, 4}]
    assert {pair.candidate for pair in spread} <= set(data.candidates[:20]), "diversity single selects nothing"


@pytest.mark.parametrize("acquisition", get_args(Acquisition))
def test_select_repeats_with_its_seed_in_any_input_order(acquisition: Acquisition) -> None:
    data = pool(80)
    selected = select(data.candidates, acquisition, 20, data.scores, data.features, seed=5)
    shuffled = random.Random(1).sample(data.candidates, 80)
    assert select(shuffled, acquisition, 20, data.scores, data.features, seed=5) == selected
    another_seed = select(data.candidates, acquisition, 20, data.scores, data.features, seed=6)
    assert another_seed != selected
    assert len({pair.candidate for pair in selected}) == 20
    kinds = Counter(pair.acquisition for pair in selected)
    assert kinds == ({"uniform": 20} if acquisition == "uniform" else {"uniform": 4, acquisition: 16})


def test_select_breaks_ties_independently_of_input_order() -> None:
    equals = [Candidate(f"prompt {index // 10}", f"{index} a", f"{index} b") for index in range(200)]
    scores = {item: [0.0, 0.0] for pair in equals for item in pair[1:]}
    selected = select(equals, "entropy", 20, scores, random_fraction=0)
    assert select(equals[::-1], "entropy", 20, scores, random_fraction=0) == selected
    assert len({pair.candidate.prompt for pair in selected}) > 10


def test_select_of_all_candidates_has_propensity_1() -> None:
    data = pool(7)
    for acquisition in get_args(Acquisition):
        selected = select(data.candidates, acquisition, 9, data.scores, data.features)
        assert {pair.candidate for pair in selected} == set(data.candidates)
        assert [pair.propensity for pair in selected] == [1.0] * 7
    single = select(data.candidates[:1], "bald", 1, data.scores)
    assert [(pair.acquisition, pair.propensity) for pair in single] == [("bald", 1.0)]
    assert select([], "bald", 3, {}) == []


# Propensities


def test_propensities_of_three_from_six_by_hand() -> None:
    """By hand: one at random, two by rank; the third is the random one (1/6), or ranked if that is among the first."""
    data = pool(6)
    ranking = [data.candidates[index] for index in np.argsort(-acquisition_scores(data, bald))]
    stated: dict[Candidate, float] = {}
    for seed in range(60):
        selected = select(data.candidates, "bald", 3, data.scores, seed=seed, random_fraction=1 / 3)
        stated |= {pair.candidate: pair.propensity for pair in selected}
    assert [stated[pair] for pair in ranking] == pytest.approx([1, 1, 1 / 6 + 1 / 3, 1 / 6, 1 / 6, 1 / 6])
    assert sum(stated.values()) == pytest.approx(3)


@pytest.mark.parametrize("acquisition", ["uniform", "bald", "d_optimal"])
def test_propensities_equal_frequencies_over_seeds(acquisition: Acquisition) -> None:
    data = pool(30)
    seeds = 1500
    chosen = Counter[Candidate]()
    in_slice = Counter[Candidate]()
    at_first = 0
    stated: dict[Candidate, float] = {}
    for seed in range(seeds):
        selected = select(data.candidates, acquisition, 12, data.scores, data.features, seed, random_fraction=0.5)
        assert all(stated.setdefault(pair.candidate, pair.propensity) == pair.propensity for pair in selected)
        chosen.update(pair.candidate for pair in selected)
        in_slice.update(pair.candidate for pair in selected if pair.acquisition == "uniform")
        at_first += selected[0].acquisition == "uniform"
    share_random = 12 / 30 if acquisition == "uniform" else 6 / 30
    first_share = 1 if acquisition == "uniform" else 0.5
    assert at_first / seeds == pytest.approx(first_share, abs=0.05), "the order must be random"
    for pair in data.candidates:
        for counted, share in ((chosen, stated[pair]), (in_slice, share_random)):
            assert counted[pair] / seeds == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / seeds) + 1e-9)
    assert sum(stated.values()) == pytest.approx(12)
    kinds = Counter("sure" if p == 1 else "between" if p > share_random + 1e-9 else "random" for p in stated.values())
    assert kinds == ({"random": 30} if acquisition == "uniform" else {"sure": 6, "between": 6, "random": 18})


def test_random_slice_and_weighting_are_unbiased() -> None:
    data = pool(100)
    n = 100
    # The measured value is the one that the selection prefers.
    value = dict(zip(data.candidates, acquisition_scores(data, bald), strict=True))
    truth = float(np.mean(list(value.values())))
    plain = []
    random_slice = []
    weighted = []
    for seed in range(400):
        selected = select(data.candidates, "bald", 25, data.scores, seed=seed)
        plain.append(np.mean([value[pair.candidate] for pair in selected]))
        random_slice.append(np.mean([value[pair.candidate] for pair in selected if pair.acquisition == "uniform"]))
        weighted.append(sum(value[pair.candidate] / pair.propensity for pair in selected) / n)
    for estimates in (random_slice, weighted):
        assert abs(np.mean(estimates) - truth) < 3.5 * np.std(estimates) / math.sqrt(400)
    assert np.mean(plain) > 1.5 * truth
    assert np.std(weighted) < np.std(random_slice)


# Invalid input


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (dict(acquisition="balt"), r"no acquisition function 'balt'; did you mean 'bald'\?"),
        (dict(count=0), "cannot select 0 pairs; the number must be 1 or more"),
        (dict(random_fraction=1.5), r"random_fraction must be between 0 and 1, got 1\.5"),
        (dict(random_fraction=math.nan), "random_fraction must be between 0 and 1, got nan"),
        (dict(candidates=[Candidate("p", "a", "b"), Candidate("p", "b", "a")]), "'b' and 'a' is there twice"),
        (dict(candidates=[Candidate("p", "a", "a")]), "'a' and 'a' is one item"),
        (dict(scores={"a": [1.0, 0.0]}), "item 'b' has no scores"),
        (dict(scores={"a": [1.0, 0.0], "b": [1.0]}), "several lengths"),
        (dict(scores={"a": [1.0, 0.0], "b": [1.0, math.nan]}), "the scores of item 'b' are not finite"),
        (dict(scores={"a": [1.0], "b": [0.0]}), "'bald' needs an ensemble, not one member"),
        (dict(acquisition="d_optimal"), "'d_optimal' needs features"),
        (dict(acquisition="d_optimal", features={"b": [1.0]}), "item 'a' has no features"),
    ],
)
def test_select_refuses_invalid_input(invalid: Mapping[str, Any], message: str) -> None:
    scores = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    valid = dict(candidates=[Candidate("p", "a", "b")], acquisition="bald", count=1, scores=scores)
    with pytest.raises(AssentError, match=message):
        select(**{**valid, **invalid})


# Labels needed


def fit(x: Floats, wins: Floats, weights: Floats, ridge: float = 0.25) -> Floats:
    """Fit Bradley-Terry with a linear reward by Newton's method."""
    theta = np.zeros(x.shape[1])
    for _ in range(8):
        p = expit(x @ theta)
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(theta))
        theta += np.linalg.solve(curvature, x.T @ (weights * (wins - p)) - ridge * theta)
    return theta


class World(NamedTuple):
    """Items of 16 features, a pool of labelled pairs, and pairs to test on."""

    phi: Floats
    candidates: list[Candidate]
    x: Floats
    wins: Floats
    test_x: Floats
    test_wins: NDArray[np.bool_]


@cache
def world(seed: int, informative: bool, items: int = 600, pairs: int = 1500) -> World:
    """Return a world whose reward differences have a standard deviation of 2: 4 of 5 labels prefer the better item."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(items, 16))
    reward = phi @ rng.normal(size=16)
    reward *= math.sqrt(2) / reward.std()
    if not informative:
        reward = rng.permutation(reward)
    first, second = rng.permutation(np.array(np.triu_indices(items, 1)), axis=1)[:, : pairs + 4000]
    x, better = phi[first] - phi[second], reward[first] - reward[second]
    candidates = [Candidate("", f"{a}", f"{b}") for a, b in zip(first[:pairs], second[:pairs], strict=True)]
    wins = (rng.random(pairs) < expit(better[:pairs])).astype(float)
    return World(phi, candidates, x[:pairs], wins, x[pairs:], better[pairs:] > 0)


def learn(acquisition: Acquisition, seed: int, informative: bool) -> list[float]:
    """Return the test accuracy after 16, 32, 48 ... labels; each time eight bootstrap members select the next 16."""
    data = world(seed, informative)
    rng = np.random.default_rng(seed + 1000)
    index = {candidate: number for number, candidate in enumerate(data.candidates)}
    features = {f"{item}": row for item, row in enumerate(data.phi)}
    labelled: list[int] = rng.permutation(len(index))[:16].tolist()
    accuracy: list[float] = []
    while True:
        x, wins = data.x[labelled], data.wins[labelled]
        theta = fit(x, wins, np.ones(len(x)))
        accuracy.append(float(((data.test_x @ theta > 0) == data.test_wins).mean()))
        if len(accuracy) == ROUNDS:
            return accuracy
        samples = [np.bincount(rng.integers(len(x), size=len(x)), minlength=len(x)).astype(float) for _ in range(8)]
        members = np.array([fit(x, wins, sample) for sample in samples])
        scores = {f"{item}": row for item, row in enumerate(data.phi @ members.T)}
        previous = [data.candidates[number] for number in labelled]
        is_labelled = set(labelled)
        pool = [pair for pair, number in index.items() if number not in is_labelled]
        selected = select(pool, acquisition, 16, scores, features, len(labelled), previous=previous)
        labelled += [index[pair.candidate] for pair in selected]


ROUNDS = 21
SEEDS = range(8)


@cache
def mean_accuracy(acquisition: Acquisition, informative: bool = True) -> Floats:
    """Return the mean over the seeds, (ROUNDS,)."""
    return np.asarray(np.mean([learn(acquisition, seed, informative) for seed in SEEDS], axis=0))


def labels_until(accuracy: Floats, target: float) -> float:
    """Return the number of labels until a target accuracy, interpolated linearly between the rounds."""
    after = int(np.argmax(accuracy >= target)) if accuracy.max() >= target else -1
    assert after > 0, f"{target:.3f} was not reached, or at once: {accuracy.round(3)}"
    share = (target - accuracy[after - 1]) / (accuracy[after] - accuracy[after - 1])
    return 16 * (after + float(share))


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["bald", "d_optimal", "disagreement"])
def test_acquisition_needs_fewer_labels_than_uniform(acquisition: Acquisition) -> None:
    uniform = mean_accuracy("uniform")
    needed = labels_until(mean_accuracy(acquisition), uniform[-1])
    assert needed < 0.75 * 16 * ROUNDS
    assert mean_accuracy(acquisition)[5:].mean() > uniform[5:].mean() + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["uniform", "bald", "d_optimal"])
def test_acquisition_gains_nothing_without_informative_features(acquisition: Acquisition) -> None:
    uniform, selected = mean_accuracy("uniform", False), mean_accuracy(acquisition, False)
    assert selected[5:].mean() == pytest.approx(0.5, abs=0.03)
    assert selected[5:].mean() == pytest.approx(uniform[5:].mean(), abs=0.01)


def test_d_optimal_does_not_depend_on_the_feature_scale() -> None:
    data = pool(30)
    for index, pair in enumerate(data.candidates):
        data.features[pair.first] = np.eye(3)[index % 3]
        data.features[pair.second] = np.zeros(3)
        data.scores[pair.first] = np.array([abs(index - 14.5)])
        data.scores[pair.second] = np.zeros(1)
    selected = select(data.candidates, "d_optimal", 6, data.scores, data.features, random_fraction=0)
    assert {pair.candidate for pair in selected} == set(data.candidates[12:18])
    data = pool(30)
    larger = {item: 2.0**10 * row for item, row in data.features.items()}
    alike = [select(data.candidates, "d_optimal", 9, data.scores, features) for features in (data.features, larger)]
    assert alike[0] == alike[1]


def test_select_avoids_directions_of_previous_pairs() -> None:
    data = pool(40)
    for index, pair in enumerate(data.candidates):
        data.features[pair.first] = np.eye(5)[index % 2]
        data.features[pair.second] = np.zeros(5)
        data.scores[pair.first] = data.scores[pair.second] = np.zeros(4)
    previous, pool_left = data.candidates[:20:2], data.candidates[20:]
    fresh, after = (
        select(pool_left, "d_optimal", 6, data.scores, data.features, random_fraction=0, previous=pairs)
        for pairs in ([], previous)
    )
    directions = [Counter(int(data.features[pair.candidate.first].argmax()) for pair in x) for x in (fresh, after)]
    assert directions == [{0: 3, 1: 3}, {1: 6}]


FROM_MANY = """
import sys
import time
import numpy as np
from assent.preferences.select import Candidate, select
rng = np.random.default_rng(0)
acquisition, count = sys.argv[1], int(sys.argv[2])
names = [f"{index}" for index in range(count // 2)]
scores, features = (dict(zip(names, rng.normal(size=(len(names), width)))) for width in (5, 100))
drawn = rng.integers(len(names), size=(count + count // 50, 2)).tolist()
pairs = {(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]}
candidates = [Candidate("", names[a], names[b]) for a, b in sorted(pairs)[:count]]
assert len(candidates) == count
before = time.process_time()
assert len(select(candidates, acquisition, 500, scores, features)) == 500
print(time.process_time() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["bald", "d_optimal"])
def test_select_time_is_linear_in_the_candidates(acquisition: str) -> None:
    """Compare with the time of 25,000 candidates: linear time is 4 times that, and quadratic time 16 times."""

    def seconds(count: int) -> float:
        command = [sys.executable, "-c", FROM_MANY, acquisition, str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.run(
            command, check=True, timeout=300, cwd=Path(__file__).parent.parent, env=environment, stdout=subprocess.PIPE
        )
        return float(process.stdout)

    assert seconds(100_000) < 8 * seconds(25_000)
