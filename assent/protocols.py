"""The seams: what a plug-in must be to fit. One file each in objectives/, rewards/, annotators/, stages/, tools/."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from assent.records import Feedback, Prompt, Response, Task

if TYPE_CHECKING:
    from torch import Tensor

    from assent.batch import Advantages, Loss, PolicyBatch, Rollout
    from assent.labelling.queue import TaskQueue
    from assent.run import Run

Batch = TypeVar("Batch", contravariant=True)


class Objective(Protocol[Batch]):
    """A loss on a batch of `assent.batch`."""

    stage: ClassVar[str]
    """The file of stages/ that runs it: offline, unpaired, online, reward or sft."""

    def __call__(self, batch: Batch) -> "Loss": ...


class RewardObjective(Objective[Any], Protocol):
    """A loss of a reward model."""

    batch: ClassVar[type]
    """The class of `assent.batch` that it is called with: it decides which feedback is read."""


class OnlineObjective(Protocol):
    """An objective of the policy's own completions."""

    stage: ClassVar[str]
    needs_values: ClassVar[bool]
    """Whether its advantages need a value model's estimates."""
    needs_logprobs: ClassVar[bool]
    """Whether its advantages need log-probabilities; if not, a rollout need not be read before it is used."""
    min_completions: ClassVar[int]
    """The smallest number of completions of a prompt."""

    def advantages(self, rollout: "Rollout") -> "Advantages": ...

    def __call__(self, batch: "PolicyBatch") -> "Loss": ...


class Reward(Protocol):
    """A function that scores completions."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> "Tensor":
        """Score each response: (N,) float32 on the CPU, or (N, members) for an ensemble."""
        ...


class Annotator(Protocol):
    """A source of answers to queries, at once or as they come."""

    batch_size: ClassVar[int]
    """Queries whose answers are stored in one transaction."""
    human: ClassVar[bool]
    """Whether people answer: answers of programs to the same queries do not count for it."""

    def answer(
        self,
        queries: Iterable[Task],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        desk: "TaskQueue",
        batch: str,
    ) -> Iterator[Feedback]:
        """Answer the queries; an annotator that answers later puts them into the queue under the batch's name."""
        ...


class Origin(NamedTuple):
    """The origin of a trained policy, for the card of its checkpoint."""

    base: str
    """The policy that training started from: a name of the run, a folder, a hub id; empty: random weights."""
    objective: str


@runtime_checkable
class Stage(Protocol):
    """One step of the loop: a frozen dataclass whose fields are its TOML table, its flags and its help.

    The runner reads nothing else of a stage than what is declared here.
    """

    distributed: ClassVar[bool] = False
    """Whether the processes that torchrun started share the work; if not, the first process does it alone."""

    def __call__(self, run: "Run", key: str) -> dict[str, Any]:
        """Do the work in the run folder under the name `key`, and return the result to keep."""
        ...

    def resolve(self, run: "Run") -> Self:
        """Return the stage with the settings that depend on the machine filled in."""
        return self

    def is_stale(self, run: "Run", key: str, result: Mapping[str, Any]) -> bool:
        """Return whether a finished stage has to run again, because what it measured has changed."""
        return False

    def origin(self, run: "Run") -> Origin | None:
        """Return the origin of the policy that the stage trains; None if it trains none."""
        return None


@runtime_checkable
class Tool(Protocol):
    """A command that runs each time it is called and leaves no result: import, export, report, ..."""

    needs_run: ClassVar[bool] = True
    """Whether the run folder must exist already."""
    locks_run: ClassVar[bool] = True
    """Whether it opens the run folder, so that no other process may work there."""
    positional: ClassVar[str] = ""
    """The field that the first word of the command line sets; empty: the word is a recipe."""

    def __call__(self, run: "Run", key: str) -> dict[str, Any] | None:
        """Do the work; `key` is the command's name in this round."""
        ...

    def check(self) -> None:
        """Refuse settings that cannot work, before the run folder is created.

        Raises:
            AssentError: says which setting, and what to do.
        """
        return
