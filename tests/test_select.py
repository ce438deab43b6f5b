"""What to ask next: numbers by hand, chances by counting, and the price of a reward model and of a best policy."""

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
    Duel,
    bald,
    d_optimal,
    disagreement,
    double_thompson,
    entropy,
    evenness,
    k_centre,
    project,
    win_probabilities,
)
from assent.functional.near_identical import _within, near_identical
from assent.preferences.select import Candidate, Rule, distinct, select

LN2 = math.log(2)
Floats = NDArray[np.float64]
probabilities = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5).map(np.array)


def h(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


# How unsure an ensemble is


def test_members_who_disagree_and_members_who_agree_to_be_unsure_differ_by_hand() -> None:
    p = np.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.9]])
    assert disagreement(p) == pytest.approx([math.sqrt(0.125), 0, 0])
    assert entropy(p) == pytest.approx([LN2, LN2, h(0.9)])
    assert bald(p) == pytest.approx([LN2 - h(0.25), 0, 0], abs=1e-12)


@given(probabilities, st.floats(0, 1))
def test_bald_is_nothing_where_members_agree_and_never_more_than_the_entropy(p: Floats, same: float) -> None:
    assert (bald(p) >= 0).all() and (bald(p) <= entropy(p) + 1e-12).all() and (entropy(p) <= LN2 + 1e-12).all()
    agreed = np.full((1, 7), same)
    assert bald(agreed) == pytest.approx([0], abs=1e-12)
    assert (entropy(agreed)[0] > 0.1) == (h(same) > 0.1 if 0 < same < 1 else False)


@pytest.mark.parametrize("score", [disagreement, entropy, bald])
@given(p=probabilities)
def test_a_pair_is_worth_as_much_the_other_way_round(score: Any, p: Floats) -> None:
    assert score(1 - p) == pytest.approx(score(p), abs=1e-9)


def test_members_who_are_certain_of_opposites_tell_one_bit_apart() -> None:
    certain = np.array([[0.0, 1.0]])
    assert bald(certain) == entropy(certain) == pytest.approx(LN2)
    assert disagreement(certain) == pytest.approx(math.sqrt(0.5))


def test_a_single_judge_disagrees_with_nobody() -> None:
    alone = np.array([[0.3], [0.5]])
    assert disagreement(alone).tolist() == [0, 0] and bald(alone) == pytest.approx([0, 0], abs=1e-12)


def test_scores_are_logits_and_extreme_ones_do_no_harm() -> None:
    p = win_probabilities([[math.log(3), 0.0], [0.0, 1e4]], [[0, 1], [1, 0]])
    assert p == pytest.approx(np.array([[0.75, 0.0], [0.25, 1.0]]))
    assert np.isfinite([disagreement(p), entropy(p), bald(p), evenness(p)]).all()


# What an answer teaches


def test_of_two_pairs_with_the_same_features_the_more_even_one_teaches_more() -> None:
    even = evenness(np.array([[0.9, 0.9], [0.4, 0.6], [0.1, 0.3]]))
    assert even == pytest.approx([0.3, 0.5, 0.4])
    found = d_optimal(even[:, None] * np.array([[1.0, 2.0]]), 3)
    assert found.order.tolist() == [1, 2, 0]
    assert found.gains == pytest.approx([math.log(2.25), math.log(3.05 / 2.25), math.log(3.5 / 3.05)])


def test_the_same_direction_is_not_asked_twice_while_there_is_another() -> None:
    found = d_optimal(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.9]]), 9)
    assert found.order[:2].tolist() == [0, 3] and sorted(found.order) == [0, 1, 2, 3]
    assert found.gains == pytest.approx([math.log(2), math.log(1.81), math.log(1.5), math.log(4 / 3)])


def test_a_direction_that_was_asked_before_comes_last() -> None:
    y = np.array([[1.0, 0.0], [0.0, 0.6]])
    assert d_optimal(y, 1).order.tolist() == [0]
    after = d_optimal(y, 2, known=np.array([[2.0, 0.0]]))
    assert after.order.tolist() == [1, 0]
    assert after.gains == pytest.approx([math.log(1.36), math.log(1.2)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("asked", [0, 7])
def test_greedy_choices_are_those_of_determinants_computed_anew(seed: int, asked: int) -> None:
    y, known = normal(2 * BLOCK + 50, 4, seed=seed), normal(asked, 4, seed=seed + 10)
    found = d_optimal(y, 40, ridge=0.5, known=known)
    information = 0.5 * np.eye(4) + known.T @ known
    left = np.ones(len(y), dtype=bool)
    for best, gain in zip(found.order, found.gains, strict=True):
        after = np.linalg.slogdet(information + y[:, :, None] * y[:, None, :]).logabsdet
        assert after[best] == pytest.approx(after[left].max(), abs=1e-9)
        assert gain == pytest.approx(after[best] - np.linalg.slogdet(information).logabsdet, abs=1e-9)
        information += np.outer(y[best], y[best])
        left[best] = False


def test_k_centre_takes_what_lies_farthest_and_knows_mirror_images() -> None:
    found = k_centre(np.array([[1.0], [-1.0], [3.0], [1.5]]), 4)
    assert found.order.tolist() == [0, 2, 3, 1]
    assert found.gains.tolist() == [np.inf, 2, 0.5, 0]


@pytest.mark.parametrize("seed", range(5))
def test_k_centre_visits_every_cluster_before_any_twice(seed: int) -> None:
    dice = np.random.default_rng(seed)
    cluster = np.r_[np.zeros(90, int), np.arange(1, 10)]  # nine of ten are alike
    x = 10 * np.eye(10)[cluster] * dice.choice([-1, 1], (99, 1)) + dice.normal(0, 0.1, (99, 10))
    assert sorted(cluster[k_centre(x, 10).order]) == list(range(10))
    assert Counter(cluster[dice.choice(99, 10, replace=False)])[0] > 5, "the control: by lot they are not"


def test_projected_features_keep_their_distances_and_small_ones_are_left_alone() -> None:
    features = normal(60, 1000)
    projected = project(features, 64)
    apart = [np.square(f[:, None] - f[None]).sum(2)[np.triu_indices(60, 1)] for f in (features, projected)]
    ratio = apart[1] / apart[0]
    assert ratio.mean() == pytest.approx(1, abs=0.05) and ratio.std() == pytest.approx(math.sqrt(2 / 64), rel=0.3)
    assert project(features, 1000) is features and (projected == project(features, 64)).all()


# Which two policies should meet


def test_a_player_who_surely_beats_the_first_is_no_question_any_more() -> None:
    stone, paper, scissors = 0, 1, 2
    wins = np.zeros((3, 3))
    wins[paper, stone] = wins[scissors, paper] = wins[stone, scissors] = 1000
    prey = {paper: stone, scissors: paper, stone: scissors}
    duels = Counter(double_thompson(wins, np.random.default_rng(seed)) for seed in range(60))
    assert set(duels) == set(prey.items())


def test_a_champion_meets_its_likeliest_rival_and_never_itself() -> None:
    wins = np.array([[0, 50, 6], [0, 0, 50], [4, 0, 0]])
    duels = Counter(double_thompson(wins, np.random.default_rng(seed)) for seed in range(200))
    assert duels == {Duel(0, 2): 200}


def test_a_seed_repeats_a_duel() -> None:
    wins = np.ones((8, 8)) - np.eye(8)
    duels = [double_thompson(wins, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    assert duels[0] == duels[1] and len(set(duels)) > 2


def likeliest(wins: Floats) -> int:
    """The best by Bradley-Terry, a small ridge."""
    met, theta = wins + wins.T, np.zeros(len(wins))
    for _ in range(8):
        p = expit(theta[:, None] - theta)
        met_evenly = met * p * (1 - p)
        curvature = np.diag(met_evenly.sum(1) + 0.1) - met_evenly
        theta += np.linalg.solve(curvature, (wins - met * p).sum(1) - 0.1 * theta)
    return int(theta.argmax())


@cache
def found_best(how: str, lead: float, duels: int, spread: float = 1.5, trials: int = 60) -> Floats:
    """In what share of trials the best of eight is known, after every 25 duels."""
    right = np.zeros(duels // 25)
    for seed in range(trials):
        dice = np.random.default_rng(seed)
        theta = dice.permutation(np.r_[lead, np.linspace(0, -spread, 7)])
        wins, every = np.zeros((8, 8)), list(combinations(range(8), 2))
        for duel in range(duels):
            if duel % 28 == 0:
                dice.shuffle(every)
            first, second = double_thompson(wins, dice) if how == "thompson" else every[duel % 28]
            won = dice.random() < expit(theta[first] - theta[second])
            wins[(first, second) if won else (second, first)] += 1
            right[duel // 25] += duel % 25 == 24 and likeliest(wins) == theta.argmax()
    return right / trials


def test_double_thompson_sampling_finds_the_best_of_eight_with_fewer_duels_than_a_round_robin() -> None:
    thompson, robin = (found_best(how, 0.5, 350) for how in ("thompson", "robin"))
    needs = {how: 25 * (int(np.argmax(right >= 0.9)) + 1) for how, right in (("t", thompson), ("r", robin))}
    assert thompson.max() >= 0.9 and robin.max() >= 0.9
    assert needs["t"] <= 0.75 * needs["r"]
    assert thompson[6:].mean() > robin[6:].mean() + 0.03


def test_among_equals_no_way_to_let_them_meet_finds_a_best() -> None:
    for how in ("thompson", "robin"):
        assert found_best(how, 0.0, 100, spread=0.0)[-1] == pytest.approx(1 / 8, abs=0.13)


# Texts that differ too little

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
def test_texts_are_near_identical_but_for_space_case_and_a_slip(a: str, b: str, near: bool) -> None:
    assert near_identical(a, b) == near_identical(b, a) == near


def distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        last, row = row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (one != other)))
    return row[-1]


@given(st.text("ab", max_size=9), st.text("ab", max_size=9), st.integers(0, 4))
def test_few_edits_are_counted_as_the_full_table_counts_them(a: str, b: str, edits: int) -> None:
    assert _within(a, b, edits) == (distance(a, b) <= edits)


def test_pairs_that_nobody_could_tell_apart_are_left_out_and_counted() -> None:
    texts = {"a": "It is so.", "b": "it is  so.", "c": "It is not so.", "d": "IT IS SO."}
    pairs = [Candidate("p", *pair) for pair in combinations("abcd", 2)]
    found = distinct(pairs, texts)
    assert found.candidates == [Candidate("p", *pair) for pair in ("ac", "bc", "cd")]
    assert found.near_identical == 3
    with pytest.raises(AssentError, match="item 'd' is to be compared and its text is not given"):
        distinct(pairs, {key: texts[key] for key in "abc"})


# Choosing


class Pool(NamedTuple):
    candidates: list[Candidate]
    scores: dict[str, Floats]
    features: dict[str, Floats]


def pool(size: int, members: int = 4, dimensions: int = 5, seed: int = 0) -> Pool:
    """Pairs of items that stand in no other."""
    ids = [f"{place}" for place in range(2 * size)]
    scores, features = normal(2 * size, members, seed=seed), normal(2 * size, dimensions, seed=seed + 1)
    pairs = [Candidate(f"prompt {place}", ids[2 * place], ids[2 * place + 1]) for place in range(size)]
    return Pool(pairs, dict(zip(ids, scores, strict=True)), dict(zip(ids, features, strict=True)))


def worth(pool: Pool, score: Any) -> Floats:
    of = pool.scores
    return np.array([score(expit(of[each.first] - of[each.second])[None])[0] for each in pool.candidates])


@pytest.mark.parametrize(("rule", "score"), [("disagreement", disagreement), ("entropy", entropy), ("bald", bald)])
def test_without_features_the_rule_takes_the_best(rule: Rule, score: Any) -> None:
    given = pool(50)
    found = select(given.candidates, rule, 8, given.scores, audit=0)
    best = np.argsort(-worth(given, score))[:8]
    assert {each.candidate for each in found} == {given.candidates[place] for place in best}
    assert {(each.rule, each.propensity, each.audit) for each in found} == {(rule, 1.0, 0.0)}


def test_with_features_the_best_are_spread() -> None:
    """Members disagree most about ten pairs that are alike, less about ten of four other kinds, hardly about fifty."""
    given, kinds, torn = pool(70), np.eye(5), np.array([1.0, -1.0])
    for place, each in enumerate(given.candidates):
        given.scores[each.first] = torn * (2.0 if place < 10 else 1.5 if place < 20 else 0.1)
        given.features[each.first] = kinds[0 if place < 10 else 1 + place % 4] * (1 if place < 20 else 9)
        given.scores[each.second], given.features[each.second] = np.zeros(2), np.zeros(5)
    plain = select(given.candidates, "bald", 5, given.scores, audit=0)
    spread = select(given.candidates, "bald", 5, given.scores, given.features, audit=0)
    seen = [{int(given.features[each.candidate.first].argmax()) for each in found} for found in (plain, spread)]
    assert seen == [{0}, {0, 1, 2, 3, 4}]
    assert {each.candidate for each in spread} <= set(given.candidates[:20]), "but nothing is taken for variety alone"


@pytest.mark.parametrize("rule", get_args(Rule))
def test_a_seed_repeats_a_choice_whatever_the_order_of_the_candidates(rule: Rule) -> None:
    given = pool(80)
    found = select(given.candidates, rule, 20, given.scores, given.features, seed=5)
    shuffled = random.Random(1).sample(given.candidates, 80)
    assert select(shuffled, rule, 20, given.scores, given.features, seed=5) == found
    other = select(given.candidates, rule, 20, given.scores, given.features, seed=6)
    assert other != found
    assert len({each.candidate for each in found}) == 20
    kinds = Counter(each.rule for each in found)
    assert kinds == ({"uniform": 20} if rule == "uniform" else {"uniform": 4, rule: 16})


def test_among_equals_it_does_not_matter_who_came_first() -> None:
    equals = [Candidate(f"prompt {place // 10}", f"{place} a", f"{place} b") for place in range(200)]
    scores = {item: [0.0, 0.0] for each in equals for item in each[1:]}
    found = select(equals, "entropy", 20, scores, audit=0)
    assert select(equals[::-1], "entropy", 20, scores, audit=0) == found
    assert len({each.candidate.prompt for each in found}) > 10


def test_when_all_are_wanted_all_are_chosen_for_certain() -> None:
    given = pool(7)
    for rule in get_args(Rule):
        found = select(given.candidates, rule, 9, given.scores, given.features)
        assert {each.candidate for each in found} == set(given.candidates)
        assert [each.propensity for each in found] == [1.0] * 7
    alone = select(given.candidates[:1], "bald", 1, given.scores)
    assert [(each.rule, each.propensity, each.audit) for each in alone] == [("bald", 1.0, 0.0)]
    assert select([], "bald", 3, {}) == []


# Propensities


def test_propensities_of_three_from_six_are_those_that_one_counts() -> None:
    """One by lot, two by rule: the third of the ranking is chosen by lot (1/6), or if lot took the first or second."""
    given = pool(6)
    ranking = [given.candidates[place] for place in np.argsort(-worth(given, bald))]
    stated: dict[Candidate, float] = {}
    for seed in range(60):
        found = select(given.candidates, "bald", 3, given.scores, seed=seed, audit=1 / 3)
        stated |= {each.candidate: each.propensity for each in found}
        assert {each.audit for each in found} == {1 / 6}
    assert [stated[each] for each in ranking] == pytest.approx([1, 1, 1 / 6 + 1 / 3, 1 / 6, 1 / 6, 1 / 6])
    assert sum(stated.values()) == pytest.approx(3)


@pytest.mark.parametrize("rule", ["uniform", "bald", "d_optimal"])
def test_over_many_seeds_pairs_are_chosen_as_often_as_is_stated(rule: Rule) -> None:
    given, seeds = pool(30), 1500
    chosen, audited, at_first = Counter[Candidate](), Counter[Candidate](), 0
    stated: dict[Candidate, float] = {}
    for seed in range(seeds):
        found = select(given.candidates, rule, 12, given.scores, given.features, seed, audit=0.5)
        assert all(stated.setdefault(each.candidate, each.propensity) == each.propensity for each in found)
        chosen.update(each.candidate for each in found)
        audited.update(each.candidate for each in found if each.rule == "uniform")
        at_first += found[0].rule == "uniform"
    by_lot = 12 / 30 if rule == "uniform" else 6 / 30
    assert at_first / seeds == pytest.approx(1 if rule == "uniform" else 0.5, abs=0.05), "asked in no order"
    for each in given.candidates:
        for counted, share in ((chosen, stated[each]), (audited, by_lot)):
            assert counted[each] / seeds == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / seeds) + 1e-9)
    assert sum(stated.values()) == pytest.approx(12)
    kinds = Counter("sure" if p == 1 else "between" if p > by_lot + 1e-9 else "by lot" for p in stated.values())
    assert kinds == ({"by lot": 30} if rule == "uniform" else {"sure": 6, "between": 6, "by lot": 18})


def test_the_audit_slice_estimates_without_bias_what_the_choice_itself_does_not() -> None:
    given, n = pool(100), 100
    value = dict(zip(given.candidates, worth(given, bald), strict=True))  # what is measured goes with what is chosen
    truth = float(np.mean(list(value.values())))
    plain, audit, weighted = [], [], []
    for seed in range(400):
        found = select(given.candidates, "bald", 25, given.scores, seed=seed)
        plain.append(np.mean([value[each.candidate] for each in found]))
        audit.append(np.mean([value[each.candidate] for each in found if each.rule == "uniform"]))
        weighted.append(sum(value[each.candidate] / each.propensity for each in found) / n)
    for estimates in (audit, weighted):
        assert abs(np.mean(estimates) - truth) < 3.5 * np.std(estimates) / math.sqrt(400)
    assert np.mean(plain) > 1.5 * truth
    assert np.std(weighted) < np.std(audit)


# What cannot be chosen


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(rule="balt"), r"no rule 'balt' to choose by; did you mean 'bald'\?"),
        (dict(count=0), "0 pairs cannot be chosen"),
        (dict(audit=1.5), r"an audit of 1\.5"),
        (dict(audit=math.nan), "an audit of nan"),
        (dict(candidates=[Candidate("p", "a", "b"), Candidate("p", "b", "a")]), "'b' and 'a' stands .* twice"),
        (dict(candidates=[Candidate("p", "a", "a")]), "'a' and 'a' is one item"),
        (dict(scores={"a": [1.0, 0.0]}), "item 'b' has no scores"),
        (dict(scores={"a": [1.0, 0.0], "b": [1.0]}), "several lengths"),
        (dict(scores={"a": [1.0, 0.0], "b": [1.0, math.nan]}), "the scores of item 'b' are not finite"),
        (dict(scores={"a": [1.0], "b": [0.0]}), "'bald' asks where members disagree, and there is one"),
        (dict(rule="d_optimal"), "'d_optimal' needs features"),
        (dict(rule="d_optimal", features={"b": [1.0]}), "item 'a' has no features"),
    ],
)
def test_what_cannot_be_chosen_is_told(wrong: Mapping[str, Any], said: str) -> None:
    usual = dict(candidates=[Candidate("p", "a", "b")], rule="bald", count=1, scores={"a": [1.0, 0.0], "b": [0.0, 1.0]})
    with pytest.raises(AssentError, match=said):
        select(**{**usual, **wrong})


# What it is good for


def fit(x: Floats, wins: Floats, weights: Floats, ridge: float = 0.25) -> Floats:
    """Bradley-Terry with a linear reward, by Newton's method."""
    theta = np.zeros(x.shape[1])
    for _ in range(8):
        p = expit(x @ theta)
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(theta))
        theta += np.linalg.solve(curvature, x.T @ (weights * (wins - p)) - ridge * theta)
    return theta


class World(NamedTuple):
    """Items of 16 features, a pool of pairs with one answer each, and pairs to test on."""

    phi: Floats
    candidates: list[Candidate]
    x: Floats
    wins: Floats
    test_x: Floats
    test_wins: NDArray[np.bool_]


@cache
def world(seed: int, informative: bool, items: int = 600, pairs: int = 1500) -> World:
    """Differences of reward have a deviation of 2: annotators agree with the better one four times in five."""
    dice = np.random.default_rng(seed)
    phi = dice.normal(size=(items, 16))
    reward = phi @ dice.normal(size=16)
    reward *= math.sqrt(2) / reward.std()
    if not informative:
        reward = dice.permutation(reward)
    first, second = dice.permutation(np.array(np.triu_indices(items, 1)), axis=1)[:, : pairs + 4000]
    x, better = phi[first] - phi[second], reward[first] - reward[second]
    candidates = [Candidate("", f"{a}", f"{b}") for a, b in zip(first[:pairs], second[:pairs], strict=True)]
    wins = (dice.random(pairs) < expit(better[:pairs])).astype(float)
    return World(phi, candidates, x[:pairs], wins, x[pairs:], better[pairs:] > 0)


def learn(rule: Rule, seed: int, informative: bool) -> list[float]:
    """Accuracy on the test pairs after 16, 32, 48 ... answers: each time, eight members on bootstrap samples choose."""
    here, dice = world(seed, informative), np.random.default_rng(seed + 1000)
    place = {candidate: number for number, candidate in enumerate(here.candidates)}
    features = {f"{item}": row for item, row in enumerate(here.phi)}
    asked: list[int] = dice.permutation(len(place))[:16].tolist()
    accuracy = list[float]()
    while True:
        x, wins = here.x[asked], here.wins[asked]
        theta = fit(x, wins, np.ones(len(x)))
        accuracy.append(float(((here.test_x @ theta > 0) == here.test_wins).mean()))
        if len(accuracy) == ROUNDS:
            return accuracy
        samples = [np.bincount(dice.integers(len(x), size=len(x)), minlength=len(x)).astype(float) for _ in range(8)]
        members = np.array([fit(x, wins, sample) for sample in samples])
        scores = {f"{item}": row for item, row in enumerate(here.phi @ members.T)}
        past, done = [here.candidates[each] for each in asked], set(asked)
        left = [each for each, number in place.items() if number not in done]
        asked += [place[each.candidate] for each in select(left, rule, 16, scores, features, len(asked), asked=past)]


ROUNDS = 21
SEEDS = range(8)


@cache
def learned(rule: Rule, informative: bool = True) -> Floats:
    """The mean over the seeds, (ROUNDS,)."""
    return np.asarray(np.mean([learn(rule, seed, informative) for seed in SEEDS], axis=0))


def answers_until(accuracy: Floats, target: float) -> float:
    """How many answers it takes, between the rounds by a straight line; the last ones are never enough by accident."""
    after = int(np.argmax(accuracy >= target)) if accuracy.max() >= target else -1
    assert after > 0, f"{target:.3f} was not reached, or at once: {accuracy.round(3)}"
    share = (target - accuracy[after - 1]) / (accuracy[after] - accuracy[after - 1])
    return 16 * (after + float(share))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["bald", "d_optimal", "disagreement"])
def test_a_reward_is_learned_with_fewer_answers_than_by_lot(rule: Rule) -> None:
    by_lot = learned("uniform")
    needed = answers_until(learned(rule), by_lot[-1])
    assert needed < 0.75 * 16 * ROUNDS
    assert learned(rule)[5:].mean() > by_lot[5:].mean() + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["uniform", "bald", "d_optimal"])
def test_where_features_tell_nothing_no_rule_gains(rule: Rule) -> None:
    by_lot, found = learned("uniform", False), learned(rule, False)
    assert found[5:].mean() == pytest.approx(0.5, abs=0.03)
    assert found[5:].mean() == pytest.approx(by_lot[5:].mean(), abs=0.01)


def test_d_optimal_asks_the_more_even_of_like_pairs_whatever_the_scale_of_the_features() -> None:
    given = pool(30)
    for place, each in enumerate(given.candidates):
        given.features[each.first], given.features[each.second] = np.eye(3)[place % 3], np.zeros(3)
        given.scores[each.first], given.scores[each.second] = np.array([abs(place - 14.5)]), np.zeros(1)
    found = select(given.candidates, "d_optimal", 6, given.scores, given.features, audit=0)
    assert {each.candidate for each in found} == set(given.candidates[12:18])
    given = pool(30)
    larger = {item: 2.0**10 * row for item, row in given.features.items()}
    alike = [select(given.candidates, "d_optimal", 9, given.scores, some) for some in (given.features, larger)]
    assert alike[0] == alike[1]


def test_pairs_that_were_asked_before_are_not_asked_in_another_guise() -> None:
    given = pool(40)
    for place, each in enumerate(given.candidates):
        given.features[each.first], given.features[each.second] = np.eye(5)[place % 2], np.zeros(5)
        given.scores[each.first] = given.scores[each.second] = np.zeros(4)
    asked, left = given.candidates[:20:2], given.candidates[20:]
    fresh, after = (
        select(left, "d_optimal", 6, given.scores, given.features, audit=0, asked=some) for some in ([], asked)
    )
    directions = [Counter(int(given.features[each.candidate.first].argmax()) for each in x) for x in (fresh, after)]
    assert directions == [{0: 3, 1: 3}, {1: 6}]


FROM_MANY = """
import sys
import time
import numpy as np
from assent.preferences.select import Candidate, select
dice = np.random.default_rng(0)
rule, count = sys.argv[1], int(sys.argv[2])
names = [f"{place}" for place in range(count // 2)]
scores, features = (dict(zip(names, dice.normal(size=(len(names), width)))) for width in (5, 100))
drawn = dice.integers(len(names), size=(count + count // 50, 2)).tolist()
pairs = {(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]}
candidates = [Candidate("", names[a], names[b]) for a, b in sorted(pairs)[:count]]
assert len(candidates) == count
before = time.process_time()
assert len(select(candidates, rule, 500, scores, features)) == 500
print(time.process_time() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["bald", "d_optimal"])
def test_a_hundred_thousand_candidates_take_as_long_as_there_are_more_of_them(rule: str) -> None:
    """In proportion would be 4 times as long as 25,000, and each beside each other 16 times, on whatever machine."""

    def seconds(count: int) -> float:
        command = [sys.executable, "-c", FROM_MANY, rule, str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=True, timeout=300, cwd=Path(__file__).parent.parent, env=environment, stdout=subprocess.PIPE
        )
        return float(done.stdout)

    assert seconds(100_000) < 8 * seconds(25_000)
