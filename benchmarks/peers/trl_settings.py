"""What the peer's sides have in common: TRL's trainers over the same token ids, in the same order, each step timed."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Trainer, TrainerCallback

sys.path.insert(0, str(Path(__file__).parent.parent))
from duel.clock import Clock

work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
clock = Clock(work["device"])


class Watch(TrainerCallback):
    """Times each step, and hears what it came to: our name of a number -> TRL's."""

    def __init__(self, **names: str) -> None:
        self.names = names

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        clock.begin()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        clock.end()

    def on_log(self, *args: object, logs: dict[str, float], **kwargs: object) -> None:
        if "loss" in logs:
            clock.found_in_step(**{ours: float(logs[theirs]) for ours, theirs in self.names.items()})


def settings(batch_size: int, schedule: str) -> dict[str, Any]:
    """Arguments of every trainer: our optimiser's, and nothing written."""
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
    """The model's, with a token for padding that ends nothing."""
    found = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    found.pad_token_id = work["pad"]
    return found


def in_order(trainer: Trainer) -> None:
    """Let a trainer take the examples as they come."""
    from torch.utils.data import SequentialSampler

    trainer._get_train_sampler = lambda *args: SequentialSampler(trainer.train_dataset)
