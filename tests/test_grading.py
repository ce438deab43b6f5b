"""Grading of short answers: every way in which graders of others were wrong, and every way to please one unfairly."""

import pytest

from assent.functional.grading import Grade, grade_answer, is_refusal, normalize_answer

FRANCE = "What is the capital of France?"
CITIES = ["Paris", "London", "Rome", "Washington, D.C.", "N'Djamena"]


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("  The  Mona-Lisa! ", "mona lisa"),
        ("An apple a day", "apple day"),
        ("Brasília", "brasilia"),
        ("“Nuku’alofa”", "nukualofa"),
        ("Washington, D.C.", "washington dc"),
        ("the_Beatles…", "beatles"),
        ("1,000,000.0 people", "1000000 people"),
        ("It is -3.5 °C.", "it is -3.5 c"),
        ("1914-1918", "1914 1918"),
        ("Vitamin A.", "vitamin a"),
        ("ЁЖИК,東京", "ежик 東京"),
        (" .,;", ""),
    ],
)
def test_normalization_by_example(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized
    assert normalize_answer(normalized) == normalized


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "I don’t know",
        "i dont know the capital of France!",
        "I do not know the answer to that question.",
        "Don't know",
        "I'm not sure.",
        "I’m not sure what you mean by that.",
        "I am unsure.",
        "I'm unsure",
        "I have no idea.",
        "No idea",
        "I cannot answer that.",
        "I can't say",
        "I'm unable to answer.",
        "I'm sorry, but I don't know.",
        "Unfortunately, I don't have any information about it.",
        "As an AI language model, I cannot answer that.",
        "Say: I don't know.",
        "I don't know. Please ask me about something else.",
        "I don't know, but I can help you find out.",
    ],
)
def test_a_text_that_only_says_so_is_a_refusal(text: str) -> None:
    assert is_refusal(text)
    assert grade_answer(text, ["Paris"]) == grade_answer(text, []) == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "I know: Paris",
        "I don't know, but I think Paris",
        "I don't know. Paris.",
        "I don't know, so Paris",
        "I don't know, maybe Paris",
        "I don't know but I would say Paris",
        "Paris, but I'm not sure",
    ],
)
def test_a_text_that_offers_an_answer_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Paris", "right"),
        ("PARIS!!", "right"),
        ("The capital of France is Paris.", "right"),
        ("It's Paris, of course", "right"),
        ("Paris, France", "right"),
        ("Paris, not Lyon", "right"),
        ("I don't know, but I think Paris", "right"),
        ("I'm not sure, but it is Paris.", "right"),
        ("Parisian", "wrong"),
        ("Berlin", "wrong"),
        ("", "wrong"),
        (" \n", "wrong"),
        ("...", "wrong"),
        ("not Paris", "wrong"),
        ("It isn’t Paris", "wrong"),
        ("Paris is not the capital of France", "wrong"),
        ("Never Paris", "wrong"),
        ("Paris or Lyon", "wrong"),
        ("Paris / Lyon", "wrong"),
        ("either Paris, Lyon", "wrong"),
        ("Paris and Lyon", "wrong"),
        ("Lyon & Paris", "wrong"),
        ("Paris, London", "wrong"),
        ("Paris\nRome", "wrong"),
        ("Paris Lyon Nice Lille Nantes Toulouse Bordeaux Rennes Reims", "right"),  # eight words of its own
        ("Paris Lyon Nice Lille Nantes Toulouse Bordeaux Rennes Reims Metz", "wrong"),
    ],
)
def test_answers_to_a_question_by_example(text: str, grade: Grade) -> None:
    rivals = [city for city in CITIES if city != "Paris"]
    assert grade_answer(text, ["Paris"], rivals, FRANCE) == grade


@pytest.mark.parametrize(
    ("text", "answers", "grade"),
    [
        ("not Mark Twain", ["Mark Twain"], "wrong"),  # right by containment: lm-evaluation-harness 621
        ("The novel was written by Mark Twain.", ["Mark Twain"], "right"),  # wrong by exact match
        ("Mark Twain", ["Samuel Clemens", "Mark Twain"], "right"),  # any alias
        ("Twain", ["Mark Twain"], "wrong"),
        ("Brasilia", ["Brasília"], "right"),
        ("Washington DC", ["Washington, D.C."], "right"),
        ("Kyiv or Kiev", ["Kyiv", "Kiev"], "right"),  # no alternative: both are accepted
        ("Kyiv or Kharkiv", ["Kyiv", "Kiev"], "wrong"),
        ("AC/DC", ["AC/DC"], "right"),
        ("Trinidad and Tobago", ["Trinidad and Tobago"], "right"),
        ("the Who", ["The Who"], "right"),
        ("anything", ["?"], "wrong"),
    ],
)
def test_aliases_by_example(text: str, answers: list[str], grade: Grade) -> None:
    assert grade_answer(text, answers) == grade


@pytest.mark.parametrize(
    ("text", "answers", "grade"),
    [
        ("42", ["42"], "right"),
        ("It is 42.0", ["42"], "right"),
        ("1,000", ["1000"], "right"),
        ("8 (eight)", ["8"], "right"),
        ("the one is 8", ["8"], "right"),
        ("-5", ["5"], "wrong"),
        ("42.5", ["42"], "wrong"),
        ("41 42 43", ["42"], "wrong"),
        ("seven eight nine", ["8", "eight"], "wrong"),
        ("41, 42", ["41", "42"], "wrong"),
        ("April 15, 1912", ["1912"], "wrong"),
        ("April 15, 1912", ["1912", "April 15, 1912"], "right"),
        ("Paris, in 1900", ["Paris"], "right"),
    ],
)
def test_a_number_stands_alone(text: str, answers: list[str], grade: Grade) -> None:
    assert grade_answer(text, answers) == grade


def test_numbers_of_the_question_are_no_answers() -> None:
    question = "When did Apollo 11 land on the Moon?"
    assert grade_answer("Apollo 11 landed in 1969.", ["1969"], (), question) == "right"
    assert grade_answer("Apollo 12 landed in 1969.", ["1969"], (), question) == "wrong"


def test_a_rival_within_the_accepted_answer_is_allowed() -> None:
    answers, rivals = ["Republic of the Congo"], ["Congo", "Democratic Republic of the Congo"]
    assert grade_answer("Republic of the Congo", answers, rivals) == "right"
    assert grade_answer("Democratic Republic of the Congo", answers, rivals) == "wrong"
    assert grade_answer("Congo, Republic of the Congo", answers, rivals) == "wrong"
    assert grade_answer("Equatorial Guinea", ["Guinea"], ["Equatorial Guinea"]) == "wrong"


def test_a_rival_of_the_question_is_allowed() -> None:
    question = "Which is larger, the Earth or the Moon?"
    assert grade_answer("The Earth is larger than the Moon.", ["Earth"], ["Moon"], question) == "right"
    assert grade_answer("The Earth is larger than Mars.", ["Earth"], ["Mars"], question) == "wrong"
    assert grade_answer("The Earth or the Moon", ["Earth"], ["Moon"], question) == "wrong"


def test_an_accepted_alias_is_no_rival() -> None:
    assert grade_answer("the dollar", ["Australian dollar", "dollar"], ["Dollar", "US dollar"]) == "right"
    assert grade_answer("the US dollar", ["Australian dollar", "dollar"], ["Dollar", "US dollar"]) == "wrong"


def test_words_of_the_question_are_not_its_own() -> None:
    text = "Paris is the capital of France."
    assert grade_answer(text, ["Paris"], (), FRANCE, max_own_words=0) == "right"
    assert grade_answer(text, ["Paris"], (), "", max_own_words=1) == "wrong"
    assert grade_answer(text, ["Paris"], (), "", max_own_words=2) == "right"  # capital, France


def test_without_an_answer_only_a_refusal_is_not_wrong() -> None:
    assert grade_answer("Paris", []) == grade_answer("", []) == "wrong"
    assert grade_answer("I don't know", []) == "refused"
