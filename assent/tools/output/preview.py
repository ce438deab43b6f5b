"""Show how the first row of a file is read, before anything of it is stored."""

from collections.abc import Iterator

from assent.feedback import describe
from assent.formats.files.results import ImportResult
from assent.records import show_item, show_message
from assent.registry import name_of
from assent.tools.output.printing import printable

WIDTH = 80
"""Characters of a text."""
LABEL = 10
"""Characters of a label; longer ones move the text."""
MAX_LINES = 12
"""Lines of a row; long conversations and rankings are cut."""


def preview(first: ImportResult) -> list[str]:
    """Return lines that show the prompt, the responses and the judgements of the first row that was read."""
    lines = list(_lines(first))
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} more lines"]


def _lines(first: ImportResult) -> Iterator[str]:
    for prompt in first.prompts[:1]:
        for message in prompt.messages:
            yield _line("text to continue" if prompt.is_plain else message.role, show_message(message).text)
        if prompt.category:
            yield _line("category", prompt.category)
    tasks = [task for task in first.tasks if task.prompt == first.prompts[0].id] if first.prompts else []
    responses = {response.id: response for response in first.responses}
    shown: set[tuple[str, ...]] = set()
    for task in tasks:
        if task.items not in shown:
            shown.add(task.items)
            for number, item in enumerate(task.items, 1):
                policy = responses[item].policy
                origin = "" if policy.startswith("imported:") else f" ({policy})"
                yield _line(f"response {number}{origin}", show_item(responses[item]).text)
        for event in first.feedback:
            if event.task == task.id:
                by = f"by {printable(event.annotator)}, {event.source}"
                yield _line(name_of(event.judgement), f"{describe(event.judgement, task)} ({by})")


def _line(label: str, text: str) -> str:
    words = printable(" ".join(text.split()))
    return f"{label:<{LABEL}}  {words if len(words) <= WIDTH else words[: WIDTH - 4] + ' ...'}"
