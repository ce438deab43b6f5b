"""What the sections of the report are made of: a run's results, responses and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assent.loggers.jsonl import read_metrics
from assent.report.comparisons import Comparisons, read_comparisons
from assent.report.rounds import Result, Round, find_rounds, read_results
from assent.report.summary import summarise
from assent.run import Run, control_folder


@dataclass(frozen=True)
class ReportData:
    """Inputs of report sections."""

    run: Run
    results: Mapping[str, Result]
    """Results of the finished stages, in the order in which the stages began."""
    num_examples: int = 8
    """Prompts to show with their responses, at least."""
    num_regressions: int = 3
    """Losses to show of each policy."""

    @cached_property
    def rounds(self) -> list[Round]:
        """Rounds that measured something, in order."""
        return find_rounds(self.results)

    @cached_property
    def compared_rounds(self) -> list[Round]:
        """Rounds with a win rate, the last first."""
        return [item for item in reversed(self.rounds) if item.compared]

    @cached_property
    def comparisons(self) -> dict[int, Comparisons]:
        """The responses that each round compared, by its number, the last first; empty rounds are left out."""
        by_round = {item.number: read_comparisons(self.run, item) for item in self.compared_rounds}
        return {number: comparisons for number, comparisons in by_round.items() if comparisons.prompts}

    @cached_property
    def control(self) -> dict[str, Result]:
        """Policies of the negative control, which had random labels, by name; empty: the run has none."""
        rounds = find_rounds(read_results(control_folder(self.run.folder)))
        return {name: policy for item in rounds for name, policy in item.compared.items()}

    @cached_property
    def metrics(self) -> Sequence[Mapping[str, Any]]:
        """The lines of metrics.jsonl."""
        return list(read_metrics(self.run.folder))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of summary.json."""
        return summarise(self.results)
