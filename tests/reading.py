"""Read checkpoints with plain transformers, whichever version is imported; as a program, print JSON."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

CONVERSATION = [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A wren."}]
TEXT = "The heron is here.<|end|>\n"


@torch.no_grad()
def read(folder: Path) -> dict[str, Any]:
    """Return logits of a hundred tokens, five generated tokens, and ids of a text and of a conversation."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    reward = "SequenceClassification" in (folder / "config.json").read_text()
    auto: Any = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    # version 4 leaves Gemma 2's soft cap out of any other attention
    model: Any = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = (torch.arange(100) * 37 % 350 + 10)[None]
    contents = {
        "logits": model(tokens).logits.flatten().tolist()[-len(tokenizer) :],
        "text": tokenizer(TEXT)["input_ids"],
        "conversation": tokenizer(tokenizer.apply_chat_template(CONVERSATION, tokenize=False))["input_ids"],
        "special": sorted(tokenizer.all_special_ids),
    }
    if not reward:
        contents["generated"] = model.generate(tokens, max_new_tokens=5, do_sample=False)[0, -5:].tolist()
    return contents


def main() -> None:
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    read_all = {name: read(Path(name)) for name in sys.argv[1:]}
    print(json.dumps({"version": transformers.__version__, "read": read_all}))


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
