"""What is kept about somebody: show it all, forget who they are, or give them a new password."""

import json
from dataclasses import dataclass

from assent.errors import AssentError
from assent.labelling.accounts import people_of
from assent.labelling.queue import TaskQueue, settings
from assent.protocols import Tool
from assent.run import Run, store_of


@dataclass(frozen=True)
class User(Tool):
    """Export or erase what is kept about a person, or let them choose a new password."""

    export: str = ""
    """Whose account, acts and answers to print as JSON: a name or a pseudonym."""
    erase: str = ""
    """Whose name, password, external id and sessions to forget."""
    reset: str = ""
    """Who has forgotten their password: prints a link with which they choose a new one."""

    def __call__(self, run: Run, key: str) -> None:
        people = people_of(run.folder, run.store)
        if sum(map(bool, (self.export, self.erase, self.reset))) != 1:
            raise AssentError("say --export NAME, --erase NAME or --reset NAME")
        if self.export:
            others = [] if people.store is run.store else [run.store]
            print(json.dumps(people.export(self.export, others), indent=1, ensure_ascii=False))
        elif self.reset:
            secret = people.invite_reset("command line", self.reset)
            server = settings(run.store).get("address", "http://127.0.0.1:8000")
            print(f"{server}/reset/{secret}\n(the link works once, for two days; {self.reset} chooses a new password)")
        else:
            erased = people.erase("command line", self.erase)
            if people.store is run.store:
                TaskQueue(run.store).give_back(erased.id)
            else:  # the accounts are those of every run beside this one
                for recipe in run.folder.resolve().parent.glob("*/recipe.toml"):
                    with store_of(recipe.parent) as store:
                        TaskQueue(store).give_back(erased.id)
            print(f"{erased.id} is a pseudonym without a person now")
