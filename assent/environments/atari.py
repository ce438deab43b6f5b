"""Games of the Atari 2600, seen as in Mnih et al. 2015, doi:10.1038/nature14236, with episodes of one length.

An action is held for four frames. The agent sees the last four pictures, 84 x 84 in grey, each the maximum of two
frames, since the console draws some objects in every other frame only. As in Christiano et al. 2017, appendix A.2
(arXiv:1706.03741), it learns neither of a lost life nor of the end of a game, and does not see the score.

The emulator, ale-py, is licensed under the GPL, version 2: nothing but this file imports it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError, did_you_mean
from assent.protocols import Transition

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Discrete

FRAMES = 4
"""Frames of an action, and pictures of an observation."""
HEIGHT, WIDTH, SIZE = 210, 160, 84
MAX_NO_OPS = 30
"""Frames without an action at the start: their number, from 1, follows from the seed."""
FREEWAY_HEIGHT = 14
"""Address of the chicken's height in Freeway."""
FREEWAY_ROAD = 170
"""Height that the chicken gains on its way over the road."""


class Game(NamedTuple):
    """What is known of a game."""

    score_rows: slice
    """Rows of the picture that show the score, and what else says how well the game goes."""
    reward_scale: float
    """A large difference of the rewards in 25 steps."""


GAMES = {
    "beam_rider": Game(slice(0, 42), 88.0),
    "breakout": Game(slice(0, 17), 3.0),
    "enduro": Game(slice(160, 192), 3.0),
    "freeway": Game(slice(0, 14), 0.25),
    "pong": Game(slice(0, 24), 1.0),
    "qbert": Game(slice(0, 14), 50.0),
    "seaquest": Game(slice(0, 19), 40.0),
    "space_invaders": Game(slice(0, 24), 30.0),
}
"""The seven games of Christiano et al. 2017, and Freeway."""


@dataclass(frozen=True)
class Atari:
    """A game; the true reward is its score, in Freeway the share of the road that the chicken has crossed."""

    game: str = "freeway"
    """Name of the game, such as pong or space_invaders."""
    mask_score: bool = True
    """Whether the score is black in what the agent and the reward model see; annotators see it."""

    horizon: ClassVar[int] = 512
    clip_steps: ClassVar[int] = 25
    fps: ClassVar[float] = 60 / FRAMES

    @property
    def task(self) -> str:
        """The task in words for annotators."""
        if self.game == "freeway":
            return "Get the chicken across the road as often as possible."
        return f"Play {self.game.replace('_', ' ')} as well as possible."

    @property
    def reward_scale(self) -> float:
        """A large difference of the rewards in a clip; of a game that is not in `GAMES`: 10."""
        return GAMES[self.game].reward_scale if self.game in GAMES else 10.0

    @property
    def observation_space(self) -> "Box":
        """The last four pictures, (4, 84, 84)."""
        from gymnasium.spaces import Box

        return Box(0, 255, (FRAMES, SIZE, SIZE), dtype=np.uint8)

    @property
    def action_space(self) -> "Discrete":
        """The actions that do something in this game.

        Raises:
            AssentError: the emulator is not installed, or has no such game.
        """
        from gymnasium.spaces import Discrete

        return Discrete(_count_actions(self.game))

    def begin(self, seeds: Sequence[int]) -> "AtariEpisodes":
        """Start an episode from each seed.

        Raises:
            AssentError: the emulator is not installed, has no such game, or it is not known where its score is.
        """
        if self.mask_score and self.game not in GAMES:
            raise AssentError(f"assent does not know where {self.game} shows its score: set mask_score = false")
        return AtariEpisodes(self.game, GAMES[self.game].score_rows if self.mask_score else slice(0), seeds)


class AtariEpisodes:
    """N games, each on an emulator of its own: states that ale-py restores do not go on exactly as before."""

    def __init__(self, game: str, hidden_rows: slice, seeds: Sequence[int]) -> None:
        self._consoles = [_Console(game, hidden_rows, seed) for seed in seeds]
        pictures = np.stack([console.picture for console in self._consoles])
        self.observations = np.repeat(pictures[:, None], FRAMES, axis=1)  # (N, 4, 84, 84)

    def step(self, actions: NDArray[Any]) -> Transition:
        """Hold each action for four frames; the reward model reads the pictures after them, (N, 4, 84, 84)."""
        rewards = [console.hold(int(action)) for console, action in zip(self._consoles, actions, strict=True)]
        pictures = np.stack([console.picture for console in self._consoles])
        self.observations = np.concatenate([self.observations[:, 1:], pictures[:, None]], 1)
        return Transition(self.observations, self.observations, np.array(rewards, dtype=np.float32))

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Return the screen of one game, (210, 160, 3)."""
        return self._consoles[index].screen


class _Console:
    """One game: its `screen`, (210, 160, 3), and the `picture` of it that the agent sees, (84, 84)."""

    def __init__(self, game: str, hidden_rows: slice, seed: int) -> None:
        self._is_freeway = game == "freeway"
        self._hidden_rows = hidden_rows
        self._rng = np.random.default_rng(seed)
        self._emulator = _load(game)
        self._actions = self._emulator.getMinimalActionSet()
        self._wait()
        self.picture = self._shrink(self._emulator.getScreenGrayscale())
        self.screen: NDArray[np.uint8] = self._emulator.getScreenRGB()

    def hold(self, number: int) -> float:
        """Hold an action for four frames, and return the true reward."""
        emulator, action, height = self._emulator, self._actions[number], self._height()
        points = sum(emulator.act(action) for _ in range(FRAMES - 1))
        grey, screen = emulator.getScreenGrayscale(), emulator.getScreenRGB()
        points += emulator.act(action)
        self.picture = self._shrink(np.maximum(grey, emulator.getScreenGrayscale()))
        self.screen = np.maximum(screen, emulator.getScreenRGB())
        reward = points + (self._height() - height) / FREEWAY_ROAD
        if emulator.game_over():
            emulator.reset_game()
            self._wait()
        return float(reward)

    def _height(self) -> int:
        """Return the height of the chicken in Freeway; in other games 0."""
        return int(self._emulator.getRAM()[FREEWAY_HEIGHT]) if self._is_freeway else 0

    def _wait(self) -> None:
        """Do nothing for a number of frames at the start of a game."""
        for _ in range(self._rng.integers(1, MAX_NO_OPS + 1)):
            self._emulator.act(0)

    def _shrink(self, screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture, (84, 84), of which each pixel is the mean of 2 x 2 of the screen, (210, 160)."""
        screen[self._hidden_rows] = 0
        rows, columns = np.arange(SIZE) * HEIGHT // SIZE, np.arange(SIZE) * WIDTH // SIZE
        halves = screen[rows].astype(np.uint16) + screen[rows + 1]
        return ((halves[:, columns] + halves[:, columns + 1]) // 4).astype(np.uint8)


@cache
def _count_actions(game: str) -> int:
    return len(_load(game).getMinimalActionSet())


def _load(game: str) -> Any:
    """Return an emulator at the start of a game, without sticky actions.

    Raises:
        AssentError: the emulator is not installed, or has no such game.
    """
    try:
        from ale_py import ALEInterface, LoggerMode, roms
    except ImportError:
        raise AssentError("atari needs ale-py: pip install 'assent[atari]'") from None
    games = roms.get_all_rom_ids()
    if game not in games:
        raise AssentError(f"no Atari game '{game}'{did_you_mean(game, games)}")
    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator = ALEInterface()
    emulator.setInt("random_seed", 0)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(str(roms.get_rom_path(game)))
    emulator.reset_game()
    return emulator
