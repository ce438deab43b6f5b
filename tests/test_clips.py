"""Clips: drawn again from a segment as shapes, pictures or a strip, and served to those who may look."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_server import Server, build_run_root

from assent.annotators.human import Human
from assent.clips import PictureClip, ShapeClip, draw_clip, draw_film, draw_strip
from assent.environments.pendulum import Pendulum
from assent.errors import AssentError, Waiting
from assent.functional.near_identical import is_near_identical
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.protocols import Environment, Line
from assent.records import Prompt, Response, Task
from assent.registry import resolve
from assent.replay import encode_actions, prompt_of, replay_frames, summarise
from assent.run import Setup, open_run
from assent.segments import Segment
from assent.stages.label import Label
from assent.store.database import Store

pytest.importorskip("gymnasium")
pytestmark = pytest.mark.usefixtures("quick_hashes")
START, STEPS = 10, 25
SVG = "{http://www.w3.org/2000/svg}"


def environment_of(name: str) -> Environment:
    environment: Environment = resolve("environments", name)()
    return environment


def segment_of(environment: Environment, seed: int, steps: int = STEPS, start: int = START) -> Segment:
    """Return a segment of an episode in which the same is done all the time, as numbers or as action 1."""
    shape = environment.action_space.shape
    actions = np.full((start + steps, *shape), 0.5, "f4") if shape else np.ones(start + steps, "i8")
    episodes = environment.begin([seed])
    for action in actions:
        episodes.step(action[None])
    return Segment(start, steps, encode_actions(actions), summarise(episodes.observations[0]))


def like(segment: Segment) -> Segment:
    """Return a segment with almost the same first action: its text has a letter more in lower case."""
    return replace(segment, actions=b"\x68" + segment.actions[1:])


def drawn(name: str, **options: int) -> ShapeClip | PictureClip:
    environment = environment_of(name)
    return draw_clip(prompt_of(environment, 3), segment_of(environment, 3, **options).text)


def test_a_clip_has_a_frame_after_each_step() -> None:
    clip = drawn("pendulum")
    assert isinstance(clip, ShapeClip)
    assert clip.fps == 20 and len(clip.frames) == STEPS
    episodes = Pendulum().begin([3])
    for step in range(START + STEPS):
        episodes.step(np.full((1, 1), 0.5))
        if step == START:
            first = episodes.draw(0)
    for frame, drawing in ((clip.frames[0], first), (clip.frames[-1], episodes.draw(0))):
        assert frame.view == pytest.approx(drawing.view)
        for shape, drawn_shape in zip(frame.shapes, drawing.shapes, strict=True):
            assert shape[:-1] == pytest.approx(drawn_shape[:-1], abs=1e-3)
            assert shape.tone == drawn_shape.tone


def test_a_clip_of_shapes_is_small_json() -> None:
    values = json.loads(json.dumps(drawn("pendulum").to_json()))
    assert (values["kind"], values["fps"], len(values["frames"])) == ("shapes", 20, STEPS)
    view, (rod, pivot) = values["frames"][0]
    assert view == [-1.3, -1.3, 1.3, 1.3]
    assert len(rod) == 6 and rod[5] == "accent"
    assert pivot == [0, 0, 0.06, "ink"]
    pytest.importorskip("mujoco")
    hopper = json.dumps(drawn("hopper", steps=60).to_json(), separators=(",", ":"))
    assert 4_000 < len(hopper) < 30_000


def test_pictures_lie_on_a_sheet_pixel_by_pixel() -> None:
    image = pytest.importorskip("PIL.Image")
    environment = environment_of("moving_dot")
    prompt, segment = prompt_of(environment, 3), segment_of(environment, 3, steps=7)
    clip = draw_clip(prompt, segment.text)
    assert isinstance(clip, PictureClip)
    assert (clip.columns, clip.frames, clip.width, clip.height) == (3, 7, 42, 42)
    assert "sheet" not in clip.to_json()
    sheet = np.asarray(image.open(BytesIO(clip.sheet)).convert("RGB"))
    assert sheet.shape == (3 * 42, 3 * 42, 3)
    for index, frame in enumerate(replay_frames(prompt, segment.text)):
        row, column = divmod(index, 3)
        assert np.array_equal(sheet[42 * row : 42 * row + 42, 42 * column : 42 * column + 42], frame)


def test_a_strip_shows_the_first_and_the_last_frame() -> None:
    clip = drawn("pendulum")
    strip = ET.fromstring(draw_strip(clip).replace("<svg", f'<svg xmlns="{SVG[1:-1]}"', 1))
    cells = strip.findall(f"{SVG}svg")
    assert len(cells) == 12 and strip.get("aria-label") == "12 frames of a clip of 1.2 seconds"
    assert isinstance(clip, ShapeClip)
    for cell, frame in ((cells[0], clip.frames[0]), (cells[-1], clip.frames[-1])):
        rod, line = cell.find(f"{SVG}line"), frame.shapes[0]
        assert rod is not None and rod.get("class") == "clip-accent" and isinstance(line, Line)
        assert float(rod.get("x2", "")) == pytest.approx(line.x1)
        assert float(rod.get("y2", "")) == pytest.approx(-line.y1)  # in SVG y points down
    assert len(ET.fromstring(draw_strip(drawn("pendulum", steps=5)))) == 5


def test_a_film_moves_by_one_frame_at_a_time() -> None:
    film = ET.fromstring(draw_film(drawn("pendulum")))
    cells = film.find("g")
    assert cells is not None and len(cells) == 25 and film.get("aria-label") == "A clip of 1.2 seconds"
    step = float(cells[1].get("x", "")) - float(cells[0].get("x", ""))
    assert float(film.get("viewBox", "").split()[2]) < step, "one frame at a time"
    assert f"--end: {-25 * step:g}px" in cells.get("style", "") and "steps(25)" in cells.get("style", "")


def test_a_strip_of_pictures_needs_no_other_file() -> None:
    pytest.importorskip("PIL")
    strip = ET.fromstring(draw_strip(drawn("moving_dot"), frames=4))
    assert [image.get("href", "")[:23] for image in strip] == ["data:image/webp;base64,"] * 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"end": (9.0, 9.0, 9.0)}, "does not end as it was recorded"),
        ({"steps": STEPS + 1}, "does not fit its environment"),
        ({"start": 190}, "does not fit its environment"),
    ],
)
def test_a_segment_that_cannot_be_replayed_is_not_drawn(change: dict[str, Any], reason: str) -> None:
    segment = replace(segment_of(Pendulum(), 3), **change)
    with pytest.raises(AssentError, match=reason):
        draw_clip(prompt_of(Pendulum(), 3), segment.text)


# The annotators of clips


def test_people_are_asked_about_clips_with_like_actions(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "feedback.db")
    prompt = prompt_of(Pendulum(), 3)
    segments = segment_of(Pendulum(), 3), like(segment_of(Pendulum(), 3))
    clips = [Response(prompt.id, segment.text, "control#0") for segment in segments]
    task = Task("comparison", prompt.id, tuple(clip.id for clip in clips))
    store.add_prompts([prompt])
    store.add_responses(clips)
    queue = TaskQueue(store)
    responses = {clip.id: clip for clip in clips}
    assert is_near_identical(*(clip.text for clip in clips))
    now = datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(Waiting, match="0 of 1 tasks judged"):
        list(Human(wait=0).annotate([task], {prompt.id: prompt}, responses, 0, now, queue, "control"))


@pytest.mark.parametrize("kind", ["correction", "demonstration"])
def test_nobody_is_asked_to_write_a_clip(tmp_path: Path, kind: str) -> None:
    with open_run(Setup(run=tmp_path / "run")) as run:
        run.store.add_prompts([prompt_of(Pendulum(), 3)])
        with pytest.raises(AssentError, match=f"nobody can write a clip: --kind {kind}"):
            Label(kind=kind)(run, "label")


# Clips on the pages


@pytest.fixture
def clips(tmp_path: Path) -> "Clips":
    return Clips(tmp_path)


class Clips:
    """A server of a run in which the labeller has a comparison of clips on the page; `other` is a clip beside it."""

    def __init__(self, folder: Path) -> None:
        self.server = Server.of(build_run_root(folder, single=True))
        store = self.server.demo.store
        self.prompt = prompt_of(Pendulum(), 3)
        self.items = [
            Response(self.prompt.id, segment_of(Pendulum(), 3, start=start).text, "control#0") for start in (0, 50, 100)
        ]
        liar = replace(segment_of(Pendulum(), 3), end=(9.0, 9.0, 9.0))
        self.broken = Response(self.prompt.id, liar.text, "control#0")
        store.add_prompts([self.prompt])
        store.add_responses([*self.items, self.broken])
        self.task = Task("comparison", self.prompt.id, tuple(item.id for item in self.items[:2]))
        self.assign("labeller", self.task)

    @property
    def other(self) -> Response:
        return self.items[2]

    def assign(self, role: str, task: Task) -> str:
        """Put a task on a user's page; return its name there."""
        queue = self.server.demo.queue
        queue.enqueue([TaskRequest(task, 1)], "control")
        return queue.assignments.assign(self.server.users[role].id, task).alias

    def get(self, role: str, item: str, end: str = "") -> Any:
        return self.server.client(role).get(f"/r/demo/clip/{item}{end}")


def test_a_clip_is_served_for_ever_and_to_nobody_else(clips: Clips) -> None:
    reply = clips.get("labeller", clips.items[0].id)
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "private, max-age=31536000, immutable"
    frames = draw_clip(clips.prompt, clips.items[0].text).to_json()
    assert reply.json() == json.loads(json.dumps(frames))
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("role", "own", "other"),
    [("labeller", 200, 404), ("reviewer", 200, 200), ("viewer", 200, 200), ("owner", 200, 200), ("", 401, 401)],
)
def test_labellers_see_the_clips_of_their_page_alone(clips: Clips, role: str, own: int, other: int) -> None:
    statuses = clips.get(role, clips.items[1].id).status_code, clips.get(role, clips.other.id).status_code
    assert statuses == (own, other)


def test_skipped_and_judged_clips_can_be_seen_again(clips: Clips) -> None:
    clips.server.demo.queue.assignments.skip(clips.server.users["labeller"].id, clips.task.id)
    assert clips.get("labeller", clips.items[0].id).status_code == 200


def test_a_paused_viewer_sees_no_clip(clips: Clips) -> None:
    accounts = clips.server.workspace.accounts
    accounts.change("test", clips.server.users["viewer"].id, "", state="paused")
    assert clips.get("viewer", clips.items[0].id).status_code == 404


@pytest.mark.parametrize("item", ["x", "0" * 19, "0" * 21, "A" * 20, "..%2f..%2ffeedback.db"])
def test_a_name_that_is_no_id_is_refused(clips: Clips, item: str) -> None:
    assert clips.get("owner", item).status_code in (404, 422)


def test_texts_and_unknown_items_are_no_clips(clips: Clips) -> None:
    text = next(item for item in clips.server.demo.store.responses() if item.prompt != clips.prompt.id)
    for item in (text.id, "0" * 20):
        assert clips.get("owner", item).status_code == 404
    assert clips.get("owner", clips.items[0].id, ".webp").status_code == 404  # shapes have no sheet


def test_a_sheet_is_served_as_webp(clips: Clips) -> None:
    pytest.importorskip("PIL")
    environment = environment_of("moving_dot")
    prompt = prompt_of(environment, 3)
    item = Response(prompt.id, segment_of(environment, 3).text, "control#0")
    clips.server.demo.store.add_prompts([prompt])
    clips.server.demo.store.add_responses([item])
    assert clips.get("labeller", item.id, ".webp").status_code == 404
    clips.assign("labeller", Task("approval", prompt.id, (item.id,)))
    reply = clips.get("labeller", item.id, ".webp")
    assert reply.headers["content-type"] == "image/webp" and reply.content[8:12] == b"WEBP"
    assert clips.get("labeller", item.id).json()["kind"] == "pictures"


def test_a_failed_replay_gives_its_reason_in_one_line(clips: Clips) -> None:
    reply = clips.get("owner", clips.broken.id)
    assert reply.status_code == 422 and "does not end as it was recorded" in reply.json()["detail"]
    assert "immutable" not in reply.headers["cache-control"]


def test_a_task_about_clips_holds_neither_seed_nor_actions(clips: Clips) -> None:
    page_id = clips.server.demo.queue.assignments.aliases(clips.server.users["labeller"].id, [clips.task.id])
    reply = clips.server.client("labeller").get(f"/r/demo/api/tasks/{page_id[clips.task.id]}")
    task = reply.json()
    assert task["is_clips"] is True
    assert [(turn["role"], turn["text"]) for turn in task["prompt"]] == [("user", Pendulum.task)]
    assert all(item["text"] == "" and f'data-clip="{item["id"]}"' in item["html"] for item in task["items"])
    assert "environment" not in reply.text and Segment.read(clips.items[0].text).text[12:40] not in reply.text


def test_pages_show_a_canvas_in_place_of_a_segment(clips: Clips) -> None:
    page = clips.server.client("viewer").get(f"/r/demo/prompts/{clips.prompt.id}").text
    assert page.count('<canvas class="clip"') == 4 and 'data-run="demo"' in page
    assert Pendulum.task in page and "&#34;seed&#34;" not in page and "actions" not in page.split("<main")[1]


def test_clips_cannot_be_corrected(clips: Clips) -> None:
    page_ids = clips.server.demo.queue.assignments.aliases(clips.server.users["labeller"].id, [clips.task.id])
    body = {"task": page_ids[clips.task.id], "item": clips.items[0].id}
    assert clips.server.client("labeller").post("/r/demo/api/corrections", json=body).status_code == 422


@pytest.mark.parametrize(("kind", "count", "status"), [("comparison", 2, 200), ("correction", 1, 422)])
def test_programs_may_post_comparisons_of_clips(clips: Clips, kind: str, count: int, status: int) -> None:
    near = Response(clips.prompt.id, like(segment_of(Pendulum(), 3, start=0)).text, "control#0")
    clips.server.demo.store.add_responses([near])
    assert is_near_identical(clips.items[0].text, near.text)
    task = {"kind": kind, "prompt": clips.prompt.id, "items": [clips.items[0].id, near.id][:count]}
    reply = clips.server.client("owner", token=True).post("/r/demo/api/tasks", json={"tasks": [task]})
    assert reply.status_code == status, reply.text


def test_a_prompt_without_words_is_a_page_without_turns(clips: Clips) -> None:
    prompt = Prompt(clips.prompt.messages[:1], source="pendulum")
    clips.server.demo.store.add_prompts([prompt])
    page = clips.server.client("viewer").get(f"/r/demo/prompts/{prompt.id}").text
    assert 'class="turn' not in page
