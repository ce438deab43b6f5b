"""Segments of episodes: what an agent did, as the text of a response, so that it can be stored, shown and replayed.

A prompt of behaviour begins with a message of the role `environment`: JSON of the environment, its settings and the
seed of the episode. A response to it is a segment: a clip of an episode from that seed. Its text holds every action
since the episode began; the environment computes the rest again.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assent.errors import AssentError
from assent.records import Message, Prompt

ENVIRONMENT = "environment"
"""Role of the message that names the environment."""


@dataclass(frozen=True)
class Segment:
    """A clip of an episode."""

    start: int
    """Steps of the episode before the clip."""
    steps: int
    """Length of the clip in steps."""
    actions: bytes
    """Actions of the `start + steps` steps from the start of the episode: little-endian float32, or a byte each."""
    end: tuple[float, ...]
    """Summary of the last observation, rounded: a replay that ends elsewhere shows something that did not happen."""

    @property
    def text(self) -> str:
        """The segment as the text of a response: canonical JSON."""
        actions = base64.b64encode(self.actions).decode()
        fields = {"actions": actions, "end": list(self.end), "start": self.start, "steps": self.steps}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> "Segment":
        """Return the segment that `text` holds.

        Raises:
            AssentError: it is no segment.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict) or set(fields) != {"actions", "end", "start", "steps"}:
                raise ValueError("its keys are not actions, end, start, steps")
            start, steps = fields["start"], fields["steps"]
            if type(start) is not int or type(steps) is not int or start < 0 or steps < 1:
                raise ValueError(f"start = {start} and steps = {steps} are no piece of an episode")
            end = tuple(float(value) for value in fields["end"])
            return cls(start, steps, base64.b64decode(fields["actions"], validate=True), end)
        except (ValueError, TypeError, binascii.Error) as error:
            raise AssentError(f"a response to an environment is no segment: {error}") from None


def environment_prompt(name: str, settings: Mapping[str, Any], seed: int, task: str) -> Prompt:
    """Return the prompt of all episodes from one seed of an environment.

    Args:
        settings: JSON-able settings of the environment.
        task: what the agent should do, in words; empty: nothing is said.
    """
    content = json.dumps({"environment": name, "seed": seed, **settings}, sort_keys=True, separators=(",", ":"))
    messages = (Message(ENVIRONMENT, content), *((Message("user", task),) if task else ()))
    return Prompt(messages, source=name)


def refuse_behaviour(folder: Path, prompts: Iterable[Prompt]) -> None:
    """Keep prompts of behaviour from what reads texts.

    Raises:
        AssentError: there is such a prompt.
    """
    if any(map(is_behaviour, prompts)):
        raise AssentError(f"{folder} holds clips of an agent, not texts: only 'assent control' trains on them")


def is_behaviour(prompt: Prompt) -> bool:
    """Return whether the responses to a prompt are segments of episodes."""
    return prompt.messages[0].role == ENVIRONMENT
