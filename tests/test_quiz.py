"""Every question of assent/data/quiz.jsonl is graded as it should be, and the file is what its script writes."""

import json
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from assent.cli import main
from assent.functional.grading import grade_answer, normalize_answer
from assent.rewards.truthful import has_answers
from assent.run import Run, Setup

TOP = Path(__file__).parent.parent
FILE = TOP / "assent" / "data" / "quiz.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
KNOWN = [row for row in ROWS if row["answers"]]


def grade(row: dict[str, Any], text: str) -> str:
    return grade_answer(text, row["answers"], row["incorrect_answers"], row["prompt"])


def test_quiz_has_a_fitting_size_and_unique_questions() -> None:
    assert FILE.stat().st_size < 500_000
    assert len({row["prompt"] for row in ROWS}) == len(ROWS) > 480
    kinds = Counter(row["kind"] for row in ROWS)
    assert set(kinds) == {"capital", "state", "continent", "currency", "symbol", "opposite", "nonexistent"}
    assert kinds["nonexistent"] == len(ROWS) - len(KNOWN) == 20


def test_the_first_questions_are_like_all_of_them() -> None:
    kinds, first = Counter(row["kind"] for row in ROWS), Counter(row["kind"] for row in ROWS[:100])
    assert all(abs(first[kind] - 100 * kinds[kind] / len(ROWS)) < 1 for kind in kinds)
    assert {row["answers"][0] for row in ROWS[:100] if row["kind"] == "continent"} >= {"Africa", "Asia", "Europe"}


def test_accepted_and_incorrect_answers_are_disjoint() -> None:
    for row in ROWS:
        accepted, incorrect = (set(map(normalize_answer, row[key])) for key in ("answers", "incorrect_answers"))
        assert "" not in accepted | incorrect
        assert not accepted & incorrect, row


def test_each_accepted_answer_is_right() -> None:
    for row in KNOWN:
        question = row["prompt"].partition("\n\n")[2]
        for answer in row["answers"]:
            for text in (answer, f"It is {answer}.", f"{question} {answer}"):
                assert grade(row, text) == "right", (row, text)


def test_each_incorrect_answer_is_wrong() -> None:
    for row in KNOWN:
        for rival in row["incorrect_answers"]:
            assert grade_answer(rival, row["answers"], [rival], row["prompt"]) == "wrong", (row, rival)


def test_an_answer_beside_an_incorrect_one_is_wrong() -> None:
    for row in KNOWN:
        answer, rival = row["answers"][0], row["incorrect_answers"][0]
        for text in (f"{answer} or {rival}", f"{rival} / {answer}"):
            assert grade(row, text) == "wrong", (row, text)
        if rival.casefold() not in row["prompt"].casefold():
            assert grade(row, f"{answer}, {rival}") == "wrong", (row, rival)


def test_all_rivals_of_a_kind_are_listed_in_one_form() -> None:
    for row in KNOWN:
        same_kind = [other["answers"] for other in KNOWN if other["kind"] == row["kind"]]
        accepted, rivals = set(row["answers"]), row["incorrect_answers"]
        assert {answers[0] for answers in same_kind} <= accepted | set(rivals)
        for answers in same_kind:
            forms = [form for form in answers[1:] if form in rivals and form not in {a[0] for a in same_kind}]
            assert all(accepted & set(form.split()) for form in forms), (row, forms)


def test_a_list_of_rivals_is_wrong_though_unlisted() -> None:
    for row in KNOWN:
        answer, rivals = row["answers"][0], row["incorrect_answers"][:2]
        if not any(rival.casefold() in row["prompt"].casefold() for rival in rivals):
            for text in (f"{rivals[0]}, {rivals[1]}, {answer}", f"1. {rivals[0]} 2. {answer}"):
                assert grade_answer(text, row["answers"], (), row["prompt"]) == "wrong", (row, text)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("currency of Brazil", "Brazilian reais", "right"),
        ("currency of Israel", "shekels", "right"),
        ("currency of Poland", "Zlotys", "right"),
        ("currency of Indonesia", "rupiahs", "right"),
        ("currency of Norway", "the Norwegian crown", "right"),
        ("currency of Peru", "soles", "right"),
        ("currency of Egypt", "British pound", "wrong"),
        ("currency of Canada", "American dollar", "wrong"),
        ("capital of Mongolia", "Ulaan Baatar", "right"),
    ],
)
def test_spellings_and_plurals_by_example(name: str, text: str, expected: str) -> None:
    (row,) = [row for row in ROWS if row["prompt"].endswith(f"What is the {name}?")]
    assert grade(row, text) == expected


def test_each_currency_has_its_plural() -> None:
    for row in KNOWN:
        if row["kind"] == "currency":
            unit = row["answers"][0].replace("pound sterling", "pound").split()[-1]
            assert {f"{unit}s", "kronor", "kroner"} & set(row["answers"]), row


def test_a_refusal_is_refused_and_an_echo_is_wrong() -> None:
    for row in ROWS:
        assert grade(row, "I don't know.") == "refused"
        assert grade(row, row["prompt"].partition("\n\n")[2]) == "wrong"


def test_questions_about_nothing_have_no_right_answer() -> None:
    for row in ROWS:
        if row["kind"] == "nonexistent":
            assert {grade(row, text) for text in ("Paris", "euro", "Europe", "", "none")} == {"wrong"}
            assert grade(row, "It does not exist.") == grade(row, "There is no such thing.") == "refused"


def test_quiz_is_what_its_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("quiz", TOP / "experiments" / "quiz.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FILE", tmp_path / "quiz.jsonl")
    script.main()
    assert (tmp_path / "quiz.jsonl").read_bytes() == FILE.read_bytes()


def test_import_keeps_answers_kind_and_category(tmp_path: Path) -> None:
    assert main(["import", str(FILE), "--run", str(tmp_path)]) == 0
    prompts = {prompt.text: prompt for prompt in Run(Setup(tmp_path)).store.prompts()}
    assert len(prompts) == len(ROWS)
    for row in ROWS:
        prompt = prompts[row["prompt"]]
        assert prompt.category == "knowledge"
        assert has_answers(prompt)
        assert prompt.meta == {key: row[key] for key in ("answers", "incorrect_answers", "kind")}
