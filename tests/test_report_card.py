"""The report card of a reward model: its figures, its sentences, and where they come from."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from assent.cli import main
from assent.evaluation.held_out import (
    DoubleVote,
    HeldOutJudgements,
    JudgedApproval,
    JudgedPair,
    RewardScore,
    ScoredText,
    read_held_out,
)
from assent.evaluation.report_card import report_card
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.ranking import Ranking
from assent.records import Feedback, Prompt, Purpose, Response, Task
from assent.report.reward_card import MARGIN, SIZE, diagram, sentences, warnings
from assent.run import Run, Setup, open_run
from assent.split import split

AT = "2026-11-30T10:00:00Z"


def pair(margin: float, prompt: str = "", extra_words: int = 0, strength: int = 1) -> JudgedPair:
    return JudgedPair(prompt or f"prompt {margin}", "", "ann", strength, margin, margin, extra_words)


def judgements(*pairs: JudgedPair, **rest: tuple[object, ...]) -> HeldOutJudgements:
    texts = tuple(ScoredText(f"p{n // 2}", n + 1, float(n)) for n in range(4))
    columns = {"approvals": (), "texts": texts, "choices": (), "double_votes": (), **rest}
    return HeldOutJudgements(pairs, **columns)  # type: ignore[arg-type]


def test_accuracy_counts_an_equal_score_half() -> None:
    card = report_card(judgements(pair(2), pair(1), pair(-1), pair(0)))
    assert card["accuracy"]["rate"] == pytest.approx(2.5 / 4)
    assert card["prompts"] == 4


def test_longer_wins_is_the_rule_without_a_model() -> None:
    card = report_card(judgements(pair(2, extra_words=3), pair(1, extra_words=-2), pair(-1, extra_words=0)))
    assert card["longer_wins"]["rate"] == pytest.approx(1.5 / 3)


def test_groups_of_few_judgements_show_their_number_only() -> None:
    pairs = [pair(1, f"p{n}", 1, strength=1) for n in range(30)] + [
        pair(-1, f"q{n}", -1, strength=3) for n in range(29)
    ]
    groups = report_card(judgements(*pairs))["groups"]
    assert groups["strength"]["slightly better"]["rate"] == 1
    assert groups["strength"]["much better"] == {"n": 29}
    assert list(groups["length"]) == ["the longer was chosen", "the shorter was chosen"]
    assert "annotator" not in groups  # a single one


def test_first_threshold_decides_every_pair() -> None:
    first, *others = report_card(judgements(pair(2), pair(1), pair(-1), pair(0.1), pair(-0.1)))["thresholds"]
    assert first == {"threshold": 0.0, "precision": 0.6, "recall": 0.6, "f1": pytest.approx(0.6), "decided": 1.0}
    # |margins| .1, .1, 1, 1, 2: quantiles .1, .64, 1, 1.2, of which a margin must be greater.
    assert [point["threshold"] for point in others] == pytest.approx([0.1, 0.64, 1.0, 1.2])
    assert [point["decided"] for point in others] == pytest.approx([0.6, 0.6, 0.2, 0.2])


def test_ceiling_needs_double_votes() -> None:
    votes = [DoubleVote(f"p{n}", n % 10 < 8) for n in range(100)]
    card = report_card(judgements(pair(1), double_votes=tuple(votes)))
    assert card["agreement"]["rate"] == pytest.approx(0.8)
    # (1 + sqrt(2 x .8 - 1)) / 2 = .887298
    assert card["ceiling"] == {"low": pytest.approx(0.8), "high": pytest.approx(0.887298, abs=1e-6)}
    assert "ceiling" not in report_card(judgements(pair(1), double_votes=tuple(votes[:29])))


def test_best_of_four_is_a_quarter_for_equal_scores() -> None:
    choices = ((1.0, 1.0, 1.0, 1.0), (2.0, 1.0, 0.0, 0.0, 3.0), (1.0, 0.0))  # the last one is too short
    card = report_card(judgements(choices=choices))
    assert card["best_of_4"] == {"accuracy": pytest.approx((0.25 + 1) / 2), "n": 2}


def test_approvals_are_compared_with_the_mean_score() -> None:
    approvals = tuple(
        JudgedApproval("p", score, good) for score, good in ((1, True), (1, False), (-1, True), (-1, False))
    )
    assert report_card(judgements(approvals=approvals))["approvals"] == {
        "precision": 0.5, "recall": 0.5, "f1": 0.5, "n": 4,
    }  # fmt: skip


def test_card_without_judgements_is_empty() -> None:
    assert report_card(judgements()) == {}
    assert sentences({}) == warnings({}) == []


def test_sentences_say_what_the_figures_mean() -> None:
    pairs = [pair(3.0, f"p{n}", 1) if n % 4 else pair(-3.0, f"p{n}", -1) for n in range(200)]
    votes = tuple(DoubleVote(f"p{n}", n % 10 < 8) for n in range(100))
    text = " ".join(sentences(report_card(judgements(*pairs, double_votes=votes))))
    assert text.startswith("It prefers what the annotators preferred in 75 % [")
    assert "of 200 held-out judgements (200 prompts). Always taking the longer response would be right in 75 %." in text
    assert "a perfect model would reach 80 % to 89 %" in text
    # Confident to s(3) = 95 % and right in 75 %: T = 3 / ln 3 = 2.73, and an error of .20.
    assert "Its margins are too bold: they should be divided by 2.7." in text
    assert "It scores longer responses higher: within a prompt, its rank correlation with words is 1.00." in text


def test_warnings_name_chance_leaks_and_few_prompts() -> None:
    chance = warnings(report_card(judgements(*(pair(1 if n % 2 else -1, f"p{n}") for n in range(50)))))
    assert "may be chance" in chance[0] and "Only 50 held-out prompts" in chance[1]
    votes = tuple(DoubleVote(f"p{n}", n % 10 < 6) for n in range(100))
    leak = warnings(report_card(judgements(*(pair(1, f"p{n}") for n in range(200)), double_votes=votes)))
    assert any("may have leaked" in line for line in leak)
    assert warnings(report_card(judgements(*(pair(1 if n % 4 else -1, f"p{n}") for n in range(200))))) == []


def test_calibration_within_its_floor_is_no_finding() -> None:
    few = [pair(3.0, f"p{n}") if n % 8 else pair(-3.0, f"p{n}") for n in range(16)]  # right in 88 %, sure to 95 %
    card = report_card(judgements(*few))
    assert card["calibration"]["ece"] <= card["calibration"]["floor_high"]
    assert "Its margins mean what they say, as far as so many pairs can tell." in " ".join(sentences(card))
    right = " ".join(sentences(report_card(judgements(*(pair(1.0, f"p{n}") for n in range(40))))))
    assert "No margin has the wrong sign." in right  # its temperature is the lowest that is fitted


def test_regression_has_no_calibration() -> None:
    card = report_card(judgements(pair(2), pair(1), pair(-1)), has_logits=False)
    assert "calibration" not in card and card["thresholds"] and len(sentences(card)) > 1 and warnings(card)


def test_approvals_alone_make_a_sentence() -> None:
    card = report_card(judgements(approvals=(JudgedApproval("p", 1.0, True),)))
    assert sentences(card) == ["Approvals: precision 100 %, recall 100 %, of 1."]


def test_diagram_places_its_bins() -> None:
    card = {"calibration": {"bins": [{"confidence": 0.75, "accuracy": 1.0, "low": 0.5, "high": 1.0}]}}
    assert diagram(card) == [(MARGIN + SIZE / 2, 10, 10 + SIZE / 2, 10)]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(Setup(tmp_path / "run", str(tiny.make(tmp_path / "model")), held_out=0.5, dtype="float32")) as run:
        yield run


def add(run: Run, kind: str, prompt: Prompt, texts: str, purpose: Purpose = "train") -> tuple[Task, list[str]]:
    responses = [Response(prompt.id, f"It is {text}.", "base") for text in texts.split()]
    task = Task(kind, prompt.id, tuple(response.id for response in responses), purpose)
    run.store.add_prompts([prompt])
    run.store.add_responses(responses)
    run.store.add_tasks([task])
    return task, [response.id for response in responses]


def test_judgements_of_held_out_prompts_get_their_scores(run: Run) -> None:
    prompts = [Prompt.ask(f"Where is the duck, {n}?") for n in range(30)]
    held_out = split(prompts, 0.5).held_out
    prompt = next(prompt for prompt in prompts if prompt.id in held_out)
    trained = next(prompt for prompt in prompts if prompt.id not in held_out)
    for name in (prompt, trained):
        task, (first, second) = add(run, "comparison", name, "here there", "evaluate")
        votes = {"ann": Comparison(first, 3), "bob": Comparison(second), "eve": Comparison(verdict="tie")}
        run.store.add_feedback(Feedback(task.id, annotator, vote, AT) for annotator, vote in votes.items())
    ranking, items = add(run, "ranking", prompt, "here there gone lost")
    approval, _ = add(run, "approval", prompt, "here")
    tiers = tuple((item,) for item in items)
    run.store.add_feedback([
        Feedback(ranking.id, "ann", Ranking(tiers), AT),
        Feedback(approval.id, "ann", Approval(False), AT),
        Feedback(ranking.id, "judge", Ranking(tiers[::-1]), AT, source="scorer"),
    ])  # fmt: skip
    tokenizer = tiny.load(Path(run.setup.model)).chat_tokenizer
    scores = {
        (prompt.id, tokenizer.encode_completion(prompt, response.completion)): RewardScore(float(n), 2.0 * n)
        for n, response in enumerate(run.store.responses(prompt=prompt.id))
    }
    read = read_held_out(run, tokenizer, scores)
    compared = [item for item in read.pairs if item.strength]
    assert [(item.annotator, item.strength, item.margin) for item in compared] == [("ann", 3, -1.0), ("bob", 1, 1.0)]
    assert [item.logit_margin for item in compared] == [-2.0, 2.0]
    assert len(read.pairs) - len(compared) == 6  # of a ranking of four
    assert read.choices == ((0.0, 1.0, 2.0, 3.0),)
    assert read.approvals == (JudgedApproval(prompt.id, 0.0, False),)
    assert len(read.texts) == 4 and {text.words for text in read.texts} == {3}
    assert read.double_votes == (DoubleVote(prompt.id, False), DoubleVote(trained.id, False))


def test_reward_prints_and_stores_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": f"Where is the duck, {n}?", "chosen": f"In the sea {n}.", "rejected": f"No no {n}."}
        for n in range(40)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    run = ["--run", str(tmp_path / "run")]
    model = ["--model", str(tiny.make(tmp_path / "model")), "--dtype", "float32", "--held-out", "0.4"]
    assert main(["import", str(file), *run, *model]) == 0
    assert main(["reward", *run, "--lr", "1e-3", "--epochs", "4", "--batch-size", "4"]) == 0
    output = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "done" / "reward.json").read_text())
    card = result["report_card"]
    assert card["accuracy"]["rate"] == pytest.approx(result["accuracy"]) and card["accuracy"]["n"] == result["n"]
    assert "  It prefers what the annotators preferred in" in output
    assert "nobody knows what a perfect model would reach" in output
    assert main(["report", *run]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Report card: calibration" in page and "Reliability diagram with" in page
