"""The peer's side of benchmarks/generation.py: `generate` of transformers, as TRL's trainers call it."""

import torch
import transformers
from transformers import AutoModelForCausalLM
from trl_settings import clock, tokenizer, work

model = AutoModelForCausalLM.from_pretrained(work["model"], dtype=getattr(torch, work["dtype"]))
model = model.to(work["device"]).eval()
model.generation_config.eos_token_id = None  # so that all responses have one length
pads = tokenizer()
num_sampled = 0


@torch.no_grad()
def sample(prompts: list[list[int]], n: int, length: int, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids, (R, T), and the logits that they were sampled from, (R, T, V), or None."""
    rows = pads.pad({"input_ids": [prompt for prompt in prompts for _ in range(n)]}, return_tensors="pt")
    output = model.generate(
        **rows.to(work["device"]),
        max_new_tokens=length,
        pad_token_id=work["pad"],
        return_dict_in_generate=True,
        **options,
    )
    return output.sequences[:, rows["input_ids"].shape[1] :], output.logits and torch.stack(output.logits, 1)


for step, (prompts, length) in enumerate(zip(work["steps"], work["max_new_tokens"], strict=True)):
    clock.begin()
    if step:
        ids, _ = sample(prompts, work["n"], length, do_sample=True, temperature=work["temperature"], top_k=0, top_p=1.0)
        num_sampled += int((ids != work["pad"]).sum())
    else:
        ids, logits = sample(prompts, 1, length, do_sample=False, output_logits=True)
    clock.end()
    if not step:
        chosen = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        for row in chosen.mean(1).tolist():
            clock.record(greedy=row)
clock.report(peer=f"transformers {transformers.__version__}", drawn=num_sampled)
