"""The records that every package shares: frozen, JSON-able, free of torch, with ids computed from their content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import combinations, product
from math import comb
from typing import Any, ClassVar, Literal, Protocol

Purpose = Literal["train", "evaluate", "gold"]
Source = Literal["human", "simulated", "model", "scorer"]
"""What an annotator is: a human, a simulated human, a language model, or a reward that scores responses to evaluate."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys under which messages of different programs keep the model's reasoning."""


def content_id(*parts: Any) -> str:
    """Return the first 20 hex digits of the SHA-256 of the parts' canonical JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def utc_now() -> str:
    """Return the time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def unit_hash(*parts: Any, separator: str = " ", num_bytes: int = 8) -> float:
    """Return a number in [0, 1] that depends on nothing but the parts: the first bytes of their SHA-256."""
    text = separator.join(map(str, parts))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:num_bytes], "big") / 256.0**num_bytes


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other keys that a chat template may write: `reasoning_content`, `tool_calls`, `tool_call_id`, `name`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the message as chat templates and files write it."""
        return {"role": self.role, "content": self.content, **self.extra}

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> "Message":
        """Return the message that `to_dict` wrote."""
        extra = {key: value for key, value in message.items() if key not in ("role", "content")}
        return cls(message["role"], message["content"], extra)


CHAT = "chat"
"""The source of prompts from a chat with a model: they are trained on, but never evaluated on."""


@dataclass(frozen=True)
class Prompt:
    """The model's input: a conversation that ends before the response, or one `text` message to be continued."""

    messages: tuple[Message, ...]
    category: str = ""
    """Kind of use: `grounded`, `knowledge`, `creative`, or empty."""
    source: str = ""
    """Origin: a file, a data set, a user."""
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """The tools that the model may call, as JSON schemas: what a chat template takes as `tools`."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """JSON-able facts about the prompt: a reference answer, a group, a category. Annotators never see them.

    They are not part of the id: the same messages with other facts are the same prompt.
    """

    @cached_property
    def id(self) -> str:
        messages = [message.to_dict() for message in self.messages]
        return content_id("prompt", messages, *([list(self.tools)] if self.tools else []))

    @property
    def is_plain(self) -> bool:
        """Return whether it is text to be continued, not a conversation."""
        return self.messages[-1].role == "text"

    @property
    def text(self) -> str:
        """The text of the last message."""
        return self.messages[-1].content

    @classmethod
    def ask(cls, text: str, category: str = "", source: str = "") -> "Prompt":
        """Return a conversation of one user turn."""
        return cls((Message("user", text),), category, source)

    @classmethod
    def plain(cls, text: str, category: str = "", source: str = "") -> "Prompt":
        """Return text to be continued as it is, without a chat template."""
        return cls((Message("text", text),), category, source)

    def as_chat(self) -> "Prompt":
        """Return a plain text as a conversation of one user turn; a conversation stays as it is."""
        if not self.is_plain:
            return self
        return Prompt((Message("user", self.text),), self.category, self.source, meta=self.meta)


@dataclass(frozen=True)
class Completion:
    """An assistant's reply to a prompt."""

    text: str
    finished: bool = True
    """Whether the text ended by itself; False: it was cut at the length limit, and has no end token."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other keys of the message, as in `Message.extra`."""
    token_ids: tuple[int, ...] = field(default=(), compare=False)
    """The tokens that the policy sampled, its end token included; empty: it was written as text."""
    tokenizer: str = field(default="", compare=False)
    """Fingerprint of the tokenizer of `token_ids`."""


@dataclass(frozen=True)
class ItemView:
    """What pages and reports show of an item."""

    text: str
    format: Literal["markdown"] = "markdown"


@dataclass(frozen=True)
class Response:
    """A completion of one prompt by one policy."""

    prompt: str  # id
    text: str
    policy: str
    finished: bool = True
    """Whether the policy ended the text itself; False: it was cut at the length limit."""
    sampling: str = ""
    """How it was sampled, for the record: `temperature 0.7, 48 tokens, seed 3`."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other keys of the message, as in `Message.extra`."""
    token_ids: tuple[int, ...] = field(default=(), compare=False)
    """The tokens that the policy sampled, its end token included; empty: it was written as text."""
    tokenizer: str = field(default="", compare=False)
    """Fingerprint of the tokenizer of `token_ids`."""

    @cached_property
    def id(self) -> str:
        extra = [dict(self.extra)] if self.extra else []
        return content_id("response", self.prompt, self.text, self.finished, *extra)

    @classmethod
    def of(cls, prompt: str, completion: Completion, policy: str, sampling: str = "") -> "Response":
        """Return a completion as the response of a policy to a prompt (id)."""
        return cls(
            prompt,
            completion.text,
            policy,
            completion.finished,
            sampling,
            completion.extra,
            completion.token_ids,
            completion.tokenizer,
        )

    @property
    def completion(self) -> Completion:
        """The text and its tokens, without the policy and the sampling."""
        return Completion(self.text, self.finished, self.extra, self.token_ids, self.tokenizer)


@dataclass(frozen=True)
class Task:
    """A request to judge items of one prompt; any number of annotators may judge it."""

    kind: str  # the name of a file in feedback/
    prompt: str  # id
    items: tuple[str, ...]  # ids of responses
    purpose: Purpose = "train"
    instruction: str = ""

    @cached_property
    def id(self) -> str:
        # The first word is part of the id: it stays as it was in version 0.1, or stored ids would not match.
        return content_id("query", self.kind, self.prompt, self.items, self.purpose, self.instruction)


class Judgement(Protocol):
    """The result of a task; each kind is a frozen dataclass in a file of feedback/."""

    num_items: ClassVar[range]
    """How many items a task of this kind may show."""
    question: ClassVar[str]
    """The instruction of tasks that carry none of their own."""

    @property
    def items(self) -> tuple[str, ...]:
        """Ids of the items that the judgement names."""
        ...

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: "Feedback", weight: float
    ) -> "tuple[Example, ...]":
        """Turn the judgement into training examples; `responses` holds every item of the task, by id.

        Args:
            feedback: the event that holds this judgement: the examples keep its id and annotator.
        """
        ...


def show_message(message: Message) -> ItemView:
    """Return a message with its other keys: reasoning as a quotation before it, tool calls as JSON behind it."""
    return _show(message.content, message.extra)


def show_item(item: Response) -> ItemView:
    """Return an item as pages and reports show it; a response looks as the message that it is."""
    return _show(item.text, item.extra)


def _show(text: str, extra: Mapping[str, Any]) -> ItemView:
    if not extra:
        return ItemView(text)
    lines = [line for key in REASONING if key in extra for line in str(extra[key]).splitlines()]
    quotation = "\n".join(f"> {line}" for line in lines)
    other_keys = {key: value for key, value in extra.items() if key not in REASONING}
    block = f"```json\n{json.dumps(other_keys, ensure_ascii=False, indent=1)}\n```" if other_keys else ""
    return ItemView("\n\n".join(part for part in (quotation, text, block) if part))


def implied_source(annotator: str) -> Source:
    """Infer the source of feedback from the annotator's prefix (files of version 0.1 name no source)."""
    sources: dict[str, Source] = {"ai": "model", "judge": "scorer", "simulated": "simulated"}
    prefix, colon, _ = annotator.partition(":")
    return sources.get(prefix, "human") if colon else "human"


@dataclass(frozen=True)
class Feedback:
    """One judgement of one annotator: an event that is never edited, only superseded by a later one."""

    task: str  # id
    annotator: str
    judgement: Judgement
    created_at: str  # ISO 8601, UTC
    duration: float = 0.0
    """Seconds that the annotator took."""
    display_order: tuple[str, ...] = ()
    """Item ids in the order in which the screen showed them."""
    comment: str = ""
    supersedes: str = ""
    """Id of the feedback that this one replaces."""
    id: str = ""
    """Chosen by the client, so that a repeated post is recognised; empty: computed from the content."""
    flags: tuple[str, ...] = ()
    """Warnings of the annotator: `harm`, `factual`, `refusal`, `language`, `pii`, or words of the project."""
    source: Source = "human"
    """What the annotator is. It is not part of the id."""

    def __post_init__(self) -> None:
        if self.id:
            return
        # The names of fields are part of the id: they stay as they were in version 0.1, or stored ids would not hold.
        fields: Any = self.judgement
        judgement = asdict(fields)
        if not judgement.get("extra", True):
            del judgement["extra"]
        content = {
            "query": self.task,
            "annotator": self.annotator,
            "answer": [type(self.judgement).__name__, judgement],
            "at": self.created_at,
            "seconds": self.duration,
            "shown": self.display_order,
            "note": self.comment,
            "supersedes": self.supersedes,
            "id": "",
            **({"flags": self.flags} if self.flags else {}),
        }
        object.__setattr__(self, "id", content_id("feedback", content))

    @property
    def is_human(self) -> bool:
        return self.source == "human"


@dataclass(frozen=True)
class Preference:
    """A training example of two completions of a prompt: how surely the first is the better."""

    prompt: Prompt
    chosen: Completion
    rejected: Completion
    p_chosen: float = 1.0
    """1 for a choice, 0.5 for a tie, between them for soft labels."""
    margin: float = 0.0
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()
    """Ids of the feedback it was made from."""
    annotator: str = field(default="", compare=False)
    """The annotator of that feedback."""

    @property
    def preferences(self) -> "tuple[Preference, ...]":
        """The example itself; a ranking holds several."""
        return (self,)


@dataclass(frozen=True)
class RankedCompletions:
    """A training example of several completions: tiers, the best first, equal within a tier."""

    prompt: Prompt
    tiers: tuple[tuple[Completion, ...], ...]
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()
    annotator: str = field(default="", compare=False)

    @property
    def preferences(self) -> tuple[Preference, ...]:
        """Every pair across tiers, weighted so that a full ranking counts as its independent comparisons."""
        k = sum(map(len, self.tiers))
        share = self.weight * independent_pairs(k) / comb(k, 2)
        return tuple(
            Preference(self.prompt, better, worse, 1.0, 0.0, share, self.feedback_ids, self.annotator)
            for upper, lower in combinations(self.tiers, 2)
            for better, worse in product(upper, lower)
        )


def independent_pairs(k: int) -> float:
    """Return the number of independent comparisons in a full ranking of k: 2 sum_{m=2..k} (1 - 1/m), 2.33 for k = 3."""
    return 2 * sum(1 - 1 / m for m in range(2, k + 1))


@dataclass(frozen=True)
class ScoredCompletion:
    """A training example of one completion and how good it is."""

    prompt: Prompt
    completion: Completion
    value: float
    """1 approved, 0 disapproved, or a rating between."""
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()
    annotator: str = field(default="", compare=False)


@dataclass(frozen=True)
class SFTExample:
    """A training example for supervised fine-tuning: a completion to imitate."""

    prompt: Prompt
    completion: Completion
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()
    annotator: str = field(default="", compare=False)


def prefer(
    prompt: Prompt,
    chosen: Response,
    rejected: Response,
    weight: float,
    feedback: Feedback,
    p_chosen: float = 1.0,
    margin: float = 0.0,
) -> Preference:
    """Return a preference between two responses."""
    completions = chosen.completion, rejected.completion
    return Preference(prompt, *completions, p_chosen, margin, weight, (feedback.id,), feedback.annotator)


Example = Preference | RankedCompletions | ScoredCompletion | SFTExample


@dataclass(frozen=True)
class SkippedRow:
    """A row of a file that could not be used, and the reason."""

    location: str  # file:line
    reason: str
    row: str = field(default="", repr=False)
