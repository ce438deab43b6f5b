"""Control: an agent learns in an environment from comparisons of clips of what it does.

Christiano et al. 2017 (arXiv:1706.03741): the agent acts; annotators compare clips; a reward model of single steps is
fitted to the comparisons; the agent is trained on its rewards; and so on. The environment's own reward is never used,
except by simulated annotators and to measure.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from assent.config import table
from assent.control import saved
from assent.control.trainer import ControlSettings, ControlTrainer
from assent.files import replacing_folder
from assent.protocols import Resumable, Stage
from assent.run import Run
from assent.training.loop import run_steps
from assent.types import NonNegativeInt


@dataclass(frozen=True)
class Control(Stage):
    """Train an agent in an environment on comparisons of clips."""

    aim: ClassVar[str] = "an agent learns from comparisons of clips"
    settings: ControlSettings = ControlSettings()
    save_every: NonNegativeInt = 0
    """Rollouts between resumable checkpoints; 0: by the clock."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Loggers besides metrics.jsonl, separated by commas: tensorboard, wandb, trackio; empty: none."""

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        trainer = ControlTrainer(run, key, self.settings)
        states: dict[str, Resumable] = {"agent": trainer.agent}
        if trainer.reward_model:
            states["reward_model"] = trainer.reward_model
        steps = self.settings.iterations
        run_steps(run.folder, key, states, steps, trainer.step, trainer.extra_state, self.save_every, self.report_to)
        self._save(trainer, run.folder / key)
        counts = {"comparisons": len(trainer.extra_state["tasks"]), "steps": trainer.agent.num_steps}
        return {**counts, **trainer.measure()}

    def _save(self, trainer: ControlTrainer, folder: Path) -> None:
        """Write the agent and its reward model as tensors, with all settings."""
        with replacing_folder(folder) as partial:
            partial.mkdir(parents=True)
            (partial / saved.FILE).write_text(json.dumps(table(self.settings), indent=1) + "\n", encoding="utf-8")
            trainer.agent.save(partial / "agent.safetensors")
            if trainer.reward_model:
                trainer.reward_model.save(partial / "reward_model.safetensors")
