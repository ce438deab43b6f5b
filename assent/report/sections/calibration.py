"""Whether the policies are as often right as they are sure."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from assent.report.calibration import Diagram, draw_diagrams, sentences, temperature_text
from assent.report.data import ReportData
from assent.report.rounds import last_measured, measured

KINDS = {"choices": "Choices among the options of a question", "answers": "Answers in its own words"}


class Kind(NamedTuple):
    """Calibration on one kind of questions."""

    title: str
    sentences: list[str]
    diagrams: list[Diagram]
    results: dict[str, Mapping[str, Any]]
    """By policy."""


class Calibration:
    """Reliability diagrams of all policies side by side, with their scores."""

    order: ClassVar[int] = 27
    title: ClassVar[str] = "Calibration"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        last = last_measured(data.rounds, "calibration")
        if last is None:
            return None
        policies, kinds = measured(last, "calibration"), []
        for noun, title in KINDS.items():
            results = {name: policy[noun] for name, policy in policies.items() if policy.get(noun)}
            if any(result["n"] for result in results.values()):
                lines = sentences(results, last.evaluation["baseline"], noun)
                kinds.append(Kind(title, lines, draw_diagrams(results), results))
        if not kinds:
            return None
        return {
            "round": last.number if len(data.rounds) > 1 else None,
            "kinds": kinds,
            "temperature_text": temperature_text,
        }
