"""Print examples as tokens, and facts and check results about models."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from assent.models.tokenizer import ChatTokenizer
from assent.models.tokenizer_checks import CheckResult
from assent.records import Completion, Prompt
from assent.tools.output.printing import printable

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedTokenizerBase

    from assent.models.inspection import Fact

STYLES = {
    "prompt": ("grey50", "grey62"),
    "trained": ("bold white on dark_green", "bold white on green4"),
    "end": ("bold black on yellow",),
    "untrained": ("grey35 strike",),
}
"""Neighbours alternate between the styles, so that each token is visible."""
MARKS = {"prompt": ("", ""), "trained": ("[", "]"), "end": ("[", " <- end]"), "untrained": ("(", ")")}
"""Marks before and after a token, without colour."""


class InspectedExample(NamedTuple):
    """A prompt with a completion to show as tokens."""

    title: str
    prompt: Prompt
    completion: Completion | None
    """None: a prompt alone."""


@dataclass(frozen=True)
class ExampleTokens:
    """The token ids of an example."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...] = ()
    """Trained, with the end token."""
    untrained_ids: tuple[int, ...] = ()
    """Written by the chat template after the end."""

    @classmethod
    def encode(cls, tokenizer: ChatTokenizer, example: InspectedExample) -> "ExampleTokens":
        """Return the tokens of an example.

        Raises:
            AssentError: the chat template refuses it.
        """
        prompt_ids = tuple(tokenizer.encode_prompt(example.prompt))
        if example.completion is None:
            return cls(prompt_ids)
        completion_ids = tuple(tokenizer.encode_completion(example.prompt, example.completion))
        if not example.completion.finished:
            return cls(prompt_ids, completion_ids)
        untrimmed = tokenizer.encode_untrimmed(example.prompt, example.completion).completion_ids
        return cls(prompt_ids, completion_ids, tuple(untrimmed[len(completion_ids) :]))

    def part(self, index: int, stop_ids: frozenset[int]) -> str:
        """Return the part of a token by its index: a key of `STYLES`."""
        end = len(self.prompt_ids) + len(self.completion_ids)
        if index < len(self.prompt_ids):
            return "prompt"
        if index >= end:
            return "untrained"
        return "end" if self.completion_ids[index - len(self.prompt_ids)] in stop_ids else "trained"

    def describe(self, completion: Completion | None) -> str:
        """Return the ranges of prompt and completion in words."""
        num_prompt = len(self.prompt_ids)
        num_trained = len(self.completion_ids)
        prompt = f"prompt 0-{num_prompt - 1} ({_count_tokens(num_prompt)})"
        if completion is None:
            return f"{prompt}, no completion"
        if not num_trained:
            return f"{prompt}, nothing trained: the completion is empty and truncated"
        trained = f"trained {num_prompt}-{num_prompt + num_trained - 1} ({_count_tokens(num_trained)})"
        truncated = "" if completion.finished else ", truncated"
        num_untrained = len(self.untrained_ids)
        after = f"; {_count_tokens(num_untrained)} after the end, not trained" if num_untrained else ""
        return f"{prompt}, {trained}{truncated}{after}"


def print_example(
    console: "Console", tokenizer: ChatTokenizer, example: InspectedExample, show_ids: bool = False
) -> None:
    """Print an example token by token.

    Raises:
        AssentError: the chat template refuses it.
    """
    from rich.text import Text

    tokens = ExampleTokens.encode(tokenizer, example)
    console.print(f"{printable(example.title)}: {tokens.describe(example.completion)}")
    has_colour = console.color_system is not None and not console.no_color
    special_ids = set(tokenizer.tokenizer.all_special_ids)
    stop_ids = frozenset(tokenizer.stop_ids)
    line = Text()
    for index, token in enumerate((*tokens.prompt_ids, *tokens.completion_ids, *tokens.untrained_ids)):
        part = tokens.part(index, stop_ids)
        text = _token_text(tokenizer.tokenizer, token)
        if has_colour:
            reverse = " reverse" if token in special_ids and part == "prompt" else ""
            line.append(printable(text), STYLES[part][index % len(STYLES[part])] + reverse)
            line.append(f" {token} " if show_ids else "", "grey35")
        else:
            before, after = MARKS[part]
            line.append(f"{before}{printable(text)}{f'={token}' if show_ids else ''}{after}")
            line.append(" " if show_ids else "")
        if text.endswith("\n"):
            line.append("\n")
    line.rstrip()
    console.print(line)


def _count_tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _token_text(tokenizer: "PreTrainedTokenizerBase", token: int) -> str:
    """Return the text of a token, with the space that SentencePiece writes as U+2581 and drops when it decodes."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return piece.replace("\u2581", " ") if "\u2581" in piece else str(tokenizer.decode([token]))


def print_checks(console: "Console", results: list[CheckResult]) -> None:
    """Print the checks of a tokenizer, (a) to (e)."""
    from rich.text import Text

    labels = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("   ?", "yellow")}
    for letter, result in zip("abcde", results, strict=True):
        name = f"({letter}) {result.name:<8} "
        console.print(Text.assemble(name, labels[result.passed], f"  {printable(result.detail)}"))


def print_fact(console: "Console", fact: "Fact") -> bool:
    """Print a fact about a model, and return whether it is as expected."""
    from rich.text import Text

    text = f"{fact.name:<18} {printable(fact.text)}"
    console.print(Text(text if fact.is_ok else f"{text}  FAIL", "" if fact.is_ok else "bold red"))
    return fact.is_ok
