"""Human annotators on the pages of `assent serve`: tasks are put into the queue, and judgements arrive over time."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from assent.errors import Waiting
from assent.functional.near_identical import is_near_identical
from assent.labelling.queue import Progress, TaskQueue, TaskRequest, required_votes
from assent.labelling.settings import read_settings
from assent.records import Feedback, Prompt, Response, Task
from assent.segments import is_behaviour
from assent.types import NonNegativeFloat

POLL_SECONDS = 1.0
"""Seconds between two reads of the store."""


@dataclass(frozen=True)
class Human:
    """Human annotators in browsers; 15 % of the tasks go to three of them and 2 % to five, to measure agreement."""

    batch_size: ClassVar[int] = 1
    is_human: ClassVar[bool] = True

    wait: NonNegativeFloat = 1440.0
    """Minutes that the stage waits for judgements; rerun the command to go on later. 0: do not wait."""

    def annotate(
        self,
        tasks: Iterable[Task],
        prompts: Mapping[str, Prompt],
        responses: Mapping[str, Response],
        seed: int,
        now: datetime,
        queue: TaskQueue,
        batch: str,
    ) -> Iterator[Feedback]:
        """Enqueue the tasks and yield judgements as they arrive, until all are complete; the store holds them already.

        Pairs of near-identical responses are left out: annotators cannot tell which one is better.

        Raises:
            Waiting: some judgements are missing after `wait` minutes.
        """
        judgeable = (task for task in tasks if _is_judgeable(task, prompts, responses))
        queue.enqueue((TaskRequest(task, required_votes(task)) for task in judgeable), batch)
        deadline = time.monotonic() + 60 * self.wait
        seen_ids: set[str] = set()
        progress = queue.progress(batch)
        if self.wait:
            print(_describe(queue, progress), file=sys.stderr)
        while True:
            for event in queue.feedback_for(batch):
                if event.is_human and event.id not in seen_ids:
                    seen_ids.add(event.id)
                    yield event
            if progress.completed >= progress.total:
                return
            _wait_a_moment(queue, progress, deadline)
            progress = queue.progress(batch)


def wait_for_judgements(queue: TaskQueue, batch: str, minutes: float, unjudged: int) -> None:
    """Return when at most `unjudged` tasks of a batch are not complete.

    Raises:
        Waiting: there are more after so many minutes.
    """
    deadline = time.monotonic() + 60 * minutes
    progress = queue.progress(batch)
    if minutes and progress.total - progress.completed > unjudged:
        print(_describe(queue, progress), file=sys.stderr)
    while progress.total - progress.completed > unjudged:
        _wait_a_moment(queue, progress, deadline)
        progress = queue.progress(batch)


def _wait_a_moment(queue: TaskQueue, progress: Progress, deadline: float) -> None:
    """Sleep until judgements may have arrived.

    Raises:
        Waiting: the deadline is over.
    """
    if time.monotonic() >= deadline:
        raise Waiting(f"{_describe(queue, progress)}, then rerun this command")
    time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _describe(queue: TaskQueue, progress: Progress) -> str:
    address = read_settings(queue.store).get("address", "")
    hint = f"annotators label at {address}" if address else "start 'assent serve RUN' to label"
    return f"{progress.completed} of {progress.total} tasks judged; {hint}"


def _is_judgeable(task: Task, prompts: Mapping[str, Prompt], responses: Mapping[str, Response]) -> bool:
    """Return whether a task is anything but a pair of near-identical responses; clips with like actions may differ."""
    texts = [responses[item].text for item in task.items]
    return len(texts) != 2 or is_behaviour(prompts[task.prompt]) or not is_near_identical(*texts)
