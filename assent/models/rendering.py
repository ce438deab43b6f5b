"""How a run renders chat templates: the template's arguments and the date that it writes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from assent.errors import AssentError


class Unrenderable(AssentError):
    """A conversation or text that this tokenizer cannot turn into a prompt: one row is at fault, not the model."""


@dataclass(frozen=True)
class Rendering:
    """The settings with which a chat template is rendered, the same in every stage of a run."""

    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of the template beside messages and tools, such as `enable_thinking`."""
    date: str = ""
    """The date that templates write (ISO 8601); empty: today."""

    @classmethod
    def parse(cls, arguments: str, date: str = "") -> "Rendering":
        """Read `enable_thinking=false,reasoning_effort=high`; values are JSON, or else text.

        Raises:
            AssentError: an argument lacks its name or value, or the date is none.
        """
        parsed: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in arguments.split(","))):
            name, equals, value = part.partition("=")
            if not (equals and name.strip().isidentifier()):
                raise AssentError(f"--template-args has '{part}'; write name=value, such as enable_thinking=false")
            try:
                parsed[name.strip()] = json.loads(value)
            except ValueError:
                parsed[name.strip()] = {"True": True, "False": False}.get(value.strip(), value.strip())
        if date:
            _parse_date(date)
        return cls(parsed, date)

    def strftime(self, pattern: str) -> str:
        """Return what a template's `strftime_now` writes: midnight of the date."""
        return (_parse_date(self.date) if self.date else datetime.now(UTC).date()).strftime(pattern)


DEFAULT_RENDERING = Rendering()
"""No arguments, today."""


def _parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise AssentError(f"--date is '{text}'; write it as 2026-11-30") from None
