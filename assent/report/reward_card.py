"""The report card of a reward model in sentences, and the geometry of its reliability diagram."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from assent.functional.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from assent.functional.decisions import noise_ceiling
from assent.report.formatting import interval, percent

FEW_PROMPTS = 100
"""Held-out prompts below which every rate is rough."""
MISCALIBRATED = 1.25
"""Temperature above which, and below the inverse of which, the margins are called too bold or too cautious."""
OVERCONFIDENT = 2.0
"""Temperature above which a warning says so."""
FOLLOWS_LENGTH = 0.3
"""Correlation of score and length within prompts that a sentence mentions."""
SIZE, MARGIN = 150, 30
"""Side of the diagram and the room for its labels, in SVG units."""


class Point(NamedTuple):
    """A bin of the diagram, in SVG units."""

    x: float
    y: float
    low: float
    high: float


def sentences(card: Mapping[str, Any]) -> list[str]:
    """Return what the card says, the most important first; empty without held-out judgements."""
    lines: list[str] = []
    within = None
    if "accuracy" in card:
        lines += [_accuracy(card), _ceiling(card)]
        lines += [_calibration(card["calibration"])] if "calibration" in card else []
        within = card["length_correlation"]["within_prompts"]
    if within is not None and abs(within) > FOLLOWS_LENGTH:
        side = "longer" if within > 0 else "shorter"
        lines.append(
            f"It scores {side} responses higher: within a prompt, its rank correlation with words is {within:.2f}."
        )
    if "best_of_4" in card:
        best = card["best_of_4"]
        lines.append(f"Of four responses it ranks the best one first in {percent(best['accuracy'])} of {best['n']}.")
    if "approvals" in card:
        approvals = card["approvals"]
        rates = ", ".join(f"{name} {_optional_percent(approvals[name])}" for name in ("precision", "recall"))
        lines.append(f"Approvals: {rates}, of {approvals['n']}.")
    return lines


def warnings(card: Mapping[str, Any]) -> list[str]:
    """Return what should make a reader careful."""
    if "accuracy" not in card:
        return []
    lines: list[str] = []
    rate, calibration = card["accuracy"], card.get("calibration")
    if rate["low"] <= 0.5:
        lines.append("Its accuracy may be chance: the interval includes 50 %.")
    if "ceiling" in card and rate["low"] > noise_ceiling(card["agreement"]["high"]).high:
        lines.append("It predicts votes better than a perfect model could: held-out prompts may have leaked.")
    if card["prompts"] < FEW_PROMPTS:
        lines.append(f"Only {card['prompts']} held-out prompts were judged, so every figure is rough.")
    if calibration and _is_miscalibrated(calibration) and calibration["temperature"] > OVERCONFIDENT:
        lines.append("Its margins are far too bold; a policy that is trained on them gets exaggerated rewards.")
    return lines


def _accuracy(card: Mapping[str, Any]) -> str:
    rate, longer = card["accuracy"], card["longer_wins"]
    return (
        f"It prefers what the annotators preferred in {percent(rate['rate'])} {interval(rate)} of {rate['n']} held-out "
        f"judgements ({card['prompts']} prompts). Always taking the longer response would be right in "
        f"{percent(longer['rate'])}."
    )


def _ceiling(card: Mapping[str, Any]) -> str:
    if "ceiling" not in card:
        return "Hardly any comparison has two votes, so nobody knows what a perfect model would reach."
    agreement, ceiling = card["agreement"], card["ceiling"]
    return (
        f"Two annotators agree in {percent(agreement['rate'])} of {agreement['n']} cases, so a perfect model would "
        f"reach {percent(ceiling['low'])} to {percent(ceiling['high'])}."
    )


def _calibration(calibration: Mapping[str, Any]) -> str:
    temperature, error = calibration["temperature"], calibration["ece"]
    if temperature is None or error is None:
        return "Its margins are all 0."
    if temperature >= HIGHEST_TEMPERATURE:
        words = "Its margins say nothing."
    elif temperature <= LOWEST_TEMPERATURE:
        words = "No margin has the wrong sign."
    elif not _is_miscalibrated(calibration):
        words = "Its margins mean what they say, as far as so many pairs can tell."
    elif temperature > MISCALIBRATED:
        words = f"Its margins are too bold: they should be divided by {temperature:.1f}."
    elif temperature < 1 / MISCALIBRATED:
        words = f"Its margins are too cautious: they should be multiplied by {1 / temperature:.1f}."
    else:
        words = "Its margins mean what they say."
    floor = f"a calibrated model would show {calibration['floor_median']:.2f}, at most {calibration['floor_high']:.2f}"
    return f"{words} The calibration error is {error:.2f}; {floor}."


def _is_miscalibrated(calibration: Mapping[str, Any]) -> bool:
    """Return whether the calibration error is greater than that of a calibrated model, but for one in twenty."""
    return calibration["ece"] is not None and calibration["ece"] > calibration["floor_high"]


def _optional_percent(share: float | None) -> str:
    return "undefined" if share is None else percent(share)


def diagram(card: Mapping[str, Any]) -> list[Point]:
    """Return the bins of the reliability diagram: confidence from 50 % on to the right, accuracy from 0 upwards."""
    return place_bins(card["calibration"]["bins"], 0.5)


def place_bins(bins: Iterable[Mapping[str, Any]], least: float) -> list[Point]:
    """Return the bins of a reliability diagram whose confidence goes from `least` to 1."""
    return [
        Point(
            MARGIN + (part["confidence"] - least) / (1 - least) * SIZE,
            *(_height(part[name]) for name in ("accuracy", "low", "high")),
        )
        for part in bins
    ]


def _height(share: float) -> float:
    return round(10 + (1 - share) * SIZE, 1)
