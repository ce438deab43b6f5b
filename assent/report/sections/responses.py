"""Responses of all policies side by side, on fixed, unselected prompts."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

from assent.records import Prompt
from assent.report.comparisons import Comparisons, PromptComparison
from assent.report.data import ReportData


class Responses:
    """Held-out prompts with the response of each policy, the judge's score and its criteria."""

    order: ClassVar[int] = 30
    title: ClassVar[str] = "Responses side by side"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        if not data.comparisons:
            return None
        rounds = {number: choose_examples(item, data.num_examples) for number, item in data.comparisons.items()}
        has_criteria = any(item.has_criteria for item in data.comparisons.values())
        return {"rounds": rounds, "has_criteria": has_criteria}


def choose_examples(comparisons: Comparisons, count: int) -> list[PromptComparison]:
    """Return at least `count` prompts, if there are as many: equally many of each category, in the order of ids."""
    by_category: dict[str, list[Prompt]] = {}
    for prompt in sorted(comparisons.prompts, key=lambda prompt: (prompt.category, prompt.id)):
        by_category.setdefault(prompt.category, []).append(prompt)
    chosen: list[Prompt] = []
    for row in zip_longest(*by_category.values()):
        if len(chosen) >= count:
            break
        chosen += [prompt for prompt in row if prompt]
    return _compare(comparisons, chosen)


def _compare(comparisons: Comparisons, prompts: Sequence[Prompt]) -> list[PromptComparison]:
    return [comparisons.of_prompt(prompt, comparisons.by_policy) for prompt in prompts]
