"""The one place where text becomes numbers, for every stage; what a template gets wrong is caught here, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from assent.errors import AssentError
from assent.records import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Spaces at the edges: a template that strips some turns and not others shows itself.
PROBE = (Message("user", " Name a bird. "), Message("assistant", " A wren. "), Message("user", " Another? "))
ANSWER = "An owl."
NO_END = "the tokenizer has no end token, completions could never end: give it an eos_token"


class Encoded(NamedTuple):
    """A prompt and one completion of it as token ids; only the completion is trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class Point(NamedTuple):
    """One promise of the contract, kept or not."""

    name: str
    ok: bool | None
    """None: not to be told, because another promise is broken."""
    detail: str
    """What was found; if the promise is broken, what to do."""


@dataclass(frozen=True)
class Codec:
    """Encodes and decodes for one tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"

    @cached_property
    def ends(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's end token and the token with which its template closes a turn."""
        eos = self.tokenizer.eos_token_id
        return frozenset({*([] if eos is None else [int(eos)]), *self._turn_end()})

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Ids of a prompt, rendered up to where the answer begins."""
        if is_plain(prompt):
            ids = self._ids(prompt.text)
            start = self.tokenizer.bos_token_id
            return (self._eos() if start is None else int(start), *ids)
        return self._ids(self._text(_turns(prompt), generation=True))

    def completion(self, prompt: Prompt, text: str, finished: bool = True) -> tuple[int, ...]:
        """Ids of a completion; the end token closes it if the answer is `finished`."""
        return self.encode(prompt, text, finished).completion

    def encode(self, prompt: Prompt, text: str, finished: bool = True) -> Encoded:
        """Ids of a prompt and a completion."""
        before, ids = self.rendered(prompt, text)
        end = next((i for i, token in enumerate(ids) if token in self.ends), None)
        return Encoded(before, ids if end is None else ids[: end + 1 if finished else end])

    def rendered(self, prompt: Prompt, text: str) -> Encoded:
        """Ids of a prompt and of all that its rendering with an answer adds, what stands behind the end too.

        Raises:
            AssentError: the template fails, or its rendering with the answer does not begin with the prompt.
        """
        if is_plain(prompt):
            return Encoded(self.prompt(prompt), (*self._ids(text), self._eos()))
        before = self._text(_turns(prompt), generation=True)
        whole = self._answered(prompt, text)
        start, full = self._ids(before), self._ids(whole)
        if full[: len(start)] == start:
            return Encoded(start, full[len(start) :])
        if whole.startswith(before):
            # White space at the head of an answer can melt into the prompt's last token; who drew it saw them apart.
            return Encoded(start, self._ids(whole[len(before) :]))
        raise AssentError(
            "the chat template breaks its own prompt: with an answer it does not begin as without one "
            "(see 'assent inspect'); use another template"
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion without its end token."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def check(self) -> list[Point]:
        """The five promises, (a) to (e), tried on a short conversation, or where there is no template on plain text."""
        plain = self.tokenizer.chat_template is None
        probe, pad = Prompt.plain("Name a bird:") if plain else Prompt(PROBE), self._check_pad()
        prefix, end, bos, trained = (
            Point(name, None, "not to be told") for name in ("prefix", "end", "bos", "trained")
        )
        if self.tokenizer.eos_token_id is None:
            return [prefix, Point("end", False, NO_END), bos, pad, trained]
        try:
            start = self.prompt(probe)
            full = (
                (*start, *self.rendered(probe, ANSWER).completion)
                if plain
                else self._ids(self._answered(probe, ANSWER))
            )
        except AssentError as error:
            return [Point("prefix", False, f"{error}; use another template"), end, bos, pad, trained]
        prefix, bos = _check_prefix(start, full, plain), self._check_bos(full)
        if prefix.ok:
            end, trained = self._check_end(full[len(start) :]), self._check_trained(probe)
        return [prefix, end, bos, pad, trained]

    def require(self, name: str) -> None:
        """Refuse a tokenizer that fails the contract.

        Raises:
            AssentError: naming the model and what failed.
        """
        if failures := [f"{point.name}: {point.detail}" for point in self.check() if point.ok is False]:
            raise AssentError(f"the tokenizer of {name} fails the contract: {'; '.join(failures)}")

    def _check_end(self, added: Sequence[int]) -> Point:
        if end := [token for token in added if token in self.ends]:
            return Point("end", True, f"{self._name(end[0])} closes a trained completion")
        return Point(
            "end",
            False,
            "nothing ends a turn: the trained completion holds no end token, the policy would never stop; "
            f"let the template write {self._name(self._eos())} after an answer",
        )

    def _check_bos(self, full: Sequence[int]) -> Point:
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return Point("bos", True, "the tokenizer has no BOS token, and none is written")
        name, adds = self._name(bos), bos in self.tokenizer("")["input_ids"]
        if list(full[:2]) == [bos, bos]:
            found = f"the conversation begins with two BOS tokens {name}: take one out of the template"
            return Point("bos", False, found)
        if adds and full[:1] != (bos,):
            found = f"the conversation does not begin with the BOS token {name} that the model was trained with"
            return Point("bos", False, f"{found}: write it at the head of the template")
        return Point(
            "bos", True, f"{name} stands once at the head" if full[:1] == (bos,) else "none, and none is expected"
        )

    def _check_pad(self) -> Point:
        pad = self.tokenizer.pad_token_id
        if pad is None:
            return Point("pad", True, "the tokenizer has none: one that ends nothing is chosen when a model is loaded")
        if pad in self.ends:
            return Point(
                "pad",
                False,
                f"the pad token is the end token {self._name(pad)}: a plain transformers reward model would score the "
                "wrong token; give it another pad_token",
            )
        return Point("pad", True, f"{self._name(pad)} pads, and ends nothing")

    def _check_trained(self, probe: Prompt) -> Point:
        ids = self.completion(probe, ANSWER)
        if ids and ANSWER in self.decode(ids):
            return Point("trained", True, f"all of the answer is trained, {len(ids)} tokens with its end")
        found = "the answer is not in what follows the prompt" if ids else "no token of the answer is trained"
        return Point("trained", False, f"{found}: let the template write a message's content as it is")

    def _text(self, turns: list[dict[str, str]], generation: bool) -> str:
        if self.tokenizer.chat_template is None:
            raise AssentError(
                "these prompts are conversations but the tokenizer has no chat template: "
                "use a chat model, or plain-text prompts"
            )
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation))
        except Exception as error:  # noqa: BLE001 (templates are programs of strangers)
            line = (str(error) or type(error).__name__).splitlines()[0]
            raise AssentError(
                f"the chat template fails on turns of {', '.join(t['role'] for t in turns)}: {line}"
            ) from None

    def _answered(self, prompt: Prompt, text: str) -> str:
        return self._text([*_turns(prompt), {"role": "assistant", "content": text}], generation=False)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _eos(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise AssentError(NO_END)
        return int(self.tokenizer.eos_token_id)

    def _name(self, token: int) -> str:
        return f"'{self.tokenizer.convert_ids_to_tokens(token)}'"

    def _turn_end(self) -> set[int]:
        """The special token that first follows an answer in the template's rendering, if there is one."""
        if self.tokenizer.chat_template is None:
            return set()
        mark = "assent"
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
        try:
            text = self._text(turns, generation=False)
        except AssentError:  # reported by check()
            return set()
        return set(self._ids(text[text.rfind(mark) + len(mark) :])[:1]) & set(self.tokenizer.all_special_ids)


def is_plain(prompt: Prompt) -> bool:
    """Whether a prompt is text to be continued, not a conversation."""
    return prompt.messages[-1].role == "text"


def separate_pad(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Give a tokenizer whose pad token is missing, or ends an answer, another one; returns whether it needed one.

    A sequence classifier of transformers scores the last token that is not the pad token: were that the end token,
    it would score the token before the end. Where the vocabulary has no other special token, the first token that ends
    nothing serves: padding stands behind the end and is never looked at.
    """
    ends = Codec(tokenizer).ends
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return False
    spare = [token for token in sorted(tokenizer.all_special_ids) if token not in (*ends, tokenizer.bos_token_id)]
    pad = spare[0] if spare else next(token for token in range(len(ends) + 1) if token not in ends)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return True


def _check_prefix(start: Sequence[int], full: Sequence[int], plain: bool) -> Point:
    if tuple(full[: len(start)]) != tuple(start):
        return Point(
            "prefix",
            False,
            "with an answer the rendering does not begin with the prompt's own ids: use a template that writes a turn "
            "the same wherever it stands, and opens an answer as its generation prompt does",
        )
    how = (
        "prompt and answer are tokenised apart"
        if plain
        else "with an answer the rendering begins with the prompt's ids"
    )
    return Point("prefix", True, how)


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]
