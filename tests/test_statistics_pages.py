"""The pages that tell how a project does: what they say of agreement, that they stay right as answers come, quickly."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Event

import pytest
from fastapi.testclient import TestClient

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.rating import Rating
from assent.labelling.quality import Quality, quality
from assent.labelling.queue import Ask
from assent.records import Feedback, Judgement, Message, Prompt, Purpose, Response, Task
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.web import statistics
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.statistics import Outlook, outlook, statistics_of
from assent.web.workspace import Office, Project

NOW = datetime(2026, 11, 30, 14, 3, 21, tzinfo=UTC)


pytestmark = pytest.mark.usefixtures("quick_hashes")


@dataclass
class Site:
    """A server of one run, and its owner's browser."""

    office: Office
    browser: TestClient
    answers: int = 0

    @property
    def here(self) -> Project:
        return self.office.project("demo")

    @property
    def store(self) -> Store:
        return self.here.store

    def ask(self, number: int, kind: str = "comparison", purpose: Purpose = "train", policies: str = "ab") -> Task:
        """A question about one answer of each policy."""
        prompt = Prompt.ask(f"Question {number}?")
        answers = [Response(prompt.id, f"Answer of {p} to {number}.", f"evaluate:{p}#1") for p in policies]
        query = Task(kind, prompt.id, tuple(answer.id for answer in answers), purpose)
        self.store.add_prompts([prompt])
        self.store.add_responses(answers)
        self.store.add_tasks([query])
        return query

    def say(self, annotator: str, query: Task, answer: Judgement, at: datetime = NOW, supersedes: str = "") -> str:
        self.answers += 1
        event = Feedback(query.id, annotator, answer, at.isoformat(), 3.0, query.items, supersedes=supersedes,
                         id=f"answer-{self.answers}")  # fmt: skip
        self.store.add_feedback([event])
        return event.id

    def page(self, name: str) -> str:
        """The words of a page, without its tags."""
        reply = self.browser.get(f"/r/demo/{name}")
        assert reply.status_code == 200
        return " ".join(re.sub(r"<[^>]*>", " ", reply.text.partition("<main")[2]).split())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_run(Setup(run=tmp_path / "demo")):
        pass
    office = Office(tmp_path / "demo")
    owner = office.people.join(office.people.setup(), "Olga", "correct horse")
    browser = TestClient(make_app(office))
    browser.cookies.set(COOKIE, office.people.open_session(owner))
    browser.headers["accept"] = "text/html"
    yield Site(office, browser)
    office.close()


# What Progress says


def test_progress_tells_how_far_people_agree_in_ratings_and_approvals(site: Site) -> None:
    for number in range(3):
        for name, value in (("ann", 1), ("bob", 7)):
            site.say(name, site.ask(number, "rating", policies="a"), Rating((("true", value), ("kind", 4))))
            site.say(name, site.ask(number, "approval", policies="a"), Approval(True))
    page = site.page("progress")
    assert "rating: true at most one step apart 3 0 % [0, 56] -0.67" in page  # 1 - 36 / (36 * 3 * 2 / (5 * 2))
    assert "rating: kind at most one step apart 3 100 % [44, 100] undefined: everyone always says the same" in page
    assert "approval say the same 3 100 % [44, 100] undefined: everyone always says the same" in page


@pytest.mark.parametrize(("pairs", "same", "share"), [(8, True, "100 % [68, 100]"), (12, False, "0 % [0, 24]")])
def test_people_who_always_or_never_agree_are_not_taken_for_certain_to(
    site: Site, pairs: int, same: bool, share: str
) -> None:
    for number in range(pairs):
        query = site.ask(number)
        site.say("ann", query, Comparison(query.items[number % 2]))
        site.say("bob", query, Comparison(query.items[number % 2 if same else 1 - number % 2]))
    assert f"comparison prefer the same, of two who prefer one {pairs} {share}" in site.page("progress")


def test_one_annotator_alone_reads_why_there_is_no_agreement(site: Site) -> None:
    site.say("ann", site.ask(0, "rating", policies="a"), Rating((("true", 4),)))
    assert "rating: true at most one step apart 0 – undefined: no item has two answers" in site.page("progress")


def test_simulated_annotators_have_their_rows_and_no_part_in_the_agreement_of_people(site: Site) -> None:
    query = site.ask(0)
    for name in ("simulated:0", "simulated:1"):
        site.say(name, query, Comparison(query.items[0]))
    page = site.page("progress")
    assert "simulated:0 1" in page and "simulated:1 1" in page
    assert "Agreement" not in page


def test_before_anything_has_run_no_control_and_no_table_is_empty(site: Site) -> None:
    text = site.browser.get("/r/demo/progress").text
    assert '<div class="actions" hidden><label>Stage' in text
    assert "<table" not in text and "Answers a day" not in text
    (site.here.folder / "metrics.jsonl").write_text('{"stage": "sft", "step": 1, "loss": 2.0}\n')
    assert '<div class="actions"><label>Stage' in site.browser.get("/r/demo/progress").text


def test_the_arena_counts_each_comparison_of_two_policies(site: Site) -> None:
    query = site.ask(0, purpose="evaluate")
    first = site.say("ann", query, Comparison(query.items[1]))
    site.say("ann", query, Comparison(query.items[0]), supersedes=first)
    page = site.page("progress")
    assert "1 / 0 / 0" in page and "0 / 0 / 1" in page
    assert "from 1 comparison of two answers (a ranking of three has three) by 1 annotator" in page


# How long it will take


def test_answers_are_counted_by_day_and_what_is_left_is_told_at_the_pace_of_a_week(site: Site) -> None:
    queries = [site.ask(number) for number in range(40)]
    for n, query in enumerate(queries[:14]):  # two answers each twelve hours, a week long
        for name in ("ann", "bob"):
            site.say(name, query, Comparison(query.items[0]), NOW - timedelta(days=7) + timedelta(hours=12 * n))
    first = site.say("simulated:0", queries[20], Comparison(verdict="tie"))
    site.say("simulated:0", queries[20], Comparison(verdict="tie"), supersedes=first)
    site.here.desk.post([Ask(query, 2) for query in queries], "label")
    # 40 questions want two answers each, and 28 of the 80 are there, which came in a week.
    assert outlook(site.here, NOW) == Outlook(wanted=52, pace=4.0, over=7.0)
    site.here.desk.clock = NOW.timestamp
    page = site.page("progress")
    assert "52 answers are still wanted: at the pace of the last 7 days (4 a day) that takes about 13 days." in page
    # From 14:03:21 on the 23rd: one moment on this day and the last, two on each between; two answers each.
    assert "0 0 0 0 0 0 2 4 4 4 4 4 4 2 By people" in page
    assert "(UTC)" in page


def test_nothing_is_foretold_from_a_few_answers_or_a_few_hours(site: Site) -> None:
    queries = [site.ask(number) for number in range(60)]
    site.here.desk.post([Ask(query, 1) for query in queries], "label")
    for n, query in enumerate(queries[:19]):
        site.say("ann", query, Comparison(query.items[0]), NOW - timedelta(hours=6 * n))
    assert outlook(site.here, NOW) is None
    other = [site.ask(number) for number in range(60, 120)]
    site.here.desk.post([Ask(query, 1) for query in other], "label")
    assert outlook(site.here, NOW + timedelta(days=30)) is None
    site.say("bob", other[0], Comparison(other[0].items[0]), NOW)
    found = outlook(site.here, NOW)
    assert found is not None and found.pace == pytest.approx(20 / 4.5)  # the first came 108 hours ago


def test_nobody_waits_for_more_answers_than_there_are_people(site: Site) -> None:
    queries = [site.ask(number) for number in range(30)]
    for n, query in enumerate(queries[:25]):
        site.say("ann", query, Comparison(query.items[0]), NOW - timedelta(hours=5 * n))
    site.here.desk.post([Ask(query, 5) for query in queries], "label")
    found = outlook(site.here, NOW)
    assert found is not None and found.wanted == 5


# As answers come


def from_scratch(here: Project) -> Quality:
    """The same from everything that the store holds."""
    queries = {query.id: query for query in here.store.tasks()}
    gold = {query.id: answer for query, answer, _ in here.desk.gold()}
    events = [event for event in here.store.feedback() if not event.annotator.startswith("judge:")]
    return quality(events, queries, gold, resamples=statistics.RESAMPLES)


def assert_current(here: Project) -> None:
    view, expected = statistics_of(here).view(here), from_scratch(here)
    assert view.consensus is not None and not view.behind
    assert repr(view.annotators) == repr(expected.annotators)
    assert repr(view.consensus[1:]) == repr((expected.agreement, expected.alpha, expected.kinds))


def test_what_is_read_answer_by_answer_is_what_all_at_once_would_tell(site: Site) -> None:
    luck, said = random.Random(0), list[tuple[str, Task, str]]()
    for step in range(60):
        number, kind = luck.randrange(8), luck.choice(["comparison", "rating", "critique"])
        purpose: Purpose = "gold" if number == 7 else "train"
        query = site.ask(number, kind, purpose, "ab" if kind == "comparison" else "a")
        answers: dict[str, Judgement] = {
            "comparison": Comparison(luck.choice(query.items)) if step % 5 else Comparison(verdict="tie"),
            "rating": Rating((("true", luck.randint(1, 7)),)),
            "critique": Critique(f"It is {luck.choice(['too long', 'too short'])}."),
        }
        name = luck.choice(["ann", "bob", "eve", "simulated:x", "judge:rule"])
        before = next((id for who, asked, id in reversed(said) if (who, asked) == (name, query)), "")
        said.append((name, query, site.say(name, query, answers[kind], supersedes=before if step % 3 else "")))
        if purpose == "gold" and kind == "comparison" and step > 30:
            site.here.desk.add_gold(query, Comparison(query.items[0]))  # after it was answered
        if step % 7 == 0:
            assert_current(site.here)
    assert_current(site.here)


def test_after_a_backup_was_restored_nothing_of_the_later_answers_counts(site: Site, tmp_path: Path) -> None:
    queries = [site.ask(number) for number in range(6)]
    for query in queries[:2]:
        site.say("ann", query, Comparison(query.items[0]))
    copy = tmp_path / "copy.db"
    site.store.copy(copy)
    for query in queries[2:]:
        site.say("late", query, Comparison(query.items[0]))
    assert [each.annotator for each in statistics_of(site.here).view(site.here).annotators] == ["ann", "late"]
    site.store.restore(copy)
    assert_current(site.here)
    for query in queries[2:]:  # as many answers as before, of somebody else
        site.say("new", query, Comparison(query.items[1]))
    assert [each.annotator for each in statistics_of(site.here).view(site.here).annotators] == ["ann", "new"]
    assert_current(site.here)


def test_a_page_of_many_answers_shows_what_is_known_and_how_old_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SMALL", 0)
    monkeypatch.setattr(statistics, "PATIENCE", 0)
    gate = Event()

    def held() -> float:
        """A clock that stops the computation until the gate is open."""
        gate.wait(60)
        return NOW.timestamp()

    def page_while_computing() -> str:
        gate.clear()
        site.here.desk.clock = held
        page = site.page("progress")
        assert site.browser.get("/r/demo/admin").status_code == 200
        gate.set()
        return page

    query = site.ask(0, purpose="evaluate")
    site.say("ann", query, Comparison(query.items[0]))
    assert "This is being computed: reload in a moment." in page_while_computing()
    monkeypatch.setattr(statistics, "PATIENCE", 60)
    assert "ann 1" in site.page("progress")
    monkeypatch.setattr(statistics, "PATIENCE", 0)
    site.say("bob", query, Comparison(query.items[0]))
    page = page_while_computing()
    assert "are as of 14:03:21 UTC; 1 answer came since." in page and "being computed" not in page
    monkeypatch.setattr(statistics, "PATIENCE", 60)
    page = site.page("progress")
    assert "bob 1" in page and "came since" not in page


def test_what_the_statistics_cannot_read_is_told_on_the_page_and_read_when_it_is_there_again(site: Site) -> None:
    site.say("ann", site.ask(0), Comparison(verdict="tie"))
    with site.store.writing() as on:
        on.exec_driver_sql("ALTER TABLE gold RENAME TO elsewhere")
    assert "no such table: gold" in statistics_of(site.here).view(site.here).failed
    with site.store.writing() as on:
        on.exec_driver_sql("ALTER TABLE elsewhere RENAME TO gold")
    assert_current(site.here)


def test_events_are_read_from_where_one_stopped_with_what_they_answer(database: str) -> None:
    with Store.open(database) as store:
        prompts = [Prompt.ask(f"Question {n}?") for n in range(5000)]
        queries = [Task("demonstration", p.id, (), "evaluate" if n % 2 else "train") for n, p in enumerate(prompts)]
        assert (store.last_arrival(), list(store.arrivals())) == ((0, ""), [])
        store.add_prompts(prompts)
        store.add_tasks(queries)
        events = [Feedback(query.id, "ann", Demonstration("So."), NOW.isoformat()) for query in queries]
        store.add_feedback(events)
        found = list(store.arrivals())
        assert [(each.event, each.task) for each in found] == list(zip(events, queries, strict=True))
        assert store.last_arrival() == found[-1][:2] and store.last_arrival(found[7].seq) == found[7][:2]
        assert list(store.arrivals(found[4990].seq)) == found[4991:]
        assert list(store.arrivals(purpose="evaluate")) == found[1::2]


# Disagreements with the reward model


def test_disagreements_without_a_reward_model_load_no_models() -> None:
    code = """
import sys, tempfile
from pathlib import Path
from assent.run import Setup, open_run
from assent.web.workspace import Office
from assent.web.progress import SCORES
folder = Path(tempfile.mkdtemp()) / "run"
with open_run(Setup(run=folder)):
    pass
assert not SCORES.of(Office(folder).project("run")).model
print("torch" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_pairs_about_which_the_reward_model_and_people_differ_most_come_first(site: Site) -> None:
    scores = dict[str, float]()
    queries = [site.ask(number) for number in range(4)]
    for n, query in enumerate(queries):
        site.say("ann", query, Comparison(query.items[0]))
        site.say("bob", query, Comparison(query.items[0]) if n else Comparison(verdict="tie"))
        site.say("simulated:x", query, Comparison(query.items[1]))
        scores |= dict(zip(query.items, ((0.0, 0.0), (0.0, 9.0), (9.0, 0.0), (0.0, 0.0))[n], strict=True))
    gold = site.ask(9, purpose="gold")
    site.say("ann", gold, Comparison(gold.items[0]))
    scores |= dict.fromkeys(gold.items, 0.0)
    scores.pop(queries[3].items[1])  # not scored yet
    found = statistics_of(site.here).view(site.here, scores).disagreements
    assert [row.query for row in found] == [queries[n].id for n in (1, 0, 2)]
    assert [(row.people, row.votes) for row in found] == [(1.0, 2), (0.75, 2), (1.0, 2)]
    assert [row.model for row in found] == pytest.approx([0, 0.5, 1], abs=2e-4)
    site.say("eve", queries[2], Comparison(queries[2].items[1]))
    found = statistics_of(site.here).view(site.here, scores).disagreements
    assert found[1].query == queries[2].id and found[1].people == pytest.approx(2 / 3)


# Prompts


NASTY = (
    'She said "stop" \\ went_on.',
    "100 % of it",
    "100 xyz of it",
    "a_b",
    "axb",
    "Ärger mit [Klammern]",
    "was? * nichts",
    "line one\nline two",
    "ΣΊΣΥΦΟΣ",
    "straße",
)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", range(10)),
        ("STOP", [0]),
        ('said "stop" \\', [0]),
        ("\\", [0]),
        ("_", [0, 3]),
        ("a_b", [3]),
        ("100 %", [1]),
        ("%", [1]),
        ("äRGER", [5]),
        ("[klammern]", [5]),
        ("[k", [5]),
        ("? *", [6]),
        ("*", [6]),
        ("one\nLine", [7]),
        ("σίσυφο", [8]),
        ("Straße", [9]),
        ("user", []),
        ("content", []),
        ("nowhere", []),
    ],
)
def test_prompts_are_found_by_words_in_any_case_and_no_sign_is_a_wildcard(
    database: str, words: str, found: list[int]
) -> None:
    with Store.open(database) as store:
        prompts = [Prompt((Message("system", "Be kind."), Message("user", text))) for text in NASTY]
        store.add_prompts(prompts)
        looked = store.search_prompts(words, 0, 50)
        assert [prompts.index(prompt) for prompt in looked.prompts] == list(found)
        assert looked.total == len(found)
        assert store.search_prompts("kind", 8, 5) == (prompts[8:], 10)


def test_prompts_are_shown_page_by_page(site: Site) -> None:
    site.store.add_prompts(Prompt.ask(f"Number {n} is {'odd' if n % 2 else 'even'}.") for n in range(120))
    page = site.page("prompts?words=ODD&after=50")
    assert "60 found" in page and "Number 101 is odd." in page and "Number 99 is odd." not in page
    assert "Before" in page and "More" not in page
    assert "120 found" in site.page("prompts") and "More" in site.page("prompts")


# Many


@pytest.mark.slow
def test_pages_of_twenty_thousand_answers_take_less_than_half_a_second(site: Site) -> None:
    prompts = [Prompt.ask(f"Question {n} of many?") for n in range(10_000)]
    pairs = [[Response(prompt.id, f"{word} {prompt.id}", "sft") for word in ("Yes", "No")] for prompt in prompts]
    queries = [Task("comparison", prompt.id, tuple(r.id for r in pair)) for prompt, pair in
               zip(prompts, pairs, strict=True)]  # fmt: skip
    site.store.add_prompts(prompts)
    site.store.add_responses(response for pair in pairs for response in pair)
    site.store.add_tasks(queries)
    luck = random.Random(0)
    site.store.add_feedback(
        Feedback(query.id, who, Comparison(luck.choice(query.items)), NOW.isoformat(), 3.0, query.items)
        for query in queries
        for who in luck.sample([f"person {n}" for n in range(12)], 2)
    )
    statistics_of(site.here).view(site.here)
    deadline = time.monotonic() + 120
    while not statistics_of(site.here).view(site.here).at and time.monotonic() < deadline:
        time.sleep(0.1)
    for name in ("progress", "disagreements", "prompts", "prompts?words=question+77"):
        site.page(name)
        spent = []
        for again in range(3):
            site.say(f"late {name} {again}", queries[again], Comparison(verdict="tie"))
            start = time.perf_counter()
            site.page(name)
            spent.append(time.perf_counter() - start)
        assert min(spent) < 0.5, name


@pytest.mark.slow
def test_the_benchmark_of_the_pages_asks_for_each(tmp_path: Path) -> None:
    spec = spec_from_file_location("benchmark_pages", Path(__file__).parent.parent / "benchmarks" / "pages.py")
    assert spec is not None and spec.loader is not None
    pages = module_from_spec(spec)
    spec.loader.exec_module(pages)
    session, late = pages.fill(tmp_path / "run", 200, 4)
    with pages.serving(tmp_path / "run", session) as client, Store.open(tmp_path / "run" / "feedback.db") as store:
        assert pages.ready(client) > 0
        pages.one_more(store, next(iter(store.feedback(ids=[late]))), 0)
        assert all(pages.seconds(client, path.format(late)) > 0 for path in pages.PAGES)
        assert store.counts().feedback == 201
