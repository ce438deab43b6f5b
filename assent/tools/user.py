"""Export or erase the personal data of a user, or let them choose a new password."""

import json
from dataclasses import dataclass

from assent.errors import AssentError
from assent.labelling.accounts import open_accounts
from assent.labelling.erasure import erase_user, export_user
from assent.labelling.queue import TaskQueue
from assent.labelling.settings import read_settings
from assent.protocols import Tool
from assent.run import Run, open_store


@dataclass(frozen=True)
class User(Tool):
    """Export or erase the personal data of a user, or reset their password."""

    export: str = ""
    """Name or pseudonym of the user whose account, actions and judgements to print as JSON."""
    erase: str = ""
    """Name or pseudonym of the user whose name, password, external id and sessions to delete."""
    reset: str = ""
    """Name of the user who forgot their password: prints a link to choose a new one."""

    def __call__(self, run: Run, key: str) -> None:
        accounts = open_accounts(run.folder, run.store)
        if sum(map(bool, (self.export, self.erase, self.reset))) != 1:
            raise AssentError("give one of --export NAME, --erase NAME and --reset NAME")
        if self.export:
            others = [] if accounts.store is run.store else [run.store]
            print(json.dumps(export_user(accounts, self.export, others), indent=1, ensure_ascii=False))
        elif self.reset:
            secret = accounts.issue_reset("command line", self.reset)
            address = read_settings(run.store).get("address", "http://127.0.0.1:8000")
            print(f"{address}/reset/{secret}\n(the link works once, for two days; {self.reset} chooses a password)")
        else:
            erased = erase_user(accounts, "command line", self.erase)
            if accounts.store is run.store:
                TaskQueue(run.store).assignments.release(erased.id)
            else:  # the accounts are shared by all runs in the same folder
                for recipe in run.folder.resolve().parent.glob("*/recipe.toml"):
                    with open_store(recipe.parent) as store:
                        TaskQueue(store).assignments.release(erased.id)
            print(f"{erased.id} is erased: only the pseudonym remains")
