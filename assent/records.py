"""The nouns that every room shares: frozen, JSON-able, free of torch; what can be judged is named by its content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations, product
from math import comb
from typing import Any, ClassVar, Literal, Protocol

Purpose = Literal["train", "evaluate", "gold"]


def content_id(*parts: Any) -> str:
    """Name a thing by what it is: the first 20 hex digits of the SHA-256 of its canonical JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other keys that a chat template may write: `reasoning_content`, `tool_calls`, `tool_call_id`, `name`."""

    def to_dict(self) -> dict[str, Any]:
        """The message as chat templates and files spell it."""
        return {"role": self.role, "content": self.content, **self.extra}

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> "Message":
        """The message that `to_dict` spells."""
        extra = {key: value for key, value in message.items() if key not in ("role", "content")}
        return cls(message["role"], message["content"], extra)


CHAT = "chat"
"""The source of prompts that came up while somebody talked to a model: trained on, but nothing is measured on them."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: a conversation that ends before the answer, or one `text` message to be continued."""

    messages: tuple[Message, ...]
    category: str = ""
    """Mode of use: `grounded`, `knowledge`, `creative`, or nothing."""
    source: str = ""
    """Where it came from: a file, a data set, a person."""
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """The tools that the model may call, as JSON schemas: what a chat template takes as `tools`."""

    @cached_property
    def id(self) -> str:
        messages = [message.to_dict() for message in self.messages]
        return content_id("prompt", messages, *([list(self.tools)] if self.tools else []))

    @property
    def is_plain(self) -> bool:
        """Whether it is text to be continued, not a conversation."""
        return self.messages[-1].role == "text"

    @property
    def text(self) -> str:
        """The last message: what is asked now."""
        return self.messages[-1].content

    @classmethod
    def ask(cls, text: str, mode: str = "", source: str = "") -> "Prompt":
        """A conversation of one user turn."""
        return cls((Message("user", text),), mode, source)

    @classmethod
    def plain(cls, text: str, mode: str = "", source: str = "") -> "Prompt":
        """Text to be continued as it stands, without a chat template."""
        return cls((Message("text", text),), mode, source)


@dataclass(frozen=True)
class Completion:
    """An assistant's reply to a prompt."""

    text: str
    finished: bool = True
    """Whether it ended by itself (False: it was cut at the length limit, and has no end token)."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other keys of the message, as in `Message.extra`."""
    token_ids: tuple[int, ...] = field(default=(), compare=False)
    """The tokens that the policy drew, its end token included; empty: it was written as text."""
    tokenizer: str = field(default="", compare=False)
    """Fingerprint of the tokenizer that `token_ids` belong to."""


@dataclass(frozen=True)
class Response:
    """One answer of one policy to one prompt."""

    prompt: str  # id
    text: str
    policy: str
    finished: bool = True
    """Whether the policy ended the answer itself (False: it was cut at the length limit)."""
    sampling: str = ""
    """How it was drawn, for the record: `temperature 0.7, 48 tokens, seed 3`."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other keys of the message, as in `Message.extra`."""
    token_ids: tuple[int, ...] = field(default=(), compare=False)
    """The tokens that the policy drew, its end token included; empty: it was written as text."""
    tokenizer: str = field(default="", compare=False)
    """Fingerprint of the tokenizer that `token_ids` belong to."""

    @cached_property
    def id(self) -> str:
        extra = [dict(self.extra)] if self.extra else []
        return content_id("response", self.prompt, self.text, self.finished, *extra)

    @classmethod
    def of(cls, prompt: str, completion: Completion, policy: str, sampling: str = "") -> "Response":
        """A completion as the answer of a policy to a prompt (id)."""
        rest = completion.extra, completion.token_ids, completion.tokenizer
        return cls(prompt, completion.text, policy, completion.finished, sampling, *rest)

    @property
    def completion(self) -> Completion:
        """What was answered, without who answered and how."""
        return Completion(self.text, self.finished, self.extra, self.token_ids, self.tokenizer)


@dataclass(frozen=True)
class Task:
    """A question to an annotator about items of one prompt; it may be answered any number of times."""

    kind: str  # the name of a file in feedback/
    prompt: str  # id
    items: tuple[str, ...]  # ids of responses
    purpose: Purpose = "train"
    instruction: str = ""

    @cached_property
    def id(self) -> str:
        return content_id("query", self.kind, self.prompt, self.items, self.purpose, self.instruction)


class Judgement(Protocol):
    """What a person can say about a query; each kind is a frozen dataclass in a file of feedback/."""

    num_items: ClassVar[range]
    """How many items a query of this kind may show."""

    @property
    def items(self) -> tuple[str, ...]:
        """Ids of the items that the answer names."""
        ...

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> "tuple[Example, ...]":
        """Turn the answer into currencies; `responses` holds every item of the query, by id."""
        ...


MACHINES = ("ai:", "judge:", "simulated:")
"""Prefixes of annotators that are programs: an AI judge, a rule, a simulated person."""


@dataclass(frozen=True)
class Feedback:
    """One answer of one annotator: an event that is never edited, only superseded by a later one."""

    task: str  # id
    annotator: str
    judgement: Judgement
    created_at: str  # ISO 8601, UTC
    duration: float = 0.0
    """How long the annotator took."""
    display_order: tuple[str, ...] = ()
    """Item ids in the order in which they stood on the screen."""
    comment: str = ""
    supersedes: str = ""
    """Id of the feedback that this one replaces."""
    id: str = ""
    """Given by whoever made it (so that a repeated post is recognised), else by content."""
    flags: tuple[str, ...] = ()
    """What the annotator warned of: `harm`, `factual`, `refusal`, `language`, `pii`, or words of the project."""

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
    def by_person(self) -> bool:
        return not self.annotator.startswith(MACHINES)


@dataclass(frozen=True)
class Preference:
    """Relative currency: of two completions of a prompt, how surely the first is the better."""

    prompt: Prompt
    chosen: Completion
    rejected: Completion
    p_chosen: float = 1.0
    """1 for a plain choice, 0.5 for a tie, anything between for soft labels."""
    margin: float = 0.0
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()
    """Ids of the feedback it was made from."""

    @property
    def preferences(self) -> "tuple[Preference, ...]":
        """Itself: a ranking is several."""
        return (self,)


@dataclass(frozen=True)
class RankedCompletions:
    """Relative currency of several completions: tiers, the best first, equal within a tier."""

    prompt: Prompt
    tiers: tuple[tuple[Completion, ...], ...]
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()

    @property
    def preferences(self) -> tuple[Preference, ...]:
        """Every pair across tiers, each weighted so that a full ranking counts for what it tells."""
        k = sum(map(len, self.tiers))
        share = self.weight * independent_pairs(k) / comb(k, 2)
        return tuple(
            Preference(self.prompt, better, worse, 1.0, 0.0, share, self.feedback_ids)
            for upper, lower in combinations(self.tiers, 2)
            for better, worse in product(upper, lower)
        )


def independent_pairs(k: int) -> float:
    """How many independent comparisons a full ranking of k is worth: 2 sum_{m=2..k} (1 - 1/m), so 2.33 for k = 3."""
    return 2 * sum(1 - 1 / m for m in range(2, k + 1))


@dataclass(frozen=True)
class ScoredCompletion:
    """Absolute currency: how good one completion is."""

    prompt: Prompt
    completion: Completion
    value: float
    """1 approved, 0 disapproved, or a rating between."""
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class SFTExample:
    """The currency of imitation: a completion worth learning to write."""

    prompt: Prompt
    completion: Completion
    weight: float = 1.0
    feedback_ids: tuple[str, ...] = ()


def prefer(
    prompt: Prompt,
    chosen: Response,
    rejected: Response,
    weight: float,
    source: str,
    p_chosen: float = 1.0,
    margin: float = 0.0,
) -> Preference:
    """A preference between two responses."""
    return Preference(prompt, chosen.completion, rejected.completion, p_chosen, margin, weight, (source,))


Example = Preference | RankedCompletions | ScoredCompletion | SFTExample
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class SkippedRow:
    """A row of a file that could not be used, and why; counted and named, never dropped in silence."""

    where: str  # file:line
    reason: str
    row: str = field(default="", repr=False)
