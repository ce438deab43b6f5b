"""The pages in a real browser at a real server: what is said is what is stored, whatever happens in between."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny
from browsing import (
    PASSWORD,
    PHONE,
    SHOWS,
    Account,
    ItemSpec,
    Screen,
    Server,
    Work,
    ask,
    browser_path,
    lay,
    more,
    mortals,
    serving,
)

from assent.feedback import body
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.labelling.queue import TaskQueue, change_setting
from assent.records import Feedback, Judgement, Task
from assent.store import schema
from assent.web.text import Cover

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser

Opens = Callable[..., Screen]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("runs")) as server:
        yield server


@pytest.fixture
def opens(chromium: Browser, server: Server) -> Iterator[Opens]:
    """Ask things of somebody, and open the label page for them; in the end nothing may have gone wrong in it."""
    screens: list[Screen] = []

    def open_page(
        *tasks: ItemSpec, work: Work | None = None, at: Server = server, role: str = "labeller",
        person: Account | None = None, clock: bool = False, path: str = "/label", **options: Any,
    ) -> Screen:  # fmt: skip
        work = work or lay(at.root, *tasks)
        settings = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
        screen = Screen(chromium.new_context(**settings).new_page(), at, work, person or at.usual(role))
        screens.append(screen)
        screen.sign_in_as(screen.person)
        if clock:
            screen.page.clock.install()
        return screen.go(path) if path else screen

    yield open_page
    try:
        for screen in screens:
            screen.check()
    finally:
        for screen in screens:
            screen.context.close()


def button(screen: Screen, name: str) -> Any:
    return screen.page.locator("#controls").get_by_role("button", name=name)


def dialog(screen: Screen, name: str) -> Any:
    return screen.page.get_by_role("dialog", name=name)


# Every kind, by the keyboard alone


VERDICTS: dict[str, Callable[[list[str]], Comparison]] = {
    "1": lambda shown: Comparison(shown[0], 3),
    "2": lambda shown: Comparison(shown[0], 2),
    "3": lambda shown: Comparison(shown[0], 1),
    "4": lambda _: Comparison(verdict="tie"),
    "0": lambda _: Comparison(verdict="both bad"),
    "5": lambda shown: Comparison(shown[1], 1),
    "6": lambda shown: Comparison(shown[1], 2),
    "7": lambda shown: Comparison(shown[1], 3),
}


def test_each_of_the_eight_keys_of_a_comparison_stores_what_it_says_by_item(opens: Opens) -> None:
    screen = opens(*(ask("comparison") for _ in VERDICTS))
    expected: list[tuple[str, tuple[str, ...], Judgement]] = []
    for key, says in VERDICTS.items():
        assert screen.query and not screen.pressed
        expected.append((screen.query.id, tuple(screen.shown), says(screen.shown)))
        screen.submit(key)
    events = screen.stored(8)
    assert [(event.task, event.display_order, event.judgement) for event in events] == expected
    assert {event.annotator for event in events} == {screen.person.id}
    assert all(event.duration > 0 for event in events)


def test_a_choice_waits_for_enter_and_may_be_changed_until_then(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("comparison"))
    first = screen.instruction
    screen.press("Enter")
    assert screen.instruction == first  # nothing is chosen yet
    screen.press("1")
    assert screen.pressed == ["A much"]
    screen.press("6")
    assert screen.pressed == ["B better"] and screen.instruction == first
    better = screen.shown[1]
    screen.submit()
    assert screen.stored(1)[0].judgement == Comparison(better, 2)


def test_enter_submits_after_a_choice_by_mouse_too(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("comparison"))
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


def test_rankings_of_three_to_nine_are_stored_in_the_order_of_the_digits(opens: Opens) -> None:
    screen = opens(*(ask("ranking", k=k) for k in RANKED))
    expected = []
    for k, (keys, places) in RANKED.items():
        assert len(screen.shown) == k
        screen.press("Enter")  # it starts without an order, so that this does nothing
        expected.append([{screen.shown[place - 1] for place in tier} for tier in places])
        screen.submit(*keys.split())
    events = screen.stored(len(RANKED))
    assert [
        [set(tier) for tier in event.judgement.tiers] for event in events if isinstance(event.judgement, Ranking)
    ] == expected


def test_a_rating_goes_from_axis_to_axis_and_back_by_arrow(opens: Opens) -> None:
    screen = opens(ask("rating"), ask("rating"))
    screen.submit("7", "6", "5")
    screen.submit("1", "2", "3", "ArrowUp", "ArrowUp", "4")
    axes = [event.judgement for event in screen.stored(2)]
    assert axes == [
        Rating((("helpful", 7), ("true", 6), ("harmless", 5))),
        Rating((("helpful", 4), ("true", 2), ("harmless", 3))),
    ]


def test_a_rating_needs_every_axis(opens: Opens) -> None:
    screen = opens(ask("rating"))
    screen.press("7", "6", "Enter")
    assert button(screen, "Submit").is_disabled() and screen.query
    screen.submit("5")
    screen.stored(1)


def test_j_approves_and_k_disapproves(opens: Opens) -> None:
    screen = opens(ask("approval"), ask("approval"), ask("approval"))
    screen.submit("j").submit("k").submit("K")
    assert [event.judgement for event in screen.stored(3)] == [Approval(True), Approval(False), Approval(False)]


def test_a_critique_and_a_demonstration_are_written_at_once(opens: Opens) -> None:
    screen = opens(ask("critique"), ask("demonstration"))
    screen.page.keyboard.type("Too short,\nand sure of itself. 1 2 3 j k s u g ?")
    screen.submit(by="Control+Enter")
    screen.page.keyboard.type("Forty-two.")
    screen.submit(by="Control+Enter")
    answers = [event.judgement for event in screen.stored(2)]
    assert answers == [Critique("Too short,\nand sure of itself. 1 2 3 j k s u g ?"), Demonstration("Forty-two.")]


def mark(screen: Screen, begin: str, end: str) -> None:
    """Mark with the mouse what stands in an answer from some words to others; an empty end is the heading above."""
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


def test_a_marked_passage_is_quoted_word_for_word(opens: Opens) -> None:
    text = "Plants are green.\n\nThey drink  *light* from the sun, says <b>Anna</b>.\nAnd water."
    screen = opens(ask("critique", text))
    mark(screen, "light", "Anna")
    screen.page.locator("#control textarea").fill("Do they?")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert event.judgement == Critique("Do they?", "light* from the sun, says <b>Anna")


def test_a_quote_holds_nothing_but_words_of_the_answer(opens: Opens) -> None:
    text = "Plants are green. They drink light."
    screen = opens(ask("critique", text))
    mark(screen, "They drink", "")
    screen.page.locator("#control textarea").fill("Do they?")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert isinstance(event.judgement, Critique) and event.judgement.quote in text


def test_a_passage_can_be_quoted_without_a_mouse(opens: Opens) -> None:
    screen = opens(ask("critique", "Plants are green. They drink light."))
    inside = "() => Boolean(document.activeElement.closest('#items'))"
    for _ in range(30):
        screen.press("Shift+Tab")
        if screen.page.evaluate(inside):
            break
    assert screen.page.evaluate(inside), "no key leads into the answer"
    screen.press("Control+Home", "Shift+ArrowRight", "Shift+ArrowRight")
    screen.wait("() => document.querySelector('.quote').textContent === 'Pl'")  # the browser tells of it a little later
    screen.page.locator("#control textarea").focus()
    screen.page.keyboard.type("Do they?")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert isinstance(event.judgement, Critique) and event.judgement.quote == "Pl"


def test_a_correction_shows_what_changes_while_it_is_written(opens: Opens) -> None:
    screen = opens(ask("correction", "The sea is red, and deep."), ask("correction", "All **right**."))
    text = screen.page.locator("#control textarea")
    assert text.input_value() == "The sea is red, and deep."
    text.press("Control+Home")
    screen.press(*["ArrowRight"] * len("The sea is red"), *["Backspace"] * len("red"))
    screen.page.keyboard.type("blue")
    diff = screen.page.locator(".diff")
    assert (diff.locator("del").all_inner_texts(), diff.locator("ins").all_inner_texts()) == (["red"], ["blue"])
    assert "The sea is" in diff.inner_text()
    screen.submit(by="Control+Enter")
    assert button(screen, "Submit").is_disabled()  # untouched, it says nothing yet
    screen.submit("Escape", "n")
    answers = [event.judgement for event in screen.stored(2)]
    assert answers == [Correction("The sea is blue, and deep."), Correction("All **right**.")]


def test_a_correction_leaves_thoughts_and_calls_as_they_are(opens: Opens) -> None:
    task = ask("correction", "The sea is red.")
    extra = {"reasoning_content": "Look at it.", "tool_calls": [{"function": {"name": "look"}}]}
    response = replace(task.responses[0], extra=extra)
    query = replace(task.query, items=(response.id,))
    screen = opens(replace(task, query=query, responses=(response,)))
    assert screen.page.locator("#control textarea").input_value() == "The sea is red."
    answer = screen.page.locator("#items .text").inner_text()
    assert all(words in answer for words in ("Look at it.", "The sea is red.", "tool_calls"))
    screen.submit("Escape", "n")
    assert [event.judgement for event in screen.stored(1)] == [Correction("The sea is red.")]


def test_e_makes_a_correction_of_the_better_one_for_this_person_alone(opens: Opens, server: Server) -> None:
    task = ask("comparison", "It is one.", "It is two.")
    screen = opens(task, ask("approval"))
    texts = {response.id: response.text for response in task.responses}
    better = screen.shown[1]
    screen.listens().press("6")
    before = screen.instruction
    screen.press("e")
    screen.moved(before)
    text = screen.page.locator("#control textarea")
    assert text.input_value() == texts[better]
    text.fill("It is three.")
    screen.submit(by="Control+Enter")
    first, second = screen.stored(2)
    assert first.judgement == Comparison(better, 2) and second.judgement == Correction("It is three.")
    (asked,) = screen.work.store.tasks(ids=[second.task])
    assert (asked.kind, asked.items, asked.prompt) == ("correction", (better,), task.prompt.id)
    assert screen.query == screen.work.tasks[1].query
    assert all(one.query.id != asked.id for one in TaskQueue(screen.work.store).take(server.account().id, 10))


def test_keys_are_letters_while_somebody_writes(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("comparison"))
    before = screen.instruction
    screen.press("w")
    words = "1 2 jkeswug? F1 0="
    screen.page.keyboard.type(words)
    assert screen.page.locator("#note").input_value() == words
    assert not screen.pressed and screen.instruction == before
    assert screen.page.locator("dialog[open]").count() == 0
    screen.press("Escape")
    screen.submit("4")
    (event,) = screen.stored(1)
    assert (event.comment, event.judgement) == (words, Comparison(verdict="tie"))


def test_flags_and_the_reason_are_stored_with_the_answer(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("comparison"))
    screen.press("f", "1", "f", "5", "f", "2", "f", "2")  # the same flag twice is none
    assert screen.pressed == ["Harm", "PII"]
    screen.press("w")
    screen.page.keyboard.type("it names a person")
    screen.press("Enter")
    screen.submit("3")
    assert not screen.pressed and screen.page.locator("#note").input_value() == ""
    screen.submit("4")
    first, second = screen.stored(2)
    assert (first.flags, first.comment) == (("harm", "pii"), "it names a person")
    assert (second.flags, second.comment) == ((), "")


def test_a_skipped_item_stays_away_and_others_get_it(opens: Opens, server: Server) -> None:
    screen = opens(*(ask("comparison") for _ in range(5)))
    skipped = screen.query
    before = screen.instruction
    screen.press("s")
    screen.moved(before)
    seen: list[Task] = []
    while screen.query:
        seen.append(screen.query)
        screen.submit("4")
    screen.stored(4)
    assert skipped and skipped not in seen
    assert opens(work=screen.work, person=server.account()).query == skipped


def test_a_skipped_item_stays_away_even_if_the_server_hears_of_it_late(opens: Opens) -> None:
    screen = opens(*(ask("comparison") for _ in range(6)))
    held = screen.hold("**/api/skip")
    skipped, before = screen.query, screen.instruction
    with screen.page.expect_response("**/api/next*"):
        screen.press("s")
        screen.moved(before)
    held.wait()
    held.release()
    seen: list[Task] = []
    while screen.query and len(seen) < 6:
        seen.append(screen.query)
        screen.submit("4")
    assert skipped not in seen


def test_undo_brings_the_answer_back_and_the_new_one_supersedes_it(opens: Opens) -> None:
    screen = opens(*(ask("comparison") for _ in range(3)))
    first = screen.query
    screen.press("w")
    screen.page.keyboard.type("so so")
    screen.press("Enter", "f", "1")
    screen.submit("2")
    second = screen.query
    screen.press("7")  # half done with the next one
    before = screen.instruction
    screen.press("u")
    screen.moved(before)
    assert screen.query == first and screen.pressed == ["A better", "Harm"]
    assert screen.page.locator("#note").input_value() == "so so"
    better = screen.shown[1]
    screen.submit("5").stored(2)
    assert screen.query == second and screen.pressed == ["B much"]
    screen.submit()
    old, new, other = screen.stored(3)
    assert (new.supersedes, new.task, new.judgement) == (old.id, old.task, Comparison(better, 1))
    assert old.supersedes == other.supersedes == ""
    assert screen.work.store.verify() == 3


@pytest.mark.parametrize(("keys", "name"), [("2", "A better"), ("4", "Tie"), ("0", "Both bad")])
def test_undo_works_after_a_reload_too(opens: Opens, keys: str, name: str) -> None:
    screen = opens(ask("comparison"), ask("comparison"))
    first = screen.query
    screen.submit(keys).stored(1)
    screen.reload()
    before = screen.instruction
    screen.press("u")
    screen.moved(before)
    assert screen.query == first and screen.pressed == [name]
    screen.submit("1")
    old, new = screen.stored(2)
    assert new.supersedes == old.id


def test_undo_of_an_undo_makes_a_chain(opens: Opens) -> None:
    screen = opens(ask("approval"), ask("approval"))
    for key in "jkj":
        screen.submit(key)
        before = screen.instruction
        screen.press("u")
        screen.moved(before)
    one, two, three = screen.stored(3)
    assert [one.supersedes, two.supersedes, three.supersedes] == ["", one.id, two.id]


def test_undo_brings_back_the_quote_that_was_given(opens: Opens) -> None:
    screen = opens(ask("critique", "Alpha beta gamma."), ask("critique", "Delta epsilon zeta."))
    mark(screen, "beta", "beta")
    screen.page.locator("#control textarea").fill("Why?")
    screen.submit(by="Control+Enter")
    mark(screen, "zeta", "zeta")
    before = screen.instruction
    button(screen, "Undo").click()
    screen.moved(before)
    assert screen.page.locator(".quote").inner_text() == "beta"
    screen.submit(by="Control+Enter")
    assert [event.judgement for event in screen.stored(2)] == [Critique("Why?", "beta")] * 2


def test_guidelines_and_keys_are_a_key_away_and_hold_the_others_off(opens: Opens, server: Server) -> None:
    work = lay(server.root, ask("comparison"))
    change_setting(work.store, "guidelines", "# Be fair\n\nTake *all* of it in.", "olive", "2026-11-20")
    screen = opens(work=work)
    for key, name, words in (("g", "Guidelines", "Take all of it in."), ("?", "Keys", "much")):
        screen.press(key)
        shown = dialog(screen, name)
        assert shown.is_visible() and words in shown.inner_text()
        screen.press("1", "s")
        assert screen.query and not screen.pressed
        screen.press("Escape")
        assert not shown.is_visible()
    screen.press("1")
    assert screen.pressed == ["A much"]


def test_earlier_turns_are_folded_and_the_last_one_is_not(opens: Opens) -> None:
    turns = [("user", "What is a prime?"), ("assistant", "A number."), ("user", "Is seven one?")]
    screen = opens(ask("comparison", turns=turns))
    prompt = screen.page.locator("#prompt")
    assert prompt.get_by_text("Is seven one?").is_visible() and not prompt.get_by_text("A number.").is_visible()
    prompt.locator("summary").click()
    assert prompt.get_by_text("A number.").is_visible()


def test_the_controls_stay_while_both_answers_scroll_together(opens: Opens) -> None:
    long = [f"{name} " + "word " * 3000 + f"end of {name}" for name in ("first", "second")]
    screen = opens(ask("comparison", *long))
    screen.press("End")
    ends = [screen.page.get_by_text(f"end of {name}") for name in ("first", "second")]
    for one in ends:
        one.scroll_into_view_if_needed()
    texts = screen.page.locator("#items .text")
    tops = [box_of(texts.nth(i))["y"] for i in (0, 1)]
    assert tops[0] == tops[1] < 0
    for name in ("A much", "B much", "Submit"):
        assert hit(button(screen, name))


def box_of(locator: Any) -> Any:
    """Where something is on the screen."""
    box = locator.bounding_box()
    assert box, "it is not on the page"
    return box


def hit(locator: Any, corner: bool = False) -> bool:
    """Whether a tap at the middle of an element (or at a corner), where it stands now, reaches it."""
    reached: bool = locator.evaluate(
        """(node, corner) => {
            const { left, right, top, bottom, width, height } = node.getBoundingClientRect();
            const corners = [[left + 6, top + 6], [right - 6, bottom - 6]];
            const points = corner ? corners : [[(left + right) / 2, (top + bottom) / 2]];
            const whole = left >= 0 && top >= 0 && right <= innerWidth + 0.5 && bottom <= innerHeight + 0.5;
            return width > 0 && height > 0 && (corner || whole)
                && points.some((point) => node.contains(document.elementFromPoint(...point)));
        }""",
        corner,
    )
    return reached


# A new file in a folder is a form


MOOD = '''"""How an answer sounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from assent.records import Example, Prompt, Query, Response


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
        self, query: Query, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        return ()
'''


def test_a_file_dropped_into_the_feedback_folder_is_a_form_that_stores_what_is_filled_in(
    opens: Opens, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(Path(schema.__file__).parents[1], home / "assent", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "assent/feedback/mood.py").write_text(MOOD)
    with serving(tmp_path / "runs", home) as there:
        task = ask("mood", "Oh, thanks a lot.")
        screen = opens(task, at=there)
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
        with sqlite3.connect(screen.work.folder / "feedback.db") as database:
            rows = database.execute("SELECT query, kind, answer FROM feedback").fetchall()
    answer = {"tone": "cold", "loudness": 7, "sincere": False, "words": "lot"}
    assert [(query, kind, json.loads(told)) for query, kind, told in rows] == [(task.query.id, "mood", answer)]


# Nothing that was said is lost


def kind_of_state(screen: Screen) -> str:
    return screen.page.locator("#state").get_attribute("data-state") or ""


def test_the_dot_is_green_only_after_the_server_has_answered(opens: Opens) -> None:
    screen = opens(*(ask("comparison") for _ in range(3)))
    screen.submit("1").stored(1)
    held = screen.hold("**/api/feedback")
    screen.submit("2")
    held.wait()
    screen.until(lambda: kind_of_state(screen) == "saving")
    screen.submit("3")  # who goes on working sees the same
    assert kind_of_state(screen) == "saving" and len(screen.work.said()) == 1
    held.release()
    held.wait()
    assert kind_of_state(screen) == "saving" and len(screen.work.said()) == 2
    held.release()
    screen.stored(3)


def test_ten_minutes_offline_lose_nothing_and_keep_the_order(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("ranking", k=3), ask("demonstration"), ask("approval"), clock=True)
    expected = []
    screen.context.set_offline(True)
    query, shown = screen.query, screen.shown
    screen.submit("1")
    assert query
    expected.append((query.id, body(Comparison(shown[0], 3))))
    query, shown = screen.query, screen.shown
    screen.submit("2", "3", "1")
    assert query
    expected.append((query.id, body(Ranking(((shown[1],), (shown[2],), (shown[0],))))))
    screen.page.keyboard.type("It takes a while")
    for _ in range(10):
        screen.page.clock.fast_forward("01:00")
    screen.until(lambda: kind_of_state(screen) == "offline" and "2 waiting" in screen.state)
    assert screen.work.said() == []
    screen.page.keyboard.type(" to write.")
    query = screen.query
    screen.submit(by="Control+Enter")
    assert query
    expected.append((query.id, body(Demonstration("It takes a while to write."))))
    screen.until(lambda: "3 waiting" in screen.state)
    screen.context.set_offline(False)
    screen.stored(3)
    screen.page.clock.fast_forward("00:10")  # what comes next comes by itself
    screen.wait("() => !document.querySelector('#controls').hidden")
    query = screen.query
    screen.submit("j").stored(4)
    assert query
    assert screen.work.answers() == [*expected, (query.id, body(Approval(True)))]


def test_answers_arrive_in_the_order_in_which_they_were_given(opens: Opens) -> None:
    screen = opens(ask("approval"), ask("approval"), ask("approval"))
    screen.context.set_offline(True)
    first, before = screen.query, screen.instruction
    screen.submit("j")
    second = screen.query
    screen.press("k")  # touched, and left for the one before
    screen.press("u")
    screen.moved(screen.work.tasks[1].query.instruction)
    assert screen.instruction == before
    screen.submit("k")
    screen.submit()
    screen.context.set_offline(False)
    events = screen.stored(3)
    assert first and second
    assert [(event.task, event.judgement) for event in events] == [
        (first.id, Approval(True)), (first.id, Approval(False)), (second.id, Approval(False)),
    ]  # fmt: skip


def test_answers_outlive_the_tab_they_were_given_in(opens: Opens) -> None:
    screen = opens(*(ask("approval") for _ in range(4)))
    screen.context.set_offline(True)
    screen.submit("j").submit("k")
    screen.until(lambda: "2 waiting" in screen.state)
    other = screen.tab()
    screen.page.close()
    screen.context.set_offline(False)
    other.go()
    assert [event.judgement for event in other.stored(2)] == [Approval(True), Approval(False)]
    assert other.query == screen.work.tasks[2].query


def test_a_post_that_never_gets_an_answer_does_not_hold_the_others_up_for_ever(opens: Opens) -> None:
    """As after a change of network: the connection stays open, and nothing comes through it any more."""
    screen = opens(ask("approval"), ask("approval"), ask("approval"), clock=True)
    held = screen.hold("**/api/feedback")
    screen.submit("j")
    held.wait()
    held.free = True
    screen.submit("k")
    for _ in range(10):
        screen.page.clock.fast_forward("01:00")
        screen.page.wait_for_timeout(50)
    screen.context.set_offline(True)
    screen.context.set_offline(False)
    screen.page.wait_for_timeout(1000)
    screen.page.clock.fast_forward("02:00")
    screen.stored(2)


def test_every_post_three_times_stores_one(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("ranking"), ask("critique"), ask("rating"))

    def thrice(route: Route) -> None:
        first = route.fetch()
        for _ in range(2):
            again = route.fetch()
            assert (again.status, again.text()) == (first.status, first.text())
        route.fulfill(response=first)

    screen.context.route("**/api/feedback", thrice)
    screen.submit("1").submit("1", "2", "3", "4")
    screen.page.keyboard.type("So so.")
    screen.submit(by="Control+Enter").submit("1", "2", "3")
    assert len({event.id for event in screen.stored(4)}) == 4
    assert screen.work.store.verify() == 4


def test_a_draft_comes_back_after_two_seconds_and_a_reload(opens: Opens) -> None:
    screen = opens(ask("demonstration"), ask("comparison"), clock=True)
    screen.page.keyboard.type("Half a thou")
    screen.page.clock.fast_forward("00:03")
    screen.page.wait_for_timeout(200)
    screen.reload()
    assert screen.page.locator("#control textarea").input_value() == "Half a thou"
    assert screen.work.said() == []
    screen.page.locator("#control textarea").press("Control+End")
    screen.page.keyboard.type("ght.")
    screen.submit(by="Control+Enter")
    assert screen.stored(1)[0].judgement == Demonstration("Half a thought.")


@pytest.mark.parametrize("kind", ["demonstration", "critique", "correction", "comparison", "ranking", "rating"])
def test_a_reload_in_the_middle_brings_back_what_was_there(opens: Opens, kind: str) -> None:
    screen = opens(ask(kind))
    if kind in ("demonstration", "critique", "correction"):
        screen.page.locator("#control textarea").fill("Half a thought")
    else:
        screen.press("3")
    screen.press("Escape", "w")
    screen.page.keyboard.type("because")
    screen.press("Escape", "f", "2")
    read = """() => [document.querySelector("#controls textarea")?.value, document.querySelector("#note").value,
        [...document.querySelectorAll("#controls [aria-pressed=true], #controls .tiers")].map((n) => n.textContent)]"""
    before = screen.page.evaluate(read)
    screen.reload()
    assert screen.page.evaluate(read) == before


def test_what_is_typed_survives_when_the_tab_is_closed_at_once(opens: Opens) -> None:
    screen = opens(ask("demonstration"))
    other = screen.tab()
    for i in range(3):
        page = screen.tab().go().page
        words = f"The thought number {i}"
        page.locator("#control textarea").fill(words)
        page.close()
        other.go()
        assert other.page.locator("#control textarea").input_value() == words


def test_an_ended_session_asks_to_sign_in_and_then_stores_what_waits(opens: Opens, server: Server) -> None:
    screen = opens(*(ask("approval") for _ in range(4)), person=server.account())
    server.people.revoke(screen.person.session)
    screen.submit("j")
    shown = dialog(screen, "Sign in again")
    shown.wait_for()
    screen.until(lambda: kind_of_state(screen) == "sign in" and "1 waiting" in screen.state)
    shown.get_by_label("Password").fill("not the one")
    shown.get_by_role("button", name="Sign in").click()
    shown.get_by_text("No account with this name and password.").wait_for()
    screen.press("Escape")  # who does not want to sign in now goes on working
    screen.submit("k")
    shown.wait_for()
    screen.until(lambda: "2 waiting" in screen.state)
    shown.get_by_label("Password").fill(PASSWORD)
    screen.press("Enter")
    shown.wait_for(state="hidden")
    events = screen.stored(2)
    assert [event.judgement for event in events] == [Approval(True), Approval(False)]
    screen.submit("k").stored(3)


def test_what_somebody_said_is_never_stored_as_said_by_the_next_at_the_same_machine(
    opens: Opens, server: Server
) -> None:
    first, second = server.account(), server.account()
    screen = opens(ask("approval", wanted=2), ask("approval", wanted=2), person=first)
    screen.context.set_offline(True)
    screen.submit("j")
    screen.until(lambda: "1 waiting" in screen.state)
    TaskQueue(screen.work.store).take(second.id, 2)  # they have the same items on a screen elsewhere
    screen.sign_in_as(second)
    screen.context.set_offline(False)
    screen.until(lambda: kind_of_state(screen) not in ("offline", "saving"))
    assert [event.annotator for event in screen.work.said()] in ([], [first.id])
    screen.sign_in_as(first)
    screen.reload()
    screen.until(lambda: bool(screen.work.said()) or screen.pressed == ["Approve"])
    if not screen.work.said():
        screen.submit()
    assert [event.annotator for event in screen.stored(1)] == [first.id]


@pytest.mark.parametrize("kind", ["comparison", "demonstration"])
def test_an_answer_that_is_not_taken_comes_back_filled_in_and_can_be_copied(opens: Opens, kind: str) -> None:
    screen = opens(ask(kind), ask("approval"), permissions=["clipboard-read", "clipboard-write"])
    query, better = screen.query, [*screen.shown, ""][0]
    with screen.work.store.writing() as on:  # as if the item had been taken from this person
        for table in (schema.leases, schema.asks):
            on.execute(table.delete().where(table.c.query == (query.id if query else "")))
    if kind == "comparison":
        screen.press("w")
        screen.page.keyboard.type("clearly")
        screen.press("Enter", "f", "1", "2")
    else:
        screen.page.keyboard.type("A long text.")
    screen.press("Control+Enter")
    screen.page.locator("#notice").get_by_role("button", name="copy").wait_for()
    assert screen.query == query and kind_of_state(screen) == "rejected"
    assert "not taken" in screen.state and "never on your page" in screen.notice
    if kind == "comparison":
        assert screen.pressed == ["A better", "Harm"]
        assert screen.page.locator("#note").input_value() == "clearly"
    else:
        assert screen.page.locator("#control textarea").input_value() == "A long text."
    screen.page.locator("#notice").get_by_role("button", name="copy").click()
    copied = screen.page.evaluate("() => navigator.clipboard.readText()")
    assert (better if kind == "comparison" else "A long text.") in copied
    before = screen.instruction
    button(screen, "Skip").click()
    dialog(screen, "Skip this one?").get_by_role("button", name="Skip").click()
    screen.moved(before)
    screen.submit("j").stored(1)


def test_two_tabs_store_one_answer_each_and_offer_the_other_for_replacement(opens: Opens) -> None:
    one = opens(*(ask("comparison") for _ in range(8)))
    two = one.tab().go()
    assert one.query == two.query
    latest: dict[str, Judgement] = {}
    for _ in range(3):
        assert one.query
        latest[one.query.id] = Comparison(one.shown[0], 3)
        one.submit("1")
    one.stored(3)
    for n in range(3):
        query, shown = two.query, two.shown
        assert query
        two.press("7", "Enter")
        two.page.locator("#notice").get_by_text("another tab").wait_for()
        assert two.query == query and two.pressed == ["B much"]
        assert len(one.work.said()) == 3 + n
        latest[query.id] = Comparison(shown[1], 3)
        two.submit()
        two.stored(4 + n)
    two.submit("4").stored(7)
    events = one.work.said()
    superseded = {event.supersedes for event in events}
    standing = [event for event in events if event.id not in superseded]
    assert len(standing) == len({event.task for event in events}) == 4
    assert {event.task: event.judgement for event in standing} == latest | {events[-1].task: Comparison(verdict="tie")}


def test_an_answer_that_came_back_is_still_there_after_a_reload(opens: Opens) -> None:
    one = opens(ask("demonstration"), ask("demonstration"), ask("approval"))
    two = one.tab().go()
    query = one.query
    one.page.keyboard.type("First.")
    one.submit(by="Control+Enter").stored(1)
    two.page.keyboard.type("Second, and far longer.")
    two.press("Control+Enter")
    two.page.locator("#notice").get_by_text("another tab").wait_for()
    two.reload()
    two.until(lambda: two.query == query)
    assert two.page.locator("#control textarea").input_value() == "Second, and far longer."
    two.submit(by="Control+Enter")
    first, second = two.stored(2)
    assert second.supersedes == first.id and second.judgement == Demonstration("Second, and far longer.")


def test_two_tabs_that_answer_the_same_item_offline_store_one_and_offer_the_other(opens: Opens) -> None:
    one = opens(*(ask("approval") for _ in range(3)))
    two = one.tab().go()
    query = one.query
    one.context.set_offline(True)
    one.submit("j")
    two.submit("k")
    one.context.set_offline(False)
    one.until(lambda: bool(one.work.said()) and any("another tab" in tab.notice for tab in (one, two)))
    offered = one if "another tab" in one.notice else two
    assert offered.query == query and offered.pressed == ["Disapprove"]
    offered.submit()
    first, second = offered.stored(2)
    assert (first.judgement, second.judgement, second.supersedes) == (Approval(True), Approval(False), first.id)


def test_two_tabs_that_began_with_the_same_draft_offer_the_second_answer_for_replacement(opens: Opens) -> None:
    one = opens(ask("approval"), ask("approval"))
    one.press("j")
    one.page.wait_for_timeout(200)
    two = one.tab().go()
    assert two.query == one.query
    one.submit().stored(1)
    query = two.query
    two.press("k", "Enter")
    two.page.locator("#notice").wait_for()
    assert two.query == query and two.pressed == ["Disapprove"]
    two.submit()
    first, second = two.stored(2)
    assert second.supersedes == first.id and second.judgement == Approval(False)


def test_an_answer_in_one_tab_is_not_lost_while_the_same_draft_is_posted_from_another(opens: Opens) -> None:
    one = opens(ask("approval"), ask("approval"))
    one.press("j")
    one.page.wait_for_timeout(200)
    two = one.tab().go()
    held = one.hold("**/api/feedback")
    query = one.query
    one.submit()
    held.wait()
    two.submit("k")
    held.free = True
    held.release()
    one.until(lambda: bool(one.work.said()) and kind_of_state(one) != "saving")
    said = [event.judgement for event in one.work.said() if query and event.task == query.id]
    offered = [tab for tab in (one, two) if tab.query == query and tab.pressed == ["Disapprove"]]
    assert Approval(False) in said or offered, f"'{one.state}', but Disapprove is neither stored nor on a page"


def test_one_item_at_a_time_is_on_the_page_however_late_it_comes(opens: Opens, server: Server) -> None:
    work = lay(server.root)
    screen = opens(work=work, clock=True)
    screen.page.locator("#empty").wait_for()
    held = screen.hold("**/api/next*")
    for _ in range(4):
        screen.page.clock.fast_forward("00:06")
        held.wait()
    more(work, ask("approval"), ask("approval"))
    held.free = True
    while held.routes:
        held.release()
    screen.page.locator("#prompt").get_by_text("?").first.wait_for()
    screen.page.clock.fast_forward("00:06")
    screen.page.wait_for_timeout(300)
    assert screen.page.locator("#prompt .turn").count() == 1 and screen.query, screen.page.inner_text("main")
    screen.submit("j").submit("j").stored(2)


def test_an_item_on_the_screen_stays_when_no_more_can_be_had(opens: Opens) -> None:
    screen = opens(*(ask("demonstration") for _ in range(6)))
    held = screen.hold("**/api/next*")
    screen.page.keyboard.type("First.")
    screen.submit(by="Control+Enter")
    held.wait()
    query = screen.query
    screen.page.keyboard.type("While I write this, the server fails")
    with screen.page.expect_response("**/api/next*"):
        held.routes.pop().fulfill(status=503, json={"detail": "feedback.db is locked by another process"})
    screen.page.wait_for_timeout(200)
    assert screen.query == query
    assert screen.page.locator("#control textarea").input_value() == "While I write this, the server fails"


def test_a_full_disk_keeps_the_answer_on_the_page_says_so_and_stores_it_later(opens: Opens, tmp_path: Path) -> None:
    with mortals(tmp_path, full=True) as there:
        there.usual()
        there.start()
        screen = opens(ask("demonstration"), ask("approval"), ask("approval"), at=there, clock=True)
        there.flag.touch()
        text = "A very long answer. " * 4000  # more than the pages at hand can hold
        screen.page.locator("#control textarea").fill(text)
        with screen.page.expect_response("**/api/feedback") as told:
            screen.submit(by="Control+Enter")
        assert told.value.status == 507
        screen.until(lambda: kind_of_state(screen) == "offline")
        assert "disk is full" in screen.state and "1 waiting" in screen.state
        assert screen.query == screen.work.tasks[1].query  # the work goes on
        assert screen.work.said() == []
        there.flag.unlink()
        screen.page.clock.fast_forward("02:00")
        assert [event.judgement for event in screen.stored(1)] == [Demonstration(text)]
        screen.submit("j").stored(2)


def test_whatever_the_page_called_saved_outlives_twenty_kills_and_nothing_is_stored_twice(
    opens: Opens, tmp_path: Path
) -> None:
    luck = random.Random(20)
    with mortals(tmp_path) as there:
        work = lay(there.root, *(ask("comparison") for _ in range(150)))
        there.usual()
        there.start()
        screen = opens(work=work, at=there)
        acknowledged: list[str] = []
        said: list[tuple[str, Judgement]] = []

        def heard(response: Any) -> None:
            if response.request.method == "POST" and response.url.endswith("/feedback") and response.ok:
                acknowledged.append(response.request.post_data_json["id"])

        screen.page.on("response", heard)

        def answer() -> None:
            query, key = screen.query, luck.choice(list(VERDICTS))
            assert query  # two are at hand behind the one on the screen
            said.append((query.id, VERDICTS[key](screen.shown)))
            screen.submit(key)

        for _ in range(11):
            with screen.page.expect_request_finished(lambda request: "/api/next" in request.url):
                answer()
            offline = luck.random() < 0.3
            if not offline:
                answer()
                screen.page.wait_for_timeout(luck.uniform(0, 60))
            there.kill()
            assert {event.id for event in work.said()}.issuperset(acknowledged)
            if offline:
                answer()
            there.start(die=luck.choice(["asked", "stored", "told"]))
            answer()
            screen.until(lambda: not there.alive())
            assert {event.id for event in work.said()}.issuperset(acknowledged)
            there.start()
        answer()
        screen.until(lambda: len(work.said()) >= len(said))
        events = screen.stored(len(said))
        assert there.lives > 20
        assert [(event.task, event.judgement) for event in events] == said
        assert len({event.id for event in events}) == len(events) == work.store.verify()


@pytest.mark.parametrize("when", ["while the items were on the page", "before they were handed out"])
def test_holes_that_a_restored_backup_leaves_are_filled_by_the_page(opens: Opens, tmp_path: Path, when: str) -> None:
    with mortals(tmp_path) as there:
        work = lay(there.root, *(ask("approval") for _ in range(3)))
        there.usual()
        copy = tmp_path / "backup.db"
        there.start()
        if when == "before they were handed out":
            work.store.copy(copy)
        screen = opens(work=work, at=there, clock=True)
        if when == "while the items were on the page":
            work.store.copy(copy)
        screen.submit("j").submit("k").stored(2)
        before = work.answers()
        there.kill()
        screen.submit("j")
        screen.until(lambda: "1 waiting" in screen.state)
        work.store.close()
        for left in work.folder.glob("feedback.db*"):
            left.unlink()
        shutil.copy(copy, work.folder / "feedback.db")
        assert work.said() == []
        there.start()
        for _ in range(5):
            screen.page.clock.fast_forward("02:00")
            screen.page.wait_for_timeout(200)
        screen.until(lambda: len(work.said()) == 3)
        asked = dict(work.answers())
        assert len(asked) == 3 and all(asked[query] == told for query, told in before)


# What models and strangers write does nothing


EVIL = "https://evil.example"
CORPUS = (
    "<script>alert(1)</script>",
    "<script>globalThis.pwned = 1</script>",
    "<ScRiPt>pwned=1</ScRiPt>",
    "<scr<script>ipt>pwned=1</scr</script>ipt>",
    f"<script src={EVIL}/x.js></script>",
    "<img src=x onerror=pwned=1>",
    '<img src=x onerror="pwned=1" />',
    f"<img src={EVIL}/pixel.png>",
    f"![alt]({EVIL}/pixel.png)",
    f"![alt][1]\n\n[1]: {EVIL}/pixel.png",
    "<svg onload=pwned=1>",
    "<svg><script>pwned=1</script></svg>",
    "<svg><animate onbegin=pwned=1 attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><img src onerror=pwned=1>",
    "<math><annotation-xml encoding=text/html><script>pwned=1</script>",
    f"<iframe src={EVIL}></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    f"<object data={EVIL}></object><embed src={EVIL}>",
    f"<link rel=stylesheet href={EVIL}/x.css>",
    f"<style>@import '{EVIL}/x.css'; * {{ background: url({EVIL}/y.png) }}</style>",
    f'<div style="background: url({EVIL}/z.png)">styled</div>',
    f"<base href={EVIL}/>",
    f"<meta http-equiv=refresh content='0; url={EVIL}'>",
    f"<form action={EVIL}><input name=password><button>Go on</button></form>",
    "<body onload=pwned=1>",
    "<details open ontoggle=pwned=1>more</details>",
    "<input autofocus onfocus=pwned=1>",
    "<video><source onerror=pwned=1></video>",
    f"<video poster={EVIL}/p.png src={EVIL}/v.mp4></video>",
    "<template><script>pwned=1</script></template>",
    '<noscript><p title="</noscript><img src=x onerror=pwned=1>">',
    "<!--><img src=x onerror=pwned=1>-->",
    "<![CDATA[<img src=x onerror=pwned=1>]]>",
    "<a href='javascript:pwned=1'>one</a>",
    "[two](javascript:pwned=1)",
    "[three](JaVaScRiPt:pwned=1)",
    "[four](java\tscript:pwned=1)",
    "[five](&#106;avascript:pwned=1)",
    "[six](data:text/html;base64,PHNjcmlwdD5wYXJlbnQucHduZWQ9MTwvc2NyaXB0Pg==)",
    "[seven](vbscript:pwned=1)",
    "<javascript:pwned=1>",
    "[eight]: javascript:pwned=1\n\n[eight]",
    '[nine](https://x.example "title" onmouseover=pwned=1 x="")',
    '[ten](https://x.example"onmouseover=pwned=1)',
    "`<img src=x onerror=pwned=1>`",
    "```html\n<script>pwned=1</script>\n```",
    '```"><img src=x onerror=pwned=1>\ncode\n```',
    "| a | b |\n|---|---|\n| <img src=x onerror=pwned=1> | <script>pwned=1</script> |",
    "</textarea><script>pwned=1</script>",
    "</script><script>pwned=1</script>",
    '"><script>pwned=1</script>',
    "' onmouseover=pwned=1 x='",
    "{{ 7 * 7 }} ${pwned=1} <%= pwned=1 %> {% raw %}",
    "&lt;script&gt;pwned=1&lt;/script&gt; &#60;img src=x onerror=pwned=1&#62;",
    "<img id=main><a id=items name=content href=x>clobbered</a>",
    "<x onclick=pwned=1 style=position:fixed;inset:0>cover</x>",
    "\u202egnp.exe\u202c and \u200bnothing\ufeff",
    "<img src=x\x00 onerror=pwned=1>",
)


def harmless(screen: Screen) -> None:
    """Click what can be clicked in what somebody wrote; nothing of it may run, and nothing may be fetched."""
    page = screen.page
    found = page.evaluate(
        """() => [
            ...document.querySelectorAll("script:not([src^='/static/']), iframe, object, embed, base, [http-equiv]"),
            ...document.querySelectorAll("main :is(script, img, style, link, video, audio, [action*=evil], [style])"),
        ].map((node) => node.outerHTML)"""
    )
    assert found == []
    handlers = page.evaluate(
        """() => [...document.querySelectorAll("*")].flatMap((node) => [...node.attributes].filter((one) =>
            /^on/i.test(one.name) || /^(javascript|data|vbscript):/i.test(one.value)).map((one) => node.outerHTML))"""
    )
    assert handlers == []
    hrefs = page.eval_on_selector_all("main a[href]", "nodes => nodes.map((n) => [n.protocol, n.host, n.rel])")
    for protocol, host, rel in hrefs:
        assert protocol in ("http:", "https:")
        assert host == page.evaluate("() => location.host") or "noopener" in rel
    assert page.evaluate("() => globalThis.pwned") is None


def test_nothing_that_a_model_wrote_runs_on_the_label_page(opens: Opens) -> None:
    groups = [CORPUS[i : i + 9] for i in range(0, len(CORPUS), 9)]
    turns = [[("user", text) for text in group] for group in groups]
    tasks = [ask("ranking", *group, turns=some) for group, some in zip(groups, turns, strict=True)]
    everything = "\n\n".join(CORPUS)
    raw = [ask(kind, everything, turns=[("user", everything)]) for kind in ("critique", "correction", "rating")]
    roles = ask("comparison", turns=[('" onclick=pwned=1 x="', "<b>role</b>"), ("text", "<i>plain</i>")])
    screen = opens(*raw, roles, *tasks)
    for task in (*raw, roles, *tasks):
        assert screen.query == task.query
        for summary in screen.page.locator("#prompt summary").all():
            summary.click()
        screen.page.mouse.move(400, 300)
        harmless(screen)
        if task.query.kind == "correction":
            shown = Cover(everything).text.replace("\r\n", "\n")
            assert screen.page.locator("#control textarea").input_value() == shown
            screen.page.locator("#control textarea").press("Control+End")
            screen.page.keyboard.type("!")
            harmless(screen)
        elif task.query.kind == "critique":
            screen.page.locator("#control textarea").fill("Dangerous.")
        elif task.query.kind == "rating":
            screen.press("1", "1", "1")
        elif task.query.kind == "comparison":
            screen.press("4")
        else:
            screen.press("1", "0")
        screen.submit(by="Control+Enter")
    screen.stored(len(tasks) + 4)


def test_characters_that_nobody_sees_are_made_visible(opens: Opens) -> None:
    screen = opens(ask("approval", "safe\u202egnp.exe\u202c and \u200bnothing\u2066x\u2069"))
    text = screen.page.locator("#items").inner_text()
    for number in ("202E", "202C", "200B", "2066", "2069"):
        assert f"U+{number}" in text
    assert not {"\u202e", "\u202c", "\u200b", "\u2066", "\u2069"} & set(text)


def test_nothing_that_a_stranger_wrote_runs_on_the_pages_of_those_who_run_the_project(
    opens: Opens, server: Server
) -> None:
    everything = "\n\n".join(CORPUS)
    bad = '"><img src=x onerror=pwned=1>'
    work = lay(server.root, ask("comparison", everything, everything + "!", turns=[("user", everything)]))
    (query,) = (task.query for task in work.tasks)
    for who, key, note in (("a" + bad, 0, everything), ("<script>pwned=1</script>", 1, bad)):
        work.store.add_feedback([Feedback(query.id, who, Comparison(query.items[key]), "2026-11-20", comment=note)])
    for name, value in (("guidelines", everything), ("flags", [bad, "</script>"]), ("axes", [bad])):
        change_setting(work.store, name, value, bad, "2026-11-20")
    (work.folder / "metrics.jsonl").write_text(json.dumps({"stage": bad, "step": 1, bad: 0.5}) + "\n")
    screen = opens(work=work, role="owner", path="")
    paths = ["/label", "/guidelines", "/progress", "/prompts", f"/prompts/{work.tasks[0].prompt.id}", "/review"]
    paths += ["/disagreements", "/admin", f"/prompts?words={bad}", f"/nothing{bad}", "//login?next=javascript:pwned=1"]
    for path in [*paths, "/chat", "//"]:
        screen.go(path)
        harmless(screen)
    screen.go("//login?next=javascript:pwned=1")
    screen.page.get_by_label("Name").fill(screen.person.name)
    screen.page.get_by_label("Password").fill(PASSWORD)
    screen.press("Enter")
    screen.page.wait_for_url(server.url + "/")


def test_the_policy_is_enforced_with_trusted_types(opens: Opens) -> None:
    screen = opens(ask("approval"))
    assert (
        "require-trusted-types-for 'script'"
        in (screen.page.request.get(screen.page.url).headers["content-security-policy"])
    )
    tries = """() => [
        () => (document.body.innerHTML += "<b>x</b>"),
        () => document.write("<b>x</b>"),
        () => trustedTypes.createPolicy("mine", { createHTML: (text) => text }),
        () => trustedTypes.createPolicy("assent", { createHTML: (text) => text }),
        () => (document.createElement("script").text = "1"),
    ].map((one) => { try { one(); return "done"; } catch (error) { return error.name; } })"""
    assert screen.page.evaluate(tries) == ["TypeError"] * 5
    screen.page.evaluate("() => (trouble.length = 0)")
    screen.trouble.clear()  # it was asked for


MODEL = "acme/Marmoset-7B-Instruct"
NAMED = ("As GPT-4 I say so.", "I am Claude, made by Anthropic.", f"{MODEL} says seven.", "Marmoset-7B-Instruct here.")


def test_no_name_of_a_model_comes_to_a_labeller_who_tells_answers_apart(opens: Opens, server: Server) -> None:
    tasks = [ask("ranking", *NAMED), ask("comparison", *NAMED[:2]), ask("rating", NAMED[2]), ask("approval", NAMED[3])]
    nameless(opens, lay(server.root, *tasks, model=MODEL), ["1 2 3 0", "4", "1 1 1", "j"])


@pytest.mark.parametrize("kind", ["critique", "correction"])
def test_no_name_of_a_model_comes_to_a_labeller_who_mends_or_explains(opens: Opens, server: Server, kind: str) -> None:
    nameless(opens, lay(server.root, ask(kind, " ".join(NAMED)), model=MODEL), [""])


def test_no_name_of_a_model_comes_in_an_earlier_turn(opens: Opens, server: Server) -> None:
    turns = [("user", "Who are you?"), ("assistant", NAMED[1]), ("user", "Are you sure?")]
    nameless(opens, lay(server.root, ask("comparison", turns=turns), model=MODEL), ["4"])


def nameless(opens: Opens, work: Work, keys: list[str]) -> None:
    """Answer everything, and look at all that came to the browser."""
    change_setting(work.store, "names", ["GPT-4", "Claude", "Anthropic"], "owner", "2026-11-20")
    screen = opens(work=work, path="")
    came: list[Any] = []
    screen.page.on("response", lambda response: came.append(response))  # noqa: PLW0108
    screen.go("/label")
    for some in keys:
        if not some:
            screen.page.locator("#control textarea").fill("Well.")
        screen.submit(*some.split(), by="Control+Enter")
    screen.stored(len(keys))
    texts = [response.text() for response in came if "/api/" in response.url or "/label" in response.url]
    screen.go("/guidelines").go("//")
    texts.append(screen.page.content())
    for name in ("GPT-4", "Claude", "Anthropic", "Marmoset", "sft"):
        assert not [text for text in texts if name.lower() in text.lower()], name


# Everybody can use it


def axe(page: Page) -> list[str]:
    """What axe finds wrong with a page."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:150]} ({node['failureSummary'][:200]})" for one in found for node in one["nodes"]
    ]


KINDS = ("comparison", "ranking", "rating", "approval", "critique", "correction", "demonstration")


@pytest.fixture(scope="module")
def talked_of(server: Server) -> Work:
    """A run in which something happened, so that every page has something to show."""
    turns = [("system", "Be brief."), ("user", "What is a prime?"), ("assistant", "A *number*."), ("user", "Is 7 one?")]
    text = (
        "Yes.\n\n* It has **two** divisors\n\n> `7 = 7 * 1`, [so](https://example.org)\n\n| a | b |\n|--|--|\n| 1 | 2 |"
    )
    tasks = [ask(kind, turns=turns) for kind in KINDS]
    work = lay(server.root, *tasks, ask("comparison", text, "No."))
    query = work.tasks[-1].query
    for who, item in (("ann", 0), ("bob", 1)):
        work.store.add_feedback([Feedback(query.id, who, Comparison(query.items[item]), "2026-11-20", 3.0)])
    lines = ({"stage": "sft", "step": step, "seconds": step, "loss": 2 / step} for step in range(1, 9))
    (work.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return work


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(opens: Opens, server: Server, talked_of: Work, scheme: str) -> None:
    screen = opens(work=talked_of, role="owner", path="", color_scheme=scheme)
    paths = ["/guidelines", "/progress", "/prompts", f"/prompts/{talked_of.tasks[0].prompt.id}", "/review"]
    paths += ["/answers", f"/answers/{talked_of.said()[0].id}", "/answers?words=nothing", "/skipped", "//account"]
    paths += ["/disagreements", "/admin", "/chat", "/nothing", "//", "//login", server.invite()]
    server.people.issue_token(server.people.get(screen.person.id), "a script")
    skipped = talked_of.tasks[0].query
    TaskQueue(talked_of.store).lend("somebody", skipped)
    TaskQueue(talked_of.store).skip("somebody", skipped.id)
    found = []
    for path in paths:
        screen.go(path)
        found += [f"{path} {one}" for one in axe(screen.page)]
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_label_page_whatever_it_asks(opens: Opens, server: Server, scheme: str) -> None:
    turns = [("user", "What is a prime?"), ("assistant", "A *number*."), ("user", "Is 7 one?")]
    text = "Yes.\n\n* It has **two** divisors\n\n> `7 = 7 * 1`, see [this](https://example.org) " + "or not " * 300
    screen = opens(
        *(ask(kind, *[text + "!" * i for i in range(SHOWS.get(kind, 1))], turns=turns) for kind in KINDS),
        person=server.account(), color_scheme=scheme,
    )  # fmt: skip
    found = []
    for kind in KINDS:
        assert screen.query and screen.query.kind == kind
        if kind in ("critique", "correction", "demonstration"):
            screen.page.locator("#control textarea").fill("Half a thought")
        else:
            screen.press(*{"comparison": "2", "ranking": "1324", "rating": "765", "approval": "j"}[kind])
        screen.press("Escape", "f", "1")
        found += [f"{kind} {one}" for one in axe(screen.page)]
        screen.submit(by="Control+Enter")
    found += [f"empty {one}" for one in axe(screen.page)]
    before = screen.instruction
    screen.press("u")
    screen.wait("() => document.activeElement.tagName === 'TEXTAREA'")
    for key, name in (("g", "Guidelines"), ("?", "Keys")):
        screen.press("Escape", key)
        dialog(screen, name).wait_for()
        found += [f"{name} {one}" for one in axe(screen.page)]
        screen.press("Escape")
    server.people.revoke(screen.person.session)
    screen.page.locator("#control textarea").fill(f"A whole one, {before}")
    screen.press("Control+Enter")
    dialog(screen, "Sign in again").wait_for()
    found += [f"sign in {one}" for one in axe(screen.page)]
    assert found == []


def fits(page: Page) -> None:
    """Nothing sticks out to the right, so that nobody has to scroll sideways."""
    wide = page.evaluate(
        """() => [document.scrollingElement, ...document.querySelectorAll("body, main, #controls")]
            .filter((node) => node && node.scrollWidth > node.clientWidth + 1).map((node) => node.tagName)"""
    )
    assert wide == []


TAPS = {
    "comparison": ["A better"],
    "ranking": ["Answer 2", "Answer 1", "the rest are bad"],
    "rating": ["helpful: 7 of 7", "true: 6 of 7", "harmless: 5 of 7"],
    "approval": ["Approve"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_shows_every_control_and_needs_nothing_but_taps(opens: Opens, kind: str) -> None:
    texts = [f"Answer {i}. " + "And a few more words. " * 80 for i in range(SHOWS.get(kind, 1))]
    screen = opens(ask(kind, *texts), ask("approval"), **PHONE)
    fits(screen.page)
    out = [one.inner_text() for one in controls(screen) if not hit(one)]
    assert out == []
    for name in TAPS.get(kind, ()):
        screen.page.locator("#controls").get_by_role("button", name=name, exact=False).first.tap()
    if kind not in TAPS:
        screen.page.locator("#control textarea").tap()
        screen.page.locator("#control textarea").fill("As one would say it.")
    screen.page.locator("#flags").get_by_role("button", name="Harm").tap()
    fits(screen.page)
    before = screen.instruction
    screen.listens()
    button(screen, "Submit").tap()
    screen.moved(before)
    (event,) = screen.stored(1)
    assert event.flags == ("harm",)
    button(screen, "Undo").tap()
    screen.until(lambda: screen.instruction == screen.work.tasks[0].query.instruction)
    button(screen, "Guidelines").tap()
    dialog(screen, "Guidelines").get_by_role("button", name="Close").tap()
    before = screen.instruction
    button(screen, "Skip").tap()
    if kind not in TAPS:  # something was written
        dialog(screen, "Skip this one?").get_by_role("button", name="Skip").tap()
    screen.moved(before)


def controls(screen: Screen) -> list[Any]:
    found = screen.page.locator("#controls").locator("button:visible, input:visible, textarea:visible")
    return list(found.all())


@pytest.mark.parametrize("kind", KINDS)
def test_at_twice_the_size_every_control_and_every_word_can_be_reached(opens: Opens, kind: str) -> None:
    texts = [f"Answer {i}. " + "And more words. " * 80 for i in range(SHOWS.get(kind, 1))]
    options = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}
    screen = opens(ask(kind, *texts), **options)
    fits(screen.page)
    for one in [*controls(screen), *screen.page.locator("header button:visible, header a:visible").all()]:
        if one.evaluate("(node) => !node.classList.contains('skip-link')"):
            one.scroll_into_view_if_needed()
            assert hit(one, corner=True), one.evaluate("(node) => node.outerHTML")
    beyond = screen.page.evaluate(
        """() => { const main = document.querySelector("main"); main.scrollTop = main.scrollHeight;
            const last = document.querySelector("#items").getBoundingClientRect().bottom;
            return last - main.getBoundingClientRect().bottom; }"""
    )
    assert beyond <= 0
    room = screen.page.evaluate("() => document.querySelector('main').clientHeight")
    assert room >= 100, f"{room} of 400 pixels are left for what is to be read"


def test_whoever_tabs_sees_where_they_are(opens: Opens) -> None:
    screen = opens(ask("comparison", turns=[("user", "One."), ("assistant", "Two."), ("user", "Three.")]))
    seen = set()
    for _ in range(40):
        screen.press("Tab")
        name, style, width = screen.page.evaluate(
            """() => { const node = document.activeElement, style = getComputedStyle(node);
                return [node.outerHTML.slice(0, 80), style.outlineStyle, parseFloat(style.outlineWidth)]; }"""
        )
        if not name.startswith("<body"):
            seen.add(name)
            assert style != "none" and width >= 2, name
    assert len(seen) >= 25  # eight choices, five flags, the reason, five actions, six links and buttons at the top


def test_a_screen_reader_hears_whether_answers_are_saved(opens: Opens) -> None:
    screen = opens(ask("approval"), ask("approval"))
    status = screen.page.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    screen.submit("j").stored(1)
    assert "saved" in status.inner_text()
    screen.context.set_offline(True)
    screen.submit("k")
    screen.until(lambda: "offline" in status.inner_text() and "1 waiting" in status.inner_text())
    assert screen.page.get_by_role("alert").count() <= 1


def test_the_next_item_is_there_within_a_tenth_of_a_second(
    opens: Opens, record_testsuite_property: Callable[[str, object], None]
) -> None:
    text = "Some *words*, in a paragraph of an ordinary length, as models write them. " * 12
    screen = opens(*(ask("comparison", f"{i} {text}", f"{text} {i}") for i in range(22)))
    for _ in range(21):
        screen.submit("2")
    screen.stored(21)
    took = screen.page.evaluate("() => performance.getEntriesByName('next').map((one) => one.duration)")
    median = statistics.median(took[-20:])
    record_testsuite_property("milliseconds to the next item", round(median, 1))
    print(f"the next item is there after {median:.0f} ms (median of 20; slowest {max(took):.0f})")
    assert len(took) >= 20 and median < 300  # 100 on a machine that does nothing else


# No work lost, no answer that nobody gave


WORDS = "A careful answer that took half an hour to write."


@pytest.mark.parametrize("reload", [False, True], ids=["at once", "after a reload"])
@pytest.mark.parametrize("kind", ["demonstration", "correction", "critique"])
def test_what_was_written_comes_back_after_a_skip(opens: Opens, kind: str, reload: bool) -> None:
    screen = opens(ask(kind), ask("approval"))
    first = screen.query
    screen.page.locator("#control textarea").fill(WORDS)
    before = screen.instruction
    button(screen, "Skip").click()
    asked = dialog(screen, "Skip this one?")
    asked.get_by_role("button", name="Go on writing").click()
    assert screen.query == first and screen.page.locator("#control textarea").input_value() == WORDS
    button(screen, "Skip").click()
    asked.get_by_role("button", name="Skip").click()
    screen.moved(before)
    assert screen.query != first
    if reload:
        screen.until(lambda: lease_states(screen) == {"skipped", "out"})
        screen.reload()
    screen.press("u")
    screen.until(lambda: screen.query == first)
    assert screen.page.locator("#control textarea").input_value() == WORDS
    screen.until(lambda: lease_states(screen) == {"out"})
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    assert first and event.task == first.id and WORDS in str(body(event.judgement)) and not event.supersedes


def lease_states(screen: Screen) -> set[str]:
    with screen.work.store.reading() as on:
        return {row.state for row in on.execute(schema.leases.select()) if row.person == screen.person.id}


def test_a_note_is_asked_about_before_a_skip_and_a_mere_choice_is_not(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("comparison"), ask("comparison"))
    before = screen.instruction
    screen.press("1", "s")
    screen.moved(before)
    screen.press("w")
    screen.page.keyboard.type("because")
    screen.press("Enter", "s")
    dialog(screen, "Skip this one?").wait_for()


def test_skips_are_undone_one_after_the_other_and_before_older_answers(opens: Opens) -> None:
    screen = opens(*(ask("approval") for _ in range(4)))
    queries = [task.query for task in screen.work.tasks]
    screen.submit("j")
    for _ in range(2):
        before = screen.instruction
        screen.press("s")
        screen.moved(before)
    for expected in (queries[2], queries[1], queries[0]):
        screen.press("u")
        screen.until(lambda expected=expected: screen.query == expected)  # type: ignore[misc]
    assert screen.pressed == ["Approve"]


def test_a_slow_double_click_on_submit_stores_one_answer(opens: Opens) -> None:
    screen = opens(*(ask("correction", f"It is badly wrong {n}.") for n in range(3)))
    screen.listens().page.locator("#control textarea").fill("It is right now.")
    submit = box_of(button(screen, "Submit"))
    for wait in (250, 300):
        screen.page.mouse.click(submit["x"] + 9, submit["y"] + 9)
        screen.page.wait_for_timeout(wait)
    screen.page.wait_for_timeout(500)
    assert [event.judgement for event in screen.stored(1)] == [Correction("It is right now.")]


@pytest.mark.parametrize("keys", ["Control+Enter", "Enter"])
def test_a_held_key_stores_one_answer(opens: Opens, keys: str) -> None:
    kind = "correction" if "Control" in keys else "approval"
    screen = opens(*(ask(kind) for _ in range(4)))
    if kind == "correction":
        screen.page.locator("#control textarea").fill("It is right now.")
    else:
        screen.press("j")
    screen.listens()
    *modifier, key = keys.split("+")
    for name in modifier:
        screen.page.keyboard.down(name)
    for _ in range(30):  # a keyboard repeats a key that is held
        screen.page.keyboard.down(key)
        screen.page.wait_for_timeout(40)
    for name in (key, *modifier):
        screen.page.keyboard.up(name)
    screen.stored(1)


def test_with_quick_keys_a_doubled_key_stores_one_answer(opens: Opens) -> None:
    screen = opens(*(ask("approval") for _ in range(3)))
    screen.page.evaluate(
        """() => {
            document.querySelector("#quick-label").hidden = false;
            document.querySelector("#quick").checked = true;
        }"""
    )
    screen.listens()
    before = screen.instruction
    for _ in range(2):
        screen.page.keyboard.press("j")
        screen.page.wait_for_timeout(120)
    screen.page.wait_for_timeout(600)
    assert screen.instruction != before and len(screen.stored(1)) == 1


def test_an_untouched_correction_is_stored_only_by_saying_that_nothing_has_to_be_mended(opens: Opens) -> None:
    screen = opens(ask("correction", "All is well."), ask("correction", "All is ill."))
    screen.listens()
    screen.page.keyboard.press("Control+Enter")
    screen.page.wait_for_timeout(300)
    assert screen.work.said() == [] and button(screen, "Submit").is_disabled()
    button(screen, "Nothing to mend").click()
    screen.submit(by="Enter")
    assert [event.judgement for event in screen.stored(1)] == [Correction("All is well.")]
    text = screen.page.locator("#control textarea")
    text.fill("All is better.")
    text.fill("All is ill.")
    assert button(screen, "Submit").is_disabled()  # what was written back is no statement either


KEYBOARDS = {
    "a number pad": ("1", "Numpad1", "A much"), "AZERTY, first digit": ("&", "Digit1", "A much"),
    "AZERTY, second digit": ("é", "Digit2", "A better"), "AZERTY, last digit": ("à", "Digit0", "Both bad"),
    "Persian digits": ("۱", "Digit1", "A much"), "full-width digits": ("１", "Digit1", "A much"),
}  # fmt: skip


def pressed_as(screen: Screen, key: str, code: str) -> None:
    """Send a key as a keyboard of another layout does."""
    send = """([key, code]) =>
        document.querySelector("main").dispatchEvent(new KeyboardEvent("keydown", { key, code, bubbles: true }))"""
    screen.page.evaluate(send, [key, code])


def test_keyboards_of_other_layouts_choose_by_the_place_of_the_key(opens: Opens) -> None:
    screen = opens(ask("comparison"), ask("comparison"))
    for key, code, choice in KEYBOARDS.values():
        screen.press("4")
        pressed_as(screen, key, code)
        assert screen.pressed == [choice], (key, code)
    screen.press("4")
    pressed_as(screen, "o", "KeyS")  # Dvorak: the layout has a letter there, which means nothing here
    assert screen.pressed == ["Tie"] and screen.query == screen.work.tasks[0].query
    pressed_as(screen, "п", "KeyG")
    dialog(screen, "Guidelines").get_by_role("button", name="Close").click()
    screen.listens()
    pressed_as(screen, "ы", "KeyS")
    screen.until(lambda: screen.query == screen.work.tasks[1].query)


def test_texts_stand_in_the_direction_of_their_own_language(opens: Opens) -> None:
    arabic = "الجواب هو 42 (انظر Wikipedia). هل تريد المزيد؟"
    mixed = f"An English line.\n\n{arabic}"
    screen = opens(ask("comparison", arabic, mixed, turns=[("user", arabic)]), ask("correction", arabic))
    directions = """(names) => [...document.querySelectorAll(names)].map((node) => getComputedStyle(node).direction)"""
    left = next(place for place, item in enumerate(screen.shown) if item == screen.work.tasks[0].responses[0].id)
    directed = screen.page.evaluate(directions, "#prompt .turn, #items .text")
    assert directed[0] == "rtl" and directed[1 + left] == "rtl" and directed[2 - left] == "ltr"
    order = """(place) => {
        const text = document.querySelectorAll("#items .text")[place].querySelector("p:last-child").firstChild;
        const range = document.createRange();
        const left = (word) => {
            const start = text.data.indexOf(word);
            range.setStart(text, start), range.setEnd(text, start + word.length);
            return range.getBoundingClientRect().left;
        };
        return left("الجواب") > left("Wikipedia") && left("Wikipedia") > left("تريد");
    }"""
    for place in (0, 1):
        assert screen.page.evaluate(order, place)  # read from the right, in the English answer too
    screen.submit("1")
    assert screen.page.evaluate(directions, "#control textarea, #items .text") == ["rtl", "rtl"]


def test_the_source_of_a_text_is_a_key_away(opens: Opens) -> None:
    source = "Use `__init__`, **not** &lt;b&gt;:\n\n    indented\n\nand \\(x_1\\)."
    screen = opens(ask("comparison", source, "A plain one."), ask("comparison", "**Bold.**", "Not."))
    text = screen.page.locator(f"[data-item='{screen.work.tasks[0].responses[0].id}'] .text")
    assert text.locator("strong").count() == 1 and "\\(x_1\\)" in text.inner_text()
    screen.press("v")
    assert text.text_content() == source
    screen.submit("1")
    shown = screen.page.locator("#items .text").all_inner_texts()
    assert "**Bold.**" in shown  # it stays for the next ones
    screen.press("v")
    assert "Bold." in screen.page.locator("#items .text").all_inner_texts()


def test_a_long_correction_shows_the_words_that_changed_and_no_others(opens: Opens) -> None:
    words = [f"word{n % 97}" for n in range(3000)]
    screen = opens(ask("correction", " ".join(words)))
    changed = [word if n % 300 else "changed" for n, word in enumerate(words)]
    screen.page.locator("#control textarea").fill(" ".join(changed))
    assert screen.page.locator(".diff ins").all_inner_texts() == ["changed"] * 10
    assert len(screen.page.locator(".diff del").all_inner_texts()) == 10


def test_what_a_reviewer_sends_back_comes_first_with_the_answer_and_the_remark(opens: Opens, server: Server) -> None:
    screen = opens(ask("demonstration"), ask("approval"))
    screen.page.keyboard.type("Tides are made by fish.")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    reviewer = opens(work=screen.work, role="reviewer", path=f"/answers/{event.id}")
    reviewer.page.get_by_label("look at again").fill("Fish? Look it up.")
    reviewer.page.get_by_role("button", name="Send back").click()
    reviewer.page.get_by_text("Sent back").wait_for()
    screen.reload()
    assert screen.query == screen.work.tasks[0].query and "Fish? Look it up." in screen.notice
    text = screen.page.locator("#control textarea")
    assert text.input_value() == "Tides are made by fish."
    text.fill("Tides are made by the moon.")
    screen.submit(by="Control+Enter")
    first, second = screen.stored(2)
    assert second.judgement == Demonstration("Tides are made by the moon.") and second.supersedes == first.id


def test_help_and_guidelines_open_where_nothing_is_left_to_answer(opens: Opens) -> None:
    screen = opens()
    for key, name in (("g", "Guidelines"), ("?", "Keys")):
        screen.press(key)
        dialog(screen, name).get_by_role("button", name="Close").click()


def test_somebody_who_waits_hears_that_others_are_at_the_rest(opens: Opens, server: Server) -> None:
    screen = opens(ask("approval"), person=server.account())
    other = opens(work=screen.work, person=server.account())
    assert "Other people are at the rest" in other.page.locator("#empty").inner_text()
    screen.page.get_by_role("button", name="Sign out").click()  # what lay with them is free at once
    other.until(lambda: other.query == screen.work.tasks[0].query)


def test_chat_sends_its_thumbs_once_somebody_has_signed_in_in_another_tab(
    opens: Opens, server: Server, tmp_path: Path
) -> None:
    work = lay(server.root, ask("approval"), model=str(tiny.make(tmp_path / "model")))
    screen = opens(work=work, path="/chat", person=server.account())
    screen.page.locator("#words").fill("Tom had a red ball.")
    screen.page.keyboard.press("Enter")
    screen.page.locator(".thumbs button").first.wait_for()
    before = len(work.said())
    server.people.revoke(screen.person.session)
    screen.page.locator(".thumbs button").first.click()
    dialog(screen, "Sign in again").wait_for()
    person = server.people.get(screen.person.id)
    screen.sign_in_as(Account(person.id, person.name, server.people.open_session(person)))
    screen.until(lambda: len(work.said()) == before + 1)
    dialog(screen, "Sign in again").wait_for(state="hidden")
    screen.reload()
    assert screen.page.locator(".thumbs button[aria-pressed=true]").count() == 1  # thumbs outlive a reload
    screen.page.locator(".thumbs button").nth(1).click()
    screen.until(lambda: len(work.said()) == before + 2)
    first, second = work.said()[before:]
    assert second.supersedes == first.id and (first.judgement, second.judgement) == (Approval(True), Approval(False))


def test_undo_pressed_twice_keeps_what_was_changed_meanwhile(opens: Opens) -> None:
    screen = opens(ask("demonstration"), ask("approval"))
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
    screen.until(lambda: text.count() == 1 and text.input_value() == "Much better, many words.")
    screen.submit(by="Control+Enter")
    first, second = screen.stored(2)
    assert second.supersedes == first.id and second.judgement == Demonstration("Much better, many words.")


def test_line_ends_of_an_answer_are_no_change_of_a_correction(opens: Opens) -> None:
    source = "Line one.\r\nLine two is wrong."
    screen = opens(ask("correction", source), ask("correction", source + "\r"))
    screen.listens()
    assert button(screen, "Submit").is_disabled() and screen.page.locator(".diff del").count() == 0
    screen.submit("Escape", "n")
    screen.page.locator("#control textarea").fill("Line one.\nLine two.")
    screen.submit(by="Control+Enter")
    answers = [event.judgement for event in screen.stored(2)]
    assert answers == [Correction(source), Correction("Line one.\nLine two.")]


def test_what_was_sent_back_is_not_confirmed_by_a_late_key(opens: Opens) -> None:
    screen = opens(ask("approval"), ask("approval"))
    screen.submit("j")
    (event,) = screen.stored(1)
    TaskQueue(screen.work.store).send_back(screen.person.id, event.task, "Look again.")
    screen.reload().listens()
    assert "Look again." in screen.notice and screen.pressed == ["Approve"]
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_timeout(300)
    assert len(screen.work.said()) == 1 and button(screen, "Submit").is_disabled()
    screen.submit("k")
    assert [one.judgement for one in screen.stored(2)] == [Approval(True), Approval(False)]


def test_a_draft_of_before_does_not_stand_in_for_the_answer_that_was_sent_back(opens: Opens) -> None:
    screen = opens(ask("demonstration"), ask("approval"))
    other = screen.tab().go()
    other.page.locator("#control textarea").fill("Half a draft of another tab.")
    screen.page.locator("#control textarea").fill("The whole answer.")
    screen.submit(by="Control+Enter")
    (event,) = screen.stored(1)
    other.page.locator("#control textarea").press("End")
    other.page.keyboard.type("!")
    other.page.wait_for_timeout(300)
    other.page.close()
    TaskQueue(screen.work.store).send_back(screen.person.id, event.task, "")
    screen.reload()
    assert screen.page.locator("#control textarea").input_value() == "The whole answer."


def test_the_question_before_a_skip_is_about_the_item_that_it_was_asked_of(opens: Opens) -> None:
    screen = opens(ask("approval"), ask("demonstration"), ask("approval"))
    first = screen.query
    posts = screen.hold("**/api/feedback")
    screen.submit("j")
    posts.wait()
    screen.page.keyboard.type("Words of the second.")
    button(screen, "Skip").click()
    dialog(screen, "Skip this one?").wait_for()
    posts.routes.pop(0).fulfill(status=422, json={"detail": "not so"})
    screen.until(lambda: screen.query == first)
    assert screen.page.locator("dialog[open]").count() == 0
    screen.page.wait_for_timeout(200)
    assert screen.query == first and "not so" in screen.notice
    posts.free = True
    screen.submit("k")
    screen.until(lambda: screen.query == screen.work.tasks[1].query)
    assert screen.page.locator("#control textarea").input_value() == "Words of the second."


@pytest.mark.parametrize("wait", [0, 1, 5])
def test_a_submit_in_the_moment_of_an_undo_answers_nothing_twice(opens: Opens, wait: int) -> None:
    screen = opens(*(ask("approval") for _ in range(3)))
    before = screen.instruction
    screen.press("s")
    screen.moved(before)
    screen.press("j")
    screen.listens()
    screen.page.evaluate(
        """async (wait) => {
            for (const key of ["u", "Enter"]) {
                document.querySelector("main").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
                if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
            }
        }""",
        wait,
    )
    screen.until(lambda: screen.query == screen.work.tasks[0].query)
    while screen.query:
        screen.submit(*(["j"] if not screen.pressed else []))
    queries = [event.task for event in screen.stored(3)]
    assert sorted(queries) == sorted(task.query.id for task in screen.work.tasks)


def test_a_tab_from_before_an_update_is_told_of_and_not_waited_for(opens: Opens) -> None:
    screen = opens(ask("approval"), path="/guidelines")
    name = f"assent {screen.at('/api')} {screen.person.id}"
    screen.page.evaluate(
        """(name) => new Promise((resolve) => {
            const request = indexedDB.open(name, 1);
            request.onsuccess = () => resolve((globalThis.old = request.result) && 1);
        })""",
        name,
    )
    tab = screen.tab()
    tab.page.goto(screen.server.url + screen.at("/label"))
    tab.page.get_by_text("Another tab of this page is from before an update").wait_for()
    tab.trouble.clear()
    tab.page.evaluate("() => (globalThis.trouble = [])")
    screen.page.close()
    tab.reload()
    assert tab.query == screen.work.tasks[0].query
