"""Replay of segments: the environment computes an episode again from its seed and its actions."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.config import override, table
from assent.errors import AssentError
from assent.protocols import Environment
from assent.records import Prompt
from assent.registry import name_of, resolve
from assent.segments import Segment, environment_prompt

MAX_SUMMARY = 16
"""Numbers of an observation that a segment keeps of its end; of a larger one it keeps the mean."""
TOLERANCE = 0.02
"""Difference of a replay's end from the recorded one, relative to 1 or the number, that another CPU may cause."""


class Clip(NamedTuple):
    """What happened in a segment."""

    features: NDArray[np.float32]  # (T, F): what a reward model reads of each step
    true_return: float
    """Sum of the environment's own reward over the segment: only simulated annotators and evaluations read it."""


class Start(NamedTuple):
    """Where an episode starts."""

    environment: Environment
    seed: int


def prompt_of(environment: Environment, seed: int, task: str = "") -> Prompt:
    """Return the prompt of all episodes from a seed.

    Args:
        task: in words; empty: that of the environment.
    """
    return environment_prompt(name_of(environment), table(environment), seed, task or environment.task)


@cache
def _read_start(content: str) -> Start:
    try:
        fields: dict[str, Any] = json.loads(content)
        name, seed = str(fields.pop("environment")), int(fields.pop("seed"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AssentError(f"{content[:60]!r} names no environment and seed") from None
    environment: Environment = override(resolve("environments", name)(), fields, f"the environment '{name}'")
    return Start(environment, seed)


def start_of(prompt: Prompt) -> Start:
    """Return the environment and the seed that a prompt names.

    Raises:
        AssentError: it names none, or an environment or a setting that does not exist.
    """
    return _read_start(prompt.messages[0].content)


def action_shape(environment: Environment) -> tuple[int, ...]:
    """Return the shape of one action; (): a number of a discrete space."""
    return tuple(environment.action_space.shape or ())


def encode_actions(actions: NDArray[Any]) -> bytes:
    """Return actions of consecutive steps, (T, ...), as bytes: float32, or one byte for each of a discrete space."""
    is_discrete = np.issubdtype(actions.dtype, np.integer)
    return np.ascontiguousarray(actions, dtype="u1" if is_discrete else "<f4").tobytes()


def decode_actions(environment: Environment, segment: Segment) -> NDArray[Any]:
    """Return the actions from the start of the episode to the end of the segment, (start + steps, ...).

    Raises:
        AssentError: there are more or fewer actions, or the segment ends after the episode.
    """
    space, shape = environment.action_space, action_shape(environment)
    flat = np.frombuffer(segment.actions, dtype="<f4" if shape else "u1")
    length = segment.start + segment.steps
    if length > environment.horizon or flat.size != length * int(np.prod(shape)):
        raise AssentError(
            f"a segment of steps {segment.start} to {length} has {flat.size} actions: it does not fit its environment"
        )
    actions: NDArray[Any] = flat.astype(space.dtype).reshape(length, *shape)
    if not np.isfinite(actions).all():
        raise AssentError("a segment has actions that are not finite")
    return actions


def summarise(observation: NDArray[Any]) -> tuple[float, ...]:
    """Return an observation in a few rounded numbers."""
    values = np.asarray(observation, dtype=np.float64).ravel()
    if values.size > MAX_SUMMARY:
        values = values.mean(keepdims=True)
    return tuple(round(float(value), 4) + 0.0 for value in values)


def replay(items: Sequence[tuple[Prompt, str]]) -> list[Clip]:
    """Return what happens in segments, given by prompt and text; segments of one environment run together.

    Raises:
        AssentError: a text is no segment of its environment, or the replay ends elsewhere than the recording.
    """
    clips: list[Clip | None] = [None] * len(items)
    by_environment: dict[Environment, list[int]] = {}
    starts = [start_of(prompt) for prompt, _ in items]
    for index, start in enumerate(starts):
        by_environment.setdefault(start.environment, []).append(index)
    for environment, indices in by_environment.items():
        segments = [Segment.read(items[index][1]) for index in indices]
        replayed = _replay_together(environment, [starts[index].seed for index in indices], segments)
        for index, clip in zip(indices, replayed, strict=True):
            clips[index] = clip
    return [clip for clip in clips if clip is not None]


def _replay_together(environment: Environment, seeds: Sequence[int], segments: Sequence[Segment]) -> Iterable[Clip]:
    recorded = [decode_actions(environment, segment) for segment in segments]
    length = max(map(len, recorded))
    shape = length, len(segments), *action_shape(environment)
    actions = np.zeros(shape, dtype=environment.action_space.dtype)
    for index, own in enumerate(recorded):
        actions[: len(own), index] = own
    episodes = environment.begin(seeds)
    features: list[NDArray[np.float32]] = []
    rewards: list[NDArray[np.float32]] = []
    ends: dict[int, tuple[float, ...]] = {}
    for step in range(length):
        transition = episodes.step(actions[step])
        features.append(transition.features)
        rewards.append(transition.true_rewards)
        for index, own in enumerate(recorded):
            if len(own) == step + 1:
                ends[index] = summarise(transition.observations[index])
    for index, segment in enumerate(segments):
        _check_end(segment, ends[index])
        steps = range(segment.start, segment.start + segment.steps)
        true_return = float(sum(float(rewards[step][index]) for step in steps))
        yield Clip(np.stack([features[step][index] for step in steps]), true_return)


def _check_end(segment: Segment, end: tuple[float, ...]) -> None:
    is_same = len(end) == len(segment.end) and np.allclose(end, segment.end, rtol=TOLERANCE, atol=TOLERANCE)
    if not is_same:
        raise AssentError(
            "the replay of a segment does not end as it was recorded: its environment has changed since then, so it "
            "would show something that did not happen"
        )
