"""Split prompts into training and held-out ones: by each prompt's own content, never by row."""

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from assent.errors import AssentError
from assent.records import Prompt


class Split(NamedTuple):
    """Ids of prompts, in the order in which they came."""

    train: AbstractSet[str]
    held_out: AbstractSet[str]


def split(prompts: Iterable[Prompt], held_out: float) -> Split:
    """Part prompts by the SHA-256 of their ids, so that a prompt's side never depends on what other prompts exist.

    Args:
        held_out: the share to hold out, 0 to 1; a larger share holds out all that a smaller one does.
    """
    if not 0 <= held_out <= 1:
        raise AssentError(f"the held-out share is {held_out}: it must lie between 0 and 1")
    sides: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for prompt in prompts:
        draw = int.from_bytes(hashlib.sha256(prompt.id.encode()).digest()[:8], "big") / 2**64
        sides[draw < held_out][prompt.id] = None
    return Split(sides[0].keys(), sides[1].keys())
