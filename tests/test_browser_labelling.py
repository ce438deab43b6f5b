"""The labelling page in a real browser: every kind of judgement by keyboard and mouse, flags, skips and undo."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import (
    VERDICTS,
    OpenPage,
    Screen,
    Server,
    box_of,
    button,
    dialog,
    is_reachable,
    make_run,
    make_task,
    serving,
)

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.labelling.queue import TaskQueue
from assent.labelling.settings import change_setting
from assent.records import Judgement, Task
from assent.store import schema

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.browser


def test_comparison_keys_store_the_right_item(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("comparison") for _ in VERDICTS))
    expected: list[tuple[str, tuple[str, ...], Judgement]] = []
    for key, says in VERDICTS.items():
        assert screen.task and not screen.pressed
        expected.append((screen.task.id, tuple(screen.display_order), says(screen.display_order)))
        screen.submit(key)
    events = screen.stored(8)
    assert [(event.task, event.display_order, event.judgement) for event in events] == expected
    assert {event.annotator for event in events} == {screen.user.id}
    assert all(event.duration > 0 for event in events)


def test_choice_can_be_changed_until_submit(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"))
    first = screen.instruction
    screen.press("Enter")
    assert screen.instruction == first  # no choice yet
    screen.press("1")
    assert screen.pressed == ["A much"]
    screen.press("6")
    assert screen.pressed == ["B better"] and screen.instruction == first
    better = screen.display_order[1]
    screen.submit()
    assert screen.stored(1)[0].judgement == Comparison(better, 2)


def test_enter_submits_after_a_mouse_choice(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"))
    first = screen.instruction
    button(screen, "A better").click()
    screen.press("Enter")
    screen.page.wait_for_timeout(300)
    assert screen.instruction != first


RANKED = {
    3: ("3 1 2", [[3], [1], [2]]),
    4: ("2 1 = 3 0", [[2], [1, 3], [4]]),
    5: ("5 0", [[5], [1, 2, 3, 4]]),
    6: ("1 2 Backspace 3 = 2 6 5 4", [[1], [2, 3], [6], [5], [4]]),
    7: ("7 = 6 = 5 0", [[5, 6, 7], [1, 2, 3, 4]]),
    8: ("8 7 6 5 4 3 2 1", [[8], [7], [6], [5], [4], [3], [2], [1]]),
    9: ("9 1 1 = 2 8 7 6 5 4 3", [[9], [1, 2], [8], [7], [6], [5], [4], [3]]),
}


def test_ranking_keys_store_the_order_of_the_digits(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("ranking", k=k) for k in RANKED))
    expected = []
    for k, (keys, places) in RANKED.items():
        assert len(screen.display_order) == k
        screen.press("Enter")  # no effect, since the ranking starts without an order
        expected.append([{screen.display_order[place - 1] for place in tier} for tier in places])
        screen.submit(*keys.split())
    events = screen.stored(len(RANKED))
    assert [
        [set(tier) for tier in event.judgement.tiers] for event in events if isinstance(event.judgement, Ranking)
    ] == expected


def test_rating_arrow_keys_change_the_axis(open_page: OpenPage) -> None:
    screen = open_page(make_task("rating"), make_task("rating"))
    screen.submit("7", "6", "5")
    screen.submit("1", "2", "3", "ArrowUp", "ArrowUp", "4")
    axes = [event.judgement for event in screen.stored(2)]
    assert axes == [
        Rating((("helpful", 7), ("true", 6), ("harmless", 5))),
        Rating((("helpful", 4), ("true", 2), ("harmless", 3))),
    ]


def test_rating_needs_every_axis(open_page: OpenPage) -> None:
    screen = open_page(make_task("rating"))
    screen.press("7", "6", "Enter")
    assert button(screen, "Submit").is_disabled() and screen.task
    screen.submit("5")
    screen.stored(1)


def test_approval_keys_j_and_k(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("approval"), make_task("approval"))
    screen.submit("j").submit("k").submit("K")
    assert [event.judgement for event in screen.stored(3)] == [Approval(True), Approval(False), Approval(False)]


def test_critique_and_demonstration_focus_the_text_field(open_page: OpenPage) -> None:
    screen = open_page(make_task("critique"), make_task("demonstration"))
    screen.page.keyboard.type("Too short,\nand sure of itself. 1 2 3 j k s u g ?")
    screen.submit(by="Control+Enter")
    screen.page.keyboard.type("Forty-two.")
    screen.submit(by="Control+Enter")
    judgements = [event.judgement for event in screen.stored(2)]
    assert judgements == [Critique("Too short,\nand sure of itself. 1 2 3 j k s u g ?"), Demonstration("Forty-two.")]


def select_text(screen: Screen, begin: str, end: str) -> None:
    """Select with the mouse a part of a response, between two phrases; an empty end means the heading above."""
    box = """(words) => {
        const walk = document.createTreeWalker(document.querySelector("#items .text"), NodeFilter.SHOW_TEXT);
        for (let node = walk.nextNode(); node; node = walk.nextNode()) {
            const at = node.data.indexOf(words);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(node, at), range.setEnd(node, at + words.length);
            const { left, right, top, bottom } = range.getBoundingClientRect();
            return [left, right, (top + bottom) / 2];
        }
    }"""
    left, right, y = screen.page.evaluate(box, begin)
    mouse = screen.page.mouse
    if not end:
        heading = box_of(screen.page.locator("#items h2"))
        mouse.move(right, y)
        mouse.down()
        mouse.move(heading["x"] + 1, heading["y"] + heading["height"] / 2, steps=4)
    else:
        mouse.move(left, y)
        mouse.down()
        _, right, y = screen.page.evaluate(box, end)
        mouse.move(right, y, steps=4)
    mouse.up()


def test_critique_quotes_the_selected_passage(open_page: OpenPage) -> None:
    text = "Plants are green.\n\nThey drink  *light* from the sun, says <b>Anna</b>.\nAnd water."
    screen = open_page(make_task("critique", text))
    select_text(screen, "light", "Anna")
    screen.page.locator("#control textarea").fill("Do they?")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert event.judgement == Critique("Do they?", "light* from the sun, says <b>Anna")


def test_critique_quote_is_clipped_to_the_response(open_page: OpenPage) -> None:
    text = "Plants are green. They drink light."
    screen = open_page(make_task("critique", text))
    select_text(screen, "They drink", "")
    screen.page.locator("#control textarea").fill("Do they?")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert isinstance(event.judgement, Critique) and event.judgement.quote in text


def test_critique_quote_by_keyboard(open_page: OpenPage) -> None:
    screen = open_page(make_task("critique", "Plants are green. They drink light."))
    inside = "() => Boolean(document.activeElement.closest('#items'))"
    for _ in range(30):
        screen.press("Shift+Tab")
        if screen.page.evaluate(inside):
            break
    assert screen.page.evaluate(inside), "no key leads into the response"
    screen.press("Control+Home", "Shift+ArrowRight", "Shift+ArrowRight")
    screen.wait("() => document.querySelector('.quote').textContent === 'Pl'")  # the event comes a little later
    screen.page.locator("#control textarea").focus()
    screen.page.keyboard.type("Do they?")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert isinstance(event.judgement, Critique) and event.judgement.quote == "Pl"


def test_correction_shows_the_diff_while_typing(open_page: OpenPage) -> None:
    screen = open_page(make_task("correction", "The sea is red, and deep."), make_task("correction", "All **right**."))
    text = screen.page.locator("#control textarea")
    assert text.input_value() == "The sea is red, and deep."
    text.press("Control+Home")
    screen.press(*["ArrowRight"] * len("The sea is red"), *["Backspace"] * len("red"))
    screen.page.keyboard.type("blue")
    diff = screen.page.locator(".diff")
    assert (diff.locator("del").all_inner_texts(), diff.locator("ins").all_inner_texts()) == (["red"], ["blue"])
    assert "The sea is" in diff.inner_text()
    screen.submit(by="Control+Enter")
    assert button(screen, "Submit").is_disabled()  # an unchanged text cannot be submitted
    screen.submit("Escape", "n")
    judgements = [event.judgement for event in screen.stored(2)]
    assert judgements == [Correction("The sea is blue, and deep."), Correction("All **right**.")]


def test_correction_keeps_reasoning_and_tool_calls(open_page: OpenPage) -> None:
    task = make_task("correction", "The sea is red.")
    extra = {"reasoning_content": "Look at it.", "tool_calls": [{"function": {"name": "look"}}]}
    response = replace(task.responses[0], extra=extra)
    task_on_screen = replace(task.task, items=(response.id,))
    screen = open_page(replace(task, task=task_on_screen, responses=(response,)))
    assert screen.page.locator("#control textarea").input_value() == "The sea is red."
    judgement = screen.page.locator("#items .text").inner_text()
    assert all(words in judgement for words in ("Look at it.", "The sea is red.", "tool_calls"))
    screen.submit("Escape", "n")
    assert [event.judgement for event in screen.stored(1)] == [Correction("The sea is red.")]


def test_edit_key_assigns_a_correction_to_this_user_only(open_page: OpenPage, live_server: Server) -> None:
    task = make_task("comparison", "It is one.", "It is two.")
    screen = open_page(task, make_task("approval"))
    texts = {response.id: response.text for response in task.responses}
    better = screen.display_order[1]
    screen.wait_until_ready().press("6")
    before = screen.instruction
    screen.press("e")
    screen.wait_for_next_task(before)
    text = screen.page.locator("#control textarea")
    assert text.input_value() == texts[better]
    text.fill("It is three.")
    screen.submit(by="Control+Enter")
    first, second = screen.stored(2)
    assert first.judgement == Comparison(better, 2) and second.judgement == Correction("It is three.")
    (request,) = screen.run.store.tasks(ids=[second.task])
    assert (request.kind, request.items, request.prompt) == ("correction", (better,), task.prompt.id)
    assert screen.task == screen.run.tasks[1].task
    assert all(
        event.task.id != request.id for event in TaskQueue(screen.run.store).next_tasks(live_server.new_user().id, 10)
    )


def test_shortcut_keys_are_text_while_typing(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"))
    before = screen.instruction
    screen.press("w")
    words = "1 2 jkeswug? F1 0="
    screen.page.keyboard.type(words)
    assert screen.page.locator("#comment").input_value() == words
    assert not screen.pressed and screen.instruction == before
    assert screen.page.locator("dialog[open]").count() == 0
    screen.press("Escape")
    screen.submit("4")
    (event,) = screen.stored(1)
    assert (event.comment, event.judgement) == (words, Comparison(verdict="tie"))


def test_flags_and_comment_are_stored(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"))
    screen.press("f", "1", "f", "5", "f", "2", "f", "2")  # pressing a flag twice removes it
    assert screen.pressed == ["Harm", "PII"]
    screen.press("w")
    screen.page.keyboard.type("it names a person")
    screen.press("Enter")
    screen.submit("3")
    assert not screen.pressed and screen.page.locator("#comment").input_value() == ""
    screen.submit("4")
    first, second = screen.stored(2)
    assert (first.flags, first.comment) == (("harm", "pii"), "it names a person")
    assert (second.flags, second.comment) == ((), "")


def test_skipped_task_is_assigned_to_other_labellers(open_page: OpenPage, live_server: Server) -> None:
    screen = open_page(*(make_task("comparison") for _ in range(5)))
    skipped = screen.task
    before = screen.instruction
    screen.press("s")
    screen.wait_for_next_task(before)
    visited: list[Task] = []
    while screen.task:
        visited.append(screen.task)
        screen.submit("4")
    screen.stored(4)
    assert skipped and skipped not in visited
    assert open_page(run=screen.run, user=live_server.new_user()).task == skipped


def test_skipped_task_stays_away_while_the_skip_is_sent(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("comparison") for _ in range(6)))
    held_requests = screen.hold("**/api/skip")
    skipped, before = screen.task, screen.instruction
    with screen.page.expect_response("**/api/tasks/next*"):
        screen.press("s")
        screen.wait_for_next_task(before)
    held_requests.wait()
    held_requests.release()
    visited: list[Task] = []
    while screen.task and len(visited) < 6:
        visited.append(screen.task)
        screen.submit("4")
    assert skipped not in visited


def test_undo_reopens_and_supersedes_the_judgement(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("comparison") for _ in range(3)))
    first = screen.task
    screen.press("w")
    screen.page.keyboard.type("so so")
    screen.press("Enter", "f", "1")
    screen.submit("2")
    second = screen.task
    screen.press("7")  # the next judgement is incomplete
    before = screen.instruction
    screen.press("u")
    screen.wait_for_next_task(before)
    assert screen.task == first and screen.pressed == ["A better", "Harm"]
    assert screen.page.locator("#comment").input_value() == "so so"
    better = screen.display_order[1]
    screen.submit("5").stored(2)
    assert screen.task == second and screen.pressed == ["B much"]
    screen.submit()
    old, new, second_screen = screen.stored(3)
    assert (new.supersedes, new.task, new.judgement) == (old.id, old.task, Comparison(better, 1))
    assert old.supersedes == second_screen.supersedes == ""
    assert screen.run.store.verify() == 3


@pytest.mark.parametrize(("keys", "name"), [("2", "A better"), ("4", "Tie"), ("0", "Both bad")])
def test_undo_after_a_reload(open_page: OpenPage, keys: str, name: str) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"))
    first = screen.task
    screen.submit(keys).stored(1)
    screen.reload()
    before = screen.instruction
    screen.press("u")
    screen.wait_for_next_task(before)
    assert screen.task == first and screen.pressed == [name]
    screen.submit("1")
    old, new = screen.stored(2)
    assert new.supersedes == old.id


def test_undo_twice_supersedes_in_a_chain(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("approval"))
    for key in "jkj":
        screen.submit(key)
        before = screen.instruction
        screen.press("u")
        screen.wait_for_next_task(before)
    event, two, three = screen.stored(3)
    assert [event.supersedes, two.supersedes, three.supersedes] == ["", event.id, two.id]


def test_undo_restores_the_quote(open_page: OpenPage) -> None:
    screen = open_page(make_task("critique", "Alpha beta gamma."), make_task("critique", "Delta epsilon zeta."))
    select_text(screen, "beta", "beta")
    screen.page.locator("#control textarea").fill("Why?")
    screen.submit(by="Control+Enter")
    select_text(screen, "zeta", "zeta")
    before = screen.instruction
    button(screen, "Undo").click()
    screen.wait_for_next_task(before)
    assert screen.page.locator(".quote").inner_text() == "beta"
    screen.submit(by="Control+Enter")
    assert [event.judgement for event in screen.stored(2)] == [Critique("Why?", "beta")] * 2


def test_guidelines_and_help_dialogs_block_shortcuts(open_page: OpenPage, live_server: Server) -> None:
    run = make_run(live_server.root, make_task("comparison"))
    change_setting(run.store, "guidelines", "# Be fair\n\nTake *all* of it in.", "olive", "2026-11-20")
    screen = open_page(run=run)
    for key, name, words in (("g", "Guidelines", "Take all of it in."), ("?", "Keyboard shortcuts", "much")):
        screen.press(key)
        help_dialog = dialog(screen, name)
        assert help_dialog.is_visible() and words in help_dialog.inner_text()
        screen.press("1", "s")
        assert screen.task and not screen.pressed
        screen.press("Escape")
        assert not help_dialog.is_visible()
    screen.press("1")
    assert screen.pressed == ["A much"]


def test_earlier_turns_of_the_prompt_are_folded(open_page: OpenPage) -> None:
    turns = [("user", "What is a prime?"), ("assistant", "A number."), ("user", "Is seven one?")]
    screen = open_page(make_task("comparison", turns=turns))
    prompt = screen.page.locator("#prompt")
    assert prompt.get_by_text("Is seven one?").is_visible() and not prompt.get_by_text("A number.").is_visible()
    prompt.locator("summary").click()
    assert prompt.get_by_text("A number.").is_visible()


def test_controls_stay_visible_while_items_scroll(open_page: OpenPage) -> None:
    long = [f"{name} " + "word " * 3000 + f"end of {name}" for name in ("first", "second")]
    screen = open_page(make_task("comparison", *long))
    screen.press("End")
    ends = [screen.page.get_by_text(f"end of {name}") for name in ("first", "second")]
    for event in ends:
        event.scroll_into_view_if_needed()
    texts = screen.page.locator("#items .text")
    tops = [box_of(texts.nth(i))["y"] for i in (0, 1)]
    assert tops[0] == tops[1] < 0
    for name in ("A much", "B much", "Submit"):
        assert is_reachable(button(screen, name))


MOOD = '''"""How an answer sounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.records import Example, Feedback, Prompt, Response, Task


@dataclass(frozen=True)
class Mood:
    """What one hears in it."""

    num_items: ClassVar[range] = range(1, 2)
    tone: Literal["warm", "cold"]
    """How it sounds to you."""
    loudness: int
    """From 0, a whisper, to 10."""
    sincere: bool
    words: str = ""
    """The word that gave it away."""

    @property
    def items(self) -> tuple[str, ...]:
        return ()

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        return ()
'''


def test_new_feedback_kind_gets_a_form(open_page: OpenPage, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(Path(schema.__file__).parents[1], home / "assent", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "assent/feedback/mood.py").write_text(MOOD)
    with serving(tmp_path / "runs", home) as server:
        task = make_task("mood", "Oh, thanks a lot.")
        screen = open_page(task, at=server)
        form = screen.page.locator("#control")
        assert "Oh, thanks a lot." in screen.page.locator("#items").inner_text()
        for words in ("How it sounds to you.", "From 0, a whisper, to 10.", "The word that gave it away."):
            assert words in form.inner_text()
        assert button(screen, "Submit").is_disabled()  # three fields have to be filled in
        form.get_by_label("tone").select_option("cold")
        form.get_by_label("loudness").fill("7")
        form.get_by_label("sincere").focus()
        screen.press("Space", "Space")
        form.get_by_label("words").fill("lot")
        screen.submit(by="Control+Enter")
        screen.wait("() => document.querySelector('#state').dataset.state === 'saved'")
        with sqlite3.connect(screen.run.folder / "feedback.db") as database:
            rows = database.execute("SELECT task, kind, judgement FROM feedback").fetchall()
    judgement = {"tone": "cold", "loudness": 7, "sincere": False, "words": "lot"}
    assert [(task_on_screen, kind, json.loads(stored)) for task_on_screen, kind, stored in rows] == [
        (task.task.id, "mood", judgement)
    ]
