"""Half cheetah: six motors make a flat animal run. The model of Gymnasium's HalfCheetah-v5, stepped N at a time.

MuJoCo steps all episodes in one call (`mujoco.batch`), so neither Gymnasium's environment nor a window is needed. As
there, a step is five Euler steps of 10 ms; unlike there, torques cost nothing, since nobody sees them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.protocols import Drawing, Line, Transition

if TYPE_CHECKING:
    from gymnasium.spaces import Box

SUBSTEPS, TIMESTEP = 5, 0.01
MOTORS, JOINTS = 6, 9
"""Coordinates of the model: x, z and pitch of the torso, and six joints."""
SPEED_SCALE = 0.1
"""Factor of all velocities in an observation."""
LIMIT = 5.0
"""Largest number of an observation."""
START_NOISE = 0.1
"""Of the first positions, uniform, and of the first velocities, normal: as in Gymnasium."""
TOTAL_MASS = 14.0


@dataclass(frozen=True)
class HalfCheetah:
    """A flat animal with two legs; the true reward is its speed forwards, in m/s."""

    horizon: ClassVar[int] = 200
    clip_steps: ClassVar[int] = 30
    fps: ClassVar[float] = 1 / (SUBSTEPS * TIMESTEP)
    task: ClassVar[str] = "Run to the right as fast as possible."
    reward_scale: ClassVar[float] = 30.0

    @property
    def observation_space(self) -> "Box":
        """Height in m, cosine and sine of the pitch, six joints in rad, and nine velocities in tenths, up to 5."""
        from gymnasium.spaces import Box

        return Box(-LIMIT, LIMIT, (2 * JOINTS,))

    @property
    def action_space(self) -> "Box":
        """Torques of the motors as a share of the strongest."""
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (MOTORS,))

    def begin(self, seeds: Sequence[int]) -> "HalfCheetahEpisodes":
        """Start an episode from each seed.

        Raises:
            AssentError: MuJoCo is not installed.
        """
        return HalfCheetahEpisodes(seeds)


class HalfCheetahEpisodes:
    """N animals."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._model = _model()
        from mujoco.batch import Batch

        self._batch: Any = Batch(self._model, len(seeds), nthread=1)
        for index, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            self._batch.qpos[index] += rng.uniform(-START_NOISE, START_NOISE, JOINTS)
            self._batch.qvel[index] += START_NOISE * rng.standard_normal(JOINTS)

    @property
    def observations(self) -> NDArray[np.float32]:
        """The observations of the agents, (N, 18)."""
        height, pitch, joints = np.split(self._batch.qpos[:, 1:], [1, 2], axis=1)
        columns = height, np.cos(pitch), np.sin(pitch), joints, SPEED_SCALE * self._batch.qvel
        observations: NDArray[np.float32] = np.concatenate(columns, 1).clip(-LIMIT, LIMIT).astype(np.float32)
        return observations

    def step(self, actions: NDArray[Any]) -> Transition:
        """Apply torques for 1/20 s; the reward model reads the observation before it, and the torques."""
        torques = np.clip(np.asarray(actions, dtype=np.float32), -1, 1)
        features = np.concatenate([self.observations, torques], 1)
        before = self._batch.qpos[:, 0].copy()
        self._batch.ctrl[:] = torques
        self._batch.step(nstep=SUBSTEPS)
        speeds = (self._batch.qpos[:, 0] - before) / (SUBSTEPS * TIMESTEP)
        return Transition(self.observations, features, speeds.astype(np.float32))

    def draw(self, index: int) -> Drawing:
        """Draw one animal from the side; the camera moves with it, past a post at every metre."""
        import mujoco

        data = self._batch.get_data(index)
        mujoco.mj_kinematics(self._model, data)
        middle = float(data.qpos[0])
        left, right = middle - 1.5, middle + 1.5
        shapes = [Line(left, 0.0, right, 0.0, 0.02, "muted")]
        posts = range(int(np.ceil(left)), int(np.floor(right)) + 1)
        shapes += [Line(float(post), 0.0, float(post), 0.15, 0.02, "muted") for post in posts]
        for geom in range(1, self._model.ngeom):  # 0 is the floor
            radius, half_length, _ = self._model.geom_size[geom]
            x, _, z = data.geom_xpos[geom]
            along_x, along_z = half_length * data.geom_xmat[geom][[2, 8]]  # a capsule lies along its third axis
            x0, y0, x1, y1 = (float(end) for end in (x - along_x, z - along_z, x + along_x, z + along_z))
            shapes.append(Line(x0, y0, x1, y1, 2 * float(radius), "accent" if geom <= 2 else "ink"))
        return Drawing((left, -0.2, right, 1.5), tuple(shapes))


@cache
def _model() -> Any:
    """Return the compiled model of the animal.

    Raises:
        AssentError: MuJoCo or Gymnasium is not installed.
    """
    try:
        import gymnasium
        import mujoco.batch
    except ImportError:
        raise AssentError("half_cheetah needs gymnasium and mujoco-core: pip install 'assent[control]'") from None
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
    xml = path.read_text(encoding="utf-8").replace(f'settotalmass="{TOTAL_MASS:g}"', "")  # deprecated: set it below
    model = mujoco.MjModel.from_xml_string(xml)
    mujoco.mj_setTotalmass(model, TOTAL_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
