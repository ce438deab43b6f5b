"""The texts of `assent --help` and of each flag, from the first lines of files and the docstrings of settings."""

from typing import Any, Literal, get_args, get_origin

from assent.commands import command_names
from assent.config import Setting
from assent.registry import describe, names
from assent.stage_names import PREPARATION, policy_commands

LOOP = (
    ("demo", "The whole loop on a small language model, from responses to a report; start here."),
    ("run", "Run the stages of a recipe, round after round."),
)
PAGES = (("serve", "Pages in the browser: label, chat with a model, follow progress."),)
WIDTH = 100
"""Characters of a description in the overview."""


def overview() -> str:
    """Return the text of `assent --help`."""
    others = [name for name in command_names() if name not in (*PREPARATION, *policy_commands())]
    groups = (
        ("The whole loop", LOOP),
        ("Stages", _described(PREPARATION)),
        ("Policy optimisation (start with dpo, or ppo)", _described(policy_commands())),
        ("People", PAGES),
        ("Evaluation and files", _described(sorted(others))),
    )
    lines = ["assent trains language models on human preferences.", ""]
    lines += ["  assent COMMAND [recipe.toml] [--key value ...]", ""]
    for title, commands in groups:
        lines.append(title)
        lines += [f"  {name:<18} {_shorten(text)}" for name, text in commands]
        lines.append("")
    return "\n".join([*lines, "'assent COMMAND --help' explains a command and its settings."])


def default_text(value: Any, description: str) -> str:
    """Return a default as the help shows it; `empty` if the description of the setting says what that means."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text or ("empty" if "empty:" in description.lower() else "none")


def metavar(setting: Setting) -> str:
    """Return the type of a flag's value as the help shows it."""
    if get_origin(setting.type) is Literal:
        return "{" + ",".join(map(str, get_args(setting.type))) + "}"
    if get_origin(setting.type) is tuple:
        return "STR,STR" if get_args(setting.type)[0] is str else "FLOAT,FLOAT"
    return {int: "INT", float: "FLOAT", str: "STR"}.get(setting.type, "VALUE")


def _described(commands: Any) -> list[tuple[str, str]]:
    return [(name, describe(_folder(name), name)) for name in commands]


def _folder(command: str) -> str:
    return next(folder for folder in ("tools", "objectives", "stages") if command in names(folder))


def _shorten(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1].rsplit(" ", 1)[0] + " ..."
