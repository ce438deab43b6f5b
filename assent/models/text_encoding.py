"""From text to token ids and back to spelling: continuations of a text, and control tokens that a text must not become.

A text that spells a control token, such as `<|im_end|>`, is data and not a control token. `ControlTokens.escape` puts
`BREAK` inside it before a template is rendered. `TextEncoder` splits the rendering there and encodes the parts as text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from assent.models.rendering import Rendering, Unrenderable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINKING_TOKEN = re.compile("think", re.IGNORECASE)
"""Part of the names of tokens that open and close thoughts."""
BREAK = "\ufdd0\ufdd1"
"""Noncharacters of Unicode that split a control token in the data while a template is rendered."""
BREAK_PATTERN = re.compile(BREAK + r"|\\ufdd0\\ufdd1")
"""`BREAK`, also as a template spells it that writes JSON in ASCII."""
ANCHORS = ("\n", "\x01", "~")
"""Characters after which a continuation is encoded; some tokenizers merge the first with what follows."""


@dataclass(frozen=True)
class TextEncoder:
    """Encodes text without special tokens, at the beginning of a text or as its continuation."""

    tokenizer: "PreTrainedTokenizerBase"

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text; what follows a `BREAK` continues it."""
        first, *continuations = BREAK_PATTERN.split(text)
        ids = self._token_ids(first)
        return (*ids, *(token for part in continuations for token in self.encode_continuation(part)))

    def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text that continues another, without the space that some tokenizers put in front."""
        first, *continuations = BREAK_PATTERN.split(text)
        ids = self._token_ids(first)
        for anchor, anchor_ids in self.anchors:
            anchored = self._token_ids(anchor + first)
            if anchored[: len(anchor_ids)] == anchor_ids:
                ids = anchored[len(anchor_ids) :]
                break
        return (*ids, *(token for part in continuations for token in self.encode_continuation(part)))

    @cached_property
    def anchors(self) -> list[tuple[str, list[int]]]:
        """Return `ANCHORS` and their ids for a tokenizer that puts a space in front of a text (Llama 2); else none."""
        tokens = self.tokenizer.convert_ids_to_tokens(self._token_ids("a"))
        if not (tokens and str(tokens[0]).startswith("\u2581")):
            return []
        return [(anchor, self._token_ids(anchor)) for anchor in ANCHORS]

    def _token_ids(self, text: str) -> list[int]:
        """Return the ids of a text; transformers would warn of one that is longer than the model's context."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of one tokenizer: its special tokens, and the tokens with which its template builds turns."""

    tokenizer: "PreTrainedTokenizerBase"
    rendering: Rendering

    @cached_property
    def names(self) -> dict[int, str]:
        """Return the control tokens by id."""
        added = self.tokenizer.added_tokens_decoder
        names = {i: str(token) for i, token in added.items() if token.special or i in self._turn_ids}
        ids = self.tokenizer.all_special_ids
        return names | dict(zip(ids, map(str, self.tokenizer.all_special_tokens), strict=True))

    @cached_property
    def spellings(self) -> dict[int, str]:
        """Return the control tokens that text must not become, by id.

        Marks of thoughts are none of them, because completions do hold them; nor is a token of a single character.
        """
        return {i: name for i, name in self.names.items() if len(name) > 1 and not THINKING_TOKEN.search(name)}

    def find(self, text: str) -> list[str]:
        """Return the control tokens that a text spells."""
        return sorted(set(self._pattern.findall(text)))

    def escape(self, value: Any) -> Any:
        """Return a value of a message with a `BREAK` in each control token that it spells.

        Raises:
            Unrenderable: it holds a `BREAK` of its own.
        """
        if isinstance(value, str):
            if BREAK in value:
                raise Unrenderable("a message holds U+FDD0 U+FDD1, which are no characters; remove them")
            return self._pattern.sub(lambda match: match[0][0] + BREAK + match[0][1:], value)
        if isinstance(value, Mapping):
            return {self.escape(key): self.escape(part) for key, part in value.items()}
        return [self.escape(part) for part in value] if isinstance(value, list | tuple) else value

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Return the pattern of all spellings, the longest first; one that matches nothing if there are none."""
        spellings = sorted(self.spellings.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, spellings)) or r"(?!)")

    @cached_property
    def _turn_ids(self) -> frozenset[int]:
        """Return the added tokens with which the template builds turns, special or not."""
        roles = ("user", "assistant", "user")
        turns = [{"role": role, "content": letter} for role, letter in zip(roles, "abc", strict=True)]
        if self.tokenizer.chat_template is None:
            return frozenset()
        try:
            text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, **self.rendering.arguments))
        except Exception:  # noqa: BLE001 (a template is a program and may raise anything; `check_tokenizer` reports it)
            return frozenset()
        added = {i: str(token).strip() for i, token in self.tokenizer.added_tokens_decoder.items()}
        ids = set(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return frozenset(i for i in ids & added.keys() if added[i] and not added[i].isalnum())
