"""The one place where text becomes token ids, for every stage; a template that would train wrongly is refused here."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from assent.errors import AssentError, warn
from assent.records import Completion, Message, Prompt, content_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Spaces at the edges: a template that strips some turns and not others shows itself.
PROBE = (Message("user", " Name a bird. "), Message("assistant", " A wren. "), Message("user", " Another? "))
ANSWER = "An owl."
MARKER = "assent"
"""An answer that no template changes."""
NO_END = "the tokenizer has no end token, completions could never end: give it an eos_token"
THOUGHTS = re.compile(r"<(\|?)(\w*think\w*)\|?>(\s*<(?:/\2|\|END_\w*THINK\w*\|)>)?\s*$", re.IGNORECASE)
"""A generation prompt that opens thoughts (DeepSeek R1, Qwen3 Thinking), or leaves them empty (Command R7B)."""
CLOCK = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(['"])([^'"]*)\1\s*\)""")
"""How templates ask for the date; transformers gives them the time of day."""
GENERATION = re.compile(r"{%-?\s*(?:end)?generation\s*-?%}")
"""A tag of transformers' own, which marks what the assistant says."""
GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"}
"""Names that every chat template is given."""
THINK = re.compile("think", re.IGNORECASE)
"""Part of the names of tokens that open and close thoughts."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a message that hold its thoughts."""
BREAK = "\ufdd0\ufdd1"
"""Noncharacters of Unicode that part a control token that stands in the data, while a template is rendered."""
PARTED = re.compile(BREAK + r"|\\ufdd0\\ufdd1")
"""The same, as a template that writes JSON in ASCII spells it too."""
ANCHORS = ("\n", "\x01", "~")
"""Characters behind which a text is encoded as it goes on; some tokenizers merge the first with what follows."""


class Unrenderable(AssentError):
    """A conversation or text that this tokenizer cannot turn into a prompt: one row is at fault, not the model."""


class Encoded(NamedTuple):
    """A prompt and one completion of it as token ids; only the completion is trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class Point(NamedTuple):
    """The result of one check of the contract."""

    name: str
    ok: bool | None
    """None: not checked, because another check failed."""
    detail: str
    """What was checked; if it failed, what to do."""


@dataclass(frozen=True)
class Rendering:
    """How a chat template is rendered, alike in every stage of a run."""

    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of the template beside messages and tools, such as `enable_thinking`."""
    date: str = ""
    """The date that templates write (ISO 8601); empty: today."""

    @classmethod
    def parse(cls, arguments: str, date: str = "") -> "Rendering":
        """Read `enable_thinking=false,reasoning_effort=high`; values are JSON, or else text.

        Raises:
            AssentError: an argument without a name or value, or no date.
        """
        parsed: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in arguments.split(","))):
            name, equals, value = part.partition("=")
            if not (equals and name.strip().isidentifier()):
                raise AssentError(f"--template-args has '{part}': write name=value, such as enable_thinking=false")
            try:
                parsed[name.strip()] = json.loads(value)
            except ValueError:
                parsed[name.strip()] = {"True": True, "False": False}.get(value.strip(), value.strip())
        if date:
            _day(date)
        return cls(parsed, date)

    def strftime(self, pattern: str) -> str:
        """What `strftime_now` of a template writes: midnight of the date."""
        return (_day(self.date) if self.date else datetime.now(UTC).date()).strftime(pattern)


DEFAULT_RENDERING = Rendering()
"""Without arguments, today."""


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise AssentError(f"--date is '{text}': write it as 2026-11-30") from None


class _Turn(NamedTuple):
    """What a template writes around an answer."""

    lead: str | None = None
    """Between the prompt and the answer; None: it writes the prompt otherwise once there is an answer."""
    tail: str = ""
    """Behind the answer."""
    end: int | None = None
    """The special token that closes the turn."""
    written: bool = True
    """Whether it is in the tail; if not, it opens the next turn (GLM 4), and is added to a finished answer."""


@dataclass(frozen=True)
class ChatTokenizer:
    """Encodes and decodes for one tokenizer, which it never changes."""

    tokenizer: "PreTrainedTokenizerBase"
    rendering: Rendering = DEFAULT_RENDERING
    stops: frozenset[int] = frozenset()
    """End tokens that the model's own configuration names, beside the tokenizer's."""
    scores: bool = False
    """Whether it is a reward model's: an answer is scored alike whichever end was drawn, and whatever it spells."""
    rows: int = 0
    """Rows of the model's embedding: a policy may draw ids that its tokenizer has no name for. 0: as many as names."""

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer: of the tokenizer, of the model's configuration, and the one that closes a turn."""
        eos, turn = self.tokenizer.eos_token_id, self._turn.end
        special = self.stops & self._special.keys()  # a configuration may name ids of another vocabulary
        return frozenset({*special, *([] if eos is None else [int(eos)]), *([] if turn is None else [turn])})

    @cached_property
    def pad(self) -> int | None:
        """The tokenizer's pad token, if it ends nothing. Rows are padded by position: it matters to readers alone."""
        pad = self.tokenizer.pad_token_id
        return None if pad is None or pad in self.stop_ids or pad >= len(self.tokenizer) else int(pad)

    @cached_property
    def fingerprint(self) -> str:
        """A name for the vocabulary: token ids mean the same where it is the same."""
        return content_id("vocabulary", self.tokenizer.get_vocab())

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Ids of a prompt, rendered up to where the answer begins.

        Raises:
            Unrenderable: the template refuses the conversation, or a text holds a control token.
        """
        if prompt.is_plain:
            start = self.tokenizer.bos_token_id
            return (self._eos() if start is None else int(start), *self._ids(self._demand_plain(prompt.text)))
        return self._ids(self._render(prompt))

    def completion(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]:
        """Ids of a completion; the end token closes it if it is finished."""
        drawn = self._drawn(prompt, completion)
        return drawn if drawn is not None else self.encode(prompt, completion).completion

    def encode(self, prompt: Prompt, completion: Completion) -> Encoded:
        """Ids of a prompt and a completion: the ids that were drawn, where they are of this vocabulary.

        Raises:
            Unrenderable: see `prompt`.
        """
        if (drawn := self._drawn(prompt, completion)) is not None:
            return Encoded(self.prompt(prompt), drawn)
        before, ids = self.rendered(prompt, completion)
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), None)
        return Encoded(before, ids if end is None else ids[: end + 1])

    def rendered(self, prompt: Prompt, completion: Completion) -> Encoded:
        """Ids of a prompt and of all that its rendering with an answer adds, what stands behind the end too.

        An answer that was cut is encoded as it stands, without the template: it was drawn so.

        Raises:
            Unrenderable: see `prompt`.
            AssentError: the rendering with the answer does not begin with the prompt.
        """
        if prompt.is_plain:
            ids = self._continuation(self._demand_plain(completion.text))
            return Encoded(self.prompt(prompt), (*ids, self._eos()) if completion.finished else ids)
        before = self._render(prompt)
        start = self._ids(before)
        if not completion.finished:
            return Encoded(start, self._continuation(self._part(completion.text)))
        whole = self._render(prompt, completion)
        added, full = self._behind(before, whole, completion), self._ids(whole)
        # White space at the head of an answer can melt into the prompt's last token; who drew it saw them apart.
        ids = full[len(start) :] if full[: len(start)] == start else self._continuation(added)
        closing = [] if self._turn.written or self._turn.end is None else [self._turn.end]
        return Encoded(start, (*ids, *closing))

    def drawn(self, prompt: Prompt, ids: Sequence[int], finished: bool) -> Completion:
        """A completion as a policy drew it: its text to be read, its tokens to be trained."""
        return Completion(self.decode(ids, prompt), finished, {}, tuple(ids), self.fingerprint)

    def decode(self, ids: Sequence[int], prompt: Prompt) -> str:
        """Text of a completion without its end token, so that behind the prompt it reads as it was drawn."""
        before = self._anchors[0][1] if prompt.is_plain and self._anchors else []
        text, head = self._decode([*before, *ids]), self._decode(before)
        return text[len(head) :] if text.startswith(head) else self._decode(ids)

    def spelt(self, text: str) -> list[str]:
        """The control tokens that a text spells."""
        return sorted(set(self._control.findall(text)))

    def refusal(self, prompt: Prompt, completions: Iterable[Completion] = ()) -> str:
        """Why a row cannot be encoded; empty if it can. It is rendered for that, and not tokenised."""
        try:
            before = self._demand_plain(prompt.text) if prompt.is_plain else self._render(prompt)
            for completion in completions:
                if prompt.is_plain:
                    self._demand_plain(completion.text)
                elif completion.finished and self._drawn(prompt, completion) is None:
                    self._behind(before, self._render(prompt, completion), completion)
        except Unrenderable as error:
            return str(error)
        return ""

    def renderable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Those that can be encoded; the rest are counted on the terminal.

        Raises:
            AssentError: none of them can.
        """
        refusals = [self.refusal(prompt) for prompt in prompts]
        refused = [(prompt, why) for prompt, why in zip(prompts, refusals, strict=True) if why]
        if refused:
            first = f"cannot be encoded; the first, {refused[0][0].text[:60]!r}: {refused[0][1]}"
            if len(refused) == len(prompts):
                raise AssentError(f"all {len(prompts)} prompts {first}")
            warn(f"{len(refused)} of {len(prompts)} prompts are left out, which {first}")
        return [prompt for prompt, why in zip(prompts, refusals, strict=True) if not why]

    # What a template can do

    @cached_property
    def arguments(self) -> frozenset[str]:
        """Arguments that the chat template reads, beside the conversation, its tools and the special tokens."""
        from jinja2 import Environment, TemplateSyntaxError, meta, nodes
        from jinja2.defaults import DEFAULT_NAMESPACE

        if self.tokenizer.chat_template is None:
            return frozenset()
        try:
            text = GENERATION.sub("", self.template())
            tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
        except (TemplateSyntaxError, Unrenderable):  # reported by check()
            return frozenset()
        tests = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
        defaults = {node.name for node in tests if isinstance(node, nodes.Name)}  # `x is defined`, or else set here
        own = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"} - defaults
        names = meta.find_undeclared_variables(tree) - own
        return frozenset(names - GIVEN - DEFAULT_NAMESPACE.keys() - set(self.tokenizer.SPECIAL_TOKENS_ATTRIBUTES))

    def template(self, tools: bool = False) -> str:
        """The chat template, the one for tools where there is one, with the run's date in place of the clock.

        Raises:
            Unrenderable: there are several, and none of them is the default.
        """
        try:
            text = str(self.tokenizer.get_chat_template(tools=[{}] if tools else None))
        except ValueError as error:
            raise Unrenderable(str(error).strip().partition("\n")[0]) from None
        return CLOCK.sub(lambda call: json.dumps(self.rendering.strftime(call[2]), ensure_ascii=False), text)

    def thoughts(self) -> str:
        """What the template does with thoughts, in words."""
        if self.tokenizer.chat_template is None:
            return "none"
        try:
            before = self._render(Prompt(PROBE))
            whole = self._render(Prompt(PROBE), Completion(ANSWER))
        except AssentError:
            return "not checked"
        opened = THOUGHTS.search(before)
        if opened:
            if opened[3]:
                return "the prompt holds empty thoughts"
            inside = whole.startswith(before) and f"</{opened[2]}>" not in whole[len(before) :]
            how = (
                "an answer is written inside them: close them in it" if inside else "an answer without any closes them"
            )
            return f"the prompt opens thoughts, and {how}"
        if THOUGHTS.search(whole.rpartition(ANSWER)[0]):
            return "an answer without thoughts gets empty ones in front"
        template = self.template()
        reads = next((key for key in REASONING if re.search(rf"""(?:\.|\[['"]){key}\b""", template)), "")
        return f"those in '{reads}' of a message are written" if reads else "none"

    # The contract

    def check(self) -> list[Point]:
        """The five promises, (a) to (e), tried on a short conversation, or where there is no template on plain text."""
        plain = self.tokenizer.chat_template is None
        probe, pad = Prompt.plain("Name a bird:") if plain else Prompt(PROBE), self._check_pad()
        prefix, end, bos, trained = (Point(name, None, "not checked") for name in ("prefix", "end", "bos", "trained"))
        if self.tokenizer.eos_token_id is None and not self.stop_ids:
            return [prefix, Point("end", False, NO_END), bos, pad, trained]
        try:
            start, added = self.rendered(probe, Completion(ANSWER))
        except AssentError as error:
            return [Point("prefix", False, f"{error}; use another template"), end, bos, pad, trained]
        prefix = Point("prefix", True, self._how_prompts_begin(probe))
        return [prefix, self._check_end(added), self._check_bos((*start, *added)), pad, self._check_trained(probe)]

    def require(self, name: str) -> None:
        """Refuse a tokenizer that fails the contract.

        Raises:
            AssentError: naming the model and what failed.
        """
        if failures := [f"{point.name}: {point.detail}" for point in self.check() if point.ok is False]:
            raise AssentError(f"the tokenizer of {name} fails the contract: {'; '.join(failures)}")
        for argument in self.rendering.arguments:
            if argument not in self.arguments:
                known = f" (it reads {', '.join(sorted(self.arguments))})" if self.arguments else ""
                warn(f"the chat template of {name} has no argument '{argument}'{known}: it is ignored")
        if self.tokenizer.chat_template is not None and "strftime_now(" in self.template():
            warn(f"the chat template of {name} asks for the time in a way of its own: prompts change with the clock")

    def _how_prompts_begin(self, probe: Prompt) -> str:
        if probe.is_plain:
            return "prompt and answer are tokenised apart"
        before, whole = self._render(probe), self._render(probe, Completion(ANSWER))
        if whole.startswith(before):
            return "with an answer the rendering begins with the prompt's ids"
        if self._turn.lead is None:
            return "the prompt opens thoughts: an answer without any closes them at once, one with thoughts stays whole"
        return "with an answer the template writes the prompt otherwise: answers are put behind the prompt as it is"

    def _check_end(self, added: Sequence[int]) -> Point:
        if letters := [token for token in self.stop_ids if len(self._special.get(token, "")) == 1]:
            name = self._special[letters[0]]
            return Point(
                "end", False, f"the end token {name!r} is an ordinary character, at which answers would break off"
            )
        if end := [token for token in added if token in self.stop_ids]:
            others = sorted(self.stop_ids - {end[0]})
            also = f"; {', '.join(map(self._name, others))} would end one too" if others else ""
            return Point("end", True, f"{self._name(end[0])} closes a trained completion{also}")
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
        name = self._name(bos)
        if list(full[:2]) == [bos, bos]:
            twice = f"the conversation begins with two BOS tokens {name}: take one out of the template"
            return Point("bos", False, twice)
        if full[:1] == (bos,):
            return Point("bos", True, f"{name} stands once at the head")
        if bos in self.tokenizer("")["input_ids"]:
            missing = f"the conversation does not begin with the BOS token {name} that the model was trained with"
            return Point("bos", False, f"{missing}: write it at the head of the template")
        return Point("bos", True, "none, and none is expected")

    def _check_pad(self) -> Point:
        pad = self.tokenizer.pad_token_id
        named = "the tokenizer has none" if pad is None else f"the tokenizer's is {self._name(pad)}"
        ends = ", which also ends an answer" if pad in self.stop_ids else ""
        return Point("pad", True, f"rows are padded by position, no token is spent on it; {named}{ends}")

    def _check_trained(self, probe: Prompt) -> Point:
        ids = self.completion(probe, Completion(ANSWER))
        if ids and ANSWER in self._decode(ids):
            return Point("trained", True, f"all of the answer is trained, {len(ids)} tokens with its end")
        missing = "the answer is not in what follows the prompt" if ids else "no token of the answer is trained"
        return Point("trained", False, f"{missing}: let the template write a message's content as it is")

    # Rendering

    def _render(self, prompt: Prompt, answer: Completion | None = None) -> str:
        """A conversation as text, with its answer or up to where the answer begins; `BREAK` parts control tokens."""
        if self.tokenizer.chat_template is None:
            raise Unrenderable(
                "these prompts are conversations but the tokenizer has no chat template: "
                "use a chat model, or plain-text prompts"
            )
        messages = [message.to_dict() for message in prompt.messages]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer.text, **answer.extra})
        return self._apply(messages, [*prompt.tools], generation=answer is None)

    def _apply(self, messages: list[dict[str, Any]], tools: list[Any], generation: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{**self._part(message), "role": message["role"]} for message in messages],
                    tools=self._part(tools) or None,
                    chat_template=self.template(bool(tools)),
                    tokenize=False,
                    add_generation_prompt=generation,
                    **self.rendering.arguments,
                )
            )
        except Exception as error:  # noqa: BLE001 (templates are programs of strangers)
            line = (str(error) or type(error).__name__).splitlines()[0]
            roles = ", ".join(str(message["role"]) for message in messages)
            raise Unrenderable(f"the chat template fails on turns of {roles}: {line}") from None

    def _behind(self, before: str, whole: str, completion: Completion) -> str:
        """What stands behind a prompt: what the template writes, or else the answer with what it writes around one.

        Some templates write the prompt otherwise once there is an answer; trained is what is drawn behind the prompt.
        """
        if whole.startswith(before):
            return whole[len(before) :]
        if self._turn.lead is not None and not completion.extra:
            return self._turn.lead + str(self._part(completion.text)) + self._turn.tail
        if self._turn.lead is None and (opened := THOUGHTS.search(before)):
            return self._behind_thoughts(opened, completion) + self._turn.tail
        raise Unrenderable(
            "with the answer the chat template writes another prompt than without one, "
            "so that what is trained would not be what is drawn; use another template"
        )

    def _behind_thoughts(self, opened: re.Match[str], completion: Completion) -> str:
        """An answer behind a prompt that opens thoughts, which the template's own rendering would drop."""
        bar, tag, text = opened[1], opened[2], completion.text
        closing = f"<|{tag.replace('START', 'END')}|>" if bar else f"</{tag}>"
        thoughts = next((str(completion.extra[key]) for key in REASONING if completion.extra.get(key)), "")
        if thoughts or closing not in text:
            text = f"{thoughts}\n{closing}\n\n{text}"
        return str(self._part(text))

    @cached_property
    def _turn(self) -> _Turn:
        """What stands around an answer, found in a conversation of one question with and without another behind it."""
        if self.tokenizer.chat_template is None:
            return _Turn()
        asked: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
        answered = [*asked, {"role": "assistant", "content": MARKER}]
        try:
            before = self._apply(asked, [], generation=True)
            whole = self._apply(answered, [], generation=False)
        except AssentError:  # reported by check()
            return _Turn()
        head, _, tail = whole.rpartition(MARKER)
        thoughts = THOUGHTS.search(before)
        if thoughts and thoughts[3] and not head.startswith(before):  # empty ones, which an answer is written without
            before = before[: thoughts.start()]
        lead = head[len(before) :] if head.startswith(before) else None
        try:
            followed = self._apply([*answered, *asked], [], generation=False).rpartition(MARKER)[2]
        except AssentError:  # a template may take one question only
            followed = ""
        end = self._closing(tail, followed)
        if end is not None or not followed:
            return _Turn(lead, tail, end)
        opens, named = self._ids(followed)[:1], {*self.stops, self.tokenizer.eos_token_id}
        return _Turn(lead, tail, next((token for token in opens if token in named), None), written=False)

    def _closing(self, tail: str, followed: str) -> int | None:
        """The token that closes a turn: the last special one that stands behind an answer wherever its turn stands.

        Phi-3 writes another end behind the whole conversation, Cohere closes the response before the turn.
        """
        last, inside = self._ids(tail), self._ids(followed)
        same = next((i for i, (a, b) in enumerate(zip(last, inside, strict=False)) if a != b), len(last))
        shared = [token for token in last[:same] if token in self._special] if inside else []
        return shared[-1] if shared else next((token for token in last if token in self._special), None)

    # Text and ids

    @cached_property
    def _special(self) -> dict[int, str]:
        """Control tokens: those that the tokenizer marks as special, and those with which the template builds turns."""
        added = self.tokenizer.added_tokens_decoder
        names = {i: str(token) for i, token in added.items() if token.special or i in self._structure}
        ids = self.tokenizer.all_special_ids
        return names | dict(zip(ids, map(str, self.tokenizer.all_special_tokens), strict=True))

    @cached_property
    def _structure(self) -> frozenset[int]:
        """Added tokens with which the template builds turns, whether or not the tokenizer marks them as special."""
        roles = ("user", "assistant", "user")
        turns = [{"role": role, "content": letter} for role, letter in zip(roles, "abc", strict=True)]
        if self.tokenizer.chat_template is None:
            return frozenset()
        try:
            text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, **self.rendering.arguments))
        except Exception:  # noqa: BLE001 (templates are programs of strangers; check() reports it)
            return frozenset()
        added = {i: str(token).strip() for i, token in self.tokenizer.added_tokens_decoder.items()}
        ids = set(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return frozenset(i for i in ids & added.keys() if added[i] and not added[i].isalnum())

    @cached_property
    def _spellings(self) -> dict[int, str]:
        """Control tokens that text must not become, but for the marks of thoughts, which answers do hold.

        One of a single character is that character, wherever it stands.
        """
        return {i: name for i, name in self._special.items() if len(name) > 1 and not THINK.search(name)}

    @cached_property
    def _hidden(self) -> frozenset[int]:
        """Ids that do not show in a text."""
        return frozenset({*self._spellings, *self.stop_ids})

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """Every control token, the longest first; without any, what matches nothing."""
        spellings = sorted(self._spellings.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, spellings)) or r"(?!)")

    def _part(self, value: Any) -> Any:
        """A value of a message with a `BREAK` in each control token that it spells, so that it is encoded as text."""
        if isinstance(value, str):
            if BREAK in value:
                raise Unrenderable("a message holds U+FDD0 U+FDD1, which are no characters: take them out")
            return self._control.sub(lambda match: match[0][0] + BREAK + match[0][1:], value)
        if isinstance(value, Mapping):
            return {self._part(key): self._part(part) for key, part in value.items()}
        return [self._part(part) for part in value] if isinstance(value, list | tuple) else value

    def _demand_plain(self, text: str) -> str:
        """Refuse plain text that spells a control token: it may be a rendered conversation, or just speak of one."""
        if self.scores:
            return str(self._part(text))
        if spelt := self.spelt(text):
            raise Unrenderable(
                f"plain text spells the control token {spelt[0]!r}: give a conversation as messages, or leave it out"
            )
        return text

    def _ids(self, text: str) -> tuple[int, ...]:
        first, *rest = PARTED.split(text)
        ids: list[int] = self.tokenizer(first, add_special_tokens=False)["input_ids"]
        return (*ids, *(token for part in rest for token in self._continuation(part)))

    def _continuation(self, text: str) -> tuple[int, ...]:
        """Ids of a text that goes on: some tokenizers put a space in front of every text that they are given."""
        first, *rest = PARTED.split(text)
        ids = self.tokenizer(first, add_special_tokens=False)["input_ids"]
        for anchor, head in self._anchors:
            anchored = self.tokenizer(anchor + first, add_special_tokens=False)["input_ids"]
            if anchored[: len(head)] == head:
                ids = anchored[len(head) :]
                break
        return (*ids, *(token for part in rest for token in self._continuation(part)))

    @cached_property
    def _anchors(self) -> list[tuple[str, list[int]]]:
        """`ANCHORS` and their ids, for tokenizers that put a space in front of a text (Llama 2); of others, nothing."""
        tokens = self.tokenizer.convert_ids_to_tokens(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        if not (tokens and str(tokens[0]).startswith("\u2581")):
            return []
        return [(anchor, self.tokenizer(anchor, add_special_tokens=False)["input_ids"]) for anchor in ANCHORS]

    def _drawn(self, prompt: Prompt, completion: Completion) -> tuple[int, ...] | None:
        """The ids that were drawn, if they are of this vocabulary; a reward model reads the end that it knows."""
        ids = completion.token_ids
        if not ids or completion.tokenizer != self.fingerprint or max(ids) >= (self.rows or len(self.tokenizer)):
            return None
        if not (self.scores and completion.finished and ids[-1] in self.stop_ids):
            return ids
        return (*ids[:-1], self.end(prompt))

    def end(self, prompt: Prompt) -> int:
        """The token that closes an answer to a prompt."""
        return self._eos() if prompt.is_plain or self._turn.end is None else self._turn.end

    def _decode(self, ids: Sequence[int]) -> str:
        kept = [token for token in ids if token not in self._hidden]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _eos(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise AssentError(NO_END)
        return int(self.tokenizer.eos_token_id)

    def _name(self, token: int) -> str:
        return f"'{self.tokenizer.convert_ids_to_tokens(token)}'"


def load_codec(place: str, rendering: Rendering = DEFAULT_RENDERING) -> ChatTokenizer:
    """The codec of a model: its tokenizer, and the end tokens that its configurations name.

    Args:
        place: a folder or a hub id.
    """
    from transformers import AutoTokenizer

    return ChatTokenizer(
        AutoTokenizer.from_pretrained(place, trust_remote_code=False), rendering, _configured_ends(place)
    )


def read_codec(where: str, rendering: Rendering = DEFAULT_RENDERING) -> ChatTokenizer:
    """A model's codec alone, which is quick even where the model is large.

    Args:
        where: a folder, a hub id or a `.gguf` file.

    Raises:
        AssentError: there is no model there, or no tokenizer with it.
    """
    from assent.models.checkpoints import locate, quiet

    quiet()
    place = locate(where)
    try:
        return load_codec(place, rendering)
    except Exception as error:  # noqa: BLE001 (a broken file makes libraries raise any kind)
        line = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise AssentError(f"cannot load the tokenizer of {place}: {line}") from None


def _configured_ends(place: str) -> frozenset[int]:
    """`eos_token_id` of config.json, of its text part, and of generation_config.json, one or several each."""
    from transformers import PreTrainedConfig
    from transformers.utils.hub import cached_file

    config = PreTrainedConfig.get_config_dict(place)[0]
    path = cached_file(place, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    tables = [config, config.get("text_config") or {}]
    if path is not None:
        with open(path, encoding="utf-8") as file:  # read as it is: version 5 refuses some that others wrote
            tables.append(json.load(file))
    named = [table.get("eos_token_id") for table in tables]
    lists = [ids if isinstance(ids, list) else [ids] for ids in named]
    return frozenset(int(token) for ids in lists for token in ids if isinstance(token, int))
