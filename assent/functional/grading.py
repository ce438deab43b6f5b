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
    rf"\b(?:(?:i )?{_DONT} know|dunno|idk|(?:i have )?(?:absolutely )?no idea"
    r"|(?:i am |im )?(?:not (?:sure|certain|aware)|unsure|uncertain)"
    rf"|(?:i )?{_CANNOT} (?:answer|say|tell|determine|recall)"
    rf"|(?:i )?{_DONT} have (?:any |enough |that |this )*(?:answer|information|knowledge|idea|clue))\b"
)
_FILLERS = r"(?:(?:well|so|and|hmm|sorry|i am sorry|im sorry|honestly|unfortunately|that|say|answer is|answer)(?: |$))*"
_REFUSING_CLAUSE = re.compile(_FILLERS + _REFUSAL.pattern)
_ASIDE = re.compile(
    _FILLERS + r"(?:$|(?:i|im|id|ive|please|if|because|(?:can|could) you|as (?:ai|\w+ language|language|computer))\b)"
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


def is_refusal(text: str) -> bool:
    """Return whether the text says that the answer is not known, and offers none.

    It is judged clause by clause: one says so, and the others are asides such as "I'm sorry" or "please ask another".
    "I don't know, but I think Paris" and "I don't know. Paris." are answers.
    """
    clauses = [clause for part in _CLAUSE_END.split(text.casefold()) if (clause := normalize_answer(part))]
    return any(map(_REFUSING_CLAUSE.match, clauses)) and all(
        (_REFUSING_CLAUSE.match(clause) or _ASIDE.match(clause)) and not _GUESS.search(clause) for clause in clauses
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
    An empty text gives no answer and is wrong. Where no answer is accepted, all but a refusal is wrong.

    Args:
        answers: the accepted answers, any of which will do; empty: the question has none.
        incorrect_answers: answers that may not be named, except as part of an accepted one or if the question has them.
        max_own_words: the most words that are neither of the question, nor of an accepted answer, nor function words.
    """
    if is_refusal(text):
        return "refused"
    words, asked = _words(_REFUSAL.sub(" ", " ".join(_words(text)))), _words(question)
    accepted = [alias for answer in answers if (alias := _words(answer))]
    spans = _longest({(start, start + len(alias)) for alias in accepted for start in _occurrences(alias, words)})
    covered = {index for span in spans for index in range(*span)}
    beside = [(i, word) for i, word in enumerate(words) if i not in covered]
    own = [word for _, word in beside if word not in asked and word not in _FUNCTION_WORDS]
    is_right = (
        bool(spans)
        and not any(_denies(i, words, spans) or _lists(i, words, spans, asked) for i, _ in beside)
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


def _names_rival(
    rival: list[str], words: list[str], covered: set[int], accepted: list[list[str]], asked: list[str]
) -> bool:
    """Return whether an incorrect answer stands in the text, and not within an accepted one."""
    if not rival or rival in accepted or _occurrences(rival, asked):
        return False
    return any(not covered.issuperset(range(i, i + len(rival))) for i in _occurrences(rival, words))


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
