"""The results of a run: report.html, summary.json for programs, a table for the terminal."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.files import write_atomically
from assent.functional.finite import replace_nonfinite
from assent.protocols import Tool
from assent.report.data import ReportData
from assent.report.page import render_page
from assent.report.rounds import read_results
from assent.run import Run
from assent.types import NonNegativeInt


@dataclass(frozen=True)
class Report(Tool):
    """Write the results of a run as a page that opens without a network, and as a summary for programs."""

    aim: ClassVar[str] = "all results on one page"
    num_examples: NonNegativeInt = 8
    """Held-out prompts to show with their responses, at least; as many of each category, in the order of their ids."""
    num_regressions: NonNegativeInt = 3
    """Largest losses of each policy to show."""

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        data = ReportData(run, read_results(run.folder), self.num_examples, self.num_regressions)
        page, summary = run.folder / "report.html", run.folder / "summary.json"
        write_atomically(page, render_page(data))
        write_atomically(summary, json.dumps(replace_nonfinite(data.summary), indent=1, allow_nan=False) + "\n")
        return {"report": str(page), "summary": str(summary)}
