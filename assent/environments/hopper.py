"""Hopper: one leg that can learn backflips, the task of Christiano et al. 2017 (arXiv:1706.03741, section 3.2).

The model is Gymnasium's, but steps are of 16 ms and by Euler's method: it is not Gymnasium's Hopper. A hopper that lies
on the floor for a third of a second is stood up within the episode; the agent is not informed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.protocols import Drawing, Line, Transition

if TYPE_CHECKING:
    from gymnasium.spaces import Box

DT = 0.016
SUBSTEPS = 8
NOISE = 0.005
"""Greatest difference of a start from standing still, in m, rad, m/s and rad/s; as in Gymnasium."""
PATIENCE = 20
"""Steps of a fall with torso or thigh on the floor after which a hopper is stood up."""
STEADY = 7
"""Steps, 0.1 s, without either on the floor after which a fall is over, or a flip is clean: a body bounces."""
TURN = 2 * np.pi
FALL_COST = 440.0
"""True reward that a fall costs until the hopper is stood up; a turn earns `TURN / DT` = 393."""
MAX_BACKWARD = 10.0
VELOCITY_SCALES = np.array([0.2, 0.2, 0.1, 0.1, 0.1, 0.1])
MAX_VELOCITY = 3.0


class Posture(NamedTuple):
    """How hoppers are placed after a step, (N,), or after each of T steps, (T, N)."""

    turn: NDArray[np.float64]
    """Backward turn of the torso from upright in rad, whole turns included; a hopper that is stood up starts at 0."""
    foot: NDArray[np.float64]
    """Height of the lowest point of the foot, in m above where it touches the floor."""
    body: NDArray[np.float64]
    """The same of torso and thigh. The ends of the leg lie within the thicker thigh and foot: a leg touches the floor
    only where a landing presses the foot more than 2 cm into it."""


class Flips(NamedTuple):
    """Backward flights of N hoppers."""

    clean: NDArray[np.int64]  # (N,)
    """Flights of at least 3/4 turn that land on the foot, within 60 degrees of upright, and stay up for 0.1 s."""
    in_a_row: NDArray[np.int64]  # (N,)
    """The most clean flips between which neither torso nor thigh touches the floor."""
    half_turns: NDArray[np.int64]  # (N,)
    """Flights of at least half a turn, however they end."""


@dataclass(frozen=True)
class Hopper:
    """One leg with three motors."""

    goal: Literal["backflip", "forward"] = "backflip"
    """The true reward, which agents never see: `backflip` pays for net backward turns in the air and lets a fall cost
    more than a turn; `forward` pays for speed while upright."""

    horizon: ClassVar[int] = 200
    clip_steps: ClassVar[int] = 60
    fps: ClassVar[float] = 0.5 / DT
    """Half of the real speed: a flip takes less than a second."""

    @property
    def task(self) -> str:
        """The task in words for annotators."""
        if self.goal == "forward":
            return "Make the hopper hop forward, to the right, without a fall."
        return "Make the hopper do backflips: high, one turn, and on its foot."

    @property
    def reward_scale(self) -> float:
        """The difference of the true returns of two clips that counts as large."""
        # Nine in ten pairs of clips of actions at random (standard normal, 128 seeds) differ by less: 330 and 32.
        return 300.0 if self.goal == "backflip" else 30.0

    @property
    def observation_space(self) -> "Box":
        """Height, sine and cosine of the torso, 3 joints, 6 velocities, and clearance and contact of foot and body.

        A contact is 1 on the floor and 0 above it: a reward that reads clearances alone learns that edge late.
        """
        from gymnasium.spaces import Box

        return Box(-np.inf, np.inf, (16,))

    @property
    def action_space(self) -> "Box":
        """Torques of hip, knee and ankle, as shares of the strongest."""
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (3,))

    def begin(self, seeds: Sequence[int]) -> "HopperEpisodes":
        """Start an episode from each seed.

        Raises:
            AssentError: MuJoCo or the model file is not installed.
        """
        return HopperEpisodes(seeds, self.goal)


class HopperEpisodes:
    """N hoppers."""

    def __init__(self, seeds: Sequence[int], goal: Literal["backflip", "forward"]) -> None:
        model = load_model()
        import mujoco
        from mujoco.batch import Batch

        self._stage = int(mujoco.mjtStage.mjSTAGE_POS)  # positions after the last substep, not before it
        self._seeds = tuple(seeds)
        self._goal = goal
        self._radius, self._half_length = model.geom_size[1:, :2].T.copy()
        self._margin = model.geom_margin[0] + model.geom_margin[1:]
        # Results are the same with more threads; the networks of the agent need the other cores.
        self._batch = Batch(model, len(seeds), nthread=1)
        self._qpos, self._qvel, self._ctrl = map(self._batch.bind, ("qpos", "qvel", "ctrl"))
        self._geom_xpos, self._geom_xmat = map(self._batch.bind, ("geom_xpos", "geom_xmat"))
        self._starts = np.zeros(len(seeds), dtype=np.int64)
        self._steps_down = np.zeros(len(seeds), dtype=np.int64)
        self._steps_up = np.zeros(len(seeds), dtype=np.int64)
        self._takeoff = np.zeros(len(seeds))
        self._stand_up(np.arange(len(seeds)))
        self._observations = self._observe()

    @property
    def observations(self) -> NDArray[np.float32]:
        """The observations of the agents, (N, 16)."""
        return self._observations

    @property
    def posture(self) -> Posture:
        """The postures now, for counting flips."""
        axis = np.abs(self._geom_xmat[:, 1:, 8])
        clearance = self._geom_xpos[:, 1:, 2] - axis * self._half_length - self._radius - self._margin
        return Posture(-self._qpos[:, 2], clearance[:, 3].copy(), clearance[:, :2].min(1))

    def step(self, actions: NDArray[Any]) -> Transition:
        """Apply torques to each for 16 ms; the reward model reads the observation after it, before any is stood up."""
        before, start = self.posture, self._qpos[:, 0].copy()
        self._ctrl[:] = np.clip(np.asarray(actions, dtype=np.float64), -1, 1)
        self._batch.step(nstep=SUBSTEPS, stage=self._stage)
        after = self.posture
        if self._goal == "backflip":
            rewards = backflip_rewards(before, after, self._takeoff)
        else:
            rewards = forward_rewards(after, (self._qpos[:, 0] - start) / DT)
        self._takeoff = np.where(_is_airborne(after), self._takeoff, after.turn)
        self._steps_up = np.where(after.body < 0, 0, self._steps_up + 1)
        self._steps_down = np.where(self._steps_up >= STEADY, 0, self._steps_down + (after.body < 0))
        features = self._observe()
        lying = np.flatnonzero(self._steps_down == PATIENCE)
        self._stand_up(lying)
        self._observations = self._observe() if lying.size else features
        return Transition(self._observations, features, rewards.astype(np.float32))

    def draw(self, index: int) -> Drawing:
        """Draw one hopper from the side; the view follows it, and the floor has a mark every half metre."""
        x = float(self._qpos[index, 0])
        left, right = x - 1.25, x + 1.25
        marks = (np.floor(left / 0.5) + np.arange(1, 6)) * 0.5
        floor = [Line(left, 0.0, right, 0.0, 0.02, "muted")]
        floor += [Line(float(mark), -0.08, float(mark), 0.0, 0.02, "muted") for mark in marks]
        centre = self._geom_xpos[index, 1:, ::2]
        half = self._geom_xmat[index, 1:, 2::6] * self._half_length[:, None]
        rows = np.column_stack([centre - half, centre + half, 2 * self._radius]).tolist()
        torso, *limbs = (Line(*row) for row in rows)
        return Drawing((left, -0.2, right, 2.3), (*floor, torso._replace(tone="accent"), *limbs))

    def _stand_up(self, indices: NDArray[np.int64]) -> None:
        """Place hoppers upright where they are, almost at rest; how exactly follows from seed and number of starts."""
        if not indices.size:
            return
        x = self._qpos[indices, 0]
        self._batch.reset(indices)
        for index in indices:
            rng = np.random.default_rng((self._seeds[index], int(self._starts[index])))
            self._qpos[index] += rng.uniform(-NOISE, NOISE, 6)
            self._qvel[index] += rng.uniform(-NOISE, NOISE, 6)
        self._qpos[indices, 0] += x
        self._batch.forward(indices, stage=self._stage)
        self._starts[indices] += 1
        self._steps_down[indices] = 0
        self._takeoff[indices] = -self._qpos[indices, 2]

    def _observe(self) -> NDArray[np.float32]:
        posture, torso = self.posture, self._geom_xmat[:, 1]
        velocities = np.clip(self._qvel * VELOCITY_SCALES, -MAX_VELOCITY, MAX_VELOCITY)
        place = self._qpos[:, 1] - 1, torso[:, 2], torso[:, 8], *self._qpos[:, 3:].T
        clearances = posture.foot, posture.body
        columns = (*place, *velocities.T, *clearances, *(clearance < 0 for clearance in clearances))
        return np.stack(columns, 1).astype(np.float32)


def load_model() -> Any:
    """Return Gymnasium's model, without the packages for screens that its own environment needs.

    Raises:
        AssentError: a package is not installed.
    """
    try:
        import mujoco.batch

        path = files("gymnasium") / "envs/mujoco/assets/hopper.xml"
    except ImportError:
        raise AssentError("hopper needs mujoco-core and gymnasium: pip install 'assent[control]'") from None
    model = mujoco.MjModel.from_xml_path(str(path))
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    return model


def backflip_rewards(before: Posture, after: Posture, takeoff: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the true rewards of a step for backflips, (N,), in rad/s: a turn in the air earns 393.

    In the air the net backward turn since the last contact counts; what goes beyond one turn costs as much again. On
    the floor a forward turn costs as much as a backward turn in the air earns, so that swinging to and fro earns
    nothing; a backward turn earns a fifth; a torso that is not upright costs, upside down as much as a fall. A fall
    costs more than a turn earns.

    Args:
        before: of N hoppers before the step.
        after: of the same after it, before any is stood up.
        takeoff: turns at their last contact, (N,).
    """
    rate = (after.turn - before.turn) / DT
    air = (_worth(after.turn - takeoff) - _worth(before.turn - takeoff)) / DT
    forward = np.minimum(rate, 0)
    lean = (1 - np.cos(after.turn)) / 2 * FALL_COST / PATIENCE
    foot = forward + 0.2 * np.clip(rate, 0, MAX_BACKWARD) - lean
    return np.select([after.body < 0, after.foot < 0], [forward - FALL_COST / PATIENCE, foot], air)


def _worth(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what turns in one flight are worth, in rad: all until one whole turn, and then less and less."""
    return TURN - np.abs(TURN - turns)


def forward_rewards(after: Posture, speed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the true rewards of a step for hopping forward, (N,): speed in m/s while upright, or -1 on the floor."""
    return np.where(after.body < 0, -1.0, speed * np.maximum(np.cos(after.turn), 0))


def count_flips(postures: Posture) -> Flips:
    """Return the backward flights in postures after T steps in a row, (T, N)."""
    counts = [
        _count_flips(*(np.asarray(values)[:, index] for values in postures))
        for index in range(np.shape(postures.turn)[1])
    ]
    return Flips(*np.array(counts, dtype=np.int64).reshape(-1, 3).T)


def _count_flips(turn: NDArray[Any], foot: NDArray[Any], body: NDArray[Any]) -> tuple[int, int, int]:
    clean = row = longest = half_turns = 0
    start: int | None = None
    for step in range(len(turn)):
        if foot[step] >= 0 and body[step] >= 0:
            # A flight starts at its first step in the air: the last contact may be before the hopper was stood up.
            start = step if start is None else start
            continue
        turned = 0.0 if start is None else turn[step] - turn[start]
        start = None
        half_turns += turned >= TURN / 2
        is_flip = turned >= TURN * 3 / 4 and np.cos(turn[step]) >= 0.5
        after = body[step : step + STEADY + 1]
        if is_flip and len(after) == STEADY + 1 and bool((after >= 0).all()):
            clean, row = clean + 1, row + 1
        elif body[step] < 0:
            row = 0
        longest = max(longest, row)
    return clean, longest, half_turns


def _is_airborne(posture: Posture) -> NDArray[np.bool_]:
    return (posture.foot >= 0) & (posture.body >= 0)
