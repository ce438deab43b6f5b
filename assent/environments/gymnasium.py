"""Any environment of Gymnasium (arXiv:2407.17032), by its id, with episodes of one length.

An episode that ends by itself starts again inside, from a seed that follows from the first one, and the agent does not
learn of it: otherwise the length of an episode would say what is good, and not the reward.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.protocols import Transition
from assent.types import NonNegativeInt, PositiveFloat

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Discrete

EXAMPLE = "--environment gymnasium --env-id Acrobot-v1"
MAX_CLIP_STEPS = 50
DEFAULT_FPS = 30.0
"""Of an environment that names none."""
MAX_ACTIONS = 256
"""A segment stores an action of a discrete space in one byte."""


@dataclass(frozen=True)
class Gymnasium:
    """An environment of Gymnasium; the true reward is its own.

    Observations are numbers (`Box`), flattened; actions are numbers (`Box`), flattened, or one of n (`Discrete`).
    """

    env_id: str = ""
    """Id of a registered environment, such as Acrobot-v1."""
    episode_steps: NonNegativeInt = 0
    """Steps of every episode; 0: the environment's own limit."""
    reward_scale: PositiveFloat = 1.0
    """How much the sums of rewards of two clips differ if the difference is large: the unit of simulated noise."""

    @property
    def horizon(self) -> int:
        """Steps of an episode.

        Raises:
            AssentError: neither the environment nor the settings name a number.
        """
        steps = self.episode_steps or _probe(self.env_id).max_steps
        if not steps:
            raise AssentError(f"'{self.env_id}' has no limit of steps: set one, such as --episode-steps 200")
        return steps

    @property
    def clip_steps(self) -> int:
        """Steps of a clip: a quarter of an episode, and at most 50."""
        return max(1, min(MAX_CLIP_STEPS, self.horizon // 4))

    @property
    def fps(self) -> float:
        """Steps a second at which a clip is shown: those of the environment."""
        return _probe(self.env_id).fps

    @property
    def task(self) -> str:
        """The task in words for annotators."""
        return f"Solve {self.env_id}."

    @property
    def observation_space(self) -> "Box":
        """The environment's numbers, flattened, (D,) float32."""
        return _flat(_probe(self.env_id).observation_space)

    @property
    def action_space(self) -> "Box | Discrete":
        """The environment's actions: numbers, flattened, (A,) float32, or one of n from 0."""
        from gymnasium.spaces import Discrete

        space = _probe(self.env_id).action_space
        return Discrete(int(space.n)) if isinstance(space, Discrete) else _flat(space)

    def begin(self, seeds: Sequence[int]) -> "GymnasiumEpisodes":
        """Start an episode from each seed.

        Raises:
            AssentError: the id is empty or unknown, a package is missing, or the spaces are not supported.
        """
        return GymnasiumEpisodes(self.env_id, seeds)


class GymnasiumEpisodes:
    """N environments."""

    def __init__(self, env_id: str, seeds: Sequence[int]) -> None:
        self._env_id = env_id
        self._seeds = seeds
        self._action_space = _probe(env_id).action_space
        self._environments = [_make(env_id, _probe(env_id).render_mode) for _ in seeds]
        self._starts = [0] * len(seeds)
        self.observations = np.stack([self._start(index) for index in range(len(seeds))])  # (N, D)

    def step(self, actions: NDArray[Any]) -> Transition:
        """Take one step in each; the reward model reads the observation before it, and the action (of n: one-hot)."""
        features = np.concatenate([self.observations, self._encode(actions)], 1).astype(np.float32)
        observations = np.empty_like(self.observations)
        rewards = np.empty(len(self._environments), dtype=np.float32)
        for index, environment in enumerate(self._environments):
            observation, rewards[index], is_end, is_cut, _ = environment.step(self._decode(actions[index]))
            observations[index] = self._start(index) if is_end or is_cut else np.ravel(observation)
        self.observations = observations
        return Transition(observations, features, rewards)

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Return the environment's own picture of one episode, (H, W, 3).

        Raises:
            AssentError: it draws none, or a package for it is missing.
        """
        from gymnasium.error import DependencyNotInstalled

        try:
            picture = self._environments[index].render()
        except (ImportError, DependencyNotInstalled) as error:
            raise _missing(self._env_id, error) from None
        if picture is None:
            raise AssentError(f"'{self._env_id}' draws no pictures: annotators cannot see it")
        return np.array(picture, dtype=np.uint8)

    def _start(self, index: int) -> NDArray[np.float32]:
        """Start an environment, for the first time or again, and return its observation, (D,)."""
        seed, count = self._seeds[index], self._starts[index]
        self._starts[index] += 1
        derived = int(np.random.default_rng((seed, count)).integers(2**31)) if count else seed
        observation, _ = self._environments[index].reset(seed=derived)
        return np.ravel(observation).astype(np.float32)

    def _encode(self, actions: NDArray[Any]) -> NDArray[Any]:
        from gymnasium.spaces import Discrete

        space = self._action_space
        return np.eye(int(space.n))[actions] if isinstance(space, Discrete) else np.asarray(actions)

    def _decode(self, action: NDArray[Any]) -> Any:
        """Return an action as the environment takes it."""
        from gymnasium.spaces import Discrete

        space = self._action_space
        if isinstance(space, Discrete):
            return int(space.start) + int(action)
        return np.clip(action.reshape(space.shape), space.low, space.high).astype(space.dtype)


class Probe(NamedTuple):
    """What an environment says of itself."""

    observation_space: "Box"
    action_space: "Box | Discrete"
    max_steps: int  # 0: no limit
    fps: float
    render_mode: str | None


@cache
def _probe(env_id: str) -> Probe:
    """Make an environment once, and return what it says of itself."""
    if not env_id:
        raise AssentError(f"gymnasium needs the id of an environment: {EXAMPLE}")
    environment = _make(env_id, None)
    try:
        from gymnasium.spaces import Box, Discrete

        observations, actions = environment.observation_space, environment.action_space
        is_discrete = isinstance(actions, Discrete) and actions.n <= MAX_ACTIONS
        is_continuous = isinstance(actions, Box) and np.issubdtype(actions.dtype, np.floating)
        if not isinstance(observations, Box) or not (is_discrete or is_continuous):
            spaces = type(observations).__name__, type(actions).__name__
            raise AssentError(
                f"'{env_id}' has observations in {spaces[0]} and actions in {spaces[1]}; supported: observations in "
                f"Box, actions in Box (floats) or in Discrete (at most {MAX_ACTIONS})"
            )
        modes = environment.metadata.get("render_modes") or ()
        fps = float(environment.metadata.get("render_fps") or DEFAULT_FPS)
        mode = "rgb_array" if "rgb_array" in modes else None
        return Probe(observations, actions, _max_steps(env_id), fps, mode)
    finally:
        environment.close()


def _make(env_id: str, render_mode: str | None) -> Any:
    """Make an environment without a limit of steps.

    Raises:
        AssentError: the id is unknown, or a package is missing.
    """
    try:
        import gymnasium
    except ImportError:
        raise AssentError("gymnasium is not installed: pip install 'assent[control]'") from None
    # Imported clips name the id, and Gymnasium would import the module of `module:id`: only registered ids pass.
    if env_id not in gymnasium.registry:
        nearest = difflib.get_close_matches(env_id, gymnasium.registry, n=1, cutoff=0)[0]
        raise AssentError(f"no environment '{env_id}' in Gymnasium; did you mean '{nearest}'?")
    try:
        return gymnasium.make(env_id, render_mode=render_mode, max_episode_steps=-1, disable_env_checker=True)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _missing(env_id, error) from None


def _max_steps(env_id: str) -> int:
    import gymnasium

    return gymnasium.spec(env_id).max_episode_steps or 0


def _missing(env_id: str, error: Exception) -> AssentError:
    """Return the error of an environment that needs another package."""
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    is_mujoco = spec is not None and ".mujoco" in str(spec.entry_point)
    advice = "pip install 'gymnasium[mujoco]'" if is_mujoco else " ".join(str(error).split())
    return AssentError(f"'{env_id}' needs a package that is not installed: {advice}")


def _flat(space: "Box") -> "Box":
    """Return the space of a flattened array of float32; bounds beyond float32 become infinite."""
    from gymnasium.spaces import Box

    with np.errstate(over="ignore"):
        return Box(space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32))
