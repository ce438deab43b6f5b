"""People, on the pages of `assent serve`: queries are laid before them, and their answers come when they come."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from assent.errors import Waiting
from assent.functional.near_identical import near_identical
from assent.labelling.queue import Ask, TaskQueue, overlap, settings
from assent.records import Feedback, Prompt, Response, Task
from assent.types import NonNegativeFloat

LOOK = 1.0
"""Seconds between two looks into the store."""


@dataclass(frozen=True)
class Human:
    """People in browsers; 15 % of the queries go to three of them and 2 % to five, so that agreement can be told."""

    batch_size: ClassVar[int] = 1
    human: ClassVar[bool] = True

    wait: NonNegativeFloat = 1440.0
    """Minutes that the stage waits for answers; then it ends, and the same command goes on later. 0: it only asks."""

    def answer(
        self,
        queries: Iterable[Task],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        desk: TaskQueue,
        batch: str,
    ) -> Iterator[Feedback]:
        """Ask, and yield answers as they arrive (they are in the store already), until all have been given.

        Pairs of almost the same words are not asked about: nobody could tell which is the better.

        Raises:
            Waiting: some are still missing after `wait` minutes.
        """
        desk.post((Ask(query, overlap(query)) for query in queries if _apart(query, responses)), batch)
        until = time.monotonic() + 60 * self.wait
        seen: set[str] = set()
        there = settings(desk.store).get("address", "")
        where = f"go on at {there}" if there else "'assent serve' with the run's folder shows them to people"
        progress = desk.progress(batch)
        if self.wait:
            print(f"{progress.answered} of {progress.asked} answered; {where}", file=sys.stderr)
        while True:
            for event in desk.said_of(batch):
                if event.by_person and event.id not in seen:
                    seen.add(event.id)
                    yield event
            if progress.answered >= progress.asked:
                return
            if time.monotonic() >= until:
                raise Waiting(
                    f"{progress.answered} of {progress.asked} answered; {where}, then give this command again"
                )
            time.sleep(min(LOOK, max(0.0, until - time.monotonic())))
            progress = desk.progress(batch)


def _apart(query: Task, responses: Mapping[str, Response]) -> bool:
    texts = [responses[item].text for item in query.items]
    return len(texts) != 2 or not near_identical(*texts)
