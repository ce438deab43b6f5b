"""Hopper: who falls is stood up, the true reward pays for flips and not for swinging, and flips are counted."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")

from assent.environments.hopper import (
    DT,
    FALL_COST,
    NOISE,
    PATIENCE,
    SUBSTEPS,
    TURN,
    Hopper,
    Posture,
    backflip_rewards,
    count_flips,
    forward_rewards,
    load_model,
)
from assent.errors import AssentError
from assent.protocols import Line
from assent.replay import encode_actions, summarise
from assent.segments import Segment

HIGH = 0.5
"""A height in the air."""


def record(hopper: Hopper, seeds: Sequence[int], actions: NDArray[Any]) -> tuple[Posture, NDArray[Any]]:
    """Return postures at the start and after each step, (T + 1, N), and true rewards, (T, N)."""
    episodes = hopper.begin(seeds)
    postures, rewards = [episodes.posture], []
    for action in actions:
        rewards.append(episodes.step(action).true_rewards)
        postures.append(episodes.posture)
    return Posture(*map(np.stack, zip(*postures, strict=True))), np.stack(rewards)


def random_actions(steps: int, count: int) -> NDArray[Any]:
    return np.random.default_rng(0).uniform(-1, 1, (steps, count, 3))


def true_return(turn: NDArray[Any], is_on_foot: Sequence[Any]) -> float:
    """Return the true return of one hopper by its turns and contacts; the first posture is the start, on the foot."""
    takeoff, total = np.array([turn[0]]), 0.0
    for step in range(1, len(turn)):
        before, after = (
            Posture(np.array([turn[s]]), np.array([-0.01 if is_on_foot[s] else HIGH]), np.array([HIGH]))
            for s in (step - 1, step)
        )
        total += backflip_rewards(before, after, takeoff)[0]
        takeoff = after.turn if is_on_foot[step] else takeoff
    return total


def starts_of(postures: Posture, index: int) -> NDArray[np.int64]:
    """Return the steps at which a hopper was stood up: its turn jumps."""
    return np.flatnonzero(np.abs(np.diff(postures.turn[:, index])) > 1) + 1


# Falls


def test_hoppers_that_lie_on_the_floor_are_stood_up() -> None:
    postures, _ = record(Hopper(), [3], np.zeros((200, 1, 3)))
    (start,) = starts_of(postures, 0)
    assert abs(postures.turn[start, 0]) <= NOISE
    assert postures.foot[start, 0] > 0
    assert (postures.body[:start] < 0).sum() == PATIENCE - 1, "its last step shows the new start"


def test_a_fall_under_random_actions_ends_too() -> None:
    postures, _ = record(Hopper(), range(16), random_actions(200, 16))
    assert sum(len(starts_of(postures, index)) for index in range(16)) >= 4


def test_hoppers_are_stood_up_where_they_lie() -> None:
    episodes = Hopper().begin([3])
    centres, turns = [], []
    for _ in range(200):
        episodes.step(np.zeros((1, 3)))
        left, _, right, _ = episodes.draw(0).view
        centres.append((left + right) / 2)
        turns.append(episodes.posture.turn[0])
    assert np.abs(np.diff(turns)).max() > 1
    assert np.abs(np.diff(centres)).max() < 0.1
    assert abs(centres[-1]) > 0.1


def test_a_fall_costs_more_than_a_turn_earns() -> None:
    lying = Posture(np.full(1, 1.6), np.full(1, HIGH), np.full(1, -0.001))
    cost = PATIENCE * backflip_rewards(lying, lying, lying.turn)[0]
    assert cost == pytest.approx(-FALL_COST)
    assert FALL_COST > TURN / DT == pytest.approx(392.7, abs=0.01)


# The true reward of backflips


@pytest.mark.parametrize(("turns", "earned"), [(0.5, 0.5), (1.0, 1.0), (1.3, 0.7), (2.0, 0.0), (-0.5, -0.5)])
def test_one_turn_of_a_jump_pays_most(turns: float, earned: float) -> None:
    turn = np.linspace(0, turns * TURN, 60)
    assert true_return(turn, [True] + 59 * [False]) == pytest.approx(earned * TURN / DT)


def test_each_jump_pays_for_its_own_turn() -> None:
    turn = np.concatenate([np.linspace(0, TURN, 50), np.full(5, TURN), np.linspace(TURN, 2 * TURN, 50)])
    is_on_foot = [True] + 49 * [False] + 5 * [True] + 50 * [False]
    assert true_return(turn, is_on_foot) == pytest.approx(2 * TURN / DT)


@pytest.mark.parametrize("steps_forward", [1, 3, 10])
def test_swinging_the_torso_while_hopping_earns_nothing(steps_forward: int) -> None:
    """Back in the air, forward on the foot, however fast."""
    back, forward = np.linspace(0, 0.8, 11), np.linspace(0.8, 0, steps_forward + 1)[1:]
    swing = np.concatenate([back, forward, back[1:], forward])
    is_on_foot = [True, *2 * (10 * [False] + steps_forward * [True])]
    assert true_return(swing, is_on_foot) <= 1e-9
    assert true_return(swing / 100, is_on_foot) == pytest.approx(0, abs=0.01)


def test_swinging_back_on_the_foot_earns_nothing() -> None:
    swing = np.concatenate([np.linspace(0, 0.1, 11), np.linspace(0.1, 0, 11)[1:]])
    assert true_return(swing, 11 * [True] + 10 * [False]) < -0.7 * 0.1 / DT
    assert true_return(swing, 21 * [True]) < -0.7 * 0.1 / DT


def test_hopping_on_the_spot_earns_nothing() -> None:
    assert true_return(np.zeros(40), 20 * [True, False]) == 0


def test_leaning_on_the_foot_costs() -> None:
    assert true_return(np.full(2, np.pi), [True, True]) == pytest.approx(-FALL_COST / PATIENCE)


def test_true_rewards_count_from_the_last_contact() -> None:
    actions = np.clip(np.cumsum(random_actions(60, 4), 0), -1, 1)
    postures, rewards = record(Hopper(), range(4), actions)
    assert ((postures.body < 0).sum(0) < PATIENCE).all(), "none was stood up"
    for index in range(4):
        turn, foot, body = (values[:, index] for values in postures)
        takeoff = turn[0]
        for step in range(1, 61):
            rate = (turn[step] - turn[step - 1]) / DT
            beyond = [max(value - takeoff - TURN, 0) for value in (turn[step - 1], turn[step])]
            expected = rate - 2 * (beyond[1] - beyond[0]) / DT
            if body[step] < 0:
                expected = min(rate, 0) - 22
            elif foot[step] < 0:
                expected = min(rate, 0.2 * rate, 2) - 11 * (1 - np.cos(turn[step]))
            assert rewards[step - 1, index] == pytest.approx(expected, abs=1e-4)
            takeoff = turn[step] if min(body[step], foot[step]) < 0 else takeoff
    assert (postures.foot < 0).any() and (postures.body < 0).any() and (postures.foot > 0.05).any()


def test_forward_pays_for_speed_while_upright() -> None:
    turn, body = np.array([0.0, np.pi / 3, np.pi, 0.0]), np.array([HIGH, HIGH, HIGH, -0.01])
    rewards = forward_rewards(Posture(turn, body, body), np.full(4, 2.0))
    assert rewards == pytest.approx([2.0, 1.0, 0.0, -1.0])


def test_the_setting_changes_the_true_reward_alone() -> None:
    backflip, forward = Hopper("backflip").begin([5]), Hopper("forward").begin([5])
    for action in random_actions(80, 1):
        first, second = backflip.step(action), forward.step(action)
        assert np.array_equal(first.features, second.features)
    assert first.true_rewards != second.true_rewards
    assert Hopper("backflip").task != Hopper("forward").task


# Physics and pictures


def test_contacts_are_those_of_mujoco() -> None:
    import mujoco

    model, steps = load_model(), 120
    data = mujoco.MjData(model)
    start = np.random.default_rng((7, 0))
    data.qpos += start.uniform(-NOISE, NOISE, 6)
    data.qvel += start.uniform(-NOISE, NOISE, 6)
    actions = random_actions(steps, 1)
    postures, _ = record(Hopper(), [7], actions)
    foot_geom, leg_geom = model.geom("foot_geom").id, model.geom("leg_geom").id
    counts = np.zeros(2)
    for step, action in enumerate(actions, 1):
        data.ctrl[:] = action[0]
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        touching = {int(max(contact.geom)) for contact in data.contact if min(contact.geom) == 0}
        is_touching = foot_geom in touching, bool(touching - {foot_geom, leg_geom})
        assert postures.turn[step, 0] == -data.qpos[2]
        assert (postures.foot[step, 0] < 0, postures.body[step, 0] < 0) == is_touching
        counts += is_touching
    assert counts.min() >= 5


def test_a_hard_landing_on_the_foot_is_no_fall() -> None:
    """It presses the foot, and with it the end of the leg, into the floor."""
    episodes = Hopper().begin([0])
    episodes._qpos[:, 1] += 1.0
    postures = []
    for _ in range(40):
        episodes.step(np.zeros((1, 3)))
        postures.append((episodes.posture.foot[0], episodes.posture.body[0]))
    foot, body = min(postures)
    assert foot < -0.02, "deeper than the leg is thinner than the foot"
    assert body > 0


def test_features_are_what_the_agent_sees_next() -> None:
    """Unless it is stood up, which is no doing of the agent's."""
    episodes = Hopper().begin([3])
    assert episodes.observations[0, :3] == pytest.approx([0.25, 0.0, 1.0], abs=2 * NOISE)
    for _ in range(200):
        transition = episodes.step(np.zeros((1, 3)))
        if not np.array_equal(transition.features, transition.observations):
            break
    assert transition.features[0, 15] == 1.0 and transition.observations[0, 15] == 0.0
    assert transition.observations[0, 2] == pytest.approx(1.0, abs=NOISE)


def test_agents_see_contacts() -> None:
    episodes = Hopper().begin(range(4))
    seen = set()
    for action in random_actions(100, 4):
        observations = episodes.step(action).observations
        contacts = np.stack([episodes.posture.foot < 0, episodes.posture.body < 0], 1)
        assert np.array_equal(observations[:, 14:] == 1.0, contacts)
        seen |= set(map(tuple, contacts.tolist()))
    assert len(seen) >= 3


def test_drawing_shows_four_limbs_on_a_floor() -> None:
    drawing = Hopper().begin([1]).draw(0)
    limbs = [shape for shape in drawing.shapes if isinstance(shape, Line) and shape.tone != "muted"]
    assert [limb.tone for limb in limbs] == ["accent", "ink", "ink", "ink"]
    assert [limb.width for limb in limbs] == pytest.approx([0.1, 0.1, 0.08, 0.12])
    torso, thigh, _, foot = limbs
    assert max(torso.y0, torso.y1) == pytest.approx(1.45, abs=0.01)
    assert min(torso.y0, torso.y1) == pytest.approx(max(thigh.y0, thigh.y1), abs=0.01)
    assert abs(foot.x1 - foot.x0) == pytest.approx(0.39, abs=0.01)


def test_clip_text_is_at_most_four_kilobytes() -> None:
    hopper = Hopper()
    start = hopper.horizon - hopper.clip_steps
    actions = random_actions(hopper.horizon, 1)[:, 0]
    end = summarise(hopper.begin([0]).observations[0])
    assert len(Segment(start, hopper.clip_steps, encode_actions(actions), end).text) <= 4096


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(AssentError, match=r"pip install 'assent\[control\]'"):
        Hopper().begin([0])


# Counting flips


def trace(*parts: tuple[str, int, float]) -> Posture:
    """Return postures of one hopper, (T, 1): contact, steps, and backward turns in them.

    Contacts are "foot", "body" (torso and thigh) and "air".
    """
    turn, foot, body = [0.0], [-0.001], [HIGH]
    for contact, steps, turns in parts:
        turn += list(turn[-1] + TURN * turns * np.arange(1, steps + 1) / steps)
        foot += steps * [-0.001 if contact == "foot" else HIGH]
        body += steps * [-0.001 if contact == "body" else HIGH]
    return Posture(*(np.array(values)[:, None] for values in (turn, foot, body)))


FLIP = ("air", 50, 1.0)
LANDED = ("foot", 10, 0.0)


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        ([FLIP, LANDED], (1, 1, 1)),
        ([("air", 50, 0.5), LANDED], (0, 0, 0)),  # the first step in the air is where a flight starts
        ([("air", 50, 0.6), LANDED], (0, 0, 1)),
        ([("air", 50, -1.0), LANDED], (0, 0, 0)),
        ([("air", 50, 0.8), LANDED], (0, 0, 1)),  # 72 degrees short of upright
        ([("air", 50, 0.9), LANDED], (1, 1, 1)),
        ([("air", 50, 1.25), LANDED], (0, 0, 1)),
        ([FLIP, ("body", 10, 0.0)], (0, 0, 1)),
        ([FLIP, ("foot", 5, 0.0), ("body", 10, 0.0)], (0, 0, 1)),
        ([FLIP, ("foot", 8, 0.0), ("body", 10, 0.0)], (1, 1, 1)),
        ([FLIP, ("foot", 3, 0.0)], (0, 0, 1)),  # nobody saw whether it stays up
        ([FLIP, LANDED, FLIP, LANDED], (2, 2, 2)),
        ([FLIP, ("foot", 8, 0.0), ("body", 5, 0.0), FLIP, LANDED, FLIP, LANDED], (3, 2, 3)),
        ([FLIP, LANDED, FLIP, LANDED, ("body", 5, 0.0), FLIP, LANDED], (3, 2, 3)),
        ([("foot", 100, 1.0)], (0, 0, 0)),
        ([FLIP], (0, 0, 0)),
    ],
)
def test_flips_are_counted(parts: list[tuple[str, int, float]], counts: tuple[int, int, int]) -> None:
    flips = count_flips(trace(*parts))
    assert (flips.clean[0], flips.in_a_row[0], flips.half_turns[0]) == counts


def test_standing_a_hopper_up_is_no_flip() -> None:
    postures = trace(("air", 20, -0.9), ("body", 19, 0.0), ("air", 5, 0.0), LANDED)
    postures.turn[-15:] = 0.0
    assert count_flips(postures).half_turns[0] == 0


def test_flips_of_several_hoppers_are_counted_apart() -> None:
    first, second = trace(FLIP, LANDED), trace(FLIP, ("body", 10, 0.0))
    both = Posture(*(np.concatenate(pair, 1) for pair in zip(first, second, strict=True)))
    assert count_flips(both).clean.tolist() == [1, 0]
    assert count_flips(both).half_turns.tolist() == [1, 1]
