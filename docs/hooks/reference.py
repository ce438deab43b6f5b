"""Write the reference: every command with its settings, and the Python API."""

from collections.abc import Iterator
from typing import Any

import methods
import sources

import assent
from assent.api import method_name
from assent.commands import command, command_names
from assent.config import settings
from assent.registry import describe, names, resolve
from assent.run import Setup
from assent.stage_names import OBJECTIVE_STAGES, objectives_of
from assent.web.serve import Serve

FUNCTIONAL = sources.TOP / "assent" / "functional"


def pages() -> dict[str, str]:
    """Return the pages of the reference by their names."""
    return {
        "commands": commands(),
        "python": python(),
        "records": module_page("assent.records", "Records", "What the store holds, and what objectives train on."),
        "objectives": objectives(),
        "functional": functional(),
        "protocols": protocols(),
    }


# Commands


def commands() -> str:
    """Return the page of all commands with their settings."""
    sections = dict[str, str]()
    for name in command_names():
        stage = next((stage for stage in OBJECTIVE_STAGES if name in objectives_of(stage)), name)
        if stage not in sections:
            sections[stage] = section(stage, command(name))
    sections["serve"] = section("serve", Serve())
    introduction = (
        "# Commands and settings\n\n"
        "A setting has one name: `batch_size = 8` in the table of a recipe is `--batch-size 8` on the command line.\n"
        "[The loop](../story.md#settings) says which of them wins. `assent COMMAND --help` shows the same text.\n\n"
        "## Settings of every stage\n\n" + methods.setting_table(settings(Setup()).values())
    )
    return "\n\n".join([introduction, *sections.values()]) + "\n"


def section(name: str, action: Any) -> str:
    """Return the section of a command or of a stage of several commands: its docstring and its own settings."""
    parts = [f"## {name}", " ".join((type(action).__doc__ or "").split())]
    own = list(settings(action).values())
    if name in OBJECTIVE_STAGES:
        pages = ", ".join(f"[{name}](../methods/{name}.md)" for name in objectives_of(name))
        parts.append(f"The stage of {pages}. The page of the method has the settings of its loss.")
        own = [setting for setting in own if setting.owner is not type(action.objective)]
    return "\n\n".join([*parts, methods.setting_table(own) if own else "It has no settings of its own."])


# Python


def module_page(module: str, title: str, text: str) -> str:
    """Return the page of one module."""
    return f"# {title}\n\n{text}\n\n{directive(module)}"


def directive(path: str, level: int = 2, *, whole: bool = True) -> str:
    """Return what mkdocstrings replaces by the documentation of a class, or of a whole module without its heading."""
    options = [
        f"heading_level: {level}",
        *(["show_root_toc_entry: false", "show_root_heading: false"] if whole else []),
    ]
    return "\n".join([f"::: {path}", "    options:", *(f"      {option}" for option in options)]) + "\n"


def run_methods() -> str:
    """Return the table of the commands as methods of a run."""
    rows = [
        [f"`Run.{method_name(name)}`", describe(folder, name), f"[settings](commands.md#{section})"]
        for name, folder, section in commands_with_sections()
    ]
    text = (
        "Each command is a method. It takes the settings of the command as keywords, runs it unless it is done, and\n"
        "returns the run. `overwrite=True` runs a stage again.\n\n"
    )
    return text + sources.table(["method", "what it does", ""], rows) + "\n"


def commands_with_sections() -> Iterator[tuple[str, str, str]]:
    """Yield each command with the folder of its file and its section of the page of commands."""
    for name in command_names():
        stage = next((stage for stage in OBJECTIVE_STAGES if name in objectives_of(stage)), "")
        yield name, "objectives" if stage else "tools" if name in names("tools") else "stages", stage or name


def python() -> str:
    """Return the page of the names that the package exports."""
    public = [getattr(assent, name) for name in assent.__all__]
    classes = [cls for cls in public if isinstance(cls, type) and cls.__module__ != "assent.records"]
    paths = [f"{cls.__module__}.{cls.__name__}" for cls in classes]
    parts = [directive(path, whole=False) for path in paths]
    parts[paths.index("assent.api.Run")] += "\n" + run_methods()
    return (
        "# Python API\n\n"
        "What `from assent import ...` has: the stages of a run folder from Python.\n"
        "[The loop](../story.md#python) has examples. The records `Prompt`, `Response`, `Completion` and `Preference`\n"
        "are on [their own page](records.md).\n\n" + "\n".join(parts)
    )


def objectives() -> str:
    """Return the page of the classes of objectives and of their batches."""
    classes = []
    for name in sources.objective_names():
        cls = resolve("objectives", name)
        classes.append(directive(f"{cls.__module__}.{cls.__name__}", level=3, whole=False))
    return (
        "# Losses and batches\n\n"
        "Objectives as frozen dataclasses. [Methods](../objectives.md) has their equations.\n\n"
        "## Batches\n\n" + directive("assent.batch", level=3) + "\n## Losses\n\n" + "\n".join(classes)
    )


def functional() -> str:
    """Return the page of the pure functions, file by file."""
    files = sorted(FUNCTIONAL.glob("[a-z]*.py"))
    parts = [f"## {path.stem}\n\n{directive(f'assent.functional.{path.stem}', level=3)}" for path in files]
    return (
        "# Functions\n\n"
        "Pure functions: tensors or arrays in, tensors or arrays out. `assent.functional` exports the names of all\n"
        "these files.\n\n" + "\n".join(parts)
    )


def protocols() -> str:
    """Return the page of what a plug-in must have."""
    text = "What a plug-in must have. [Contributing](../contributing.md) says in which folder its file goes."
    return module_page("assent.protocols", "Plug-ins", text)
