"""The report, on a real run folder with a real store, and in a real browser."""

import io
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from assent import registry
from assent.annotators.simulated import Simulated
from assent.cli import main
from assent.evaluation.candidates import Candidate
from assent.evaluation.judges import load_judge
from assent.functional.statistics import accuracy
from assent.records import Prompt, Response
from assent.report import sections
from assent.report.charts import ChartSpec, draw_chart, stage_curves, thin, ticks
from assent.report.comparisons import Comparisons, read_comparisons
from assent.report.formatting import display_name, duration, name_in_sentence
from assent.report.rounds import Round, find_rounds, read_results
from assent.report.sections.drift import measure_style, warnings
from assent.report.sections.regressions import largest_losses
from assent.report.sections.responses import choose_examples
from assent.report.terminal import summary_table
from assent.report.verdict import headline, missed_targets
from assent.run import Run, Setup, open_run
from assent.split import split
from assent.stages.evaluate import measure_policy
from assent.tools.doctor import find_browser
from assent.tools.report import Report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ATTACK = "<script>alert(1)</script><img src=http://example.com/x.png onerror=alert(2)>"
CATEGORIES = ("grounded", "knowledge", "creative")
GOOD = "Fresh snow number {} covers every quiet roof in town like a clean white blanket."
BAD = "I think that roof. I think that snow number {}. " + "And more and more about it, " * 9


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a run of two rounds: `ppo` and `dpo`, then `ppo-2`; four of five responses of the base model are bad."""
    with open_run(Setup(run=tmp_path / "demo", model="a/model", held_out=0.5)) as run:
        yield fill(run)


def fill(run: Run) -> Run:
    prompts = [Prompt.ask(f"Write one sentence about snow on roof {i}.", CATEGORIES[i % 3], "test") for i in range(80)]
    run.store.add_prompts(prompts)
    held_out = [p for p in prompts if p.id in split(prompts, 0.5).held_out]
    base = add_responses(run, held_out, "generate:base", 0.8)
    ppo = add_responses(run, held_out, "evaluate:ppo", 0.3)
    dpo = add_responses(run, held_out, "evaluate:dpo", 0.5)
    run.store.add_responses([Response(held_out[0].id, "A second answer, never shown.", "generate:base")])
    first = evaluate(run, held_out, {"base": base, "ppo": ppo, "dpo": dpo})
    run.recipe |= {"stages": ["generate", "reward", "ppo", "dpo", "evaluate", "report"], "rounds": 2}
    for stage in ("reward", "ppo", "dpo", "evaluate"):
        run.claim(stage, {"lr": 1e-5, "policy": ""})
    rate = accuracy([1.0] * 70 + [0.0] * 30)
    run.finish("reward", {"pairs": 900, "prompts": 40, "too_long": 0, **as_accuracy(rate), "seconds": 80.0})
    run.finish("ppo", {"steps": 6, "seconds": 200.0, "peak_gb": 400.5})
    run.finish("dpo", {"pairs": 800, "held_out_accuracy": 0.71, "seconds": 90.0})
    run.finish("evaluate", {**first, "seconds": 30.5})
    second_round = Run(Setup(**{**vars(run.setup), "round": 2}), run.recipe)
    second = evaluate(run, held_out, {"base": base, "ppo-2": add_responses(run, held_out, "evaluate-2:ppo-2", 0.1)})
    second_round.finish("evaluate", {**second, "seconds": 20.0})
    write_metrics(run.folder)
    return run


def add_responses(run: Run, prompts: list[Prompt], label: str, bad_share: float) -> list[Response]:
    rng = random.Random(label)
    texts = [(BAD if rng.random() < bad_share else GOOD).format(i) for i in range(len(prompts))]
    responses = [Response(p.id, t, label, finished=not t.endswith(" ")) for p, t in zip(prompts, texts, strict=True)]
    run.store.add_responses(responses)
    return responses


def evaluate(run: Run, prompts: list[Prompt], responses: dict[str, list[Response]]) -> dict[str, Any]:
    """Do what the stage `evaluate` does, without models."""
    judged = load_judge(run, "conciseness_rubric").compare(run, "evaluate", prompts, responses, "base")
    candidates = [Candidate(name, of_policy, None if name == "base" else 3.25) for name, of_policy in responses.items()]
    agreement = accuracy([1.0] * 30 + [0.0] * 10)
    return {
        "baseline": "base",
        "judge": "conciseness_rubric",
        "prompts": len(prompts),
        "policies": {item.policy: measure_policy(item, judged, candidates[0]).to_dict() for item in candidates},
        "reward_model": agreement._asdict() | {"accuracy": agreement.rate},
    }


def as_accuracy(rate: Any) -> dict[str, Any]:
    return {"accuracy": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n}


def write_metrics(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for stage in ("ppo", "ppo-2"):
        rows += [
            {"stage": stage, "step": i, "seconds": i, "score": i / 5, "reward": i / 6, "kl": 0.1 * i, "kl_k3": 0.12 * i}
            | {"length": 20 - i, "entropy": 1.2, "value_loss": 1 / i, "explained_variance": float("nan"), "loss": 0.1}
            for i in range(1, 7)
        ]
    for stage in ("reward", "dpo"):
        rows += [
            {"stage": stage, "step": i, "seconds": i}
            | {"loss": 0.7 - 0.02 * i, "accuracy": 0.5 + 0.03 * i, "margin": 0.1 * i}
            for i in range(1, 12)
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "pp')


def rounds_of(run: Run) -> list[Round]:
    return find_rounds(read_results(run.folder))


def comparisons_of(run: Run) -> Comparisons:
    """Return the comparisons of the first round."""
    return read_comparisons(run, rounds_of(run)[0])


def page_of(run: Run) -> str:
    Report()(run, "report")
    return (run.folder / "report.html").read_text(encoding="utf-8")


def test_summary_json_holds_the_figures(run: Run) -> None:
    page_of(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert set(summary) == {"win_rate", "reward_model", "kl", "seconds", "peak_gb"}
    assert set(summary["win_rate"]) == set(summary["kl"]) == {"ppo", "dpo", "ppo-2"}
    evaluated = run.result("evaluate") or {}
    win = evaluated["policies"]["ppo"]["win"]
    assert summary["win_rate"]["ppo"] == {k: win[k] for k in ("rate", "low", "high", "n")}
    # Wilson limits of 30 of 40 with z = 1.96.
    assert summary["reward_model"] == pytest.approx({"accuracy": 0.75, "n": 40, "low": 0.598, "high": 0.858}, abs=1e-3)
    assert summary["kl"]["dpo"] == 3.25
    assert summary["seconds"] == 80 + 200 + 90 + 30.5 + 20
    assert summary["peak_gb"] == 400.5


def test_headline_gives_win_rates_with_intervals(run: Run) -> None:
    rounds = rounds_of(run)
    results = read_results(run.folder)
    assert re.fullmatch(
        r"PPO wins \d+ % \[\d+, \d+\] of \d+ held-out prompts against the base model; DPO wins \d+ % \[\d+, \d+\].*\.",
        headline(rounds[:1], results),
    )
    assert headline(rounds, results).startswith("After 2 rounds, PPO-2 wins")


def test_missed_targets_are_named(run: Run) -> None:
    rounds = rounds_of(run)
    assert missed_targets(rounds)[-1] == (
        "The reward model misses the target: it agrees with the judge on 75.0 % of 40 held-out pairs; "
        "the target is 80 %."
    )
    policy = rounds[1].evaluation["policies"]["ppo-2"]
    agreement = rounds[1].evaluation["reward_model"]
    policy["win"] |= {"low": 0.6}
    assert missed_targets(rounds)[0].startswith("PPO-2 misses the target: the lower limit of its win rate is 60.0 %")
    policy["win"] |= {"low": 0.61}
    agreement |= {"accuracy": 0.8}
    assert missed_targets(rounds) == []


def test_headline_warns_that_a_win_rate_may_be_chance(run: Run) -> None:
    rounds = rounds_of(run)[:1]
    rounds[0].evaluation["policies"]["ppo"]["win"] |= {"rate": 0.52, "low": 0.44, "high": 0.6}
    text = headline(rounds, read_results(run.folder))
    assert re.match(r"PPO wins 52 % \[44, 60\] of \d+ .* base model, which may be chance;", text)


def test_page_loads_nothing_from_elsewhere(run: Run) -> None:
    html = page_of(run)
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:|//)""", html)
    assert "<script" not in html


def test_page_escapes_the_text_of_responses(run: Run) -> None:
    run.store.add_responses([Response(p.id, ATTACK, "hostile") for p in run.store.prompts()])
    path = run.folder / "done" / "evaluate-2.json"
    path.write_text(path.read_text().replace("evaluate-2:ppo-2", "hostile"))
    html = page_of(run)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
    assert "never shown" not in html


def test_examples_are_even_by_category_in_order_of_ids(run: Run) -> None:
    comparisons = comparisons_of(run)
    cases = choose_examples(comparisons, 8)
    assert [case.prompt.category for case in cases] == sorted(CATEGORIES) * 3
    for category in CATEGORIES:
        ids = sorted(p.id for p in comparisons.prompts if p.category == category)
        assert [case.prompt.id for case in cases if case.prompt.category == category] == ids[:3]
    assert [response.policy for response in cases[0].responses] == ["base", "ppo", "dpo"]
    assert len(choose_examples(comparisons, 10_000)) == len(comparisons.prompts)


def test_report_settings_limit_examples_and_regressions(run: Run) -> None:
    def count_prompts(num_examples: int, num_regressions: int) -> int:
        Report(num_examples=num_examples, num_regressions=num_regressions)(run, "report")
        return (run.folder / "report.html").read_text().count('class="case"')

    none = count_prompts(0, 0)
    examples = count_prompts(6, 0)
    all_of_it = count_prompts(6, 2)
    assert none == 0 < examples < all_of_it


def test_regressions_are_the_largest_losses(run: Run) -> None:
    losses = largest_losses(comparisons_of(run), 3)
    assert set(losses) == {"ppo", "dpo"}
    for cases in losses.values():
        drops = [(case.responses[0].score or 0) - (case.responses[1].score or 0) for case in cases]
        assert drops == sorted(drops, reverse=True)
        assert all(c.responses[1].outcome == "lost" and drop > 0 for c, drop in zip(cases, drops, strict=True))
    assert ">Regressions</h2>" in page_of(run)


def test_criteria_come_from_the_reward(run: Run) -> None:
    case = choose_examples(comparisons_of(run), 1)[0]
    for response in case.responses:
        criteria = response.criteria
        assert set(criteria) == {"complete", "single", "length", "topic", "substance", "plain"}
        assert response.score == pytest.approx(sum(criteria.values()) / 6)
    html = page_of(run)
    assert "the mean of the criteria" in html
    assert 'class="criteria"' in html


def test_outcomes_are_the_majority_of_an_annotators_votes(run: Run) -> None:
    first = rounds_of(run)[0]
    prompts = list(comparisons_of(run).prompts)
    responses: dict[str, list[Response]] = {}
    for policy in ("base", "ppo"):
        stored = list(run.store.responses(policy=first.policies[policy]["responses"]))
        by_prompt = {response.prompt: response for response in reversed(stored)}  # the first of each prompt
        responses[policy] = [by_prompt[prompt.id] for prompt in prompts]
    judge = load_judge(run, "simulated", Simulated(votes=3))
    votes = judge.compare(run, "evaluate", prompts, responses, "base").outcomes["ppo"]
    evaluation = {**first.evaluation, "judge": "simulated"}
    judged = read_comparisons(run, first._replace(evaluation=evaluation)).by_policy["ppo"]
    for prompt in prompts:
        balance = sum(vote.value - 0.5 for vote in votes if vote.prompt == prompt)
        assert judged[prompt.id].outcome == ("won" if balance > 0 else "lost" if balance < 0 else "tied")
        assert judged[prompt.id].score is None
    assert {"won", "lost"} <= {response.outcome for response in judged.values()}


def test_report_without_an_evaluation(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "small")) as run:
        run.claim("sft", {"lr": 1e-5})
        run.finish("sft", {"demonstrations": 12, "seconds": 3.0})
        html = page_of(run)
        assert "Finished: SFT. No policy has been measured yet." in html
        assert 'id="win-rates"' not in html
        assert json.loads((run.folder / "summary.json").read_text())["win_rate"] == {}


def test_report_of_an_empty_run(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "empty")) as run:
        assert "No stage has finished yet." in page_of(run)


def test_report_of_a_reward_model_only(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "half")) as run:
        rate = accuracy([1.0, 1.0, 0.0])
        run.finish("reward", {"pairs": 9, "prompts": 3, **as_accuracy(rate), "seconds": 1.0})
        assert "Agreement with the annotators" in page_of(run)


def test_reward_model_without_held_out_pairs_is_not_measured(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "none")) as run:
        run.finish("reward", {"pairs": 9, "prompts": 3, "seconds": 1.0})
        page = page_of(run)
        assert "there are no comparisons of held-out prompts" in page and "Agreement with" not in page
        assert "trained on 9 comparisons" in page


def test_report_does_not_run_a_judge_that_is_a_model(run: Run) -> None:
    path = run.folder / "done" / "evaluate.json"
    path.write_text(path.read_text().replace('"conciseness_rubric"', '"some/reward-model"'))
    assert "PPO" in page_of(run)
    responses = [response for case in choose_examples(comparisons_of(run), 8) for response in case.responses]
    assert all(response.score is None and not response.criteria for response in responses)
    assert not {response.outcome for response in responses} & {"won", "lost"}


def test_win_rates_at_equal_length_or_why_there_is_none(run: Run) -> None:
    page = page_of(run)
    path = run.folder / "done" / "evaluate.json"
    result = json.loads(path.read_text())
    ppo, dpo = (result["policies"][name]["length_controlled"] for name in ("ppo", "dpo"))
    assert ppo["raw"] == pytest.approx(result["policies"]["ppo"]["win"]["rate"])
    assert ppo["longer"] + ppo["shorter"] <= ppo["n"] == result["policies"]["ppo"]["win"]["n"]
    assert page.count('<td data-label="At equal length">') == 3
    dpo |= {"is_controllable": False, "rate": None, "low": None, "high": None, "reason": "cannot be controlled: why"}
    path.write_text(json.dumps(result))
    assert "cannot be controlled: why" in page_of(run)
    out = io.StringIO()
    Console(width=200, file=out).print(summary_table(run.folder))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("at equal length")]
    assert re.fullmatch(
        r"at equal length, round 1: PPO \d+ % \[\d+, \d+\]; DPO cannot be controlled: why", lines[0].rstrip()
    )
    assert lines[1].startswith("at equal length, round 2: PPO-2 ")


def test_report_is_the_same_twice(run: Run) -> None:
    assert page_of(run) == page_of(run)


def test_summary_table_shows_rounds_and_the_page(run: Run) -> None:
    page_of(run)
    out = io.StringIO()
    Console(width=90, file=out).print(summary_table(run.folder))
    text = out.getvalue()
    assert re.search(r"PPO +\d+ % \[\d+, \d+\] +\d+ / \d+ / \d+ +0\.\d\d +\d+\.\d +3\.25", text)
    assert "PPO-2" in text
    assert text.count("base model") == 1  # both rounds share it
    assert "total time 7 min 00 s, peak memory 400.5 GB" in text.replace("\n", " ")
    assert "report.html" in text.replace("\n", "")
    assert "misses the target" in text


def test_report_command_prints_a_table_or_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["report", "--run", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'empty' / 'report.html'}\n"
    with open_run(Setup(run=tmp_path / "full", model="a/model", held_out=0.5)) as run:
        fill(run)
    assert main(["report", "--run", str(tmp_path / "full")]) == 0
    out = capsys.readouterr().out
    assert "PPO-2" in out and f"report: {tmp_path / 'full' / 'report.html'}\n" in out


@pytest.fixture
def section_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a copy of report/sections/ that the registry reads; the rest of the package is linked."""
    root = tmp_path / "assent"
    (root / "report").mkdir(parents=True)
    for source, copy in ((registry.ROOT, root), (registry.ROOT / "report", root / "report")):
        for path in source.iterdir():
            if path.name not in ("report", "sections"):
                (copy / path.name).symlink_to(path)
    folder = root / "report" / "sections"
    shutil.copytree(registry.ROOT / "report" / "sections", folder)
    monkeypatch.setattr(registry, "ROOT", root)
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(folder)])
    registry.names.cache_clear()
    yield folder
    registry.names.cache_clear()


def test_two_files_add_a_section(run: Run, section_folder: Path) -> None:
    (section_folder / "cost.py").write_text(
        "class Cost:\n"
        "    order, title = 15, 'Cost'\n"
        "    def __call__(self, data):\n"
        "        return {'seconds': data.summary['seconds']} if data.rounds else None\n"
    )
    (section_folder / "cost.html.jinja").write_text("<p>All stages took {{ seconds | duration }}.</p>")
    html = page_of(run)
    assert '<h2 id="cost">Cost</h2>\n<p>All stages took 7 min 00 s.</p>' in html
    assert '<a href="#cost">Cost</a>' in html
    assert html.index('id="win-rates"') < html.index('id="cost"') < html.index('id="reward-model"')


def test_section_that_returns_none_is_left_out(tmp_path: Path, section_folder: Path) -> None:
    (section_folder / "cost.py").write_text(
        "class Cost:\n    order, title = 15, 'Cost'\n    def __call__(self, data):\n        return None\n"
    )
    with open_run(Setup(run=tmp_path / "empty")) as run:
        html = page_of(run)
    assert "Cost" not in html and 'id="reproducibility"' in html


def test_style_counts_words_openings_pairs_and_copies() -> None:
    style = measure_style(["The snow is deep.", "The snow is deep.", "the Snow is not", "A fox ran"])
    assert style.mean_words == 15 / 4
    assert (style.opening, style.opening_share) == ("the snow is", 0.75)
    assert style.distinct_2 == 6 / 11  # the snow, snow is, is deep, is not, a fox, fox ran; of 3 + 3 + 3 + 2
    assert style.duplicate_share == 0.5


def test_drift_warns_of_identical_responses(run: Run) -> None:
    round_ = rounds_of(run)[1]
    before = measure_style(["One answer is here.", "Two answers are there.", "Some third thing is said."])
    after = measure_style(["The snow is deep and it is white, and so it is said."] * 3)
    sentences = warnings(round_, {"base": before, "ppo-2": after})
    assert any("longer than the baseline's: 13.0 words instead of 4.3" in sentence for sentence in sentences)
    assert any("100 % of PPO-2's responses begin with “the snow is”" in sentence for sentence in sentences)
    assert any("word for word the response to another prompt" in sentence for sentence in sentences)
    assert warnings(round_, {"base": before, "ppo-2": before}) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.61, 0.79, [0.6, 0.7, 0.8]),
        (-3, 14, [-10, 0, 10, 20]),
        (5, 5, [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
    ],
)
def test_ticks_are_round_numbers_around_the_data(low: float, high: float, expected: list[float]) -> None:
    levels = ticks(low, high)
    assert levels[0] <= low <= high <= levels[-1]
    assert len(levels) <= 7
    if low != high:
        assert levels == pytest.approx(expected)


def test_thin_keeps_the_first_and_last_step() -> None:
    points = [(float(i), 1.0) for i in range(1, 10_001)]
    few = thin(points, 100)
    assert len(few) == 100
    assert (few[0][0], few[-1][0]) == (1, 10_000)
    assert thin(points[:50], 100) == points[:50]


def test_live_curves_have_the_points_and_ticks_of_the_report() -> None:
    rows = [{"stage": "ppo", "step": i, "seconds": i, "score": i / 10, "kl": float("nan")} for i in range(1, 1001)]
    curves = stage_curves(rows)
    assert set(curves) == {"ppo"} and set(curves["ppo"]) == {"score"}
    curve = curves["ppo"]["score"]
    assert curve.points == thin([(i, i / 10) for i in range(1, 1001)]) and curve.ticks == [0, 50, 100]
    chart = draw_chart(ChartSpec("Score", "", {"score": "score"}), {1: rows})
    assert chart is not None
    assert [tick.label for tick in chart.ticks] == ["0", "50", "100"]
    assert chart.lines[0].path.count("L") == len(curve.points) - 1


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("ppo-2", "PPO-2"),
        ("dr_grpo", "Dr. GRPO"),
        ("rejection_sampling-3", "rejection sampling-3"),
        ("sft", "SFT"),
        ("base", "base model"),
        ("runs/x-2", "runs/x-2"),
    ],
)
def test_display_names(key: str, name: str) -> None:
    assert display_name(key) == name


def test_base_model_has_an_article_in_a_sentence() -> None:
    assert (name_in_sentence("base"), name_in_sentence("ppo")) == ("the base model", "PPO")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (59.4, "59 s"), (372, "6 min 12 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Return a Chromium; without it the marker `browser` skips the tests that ask for it (conftest.py)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class OpenPage:
    """A page in the browser, with its network requests and its console messages."""

    def __init__(self, browser: "Browser", path: Path, width: int, scheme: Any) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
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
def test_page_has_contrast_in_light_and_dark(run: Run, browser: "Browser", scheme: str) -> None:
    page_of(run)
    opened = OpenPage(browser, run.folder / "report.html", 1280, scheme)
    contrasts = opened.page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [row for row in contrasts if row[0] < 4.5] == []
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) > 128) == (scheme == "light")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_page_fits_the_width_and_logs_nothing(run: Run, browser: "Browser", width: int) -> None:
    long = "w" * 400
    held_out = [p for p in run.store.prompts() if p.id in split(run.store.prompts(), 0.5).held_out]
    run.store.add_responses([Response(p.id, f"{long} {ATTACK}", "long") for p in held_out])
    path = run.folder / "done" / "evaluate-2.json"
    path.write_text(path.read_text().replace("evaluate-2:ppo-2", "long"))
    page_of(run)
    path = run.folder / "report.html"
    opened = OpenPage(browser, path, width, "light")
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = opened.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith((path.as_uri(), "data:"))] == []
    assert opened.page.locator("script, img, iframe").count() == 0
    assert opened.page.locator("h1").inner_text().startswith("After 2 rounds, PPO\u20112 wins")
    assert opened.page.locator(".chart").count() >= 11
