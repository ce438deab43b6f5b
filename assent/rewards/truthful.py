"""A reward for truthful answers: right 1, "I don't know" 0, wrong -1, so that answering pays only where one is sure.

With rewards a, b, c of a right answer, a refusal and a wrong one, answering pays from a confidence of (b - c) / (a - c)
(`answer_threshold`): 1/2 for 1, 0, -1, and t where a wrong answer costs t / (1 - t). The first is TruthRL's ternary
reward (arXiv:2509.25760), the second the confidence target of Kalai et al. 2025 (arXiv:2509.04664).

A question has the accepted answers in its prompt's meta, `answers`; an empty list: it has none, so refuse.

GRPO divides by a group's deviation, which loses the size of the penalty: a group with two kinds of grade has the same
advantages whatever a wrong answer costs. So use `scale_rewards = "none"`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assent.errors import AssentError
from assent.functional.grading import Grade, grade_answer
from assent.functional.selective import answer_threshold, wrong_reward
from assent.records import Prompt, Response


@dataclass(frozen=True)
class Truthful:
    """Scores a response to a question by its grade: right, refused or wrong."""

    right: float = 1.0
    """Reward of a right answer."""
    refuse: float = 0.0
    """Reward of "I don't know"."""
    wrong: float = -1.0
    """Reward of a wrong answer."""
    confidence_target: float = 0.0
    """Confidence t from which answering pays: a wrong answer has the reward -t / (1 - t); 0: `wrong`. 0 to below 1."""

    def __post_init__(self) -> None:
        answer_threshold(self.right, self.refuse, self.wrong)  # raises ValueError for rewards in the wrong order
        wrong_reward(self.confidence_target)
        if self.confidence_target and (self.right, self.refuse, self.wrong) != (1, 0, -1):
            raise ValueError(
                f"confidence_target = {self.confidence_target:g} sets the reward of a wrong answer beside right = 1 "
                "and refuse = 0: leave right, refuse and wrong as they are, or confidence_target at 0"
            )

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """Score responses to these questions, N of each; a response that was cut is graded by its text.

        Raises:
            AssentError: a prompt without answers, or with malformed ones.
        """
        wrong = wrong_reward(self.confidence_target) if self.confidence_target else self.wrong
        rewards: dict[Grade, float] = {"right": self.right, "refused": self.refuse, "wrong": wrong}
        return torch.tensor([rewards[grade_response(*pair)] for pair in zip(prompts, responses, strict=True)])


def has_answers(prompt: Prompt) -> bool:
    """Return whether a response can be graded: `answers` of the prompt's meta, and `incorrect_answers`, are texts.

    An empty list of answers says that the question has none.
    """
    columns = prompt.meta.get("answers"), prompt.meta.get("incorrect_answers") or ()
    return all(read_texts(column) is not None for column in columns)


def grade_response(prompt: Prompt, response: Response) -> Grade:
    """Grade a response by `answers` and `incorrect_answers` of the prompt's meta, which are lists of texts, or a text.

    Raises:
        AssentError: a prompt without `answers`, or one of the two is no list of texts.
    """
    answers = _read(prompt, "answers", prompt.meta.get("answers"))
    incorrect_answers = _read(prompt, "incorrect_answers", prompt.meta.get("incorrect_answers") or ())
    return grade_answer(response.text, answers, incorrect_answers, prompt.text)


def _read(prompt: Prompt, key: str, value: Any) -> tuple[str, ...]:
    texts = read_texts(value)
    if texts is None:
        problem = f"no {key}" if key not in prompt.meta else f"{key} that are no list of texts"
        beginning = " ".join(prompt.text.split())[:60]
        raise AssentError(
            f"the question {beginning!r} has {problem}: import questions with a column `{key}`, a list of texts"
        )
    return texts


def read_texts(value: Any) -> tuple[str, ...] | None:
    """Return a text, a number or a list of them as texts; None for anything else."""
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in values):
        return None
    return tuple(map(str, values))
