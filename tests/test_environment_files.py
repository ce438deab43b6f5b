"""Cart and pole, moving dot, half cheetah, Gymnasium's environments and Atari games: each one's own rules."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from assent.environments.atari import GAMES, Atari
from assent.environments.cart_pole import TRACK, CartPole
from assent.environments.gymnasium import Gymnasium
from assent.environments.half_cheetah import HalfCheetah
from assent.environments.moving_dot import MIDDLE, MovingDot
from assent.errors import AssentError
from assent.protocols import Line
from assent.replay import replay, replay_frames
from assent.segments import Segment, environment_prompt

# Cart and pole


@pytest.mark.parametrize("seed", [0, 5, 9])
def test_cart_pole_is_gymnasiums_until_that_ends(seed: int) -> None:
    theirs = gymnasium.make("CartPole-v1").unwrapped
    state, _ = theirs.reset(seed=seed)
    episodes = CartPole().begin([seed])
    steps = 0
    for action in np.random.default_rng(seed).integers(2, size=CartPole.horizon):
        position, speed, cos, sin, turning = episodes.observations[0]
        assert np.allclose(state, [position, speed, np.arctan2(sin, cos), turning], atol=1e-5)
        state, _, is_end, _, _ = theirs.step(int(action))
        episodes.step(np.array([action]))
        steps += 1
        if is_end:
            break
    assert 8 < steps < CartPole.horizon


def test_fallen_pole_swings_on_and_cart_stops_at_the_end() -> None:
    episodes = CartPole().begin([1, 2])
    transitions = [episodes.step(np.array([1, 0])) for _ in range(CartPole.horizon)]
    observations = np.stack([transition.observations for transition in transitions])  # (T, 2, 5)
    assert observations[:, :, 2].min() < -0.9
    assert observations[-1, 0, 0] == pytest.approx(TRACK)
    assert observations[-1, 1, 0] == pytest.approx(-TRACK)
    assert np.abs(observations).max() <= 10


def test_cart_pole_pays_for_upright_and_centred() -> None:
    episodes = CartPole().begin([3])
    position, _, cos, *_ = episodes.observations[0]
    assert episodes.step(np.array([0])).true_rewards[0] == pytest.approx(cos - 0.1 * abs(position))
    assert cos > 0.99


# Moving dot


def middle_of(picture: NDArray[Any]) -> NDArray[Any]:
    """Return x and y of the middle of the white pixels."""
    middle: NDArray[Any] = np.argwhere(picture == 255).mean(0)[::-1]
    return middle


def test_dot_moves_as_asked_and_drifts() -> None:
    """The five moves differ by two pixels each from the same start; the drift is one pixel."""
    seeds = [
        seed for seed in range(30) if np.abs(middle_of(MovingDot().begin([seed]).observations[0, 0]) - 20).max() < 9
    ]
    for seed in seeds[:3]:
        episodes = MovingDot().begin([seed] * 5)
        start = middle_of(episodes.observations[0, 0])
        pictures = episodes.step(np.arange(5)).observations[:, 0]
        still, left, right, up, down = (middle_of(picture) for picture in pictures)
        assert np.linalg.norm(still - start) <= 2
        assert np.allclose([left - still, right - still, up - still, down - still], [[-2, 0], [2, 0], [0, -2], [0, 2]])


def test_centred_dot_earns_more_and_can_be_held() -> None:
    """An agent that pushes against the greater distance holds the dot; one that does nothing loses it."""

    def total(is_held: bool) -> float:
        episodes = MovingDot().begin(range(8))
        rewards = []
        for _ in range(MovingDot.horizon):
            x, y = np.array([middle_of(picture[0]) for picture in episodes.observations]).T - MIDDLE
            sideways = np.where(x > 0, 1, 2)
            actions = np.where(np.abs(x) > np.abs(y), sideways, np.where(y > 0, 3, 4))
            rewards.append(episodes.step(actions if is_held else np.zeros(8, dtype=int)).true_rewards)
        return float(np.mean(rewards[20:]))

    assert -0.15 < total(is_held=True) <= 0
    assert total(is_held=False) < -0.4


def test_dot_is_drawn_as_it_is_seen() -> None:
    episodes = MovingDot().begin([4])
    assert np.array_equal(episodes.draw(0)[:, :, 1], episodes.observations[0, 0])


# Half cheetah


def test_half_cheetah_is_that_of_gymnasium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain loop over Gymnasium's own file ends at the same numbers."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings there
    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    model = mujoco.MjModel.from_xml_path(str(folder / "half_cheetah.xml"))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(8)
    data.qpos += rng.uniform(-0.1, 0.1, 9)
    data.qvel += 0.1 * rng.standard_normal(9)
    episodes = HalfCheetah().begin([7, 8])
    travelled = np.float64(-data.qpos[0])
    earned = 0.0
    for actions in np.random.default_rng(0).uniform(-1, 1, (50, 2, 6)).astype(np.float32):
        data.ctrl[:] = actions[1]
        mujoco.mj_step(model, data, 5)
        transition = episodes.step(actions)
        earned += float(transition.true_rewards[1])
    observation = transition.observations[1]
    assert np.array_equal(observation[3:9], data.qpos[3:].astype(np.float32))
    assert np.allclose(observation[9:], 0.1 * data.qvel)
    assert observation[0] == np.float32(data.qpos[1])
    assert earned * 0.05 == pytest.approx(travelled + data.qpos[0], abs=1e-4)


def test_torques_cost_nothing_while_the_cheetah_rests() -> None:
    """Its reward is the speed alone, so small torques that move nothing forwards change little."""
    still, pushed = HalfCheetah().begin([1]), HalfCheetah().begin([1])
    rewards = [pushed.step(np.full((1, 6), 0.01, dtype=np.float32)).true_rewards[0] for _ in range(20)]
    baseline = [still.step(np.zeros((1, 6), dtype=np.float32)).true_rewards[0] for _ in range(20)]
    assert np.mean(rewards) == pytest.approx(np.mean(baseline), abs=0.05)


def test_camera_follows_the_cheetah_past_posts() -> None:
    episodes = HalfCheetah().begin([2])
    before = episodes.draw(0)
    for actions in np.random.default_rng(1).uniform(-1, 1, (100, 1, 6)):
        episodes.step(actions)
    after = episodes.draw(0)
    assert after.view[2] - after.view[0] == pytest.approx(3)
    assert after.view[0] != before.view[0]
    limbs = [shape for shape in after.shapes if shape.tone != "muted"]
    assert len(limbs) == 8
    posts = [shape for shape in after.shapes[1:] if shape.tone == "muted"]
    assert all(isinstance(post, Line) and post.x0 == round(post.x0) for post in posts)
    assert all(after.view[0] < limb[0] < after.view[2] and limb[1] > 0 for limb in limbs)


def test_drawing_does_not_change_what_follows() -> None:
    watched, unwatched = HalfCheetah().begin([2]), HalfCheetah().begin([2])
    for actions in np.random.default_rng(1).uniform(-1, 1, (30, 1, 6)):
        watched.draw(0)
        assert np.array_equal(watched.step(actions).observations, unwatched.step(actions).observations)


# Any environment of Gymnasium


class Corridor(gymnasium.Env[Any, Any]):
    """A walk along a line from a start drawn by the seed; it ends, and earns 1, at 3 and at -3."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 (as Gymnasium has it)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1, 2), dtype=np.float64)
    action_space = gymnasium.spaces.Discrete(2, start=1)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.start = self.np_random.uniform(-0.5, 0.5)
        self.place = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.place += 1 if action == 2 else -1
        is_end = abs(self.place) == 3
        return self._observation(), float(is_end), is_end, False, {}

    def render(self) -> Any:
        return np.full((6, 8, 3), 10 * (self.place + 3), dtype=np.uint8)

    def _observation(self) -> NDArray[Any]:
        return np.array([[self.place, self.start]])


@pytest.fixture
def corridor() -> Iterator[str]:
    gymnasium.register("AssentTests/Corridor-v0", f"{__name__}:Corridor")
    yield "AssentTests/Corridor-v0"
    del gymnasium.registry["AssentTests/Corridor-v0"]


def test_an_episode_that_ends_starts_again_inside(corridor: str) -> None:
    environment = Gymnasium(corridor, episode_steps=20)
    episodes = environment.begin([4, 5])
    first = episodes.observations[:, 1]
    transitions = [episodes.step(np.array([1, 0])) for _ in range(20)]
    places = np.array([transition.observations[:, 0] for transition in transitions])
    starts = np.array([transition.observations[:, 1] for transition in transitions])
    assert places[:7].tolist() == [[1, -1], [2, -2], [0, 0], [1, -1], [2, -2], [0, 0], [1, -1]]
    assert [t.true_rewards.tolist() for t in transitions[:4]] == [[0, 0], [0, 0], [1, 1], [0, 0]]
    assert len({*first, *starts.ravel()}) == 2 * 7, "each start has a seed of its own"


def test_features_are_observation_and_action(corridor: str) -> None:
    episodes = Gymnasium(corridor, episode_steps=9).begin([1])
    start = episodes.observations[0]
    features = episodes.step(np.array([1])).features
    assert features.tolist() == [[*start.tolist(), 0.0, 1.0]]


def test_pictures_are_the_environments_own(corridor: str) -> None:
    environment = Gymnasium(corridor, episode_steps=9)
    episodes = environment.begin([1, 2])
    episodes.step(np.array([1, 0]))
    assert episodes.draw(0).shape == (6, 8, 3)
    assert (episodes.draw(0)[0, 0, 0], episodes.draw(1)[0, 0, 0]) == (40, 20)
    assert (environment.fps, environment.clip_steps, environment.horizon) == (5, 2, 9)


def test_unbounded_observations_of_cart_pole_work() -> None:
    environment = Gymnasium("CartPole-v1")
    assert np.isinf(environment.observation_space.high).any()
    assert environment.horizon == 500
    episodes = environment.begin([3])
    theirs = gymnasium.make("CartPole-v1")
    assert np.array_equal(episodes.observations[0], theirs.reset(seed=3)[0])
    rewards = [episodes.step(np.array([0])).true_rewards[0] for _ in range(50)]
    assert rewards == [1] * 50


def test_actions_beyond_the_bounds_are_clipped() -> None:
    inside, beyond = Gymnasium("Pendulum-v1").begin([3]), Gymnasium("Pendulum-v1").begin([3])
    for _ in range(5):
        expected = inside.step(np.array([[2.0]], dtype=np.float32)).observations
        assert np.array_equal(beyond.step(np.array([[9.0]], dtype=np.float32)).observations, expected)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("", "needs the id of an environment: --environment gymnasium --env-id Acrobot-v1$"),
        ("Acrobat-v1", "no environment 'Acrobat-v1' in Gymnasium; did you mean 'Acrobot-v1'"),
        ("Acrobot-v9", "did you mean 'Acrobot-v1'"),
        ("not an id", "no environment 'not an id' in Gymnasium; did you mean"),
        ("CartPole", "no environment 'CartPole' in Gymnasium; did you mean 'CartPole-v"),
        ("json:Acrobot-v1", "no environment 'json:Acrobot-v1' in Gymnasium; did you mean 'Acrobot-v1'"),
        ("../Acrobot-v1", "no environment '../Acrobot-v1' in Gymnasium; did you mean 'Acrobot-v1'"),
        ("FrozenLake-v1", "observations in Discrete and actions in Discrete; supported: observations in Box"),
    ],
)
def test_ids_that_cannot_work_are_refused_in_a_line(env_id: str, message: str) -> None:
    with pytest.raises(AssentError, match=message) as refusal:
        Gymnasium(env_id).begin([1])
    assert "\n" not in str(refusal.value)


def test_an_imported_clip_imports_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gymnasium would import the module that an id names."""
    (tmp_path / "module_of_a_clip.py").write_text("raise SystemExit('this ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    prompt = environment_prompt("gymnasium", {"env_id": "module_of_a_clip:Acrobot-v1"}, seed=1, task="")
    clip = Segment(start=0, steps=1, actions=b"\0", end=(0.0,)).text
    for read in (lambda: replay([(prompt, clip)]), lambda: replay_frames(prompt, clip)):
        with pytest.raises(AssentError, match="no environment 'module_of_a_clip:Acrobot-v1' in Gymnasium"):
            read()
    assert "module_of_a_clip" not in sys.modules


def test_environment_without_limit_needs_a_number_of_steps(corridor: str) -> None:
    with pytest.raises(AssentError, match="has no limit of steps: set one, such as --episode-steps 200"):
        _ = Gymnasium(corridor).horizon


def test_missing_packages_are_named() -> None:
    """Without glfw Gymnasium's MuJoCo does not load; without pygame its classic control draws nothing."""
    if _is_missing("glfw"):
        with pytest.raises(AssentError, match=r"pip install 'gymnasium\[mujoco\]'"):
            Gymnasium("Hopper-v5").begin([1])
    episodes = Gymnasium("Acrobot-v1").begin([1])
    if _is_missing("pygame"):
        with pytest.raises(AssentError, match=r"gymnasium\[classic-control\]"):
            episodes.draw(0)
    else:
        assert episodes.draw(0).shape[2] == 3


def _is_missing(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return True
    return False


# Atari


def test_chicken_gets_as_far_as_it_is_pushed() -> None:
    """It climbs four rows of 170 in a step until a car hits it; at the start it cannot go down."""
    episodes = Atari().begin([1, 2, 3])
    rewards = np.array([episodes.step(np.array([1, 1, 2])).true_rewards for _ in range(60)])  # (T, N)
    assert rewards.max() == pytest.approx(4 / 170)
    assert (rewards[:, :2].cumsum(0).max(0) > 0.2).all()
    assert (rewards[:, 2] == 0).all()


def test_crossing_the_road_earns_one_in_all() -> None:
    """A point comes when the chicken goes back to the start: the two cancel, and only the way counts."""
    episodes = Atari().begin([5])
    score, total = episodes.draw(0)[:14], 0.0
    while np.array_equal(episodes.draw(0)[:14], score):
        total += float(episodes.step(np.array([1])).true_rewards[0])
    assert total == pytest.approx(1, abs=0.05)


def test_score_is_black_for_the_agent_and_not_for_people() -> None:
    masked, unmasked = (Atari(mask_score=is_masked).begin([1]) for is_masked in (True, False))
    assert masked.observations[0, 0, :5].max() == 0
    assert unmasked.observations[0, 0, :5].max() > 0
    assert np.array_equal(masked.observations[0, 0, 6:], unmasked.observations[0, 0, 6:])
    assert np.array_equal(masked.draw(0), unmasked.draw(0))
    assert masked.draw(0)[:14].max() > 0


def test_pictures_move_up_in_the_stack() -> None:
    episodes = Atari("pong").begin([1])
    first = episodes.observations
    second = episodes.step(np.array([2])).observations
    assert np.array_equal(second[:, :3], first[:, 1:])
    assert not np.array_equal(second[:, 3], first[:, 3])


def test_game_over_starts_the_game_again() -> None:
    """Whoever serves and does not move loses all balls of Breakout, and then has the score and balls of the start."""
    episodes = Atari("breakout").begin([1])
    scores = [episodes.draw(0)[:17]]
    for _ in range(200):
        episodes.step(np.array([1]))
        scores.append(episodes.draw(0)[:17])
    is_first = [np.array_equal(score, scores[0]) for score in scores]
    assert any(after and not before for before, after in pairwise(is_first))


def test_every_game_with_a_known_score_begins() -> None:
    counts = {game: int(Atari(game).action_space.n) for game in GAMES}
    assert counts["freeway"] == 3
    assert counts["seaquest"] == 18
    assert len(counts) == 8


def test_games_that_cannot_work_are_refused() -> None:
    with pytest.raises(AssentError, match="no Atari game 'freway'; did you mean 'freeway'"):
        _ = Atari("freway").action_space
    with pytest.raises(AssentError, match="where tennis shows its score: set mask_score = false"):
        Atari("tennis").begin([1])
    assert Atari("tennis", mask_score=False).begin([1]).observations.max() > 0
