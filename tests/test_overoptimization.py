"""Best-of-n estimates and over-optimisation curves, by hand and by enumeration."""

import math
from collections.abc import Callable
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assent.functional.overoptimization import (
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_rewards,
    fit_best_of_n,
    fit_rl,
)

REWARDS = st.integers(-4, 4).map(float)
"""Few values, so that ties are common."""
SAMPLES = st.lists(st.tuples(REWARDS, REWARDS), min_size=1, max_size=8)
COEFFICIENTS = st.floats(0.1, 4)


def enumerated_reward(proxy: np.ndarray, gold: np.ndarray, n: int) -> float:
    """Return the mean gold of the best by proxy over all subsets of n; ties share the mean of their golds."""
    rewards = []
    for subset in combinations(range(len(proxy)), n):
        rows = np.array(subset)
        rewards.append(gold[rows][proxy[rows] == proxy[rows].max()].mean())
    return float(np.mean(rewards))


# KL of best-of-n


# log n - (n - 1) / n, e.g. n = 2: 0.693147 - 0.5, n = 1000: 6.907755 - 0.999.
@pytest.mark.parametrize(
    ("n", "kl"),
    [
        (1, 0),
        (2, 0.193147),
        (4, 0.636294),
        (8, 1.204442),
        (16, 1.835089),
        (64, 3.174508),
        (256, 4.549084),
        (1000, 5.908755),
    ],
)
def test_best_of_n_kl_is_log_n_minus_n_minus_1_over_n(n: int, kl: float) -> None:
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


@given(st.integers(1, 40), st.integers(1, 40))
def test_best_of_n_kl_bounds_the_kl_of_discrete_policies(n: int, completions: int) -> None:
    # The best of n among K equally likely completions has rank i with probability (i^n - (i - 1)^n) / K^n.
    shares = np.arange(completions + 1) / completions
    best = np.diff(shares**n)
    kl = (best[best > 0] * np.log(best[best > 0] * completions)).sum()
    assert kl <= best_of_n_kl(n) + 1e-12
    assert completions > 1 or kl == 0  # a policy of one completion does not change


def test_best_of_n_kl_is_approached_as_repeats_vanish() -> None:
    best = np.diff((np.arange(100_001) / 100_000) ** 8)
    assert (best * np.log(best.clip(1e-300) * 100_000)).sum() == pytest.approx(best_of_n_kl(8), abs=1e-3)


# Rewards of best-of-n


# The best of the 6 pairs have ranks 2, 3, 4, 3, 4, 4, golds 1, 1, 0, 1, 0, 0; of the 4 triples 3, 4, 4, 4: 1, 0, 0, 0.
@pytest.mark.parametrize(("n", "gold"), [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0)])
def test_best_of_n_rewards_by_hand(n: int, gold: float) -> None:
    assert best_of_n_rewards([1, 2, 3, 4], [0, 1, 1, 0], [n]) == pytest.approx([gold], abs=1e-15)


def test_samples_of_equal_proxy_share_their_mean_gold() -> None:
    # In each of the 3 pairs the best is one of the two samples of proxy 2: golds 1 and 0, 1/2 on average.
    assert best_of_n_rewards([1, 2, 2], [0, 1, 0], [2]) == pytest.approx([0.5], abs=1e-15)


def test_best_of_5_of_12_is_the_mean_of_all_subsets() -> None:
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(2, 12))
    golds = [gold[max(subset, key=lambda i: proxy[i])] for subset in combinations(range(12), 5)]
    assert len(golds) == 792
    assert best_of_n_rewards(proxy, gold, [5])[0] == pytest.approx(np.mean(golds), abs=1e-12)


@given(SAMPLES, st.data())
def test_best_of_n_rewards_equal_their_enumeration(samples: list[tuple[float, float]], data: st.DataObject) -> None:
    proxy, gold = np.array(samples).T
    n = data.draw(st.integers(1, len(samples)))
    assert best_of_n_rewards(proxy, gold, [n])[0] == pytest.approx(enumerated_reward(proxy, gold, n), abs=1e-12)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_best_of_n_rewards_ignore_the_order_of_samples(samples: list[tuple[float, float]], random: Random) -> None:
    sizes = range(1, len(samples) + 1)
    proxy, gold = np.array(samples).T
    shuffled_proxy, shuffled_gold = np.array(random.sample(samples, len(samples))).T
    expected = best_of_n_rewards(proxy, gold, sizes)
    assert best_of_n_rewards(shuffled_proxy, shuffled_gold, sizes) == pytest.approx(expected, abs=1e-12)


@given(SAMPLES)
def test_best_of_n_proxy_rises_from_the_mean_to_the_best(samples: list[tuple[float, float]]) -> None:
    proxy = np.array(samples)[:, 0]
    rewards = best_of_n_rewards(proxy, proxy, range(1, len(proxy) + 1))
    assert (np.diff(rewards) >= -1e-12).all()
    assert [rewards[0], rewards[-1]] == pytest.approx([proxy.mean(), proxy.max()], abs=1e-12)


def test_best_of_n_weights_are_exact_for_1000_samples() -> None:
    # With gold 1 at rank i alone, the reward is the weight of rank i; Python's integers give it exactly.
    for n, rank in [(2, 1000), (2, 2), (100, 500), (500, 700), (999, 999), (1000, 1000)]:
        gold = np.eye(1000)[rank - 1]
        weight = math.comb(rank - 1, n - 1) / math.comb(1000, n)
        assert best_of_n_rewards(np.arange(1000), gold, [n])[0] == pytest.approx(weight, rel=1e-11)
    ones = best_of_n_rewards(np.arange(1000), np.ones(1000), range(1, 1001))
    assert ones == pytest.approx(np.ones(1000), abs=1e-12)


# Curves of best-of-n


def test_best_of_n_curve_has_the_mean_and_error_of_prompts() -> None:
    # Best of 2 takes gold 1 for the first prompt and 3 for the second: mean 2, deviation sqrt(2), error sqrt(2 / 2).
    first, second = best_of_n_curve([[1, 2], [6, 5]], [[0, 1], [3, 0]], [1, 2])
    assert (first.n, first.kl, first.proxy, first.gold) == (1, 0, 3.5, 1)
    assert first.gold_se == pytest.approx(0.5)  # gold 1/2 and 3/2
    assert (second.n, second.kl, second.proxy, second.gold) == (2, best_of_n_kl(2), 4, 2)
    assert second.gold_se == pytest.approx(1)


def test_best_of_n_curve_of_one_prompt_has_no_error() -> None:
    point = best_of_n_curve([[1, 2, 2]], [[0, 1, 0]], [2])[0]
    assert (point.proxy, point.gold) == pytest.approx((2, 0.5)) and math.isnan(point.gold_se)
    assert best_of_n_curve([[1, 2, 2]], [[0, 1, 0]], []) == ()


def test_gold_error_of_the_curve_is_that_of_new_prompts() -> None:
    random = np.random.default_rng(0)
    points = []
    for _ in range(200):
        proxy = random.normal(size=(20, 8))
        points.append(best_of_n_curve(proxy, proxy + random.normal(size=(20, 8)), [4])[0])
    # The best of 4 standard normal draws is 1.02938 on average.
    assert np.mean([point.gold for point in points]) == pytest.approx(1.02938, abs=0.03)
    assert np.mean([point.gold_se for point in points]) == pytest.approx(np.std([p.gold for p in points]), rel=0.15)


# Fits


def test_fit_best_of_n_recovers_its_curve() -> None:
    # R = d (2 - d / 2): alpha / (2 beta) = 2 and alpha^2 / (4 beta) = 2.
    d = np.array([0.5, 1, 2, 3])
    assert fit_best_of_n(d, d * (2 - 0.5 * d)) == pytest.approx((2, 0.5, 2, 2))


def test_fit_rl_recovers_its_curve() -> None:
    # R = d (2 - log(d) / 2): exp(2 / 0.5 - 1) = e^3 = 20.085537, and R there is e^3 / 2.
    d = np.array([0.5, 1, 2, 3])
    assert fit_rl(d, d * (2 - 0.5 * np.log(d))) == pytest.approx((2, 0.5, 20.085537, 10.042768), abs=1e-6)


@given(COEFFICIENTS, COEFFICIENTS)
def test_peaks_of_fits_are_maxima_of_their_curves(alpha: float, beta: float) -> None:
    d = np.array([0.5, 1, 2, 3])
    curves: list[tuple[Callable[..., tuple[float, ...]], Callable[[float], float]]] = [
        (fit_best_of_n, lambda x: x * (alpha - beta * x)),
        (fit_rl, lambda x: x * (alpha - beta * math.log(x))),
    ]
    for fit, curve in curves:
        _, _, peak_distance, peak_reward = fit(d, [curve(x) for x in d])
        assert curve(peak_distance) == pytest.approx(peak_reward, rel=1e-6)
        assert max(curve(peak_distance * 0.9), curve(peak_distance * 1.1)) < peak_reward


@pytest.mark.parametrize("fit", [fit_best_of_n, fit_rl])
def test_distance_0_decides_nothing(fit: Callable[..., tuple[float, ...]]) -> None:
    assert fit([0, 0.5, 1, 2], [7, 1, 2, 2.5]) == fit([0.5, 1, 2], [1, 2, 2.5])


# d + d^2 and d + d log d rise for ever (beta = -1), and all zeros have no peak.
@pytest.mark.parametrize(("fit", "bend"), [(fit_best_of_n, lambda d: d**2), (fit_rl, lambda d: d * np.log(d))])
def test_curve_that_does_not_turn_over_peaks_at_infinity(
    fit: Callable[..., tuple[float, ...]], bend: Callable[[np.ndarray], np.ndarray]
) -> None:
    d = np.array([1.0, 2, 3])
    assert fit(d, d + bend(d)) == pytest.approx((1, -1, math.inf, math.inf))
    assert fit(d, 0 * d) == pytest.approx((0, 0, math.nan, math.nan), nan_ok=True)


def test_best_of_n_that_only_loses_peaks_at_the_start() -> None:
    d = np.array([1.0, 2, 3])
    assert fit_best_of_n(d, -d - d**2) == pytest.approx((-1, 1, 0, 0))


def test_rl_peak_beyond_all_floats_is_infinite() -> None:
    # exp(1 / 0.001 - 1) = e^999.
    d = np.array([1.0, 2, 3])
    assert fit_rl(d, d * (1 - 0.001 * np.log(d)))[2:] == (math.inf, math.inf)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_of_n_kl(0), "n is 0: give 1 or more"),
        (lambda: best_of_n_rewards([1, 2], [1, 2], [3]), "best of 3 of 2 samples: give whole sizes from 1 to 2"),
        (lambda: best_of_n_rewards([1, 2], [1, 2], [0]), "best of 0 of 2 samples"),
        (lambda: best_of_n_rewards([1, 2], [1, 2], [1.5]), "best of 1.5 of 2 samples"),  # type: ignore[list-item]
        (lambda: best_of_n_rewards([1, 2], [1], [1]), r"shape \(2,\) and gold \(1,\): give both as \(N,\)"),
        (lambda: best_of_n_rewards([], [], [1]), "not empty"),
        (lambda: best_of_n_rewards([1, math.nan], [1, 2], [1]), "not finite: leave such samples out"),
        (lambda: best_of_n_rewards([1, 2], [1, math.inf], [1]), "not finite: leave such samples out"),
        (lambda: best_of_n_curve([1, 2], [1, 2], [1]), r"give both as \(P, N\)"),
        (lambda: best_of_n_curve([[1, 2]], [[1, 2]], [3]), "best of 3 of 2 samples"),
        (lambda: fit_rl([1, 2], [1]), r"give both as \(N,\)"),
        (lambda: fit_rl([1, -2], [1, 2]), "a distance is -2.0: give d = sqrt"),
        (lambda: fit_best_of_n([1, math.nan], [1, 2]), "not finite: leave such points out"),
        (lambda: fit_best_of_n([0, 1], [0, 1]), "at least two distinct distances above 0"),
        (lambda: fit_rl([2, 2], [0, 1]), "at least two distinct distances above 0"),
    ],
)
def test_overoptimization_refuses_bad_input_with_a_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
