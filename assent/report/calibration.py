"""Calibration of policies in sentences, and their reliability diagrams.

Whether training changed it is decided on proper scores, Brier and negative log-likelihood. The calibration error stands
beside that of a perfectly calibrated model and decides only whether one policy is calibrated.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from assent.functional.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from assent.report.formatting import display_name, name_at_start, name_in_sentence, percent
from assent.report.reward_card import Point, place_bins

SCORES = {"brier": "Brier score", "nll": "negative log-likelihood"}

Results = Mapping[str, Mapping[str, Any]]
"""What was measured of policies on one kind of questions, by name."""


class Diagram(NamedTuple):
    """The reliability diagram of a policy."""

    title: str
    note: str
    points: list[Point]


def sentences(results: Results, baseline: str, noun: str) -> list[str]:
    """Return how calibrated each policy is, and whether training changed that.

    Args: noun: what the questions ask for, `choices` or `answers`.
    """
    lines: list[str] = []
    for name, result in results.items():
        change = result.get("change")
        parts = [_level(name, result, noun), _change(change, baseline, noun) if change and result["n"] else ""]
        lines.append(" ".join(filter(None, parts)))
    return lines


def _level(name: str, result: Mapping[str, Any], noun: str) -> str:
    subject, n = name_at_start(name), result["n"]
    if not n:
        return f"{subject} gave no {noun}."
    accuracy, confidence = result["accuracy"], result["mean_confidence"]
    text = f"{subject} is right on {percent(accuracy)} of {n} {noun} and sure of {percent(confidence)} on average"
    if result["ece"] <= result["floor_high"]:
        return f"{text}: calibrated, as far as so many {noun} can tell."
    if result["low"] <= confidence <= result["high"]:
        return f"{text}, but too sure of some and not sure enough of others."
    is_over = confidence > accuracy
    return f"{text}: {'over' if is_over else 'under'}confident.{_remedy(result['temperature'], is_over)}"


def _remedy(temperature: float | None, is_over: bool) -> str:
    """Return the temperature that fits best; empty where it would not help."""
    if temperature is None or temperature <= LOWEST_TEMPERATURE or (temperature > 1) != is_over:
        return ""
    if temperature >= HIGHEST_TEMPERATURE:
        return " No temperature would mend it."
    text = f"{temperature:.1f}"
    return "" if text == "1.0" else f" A temperature of {text} would help most."


def _change(change: Mapping[str, Any], baseline: str, noun: str) -> str:
    """Return what the proper scores say about training."""
    if change["n"] < 2:
        return f"Too few {noun} to compare it with {name_in_sentence(baseline)}."
    decided = {title: change[key] for key, title in SCORES.items() if _is_decided(change[key])}
    if not decided:
        return f"No difference in calibration that {change['n']} {noun} can show."
    moves = " and ".join(f"its {title} {_move(difference)}" for title, difference in decided.items())
    directions = {difference["value"] > 0 for difference in decided.values()}
    if len(directions) > 1:
        return f"Training changed its calibration both ways: {moves}."
    is_worse, accuracy = directions.pop(), change["accuracy"]
    if _is_decided(accuracy) and (accuracy["value"] < 0) == is_worse:
        return f"After training {moves}; but these scores count accuracy too, which {_move(accuracy)}."
    return f"Training made it {'worse' if is_worse else 'better'} calibrated: {moves}."


def _is_decided(difference: Mapping[str, Any]) -> bool:
    """Return whether the interval of a difference excludes 0."""
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and not low <= 0 <= high


def _move(difference: Mapping[str, Any]) -> str:
    """Return a decided difference in words: `rose by 0.031 [0.010, 0.052]`."""
    ends = sorted(abs(difference[end]) for end in ("low", "high"))
    verb = "rose" if difference["value"] > 0 else "fell"
    return f"{verb} by {abs(difference['value']):.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def draw_diagrams(results: Results) -> list[Diagram]:
    """Draw one diagram for each policy that answered a question, all from a confidence of 0 to 1."""
    return [
        Diagram(display_name(name), f"ECE {result['ece']:.2f}; {_floor(result)}", place_bins(result["bins"], 0.0))
        for name, result in results.items()
        if result["n"]
    ]


def _floor(result: Mapping[str, Any]) -> str:
    return f"a perfect model's {result['floor_median']:.2f}, at most {result['floor_high']:.2f}"


def temperature_text(temperature: float | None) -> str:
    """Return a temperature for the table; those at the limits of the fit are no estimates."""
    if temperature is None or not LOWEST_TEMPERATURE < temperature < HIGHEST_TEMPERATURE:
        return ""
    return f"{temperature:.2f}"
