"""Read the pages and the code that the generated pages are made of."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
TOP = DOCS.parent
OBJECTIVES = TOP / "assent" / "objectives"


class Section(NamedTuple):
    """A heading with the text below it."""

    level: int
    title: str
    text: str


class Table(NamedTuple):
    """A table of a page."""

    section: str
    header: list[str]
    rows: list[list[str]]


def read(page: str) -> str:
    """Return the Markdown of a page of docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def sections(markdown: str) -> list[Section]:
    """Return every heading outside code with the text down to the next heading."""
    found, lines, fenced = [Section(0, "", "")], list[str](), False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else re.match(r"(#+) (.+)", line)
        if heading:
            found[-1] = found[-1]._replace(text="\n".join(lines).strip("\n"))
            found.append(Section(len(heading[1]), heading[2].strip(), ""))
            lines = []
        else:
            lines.append(line)
    found[-1] = found[-1]._replace(text="\n".join(lines).strip("\n"))
    return found[1:]


def cells(row: str) -> list[str]:
    """Return the cells of a row of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def tables(page: str) -> Iterator[Table]:
    """Yield every table of a page, with the last heading above it."""
    for section in sections(read(page)):
        for block in re.findall(r"(?:^\|.*\n?)+", section.text, re.MULTILINE):
            header, _, *rows = block.strip().splitlines()
            yield Table(section.title, cells(header), [cells(row) for row in rows])


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def slug(title: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def module_docstring(path: Path) -> str:
    """Return the docstring of a file."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def objective_names() -> list[str]:
    """Return the objectives in the order of docs/objectives.md, then those that it leaves out."""
    names = sorted(path.stem for path in OBJECTIVES.glob("[a-z]*.py"))
    order = [section.title for section in sections(read("objectives.md")) if section.title in names]
    return [*order, *(name for name in names if name not in order)]
