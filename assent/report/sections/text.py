"""How varied the policies' responses are, how near to references, and what training did to their language."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from assent.report.data import ReportData
from assent.report.formatting import display_name, interval, name_at_start, percent
from assent.report.rounds import Result, last_measured, measured

ERRORS = 1.96
"""Standard errors on each side of a 95 % interval."""
SAME_LIKELIHOOD = 0.01
"""Change of bits per byte, as a share, that is not worth a word."""
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "grounded": {"copied": "Copied from the text", "source_rougeL": "In the text's order", "refused": "Refused"},
    "knowledge": {"right": "Right", "refused": "Refused", "wrong": "Wrong"},
    "creative": {"vendi": "Different responses", "distinct_2": "Distinct-2"},
}
"""Measures that fit a category of prompts, with their titles."""


class Variety(NamedTuple):
    """The picture of how many responses to one prompt differ."""

    policy: str
    vendi: float
    error: float | None
    """Half of the 95 % interval; None: one prompt."""
    num_responses: int
    """Responses to a prompt."""


class CategoryRow(NamedTuple):
    """A policy's measures on one category of prompts."""

    policy: str
    values: list[str]
    win: Result | None
    """None for the baseline, or without votes."""


class CategoryTable(NamedTuple):
    """All policies on one category of prompts."""

    category: str
    num_prompts: int
    titles: list[str]
    rows: list[CategoryRow]


class Text:
    """Diversity, alignment tax, overlap with references, and the measures that fit each category of prompts."""

    order: ClassVar[int] = 28
    title: ClassVar[str] = "Variety and language"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        last = last_measured(data.rounds, "text")
        if last is None:
            return None
        policies = {name: last.policies[name] for name in measured(last, "text")}
        return {
            "round": last.number if len(data.rounds) > 1 else None,
            "sentences": sentences(policies, last.evaluation["baseline"]),
            "varieties": varieties(policies),
            "policies": policies,
            "has_within": bool(measured(last, "within_prompt")),
            "has_likelihood": bool(measured(last, "likelihood")),
            "references": measured(last, "references"),
            "tables": category_tables(policies),
            "errors": ERRORS,
        }


def sentences(policies: Mapping[str, Result], baseline: str) -> list[str]:
    """Return one sentence for each policy beside the baseline; for the baseline only if it is alone or missing."""
    before = policies.get(baseline)
    trained = [name for name in policies if name != baseline]
    if before is None or not trained:
        return [line for name, policy in policies.items() if (line := _sentence(name, policy, {}))]
    return [line for name in trained if (line := _sentence(name, policies[name], before))]


def _sentence(name: str, policy: Result, before: Result) -> str:
    clauses = [
        _within(policy.get("within_prompt") or {}, before.get("within_prompt") or {}),
        _across(policy["text"], before.get("text") or {}),
        _tax(policy.get("likelihood") or {}, before.get("likelihood") or {}),
        _overlap(policy.get("references") or {}, before.get("references") or {}),
    ]
    said = "; ".join(filter(None, clauses))
    return f"{name_at_start(name)}: {said}." if said else ""


def _within(row: Result, before: Result) -> str:
    now, start = row.get("vendi"), before.get("vendi")
    if now is None:
        return ""
    text = f"{now:.1f} of {row['n'] / row['prompts']:.0f} responses to a prompt differ"
    earlier = "" if start is None else f"{start:.1f}"
    return text + _compared(earlier, _is_beyond_error(row, before, "vendi"), f"{row['prompts']} prompts")


def _across(row: Result, before: Result) -> str:
    now, start = row.get("vendi"), before.get("vendi")
    if now is None:
        return ""
    return f"across prompts {now:.1f} differ" + ("" if start is None else f", instead of {start:.1f}")


def _tax(row: Result, before: Result) -> str:
    now, start = row.get("bits_per_byte"), before.get("bits_per_byte")
    if now is None:
        return ""
    if start is None:
        return f"it predicts other texts with {now:.2f} bits per byte"
    change = now / start - 1
    if abs(change) < SAME_LIKELIHOOD:
        return f"it predicts other texts as well as before, with {now:.2f} bits per byte"
    tax = f", an alignment tax of {percent(change)}" if change > 0 else ""
    side = "worse" if change > 0 else "better"
    return f"it predicts other texts {side}, with {now:.2f} bits per byte instead of {start:.2f}{tax}"


def _overlap(row: Result, before: Result) -> str:
    now, start = row.get("rougeL"), before.get("rougeL")
    if now is None:
        return ""
    text = f"its overlap with the references (ROUGE-L) is {now:.2f}"
    earlier = "" if start is None else f"{start:.2f}"
    return text + _compared(earlier, _is_beyond_error(row, before, "rougeL"), f"{row['n']} responses")


def _compared(earlier: str, is_beyond_error: bool, sample: str) -> str:
    """Return the end of a clause that names the baseline's value; empty: it has none."""
    if not earlier:
        return ""
    return (
        f", instead of {earlier}" if is_beyond_error else f" ({earlier} before, no difference that {sample} can show)"
    )


def _is_beyond_error(row: Result, before: Result, measure: str) -> bool:
    """Return whether two means differ by more than chance; cautious, since both are over the same prompts."""
    error, error_before = row.get(f"{measure}_se"), before.get(f"{measure}_se")
    if error is None or error_before is None:
        return False
    return bool(abs(row[measure] - before[measure]) > ERRORS * math.hypot(error, error_before))


def varieties(policies: Mapping[str, Result]) -> list[Variety]:
    """Return the picture's rows, for the policies with several responses to a prompt."""
    rows = {name: policy.get("within_prompt") or {} for name, policy in policies.items()}
    return [
        Variety(
            display_name(name),
            row["vendi"],
            None if row["vendi_se"] is None else ERRORS * row["vendi_se"],
            round(row["n"] / row["prompts"]),
        )
        for name, row in rows.items()
        if row.get("vendi") is not None
    ]


def category_tables(policies: Mapping[str, Result]) -> list[CategoryTable]:
    """Return one table for each category of prompts that has measures of its own."""
    tables: list[CategoryTable] = []
    for category, titles in COLUMNS.items():
        measures = {name: (policy.get("categories") or {}).get(category, {}) for name, policy in policies.items()}
        columns = {key: title for key, title in titles.items() if any(key in row for row in measures.values())}
        if columns:
            rows = [
                CategoryRow(
                    display_name(name),
                    [_value(key, row.get(key)) for key in columns],
                    _win(policies[name].get("by_category", {}).get(category)),
                )
                for name, row in measures.items()
            ]
            num_prompts = max(row.get("n", 0) for row in measures.values())
            tables.append(CategoryTable(category, num_prompts, list(columns.values()), rows))
    return tables


def _win(rate: Result | None) -> Result | None:
    return rate if rate and rate["rate"] is not None else None


def _value(measure: str, value: Any) -> str:
    """Return a measure of a category for its table; empty: it has none."""
    if isinstance(value, Mapping):
        return "" if value["rate"] is None else f"{percent(value['rate'])} {interval(value)}"
    if value is None:
        return ""
    if measure in ("copied", "source_rougeL"):
        return percent(value)
    return f"{value:.1f}" if measure == "vendi" else f"{value:.2f}"
