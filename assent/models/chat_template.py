"""The chat template of a tokenizer: its arguments, its rendering of conversations, and what it writes around a turn."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from assent.errors import AssentError
from assent.models.rendering import Rendering, Unrenderable
from assent.models.text_encoding import ControlTokens, TextEncoder
from assent.records import REASONING, Completion, Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Spaces at the edges: a template that strips some turns and not others shows itself.
PROBE = (Message("user", " Name a bird. "), Message("assistant", " A wren. "), Message("user", " Another? "))
PROBE_COMPLETION = "An owl."
MARKER = "assent"
"""A completion that no template changes."""
THOUGHTS = re.compile(r"<(\|?)(\w*think\w*)\|?>(\s*<(?:/\2|\|END_\w*THINK\w*\|)>)?\s*$", re.IGNORECASE)
"""A generation prompt that opens thoughts (DeepSeek R1, Qwen3 Thinking), or leaves them empty (Command R7B)."""
DATE_CALL = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(['"])([^'"]*)\1\s*\)""")
"""How templates ask for the date; transformers gives them the time of day."""
GENERATION_TAG = re.compile(r"{%-?\s*(?:end)?generation\s*-?%}")
"""A tag of transformers that marks the assistant's words; Jinja does not know it."""
STANDARD_NAMES = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"}
"""Names that transformers passes to every chat template."""


class TurnFormat(NamedTuple):
    """What a template writes around a completion."""

    lead: str | None = None
    """Between the prompt and the completion; None: with a completion it writes the prompt differently."""
    tail: str = ""
    """After the completion."""
    end_id: int | None = None
    """The special token that closes the turn."""
    is_end_in_tail: bool = True
    """If not, the end token opens the next turn (GLM 4), and is appended to a finished completion."""


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one tokenizer, rendered with the settings of a run."""

    tokenizer: "PreTrainedTokenizerBase"
    rendering: Rendering
    model_stop_ids: frozenset[int]
    control_tokens: ControlTokens
    encoder: TextEncoder

    @cached_property
    def arguments(self) -> frozenset[str]:
        """Return the arguments that the template reads, beside the conversation, its tools and the special tokens."""
        from jinja2 import Environment, TemplateSyntaxError, meta, nodes
        from jinja2.defaults import DEFAULT_NAMESPACE

        if self.tokenizer.chat_template is None:
            return frozenset()
        try:
            text = GENERATION_TAG.sub("", self.text())
            tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
        except (TemplateSyntaxError, Unrenderable):  # reported by `check_tokenizer`
            return frozenset()
        tests = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
        defaults = {node.name for node in tests if isinstance(node, nodes.Name)}  # `x is defined`, or else set here
        assigned = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"} - defaults
        names = meta.find_undeclared_variables(tree) - assigned
        special_tokens = set(self.tokenizer.SPECIAL_TOKENS_ATTRIBUTES)
        return frozenset(names - STANDARD_NAMES - DEFAULT_NAMESPACE.keys() - special_tokens)

    def text(self, tools: bool = False) -> str:
        """Return the template (with `tools`, the one for tools if there is one) with the run's date for the clock.

        Raises:
            Unrenderable: there are several, and none of them is the default.
        """
        try:
            text = str(self.tokenizer.get_chat_template(tools=[{}] if tools else None))
        except ValueError as error:
            raise Unrenderable(str(error).strip().partition("\n")[0]) from None
        return DATE_CALL.sub(lambda call: json.dumps(self.rendering.strftime(call[2]), ensure_ascii=False), text)

    def render(self, prompt: Prompt, completion: Completion | None = None) -> str:
        """Return a conversation as text, without or with the completion; `BREAK` splits control tokens.

        Raises:
            Unrenderable: there is no template, or it refuses the conversation.
        """
        if self.tokenizer.chat_template is None:
            raise Unrenderable(
                "these prompts are conversations but the tokenizer has no chat template: "
                "use a chat model, or plain-text prompts"
            )
        messages = [message.to_dict() for message in prompt.messages]
        if completion is not None:
            messages.append({"role": "assistant", "content": completion.text, **completion.extra})
        return self._apply(messages, [*prompt.tools], generation=completion is None)

    def completion_text(self, rendered_prompt: str, rendered: str, completion: Completion) -> str:
        """Return the text after the prompt: as the template writes it, or else the completion in its turn format.

        Some templates write the prompt differently with a completion than without one. Completions are sampled after
        the prompt without one, so the text that follows that prompt is trained.

        Args:
            rendered_prompt: rendering without the completion.
            rendered: rendering with it.

        Raises:
            Unrenderable: the two do not agree, and no rule is known for this template.
        """
        if rendered.startswith(rendered_prompt):
            return rendered[len(rendered_prompt) :]
        if self.turn_format.lead is not None and not completion.extra:
            return self.turn_format.lead + str(self.control_tokens.escape(completion.text)) + self.turn_format.tail
        if self.turn_format.lead is None and (opened := THOUGHTS.search(rendered_prompt)):
            return self._after_thoughts(opened, completion) + self.turn_format.tail
        raise Unrenderable(
            "with a completion the chat template writes a different prompt than without one, so the trained tokens "
            "would not be the sampled ones; use another template"
        )

    @cached_property
    def turn_format(self) -> TurnFormat:
        """Return the text around a completion, taken from a conversation of one turn and from a longer one."""
        if self.tokenizer.chat_template is None:
            return TurnFormat()
        question: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
        answered = [*question, {"role": "assistant", "content": MARKER}]
        try:
            before = self._apply(question, [], generation=True)
            whole = self._apply(answered, [], generation=False)
        except AssentError:  # reported by `check_tokenizer`
            return TurnFormat()
        head, _, tail = whole.rpartition(MARKER)
        thoughts = THOUGHTS.search(before)
        if thoughts and thoughts[3] and not head.startswith(before):  # empty thoughts, which a completion is without
            before = before[: thoughts.start()]
        lead = head[len(before) :] if head.startswith(before) else None
        try:
            longer_tail = self._apply([*answered, *question], [], generation=False).rpartition(MARKER)[2]
        except AssentError:  # a template may take one question only
            longer_tail = ""
        end_id = self._find_end(tail, longer_tail)
        if end_id is not None or not longer_tail:
            return TurnFormat(lead, tail, end_id)
        stop_ids = {*self.model_stop_ids, self.tokenizer.eos_token_id}
        opening = next((token for token in self.encoder.encode(longer_tail)[:1] if token in stop_ids), None)
        return TurnFormat(lead, tail, opening, is_end_in_tail=False)

    def describe_thoughts(self) -> str:
        """Say in words what the template does with thoughts."""
        if self.tokenizer.chat_template is None:
            return "none"
        try:
            before = self.render(Prompt(PROBE))
            whole = self.render(Prompt(PROBE), Completion(PROBE_COMPLETION))
        except AssentError:
            return "not checked"
        if opened := THOUGHTS.search(before):
            if opened[3]:
                return "the prompt holds empty thoughts"
            if whole.startswith(before) and f"</{opened[2]}>" not in whole[len(before) :]:
                return "the prompt opens thoughts, and a completion is written inside them: close them in it"
            return "the prompt opens thoughts, and a completion without any closes them"
        if THOUGHTS.search(whole.rpartition(PROBE_COMPLETION)[0]):
            return "a completion without thoughts gets empty ones in front"
        template = self.text()
        key = next((key for key in REASONING if re.search(rf"""(?:\.|\[['"]){key}\b""", template)), "")
        return f"those in '{key}' of a message are written" if key else "none"

    def _apply(self, messages: list[dict[str, Any]], tools: list[Any], generation: bool) -> str:
        escape = self.control_tokens.escape
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{**escape(message), "role": message["role"]} for message in messages],
                    tools=escape(tools) or None,
                    chat_template=self.text(bool(tools)),
                    tokenize=False,
                    add_generation_prompt=generation,
                    **self.rendering.arguments,
                )
            )
        except Exception as error:  # noqa: BLE001 (a template is a program and may raise anything)
            line = (str(error) or type(error).__name__).splitlines()[0]
            roles = ", ".join(str(message["role"]) for message in messages)
            raise Unrenderable(f"the chat template fails on turns of {roles}: {line}") from None

    def _after_thoughts(self, opened: re.Match[str], completion: Completion) -> str:
        """Return a completion after a prompt that opens thoughts, which the template's own rendering would drop."""
        tag = opened[2]
        text = completion.text
        closing = f"<|{tag.replace('START', 'END')}|>" if opened[1] else f"</{tag}>"
        thoughts = next((str(completion.extra[key]) for key in REASONING if completion.extra.get(key)), "")
        if thoughts or closing not in text:
            text = f"{thoughts}\n{closing}\n\n{text}"
        return str(self.control_tokens.escape(text))

    def _find_end(self, tail: str, longer_tail: str) -> int | None:
        """Return the token that closes a turn: the last special one that follows a completion in both conversations.

        Phi-3 writes another end after the whole conversation; Cohere closes the response before the turn.
        """
        special = self.control_tokens.names
        last = self.encoder.encode(tail)
        inside = self.encoder.encode(longer_tail)
        same = next((i for i, (a, b) in enumerate(zip(last, inside, strict=False)) if a != b), len(last))
        shared = [token for token in last[:same] if token in special] if inside else []
        return shared[-1] if shared else next((token for token in last if token in special), None)
