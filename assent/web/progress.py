"""How it goes, for those who run the project: curves, annotators, arena, prompts across checkpoints, disputes."""

import json
import math
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.errors import AssentError
from assent.labelling.accounts import Person
from assent.web.labelling import Here
from assent.web.pages import need, page
from assent.web.security import Needs, office_of
from assent.web.statistics import View, policy_of, statistics_of
from assent.web.text import readable, render
from assent.web.workspace import Project

router = APIRouter(tags=["progress"])
Looking = Annotated[Person, need("look")]
Reviewing = Annotated[Person, need("review")]
POINTS = 400
"""Points of a curve that a page gets at most."""
SHOWN = 50
"""Rows of a long table on one page."""
MORE = 2
"""People who are asked about a pair that the reward model sees otherwise."""
ALARM = 0.1
"""The share of the answers that may come from people who are paused before it is rather the gold items that are bad."""


@router.get("/r/{run}/progress", response_class=HTMLResponse, include_in_schema=False)
def progress(request: Request, here: Here, person: Looking) -> HTMLResponse:
    """Curves, arena and annotators on one page."""
    statistics = statistics_of(here)
    ticket = statistics.ask(here)
    people = {one.id: one for one in office_of(request).people.all()}
    asked, counts = here.desk.progress(), here.store.counts()
    view = statistics.wait(ticket)
    answers = {one.annotator: one.answers for one in view.annotators if one.annotator in people}
    paused = sum(count for id, count in answers.items() if people[id].state == "paused")
    total = sum(answers.values())
    return page(
        request, "progress.html.jinja", run=here.name, page="progress", asked=asked, view=view, counts=counts,
        paused=paused, total=total, alarm=paused > ALARM * total,
        names={id: one.name for id, one in people.items()}, nan=math.isnan, may_name=person.may("manage"),
        curves=(here.folder / "metrics.jsonl").exists(), most=max((day.answers for day in view.days), default=0),
    )  # fmt: skip


@router.get("/r/{run}/api/metrics")
def metrics(here: Here, person: Annotated[Person, Depends(Needs("look"))]) -> dict[str, dict[str, list[list[float]]]]:
    """Every curve of the run: stage, then metric, then [step, value] pairs, thinned to a few hundred."""
    path = here.folder / "metrics.jsonl"
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last line may be in the middle of being written
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("step", "seconds") and math.isfinite(value):
                curves.setdefault(row["stage"], {}).setdefault(name, []).append([row["step"], value])
    return {
        stage: {name: some[:: max(1, -(-len(some) // POINTS))] for name, some in named.items()}
        for stage, named in curves.items()
    }


def measured(here: Project) -> View:
    """How the annotators of a run do, simulated ones too; rules that judge are left out."""
    return statistics_of(here).view(here)


@router.get("/r/{run}/prompts", response_class=HTMLResponse, include_in_schema=False)
def prompts(
    request: Request, here: Here, person: Looking, words: str = "", after: Annotated[int, Query(ge=0)] = 0
) -> HTMLResponse:
    """Prompts to look at, by the words in them."""
    matches = here.store.search_prompts(words, after, SHOWN)
    return page(
        request, "prompts.html.jinja", run=here.name, page="progress", prompts=matches.prompts, words=words,
        after=after, more=matches.total > after + SHOWN, total=matches.total, step=SHOWN,
    )  # fmt: skip


@router.get("/r/{run}/prompts/{prompt}", response_class=HTMLResponse, include_in_schema=False)
def one_prompt(request: Request, here: Here, person: Looking, prompt: str) -> HTMLResponse:
    """One prompt, and what each checkpoint answers."""
    asked = next(iter(here.store.prompts(ids=[prompt])), None)
    if asked is None:
        raise HTTPException(404, f"no prompt {prompt} in this run")
    by: dict[str, list[dict[str, Any]]] = {}
    scores = SCORES.of(here).scores
    for response in here.store.responses(prompt=prompt):
        text = render(readable(response.text, response.extra))
        told = {"html": text, "finished": response.finished, "score": scores.get(response.id)}
        by.setdefault(policy_of(response.policy), []).append(told)
    turns = [(message.role, render(readable(message.content, message.extra))) for message in asked.messages]
    return page(request, "prompt.html.jinja", run=here.name, page="progress", turns=turns, by=by)


@dataclass
class Scored:
    """What the reward model says of the answers that people compared."""

    scores: dict[str, float] = field(default_factory=dict)
    total: int = 0
    running: bool = False
    failed: str = ""
    model: str = ""


@dataclass
class Scores:
    """Reward models at work in the background, one run at a time; what they find is kept beside the checkpoint."""

    _of: dict[str, Scored] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, here: Project) -> Scored:
        """What is known so far."""
        name = newest_reward(here)
        if not name:
            return Scored()
        from assent.models.checkpoints import weights_of  # it takes seconds to import

        key = f"{here.folder} {name} {weights_of(str(here.folder / name))}"
        with self._lock:
            if key not in self._of:
                self._of[key] = Scored(model=name)
            return self._of[key]

    def start(self, here: Project) -> None:
        """Score every answer that somebody compared and that has no score yet."""
        known = self.of(here)
        if not known.model or known.running:
            return
        known.running, known.failed = True, ""
        Thread(target=self._work, args=(here, known), daemon=True).start()

    def _work(self, here: Project, known: Scored) -> None:
        from assent.functional.ensemble import combine
        from assent.rewards.model import Model

        try:
            run = here.run
            model = Model.load(run.policy(known.model), run.dtype, run.device, run.rendering)
            said = {event.task for event in here.store.feedback()}
            items = {item for query in here.store.tasks(ids=said) for item in query.items} - known.scores.keys()
            responses = list({r.id: r for r in here.store.responses(ids=items)}.values())
            refusal = model.language.codec.refusal
            about = {p.id: p for p in here.store.prompts(ids={r.prompt for r in responses}) if not refusal(p)}
            responses = [response for response in responses if response.prompt in about]
            known.total = len(known.scores) + len(responses)
            for i in range(0, len(responses), 16):
                some = responses[i : i + 16]
                values = combine(model.score([about[r.prompt] for r in some], some)).tolist()
                known.scores |= {r.id: value for r, value in zip(some, values, strict=True)}
        except AssentError as error:
            known.failed = str(error)
        except Exception as error:  # noqa: BLE001 (the page tells it)
            known.failed = f"the reward model failed: {type(error).__name__}: {error}"
        finally:
            known.running = False


SCORES = Scores()


def newest_reward(here: Project) -> str:
    """The newest reward model of a run; empty if there is none."""
    made = [
        (path.stat().st_mtime, path.parent.name)
        for path in here.folder.glob("*/config.json")
        if "SequenceClassification" in (json.loads(path.read_text()).get("architectures") or [""])[0]
    ]
    return max(made)[1] if made else ""


@router.get("/r/{run}/disagreements", response_class=HTMLResponse, include_in_schema=False)
def disagree(request: Request, here: Here, person: Reviewing) -> HTMLResponse:
    """Where the reward model and people differ most."""
    known = SCORES.of(here)
    view = statistics_of(here).view(here, known.scores) if known.scores else View()
    items = {item for row in view.disagreements for item in (row.first, row.second)}
    responses = here.store.responses(ids=items)
    texts = {response.id: render(readable(response.text, response.extra)) for response in responses}
    return page(
        request, "disagreements.html.jinja", run=here.name, page="progress", view=view, texts=texts, known=known,
        asked=here.desk.wanting([row.query for row in view.disagreements]), more=MORE,
    )  # fmt: skip


@router.post("/r/{run}/score", include_in_schema=False)
def score(here: Here, person: Reviewing) -> Response:
    """Let the reward model score what people compared."""
    SCORES.start(here)
    return RedirectResponse(f"/r/{here.name}/disagreements", 303)


@router.post("/r/{run}/ask", include_in_schema=False)
def ask(here: Here, person: Reviewing, query: Annotated[str, Form(max_length=80)]) -> Response:
    """Ask more people about one pair, before anything else."""
    here.desk.ask_more(query, MORE, "disagreement")
    return RedirectResponse(f"/r/{here.name}/disagreements", 303)
