"""Two texts that a reader could hardly tell apart: nobody should be asked which of them is better."""

CHARACTERS_PER_EDIT, EDITS = 100, 3
"""An edit is let pass for every so many characters, and so many edits at most."""


def near_identical(a: str, b: str) -> bool:
    """Whether two texts differ in white space, case and a slip of the pen at most; a changed digit is no slip.

    An edit puts in, takes out or replaces a character: one is let pass for every 100 of the shorter text, three at
    most, and none in shorter texts, where `4` against `5` is all that there is to judge.
    """
    return few_edits(normalised(a), normalised(b))


def normalised(text: str) -> str:
    """The text in lower case, with single spaces."""
    return " ".join(text.split()).casefold()


def few_edits(a: str, b: str) -> bool:
    """Whether two normalised texts are near-identical."""
    if a == b:
        return True
    edits = min(len(a) // CHARACTERS_PER_EDIT, len(b) // CHARACTERS_PER_EDIT, EDITS)
    return edits > 0 and _within(a, b, edits) and _digits(a) == _digits(b)


def _digits(text: str) -> list[str]:
    return [character for character in text if character.isdigit()]


def _within(a: str, b: str, edits: int) -> bool:
    """Whether so few edits make b of a: how far one comes on each diagonal.

    Ukkonen 1985 (doi:10.1016/S0019-9958(85)80046-2).
    """
    goal = len(b) - len(a)
    if abs(goal) > edits:
        return False
    reached = {0: _slide(a, b, 0, 0)}  # diagonal: characters of a
    for _ in range(edits):
        if reached.get(goal) == len(a):
            break
        ahead: dict[int, int] = {}
        for diagonal, i in reached.items():
            for step, further in ((0, i + 1), (-1, i + 1), (1, i)):  # replace, take out, put in
                if further <= len(a) and further + diagonal + step <= len(b):
                    ahead[diagonal + step] = max(ahead.get(diagonal + step, 0), further)
        reached = {diagonal: _slide(a, b, i, i + diagonal) for diagonal, i in ahead.items()}
    return reached.get(goal) == len(a)


def _slide(a: str, b: str, i: int, j: int) -> int:
    """How far in a one comes from (i, j) along equal characters."""
    while i < len(a) and j < len(b) and a[i] == b[j]:
        i, j = i + 1, j + 1
    return i
