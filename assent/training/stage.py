"""The base classes of training stages: settings of training, and the origin of the policy that is trained."""

from dataclasses import replace
from typing import Any, ClassVar, Self

from assent.protocols import Origin, Stage
from assent.registry import name_of
from assent.run import Run
from assent.training.settings import Training


class TrainingStage(Stage):
    """A stage that trains a model on all processes."""

    distributed: ClassVar[bool] = True
    training: Training

    def resolve(self, run: Run) -> Self:
        stage: Any = self
        resolved: Self = replace(stage, training=self.training.on(run.device))
        return resolved


class PolicyStage(TrainingStage):
    """A stage that trains a policy."""

    policy: str
    """The policy that training starts from; empty: the round's base."""
    objective: Any

    def origin(self, run: Run) -> Origin:
        return Origin(self.policy or "base", name_of(self.objective))
