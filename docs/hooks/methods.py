"""Write the page of each objective from its file, its section of objectives.md and the tables of results.md."""

import re
from collections.abc import Iterator
from typing import Any

import sources

from assent.config import settings
from assent.registry import resolve

METRICS = {
    "offline": "comparisons-reward-and-the-offline-objectives",
    "reward": "comparisons-reward-and-the-offline-objectives",
    "unpaired": "kto",
    "online": "rollouts-the-online-objectives",
    "sft": "supervised-training-pretrain-sft",
}
"""The section of metrics.md that explains the metrics of a stage."""


def groups() -> dict[str, list[str]]:
    """Return the objectives below each heading of objectives.md."""
    names, by_heading, heading = sources.objective_names(), dict[str, list[str]](), "More"
    for section in sources.sections(sources.read("objectives.md")):
        if section.level == 2:
            heading = section.title
        elif section.title in names:
            by_heading.setdefault(heading, []).append(section.title)
    rest = set(names) - {name for group in by_heading.values() for name in group}
    return by_heading | ({"More": sorted(rest)} if rest else {})


def lead(name: str) -> str:
    """Return the first sentence of an objective's file, without the name."""
    first = sources.module_docstring(sources.OBJECTIVES / f"{name}.py").split("\n\n")[0]
    text = " ".join(first.partition(": ")[2].split())
    return text[:1].upper() + text[1:]


def title(name: str) -> str:
    """Return the name of the method, as its file begins."""
    return sources.module_docstring(sources.OBJECTIVES / f"{name}.py").partition(":")[0]


def page(name: str) -> str:
    """Return the page of an objective."""
    path = sources.OBJECTIVES / f"{name}.py"
    docstring = break_equations(sources.module_docstring(path).partition("\n\n")[2])
    objective: Any = resolve("objectives", name)
    sections = sources.sections(sources.read("objectives.md"))
    text = next((section.text for section in sections if section.title == name), "")
    facts, rest = split_facts(text)
    parts = [
        f"# {name}",
        lead(name),
        docstring,
        "The [notation](../objectives.md#notation) is that of all methods.",
        rest,
        "## When to use it",
        facts.get("Use", ""),
        "## What to watch",
        facts.get("Watch", ""),
        f"[Metrics](../metrics.md#{METRICS[objective.stage]}) explains every number that the stage writes.",
        "## Command",
        f"```sh\n{command(name, objective.stage)}\n```",
        f"The stage [`{objective.stage}`](../reference/commands.md#{objective.stage}) runs it, with further settings.",
        "## Settings",
        setting_table(settings(objective()).values()) if settings(objective()) else "It has none.",
        "## Measured",
        results(name),
        "## Test",
        f"{facts['Test']} in `tests/{test_file(facts['Test'].strip('`'))}`" if "Test" in facts else "",
        f"## {path.relative_to(sources.TOP)}",
        f"```python\n{path.read_text(encoding='utf-8')}```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def test_file(test: str) -> str:
    """Return the name of the file that holds a test."""
    files = sorted((sources.TOP / "tests").glob("test_objectives*.py"))
    return next(path.name for path in files if f"def {test}(" in path.read_text(encoding="utf-8"))


def break_equations(text: str) -> str:
    """Return a docstring in which every equation has a line of its own."""
    return "\n".join(
        re.sub(r"([,;])  +(?=\S)", r"\1\n    ", line) if line.startswith("    ") else line for line in text.splitlines()
    )


def command(name: str, stage: str) -> str:
    """Return a command that trains with an objective."""
    if stage == "sft":
        return "assent sft --run runs/sft --data demonstrations.jsonl"
    if stage == "reward":
        return f"assent reward examples/tiny.toml --objective {name}"
    return f"assent {name} examples/tiny.toml"


def split_facts(text: str) -> tuple[dict[str, str], str]:
    """Return the list of facts of a section (`Paper`, `Use`, ...), and the text after the list."""
    text = re.sub(r"\A(    .*\n|\n)+", "", text + "\n")
    facts, _, rest = text.partition("\n\n") if text.startswith("- ") else ("", "", text)
    pairs = re.findall(r"^- ([A-Z]\w+): (.+?)(?=\n- |\Z)", facts, re.MULTILINE | re.DOTALL)
    return {key: sentence(value) for key, value in pairs}, rest.strip("\n")


def sentence(text: str) -> str:
    """Return a text on one line that begins with a capital, unless it begins with code."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def setting_table(values: Any) -> str:
    """Return the table of settings, with their defaults as a recipe writes them, and their docstrings."""
    rows = [[f"`{setting.name} = {default(setting.value)}`", setting.help.replace("|", r"\|")] for setting in values]
    return sources.table(["setting and default", "what it does"], rows)


def default(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(default, value))}]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def results(name: str) -> str:
    """Return the text on what was measured."""
    parts = list(measured(name))
    if not parts:
        return "Nothing on this method is in [the results](../results.md) yet."
    note = (
        "These are the rows about this method; the sections say how they were measured. A share without another\n"
        "heading is a win rate against the base model, with its 95 % interval."
    )
    return "\n\n".join([note, *parts])


def measured(name: str) -> Iterator[str]:
    """Yield the rows and columns of results.md that are about an objective, table by table."""
    names = rf"{re.escape(title(name))}|`?{name}(\.py)?`"
    in_row = re.compile(rf"(?<![\w-])(?<!robust )({names})(?![\w-])")
    section = ""
    for table in sources.tables("results.md"):
        columns = [i for i, cell in enumerate(table.header) if re.fullmatch(names, cell)]
        if columns and table.header[0] and len(table.rows) > 1:
            chosen = [0, *columns]
            header, rows = [table.header[i] for i in chosen], [[row[i] for i in chosen] for row in table.rows]
        else:
            header = table.header
            width = 2 if header[1:2] == ["quantity"] else 1
            rows = [row for row in with_first_cells(table.rows) if any(map(in_row.search, row[:width]))]
        if not rows:
            continue
        if table.section != section:
            section = table.section
            yield f"From [{section}](../results.md#{sources.slug(section)}):"
        yield sources.table(header, rows)


def with_first_cells(rows: list[list[str]]) -> Iterator[list[str]]:
    """Yield rows whose empty first cell repeats the cell above."""
    first = ""
    for row in rows:
        first = row[0] or first
        yield [first, *row[1:]]


def overview(markdown: str) -> str:
    """Return objectives.md with a link in place of each section that has a page of its own."""
    names = sources.objective_names()
    parts = []
    for section in sources.sections(markdown):
        if section.title in names:
            parts.append(f"- [{section.title}](methods/{section.title}.md): {lead(section.title)}")
        else:
            parts.append(f"{'#' * section.level} {section.title}\n\n{section.text}")
    text = "\n\n".join(parts)
    text = re.sub(r"(?m)^(- \[.*)\n\n(?=- \[)", r"\1\n", text)
    return re.sub(rf"\]\(#({'|'.join(names)})\)", r"](methods/\1.md)", text)
