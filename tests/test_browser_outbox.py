"""The outbox of the labelling page: nothing is lost or stored twice, offline, in two tabs, or with a killed server."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import (
    PASSWORD,
    VERDICTS,
    OpenPage,
    Screen,
    Server,
    add_tasks,
    button,
    crashing_servers,
    dialog,
    make_run,
    make_task,
)

from assent.feedback import to_values
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.labelling.queue import TaskQueue
from assent.records import Judgement
from assent.store import schema

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.browser


def state_kind(screen: Screen) -> str:
    return screen.page.locator("#state").get_attribute("data-state") or ""


def test_state_is_saved_only_after_the_server_confirms(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("comparison") for _ in range(3)))
    screen.submit("1").stored(1)
    held_requests = screen.hold("**/api/judgements")
    screen.submit("2")
    held_requests.wait()
    screen.wait_until(lambda: state_kind(screen) == "saving")
    screen.submit("3")  # the state is the same after more work
    assert state_kind(screen) == "saving" and len(screen.run.feedback()) == 1
    held_requests.release()
    held_requests.wait()
    assert state_kind(screen) == "saving" and len(screen.run.feedback()) == 2
    held_requests.release()
    screen.stored(3)


def test_outbox_keeps_judgements_and_order_offline(open_page: OpenPage) -> None:
    screen = open_page(
        make_task("comparison"),
        make_task("ranking", k=3),
        make_task("demonstration"),
        make_task("approval"),
        clock=True,
    )
    expected = []
    screen.context.set_offline(True)
    task, items = screen.task, screen.display_order
    screen.submit("1")
    assert task
    expected.append((task.id, to_values(Comparison(items[0], 3))))
    task, items = screen.task, screen.display_order
    screen.submit("2", "3", "1")
    assert task
    expected.append((task.id, to_values(Ranking(((items[1],), (items[2],), (items[0],))))))
    screen.page.keyboard.type("It takes a while")
    for _ in range(10):
        screen.page.clock.fast_forward("01:00")
    screen.wait_until(lambda: state_kind(screen) == "offline" and "2 waiting" in screen.state)
    assert screen.run.feedback() == []
    screen.page.keyboard.type(" to write.")
    task = screen.task
    screen.submit(by="Control+Enter")
    assert task
    expected.append((task.id, to_values(Demonstration("It takes a while to write."))))
    screen.wait_until(lambda: "3 waiting" in screen.state)
    screen.context.set_offline(False)
    screen.stored(3)
    screen.page.clock.fast_forward("00:10")  # the next tasks come without a click
    screen.wait("() => !document.querySelector('#controls').hidden")
    task = screen.task
    screen.submit("j").stored(4)
    assert task
    assert screen.run.judgements() == [*expected, (task.id, to_values(Approval(True)))]


def test_outbox_sends_judgements_in_order(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("approval"), make_task("approval"))
    screen.context.set_offline(True)
    first, before = screen.task, screen.instruction
    screen.submit("j")
    second = screen.task
    screen.press("k")  # changed, then left for the previous task
    screen.press("u")
    screen.wait_for_next_task(screen.run.tasks[1].task.instruction)
    assert screen.instruction == before
    screen.submit("k")
    screen.submit()
    screen.context.set_offline(False)
    events = screen.stored(3)
    assert first and second
    assert [(event.task, event.judgement) for event in events] == [
        (first.id, Approval(True)), (first.id, Approval(False)), (second.id, Approval(False)),
    ]  # fmt: skip


def test_outbox_outlives_its_tab(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("approval") for _ in range(4)))
    screen.context.set_offline(True)
    screen.submit("j").submit("k")
    screen.wait_until(lambda: "2 waiting" in screen.state)
    second_tab = screen.tab()
    screen.page.close()
    screen.context.set_offline(False)
    second_tab.go()
    assert [event.judgement for event in second_tab.stored(2)] == [Approval(True), Approval(False)]
    assert second_tab.task == screen.run.tasks[2].task


def test_outbox_times_out_a_hanging_post(open_page: OpenPage) -> None:
    """Simulate a change of network: the connection stays open, but no more data arrives."""
    screen = open_page(make_task("approval"), make_task("approval"), make_task("approval"), clock=True)
    held_requests = screen.hold("**/api/judgements")
    screen.submit("j")
    held_requests.wait()
    held_requests.is_released = True
    screen.submit("k")
    for _ in range(10):
        screen.page.clock.fast_forward("01:00")
        screen.page.wait_for_timeout(50)
    screen.context.set_offline(True)
    screen.context.set_offline(False)
    screen.page.wait_for_timeout(1000)
    screen.page.clock.fast_forward("02:00")
    screen.stored(2)


def test_tripled_posts_store_one_judgement(open_page: OpenPage) -> None:
    screen = open_page(make_task("comparison"), make_task("ranking"), make_task("critique"), make_task("rating"))

    def thrice(route: Route) -> None:
        first = route.fetch()
        for _ in range(2):
            again = route.fetch()
            assert (again.status, again.text()) == (first.status, first.text())
        route.fulfill(response=first)

    screen.context.route("**/api/judgements", thrice)
    screen.submit("1").submit("1", "2", "3", "4")
    screen.page.keyboard.type("So so.")
    screen.submit(by="Control+Enter").submit("1", "2", "3")
    assert len({event.id for event in screen.stored(4)}) == 4
    assert screen.run.store.verify() == 4


def test_draft_survives_a_reload(open_page: OpenPage) -> None:
    screen = open_page(make_task("demonstration"), make_task("comparison"), clock=True)
    screen.page.keyboard.type("Half a thou")
    screen.page.clock.fast_forward("00:03")
    screen.page.wait_for_timeout(200)
    screen.reload()
    assert screen.page.locator("#control textarea").input_value() == "Half a thou"
    assert screen.run.feedback() == []
    screen.page.locator("#control textarea").press("Control+End")
    screen.page.keyboard.type("ght.")
    screen.submit(by="Control+Enter")
    assert screen.stored(1)[0].judgement == Demonstration("Half a thought.")


@pytest.mark.parametrize("kind", ["demonstration", "critique", "correction", "comparison", "ranking", "rating"])
def test_reload_restores_the_draft_of_every_kind(open_page: OpenPage, kind: str) -> None:
    screen = open_page(make_task(kind))
    if kind in ("demonstration", "critique", "correction"):
        screen.page.locator("#control textarea").fill("Half a thought")
    else:
        screen.press("3")
    screen.press("Escape", "w")
    screen.page.keyboard.type("because")
    screen.press("Escape", "f", "2")
    read = """() => [document.querySelector("#controls textarea")?.value, document.querySelector("#comment").value,
        [...document.querySelectorAll("#controls [aria-pressed=true], #controls .tiers")].map((n) => n.textContent)]"""
    before = screen.page.evaluate(read)
    screen.reload()
    assert screen.page.evaluate(read) == before


def test_draft_survives_closing_the_tab_at_once(open_page: OpenPage) -> None:
    screen = open_page(make_task("demonstration"))
    second_tab = screen.tab()
    for i in range(3):
        page = screen.tab().go().page
        words = f"The thought number {i}"
        page.locator("#control textarea").fill(words)
        page.close()
        second_tab.go()
        assert second_tab.page.locator("#control textarea").input_value() == words


def test_expired_session_asks_to_sign_in_then_sends_outbox(open_page: OpenPage, live_server: Server) -> None:
    screen = open_page(*(make_task("approval") for _ in range(4)), user=live_server.new_user())
    live_server.accounts.credentials.revoke(screen.user.session)
    screen.submit("j")
    items = dialog(screen, "Sign in again")
    items.wait_for()
    screen.wait_until(lambda: state_kind(screen) == "sign in" and "1 waiting" in screen.state)
    items.get_by_label("Password").fill("not the one")
    items.get_by_role("button", name="Sign in").click()
    items.get_by_text("No account with this name and password.").wait_for()
    screen.press("Escape")  # users can continue without signing in
    screen.submit("k")
    items.wait_for()
    screen.wait_until(lambda: "2 waiting" in screen.state)
    items.get_by_label("Password").fill(PASSWORD)
    screen.press("Enter")
    items.wait_for(state="hidden")
    events = screen.stored(2)
    assert [event.judgement for event in events] == [Approval(True), Approval(False)]
    screen.submit("k").stored(3)


def test_outbox_of_one_user_is_not_sent_by_the_next(open_page: OpenPage, live_server: Server) -> None:
    first, second = live_server.new_user(), live_server.new_user()
    screen = open_page(make_task("approval", required=2), make_task("approval", required=2), user=first)
    screen.context.set_offline(True)
    screen.submit("j")
    screen.wait_until(lambda: "1 waiting" in screen.state)
    TaskQueue(screen.run.store).next_tasks(second.id, 2)  # the second user has the same items on another screen
    screen.sign_in_as(second)
    screen.context.set_offline(False)
    screen.wait_until(lambda: state_kind(screen) not in ("offline", "saving"))
    assert [event.annotator for event in screen.run.feedback()] in ([], [first.id])
    screen.sign_in_as(first)
    screen.reload()
    screen.wait_until(lambda: bool(screen.run.feedback()) or screen.pressed == ["Approve"])
    if not screen.run.feedback():
        screen.submit()
    assert [event.annotator for event in screen.stored(1)] == [first.id]


@pytest.mark.parametrize("kind", ["comparison", "demonstration"])
def test_refused_judgement_is_shown_again_and_can_be_copied(open_page: OpenPage, kind: str) -> None:
    screen = open_page(make_task(kind), make_task("approval"), permissions=["clipboard-read", "clipboard-write"])
    task = screen.task
    better = [*screen.display_order, ""][0]
    with screen.run.store.writing() as on:  # as if the task were no longer assigned to this user
        for table in (schema.assignments, schema.queue):
            on.execute(table.delete().where(table.c.task == (task.id if task else "")))
    if kind == "comparison":
        screen.press("w")
        screen.page.keyboard.type("clearly")
        screen.press("Enter", "f", "1", "2")
    else:
        screen.page.keyboard.type("A long text.")
    screen.press("Control+Enter")
    screen.page.locator("#notice").get_by_role("button", name="Copy").wait_for()
    assert screen.task == task and state_kind(screen) == "rejected"
    assert "not accepted" in screen.state and "never assigned to you" in screen.notice
    if kind == "comparison":
        assert screen.pressed == ["A better", "Harm"]
        assert screen.page.locator("#comment").input_value() == "clearly"
    else:
        assert screen.page.locator("#control textarea").input_value() == "A long text."
    screen.page.locator("#notice").get_by_role("button", name="Copy").click()
    copied = screen.page.evaluate("() => navigator.clipboard.readText()")
    assert (better if kind == "comparison" else "A long text.") in copied
    before = screen.instruction
    button(screen, "Skip").click()
    dialog(screen, "Skip this task?").get_by_role("button", name="Skip").click()
    screen.wait_for_next_task(before)
    screen.submit("j").stored(1)


def test_two_tabs_offer_a_conflicting_judgement_as_replacement(open_page: OpenPage) -> None:
    first_tab = open_page(*(make_task("comparison") for _ in range(8)))
    two = first_tab.tab().go()
    assert first_tab.task == two.task
    latest: dict[str, Judgement] = {}
    for _ in range(3):
        assert first_tab.task
        latest[first_tab.task.id] = Comparison(first_tab.display_order[0], 3)
        first_tab.submit("1")
    first_tab.stored(3)
    for n in range(3):
        task, items = two.task, two.display_order
        assert task
        two.press("7", "Enter")
        two.page.locator("#notice").get_by_text("another tab").wait_for()
        assert two.task == task and two.pressed == ["B much"]
        assert len(first_tab.run.feedback()) == 3 + n
        latest[task.id] = Comparison(items[1], 3)
        two.submit()
        two.stored(4 + n)
    two.submit("4").stored(7)
    events = first_tab.run.feedback()
    superseded = {event.supersedes for event in events}
    standing = [event for event in events if event.id not in superseded]
    assert len(standing) == len({event.task for event in events}) == 4
    assert {event.task: event.judgement for event in standing} == latest | {events[-1].task: Comparison(verdict="tie")}


def test_refused_judgement_survives_a_reload(open_page: OpenPage) -> None:
    first_tab = open_page(make_task("demonstration"), make_task("demonstration"), make_task("approval"))
    two = first_tab.tab().go()
    task = first_tab.task
    first_tab.page.keyboard.type("First.")
    first_tab.submit(by="Control+Enter").stored(1)
    two.page.keyboard.type("Second, and far longer.")
    two.press("Control+Enter")
    two.page.locator("#notice").get_by_text("another tab").wait_for()
    two.reload()
    two.wait_until(lambda: two.task == task)
    assert two.page.locator("#control textarea").input_value() == "Second, and far longer."
    two.submit(by="Control+Enter")
    first, second = two.stored(2)
    assert second.supersedes == first.id and second.judgement == Demonstration("Second, and far longer.")


def test_two_offline_tabs_offer_the_second_judgement(open_page: OpenPage) -> None:
    first_tab = open_page(*(make_task("approval") for _ in range(3)))
    two = first_tab.tab().go()
    task = first_tab.task
    first_tab.context.set_offline(True)
    first_tab.submit("j")
    two.submit("k")
    first_tab.context.set_offline(False)
    first_tab.wait_until(
        lambda: bool(first_tab.run.feedback()) and any("another tab" in tab.notice for tab in (first_tab, two))
    )
    offered = first_tab if "another tab" in first_tab.notice else two
    assert offered.task == task and offered.pressed == ["Disapprove"]
    offered.submit()
    first, second = offered.stored(2)
    assert (first.judgement, second.judgement, second.supersedes) == (Approval(True), Approval(False), first.id)


def test_two_tabs_with_one_draft_offer_the_second_judgement(open_page: OpenPage) -> None:
    first_tab = open_page(make_task("approval"), make_task("approval"))
    first_tab.press("j")
    first_tab.page.wait_for_timeout(200)
    two = first_tab.tab().go()
    assert two.task == first_tab.task
    first_tab.submit().stored(1)
    task = two.task
    two.press("k", "Enter")
    two.page.locator("#notice").wait_for()
    assert two.task == task and two.pressed == ["Disapprove"]
    two.submit()
    first, second = two.stored(2)
    assert second.supersedes == first.id and second.judgement == Approval(False)


def test_two_tabs_posting_one_draft_lose_no_judgement(open_page: OpenPage) -> None:
    first_tab = open_page(make_task("approval"), make_task("approval"))
    first_tab.press("j")
    first_tab.page.wait_for_timeout(200)
    two = first_tab.tab().go()
    held_requests = first_tab.hold("**/api/judgements")
    task = first_tab.task
    first_tab.submit()
    held_requests.wait()
    two.submit("k")
    held_requests.is_released = True
    held_requests.release()
    first_tab.wait_until(lambda: bool(first_tab.run.feedback()) and state_kind(first_tab) != "saving")
    recorded = [event.judgement for event in first_tab.run.feedback() if task and event.task == task.id]
    offered = [tab for tab in (first_tab, two) if tab.task == task and tab.pressed == ["Disapprove"]]
    assert Approval(False) in recorded or offered, (
        f"'{first_tab.state}', but Disapprove is neither stored nor on a page"
    )


def test_late_responses_show_one_task_at_a_time(open_page: OpenPage, live_server: Server) -> None:
    run = make_run(live_server.root)
    screen = open_page(run=run, clock=True)
    screen.page.locator("#empty").wait_for()
    held_requests = screen.hold("**/api/tasks/next*")
    for _ in range(4):
        screen.page.clock.fast_forward("00:06")
        held_requests.wait()
    add_tasks(run, make_task("approval"), make_task("approval"))
    held_requests.is_released = True
    while held_requests.routes:
        held_requests.release()
    screen.page.locator("#prompt").get_by_text("?").first.wait_for()
    screen.page.clock.fast_forward("00:06")
    screen.page.wait_for_timeout(300)
    assert screen.page.locator("#prompt .turn").count() == 1 and screen.task, screen.page.inner_text("main")
    screen.submit("j").submit("j").stored(2)


def test_current_task_stays_when_no_more_tasks_come(open_page: OpenPage) -> None:
    screen = open_page(*(make_task("demonstration") for _ in range(6)))
    held_requests = screen.hold("**/api/tasks/next*")
    screen.page.keyboard.type("First.")
    screen.submit(by="Control+Enter")
    held_requests.wait()
    task = screen.task
    screen.page.keyboard.type("While I write this, the server fails")
    with screen.page.expect_response("**/api/tasks/next*"):
        held_requests.routes.pop().fulfill(status=503, json={"detail": "feedback.db is locked by another process"})
    screen.page.wait_for_timeout(200)
    assert screen.task == task
    assert screen.page.locator("#control textarea").input_value() == "While I write this, the server fails"


def test_full_disk_keeps_the_judgement_in_the_outbox(open_page: OpenPage, tmp_path: Path) -> None:
    with crashing_servers(tmp_path, full=True) as server:
        server.user_with_role()
        server.start()
        screen = open_page(
            make_task("demonstration"), make_task("approval"), make_task("approval"), at=server, clock=True
        )
        server.flag.touch()
        text = "A very long answer. " * 4000  # more than the free pages of the database can hold
        screen.page.locator("#control textarea").fill(text)
        with screen.page.expect_response("**/api/judgements") as result:
            screen.submit(by="Control+Enter")
        assert result.value.status == 507
        screen.wait_until(lambda: state_kind(screen) == "offline")
        assert "disk is full" in screen.state and "1 waiting" in screen.state
        assert screen.task == screen.run.tasks[1].task  # the next task is shown
        assert screen.run.feedback() == []
        server.flag.unlink()
        screen.page.clock.fast_forward("02:00")
        assert [event.judgement for event in screen.stored(1)] == [Demonstration(text)]
        screen.submit("j").stored(2)


@pytest.mark.slow
def test_saved_judgements_outlive_twenty_server_kills(open_page: OpenPage, tmp_path: Path) -> None:
    rng = random.Random(20)
    with crashing_servers(tmp_path) as server:
        run = make_run(server.root, *(make_task("comparison") for _ in range(150)))
        server.user_with_role()
        server.start()
        screen = open_page(run=run, at=server)
        acknowledged: list[str] = []
        recorded: list[tuple[str, Judgement]] = []

        def record_acknowledged(response: Any) -> None:
            if response.request.method == "POST" and response.url.endswith("/judgements") and response.ok:
                acknowledged.append(response.request.post_data_json["id"])

        screen.page.on("response", record_acknowledged)

        def judge_task() -> None:
            task = screen.task
            key = rng.choice(list(VERDICTS))
            assert task  # the page has two more tasks besides the one on the screen
            recorded.append((task.id, VERDICTS[key](screen.display_order)))
            screen.submit(key)

        for _ in range(11):
            with screen.page.expect_request_finished(lambda request: "/api/tasks/next" in request.url):
                judge_task()
            offline = rng.random() < 0.3
            if not offline:
                judge_task()
                screen.page.wait_for_timeout(rng.uniform(0, 60))
            server.kill()
            assert {event.id for event in run.feedback()}.issuperset(acknowledged)
            if offline:
                judge_task()
            server.start(die=rng.choice(["received", "stored", "acknowledged"]))
            judge_task()
            screen.wait_until(lambda: not server.alive())
            assert {event.id for event in run.feedback()}.issuperset(acknowledged)
            server.start()
        judge_task()
        screen.wait_until(lambda: len(run.feedback()) >= len(recorded))
        events = screen.stored(len(recorded))
        assert server.num_starts > 20
        assert [(event.task, event.judgement) for event in events] == recorded
        assert len({event.id for event in events}) == len(events) == run.store.verify()


@pytest.mark.parametrize("when", ["while the items were on the page", "before they were handed out"])
def test_outbox_resends_judgements_lost_by_a_restored_backup(open_page: OpenPage, tmp_path: Path, when: str) -> None:
    with crashing_servers(tmp_path) as server:
        run = make_run(server.root, *(make_task("approval") for _ in range(3)))
        server.user_with_role()
        copy = tmp_path / "backup.db"
        server.start()
        if when == "before they were handed out":
            run.store.copy(copy)
        screen = open_page(run=run, at=server, clock=True)
        if when == "while the items were on the page":
            run.store.copy(copy)
        screen.submit("j").submit("k").stored(2)
        before = run.judgements()
        server.kill()
        screen.submit("j")
        screen.wait_until(lambda: "1 waiting" in screen.state)
        run.store.close()
        for left in run.folder.glob("feedback.db*"):
            left.unlink()
        shutil.copy(copy, run.folder / "feedback.db")
        assert run.feedback() == []
        server.start()
        for _ in range(5):
            screen.page.clock.fast_forward("02:00")
            screen.page.wait_for_timeout(200)
        screen.wait_until(lambda: len(run.feedback()) == 3)
        tasks_seen = dict(run.judgements())
        assert len(tasks_seen) == 3 and all(tasks_seen[task] == result for task, result in before)


def test_outbox_reports_a_tab_with_an_older_version(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), path="/guidelines")
    name = f"assent {screen.at('/api')} {screen.user.id}"
    screen.page.evaluate(
        """(name) => new Promise((resolve) => {
            const request = indexedDB.open(name, 1);
            request.onsuccess = () => resolve((globalThis.old = request.result) && 1);
        })""",
        name,
    )
    tab = screen.tab()
    tab.page.goto(screen.server.url + screen.at("/label"))
    tab.page.get_by_text("Another tab still runs an older version of this page").wait_for()
    tab.errors.clear()
    tab.page.evaluate("() => (globalThis.pageErrors = [])")
    screen.page.close()
    tab.reload()
    assert tab.task == screen.run.tasks[0].task


OLD_RECORDS = """
({ name, outbox, draft, words }) => new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 2);
    const stores = ["drafts", "outbox", "returned", "sent", "skipped"];
    request.onupgradeneeded = () => stores.forEach((store) => request.result.createObjectStore(store));
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
        const transaction = request.result.transaction(["outbox", "drafts"], "readwrite");
        transaction.objectStore("outbox").put(outbox, outbox.id);
        transaction.objectStore("drafts").put(draft, draft.query);
        transaction.oncomplete = () => (request.result.close(), resolve());
    };
    localStorage.setItem(`${name} ${words.query}`, JSON.stringify(words));
})
"""
"""Write records as version 2 of the outbox did, with its older names of fields."""


def test_outbox_upgrade_keeps_waiting_judgements_and_drafts(open_page: OpenPage) -> None:
    screen = open_page(make_task("approval"), make_task("demonstration"), make_task("critique"), path="/guidelines")
    aliases = [
        item["task"]
        for item in screen.page.request.get(screen.server.url + screen.at("/api/tasks/next")).json()["tasks"]
    ]
    approval, demonstration, critique = aliases
    items = [response.id for response in screen.run.tasks[0].responses]
    post = {"query": approval, "answer": {"approved": True}, "shown": items, "seconds": 2.5, "note": "an old note"}
    body = {"id": "0192-old", **post, "flags": ["harm"], "supersedes": ""}
    entry = {"id": "0192-old", "path": "feedback", "query": approval, "body": body, "item": None, "tab": "old"}
    draft = {
        "answer": {"text": "An old draft."},
        "flags": [],
        "note": "",
        "seconds": 1,
        "supersedes": "",
        "returned": "",
    }
    records = {
        "name": f"assent {screen.at('/api')} {screen.user.id}",
        "outbox": entry,
        "draft": {"query": demonstration, **draft},
        "words": {"query": critique, **draft, "answer": {"text": "Old words."}},
    }
    screen.page.evaluate(OLD_RECORDS, records)
    screen.go("/label")
    (event,) = screen.stored(1)
    assert (event.id, event.judgement, event.comment) == ("0192-old", Approval(True), "an old note")
    assert (event.duration, event.flags, list(event.display_order)) == (2.5, ("harm",), items)
    text = screen.page.locator("#control textarea")
    assert text.input_value() == "An old draft."
    screen.submit(by="Control+Enter")
    assert text.input_value() == "Old words."
    screen.submit(by="Control+Enter")
    assert [event.judgement for event in screen.stored(3)[1:]] == [
        Demonstration("An old draft."),
        Critique("Old words."),
    ]
