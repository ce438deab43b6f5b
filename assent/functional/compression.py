"""Likelihood of held-out text per byte or word, which models with different tokenizers share.

The definitions are those of lm-evaluation-harness (`bits_per_byte`, `word_perplexity`).
"""

import math
import sys


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return the bits that a model needs for a byte of text: nats / ln 2 / bytes.

    Args:
        nats: negative log-likelihood of the whole text.
        num_bytes: length of the text in UTF-8.

    Raises:
        ValueError: negative or undefined nats, or no bytes.
    """
    return _mean(nats, num_bytes, "bytes") / math.log(2)


def word_perplexity(nats: float, num_words: int) -> float:
    """Return exp(nats / words), infinite where that is too large for a float; args and errors as in `bits_per_byte`."""
    nats_per_word = _mean(nats, num_words, "words")
    return math.exp(nats_per_word) if nats_per_word <= math.log(sys.float_info.max) else math.inf


def _mean(nats: float, count: int, unit: str) -> float:
    if not nats >= 0:
        raise ValueError(f"nats are {nats}: give the negative log-likelihood, which is 0 or more")
    if count < 1:
        raise ValueError(f"the text has {count} {unit}: give at least 1")
    return nats / count
