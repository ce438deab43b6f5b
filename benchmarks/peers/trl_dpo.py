"""The peer's side of benchmarks/dpo.py: TRL's DPOTrainer."""

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer
from trl_settings import Watch, clock, settings, tokenizer, use_sequential_order, work

model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=getattr(torch, work["dtype"]))
args = DPOConfig(num_train_epochs=1, max_length=None, **settings(work["batch_size"], "linear"))
text = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
watch = Watch(loss="loss", chosen="logps/chosen", rejected="logps/rejected", grad_norm="grad_norm")
trainer = DPOTrainer(model=model, args=args, train_dataset=text, processing_class=tokenizer(), callbacks=[watch])
trainer.train_dataset = Dataset.from_list(work["pairs"])
use_sequential_order(trainer)
trainer.train()
clock.report(peer=f"TRL {trl.__version__}", transformers=transformers.__version__)
