"""Documents and demonstrations of a file, tokenized for supervised training."""

from pathlib import Path

from assent.errors import AssentError
from assent.formats.files.hub import is_hub_name
from assent.formats.files.importing import read_file
from assent.formats.files.splits import DATA_SUFFIXES
from assent.models.packing import SharedPrefix
from assent.models.rendering import Unrenderable
from assent.models.tokenizer import ChatTokenizer
from assent.records import Completion, Prompt, ScoredCompletion, SFTExample
from assent.training.left_out import LeftOut
from assent.training.supervised import TokenizedExample


def read_documents(path: str) -> list[str]:
    """Read the documents of a text file (separated by blank lines) or of a data set (`text`, or prompts), each once.

    Raises:
        AssentError: no file, or nothing in it.
    """
    if not path:
        raise AssentError("pretraining needs text: name a .txt file or a data set with --data")
    if _is_data_set(path):
        texts = _read_row_texts(path)
    else:
        try:
            texts = Path(path).read_text(encoding="utf-8").split("\n\n")
        except FileNotFoundError:
            raise AssentError(f"no file at {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise AssentError(f"cannot read {path} as UTF-8 text: {error}") from None
    documents = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not documents:
        raise AssentError(f"{path} has no text: give a .txt file of documents or a data set with `text`")
    return documents


def read_texts(path: str, tokenizer: ChatTokenizer, max_length: int) -> list[TokenizedExample]:
    """Read the demonstrations or documents of a file, each cut to a model's context.

    Raises:
        AssentError: no file, or nothing in it.
    """
    examples = read_file(path).examples if _is_data_set(path) else ()
    demonstrations = [example for example in examples if isinstance(example, SFTExample)]
    if not demonstrations:
        demonstrations = [SFTExample(Prompt.plain(""), Completion(text)) for text in read_documents(path)]
    tokenized: list[TokenizedExample] = []
    left_out = LeftOut()
    for example in demonstrations:
        try:
            prompt, completion = tokenizer.encode(example.prompt, example.completion)
        except Unrenderable as error:
            left_out.add_unrenderable(example.prompt, str(error))
            continue
        if len(prompt) < max_length and completion:
            tokens = SharedPrefix(prompt, (completion[: max_length - len(prompt)],))
            tokenized.append(TokenizedExample(tokens, example.weight))
    if not tokenized:
        reason = f"no text of {path} fits the model's context of {max_length} tokens"
        if left_out.unrenderable:
            reason += f"; {left_out.unrenderable} cannot be encoded, the first {left_out.first}"
        raise AssentError(reason)
    left_out.report()
    return tokenized


def _is_data_set(path: str) -> bool:
    """Return whether a path names rows: a JSON, table, Parquet or Arrow file, a folder, or a data set of the hub."""
    return is_hub_name(path) or Path(path).is_dir() or path.removesuffix(".gz").endswith(DATA_SUFFIXES)


def _read_row_texts(path: str) -> list[str]:
    """Return the completions of demonstrations and ratings, else the prompts."""
    result = read_file(path)
    if not result.examples:
        return [prompt.text for prompt in result.prompts]
    return [
        example.completion.text if isinstance(example, SFTExample | ScoredCompletion) else example.prompt.text
        for example in result.examples
    ]
