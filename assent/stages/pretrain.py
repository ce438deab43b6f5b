"""Pretraining from raw text: train a byte-pair tokenizer and a small Llama-style model, documents packed end to end."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge, MultipleOf

from assent.errors import AssentError
from assent.formats.files.exchange import read
from assent.models.attention import NAME, Tree, register
from assent.models.load import Language
from assent.models.tokenizer import Codec, Unrenderable
from assent.objectives.cross_entropy import CrossEntropy
from assent.preferences.convert import split
from assent.protocols import Origin
from assent.records import Completion, Imitation, Prompt
from assent.registry import name_of
from assent.run import Run
from assent.training.batching import steps_of
from assent.training.left_out import LeftOut
from assent.training.replicated import Trainee, Training
from assent.training.stage import TrainingStage
from assent.training.supervised import Shown, imitate, measure
from assent.types import Count

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = "<|end|>"
PAD = "<|pad|>"


@dataclass(frozen=True)
class Pretrain(TrainingStage):
    """Train a tokenizer and a small language model from nothing but text."""

    data: str = ""
    """Text: `.txt` with documents apart by blank lines, or `.jsonl` with `text`."""
    vocabulary: Annotated[int, Ge(300)] = 2048
    """Tokens of the byte-level BPE tokenizer."""
    layers: Count = 4
    """Transformer blocks."""
    width: Annotated[int, Ge(32), MultipleOf(32)] = 128
    """Size of the hidden state; heads of 32."""
    context: Annotated[int, Ge(8)] = 256
    """Positions; longer documents are cut into pieces of this length."""
    objective: CrossEntropy = CrossEntropy()
    training: Training = Training(lr=3e-3, epochs=8, batch_size=32, schedule="cosine", weight_decay=0.1)

    def origin(self, run: Run) -> Origin:
        return Origin("", name_of(self.objective))

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        documents = read_documents(self.data)
        prompts = {text: Prompt.plain(text).id for text in documents}
        held = split((Prompt.plain(text) for text in documents), run.setup.held_out).held_out
        train = [text for text in documents if prompts[text] not in held]
        if not train:
            raise AssentError(f"{self.data} has no training document: lower held_out, or give more text")
        tokenizer = train_tokenizer(train, self.vocabulary)
        language = Language(self._model(tokenizer, run), Codec(tokenizer))
        pieces = self._pieces(tokenizer, train)
        steps = steps_of(len(pieces), self.training.batch_size, self.training.epochs)
        trainee = Trainee(language, self.training, steps, run.dtype)
        imitate(run.folder, key, trainee, pieces, self.objective, run.seed)
        unseen = self._pieces(tokenizer, [text for text in documents if prompts[text] in held])
        measured = measure(key, trainee.model, unseen, self.objective, self.training.tokens_per_pack)
        trainee.save(run.folder / key)
        weights = sum(weight.numel() for weight in language.model.parameters())
        return {"documents": len(train), "held_out": len(unseen), "weights": weights} | measured

    def _model(self, tokenizer: "PreTrainedTokenizerBase", run: Run) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        register()
        torch.manual_seed(run.seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3 // 32 * 32,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 32,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model: Any = LlamaForCausalLM(config)
        model.set_attn_implementation(NAME)
        return model.to(device=run.device).eval()

    def _pieces(self, tokenizer: "PreTrainedTokenizerBase", documents: list[str]) -> list[Shown]:
        """Each document behind an end token, which says: here one begins."""
        end = int(tokenizer.eos_token_id)
        found = []
        for text in documents:
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
            size = self.context - 1
            found += [Shown(Tree((end,), (tuple(ids[i : i + size]),))) for i in range(0, len(ids), size)]
        return found


def read_documents(path: str) -> list[str]:
    """Documents of a text file (apart by blank lines) or of a JSONL file (`text`, or prompts), each once.

    Raises:
        AssentError: no file, or nothing in it.
    """
    if not path:
        raise AssentError("pretraining needs text: name a .txt or .jsonl file with --data")
    file = Path(path)
    if ".json" in file.name:
        reading = read(file)
        texts = [e.completion.text if hasattr(e, "completion") else p.text for e, p in _rows(reading)]
    else:
        try:
            texts = file.read_text(encoding="utf-8").split("\n\n")
        except FileNotFoundError:
            raise AssentError(f"no file at {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise AssentError(f"cannot read {path} as UTF-8 text: {error}") from None
    documents = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not documents:
        raise AssentError(f"{path} holds no text")
    return documents


def read_texts(path: str, codec: Codec, context: int) -> list[Shown]:
    """Texts, or demonstrations, of a file as something to imitate, each cut to a model's context.

    Raises:
        AssentError: no file, or nothing in it.
    """
    found = list(read(path).examples) if ".json" in Path(path).name else []
    shown = [e for e in found if isinstance(e, Imitation)]
    shown = shown or [Imitation(Prompt.plain(""), Completion(text)) for text in read_documents(path)]
    texts, left_out = list[Shown](), LeftOut()
    for each in shown:
        try:
            prompt, completion = codec.encode(each.prompt, each.completion)
        except Unrenderable as error:
            left_out.refuse(each.prompt, str(error))
            continue
        if len(prompt) < context and completion:
            texts.append(Shown(Tree(prompt, (completion[: context - len(prompt)],)), each.weight))
    if not texts:
        why = f"; {left_out.refused} cannot be encoded, the first {left_out.first}" if left_out.refused else ""
        raise AssentError(f"{path} holds no text that fits the model's context of {context}{why}")
    left_out.report()
    return texts


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


def _rows(reading: Any) -> list[tuple[Any, Any]]:
    if reading.examples:
        return [(example, example.prompt) for example in reading.examples]
    return [(None, prompt) for prompt in reading.prompts]
