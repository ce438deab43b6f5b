"""Grading of short answers: right, refused or wrong, by rules that a policy cannot satisfy by naming several answers.

Texts are compared as TriviaQA compares them (Joshi et al. 2017, arXiv:1705.03551), but neither by exact match, which
fails every full sentence, nor by containment alone, which passes "not Mark Twain" and every list of candidates.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

Grade = Literal["right", "refused", "wrong"]

_APOSTROPHE = re.compile(r"(?<=\w)['’‘ʼ`´′](?=\w)")
_ACCENT = re.compile("[\u0300-\u036f]")
_MINUS = re.compile(r"(?<![\w.)])[-−](?=\d)")
_ARTICLE = re.compile(r"\b(?:a|an|the) (?=\S)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_CLAUSE_END = re.compile(r"[.,;:!?\n—–]|\b(?:but|however)\b")

_DONT = r"(?:do not|dont|did not|didnt)(?: really| actually)?"
_CANNOT = r"(?:cannot|can not|cant|could not|couldnt|(?:am |im )?(?:unable|not able) to)"
_REFUSAL = re.compile(
    rf"\b(?:(?:i )?{_DONT} know|dunno|idk"
    r"|(?:i have |there is )?(?:absolutely )?no (?:idea|clue|information|knowledge|record)"
    r"|(?:i have|ive) (?:not|never) heard|(?:i am |im )?(?:not (?:sure|certain|aware|familiar)|unsure|uncertain)"
    rf"|(?:i )?{_CANNOT} (?:answer|say|tell|determine|recall)"
    rf"|(?:i )?{_DONT} have (?:any |enough |that |this )*(?:answer|information|knowledge|idea|clue))\b"
)
_FILLERS = r"(?:(?:well|so|and|hmm|sorry|i am sorry|im sorry|honestly|unfortunately|that|say|answer is|answer)(?: |$))*"
_REFUSING_CLAUSE = re.compile(rf"{_FILLERS}{_REFUSAL.pattern}|(?:.* )?unknown(?: to me)?$")
_NONEXISTENCE = re.compile(
    r"\b(?:(?:does not|doesnt|do not|dont) (?:actually |really )?exist|no such"
    r"|(?:there is|theres|it has) no (?!doubt|question)"
    r"|(?:not|isnt) (?:actual|actually|existing|real|really|recogni[sz]ed|valid)"
    r"|(?:not|isnt) (?:\w+ )?(?:country|continent|currency|element|person|place|state)$"
    r"|is (?:fictional|fictitious|imaginary|invented|made up|non ?existent))\b"
)
"""What tells that the thing in question does not exist."""
_ASIDE = re.compile(
    _FILLERS
    + r"(?:$|(?:i|im|id|ive|please|if|because|(?:can|could) you|as (?:ai|far|\w+ language|language|computer))\b)"
)
"""The beginning of a clause that may stand beside a refusal."""
_GUESS = re.compile(
    r"\b(?:think|guess|believe|suspect|maybe|perhaps|probably|possibly|(?:would|id|will|i) (?:say|choose|pick))\b"
)
"""Words that make a clause an answer."""
_NEGATIONS = frozenset(
    re.findall(
        r"\w+",
        """not never neither nor cannot without except isnt wasnt arent werent aint dont doesnt didnt wont wouldnt cant
        couldnt shouldnt hasnt havent hadnt""",
    )
)
_OR = frozenset(["or", "either"])
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """about after all also am an and any are as at be because been before but by called can did do does for from
        had has have he her hers him his how i id im in into is it its known me my named of on one or our she so than
        that the their them then there these they this those to too us was we were what when where which while who whose
        will with would you your yes sure certainly think guess believe answer maybe perhaps probably""",
    )
)
_INTERJECTIONS = frozenset(
    re.findall(
        r"\w+",
        """absolutely actually also and certainly correct definitely exactly good great hello hi hmm indeed maybe no
        obviously ok okay perhaps possibly probably question sorry sure thanks well yes""",
    )
)
"""Words that neither make a phrase a sentence nor are an answer."""
_SEGMENT_END = re.compile(r"[;?!\n]|,(?!\d)|\.(?=\s|$)|\s(?:(?=\d{1,2}[.)]\s)|[-–—]\s)")
_DESCRIPTION = re.compile(r"\b(?:an? \w|the \w+ \w)")
_NUMERALS = re.findall(
    r"\w+",
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty""",
)


def normalize_answer(text: str) -> str:
    """Return the text in lower case, without accents, punctuation and articles, with single spaces.

    A number keeps its sign and decimal places, but not its thousands separators: "1,000.0" is "1000". "D.C." is "dc",
    "N'Djamena" is "ndjamena". The last word is no article: "vitamin A" keeps its letter.
    """
    text = _APOSTROPHE.sub("", text)
    text = _ACCENT.sub("", unicodedata.normalize("NFKD", text).casefold())
    text = re.sub(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))|\.0+(?![.\d])", "", text)
    text = _MINUS.sub("\0", text)
    kept = re.sub(r"(?<=\d)\.(?=\d)", "\1", text)
    words = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in kept)
    words = " ".join(words.replace("\0", "-").replace("\1", ".").split())
    return _ARTICLE.sub("", words)


def is_refusal(text: str, has_answer: bool = True) -> bool:
    """Return whether the text says that the answer is not known, and offers none.

    Of a question that has no answer it may also say that the thing does not exist.

    It is judged clause by clause: one says so, and the others are asides such as "I'm sorry" or "please ask another".
    "I don't know, but I think Paris" and "I don't know. Paris." are answers.
    """
    clauses = [clause for part in _CLAUSE_END.split(text.casefold()) if (clause := normalize_answer(part))]
    refusing = [
        bool(_REFUSING_CLAUSE.match(clause) or (not has_answer and _NONEXISTENCE.search(clause))) for clause in clauses
    ]
    return any(refusing) and all(
        (refuses or _ASIDE.match(clause)) and not _GUESS.search(clause)
        for clause, refuses in zip(clauses, refusing, strict=True)
    )


def grade_answer(
    text: str,
    answers: Sequence[str],
    incorrect_answers: Iterable[str] = (),
    question: str = "",
    max_own_words: int = 8,
) -> Grade:
    """Grade the answer to a question: a refusal is refused, a text that gives one accepted answer is right.

    A right text has an accepted answer as whole words. It does not deny it, names no incorrect answer beside it, no
    other number if the answer is a number, no alternative ("or", "/", "Paris and Lyon"), and has few words of its own.
    Nor has it another candidate, listed as an incorrect answer or not ("Tokyo, Paris"): a phrase that is no sentence.
    So a full name belongs among the accepted answers. An empty text gives no answer and is wrong. Where no answer is
    accepted, all but a refusal is wrong; "It does not exist" is one.

    Args:
        answers: the accepted answers, any of which will do; empty: the question has none.
        incorrect_answers: answers that may not be named, except as part of an accepted one or if the question has them.
        max_own_words: the most words that are neither of the question, nor of an accepted answer, nor function words.
    """
    accepted, asked = [alias for answer in answers if (alias := _words(answer))], _words(question)
    if is_refusal(text, bool(answers)) and _words(text) not in accepted:
        return "refused"
    segments = [(segment, _REFUSAL.sub(" ", " ".join(_words(segment))).split()) for segment in _SEGMENT_END.split(text)]
    words = [word for _, segment_words in segments for word in segment_words]
    spans = _longest({(start, start + len(alias)) for alias in accepted for start in _occurrences(alias, words)})
    covered = {index for span in spans for index in range(*span)}
    beside = [(i, word) for i, word in enumerate(words) if i not in covered]
    own = [word for _, word in beside if word not in asked and word not in _FUNCTION_WORDS]
    is_right = (
        bool(spans)
        and not any(_denies(i, words, spans) or _lists(i, words, spans, asked) for i, _ in beside)
        and not _has_other_candidate(segments, covered, asked)
        and not any(_names_rival(_words(rival), words, covered, accepted, asked) for rival in incorrect_answers)
        and not _gives_another_number(words, accepted, asked, spans)
        and len(own) <= max_own_words
    )
    return "right" if is_right else "wrong"


def _words(text: str) -> list[str]:
    """Return the normalised words; a stroke is an "or"."""
    return normalize_answer(re.sub(r"[/|]", " or ", text).replace("&", " and ")).split()


def _occurrences(part: list[str], words: list[str]) -> list[int]:
    """Return the places at which a list of words begins in another."""
    return [i for i in range(len(words) - len(part) + 1) if words[i : i + len(part)] == part]


def _longest(spans: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the spans that are not part of another one."""
    return {(a, b) for a, b in spans if not any(c <= a and b <= d and (a, b) != (c, d) for c, d in spans)}


def _denies(i: int, words: list[str], spans: set[tuple[int, int]]) -> bool:
    """Return whether a word is a negation, and not that of a contrast: "Paris, not Lyon"."""
    is_contrast = words[i] == "not" and any(end == i for _, end in spans) and all(start != i + 1 for start, _ in spans)
    return words[i] in _NEGATIONS and not is_contrast


def _lists(i: int, words: list[str], spans: set[tuple[int, int]], asked: list[str]) -> bool:
    """Return whether a word offers an alternative, other than between two accepted answers: "Kyiv or Kiev".

    So does an "and" between the answer and a word of the text's own: "Paris and Lyon".
    """
    after, before = any(end == i for _, end in spans), any(start == i + 1 for start, _ in spans)
    joined = [*words[i + 1 : i + 2]] * after + [*words[max(i - 1, 0) : i]] * before
    if after and before:
        return False
    return words[i] in _OR or (words[i] == "and" and any(w not in _FUNCTION_WORDS and w not in asked for w in joined))


def _has_other_candidate(segments: Sequence[tuple[str, list[str]]], covered: set[int], asked: list[str]) -> bool:
    """Return whether a segment without function words has a word of its own, or two beside the answer.

    "Tokyo", "maybe Tokyo" and "the yen" are candidates; "city of light" and "a beautiful city" describe one.
    """
    start = 0
    for text, words in segments:
        places = range(start, start + len(words))
        start += len(words)
        beside = [word for i, word in zip(places, words, strict=True) if i not in covered]
        has_answer = len(beside) < len(words)
        rest = [word for word in beside if word not in _INTERJECTIONS]
        own = [word for word in rest if word not in asked and _number(word) is None]
        is_description = not _FUNCTION_WORDS.isdisjoint(rest) or not _NEGATIONS.isdisjoint(rest)
        if not has_answer and _DESCRIPTION.search(text.casefold()):
            is_description = True
        if not is_description and len(own) >= (2 if has_answer else 1):
            return True
    return False


def _names_rival(
    rival: list[str], words: list[str], covered: set[int], accepted: list[list[str]], asked: list[str]
) -> bool:
    """Return whether an incorrect answer or its plural stands in the text, and not within an accepted one."""
    rival, words, asked = _singular(rival), _singular(words), _singular(asked)
    if not rival or rival in map(_singular, accepted) or _occurrences(rival, asked):
        return False
    return any(not covered.issuperset(range(i, i + len(rival))) for i in _occurrences(rival, words))


def _singular(words: list[str]) -> list[str]:
    """Return the words without the s of a plural."""
    return [re.sub(r"(?<=\w{3})(?<!s)s$", "", word) for word in words]


def _gives_another_number(
    words: list[str], accepted: list[list[str]], asked: list[str], spans: set[tuple[int, int]]
) -> bool:
    """Return whether the answer is a number and the text has several, or another one; the question's do not count."""
    numbers = {value for alias in accepted if len(alias) == 1 and (value := _number(alias[0])) is not None}
    answered = {start for start, end in spans if end == start + 1}
    in_phrases = {i for start, end in spans if end > start + 1 for i in range(start, end)}
    named = {
        value
        for i, word in enumerate(words)
        if i in answered or (i not in in_phrases and word not in asked and word != "one")
        if (value := _number(word)) is not None
    }
    return bool(numbers) and (len(named) > 1 or not named <= numbers)


def _number(word: str) -> float | None:
    """Return the value of a number in digits, or of one up to twenty in letters."""
    if _NUMBER.fullmatch(word):
        return float(word)
    return float(_NUMERALS.index(word)) if word in _NUMERALS else None
