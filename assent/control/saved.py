"""The settings of a finished stage `control`, from the file that lies beside its weights."""

import json
from pathlib import Path
from typing import Any, TypeVar

from assent.config import override, table
from assent.errors import AssentError
from assent.protocols import Environment
from assent.registry import resolve

FILE = "agent.json"
Settings = TypeVar("Settings")


def read_settings(folder: Path, default: Settings) -> tuple[Environment, Settings]:
    """Return the environment of an agent, and those of its settings that `default` has.

    Raises:
        AssentError: the folder holds no agent.
    """
    path = folder / FILE
    if not path.exists():
        raise AssentError(f"no agent in {folder}: train one with 'assent control'")
    saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    environment: Environment = resolve("environments", saved["environment"])()

    def restore(part: Any) -> Any:
        return override(part, {name: saved[name] for name in table(part)}, str(path))

    return restore(environment), restore(default)
