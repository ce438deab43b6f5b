"""Verify the hash chain of the feedback: no judgement was changed, removed or inserted."""

from dataclasses import dataclass

from assent.protocols import Tool
from assent.run import Run


@dataclass(frozen=True)
class Verify(Tool):
    """Check that the feedback is unchanged since it was stored."""

    def __call__(self, run: Run, key: str) -> None:
        length = run.store.verify()
        print(f"{run.store.name}: {length} judgements, unchanged since they were stored")
