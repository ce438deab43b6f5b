"""A reward in your own file: is the response the alphabet between two letters? Use --rewards examples/alphabet.py.

Any file with one class that has such a `score` works. What a rule can check needs no reward model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from assent.records import Prompt, Response

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Alphabet:
    """1 for `from c to f :` -> ` c d e f .`, 0 for anything else."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        pairs = zip(prompts, responses, strict=True)
        return torch.tensor([float(r.finished and r.text == self.correct_response(p.text)) for p, r in pairs])

    @staticmethod
    def correct_response(prompt: str) -> str:
        """Return the response that scores 1."""
        _, first, _, last, _ = prompt.split()
        return "".join(f" {letter}" for letter in LETTERS[LETTERS.index(first) : LETTERS.index(last) + 1]) + " ."
