"""Comparison: the better of two items and by how much, or a tie, or both bad, or no verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from assent.errors import AssentError, did_you_mean
from assent.feedback import MAX_NUMBER, require_number
from assent.records import Example, Feedback, Prompt, Response, ScoredCompletion, Task, prefer

Verdict = Literal["better", "tie", "both bad", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """A judgement of two items; `cannot tell` is stored but never trained on."""

    num_items: ClassVar[range] = range(2, 3)
    question: ClassVar[str] = "Which answer is the better one?"
    preferred: str = ""
    """Id of the better item; empty unless the verdict is `better`."""
    strength: int = 1
    """1 slightly, 2 clearly, 3 much better."""
    verdict: Verdict = "better"
    certainty: float = 1.0
    """Probability that the preferred item is the better, from 1/2 to 1: the target of training."""
    margin: float = 0.0
    """Minimum difference of scores that training should reach."""
    weight: float = 1.0
    """Multiplies the reliability of the annotator."""

    def __post_init__(self) -> None:
        if not isinstance(self.preferred, str):
            raise AssentError(f"the preferred item of a comparison is an id, not {self.preferred!r}")
        if self.verdict not in get_args(Verdict):
            raise AssentError(f"no verdict '{self.verdict}'{did_you_mean(str(self.verdict), get_args(Verdict))}")
        if type(self.strength) is not int or self.strength not in (1, 2, 3):
            raise AssentError(f"the strength of a comparison is 1, 2 or 3, not {self.strength!r}")
        if (self.verdict == "better") != bool(self.preferred):
            raise AssentError(f"verdict '{self.verdict}', preferred '{self.preferred}': 'better' alone names an item")
        require_number("certainty", self.certainty, 0.5, 1)
        require_number("margin", self.margin, -MAX_NUMBER)
        require_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return (self.preferred,) if self.preferred else ()

    def agrees(self, judgement: "Comparison") -> bool:
        """Return whether another comparison prefers the same, with any strength."""
        return (self.verdict, self.preferred) == (judgement.verdict, judgement.preferred)

    def examples(
        self, task: Task, prompt: Prompt, responses: Mapping[str, Response], feedback: Feedback, weight: float
    ) -> tuple[Example, ...]:
        """Return one preference, half a win each for a tie; if both are bad, two completions with score 0.

        Strength gives no margin.
        """
        weight *= self.weight
        chosen, rejected = (responses[item] for item in sorted(task.items, key=lambda item: item != self.preferred))
        match self.verdict:
            case "better":
                return (prefer(prompt, chosen, rejected, weight, feedback, self.certainty, self.margin),)
            case "tie":
                return (prefer(prompt, chosen, rejected, weight, feedback, p_chosen=0.5),)
            case "both bad":
                origin = (feedback.id,), feedback.annotator
                return tuple(
                    ScoredCompletion(prompt, response.completion, 0.0, weight, *origin)
                    for response in (chosen, rejected)
                )
            case "cannot tell":
                return ()
