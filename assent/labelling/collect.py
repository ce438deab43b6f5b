"""Give tasks to an annotator, and store the judgements as they arrive."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby, islice

from assent.labelling.accounts import open_accounts
from assent.labelling.queue import TaskQueue
from assent.protocols import Annotator
from assent.records import Feedback, Task
from assent.run import Run
from assent.training.logging import ProgressBar


def collect_judgements(run: Run, key: str, tasks: Sequence[Task], annotator: Annotator) -> list[Feedback]:
    """Store the tasks, have the annotator judge those without a judgement, and return all feedback on them.

    If the annotator is human, feedback of programs on the same tasks does not count.
    """
    store = run.store
    store.add_tasks(tasks)
    ids = {task.id for task in tasks}

    def read_feedback() -> list[Feedback]:
        events = (event for event in store.feedback() if event.task in ids)
        return [event for event in events if event.is_human or not annotator.is_human]

    judged = {event.task for event in read_feedback()}
    open_tasks = [task for task in tasks if task.id not in judged]
    prompts = {prompt.id: prompt for prompt in store.prompts(ids=[task.prompt for task in open_tasks])}
    items = (item for task in open_tasks for item in task.items)
    responses = {response.id: response for response in store.responses(ids=items)}
    with ProgressBar(key, len(tasks), len(judged)) as bar:
        queue = TaskQueue(store, accounts=open_accounts(run.folder, store))
        events = annotator.annotate(open_tasks, prompts, responses, run.seed, datetime.now(UTC), queue, key)
        by_task = (list(group) for _, group in groupby(events, key=lambda event: event.task))
        while batch := list(islice(by_task, annotator.batch_size)):
            store.add_feedback(event for group in batch for event in group)
            judged_now = {group[0].task for group in batch}
            bar.advance(len(judged_now - judged))
            judged |= judged_now
    return read_feedback()
