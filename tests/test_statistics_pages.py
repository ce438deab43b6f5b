"""Progress pages: agreement, forecasts and arena, kept up to date as judgements arrive, within their time limits."""

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
from annotator_quality import Quality, measure_quality
from fastapi.testclient import TestClient

from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.rating import Rating
from assent.labelling.queue import TaskRequest
from assent.records import Feedback, Judgement, Message, Prompt, Purpose, Response, Task, implied_source
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.web import statistics
from assent.web.app import make_app
from assent.web.security import COOKIE
from assent.web.statistics import Forecast, forecast, statistics_of
from assent.web.workspace import Project, Workspace

NOW = datetime(2026, 11, 30, 14, 3, 21, tzinfo=UTC)


pytestmark = pytest.mark.usefixtures("quick_hashes")


@dataclass
class Site:
    """A server of one run, and the browser of its owner."""

    workspace: Workspace
    browser: TestClient
    num_judgements: int = 0

    @property
    def project(self) -> Project:
        return self.workspace.project("demo")

    @property
    def store(self) -> Store:
        return self.project.store

    def add_task(self, number: int, kind: str = "comparison", purpose: Purpose = "train", policies: str = "ab") -> Task:
        """Add a task about one response of each policy."""
        prompt = Prompt.ask(f"Question {number}?")
        responses = [Response(prompt.id, f"Answer of {p} to {number}.", f"evaluate:{p}#1") for p in policies]
        task = Task(kind, prompt.id, tuple(judgement.id for judgement in responses), purpose)
        self.store.add_prompts([prompt])
        self.store.add_responses(responses)
        self.store.add_tasks([task])
        return task

    def add_judgement(
        self, annotator: str, task: Task, judgement: Judgement, at: datetime = NOW, supersedes: str = ""
    ) -> str:
        self.num_judgements += 1
        event = Feedback(task.id, annotator, judgement, at.isoformat(), 3.0, task.items, supersedes=supersedes,
                         source=implied_source(annotator),
                         id=f"answer-{self.num_judgements}")  # fmt: skip
        self.store.add_feedback([event])
        return event.id

    def page(self, name: str) -> str:
        """Return the text of a page, without its tags."""
        reply = self.browser.get(f"/r/demo/{name}")
        assert reply.status_code == 200
        return " ".join(re.sub(r"<[^>]*>", " ", reply.text.partition("<main")[2]).split())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_run(Setup(run=tmp_path / "demo")):
        pass
    workspace = Workspace(tmp_path / "demo")
    owner = workspace.accounts.join(workspace.accounts.issue_setup(), "Olga", "correct horse")
    browser = TestClient(make_app(workspace))
    browser.cookies.set(COOKIE, workspace.accounts.credentials.open_session(owner))
    browser.headers["accept"] = "text/html"
    yield Site(workspace, browser)
    workspace.close()


def test_progress_page_shows_agreement_by_kind(site: Site) -> None:
    for number in range(3):
        for name, value in (("ann", 1), ("bob", 7)):
            site.add_judgement(
                name, site.add_task(number, "rating", policies="a"), Rating((("true", value), ("kind", 4)))
            )
            site.add_judgement(name, site.add_task(number, "approval", policies="a"), Approval(True))
    page = site.page("progress")
    assert "rating: true at most one step apart 3 0 % [0, 56] -0.67" in page  # 1 - 36 / (36 * 3 * 2 / (5 * 2))
    assert "rating: kind at most one step apart 3 100 % [44, 100] undefined: all labels are the same" in page
    assert "approval same label 3 100 % [44, 100] undefined: all labels are the same" in page


@pytest.mark.parametrize(("pairs", "same", "share"), [(8, True, "100 % [68, 100]"), (12, False, "0 % [0, 24]")])
def test_agreement_intervals_are_not_degenerate(site: Site, pairs: int, same: bool, share: str) -> None:
    for number in range(pairs):
        task = site.add_task(number)
        site.add_judgement("ann", task, Comparison(task.items[number % 2]))
        site.add_judgement("bob", task, Comparison(task.items[number % 2 if same else 1 - number % 2]))
    assert f"comparison same preference, among those with one {pairs} {share}" in site.page("progress")


def test_agreement_of_one_annotator_is_undefined_with_reason(site: Site) -> None:
    site.add_judgement("ann", site.add_task(0, "rating", policies="a"), Rating((("true", 4),)))
    assert "rating: true at most one step apart 0 – undefined: no item has two judgements" in site.page("progress")


def test_simulated_annotators_are_left_out_of_agreement(site: Site) -> None:
    task = site.add_task(0)
    for name in ("simulated:0", "simulated:1"):
        site.add_judgement(name, task, Comparison(task.items[0]))
    page = site.page("progress")
    assert "simulated:0 1" in page and "simulated:1 1" in page
    assert "Agreement" not in page


def test_pages_of_an_empty_run_have_no_empty_tables(site: Site) -> None:
    text = site.browser.get("/r/demo/progress").text
    assert '<div class="actions" hidden><label>Stage' in text
    assert "<table" not in text and "Judgements per day" not in text
    (site.project.folder / "metrics.jsonl").write_text('{"stage": "sft", "step": 1, "loss": 2.0}\n')
    assert '<div class="actions"><label>Stage' in site.browser.get("/r/demo/progress").text


def test_arena_table_counts_each_comparison(site: Site) -> None:
    task = site.add_task(0, purpose="evaluate")
    first = site.add_judgement("ann", task, Comparison(task.items[1]))
    site.add_judgement("ann", task, Comparison(task.items[0]), supersedes=first)
    page = site.page("progress")
    assert "1 / 0 / 0" in page and "0 / 0 / 1" in page
    assert "from 1 comparison of two responses (a ranking of three counts as three) by 1 annotator" in page


def test_forecast_uses_the_pace_of_a_week(site: Site) -> None:
    tasks = [site.add_task(number) for number in range(40)]
    for n, task in enumerate(tasks[:14]):  # two judgements every twelve hours, a week long
        for name in ("ann", "bob"):
            site.add_judgement(name, task, Comparison(task.items[0]), NOW - timedelta(days=7) + timedelta(hours=12 * n))
    first = site.add_judgement("simulated:0", tasks[20], Comparison(verdict="tie"))
    site.add_judgement("simulated:0", tasks[20], Comparison(verdict="tie"), supersedes=first)
    site.project.queue.enqueue([TaskRequest(task, 2) for task in tasks], "label")
    # 40 tasks require two judgements each; 28 of the 80 came within a week.
    assert forecast(site.project, NOW) == Forecast(required=52, pace=4.0, measured_days=7.0)
    site.project.queue.clock = NOW.timestamp
    page = site.page("progress")
    assert (
        "52 judgements are still required. At the pace of the last 7 days (4 per day) this takes about 13 days." in page
    )
    # From 14:03:21 on the 23rd: one moment on this day and the last, two on each between; two judgements each.
    assert "0 0 0 0 0 0 2 4 4 4 4 4 4 2 Human judgements" in page
    assert "(UTC)" in page


def test_no_forecast_from_few_judgements_or_hours(site: Site) -> None:
    tasks = [site.add_task(number) for number in range(60)]
    site.project.queue.enqueue([TaskRequest(task, 1) for task in tasks], "label")
    for n, task in enumerate(tasks[:19]):
        site.add_judgement("ann", task, Comparison(task.items[0]), NOW - timedelta(hours=6 * n))
    assert forecast(site.project, NOW) is None
    more_tasks = [site.add_task(number) for number in range(60, 120)]
    site.project.queue.enqueue([TaskRequest(task, 1) for task in more_tasks], "label")
    assert forecast(site.project, NOW + timedelta(days=30)) is None
    site.add_judgement("bob", more_tasks[0], Comparison(more_tasks[0].items[0]), NOW)
    matches = forecast(site.project, NOW)
    assert matches is not None and matches.pace == pytest.approx(20 / 4.5)  # the first came 108 hours ago


def test_forecast_expects_one_judgement_per_annotator(site: Site) -> None:
    tasks = [site.add_task(number) for number in range(30)]
    for n, task in enumerate(tasks[:25]):
        site.add_judgement("ann", task, Comparison(task.items[0]), NOW - timedelta(hours=5 * n))
    site.project.queue.enqueue([TaskRequest(task, 5) for task in tasks], "label")
    matches = forecast(site.project, NOW)
    assert matches is not None and matches.required == 5


def compute_all(project: Project) -> Quality:
    """Return the same statistics, computed from the whole store."""
    tasks = {task.id: task for task in project.store.tasks()}
    gold = {task.id: judgement for task, judgement, _ in project.queue.gold.items()}
    events = [event for event in project.store.feedback() if not event.annotator.startswith("judge:")]
    return measure_quality(events, tasks, gold, resamples=statistics.RESAMPLES)


def assert_current(project: Project) -> None:
    view = statistics_of(project).view(project)
    expected = compute_all(project)
    assert view.consensus is not None and not view.num_behind
    assert repr(view.annotators) == repr(expected.annotators)
    assert repr(view.consensus.by_kind) == repr(expected.by_kind)


def test_incremental_statistics_match_a_full_computation(site: Site) -> None:
    rng = random.Random(0)
    judged = list[tuple[str, Task, str]]()
    for step in range(60):
        number = rng.randrange(8)
        kind = rng.choice(["comparison", "rating", "critique"])
        purpose: Purpose = "gold" if number == 7 else "train"
        task = site.add_task(number, kind, purpose, "ab" if kind == "comparison" else "a")
        responses: dict[str, Judgement] = {
            "comparison": Comparison(rng.choice(task.items)) if step % 5 else Comparison(verdict="tie"),
            "rating": Rating((("true", rng.randint(1, 7)),)),
            "critique": Critique(f"It is {rng.choice(['too long', 'too short'])}."),
        }
        name = rng.choice(["ann", "bob", "eve", "simulated:x", "judge:rule"])
        before = next((id for annotator, task_id, id in reversed(judged) if (annotator, task_id) == (name, task)), "")
        judged.append(
            (name, task, site.add_judgement(name, task, responses[kind], supersedes=before if step % 3 else ""))
        )
        if purpose == "gold" and kind == "comparison" and step > 30:
            site.project.queue.gold.add(task, Comparison(task.items[0]))  # after it was judged
        if step % 7 == 0:
            assert_current(site.project)
    assert_current(site.project)


def test_statistics_restart_after_a_restored_backup(site: Site, tmp_path: Path) -> None:
    tasks = [site.add_task(number) for number in range(6)]
    for task in tasks[:2]:
        site.add_judgement("ann", task, Comparison(task.items[0]))
    copy = tmp_path / "copy.db"
    site.store.copy(copy)
    for task in tasks[2:]:
        site.add_judgement("late", task, Comparison(task.items[0]))
    assert [each.annotator for each in statistics_of(site.project).view(site.project).annotators] == ["ann", "late"]
    site.store.restore(copy)
    assert_current(site.project)
    for task in tasks[2:]:  # as many judgements as before, of another annotator
        site.add_judgement("new", task, Comparison(task.items[1]))
    assert [each.annotator for each in statistics_of(site.project).view(site.project).annotators] == ["ann", "new"]
    assert_current(site.project)


def test_large_store_shows_earlier_statistics_with_their_age(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SMALL_STORE", 0)
    monkeypatch.setattr(statistics, "WAIT_SECONDS", 0)
    gate = Event()

    def held() -> float:
        """Return the time once the gate is open: until then the computation waits."""
        gate.wait(60)
        return NOW.timestamp()

    def page_while_computing() -> str:
        gate.clear()
        site.project.queue.clock = held
        page = site.page("progress")
        assert site.browser.get("/r/demo/admin").status_code == 200
        gate.set()
        return page

    task = site.add_task(0, purpose="evaluate")
    site.add_judgement("ann", task, Comparison(task.items[0]))
    assert "This is being computed: reload in a moment." in page_while_computing()
    monkeypatch.setattr(statistics, "WAIT_SECONDS", 60)
    assert "ann 1" in site.page("progress")
    monkeypatch.setattr(statistics, "WAIT_SECONDS", 0)
    site.add_judgement("bob", task, Comparison(task.items[0]))
    page = page_while_computing()
    assert "are as of 14:03:21 UTC; 1 judgement came since." in page and "being computed" not in page
    monkeypatch.setattr(statistics, "WAIT_SECONDS", 60)
    page = site.page("progress")
    assert "bob 1" in page and "came since" not in page


def test_statistics_error_is_shown_and_recovers(site: Site) -> None:
    site.add_judgement("ann", site.add_task(0), Comparison(verdict="tie"))
    with site.store.writing() as on:
        on.exec_driver_sql("ALTER TABLE gold RENAME TO elsewhere")
    assert "no such table: gold" in statistics_of(site.project).view(site.project).error
    with site.store.writing() as on:
        on.exec_driver_sql("ALTER TABLE elsewhere RENAME TO gold")
    assert_current(site.project)


def test_store_arrivals_continue_after_a_sequence_number(database: str) -> None:
    with Store.open(database) as store:
        prompts = [Prompt.ask(f"Question {n}?") for n in range(5000)]
        tasks = [Task("demonstration", p.id, (), "evaluate" if n % 2 else "train") for n, p in enumerate(prompts)]
        assert (store.last_arrival(), list(store.arrivals())) == ((0, ""), [])
        store.add_prompts(prompts)
        store.add_tasks(tasks)
        events = [Feedback(task.id, "ann", Demonstration("So."), NOW.isoformat()) for task in tasks]
        store.add_feedback(events)
        matches = list(store.arrivals())
        assert [(each.event, each.task) for each in matches] == list(zip(events, tasks, strict=True))
        assert store.last_arrival() == matches[-1][:2] and store.last_arrival(matches[7].seq) == matches[7][:2]
        assert list(store.arrivals(matches[4990].seq)) == matches[4991:]
        assert list(store.arrivals(purpose="evaluate")) == matches[1::2]


def test_disagreements_page_without_reward_model_loads_none() -> None:
    code = """
import sys, tempfile
from pathlib import Path
from assent.run import Setup, open_run
from assent.web.workspace import Workspace
from assent.web.progress import SCORER
folder = Path(tempfile.mkdtemp()) / "run"
with open_run(Setup(run=folder)):
    pass
assert not SCORER.of(Workspace(folder).project("run")).model
print("torch" in sys.modules, "transformers" in sys.modules)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["False", "False"]


def test_largest_disagreements_come_first(site: Site) -> None:
    scores = dict[str, float]()
    tasks = [site.add_task(number) for number in range(4)]
    for n, task in enumerate(tasks):
        site.add_judgement("ann", task, Comparison(task.items[0]))
        site.add_judgement("bob", task, Comparison(task.items[0]) if n else Comparison(verdict="tie"))
        site.add_judgement("simulated:x", task, Comparison(task.items[1]))
        scores |= dict(zip(task.items, ((0.0, 0.0), (0.0, 9.0), (9.0, 0.0), (0.0, 0.0))[n], strict=True))
    gold = site.add_task(9, purpose="gold")
    site.add_judgement("ann", gold, Comparison(gold.items[0]))
    scores |= dict.fromkeys(gold.items, 0.0)
    scores.pop(tasks[3].items[1])  # not scored yet
    matches = statistics_of(site.project).view(site.project, scores).disagreements
    assert [row.task for row in matches] == [tasks[n].id for n in (1, 0, 2)]
    assert [(row.annotator_share, row.votes) for row in matches] == [(1.0, 2), (0.75, 2), (1.0, 2)]
    # s(-9) = 1.2e-4, s(0), s(9).
    assert [row.model_prob for row in matches] == pytest.approx([0, 0.5, 1], abs=2e-4)
    site.add_judgement("eve", tasks[2], Comparison(tasks[2].items[1]))
    matches = statistics_of(site.project).view(site.project, scores).disagreements
    assert matches[1].task == tasks[2].id and matches[1].annotator_share == pytest.approx(2 / 3)


NASTY = (
    'She judged "stop" \\ went_on.',
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
    ("words", "matches"),
    [
        ("", range(10)),
        ("STOP", [0]),
        ('judged "stop" \\', [0]),
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
def test_prompt_search_ignores_case_and_has_no_wildcards(database: str, words: str, matches: list[int]) -> None:
    with Store.open(database) as store:
        prompts = [Prompt((Message("system", "Be kind."), Message("user", text))) for text in NASTY]
        store.add_prompts(prompts)
        looked = store.search_prompts(words, 0, 50)
        assert [prompts.index(prompt) for prompt in looked.prompts] == list(matches)
        assert looked.total == len(matches)
        assert store.search_prompts("kind", 8, 5) == (prompts[8:], 10)


def test_prompts_page_has_pagination(site: Site) -> None:
    site.store.add_prompts(Prompt.ask(f"Number {n} is {'odd' if n % 2 else 'even'}.") for n in range(120))
    page = site.page("prompts?text=ODD&after=50")
    assert "60 found" in page and "Number 101 is odd." in page and "Number 99 is odd." not in page
    assert "Previous" in page and "Next" not in page
    assert "120 found" in site.page("prompts") and "Next" in site.page("prompts")


@pytest.mark.slow
def test_pages_of_20000_judgements_take_half_a_second(site: Site) -> None:
    prompts = [Prompt.ask(f"Question {n} of many?") for n in range(10_000)]
    pairs = [[Response(prompt.id, f"{word} {prompt.id}", "sft") for word in ("Yes", "No")] for prompt in prompts]
    tasks = [Task("comparison", prompt.id, tuple(r.id for r in pair)) for prompt, pair in
               zip(prompts, pairs, strict=True)]  # fmt: skip
    site.store.add_prompts(prompts)
    site.store.add_responses(response for pair in pairs for response in pair)
    site.store.add_tasks(tasks)
    rng = random.Random(0)
    site.store.add_feedback(
        Feedback(task.id, annotator, Comparison(rng.choice(task.items)), NOW.isoformat(), 3.0, task.items)
        for task in tasks
        for annotator in rng.sample([f"person {n}" for n in range(12)], 2)
    )
    statistics_of(site.project).view(site.project)
    deadline = time.monotonic() + 120
    while not statistics_of(site.project).view(site.project).computed_at and time.monotonic() < deadline:
        time.sleep(0.1)
    for name in ("progress", "disagreements", "prompts", "prompts?text=question+77"):
        site.page(name)
        spent = []
        for again in range(3):
            site.add_judgement(f"late {name} {again}", tasks[again], Comparison(verdict="tie"))
            start = time.perf_counter()
            site.page(name)
            spent.append(time.perf_counter() - start)
        assert min(spent) < 0.5, name


@pytest.mark.slow
def test_pages_benchmark_covers_every_page(tmp_path: Path) -> None:
    spec = spec_from_file_location("benchmark_pages", Path(__file__).parent.parent / "benchmarks" / "pages.py")
    assert spec is not None and spec.loader is not None
    pages = module_from_spec(spec)
    spec.loader.exec_module(pages)
    session, late = pages.fill(tmp_path / "run", 200, 4)
    with pages.serving(tmp_path / "run", session) as client, Store.open(tmp_path / "run" / "feedback.db") as store:
        assert pages.wait_until_ready(client) > 0
        pages.add_judgement(store, next(iter(store.feedback(ids=[late]))), 0)
        assert all(pages.seconds(client, path.format(late)) > 0 for path in pages.PAGES)
        assert store.counts().feedback == 201
