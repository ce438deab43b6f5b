"""The peer's side of benchmarks/reward.py and kway.py: TRL's RewardTrainer on single comparisons."""

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer
from trl_settings import Watch, clock, settings, tokenizer, use_sequential_order, work

model = AutoModelForSequenceClassification.from_pretrained(work["reward"], dtype=getattr(torch, work["dtype"]))
model.config.pad_token_id = work["pad"]
args = RewardConfig(num_train_epochs=1, max_length=None, **settings(work["batch_size"], "linear"))
text = Dataset.from_list([{"chosen": "a b", "rejected": "a c"}])
watch = Watch(loss="loss", accuracy="accuracy", margin="margin", grad_norm="grad_norm")
trainer = RewardTrainer(model=model, args=args, train_dataset=text, processing_class=tokenizer(), callbacks=[watch])
sequences = ({side: p["prompt_ids"] + p[side] for side in ("chosen_ids", "rejected_ids")} for p in work["pairs"])
trainer.train_dataset = Dataset.from_list(list(sequences))
use_sequential_order(trainer)
trainer.train()
clock.report(peer=f"TRL {trl.__version__}", transformers=transformers.__version__)
