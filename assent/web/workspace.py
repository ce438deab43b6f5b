"""The workspace of a server: one run or a folder of runs, with its accounts and a task queue for each run."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa

from assent.config import override, read_recipe
from assent.config import settings as config_settings
from assent.errors import AssentError, did_you_mean
from assent.labelling.accounts import ACCOUNTS_FILE, Accounts, open_accounts
from assent.labelling.queue import TaskQueue
from assent.labelling.settings import change_setting, read_settings
from assent.records import utc_now
from assent.run import Run, Setup, open_store
from assent.segments import is_behaviour
from assent.store import backups, schema
from assent.store.database import Store
from assent.store.rows import row_to_prompt

GUIDELINES = """\
Read the whole prompt, then every response, before you choose.

* **Better** means: the person who asked would be better served by it. \
Truth counts more than polish, and polish more than length.
* Say **tie** when you could as well toss a coin, and **both bad** when neither should be sent.
* A response that is harmful, makes things up, refuses without need, is in the wrong language or gives away private \
data gets a flag, whatever your judgement is.
"""
GUIDELINES_FOR_CLIPS = """\
Watch every clip to its end: the better one comes closer to the task. \
Say **tie** when they are equally good, and **cannot tell** when you do not understand what you see.
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
DEFAULTS_FOR_CLIPS = {**DEFAULTS, "guidelines": GUIDELINES_FOR_CLIPS, "flags": [], "axes": ["quality"]}
"""Those of a run whose first prompt is an environment."""


class UnknownRun(AssentError):
    """A run that the workspace does not have."""


@dataclass
class Project:
    """A run as the web server uses it."""

    name: str
    folder: Path
    store: Store

    @cached_property
    def queue(self) -> TaskQueue:
        return TaskQueue(self.store, accounts=open_accounts(self.folder, self.store))

    @property
    def run(self) -> Run:
        """The run with the settings of its recipe, to read from."""
        path = self.folder / "recipe.toml"
        recipe = read_recipe(path) if path.exists() else {}
        known = config_settings(Setup())
        values = {name: value for name, value in recipe.items() if name in known}
        return Run(override(Setup(), {**values, "run": str(self.folder)}, str(path)), recipe)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Guidelines, flags, axes and the like: the stored values over the defaults."""
        with self.store.reading() as connection:
            first = connection.execute(sa.select(schema.prompts).order_by(schema.prompts.c.seq).limit(1)).first()
        is_about_clips = first is not None and is_behaviour(row_to_prompt(first))
        return {**(DEFAULTS_FOR_CLIPS if is_about_clips else DEFAULTS), **read_settings(self.store)}

    def completion_code(self, user: str) -> str:
        """Return the code that proves to a crowd platform that this user has done the required judgements."""
        return hashlib.sha256(f"{self.queue.salt} {user}".encode()).hexdigest()[:10].upper()

    @property
    def redacted_names(self) -> tuple[str, ...]:
        """Model names that are redacted in completions: those of this run's model, and the list in the settings."""
        return (*self._own_names, *map(str, self.settings["names"]))

    @cached_property
    def _own_names(self) -> tuple[str, ...]:
        path = self.folder / "recipe.toml"
        model = str(read_recipe(path).get("model", "")) if path.exists() else ""
        return tuple(part for part in (model, Path(model).name) if re.search(r"[\d/_-]", part))


@dataclass
class Workspace:
    """The runs, stores and accounts of one server."""

    root: Path
    database: str = ""
    address: str = ""
    """The address of the server, for commands that wait for annotators."""
    root_path: str = ""
    """The path below the host under which the pages are served."""
    _open: dict[str, Project] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def is_single_run(self) -> bool:
        """Return whether `root` itself is a run."""
        return (self.root / "recipe.toml").exists() or (self.root / "feedback.db").exists()

    @cached_property
    def accounts(self) -> Accounts:
        if self.is_single_run:
            return Accounts(self.project(self.root.name).store)
        return Accounts(Store.open(self.database or self.root / ACCOUNTS_FILE))

    def runs(self) -> list[str]:
        """Return the names of the runs, sorted."""
        if self.is_single_run:
            return [self.root.resolve().name]
        return sorted(path.parent.name for path in self.root.glob("*/recipe.toml"))

    def project(self, name: str) -> Project:
        """Return a run by its name.

        Raises:
            UnknownRun: no run has this name.
        """
        known = self.runs()
        name = known[0] if self.is_single_run else name
        if name not in known:
            raise UnknownRun(f"no run '{name}' here{did_you_mean(name, known)}")
        with self._lock:
            if name not in self._open:
                folder = self.root if self.is_single_run else self.root / name
                store = Store.open(self.database) if self.is_single_run and self.database else open_store(folder)
                if self.address and read_settings(store).get("address") != self.address:
                    change_setting(store, "address", self.address, "serve", utc_now())
                self._open[name] = Project(name, folder, store)
            return self._open[name]

    def back_up(self) -> None:
        """Back up every store that has changed, if its last backup is a day old."""
        for name in self.runs():
            project = self.project(name)
            if backups.is_due(project.store, project.folder):
                backups.create(project.store, project.folder)
        if not self.is_single_run and backups.is_due(self.accounts.store, self.root):
            backups.create(self.accounts.store, self.root)

    def close(self) -> None:
        for project in self._open.values():
            project.store.close()
