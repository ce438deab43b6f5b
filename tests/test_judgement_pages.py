"""Pages and tools of reviewers and admins: judgements, review, assignments, passwords, links and tokens."""

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from fastapi.testclient import TestClient

from assent.errors import AssentError
from assent.feedback import default_question, to_values
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.rating import Rating
from assent.labelling.accounts import Accounts
from assent.labelling.judgements import (
    JudgementFilter,
    count_judgements,
    disputed_judgements,
    judgements_after,
    list_annotators,
    list_judgements,
    superseding_ids,
)
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.labelling.users import AccessDenied
from assent.records import Feedback, Judgement, Prompt, Response, Task, implied_source
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.tools.user import User as UserCommand
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Workspace

PASSWORD = "correct horse battery"
AT = "2026-11-20T10:00:00.000+00:00"


pytestmark = pytest.mark.usefixtures("quick_hashes")


class Project:
    """A served run with an owner, a reviewer and two labellers."""

    def __init__(self, folder: Path) -> None:
        with open_run(Setup(run=folder)) as run:
            run.store.close()
        self.folder = folder
        self.workspace = Workspace(folder)
        self.clock = Clock()
        self.accounts = self.workspace.accounts = Accounts(self.workspace.accounts.store, self.clock)
        self.app = make_app(self.workspace)
        owner = self.accounts.join(self.accounts.issue_setup(), "Olga", PASSWORD)
        self.users = {"Olga": owner}
        for name, role in (("Rita", "reviewer"), ("Ann", "labeller"), ("Bob", "labeller"), ("Adam", "admin")):
            self.users[name] = self.accounts.join(self.accounts.invite(owner, role)[0], name, PASSWORD)

    @property
    def store(self) -> Store:
        return self.workspace.project(self.folder.name).store

    @property
    def queue(self) -> TaskQueue:
        return self.workspace.project(self.folder.name).queue

    def browser(self, name: str = "") -> TestClient:
        client = TestClient(self.app, follow_redirects=False)
        if name:
            client.cookies.set(COOKIE, self.accounts.credentials.open_session(self.users[name]))
        return client

    def add_task(self, kind: str, prompt_text: str, *texts: str, required: int = 2) -> Task:
        prompt = Prompt.ask(prompt_text)
        items = tuple(Response(prompt.id, text, "sft") for text in texts)
        self.store.add_prompts([prompt])
        self.store.add_responses(items)
        task = Task(kind, prompt.id, tuple(item.id for item in items), "train", default_question(kind))
        self.queue.enqueue([TaskRequest(task, required)], "label")
        return task

    def submit_judgement(self, name: str, task: Task, judgement: Judgement, **fields: Any) -> Feedback:
        users = self.users[name].id
        event = Feedback(
            task.id, users, judgement, AT, 4.0, self.queue.assignments.assign(users, task).display_order, **fields
        )
        return self.queue.submit(event)

    def page(self, name: str, path: str) -> str:
        reply = self.browser(name).get(f"/r/{self.folder.name}/{path}")
        assert reply.status_code == 200, reply.text
        return reply.text


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path / "demo")
    yield project
    project.workspace.close()


def rows(page: str) -> list[str]:
    """Return the text of each row of a table's body."""
    table_rows = re.findall(r"<tr><td>.*?</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in table_rows]


# List


@pytest.fixture
def judged(project: Project) -> Project:
    tides = project.add_task("demonstration", "Explain tides.")
    rain = project.add_task("rating", "Explain rain.", "Clouds leak.")
    project.submit_judgement(
        "Ann", tides, Demonstration("A zebra pulls 100% of the sea."), flags=("harm",), comment="not sure"
    )
    project.submit_judgement("Bob", tides, Demonstration("The moon pulls the sea."))
    project.submit_judgement("Bob", rain, Rating((("true", 2),)), comment="It insults people.")
    return project


@pytest.mark.parametrize(
    ("url_query", "expected"),
    [
        ("", ["Bob rating", "Bob demonstration", "Ann demonstration"]),
        ("annotator={Ann}", ["Ann demonstration"]),
        ("kind=rating", ["Bob rating"]),
        ("flag=harm", ["Ann demonstration"]),
        ("text=ZEBRA", ["Ann demonstration"]),
        ("text=insults", ["Bob rating"]),
        ("text=explain+rain", ["Bob rating"]),
        ("text=100%25", ["Ann demonstration"]),
        ("text=1__%25", []),
        ("text=moon&annotator={Ann}", []),
        ("state=superseded", []),
    ],
)
def test_judgements_page_filters(judged: Project, url_query: str, expected: list[str]) -> None:
    page = judged.page(
        "Olga", "judgements?" + url_query.format(**{name: user.id for name, user in judged.users.items()})
    )
    assert [" ".join(row.split()[2:4]) for row in rows(page)] == expected
    assert f"{len(expected)} judgement" in page


def test_judgements_page_shows_reviewers_pseudonyms(judged: Project) -> None:
    page = judged.page("Rita", "judgements")
    assert not re.search(r"\bAnn\b", page) and judged.users["Ann"].id in page
    assert judged.browser("Ann").get("/r/demo/judgements").status_code == 403


def test_judgement_page_shows_all_fields(judged: Project) -> None:
    (row,) = list_judgements(judged.store, JudgementFilter(text="zebra"), 10)
    page = judged.page("Olga", f"judgements/{row.feedback.id}")
    for text in (
        "A zebra pulls",
        "Ann",
        "2026-11-20 10:00:00 UTC",
        "4 s",
        "harm",
        "not sure",
        "Explain tides.",
        "The moon",
    ):
        assert text in page
    assert judged.browser("Olga").get("/r/demo/judgements/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("kind", "judgement", "text"),
    [
        ("comparison", lambda items: Comparison(items[0], 3), "response 1, strength 3"),
        ("approval", lambda _: Approval(False), "disapproved"),
        ("rating", lambda _: Rating((("true", 2), ("kind", 5.5))), "kind 5.5, true 2"),
        ("critique", lambda _: Critique("It is too short.", "Clouds"), "It is too short."),
        ("correction", lambda _: Correction("Clouds rain."), "Clouds rain."),
    ],
)
def test_judgement_page_of_each_kind(project: Project, kind: str, judgement: Any, text: str) -> None:
    task = project.add_task(kind, "Explain rain.", *["Clouds leak.", "Fish."][: 2 if kind == "comparison" else 1])
    event = project.submit_judgement("Ann", task, judgement(task.items))
    assert text in project.page("Rita", "judgements")
    page = project.page("Rita", f"judgements/{event.id}")
    assert text in page and "Clouds leak." in page


def test_judgements_page_is_paged_from_the_newest(project: Project) -> None:
    tasks = [project.add_task("approval", f"Explain thing {n}.", "So.") for n in range(70)]
    for task in tasks:
        project.submit_judgement("Ann", task, Approval(True))
    first = project.page("Olga", "judgements")
    assert len(rows(first)) == 50 and "70 judgements" in first and "thing 69." in first
    (older,) = re.findall(r'href="(\?[^"]*before=[^"]*)"', first)
    second = project.page("Olga", "judgements" + older.replace("&amp;", "&"))
    assert len(rows(second)) == 20 and "Older" not in second and "thing 0." in second


def test_export_of_judgements_is_filtered(judged: Project) -> None:
    browser = judged.browser("Rita")
    reply = browser.get("/r/demo/judgements.csv?text=moon")
    (row,) = csv.DictReader(io.StringIO(reply.text))
    assert (row["prompt"], row["demonstration"], row["annotator"]) == (
        '[{"role": "user", "content": "Explain tides."}]', "The moon pulls the sea.", judged.users["Bob"].id,
    )  # fmt: skip
    lines = browser.get("/r/demo/judgements.jsonl?kind=rating").text.splitlines()
    assert [json.loads(line)["comment"] for line in lines] == ["It insults people."]
    assert 'filename="judgements.csv"' in reply.headers["content-disposition"]
    assert "Ann" not in reply.text and "Bob" not in reply.text


def test_export_refuses_to_lose_a_judgement(project: Project) -> None:
    project.submit_judgement(
        "Ann", project.add_task("approval", "Explain rain.", "So."), Approval(True), flags=("a, b",)
    )
    reply = project.browser("Rita").get("/r/demo/judgements.csv")
    assert reply.status_code == 422 and "export JSON lines" in reply.text
    assert len(project.browser("Rita").get("/r/demo/judgements.jsonl").text.splitlines()) == 1


# Sending back


def test_sent_back_judgement_stays_current_until_superseded(judged: Project) -> None:
    (row,) = list_judgements(judged.store, JudgementFilter(text="zebra"), 10)
    browser = judged.browser("Rita")
    path = f"/r/demo/judgements/{row.feedback.id}"
    assert browser.post(f"{path}/send-back", data={"remark": "A zebra?"}).status_code == 303
    assert "Sent back" in browser.get(path).text and "A zebra?" in browser.get(path).text
    assert [line.feedback.id for line in list_judgements(judged.store, JudgementFilter(state="sent back"), 10)] == [
        row.feedback.id
    ]
    (item,) = [
        entry for entry in judged.browser("Ann").get("/r/demo/api/tasks/next").json()["tasks"] if entry["previous"]
    ]
    assert item["remark"] == "A zebra?" and item["previous"]["judgement"] == {"text": "A zebra pulls 100% of the sea."}
    judgement = {
        "id": "0192-new",
        "task": item["task"],
        "judgement": {"text": "The moon."},
        "display_order": [],
        "supersedes": row.feedback.id,
    }
    assert judged.browser("Ann").post("/r/demo/api/judgements", json=judgement).status_code == 200
    assert count_judgements(judged.store, JudgementFilter(state="sent back")) == 0
    assert [line.feedback.id for line in list_judgements(judged.store, JudgementFilter(state="superseded"), 10)] == [
        row.feedback.id
    ]
    assert not any(entry["previous"] for entry in judged.browser("Ann").get("/r/demo/api/tasks/next").json()["tasks"])
    assert "send back" in judged.page("Olga", "admin")
    (entry, *_) = judged.accounts.audit_log.entries()
    details = {"person": judged.users["Ann"].id, "answer": row.feedback.id, "remark": "A zebra?"}
    assert json.loads(entry.details) == details, "the keys of version 0.1"


@pytest.mark.parametrize("id", ["rules/mine.py:1", "rules/send-back", "a b#c?d/e"])
def test_judgement_with_a_path_in_its_id_has_a_page(project: Project, id: str) -> None:
    task = project.add_task("approval", "Explain rain.", "So.")
    event = project.submit_judgement("Ann", task, Approval(True), id=id)
    page = project.page("Rita", "judgements")
    (path,) = re.findall(r'href="/r/demo/(judgements/[^"]*)"', page)
    assert f"<code>{event.id}</code>" in project.page("Rita", path)
    reply = project.browser("Rita").post(f"/r/demo/{path}/send-back", data={"remark": "Why?"})
    assert reply.status_code == 303
    assert f"<code>{event.id}</code>" in project.page("Rita", reply.headers["location"].removeprefix("/r/demo/"))


def test_sent_back_judgement_stays_current_if_skipped(judged: Project) -> None:
    (row,) = list_judgements(judged.store, JudgementFilter(text="zebra"), 10)
    ann = judged.users["Ann"].id
    judged.queue.assignments.send_back(ann, row.feedback.task, "")
    assert [assignment.task.id for assignment in judged.queue.next_tasks(ann, 1)] == [row.feedback.task]
    judged.queue.assignments.skip(ann, row.feedback.task)
    assert row.feedback.task not in [assignment.task.id for assignment in judged.queue.next_tasks(ann, 9)]
    assert judged.queue.assignments.skipped_tasks() == []


def test_gold_item_cannot_be_sent_back(project: Project) -> None:
    task = Task("approval", project.add_task("approval", "Explain rain.", "So.").prompt, (), "gold")
    displayed = project.add_task("approval", "Explain rain.", "So.")
    gold = Task("approval", task.prompt, displayed.items, "gold", displayed.instruction)
    project.queue.gold.add(gold, Approval(True))
    event = project.submit_judgement("Ann", gold, Approval(False))
    reply = project.browser("Rita").post(f"/r/demo/judgements/{event.id}/send-back")
    assert reply.status_code == 422 and "gold" in reply.text


# Review


@pytest.mark.parametrize(
    ("kind", "first", "second", "differ"),
    [
        ("rating", Rating((("true", 1),)), Rating((("true", 7),)), True),
        ("rating", Rating((("true", 4),)), Rating((("true", 5),)), False),
        ("approval", Approval(True), Approval(False), True),
        ("approval", Approval(True), Approval(True), False),
        ("demonstration", Demonstration("The moon."), Demonstration("The sun."), True),
        ("correction", Correction("Rain."), Correction("Rain."), False),
        ("critique", Critique("Short."), Critique("Wrong."), True),
    ],
)
def test_review_page_shows_disputed_tasks_of_each_kind(
    project: Project, kind: str, first: Judgement, second: Judgement, differ: bool
) -> None:
    task = project.add_task(kind, "Explain rain.", *["Clouds leak."] * (kind != "demonstration"))
    project.submit_judgement("Ann", task, first)
    project.submit_judgement("Bob", task, second)
    page = project.page("Rita", "review")
    assert ("Explain rain." in page) == differ
    if differ:
        event = next(iter(project.store.feedback()))
        reply = project.browser("Rita").post("/r/demo/decide", data={"task": task.id, "decision": event.id})
        assert reply.status_code == 303
        assert "Explain rain." not in project.page("Rita", "review")
        assert to_values(list(project.store.feedback())[-1].judgement) == to_values(event.judgement)


def test_review_page_ignores_programs_and_superseded(project: Project) -> None:
    task = project.add_task("approval", "Explain rain.", "So.")
    first = project.submit_judgement("Ann", task, Approval(False))
    project.submit_judgement("Ann", task, Approval(True), supersedes=first.id)
    project.submit_judgement("Bob", task, Approval(True))
    project.store.add_feedback([Feedback(task.id, "simulated:high_noise", Approval(False), AT, source="simulated")])
    assert "Explain rain." not in project.page("Rita", "review")


def test_review_page_is_paged(project: Project) -> None:
    for n in range(23):
        task = project.add_task("approval", f"Explain thing {n}.", "So.")
        project.submit_judgement("Ann", task, Approval(True))
        project.submit_judgement("Bob", task, Approval(False))
    assert project.page("Rita", "review").count("<article") == 20
    assert project.page("Rita", "review?after=20").count("<article") == 3


# Assignments


def test_skipped_tasks_are_listed_and_offered_again(project: Project) -> None:
    task = project.add_task("approval", "Explain rain.", "So.", required=1)
    ann = project.users["Ann"].id
    project.queue.next_tasks(ann, 1)
    project.queue.assignments.skip(ann, task.id)
    assert project.queue.next_tasks(ann, 1) == [] and project.queue.assignments.skip_counts() == {ann: 1}
    assert "Explain rain." in project.page("Rita", "skipped")
    assert project.browser("Rita").post("/r/demo/ask-again", data={"task": task.id}).status_code == 303
    assert [assignment.task.id for assignment in project.queue.next_tasks(ann, 1)] == [task.id]
    assert "Explain rain." not in project.page("Rita", "skipped")


def test_unskip_assigns_the_task_again(project: Project) -> None:
    task = project.add_task("approval", "Explain rain.", "So.", required=1)
    browser = project.browser("Ann")
    (item,) = browser.get("/r/demo/api/tasks/next").json()["tasks"]
    for path, other_browser in (("skip", 0), ("unskip", 1), ("unskip", 1)):
        assert browser.post(f"/r/demo/api/{path}", json={"tasks": [item["task"]]}).status_code == 204
        assert len(browser.get("/r/demo/api/tasks/next").json()["tasks"]) == other_browser
    assert project.queue.assignments.skipped_tasks() == [] and task.id


def test_sign_out_and_erasure_release_assignments(project: Project) -> None:
    task = project.add_task("approval", "Explain rain.", "So.", required=1)
    ann, bob = project.users["Ann"].id, project.users["Bob"].id
    browser = project.browser("Ann")
    assert len(browser.get("/r/demo/api/tasks/next").json()["tasks"]) == 1
    waiting = project.browser("Bob").get("/r/demo/api/tasks/next").json()
    assert waiting["tasks"] == [] and waiting["others_working"]
    browser.post("/logout")
    assert [assignment.task.id for assignment in project.queue.next_tasks(bob, 1)] == [task.id]
    with open_run(Setup(run=project.folder)) as run:
        UserCommand(erase="Bob")(run, "user")
        run.store.close()
    assert [assignment.task.id for assignment in project.queue.next_tasks(ann, 1)] == [task.id]


# Passwords


def sign_in(project: Project, name: str, password: str) -> int:
    return project.browser().post("/login", data={"name": name, "password": password}).status_code


def test_password_change_ends_other_sessions(project: Project) -> None:
    browser, other_browser = project.browser(), project.browser("Ann")
    browser.post("/login", data={"name": "Ann", "password": PASSWORD})
    wrong = browser.post("/account/password", data={"old": "not this one", "new": "another password"})
    assert wrong.status_code == 422 and "not your password" in wrong.text
    short = browser.post("/account/password", data={"old": PASSWORD, "new": "short"})
    assert short.status_code == 422 and "at least 8" in short.text
    assert browser.post("/account/password", data={"old": PASSWORD, "new": "another password"}).status_code == 303
    assert (sign_in(project, "Ann", PASSWORD), sign_in(project, "Ann", "another password")) == (403, 303)
    assert browser.get("/api/me").status_code == 200 and other_browser.get("/api/me").status_code == 401


def test_reset_link_works_once(project: Project) -> None:
    page = project.browser("Adam").post("/r/demo/reset", data={"id": project.users["Ann"].id}).text
    (path,) = re.findall(r"<code>http://testserver(/reset/[^<]+)</code>", page)
    before = project.browser("Ann")
    token = project.accounts.credentials.issue_token(project.users["Ann"], "")
    browser = project.browser()
    assert "Ann" in browser.get(path).text
    assert browser.post(path, data={"password": "short"}).status_code == 422
    assert browser.post(path, data={"password": "a new password"}).status_code == 303
    assert browser.get("/api/me").json()["name"] == "Ann"
    assert (
        before.get("/api/me").status_code == 401 and project.accounts.credentials.authenticate(token, "token") is None
    )
    assert (sign_in(project, "Ann", PASSWORD), sign_in(project, "Ann", "a new password")) == (403, 303)
    assert project.browser().get(path).status_code == 403
    assert "reset link" in project.page("Olga", "admin") and "reset password" in project.page("Olga", "admin")


def test_reset_link_expires_or_is_replaced(project: Project) -> None:
    first = project.accounts.issue_reset("Olga", "Ann")
    second = project.accounts.issue_reset("Olga", "Ann")
    with pytest.raises(AccessDenied, match="is unknown"):
        project.accounts.user_of_reset(first)
    project.clock.now += 2 * 86400 + 1
    with pytest.raises(AccessDenied, match="has expired"):
        project.accounts.reset_password(second, "a new password")


def test_reset_link_of_an_owner_needs_an_owner(project: Project) -> None:
    assert project.browser("Adam").post("/r/demo/reset", data={"id": "Olga"}).status_code == 403
    assert project.browser("Olga").post("/r/demo/reset", data={"id": "Olga"}).status_code == 200


def test_user_command_prints_a_reset_link(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.clock.now = time.time()  # the command's own
    with open_run(Setup(run=project.folder)) as run:
        UserCommand(reset="Ann")(run, "user")
        with pytest.raises(AssentError, match="no user 'Anne'; did you mean 'Ann'"):
            UserCommand(reset="Anne")(run, "user")
        run.store.close()
    (path,) = re.findall(r"http\S+(/reset/\S+)", capsys.readouterr().out)
    assert project.browser().post(path, data={"password": "a new password"}).status_code == 303


# Links and tokens


def test_open_invites_are_listed_and_withdrawn(project: Project) -> None:
    secrets = project.accounts.invite(project.users["Olga"], "labeller", ["w-17", ""], "the wrong list")
    page = project.page("Olga", "admin")
    assert "Open links" in page and "w-17" in page and page.count("the wrong list") >= 2
    credentials = project.accounts.credentials.active()
    assert [(credential.kind, credential.external_id, credential.comment) for credential in credentials] == [
        ("invite", "", "the wrong list"),
        ("invite", "w-17", "the wrong list"),
    ]
    project.browser("Adam").post("/r/demo/withdraw", data={"key": [credential.seq for credential in credentials]})
    assert project.accounts.credentials.active() == []
    assert [project.browser().get(f"/join/{secret}").status_code for secret in secrets] == [403, 403]
    assert "withdraw invite" in project.page("Olga", "admin")


def test_used_and_expired_invites_are_not_listed(project: Project) -> None:
    used, _ = project.accounts.invite(project.users["Olga"], "labeller", ["", ""])
    project.accounts.join(used, "Cleo", PASSWORD)
    assert len(project.accounts.credentials.active()) == 1
    project.clock.now += 15 * 86400
    assert project.accounts.credentials.active() == []


def test_token_is_listed_with_last_use_and_revoked(project: Project) -> None:
    token = project.accounts.credentials.issue_token(project.users["Adam"], "notebook")
    simulated = TestClient(project.app, headers={"authorization": f"Bearer {token}"})
    (credential,) = project.accounts.credentials.active()
    assert (credential.kind, credential.comment, credential.used_at) == ("token", "notebook", "")
    assert simulated.get("/r/demo/api/events").status_code == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", project.accounts.credentials.active()[0].used_at)
    assert "notebook" in project.page("Olga", "admin") and "Revoke" in project.page("Olga", "admin")
    project.browser("Olga").post("/r/demo/withdraw", data={"key": credential.seq})
    assert simulated.get("/r/demo/api/events").status_code == 401


def test_user_can_revoke_only_own_tokens(project: Project) -> None:
    own_token = project.accounts.credentials.issue_token(project.users["Ann"], "mine")
    project.accounts.credentials.issue_token(project.users["Adam"], "his")
    others_key, own_key = project.accounts.credentials.active()
    browser = project.browser("Ann")
    assert "mine" in browser.get("/account").text and "his" not in browser.get("/account").text.split("Tokens")[1]
    for credential in (others_key.seq, own_key.seq):
        browser.post("/account/withdraw", data={"key": credential})
    assert (
        project.accounts.credentials.active() == [others_key]
        and project.accounts.credentials.authenticate(own_token, "token") is None
    )


# Names


@pytest.mark.parametrize(
    "name", ["نرم\u200cافزار", "\U0001f469\u200d\U0001f52c Eve", "Zoë Ångström", "李小龍", "ОЛЬГА", "Anna-Мария"]
)
def test_user_names_of_every_script_are_accepted(project: Project, name: str) -> None:
    secret = project.accounts.invite(project.users["Olga"], "labeller")[0]
    assert project.accounts.join(secret, name, PASSWORD).name == name


@pytest.mark.parametrize("name", ["ОLGA", "Olgа", "Αnna", "a\u200cb", "a\u200db", "\u202eagloO", "O\u00adlga"])
def test_confusable_user_name_is_refused(project: Project, name: str) -> None:
    with pytest.raises(AssentError):
        project.accounts.join(project.accounts.invite(project.users["Olga"], "labeller")[0], name, PASSWORD)


# API


def test_events_api_is_paged_by_cursor(judged: Project) -> None:
    browser = judged.browser("Rita")
    first = [json.loads(line)["id"] for line in browser.get("/r/demo/api/events?count=2").text.splitlines()]
    later_ids = [
        json.loads(line)["id"] for line in browser.get(f"/r/demo/api/events?after={first[-1]}").text.splitlines()
    ]
    assert [*first, *later_ids] == [event.id for event in judged.store.feedback()]
    assert [event.id for event in judgements_after(judged.store, first[0], 1)] == [first[1]]
    refused = browser.get("/r/demo/api/events?after=no-such-event")
    assert refused.status_code == 404 and "no judgement 'no-such-event'" in refused.json()["detail"]


def test_chat_accepts_an_empty_assistant_message(project: Project) -> None:
    messages = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "And?"},
    ]
    reply = project.browser("Ann").post("/r/demo/api/chat", json={"messages": messages})
    assert reply.status_code == 200  # the stream reports that the run has no model
    messages[0]["content"] = ""
    assert project.browser("Ann").post("/r/demo/api/chat", json={"messages": messages}).status_code == 422


# In either database


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def test_judgement_filter_in_either_database(store: Store) -> None:
    prompt = Prompt.ask('Say "50%_off" in Übersee.')
    response = Response(prompt.id, "So.", "sft")
    store.add_prompts([prompt])
    store.add_responses([response])
    tasks = [Task(kind, prompt.id, (response.id,)) for kind in ("approval", "critique")]
    store.add_tasks(tasks)
    first = Feedback(tasks[0].id, "ann", Approval(True), AT, flags=("harm", "a, b"), comment="A \\ and 100%.", id="1")
    later = Feedback(tasks[0].id, "ann", Approval(False), AT, supersedes="1", id="2")
    text = Feedback(tasks[1].id, "bob", Critique('It says "zebra"\nagain.'), AT, id="3")
    simulated = Feedback(tasks[1].id, "simulated:high_noise", Critique("Nothing."), AT, id="4", source="simulated")
    store.add_feedback([first, later, text, simulated])

    def ids(**fields: Any) -> list[str]:
        rows = list_judgements(store, JudgementFilter(**fields), 10)
        assert count_judgements(store, JudgementFilter(**fields)) == len(rows)
        return [row.feedback.id for row in rows]

    assert ids() == ["4", "3", "2"] and ids(state="") == ["4", "3", "2", "1"] and ids(state="superseded") == ["1"]
    assert ids(flag="harm", state="") == ids(flag="a, b", state="") == ["1"] and ids(flag="har", state="") == []
    assert ids(text='"ZEBRA"\nagain') == ["3"] and ids(text="100%.", state="") == ids(text="a \\", state="") == ["1"]
    assert ids(text='"50%_off"', state="") == ["4", "3", "2", "1"] and ids(text="5__") == []
    assert ids(annotator="bob") == ["3"] and ids(kind="approval") == ["2"] and ids(state="sent back") == []
    assert [row.feedback.id for row in list_judgements(store, JudgementFilter(state=""), 2, before=4)] == ["3", "2"]
    assert list_annotators(store) == ["ann", "bob", "simulated:high_noise"] and superseding_ids(store, ["1", "2"]) == {
        "1": "2"
    }


def test_disputed_judgements_are_by_two_humans(store: Store) -> None:
    prompt = Prompt.ask("Why?")
    items = tuple(Response(prompt.id, text, "sft") for text in "abc")
    store.add_prompts([prompt])
    store.add_responses(items)
    disputed, decided, single, simulated, gold = tasks = [
        Task("approval", prompt.id, (items[0].id,), "train", str(n)) for n in range(4)
    ] + [Task("approval", prompt.id, (items[0].id,), "gold")]
    store.add_tasks(tasks)
    for task in (disputed, decided, gold):
        store.add_feedback(
            [Feedback(task.id, annotator, Approval(annotator == "ann"), AT) for annotator in ("ann", "bob")]
        )
    store.add_feedback([Feedback(decided.id, "rita", Approval(True), AT, flags=("decided",))])
    store.add_feedback(
        [Feedback(single.id, "ann", Approval(True), AT, id="x"), Feedback(single.id, "ann", Approval(False), AT)]
    )
    store.add_feedback(
        [
            Feedback(simulated.id, annotator, Approval(True), AT, source=implied_source(annotator))
            for annotator in ("ann", "ai:judge")
        ]
    )
    (events,) = disputed_judgements(store, "decided")
    assert [(event.task, event.annotator) for event in events] == [(disputed.id, "ann"), (disputed.id, "bob")]


def test_assignment_states_in_either_database(store: Store) -> None:
    prompt = Prompt.ask("Why?")
    store.add_prompts([prompt])
    task = Task("demonstration", prompt.id, ())
    queue = TaskQueue(store)
    queue.enqueue([TaskRequest(task)], "label")
    assert queue.next_tasks("ann", 1) and not queue.next_tasks("bob", 1) and queue.is_waiting_for_others("bob")
    queue.assignments.release("ann")
    assert queue.next_tasks("bob", 1)
    queue.assignments.skip("bob", task.id)
    assert [(row.task_id, row.skip_count) for row in queue.assignments.skipped_tasks()] == [
        (task.id, 1)
    ] and queue.assignments.skip_counts() == {"bob": 1}
    queue.assignments.unskip("bob", task.id)
    queue.submit(Feedback(task.id, "bob", Demonstration("So."), AT))
    queue.assignments.send_back("bob", task.id, "Why so?")
    assert (
        queue.assignments.review_remarks("bob", [task.id]) == {task.id: "Why so?"}
        and queue.assignments.review_remarks("ann", [task.id]) == {}
    )
    with pytest.raises(AssentError, match="was not judged on the label page"):
        queue.assignments.send_back("carl", task.id, "")


# Restrictions of the pages


def test_decision_refuses_a_written_gold_item(project: Project) -> None:
    task = project.add_task("critique", "Explain rain.", "Clouds leak.")
    events = [project.submit_judgement(name, task, Critique(f"{name} says no.")) for name in ("Ann", "Bob")]
    assert "hidden among others" not in project.page("Rita", "review")
    form = {"task": task.id, "decision": events[0].id, "use": "hidden"}
    assert project.browser("Rita").post("/r/demo/decide", data=form).status_code == 422
    assert project.store.counts().feedback == 2 and "Explain rain." in project.page("Rita", "review")


def test_admin_cannot_withdraw_credentials_of_owners(project: Project) -> None:
    olga = project.users["Olga"]
    project.accounts.credentials.issue_token(olga, "hers")
    project.accounts.invite(olga, "owner")
    project.accounts.issue_reset("Olga", "Olga")
    credentials = [credential.seq for credential in project.accounts.credentials.active()]
    assert len(credentials) == 3 and project.accounts.credentials.withdraw(project.users["Adam"], credentials) == 0
    assert project.accounts.credentials.withdraw(olga, credentials) == 3


def test_reset_link_ends_with_password_or_role_change(project: Project) -> None:
    accounts = project.accounts
    first = accounts.issue_reset("Adam", "Ann")
    accounts.change_password(project.users["Ann"], PASSWORD, "another password")
    second = accounts.issue_reset("Adam", "Bob")
    accounts.change("Olga", "Bob", role="owner")
    for secret in (first, second):
        with pytest.raises(AccessDenied, match="is unknown"):
            accounts.user_of_reset(secret)


def test_account_page_lists_tokens_only(project: Project) -> None:
    project.accounts.issue_reset("Olga", "Ann")
    assert "Tokens" not in project.browser("Ann").get("/account").text


def test_judgement_page_works_without_a_deleted_item(project: Project) -> None:
    task = project.add_task("approval", "Explain rain.", "So.")
    project.store.add_feedback([Feedback(task.id, "ann", Approval(True), AT, display_order=("nowhere",), id="x")])
    assert "Explain rain." in project.page("Rita", "judgements/x")
    reply = project.browser("Rita").get("/r/demo/judgements.csv")
    assert reply.status_code == 422 and "export JSON lines" in reply.text


def test_reviewer_can_supersede_a_decision_when_labelling(project: Project) -> None:
    task = project.add_task("approval", "Explain rain.", "So.")
    project.submit_judgement("Ann", task, Approval(True))
    bob = project.submit_judgement("Bob", task, Approval(False))
    browser = project.browser("Rita")
    browser.post("/r/demo/decide", data={"task": task.id, "decision": bob.id})
    (own_token,) = browser.get("/r/demo/api/judgements/mine").json()
    assert own_token["flags"] == []
    judgement = {
        "id": "0192-x",
        "task": own_token["task"],
        "judgement": {"approved": True},
        "display_order": own_token["display_order"],
    }
    reply = browser.post(
        "/r/demo/api/judgements", json={**judgement, "flags": own_token["flags"], "supersedes": own_token["id"]}
    )
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("path", ["judgements?before=1" + "0" * 23, "review?after=1" + "0" * 23, "judgements?text=%00"])
def test_out_of_range_page_numbers_are_no_server_error(project: Project, path: str) -> None:
    assert project.browser("Rita").get(f"/r/demo/{path}").status_code in (200, 422)


def test_judgement_of_a_paused_user_cannot_be_sent_back(project: Project) -> None:
    event = project.submit_judgement("Ann", project.add_task("approval", "Explain rain.", "So."), Approval(True))
    project.accounts.change("Olga", "Ann", state="paused")
    reply = project.browser("Rita").post(f"/r/demo/judgements/{event.id}/send-back")
    assert reply.status_code == 422 and "paused" in reply.text


def test_text_filter_searches_values_not_field_names(store: Store) -> None:
    prompt = Prompt.ask("Wo liegt Übersee?")
    response = Response(prompt.id, "So.", "sft")
    store.add_prompts([prompt])
    store.add_responses([response])
    task = Task("critique", prompt.id, (response.id,))
    store.add_tasks([task])
    store.add_feedback([Feedback(task.id, "ann", Critique("Zu kurz, ÄRGERLICH.", "So"), AT)])
    hits = {
        text: count_judgements(store, JudgementFilter(text=text))
        for text in ("übersee", "ärgerlich", "so", "quote", "role", "user")
    }
    assert hits == {"übersee": 1, "ärgerlich": 1, "so": 1, "quote": 0, "role": 0, "user": 0}
