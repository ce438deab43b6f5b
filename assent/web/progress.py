"""The progress pages: learning curves, annotators, arena, prompts across policies, and reward-model disagreements."""

import json
import math
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.errors import AssentError
from assent.labelling.users import User
from assent.loggers.jsonl import read_metrics
from assent.report.charts import Curve, stage_curves
from assent.web.pages import render_page, require
from assent.web.security import CurrentProject, RequireRole, workspace_of
from assent.web.statistics import StatisticsView, policy_name, statistics_of
from assent.web.text import render_item, render_turns
from assent.web.workspace import Project

router = APIRouter(tags=["progress"])
Viewer = Annotated[User, require("look")]
Reviewer = Annotated[User, require("review")]
PAGE_SIZE = 50
"""Rows of a long table on one page."""
EXTRA_VOTES = 2
"""Annotators who are asked about a pair on which the reward model disagrees."""
PAUSED_SHARE_LIMIT = 0.1
"""Share of judgements by paused annotators above which the gold items are suspect rather than the annotators."""
SCORE_BATCH = 16
"""Responses that the reward model scores at once."""


@router.get("/r/{run}/progress", response_class=HTMLResponse, include_in_schema=False)
def progress(request: Request, project: CurrentProject, user: Viewer) -> HTMLResponse:
    """Show curves, arena and annotators on one page."""
    statistics = statistics_of(project)
    ticket = statistics.request_update(project)
    accounts = {account.id: account for account in workspace_of(request).accounts.all()}
    tasks = project.queue.progress()
    counts = project.store.counts()
    view = statistics.wait(ticket)
    judgements_by_user = {
        annotator.annotator: annotator.num_judgements
        for annotator in view.annotators
        if annotator.annotator in accounts
    }
    paused = sum(count for id, count in judgements_by_user.items() if accounts[id].state == "paused")
    total = sum(judgements_by_user.values())
    return render_page(
        request, "progress.html.jinja", run=project.name, page="progress", tasks=tasks, view=view, counts=counts,
        paused=paused, total=total, is_alarming=paused > PAUSED_SHARE_LIMIT * total,
        names={id: account.name for id, account in accounts.items()}, nan=math.isnan, may_name=user.can("manage"),
        has_curves=(project.folder / "metrics.jsonl").exists(),
        has_judgements=any(day.judgements for day in view.days),
    )  # fmt: skip


@router.get("/r/{run}/api/metrics")
def metrics(
    project: CurrentProject, user: Annotated[User, Depends(RequireRole("look"))]
) -> dict[str, dict[str, Curve]]:
    """Return every curve of the run, by stage and metric: points and ticks, thinned by the rule of the report."""
    return stage_curves(read_metrics(project.folder))


def measure_annotators(project: Project) -> StatisticsView:
    """Return the statistics of a run's annotators, simulated ones included; rule-based scorers are left out."""
    return statistics_of(project).view(project)


@router.get("/r/{run}/prompts", response_class=HTMLResponse, include_in_schema=False)
def prompts(
    request: Request, project: CurrentProject, user: Viewer, text: str = "", after: Annotated[int, Query(ge=0)] = 0
) -> HTMLResponse:
    """List prompts that contain some text."""
    matches = project.store.search_prompts(text, after, PAGE_SIZE)
    return render_page(
        request, "prompts.html.jinja", run=project.name, page="progress", prompts=matches.prompts, text=text,
        after=after, has_more=matches.total > after + PAGE_SIZE, total=matches.total, page_size=PAGE_SIZE,
    )  # fmt: skip


@router.get("/r/{run}/prompts/{prompt}", response_class=HTMLResponse, include_in_schema=False)
def prompt_page(request: Request, project: CurrentProject, user: Viewer, prompt: str) -> HTMLResponse:
    """Show one prompt with the responses of each policy."""
    record = next(iter(project.store.prompts(ids=[prompt])), None)
    if record is None:
        raise HTTPException(404, f"no prompt {prompt} in this run")
    responses_by_policy: dict[str, list[dict[str, Any]]] = {}
    scores = SCORER.of(project).scores
    for response in project.store.responses(prompt=prompt):
        values = {
            "html": render_item(response, record),
            "finished": response.finished,
            "score": scores.get(response.id),
        }
        responses_by_policy.setdefault(policy_name(response.policy), []).append(values)
    return render_page(
        request, "prompt.html.jinja", run=project.name, page="progress", responses_by_policy=responses_by_policy,
        turns=render_turns(record),
    )  # fmt: skip


@dataclass
class RewardScores:
    """Scores by a reward model of the responses that annotators compared, as far as they are computed."""

    scores: dict[str, float] = field(default_factory=dict)
    """Scores by response id."""
    total: int = 0
    is_running: bool = False
    error: str = ""
    model: str = ""


@dataclass
class BackgroundScorer:
    """Reward models that score in background threads. Scores are cached per run, model name and weights."""

    _scores: dict[str, RewardScores] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, project: Project) -> RewardScores:
        """Return the scores computed so far by the newest reward model of a run."""
        name = newest_reward_model(project)
        if not name:
            return RewardScores()
        from assent.models.checkpoints import weights_digest  # this import takes seconds

        key = f"{project.folder} {name} {weights_digest(str(project.folder / name))}"
        with self._lock:
            if key not in self._scores:
                self._scores[key] = RewardScores(model=name)
            return self._scores[key]

    def start(self, project: Project) -> None:
        """Score every response that was compared and has no score yet."""
        scores = self.of(project)
        if not scores.model or scores.is_running:
            return
        scores.is_running = True
        scores.error = ""
        Thread(target=self._score, args=(project, scores), daemon=True).start()

    def _score(self, project: Project, known: RewardScores) -> None:
        from assent.functional.ensemble import combine
        from assent.rewards.model import Model

        try:
            run = project.run
            model = Model.load(run.policy(known.model), run.dtype, run.device, run.rendering)
            task_ids = {event.task for event in project.store.feedback()}
            item_ids = {item for task in project.store.tasks(ids=task_ids) for item in task.items}
            responses = list(
                {
                    response.id: response for response in project.store.responses(ids=item_ids - known.scores.keys())
                }.values()
            )
            refusal_reason = model.first.chat_tokenizer.refusal_reason
            prompts_by_id = {
                prompt.id: prompt
                for prompt in project.store.prompts(ids={response.prompt for response in responses})
                if not refusal_reason(prompt)
            }
            responses = [response for response in responses if response.prompt in prompts_by_id]
            known.total = len(known.scores) + len(responses)
            for i in range(0, len(responses), SCORE_BATCH):
                batch = responses[i : i + SCORE_BATCH]
                values = combine(model.score([prompts_by_id[response.prompt] for response in batch], batch)).tolist()
                known.scores |= {response.id: value for response, value in zip(batch, values, strict=True)}
        except AssentError as error:
            known.error = str(error)
        except Exception as error:  # noqa: BLE001 (the page shows it)
            known.error = f"the reward model failed: {type(error).__name__}: {error}"
        finally:
            known.is_running = False


SCORER = BackgroundScorer()


def newest_reward_model(project: Project) -> str:
    """Return the name of the newest reward model of a run; empty if there is none."""
    found = [
        (path.stat().st_mtime, path.parent.name)
        for path in project.folder.glob("*/config.json")
        if "SequenceClassification" in (json.loads(path.read_text()).get("architectures") or [""])[0]
    ]
    return max(found)[1] if found else ""


@router.get("/r/{run}/disagreements", response_class=HTMLResponse, include_in_schema=False)
def disagreements_page(request: Request, project: CurrentProject, user: Reviewer) -> HTMLResponse:
    """List pairs on which the reward model and the annotators disagree most."""
    scores = SCORER.of(project)
    view = statistics_of(project).view(project, scores.scores) if scores.scores else StatisticsView()
    prompts_by_id = {row.prompt.id: row.prompt for row in view.disagreements}
    responses = project.store.responses(ids={item for row in view.disagreements for item in (row.first, row.second)})
    texts = {response.id: render_item(response, prompts_by_id[response.prompt]) for response in responses}
    return render_page(
        request, "disagreements.html.jinja", run=project.name, page="progress", view=view, texts=texts, scores=scores,
        open_tasks=project.queue.open_tasks([row.task for row in view.disagreements]), extra_votes=EXTRA_VOTES,
    )  # fmt: skip


@router.post("/r/{run}/score", include_in_schema=False)
def score(project: CurrentProject, user: Reviewer) -> Response:
    """Start the reward model on the responses that annotators compared."""
    SCORER.start(project)
    return RedirectResponse(f"/r/{project.name}/disagreements", 303)


@router.post("/r/{run}/request-votes", include_in_schema=False)
def request_votes(project: CurrentProject, user: Reviewer, task: Annotated[str, Form(max_length=80)]) -> Response:
    """Ask more annotators about one pair, before any other task."""
    project.queue.request_votes(task, EXTRA_VOTES, "disagreement")
    return RedirectResponse(f"/r/{project.name}/disagreements", 303)
