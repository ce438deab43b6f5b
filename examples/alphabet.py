"""A reward of one's own: was the alphabet said from one letter to another? Take it with --reward examples/alphabet.py.

Any file will do that holds one class with such a `score`; what a rule can check needs no reward model.
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
        return torch.tensor([float(r.finished and r.text == self.answer(p.text)) for p, r in pairs])

    @staticmethod
    def answer(question: str) -> str:
        """What should be answered."""
        _, first, _, last, _ = question.split()
        return "".join(f" {letter}" for letter in LETTERS[LETTERS.index(first) : LETTERS.index(last) + 1]) + " ."
