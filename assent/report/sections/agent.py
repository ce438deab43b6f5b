"""What an agent does after training: clips of episodes from seeds that it never trained on, as films and strips."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from markupsafe import Markup

from assent.clips import draw_clip, draw_film, draw_strip
from assent.errors import AssentError
from assent.report.data import ReportData
from assent.report.rounds import Result
from assent.segments import environment_prompt


class EpisodeClip(NamedTuple):
    """A clip of one episode."""

    title: str
    film: Markup
    """An SVG element that plays; empty: the clip cannot be drawn here."""
    strip: Markup
    """The same as frames side by side."""
    reason: str
    """Why it cannot be drawn."""


class Agent:
    """The return of each agent beside that of its first rollout, and what it does."""

    order: ClassVar[int] = 5
    title: ClassVar[str] = "What the agent does"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        stages = {name: result for name, result in data.results.items() if "clips" in result}
        if not stages:
            return None
        return {"agents": [_describe(name, result, data.metrics) for name, result in stages.items()]}


def _describe(name: str, result: Result, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lines = [line for line in metrics if line["stage"] == name]
    return {
        "comparisons": result["comparisons"],
        "steps": result["steps"],
        "share": result["comparisons"] / result["steps"],
        "before": lines[0]["true_return"] if lines else None,
        "after": result["true_return"],
        "correlation": lines[-1].get("correlation") if lines and result["comparisons"] else None,
        "clips": [_draw(clip) for clip in result["clips"]],
    }


def _draw(clip: Mapping[str, Any]) -> EpisodeClip:
    title = f"{clip['title']}: true return {clip['true_return']:.0f}"
    prompt = environment_prompt(clip["environment"], clip["settings"], clip["seed"], "")
    try:
        drawn = draw_clip(prompt, clip["segment"])
        return EpisodeClip(title, Markup(draw_film(drawn)), Markup(draw_strip(drawn)), "")
    except AssentError as error:
        return EpisodeClip(title, Markup(), Markup(), str(error))
