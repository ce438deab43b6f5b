"""Races on the labelling page: double clicks, repeated keys, undo, drafts, and returned judgements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browsing import (
    OpenPage,
    Screen,
    box_of,
    button,
    dialog,
    make_task,
)

from assent.feedback import to_values
from assent.feedback.approval import Approval
from assent.feedback.correction import Correction
from assent.feedback.demonstration import Demonstration
from assent.labelling.queue import TaskQueue
from assent.store import schema

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.browser


WORDS = "A careful answer that took half an hour to write."


@pytest.mark.parametrize("reload", [False, True], ids=["at once", "after a reload"])
@pytest.mark.parametrize("kind", ["demonstration", "correction", "critique"])
def test_undo_of_a_skip_restores_the_draft(open_page: OpenPage, kind: str, reload: bool) -> None:
    screen = open_page(make_task(kind), make_task("approval"))
    first = screen.task
    screen.page.locator("#control textarea").fill(WORDS)
    before = screen.instruction
    button(screen, "Skip").click()
    skip_dialog = dialog(screen, "Skip this task?")
    skip_dialog.get_by_role("button", name="Keep writing").click()
    assert screen.task == first and screen.page.locator("#control textarea").input_value() == WORDS
    button(screen, "Skip").click()
    skip_dialog.get_by_role("button", name="Skip").click()
    screen.wait_for_next_task(before)
    assert screen.task != first
    if reload:
        screen.wait_until(lambda: assignment_states(screen) == {"skipped", "out"})
        screen.reload()
    screen.press("u")
    screen.wait_until(lambda: screen.task == first)
    assert screen.page.locator("#control textarea").input_value() == WORDS
    screen.wait_until(lambda: assignment_states(screen) == {"out"})
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert first and event.task == first.id and WORDS in str(to_values(event.judgement)) and not event.supersedes


def assignment_states(screen: Screen) -> set[str]:
    with screen.run.store.reading() as on:
        return {row.state for row in on.execute(schema.assignments.select()) if row.annotator == screen.user.id}


def test_skip_asks_only_if_text_was_written(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"), make_task("comparison"))
    before = screen.instruction
    screen.press("1", "s")
    screen.wait_for_next_task(before)
    screen.press("w")
    screen.page.keyboard.type("because")
    screen.press("Enter", "s")
    dialog(screen, "Skip this task?").wait_for()


def test_undo_reverts_skips_before_older_judgements(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("approval") for _ in range(4)))
    tasks = [task.task for task in screen.run.tasks]
    screen.submit("j")
    for _ in range(2):
        before = screen.instruction
        screen.press("s")
        screen.wait_for_next_task(before)
    for expected in (tasks[2], tasks[1], tasks[0]):
        screen.press("u")
        screen.wait_until(lambda expected=expected: screen.task == expected)  # type: ignore[misc]
    assert screen.pressed == ["Approve"]


def test_double_click_on_submit_stores_one_judgement(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("correction", f"It is badly wrong {n}.") for n in range(3)))
    screen.wait_until_ready().page.locator("#control textarea").fill("It is right now.")
    submit = box_of(button(screen, "Submit"))
    for wait in (250, 300):
        screen.page.mouse.click(submit["x"] + 9, submit["y"] + 9)
        screen.page.wait_for_timeout(wait)
    screen.page.wait_for_timeout(500)
    assert [event.judgement for event in screen.stored(1)] == [Correction("It is right now.")]


@pytest.mark.parametrize("keys", ["Control+Enter", "Enter"])
def test_held_key_stores_one_judgement(open_page: OpenPage, keys: str) -> None:
    kind = "correction" if "Control" in keys else "approval"
    screen = open_page(*(make_task(kind) for _ in range(4)))
    if kind == "correction":
        screen.page.locator("#control textarea").fill("It is right now.")
    else:
        screen.press("j")
    screen.wait_until_ready()
    *modifier, key = keys.split("+")
    for name in modifier:
        screen.page.keyboard.down(name)
    for _ in range(30):  # a keyboard repeats a pressed key
        screen.page.keyboard.down(key)
        screen.page.wait_for_timeout(40)
    for name in (key, *modifier):
        screen.page.keyboard.up(name)
    screen.stored(1)


def test_quick_submit_ignores_a_doubled_key(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("approval") for _ in range(3)))
    screen.page.evaluate(
        """() => {
            document.querySelector("#quick-label").hidden = false;
            document.querySelector("#quick").checked = true;
        }"""
    )
    screen.wait_until_ready()
    before = screen.instruction
    for _ in range(2):
        screen.page.keyboard.press("j")
        screen.page.wait_for_timeout(120)
    screen.page.wait_for_timeout(600)
    assert screen.instruction != before and len(screen.stored(1)) == 1


def test_unchanged_correction_needs_an_explicit_choice(open_page: OpenPage) -> None:
    screen = open_page(make_task("correction", "All is well."), make_task("correction", "All is ill."))
    screen.wait_until_ready()
    screen.page.keyboard.press("Control+Enter")
    screen.page.wait_for_timeout(300)
    assert screen.run.feedback() == [] and button(screen, "Submit").is_disabled()
    button(screen, "No correction needed").click()
    screen.submit(by="Enter")
    assert [event.judgement for event in screen.stored(1)] == [Correction("All is well.")]
    text = screen.page.locator("#control textarea")
    text.fill("All is better.")
    text.fill("All is ill.")
    assert button(screen, "Submit").is_disabled()  # the restored original text cannot be submitted


KEYBOARDS = {
    "a number pad": ("1", "Numpad1", "A much"), "AZERTY, first digit": ("&", "Digit1", "A much"),
    "AZERTY, second digit": ("é", "Digit2", "A better"), "AZERTY, last digit": ("à", "Digit0", "Both bad"),
    "Persian digits": ("۱", "Digit1", "A much"), "full-width digits": ("１", "Digit1", "A much"),
}  # fmt: skip


def press_layout_key(screen: Screen, key: str, code: str) -> None:
    """Send a key as a keyboard of another layout does."""
    send = """([key, code]) =>
        document.querySelector("main").dispatchEvent(new KeyboardEvent("keydown", { key, code, bubbles: true }))"""
    screen.page.evaluate(send, [key, code])


def test_shortcuts_work_on_other_keyboard_layouts(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("comparison"))
    for key, code, choice in KEYBOARDS.values():
        screen.press("4")
        press_layout_key(screen, key, code)
        assert screen.pressed == [choice], (key, code)
    screen.press("4")
    press_layout_key(screen, "o", "KeyS")  # Dvorak: the layout has a letter there that is no shortcut
    assert screen.pressed == ["Tie"] and screen.task == screen.run.tasks[0].task
    press_layout_key(screen, "п", "KeyG")
    dialog(screen, "Guidelines").get_by_role("button", name="Close").click()
    screen.wait_until_ready()
    press_layout_key(screen, "ы", "KeyS")
    screen.wait_until(lambda: screen.task == screen.run.tasks[1].task)


def test_diff_of_a_long_correction_marks_changed_words_only(open_page: OpenPage) -> None:
    words = [f"word{n % 97}" for n in range(3000)]
    screen = open_page(make_task("correction", " ".join(words)))
    changed = [word if n % 300 else "changed" for n, word in enumerate(words)]
    screen.page.locator("#control textarea").fill(" ".join(changed))
    assert screen.page.locator(".diff ins").all_inner_texts() == ["changed"] * 10
    assert len(screen.page.locator(".diff del").all_inner_texts()) == 10


def test_undo_pressed_twice_keeps_the_changes(open_page: OpenPage) -> None:
    screen = open_page(make_task("demonstration"), make_task("approval"))
    screen.page.keyboard.type("First.")
    screen.submit(by="Control+Enter")
    screen.stored(1)
    screen.press("u")
    text = screen.page.locator("#control textarea")
    text.wait_for()
    text.fill("Much better, many words.")
    screen.press("Escape", "u")
    screen.page.wait_for_timeout(300)
    assert text.input_value() == "Much better, many words."
    screen.reload()
    screen.press("Escape", "u")
    screen.wait_until(lambda: text.count() == 1 and text.input_value() == "Much better, many words.")
    screen.submit(by="Control+Enter")
    first, second = screen.stored(2)
    assert second.supersedes == first.id and second.judgement == Demonstration("Much better, many words.")


def test_correction_ignores_line_end_differences(open_page: OpenPage) -> None:
    source = "Line one.\r\nLine two is wrong."
    screen = open_page(make_task("correction", source), make_task("correction", source + "\r"))
    screen.wait_until_ready()
    assert button(screen, "Submit").is_disabled() and screen.page.locator(".diff del").count() == 0
    screen.submit("Escape", "n")
    screen.page.locator("#control textarea").fill("Line one.\nLine two.")
    screen.submit(by="Control+Enter")
    judgements = [event.judgement for event in screen.stored(2)]
    assert judgements == [Correction(source), Correction("Line one.\nLine two.")]


def test_sent_back_judgement_needs_a_change_to_submit(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("approval"))
    screen.submit("j")
    (event,) = screen.stored(1)
    TaskQueue(screen.run.store).assignments.send_back(screen.user.id, event.task, "Look again.")
    screen.reload().wait_until_ready()
    assert "Look again." in screen.notice and screen.pressed == ["Approve"]
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_timeout(300)
    assert len(screen.run.feedback()) == 1 and button(screen, "Submit").is_disabled()
    screen.submit("k")
    assert [one.judgement for one in screen.stored(2)] == [Approval(True), Approval(False)]


def test_old_draft_does_not_replace_a_sent_back_judgement(open_page: OpenPage) -> None:
    screen = open_page(make_task("demonstration"), make_task("approval"))
    second_tab = screen.tab().go()
    second_tab.page.locator("#control textarea").fill("Half a draft of another tab.")
    screen.page.locator("#control textarea").fill("The whole answer.")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    second_tab.page.locator("#control textarea").press("End")
    second_tab.page.keyboard.type("!")
    second_tab.page.wait_for_timeout(300)
    second_tab.page.close()
    TaskQueue(screen.run.store).assignments.send_back(screen.user.id, event.task, "")
    screen.reload()
    assert screen.page.locator("#control textarea").input_value() == "The whole answer."


def test_skip_dialog_closes_when_another_task_is_shown(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("demonstration"), make_task("approval"))
    first = screen.task
    posts = screen.hold("**/api/judgements")
    screen.submit("j")
    posts.wait()
    screen.page.keyboard.type("Words of the second.")
    button(screen, "Skip").click()
    dialog(screen, "Skip this task?").wait_for()
    posts.routes.pop(0).fulfill(status=422, json={"detail": "not so"})
    screen.wait_until(lambda: screen.task == first)
    assert screen.page.locator("dialog[open]").count() == 0
    screen.page.wait_for_timeout(200)
    assert screen.task == first and "not so" in screen.notice
    posts.is_released = True
    screen.submit("k")
    screen.wait_until(lambda: screen.task == screen.run.tasks[1].task)
    assert screen.page.locator("#control textarea").input_value() == "Words of the second."


@pytest.mark.parametrize("wait", [0, 1, 5])
def test_submit_during_undo_stores_nothing_twice(open_page: OpenPage, wait: int) -> None:
    screen = open_page(*(make_task("approval") for _ in range(3)))
    before = screen.instruction
    screen.press("s")
    screen.wait_for_next_task(before)
    screen.press("j")
    screen.wait_until_ready()
    screen.page.evaluate(
        """async (wait) => {
            for (const key of ["u", "Enter"]) {
                document.querySelector("main").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
                if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
            }
        }""",
        wait,
    )
    screen.wait_until(lambda: screen.task == screen.run.tasks[0].task)
    while screen.task:
        screen.submit(*(["j"] if not screen.pressed else []))
    task_ids = [event.task for event in screen.stored(3)]
    assert sorted(task_ids) == sorted(task.task.id for task in screen.run.tasks)
