"""Clips of agents in a real browser: comparisons by keys, clips in step, reduced motion, dark mode and phones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browsing import PHONE, OpenPage, Screen, Server, TaskSpec, button, dialog, is_reachable, make_run

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.labelling.queue import TaskQueue
from assent.records import Feedback, Prompt, Response, Task
from assent.segments import Segment

pytest.importorskip("gymnasium")

from assent.environments.pendulum import Pendulum
from assent.replay import encode_actions, prompt_of, summarise

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
STEPS = Pendulum.clip_steps
MOVING: dict[str, Any] = {"reduced_motion": "no-preference"}


def clip(prompt: Prompt, seed: int, start: int, number: int) -> Response:
    """Return a clip of a pendulum whose motor does what it likes."""
    torques = np.random.default_rng(number).uniform(-2, 2, (start + STEPS, 1)).astype(np.float32)
    episodes = Pendulum().begin([seed])
    for torque in torques:
        episodes.step(torque[None])
    segment = Segment(start, STEPS, encode_actions(torques), summarise(episodes.observations[0]))
    return Response(prompt.id, segment.text, "control#0")


def clip_task(seed: int, kind: str = "comparison", count: int = 2) -> TaskSpec:
    """Return a task about clips of one seed."""
    prompt = prompt_of(Pendulum(), seed)
    clips = tuple(clip(prompt, seed, 10 * number, number) for number in range(count))
    task = Task(kind, prompt.id, tuple(item.id for item in clips), "train", f"Clips of seed {seed}: which is better?")
    return TaskSpec(task, prompt, clips)


def frames(page: Page) -> list[int]:
    """Return the frames that the canvases show."""
    shown: list[int] = page.eval_on_selector_all("canvas.clip", "all => all.map((one) => Number(one.dataset.frame))")
    return shown


def wait_for_clips(screen: Screen) -> Screen:
    screen.wait(
        "() => { const all = [...document.querySelectorAll('canvas.clip')];"
        " return all.length && all.every((one) => one.dataset.frame) }"
    )
    return screen


def ink(page: Page) -> list[int]:
    """Return how many pixels of each canvas are painted."""
    painted: list[int] = page.eval_on_selector_all(
        "canvas.clip",
        "all => all.map((one) => one.getContext('2d').getImageData(0, 0, one.width, one.height).data"
        ".filter((value, i) => i % 4 === 3 && value > 0).length)",
    )
    return painted


def axe_violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    return [f"{v['id']}: {node['html'][:150]}" for v in Axe().run(page).response["violations"] for node in v["nodes"]]


def test_arrows_and_digits_compare_two_clips(open_page: OpenPage) -> None:
    verdicts: dict[str, Callable[[list[str]], Comparison]] = {
        "ArrowLeft": lambda items: Comparison(items[0], 2),
        "ArrowRight": lambda items: Comparison(items[1], 2),
        "ArrowUp": lambda _: Comparison(verdict="tie"),
        "ArrowDown": lambda _: Comparison(verdict="cannot tell"),
        "1": lambda items: Comparison(items[0], 3),
        "7": lambda items: Comparison(items[1], 3),
    }
    screen = open_page(*(clip_task(seed) for seed in range(len(verdicts))))
    expected = []
    for key, says in verdicts.items():
        wait_for_clips(screen)
        assert screen.task and not screen.pressed
        expected.append((screen.task.id, says(screen.display_order)))
        screen.submit(key)
    assert [(event.task, event.judgement) for event in screen.stored(len(verdicts))] == expected


def test_page_shows_the_task_but_neither_seed_nor_actions(open_page: OpenPage) -> None:
    task = clip_task(5)
    screen = wait_for_clips(open_page(task))
    assert screen.page.locator("#prompt").inner_text().splitlines()[-1] == Pendulum.task
    page = screen.page.content()
    assert "environment" not in page and task.responses[0].text[12:40] not in page
    assert all(painted > 100 for painted in ink(screen.page))
    assert [canvas.get_attribute("aria-label") for canvas in screen.page.locator("canvas").all()] == [
        "Clip A, 1.3 seconds",
        "Clip B, 1.3 seconds",
    ]
    assert button(screen, "Edit").is_hidden()
    screen.press("ArrowLeft", "v")  # the source of the texts: clips have none
    assert button(screen, "Edit").is_hidden() and screen.page.locator("canvas.clip").count() == 2


def test_clips_play_in_step_and_again(open_page: OpenPage) -> None:
    screen = wait_for_clips(open_page(clip_task(1), **MOVING))
    seen = screen.page.evaluate(
        """(steps) => new Promise((resolve) => {
            const seen = [];
            const watch = () => {
                seen.push([...document.querySelectorAll("canvas.clip")].map((one) => Number(one.dataset.frame)));
                const frames = seen.map(([first]) => first);
                const last = frames.indexOf(steps - 1);
                if (last >= 0 && frames.indexOf(0, last) > 0) resolve(seen);
                else requestAnimationFrame(watch);
            };
            watch();
        })""",
        STEPS,
    )
    assert all(first == second for first, second in seen)


def test_space_pauses_and_commas_step(open_page: OpenPage) -> None:
    screen = wait_for_clips(open_page(clip_task(1), **MOVING))
    player = screen.page.get_by_role("group", name="Clips")
    screen.press("Space")
    player.get_by_role("button", name="Play").wait_for()
    screen.page.get_by_role("slider", name="Frame").fill("7")
    for keys, frame in (((), 7), ((".", "."), 9), ((",",), 8), ((",",) * 9, STEPS - 1), ((".",), 0)):
        screen.press(*keys)
        screen.wait("(frame) => document.querySelector('canvas.clip').dataset.frame == frame", frame)
        assert frames(screen.page) == [frame, frame]
    screen.press("[")
    assert player.get_by_role("button", name="½ speed").get_attribute("aria-pressed") == "true"
    screen.press("Space")
    player.get_by_role("button", name="Pause").wait_for()
    screen.wait("() => document.querySelector('canvas.clip').dataset.frame > 3")
    assert screen.pressed == []  # nothing of this is a judgement


def test_arrows_move_a_focused_slider(open_page: OpenPage) -> None:
    screen = wait_for_clips(open_page(clip_task(1)))
    screen.page.get_by_role("slider", name="Frame").focus()
    screen.press("ArrowRight", "ArrowRight")
    screen.wait("() => document.querySelector('canvas.clip').dataset.frame == 2")
    assert screen.pressed == []
    screen.press("6")
    assert screen.pressed == ["B better"]


def test_reduced_motion_starts_still(open_page: OpenPage) -> None:
    screen = wait_for_clips(open_page(clip_task(1)))
    screen.page.wait_for_timeout(300)
    assert frames(screen.page) == [0, 0]
    assert screen.page.get_by_role("button", name="Play").is_visible()
    screen.page.get_by_role("slider", name="Frame").fill(str(STEPS - 1))
    screen.wait("(last) => document.querySelector('canvas.clip').dataset.frame == last", STEPS - 1)


def test_a_ranking_an_approval_and_a_critique_of_clips(open_page: OpenPage) -> None:
    screen = open_page(clip_task(2, "ranking", 3), clip_task(3, "approval", 1), clip_task(4, "critique", 1))
    wait_for_clips(screen)
    order = screen.display_order
    screen.submit("2", "1", "3")
    wait_for_clips(screen).submit("j")
    wait_for_clips(screen).page.locator("#control textarea").fill("It only swings.")
    assert screen.page.locator("#control .quoting").count() == 0
    screen.submit(by="Control+Enter")
    ranking, approval, critique = (event.judgement for event in screen.stored(3))
    assert isinstance(ranking, Ranking) and ranking.tiers == ((order[1],), (order[0],), (order[2],))
    assert approval == Approval(True)
    assert getattr(critique, "text", "") == "It only swings."


def test_a_clip_that_cannot_be_replayed_says_so_and_is_skipped(open_page: OpenPage) -> None:
    broken = clip_task(6)
    segment = Segment.read(broken.responses[0].text)
    liar = replace(broken.responses[0], text=replace(segment, end=(9.0, 9.0, 9.0)).text)
    task = replace(broken.task, items=(liar.id, broken.responses[1].id))
    screen = open_page(replace(broken, task=task, responses=(liar, broken.responses[1])), clip_task(7))
    alert = screen.page.locator("#items [role=alert]")
    alert.wait_for()
    assert "cannot be shown: the replay of a segment does not end as it was recorded" in alert.inner_text()
    screen.press("ArrowLeft")
    assert button(screen, "Submit").is_disabled()
    screen.submit(by="s")
    wait_for_clips(screen)
    assert screen.task == screen.run.tasks[1].task


@pytest.mark.parametrize(
    ("kind", "count", "question", "names"),
    [
        ("comparison", 2, "Which clip is the better one?", ["Clip A", "Clip B"]),
        ("ranking", 3, "Put the clips in order, the best first.", ["Clip 1", "Clip 2", "Clip 3"]),
        ("rating", 1, "How good is this clip?", ["Clip"]),
        ("approval", 1, "Is this clip good enough?", ["Clip"]),
        ("critique", 1, "What is wrong with this clip, or right?", ["Clip"]),
    ],
)
def test_pages_speak_of_clips(open_page: OpenPage, kind: str, count: int, question: str, names: list[str]) -> None:
    task = clip_task(1, kind, count)
    screen = wait_for_clips(open_page(replace(task, task=replace(task.task, instruction=""))))
    assert screen.instruction == question
    labels = "nodes => nodes.map((node) => node.ariaLabel)"
    assert screen.page.eval_on_selector_all("#items .item", labels) == names
    assert screen.page.eval_on_selector_all("#items canvas", labels) == [f"{name}, 1.3 seconds" for name in names]
    assert button(screen, "Both bad").count() == 0
    screen.press("Escape", "g")
    assert dialog(screen, "Guidelines").inner_text().startswith("Guidelines\n\nWatch every clip to its end")
    screen.press("Escape", "?")
    assert "half speed" in dialog(screen, "Keyboard shortcuts").inner_text()
    page = screen.page.locator("body").text_content() or ""
    labelled = screen.page.eval_on_selector_all("[aria-label]", labels)
    assert [text for text in (page, *labelled) for word in ("esponse", "nswer", "both bad") if word in text] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_on_pages_with_clips(open_page: OpenPage, live_server: Server, scheme: str) -> None:
    run = make_run(live_server.root, clip_task(1), clip_task(2, "ranking", 4))
    prompt = run.tasks[0].prompt.id
    screen = wait_for_clips(open_page(run=run, role="owner", color_scheme=scheme))
    violations = axe_violations(screen.page)
    before = screen.instruction
    screen.submit("ArrowLeft")
    assert screen.instruction != before
    event = screen.stored(1)[0]
    for path in (f"/prompts/{prompt}", f"/judgements/{event.id}"):
        wait_for_clips(screen.go(path))
        assert screen.page.locator("canvas.clip").count() == 2
        assert screen.page.locator(".turn").count() == 1  # the environment is not shown
        violations += [f"{path} {one}" for one in axe_violations(screen.page)]
    assert violations == []


def test_clips_follow_the_theme(open_page: OpenPage) -> None:
    screen = wait_for_clips(open_page(clip_task(1), color_scheme="light"))
    colours = """() => {
        const canvas = document.querySelector("canvas.clip");
        const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, -canvas.width / 2, -canvas.height / 2);
        const { data } = copy.getImageData(0, 0, 1, 1);
        return [...data];
    }"""
    light = screen.page.evaluate(colours)
    screen.page.locator("#theme").click()
    screen.wait(f"(light) => String(({colours})()) !== String(light)", light)
    assert min(screen.page.evaluate(colours)[:3]) > max(light[:3])  # the pivot has the colour of the text


def test_phone_shows_both_clips_and_every_control(open_page: OpenPage) -> None:
    screen = wait_for_clips(open_page(clip_task(1), clip_task(2), **PHONE))
    width = screen.page.evaluate("() => document.scrollingElement.scrollWidth")
    assert width <= 390
    first, second = (canvas.bounding_box() for canvas in screen.page.locator("canvas.clip").all())
    assert first and second and first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]
    ratio = screen.page.evaluate("() => devicePixelRatio")
    assert screen.page.locator("canvas.clip").first.evaluate("one => one.width") == round(first["width"] * ratio)
    controls = screen.page.locator("#controls button:visible, .player button:visible").all()
    assert [one.inner_text() for one in controls if not is_reachable(one)] == []
    before = screen.instruction
    button(screen, "Cannot tell").tap()
    screen.wait_until_ready()
    button(screen, "Submit").tap()
    screen.wait_for_next_task(before)
    assert screen.stored(1)[0].judgement == Comparison(verdict="cannot tell")


def test_a_labeller_gets_no_clip_of_another_page(open_page: OpenPage, live_server: Server) -> None:
    run = make_run(live_server.root, clip_task(1))
    unasked = clip_task(1, "comparison", 3)
    run.store.add_responses(unasked.responses)
    screen = wait_for_clips(open_page(run=run))
    status = "(id) => fetch(`/r/${document.documentElement.dataset.run}/clip/${id}`).then((reply) => reply.status)"
    assert [screen.page.evaluate(status, item.id) for item in unasked.responses] == [200, 200, 404]


def test_reviewers_read_of_clips_and_are_offered_a_tie(open_page: OpenPage, live_server: Server) -> None:
    run = make_run(live_server.root, replace(clip_task(1), required=2))
    task = run.tasks[0].task
    queue = TaskQueue(run.store)
    for name, preferred in zip(("ann", "bob"), task.items, strict=True):
        shown = queue.assignments.assign(name, task).display_order
        queue.submit(Feedback(task.id, name, Comparison(preferred), "2026-11-20T10:00:00Z", display_order=shown))
    screen = wait_for_clips(open_page(run=run, role="owner", path="/review"))
    assert screen.page.locator(".item h2").all_inner_texts() == ["Clip 1", "Clip 2"]
    offered = [line.strip() for line in screen.page.locator("fieldset label").all_inner_texts()]
    assert offered == ["clip 1, strength 1 by ann", "clip 2, strength 1 by bob", "tie no annotator"]
    screen.go("/judgements")
    assert screen.page.locator("[data-label=judgement]").all_inner_texts() == [
        "clip 2, strength 1",
        "clip 1, strength 1",
    ]
    wait_for_clips(screen.go(f"/judgements/{screen.run.feedback()[0].id}"))
    headings = [name.split()[:2] for name in screen.page.locator(".item h2").all_inner_texts()]
    assert sorted(headings) == [["Clip", "1"], ["Clip", "2"]]
    assert "esponse" not in screen.page.locator("main").inner_text()


def test_defaults_of_a_run_of_clips_speak_of_no_text(open_page: OpenPage, live_server: Server) -> None:
    run = make_run(live_server.root, clip_task(1))
    screen = open_page(run=run, role="owner", path="/admin").page
    assert screen.get_by_label("Guidelines").input_value().startswith("Watch every clip to its end")
    assert screen.get_by_label("Flags, separated by commas").input_value() == ""
    assert screen.get_by_label("Rating axes, separated by commas").input_value() == "quality"
