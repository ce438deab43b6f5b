"""Split prompts into a training and a held-out set, by the content of each prompt and never by row."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from assent.errors import AssentError
from assent.records import Prompt, unit_hash


class Split(NamedTuple):
    """Ids of prompts, in the order of the input."""

    train: AbstractSet[str]
    held_out: AbstractSet[str]


def split(prompts: Iterable[Prompt], held_out: float) -> Split:
    """Split prompts by the SHA-256 of their ids, so that a prompt's set never depends on the other prompts.

    Args:
        held_out: fraction to hold out, 0 to 1; a larger fraction holds out every prompt that a smaller one does.

    Raises:
        AssentError: `held_out` is not between 0 and 1.
    """
    if not 0 <= held_out <= 1:
        raise AssentError(f"--held-out must be between 0 and 1, got {held_out}")
    train: dict[str, None] = {}
    out: dict[str, None] = {}
    for prompt in prompts:
        (out if unit_hash(prompt.id) < held_out else train)[prompt.id] = None
    return Split(train.keys(), out.keys())
