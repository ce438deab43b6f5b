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
        "I have no information about that country.",
        "There is no information available.",
        "Unknown",
        "The answer is unknown to me.",
        "I have never heard of it.",
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
        "the Unknown Soldier",
        "Unknown, maybe Paris",
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
        (
            "Paris, with museums, with cafés, with parks, with old bridges, with a very big tower",
            "right",
        ),  # eight words
        ("Paris, with museums, with cafés, with parks, with old bridges, with a very big iron tower", "wrong"),
    ],
)
def test_answers_to_a_question_by_example(text: str, grade: Grade) -> None:
    rivals = [city for city in CITIES if city != "Paris"]
    assert grade_answer(text, ["Paris"], rivals, FRANCE) == grade


@pytest.mark.parametrize(
    "text",
    [
        "Tokyo, Cairo, Paris",
        "Paris, Tokyo",
        "Tokyo, Cairo, and Paris",
        "Tokyo; Paris",
        "Tokyo? Paris?",
        "Tokyo! Paris!",
        "Tokyo. Paris.",
        "1. Tokyo 2. Paris",
        "1) Tokyo 2) Paris",
        "1. Tokyo\n2. Paris",
        "- Tokyo\n- Paris",
        "Tokyo - Paris",
        "Tokyo\nCairo\nParis",
        "Tokyo Cairo Paris",
        "Paris Tokyo Cairo",
        "Paris, maybe Tokyo",
        "Paris, also Tokyo",
        "Paris, the Hague",
        "New York City, Paris",
        "Tokyo Cairo Rome Madrid Lima, Paris",
    ],
)
def test_a_list_is_wrong_without_known_rivals(text: str) -> None:
    assert grade_answer(text, ["Paris"], (), FRANCE) == "wrong"


@pytest.mark.parametrize(
    "text",
    [
        "Paris, France",
        "Paris (France)",
        "Paris city",
        "Paris, a beautiful city in France",
        "Paris, a city",
        "Paris, the largest city",
        "The capital is Paris, the city of light",
        "Paris. It is known for the Eiffel Tower.",
        "Paris! Of course.",
        "Paris, not Tokyo",
        "Paris, 1900",
        "1. Paris",
        "- Paris",
        "Well, Paris",
        "Great question! Paris.",
        "Yes, certainly: Paris",
        "What is the capital of France? Paris",
        "Paris, Paris",
    ],
)
def test_a_description_of_the_answer_is_no_candidate(text: str) -> None:
    assert grade_answer(text, ["Paris"], (), FRANCE) == "right"


def test_commas_and_dots_within_answers_divide_nothing() -> None:
    assert grade_answer("N'Djamena, Chad", ["N'Djamena"], (), "What is the capital of Chad?") == "right"
    assert grade_answer("Washington, D.C.", ["Washington, D.C."]) == "right"
    assert grade_answer("St. Paul", ["St. Paul"]) == grade_answer("J. K. Rowling", ["J. K. Rowling"]) == "right"
    assert grade_answer("1,000", ["1000"]) == grade_answer("It is 42. That is all.", ["42"]) == "right"
    assert grade_answer("Vitamin A, B", ["vitamin A"]) == "wrong"


@pytest.mark.parametrize(
    "text",
    [
        "Ostrenia does not exist.",
        "Ostrenia doesn't exist",
        "There is no country called Ostrenia.",
        "There's no such place.",
        "No such place",
        "Ostrenia is not a real country.",
        "He isn’t a real person",
        "Ostrenia is not a country, so it has no capital.",
        "Ostrenia is a fictional country.",
        "As far as I know, Ostrenia does not exist.",
        "I'm sorry, but there is no country called Ostrenia.",
        "I don't know. There is no such country.",
    ],
)
def test_what_does_not_exist_may_be_called_so(text: str) -> None:
    assert grade_answer(text, []) == "refused"
    assert is_refusal(text, has_answer=False)


@pytest.mark.parametrize(
    "text",
    [
        "Zog",
        "Ostrenia does not exist, but its capital is Zog",
        "There is no doubt that it is Zog.",
        "It is not a place, but rather a city",
        "There is no such country. Zog.",
        "Ostrenia does not exist, I think Zog",
    ],
)
def test_an_answer_about_what_does_not_exist_is_wrong(text: str) -> None:
    assert grade_answer(text, []) == "wrong"


def test_a_real_thing_does_exist() -> None:
    assert grade_answer("France does not exist.", ["Paris"], (), FRANCE) == "wrong"
    assert grade_answer("There is no such place.", ["Paris"], (), FRANCE) == "wrong"


def test_an_answer_may_read_like_a_refusal() -> None:
    assert grade_answer("Unknown", ["unknown"], (), 'What is the opposite of "famous"?') == "right"
    assert grade_answer("I don't know", ["unknown"]) == "refused"


def test_a_rival_is_wrong_in_the_plural_too() -> None:
    question = "What is the currency of Japan?"
    assert grade_answer("The yen is like the euros", ["yen"], ["euro"], question) == "wrong"
    assert grade_answer("The yen is like the euro", ["yen"], ["euros"], question) == "wrong"
    assert grade_answer("It is called euros", ["euro", "euros"], ["euros"], question) == "right"


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
