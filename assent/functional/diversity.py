"""Diversity of texts: distinct n-grams, overlap of each text with the others, effective number of different texts.

Measure it among responses to one prompt, where preference training narrows it, and across prompts apart.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from assent.functional.overlap import load_metrics
from assent.functional.rouge import word_tokens

Floats = NDArray[np.float64]

SIMILARITY_TOLERANCE = 1e-4
"""Rounding error of a similarity that still counts as symmetric, as 1 on the diagonal, or as positive."""


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return distinct / all n-grams of words over all texts. Li et al. 2016 (arXiv:1510.03055).

    It falls as texts get longer: compare equal numbers of words, or use `expectation_adjusted_distinct`. Words are
    those of `rouge.word_tokens`. NaN if no text has n words.

    Raises:
        ValueError: n below 1, or one string in place of a list.
    """
    ngrams = _count_ngrams(texts, n)
    return ngrams.distinct / ngrams.total if ngrams.total else math.nan


def expectation_adjusted_distinct(texts: Sequence[str], n: int, vocabulary_size: int) -> float:
    """Return distinct n-grams / the number expected of uniform draws, V (1 - ((V - 1) / V)^C), of C n-grams.

    EAD, Liu et al. 2022 (arXiv:2202.13587). It depends less on length than distinct-n, and may exceed 1. Words are
    those of `rouge.word_tokens`. NaN if no text has n words.

    Args:
        vocabulary_size: V, the n-grams that could occur; for n = 1 the size of the vocabulary. The same for all systems
            that are compared.

    Raises:
        ValueError: n below 1, more distinct n-grams than V, or one string in place of a list.
    """
    ngrams = _count_ngrams(texts, n)
    if vocabulary_size < max(ngrams.distinct, 1):
        distinct = f"the texts have {ngrams.distinct} distinct {n}-grams"
        raise ValueError(f"vocabulary_size is {vocabulary_size}, but {distinct}: give the number that could occur")
    if ngrams.total == 0:
        return math.nan
    share = -math.expm1(ngrams.total * math.log1p(-1 / vocabulary_size)) if vocabulary_size > 1 else 1.0
    return ngrams.distinct / (vocabulary_size * share)


def self_bleu(texts: Sequence[str]) -> list[float]:
    """Return the sentence BLEU of each text against all others, (N,), from 0 to 100; high values mean little diversity.

    Zhu et al. 2018, Texygen (arXiv:1802.01886). BLEU is sacrebleu's for sentences: orders without an n-gram are left
    out (eff:yes), counts of 0 are smoothed (smooth:exp). The time grows with N^2: sample some 100 texts.

    Raises:
        AssentError: sacrebleu is not installed.
        ValueError: fewer than two texts, or one string in place of a list.
    """
    _check_texts(texts)
    if len(texts) < 2:
        raise ValueError(f"self-BLEU compares each text with the others, and there are {len(texts)}: give two or more")
    metric = load_metrics("self_bleu").BLEU(effective_order=True)
    return [float(metric.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score) for i, text in enumerate(texts)]


def vendi_score(similarity: ArrayLike) -> float:
    """Return the effective number of different texts, from 1 to N: exp of the entropy of the eigenvalues of K / N.

    Friedman & Dieng 2023 (arXiv:2210.02410).

    Args:
        similarity: K, (N, N), symmetric and positive semi-definite with 1 on the diagonal, such as the cosines of
            embeddings, or `ngram_similarity`.

    Raises:
        ValueError: a matrix that is not of this kind, or empty.
    """
    kernel = np.asarray(similarity, dtype=np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.size:
        raise ValueError(f"the similarity has shape {kernel.shape}: give (N, N) with N of 1 or more")
    if not np.isfinite(kernel).all():
        raise ValueError("a similarity is not finite: an embedding of length 0 has no cosine")
    if np.abs(kernel - kernel.T).max() > SIMILARITY_TOLERANCE:
        raise ValueError("the similarity is not symmetric: that of i and j must be that of j and i")
    if np.abs(np.diag(kernel) - 1).max() > SIMILARITY_TOLERANCE:
        raise ValueError("the diagonal of the similarity is not 1: divide embeddings by their lengths first")
    eigenvalues = np.linalg.eigvalsh((kernel + kernel.T) / (2 * len(kernel)))
    if eigenvalues[0] < -SIMILARITY_TOLERANCE:
        raise ValueError("the similarity has a negative eigenvalue: use a kernel, such as a cosine")
    positive = eigenvalues[eigenvalues > 0] / eigenvalues[eigenvalues > 0].sum()
    return math.exp(-float(positive @ np.log(positive)))


def ngram_similarity(texts: Sequence[str], n: int = 3) -> Floats:
    """Return the cosines between counts of character n-grams, (N, N) from 0 to 1: a kernel for `vendi_score`.

    It needs no embedding model, and sees spelling rather than meaning: paraphrases count as different. Case and the
    kind of space do not matter. A text shorter than n is one n-gram; empty texts are equal to each other.

    Raises:
        ValueError: n below 1, or one string in place of a list.
    """
    _check_texts(texts)
    _check_order(n)
    columns: dict[str, int] = {}
    rows: list[Counter[int]] = []
    for text in texts:
        characters = " ".join(text.lower().split())
        ngrams = [characters[i : i + n] for i in range(max(len(characters) - n + 1, 1))]
        rows.append(Counter(columns.setdefault(ngram, len(columns)) for ngram in ngrams))
    values = [count / math.hypot(*row.values()) for row in rows for count in row.values()]
    row_numbers = [number for number, row in enumerate(rows) for _ in row]
    column_numbers = [column for row in rows for column in row]
    unit = csr_matrix((values, (row_numbers, column_numbers)), (len(texts), len(columns)), dtype=np.float64)
    cosines: Floats = (unit @ unit.T).toarray()
    return cosines


class _Ngrams(NamedTuple):
    distinct: int
    total: int


def _count_ngrams(texts: Sequence[str], n: int) -> _Ngrams:
    _check_texts(texts)
    _check_order(n)
    tokens = [word_tokens(text) for text in texts]
    ngrams = [tuple(words[i : i + n]) for words in tokens for i in range(len(words) - n + 1)]
    return _Ngrams(len(set(ngrams)), len(ngrams))


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ValueError("texts are one string: give a list of texts")


def _check_order(n: int) -> None:
    if n < 1:
        raise ValueError(f"n is {n}: an n-gram has 1 word or character at least")
