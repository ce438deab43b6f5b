"""Trading: choose each day how much of an account to hold in one stock, for 60 days of real daily closes.

The hidden taste is that of a person who dislikes falling from a peak: log-return less a multiple of the maximum
drawdown. Each day adds to both, so it is a sum over days. Drawdown as a measure of risk: Chekhlov, Uryasev and
Zabarankin 2005, doi:10.1142/S0219024905002767. It is about learning a taste, not about profit.
"""

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from assent.protocols import Drawing, Line, Tone, Transition
from assent.types import NonNegativeFloat

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Discrete

PRICES = Path(__file__).parent.parent / "data" / "prices.csv.gz"
EXPOSURES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
"""Share of the account in the stock, by action; the remainder is cash, which earns nothing."""
COST = 5e-4
"""Share of the traded amount that a change of exposure costs."""
DAYS = 60
"""Days of a window, and of the history that is known before it."""
TRAINING_END = "2009-06-01"
"""The last day of a training window is before this date."""
TEST_START = "2009-09-01"
"""The first close at which an agent decides in a test window is on or after it; 60 days of history lie before."""
FIRST_TEST_SEED = 1_000_000
"""Seeds from here on have test windows."""
LOOKBACKS = (1, 5, 20, 60)
VOLATILITY_LOOKBACKS = (20, 60)
TYPICAL_MOVE = 0.02
"""Log-return of a day that is observed as 1."""
MAX_OBSERVATION = 5.0
VIEW_DEVIATIONS = 1.5
"""Half the height of the chart: standard deviations of the log-return of 60 days, estimated from the history."""
CHART_WIDTH, CHART_BOTTOM, EXPOSURE_HEIGHT = 3.0, -1.6, 0.4
"""Of the drawing, whose lines of price and account lie between -1 and 1; exposures are drawn at its bottom."""


@dataclass(frozen=True)
class Trading:
    """One stock and cash; the true reward of a day is 100 (log-return - risk_aversion x added maximum drawdown).

    Decide at a close, and hold the exposure over the next day. Starts of clips differ by five days at most, so that two
    clips of a seed have at least 50 of their 55 days in common: luck of the market hardly decides between them.
    """

    horizon: ClassVar[int] = DAYS
    clip_steps: ClassVar[int] = DAYS - 5
    fps: ClassVar[float] = 10.0
    task: ClassVar[str] = "Manage the account as you would like yours to be managed: weigh its gain and its losses."

    risk_aversion: NonNegativeFloat = 1.0
    """Gain in log-return that makes up for one more of maximum drawdown; 0: only the return counts."""

    @property
    def reward_scale(self) -> float:
        """About the standard deviation of the difference between two accounts that trade at random."""
        return 10.0 * (1 + self.risk_aversion / 2)

    @property
    def observation_space(self) -> "Box":
        """Seven numbers of the market and four of the account, scale-free and of the past; see `observe_market`."""
        from gymnasium.spaces import Box

        return Box(-MAX_OBSERVATION, MAX_OBSERVATION, (len(LOOKBACKS) + len(VOLATILITY_LOOKBACKS) + 5,))

    @property
    def action_space(self) -> "Discrete":
        """The exposure over the next day: 0, 1/4, 1/2, 3/4 or 1."""
        from gymnasium.spaces import Discrete

        return Discrete(len(EXPOSURES))

    def begin(self, seeds: Sequence[int]) -> "TradingEpisodes":
        """Start an episode from each seed."""
        return TradingEpisodes(np.stack([window_of(seed).closes for seed in seeds]), self.risk_aversion)


class Outcome(NamedTuple):
    """What N accounts were after their windows."""

    log_returns: NDArray[np.float64]  # (N,)
    max_drawdowns: NDArray[np.float64]  # (N,), shares of the highest account before


def measure_actions(seeds: Sequence[int], actions: NDArray[Any]) -> Outcome:
    """Return the outcomes of actions, (T, N), in the windows of seeds."""
    episodes = Trading().begin(seeds)
    for day_actions in actions:
        episodes.step(day_actions)
    return Outcome(np.log(episodes.accounts[-1]), episodes.max_drawdowns)


def measure_baselines(seeds: Sequence[int]) -> dict[str, Outcome]:
    """Return the outcomes of a constant exposure of 0 (cash), 1/2 (half) and 1 (hold) in the windows of seeds."""
    constant = {"cash": 0, "half": 2, "hold": 4}
    return {
        name: measure_actions(seeds, np.full((DAYS, len(seeds)), action, dtype=np.int64))
        for name, action in constant.items()
    }


class Window(NamedTuple):
    """History and days of an episode: 121 closes of a stock, of which number 60 is the first at which to decide."""

    ticker: str
    dates: tuple[str, ...]
    closes: NDArray[np.float64]


def window_of(seed: int) -> Window:
    """Return the window of a seed: of the training years below `FIRST_TEST_SEED`, of later years from there on."""
    starts = _starts(seed >= FIRST_TEST_SEED)
    ticker, start = starts[np.random.default_rng(seed).integers(len(starts))]
    series = load_prices()[ticker]
    days = slice(start, start + 2 * DAYS + 1)
    return Window(ticker, series.dates[days], series.closes[days])


class Series(NamedTuple):
    """All closes of a stock."""

    dates: tuple[str, ...]
    closes: NDArray[np.float64]


@cache
def load_prices() -> Mapping[str, Series]:
    """Return the closes by ticker, adjusted for splits and dividends; the source is in assent/data/prices.txt."""
    with gzip.open(PRICES, "rt", encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    prices = {}
    for ticker, group in groupby(rows, key=lambda row: row["ticker"]):
        days = list(group)
        closes = np.array([float(row["close"]) for row in days])
        closes.flags.writeable = False
        prices[ticker] = Series(tuple(row["date"] for row in days), closes)
    return prices


@cache
def _starts(is_test: bool) -> list[tuple[str, int]]:
    """Return where windows with their history can start: the ticker, and the number of the first day of history."""
    return [
        (ticker, start)
        for ticker, (dates, _) in load_prices().items()
        for start in range(len(dates) - 2 * DAYS)
        if (dates[start + DAYS] >= TEST_START if is_test else dates[start + 2 * DAYS] < TRAINING_END)
    ]


def observe_market(closes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is observed at each close from number 60 on, (T, 7), of closes (60 + T,), each row from its past.

    Log-returns over 1, 5, 20 and 60 days and the log-distance from the highest close of 60 days, all in units of what
    is typical for as many days; the root mean square of 20 and of 60 daily log-returns, in units of a typical day.
    """
    logs = np.log(closes)
    returns = [(logs[DAYS:] - logs[DAYS - n : len(logs) - n]) / n**0.5 for n in LOOKBACKS]
    highest = sliding_window_view(logs, DAYS + 1).max(1)
    squares = np.diff(logs) ** 2
    means = [sliding_window_view(squares[DAYS - n :], n).mean(1) for n in VOLATILITY_LOOKBACKS]
    columns = *returns, (logs[DAYS:] - highest) / DAYS**0.5, *map(np.sqrt, means)
    return np.stack(columns, 1) / TYPICAL_MOVE


class TradingEpisodes:
    """N accounts, each of which begins as 1 in cash.

    Exposures are kept up within a day and between days: the small trades that this takes are free.

    Args:
        closes: (N, 121): 60 days of history, then the window.
    """

    def __init__(self, closes: NDArray[np.float64], risk_aversion: float) -> None:
        self._closes = closes
        self._market = np.stack([observe_market(row) for row in closes])  # (N, 61, 7)
        self._risk_aversion = risk_aversion
        start = np.zeros(len(closes))
        self.accounts = [start + 1]
        """The accounts at each close so far, (N,) each."""
        self._exposures = [start]  # over the day that ends at a close
        self._peaks, self._drawdowns, self.max_drawdowns = start + 1, start, start

    @property
    def observations(self) -> NDArray[np.float32]:
        """The observations of the agents, (N, 11): the market, then exposure, drawdown, maximum drawdown, days left."""
        day = len(self.accounts) - 1
        days_left = np.full(len(self._closes), 1 - day / DAYS)
        account = np.stack([self._exposures[-1], 10 * self._drawdowns, 10 * self.max_drawdowns, days_left], 1)
        columns = np.concatenate([self._market[:, day], account], 1)
        return columns.clip(-MAX_OBSERVATION, MAX_OBSERVATION).astype(np.float32)

    def step(self, actions: NDArray[Any]) -> Transition:
        """Trade at the close and hold over the next day.

        The reward model reads the log-return and the added maximum drawdown in percent, the drawdown in tens of
        percent, the turnover and the exposure.
        """
        close = DAYS + len(self.accounts) - 1
        exposures = EXPOSURES[np.asarray(actions)]
        turnovers = np.abs(exposures - self._exposures[-1])
        moves = self._closes[:, close + 1] / self._closes[:, close] - 1
        growth = (1 - COST * turnovers) * (1 + exposures * moves)
        accounts = self.accounts[-1] * growth
        self._peaks = np.maximum(self._peaks, accounts)
        self._drawdowns = 1 - accounts / self._peaks
        max_drawdowns = np.maximum(self.max_drawdowns, self._drawdowns)
        gains, losses = 100 * np.log(growth), 100 * (max_drawdowns - self.max_drawdowns)
        self.accounts.append(accounts)
        self._exposures.append(exposures)
        self.max_drawdowns = max_drawdowns
        features = np.stack([gains, losses, 10 * self._drawdowns, turnovers, exposures], 1)
        rewards = gains - self._risk_aversion * losses
        return Transition(self.observations, features.astype(np.float32), rewards.astype(np.float32))

    def draw(self, index: int) -> Drawing:
        """Draw one chart up to now: price (thin) and account (thick) start at one level; exposures are at the bottom.

        Levels are logarithms. The grey bar is the maximum drawdown, from the peak down to the trough. The scale follows
        from the history, so that the charts of a window look alike; it shrinks if a line would leave the chart.
        """
        day = len(self.accounts) - 1
        account = np.log([accounts[index] for accounts in self.accounts])
        logs = np.log(self._closes[index, : DAYS + day + 1])
        price = logs[DAYS:] - logs[DAYS]
        usual = VIEW_DEVIATIONS * float(np.sqrt(np.sum(np.diff(logs[: DAYS + 1]) ** 2)))
        height = max(usual, np.abs(account).max(), np.abs(price).max(), TYPICAL_MOVE)
        exposures = [float(exposures[index]) for exposures in self._exposures[1:]]
        every_other = sorted({*range(0, day, 2), day})
        shapes = (
            Line(0.0, 0.0, CHART_WIDTH, 0.0, 0.01, "muted"),
            *_draw_drawdown(account / height),
            *_draw_curve(every_other, price[every_other] / height, 0.015, "ink"),
            *_draw_curve(range(day + 1), account / height, 0.03, "accent"),
            Line(0.0, CHART_BOTTOM, CHART_WIDTH, CHART_BOTTOM, 0.01, "muted"),
            *_draw_exposures(exposures),
        )
        return Drawing((-0.05, CHART_BOTTOM - 0.1, CHART_WIDTH + 0.05, 1.05), shapes)


def _x(day: int) -> float:
    return CHART_WIDTH * day / DAYS


def _draw_curve(days: Sequence[int], levels: NDArray[np.float64], width: float, tone: Tone) -> list[Line]:
    points = [(_x(day), float(level)) for day, level in zip(days, levels, strict=True)]
    return [Line(*start, *end, width, tone) for start, end in pairwise(points)]


def _draw_drawdown(levels: NDArray[np.float64]) -> list[Line]:
    """Draw the largest fall from a peak: a line from the peak to the day of the trough, and a bar down to it."""
    falls = np.maximum.accumulate(levels) - levels
    trough = int(falls.argmax())
    if falls[trough] == 0:
        return []
    peak = int(levels[: trough + 1].argmax())
    high, low = float(levels[peak]), float(levels[trough])
    return [
        Line(_x(peak), high, _x(trough), high, 0.01, "muted"),
        Line(_x(trough), high, _x(trough), low, 0.06, "muted"),
    ]


def _draw_exposures(exposures: Sequence[float]) -> list[Line]:
    """Draw a line for each run of days with the same exposure, as high as it is."""
    lines, day = [], 0
    for exposure, run in groupby(exposures):
        start, day = day, day + len(list(run))
        y = CHART_BOTTOM + EXPOSURE_HEIGHT * exposure
        lines.append(Line(_x(start), y, _x(day), y, 0.04))
    return lines
