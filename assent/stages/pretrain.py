"""Pretraining from raw text: train a byte-pair tokenizer and a small Llama-style model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from annotated_types import Ge, MultipleOf

from assent.errors import AssentError
from assent.models.attention import ATTN_IMPLEMENTATION, register_attention
from assent.models.load import LoadedModel
from assent.models.packing import SharedPrefix
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.cross_entropy import CrossEntropy
from assent.protocols import Origin
from assent.records import Prompt
from assent.registry import name_of
from assent.run import Run
from assent.split import split
from assent.training.batching import count_steps
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import TrainingStage
from assent.training.supervised import TokenizedExample, evaluate, train_supervised
from assent.training.texts import read_documents
from assent.types import PositiveInt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_TOKEN = "<|end|>"
PAD_TOKEN = "<|pad|>"
HEAD_SIZE = 32


@dataclass(frozen=True)
class Pretrain(TrainingStage):
    """Train a tokenizer and a small language model on raw text."""

    aim: ClassVar[str] = "a model learns to write text"
    data: str = ""
    """Training text: a `.txt` file whose documents are separated by blank lines, or a data set with `text`: a file, a
    folder, or `hf://owner/name`."""
    vocab_size: Annotated[int, Ge(300)] = 2048
    """Vocabulary size of the byte-level BPE tokenizer."""
    num_layers: PositiveInt = 4
    """Number of transformer blocks."""
    hidden_size: Annotated[int, Ge(32), MultipleOf(HEAD_SIZE)] = 128
    """Size of the hidden state; attention heads have size 32."""
    context_length: Annotated[int, Ge(8)] = 256
    """Maximum number of tokens in the context; longer documents are cut into pieces of this length."""
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=3e-3, epochs=8, batch_size=32, lr_scheduler_type="cosine", weight_decay=0.1)

    def origin(self, run: Run) -> Origin:
        return Origin("", name_of(self.objective))

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        train, held_out = self._load_data(run)
        tokenizer = train_tokenizer(train, self.vocab_size)
        language = LoadedModel(self._build_model(tokenizer, run), ChatTokenizer(tokenizer))

        examples = self._tokenize(tokenizer, train)
        steps = count_steps(len(examples), self.training.batch_size, self.training.epochs)
        state = ReplicatedState(language, self.training, steps, run.dtype)
        train_supervised(run.folder, key, state, examples, self.objective, run.seed)

        held_out_examples = self._tokenize(tokenizer, held_out)
        max_tokens = self.training.max_tokens_per_batch
        metrics = evaluate(key, state.model, held_out_examples, self.objective, max_tokens)
        state.save(run.folder / key)
        num_weights = sum(weight.numel() for weight in language.model.parameters())
        return {"documents": len(train), "held_out": len(held_out_examples), "weights": num_weights} | metrics

    def _load_data(self, run: Run) -> tuple[list[str], list[str]]:
        """Return the documents for training and those held out."""
        train: list[str] = []
        held_out: list[str] = []
        for text in read_documents(self.data):
            is_held_out = split([Prompt.plain(text)], run.setup.held_out).held_out
            (held_out if is_held_out else train).append(text)
        if not train:
            raise AssentError(f"{self.data} has no training document; lower --held-out, or add text")
        return train, held_out

    def _build_model(self, tokenizer: "PreTrainedTokenizerBase", run: Run) -> Any:
        """Return a Llama model with random weights."""
        from transformers import LlamaConfig, LlamaForCausalLM

        register_attention()
        torch.manual_seed(run.seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=self.hidden_size * 8 // 3 // 32 * 32,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.hidden_size // HEAD_SIZE,
            max_position_embeddings=self.context_length,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model: Any = LlamaForCausalLM(config)
        model.set_attn_implementation(ATTN_IMPLEMENTATION)
        return model.to(device=run.device).eval()

    def _tokenize(self, tokenizer: "PreTrainedTokenizerBase", documents: Iterable[str]) -> list[TokenizedExample]:
        """Cut each document into pieces; an end token before each piece marks the beginning of a text."""
        end_id = int(tokenizer.eos_token_id)
        size = self.context_length - 1
        examples: list[TokenizedExample] = []
        for text in documents:
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], end_id]
            for begin in range(0, len(ids), size):
                piece = tuple(ids[begin : begin + size])
                examples.append(TokenizedExample(SharedPrefix((end_id,), (piece,))))
        return examples


def train_tokenizer(documents: list[str], vocab_size: int) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE tokenizer, which can encode any text (Sennrich et al. 2016, arXiv:1508.07909)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN, PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_TOKEN, pad_token=PAD_TOKEN)
