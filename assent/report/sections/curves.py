"""Curves of the training metrics, the rounds of a stage in one chart."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from assent.report.charts import Chart, ChartSpec, draw_chart, group_by_stage
from assent.report.data import ReportData
from assent.report.formatting import display_name

ONLINE = (
    ChartSpec("Score", "by the reward; and less the KL penalty", {"score": "score", "reward": "reward"}),
    ChartSpec("KL to the reference", "nats per response", {"kl": "k1", "kl_k3": "k3"}),
    ChartSpec("Length", "tokens per response", {"length": "tokens"}),
    ChartSpec("Entropy", "nats per token", {"entropy": "entropy"}),
    ChartSpec("Value loss", "half the squared error", {"value_loss": "loss"}),
    ChartSpec("Explained variance", "by the value model; at most 1", {"explained_variance": "share"}),
)
OFFLINE = (
    ChartSpec("Loss", "of a batch, before the step", {"loss": "loss"}),
    ChartSpec("Accuracy", "comparisons in the annotated order", {"accuracy": "accuracy"}),
    ChartSpec("Margin", "reward of the chosen minus the rejected", {"margin": "margin"}),
)
"""Charts; a stage gets those whose metrics it measured."""
HELD_OUT = ("held_out_loss", "held_out_accuracy", "held_out_margin")


class StageCharts(NamedTuple):
    """The charts of a stage over all rounds."""

    name: str
    note: str
    charts: tuple[Chart, ...]


class Curves:
    """Small charts of every stage that measured its steps."""

    order: ClassVar[int] = 60
    title: ClassVar[str] = "Curves"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        stages = draw_stages(data.metrics, data.results)
        return {"stages": stages} if stages else None


def draw_stages(rows: Iterable[Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> list[StageCharts]:
    """Draw the charts of every stage.

    Args:
        rows: the lines of metrics.jsonl.
        results: what finished stages reported, by name.
    """
    stages: list[StageCharts] = []
    for stage, rounds in group_by_stage(rows).items():
        is_online = any("score" in row for stage_rows in rounds.values() for row in stage_rows)
        charts = [draw_chart(spec, rounds) for spec in (ONLINE if is_online else OFFLINE)]
        measured = tuple(chart for chart in charts if chart is not None)
        if measured:
            stages.append(StageCharts(display_name(stage), _held_out_note(results.get(stage, {})), measured))
    return stages


def _held_out_note(result: Mapping[str, Any]) -> str:
    """Return a sentence with what the stage measured on held-out comparisons; empty if it did not."""
    values = [
        f"{name.removeprefix('held_out_')} {value:.3g}"
        for name, value in result.items()
        if name in HELD_OUT and isinstance(value, float)
    ]
    return f"On held-out comparisons: {', '.join(values)}." if values else ""
