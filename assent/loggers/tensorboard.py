"""TensorBoard: event files in `tensorboard/STAGE` of the run folder."""

from collections.abc import Mapping
from pathlib import Path


class TensorBoard:
    """A writer of TensorBoard scalars; steps that are repeated after a crash are purged."""

    def __init__(self, folder: Path, stage: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._stage = stage
        self._writer = SummaryWriter(str(folder / "tensorboard" / stage), purge_step=start + 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the scalars of a step."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"{self._stage}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()
