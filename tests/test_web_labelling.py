"""The labelling API on a real application: tasks, judgements, corrections, screening and gold items."""

import json
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from fastapi.testclient import TestClient
from web_server import (
    COMPARISON_TASK,
    DEMONSTRATION_TASK,
    EXPLANATION,
    ITEMS,
    PASSWORD,
    POLICY,
    PROMPT,
    TASKS,
    Server,
    check_page,
    comparison_of,
    judgement_of,
    next_tasks,
)

from assent.feedback import to_values
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.labelling.gold import Use
from assent.labelling.queue import TaskRequest
from assent.labelling.settings import change_setting
from assent.records import Feedback, Prompt, Response, Task
from assent.store.database import Store
from assent.web.security import COOKIE

pytestmark = pytest.mark.usefixtures("quick_hashes")


def test_acknowledged_judgement_is_in_the_store(server: Server) -> None:
    browser = server.client("labeller")
    items = {item["kind"]: item for item in next_tasks(browser)}
    assert set(items) == {task.kind for task in TASKS}
    posts = [
        judgement_of(item, f"0192-{kind}", comment="why", flags=["Harm"])
        if kind == "comparison"
        else judgement_of(item, kind)
        for kind, item in items.items()
    ]
    for post in posts:
        reply = browser.post("/r/demo/api/judgements", json=post)
        assert reply.status_code == 200, reply.text
        assert (reply.json()["id"], reply.json()["task"]) == (post["id"], post["task"])
    with Store.open(server.demo.store.name) as store:
        stored = {event.id: event for event in store.feedback(annotator=server.users["labeller"].id)}
        assert store.verify() == len(TASKS) + 1
    assert set(stored) == {post["id"] for post in posts}
    for post in posts:
        event = stored[post["id"]]
        assert (event.task, list(event.display_order), event.duration) == (
            server.stored_id(post["task"]),
            post["display_order"],
            3.5,
        )
        result = to_values(event.judgement)
        for name, value in post["judgement"].items():
            assert (dict(result[name]) if name == "axes" else result[name]) == value
    assert (stored["0192-comparison"].comment, stored["0192-comparison"].flags) == ("why", ("Harm",))
    own_judgements = browser.get("/r/demo/api/judgements/mine").json()
    assert [entry["id"] for entry in own_judgements] == [post["id"] for post in posts][::-1]
    assert next_tasks(browser) == []


def test_repeated_post_stores_one_judgement(server: Server) -> None:
    browser = server.client("labeller")
    (item, *_) = next_tasks(browser)
    replies = [browser.post("/r/demo/api/judgements", json=judgement_of(item)) for _ in range(10)]
    assert [reply.status_code for reply in replies] == [200] * 10
    assert len({reply.text for reply in replies}) == 1
    assert server.demo.store.counts().feedback == 2


def test_task_is_shown_again_and_its_judgement_superseded(server: Server) -> None:
    browser = server.client("labeller")
    item = next(entry for entry in next_tasks(browser) if entry["kind"] == "comparison")
    assert browser.get(f"/r/demo/api/tasks/{item['task']}").json() == item
    assert browser.post("/r/demo/api/judgements", json=judgement_of(item)).status_code == 200
    assert browser.get(f"/r/demo/api/tasks/{item['task']}").json() == item
    second = judgement_of(item, "0192-second", comment="on second thoughts")
    reply = browser.post("/r/demo/api/judgements", json=second)
    assert (reply.status_code, reply.json()["detail"]["existing_id"]) == (409, "0192-first")
    assert browser.post("/r/demo/api/judgements", json={**second, "supersedes": "0192-first"}).status_code == 200
    assert [entry["id"] for entry in browser.get("/r/demo/api/judgements/mine").json()] == ["0192-second", "0192-first"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (dict(comment="another body"), 409),
        (dict(id="0192-second"), 409),
        (dict(id="0192-x", task="nowhere"), 404),
        (dict(id="0192-x", display_order=[]), 404),
        (dict(id=""), 422),
        (dict(id="x" * 81), 422),
        (dict(id="a b"), 422),
        (dict(id="0192-x", supersedes="0192-first", judgement={"preferred": "elsewhere"}), 422),
        (dict(id="0192-x", judgement={}), 422),
        (dict(id="0192-x", judgement={"strength": 9}), 422),
        (dict(id="0192-x", judgement=[]), 422),
        (dict(id="0192-x", duration=-1), 422),
        (dict(id="0192-x", duration="long"), 422),
        (dict(id="0192-x", comment="x" * 10_001), 422),
        (dict(id="0192-x", flags=["x"] * 21), 422),
        (dict(id="0192-x", annotator="somebody else"), 422),
        (dict(id="0192-x", created_at="1999-01-01"), 422),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_judgement_is_refused_and_stores_nothing(
    judged_server: Server, change: dict[str, Any], status: int
) -> None:
    post = {**judgement_of(comparison_of(judged_server)), **change}
    before = judged_server.content()
    assert judged_server.client("labeller").post("/r/demo/api/judgements", json=post).status_code == status
    assert judged_server.content() == before


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *(("comparison", name) for name in ("weight", "certainty", "margin")),
        *((kind, "weight") for kind in ("ranking", "rating", "approval", "demonstration")),
    ],
)
def test_labeller_cannot_set_weight_margin_or_certainty(server: Server, kind: str, field: str) -> None:
    browser = server.client("labeller")
    post = judgement_of(next(entry for entry in next_tasks(browser) if entry["kind"] == kind))
    value = {"weight": 1e9, "certainty": 0.5, "margin": 1e9}[field]
    reply = browser.post("/r/demo/api/judgements", json={**post, "judgement": {**post["judgement"], field: value}})
    assert reply.status_code == 422
    assert server.demo.store.counts().feedback == 1


def test_heartbeat_renews_and_skip_releases_a_task(server: Server) -> None:
    queue = server.demo.queue
    queue.clock = server.clock
    queue.enqueue([TaskRequest(replace(COMPARISON_TASK, instruction="only once"), priority=1)], "label")
    browser, other_browser = server.client("labeller"), server.client("admin")
    (item,) = next_tasks(browser, 1)
    for _ in range(3):
        server.clock.now += 14 * 60
        assert browser.post("/r/demo/api/heartbeat", json={"tasks": [item["task"]]}).status_code == 204
        assert server.stored_id(item["task"]) not in [
            server.stored_id(entry["task"]) for entry in next_tasks(other_browser)
        ]
    assert browser.post("/r/demo/api/skip", json={"tasks": [item["task"]]}).status_code == 204
    assert server.stored_id(item["task"]) in [server.stored_id(entry["task"]) for entry in next_tasks(other_browser)]
    assert item["task"] not in [entry["task"] for entry in next_tasks(browser)]


def test_next_tasks_leaves_out_held_tasks(server: Server) -> None:
    browser = server.client("labeller")
    first, second = next_tasks(browser, 2)
    reply = browser.get("/r/demo/api/tasks/next", params={"count": 2, "hold": f"{first['task']},{second['task']}"})
    assert {first["task"], second["task"]}.isdisjoint(entry["task"] for entry in reply.json()["tasks"])


def test_correction_is_only_for_the_assigned_labeller(server: Server) -> None:
    browser = server.client("labeller")
    item = next(entry for entry in next_tasks(browser) if entry["kind"] == "comparison")
    item_ids = [response["id"] for response in item["items"]]
    reply = browser.post("/r/demo/api/corrections", json={"task": item["task"], "item": item_ids[0]})
    assert (reply.status_code, reply.json()["kind"]) == (200, "correction")
    assert [response["id"] for response in reply.json()["items"]] == item_ids[:1]
    assert browser.post("/r/demo/api/judgements", json=judgement_of(reply.json())).status_code == 200
    other_reply = server.client("admin").post(
        "/r/demo/api/corrections", json={"task": item["task"], "item": item_ids[0]}
    )
    assert other_reply.status_code == 404
    unseen = browser.post("/r/demo/api/corrections", json={"task": item["task"], "item": ITEMS[2].id})
    assert unseen.status_code == 404


def test_full_disk_is_507_and_the_post_succeeds_later(server: Server) -> None:
    browser = server.client("labeller")
    store = server.demo.store
    item = next(entry for entry in next_tasks(browser) if entry["kind"] == "critique")
    post = judgement_of(item, comment="n" * 10_000) | {"judgement": {"text": "x" * 199_000}}
    with store.reading() as on:
        pages = on.exec_driver_sql("PRAGMA page_count").scalar()
        on.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    assert browser.post("/r/demo/api/judgements", json=post).status_code == 507
    assert store.counts().feedback == 1
    with store.reading() as on:
        on.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert browser.post("/r/demo/api/judgements", json=post).status_code == 200
    assert store.counts().feedback == 2


def test_near_identical_items_are_refused_by_the_tasks_api(server: Server) -> None:
    copy = Response(PROMPT.id, "  jupiter. ", "another policy")
    server.demo.store.add_responses([copy])
    task = {"kind": "comparison", "prompt": PROMPT.id, "items": [ITEMS[0].id, copy.id]}
    before = server.demo.store.counts().tasks
    reply = server.client("reviewer").post("/r/demo/api/tasks", json={"tasks": [task]})
    assert reply.status_code == 422
    assert "almost the same words" in reply.json()["detail"]
    assert server.demo.store.counts().tasks == before
    for item in next_tasks(server.client("labeller")):
        assert not {ITEMS[0].id, copy.id} <= {response["id"] for response in item["items"]}


def test_distinct_items_are_accepted_by_the_tasks_api(server: Server) -> None:
    task = {"kind": "comparison", "prompt": PROMPT.id, "items": [ITEMS[1].id, ITEMS[2].id]}
    reply = server.client("reviewer").post("/r/demo/api/tasks", json={"tasks": [task]})
    assert (reply.status_code, reply.json()) == (200, {"created": 1})


def test_pages_show_judgements_and_a_decision_settles_a_dispute(server: Server) -> None:
    for role, better in (("labeller", 0), ("admin", 1), ("owner", 1)):
        browser = server.client(role)
        for item in next_tasks(browser):
            post = judgement_of(item, f"{role}-{item['kind']}")
            if item["kind"] == "comparison":
                post["judgement"] = {"preferred": COMPARISON_TASK.items[better], "strength": 2}
            assert browser.post("/r/demo/api/judgements", json=post).status_code == 200
    owner = server.client("owner", headers={"accept": "text/html"})
    pages = {name: owner.get(f"/r/demo/{name}") for name in ("progress", "review", "admin", "disagreements", "prompts")}
    assert {name: page.status_code for name, page in pages.items()} == dict.fromkeys(pages, 200)
    for page in pages.values():
        check_page(page.text)
    assert COMPARISON_TASK.id in pages["review"].text
    assert "secret-policy" in owner.get(f"/r/demo/prompts/{PROMPT.id}").text
    gold = {
        "task": COMPARISON_TASK.id,
        "decision": "labeller-comparison",
        "use": "practice",
        "explanation": EXPLANATION,
    }
    assert owner.post("/r/demo/decide", data=gold).status_code == 303
    ((task, judgement, use),) = server.demo.queue.gold.items()
    assert (task, judgement, use) == (
        replace(COMPARISON_TASK, purpose="gold"),
        Comparison(COMPARISON_TASK.items[0], 2),
        "practice",
    )
    events = [json.loads(line) for line in owner.get("/r/demo/api/events").text.splitlines()]
    assert [event["id"] for event in events] == [event.id for event in server.demo.store.feedback()]
    # The decision is the reviewer's own judgement and supersedes an earlier one; the task is no longer disputed.
    *before, decision = server.demo.store.feedback(server.users["owner"].id, COMPARISON_TASK.id)
    assert decision.judgement == Comparison(COMPARISON_TASK.items[0], 2)
    assert (decision.comment, decision.flags) == (EXPLANATION, ("decided",))
    assert decision.supersedes == (before[-1].id if before else "")
    assert owner.post("/r/demo/decide", data=gold | {"use": "", "decision": "tie"}).status_code == 303
    *_, last = server.demo.store.feedback(server.users["owner"].id, COMPARISON_TASK.id)
    assert (last.supersedes, last.judgement) == (decision.id, Comparison(verdict="tie"))
    assert COMPARISON_TASK.id not in owner.get("/r/demo/review").text


def test_admin_page_shows_earlier_guidelines(server: Server) -> None:
    owner = server.client("owner")
    for words in ("Be kind.", "Be *kind*, and quick."):
        owner.post("/r/demo/settings", data={"guidelines": words, "flags": "Harm", "axes": "true"})
    page = owner.get("/r/demo/admin").text
    assert "1 earlier version of" in page and page.index("quick.") < page.index("Be kind.")


def test_progress_page_warns_of_paused_annotators(server: Server) -> None:
    item = comparison_of(server)
    server.client("labeller").post("/r/demo/api/judgements", json=judgement_of(item))
    owner = server.client("owner")
    assert "paused annotators" not in owner.get("/r/demo/progress").text
    server.workspace.accounts.change("owner", "Ann", "", state="paused")
    page = owner.get("/r/demo/progress").text
    assert "1 of 2 judgements (50 %) are by paused annotators" in page and "more than a tenth" in page
    assert server.demo.store.counts().feedback == 2


def join_new_labeller(server: Server, name: str = "Newt") -> TestClient:
    browser = server.client()
    reply = browser.post(f"/join/{server.invite()}", data={"name": name, "password": PASSWORD})
    assert reply.status_code == 303
    return browser


def add_gold(server: Server, use: Use, number: int) -> dict[str, str]:
    """Add gold items, and return the id of the better item."""
    prompts = [Prompt.ask(f"{use} question {n}") for n in range(number)]
    pairs = [[Response(prompt.id, text, POLICY) for text in ("Yes.", "No.")] for prompt in prompts]
    server.demo.store.add_prompts(prompts)
    server.demo.store.add_responses(chain.from_iterable(pairs))
    for prompt, (a, b) in zip(prompts, pairs, strict=True):
        task = Task("comparison", prompt.id, (a.id, b.id), "gold")
        server.demo.queue.gold.add(task, Comparison(a.id), use, EXPLANATION)
    return {Task("comparison", p.id, (a.id, b.id), "gold").id: a.id for p, (a, b) in zip(prompts, pairs, strict=True)}


@pytest.mark.parametrize(("wrong", "state"), [(5, "active"), (6, "paused")])
def test_screening_passes_with_15_of_20_test_items(server: Server, wrong: int, state: str) -> None:
    better_items = {"practice": add_gold(server, "practice", 10), "test": add_gold(server, "test", 20)}
    browser = join_new_labeller(server)
    assert server.workspace.accounts.get("Newt").state == "new"
    num_seen: list[str] = []
    while len(num_seen) < 30:
        first = browser.get("/r/demo/api/tasks/next", params={"count": 5}).json()
        assert first["screening"] is True
        assert EXPLANATION not in json.dumps(first)
        for item in first["tasks"]:
            use = "practice" if len(num_seen) < 10 else "test"
            right = better_items[use][server.stored_id(item["task"])]
            missed = len(num_seen) < 3 or 10 <= len(num_seen) < 10 + wrong
            preferred = next(response["id"] for response in item["items"] if (response["id"] == right) != missed)
            post = judgement_of(item, f"id-{len(num_seen)}", judgement={"preferred": preferred, "strength": 2})
            reply = browser.post("/r/demo/api/judgements", json=post).json()
            if use == "practice":
                assert (reply["correct"], reply["explanation"]) == (not missed, EXPLANATION)
            else:
                assert (reply["correct"], reply["explanation"]) == (None, "")
            num_seen.append(item["task"])
    assert len(set(num_seen)) == 30
    assert server.workspace.accounts.get("Newt").state == state
    reply = browser.get("/r/demo/api/tasks/next")
    if state == "active":
        assert reply.json()["screening"] is False
        assert {server.stored_id(item["task"]) for item in reply.json()["tasks"]} <= {task.id for task in TASKS}
    else:
        assert reply.status_code == 403


@pytest.mark.parametrize("skipped", [1, 20])
def test_screening_ends_although_test_items_are_skipped(server: Server, skipped: int) -> None:
    right = add_gold(server, "practice", 10) | add_gold(server, "test", 20)
    browser = join_new_labeller(server)
    num_seen = 0
    while (
        (reply := browser.get("/r/demo/api/tasks/next")).status_code == 200
        and reply.json()["screening"]
        and num_seen < 60
    ):
        assert reply.json()["tasks"], "no test items are left, but the labeller is not activated"
        for item in reply.json()["tasks"]:
            if 30 - skipped <= num_seen < 30:
                browser.post("/r/demo/api/skip", json={"tasks": [item["task"]]})
            else:
                judgement = {"preferred": right[server.stored_id(item["task"])], "strength": 2}
                browser.post("/r/demo/api/judgements", json=judgement_of(item, f"id-{num_seen}", judgement=judgement))
            num_seen += 1
    assert server.workspace.accounts.get("Newt").state == ("active" if skipped == 1 or num_seen > 30 else "paused")


def test_new_labeller_starts_at_once_without_screening(server: Server) -> None:
    first = join_new_labeller(server).get("/r/demo/api/tasks/next").json()
    assert first["screening"] is False
    assert first["tasks"]


def test_wrong_gold_items_pause_the_labeller(server: Server) -> None:
    """Test good .90 against bad .60 with alpha .01 and beta .05: four wrong gold items in a row are enough."""
    right = add_gold(server, "hidden", 40)
    prompts = [Prompt.ask(f"ordinary question {n}") for n in range(300)]
    pairs = [[Response(prompt.id, text, POLICY) for text in ("Yes.", "No.")] for prompt in prompts]
    server.demo.store.add_prompts(prompts)
    server.demo.store.add_responses(chain.from_iterable(pairs))
    asks = [TaskRequest(Task("comparison", p.id, (a.id, b.id))) for p, (a, b) in zip(prompts, pairs, strict=True)]
    server.demo.queue.enqueue(asks, "label")
    browser = server.client("labeller")
    num_posted = 0
    wrong = 0
    with browser:
        while (reply := browser.get("/r/demo/api/tasks/next", params={"count": 10})).status_code == 200 and wrong < 8:
            assert reply.json()["tasks"], "no tasks were left"
            for item in reply.json()["tasks"]:
                post = judgement_of(item, f"id-{num_posted}")
                real = server.stored_id(item["task"])
                if real in right:
                    post["judgement"]["preferred"] = next(
                        response for response in post["display_order"] if response != right[real]
                    )
                    wrong += 1
                reply = browser.post("/r/demo/api/judgements", json=post)
                num_posted += 1
                assert reply.status_code == 200
                assert reply.json()["correct"] is None
    assert wrong >= 4
    assert len(list(server.demo.store.feedback(annotator=server.users["labeller"].id))) == num_posted
    assert (reply.status_code, server.workspace.accounts.get("Ann").state) == (403, "paused")


def test_reactivated_labeller_is_not_paused_for_old_gold_items(server: Server) -> None:
    right = add_gold(server, "hidden", 8)
    browser = server.client("labeller")
    queue = server.demo.queue
    ann = server.users["labeller"].id
    gold = [task for task, _, _ in queue.gold.items()]
    for task in gold:
        queue.assignments.assign(ann, task)
    items = {item["items"][0]["id"]: item for item in next_tasks(browser) if item["kind"] == "comparison"}
    result = [item for item in items.values() if {response["id"] for response in item["items"]} & set(right.values())]
    assert len(result) == 8
    for number, item in enumerate(result):
        good = next(response["id"] for response in item["items"] if response["id"] in right.values())
        bad = next(response["id"] for response in item["items"] if response["id"] != good)
        if number == 6:
            assert server.workspace.accounts.get("Ann").state == "paused"
            server.workspace.accounts.change("owner", ann, "we talked", state="active")
        judgement = {"preferred": good if number >= 6 else bad, "strength": 2}
        assert (
            browser.post(
                "/r/demo/api/judgements", json=judgement_of(item, f"id-{number}", judgement=judgement)
            ).status_code
            == 200
        )
    assert server.workspace.accounts.get("Ann").state == "active"


def test_assigned_but_idle_user_does_not_hold_up_progress(server: Server) -> None:
    queue = server.demo.queue
    queue.enqueue([TaskRequest(DEMONSTRATION_TASK, 3)], "label")
    queue.next_tasks(server.users["owner"].id, 10)  # the owner only looks at the page
    for user in (server.users["reviewer"].id, server.users["labeller"].id):
        for task, item_ids, _ in queue.next_tasks(user, 10):
            if task == DEMONSTRATION_TASK:
                queue.submit(
                    Feedback(task.id, user, Demonstration("It is Jupiter."), "2026-11-21", display_order=item_ids)
                )
    assert queue.open_tasks([task.id for task in TASKS]) == {task.id for task in TASKS}
    assert queue.progress().completed == 1


def test_skipped_task_does_not_hold_up_progress(server: Server) -> None:
    queue = server.demo.queue
    accounts = (server.users["reviewer"].id, server.users["labeller"].id)
    before = queue.progress().completed
    for user in accounts:
        queue.next_tasks(user, 10)
        queue.assignments.skip(user, DEMONSTRATION_TASK.id)
    assert queue.progress().completed == before + 1


def test_active_labeller_is_not_screened_later(server: Server) -> None:
    server.workspace.accounts.change("owner", "Ann", "", state="new")
    browser = server.client("labeller")
    assert browser.post("/r/demo/api/judgements", json=judgement_of(next_tasks(browser)[0])).status_code == 200
    assert server.workspace.accounts.get("Ann").state == "active"
    add_gold(server, "test", 3)
    assert not browser.get("/r/demo/api/tasks/next").json()["screening"]


def test_chat_tasks_are_not_offered_as_next_tasks(server: Server) -> None:
    browser = server.client("labeller")
    ann = server.users["labeller"].id
    before = len(next_tasks(browser))
    assignment = server.demo.queue.assignments.assign(
        ann, Task("approval", PROMPT.id, (ITEMS[1].id,), "train", "Good?"), aside=True
    )
    assert len(next_tasks(browser)) == before
    post = {
        "id": "0192-talk",
        "task": assignment.alias,
        "judgement": {"approved": True},
        "display_order": list(assignment.display_order),
    }
    assert browser.post("/r/demo/api/judgements", json=post).status_code == 200


def test_task_without_instruction_gets_the_default_question(server: Server) -> None:
    for item in next_tasks(server.client("labeller")):
        assert len(item["instruction"]) > 10


def test_first_judgement_of_a_gold_item_counts(server: Server) -> None:
    gold = replace(COMPARISON_TASK, purpose="gold")
    ann = server.users["labeller"].id
    server.demo.queue.gold.add(gold, Comparison(gold.items[0]))
    assignment = server.demo.queue.assignments.assign(ann, gold)
    browser = server.client("labeller")
    before = ""
    for n, choice in enumerate((gold.items[1], gold.items[0])):
        post = {
            "id": f"id-{n}",
            "task": assignment.alias,
            "judgement": {"preferred": choice},
            "display_order": list(assignment.display_order),
        }
        assert browser.post("/r/demo/api/judgements", json={**post, "supersedes": before}).status_code == 200
        before = f"id-{n}"
    assert server.demo.queue.gold.results(ann) == [False]


def test_one_labeller_cannot_hold_all_tasks(server: Server) -> None:
    prompts = [Prompt.ask(f"And number {n}?") for n in range(60)]
    server.demo.store.add_prompts(prompts)
    server.demo.queue.enqueue([TaskRequest(Task("demonstration", prompt.id, ())) for prompt in prompts], "more")
    browser = server.client("labeller")
    held_ids = list[str]()
    for _ in range(10):
        held_ids += [
            item["task"]
            for item in browser.get(f"/r/demo/api/tasks/next?count=10&hold={','.join(held_ids)}").json()["tasks"]
        ]
    assert len(set(held_ids)) == len(held_ids) == 20
    assert len(next_tasks(server.client("admin"))) == 10


def test_completion_code_counts_required_judgements_only(server: Server) -> None:
    change_setting(server.demo.store, "completion", 2, "owner", "2026-11-21")
    server.workspace.accounts.join(server.invite(external="w-7"), "Wim", PASSWORD)
    wim = server.workspace.accounts.get("Wim").id
    browser = TestClient(server.app)
    browser.cookies.set(
        COOKIE, server.workspace.accounts.credentials.open_session(server.workspace.accounts.get("Wim"))
    )
    for n, response in enumerate(ITEMS):  # as after chats
        assignment = server.demo.queue.assignments.assign(
            wim, Task("approval", PROMPT.id, (response.id,), "train", f"chat {n}")
        )
        post = {
            "id": f"id-{n}",
            "task": assignment.alias,
            "judgement": {"approved": True},
            "display_order": list(assignment.display_order),
        }
        assert browser.post("/r/demo/api/judgements", json=post).status_code == 200
    assert browser.get("/r/demo/api/tasks/next").json()["completion_code"] == ""
    assert ",0,False," in server.client("owner").get("/r/demo/completion-codes.csv").text
    for n, item in enumerate(next_tasks(browser, 2)):
        browser.post("/r/demo/api/judgements", json=judgement_of(item, f"more-{n}"))
    code = browser.get("/r/demo/api/tasks/next").json()["completion_code"]
    assert code and f",2,True,{code}" in server.client("owner").get("/r/demo/completion-codes.csv").text
    server.workspace.accounts.change("owner", "Wim", "", state="new")
    assert browser.get("/r/demo/api/tasks/next").json()["completion_code"] == ""


def test_rate_limit_on_judgements(server: Server) -> None:
    browser = server.client("labeller")
    item = next_tasks(server.client("labeller"))[0]
    replies = [browser.post("/r/demo/api/judgements", json=judgement_of(item)).status_code for _ in range(310)]
    assert replies[0] == 200 and set(replies[300:]) == {429} and 429 not in replies[:300]


def test_next_tasks_offers_no_gold_for_a_seen_pair(server: Server) -> None:
    queue = server.demo.queue
    ann = server.users["labeller"].id
    gold = Task("comparison", PROMPT.id, COMPARISON_TASK.items[::-1], "gold", "Which of the two?")
    queue.gold.add(gold, Comparison(gold.items[0]), "practice")
    queue.assignments.assign(ann, COMPARISON_TASK)
    assert queue.next_tasks(ann, 20, [COMPARISON_TASK.id], is_screened=False) == []
    assert [entry.task for entry in queue.next_tasks("somebody", 20, is_screened=False)] == [gold]
