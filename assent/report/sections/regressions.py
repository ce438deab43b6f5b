"""Prompts on which a policy lost most against the baseline."""

from typing import Any, ClassVar

from assent.report.comparisons import Comparisons, PromptComparison
from assent.report.data import ReportData


class Regressions:
    """Largest losses of each policy, beside the responses of the baseline."""

    order: ClassVar[int] = 40
    title: ClassVar[str] = "Regressions"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        by_round = [largest_losses(item, data.num_regressions) for item in data.comparisons.values()]
        if not any(by_round):
            return None
        return {"losses": [item for by_policy in by_round for item in by_policy.items()]}


def largest_losses(comparisons: Comparisons, count: int) -> dict[str, list[PromptComparison]]:
    """Return the comparisons that each policy lost by most; policies that lost none are left out."""
    losses: dict[str, list[PromptComparison]] = {}
    for policy in comparisons.by_policy:
        if policy != comparisons.baseline:
            cases = [comparisons.of_prompt(p, (comparisons.baseline, policy)) for p in comparisons.prompts]
            lost = sorted((case for case in cases if case.responses[1].outcome == "lost"), key=_gain)
            if lost[:count]:
                losses[policy] = lost[:count]
    return losses


def _gain(case: PromptComparison) -> tuple[float, str]:
    """Return the change of the judge's score; equal changes are ordered by the prompt's id."""
    before, after = (response.score or 0.0 for response in case.responses)
    return after - before, case.prompt.id
