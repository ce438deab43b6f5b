"""Pendulum: swing it up and keep it there with a weak motor. The equations of Gymnasium's Pendulum-v1, N at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from assent.protocols import Dot, Drawing, Line, Transition

if TYPE_CHECKING:
    from gymnasium.spaces import Box

GRAVITY, MASS, LENGTH, DT = 10.0, 1.0, 1.0, 0.05
MAX_SPEED, MAX_TORQUE = 8.0, 2.0


@dataclass(frozen=True)
class Pendulum:
    """A pendulum with a motor; the true reward is that of Gymnasium: upright, at rest, without torque."""

    horizon: ClassVar[int] = 200
    clip_steps: ClassVar[int] = 25
    fps: ClassVar[float] = 20.0
    task: ClassVar[str] = "Swing the pendulum up and keep it upright."
    reward_scale: ClassVar[float] = 200.0

    @property
    def observation_space(self) -> "Box":
        """Cosine and sine of the angle from upright, and the angular velocity in rad/s."""
        from gymnasium.spaces import Box

        high = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> "Box":
        """The torque in N m."""
        from gymnasium.spaces import Box

        return Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def begin(self, seeds: Sequence[int]) -> "PendulumEpisodes":
        """Start an episode from each seed."""
        return PendulumEpisodes(seeds)


class PendulumEpisodes:
    """N pendulums."""

    def __init__(self, seeds: Sequence[int]) -> None:
        high = np.array([np.pi, 1.0])
        states = np.array([np.random.default_rng(seed).uniform(-high, high) for seed in seeds])
        self._angle, self._speed = states[:, 0], states[:, 1]

    @property
    def observations(self) -> NDArray[np.float32]:
        """Return what the agent sees, (N, 3)."""
        columns = np.cos(self._angle), np.sin(self._angle), self._speed
        return np.stack(columns, 1).astype(np.float32)

    def step(self, actions: NDArray[Any]) -> Transition:
        """Apply a torque to each for 1/20 s; the reward model reads the observation before it, and the torque."""
        torque = np.clip(np.asarray(actions, dtype=np.float64)[:, 0], -MAX_TORQUE, MAX_TORQUE)
        angle = (self._angle + np.pi) % (2 * np.pi) - np.pi
        rewards = -(angle**2 + 0.1 * self._speed**2 + 0.001 * torque**2)
        columns = np.cos(self._angle), np.sin(self._angle), self._speed / MAX_SPEED, torque / MAX_TORQUE
        pull = 3 * GRAVITY / (2 * LENGTH) * np.sin(self._angle) + 3 / (MASS * LENGTH**2) * torque
        self._speed = np.clip(self._speed + pull * DT, -MAX_SPEED, MAX_SPEED)
        self._angle = self._angle + self._speed * DT
        return Transition(self.observations, np.stack(columns, 1).astype(np.float32), rewards.astype(np.float32))

    def draw(self, index: int) -> Drawing:
        """Draw one pendulum; upright is up."""
        x, y = float(np.sin(self._angle[index])), float(np.cos(self._angle[index]))
        return Drawing((-1.3, -1.3, 1.3, 1.3), (Line(0.0, 0.0, x, y, 0.2, "accent"), Dot(0.0, 0.0, 0.06)))
