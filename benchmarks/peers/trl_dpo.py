"""The peer's side of benchmarks/dpo.py: TRL's DPOTrainer over the same token ids, in the same order."""

import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
import trl
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

sys.path.insert(0, str(Path(__file__).parent.parent))
from duel.clock import Clock

work = json.loads(Path(sys.argv[1]).read_text())
clock = Clock(work["device"])
tokenizer = AutoTokenizer.from_pretrained(work["model"])
model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=getattr(torch, work["dtype"]))


class Watch(TrainerCallback):
    """Times each step, and hears what it came to."""

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        clock.begin()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        clock.end()

    def on_log(self, *args: object, logs: dict[str, float], **kwargs: object) -> None:
        if "loss" in logs:
            names = {"loss": "loss", "chosen": "logps/chosen", "rejected": "logps/rejected", "grad_norm": "grad_norm"}
            clock.found_in_step(**{ours: float(logs[theirs]) for ours, theirs in names.items()})


settings = DPOConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=work["batch_size"],
    num_train_epochs=1,
    learning_rate=work["lr"],
    lr_scheduler_type="linear",
    warmup_steps=0,
    adam_beta2=0.95,
    adam_epsilon=1e-5,
    optim="adamw_torch_fused",
    max_length=None,
    use_cpu=work["device"] == "cpu",
    bf16=False,
    gradient_checkpointing=False,
    report_to=[],
    save_strategy="no",
    logging_steps=1,
    logging_nan_inf_filter=False,
    disable_tqdm=True,
)
text = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
trainer = DPOTrainer(model=model, args=settings, train_dataset=text, processing_class=tokenizer, callbacks=[Watch()])
trainer.train_dataset = Dataset.from_list(work["pairs"])
trainer._get_train_sampler = lambda *args: SequentialSampler(trainer.train_dataset)
trainer.train()
clock.tell(peer=f"TRL {trl.__version__}", transformers=transformers.__version__)
