"""Length-controlled win rate: by hand, by its symmetries, and where there is none."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from assent.functional.length_control import LengthControlled, length_controlled_win_rate
from assent.functional.statistics import clustered_win_rate

BASELINE = np.full(60, 100)
LENGTHS = np.repeat([110, 90], [40, 20])
OUTCOMES = np.repeat([1, 0, 1, 0], [30, 10, 10, 10])
"""40 pairs in which the model's response is longer by 10, 30 of them won, and 20 shorter by 10, 10 of them won."""

pairs_of_all_kinds = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=25
)


def control(pairs: list[tuple[float, int, int]], **options: Any) -> LengthControlled:
    outcomes, lengths, baseline_lengths = zip(*pairs, strict=True)
    return length_controlled_win_rate(outcomes, lengths, baseline_lengths, **{"resamples": 0, **options})


def test_length_control_by_hand() -> None:
    # Without a prior both rates are met: logits theta - phi t = ln 3 where longer, theta + phi t = 0 where shorter. So
    # theta = ln(3) / 2, LC = sqrt 3 / (1 + sqrt 3), and phi = -ln(3) / 2 / t. The differences have the mean 10/3 and
    # the sample variance 60/59 (100 - 100/9), thus t = tanh(10 / 9.507540) = 0.782485.
    result = length_controlled_win_rate(OUTCOMES, LENGTHS, BASELINE, prior_std=math.inf)
    assert result.rate == pytest.approx(3**0.5 / (1 + 3**0.5))
    assert result.rate == pytest.approx(0.633975, abs=5e-7)
    assert result.phi == pytest.approx(-0.701990, abs=5e-7)  # of baseline less model: the longer response wins
    assert result.raw == pytest.approx(40 / 60)
    assert result.low < result.rate < result.high
    assert (result.longer, result.shorter, result.n, result.is_controllable, result.reason) == (40, 20, 60, True, "")
    shorter_wins = length_controlled_win_rate(OUTCOMES, BASELINE, LENGTHS, prior_std=math.inf)
    assert (shorter_wins.rate, shorter_wins.phi) == pytest.approx((result.rate, 0.701990))


def test_prior_pulls_the_rate_towards_the_raw_one() -> None:
    deviations = (math.inf, 2.5, 0.5, 1e-6)
    results = [length_controlled_win_rate(OUTCOMES, LENGTHS, BASELINE, prior_std=std) for std in deviations]
    rates = [result.rate for result in results]
    assert rates == sorted(rates)
    assert results[0].phi < results[1].phi < results[2].phi < results[3].phi
    assert rates[1] == pytest.approx(rates[0], abs=0.005)  # the default is weak
    assert rates[3] == pytest.approx(40 / 60)


@settings(deadline=None)
@given(pairs_of_all_kinds, st.sampled_from([0.3, 2.5, 20.0]))
def test_fit_is_the_maximum_of_the_posterior(pairs: list[tuple[float, int, int]], prior_std: float) -> None:
    result = control(pairs, prior_std=prior_std)
    won = np.array([outcome for outcome, _, _ in pairs])
    shortfall = np.array([baseline - model for _, model, baseline in pairs], dtype=np.float64)
    if not result.is_controllable or won.mean() in (0, 1):
        return
    covariate = np.tanh(shortfall / shortfall.std(ddof=1)) if shortfall.any() else shortfall

    def loss(coefficients: NDArray[np.float64]) -> float:
        logits = coefficients[0] + coefficients[1] * covariate
        likelihood = won * np.log(expit(logits)) + (1 - won) * np.log(expit(-logits))
        return float((coefficients[1] / prior_std) ** 2 / 2 - likelihood.sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
    assert result.rate == pytest.approx(expit(best.x[0]), abs=1e-4)
    assert result.phi == pytest.approx(best.x[1], abs=1e-3)


# Symmetries


@settings(deadline=None)
@given(pairs_of_all_kinds, st.sampled_from([0.3, 2.5, math.inf]))
def test_exchanged_sides_win_what_the_others_lost(pairs: list[tuple[float, int, int]], prior_std: float) -> None:
    result = control(pairs, prior_std=prior_std)
    exchanged = control([(1 - outcome, baseline, model) for outcome, model, baseline in pairs], prior_std=prior_std)
    assert exchanged.rate == pytest.approx(1 - result.rate, abs=1e-9, nan_ok=True)
    assert exchanged.raw == pytest.approx(1 - result.raw)
    assert exchanged.phi == pytest.approx(result.phi, abs=1e-6, rel=1e-4, nan_ok=True)
    assert (exchanged.longer, exchanged.shorter) == (result.shorter, result.longer)


def test_exchanged_sides_have_the_mirrored_interval() -> None:
    result = length_controlled_win_rate(OUTCOMES, LENGTHS, BASELINE)
    exchanged = length_controlled_win_rate(1 - OUTCOMES, BASELINE, LENGTHS)
    assert (exchanged.low, exchanged.high) == pytest.approx((1 - result.high, 1 - result.low))


@given(st.lists(st.integers(0, 300), min_size=2, max_size=25))
def test_model_against_itself_wins_half(lengths: list[int]) -> None:
    result = control([(0.5, length, length) for length in lengths], resamples=10)
    assert result.rate == pytest.approx(0.5)
    assert result.low <= 0.5 <= result.high


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 300)), min_size=1, max_size=25))
def test_equal_lengths_everywhere_give_the_raw_rate(pairs: list[tuple[float, int]]) -> None:
    for prior_std in (2.5, math.inf):
        result = control([(outcome, length, length) for outcome, length in pairs], prior_std=prior_std)
        assert result.is_controllable
        assert result.rate == pytest.approx(result.raw)
        assert result.phi == pytest.approx(0, abs=1e-9)


def test_tie_counts_as_half_a_win_and_half_a_loss() -> None:
    # Two ties are one win and one loss at the same lengths; the sd of the differences is that of the same lengths.
    halves = length_controlled_win_rate(np.where(LENGTHS > 100, 0.5, OUTCOMES), LENGTHS, BASELINE)
    split = np.where(LENGTHS > 100, np.arange(60) % 2, OUTCOMES)
    assert halves[3:5] == pytest.approx(length_controlled_win_rate(split, LENGTHS, BASELINE)[3:5])
    assert halves.rate == pytest.approx(length_controlled_win_rate(split, LENGTHS, BASELINE).rate)


def test_units_of_length_do_not_matter() -> None:
    metres = length_controlled_win_rate(OUTCOMES, LENGTHS / 1000, BASELINE / 1000)
    assert metres[:5] == pytest.approx(length_controlled_win_rate(OUTCOMES, LENGTHS, BASELINE)[:5])


# Cases without a number


def test_longer_responses_cannot_be_controlled() -> None:
    # As in our demo, 21.3 words against 14.8: none of the responses is as short as the baseline's.
    random = np.random.default_rng(0)
    baseline_lengths = random.integers(12, 18, size=64)
    lengths = baseline_lengths + random.integers(3, 11, size=64)
    outcomes = random.integers(2, size=64)
    result = length_controlled_win_rate(outcomes, lengths, baseline_lengths)
    assert result.reason == "cannot be controlled: 64 of 64 responses are longer"
    assert not result.is_controllable
    assert np.isnan([result.rate, result.low, result.high, result.phi]).all()
    assert result.raw == outcomes.mean()
    exchanged = length_controlled_win_rate(outcomes, baseline_lengths, lengths)
    assert exchanged.reason == "cannot be controlled: 64 of 64 responses are shorter"


# Of 60 pairs 6 are a tenth. Those of equal length lie on both sides.
@pytest.mark.parametrize(
    ("longer", "equal", "shorter", "is_controllable"),
    [(54, 0, 6, True), (55, 0, 5, False), (54, 6, 0, True), (55, 5, 0, False), (5, 0, 55, False), (5, 55, 0, True)],
)
def test_a_tenth_of_the_pairs_must_be_on_either_side(
    longer: int, equal: int, shorter: int, is_controllable: bool
) -> None:
    lengths = np.repeat([110, 100, 90], [longer, equal, shorter])
    result = length_controlled_win_rate(OUTCOMES, lengths, BASELINE, resamples=20)
    assert result.is_controllable == is_controllable
    assert math.isnan(result.rate) != is_controllable
    assert (result.longer, result.shorter) == (longer, shorter)


def test_no_pairs_have_no_rate() -> None:
    result = length_controlled_win_rate([], [], [])
    assert result.reason == "cannot be controlled: there are no pairs"
    assert np.isnan([result.rate, result.low, result.high, result.raw, result.phi]).all()


def test_one_pair_has_no_length_to_compare() -> None:
    assert control([(1, 5, 4)]).reason == "cannot be controlled: 1 of 1 responses are longer"
    assert control([(1, 5, 5)]).rate == 1
    assert np.isnan(control([(0.5, 5, 5)])[1:3]).all()


# Extremes and intervals


def test_a_model_that_won_all_wins_all_at_equal_length() -> None:
    result = length_controlled_win_rate(np.ones(60), LENGTHS, BASELINE)
    assert (result.rate, result.phi, result.high) == (1, 0, 1)
    assert 0.9 < result.low < 1  # Wilson's for 60 votes
    assert length_controlled_win_rate(np.zeros(60), LENGTHS, BASELINE).rate == 0


def test_length_that_decides_all_leaves_half() -> None:
    # Every longer response won: no finite phi is likeliest without a prior. By symmetry theta is 0.
    lengths = np.repeat([110, 90], 30)
    for prior_std in (2.5, math.inf):
        result = length_controlled_win_rate(lengths > 100, lengths, BASELINE, prior_std=prior_std, resamples=50)
        assert result.rate == pytest.approx(0.5)
        assert result.low < 0.5 < result.high


def test_interval_resamples_whole_prompts() -> None:
    # Five copies of each pair tell no more than one of them.
    alone = length_controlled_win_rate(OUTCOMES, LENGTHS, BASELINE)
    outcomes, lengths, baseline_lengths, prompts = (
        np.repeat(values, 5) for values in (OUTCOMES, LENGTHS, BASELINE, np.arange(60))
    )
    together = length_controlled_win_rate(outcomes, lengths, baseline_lengths, prompts)
    naive = length_controlled_win_rate(outcomes, lengths, baseline_lengths)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert naive.high - naive.low < 0.6 * (together.high - together.low)


def test_interval_repeats_with_its_seed() -> None:
    results = [length_controlled_win_rate(OUTCOMES, LENGTHS, BASELINE, seed=seed) for seed in (1, 1, 2)]
    assert results[0] == results[1] != results[2]


def test_control_removes_the_preference_for_length() -> None:
    # A judge that looks at length alone: the raw rate is well above 1/2, the controlled one is 1/2.
    random = np.random.default_rng(3)
    baseline_lengths = random.integers(900, 1500, size=800)
    lengths = baseline_lengths + random.normal(150, 200, size=800)
    outcomes = random.random(800) < expit(1.5 * np.tanh((lengths - baseline_lengths) / 200))
    result = length_controlled_win_rate(outcomes, lengths, baseline_lengths, resamples=200)
    raw = clustered_win_rate(outcomes, np.arange(800), resamples=200)
    assert result.raw == pytest.approx(raw.rate)
    assert raw.low > 0.6
    assert result.low < 0.5 < result.high
    assert result.phi < 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1, 0], [5, 5], [5]), {}, r"prompts have shapes \(2,\), \(2,\), \(1,\) and \(2,\): give one per pair"),
        (([1, 0], [5, 5], [5, 5]), {"prompts": ["a"]}, "give one per pair"),
        (([2, 0], [5, 5], [5, 5]), {}, "an outcome is outside 0 to 1: 1 the model won, 0.5 a tie, 0 the baseline won"),
        (([math.nan, 0], [5, 5], [5, 5]), {}, "an outcome is outside 0 to 1"),
        (([1, 0], [5, -5], [5, 5]), {}, "a length is negative or not finite: count characters, words or tokens"),
        (([1, 0], [5, 5], [5, math.inf]), {}, "a length is negative or not finite"),
        (([1, 0], [5, 5], [5, 5]), {"prior_std": 0}, "prior_std is 0: it must be positive, and inf is no prior"),
        (([1, 0], [5, 5], [5, 5]), {"prior_std": math.nan}, "prior_std is nan"),
    ],
)
def test_length_control_refuses_bad_input(
    arguments: tuple[list[float], list[float], list[float]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        length_controlled_win_rate(*arguments, **options)
