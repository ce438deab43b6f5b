"""The alarm of over-optimisation: by hand, and its false alarms and delay by simulation."""

import json
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from assent.functional.alarm import Alarm, AlarmState

RUNS = 200
PEAK = 6
"""The probe at which the true gold reward is highest."""
SCORES = st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), max_size=12)
WHOLE_SCORES = st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=12)
"""Their sums are exact, so that no two means differ by rounding alone."""


def run_probes(alarm: Alarm, probes: Iterable[ArrayLike]) -> AlarmState:
    """Return the state after probes at steps 0, 10, 20, ..."""
    state = AlarmState()
    for index, scores in enumerate(probes):
        state = alarm.update(state, 10 * index, scores)
    return state


# By hand


def test_alarm_fires_at_the_second_significant_fall() -> None:
    # Falls of 1, 2, 3, 2 from the best: mean 2, deviation sqrt(2 / 3), error sqrt(2 / 3) / 2 = 0.408248, z = 4.898979.
    best = [5, 6, 7, 8]
    fallen = [4, 4, 4, 6]
    once = run_probes(Alarm(), [best, fallen])
    assert (once.fall, once.falls, once.fired) == (2, 1, False)
    assert once.fall_se == pytest.approx(0.408248, abs=1e-6)
    assert once.z_now == pytest.approx(4.898979, abs=1e-6)
    twice = run_probes(Alarm(), [best, fallen, fallen])
    assert (twice.falls, twice.fired, twice.fired_at, twice.best_step) == (2, True, 20, 0)
    assert twice.best_scores == (5, 6, 7, 8)


# The fall has z = 4.898979, as above.
@pytest.mark.parametrize(("z", "fired"), [(4.89, True), (4.9, False)])
def test_alarm_fires_only_above_z_standard_errors(z: float, fired: bool) -> None:
    assert run_probes(Alarm(z=z, patience=1), [[5, 6, 7, 8], [4, 4, 4, 6]]).fired == fired


def test_new_best_mean_resets_the_falls() -> None:
    state = run_probes(Alarm(), [[5, 5], [4, 4], [6, 6], [5, 5]])
    assert (state.best_step, state.best_scores, state.falls, state.fired) == (20, (6, 6), 1, False)


def test_insignificant_fall_resets_the_falls() -> None:
    # Differences 3 and -1: mean 1, deviation sqrt(8), error 2, z = 0.5.
    state = run_probes(Alarm(), [[5, 5], [4, 4], [2, 6], [4, 4]])
    assert (state.best_step, state.falls, state.fired) == (0, 1, False)


def test_prompt_difficulty_cancels_in_paired_differences() -> None:
    easy_and_hard = np.array([0.0, 1000.0, -1000.0, 5.0])
    state = run_probes(Alarm(), [easy_and_hard, easy_and_hard - [1, 2, 3, 2]])
    assert state.z_now == pytest.approx(4.898979, abs=1e-6)


def test_equal_fall_of_every_prompt_is_significant() -> None:
    state = run_probes(Alarm(z=100), [[5, 6], [4, 5], [4, 5]])
    assert (state.fired_at, state.fall_se, state.z_now) == (20, 0, math.inf)


def test_no_difference_at_all_is_no_fall() -> None:
    state = run_probes(Alarm(z=0, patience=1), [[5, 6], [5, 6], [5, 6]])
    assert (state.falls, state.fired, state.z_now, state.best_step) == (0, False, 0, 0)


def test_fired_alarm_stays_fired_at_a_new_best() -> None:
    state = run_probes(Alarm(), [[5, 5], [4, 4], [4, 4], [9, 9], [3, 3], [3, 3]])
    assert (state.fired_at, state.best_step, state.falls) == (20, 30, 2)


# Properties


@given(SCORES, st.integers(0, 12))
def test_alarm_resumes_from_json_exactly(probes: list[list[float]], killed_after: int) -> None:
    alarm = Alarm(z=1, patience=2)
    state = AlarmState()
    for index, scores in enumerate(probes):
        if index == killed_after:
            state = AlarmState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False)))
        state = alarm.update(state, 10 * index, scores)
    assert state == run_probes(alarm, probes)
    assert AlarmState.from_dict(state.to_dict()) == state


@given(WHOLE_SCORES)
def test_best_step_is_the_first_of_the_highest_mean(probes: list[list[int]]) -> None:
    assert run_probes(Alarm(), probes).best_step == 10 * int(np.sum(probes, axis=1).argmax())


@given(WHOLE_SCORES, st.permutations([0, 1, 2]))
def test_alarm_ignores_the_order_of_prompts(probes: list[list[int]], order: list[int]) -> None:
    state = run_probes(Alarm(), probes)
    permuted = run_probes(Alarm(), [[scores[i] for i in order] for scores in probes])
    assert (permuted.best_step, permuted.fired_at, permuted.falls) == (state.best_step, state.fired_at, state.falls)


@given(SCORES)
def test_alarm_of_more_patience_or_z_never_fires_earlier(probes: list[list[float]]) -> None:
    fired_at = run_probes(Alarm(z=1, patience=2), probes).fired_at
    for alarm in (Alarm(z=1, patience=3), Alarm(z=2, patience=2)):
        state = run_probes(alarm, probes)
        assert not state.fired or (fired_at is not None and state.fired_at is not None and fired_at <= state.fired_at)


# False alarms and delay


class Detection(NamedTuple):
    rate: float
    """Share of runs whose alarm fired at the peak or later."""
    delay: float
    """Median number of probes from the peak to the alarm of those runs."""


def fired_probes(alarm: Alarm, fall: float) -> list[int]:
    """Return the probe at which each run fires that does.

    The gold reward of 64 prompts rises by 0.2 a probe for 6 probes, then falls by `fall`; sampling noise has deviation
    1 at each of the 20 probes, and so has the difficulty of prompts.
    """
    probe = np.arange(20)
    gold = 0.2 * np.minimum(probe, PEAK) - fall * np.maximum(probe - PEAK, 0)
    fired = []
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        scores = gold[:, None] + random.normal(size=64) + random.normal(size=(20, 64))
        fired_at = run_probes(alarm, scores).fired_at
        if fired_at is not None:
            fired.append(fired_at // 10)
    return fired


def false_alarm_rate(alarm: Alarm) -> float:
    """Return the share of runs that fire although the gold reward never falls."""
    return len(fired_probes(alarm, fall=0)) / RUNS


def detect(fall: float) -> Detection:
    delays = [probe - PEAK for probe in fired_probes(Alarm(), fall) if probe >= PEAK]
    return Detection(len(delays) / RUNS, float(np.median(delays)))


def test_alarm_rarely_fires_where_the_gold_reward_stays() -> None:
    assert false_alarm_rate(Alarm()) <= 0.08  # expected: 2 to 4 %


def test_alarm_detects_a_fall_of_a_tenth_within_ten_probes() -> None:
    detection = detect(fall=0.1)
    assert detection.rate >= 0.95
    assert 4 <= detection.delay <= 9  # expected: 6


def test_alarm_detects_a_fall_of_a_twentieth_nine_probes_late() -> None:
    detection = detect(fall=0.05)
    assert detection.rate >= 0.92  # expected: 97 to 98 %
    assert 7 <= detection.delay <= 11


def test_naive_alarm_nearly_always_fires_without_a_fall() -> None:
    assert false_alarm_rate(Alarm(z=0, patience=1)) > 0.95  # expected: 100 %


# Expected: 64 %, 18 % and 1 %.
@pytest.mark.parametrize(("z", "patience", "low", "high"), [(2, 1, 0.5, 0.78), (2, 2, 0.1, 0.28), (3, 2, 0, 0.04)])
def test_false_alarms_fall_with_z_and_patience(z: float, patience: int, low: float, high: float) -> None:
    assert low <= false_alarm_rate(Alarm(z, patience)) <= high


def test_fall_counts_from_a_tenth_of_the_gain() -> None:
    # From 0 to 10: a fall of 0.9 does not count, one of 1 does, whatever their errors, which are 0 here.
    gain = [[0, 0], [10, 10]]
    assert not run_probes(Alarm(), [*gain, [9.1, 9.1], [9.1, 9.1], [9.1, 9.1]]).fired
    assert run_probes(Alarm(), [*gain, [9, 9], [9, 9]]).fired_at == 30
    assert run_probes(Alarm(min_fall=0), [*gain, [9.1, 9.1], [9.1, 9.1]]).fired_at == 30


def test_any_significant_fall_counts_where_nothing_was_gained() -> None:
    assert run_probes(Alarm(), [[10, 10], [9.9, 9.9], [9.9, 9.9]]).fired_at == 20


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Alarm(z=-1), "z is -1: choose 0 or more"),
        (lambda: Alarm(z=math.nan), "z is nan: choose 0 or more"),
        (lambda: Alarm(patience=0), "patience is 0: choose 1 or more"),
        (lambda: Alarm(min_fall=-0.1), "min_fall is -0.1: choose 0 or more"),
        (lambda: Alarm(min_fall=math.inf), "min_fall is inf: choose 0 or more"),
        (lambda: run_probes(Alarm(), [[1]]), r"scores have shape \(1,\)"),
        (lambda: Alarm().update(AlarmState(), 0, [[1, 2]]), r"scores have shape \(1, 2\)"),
        (lambda: run_probes(Alarm(), [[1, math.nan]]), "scores at step 0 have a value that is not finite"),
        (lambda: run_probes(Alarm(), [[1, 2], [1, 2, 3]]), "3 scores after 2: give the same prompts every time"),
        (lambda: Alarm().update(run_probes(Alarm(), [[1, 2]]), 0, [1, 2]), "step 0 is not after step 0"),
        (lambda: AlarmState.from_dict({"step": 1}), "a state has the fields step, first_mean, .*, not step"),
    ],
)
def test_alarm_refuses_bad_input_with_a_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
