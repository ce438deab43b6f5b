"""Request and response bodies of the labelling API: tasks, judgements and corrections."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_JUDGEMENT_CHARS = 200_000
"""Characters of a judgement as JSON."""
Id = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[\w:.\-]+$")]
Flag = Annotated[str, StringConstraints(min_length=1, max_length=40)]


class MessageView(BaseModel):
    """A message of a conversation."""

    role: str
    html: str
    text: str
    """The text before rendering."""


class ItemView(BaseModel):
    """An item of a task. The policy that wrote it is left out."""

    id: str
    html: str
    text: str
    """The text before rendering, with reasoning and tool calls."""
    raw: str | None = None
    """The text to correct: the completion alone, if `text` holds reasoning or tool calls as well."""


class FormField(BaseModel):
    """A form field for a kind of feedback that has no control of its own on the page."""

    name: str
    type: Literal["text", "number", "flag", "choice"]
    choices: list[str] = []
    required: bool
    help: str


class MyJudgement(BaseModel):
    """A judgement of the current user."""

    id: str
    task: str
    kind: str
    judgement: dict[str, Any]
    display_order: list[str]
    comment: str
    flags: list[str]
    created_at: str


class TaskView(BaseModel):
    """A task as the labeller sees it."""

    task: str
    """The id of the task on this labeller's page."""
    kind: str
    instruction: str
    prompt: list[MessageView]
    items: list[ItemView]
    axes: list[str]
    form: list[FormField]
    is_clips: bool = False
    """Whether the items are clips of an agent, which the page fetches one by one."""
    previous: MyJudgement | None = None
    """The labeller's earlier judgement, if a reviewer sent it back."""
    remark: str = ""
    """The reviewer's remark."""


class NextTasks(BaseModel):
    """The next tasks of a labeller."""

    tasks: list[TaskView]
    screening: bool
    """Whether these are practice or test items."""
    quick_submit: bool = False
    """Whether one key may submit: for labellers with at least nine of ten gold items right."""
    others_working: bool = False
    """Whether other labellers hold all remaining tasks."""
    completion_code: str = ""
    """The code for the crowd platform, once the labeller has done the required number of judgements."""


def _limit_length(judgement: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(judgement)) > MAX_JUDGEMENT_CHARS:
        raise ValueError(f"a judgement has at most {MAX_JUDGEMENT_CHARS} characters")
    return judgement


class JudgementIn(BaseModel):
    """A judgement to store. The client makes `id`; the same post again changes nothing."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    task: Id
    judgement: Annotated[dict[str, Any], AfterValidator(_limit_length)]
    display_order: list[Id] = Field(max_length=100)
    """Ids of the items in the order in which the page showed them."""
    duration: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)
    """Seconds of active time."""
    comment: str = Field(default="", max_length=10_000)
    flags: list[Flag] = Field(default=[], max_length=20)
    supersedes: Id | Literal[""] = ""
    """The id of the earlier judgement that this one replaces."""


class JudgementOut(BaseModel):
    """A stored judgement."""

    id: str
    task: str
    created_at: str
    correct: bool | None = None
    """Whether the judgement of a practice item is right; null for all other items."""
    explanation: str = ""


class HeldTasks(BaseModel):
    """Ids of tasks that are on the page."""

    tasks: list[Id] = Field(max_length=100)


class CorrectionRequest(BaseModel):
    """An item of a task that the labeller wants to correct."""

    task: Id
    item: Id
