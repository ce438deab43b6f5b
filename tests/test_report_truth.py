"""The report's sections on truthfulness, calibration and texts: what they say, draw and leave out."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from assent.evaluation.calibration import compare_calibration
from assent.evaluation.text_metrics import measure_categories, measure_texts, measure_within
from assent.evaluation.truthfulness import measure_truthfulness
from assent.functional.calibration import measure_calibration, reliability_bins
from assent.functional.finite import replace_nonfinite
from assent.functional.grading import Grade
from assent.functional.statistics import wilson
from assent.records import Prompt, Response
from assent.report import calibration, truthfulness
from assent.report.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH
from assent.report.data import ReportData
from assent.report.formatting import no_break
from assent.report.reward_card import MARGIN, SIZE, place_bins
from assent.report.sections.calibration import Calibration
from assent.report.sections.text import Text, category_tables, sentences, varieties
from assent.report.sections.truthfulness import Truthfulness
from assent.run import Run, Setup, open_run
from assent.tools.report import Report

LETTERS: dict[str, Grade] = {"R": "right", "I": "refused", "W": "wrong"}
ATTACK = "<script>alert(1)</script>"
BASE = "R" * 42 + "I" * 5 + "W" * 53
CAUTIOUS = "R" * 26 + "I" * 16 + "I" * 5 + "W" * 12 + "I" * 41
"""Of the base's 42 right answers it refuses 16."""


def truth(letters: str, before: str | None = None, confidences: Sequence[float] | None = None) -> dict[str, Any]:
    grades = {str(i): LETTERS[letter] for i, letter in enumerate(letters)}
    before_grades = None if before is None else {str(i): LETTERS[letter] for i, letter in enumerate(before)}
    by_id = None if confidences is None else {str(i): value for i, value in enumerate(confidences)}
    row: dict[str, Any] = replace_nonfinite(measure_truthfulness(grades, before_grades, by_id))
    return row


def calibrated(confidence: float, right: int, n: int, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the calibration of a policy that is always equally sure, and right on the first questions."""
    confidences, correct = [confidence] * n, [int(i < right) for i in range(n)]
    limits = wilson(right, n)
    row: dict[str, Any] = {
        **measure_calibration(confidences, correct, 10)._asdict(),
        "low": limits.low,
        "high": limits.high,
        "bins": [point._asdict() for point in reliability_bins(confidences, correct, 10)],
        "prompts": [str(i) for i in range(n)],
        "confidences": confidences,
        "correct": correct,
    }
    change = {} if before is None else {"change": compare_calibration(before, row)}
    result: dict[str, Any] = replace_nonfinite(row | change)
    return result


def difference(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


NO_CHANGE = {"n": 200} | {name: difference(0.01, -0.1, 0.1) for name in ("brier", "nll", "accuracy", "auroc")}


def change_sentence(**changes: Any) -> str:
    """Return what is said of a change from the baseline."""
    result = calibrated(0.6, 60, 100) | {"change": NO_CHANGE | changes}
    (line,) = calibration.sentences({"ppo": result}, "base", "choices")
    return line.partition("can tell. ")[2]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(run=tmp_path / "demo", model="a/model", held_out=0.5)) as run:
        run.store.add_prompts([Prompt.ask(f"Where is duck {i}?") for i in range(8)])
        yield run


def evaluation(policies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a result of `evaluate` in which the first policy is the baseline."""
    plain = {"judge_score": None, "mean_words": 9.0, "eos_rate": 1.0, "responses": "none"}
    win = {"rate": 0.7, "low": 0.6, "high": 0.8, "n": 80, "wins": 50, "ties": 12, "losses": 18}
    compared = {"win": win, "by_category": {"creative": win}, "kl": 2.0}
    baseline = next(iter(policies))
    rows = {name: plain | ({} if name == baseline else compared) | row for name, row in policies.items()}
    return {"baseline": baseline, "judge": "conciseness_rubric", "prompts": 80, "policies": rows, "reward_model": {}}


def finish(run: Run, policies: dict[str, dict[str, Any]], number: int = 1) -> ReportData:
    Run(Setup(**{**vars(run.setup), "round": number}), run.recipe).finish("evaluate", evaluation(policies))
    names = ["evaluate", *(f"evaluate-{i}" for i in range(2, number + 1))]
    return ReportData(run, {name: result for name in names if (result := run.result(name))})


def page_of(run: Run) -> str:
    Report()(run, "report")
    return (run.folder / "report.html").read_text(encoding="utf-8")


# Truthfulness


def test_a_policy_stands_beside_the_baseline() -> None:
    (line,) = truthfulness.sentences({"base": truth(BASE), "sft": truth(CAUTIOUS, BASE)}, "base")
    assert re.fullmatch(
        r"SFT is wrong on 12 % \[7, 20\] of 100 questions instead of 53 %, and right on 26 % \[18, 35\] instead of "
        r"42 %: it refuses 38 % \[25, 53\] of what the base model got right\.",
        line,
    )


def test_pairs_show_a_change_that_the_intervals_hide() -> None:
    # Right answers change on 16 of 100 questions only, all downwards: -.16, error .0368, limits -.23 and -.09.
    row = truth(CAUTIOUS, BASE)
    assert row["change"]["right"] == pytest.approx(difference(-0.16, -0.2322, -0.0878), abs=1e-4)
    older = {name: value for name, value in row.items() if name != "change"}
    (line,) = truthfulness.sentences({"base": truth(BASE), "sft": older}, "base")
    assert line.endswith("The change of right answers may be chance: the intervals overlap.")
    # As many right answers lost as won: the difference is 0.
    swapped = truth("W" * 10 + "R" * 32 + "I" * 5 + "R" * 10 + "W" * 43, BASE)
    (line,) = truthfulness.sentences({"base": truth(BASE), "sft": swapped}, "base")
    assert line.endswith("The change of right and wrong answers may be chance.")


def test_equal_policies_may_differ_by_chance_only() -> None:
    (line,) = truthfulness.sentences({"base": truth(BASE), "sft": truth(BASE, BASE)}, "base")
    assert "it refuses nothing of what the base model got right" in line
    assert line.endswith("The change of right and wrong answers may be chance.")


def test_a_baseline_without_right_answers_has_no_over_refusal() -> None:
    (line,) = truthfulness.sentences({"base": truth("W" * 9), "sft": truth("R" * 9, "W" * 9)}, "base")
    assert line == (
        "SFT is wrong on 0 % [0, 30] of 9 questions instead of 100 %, and right on 100 % [70, 100] instead of 0 %."
    )


def test_a_single_policy_has_three_shares() -> None:
    assert truthfulness.sentences({"base": truth(BASE)}, "base") == [
        "The base model is right on 42 % [33, 52] of 100 questions, refuses 5 % [2, 11] and is wrong on 53 % [43, 62]."
    ]
    (line,) = truthfulness.sentences({"ppo": truth(CAUTIOUS, BASE)}, "base")
    assert line.startswith("PPO is right on 26 %")


def test_the_curve_ends_where_a_policy_refuses() -> None:
    letters = "R" * 15 + "W" * 5 + "I" * 20
    chart = truthfulness.draw_coverage({
        "base": truth(BASE), "ppo": truth(letters, confidences=[1 - i / 100 for i in range(40)]),
    })  # fmt: skip
    assert chart is not None
    (line,) = chart.lines
    assert (line.name, line.last, line.is_dashed) == ("PPO, 50 % answered", "75 %", False)
    middle, three_quarters = (LEFT + WIDTH - RIGHT) / 2, TOP + 0.25 * (HEIGHT - TOP - 22)
    ((x, y),) = line.dots
    assert (x, y) == pytest.approx((middle, three_quarters), abs=0.06)
    assert line.path.count("L") == 10  # from 10 to 20 questions


def test_without_confidences_there_is_no_curve() -> None:
    few = truth("RRRWW", confidences=[0.9, 0.8, 0.7, 0.6, 0.5])
    assert truthfulness.draw_coverage({"base": truth(BASE), "few": few}) is None
    none = truth("IIIII", confidences=[0.9])
    assert (none["aurc"], none["curve"]) == (None, []) and truthfulness.draw_coverage({"base": none}) is None


def test_the_page_shows_every_share_in_words(run: Run) -> None:
    finish(run, {"base": {"truthfulness": truth(BASE)}, "sft": {"truthfulness": truth("I" * 100, BASE, [0.5])}})
    page = page_of(run)
    assert 'role="img" aria-label="SFT: right 0 %, refused 100 %, wrong 0 %"' in page
    assert '<i class="refused" style="width: 100.00%">' in page
    assert "Over-refusal" in page and "AURC" in page and "Unanswerable" not in page


# Calibration


def test_confidence_beyond_chance_is_overconfident() -> None:
    (line,) = calibration.sentences({"base": calibrated(0.9, 120, 200)}, "base", "choices")
    # T of logit(.9) to say .6: ln 9 / ln 1.5 = 5.4.
    assert line == (
        "The base model is right on 60 % of 200 choices and sure of 90 % on average: overconfident. "
        "A temperature of 5.4 would help most."
    )


@pytest.mark.parametrize(
    ("confidence", "right", "ending"),
    [
        (0.6, 61, ": calibrated, as far as so many choices can tell."),
        (0.6, 90, ": underconfident. A temperature of 0.2 would help most."),
        (0.8, 40, ": overconfident. No temperature would mend it."),
    ],
)
def test_levels_of_confidence(confidence: float, right: int, ending: str) -> None:
    (line,) = calibration.sentences({"ppo": calibrated(confidence, right, 100)}, "base", "choices")
    assert line.endswith(ending)


def test_errors_on_both_sides_are_no_overconfidence() -> None:
    result = calibrated(0.6, 60, 100) | {"ece": 0.3}
    (line,) = calibration.sentences({"ppo": result}, "base", "choices")
    assert line.endswith("on average, but too sure of some and not sure enough of others.")


def test_a_policy_that_refuses_all_gave_no_answers(run: Run) -> None:
    silent = calibrated(0.5, 0, 0)
    assert silent["accuracy"] is None
    assert calibration.sentences({"ppo": silent | {"change": NO_CHANGE}}, "base", "answers") == ["PPO gave no answers."]
    data = finish(run, {"base": {"calibration": {"answers": calibrated(0.6, 30, 50) | {"refused": 3}}},
                        "ppo": {"calibration": {"answers": silent | {"refused": 53}}}})  # fmt: skip
    values = Calibration()(data)
    assert values is not None and [item.title for item in values["kinds"][0].diagrams] == ["base model"]
    assert "and 53 refused" in page_of(run)


def test_proper_scores_decide_what_training_did() -> None:
    assert change_sentence() == "No difference in calibration that 200 choices can show."
    assert change_sentence(brier=difference(0.031, 0.010, 0.052)) == (
        "Training made it worse calibrated: its Brier score rose by 0.031 [0.010, 0.052]."
    )
    assert change_sentence(brier=difference(-0.031, -0.052, -0.010), nll=difference(-0.2, -0.3, -0.1)) == (
        "Training made it better calibrated: its Brier score fell by 0.031 [0.010, 0.052] and its negative "
        "log-likelihood fell by 0.200 [0.100, 0.300]."
    )
    assert change_sentence(brier=difference(0.03, 0.01, 0.05), nll=difference(-0.2, -0.3, -0.1)).startswith(
        "Training changed its calibration both ways: its Brier score rose"
    )


def test_a_change_of_accuracy_is_not_called_calibration() -> None:
    worse, lower = difference(0.03, 0.01, 0.05), difference(-0.2, -0.3, -0.1)
    assert change_sentence(brier=worse, accuracy=lower) == (
        "After training its Brier score rose by 0.030 [0.010, 0.050]; but these scores count accuracy too, which fell "
        "by 0.200 [0.100, 0.300]."
    )
    higher = difference(0.2, 0.1, 0.3)
    assert change_sentence(brier=worse, accuracy=higher).startswith("Training made it worse calibrated")


def test_changes_without_limits_decide_nothing() -> None:
    unknown = difference(0.1, None, None)
    assert change_sentence(brier=unknown, nll=unknown).startswith("No difference in calibration")
    assert change_sentence(n=1, brier=unknown, nll=unknown) == "Too few choices to compare it with the base model."


def test_a_real_comparison_is_said_of_both_policies() -> None:
    base = calibrated(0.6, 120, 200)
    lines = calibration.sentences({"base": base, "ppo": calibrated(0.95, 120, 200, base)}, "base", "choices")
    assert "Training" not in lines[0]
    # Brier of a constant c with accuracy a: (c - a)^2 + a (1 - a), so .35^2 = .1225 more.
    assert "Training made it worse calibrated: its Brier score rose by 0.122 [" in lines[1]


def test_calibration_error_stands_beside_its_floor() -> None:
    (drawn,) = calibration.draw_diagrams({"ppo": calibrated(0.9, 120, 200)})
    assert drawn.title == "PPO" and re.fullmatch(r"ECE 0\.30; a perfect model's 0\.\d\d, at most 0\.\d\d", drawn.note)
    (point,) = drawn.points
    assert point[:2] == pytest.approx((MARGIN + 0.9 * SIZE, 10 + 0.4 * SIZE))
    (bins,) = place_bins([{"confidence": 0.75, "accuracy": 1.0, "low": 0.5, "high": 1.0}], 0.5)
    assert bins.x == MARGIN + SIZE / 2


@pytest.mark.parametrize(("temperature", "text"), [(1.6, "1.60"), (100.0, ""), (0.01, ""), (None, "")])
def test_limits_of_the_fit_are_no_temperature(temperature: float | None, text: str) -> None:
    assert calibration.temperature_text(temperature) == text


# Texts


def texts(vendi: float | None, **measures: Any) -> dict[str, Any]:
    return {"text": {"n": 80, "vendi": 20.0, "self_bleu": None, "ead_1": 0.9}} | measures | within(vendi)


def within(vendi: float | None, error: float | None = 0.1) -> dict[str, Any]:
    row = {"prompts": 32, "n": 256, "vendi": vendi, "vendi_se": error, "self_bleu": None}
    return {} if vendi is None else {"within_prompt": row}


def test_one_sentence_says_what_training_did_to_texts() -> None:
    base = texts(6.1, likelihood={"bits_per_byte": 1.0}, references={"n": 40, "rougeL": 0.30, "rougeL_se": 0.01})
    ppo = texts(2.9, likelihood={"bits_per_byte": 1.1}, references={"n": 40, "rougeL": 0.20, "rougeL_se": 0.01})
    (line,) = sentences({"base": base, "ppo": ppo}, "base")
    assert line == (
        "PPO: 2.9 of 8 responses to a prompt differ, instead of 6.1; across prompts 20.0 differ, instead of 20.0; it "
        "predicts other texts worse, with 1.10 bits per byte instead of 1.00, an alignment tax of 10 %; its overlap "
        "with the references (ROUGE-L) is 0.20, instead of 0.30."
    )


def test_differences_within_error_are_no_change() -> None:
    base = texts(6.1, likelihood={"bits_per_byte": 1.0}, references={"n": 40, "rougeL": 0.21, "rougeL_se": 0.01})
    ppo = texts(6.0, likelihood={"bits_per_byte": 1.004}, references={"n": 40, "rougeL": 0.20, "rougeL_se": None})
    (line,) = sentences({"base": base, "ppo": ppo}, "base")
    assert "6.0 of 8 responses to a prompt differ (6.1 before, no difference that 32 prompts can show)" in line
    assert "as well as before, with 1.00 bits per byte" in line
    assert "is 0.20 (0.21 before, no difference that 40 responses can show)" in line


def test_likelihood_may_improve() -> None:
    base, ppo = (texts(None, likelihood={"bits_per_byte": bits}) for bits in (1.2, 1.0))
    (line,) = sentences({"base": base, "ppo": ppo}, "base")
    assert line.endswith("it predicts other texts better, with 1.00 bits per byte instead of 1.20.")


def test_a_single_policy_is_described_alone() -> None:
    policy = texts(5.2, likelihood={"bits_per_byte": 1.2}, references={"n": 9, "rougeL": 0.2, "rougeL_se": None})
    (line,) = sentences({"base": policy}, "base")
    assert line == (
        "The base model: 5.2 of 8 responses to a prompt differ; across prompts 20.0 differ; it predicts other texts "
        "with 1.20 bits per byte; its overlap with the references (ROUGE-L) is 0.20."
    )
    nothing = {"text": {"n": 1, "vendi": None}, "within_prompt": {"vendi": None}, "likelihood": {"bits_per_byte": None}}
    assert not sentences({"base": nothing}, "base") and not varieties({"base": nothing})


def test_varieties_have_intervals_of_several_prompts() -> None:
    rows = varieties({"base": within(5.0), "ppo": within(2.0, None), "best_of_n": texts(None)})
    assert [(row.policy, row.vendi, row.num_responses) for row in rows] == [("base model", 5.0, 8), ("PPO", 2.0, 8)]
    assert rows[0].error == pytest.approx(0.196) and rows[1].error is None


def real_texts(*answers: str) -> dict[str, Any]:
    """Return what `evaluate` measures of answers to one prompt of each category."""
    prompts = [
        Prompt.ask("The duck swims in the cold lake. Where is the duck?", "grounded"),
        Prompt.ask("What is the capital of France?", "knowledge"),
        Prompt.ask("Write about snow.", "creative"),
    ]
    responses = [Response(prompt.id, text, "x") for prompt, text in zip(prompts, answers, strict=True)]
    grades = {prompts[1].id: "right"}
    row = {
        "text": measure_texts(responses, 50),
        "within_prompt": measure_within([["One.", "Two snow."]]),
        "categories": measure_categories(prompts, responses, grades),
    }
    finite: dict[str, Any] = replace_nonfinite(row)
    return finite


def test_every_category_has_the_measures_that_fit_it() -> None:
    policies = evaluation({
        "base": real_texts("The duck swims in the cold lake.", "Paris", "Snow falls on snow."),
        "ppo": real_texts("Lake.", "Paris", "Snow is snow."),
    })["policies"]  # fmt: skip
    tables = {table.category: table for table in category_tables(policies)}
    assert {category: table.titles for category, table in tables.items()} == {
        "grounded": ["Copied from the text", "In the text's order", "Refused"],
        "knowledge": ["Right", "Refused", "Wrong"],
        "creative": ["Different responses", "Distinct-2"],
    }
    base, ppo = tables["grounded"].rows
    assert base.values == ["100 %", "100 %", "0 % [0, 79]"] and ppo.values[0] == ""  # too short to copy four words
    assert tables["knowledge"].rows[1].values == ["100 % [21, 100]", "0 % [0, 79]", "0 % [0, 79]"]
    assert tables["creative"].rows[0].win is None and tables["creative"].rows[1].win is not None


def test_categories_without_measures_have_no_table() -> None:
    assert category_tables({"base": {"categories": {"knowledge": {"n": 3}, "other": {"n": 2}}}, "ppo": {}}) == []


# All sections


def all_measures(letters: str, before: str | None, confidence: float, base: dict[str, Any] | None) -> dict[str, Any]:
    choices = calibrated(confidence, 60, 100, base)
    row = real_texts("The duck swims in the cold lake.", "Paris", "Snow falls on snow.")
    row |= {
        "truthfulness": truth(letters, before, [1 - i / 200 for i in range(100)]),
        "calibration": {"choices": choices},
    }
    signatures = {"bleu_signature": "nrefs:1", "chrf_signature": None}
    overlap = {"n": 9, "rouge1": 0.4, "rouge2": 0.2, "rougeL": 0.3, "rougeL_se": None, "bleu": 12.0, "chrf": None}
    return row | {"references": overlap | signatures, "likelihood": {"bits_per_byte": 1.2, "word_perplexity": 40.0}}


def test_runs_without_the_measures_have_no_sections(run: Run) -> None:
    nothing: dict[str, Any] = {"text": {}, "truthfulness": {}, "calibration": {}}
    for measures in ({}, nothing):
        data = finish(run, {"base": measures, "ppo": measures})
        assert Truthfulness()(data) is Calibration()(data) is Text()(data) is None
    page = page_of(run)
    assert 'id="truthfulness"' not in page and 'id="calibration"' not in page and 'id="text"' not in page
    assert Truthfulness()(finish(run, {"base": {"truthfulness": truth("")}})) is None
    assert Calibration()(finish(run, {"base": {"calibration": {"answers": calibrated(0.5, 0, 0)}}})) is None


def test_the_last_round_that_measured_is_named(run: Run) -> None:
    base = all_measures(BASE, None, 0.6, None)
    trained = all_measures(CAUTIOUS, BASE, 0.9, base["calibration"]["choices"])
    one = finish(run, {"base": base, "ppo": trained})
    two = finish(run, {"base": base, "ppo-2": trained}, number=2)
    three = finish(run, {"base": {}, "ppo-3": {}}, number=3)
    for section in (Truthfulness(), Calibration(), Text()):
        rounds = [(section(data) or {})["round"] for data in (one, two, three)]
        assert rounds == [None, 2, 2]
    assert page_of(run).count("<h3>Round 2</h3>") >= 3


def test_names_of_policies_are_escaped(run: Run) -> None:
    base = all_measures(BASE, None, 0.6, None)
    finish(run, {"base": base, ATTACK: all_measures(CAUTIOUS, BASE, 0.9, base["calibration"]["choices"])})
    page = page_of(run)
    assert "<script" not in page and page.count("&lt;script&gt;") > 10
    # Every picture of a policy has its name for those who cannot see it.
    assert page.count('aria-label="&lt;script&gt;alert(1)&lt;/script&gt;: ') == 2
    assert 'aria-label="Reliability diagram with 1 bins: &lt;script&gt;' in page


def test_a_policy_without_weights_has_fewer_measures(run: Run) -> None:
    base = all_measures(BASE, None, 0.6, None)
    chosen = {key: base[key] for key in ("text", "categories")} | {"truthfulness": truth(CAUTIOUS, BASE)}
    finish(run, {"base": base, "best_of_n": chosen})
    page = page_of(run)
    assert page.count("<td>best of n</td>") >= 3 and page.count("<b>best of n</b>") == 1


def test_intervals_do_not_break() -> None:
    assert no_break("12 % [8, 18] of 160, or 3") == "12\u00a0% [8,\u00a018] of 160, or 3"
