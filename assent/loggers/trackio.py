"""Trackio: experiment tracking on this machine, or in a Hugging Face Space with TRACKIO_SPACE_ID."""

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

from assent.errors import AssentError


class Trackio:
    """A Trackio run for each stage, grouped by run folder; a resumed stage goes on in the same one."""

    def __init__(self, folder: Path, stage: str, start: int) -> None:
        try:
            import trackio
        except ImportError:
            raise AssentError("report_to = trackio needs the package trackio: pip install 'assent[trackio]'") from None
        self._stage = stage
        with redirect_stdout(sys.stderr):  # our stdout carries results only
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", "assent"),
                name=f"{folder.resolve().name}/{stage}",
                group=folder.resolve().name,
                space_id=os.environ.get("TRACKIO_SPACE_ID"),
                resume="allow" if start else "never",
                embed=False,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Store the metrics of a step."""
        self._run.log({f"{self._stage}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """Finish the Trackio run."""
        with redirect_stdout(sys.stderr):
            self._run.finish()
