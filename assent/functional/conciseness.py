"""Conciseness rubric: a score for one short, complete sentence about the topic of the prompt.

It is the mean of six criteria, each scored 0, 1/2 or 1. The optimum lies inside: neither the shortest nor the longest
response wins, and echoing the prompt costs as much as ignoring it.
"""

import re
from itertools import pairwise
from typing import NamedTuple

GOOD_LENGTH, FAIR_LENGTH = range(8, 19), range(5, 26)
"""Words of a response with full score, and with half."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CLOSERS = "\"'”’»)"
_COMMON = frozenset(
    _WORD.findall("""
    a about after all also always am an and any are as asked at be became because been before being between both but
    by can come could did do does done down each even ever every few first for from gave get give given go goes got
    had has have having he her here hers him his how i if in into is it its just keep kept know last let like line
    made make many may me more most much must my never new next no not now of off on once one only or other our out
    over own please put really said same saw say see she should since so some something still such take than that
    the their them then there these they thing things this those through time to too took two under until up upon us
    use used very want was way we well went were what when where which while who whose why will with without would
    write wrote yes yet you your sentence sentences word words short single brief briefly answer reply describe
    explain summarise summarize tell name simply simple
    """)
)
_ABOUT_ITSELF = re.compile(
    r"\b(sentences?|as an ai|language model|the (text|passage|question|prompt|answer)|here'?s|here is|sure)\b"
    r"|\bcertainly\b",
    re.IGNORECASE,
)
_LIST = re.compile(r"(^|\n)\s*([-*•]|\d+[.)])\s|\n|\*\*|#|`|\|")


class RubricScores(NamedTuple):
    """Scores of a response by the six criteria, each 0, 1/2 or 1."""

    complete: float
    """It ends with an end token, after a full stop, question or exclamation mark."""
    single: float
    """One sentence: 1; two: 1/2; more, or none: 0."""
    length: float
    """8 to 18 words: 1; 5 to 25: 1/2."""
    topic: float
    """Content words of the prompt that it repeats: two: 1; one: 1/2."""
    substance: float
    """Content words that the prompt does not have: two: 1; one: 1/2."""
    plain: float
    """No list or markup, no phrase repeated, no words about the task itself."""

    @property
    def mean(self) -> float:
        """Return the mean of the criteria."""
        return sum(self) / len(self)


def score_rubric(prompt: str, response: str, is_finished: bool = True) -> RubricScores:
    """Score a response by each criterion.

    Args:
        prompt: its last message.
        response: the text.
        is_finished: whether it ended with an end token (False: cut at the length limit).
    """
    text = response.strip()
    words = [word.lower() for word in _WORD.findall(text)]
    prompt_stems = _content(prompt)
    response_stems = _content(text)
    ends = len(re.findall(r"[.!?…]+(?=[\"'”’»)]*(\s|$))", text))
    sentences = max(ends, 1) if words else 0
    closed = text.rstrip(_CLOSERS).endswith((".", "!", "?"))
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    repeats = len(set(triples)) < len(triples) or any(a == b for a, b in pairwise(words))
    messy = bool(_LIST.search(text)) or bool(_ABOUT_ITSELF.search(text))
    return RubricScores(
        complete=float(is_finished and closed),
        single={1: 1.0, 2: 0.5}.get(sentences, 0.0),
        length=1.0 if len(words) in GOOD_LENGTH else 0.5 if len(words) in FAIR_LENGTH else 0.0,
        topic=min(len(prompt_stems & response_stems), 2) / 2,
        substance=min(len(response_stems - prompt_stems), 2) / 2,
        plain=float(bool(words) and not messy and not repeats),
    )


def conciseness_score(prompt: str, response: str, is_finished: bool = True) -> float:
    """Return the mean of the six criteria, from 0 to 1."""
    return score_rubric(prompt, response, is_finished).mean


def _content(text: str) -> frozenset[str]:
    """Return the stems (first five letters) of the words that carry meaning."""
    words = (word.lower().removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text))
    return frozenset(word[:5] for word in words if len(word) > 2 and word not in _COMMON)
