"""The whole loop: a person at the page compares clips of an agent, and the agent learns to do what was preferred."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import PASSWORD, LabellingRun, OpenPage, Screen, Server
from processes import assent

from assent.api import Run
from assent.feedback.comparison import Comparison
from assent.labelling.queue import TaskQueue
from assent.records import Feedback

pytest.importorskip("stable_baselines3")

if TYPE_CHECKING:
    from playwright.sync_api import Response

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LABELS = 20
SETTINGS = {
    "environment": "cart_pole",
    "annotator": "human",
    "wait": 0,
    "seed": 0,
    "held-out": 0,
    "labels": LABELS,
    "label-decay": 0,
    "steps": 48_000,
    "episodes": 8,
    "gamma": 0.98,
    "evaluation-episodes": 16,
    "members": 8,
    "reward-hidden": 32,
    "reward-epochs": 100,
    "reward-weight-decay": 0.3,
}
"""All comparisons are about the untrained agent; few labels ask for a small and much regularised reward model."""


def control(folder: Path, status: int = 0) -> None:
    """Run the stage until it ends, or with status 3 until it waits for people."""
    options = [f"--{name}={value}" for name, value in SETTINGS.items()]
    assent("control", "--run", str(folder), *options, status=status)


def height(clip: dict[str, Any]) -> float:
    """Return the mean height of the tip of the pole, the last shape of each frame of a clip as the page gets it."""
    tips = [shapes[-1][3] for _, shapes in clip["frames"]]
    return float(sum(tips) / len(tips))


def sign_in(screen: Screen) -> None:
    """Open the labelling page through the form for name and password."""
    screen.context.clear_cookies()
    screen.go(screen.server.url + screen.at("/label"))
    screen.page.get_by_label("Name").fill(screen.user.name)
    screen.page.get_by_label("Password").fill(PASSWORD)
    screen.press("Enter")
    screen.page.wait_for_selector("body[data-ready]")


def prefer_upright_poles(screen: Screen, count: int) -> None:
    """Sign in and answer so many comparisons by keys, from nothing but the clips that the page fetches."""
    replies: dict[str, Response] = {}

    def record(reply: Response) -> None:
        if "/clip/" in reply.url:
            replies.setdefault(reply.url.rpartition("/")[2], reply)

    screen.page.on("response", record)
    sign_in(screen)
    for _ in range(count):
        screen.wait(
            "() => { const all = [...document.querySelectorAll('canvas.clip')];"
            " return all.length === 2 && all.every((one) => one.dataset.frame) }"
        )
        order = screen.display_order
        left, right = (height(replies[item].json()) for item in order)
        screen.press("ArrowLeft" if left > right else "ArrowRight", "Enter")
        screen.wait("(id) => document.querySelector('#items .item')?.dataset.item !== id", order[0])
    screen.page.locator("#empty").wait_for()


def answer_the_opposite(work: LabellingRun, events: list[Feedback]) -> None:
    """Judge the same comparisons in the name of the same person, and prefer the other clip of each."""
    annotator = events[0].annotator
    preferred = {event.task: event.judgement.items[0] for event in events}
    queue = TaskQueue(work.store)
    for assignment in queue.next_tasks(annotator, len(events)):
        task, shown = assignment.task, assignment.display_order
        (other,) = set(task.items) - {preferred[task.id]}
        now = datetime.now(UTC).isoformat()
        queue.submit(Feedback(task.id, annotator, Comparison(other), now, display_order=shown))


def true_returns(folder: Path) -> tuple[float, float]:
    """Return the mean true return of the untrained agent, which made the clips, and of the trained one."""
    run = Run(folder)
    return run.metrics[0]["true_return"], run.results["control"]["true_return_sampled"]["mean"]


def test_an_agent_learns_from_a_person_at_the_page(open_page: OpenPage, live_server: Server) -> None:
    mine, opposite = (LabellingRun(live_server.root / name, ()) for name in ("mine", "opposite"))
    control(mine.folder, status=3)
    screen = open_page(run=mine, path="")
    prefer_upright_poles(screen, LABELS)
    events = screen.stored(LABELS)
    assert {event.annotator for event in events} == {screen.user.id}
    control(mine.folder)
    control(opposite.folder, status=3)
    answer_the_opposite(opposite, events)
    assert {event.task for event in opposite.feedback()} == {event.task for event in events}
    control(opposite.folder)
    untrained, trained = true_returns(mine.folder)
    same_untrained, taught_the_opposite = true_returns(opposite.folder)
    assert same_untrained == untrained
    assert trained > untrained + 40  # a pole that stays upright returns almost 200
    assert taught_the_opposite < untrained - 20
