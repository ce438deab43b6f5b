"""Pretraining from raw text: train a byte-pair tokenizer and a small Llama-style model, documents packed end to end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge, MultipleOf

from assent.errors import AssentError
from assent.models.attention import NAME, SharedPrefix, register
from assent.models.load import LoadedModel
from assent.models.tokenizer import ChatTokenizer
from assent.objectives.cross_entropy import CrossEntropy
from assent.protocols import Origin
from assent.records import Prompt
from assent.registry import name_of
from assent.run import Run
from assent.split import split
from assent.training.batching import steps_of
from assent.training.replicated import Training, TrainState
from assent.training.stage import TrainingStage
from assent.training.supervised import TokenizedExample, measure, train_supervised
from assent.training.texts import read_documents
from assent.types import PositiveInt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = "<|end|>"
PAD = "<|pad|>"


@dataclass(frozen=True)
class Pretrain(TrainingStage):
    """Train a tokenizer and a small language model from nothing but text."""

    data: str = ""
    """Text: `.txt` with documents apart by blank lines, or `.jsonl` with `text`."""
    vocab_size: Annotated[int, Ge(300)] = 2048
    """Tokens of the byte-level BPE tokenizer."""
    num_layers: PositiveInt = 4
    """Transformer blocks."""
    hidden_size: Annotated[int, Ge(32), MultipleOf(32)] = 128
    """Size of the hidden state; heads of 32."""
    context_length: Annotated[int, Ge(8)] = 256
    """Positions; longer documents are cut into pieces of this length."""
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=3e-3, epochs=8, batch_size=32, lr_scheduler_type="cosine", weight_decay=0.1)

    def origin(self, run: Run) -> Origin:
        return Origin("", name_of(self.objective))

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        documents = read_documents(self.data)
        prompts = {text: Prompt.plain(text).id for text in documents}
        held = split((Prompt.plain(text) for text in documents), run.setup.held_out).held_out
        train = [text for text in documents if prompts[text] not in held]
        if not train:
            raise AssentError(f"{self.data} has no training document: lower held_out, or give more text")
        tokenizer = train_tokenizer(train, self.vocab_size)
        language = LoadedModel(self._model(tokenizer, run), ChatTokenizer(tokenizer))
        pieces = self._pieces(tokenizer, train)
        steps = steps_of(len(pieces), self.training.batch_size, self.training.epochs)
        trainee = TrainState(language, self.training, steps, run.dtype)
        train_supervised(run.folder, key, trainee, pieces, self.objective, run.seed)
        unseen = self._pieces(tokenizer, [text for text in documents if prompts[text] in held])
        measured = measure(key, trainee.model, unseen, self.objective, self.training.max_tokens_per_batch)
        trainee.save(run.folder / key)
        weights = sum(weight.numel() for weight in language.model.parameters())
        return {"documents": len(train), "held_out": len(unseen), "weights": weights} | measured

    def _model(self, tokenizer: "PreTrainedTokenizerBase", run: Run) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        register()
        torch.manual_seed(run.seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=self.hidden_size * 8 // 3 // 32 * 32,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.hidden_size // 32,
            max_position_embeddings=self.context_length,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model: Any = LlamaForCausalLM(config)
        model.set_attn_implementation(NAME)
        return model.to(device=run.device).eval()

    def _pieces(self, tokenizer: "PreTrainedTokenizerBase", documents: list[str]) -> list[TokenizedExample]:
        """Each document behind an end token, which says: here one begins."""
        end = int(tokenizer.eos_token_id)
        found = []
        for text in documents:
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
            size = self.context_length - 1
            found += [
                TokenizedExample(SharedPrefix((end,), (tuple(ids[i : i + size]),))) for i in range(0, len(ids), size)
            ]
        return found


def train_tokenizer(documents: list[str], vocabulary: int) -> "PreTrainedTokenizerBase":
    """A byte-level BPE tokenizer that can write any text (Sennrich et al. 2016, arXiv:1508.07909)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=PAD)
