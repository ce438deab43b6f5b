"""The peer's side of benchmarks/ppo.py: the PPOTrainer of TRL 1.12; its first step uses given responses."""

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from trl_settings import clock, settings, tokenizer, work

NAMES = {
    "policy_loss": "loss/policy_avg",
    "value_loss": "loss/value_avg",
    "score": "objective/scores",
    "kl": "objective/kl",
    "ratio": "val/ratio",
}
num_sampled = []
generate = ppo_trainer.batch_generation
responses_by_prompt = {
    tuple(prompt): list(group) for prompt, group in zip(work["prompts"], work["responses"], strict=True)
}


class Watch(TrainerCallback):
    """Times each step; this trainer reports their ends only."""

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        clock.begin()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        clock.end()
        clock.begin()

    def on_log(self, *args: object, logs: dict[str, float], **kwargs: object) -> None:
        if "loss/policy_avg" in logs:
            clock.record(**{name: float(logs[trl_name]) for name, trl_name in NAMES.items()})


def generate_or_reuse(
    model: torch.nn.Module, prompts: torch.Tensor, size: int, pad: int, *arguments: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the responses of the work, with their logits, in the first step, the model's own afterwards."""
    if num_sampled:
        sequences, logits = generate(model, prompts, size, pad, *arguments)
    else:
        responses = [responses_by_prompt[tuple(row[row != pad].tolist())].pop() for row in prompts]
        sequences = torch.cat((prompts, torch.tensor(responses, device=prompts.device)), 1)
        logits = ppo_trainer.forward(model, sequences, pad).logits[:, prompts.shape[1] - 1 : -1]
        logits = logits / (work["temperature"] + 1e-7)
    num_sampled.append(int((sequences[:, prompts.shape[1] :] != pad).sum()))
    return sequences, logits


ppo_trainer.batch_generation = generate_or_reuse
dtype = getattr(torch, work["dtype"])
policy, reference = (AutoModelForCausalLM.from_pretrained(work["model"], dtype=dtype) for _ in range(2))
reward, value = (AutoModelForSequenceClassification.from_pretrained(work["reward"], dtype=dtype) for _ in range(2))
torch.nn.init.zeros_(value.score.weight)
rows = Dataset.from_list([{"input_ids": prompt} for prompt in work["prompts"] for _ in range(work["n"])])
count = len(rows)
args = PPOConfig(
    total_episodes=work["steps"] * count,
    num_ppo_epochs=work["epochs"],
    num_mini_batches=1,
    local_rollout_forward_batch_size=count,
    response_length=work["max_new_tokens"],
    temperature=work["temperature"],
    stop_token="eos",
    kl_coef=work["beta"],
    vf_coef=0.1,
    num_sample_generations=0,
    **settings(count, "constant"),
)
trainer = PPOTrainer(
    args=args,
    processing_class=tokenizer(),
    model=policy,
    ref_model=reference,
    reward_model=reward,
    value_model=value,
    train_dataset=rows,
    eval_dataset=rows,
    callbacks=[Watch()],
)
trainer.train()
clock.results = clock.results[:1]
clock.report(peer=f"TRL {trl.__version__}", transformers=transformers.__version__, drawn=sum(num_sampled[1:]))
