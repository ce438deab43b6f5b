"""A utility that a person can read and agree with: is this one good, short, complete sentence about what was asked?

Six questions, each answered 0, 1/2 or 1, and their mean. There is an inner optimum: neither the shortest nor the
longest answer wins, and echoing the prompt costs as much as leaving it.
"""

import re
from itertools import pairwise
from typing import NamedTuple

GOOD_LENGTH, FAIR_LENGTH = range(8, 19), range(5, 26)
"""Words of an answer of full and of half mark."""

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


class Marks(NamedTuple):
    """The six marks of an answer, each 0, 1/2 or 1."""

    complete: float
    """It ended by itself, on a full stop, question or exclamation mark."""
    single: float
    """It is one sentence: 1; two: a half; more, or none: 0."""
    length: float
    """It has 8 to 18 words: 1; 5 to 25: a half."""
    topic: float
    """It names what the prompt is about: two of its content words: 1; one: a half."""
    substance: float
    """It says something of its own: two content words that the prompt does not have: 1; one: a half."""
    plain: float
    """No list or markup, no phrase said twice, no talk about the task itself."""

    @property
    def utility(self) -> float:
        """Mean of the marks."""
        return sum(self) / len(self)


def marks(prompt: str, answer: str, finished: bool = True) -> Marks:
    """Mark an answer.

    Args:
        prompt: what was asked (its last message).
        answer: the text.
        finished: whether the answer ended by itself (False: cut at the length limit).
    """
    text = answer.strip()
    words = [word.lower() for word in _WORD.findall(text)]
    asked, said = _content(prompt), _content(text)
    ends = len(re.findall(r"[.!?…]+(?=[\"'”’»)]*(\s|$))", text))
    sentences = max(ends, 1) if words else 0
    closed = text.rstrip(_CLOSERS).endswith((".", "!", "?"))
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    twice = len(set(triples)) < len(triples) or any(a == b for a, b in pairwise(words))
    messy = bool(_LIST.search(text)) or bool(_ABOUT_ITSELF.search(text))
    return Marks(
        complete=float(finished and closed),
        single={1: 1.0, 2: 0.5}.get(sentences, 0.0),
        length=1.0 if len(words) in GOOD_LENGTH else 0.5 if len(words) in FAIR_LENGTH else 0.0,
        topic=min(len(asked & said), 2) / 2,
        substance=min(len(said - asked), 2) / 2,
        plain=float(bool(words) and not messy and not twice),
    )


def utility(prompt: str, answer: str, finished: bool = True) -> float:
    """Mean of the six marks, 0 to 1."""
    return marks(prompt, answer, finished).utility


def _content(text: str) -> frozenset[str]:
    """Stems (the first five letters) of the words that carry meaning."""
    words = (word.lower().removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text))
    return frozenset(word[:5] for word in words if len(word) > 2 and word not in _COMMON)
