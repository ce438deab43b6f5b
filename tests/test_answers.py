"""The page of answers, review, send-back, accounts, links and tokens: what those who run a project see and do."""

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
from assent.feedback import asks, body
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.rating import Rating
from assent.labelling.accounts import Denied, People
from assent.labelling.judgements import Filter, annotators, answers, arrived_after, number, opinions, superseding
from assent.labelling.queue import Ask, TaskQueue
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.tools.user import User as PersonCommand
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.workspace import Office

PASSWORD = "correct horse battery"
AT = "2026-11-20T10:00:00.000+00:00"


pytestmark = pytest.mark.usefixtures("quick_hashes")


class Project:
    """A served run with an owner, a reviewer and two labellers."""

    def __init__(self, folder: Path) -> None:
        with open_run(Setup(run=folder)) as run:
            run.store.close()
        self.folder = folder
        self.office = Office(folder)
        self.clock = Clock()
        self.people = self.office.people = People(self.office.people.store, self.clock)
        self.app = make_app(self.office)
        owner = self.people.join(self.people.setup(), "Olga", PASSWORD)
        self.person = {"Olga": owner}
        for name, role in (("Rita", "reviewer"), ("Ann", "labeller"), ("Bob", "labeller"), ("Adam", "admin")):
            self.person[name] = self.people.join(self.people.invite(owner, role)[0], name, PASSWORD)

    @property
    def store(self) -> Store:
        return self.office.project(self.folder.name).store

    @property
    def desk(self) -> TaskQueue:
        return self.office.project(self.folder.name).desk

    def browser(self, name: str = "") -> TestClient:
        client = TestClient(self.app, follow_redirects=False)
        if name:
            client.cookies.set(COOKIE, self.people.open_session(self.person[name]))
        return client

    def ask(self, kind: str, question: str, *texts: str, wanted: int = 2) -> Task:
        prompt = Prompt.ask(question)
        items = tuple(Response(prompt.id, text, "sft") for text in texts)
        self.store.add_prompts([prompt])
        self.store.add_responses(items)
        query = Task(kind, prompt.id, tuple(item.id for item in items), "train", asks(kind))
        self.desk.post([Ask(query, wanted)], "label")
        return query

    def say(self, name: str, query: Task, answer: Judgement, **more: Any) -> Feedback:
        person = self.person[name].id
        event = Feedback(query.id, person, answer, AT, 4.0, self.desk.lend(person, query).shown, **more)
        return self.desk.answer(event)

    def page(self, name: str, path: str) -> str:
        reply = self.browser(name).get(f"/r/{self.folder.name}/{path}")
        assert reply.status_code == 200, reply.text
        return reply.text


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "demo")
    yield made
    made.office.close()


def rows(page: str) -> list[str]:
    """The words of each row of a table's body."""
    found = re.findall(r"<tr><td>.*?</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in found]


# The list


@pytest.fixture
def answered(project: Project) -> Project:
    tides = project.ask("demonstration", "Explain tides.")
    rain = project.ask("rating", "Explain rain.", "Clouds leak.")
    project.say("Ann", tides, Demonstration("A zebra pulls 100% of the sea."), flags=("harm",), note="not sure")
    project.say("Bob", tides, Demonstration("The moon pulls the sea."))
    project.say("Bob", rain, Rating((("true", 2),)), note="It insults people.")
    return project


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["Bob rating", "Bob demonstration", "Ann demonstration"]),
        ("who={Ann}", ["Ann demonstration"]),
        ("kind=rating", ["Bob rating"]),
        ("flag=harm", ["Ann demonstration"]),
        ("words=ZEBRA", ["Ann demonstration"]),
        ("words=insults", ["Bob rating"]),
        ("words=explain+rain", ["Bob rating"]),
        ("words=100%25", ["Ann demonstration"]),
        ("words=1__%25", []),
        ("words=moon&who={Ann}", []),
        ("state=superseded", []),
    ],
)
def test_answers_are_filtered_by_person_kind_flag_and_text(answered: Project, query: str, expected: list[str]) -> None:
    page = answered.page("Olga", "answers?" + query.format(**{name: it.id for name, it in answered.person.items()}))
    assert [" ".join(row.split()[2:4]) for row in rows(page)] == expected
    assert f"{len(expected)} answer" in page


def test_a_reviewer_sees_pseudonyms_and_a_labeller_nothing(answered: Project) -> None:
    page = answered.page("Rita", "answers")
    assert "Ann" not in page and answered.person["Ann"].id in page
    assert answered.browser("Ann").get("/r/demo/answers").status_code == 403


def test_one_answer_shows_who_when_how_long_flags_and_note(answered: Project) -> None:
    (row,) = answers(answered.store, Filter(words="zebra"), 10)
    page = answered.page("Olga", f"answers/{row.feedback.id}")
    for words in (
        "A zebra pulls",
        "Ann",
        "2026-11-20 10:00:00 UTC",
        "4 s",
        "harm",
        "not sure",
        "Explain tides.",
        "The moon",
    ):
        assert words in page
    assert answered.browser("Olga").get("/r/demo/answers/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        ("comparison", lambda items: Comparison(items[0], 3), "answer 1, strength 3"),
        ("approval", lambda _: Approval(False), "disapproved"),
        ("rating", lambda _: Rating((("true", 2), ("kind", 5.5))), "kind 5.5, true 2"),
        ("critique", lambda _: Critique("It is too short.", "Clouds"), "It is too short."),
        ("correction", lambda _: Correction("Clouds rain."), "Clouds rain."),
    ],
)
def test_every_kind_of_answer_has_its_words_and_its_page(project: Project, kind: str, answer: Any, words: str) -> None:
    query = project.ask(kind, "Explain rain.", *["Clouds leak.", "Fish."][: 2 if kind == "comparison" else 1])
    event = project.say("Ann", query, answer(query.items))
    assert words in project.page("Rita", "answers")
    page = project.page("Rita", f"answers/{event.id}")
    assert words in page and "Clouds leak." in page


def test_answers_are_paged_from_the_newest(project: Project) -> None:
    queries = [project.ask("approval", f"Explain thing {n}.", "So.") for n in range(70)]
    for query in queries:
        project.say("Ann", query, Approval(True))
    first = project.page("Olga", "answers")
    assert len(rows(first)) == 50 and "70 answers" in first and "thing 69." in first
    (older,) = re.findall(r'href="(\?[^"]*before=[^"]*)"', first)
    second = project.page("Olga", "answers" + older.replace("&amp;", "&"))
    assert len(rows(second)) == 20 and "Older" not in second and "thing 0." in second


def test_what_is_filtered_is_exported_and_nothing_else(answered: Project) -> None:
    browser = answered.browser("Rita")
    reply = browser.get("/r/demo/answers.csv?words=moon")
    (row,) = csv.DictReader(io.StringIO(reply.text))
    assert (row["prompt"], row["demonstration"], row["annotator"]) == (
        '[{"role": "user", "content": "Explain tides."}]', "The moon pulls the sea.", answered.person["Bob"].id,
    )  # fmt: skip
    lines = browser.get("/r/demo/answers.jsonl?kind=rating").text.splitlines()
    assert [json.loads(line)["note"] for line in lines] == ["It insults people."]
    assert 'filename="answers.csv"' in reply.headers["content-disposition"]
    assert "Ann" not in reply.text and "Bob" not in reply.text


def test_an_export_that_would_lose_an_answer_is_refused(project: Project) -> None:
    project.say("Ann", project.ask("approval", "Explain rain.", "So."), Approval(True), flags=("a, b",))
    reply = project.browser("Rita").get("/r/demo/answers.csv")
    assert reply.status_code == 422 and "take JSON lines" in reply.text
    assert len(project.browser("Rita").get("/r/demo/answers.jsonl").text.splitlines()) == 1


# Sending back


def test_an_answer_that_is_sent_back_stands_until_another_replaces_it(answered: Project) -> None:
    (row,) = answers(answered.store, Filter(words="zebra"), 10)
    browser = answered.browser("Rita")
    path = f"/r/demo/answers/{row.feedback.id}"
    assert browser.post(f"{path}/back", data={"remark": "A zebra?"}).status_code == 303
    assert "Sent back" in browser.get(path).text and "A zebra?" in browser.get(path).text
    assert [line.feedback.id for line in answers(answered.store, Filter(state="sent back"), 10)] == [row.feedback.id]
    (item,) = [each for each in answered.browser("Ann").get("/r/demo/api/next").json()["items"] if each["before"]]
    assert item["remark"] == "A zebra?" and item["before"]["answer"] == {"text": "A zebra pulls 100% of the sea."}
    given = {
        "id": "0192-new",
        "query": item["query"],
        "answer": {"text": "The moon."},
        "shown": [],
        "supersedes": row.feedback.id,
    }
    assert answered.browser("Ann").post("/r/demo/api/feedback", json=given).status_code == 200
    assert number(answered.store, Filter(state="sent back")) == 0
    assert [line.feedback.id for line in answers(answered.store, Filter(state="superseded"), 10)] == [row.feedback.id]
    assert not any(each["before"] for each in answered.browser("Ann").get("/r/demo/api/next").json()["items"])
    assert "send back" in answered.page("Olga", "admin")


def test_what_was_sent_back_and_is_skipped_stands(answered: Project) -> None:
    (row,) = answers(answered.store, Filter(words="zebra"), 10)
    ann = answered.person["Ann"].id
    answered.desk.send_back(ann, row.feedback.task, "")
    assert [lent.query.id for lent in answered.desk.take(ann, 1)] == [row.feedback.task]
    answered.desk.skip(ann, row.feedback.task)
    assert row.feedback.task not in [lent.query.id for lent in answered.desk.take(ann, 9)]
    assert answered.desk.skips() == []


def test_a_gold_item_is_not_sent_back(project: Project) -> None:
    query = Task("approval", project.ask("approval", "Explain rain.", "So.").prompt, (), "gold")
    shown = project.ask("approval", "Explain rain.", "So.")
    gold = Task("approval", query.prompt, shown.items, "gold", shown.instruction)
    project.desk.add_gold(gold, Approval(True))
    event = project.say("Ann", gold, Approval(False))
    reply = project.browser("Rita").post(f"/r/demo/answers/{event.id}/back")
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
def test_review_shows_where_two_people_differ_whatever_the_kind(
    project: Project, kind: str, first: Judgement, second: Judgement, differ: bool
) -> None:
    query = project.ask(kind, "Explain rain.", *["Clouds leak."] * (kind != "demonstration"))
    project.say("Ann", query, first)
    project.say("Bob", query, second)
    page = project.page("Rita", "review")
    assert ("Explain rain." in page) == differ
    if differ:
        event = next(iter(project.store.feedback()))
        reply = project.browser("Rita").post("/r/demo/decide", data={"query": query.id, "right": event.id})
        assert reply.status_code == 303
        assert "Explain rain." not in project.page("Rita", "review")
        assert body(list(project.store.feedback())[-1].judgement) == body(event.judgement)


def test_programs_and_replaced_answers_are_no_opinions(project: Project) -> None:
    query = project.ask("approval", "Explain rain.", "So.")
    first = project.say("Ann", query, Approval(False))
    project.say("Ann", query, Approval(True), supersedes=first.id)
    project.say("Bob", query, Approval(True))
    project.store.add_feedback([Feedback(query.id, "simulated:hasty", Approval(False), AT)])
    assert "Explain rain." not in project.page("Rita", "review")


def test_review_goes_on_beyond_its_first_page(project: Project) -> None:
    for n in range(23):
        query = project.ask("approval", f"Explain thing {n}.", "So.")
        project.say("Ann", query, Approval(True))
        project.say("Bob", query, Approval(False))
    assert project.page("Rita", "review").count("<article") == 20
    assert project.page("Rita", "review?after=20").count("<article") == 3


# Skips and leases


def test_what_people_skip_is_counted_listed_and_asked_again(project: Project) -> None:
    query = project.ask("approval", "Explain rain.", "So.", wanted=1)
    ann = project.person["Ann"].id
    project.desk.take(ann, 1)
    project.desk.skip(ann, query.id)
    assert project.desk.take(ann, 1) == [] and project.desk.skips_of() == {ann: 1}
    assert "Explain rain." in project.page("Rita", "skipped")
    assert project.browser("Rita").post("/r/demo/ask-again", data={"query": query.id}).status_code == 303
    assert [lent.query.id for lent in project.desk.take(ann, 1)] == [query.id]
    assert "Explain rain." not in project.page("Rita", "skipped")


def test_a_skip_that_is_undone_brings_the_item_back(project: Project) -> None:
    query = project.ask("approval", "Explain rain.", "So.", wanted=1)
    browser = project.browser("Ann")
    (item,) = browser.get("/r/demo/api/next").json()["items"]
    for path, there in (("skip", 0), ("unskip", 1), ("unskip", 1)):
        assert browser.post(f"/r/demo/api/{path}", json={"queries": [item["query"]]}).status_code == 204
        assert len(browser.get("/r/demo/api/next").json()["items"]) == there
    assert project.desk.skips() == [] and query.id


def test_who_signs_out_or_is_erased_gives_back_what_lies_with_them(project: Project) -> None:
    query = project.ask("approval", "Explain rain.", "So.", wanted=1)
    ann, bob = project.person["Ann"].id, project.person["Bob"].id
    browser = project.browser("Ann")
    assert len(browser.get("/r/demo/api/next").json()["items"]) == 1
    waiting = project.browser("Bob").get("/r/demo/api/next").json()
    assert waiting["items"] == [] and waiting["others"]
    browser.post("/logout")
    assert [lent.query.id for lent in project.desk.take(bob, 1)] == [query.id]
    with open_run(Setup(run=project.folder)) as run:
        PersonCommand(erase="Bob")(run, "person")
        run.store.close()
    assert [lent.query.id for lent in project.desk.take(ann, 1)] == [query.id]


# Passwords


def sign_in(project: Project, name: str, password: str) -> int:
    return project.browser().post("/login", data={"name": name, "password": password}).status_code


def test_somebody_changes_their_own_password_and_other_sessions_end(project: Project) -> None:
    here, there = project.browser(), project.browser("Ann")
    here.post("/login", data={"name": "Ann", "password": PASSWORD})
    wrong = here.post("/account/password", data={"old": "not this one", "new": "another password"})
    assert wrong.status_code == 422 and "not your password" in wrong.text
    short = here.post("/account/password", data={"old": PASSWORD, "new": "short"})
    assert short.status_code == 422 and "at least 8" in short.text
    assert here.post("/account/password", data={"old": PASSWORD, "new": "another password"}).status_code == 303
    assert (sign_in(project, "Ann", PASSWORD), sign_in(project, "Ann", "another password")) == (403, 303)
    assert here.get("/api/me").status_code == 200 and there.get("/api/me").status_code == 401


def test_an_admin_lets_somebody_choose_a_new_password_by_a_link_that_works_once(project: Project) -> None:
    page = project.browser("Adam").post("/r/demo/reset", data={"id": project.person["Ann"].id}).text
    (path,) = re.findall(r"<code>http://testserver(/reset/[^<]+)</code>", page)
    before, token = project.browser("Ann"), project.people.issue_token(project.person["Ann"], "")
    browser = project.browser()
    assert "Ann" in browser.get(path).text
    assert browser.post(path, data={"password": "short"}).status_code == 422
    assert browser.post(path, data={"password": "a new password"}).status_code == 303
    assert browser.get("/api/me").json()["name"] == "Ann"
    assert before.get("/api/me").status_code == 401 and project.people.who(token, "token") is None
    assert (sign_in(project, "Ann", PASSWORD), sign_in(project, "Ann", "a new password")) == (403, 303)
    assert project.browser().get(path).status_code == 403
    assert "reset link" in project.page("Olga", "admin") and "reset password" in project.page("Olga", "admin")


def test_a_reset_link_ends_after_two_days_and_when_another_one_is_made(project: Project) -> None:
    first = project.people.invite_reset("Olga", "Ann")
    second = project.people.invite_reset("Olga", "Ann")
    with pytest.raises(Denied, match="not known"):
        project.people.resetting(first)
    project.clock.now += 2 * 86400 + 1
    with pytest.raises(Denied, match="too old"):
        project.people.reset_password(second, "a new password")


def test_only_an_owner_lets_an_owner_choose_a_new_password(project: Project) -> None:
    assert project.browser("Adam").post("/r/demo/reset", data={"id": "Olga"}).status_code == 403
    assert project.browser("Olga").post("/r/demo/reset", data={"id": "Olga"}).status_code == 200


def test_a_command_prints_a_reset_link(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.clock.now = time.time()  # the command's own
    with open_run(Setup(run=project.folder)) as run:
        PersonCommand(reset="Ann")(run, "person")
        with pytest.raises(AssentError, match="nobody here is called 'Anne'; did you mean 'Ann'"):
            PersonCommand(reset="Anne")(run, "person")
        run.store.close()
    (path,) = re.findall(r"http\S+(/reset/\S+)", capsys.readouterr().out)
    assert project.browser().post(path, data={"password": "a new password"}).status_code == 303


# Links and tokens


def test_open_links_are_listed_and_withdrawn(project: Project) -> None:
    secrets = project.people.invite(project.person["Olga"], "labeller", ["w-17", ""], "the wrong list")
    page = project.page("Olga", "admin")
    assert "Open links" in page and "w-17" in page and page.count("the wrong list") >= 2
    keys = project.people.credentials()
    assert [(key.kind, key.external, key.note) for key in keys] == [
        ("invite", "", "the wrong list"),
        ("invite", "w-17", "the wrong list"),
    ]
    project.browser("Adam").post("/r/demo/withdraw", data={"key": [key.seq for key in keys]})
    assert project.people.credentials() == []
    assert [project.browser().get(f"/join/{secret}").status_code for secret in secrets] == [403, 403]
    assert "withdraw invite" in project.page("Olga", "admin")


def test_a_used_or_expired_link_is_listed_no_more(project: Project) -> None:
    used, _ = project.people.invite(project.person["Olga"], "labeller", ["", ""])
    project.people.join(used, "Cleo", PASSWORD)
    assert len(project.people.credentials()) == 1
    project.clock.now += 15 * 86400
    assert project.people.credentials() == []


def test_a_leaked_token_is_listed_with_its_last_use_and_revoked(project: Project) -> None:
    token = project.people.issue_token(project.person["Adam"], "notebook")
    program = TestClient(project.app, headers={"authorization": f"Bearer {token}"})
    (key,) = project.people.credentials()
    assert (key.kind, key.note, key.used) == ("token", "notebook", "")
    assert program.get("/r/demo/api/events").status_code == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", project.people.credentials()[0].used)
    assert "notebook" in project.page("Olga", "admin") and "Revoke" in project.page("Olga", "admin")
    project.browser("Olga").post("/r/demo/withdraw", data={"key": key.seq})
    assert program.get("/r/demo/api/events").status_code == 401


def test_somebody_revokes_their_own_tokens_and_nobody_elses(project: Project) -> None:
    mine = project.people.issue_token(project.person["Ann"], "mine")
    project.people.issue_token(project.person["Adam"], "his")
    his, ours = project.people.credentials()
    browser = project.browser("Ann")
    assert "mine" in browser.get("/account").text and "his" not in browser.get("/account").text.split("Tokens")[1]
    for key in (his.seq, ours.seq):
        browser.post("/account/withdraw", data={"key": key})
    assert project.people.credentials() == [his] and project.people.who(mine, "token") is None


# Names


@pytest.mark.parametrize(
    "name", ["نرم\u200cافزار", "\U0001f469\u200d\U0001f52c Eve", "Zoë Ångström", "李小龍", "ОЛЬГА", "Anna-Мария"]
)
def test_names_of_every_script_are_taken(project: Project, name: str) -> None:
    secret = project.people.invite(project.person["Olga"], "labeller")[0]
    assert project.people.join(secret, name, PASSWORD).name == name


@pytest.mark.parametrize("name", ["ОLGA", "Olgа", "Αnna", "a\u200cb", "a\u200db", "\u202eagloO", "O\u00adlga"])
def test_a_name_that_could_pass_for_another_is_refused(project: Project, name: str) -> None:
    with pytest.raises(AssentError):
        project.people.join(project.people.invite(project.person["Olga"], "labeller")[0], name, PASSWORD)


# For programs


def test_events_come_page_by_page_and_an_unknown_cursor_is_refused(answered: Project) -> None:
    browser = answered.browser("Rita")
    first = [json.loads(line)["id"] for line in browser.get("/r/demo/api/events?count=2").text.splitlines()]
    rest = [json.loads(line)["id"] for line in browser.get(f"/r/demo/api/events?after={first[-1]}").text.splitlines()]
    assert [*first, *rest] == [event.id for event in answered.store.feedback()]
    assert [event.id for event in arrived_after(answered.store, first[0], 1)] == [first[1]]
    refused = browser.get("/r/demo/api/events?after=no-such-event")
    assert refused.status_code == 404 and "no answer 'no-such-event' here" in refused.json()["detail"]


def test_a_conversation_goes_on_after_an_answer_without_a_word(project: Project) -> None:
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "And?"},
    ]
    reply = project.browser("Ann").post("/r/demo/api/chat", json={"messages": turns})
    assert reply.status_code == 200  # that there is no model here is told in the stream
    turns[0]["content"] = ""
    assert project.browser("Ann").post("/r/demo/api/chat", json={"messages": turns}).status_code == 422


# In either database


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


def test_filters_mean_the_same_in_either_database(store: Store) -> None:
    prompt = Prompt.ask('Say "50%_off" in Übersee.')
    response = Response(prompt.id, "So.", "sft")
    store.add_prompts([prompt])
    store.add_responses([response])
    queries = [Task(kind, prompt.id, (response.id,)) for kind in ("approval", "critique")]
    store.add_tasks(queries)
    first = Feedback(queries[0].id, "ann", Approval(True), AT, flags=("harm", "a, b"), comment="A \\ and 100%.", id="1")
    later = Feedback(queries[0].id, "ann", Approval(False), AT, supersedes="1", id="2")
    words = Feedback(queries[1].id, "bob", Critique('It says "zebra"\nagain.'), AT, id="3")
    program = Feedback(queries[1].id, "simulated:hasty", Critique("Nothing."), AT, id="4")
    store.add_feedback([first, later, words, program])

    def ids(**fields: Any) -> list[str]:
        rows = answers(store, Filter(**fields), 10)
        assert number(store, Filter(**fields)) == len(rows)
        return [row.feedback.id for row in rows]

    assert ids() == ["4", "3", "2"] and ids(state="") == ["4", "3", "2", "1"] and ids(state="superseded") == ["1"]
    assert ids(flag="harm", state="") == ids(flag="a, b", state="") == ["1"] and ids(flag="har", state="") == []
    assert ids(words='"ZEBRA"\nagain') == ["3"] and ids(words="100%.", state="") == ids(words="a \\", state="") == ["1"]
    assert ids(words='"50%_off"', state="") == ["4", "3", "2", "1"] and ids(words="5__") == []
    assert ids(person="bob") == ["3"] and ids(kind="approval") == ["2"] and ids(state="sent back") == []
    assert [row.feedback.id for row in answers(store, Filter(state=""), 2, before=4)] == ["3", "2"]
    assert annotators(store) == ["ann", "bob", "simulated:hasty"] and superseding(store, ["1", "2"]) == {"1": "2"}


def test_opinions_are_those_of_two_people_about_one_query(store: Store) -> None:
    prompt = Prompt.ask("Why?")
    items = tuple(Response(prompt.id, text, "sft") for text in "abc")
    store.add_prompts([prompt])
    store.add_responses(items)
    both, decided, lone, program, gold = queries = [
        Task("approval", prompt.id, (items[0].id,), "train", str(n)) for n in range(4)
    ] + [Task("approval", prompt.id, (items[0].id,), "gold")]
    store.add_tasks(queries)
    for query in (both, decided, gold):
        store.add_feedback([Feedback(query.id, who, Approval(who == "ann"), AT) for who in ("ann", "bob")])
    store.add_feedback([Feedback(decided.id, "rita", Approval(True), AT, flags=("decided",))])
    store.add_feedback(
        [Feedback(lone.id, "ann", Approval(True), AT, id="x"), Feedback(lone.id, "ann", Approval(False), AT)]
    )
    store.add_feedback([Feedback(program.id, who, Approval(True), AT) for who in ("ann", "ai:judge")])
    (events,) = opinions(store, "decided")
    assert [(event.task, event.annotator) for event in events] == [(both.id, "ann"), (both.id, "bob")]


def test_leases_are_given_back_sent_back_and_unskipped_in_either_database(store: Store) -> None:
    prompt = Prompt.ask("Why?")
    store.add_prompts([prompt])
    query = Task("demonstration", prompt.id, ())
    desk = TaskQueue(store)
    desk.post([Ask(query)], "label")
    assert desk.take("ann", 1) and not desk.take("bob", 1) and desk.others_hold("bob")
    desk.give_back("ann")
    assert desk.take("bob", 1)
    desk.skip("bob", query.id)
    assert [(row.query, row.people) for row in desk.skips()] == [(query.id, 1)] and desk.skips_of() == {"bob": 1}
    desk.unskip("bob", query.id)
    desk.answer(Feedback(query.id, "bob", Demonstration("So."), AT))
    desk.send_back("bob", query.id, "Why so?")
    assert desk.sent_back("bob", [query.id]) == {query.id: "Why so?"} and desk.sent_back("ann", [query.id]) == {}
    with pytest.raises(AssentError, match="nobody can be asked again"):
        desk.send_back("carl", query.id, "")


# What a review of the pages brought up


def test_what_cannot_be_marked_is_refused_as_gold_before_anything_is_stored(project: Project) -> None:
    query = project.ask("critique", "Explain rain.", "Clouds leak.")
    events = [project.say(name, query, Critique(f"{name} says no.")) for name in ("Ann", "Bob")]
    assert "hidden among others" not in project.page("Rita", "review")
    form = {"query": query.id, "right": events[0].id, "use": "hidden"}
    assert project.browser("Rita").post("/r/demo/decide", data=form).status_code == 422
    assert project.store.counts().feedback == 2 and "Explain rain." in project.page("Rita", "review")


def test_an_admin_takes_no_links_or_tokens_of_owners_back(project: Project) -> None:
    olga = project.person["Olga"]
    project.people.issue_token(olga, "hers")
    project.people.invite(olga, "owner")
    project.people.invite_reset("Olga", "Olga")
    keys = [key.seq for key in project.people.credentials()]
    assert len(keys) == 3 and project.people.withdraw(project.person["Adam"], keys) == 0
    assert project.people.withdraw(olga, keys) == 3


def test_a_reset_link_ends_with_a_new_password_and_with_a_new_role(project: Project) -> None:
    people = project.people
    first = people.invite_reset("Adam", "Ann")
    people.change_password(project.person["Ann"], PASSWORD, "another password")
    second = people.invite_reset("Adam", "Bob")
    people.change("Olga", "Bob", role="owner")
    for secret in (first, second):
        with pytest.raises(Denied, match="not known"):
            people.resetting(secret)


def test_an_account_page_lists_tokens_and_no_links(project: Project) -> None:
    project.people.invite_reset("Olga", "Ann")
    assert "Tokens" not in project.browser("Ann").get("/account").text


def test_an_item_that_was_shown_and_is_gone_breaks_no_page(project: Project) -> None:
    query = project.ask("approval", "Explain rain.", "So.")
    project.store.add_feedback([Feedback(query.id, "ann", Approval(True), AT, display_order=("nowhere",), id="x")])
    assert "Explain rain." in project.page("Rita", "answers/x")
    reply = project.browser("Rita").get("/r/demo/answers.csv")
    assert reply.status_code == 422 and "take JSON lines" in reply.text


def test_a_reviewer_can_change_their_own_decision_on_the_label_page(project: Project) -> None:
    query = project.ask("approval", "Explain rain.", "So.")
    project.say("Ann", query, Approval(True))
    bob = project.say("Bob", query, Approval(False))
    browser = project.browser("Rita")
    browser.post("/r/demo/decide", data={"query": query.id, "right": bob.id})
    (mine,) = browser.get("/r/demo/api/mine").json()
    assert mine["flags"] == []
    again = {"id": "0192-x", "query": mine["query"], "answer": {"approved": True}, "shown": mine["shown"]}
    reply = browser.post("/r/demo/api/feedback", json={**again, "flags": mine["flags"], "supersedes": mine["id"]})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("path", ["answers?before=1" + "0" * 23, "review?after=1" + "0" * 23, "answers?words=%00"])
def test_a_number_that_no_database_holds_is_no_mistake_of_the_server(project: Project, path: str) -> None:
    assert project.browser("Rita").get(f"/r/demo/{path}").status_code in (200, 422)


def test_who_is_gone_is_not_asked_again(project: Project) -> None:
    event = project.say("Ann", project.ask("approval", "Explain rain.", "So."), Approval(True))
    project.people.change("Olga", "Ann", state="paused")
    reply = project.browser("Rita").post(f"/r/demo/answers/{event.id}/back")
    assert reply.status_code == 422 and "paused" in reply.text


def test_words_are_looked_for_in_what_was_written_and_not_in_names_of_fields(store: Store) -> None:
    prompt = Prompt.ask("Wo liegt Übersee?")
    response = Response(prompt.id, "So.", "sft")
    store.add_prompts([prompt])
    store.add_responses([response])
    query = Task("critique", prompt.id, (response.id,))
    store.add_tasks([query])
    store.add_feedback([Feedback(query.id, "ann", Critique("Zu kurz, ÄRGERLICH.", "So"), AT)])
    hits = {
        words: number(store, Filter(words=words)) for words in ("übersee", "ärgerlich", "so", "quote", "role", "user")
    }
    assert hits == {"übersee": 1, "ärgerlich": 1, "so": 1, "quote": 0, "role": 0, "user": 0}
