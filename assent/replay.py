"""Replay of segments: the environment computes an episode again from its seed and its actions."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assent.config import override, table
from assent.errors import AssentError
from assent.protocols import Drawing, Environment
from assent.records import Prompt
from assent.registry import name_of, resolve
from assent.segments import Segment, environment_prompt

MAX_TOGETHER = 256
"""Episodes that are replayed side by side: an emulator of a game takes memory."""
BLOCKS = 4
"""Of a picture, a segment keeps the means of BLOCKS x BLOCKS parts; of any other observation, all numbers."""
TOLERANCE = 0.02
"""Difference of a replay's end from the recorded one, relative to 1 or the number, that another CPU may cause."""


class Clip(NamedTuple):
    """What happened in a segment."""

    features: NDArray[Any]  # (T, ...): what a reward model reads of each step
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


def feature_shape(environment: Environment) -> tuple[int, ...]:
    """Return the shape of what a reward model reads of one step."""
    actions = np.zeros((1, *action_shape(environment)), dtype=environment.action_space.dtype)
    return environment.begin([0]).step(actions).features.shape[1:]


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
    values = np.asarray(observation, dtype=np.float64)
    if values.ndim == 3:  # (C, H, W)
        rows = np.array_split(values.mean(0), BLOCKS, 0)
        values = np.array([block.mean() for row in rows for block in np.array_split(row, BLOCKS, 1)])
    return tuple(round(float(value), 4) + 0.0 for value in values.ravel())


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
        for first in range(0, len(indices), MAX_TOGETHER):
            part = indices[first : first + MAX_TOGETHER]
            segments = [Segment.read(items[index][1]) for index in part]
            replayed = _replay_together(environment, [starts[index].seed for index in part], segments)
            for index, clip in zip(part, replayed, strict=True):
                clips[index] = clip
    return [clip for clip in clips if clip is not None]


def replay_frames(prompt: Prompt, text: str) -> list[Drawing | NDArray[np.uint8]]:
    """Return what a segment looks like after each of its steps: drawings, or pictures (H, W, 3).

    Raises:
        AssentError: the text is no segment of its environment, or the replay ends elsewhere than the recording.
    """
    environment, seed = start_of(prompt)
    segment = Segment.read(text)
    actions = decode_actions(environment, segment)
    episodes = environment.begin([seed])
    frames: list[Drawing | NDArray[np.uint8]] = []
    for step, action in enumerate(actions):
        episodes.step(action[np.newaxis])
        if step >= segment.start:
            frame = episodes.draw(0)
            frames.append(frame if isinstance(frame, Drawing) else frame.copy())
    _check_end(segment, summarise(episodes.observations[0]))
    return frames


def _replay_together(environment: Environment, seeds: Sequence[int], segments: Sequence[Segment]) -> list[Clip]:
    recorded = [decode_actions(environment, segment) for segment in segments]
    length = max(map(len, recorded))
    shape = length, len(segments), *action_shape(environment)
    actions = np.zeros(shape, dtype=environment.action_space.dtype)
    for index, own in enumerate(recorded):
        actions[: len(own), index] = own
    episodes = environment.begin(seeds)
    features: list[list[NDArray[Any]]] = [[] for _ in segments]
    true_returns = [0.0 for _ in segments]
    for step in range(length):
        transition = episodes.step(actions[step])
        for index, segment in enumerate(segments):
            end = segment.start + segment.steps
            if segment.start <= step < end:
                features[index].append(transition.features[index])
                true_returns[index] += float(transition.true_rewards[index])
            if step == end - 1:
                _check_end(segment, summarise(transition.observations[index]))
    return [Clip(np.stack(rows), total) for rows, total in zip(features, true_returns, strict=True)]


def _check_end(segment: Segment, end: tuple[float, ...]) -> None:
    is_same = len(end) == len(segment.end) and np.allclose(end, segment.end, rtol=TOLERANCE, atol=TOLERANCE)
    if not is_same:
        raise AssentError(
            "the replay of a segment does not end as it was recorded: its environment has changed since then, so it "
            "would show something that did not happen"
        )
