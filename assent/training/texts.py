"""Texts to imitate, read from a file and tokenized."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assent.errors import AssentError
from assent.formats.files.exchange import read
from assent.models.attention import SharedPrefix
from assent.models.tokenizer import ChatTokenizer, Unrenderable
from assent.records import Completion, Prompt, SFTExample
from assent.training.left_out import LeftOut
from assent.training.supervised import TokenizedExample

if TYPE_CHECKING:
    pass


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


def read_texts(path: str, codec: ChatTokenizer, context: int) -> list[TokenizedExample]:
    """Texts, or demonstrations, of a file as something to imitate, each cut to a model's context.

    Raises:
        AssentError: no file, or nothing in it.
    """
    found = list(read(path).examples) if ".json" in Path(path).name else []
    shown = [e for e in found if isinstance(e, SFTExample)]
    shown = shown or [SFTExample(Prompt.plain(""), Completion(text)) for text in read_documents(path)]
    texts, left_out = list[TokenizedExample](), LeftOut()
    for each in shown:
        try:
            prompt, completion = codec.encode(each.prompt, each.completion)
        except Unrenderable as error:
            left_out.refuse(each.prompt, str(error))
            continue
        if len(prompt) < context and completion:
            texts.append(TokenizedExample(SharedPrefix(prompt, (completion[: context - len(prompt)],)), each.weight))
    if not texts:
        why = f"; {left_out.refused} cannot be encoded, the first {left_out.first}" if left_out.refused else ""
        raise AssentError(f"{path} holds no text that fits the model's context of {context}{why}")
    left_out.report()
    return texts


def _rows(reading: Any) -> list[tuple[Any, Any]]:
    if reading.examples:
        return [(example, example.prompt) for example in reading.examples]
    return [(None, prompt) for prompt in reading.prompts]
