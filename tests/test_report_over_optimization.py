"""The report's section on over-optimisation: its sentences, its pictures, and its page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assent.functional.overoptimization import best_of_n_kl
from assent.report.alarm import alarm_sentence
from assent.report.charts import HEIGHT, LEFT, RIGHT, WIDTH
from assent.report.data import ReportData
from assent.report.over_optimization import (
    LABEL_HEIGHT,
    NUM_ERRORS,
    card_rate,
    draw_best_of_n,
    draw_probes,
    fit_note,
    rows,
    sentences,
)
from assent.report.page import render_page
from assent.report.sections.over_optimization import OverOptimization
from assent.run import Run, Setup, open_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
VOID = ("meta", "link", "br", "img", "hr", "input")


def policy(gold: float, equivalent_n: int | None, kl: float | None = 4.0, se: float | None = 0.01) -> dict[str, Any]:
    return {"kl": kl, "gold": gold, "gold_se": se, "proxy": 2.0, "equivalent_n": equivalent_n}


def best_of_n(*golds: float, se: float | None = 0.01, **policies: dict[str, Any]) -> dict[str, Any]:
    """Return best of 1, 2, 4, ... with these judge's scores; the reward model's score is 0, 1, 2, ..."""
    curve = [
        {"n": 2**i, "kl": best_of_n_kl(2**i), "proxy": float(i), "gold": gold, "gold_se": se}
        for i, gold in enumerate(golds)
    ]
    return {
        "prompts": 32,
        "n": curve[-1]["n"] if curve else 4,
        "curve": curve,
        "fit": None,
        "gold_mean": golds[0] if golds else 0.5,
        "gold_sd": 0.1,
        "policies": policies,
    }


def card(accuracy: float, low: float, high: float) -> dict[str, Any]:
    longer = {"rate": 0.4, "low": 0.3, "high": 0.5}
    limits = {"accuracy": accuracy, "low": low, "high": high}
    return {"n": 32, "pairs": 600, "spearman": 0.25, **limits, "longer_wins": longer}


NO_PAIRS = {"n": 0, "pairs": 0, "spearman": None}


def draws(best: Mapping[str, Any], **cards: Mapping[str, Any]) -> dict[str, Any]:
    return {"best_of_n": best, "cards": cards}


def say(best: Mapping[str, Any], **cards: Mapping[str, Any]) -> str:
    return " ".join(sentences(draws(best, **cards), "base"))


def probe(fired_at: int | None = 12, **changes: Any) -> dict[str, Any]:
    scores = (0.5, 0.7, 0.6, 0.5)
    points = [
        {"step": 4 * i, "score": score, "score_se": 0.05, "score_sd": 0.2, "reward": float(i), "kl": i / 2, "z": None}
        for i, score in enumerate(scores)
    ]
    example = {"prompt": f"What? {ATTACK}", "best": f"Good {ATTACK}", "last": ""}
    return {
        "judge": "conciseness_rubric", "prompts": 64, "points": points, "fired_at": fired_at, "best_step": 4,
        "kept_step": 4, "stopped": True, "examples": [example], **changes,
    }  # fmt: skip


def test_policy_equals_a_best_of_n() -> None:
    assert say(best_of_n(0.5, 0.6, 0.72, ppo=policy(0.71, 4))).startswith(
        "PPO's responses score 0.71 with the judge, as much as the best of 4 responses of the base model, chosen by "
        "the reward model."
    )


def paired(*margins: tuple[float, float | None]) -> list[dict[str, Any]]:
    """Return the margins of a policy over the best of 1, 2, 4, ...: differences with their errors."""
    return [{"n": 2**i, "difference": difference, "se": se} for i, (difference, se) in enumerate(margins)]


@pytest.mark.parametrize(
    ("gold", "n", "errors", "words"),
    [
        (0.55, 2, (0.1, 0.01), ", one response of the base model 0.50: no difference that 32 prompts can show."),
        (0.55, 2, (None, None), ", one response of the base model 0.50: no difference that 32 prompts can show."),
        (0.45, 1, (0.02, 0.02), ", less than one response of the base model (0.50): it was not worth training."),
        (0.55, 2, (0.02, 0.03), ", as much as the best of 2 responses of the base model"),
        (0.55, 2, (0.02, 0.02), ", more than one response and less than the best of 2 responses of the base model"),
        (0.65, 4, (0.02, 0.02, 0.02), ", more than the best of 2 and less than the best of 4 responses of the base"),
        (0.65, 4, (0.02, 0.03, 0.02), ", as much as the best of 2 responses of the base model"),
        (0.75, None, (0.02, 0.02, 0.03), ", as much as the best of 4 responses of the base model"),
        (0.75, None, (0.02, 0.02, 0.02), ", more than the best of 4 responses of the base model"),
    ],
)
def test_paired_margins_decide_which_n_it_equals(
    gold: float, n: int | None, errors: tuple[float | None, ...], words: str
) -> None:
    golds = (0.5, 0.6, 0.7)[: max(len(errors), 2)]
    margins = paired(*((gold - best, error) for best, error in zip(golds, errors, strict=True)))
    for unpaired in (0.001, 9.0):  # it does not matter
        point = {**policy(gold, n, se=unpaired), "margins": margins}
        assert f"score {gold:.2f} with the judge{words}" in say(best_of_n(*golds, se=unpaired, ppo=point))


def test_paired_errors_decide_whether_the_curve_turns() -> None:
    def curve(golds: Sequence[float], fall: float, rise: float, error: float) -> str:
        changes = {"fall": {"n_peak": 2, "difference": fall, "se": error}, "rise": {"difference": rise, "se": error}}
        return say({**best_of_n(*golds, se=0.04), **changes})

    assert "flat within its error" in say(best_of_n(0.5, 0.55, 0.5, se=0.04))
    assert "turns over: 0.55 for the best of 2, but 0.50 for the best of 4" in curve((0.5, 0.55, 0.5), 0.05, 0, 0.02)
    assert "flat within its error" in curve((0.5, 0.55, 0.5), 0.05, 0, 0.03)
    assert "rises with n: 0.50 for one response" in curve((0.5, 0.54, 0.55), 0, 0.05, 0.02)
    assert "falls with n: 0.55 for one response" in curve((0.55, 0.54, 0.5), 0.05, -0.05, 0.02)


def test_policy_is_beyond_what_was_measured() -> None:
    rising = say(best_of_n(0.5, 0.6, 0.7, 0.75, ppo=policy(0.8, None)))
    assert "0.80 with the judge, more than the best of 8 responses of the base model" in rising
    assert "chosen by the reward model, the most that was measured." in rising
    falling = say(best_of_n(0.5, 0.7, 0.6, ppo=policy(0.8, None)))
    assert "more than the best of 2 responses" in falling and "the highest of up to 4." in falling
    misled = say(best_of_n(0.7, 0.6, 0.5, ppo=policy(0.8, None)))
    assert "more than one response of the base model, the highest of up to 4." in misled


def test_policy_below_one_response_was_not_worth_it() -> None:
    worse = say(best_of_n(0.5, 0.6, ppo=policy(0.4, 1)))
    assert "score 0.40 with the judge, less than one response of the base model (0.50): it was not worth" in worse
    unsure = say(best_of_n(0.5, 0.6, ppo=policy(0.48, 1)))  # two standard errors of the difference are .028
    assert "one response of the base model 0.50: no difference that 32 prompts can show." in unsure
    alone = {**best_of_n(0.5, 0.6, se=None, ppo=policy(0.1, 1, se=None)), "prompts": 1}
    assert "no difference that 1 prompt can show." in say(alone)


def test_without_reward_model_only_scores_are_said() -> None:
    best = best_of_n(ppo=policy(0.8, None))
    assert sentences(draws(best), "base") == [
        "PPO's responses score 0.80 with the judge, those of the base model 0.50."
    ]
    assert draw_best_of_n(best) is None and [row.name for row in rows(best)] == ["PPO"]


@pytest.mark.parametrize(
    ("golds", "se", "words"),
    [
        ((0.5, 0.6, 0.7), 0.01, "rises with n: 0.50 for one response, 0.70 for the best of 4."),
        ((0.5, 0.7, 0.6), 0.01, "turns over: 0.70 for the best of 2, but 0.60 for the best of 4, while the reward"),
        ((0.5, 0.7, 0.6), 0.04, "flat within its error: 0.50 for one response, 0.60 for the best of 4, while the"),
        ((0.5, 0.7, 0.69), 0.01, "rises with n: 0.50 for one response, 0.69 for the best of 4."),
        (
            (0.7, 0.6, 0.5),
            0.01,
            "falls with n: 0.70 for one response, 0.50 for the best of 4, while the reward model's",
        ),
        ((0.5, 0.7, 0.6), None, "is 0.50 for one response, 0.60 for the best of 4; one prompt cannot show whether"),
    ],
)
def test_curve_turns_over_only_beyond_its_error(golds: tuple[float, ...], se: float | None, words: str) -> None:
    assert words in say(best_of_n(*golds, se=se))


def test_one_draw_has_no_curve_to_speak_of() -> None:
    assert sentences(draws(best_of_n(0.5)), "base") == []
    assert draw_best_of_n(best_of_n(0.5)) is None


def test_card_says_where_the_reward_model_is_blind() -> None:
    cards = {"base": card(0.64, 0.58, 0.7), "ppo": card(0.49, 0.43, 0.55)}
    text = say(best_of_n(0.5), **cards)
    assert "in 64 % [58, 70] of the base model's pairs and 49 % [43, 55] of PPO's: it cannot tell" in text
    assert text.endswith("it cannot tell better from worse among PPO's.")
    three = say(best_of_n(0.5), **cards, dpo=card(0.3, 0.2, 0.4), grpo=card(0.5, 0.4, 0.6))
    assert "pairs, 49 % [43, 55] of PPO's, 30 % [20, 40] of DPO's and 50 % [40, 60] of GRPO's" in three
    assert three.endswith("among PPO's and GRPO's; it prefers the worse among DPO's.")
    sure = say(best_of_n(0.5), base=card(0.64, 0.58, 0.7), ppo=card(0.6, 0.52, 0.7))
    assert sure.endswith("of the base model's pairs and 60 % [52, 70] of PPO's.")


def test_card_without_pairs_is_not_mentioned() -> None:
    assert sentences(draws(best_of_n(0.5), base=NO_PAIRS), "base") == []
    assert card_rate(NO_PAIRS) is None
    text = say(best_of_n(0.5), base=NO_PAIRS, ppo=card(0.64, 0.58, 0.7))
    assert text.endswith("in 64 % [58, 70] of PPO's pairs.")


def test_rows_give_gains_in_deviations() -> None:
    best = best_of_n(0.5, 0.6, ppo=policy(0.7, None), dpo=policy(0.4, 1, kl=None), rloo=policy(0.5, 1, kl=-0.1))
    table = {row.name: row for row in rows(best)}
    assert list(table) == ["One response", "Best of 2", "PPO", "DPO", "RLOO"]
    assert [row.gain for row in table.values()] == pytest.approx([0, 1, 2, -1, 0])
    assert table["Best of 2"].distance == pytest.approx(math.sqrt(math.log(2) - 0.5))
    assert (table["PPO"].distance, table["DPO"].distance, table["RLOO"].distance) == (2, None, 0)
    assert {row.gain for row in rows({**best, "gold_sd": 0.0})} == {None}


def test_picture_places_a_policy_at_its_distance() -> None:
    picture = draw_best_of_n(best_of_n(0.5, 0.6, ppo=policy(0.7, None), dpo=policy(0.4, 1, kl=None)))
    assert picture is not None
    judge, reward = picture.panels
    curve, ppo = judge.traces  # dpo has no distance
    # The axis ends at d = 2 = sqrt(4): one response is at its left end, PPO at its right one.
    assert (curve.dots[0][0], ppo.dots[0][0]) == (LEFT, WIDTH - RIGHT)
    assert [label.text for label in judge.labels] == ["PPO", "best of 2"]
    assert [label.anchor for label in judge.labels] == ["end", "start"]
    assert [trace.style for trace in reward.traces] == ["dashed", "solid"]
    assert curve.bars.count("M") == 2 and not reward.traces[0].bars
    assert picture.height == 14 + 2 * HEIGHT
    assert "One response: 0.50; Best of 2: 0.60 at distance 0.4; PPO: 0.70 at distance 2.0" in picture.description


def test_error_bar_is_two_errors_on_each_side() -> None:
    picture = draw_best_of_n(best_of_n(0.0, 1.0, se=0.25))
    assert picture is not None
    ticks = [tick.y for tick in picture.panels[0].ticks]  # of -1, 0, 1, 2
    unit = ticks[0] - ticks[1]
    _, bar = picture.panels[0].traces[0].bars.split("M")[1:]
    low, high = (float(part) for part in bar.split(" ")[1].split("V"))
    assert low - high == pytest.approx(2 * NUM_ERRORS * 0.25 * unit, abs=0.2)


def test_labels_of_equal_policies_do_not_cover_another() -> None:
    picture = draw_best_of_n(best_of_n(0.5, 0.6, ppo=policy(0.7, None, kl=1.0), dpo=policy(0.7, None, kl=1.0)))
    assert picture is not None
    ys = sorted(label.y for label in picture.panels[0].labels)
    assert all(high - low > LABEL_HEIGHT - 0.2 for low, high in pairwise(ys))


def test_fitted_curve_is_drawn_as_far_as_measured() -> None:
    fit = {"alpha": 2.0, "beta": 0.5, "peak_distance": 2.0, "peak_reward": 2.0}
    best = {**best_of_n(0.5, 0.6, 0.7, ppo=policy(0.8, None)), "fit": fit}
    picture = draw_best_of_n(best)
    assert picture is not None
    thin = picture.panels[0].traces[-1]
    farthest = picture.panels[0].traces[0].dots[-1][0]
    assert thin.style == "thin" and thin.dots == ()
    assert thin.path.split("L")[-1].split(" ")[0] == str(farthest)
    assert "fitted by d (2 \u2212 0.5 d)" in fit_note(best)
    assert fit_note(best).endswith("its peak, at d = 2.0, is extrapolated, since the best of 4 is at 0.8.")
    inside = fit_note({**best, "fit": {**fit, "peak_distance": 0.5}})
    assert inside.endswith("its peak is at d = 0.5.")
    endless = fit_note({**best, "fit": {"alpha": 1.0, "beta": -0.5, "peak_distance": None, "peak_reward": None}})
    assert "d (1 + 0.5 d)" in endless and endless.endswith("it has no peak.")
    empty = {**best, "fit": {"alpha": None, "beta": None, "peak_distance": None, "peak_reward": None}}
    assert fit_note(empty) == fit_note({**best, "fit": None}) == ""
    assert draw_best_of_n(empty) == draw_best_of_n({**best, "fit": None})


def test_probes_mark_the_best_step_and_the_alarm() -> None:
    picture = draw_probes(probe())
    width = WIDTH - LEFT - RIGHT
    assert [(mark.text, mark.is_alarm) for mark in picture.marks] == [
        ("best probe, step 4", False),
        ("alarm, step 12", True),
    ]
    assert [mark.x for mark in picture.marks] == pytest.approx([LEFT + width / 3, WIDTH - RIGHT], abs=0.1)
    assert picture.description.startswith("Judge's score: 0.50 at step 0, 0.50 at step 12; best probe, step 4")
    assert len(draw_probes(probe(fired_at=None)).marks) == 1


def test_probes_without_errors_or_rewards_are_drawn() -> None:
    points = [{**point, "score_se": None, "reward": None} for point in probe()["points"]]
    judge, reward = draw_probes(probe(points=points)).panels
    assert not judge.traces[0].bars and reward.traces == ()
    assert draw_probes(probe(points=points[:1], best_step=0, fired_at=None)).across[1].text == ""


class Structure(HTMLParser):
    """Reads a page, and fails where an element is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.pictures += [values.get("aria-label") or ""] if values.get("role") == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(run=tmp_path / "demo", model="a/model")) as run:
        yield run


def evaluation(**draws_or_nothing: Any) -> dict[str, Any]:
    row = {"judge_score": 0.5, "mean_words": 9.0, "eos_rate": 1.0, "responses": "x"}
    return {
        "baseline": "base", "judge": "conciseness_rubric", "prompts": 40, "policies": {"base": row},
        "reward_model": {}, **draws_or_nothing,
    }  # fmt: skip


def section(run: Run, results: Mapping[str, Any]) -> str:
    """Return the page from this section's heading to the next; empty if the section is absent."""
    page = render_page(ReportData(run, results))
    Structure(page)
    _, heading, rest = page.partition('<h2 id="over-optimization">')
    return heading + rest.partition("<h2")[0]


def test_old_runs_have_no_section(run: Run) -> None:
    results = {"ppo": {"steps": 9}, "evaluate": evaluation()}
    assert OverOptimization()(ReportData(run, results)) is None
    assert section(run, results) == section(run, {}) == ""


def test_section_shows_both_pictures_and_tables(run: Run) -> None:
    measured = draws(
        best_of_n(0.5, 0.6, 0.7, ppo=policy(0.71, None)), base=card(0.64, 0.58, 0.7), ppo=card(0.49, 0.43, 0.55)
    )
    html = section(run, {"ppo": {"probe": probe()}, "evaluate": evaluation(draws=measured)})
    pictures = Structure(html).pictures
    assert [label.partition(".")[0] for label in pictures[:2]] == ["Best of n beside training", "Probes of PPO"]
    assert html.index("PPO: the reward is over\u2011optimised: conciseness_rubric") < html.index("responses score 0.71")
    assert html.count("<tr><td>") == 4 + 2 and "Round" not in html
    assert "alarm, step 12" in html and "Disagreement" not in html


def test_section_escapes_the_text_of_a_policy(run: Run) -> None:
    html = section(run, {"grpo": {"probe": probe()}})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script" not in html and "<img" not in html
    assert "(empty)" in html and "at its best probe and at the alarm" in html
    assert "Best of n:" not in html  # nothing of it was measured


def test_examples_are_of_the_alarm_not_of_the_end(run: Run) -> None:
    html = section(run, {"grpo": {"probe": probe(fired_at=8, stopped=False)}})
    assert "<h4>Best probe, step 4</h4>" in html and "<h4>Alarm, step 8</h4>" in html and "step 12</h4>" not in html


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ((1.0, 3.0), "the reward is over-optimised: {}, while the reward rose from 1.00 to 3.00"),
        ((3.0, 1.0), "{}, and the reward too (3.00 to 1.00): training went wrong"),
        ((1.0, 1.0), "{}, and the reward did not rise (1.00 to 1.00): training went wrong"),
    ],
)
def test_over_optimised_means_that_the_reward_rose(rewards: tuple[float, float], words: str) -> None:
    points = probe()["points"]
    points[1]["reward"], points[3]["reward"] = rewards
    fall = "conciseness_rubric fell from 0.70 at step 4 to 0.50 at step 12"
    end = "training stopped there, and the policy of step 4 is kept."
    assert alarm_sentence("grpo", probe(points=points)) == f"grpo: {words.format(fall)}; {end}"
    assert alarm_sentence("grpo", probe(points=points, stopped=False)).endswith("; training went on.")


def test_probes_without_an_alarm_show_no_examples(run: Run) -> None:
    html = section(run, {"grpo": {"probe": probe(fired_at=None, stopped=False)}})
    assert "GRPO: conciseness_rubric raised no alarm in 4 probes" in html
    assert "<details>" not in html and "verdict" not in html


def test_rounds_are_apart_and_the_last_is_first(run: Run) -> None:
    first, second = (draws({**best_of_n(0.5, 0.6), "policies": {key: policy(0.7, None)}}) for key in ("grpo", "grpo-2"))
    results = {
        "grpo": {"probe": probe()},
        "evaluate": evaluation(draws=first),
        "grpo-2": {"probe": probe(fired_at=None)},
        "evaluate-2": evaluation(draws=second),
    }
    html = section(run, results)
    new, _, old = html.partition("<h3>Round 1</h3>")
    assert "<h3>Round 2</h3>" in new
    assert "GRPO-2</td>" in new and "Probes of GRPO-2" in new and "alarm, step" not in new
    assert "GRPO</td>" in old and "alarm, step 12" in old and "GRPO-2" not in old


def test_values_that_are_none_leave_a_gap(run: Run) -> None:
    empty = {"kl": None, "gold": 0.4, "gold_se": None, "proxy": None, "equivalent_n": 1}
    disagreeing = {**card(0.49, 0.43, 0.55), "disagreement": 0.31}
    best = {**best_of_n(0.5, se=None, ppo=empty), "gold_sd": 0.0}
    html = section(run, {"evaluate": evaluation(draws=draws(best, base=NO_PAIRS, ppo=disagreeing))})
    assert "None" not in html and '<svg class="chart"' not in html and "no pair" in html
    assert '<td data-label="Disagreement">0.31</td>' in html and '<td data-label="Disagreement"></td>' in html
    alone = section(run, {"evaluate": evaluation(draws=draws(best_of_n(ppo=policy(0.8, None))))})
    assert "those of the base model 0.50." in alone and "Agrees with the judge" not in alone


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_section_fits_the_width(run: Run, chromium: "Browser", width: int) -> None:
    long = {"prompt": "w" * 400, "best": "w" * 400, "last": "w" * 400}
    best = best_of_n(0.5, 0.6, ppo=policy(0.7, None), rejection_sampling=policy(0.69, None, kl=3.9))
    results = {"ppo": {"probe": probe(examples=[long])}, "evaluate": evaluation(draws=draws(best, base=NO_PAIRS))}
    path = run.folder / "report.html"
    path.write_text(render_page(ReportData(run, results)), encoding="utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 900})
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert messages == []
    page.close()
