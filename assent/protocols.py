"""The seams: what a plug-in must be to fit.

One file each in objectives/, rewards/, environments/, annotators/, loggers/, stages/, tools/ and report/sections/.
`Generator` and `TrainState` have no folder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from assent.records import Feedback, Prompt, Response, Task

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from gymnasium.spaces import Box, Discrete
    from numpy.typing import NDArray
    from torch import Tensor

    from assent.batch import Advantages, Loss, PolicyBatch, Rollout
    from assent.generation.sampling import Sample, Sampling
    from assent.labelling.queue import TaskQueue
    from assent.models.load import LoadedModel
    from assent.report.data import ReportData
    from assent.run import Run
    from assent.training.settings import Training

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

    @property
    def beta(self) -> float:
        """The coefficient of the KL penalty."""
        ...

    def advantages(self, rollout: "Rollout") -> "Advantages": ...

    def __call__(self, batch: "PolicyBatch") -> "Loss": ...


class Reward(Protocol):
    """A function that scores completions."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> "Tensor":
        """Score each response: (N,) float32 on the CPU, or (N, members) for an ensemble."""
        ...


class Generator(Protocol):
    """An engine that samples completions from a policy: see `generation/local.py`."""

    def load(self, policy: "LoadedModel") -> None:
        """Use the policy's current weights and its stop ids from now on; call it again after an update."""
        ...

    def generate(
        self, prompt_ids: Sequence[tuple[int, ...]], n: int, sampling: "Sampling", seed: int
    ) -> "list[Sample]":
        """Sample n completions of each prompt, in order of prompts.

        Args:
            prompt_ids: token ids, at least one a prompt.
            seed: 0 to 2^63 - 1; the same seed gives the same completions.
        """
        ...


Tone = Literal["ink", "accent", "muted"]
"""Colour of a shape: that of text, that of what matters, that of the ground."""


class Line(NamedTuple):
    """A line with round ends, in the environment's units; a limb is a thick line."""

    x0: float
    y0: float
    x1: float
    y1: float
    width: float
    tone: Tone = "ink"


class Dot(NamedTuple):
    """A filled circle."""

    x: float
    y: float
    radius: float
    tone: Tone = "ink"


class Drawing(NamedTuple):
    """One frame of a clip, in the environment's units; y points up."""

    view: tuple[float, float, float, float]
    """What the frame shows: left, bottom, right, top."""
    shapes: "tuple[Line | Dot, ...]"
    """In the order in which they are drawn."""


class Transition(NamedTuple):
    """One step of N episodes."""

    observations: "NDArray[Any]"  # (N, ...) after the actions: what the agent sees next
    features: "NDArray[Any]"  # of the step, which a reward model reads: (N, F) float32, or pictures (N, C, H, W)
    true_rewards: "NDArray[np.float32]"  # (N,) of the environment; no agent and no reward model ever sees them


class Episodes(Protocol):
    """N episodes that are under way; each ends after `horizon` steps."""

    @property
    def observations(self) -> "NDArray[Any]":
        """Return what the agent sees now, (N, ...)."""
        ...

    def step(self, actions: "NDArray[Any]") -> Transition:
        """Take one step in each episode; actions have the shape (N, *action_space.shape)."""
        ...

    def draw(self, index: int) -> "Drawing | NDArray[np.uint8]":
        """Draw one episode as it is now: shapes, or a picture, (H, W, 3)."""
        ...


class Environment(Protocol):
    """A world for agents: a frozen dataclass of its settings, one file in environments/ for each.

    All episodes have one length, so that the reward alone says what is good, not the end of an episode. The same seed
    and the same actions give the same episode, in a batch of any size.
    """

    horizon: ClassVar[int]
    """Steps of an episode."""
    clip_steps: ClassVar[int]
    """Steps of a clip that annotators see."""
    fps: ClassVar[float]
    """Steps a second at which a clip is shown."""
    task: ClassVar[str]
    """What the agent should do, in words for annotators, unless a user says something else."""
    reward_scale: ClassVar[float]
    """How much the sums of true rewards of two clips differ if the difference is large: the unit of simulated noise."""

    @property
    def observation_space(self) -> "Box":
        """The observations of one episode: numbers, (D,), or a picture of bytes, (channels, H, W)."""
        ...

    @property
    def action_space(self) -> "Box | Discrete":
        """The actions in one episode: float32 numbers, (A,), or one of n, a number of at most 255."""
        ...

    def begin(self, seeds: Sequence[int]) -> Episodes:
        """Start an episode from each seed."""
        ...


class Annotator(Protocol):
    """A source of judgements of tasks: a program judges at once, human annotators judge over time."""

    batch_size: ClassVar[int]
    """Tasks whose judgements are stored in one transaction."""
    is_human: ClassVar[bool]
    """Whether only judgements of human annotators count: those of programs on the same tasks are ignored."""

    def annotate(
        self,
        tasks: Iterable[Task],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        queue: "TaskQueue",
        batch: str,
    ) -> Iterator[Feedback]:
        """Judge the tasks, and yield the judgements as they arrive.

        Args:
            prompts: by id, at least those of the tasks.
            responses: by id, at least the items of the tasks.
            now: the time of judgements by programs.
            queue: where human annotators get their tasks.
            batch: the name of the tasks in the queue.
        """
        ...


class Resumable(Protocol):
    """Something under training that a killed process must not lose."""

    @property
    def step_count(self) -> int:
        """Optimizer steps (of an agent: rollouts) that have changed the weights."""
        ...

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dictionaries of tensors and numbers."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned.

        Raises:
            ValueError, KeyError, RuntimeError: it belongs to other weights.
        """
        ...

    def release(self) -> None:
        """Free the gradients and the optimizer state; no step may follow."""
        ...


class TrainState(Resumable, Protocol):
    """A model under training: weights, gradients and optimizer state; training stages use nothing else of it."""

    training: "Training"
    steps: int
    """Optimizer steps of the whole training, for the learning-rate schedule."""
    model: Any
    """The torch module, with the weights in the computing dtype."""

    def step(self, step: int) -> float:
        """Update the weights from the accumulated gradients, clear them, and return their norm before clipping.

        Raises:
            AssentError: the gradients are not finite; the weights are unchanged.
        """
        ...

    def save(self, folder: "Path") -> None:
        """Write the trained model as a Hugging Face folder; no step may follow.

        Raises:
            AssentError: weights that are not finite.
        """
        ...


class Logger(Protocol):
    """A destination of a training stage's metrics, one file in loggers/ for each; constructed as below."""

    def __init__(self, folder: "Path", stage: str, start: int) -> None:
        """Open the destination for steps after `start`; 0: a new one. Later steps of an earlier process are replaced.

        Args:
            folder: of the run.
            stage: name of the stage in this round.
            start: number of steps that are done.
        """
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of step 1, 2, ..."""
        ...

    def close(self) -> None:
        """Write what is left and close."""
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

    aim: ClassVar[str]
    """What it is for, in about six words; the loop prints it when the stage begins."""
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

    aim: ClassVar[str] = "files and pages"
    """What it is for, in about six words; the loop prints it."""
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


class ReportSection(Protocol):
    """A section of the report: a class in report/sections/NAME.py, with its template NAME.html.jinja beside it."""

    order: ClassVar[int]
    """Its place on the page, from top to bottom."""
    title: ClassVar[str]

    def __call__(self, data: "ReportData") -> Mapping[str, Any] | None:
        """Return what the template renders, or None to leave the section out."""
        ...
