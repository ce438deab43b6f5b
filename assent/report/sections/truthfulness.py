"""Questions that the policies get right, refuse and get wrong."""

from typing import Any, ClassVar

from assent.report.data import ReportData
from assent.report.rounds import last_measured, measured
from assent.report.truthfulness import FEW_QUESTIONS, draw_coverage, sentences


class Truthfulness:
    """Shares of right, refused and wrong answers before and after, and the curve over coverage."""

    order: ClassVar[int] = 26
    title: ClassVar[str] = "Truthfulness"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        last = last_measured(data.rounds, "truthfulness")
        rows = {name: row for name, row in measured(last, "truthfulness").items() if row["n"]} if last else {}
        if last is None or not rows:
            return None
        return {
            "round": last.number if len(data.rounds) > 1 else None,
            "sentences": sentences(rows, last.evaluation["baseline"]),
            "rows": rows,
            "n": max(row["n"] for row in rows.values()),
            "baseline": last.evaluation["baseline"],
            "few_questions": FEW_QUESTIONS,
            "chart": draw_coverage(rows),
            "is_ranked": any("aurc" in row for row in rows.values()),
            "is_compared": any("over_refusal" in row for row in rows.values()),
            "has_unanswerable": any(row["unanswerable"]["n"] for row in rows.values()),
        }
