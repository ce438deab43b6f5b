"""Every environment: whole episodes from seeds, the same in a batch of any size, and replayed from their actions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from assent.errors import AssentError
from assent.protocols import Drawing, Environment, Transition
from assent.records import Prompt
from assent.registry import name_of, names, resolve
from assent.replay import action_shape, encode_actions, prompt_of, replay, start_of, summarise
from assent.segments import Segment

pytest.importorskip("gymnasium")
SEEDS = (3, 1_000_007, 11, 3)
"""The first and the last are the same."""


SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "gymnasium": ({"env_id": "MountainCarContinuous-v0"}, {"env_id": "Acrobot-v1", "episode_steps": 150}),
}
"""Settings of environments that need some; the others are tested with their defaults."""
CASES = [(name, settings) for name in names("environments") for settings in SETTINGS.get(name, ({},))]


def environment_of(name: str, **settings: Any) -> Environment:
    """Return an environment with these settings."""
    environment: Environment = resolve("environments", name)(**settings)
    return environment


def random_actions(environment: Environment, steps: int, count: int) -> NDArray[Any]:
    """Return actions of a space at random, (steps, count, ...); those of the first and the last episode are equal."""
    rng = np.random.default_rng(0)
    shape = (steps, count, *action_shape(environment))
    space: Any = environment.action_space
    if action_shape(environment):
        actions: NDArray[Any] = rng.uniform(space.low, space.high, shape).astype(np.float32)
    else:
        actions = rng.integers(space.n, size=shape).astype(space.dtype)
    actions[:, -1] = actions[:, 0]
    return actions


def play(environment: Environment, seeds: tuple[int, ...], actions: NDArray[Any]) -> list[Transition]:
    """Return what happens when actions, (T, N, ...), are taken."""
    episodes = environment.begin(seeds)
    return [episodes.step(action) for action in actions]


@pytest.fixture(params=CASES, ids=lambda case: " ".join([case[0], *map(str, case[1].values())]))
def environment(request: pytest.FixtureRequest) -> Environment:
    name, settings = request.param
    return environment_of(name, **settings)


def test_episodes_depend_on_seed_and_actions_alone(environment: Environment) -> None:
    actions = random_actions(environment, environment.horizon, len(SEEDS))
    together = play(environment, SEEDS, actions)
    again = play(environment, SEEDS, actions)
    alone = play(environment, SEEDS[1:2], actions[:, 1:2])
    for one, same, single in zip(together, again, alone, strict=True):
        for name in ("observations", "features", "true_rewards"):
            values = getattr(one, name)
            assert np.array_equal(values, getattr(same, name))
            assert np.array_equal(values[1], getattr(single, name)[0]), f"{name} differ in a batch of one"
            assert np.array_equal(values[0], values[-1])
    assert not np.array_equal(together[-1].observations[0], together[-1].observations[1])


def test_arrays_have_the_shapes_and_types_of_the_spaces(environment: Environment) -> None:
    episodes = environment.begin(SEEDS)
    space = environment.observation_space
    assert episodes.observations.shape == (len(SEEDS), *space.shape)
    transition = episodes.step(random_actions(environment, 1, len(SEEDS))[0])
    assert transition.observations.shape == (len(SEEDS), *space.shape)
    assert transition.observations.dtype == space.dtype
    assert transition.features.ndim >= 2
    assert transition.features.dtype in (np.float32, np.uint8)
    assert transition.true_rewards.shape == (len(SEEDS),)
    assert transition.true_rewards.dtype == np.float32
    assert np.isfinite(transition.features).all()


def test_returned_arrays_do_not_change_later(environment: Environment) -> None:
    actions = random_actions(environment, 5, 2)
    episodes = environment.begin(SEEDS[:2])
    first = episodes.step(actions[0])
    copies = [array.copy() for array in first]
    for action in actions[1:]:
        episodes.step(action)
    for array, copy in zip(first, copies, strict=True):
        assert np.array_equal(array, copy)


def test_frames_are_shapes_within_reach_or_pictures(environment: Environment) -> None:
    if name_of(environment) == "gymnasium":
        pytest.importorskip("pygame")
    episodes = environment.begin(SEEDS[:1])
    for action in random_actions(environment, 10, 1):
        frame = episodes.draw(0)
        if isinstance(frame, Drawing):
            left, bottom, right, top = frame.view
            assert left < right
            assert bottom < top
            assert frame.shapes
            assert all(
                np.isfinite([value for value in shape if not isinstance(value, str)]).all() for shape in frame.shapes
            )
        else:
            assert frame.dtype == np.uint8
            assert frame.shape[2] == 3
        episodes.step(action)


def test_clips_fit_into_an_episode(environment: Environment) -> None:
    assert 1 <= environment.clip_steps < environment.horizon
    assert environment.fps > 0
    assert environment.reward_scale > 0
    assert environment.task


# Replay


def recording(environment: Environment, start: int = 2) -> tuple[Prompt, Segment, list[Transition]]:
    """Return a segment of the second episode of a batch, with its prompt and what happened in the batch."""
    end = start + environment.clip_steps
    actions = random_actions(environment, end, len(SEEDS))
    transitions = play(environment, SEEDS, actions)
    summary = summarise(transitions[-1].observations[1])
    segment = Segment(start, environment.clip_steps, encode_actions(actions[:, 1]), summary)
    return prompt_of(environment, SEEDS[1]), segment, transitions


def test_replay_repeats_features_and_true_return(environment: Environment) -> None:
    prompt, segment, transitions = recording(environment)
    other, other_segment, _ = recording(environment, start=5)
    clip, _ = replay([(prompt, segment.text), (other, other_segment.text)])
    recorded = transitions[segment.start :]
    assert np.array_equal(clip.features, np.stack([transition.features[1] for transition in recorded]))
    assert clip.true_return == pytest.approx(sum(float(t.true_rewards[1]) for t in recorded), abs=1e-4)


def test_replay_refuses_a_recording_that_ends_elsewhere(environment: Environment) -> None:
    prompt, segment, _ = recording(environment)
    moved = replace(segment, end=tuple(1.1 * value + 1 for value in segment.end))
    with pytest.raises(AssentError, match="does not end as it was recorded"):
        replay([(prompt, moved.text)])


def test_prompt_names_environment_and_seed(environment: Environment) -> None:
    prompt = prompt_of(environment, 17, "Do something else.")
    assert start_of(prompt) == (environment, 17)
    assert prompt.text == "Do something else."
    assert prompt.id == prompt_of(environment, 17, "Do something else.").id != prompt_of(environment, 18).id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": b"\0" * 4}, "it does not fit its environment"),
        ({"start": 190}, "it does not fit its environment"),
        ({"actions": np.full(27, np.nan, dtype="<f4").tobytes()}, "actions that are not finite"),
    ],
)
def test_segment_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    prompt, segment, _ = recording(environment_of("pendulum"))
    with pytest.raises(AssentError, match=message):
        replay([(prompt, replace(segment, **change).text)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello", "no segment"),
        ('{"actions":"","start":0,"steps":1}', "its keys are not actions, end, start, steps"),
        ('{"actions":"","end":[],"start":-1,"steps":1}', "are no piece of an episode"),
        ('{"actions":"","end":[],"start":0,"steps":true}', "are no piece of an episode"),
        ('{"actions":"?","end":[],"start":0,"steps":1}', "no segment"),
    ],
)
def test_text_that_is_no_segment_is_refused(text: str, message: str) -> None:
    with pytest.raises(AssentError, match=message):
        Segment.read(text)


def test_segment_survives_its_text() -> None:
    segment = Segment(3, 4, np.arange(7, dtype="<f4").tobytes(), (0.5, -1.0))
    assert Segment.read(segment.text) == segment


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"environment":"pendulm","seed":1}', "no 'pendulm' among environments.*pendulum"),
        ('{"environment":"pendulum","seed":1,"gravity":3}', "has no setting 'gravity'"),
        ("pendulum", "names no environment and seed"),
    ],
)
def test_unknown_environments_are_refused_by_name(content: str, message: str) -> None:
    prompt = prompt_of(environment_of("pendulum"), 1)
    changed = Prompt((replace(prompt.messages[0], content=content), *prompt.messages[1:]))
    with pytest.raises(AssentError, match=message):
        start_of(changed)


# Each environment's own physics


def test_pendulum_is_that_of_gymnasium() -> None:
    import gymnasium

    environment = environment_of("pendulum")
    theirs = gymnasium.make("Pendulum-v1")
    observation, _ = theirs.reset(seed=5)
    episodes = environment.begin([5])
    assert np.allclose(episodes.observations[0], observation)
    for action in random_actions(environment, 200, 1):
        observation, reward, *_ = theirs.step(action[0])
        transition = episodes.step(action)
        assert np.allclose(transition.observations[0], observation, atol=1e-5)
        assert transition.true_rewards[0] == pytest.approx(float(reward), abs=1e-4)
