"""A real but tiny language model for tests: Llama blocks, a byte-pair tokenizer, a chat template."""

from pathlib import Path

import torch

from assent.models.checkpoints import save
from assent.models.load import LoadedModel, load_policy
from assent.models.tokenizer import ChatTokenizer
from assent.stages.pretrain import train_tokenizer

STORIES = Path(__file__).parent.parent / "examples" / "stories.txt"
CHATML = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def make(folder: Path, chat: bool = True, vocab_size: int = 400, seed: int = 0) -> Path:
    """Write a Llama of two blocks with random weights into a folder, as Hugging Face does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(STORIES.read_text().split("\n\n")[:100], vocab_size)
    if chat:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>"]})
        tokenizer.chat_template = CHATML
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save(LoadedModel(LlamaForCausalLM(config), ChatTokenizer(tokenizer)), folder)
    return folder


def load(folder: Path) -> LoadedModel:
    return load_policy(folder)
