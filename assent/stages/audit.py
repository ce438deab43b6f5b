"""Walk the chain of everything that was said: has anything been changed, removed or slipped in since?"""

from dataclasses import dataclass
from typing import ClassVar

from assent.store.runs import Run


@dataclass(frozen=True)
class Audit:
    """Check that the feedback is what was stored."""

    tool: ClassVar[bool] = True
    reads: ClassVar[bool] = True

    def __call__(self, run: Run, key: str) -> None:
        length = run.store.audit()
        print(f"{run.store.name}: {length} answers, each as it was stored")
