"""Win rates of all policies against the baseline, overall and by category of prompt."""

from typing import Any, ClassVar, NamedTuple

from assent.report.data import ReportData
from assent.report.rounds import Round


class RoundTable(NamedTuple):
    """The tables of one round."""

    round: Round
    num_prompts: dict[str, int]
    """Prompts of each category, sorted."""


class WinRates:
    """Table of the policies of every round."""

    order: ClassVar[int] = 10
    title: ClassVar[str] = "Win rates"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        if not data.compared_rounds:
            return None
        tables: list[RoundTable] = []
        for item in data.compared_rounds:
            first = next(iter(item.compared.values()))
            counts = {category: rate["n"] for category, rate in sorted(first["by_category"].items()) if category}
            tables.append(RoundTable(item, counts))
        return {"tables": tables, "baseline": data.compared_rounds[0].evaluation["baseline"]}
