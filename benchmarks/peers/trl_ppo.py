"""The peer's side of benchmarks/ppo.py: the PPOTrainer of TRL 1.12; its first step is given answers."""

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
drawn = []
draw = ppo_trainer.batch_generation
known = {tuple(prompt): list(group) for prompt, group in zip(work["prompts"], work["given"], strict=True)}


class Watch(TrainerCallback):
    """Times each step; this trainer tells of their ends only."""

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        clock.begin()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        clock.end()
        clock.begin()

    def on_log(self, *args: object, logs: dict[str, float], **kwargs: object) -> None:
        if "loss/policy_avg" in logs:
            clock.found_in_step(**{ours: float(logs[theirs]) for ours, theirs in NAMES.items()})


def given(
    model: torch.nn.Module, queries: torch.Tensor, size: int, pad: int, *rest: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """In the first step the answers of the work, with the logits that they would have been drawn from."""
    if drawn:
        whole, logits = draw(model, queries, size, pad, *rest)
    else:
        answers = torch.tensor([known[tuple(row[row != pad].tolist())].pop() for row in queries], device=queries.device)
        whole = torch.cat((queries, answers), 1)
        made = ppo_trainer.forward(model, whole, pad).logits[:, queries.shape[1] - 1 : -1]
        logits = made / (work["temperature"] + 1e-7)
    drawn.append(int((whole[:, queries.shape[1] :] != pad).sum()))
    return whole, logits


ppo_trainer.batch_generation = given
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
clock.found = clock.found[:1]
clock.tell(peer=f"TRL {trl.__version__}", transformers=transformers.__version__, drawn=sum(drawn[1:]))
