"""Talking to a checkpoint of the run: answers stream, and what is thought of them is feedback like any other."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock
from typing import Annotated, Any, Literal, NamedTuple, Self

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from assent.errors import AssentError
from assent.feedback import asks
from assent.labelling.accounts import Person
from assent.records import CHAT, Completion, Message, Prompt, Response, Task
from assent.split import split
from assent.web.labelling import Here
from assent.web.pages import need, page
from assent.web.security import Needs
from assent.web.text import Cover, render
from assent.web.workspace import Project

router = APIRouter(tags=["chat"])
Talking = Annotated[Person, Depends(Needs("chat"))]
Covered = tuple[str, ...] | None
"""Names of models that this person is not told; None: they are told all."""
KINDS = {1: "approval", 2: "comparison"}
"""What may be said of so many answers."""


class Said(BaseModel):
    """A turn that was said before."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=50_000)]
    """Empty only if a model said nothing."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.content and self.role != "assistant":
            raise ValueError(f"a message of the {self.role} says nothing")
        return self


class Turn(BaseModel):
    """A conversation that wants an answer."""

    model_config = ConfigDict(extra="forbid")

    messages: list[Said] = Field(min_length=1, max_length=200)
    policy: str = ""
    """A checkpoint of the run; empty: the newest."""
    n: Literal[1, 2] = 1
    """One answer to approve of or not, or two to choose between."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.7


class Answered(NamedTuple):
    """What a model was asked, as it understands it, and what it said."""

    prompt: Prompt
    completions: list[Completion]


def _prompt(turn: Turn, chat: bool) -> Prompt:
    """The conversation; for a model without a chat template, its text, which it goes on with."""
    if chat:
        return Prompt(tuple(Message(said.role, said.content) for said in turn.messages), source=CHAT)
    return Prompt.plain("\n".join(said.content for said in turn.messages), source=CHAT)


@dataclass
class Talker:
    """The models that somebody talks to; one answers at a time, and the last one stays in memory."""

    _lock: Lock = field(default_factory=Lock)
    _held: tuple[tuple[str, ...], Any] | None = None

    def answer(self, project: Project, name: str, turn: Turn, told: Callable[[int, str], None]) -> "Answered":
        """Draw the answers, telling each one's text as far as it has come."""
        import torch

        from assent.generation.local import Sampling, sample
        from assent.models.load import context

        with self._lock:
            language = self._load(project, name)
            codec = language.codec
            prompt = _prompt(turn, language.tokenizer.chat_template is not None)
            ids = codec.prompt(prompt)
            room = context(language.model) - len(ids)
            if room < 1:
                raise AssentError(f"the conversation has {len(ids)} tokens, more than the model can read: begin anew")
            so_far: list[list[int]] = [[] for _ in range(turn.n)]

            def heard(rows: list[int], tokens: list[int]) -> None:
                for row, token in zip(rows, tokens, strict=True):
                    so_far[row].append(token)
                    told(row, codec.decode(so_far[row], prompt))

            dice = torch.Generator().manual_seed(random.SystemRandom().getrandbits(62))
            sampling = Sampling(turn.temperature, min(turn.max_new_tokens, room))
            drawn = sample(language.model, [ids], turn.n, sampling, codec.ends, dice, heard)
            return Answered(prompt, [codec.drawn(prompt, one.ids, one.finished) for one in drawn])

    def _load(self, project: Project, name: str) -> Any:
        from assent.models.checkpoints import weights_of
        from assent.models.load import load_policy

        run = project.run
        where = run.policy(name)
        wanted = (where, weights_of(where))
        if self._held is None or self._held[0] != wanted:
            self._held = None  # the old one leaves before the new one comes
            self._held = (wanted, load_policy(where, run.dtype, run.device, run.rendering))
        return self._held[1]


TALKER = Talker()


def policies(project: Project) -> list[str]:
    """What there is to talk to, the newest first."""
    made = []
    for path in project.folder.glob("*/config.json"):
        kinds = json.loads(path.read_text()).get("architectures") or [""]
        if "CausalLM" in kinds[0]:
            made.append((path.stat().st_mtime, path.parent.name))
    return [*(name for _, name in sorted(made, reverse=True)), "start"]


@router.get("/r/{run}/chat", response_class=HTMLResponse, include_in_schema=False)
def chat(request: Request, here: Here, person: Annotated[Person, need("chat")]) -> HTMLResponse:
    """The page to talk on; only who may look at results is told which model it is."""
    there = policies(here) if person.may("look") else []
    return page(request, "chat.html.jinja", run=here.name, page="chat", policies=there)


@router.post("/r/{run}/api/chat")
async def talk(request: Request, here: Here, person: Talking, turn: Turn) -> StreamingResponse:
    """Answer, as lines of JSON: {row, text} while it grows, then {done}; one that fails is void, nothing is kept."""
    if turn.messages[-1].role != "user":
        raise HTTPException(422, "the last word must be the user's")
    request.app.state.limits.chat.demand(person.id)
    known = policies(here)
    if turn.policy and not person.may("look"):
        raise HTTPException(403, f"a {person.role} may not choose the model")
    if turn.policy and turn.policy not in known:
        raise HTTPException(422, f"no policy '{turn.policy}' here; known: {', '.join(known)}")
    return StreamingResponse(_stream(here, person, turn, turn.policy or known[0]), media_type="application/x-ndjson")


async def _stream(here: Project, person: Person, turn: Turn, name: str) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    gone = Event()

    def told(covered: Covered, row: int, text: str) -> None:
        if gone.is_set():
            raise AssentError("nobody listens any more")
        loop.call_soon_threadsafe(lines.put_nowait, {"row": row, "text": _shown(text, covered)})

    def work() -> None:
        try:
            covered = None if person.may("look") else here.names  # read once, not at each token
            made = TALKER.answer(here, name, turn, partial(told, covered))
            done = _keep(here, person, name, turn, covered, *made)
        except AssentError as error:
            done = {"failed": str(error) if person.may("look") else "the model cannot answer now"}
        except Exception as error:  # noqa: BLE001 (whatever a model does, the page hears of it)
            done = {"failed": f"the model failed: {type(error).__name__}"}
        loop.call_soon_threadsafe(lines.put_nowait, done)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    working = loop.run_in_executor(None, work)
    try:
        while (line := await lines.get()) is not None:
            yield json.dumps(line, ensure_ascii=False) + "\n"
        await working
    finally:
        gone.set()


def _shown(text: str, covered: Covered) -> str:
    """What a model said, without the names that are covered."""
    return text if covered is None else Cover(text, covered).text


def _keep(
    here: Project,
    person: Person,
    name: str,
    turn: Turn,
    covered: Covered,
    prompt: Prompt,
    completions: list[Completion],
) -> dict[str, Any]:
    """Store the answers, and lay before this person what may be said of them."""
    label = f"chat:{name}"
    sampling = f"temperature {turn.temperature:g}, {turn.max_new_tokens} tokens"
    responses = [Response.of(prompt.id, completion, label, sampling) for completion in completions]
    here.store.add_prompts([prompt])
    here.store.add_responses(responses)
    apart = list(dict.fromkeys(response.id for response in responses))
    texts = {response.id: response for response in responses}
    kind = KINDS[len(apart)]
    held_out = prompt.id in split([prompt], here.run.setup.held_out).held_out
    query = Task(kind, prompt.id, tuple(apart), "evaluate" if held_out else "train", asks(kind))
    # drawn alike, so that the order of drawing is a lot
    lent = here.desk.lend(person.id, query, query.items, aside=True)
    return {
        "done": True,
        "query": lent.name,
        "kind": kind,
        "items": [
            {"id": id, "text": text, "html": render(text), "finished": texts[id].finished}
            for id in apart
            for text in (_shown(texts[id].text, covered),)
        ],
    }
