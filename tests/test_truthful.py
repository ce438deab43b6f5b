"""The reward for truthful answers, by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from assent.commands import stage
from assent.config import override, settings
from assent.errors import AssentError
from assent.functional.advantages import group_relative
from assent.functional.selective import answer_threshold
from assent.records import Prompt, Response
from assent.registry import resolve
from assent.rewards.truthful import Truthful, grade_response, has_answers

PARIS = {"answers": ["Paris"], "incorrect_answers": ["Lyon"]}
TEXTS = ["Paris", "I don't know.", "Lyon"]


def question(**meta: Any) -> Prompt:
    return replace(Prompt.ask("What is the capital of France?"), meta=meta)


def response(text: str, finished: bool = True) -> Response:
    return Response("p", text, "base", finished)


def scores(reward: Truthful) -> list[float]:
    return reward.score([question(**PARIS)] * len(TEXTS), list(map(response, TEXTS))).tolist()


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Truthful(), [1, 0, -1]),
        (Truthful(right=2.0, refuse=0.5, wrong=-4.0), [2, 0.5, -4]),
        (Truthful(refuse=-1.0), [1, -1, -1]),  # refusing never pays
        (Truthful(wrong=0.0), [1, 0, 0]),  # answering always does
        (Truthful(confidence_target=0.5), [1, 0, -1]),
        (Truthful(confidence_target=0.75), [1, 0, -3]),  # .75 / .25, not 2
        (Truthful(confidence_target=0.9), [1, 0, -9]),
    ],
)
def test_rewards_of_right_refused_and_wrong(reward: Truthful, expected: list[float]) -> None:
    assert scores(reward) == pytest.approx(expected)


@pytest.mark.parametrize("target", [0.5, 0.75, 0.9])
def test_answering_pays_from_the_confidence_target(target: float) -> None:
    assert answer_threshold(*scores(Truthful(confidence_target=target))) == pytest.approx(target)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"confidence_target": 1.0}, "grpo: target is 1: choose a probability from 0 to below 1"),
        ({"confidence_target": -0.5}, "grpo: target is -0.5: choose a probability from 0 to below 1"),
        (
            {"confidence_target": 0.75, "refuse": 0.5},
            "grpo: confidence_target = 0.75 sets the reward of a wrong answer",
        ),
        (
            {"confidence_target": 0.75, "right": 2.0},
            "leave right, refuse and wrong as they are, or confidence_target at",
        ),
        ({"confidence_target": 0.75, "wrong": -2.0}, "leave right, refuse and wrong as they are"),
        ({"wrong": 2.0}, "grpo: rewards are right 1, refuse 0, wrong 2: choose right above wrong"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(table: dict[str, float], line: str) -> None:
    with pytest.raises(AssentError) as error:
        override(stage("grpo"), {"rewards": ["truthful"], **table}, "grpo")
    assert line in str(error.value) and "\n" not in str(error.value)


def test_truthful_is_a_rule_of_a_stage_with_settings() -> None:
    assert resolve("rewards", "truthful") is Truthful
    grpo = override(stage("grpo"), {"rewards": "truthful", "confidence_target": "0.75"}, "assent grpo")
    assert settings(grpo)["confidence_target"].value == 0.75
    assert settings(grpo)["refuse"].help == 'Reward of "I don\'t know".'


def test_groups_of_two_grades_lose_the_size_of_the_penalty() -> None:
    groups = torch.zeros(2, dtype=torch.long)
    for scale_by_deviation, cheap, dear in ((True, -1.0, -1.0), (False, -0.5, -4.5)):
        wrong = [group_relative(torch.tensor([0.0, c]), groups, scale_by_deviation)[1].item() for c in (-1.0, -9.0)]
        if scale_by_deviation:
            assert wrong[0] == pytest.approx(wrong[1], abs=1e-3)
        else:
            assert wrong == pytest.approx([cheap, dear])


def test_a_response_that_was_cut_is_graded_by_its_text() -> None:
    assert grade_response(question(**PARIS), response("Paris", finished=False)) == "right"


def test_the_question_is_the_text_of_the_prompt() -> None:
    prompt = replace(Prompt.ask("Paris or Lyon?"), meta=PARIS)
    assert grade_response(prompt, response("Paris rather than Lyon")) == "right"
    assert grade_response(question(**PARIS), response("Paris rather than Lyon")) == "wrong"


@pytest.mark.parametrize(
    ("answers", "text", "grade"),
    [
        ("Paris", "Paris", "right"),
        ("Paris", "P", "wrong"),
        (7, "It is 7.", "right"),
        ([7, 8.5], "8.5", "right"),
        ([], "Paris", "wrong"),
        ([], "I don't know", "refused"),
        ([], "There is no such country.", "refused"),
        ("Paris", "There is no such country.", "wrong"),
    ],
)
def test_answers_may_be_texts_or_numbers(answers: object, text: str, grade: str) -> None:
    assert has_answers(question(answers=answers))
    assert grade_response(question(answers=answers), response(text)) == grade


@pytest.mark.parametrize("answers", [None, True, {"text": ["Paris"]}, [["Paris"]], ["Paris", None]])
def test_malformed_answers_are_refused(answers: object) -> None:
    assert not has_answers(question(answers=answers))
    with pytest.raises(
        AssentError, match=r"^the question 'What is the capital of France\?' has answers that are no list"
    ):
        grade_response(question(answers=answers), response("Paris"))


def test_malformed_incorrect_answers_are_refused() -> None:
    assert grade_response(question(answers="Paris", incorrect_answers=None), response("Paris")) == "right"
    with pytest.raises(AssentError, match="has incorrect_answers that are no list of texts"):
        grade_response(question(answers="Paris", incorrect_answers={"a": 1}), response("Paris"))


def test_a_prompt_without_answers_is_refused() -> None:
    prompt = Prompt.ask("Tell me\na story " + "about a duck " * 9)
    assert not has_answers(prompt)
    with pytest.raises(AssentError) as error:
        Truthful().score([prompt], [response("Paris")])
    assert str(error.value) == (
        "the question 'Tell me a story about a duck about a duck about a duck about' has no answers: "
        "import questions with a column `answers`, a list of texts"
    )
