"""Which of two items is the better, and by how much; or a tie; or that both are bad; or that it cannot be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from assent.errors import AssentError, did_you_mean
from assent.feedback import LARGE, demand_number
from assent.records import Example, Prompt, Response, ScoredCompletion, Task, prefer

Verdict = Literal["better", "tie", "both bad", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """A judgement of two items; `cannot tell` is kept, and nobody trains on it."""

    num_items: ClassVar[range] = range(2, 3)
    asks: ClassVar[str] = "Which answer is the better one?"
    preferred: str = ""
    """Id of the better item; empty unless the verdict is `better`."""
    strength: int = 1
    """1 slightly, 2 clearly, 3 much better."""
    verdict: Verdict = "better"
    certainty: float = 1.0
    """How surely the preferred item is the better, from 1/2 to 1: the target of training."""
    margin: float = 0.0
    """By how much its score should be the higher."""
    weight: float = 1.0
    """How much the judgement counts, beside the reliability of who made it."""

    def __post_init__(self) -> None:
        if not isinstance(self.preferred, str):
            raise AssentError(f"the preferred item of a comparison is an id, not {self.preferred!r}")
        if self.verdict not in get_args(Verdict):
            raise AssentError(f"no verdict '{self.verdict}'{did_you_mean(str(self.verdict), get_args(Verdict))}")
        if type(self.strength) is not int or self.strength not in (1, 2, 3):
            raise AssentError(f"the strength of a comparison is 1, 2 or 3, not {self.strength!r}")
        if (self.verdict == "better") != bool(self.preferred):
            raise AssentError(f"verdict '{self.verdict}', preferred '{self.preferred}': 'better' alone names an item")
        demand_number("certainty", self.certainty, 0.5, 1)
        demand_number("margin", self.margin, -LARGE)
        demand_number("weight", self.weight)

    @property
    def items(self) -> tuple[str, ...]:
        return (self.preferred,) if self.preferred else ()

    def agrees(self, other: "Comparison") -> bool:
        """Whether another judgement says the same, by however much."""
        return (self.verdict, self.preferred) == (other.verdict, other.preferred)

    def examples(
        self, query: Task, prompt: Prompt, responses: Mapping[str, Response], feedback_id: str, weight: float
    ) -> tuple[Example, ...]:
        """One preference (half a win each for a tie), or two labels of 0 if both are bad; strength gives no margin."""
        weight *= self.weight
        first, second = sorted(query.items, key=lambda item: item != self.preferred)
        one, other = responses[first], responses[second]
        match self.verdict:
            case "better":
                return (prefer(prompt, one, other, weight, feedback_id, self.certainty, self.margin),)
            case "tie":
                return (prefer(prompt, one, other, weight, feedback_id, p_chosen=0.5),)
            case "both bad":
                return tuple(ScoredCompletion(prompt, r.completion, 0.0, weight, (feedback_id,)) for r in (one, other))
            case "cannot tell":
                return ()
