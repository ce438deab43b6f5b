"""BLEU and chrF of a corpus through sacrebleu, each with the signature that makes a score reproducible.

Post 2018, "A call for clarity in reporting BLEU scores" (arXiv:1804.08771). Scores are from 0 to 100.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from assent.errors import AssentError


class Overlap(NamedTuple):
    """A score of a whole corpus, and how it was computed."""

    score: float
    """From 0 to 100."""
    signature: str
    """Settings and version of sacrebleu; only scores with equal signatures can be compared."""


def bleu(candidates: Sequence[str], references: Sequence[str]) -> Overlap:
    """Return the BLEU of a corpus, which is not the mean over its sentences.

    Papineni et al. 2002 (doi:10.3115/1073083.1073135).

    Args:
        candidates: (N,) texts, not yet tokenised.
        references: (N,) texts, one per candidate.

    Raises:
        AssentError: sacrebleu is not installed.
        ValueError: no texts, or not as many references as candidates.
    """
    return _corpus_score("bleu", "BLEU", candidates, references)


def chrf(candidates: Sequence[str], references: Sequence[str]) -> Overlap:
    """Return the chrF of a corpus: F2 of character n-grams up to 6. Popovic 2015 (doi:10.18653/v1/W15-3049).

    Args and errors as in `bleu`.
    """
    return _corpus_score("chrf", "CHRF", candidates, references)


def load_metrics(function: str) -> ModuleType:
    """Import `sacrebleu.metrics` for the function of this name, or raise an AssentError that names the extra."""
    try:
        from sacrebleu import metrics
    except ModuleNotFoundError as error:
        raise AssentError(f"{function} needs sacrebleu: pip install 'assent[text]'") from error
    return metrics


def _corpus_score(function: str, metric_name: str, candidates: Sequence[str], references: Sequence[str]) -> Overlap:
    if isinstance(candidates, str) or isinstance(references, str):
        raise ValueError("candidates or references are one string: give lists of texts")
    if not candidates or len(candidates) != len(references):
        counts = f"{len(candidates)} candidates and {len(references)} references"
        raise ValueError(f"there are {counts}: give one reference per candidate, and at least one")
    metric = getattr(load_metrics(function), metric_name)()
    score = float(metric.corpus_score(list(candidates), [list(references)]).score)
    return Overlap(score, str(metric.get_signature()))
