"""The peer's side of benchmarks/grpo.py: TRL's GRPOTrainer; its first step uses given responses."""

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl_settings import Watch, clock, settings, tokenizer, work

num_sampled = []


def reward(completions: list[str], **kwargs: object) -> list[float]:
    """Score completions by their length."""
    return [len(text) / 100 for text in completions]


model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=getattr(torch, work["dtype"]))
args = GRPOConfig(
    num_generations=work["n"],
    max_completion_length=work["max_new_tokens"],
    max_steps=work["steps"],
    beta=work["beta"],
    temperature=work["temperature"],
    generation_kwargs={"min_new_tokens": work["max_new_tokens"]},
    loss_type="dapo",
    shuffle_dataset=False,
    **settings(len(work["prompts"]) * work["n"], "constant"),
)
rows = Dataset.from_list([{"prompt": str(number)} for number in range(len(work["prompts"]))])
watch = Watch(loss="loss", grad_norm="grad_norm", score="reward", entropy="entropy", kl="kl")
trainer = GRPOTrainer(
    model=model,
    args=args,
    train_dataset=rows,
    processing_class=tokenizer(),
    reward_funcs=reward,
    callbacks=[watch],
)
generate = trainer._generate_single_turn


def generate_or_reuse(prompt_ids: list[list[int]], *arguments: object) -> tuple[list[list[int]], None]:
    """Return the responses of the work in the first step, the model's own afterwards."""
    first = [ids for group in work["responses"] for ids in group], None
    completions = generate(prompt_ids, *arguments) if num_sampled else first
    num_sampled.append(sum(map(len, completions[0])))
    return completions


trainer._tokenize_prompts = lambda prompts: ([work["prompts"][int(number)] for number in prompts], None, {})
trainer._generate_single_turn = generate_or_reuse
trainer.train()
clock.results = clock.results[:1]
clock.report(peer=f"TRL {trl.__version__}", transformers=transformers.__version__, drawn=sum(num_sampled[1:]))
