"""What a server serves: one run, or the runs in a folder; the people in it, and a desk for each run."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from assent.config import override, read_recipe
from assent.config import settings as config_settings
from assent.errors import AssentError, did_you_mean
from assent.labelling.accounts import FILE, People, people_of
from assent.labelling.queue import TaskQueue, change_setting, settings
from assent.run import Run, Setup, store_of
from assent.store import backups
from assent.store.database import Store

GUIDELINES = """\
Read the whole prompt, then every answer, before you choose.

* **Better** means: the person who asked would be better served by it. \
Truth counts more than polish, and polish more than length.
* Say **tie** when you could as well throw a coin, and **both bad** when neither should be sent.
* An answer that is harmful, makes things up, refuses without need, is in the wrong language or gives away private \
data gets a flag, whatever else you say of it.
"""
DEFAULTS: Mapping[str, Any] = {
    "guidelines": GUIDELINES,
    "flags": ["Harm", "Factual", "Refusal", "Language", "PII"],
    "axes": ["helpful", "true", "harmless"],
    "names": [
        "ChatGPT",
        "GPT-3",
        "GPT-4",
        "GPT-5",
        "OpenAI",
        "Anthropic",
        "DeepMind",
        "DeepSeek",
        "Mistral AI",
        "Mixtral",
        "Moonshot AI",
        "Qwen",
        "SmolLM",
        "Hugging Face",
    ],
    "completion": 0,
}


@dataclass
class Project:
    """A run, as people see it."""

    name: str
    folder: Path
    store: Store

    @cached_property
    def desk(self) -> TaskQueue:
        return TaskQueue(self.store, people=people_of(self.folder, self.store))

    @property
    def run(self) -> Run:
        """The run as its recipe says, to read from."""
        path = self.folder / "recipe.toml"
        recipe = read_recipe(path) if path.exists() else {}
        known = config_settings(Setup())
        told = {name: value for name, value in recipe.items() if name in known}
        return Run(override(Setup(), {**told, "run": str(self.folder)}, str(path)), recipe)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Guidelines, flags, axes: what was set, or else what is usual."""
        return {**DEFAULTS, **settings(self.store)}

    def completion_code(self, person: str) -> str:
        """The code that tells a crowd platform that this person has done what was asked."""
        return hashlib.sha256(f"{self.desk.salt} {person}".encode()).hexdigest()[:10].upper()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are covered in answers: those of this run's own model, and the project's list."""
        return (*self._own_names, *map(str, self.settings["names"]))

    @cached_property
    def _own_names(self) -> tuple[str, ...]:
        path = self.folder / "recipe.toml"
        model = str(read_recipe(path).get("model", "")) if path.exists() else ""
        return tuple(part for part in (model, Path(model).name) if re.search(r"[\d/_-]", part))


@dataclass
class Office:
    """Everything that a server needs to know."""

    root: Path
    database: str = ""
    address: str = ""
    """Where people find it, for the commands that wait for them."""
    root_path: str = ""
    """The path below the host under which its pages lie."""
    _open: dict[str, Project] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def single(self) -> bool:
        """Whether `root` is itself a run."""
        return (self.root / "recipe.toml").exists() or (self.root / "feedback.db").exists()

    @cached_property
    def people(self) -> People:
        if self.single:
            return People(self.project(self.root.name).store)
        return People(Store.open(self.database or self.root / FILE))

    def runs(self) -> list[str]:
        """Names of the runs, sorted."""
        if self.single:
            return [self.root.resolve().name]
        return sorted(path.parent.name for path in self.root.glob("*/recipe.toml"))

    def project(self, name: str) -> Project:
        """A run by its name.

        Raises:
            AssentError: there is none.
        """
        known = self.runs()
        name = known[0] if self.single else name
        if name not in known:
            raise AssentError(f"no run '{name}' here{did_you_mean(name, known)}")
        with self._lock:
            if name not in self._open:
                folder = self.root if self.single else self.root / name
                store = Store.open(self.database) if self.single and self.database else store_of(folder)
                if self.address and settings(store).get("address") != self.address:
                    change_setting(store, "address", self.address, "serve", datetime.now(UTC).isoformat())
                self._open[name] = Project(name, folder, store)
            return self._open[name]

    def back_up(self) -> None:
        """Copy every store that has changed since its last copy, if that is a day old."""
        for name in self.runs():
            project = self.project(name)
            if backups.due(project.store, project.folder):
                backups.make(project.store, project.folder)
        if not self.single and backups.due(self.people.store, self.root):
            backups.make(self.people.store, self.root)

    def close(self) -> None:
        for project in self._open.values():
            project.store.close()
