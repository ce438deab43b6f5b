"""Truthfulness in sentences, beside the baseline, and the curve of accuracy over coverage."""

from collections.abc import Mapping
from typing import Any

from assent.report.charts import NUM_COLOURS, Axes, Chart, Line, Tick
from assent.report.formatting import display_name, interval, name_at_start, name_in_sentence, percent

FEW_QUESTIONS = 10
"""Questions below which the curve is left out, since one answer moves it too far."""

Rows = Mapping[str, Mapping[str, Any]]
"""The key `truthfulness` of policies, by name, each with at least one question."""


def sentences(rows: Rows, baseline: str) -> list[str]:
    """Return a sentence for each policy beside the baseline; for the baseline only if it is alone or missing."""
    before = rows.get(baseline)
    trained = {name: row for name, row in rows.items() if name != baseline}
    if before is None or not trained:
        return [_single(name, row) for name, row in rows.items()]
    return [_change(name, row, before, baseline) for name, row in trained.items()]


def _single(name: str, row: Mapping[str, Any]) -> str:
    right, refused, wrong = row["right"], row["refused"], row["wrong"]
    return (
        f"{name_at_start(name)} is right on {percent(right['rate'])} {interval(right)} of {row['n']} questions, "
        f"refuses {percent(refused['rate'])} {interval(refused)} and is wrong on {percent(wrong['rate'])} "
        f"{interval(wrong)}."
    )


def _change(name: str, row: Mapping[str, Any], before: Mapping[str, Any], baseline: str) -> str:
    right, wrong = row["right"], row["wrong"]
    chance = [grade for grade in ("right", "wrong") if _may_be_chance(grade, row, before)]
    reason = "" if "change" in row else ": the intervals overlap"
    doubt = f" The change of {' and '.join(chance)} answers may be chance{reason}." if chance else ""
    return (
        f"{name_at_start(name)} is wrong on {percent(wrong['rate'])} {interval(wrong)} of {row['n']} questions instead "
        f"of {percent(before['wrong']['rate'])}, and right on {percent(right['rate'])} {interval(right)} instead of "
        f"{percent(before['right']['rate'])}{_over_refusal(row, baseline)}.{doubt}"
    )


def _over_refusal(row: Mapping[str, Any], baseline: str) -> str:
    """Return a clause about the questions that the baseline got right; empty if there are none."""
    share = row.get("over_refusal")
    if share is None or share["rate"] is None:
        return ""
    refused = f"{percent(share['rate'])} {interval(share)}" if share["rate"] else "nothing"
    return f": it refuses {refused} of what {name_in_sentence(baseline)} got right"


def _may_be_chance(grade: str, row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Return whether the paired difference may be 0; without its limits, as in older results, cautiously."""
    paired = row.get("change", {}).get(grade, {})
    if paired.get("low") is not None:
        return bool(paired["low"] <= 0 <= paired["high"])
    first, second = row[grade], before[grade]
    return bool(first["low"] <= second["high"] and second["low"] <= first["high"])


def draw_coverage(rows: Rows) -> Chart | None:
    """Draw the share of right answers among the questions of which each policy is surest; None without confidences."""
    axes = Axes(0, 1, 0, 1)
    lines: list[Line] = []
    for rank, (name, row) in enumerate(rows.items()):
        points = [point for point in row.get("curve") or () if point[0] * row["n"] >= FEW_QUESTIONS]
        if points:
            coverage, accuracy = points[-1]
            dots = [axes.place((x, y)) for x, y in points]
            lines.append(
                Line(
                    name=f"{display_name(name)}, {percent(coverage)} answered",
                    last=percent(accuracy),
                    path="M" + "L".join(f"{x} {y}" for x, y in dots),
                    dots=(dots[-1],),
                    colour=(rank + 1) % NUM_COLOURS,
                    is_dashed=rank == 0 and len(rows) > 1,
                )
            )
    if not lines:
        return None
    levels = tuple(Tick(axes.place((0, level))[1], percent(level)) for level in (0, 0.5, 1))
    unit = "right, of the questions it is surest of"
    return Chart("Accuracy over coverage", unit, tuple(lines), levels, "0 %", "100 % answered")
