"""Win rates of the same training on random labels, beside those of the run: what is not learned from the labels."""

from typing import Any, ClassVar

from assent.report.data import ReportData
from assent.report.rounds import is_judged


class NegativeControl:
    """Table of the policies that the negative control has too."""

    order: ClassVar[int] = 15
    title: ClassVar[str] = "Negative control"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        trained = {name: policy for item in data.rounds for name, policy in item.compared.items()}
        rows = [
            (name, policy["win"], data.control[name]["win"])
            for name, policy in trained.items()
            if name in data.control and is_judged(policy) and is_judged(data.control[name])
        ]
        return {"rows": rows} if rows else None
