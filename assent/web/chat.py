"""The chat page: completions stream, and approvals or comparisons of them are feedback like any other."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from assent.errors import AssentError
from assent.feedback import default_question
from assent.labelling.users import User
from assent.records import CHAT, Completion, Message, Prompt, Response, Task
from assent.split import split
from assent.web.pages import render_page, require
from assent.web.security import CurrentProject, RequireRole
from assent.web.text import Redactor, render
from assent.web.workspace import Project

if TYPE_CHECKING:
    from assent.models.load import LoadedModel

router = APIRouter(tags=["chat"])
ChatUser = Annotated[User, Depends(RequireRole("chat"))]
RedactedNames = tuple[str, ...] | None
"""Model names to redact for this user; None: the user may see all."""
KIND_BY_COUNT = {1: "approval", 2: "comparison"}
"""The kind of task for one completion, and for two."""


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=50_000)]
    """The text; only an assistant's may be empty."""

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if not self.content and self.role != "assistant":
            raise ValueError(f"a message of the {self.role} is empty")
        return self


class ChatRequest(BaseModel):
    """A conversation to continue."""

    model_config = ConfigDict(extra="forbid")

    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    policy: str = ""
    """A policy of the run; empty: the newest."""
    n: Literal[1, 2] = 1
    """Completions: one to approve or disapprove, or two to compare."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.7


class ChatReply(NamedTuple):
    """The prompt as the model was given it, and its completions."""

    prompt: Prompt
    completions: list[Completion]


def _as_prompt(chat: ChatRequest, has_template: bool) -> Prompt:
    """Return the conversation as a prompt; for a model without a chat template, as plain text to continue."""
    if has_template:
        return Prompt(tuple(Message(message.role, message.content) for message in chat.messages), source=CHAT)
    return Prompt.plain("\n".join(message.content for message in chat.messages), source=CHAT)


@dataclass
class ChatEngine:
    """The models of the chat page. One model generates at a time; the last one stays in memory."""

    _lock: Lock = field(default_factory=Lock)
    _loaded: "tuple[tuple[str, ...], LoadedModel] | None" = None
    """The model in memory, with its path and the digest of its weights."""

    def generate(
        self, project: Project, policy: str, chat: ChatRequest, on_text: Callable[[int, str], None]
    ) -> ChatReply:
        """Sample the completions. `on_text` gets the number of a completion and its text so far, at each token."""
        from assent.generation.local import LocalGenerator
        from assent.generation.sampling import Sampling
        from assent.models.load import context_length

        with self._lock:
            loaded = self._load(project, policy)
            chat_tokenizer = loaded.chat_tokenizer
            prompt = _as_prompt(chat, loaded.tokenizer.chat_template is not None)
            ids = chat_tokenizer.encode_prompt(prompt)
            max_new_tokens = context_length(loaded.model) - len(ids)
            if max_new_tokens < 1:
                raise AssentError(
                    f"the conversation has {len(ids)} tokens, more than the model can read; start a new conversation"
                )
            ids_so_far: list[list[int]] = [[] for _ in range(chat.n)]

            def on_token(rows: list[int], tokens: list[int]) -> None:
                for row, token in zip(rows, tokens, strict=True):
                    ids_so_far[row].append(token)
                    on_text(row, chat_tokenizer.decode(ids_so_far[row], prompt))

            sampling = Sampling(chat.temperature, min(chat.max_new_tokens, max_new_tokens))
            generator = LocalGenerator(on_token)
            generator.load(loaded)
            samples = generator.generate([ids], chat.n, sampling, random.SystemRandom().getrandbits(62))
            return ChatReply(
                prompt, [chat_tokenizer.to_completion(prompt, sample.token_ids, sample.finished) for sample in samples]
            )

    def _load(self, project: Project, policy: str) -> "LoadedModel":
        from assent.models.checkpoints import weights_digest
        from assent.models.load import load_policy

        run = project.run
        path = run.policy(policy)
        key = (path, weights_digest(path))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # free the old model before the new one is loaded
            self._loaded = (key, load_policy(path, run.dtype, run.device, run.rendering))
        return self._loaded[1]


ENGINE = ChatEngine()


def list_policies(project: Project) -> list[str]:
    """Return the names of the policies to chat with, the newest first."""
    found = []
    for path in project.folder.glob("*/config.json"):
        architectures = json.loads(path.read_text()).get("architectures") or [""]
        if "CausalLM" in architectures[0]:
            found.append((path.stat().st_mtime, path.parent.name))
    return [*(name for _, name in sorted(found, reverse=True)), "base"]


@router.get("/r/{run}/chat", response_class=HTMLResponse, include_in_schema=False)
def chat_page(request: Request, project: CurrentProject, user: Annotated[User, require("chat")]) -> HTMLResponse:
    """Show the chat page. Only users who may see results may choose the model and know its name."""
    policies = list_policies(project) if user.can("look") else []
    return render_page(request, "chat.html.jinja", run=project.name, page="chat", policies=policies)


@router.post("/r/{run}/api/chat")
async def stream_chat(
    request: Request, project: CurrentProject, user: ChatUser, chat: ChatRequest
) -> StreamingResponse:
    """Stream completions as lines of JSON: `{row, text}` for each token, then `{done, task, kind, items}`.

    An error ends the stream with `{error}`; nothing is stored then.
    """
    if chat.messages[-1].role != "user":
        raise HTTPException(422, "the last message must be the user's")
    request.app.state.limits.chat.demand(user.id)
    policies = list_policies(project)
    if chat.policy and not user.can("look"):
        raise HTTPException(403, f"a {user.role} may not choose the model")
    if chat.policy and chat.policy not in policies:
        raise HTTPException(422, f"no policy '{chat.policy}' in this run; known: {', '.join(policies)}")
    lines = _stream(project, user, chat, chat.policy or policies[0])
    return StreamingResponse(lines, media_type="application/x-ndjson")


async def _stream(project: Project, user: User, chat: ChatRequest, policy: str) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    is_disconnected = Event()

    def on_text(names: RedactedNames, row: int, text: str) -> None:
        if is_disconnected.is_set():
            raise AssentError("client disconnected")
        loop.call_soon_threadsafe(lines.put_nowait, {"row": row, "text": _redact(text, names)})

    def generate() -> None:
        try:
            names = None if user.can("look") else project.redacted_names  # read once, not at each token
            reply = ENGINE.generate(project, policy, chat, partial(on_text, names))
            line = _store_reply(project, user, policy, chat, names, reply)
        except AssentError as error:
            line = {"error": str(error) if user.can("look") else "the model cannot respond now"}
        except Exception as error:  # noqa: BLE001 (the page has to show any failure of a model)
            line = {"error": f"the model failed: {type(error).__name__}"}
        loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    generating = loop.run_in_executor(None, generate)
    try:
        while (line := await lines.get()) is not None:
            yield json.dumps(line, ensure_ascii=False) + "\n"
        await generating
    finally:
        is_disconnected.set()


def _redact(text: str, names: RedactedNames) -> str:
    return text if names is None else Redactor(text, names).text


def _store_reply(
    project: Project, user: User, policy: str, chat: ChatRequest, names: RedactedNames, reply: ChatReply
) -> dict[str, Any]:
    """Store the completions, assign the task of judging them to this user, and return the last line of the stream."""
    prompt = reply.prompt
    sampling = f"temperature {chat.temperature:g}, {chat.max_new_tokens} tokens"
    responses = [Response.of(prompt.id, completion, f"chat:{policy}", sampling) for completion in reply.completions]
    project.store.add_prompts([prompt])
    project.store.add_responses(responses)
    responses_by_id = {response.id: response for response in responses}  # one, if both are the same
    kind = KIND_BY_COUNT[len(responses_by_id)]
    is_held_out = prompt.id in split([prompt], project.run.setup.held_out).held_out
    task = Task(kind, prompt.id, tuple(responses_by_id), "evaluate" if is_held_out else "train", default_question(kind))
    # Both completions are drawn from one distribution, so their order is random already.
    assignment = project.queue.assignments.assign(user.id, task, task.items, aside=True)
    items = []
    for response in responses_by_id.values():
        text = _redact(response.text, names)
        items.append({"id": response.id, "text": text, "html": render(text), "finished": response.finished})
    return {"done": True, "task": assignment.alias, "kind": kind, "items": items}
