"""Cart and pole: push a cart so that its pole stays upright. The equations of Gymnasium's CartPole-v1, N at a time.

There an episode ends when the pole falls, and each step earns 1, so any positive constant reward teaches an agent to
balance. Here every episode has 200 steps: a fallen pole swings on around its joint, and a cart stops at the end of the
track. The equations are those of Barto, Sutton and Anderson 1983, doi:10.1109/TSMC.1983.6313077, without friction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from assent.protocols import Dot, Drawing, Line, Transition

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Discrete

GRAVITY, FORCE, DT = 9.8, 10.0, 0.02
CART_MASS, POLE_MASS = 1.0, 0.1
HALF_LENGTH = 0.5
"""Distance from the joint to the middle of the pole."""
TRACK = 2.4
"""Distance from the middle of the track to its ends."""
MAX_SPEED = 10.0
"""Largest speed of the cart in m/s and of the pole in rad/s: Euler steps add energy to a pole that goes round."""
START = 0.05
"""Largest position, angle and speed at the start."""
POSITION_WEIGHT = 0.1


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart; the true reward is the cosine of the angle from upright less a tenth of the distance."""

    horizon: ClassVar[int] = 200
    clip_steps: ClassVar[int] = 50
    fps: ClassVar[float] = 1 / DT
    task: ClassVar[str] = "Keep the pole upright and the cart near the middle."
    reward_scale: ClassVar[float] = 40.0

    @property
    def observation_space(self) -> "Box":
        """Position in m, speed in m/s, cosine and sine of the angle from upright, and angular velocity in rad/s."""
        from gymnasium.spaces import Box

        high = np.array([TRACK, MAX_SPEED, 1.0, 1.0, MAX_SPEED], dtype=np.float32)
        return Box(-high, high)

    @property
    def action_space(self) -> "Discrete":
        """Push to the left, 0, or to the right, 1."""
        from gymnasium.spaces import Discrete

        return Discrete(2)

    def begin(self, seeds: Sequence[int]) -> "CartPoleEpisodes":
        """Start an episode from each seed."""
        return CartPoleEpisodes(seeds)


class CartPoleEpisodes:
    """N carts with poles."""

    def __init__(self, seeds: Sequence[int]) -> None:
        states = np.array([np.random.default_rng(seed).uniform(-START, START, 4) for seed in seeds])
        self._position, self._speed, self._angle, self._turning = states.T.copy()

    @property
    def observations(self) -> NDArray[np.float32]:
        """The observations of the agents, (N, 5)."""
        columns = self._position, self._speed, np.cos(self._angle), np.sin(self._angle), self._turning
        return np.stack(columns, 1).astype(np.float32)

    def step(self, actions: NDArray[Any]) -> Transition:
        """Push each cart for 1/50 s; the reward model reads the observation before it, and the push as -1 or 1."""
        push = np.where(np.asarray(actions) == 1, 1.0, -1.0)
        cos, sin = np.cos(self._angle), np.sin(self._angle)
        rewards = cos - POSITION_WEIGHT * np.abs(self._position)
        features = np.concatenate([self.observations, push[:, None]], 1)
        mass, moment = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
        pull = (FORCE * push + moment * self._turning**2 * sin) / mass
        angular = (GRAVITY * sin - cos * pull) / (HALF_LENGTH * (4 / 3 - POLE_MASS * cos**2 / mass))
        linear = pull - moment * angular * cos / mass
        position = self._position + DT * self._speed
        speed = np.clip(self._speed + DT * linear, -MAX_SPEED, MAX_SPEED)
        self._speed = np.where(np.abs(position) > TRACK, 0.0, speed)
        self._position = np.clip(position, -TRACK, TRACK)
        self._angle = self._angle + DT * self._turning
        self._turning = np.clip(self._turning + DT * angular, -MAX_SPEED, MAX_SPEED)
        return Transition(self.observations, features.astype(np.float32), rewards.astype(np.float32))

    def draw(self, index: int) -> Drawing:
        """Draw one cart on its track, with its pole."""
        position, angle = float(self._position[index]), float(self._angle[index])
        tip = position + 2 * HALF_LENGTH * float(np.sin(angle)), 2 * HALF_LENGTH * float(np.cos(angle))
        shapes = (
            Line(-TRACK, 0.0, TRACK, 0.0, 0.03, "muted"),
            Dot(0.0, 0.0, 0.05, "muted"),
            Line(position - 0.2, 0.0, position + 0.2, 0.0, 0.25),
            Line(position, 0.0, *tip, 0.1, "accent"),
        )
        return Drawing((-2.9, -1.2, 2.9, 1.2), shapes)
