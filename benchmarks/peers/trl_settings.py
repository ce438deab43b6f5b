"""Settings of TRL's trainers: the same token ids in the same order, each step timed."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Trainer, TrainerCallback

sys.path.insert(0, str(Path(__file__).parent.parent))
from harness.clock import Clock

work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
clock = Clock(work["device"])


class Watch(TrainerCallback):
    """Times each step and records its numbers: our name of a number -> TRL's."""

    def __init__(self, **names: str) -> None:
        self.names = names

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        clock.begin()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        clock.end()

    def on_log(self, *args: object, logs: dict[str, float], **kwargs: object) -> None:
        if "loss" in logs:
            clock.record(**{name: float(logs[trl_name]) for name, trl_name in self.names.items()})


def settings(batch_size: int, schedule: str) -> dict[str, Any]:
    """Return the arguments of every trainer: our optimizer's, and no files."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch_size,
        "learning_rate": work["lr"],
        "lr_scheduler_type": schedule,
        "warmup_steps": 0,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "optim": "adamw_torch_fused",
        "use_cpu": work["device"] == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }


def tokenizer() -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with a padding token that is no end token."""
    loaded = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    loaded.pad_token_id = work["pad"]
    return loaded


def use_sequential_order(trainer: Trainer) -> None:
    """Make a trainer take the examples in their order."""
    from torch.utils.data import SequentialSampler

    trainer._get_train_sampler = lambda *args: SequentialSampler(trainer.train_dataset)
