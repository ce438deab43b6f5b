"""What is kept about somebody: show it all, or forget who they are; what they said stays, under a pseudonym."""

import json
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.store.people import people_of
from assent.store.runs import Run


@dataclass(frozen=True)
class Person:
    """Export or erase what is kept about a person."""

    tool: ClassVar[bool] = True
    reads: ClassVar[bool] = True

    export: str = ""
    """Whose account, acts and answers to print as JSON: a name or a pseudonym."""
    erase: str = ""
    """Whose name, password, external id and sessions to forget."""

    def __call__(self, run: Run, key: str) -> None:
        people = people_of(run.folder, run.store)
        if bool(self.export) == bool(self.erase):
            raise AssentError("say --export NAME or --erase NAME")
        if self.export:
            others = [] if people.store is run.store else [run.store]
            print(json.dumps(people.export(self.export, others), indent=1, ensure_ascii=False))
        else:
            print(f"{people.erase('command line', self.erase).id} is a pseudonym without a person now")
