"""How far the policies went beyond what their reward model knows: best-of-n, its report card on them, and probes."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from assent.report import over_optimization as pictures
from assent.report.alarm import alarm_sentence
from assent.report.charts import HEIGHT
from assent.report.data import ReportData
from assent.report.formatting import display_name
from assent.report.rounds import Result, StageKey, parse_key


class Probed(NamedTuple):
    """A stage that was probed while it trained."""

    name: str
    probe: Mapping[str, Any]
    sentence: str
    picture: pictures.Picture


class BestOfN(NamedTuple):
    """Several responses to one prompt, of the baseline and of trained policies."""

    judge: str
    baseline: str
    prompts: int
    sentences: list[str]
    fit: str
    picture: pictures.Picture | None
    rows: list[pictures.Row]
    cards: Mapping[str, Any]
    """By policy."""


class RoundView(NamedTuple):
    """What one round measured."""

    number: int
    best: BestOfN | None
    probed: list[Probed]


class OverOptimization:
    """The draws of `evaluate` and the probes of online stages, the last round first."""

    order: ClassVar[int] = 25
    title: ClassVar[str] = "Over-optimisation"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        measured = {parse_key(key).round for key, result in data.results.items() if result.keys() & {"draws", "probe"}}
        if not measured:
            return None
        return {
            "rounds": [_view(number, data.results) for number in sorted(measured, reverse=True)],
            "card_rate": pictures.card_rate,
            "title_height": pictures.TITLE_HEIGHT,
            "panel_height": HEIGHT,
        }


def _view(number: int, results: Mapping[str, Result]) -> RoundView:
    evaluation = results.get(str(StageKey("evaluate", number)), {})
    probed = [
        _probed(display_name(key), result["probe"])
        for key, result in results.items()
        if "probe" in result and parse_key(key).round == number
    ]
    return RoundView(number, _best_of_n(evaluation) if "draws" in evaluation else None, probed)


def _best_of_n(evaluation: Result) -> BestOfN:
    draws, baseline = evaluation["draws"], evaluation["baseline"]
    best = draws["best_of_n"]
    return BestOfN(
        judge=evaluation["judge"],
        baseline=baseline,
        prompts=best["prompts"],
        sentences=pictures.sentences(draws, baseline),
        fit=pictures.fit_note(best),
        picture=pictures.draw_best_of_n(best),
        rows=pictures.rows(best),
        cards=draws["cards"],
    )


def _probed(name: str, probe: Mapping[str, Any]) -> Probed:
    return Probed(name, probe, alarm_sentence(name, probe), pictures.draw_probes(probe))
