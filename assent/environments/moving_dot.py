"""Moving dot: hold a drifting dot in the middle of a small picture; a test of agents that see pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from assent.protocols import Transition

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Discrete

SIZE = 42
"""Height and width of the picture in pixels."""
RADIUS = 3.0
MIDDLE = (SIZE - 1) / 2
DRIFT = 1.0
"""Pixels a step that the dot drifts."""
TURN = 0.3
"""Standard deviation of the angle, in rad, by which the direction of the drift changes in a step."""
MOVES = 2.0 * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])  # (5, 2): x to the right, y downwards


@dataclass(frozen=True)
class MovingDot:
    """A white dot on black; the true reward is minus the distance from the middle, as a share of half the picture."""

    horizon: ClassVar[int] = 50
    clip_steps: ClassVar[int] = 10
    fps: ClassVar[float] = 10.0
    task: ClassVar[str] = "Keep the dot in the middle."
    reward_scale: ClassVar[float] = 5.0

    @property
    def observation_space(self) -> "Box":
        """The picture, (1, 42, 42)."""
        from gymnasium.spaces import Box

        return Box(0, 255, (1, SIZE, SIZE), dtype=np.uint8)

    @property
    def action_space(self) -> "Discrete":
        """Do nothing, or move the dot left, right, up or down."""
        from gymnasium.spaces import Discrete

        return Discrete(len(MOVES))

    def begin(self, seeds: Sequence[int]) -> "MovingDotEpisodes":
        """Start an episode from each seed."""
        return MovingDotEpisodes(seeds)


class MovingDotEpisodes:
    """N dots."""

    def __init__(self, seeds: Sequence[int]) -> None:
        places, angles = [], []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            places.append(rng.uniform(RADIUS, SIZE - 1 - RADIUS, 2))
            angles.append(rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, TURN, MovingDot.horizon)))
        self._places = np.stack(places)  # (N, 2): x, y
        self._drifts = DRIFT * np.stack([np.cos(angles), np.sin(angles)], 2)  # (N, T, 2)
        self._steps = 0

    @property
    def observations(self) -> NDArray[np.uint8]:
        """The pictures, (N, 1, 42, 42)."""
        pixels = np.arange(SIZE)
        x, y = ((pixels - self._places[:, [axis]]) ** 2 for axis in (0, 1))  # (N, 42)
        is_dot = (y[:, :, None] + x[:, None, :])[:, None] <= RADIUS**2
        return np.where(is_dot, 255, 0).astype(np.uint8)

    def step(self, actions: NDArray[Any]) -> Transition:
        """Move each dot and let it drift; the reward model reads the picture after it, (N, 1, 42, 42)."""
        places = self._places + MOVES[np.asarray(actions)] + self._drifts[:, self._steps]
        self._places = np.clip(places, RADIUS, SIZE - 1 - RADIUS)
        self._steps += 1
        x, y = (self._places - MIDDLE).T
        pictures = self.observations
        return Transition(pictures, pictures, (-np.sqrt(x**2 + y**2) / (SIZE / 2)).astype(np.float32))

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Return the picture of one episode, (42, 42, 3)."""
        return np.repeat(self.observations[index, 0][:, :, None], 3, axis=2)
