"""Near-identical texts: pairs of them are not worth a comparison."""

from rapidfuzz.distance import Levenshtein

CHARACTERS_PER_EDIT = 100
"""One edit is allowed for every so many characters..."""
MAX_EDITS = 3
"""... and at most so many."""


def is_near_identical(a: str, b: str) -> bool:
    """Return whether two texts differ in white space, case and a few typing errors at most; a changed digit is none.

    An edit inserts, deletes or replaces a character. One is allowed for every 100 characters of the shorter text, at
    most three, and none in shorter texts, where `4` against `5` may be all that there is to judge.
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
