"""What an agent does after training: clips of episodes from seeds that it never trained on, as strips of frames."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from markupsafe import Markup

from assent.clips import draw_clip, draw_strip
from assent.errors import AssentError
from assent.report.data import ReportData
from assent.report.rounds import Result
from assent.segments import environment_prompt


class Strip(NamedTuple):
    """A clip of one episode."""

    title: str
    drawing: Markup
    """An SVG element; empty: the clip cannot be drawn here."""
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
        "strips": [_strip(clip) for clip in result["clips"]],
    }


def _strip(clip: Mapping[str, Any]) -> Strip:
    title = f"{clip['title']}: true return {clip['true_return']:.0f}"
    prompt = environment_prompt(clip["environment"], clip["settings"], clip["seed"], "")
    try:
        return Strip(title, Markup(draw_strip(draw_clip(prompt, clip["segment"]))), "")
    except AssentError as error:
        return Strip(title, Markup(), str(error))
