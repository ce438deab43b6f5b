"""The one place where conversations become token ids, for every stage; see `tokenizer_checks.py` for its contract."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from assent.errors import AssentError, warn
from assent.models.chat_template import ChatTemplate
from assent.models.rendering import DEFAULT_RENDERING, Rendering, Unrenderable
from assent.models.text_encoding import ControlTokens, TextEncoder
from assent.records import Completion, Prompt, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_END_TOKEN = "the tokenizer has no end token, completions could never end; give it an eos_token"


class Encoded(NamedTuple):
    """A prompt and one completion of it as token ids; only the completion is trained on."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True)
class ChatTokenizer:
    """Encodes prompts and completions, and decodes completions, for one tokenizer, which it never changes."""

    tokenizer: "PreTrainedTokenizerBase"
    rendering: Rendering = DEFAULT_RENDERING
    model_stop_ids: frozenset[int] = frozenset()
    """End tokens that the model's own configuration names, beside the tokenizer's."""
    is_reward_model: bool = False
    """A reward model scores a completion alike whichever end token was sampled, and whatever its text spells."""
    num_embeddings: int = 0
    """Rows of the model's embedding: a policy may sample ids that its tokenizer has no name for. 0: one a name."""

    @cached_property
    def control_tokens(self) -> ControlTokens:
        """Return the tokens that a text must not become."""
        return ControlTokens(self.tokenizer, self.rendering)

    @cached_property
    def template(self) -> ChatTemplate:
        """Return the chat template; a tokenizer for plain text has an empty one."""
        return ChatTemplate(self.tokenizer, self.rendering, self.model_stop_ids, self.control_tokens, self._encoder)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end a completion: the tokenizer's, the model's, and the one that closes a turn."""
        eos = self.tokenizer.eos_token_id
        turn_end = self.template.turn_format.end_id
        # a configuration may name ids of another vocabulary
        special = self.model_stop_ids & self.control_tokens.names.keys()
        return frozenset({*special, *([] if eos is None else [int(eos)]), *([] if turn_end is None else [turn_end])})

    @cached_property
    def pad_id(self) -> int | None:
        """Return the tokenizer's pad token, if it ends nothing. assent pads by position; other programs need it."""
        pad = self.tokenizer.pad_token_id
        return None if pad is None or pad in self.stop_ids or pad >= len(self.tokenizer) else int(pad)

    @cached_property
    def fingerprint(self) -> str:
        """Return a name for the vocabulary: token ids mean the same where it is the same."""
        return content_id("vocabulary", self.tokenizer.get_vocab())

    @property
    def eos_id(self) -> int:
        """Return the tokenizer's end token.

        Raises:
            AssentError: it has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise AssentError(NO_END_TOKEN)
        return int(self.tokenizer.eos_token_id)

    def end_id(self, prompt: Prompt) -> int:
        """Return the token that closes a completion of a prompt."""
        turn_end = self.template.turn_format.end_id
        return self.eos_id if prompt.is_plain or turn_end is None else turn_end

    def encode_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the ids of a prompt, rendered up to where the completion begins.

        Raises:
            Unrenderable: the template refuses the conversation, or a text holds a control token.
        """
        if prompt.is_plain:
            bos = self.tokenizer.bos_token_id
            return (self.eos_id if bos is None else int(bos), *self._encoder.encode(self._check_plain(prompt.text)))
        return self._encoder.encode(self.template.render(prompt))

    def encode_completion(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]:
        """Return the ids of a completion; the end token closes it if it is finished."""
        sampled = self._sampled_ids(prompt, completion)
        return sampled if sampled is not None else self.encode(prompt, completion).completion_ids

    def encode(self, prompt: Prompt, completion: Completion) -> Encoded:
        """Return the ids of a prompt and a completion: the sampled ids, where they are of this vocabulary.

        Raises:
            Unrenderable: see `encode_prompt`.
        """
        if (sampled := self._sampled_ids(prompt, completion)) is not None:
            return Encoded(self.encode_prompt(prompt), sampled)
        prompt_ids, ids = self.encode_untrimmed(prompt, completion)
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), None)
        return Encoded(prompt_ids, ids if end is None else ids[: end + 1])

    def encode_untrimmed(self, prompt: Prompt, completion: Completion) -> Encoded:
        """Return the ids of a prompt and of all that its rendering adds with a completion, also after the end token.

        A truncated completion is encoded as it stands, without the template: it was sampled so.

        Raises:
            Unrenderable: see `encode_prompt`.
        """
        if prompt.is_plain:
            ids = self._encoder.encode_continuation(self._check_plain(completion.text))
            return Encoded(self.encode_prompt(prompt), (*ids, self.eos_id) if completion.finished else ids)
        rendered_prompt = self.template.render(prompt)
        prompt_ids = self._encoder.encode(rendered_prompt)
        if not completion.finished:
            text = self.control_tokens.escape(completion.text)
            return Encoded(prompt_ids, self._encoder.encode_continuation(text))
        rendered = self.template.render(prompt, completion)
        added = self.template.completion_text(rendered_prompt, rendered, completion)
        all_ids = self._encoder.encode(rendered)
        # White space at the head of a completion can merge into the prompt's last token; it was sampled apart from it.
        is_prefix = all_ids[: len(prompt_ids)] == prompt_ids
        ids = all_ids[len(prompt_ids) :] if is_prefix else self._encoder.encode_continuation(added)
        turn = self.template.turn_format
        closing = [] if turn.is_end_in_tail or turn.end_id is None else [turn.end_id]
        return Encoded(prompt_ids, (*ids, *closing))

    def to_completion(self, prompt: Prompt, ids: Sequence[int], finished: bool) -> Completion:
        """Return sampled ids as a completion: its text is for readers, its ids are what is trained."""
        return Completion(self.decode(ids, prompt), finished, {}, tuple(ids), self.fingerprint)

    def decode(self, ids: Sequence[int], prompt: Prompt) -> str:
        """Return the text of a completion without its end token; after the prompt's text it reads as it was sampled."""
        anchors = self._encoder.anchors
        before = anchors[0][1] if prompt.is_plain and anchors else []
        text = self.decode_visible([*before, *ids])
        head = self.decode_visible(before)
        return text[len(head) :] if text.startswith(head) else self.decode_visible(ids)

    def decode_visible(self, ids: Sequence[int]) -> str:
        """Return the text of ids without control tokens and end tokens."""
        visible = [token for token in ids if token not in self._hidden_ids]
        return str(self.tokenizer.decode(visible, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def refusal_reason(self, prompt: Prompt, completions: Iterable[Completion] = ()) -> str:
        """Return why a row cannot be encoded; empty if it can. The row is rendered for that, and not tokenized."""
        try:
            rendered_prompt = self._check_plain(prompt.text) if prompt.is_plain else self.template.render(prompt)
            for completion in completions:
                if prompt.is_plain:
                    self._check_plain(completion.text)
                elif completion.finished and self._sampled_ids(prompt, completion) is None:
                    rendered = self.template.render(prompt, completion)
                    self.template.completion_text(rendered_prompt, rendered, completion)
        except Unrenderable as error:
            return str(error)
        return ""

    def select_renderable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts that can be encoded, and warn about the others.

        Raises:
            AssentError: none of them can.
        """
        reasons = [self.refusal_reason(prompt) for prompt in prompts]
        refused = [(prompt, reason) for prompt, reason in zip(prompts, reasons, strict=True) if reason]
        if refused:
            first = f"cannot be encoded; the first, {refused[0][0].text[:60]!r}: {refused[0][1]}"
            if len(refused) == len(prompts):
                raise AssentError(f"all {len(prompts)} prompts {first}")
            warn(f"{len(refused)} of {len(prompts)} prompts are left out, which {first}")
        return [prompt for prompt, reason in zip(prompts, reasons, strict=True) if not reason]

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.tokenizer)

    @cached_property
    def _hidden_ids(self) -> frozenset[int]:
        """Return the ids that do not show in a text."""
        return frozenset({*self.control_tokens.spellings, *self.stop_ids})

    def _check_plain(self, text: str) -> str:
        """Return a plain text, or refuse one that spells a control token: it may be a rendered conversation."""
        if self.is_reward_model:
            return str(self.control_tokens.escape(text))
        if spelled := self.control_tokens.find(text):
            raise Unrenderable(
                f"plain text spells the control token {spelled[0]!r}: give a conversation as messages, or leave it out"
            )
        return text

    def _sampled_ids(self, prompt: Prompt, completion: Completion) -> tuple[int, ...] | None:
        """Return the ids that were sampled, if they are of this vocabulary; a reward model reads the end it knows."""
        ids = completion.token_ids
        vocab_size = self.num_embeddings or len(self.tokenizer)
        if not ids or completion.tokenizer != self.fingerprint or max(ids) >= vocab_size:
            return None
        if not (self.is_reward_model and completion.finished and ids[-1] in self.stop_ids):
            return ids
        return (*ids[:-1], self.end_id(prompt))


def read_chat_tokenizer(place: str, rendering: Rendering = DEFAULT_RENDERING) -> ChatTokenizer:
    """Return the tokenizer of a model, with the end tokens that the model's configurations name.

    Args:
        place: a folder or a hub id, as `locate` gives it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    return ChatTokenizer(tokenizer, rendering, _configured_stop_ids(place))


def load_chat_tokenizer(model: str, rendering: Rendering = DEFAULT_RENDERING) -> ChatTokenizer:
    """Return a model's tokenizer alone, which is quick even where the model is large.

    Args:
        model: a folder, a hub id or a `.gguf` file.

    Raises:
        AssentError: there is no model there, or no tokenizer with it.
    """
    from assent.models.checkpoints import locate, silence_transformers

    with silence_transformers():
        place = locate(model)
        try:
            return read_chat_tokenizer(place, rendering)
        except Exception as error:  # noqa: BLE001 (a broken file makes libraries raise any kind)
            line = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise AssentError(f"cannot load the tokenizer of {place}: {line}") from None


def _configured_stop_ids(place: str) -> frozenset[int]:
    """Return `eos_token_id` of config.json, of its text part, and of generation_config.json, one or several each."""
    from transformers import PreTrainedConfig
    from transformers.utils.hub import cached_file

    config = PreTrainedConfig.get_config_dict(place)[0]
    path = cached_file(place, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    tables = [config, config.get("text_config") or {}]
    if path is not None:
        with open(path, encoding="utf-8") as file:  # read as it is: version 5 refuses some that others wrote
            tables.append(json.load(file))
    values = [table.get("eos_token_id") for table in tables]
    lists = [ids if isinstance(ids, list) else [ids] for ids in values]
    return frozenset(int(token) for ids in lists for token in ids if isinstance(token, int))
