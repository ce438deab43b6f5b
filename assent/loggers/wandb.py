"""Weights & Biases: one wandb run for each stage, grouped by run folder; WANDB_MODE, WANDB_PROJECT, ... apply."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from assent.errors import AssentError


class Wandb:
    """A wandb run; a resumed stage continues the same wandb run, which ignores the steps that it already has."""

    def __init__(self, folder: Path, stage: str, start: int) -> None:
        try:
            import wandb
        except ImportError:
            raise AssentError("report_to = wandb needs the package wandb: pip install 'assent[wandb]'") from None
        self._stage = stage
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "assent"),
            group=folder.resolve().name,
            name=f"{folder.resolve().name}/{stage}",
            id=_run_id(folder / "wandb" / f"{stage}.id", start),
            resume="allow",
            dir=str(folder),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        self._run.log({f"{self._stage}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """Finish the wandb run."""
        self._run.finish()


def _run_id(path: Path, start: int) -> str:
    """Return the id of the stage's wandb run: a new one at step 0, the stored one when the stage is resumed."""
    if start and path.exists():
        return path.read_text(encoding="utf-8").strip()
    new_id = uuid.uuid4().hex[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new_id + "\n", encoding="utf-8")
    return new_id
