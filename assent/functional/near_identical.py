"""Near-identical texts, which are not compared with each other."""

from rapidfuzz.distance import Levenshtein

CHARACTERS_PER_EDIT = 100
"""Characters of the shorter text for each allowed edit."""
MAX_EDITS = 3
"""Maximum number of allowed edits."""


def is_near_identical(a: str, b: str) -> bool:
    """Return whether two texts differ at most in white space, case and a few typing errors.

    A changed digit is not a typing error. An edit inserts, deletes or replaces a character. One edit is allowed for
    every 100 characters of the shorter text, and three at most. Texts below 100 characters may not differ: `4` against
    `5` may be the whole difference to judge.
    """
    return differs_by_few_edits(normalise(a), normalise(b))


def normalise(text: str) -> str:
    """Return the text in lower case, with single spaces."""
    return " ".join(text.split()).casefold()


def differs_by_few_edits(a: str, b: str) -> bool:
    """Return whether two normalised texts are near-identical."""
    if a == b:
        return True
    edits = min(len(a) // CHARACTERS_PER_EDIT, len(b) // CHARACTERS_PER_EDIT, MAX_EDITS)
    return edits > 0 and Levenshtein.distance(a, b, score_cutoff=edits) <= edits and _digits(a) == _digits(b)


def _digits(text: str) -> list[str]:
    return [character for character in text if character.isdigit()]
