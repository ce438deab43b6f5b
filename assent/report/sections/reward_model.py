"""Accuracy of the reward model on prompts that it was not trained on."""

from typing import Any, ClassVar

from assent.report import reward_card
from assent.report.data import ReportData

DIVISIONS = {"strength": "By strength", "annotator": "By annotator", "category": "By category", "length": "By length"}


class RewardModel:
    """The report card of the newest reward model, and the accuracy of each round's."""

    order: ClassVar[int] = 20
    title: ClassVar[str] = "Reward model"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        if not any(item.reward or item.agreement for item in data.rounds):
            return None
        cards = [item.reward["report_card"] for item in data.rounds if "report_card" in item.reward]
        card = cards[-1] if cards else None
        groups = card.get("groups", {}) if card else {}
        return {
            "rounds": data.rounds[::-1],
            "card": card,
            "sentences": reward_card.sentences(card or {}),
            "warnings": reward_card.warnings(card or {}),
            "points": reward_card.diagram(card) if card and "calibration" in card else [],
            "divisions": {title: groups[name] for name, title in DIVISIONS.items() if name in groups},
        }
