"""Accuracy of the reward model on prompts that it was not trained on."""

from typing import Any, ClassVar

from assent.report.data import ReportData


class RewardModel:
    """Agreement of each round's reward model with the judge and with the annotators."""

    order: ClassVar[int] = 20
    title: ClassVar[str] = "Reward model"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        if not any(item.reward or item.agreement for item in data.rounds):
            return None
        return {"rounds": data.rounds[::-1]}
