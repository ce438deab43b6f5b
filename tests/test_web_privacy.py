"""Labellers must not learn policies, purposes or gold items; model names are redacted."""

import html
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, permutations
from typing import Any

import pytest
from web_server import (
    COMPARISON_TASK,
    EXPLANATION,
    ITEMS,
    MODEL,
    NAMES,
    PERMISSION_BY_ROUTE,
    POLICY,
    PROMPT,
    RANKING_TASK,
    REVIEWER_COMMENT,
    ROLES,
    TASKS,
    Server,
    judgement_of,
    next_tasks,
    send,
)

from assent.feedback import to_values
from assent.feedback.comparison import Comparison
from assent.labelling.settings import change_setting
from assent.records import Prompt, Response, Task
from assent.web.text import Redactor

pytestmark = pytest.mark.usefixtures("quick_hashes")


def all_strings(value: Any) -> Iterator[str]:
    """Yield every key and every value in JSON, as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from all_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from all_strings(inner)
    else:
        yield str(value)


def test_labeller_responses_reveal_no_policy_purpose_or_gold(server: Server) -> None:
    queue = server.demo.queue
    gold = replace(COMPARISON_TASK, purpose="gold", instruction="Which is the better one?")
    queue.gold.add(gold, Comparison(ITEMS[0].id, 2), "hidden", EXPLANATION)
    queue.assignments.assign(server.users["labeller"].id, gold)
    browser = server.client("labeller")
    replies = [
        send(browser, method, path) for method, path in sorted(PERMISSION_BY_ROUTE) if path != "/r/{run}/api/judgements"
    ]
    items = next_tasks(browser)
    assert gold.id in [server.stored_id(item["task"]) for item in items]
    for number, item in enumerate(items):
        replies += [browser.get(f"/r/demo/api/tasks/{item['task']}")]
        replies += [browser.post("/r/demo/api/judgements", json=judgement_of(item, f"id-{number}")) for _ in range(2)]
        replies += [browser.post("/r/demo/api/judgements", json=judgement_of(item, f"other-{number}"))]
        replies += [
            browser.post("/r/demo/api/judgements", json={**judgement_of(item, f"id-{number}"), "judgement": {}})
        ]
    replies += [
        browser.get("/r/demo/api/judgements/mine"),
        browser.get("/r/demo/api/tasks/next"),
        browser.get("/r/nowhere/label"),
    ]
    replies += [
        send(browser, method, path, headers={"accept": "text/html"}) for method, path in sorted(PERMISSION_BY_ROUTE)
    ]
    assert len(replies) > 80
    others = [server.users[role] for role in ROLES if role != "labeller"]
    never = [POLICY, "secret-policy", MODEL, "secret-model", "secret-source", "purpose", EXPLANATION, REVIEWER_COMMENT]
    never += [word for user in others for word in (user.id, user.name)]
    for reply in replies:
        assert reply.status_code < 500
        for word in never:
            assert word not in reply.text, (word, reply.request.url)
        if reply.content and reply.headers.get("content-type", "").startswith("application/json"):
            revealed = set(all_strings(reply.json()))
            assert not {"policy", "policies", "model", "purpose", "gold", "train", "evaluate", "hidden"} & revealed
            if reply.status_code == 200 and isinstance(reply.json(), dict):
                assert reply.json().get("correct") is None  # of an item outside the practice


def test_gold_items_are_not_recognisable_by_their_task_id(server: Server) -> None:
    """Hide task ids: a reader of the source could hash prompt, items and purpose into them."""
    gold = replace(COMPARISON_TASK, purpose="gold")
    server.demo.queue.gold.add(gold, Comparison(ITEMS[0].id))
    server.demo.queue.assignments.assign(server.users["labeller"].id, gold)
    for item in next_tasks(server.client("labeller")):
        prompt = Prompt.ask(html.unescape(re.sub("<[^>]*>", "", item["prompt"][0]["html"])).strip())
        view = [response["id"] for response in item["items"]]
        assert prompt.id == PROMPT.id
        for order in permutations(view):
            assert item["task"] != Task(item["kind"], prompt.id, order, "gold", item["instruction"]).id


def test_stored_task_ids_are_hidden_and_unusable(server: Server) -> None:
    """Refuse stored ids: a labeller who hashes a task of purpose `gold` could test whether it exists."""
    gold = replace(COMPARISON_TASK, purpose="gold")
    server.demo.queue.gold.add(gold, Comparison(ITEMS[0].id))
    server.demo.queue.assignments.assign(server.users["labeller"].id, gold)
    browser = server.client("labeller")
    items = next_tasks(browser)
    replies = [browser.get(f"/r/demo/api/tasks/{name}") for name in (gold.id, COMPARISON_TASK.id, RANKING_TASK.id)]
    assert [reply.status_code for reply in replies] == [404] * 3
    hold = browser.get("/r/demo/api/tasks/next", params={"count": 10, "hold": gold.id})
    assert len(hold.json()["tasks"]) == len(items)
    for name in (gold.id, COMPARISON_TASK.id):
        replies += [browser.post("/r/demo/api/skip", json={"tasks": [name]})]
        replies += [browser.post("/r/demo/api/corrections", json={"task": name, "item": ITEMS[0].id})]
        posts = [judgement_of({**items[0], "task": name}, f"id-{name}"), {**judgement_of(items[0], "x"), "task": name}]
        replies += [browser.post("/r/demo/api/judgements", json=post) for post in posts]
    assert [item["task"] for item in next_tasks(browser)] == [item["task"] for item in items]
    assert server.demo.store.counts().feedback == 1
    for number, item in enumerate(items):
        good = judgement_of(item, f"id-{number}")
        odd: list[dict[str, Any]] = [
            dict(display_order=[*good["display_order"], "more"]),
            dict(display_order=[], id="other"),
            dict(judgement={"preferred": "elsewhere"}),
            dict(judgement={"tiers": [["elsewhere"], ["too"]]}),
            dict(judgement={"approved": True}),
            dict(supersedes="elsewhere"),
            dict(),
            dict(comment="another"),
            dict(id="other"),
        ]
        replies += [browser.post("/r/demo/api/judgements", json={**good, **change}) for change in odd]
        replies += [browser.get(f"/r/demo/api/tasks/{item['task']}")]
    replies += [browser.get("/r/demo/api/judgements/mine"), hold]
    real = [task.id for task in server.demo.store.tasks()]
    for reply in replies:
        for name in real:
            sent = (reply.request.content or b"").decode() + str(reply.request.url)
            assert name in sent or name not in reply.text, (reply.request.url, reply.text)


def test_chat_error_for_a_labeller_does_not_name_the_model(server: Server) -> None:
    browser = server.client("labeller")
    reply = browser.post("/r/demo/api/chat", json={"messages": [{"role": "user", "content": "Who are you?"}]})
    assert reply.status_code == 200
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert list(lines[-1]) == ["error"]
    assert "secret-model" not in reply.text
    assert server.demo.store.counts() == (1, 3, len(TASKS), 1)  # nothing is stored


KINDS = {"comparison": 2, "ranking": 2, "rating": 1, "approval": 1, "critique": 1, "correction": 1}
TELLING = (
    "I am ChatGPT.",
    "As GPT-4o, I think",
    "Made by OpenAI.",
    "I'm Claude.",
    "secret-model-7b speaking",
    MODEL.upper(),
)


@pytest.mark.parametrize("kind", KINDS)
def test_model_names_are_redacted_in_tasks(server: Server, kind: str) -> None:
    change_setting(server.demo.store, "names", ["ChatGPT", "GPT-4", "OpenAI", "Claude"], "owner", "2026-11-20")
    pairs = [(Response(PROMPT.id, text, POLICY), Response(PROMPT.id, f"Hello. {text}", POLICY)) for text in TELLING]
    server.demo.store.add_responses(chain.from_iterable(pairs))
    for pair in pairs:
        task = Task(kind, PROMPT.id, tuple(entry.id for entry in pair[: KINDS[kind]]))
        server.demo.queue.assignments.assign(server.users["labeller"].id, task)
    revealed = json.dumps([entry for entry in next_tasks(server.client("labeller")) if entry["kind"] == kind]).lower()
    assert revealed.count('"task"') >= len(TELLING)
    for name in ("chatgpt", "gpt-4", "openai", "claude", "secret-model"):
        assert name not in revealed


def test_redaction_leaves_the_stored_response_unchanged(server: Server) -> None:
    responses = [Response(PROMPT.id, text, POLICY) for text in ("I am ChatGPT.", "I am nobody.")]
    server.demo.store.add_responses(responses)
    server.demo.queue.assignments.assign(
        server.users["labeller"].id, Task("comparison", PROMPT.id, (responses[0].id, responses[1].id))
    )
    next_tasks(server.client("labeller"))
    assert [entry.text for entry in server.demo.store.responses(ids=[responses[0].id])] == ["I am ChatGPT."]


@pytest.mark.parametrize(
    ("mended", "stored"),
    [
        (lambda text: f"{text} Really.", "ChatGPT is kinder than Claude. Really."),
        (lambda text: text.replace("kinder", "nicer"), "ChatGPT is nicer than Claude."),
        (lambda text: text, "ChatGPT is kinder than Claude."),
        (lambda text: "Nobody is kind.", "Nobody is kind."),
    ],
    ids=["added", "changed", "as it was", "anew"],
)
def test_correction_restores_redacted_names(server: Server, mended: Callable[[str], str], stored: str) -> None:
    browser = server.client("labeller")
    item = correction_of(server, "ChatGPT is kinder than Claude.")
    judgement = {"text": mended(item["items"][0]["text"])}
    assert browser.post("/r/demo/api/judgements", json=judgement_of(item, judgement=judgement)).status_code == 200
    assert [to_values(event.judgement) for event in server.demo.store.feedback(ids=["0192-first"])] == [
        {"text": stored}
    ]
    for path in ("judgements/mine", f"tasks/{item['task']}"):
        revealed = browser.get(f"/r/demo/api/{path}").text.lower()
        assert "chatgpt" not in revealed and "claude" not in revealed, path


THOUGHTS = {
    "reasoning_content": "Claude said so.\n\u05db\u05df.",
    "tool_calls": [{"function": {"name": "ask ChatGPT"}}],
}


@pytest.mark.parametrize("text", ["ChatGPT is kinder than Claude.", "Nobody\u200e is kind.\r\n"])
def test_correction_excludes_reasoning_and_tool_calls(server: Server, text: str) -> None:
    browser = server.client("labeller")
    item = correction_of(server, text, THOUGHTS)
    (view,) = item["items"]
    assert "ChatGPT" not in str(view) and "Claude" not in str(view)
    assert "&gt;" not in view["html"] and "said so" in view["html"] and "tool_calls" in view["html"]
    assert view["text"].startswith("> ⟦model 1⟧ said so.") and "> \u05db\u05df.\n\n" in view["text"]
    assert (
        browser.post("/r/demo/api/judgements", json=judgement_of(item, judgement={"text": view["raw"]})).status_code
        == 200
    )
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert to_values(event.judgement) == {"text": text}
    (own_judgement,) = browser.get("/r/demo/api/judgements/mine").json()
    assert own_judgement["judgement"] == {"text": view["raw"]}


def test_critique_quote_restores_the_right_names(server: Server) -> None:
    correction = correction_of(server, "ChatGPT is kinder than Claude.", THOUGHTS)
    server.demo.queue.assignments.assign(
        server.users["labeller"].id, Task("critique", PROMPT.id, (correction["items"][0]["id"],))
    )
    items = next_tasks(server.client("labeller"))
    item = next(entry for entry in items if entry["kind"] == "critique" and entry["items"] == correction["items"])
    quote = item["items"][0]["text"].splitlines()[3]
    judgement = {"text": "No.", "quote": quote}
    assert quote.endswith("is kinder than ⟦model 1⟧.")
    server.client("labeller").post("/r/demo/api/judgements", json=judgement_of(item, judgement=judgement))
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert to_values(event.judgement) == {"text": "No.", "quote": "ChatGPT is kinder than Claude."}


def correction_of(server: Server, text: str, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a correction task about a text, as the labeller's page has it."""
    response = Response(PROMPT.id, text, POLICY, extra=extra or {})
    change_setting(server.demo.store, "names", ["ChatGPT", "Claude", "GPT-4"], "owner", "2026-11-20")
    server.demo.store.add_responses([response])
    server.demo.queue.assignments.assign(server.users["labeller"].id, Task("correction", PROMPT.id, (response.id,)))
    return next(
        entry
        for entry in next_tasks(server.client("labeller"))
        if entry["kind"] == "correction" and entry["items"][0]["id"] == response.id
    )


def test_correction_gains_no_name_that_was_not_there(server: Server) -> None:
    item = correction_of(server, "ChatGPT is kinder than Claude.")
    remainder = item["items"][0]["text"].partition(" is kinder")[2]  # only the second name
    server.client("labeller").post(
        "/r/demo/api/judgements", json=judgement_of(item, judgement={"text": f"Be kinder{remainder}"})
    )
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert "ChatGPT" not in to_values(event.judgement)["text"]


def test_events_api_uses_pseudonyms(server: Server) -> None:
    server.workspace.accounts.change("owner", "Rita", "", role="reviewer")
    reply = server.client("admin").get("/r/demo/api/events")
    (event,) = [json.loads(line) for line in reply.text.splitlines()]
    assert event["annotator"] == server.users["reviewer"].id
    for name in NAMES.values():
        assert name not in reply.text


def test_display_order_does_not_reveal_the_purpose(server: Server) -> None:
    queue = server.demo.queue
    ann = server.users["labeller"].id
    responses = [Response(PROMPT.id, f"Number {n}.", POLICY) for n in range(40)]
    server.demo.store.add_responses(responses)
    guessed = []
    for n in range(36):
        task = Task("ranking", PROMPT.id, tuple(sorted(entry.id for entry in responses[n : n + 4])), "gold")
        likely = list(task.items)
        random.Random(f"{task.id} {ann}").shuffle(likely)  # a labeller sees only these ids
        guessed.append(queue.assignments.assign(ann, task).display_order == tuple(likely))
    assert sum(guessed) < 8  # 1.5 are expected by chance


@pytest.mark.parametrize(
    "text",
    ["Claude Monet painted water lilies.", "A llama is a camelid; llamas hum.", "Gemini follows Taurus.",
     "The copilot landed the Falcon 9b.", "I grok it.", "Phi 2 is the golden ratio squared?", "Gemma is my sister."],
)  # fmt: skip
def test_default_names_redact_no_ordinary_words(server: Server, text: str) -> None:
    assert Redactor(text, server.demo.redacted_names).text == text
    assert Redactor("I am OpenAI's secret-model-7b.", server.demo.redacted_names).text == "I am ⟦model 1⟧'s ⟦model 2⟧."


def test_settings_list_the_redacted_names(server: Server) -> None:
    form = {"guidelines": "Be kind.", "flags": "Harm", "axes": "helpful", "names": "Kimi, Moonshot\nGranite"}
    assert server.client("admin").post("/r/demo/settings", data=form).status_code == 303
    assert server.demo.redacted_names[-3:] == ("Kimi", "Moonshot", "Granite")
    assert "Kimi, Moonshot, Granite" in server.client("admin").get("/r/demo/admin").text
    (revealed,) = [turn["text"] for turn in [correction_of(server, "As Kimi, I am not Claude.")["items"][0]]]
    assert "Claude" not in revealed  # `correction_of` lists that one


def test_correction_restores_invisible_characters(server: Server) -> None:
    item = correction_of(server, "Left \u202eright\u202c, and GPT-4\u200b.")
    assert item["items"][0]["text"] == "Left ⟦U+202E⟧right⟦U+202C⟧, and ⟦model 1⟧⟦U+200B⟧."
    assert item["items"][0]["raw"] is None
    server.client("labeller").post(
        "/r/demo/api/judgements", json=judgement_of(item, judgement={"text": item["items"][0]["text"]})
    )
    (event,) = server.demo.store.feedback(ids=["0192-first"])
    assert to_values(event.judgement) == {"text": "Left \u202eright\u202c, and GPT-4\u200b."}


def test_prompt_meta_does_not_reach_labellers(server: Server) -> None:
    meta = {"reference": "secret-reference", "rubric": {"points": ["secret-rubric"]}}
    prompt = replace(Prompt.ask("Which planet has the most moons?", source="secret-source"), meta=meta)
    responses = [Response(prompt.id, text, POLICY) for text in ("Saturn.", "Jupiter.")]
    server.demo.store.add_prompts([prompt])
    server.demo.store.add_responses(responses)
    tasks = [Task(kind, prompt.id, tuple(item.id for item in responses[:count])) for kind, count in KINDS.items()]
    for task in [*tasks, Task("demonstration", prompt.id, ())]:
        server.demo.queue.assignments.assign(server.users["labeller"].id, task)
    browser = server.client("labeller")
    items = [item for item in next_tasks(browser) if "most moons" in item["prompt"][0]["text"]]
    assert len(items) == len(KINDS) + 1
    replies = [browser.get("/r/demo/api/tasks/next", params={"count": 10})]
    for number, item in enumerate(items):
        replies.append(browser.get(f"/r/demo/api/tasks/{item['task']}"))
        replies.append(browser.post("/r/demo/api/judgements", json=judgement_of(item, f"id-{number}")))
        if item["kind"] == "comparison":
            request = {"task": item["task"], "item": item["items"][0]["id"]}
            replies.append(browser.post("/r/demo/api/corrections", json=request))
    replies.append(browser.get("/r/demo/api/judgements/mine"))
    pages = ("/", "/account", "/r/demo/label", "/r/demo/guidelines", "/r/demo/chat")
    replies += [browser.get(page, headers={"accept": "text/html"}) for page in pages]
    assert [reply.status_code for reply in replies if reply.status_code not in (200, 303)] == []
    for reply in replies:
        for word in ("secret-reference", "secret-rubric", "secret-source", "meta"):
            assert word not in reply.text.replace("<meta ", "<"), (word, reply.request.url)
