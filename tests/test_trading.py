"""Trading: costs and drawdowns by hand, no look at the future, and test windows that share no day with training."""

import csv
import gzip
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("gymnasium")

from assent.control.trainer import FIRST_MEASURED_SEED
from assent.environments.trading import (
    COST,
    DAYS,
    EXPOSURES,
    FIRST_TEST_SEED,
    PRICES,
    Trading,
    TradingEpisodes,
    load_prices,
    measure_actions,
    measure_baselines,
    observe_market,
    window_of,
)
from assent.protocols import Line, Transition
from assent.replay import encode_actions, summarise
from assent.segments import Segment

TOP = Path(__file__).parent.parent
SEEDS = (*range(20), *range(FIRST_TEST_SEED, FIRST_TEST_SEED + 20))


def random_actions(count: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(len(EXPOSURES), size=(DAYS, count))


def trade(moves: list[float], actions: list[int], risk_aversion: float = 1.0) -> tuple[TradingEpisodes, Transition]:
    """Return an account and all its days, (T, ...), after simple returns of the price; before them it was constant."""
    closes = np.cumprod(np.array([100.0] + [1.0] * DAYS + [1 + move for move in moves]))
    episodes = TradingEpisodes(closes[None], risk_aversion)
    days = [episodes.step(np.array([action])) for action in actions]
    return episodes, Transition(*(np.concatenate(column) for column in zip(*days, strict=True)))


# The account, by hand


def test_costs_are_five_basis_points_of_what_is_traded() -> None:
    episodes, days = trade([0.1, -0.2, 0.5], [4, 2, 2])
    first = (1 - 0.0005) * 1.1
    second = first * (1 - 0.00025) * (1 - 0.1)
    third = second * 1.25
    assert np.concatenate(episodes.accounts) == pytest.approx([1, first, second, third], rel=1e-12)
    assert days.features[:, 3] == pytest.approx([1, 0.5, 0])
    assert days.features[:, 4] == pytest.approx([1, 0.5, 0.5])


def test_cash_earns_and_loses_nothing() -> None:
    episodes, days = trade([0.1, -0.2, 0.5], [0, 0, 0])
    assert np.concatenate(episodes.accounts).tolist() == [1, 1, 1, 1]
    assert not days.features.any()
    assert not days.true_rewards.any()


def test_drawdown_is_measured_from_the_highest_account() -> None:
    """The account is 1, then 1.1, 0.88, 0.968, 0.7744 and 1.5488 but for the cost of the first trade."""
    episodes, days = trade([0.1, -0.2, 0.1, -0.2, 1.0], [4] * 5)
    assert days.features[:, 2] == pytest.approx([0, 2, 1.2, 2.96, 0], abs=1e-5)
    assert days.features[:, 1] == pytest.approx([0, 20, 0, 9.6, 0], abs=1e-4)
    assert episodes.max_drawdowns == pytest.approx([0.296])


def test_the_cost_of_a_first_trade_is_a_drawdown() -> None:
    episodes, days = trade([0.0], [4])
    assert episodes.max_drawdowns == pytest.approx([COST])
    assert days.true_rewards == pytest.approx([100 * (np.log(1 - COST) - COST)])


@pytest.mark.parametrize("risk_aversion", [0.0, 0.5, 4.0])
def test_true_rewards_add_up_to_return_less_drawdown(risk_aversion: float) -> None:
    actions = random_actions(len(SEEDS))
    episodes = Trading(risk_aversion).begin(SEEDS)
    total = sum(episodes.step(action).true_rewards.astype(float) for action in actions)
    log_returns, max_drawdowns = measure_actions(SEEDS, actions)
    assert total == pytest.approx(100 * (log_returns - risk_aversion * max_drawdowns), abs=1e-3)
    accounts = np.stack(episodes.accounts)
    assert accounts[-1] == pytest.approx(np.exp(log_returns))
    for account, drawdown in zip(accounts.T, max_drawdowns, strict=True):
        falls = [1 - late / early for day, early in enumerate(account) for late in account[day:]]
        assert drawdown == pytest.approx(max(falls))


def test_the_true_reward_is_linear_in_the_features() -> None:
    episodes = Trading(2.0).begin(SEEDS)
    for action in random_actions(len(SEEDS)):
        transition = episodes.step(action)
        assert transition.true_rewards == pytest.approx(transition.features @ [1, -2, 0, 0, 0], abs=1e-4)


def test_risk_aversion_changes_true_rewards_alone() -> None:
    bold, averse = Trading(0.0).begin(SEEDS), Trading(4.0).begin(SEEDS)
    differences = 0
    for action in random_actions(len(SEEDS)):
        first, second = bold.step(action), averse.step(action)
        assert np.array_equal(first.observations, second.observations)
        assert np.array_equal(first.features, second.features)
        differences += int((first.true_rewards > second.true_rewards).sum())
    assert differences > 100
    assert bold.draw(0) == averse.draw(0)
    assert Trading(0.0).reward_scale < Trading(4.0).reward_scale


# Windows


def test_no_test_window_shares_a_day_with_training() -> None:
    training, test = ([window_of(first + n) for n in range(2000)] for first in (0, FIRST_TEST_SEED))
    assert max(window.dates[-1] for window in training) < "2009-06"
    assert min(window.dates[DAYS] for window in test) >= "2009-09-01"
    assert not {day for w in training for day in w.dates} & {day for w in test for day in w.dates}, (
        "not even of history"
    )
    for windows in (training, test):
        assert {window.ticker for window in windows} == {"AAPL", "GOOG", "IBM", "MSFT"}
        assert len({(window.ticker, window.dates[0]) for window in windows}) > 1000


def test_seeds_of_measurements_have_test_windows() -> None:
    assert FIRST_TEST_SEED == FIRST_MEASURED_SEED


def test_a_window_has_sixty_days_after_sixty_of_history() -> None:
    window = window_of(7)
    assert len(window.dates) == len(window.closes) == 121
    series = load_prices()[window.ticker]
    start = series.dates.index(window.dates[0])
    assert series.dates[start : start + 121] == window.dates
    assert np.array_equal(series.closes[start : start + 121], window.closes)


def test_clips_of_a_window_have_most_days_in_common() -> None:
    latest_start = Trading.horizon - Trading.clip_steps
    assert Trading.horizon == DAYS == 60
    assert Trading.clip_steps - latest_start >= 50


# The future


@pytest.mark.parametrize("today", [0, 1, 30, 59])
def test_shuffled_future_prices_change_nothing_until_then(today: int) -> None:
    closes = np.stack([window_of(seed).closes for seed in SEEDS])
    known = DAYS + today + 1
    future = np.random.default_rng(1).permuted(closes[:, known:], axis=1) * 1.5
    original, shuffled = (
        TradingEpisodes(prices, 1.0) for prices in (closes, np.concatenate([closes[:, :known], future], 1))
    )
    actions = random_actions(len(SEEDS))
    for action in actions[:today]:
        for first, second in zip(original.step(action), shuffled.step(action), strict=True):
            assert np.array_equal(first, second)
    assert np.array_equal(original.observations, shuffled.observations)
    assert all(original.draw(index) == shuffled.draw(index) for index in range(len(SEEDS)))
    after = original.step(actions[today]), shuffled.step(actions[today])
    assert not np.array_equal(after[0].observations, after[1].observations)


def test_market_observations_are_those_computed_by_hand() -> None:
    """Of a price that doubled 60 days ago, halved 20 days ago, and rose by a tenth today."""
    logs = np.zeros(121)
    logs[61:101] += np.log(2)
    logs[120:] += np.log(1.1)
    rise, double = np.log(1.1), np.log(2)
    expected = [
        rise,
        rise / 5**0.5,
        (rise - double) / 20**0.5,
        rise / 60**0.5,
        (rise - double) / 60**0.5,
        ((rise**2 + double**2) / 20) ** 0.5,
        ((rise**2 + 2 * double**2) / 60) ** 0.5,
    ]
    assert observe_market(100 * np.exp(logs))[-1] == pytest.approx(np.array(expected) / 0.02)


def test_observations_do_not_depend_on_the_price_level() -> None:
    closes = window_of(3).closes
    assert observe_market(1000 * closes) == pytest.approx(observe_market(closes))


def test_the_agent_sees_its_account() -> None:
    episodes, _ = trade([0.1, -0.2, 0.1], [4, 2, 1])
    trough = (1 - COST / 2) * 0.9
    drawdown, max_drawdown = 1 - trough * (1 - COST / 4) * 1.025, 1 - trough
    assert episodes.observations[0, 7:] == pytest.approx([0.25, 10 * drawdown, 10 * max_drawdown, 0.95])


# Charts, clips and baselines


def test_chart_shows_price_account_drawdown_and_exposures() -> None:
    episodes, _ = trade([0.1, -0.2, 0.1], [4, 4, 2])
    lines = [shape for shape in episodes.draw(0).shapes if isinstance(shape, Line)]
    price = [line for line in lines if line.width == 0.015]
    account = [line for line in lines if line.tone == "accent"]
    (bar,) = [line for line in lines if line.width == 0.06]
    exposures = [line for line in lines if line.width == 0.04]
    assert [line.x1 for line in price] == pytest.approx([0.1, 0.15])
    assert [line.x1 for line in account] == pytest.approx([0.05, 0.1, 0.15])
    scale = price[-1].y1 / np.log(1.1 * 0.8 * 1.1)
    assert account[-1].y1 == pytest.approx(scale * np.log((1 - COST) * 1.1 * 0.8 * (1 - COST / 2) * 1.05))
    assert (bar.x0, bar.x1) == pytest.approx((0.1, 0.1))
    assert bar.y1 - bar.y0 == pytest.approx(scale * np.log(0.8))
    assert [line.x1 for line in exposures] == pytest.approx([0.1, 0.15])
    assert [line.y0 for line in exposures] == pytest.approx([-1.2, -1.4])


def test_charts_are_light_and_hold_all_lines() -> None:
    episodes = Trading().begin(SEEDS)
    for day in range(DAYS):
        episodes.step(np.full(len(SEEDS), 4 * (day % 2)))
        for index in range(0, len(SEEDS), 4):
            (left, bottom, right, top), shapes = episodes.draw(index)
            assert len(shapes) <= 160
            for line in shapes:
                assert isinstance(line, Line)
                assert left <= min(line.x0, line.x1) <= max(line.x0, line.x1) <= right
                assert bottom <= min(line.y0, line.y1) <= max(line.y0, line.y1) <= top


def test_clip_text_is_short() -> None:
    actions = random_actions(1)[:, 0]
    end = summarise(Trading().begin([0]).observations[0])
    assert len(Segment(5, Trading.clip_steps, encode_actions(actions), end).text) < 300


def test_baselines_are_constant_exposures() -> None:
    outcomes = measure_baselines(SEEDS)
    moves = np.array([closes[-1] / closes[DAYS] for closes in (window_of(seed).closes for seed in SEEDS)])
    assert outcomes["hold"].log_returns == pytest.approx(np.log(moves * (1 - COST)))
    assert not outcomes["cash"].log_returns.any()
    assert not outcomes["cash"].max_drawdowns.any()
    assert (outcomes["half"].max_drawdowns < outcomes["hold"].max_drawdowns).all()
    same = measure_actions(SEEDS[:1], np.full((DAYS, 1), 2))
    assert same.log_returns == outcomes["half"].log_returns[0]


# The file of prices


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("prices", TOP / "experiments" / "prices.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_price_file_is_what_its_script_writes(script: ModuleType) -> None:
    text = gzip.decompress(PRICES.read_bytes()).decode()
    rows = [tuple(row) for row in csv.reader(text.splitlines())][1:]
    assert gzip.decompress(script.compress(rows)).decode() == text
    assert script.compress(rows) == script.compress(rows)
    assert PRICES.read_bytes()[4:8] == bytes(4), "no time, so that the same rows give the same file"
    assert PRICES.stat().st_size < 100_000
    assert rows == sorted(rows, key=lambda row: (row[1], row[0]))


def test_script_selects_and_rounds_adjusted_closes(script: ModuleType) -> None:
    text = "Ticker,Date,Close,Adj Close\nMSFT,2001-01-02,1.0,2.3456789\nFB,2001-01-01,1,1\nAAPL,2001-01-03,1,400.5\n"
    assert script.rows(text) == [("2001-01-03", "AAPL", "400.5"), ("2001-01-02", "MSFT", "2.34568")]


def test_price_note_names_source_and_licence(script: ModuleType) -> None:
    note = PRICES.with_name("prices.txt").read_text(encoding="utf-8")
    assert script.SHA256 in note
    assert "public domain" in note


def test_prices_are_positive_days_in_order() -> None:
    prices = load_prices()
    assert {ticker: len(series.closes) for ticker, series in prices.items()} == {
        "AAPL": 3270,
        "GOOG": 2148,
        "IBM": 3270,
        "MSFT": 3270,
    }
    for dates, closes in prices.values():
        assert list(dates) == sorted(set(dates))
        assert (closes > 0).all()
        assert not closes.flags.writeable


def test_prices_load_without_pandas() -> None:
    code = (
        "import sys; from assent.environments.trading import Trading; Trading().begin([0, 1_000_000]); "
        "print({'pandas', 'bokeh_sampledata', 'gymnasium', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP)
    assert result.stdout.strip() == "set()"
