"""Win rates of all policies against the baseline, overall and by category of prompt."""

from collections import Counter
from typing import Any, ClassVar, NamedTuple

from assent.report.data import ReportData
from assent.report.rounds import Round


class RoundTable(NamedTuple):
    """The tables of one round."""

    round: Round
    num_prompts: dict[str, int]
    """Prompts of each category that some policy has votes in, sorted."""


class WinRates:
    """Table of the policies of every round."""

    order: ClassVar[int] = 10
    title: ClassVar[str] = "Win rates"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        if not data.compared_rounds:
            return None
        tables: list[RoundTable] = []
        for item in data.compared_rounds:
            categories = {category for policy in item.compared.values() for category in policy["by_category"]}
            comparisons = data.comparisons.get(item.number)
            counts = Counter(prompt.category for prompt in comparisons.prompts) if comparisons else Counter[str]()
            tables.append(RoundTable(item, {category: counts[category] for category in sorted(categories - {""})}))
        return {"tables": tables, "baseline": data.compared_rounds[0].evaluation["baseline"]}
