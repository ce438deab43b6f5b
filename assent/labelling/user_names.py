"""User names: no two users have names that can be confused."""

import re
import unicodedata

from assent.errors import AssentError

MAX_NAME_LENGTH = 60
CONFUSABLE_SCRIPTS = frozenset({"LATIN", "CYRILLIC", "GREEK"})
"""Scripts that share letter shapes: a word with letters of two of them can pass for another name."""
INVISIBLE = re.compile(
    r"(?<![\u0590-\u1fff])[\u200c](?![\u0590-\u1fff])|(?<![\u0590-\u1fff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d|"
    r"[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ud800-\udfff\ue000-\uf8ff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U0010ffff]"
)
"""Invisible characters; joiners are visible in Persian and Indic names and in emoji."""
PSEUDONYM_PREFIX = "person-"
ERASED_PREFIX = "erased "


def normalise_name(name: str) -> str:
    """Return a name without the differences that two spellings of it may have: spaces, case, compatibility forms."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def check_name(name: str) -> str:
    """Return a name that users can tell from other names.

    Raises:
        AssentError: it is too long, has an invisible character, mixes scripts, or looks like a pseudonym.
    """
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise AssentError(f"a name has 1 to {MAX_NAME_LENGTH} characters, got {len(name)}")
    if invisible := INVISIBLE.search(name):
        raise AssentError(f"name contains an invisible character (U+{ord(invisible[0]):04X}); remove it")
    if name.startswith((PSEUDONYM_PREFIX, ERASED_PREFIX)):
        raise AssentError(f"name must not begin with '{PSEUDONYM_PREFIX}' or '{ERASED_PREFIX}'; choose another name")
    for word in re.split(r"[\W\d_]+", name):
        letters = (letter for letter in word if letter.isalpha())
        scripts = CONFUSABLE_SCRIPTS & {unicodedata.name(letter, "?").split()[0] for letter in letters}
        if len(scripts) > 1:
            mixed = " and ".join(script.title() for script in sorted(scripts))
            raise AssentError(f"'{word}' mixes {mixed} letters and can pass for another name; use one script")
    return name
