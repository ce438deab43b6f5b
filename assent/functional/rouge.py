"""ROUGE-1, ROUGE-2 and ROUGE-L of a text against a reference. Lin 2004 (aclanthology.org/W04-1013).

Without stemming, and over the whole text: not the ROUGE-Lsum of papers on summaries, which splits it into sentences.
Words are lower-cased runs of `\\w` in any script. The package rouge-score keeps ASCII letters and digits only: there, a
Greek text scores 0 against itself. In a script without spaces a run of characters is one word.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Score(NamedTuple):
    """Shares from 0 to 1; all are 0 if either text has no n-gram."""

    precision: float
    """Of the n-grams of the candidate, how many the reference has."""
    recall: float
    """Of the n-grams of the reference, how many the candidate has."""
    f: float
    """Harmonic mean of precision and recall."""


class Rouge(NamedTuple):
    """Overlap in words, in pairs of adjacent words, and in the longest common subsequence of words."""

    rouge1: Score
    rouge2: Score
    rougeL: Score  # noqa: N815 - the name in every paper


def rouge_scores(candidate: str, reference: str) -> Rouge:
    """Return the ROUGE scores of a candidate text against a reference text."""
    words = word_tokens(candidate)
    reference_words = word_tokens(reference)
    common = _lcs_length(words, reference_words)
    return Rouge(
        rouge1=_overlap(words, reference_words, 1),
        rouge2=_overlap(words, reference_words, 2),
        rougeL=_score(common, len(words), len(reference_words)),
    )


def word_tokens(text: str) -> list[str]:
    """Return the lower-cased words of a text: runs of letters, digits and underscores in any script."""
    return re.findall(r"\w+", text.lower())


def _overlap(words: Sequence[str], reference_words: Sequence[str], n: int) -> Score:
    counts, reference_counts = (
        Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for tokens in (words, reference_words)
    )
    return _score((counts & reference_counts).total(), counts.total(), reference_counts.total())


def _score(common: int, candidate_total: int, reference_total: int) -> Score:
    if common == 0:
        return Score(0.0, 0.0, 0.0)
    return Score(common / candidate_total, common / reference_total, 2 * common / (candidate_total + reference_total))


def _lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence; one row of the table is in memory."""
    index = {word: number for number, word in enumerate(dict.fromkeys(second))}
    columns = np.array([index[word] for word in second], dtype=np.intp)
    lengths = np.zeros(len(second) + 1, dtype=np.intp)  # lengths[j]: with the first j words of `second`
    for word in first:
        extended = lengths[:-1] + (columns == index.get(word, -1))
        lengths[1:] = np.maximum.accumulate(np.maximum(lengths[1:], extended))
    return int(lengths[-1])
