"""Walk the chain of everything that was said: has anything been changed, removed or slipped in since?"""

from dataclasses import dataclass

from assent.protocols import Tool
from assent.run import Run


@dataclass(frozen=True)
class Verify(Tool):
    """Check that the feedback is what was stored."""

    def __call__(self, run: Run, key: str) -> None:
        length = run.store.verify()
        print(f"{run.store.name}: {length} answers, each as it was stored")
