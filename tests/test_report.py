"""The report, on a real run folder with a real store, and in a real browser."""

import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import browser_path
from rich.console import Console

from assent.cli import main
from assent.feedback.comparison import Comparison
from assent.functional.conciseness import utility
from assent.functional.statistics import accuracy, win_rate
from assent.records import Feedback, Prompt, Response, Task
from assent.report.page import (
    Report,
    _gather,
    _worst,
    careful,
    choose,
    clock,
    find_rounds,
    headline,
    measure_drift,
    spoken,
    summary_table,
    thin,
    ticks,
    verdict,
)
from assent.run import Run, Setup, open_run
from assent.split import split

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ATTACK = "<script>alert(1)</script><img src=http://example.com/x.png onerror=alert(2)>"
MODES = ("grounded", "knowledge", "creative")
GOOD = "Fresh snow number {} covers every quiet roof in town like a clean white blanket."
BAD = "I think that roof. I think that snow number {}. " + "And more and more about it, " * 9


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run of two rounds: `ppo` and `dpo`, then `ppo-2`; the start wins one prompt in five."""
    with open_run(Setup(run=tmp_path / "demo", model="a/model", held_out=0.5)) as run:
        yield fill(run)


def fill(run: Run) -> Run:
    prompts = [Prompt.ask(f"Write one sentence about snow on roof {i}.", MODES[i % 3], "test") for i in range(80)]
    run.store.add_prompts(prompts)
    held = [p for p in prompts if p.id in split(prompts, 0.5).held_out]
    start = draw(run, held, "generate:start", 0.8)
    ppo, dpo = draw(run, held, "evaluate:ppo", 0.2), draw(run, held, "evaluate:dpo", 0.5)
    run.store.add_responses([Response(held[0].id, "A second answer, never shown.", "generate:start")])
    found = evaluation(run, held, {"start": start, "ppo": ppo, "dpo": dpo})
    run.recipe |= {"stages": ["generate", "reward", "ppo", "dpo", "evaluate", "report"], "rounds": 2, "carry": "ppo"}
    for stage in ("reward", "ppo", "dpo", "evaluate"):
        run.claim(stage, {"lr": 1e-5, "policy": ""})
    told = accuracy([1.0] * 70 + [0.0] * 30)
    run.finish("reward", {"pairs": 900, "prompts": 40, "too_long": 0, **rated(told), "seconds": 80.0})
    run.finish("ppo", {"steps": 6, "seconds": 200.0, "peak_gb": 400.5})
    run.finish("dpo", {"pairs": 800, "held_out_accuracy": 0.71, "seconds": 90.0})
    run.finish("evaluate", {**found, "seconds": 30.5})
    second = Run(Setup(**{**vars(run.setup), "round": 2}), run.recipe)
    again = evaluation(run, held, {"start": start, "ppo-2": draw(run, held, "evaluate-2:ppo-2", 0.1)})
    second.finish("evaluate", {**again, "seconds": 20.0})
    measure(run.folder)
    return run


def draw(run: Run, held: list[Prompt], label: str, bad: float) -> list[Response]:
    dice = random.Random(label)
    texts = [(BAD if dice.random() < bad else GOOD).format(i) for i in range(len(held))]
    made = [Response(p.id, t, label, finished=not t.endswith(" ")) for p, t in zip(held, texts, strict=True)]
    run.store.add_responses(made)
    return made


def evaluation(run: Run, held: list[Prompt], answers: dict[str, list[Response]]) -> dict[str, Any]:
    """What `evaluate` does, without models."""
    worth = {n: [utility(p.text, r.text, r.finished) for p, r in zip(held, a, strict=True)] for n, a in answers.items()}
    policies: dict[str, Any] = {}
    for name, made in answers.items():
        policies[name] = {
            "utility": sum(worth[name]) / len(held),
            "words": sum(len(r.text.split()) for r in made) / len(held),
            "finished": sum(r.finished for r in made) / len(held),
            "answers": made[0].policy,
        }
        if name == "start":
            continue
        signs: dict[str, list[int]] = {}
        for p, old, new, low, high in zip(held, answers["start"], made, worth["start"], worth[name], strict=True):
            sign = (high > low) - (high < low)
            for mode in ("", p.category):
                signs.setdefault(mode, []).append(sign)
            if old.id != new.id:
                query = Task("comparison", p.id, (old.id, new.id), "evaluate")
                said = Comparison((old.id, new.id)[sign > 0]) if sign else Comparison(verdict="tie")
                run.store.add_tasks([query])
                run.store.add_feedback(
                    [
                        Feedback(
                            query.id,
                            "judge:conciseness_rubric",
                            said,
                            "2026-11-20T10:00:00Z",
                            id=f"conciseness_rubric:{query.id}",
                        )
                    ]
                )
        rates = {mode: win_rate(s.count(1), s.count(0), s.count(-1))._asdict() for mode, s in signs.items()}
        policies[name] |= {"win": rates.pop(""), "by_mode": rates, "kl": 3.25}
    agreed = accuracy([1.0] * 30 + [0.0] * 10)
    return {
        "against": "start",
        "judge": "conciseness_rubric",
        "prompts": len(held),
        "policies": policies,
        "reward_model": agreed._asdict() | {"accuracy": agreed.rate},
    }


def rated(found: Any) -> dict[str, Any]:
    return {"accuracy": found.rate, "low": found.low, "high": found.high, "n": found.n}


def measure(folder: Path) -> None:
    lines: list[dict[str, Any]] = []
    for stage in ("ppo", "ppo-2"):
        lines += [
            {"stage": stage, "step": i, "seconds": i, "score": i / 5, "reward": i / 6, "kl": 0.1 * i, "kl_k3": 0.12 * i}
            | {"length": 20 - i, "entropy": 1.2, "value_loss": 1 / i, "explained_variance": float("nan"), "loss": 0.1}
            for i in range(1, 7)
        ]
    for stage in ("reward", "dpo"):
        lines += [
            {
                "stage": stage,
                "step": i,
                "seconds": i,
                "loss": 0.7 - 0.02 * i,
                "accuracy": 0.5 + 0.03 * i,
                "margin": 0.1 * i,
            }
            for i in range(1, 12)
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "pp')


def page_of(run: Run) -> str:
    Report()(run, "report")
    return (run.folder / "report.html").read_text(encoding="utf-8")


def test_the_summary_holds_the_figures_that_programs_ask_for(run: Run) -> None:
    page_of(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert set(summary) == {"win_rate", "reward_model", "kl", "seconds", "peak_gb"}
    assert set(summary["win_rate"]) == set(summary["kl"]) == {"ppo", "dpo", "ppo-2"}
    evaluated = run.result("evaluate") or {}
    win = evaluated["policies"]["ppo"]["win"]
    assert summary["win_rate"]["ppo"] == {k: win[k] for k in ("rate", "low", "high", "n")}
    assert summary["reward_model"] == pytest.approx({"accuracy": 0.75, "n": 40, "low": 0.598, "high": 0.858}, abs=1e-3)
    assert summary["kl"]["dpo"] == 3.25
    assert summary["seconds"] == 80 + 200 + 90 + 30.5 + 20
    assert summary["peak_gb"] == 400.5


def test_the_headline_says_who_won_how_often_and_how_surely(run: Run) -> None:
    rounds = find_rounds(run.folder)
    said = headline(run.folder, rounds[:1])
    assert re.fullmatch(
        r"PPO's answers win \d+ % of \d+ held-out prompts against the start \[\d+, \d+\]; DPO's \d+ % \[\d+, \d+\].*\.",
        said,
    )
    assert headline(run.folder, rounds).startswith("After 2 rounds, PPO-2's answers win")


def test_a_figure_below_its_mark_is_said_plainly(run: Run) -> None:
    rounds = find_rounds(run.folder)
    assert verdict(rounds)[-1] == (
        "The reward model falls short: it agrees with the judge on 75.0 % of 40 held-out pairs, and it should on 80 %."
    )
    rounds[1].evaluation["policies"]["ppo-2"]["win"] |= {"low": 0.6}
    assert verdict(rounds)[0].startswith("PPO-2 falls short: the lower bound of its win rate is 60.0 %")
    rounds[1].evaluation["policies"]["ppo-2"]["win"] |= {"low": 0.61}
    rounds[1].evaluation["reward_model"] |= {"accuracy": 0.8}
    assert verdict(rounds) == []


def test_a_win_rate_about_a_half_may_be_chance(run: Run) -> None:
    rounds = find_rounds(run.folder)[:1]
    rounds[0].evaluation["policies"]["ppo"]["win"] |= {"rate": 0.52, "low": 0.44, "high": 0.6}
    assert "[44, 60], which may be chance;" in headline(run.folder, rounds)


def test_the_page_needs_nothing_from_elsewhere(run: Run) -> None:
    html = page_of(run)
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:|//)""", html)
    assert "<script" not in html


def test_text_of_a_model_is_shown_as_text(run: Run) -> None:
    run.store.add_responses([Response(p.id, ATTACK, "hostile") for p in run.store.prompts()])
    done = run.folder / "done" / "evaluate-2.json"
    done.write_text(done.read_text().replace("evaluate-2:ppo-2", "hostile"))
    html = page_of(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
    assert "never shown" not in html


def test_prompts_are_shown_evenly_by_mode_in_the_order_of_their_ids(run: Run) -> None:
    answers = _gather(run, find_rounds(run.folder)[0])
    cases = choose(answers, 8)
    assert [case.prompt.category for case in cases] == sorted(MODES) * 3
    for mode in MODES:
        ids = sorted(p.id for p in answers.prompts if p.category == mode)
        assert [case.prompt.id for case in cases if case.prompt.category == mode] == ids[:3]
    assert [shown.policy for shown in cases[0].answers] == ["start", "ppo", "dpo"]
    assert len(choose(answers, 10_000)) == len(answers.prompts)


def test_the_largest_losses_are_shown_too(run: Run) -> None:
    worst = _worst(_gather(run, find_rounds(run.folder)[0]), 3)
    assert set(worst) == {"ppo", "dpo"}
    for cases in worst.values():
        losses = [(c.answers[0].utility or 0) - (c.answers[1].utility or 0) for c in cases]
        assert losses == sorted(losses, reverse=True)
        assert all(c.answers[1].outcome == "lost" and loss > 0 for c, loss in zip(cases, losses, strict=True))
    assert "Where it got worse" in page_of(run)


def test_a_run_without_evaluation_still_reports(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "small")) as run:
        run.claim("sft", {"lr": 1e-5})
        run.finish("sft", {"demonstrations": 12, "seconds": 3.0})
        html = page_of(run)
        assert "Done so far: SFT. No policy has been measured yet." in html
        assert 'id="policies"' not in html
        assert json.loads((run.folder / "summary.json").read_text())["win_rate"] == {}


def test_an_empty_run_reports_that_nothing_is_there(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "empty")) as run:
        assert "Nothing is finished here yet." in page_of(run)


def test_a_reward_model_alone_is_reported(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "half")) as run:
        run.finish("reward", {"pairs": 9, "prompts": 3, **rated(accuracy([1.0, 1.0, 0.0])), "seconds": 1.0})
        assert "Agrees with the annotators" in page_of(run)


def test_a_judge_that_is_a_model_is_not_asked_again(run: Run) -> None:
    done = run.folder / "done" / "evaluate.json"
    done.write_text(done.read_text().replace('"conciseness_rubric"', '"some/reward-model"'))
    assert "PPO" in page_of(run)


def test_reporting_twice_gives_the_same_page(run: Run) -> None:
    assert page_of(run) == page_of(run)


def test_the_terminal_shows_every_round_and_where_the_report_is(run: Run) -> None:
    page_of(run)
    out = io.StringIO()
    Console(width=90, file=out).print(summary_table(run.folder))
    text = out.getvalue()
    assert re.search(r"PPO +\d+ % \[\d+, \d+\] +\d+ / \d+ / \d+ +0\.\d\d +\d+\.\d +3\.25", text)
    assert "PPO-2" in text
    assert "7 min 00 s in all, 400.5 GB" in text.replace("\n", " ")
    assert "report.html" in text.replace("\n", "")
    assert "falls short" in text


def test_the_command_ends_with_the_table_or_names_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["report", "--run", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'empty' / 'report.html'}\n"
    with open_run(Setup(run=tmp_path / "full", model="a/model", held_out=0.5)) as run:
        fill(run)
    assert main(["report", "--run", str(tmp_path / "full")]) == 0
    said = capsys.readouterr().out
    assert "PPO-2" in said and f"report: {tmp_path / 'full' / 'report.html'}\n" in said


def test_drift_counts_words_openings_pairs_and_copies() -> None:
    drift = measure_drift(["The snow is deep.", "The snow is deep.", "the Snow is not", "A fox ran"])
    assert drift.words == 15 / 4
    assert (drift.opening, drift.opening_share) == ("the snow is", 0.75)
    assert drift.distinct == 6 / 11  # the snow, snow is, is deep, is not, a fox, fox ran; of 3 + 3 + 3 + 2
    assert drift.repeated == 0.5


def test_a_policy_that_says_the_same_to_everyone_is_pointed_at(run: Run) -> None:
    here = find_rounds(run.folder)[1]
    before = measure_drift(["One answer is here.", "Two answers are there.", "Some third thing is said."])
    after = measure_drift(["The snow is deep and it is white, and so it is said."] * 3)
    said = careful(here, {"start": before, "ppo-2": after})
    assert any("longer than before: 4.3 words became 13.0" in line for line in said)
    assert any("100 % of PPO-2's answers begin with “the snow is”" in line for line in said)
    assert any("serve more than one prompt" in line for line in said)
    assert careful(here, {"start": before, "ppo-2": before}) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.61, 0.79, [0.6, 0.7, 0.8]),
        (-3, 14, [-10, 0, 10, 20]),
        (5, 5, [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
    ],
)
def test_axes_end_on_round_numbers_around_the_data(low: float, high: float, expected: list[float]) -> None:
    found = ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    assert len(found) <= 7
    if low != high:
        assert found == pytest.approx(expected)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(i), 1.0) for i in range(1, 10_001)]
    few = thin(points, 100)
    assert len(few) == 100
    assert (few[0][0], few[-1][0]) == (1, 10_000)
    assert thin(points[:50], 100) == points[:50]


@pytest.mark.parametrize(
    ("key", "said"),
    [("ppo-2", "PPO-2"), ("dr_grpo", "DrGRPO"), ("sft", "SFT"), ("start", "the start"), ("runs/x-2", "runs/x-2")],
)
def test_names_are_written_as_people_write_them(key: str, said: str) -> None:
    assert spoken(key) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.42, "0.4 s"), (59.4, "59 s"), (372, "6 min 12 s"), (7500, "2 h 05 min")]
)
def test_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert clock(seconds) == said


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium; without it the marker `browser` skips the tests that ask for it (conftest.py)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Visit:
    """A page that was opened, what it asked the network for and what it complained about."""

    def __init__(self, browser: "Browser", path: Path, width: int, scheme: Any) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())


CONTRASTS = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const back = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length == 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('main *')) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const front = lum(parse(svg ? style.fill : style.color).slice(0, 3)), behind = lum(back(e));
    const ratio = (Math.max(front, behind) + .05) / (Math.min(front, behind) + .05);
    found.push([ratio, e.tagName + ' ' + e.textContent.slice(0, 40)]);
  }
  return found; }"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(run: Run, browser: "Browser", scheme: str) -> None:
    page_of(run)
    visit = Visit(browser, run.folder / "report.html", 1280, scheme)
    found = visit.page.evaluate(CONTRASTS)
    assert len(found) > 200
    assert [row for row in found if row[0] < 4.5] == []
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) > 128) == (scheme == "light")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_opens_quietly_and_never_scrolls_sideways(run: Run, browser: "Browser", width: int) -> None:
    long = "w" * 400
    held = [p for p in run.store.prompts() if p.id in split(run.store.prompts(), 0.5).held_out]
    run.store.add_responses([Response(p.id, f"{long} {ATTACK}", "long") for p in held])
    done = run.folder / "done" / "evaluate-2.json"
    done.write_text(done.read_text().replace("evaluate-2:ppo-2", "long"))
    page_of(run)
    path = run.folder / "report.html"
    visit = Visit(browser, path, width, "light")
    visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = visit.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    assert visit.complaints == []
    assert [url for url in visit.asked if not url.startswith((path.as_uri(), "data:"))] == []
    assert visit.page.locator("script, img, iframe").count() == 0
    assert visit.page.locator("h1").inner_text().startswith("After 2 rounds, PPO\u20112's answers win")
    assert visit.page.locator(".chart").count() >= 11
