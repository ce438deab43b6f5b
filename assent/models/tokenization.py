"""The one place where text becomes numbers, for every stage; what a template gets wrong is caught here, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from assent.errors import AssentError
from assent.records import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoded(NamedTuple):
    """A prompt and one completion of it as token ids; only the completion is trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


@dataclass(frozen=True)
class Codec:
    """Encodes and decodes for one tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"

    @property
    def ends(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's end token and the token with which its template closes a turn."""
        return frozenset({int(self.tokenizer.eos_token_id), *self._turn_end()})

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Ids of a prompt, rendered up to where the answer begins."""
        if is_plain(prompt):
            ids = self.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
            start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
            return (start, *ids)
        return self._render(_turns(prompt), generation=True)

    def completion(self, prompt: Prompt, text: str, finished: bool = True) -> tuple[int, ...]:
        """Ids of a completion; the end token closes it if the answer is `finished`."""
        if is_plain(prompt):
            ids = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            return (*ids, int(self.tokenizer.eos_token_id)) if finished else ids
        start = self._render(_turns(prompt), generation=True)
        full = self._render([*_turns(prompt), {"role": "assistant", "content": text}], generation=False)
        if full[: len(start)] != start:
            raise AssentError(
                "the chat template breaks its own prompt: with an answer it does not begin as without one "
                "(see 'assent inspect'); use another template"
            )
        ids = full[len(start) :]
        end = next((i for i, token in enumerate(ids) if token in self.ends), None)
        if end is None:
            return ids
        return ids[: end + 1] if finished else ids[:end]

    def encode(self, prompt: Prompt, text: str, finished: bool = True) -> Encoded:
        """Ids of a prompt and a completion."""
        return Encoded(self.prompt(prompt), self.completion(prompt, text, finished))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion without its end token."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def check(self) -> list[str]:
        """What the tokenizer and its template get wrong of the contract; nothing if all is well."""
        failures: list[str] = []
        if self.tokenizer.eos_token_id is None:
            return ["the tokenizer has no end token: completions could never end"]
        if self.tokenizer.pad_token_id == self.tokenizer.eos_token_id:
            failures.append("the pad token is the end token: a plain transformers reward model would score the wrong token")
        if self.tokenizer.chat_template is None:
            return failures
        probe = Prompt((Message("user", "Name a bird."), Message("assistant", "A wren."), Message("user", "Another?")))
        try:
            start = self._render(_turns(probe), generation=True)
            full = self._render([*_turns(probe), {"role": "assistant", "content": "An owl."}], generation=False)
        except Exception as error:  # templates are programs of strangers: any of their errors is a finding
            return [*failures, f"the chat template fails on a plain conversation: {error}"]
        if full[: len(start)] != start:
            failures.append("with an answer the rendering does not begin with the prompt's own ids")
        elif not any(token in self.ends for token in full[len(start) :]):
            failures.append("nothing ends a turn: the trained completion holds no end token, the policy would never stop")
        elif "owl" not in self.tokenizer.decode(list(full[len(start) :])):
            failures.append("the answer is not in what follows the prompt")
        bos = self.tokenizer.bos_token_id
        if bos is not None and list(full[:2]) == [bos, bos]:
            failures.append("the conversation begins with two BOS tokens")
        elif bos is not None and bos in self.tokenizer("")["input_ids"] and full[0] != bos:
            failures.append("the conversation does not begin with the BOS token that the model was trained with")
        return failures

    def require(self, name: str) -> None:
        """Refuse a tokenizer that fails the contract.

        Raises:
            AssentError: naming the model and what failed.
        """
        if failures := self.check():
            raise AssentError(f"the tokenizer of {name} fails the contract: {'; '.join(failures)}")

    def _render(self, turns: list[dict[str, str]], generation: bool) -> tuple[int, ...]:
        if self.tokenizer.chat_template is None:
            raise AssentError(
                "these prompts are conversations but the tokenizer has no chat template: "
                "use a chat model, or plain-text prompts"
            )
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _turn_end(self) -> set[int]:
        """The special token that first follows an answer in the template's rendering, if there is one."""
        if self.tokenizer.chat_template is None:
            return set()
        mark = "assent"
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
        try:
            text = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception:  # reported by check()
            return set()
        after = self.tokenizer(text[text.rfind(mark) + len(mark) :], add_special_tokens=False)["input_ids"]
        return set(after[:1]) & set(self.tokenizer.all_special_ids)


def is_plain(prompt: Prompt) -> bool:
    """Whether a prompt is text to be continued, not a conversation."""
    return prompt.messages[-1].role == "text"


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]
