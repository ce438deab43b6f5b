"""Curves of training metrics: thinned points, axis ticks, and the geometry of small SVG charts.

The report draws them in its own SVG; the live page gets the same points and ticks as JSON.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from assent.report.rounds import parse_key

MAX_POINTS = 300
"""Points of a curve; a longer one is thinned to the means of equal stretches."""
MAX_DOTS = 30
"""Points of a curve up to which each gets a dot."""
NUM_COLOURS = 4
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 150, 40, 8, 8, 22
"""Size of a chart and its margins, in SVG units."""

Point = tuple[float, float]
"""Step and value."""


@dataclass(frozen=True)
class Curve:
    """A metric of a stage, ready to be drawn; a dataclass, so that it is an object in JSON."""

    points: list[Point]
    """At most MAX_POINTS."""
    ticks: list[float]
    """Labels of the value axis, from bottom to top."""


class ChartSpec(NamedTuple):
    """A chart of one or several metrics."""

    title: str
    unit: str
    metrics: Mapping[str, str]
    """Metrics, with their names in the legend."""


class Line(NamedTuple):
    """One curve in the coordinates of its chart."""

    name: str
    last: str
    """The last value."""
    path: str
    dots: tuple[Point, ...]
    colour: int
    """One colour for each round; with a single round, one for each metric."""
    is_dashed: bool


class Tick(NamedTuple):
    """A horizontal line with its label."""

    y: float
    label: str


class Chart(NamedTuple):
    """A small chart, ready to be drawn."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    first_step: str
    last_step: str


class Axes(NamedTuple):
    """The ranges of a chart."""

    first_step: float
    last_step: float
    low: float
    high: float

    def place(self, point: Point) -> Point:
        """Return the coordinates of a point."""
        step, value = point
        across = (step - self.first_step) / ((self.last_step - self.first_step) or 1)
        up = (value - self.low) / (self.high - self.low)
        x = LEFT + across * (WIDTH - LEFT - RIGHT)
        y = TOP + (1 - up) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)


def stage_curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Return the curve of every metric of every stage, for the live page.

    Args:
        rows: the lines of metrics.jsonl.
    """
    points: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        for metric, value in row.items():
            if metric not in ("step", "seconds") and _is_finite(value):
                points.setdefault(row["stage"], {}).setdefault(metric, []).append((row["step"], value))
    return {
        stage: {metric: _curve(thin(metric_points)) for metric, metric_points in metrics.items()}
        for stage, metrics in points.items()
    }


def _curve(points: list[Point]) -> Curve:
    values = [value for _, value in points]
    return Curve(points, ticks(min(values), max(values)))


def draw_chart(spec: ChartSpec, rounds: Mapping[int, Sequence[Mapping[str, Any]]]) -> Chart | None:
    """Draw the metrics of a stage in all its rounds; None if none of them was measured.

    Args:
        rounds: the stage's lines of metrics.jsonl, by round.
    """
    curves: dict[tuple[str, int], list[Point]] = {}  # by metric and round
    for number, rows in sorted(rounds.items()):
        for metric in spec.metrics:
            points = [(row["step"], row[metric]) for row in rows if _is_finite(row.get(metric))]
            if points:
                curves[metric, number] = thin(points)
    if not curves:
        return None
    every_point = [point for points in curves.values() for point in points]
    steps = [step for step, _ in every_point]
    levels = ticks(min(value for _, value in every_point), max(value for _, value in every_point))
    axes = Axes(min(steps), max(steps), levels[0], levels[-1])
    lines = tuple(_line(spec, key, points, axes, len(rounds) == 1) for key, points in curves.items())
    labels = tuple(Tick(axes.place((axes.first_step, level))[1], short_number(level, 6)) for level in levels)
    last_step = f"{axes.last_step:.0f}" if axes.last_step > axes.first_step else ""
    return Chart(spec.title, spec.unit, lines, labels, f"step {axes.first_step:.0f}", last_step)


def _line(spec: ChartSpec, key: tuple[str, int], points: list[Point], axes: Axes, is_single_round: bool) -> Line:
    metric, number = key
    dots = tuple(axes.place(point) for point in points)
    rank = list(spec.metrics).index(metric)
    return Line(
        name=spec.metrics[metric] if is_single_round else f"{spec.metrics[metric]}, round {number}",
        last=short_number(points[-1][1]),
        path="M" + "L".join(f"{x} {y}" for x, y in dots),
        dots=dots if len(dots) <= MAX_DOTS else (),
        colour=rank + 1 if is_single_round else number % NUM_COLOURS,
        is_dashed=rank > 0,
    )


def group_by_stage(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, list[Mapping[str, Any]]]]:
    """Group the lines of metrics.jsonl by stage, then by round."""
    stages: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        stage, number = parse_key(row["stage"])
        stages.setdefault(stage, {}).setdefault(number, []).append(row)
    return stages


def thin(points: list[Point], limit: int = MAX_POINTS) -> list[Point]:
    """Return at most `limit` points: the means of equal stretches; the first and the last step stay."""
    if len(points) <= limit:
        return points
    edges = [round(i * len(points) / limit) for i in range(limit + 1)]
    means: list[Point] = []
    for begin, end in pairwise(edges):
        stretch = points[begin:end]
        means.append((sum(step for step, _ in stretch) / len(stretch), sum(v for _, v in stretch) / len(stretch)))
    return [(points[0][0], means[0][1]), *means[1:-1], (points[-1][0], means[-1][1])]


def ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers, the first at or below `low`, the last at or above `high`."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - (abs(low) / 10 or 1.0), high + (abs(high) / 10 or 1.0)
    raw = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def short_number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits and a proper minus sign."""
    return f"{value:.{digits}g}".replace("-", "\u2212")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
