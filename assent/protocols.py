"""The seams: what a plug-in must be to fit. One file each in objectives/, rewards/, annotators/, stages/."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor

from assent.batch import Actions, Advantages, Loss, Rollout
from assent.records import Feedback, Prompt, Query, Response

Batch = TypeVar("Batch", contravariant=True)
Place = TypeVar("Place", contravariant=True)


class Objective(Protocol[Batch]):
    """A loss; the type of its batch (`assent.batch`) says which stage may use it."""

    def __call__(self, batch: Batch) -> Loss: ...


class Reinforcement(Protocol):
    """An objective that is fed by the policy's own completions."""

    needs_values: ClassVar[bool]
    """Whether its advantages are made of a value model's estimates."""
    needs_logprobs: ClassVar[bool]
    """Whether its advantages are made of log-probabilities; if not, a rollout need not be read before it is used."""
    least_n: ClassVar[int]
    """Completions of a prompt that it cannot do without."""

    def advantages(self, rollout: Rollout) -> Advantages: ...

    def __call__(self, batch: Actions) -> Loss: ...


class Reward(Protocol):
    """What a machine finds good."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Tensor:
        """One number for each response, (N,) float32 on the CPU; or one of each member of an ensemble, (N, members)."""
        ...


class Annotator(Protocol[Place]):
    """Somebody who answers queries: all at once, or as they come."""

    at_once: ClassVar[int]
    """Queries whose answers are stored in one transaction."""
    human: ClassVar[bool]
    """Whether it is people who answer: answers of programs to the same queries do not count for it."""

    def answer(
        self,
        queries: Iterable[Query],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        desk: Place,
        batch: str,
    ) -> Iterator[Feedback]:
        """Answer; who does so elsewhere, and not at once, lays the queries on the desk under the batch's name."""
        ...


class Stage(Protocol[Place]):
    """One step of the story: a frozen dataclass whose fields are its TOML table, its flags and its help."""

    def __call__(self, run: Place, key: str) -> dict[str, Any]:
        """Do the work in the run folder under the name `key`, and report what is worth keeping."""
        ...
