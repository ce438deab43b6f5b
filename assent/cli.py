"""assent COMMAND [recipe.toml] [--key value ...]: every stage is a command, its flags are the stage's fields."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from assent.commands import PREPARATION, command_names, policy_optimisers
from assent.commands import command as command_of
from assent.config import Setting, belongs, override, read_recipe, settings
from assent.config import table as table_of
from assent.errors import STOPPED, AssentError, Waiting, at_work_in, did_you_mean, no_memory, speaks
from assent.iterate import Iterate
from assent.protocols import Stage, Tool
from assent.registry import describe, names

DEMO = Path(__file__).parent / "data" / "demo.toml"
PAGES = (("serve", "pages on which people answer, talk to a model and see how it goes"),)
STORY = (
    ("demo", "the whole loop on a small language model, from answers to a report; start here"),
    ("run", "the stages of a recipe, round after round"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 2 after bad input, 3 when people are to answer first, 130 after Ctrl-C.

    Raises:
        Exception: what nobody foresaw; `assent.__main__` writes it into a log.
    """
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except AssentError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(f"assent: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not no_memory(error):
            raise
        return _refuse(
            "out of memory: lower --generation-batch-size, --max-new-tokens or --max-tokens-per-batch, or take a smaller model"
        )


def _refuse(line: str) -> int:
    if speaks():
        print(f"assent: {line}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AssentError(f"{message} (see '{self.prog} --help')")


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"assent {version('assent')}")
        return 0
    command, rest = arguments[0], arguments[1:]
    known = [*dict(STORY), *command_names(), *dict(PAGES)]
    if command not in known:
        raise AssentError(f"no command '{command}'{did_you_mean(command, known)} (see 'assent --help')")
    return _serve(rest) if command == "serve" else _run(command, rest)


def _serve(rest: list[str]) -> int:
    from assent.web.serve import Serve

    given, words, _ = _parse("serve", Serve(), settings(Serve()), rest, "folder")
    if len(words) > 1:
        raise AssentError(f"'serve' takes one folder and flags, not '{words[1]}'")
    if words:
        given = {"folder": words[0], **given}
    serve = override(Serve(), given, "assent serve")
    serve.check()
    at_work_in(Path(serve.folder))
    serve()
    return 0


def _run(command: str, rest: list[str]) -> int:
    from assent.run import Run, Setup

    looping = command in ("run", "demo")
    made: Any = Iterate() if looping else command_of(command)
    made = override(made, _plugins(made, rest), f"assent {command}")
    known = {**settings(Setup()), **settings(made)}
    positional = made.positional if isinstance(made, Tool) else ""
    given, words, overwrite = _parse(command, made, known, rest, positional or "recipe.toml")
    recipe_path = _recipe_path(command, words, given)
    if words and positional and positional not in given:
        given[positional] = words.pop(0)
    if words:
        takes = f"one {positional}" if positional else "one recipe (.toml)"
        raise AssentError(f"'{command}' takes {takes} and flags, not '{words[0]}'")
    recipe = read_recipe(Path(recipe_path)) if recipe_path else {}
    _check_recipe(recipe, recipe_path)
    shared, where = settings(Setup()), f"assent {command}"
    flags = {k: v for k, v in given.items() if k in shared}
    own = {k: v for k, v in given.items() if k not in shared}
    top = {k: v for k, v in recipe.items() if k in shared}
    if Path(recipe_path).name == "recipe.toml" and (Path(recipe_path).parent / "done").is_dir():
        top["run"] = str(Path(recipe_path).parent)  # the recipe of a run folder is about that folder
    setup = override(override(Setup(), top, recipe_path), flags, where)
    if not str(setup.run).strip(". "):
        raise AssentError(f"{where}: --run '{setup.run}' names no folder of its own")
    at_work_in(setup.run)
    # a run that is continued keeps its settings where nobody says otherwise
    path = setup.run / "recipe.toml"
    before = read_recipe(path) if path.exists() else {}
    setup = override(setup, {k: v for k, v in before.items() if k in shared and k not in {**top, **flags}}, str(path))
    if looping:
        table = {k: v for k, v in recipe.items() if k in settings(made)}
    else:
        key = Run(setup).key(command)
        kept = {} if overwrite else before.get(key, {})
        table = {**kept, **recipe.get(command, {})}
    made = override(override(made, table, f"{recipe_path or path} [{command}]"), own, where)
    if isinstance(made, Tool):
        if made.needs_run and not setup.run.is_dir():
            raise AssentError(f"no run at {setup.run}")
        made.check()
        if not made.locks_run:
            made(Run(setup), command)
            return 0
    return _do(command, made, setup, recipe, overwrite)


def _do(command: str, made: Any, setup: Any, recipe: dict[str, Any], overwrite: bool) -> int:
    """Do a stage or a loop in its run folder, together with the other processes that torchrun started."""
    from assent.run import open_run
    from assent.runner import perform
    from assent.training import distributed
    from assent.training.loop import Stopped

    with ExitStack() as held:
        held.enter_context(distributed.process_group())
        made, run = distributed.on_rank0(lambda: (made, held.enter_context(open_run(setup))))
        try:
            if isinstance(made, Iterate):
                made(run, recipe)
            else:
                done = None if overwrite else run.result(run.key(command))
                if overwrite:
                    distributed.on_rank0(lambda: run.move_aside(command, table_of(made)))
                result = perform(run, command, made)
                if isinstance(made, Stage) and distributed.is_rank0():
                    _say(run.key(command), result, result == done, setup.run)
            if (isinstance(made, Iterate) or command == "report") and distributed.is_rank0():
                _conclude(setup.run)
        except Waiting as waiting:
            if distributed.is_rank0():
                print(f"assent: {waiting}", file=sys.stderr)
            return 3
        except Stopped as stopped:
            if distributed.is_rank0():
                print(f"assent: {stopped}", file=sys.stderr)
            return 130
    return 0


def _plugins(made: Any, rest: list[str]) -> dict[str, str]:
    """The plug-ins that the command line names: they decide which other flags there are."""
    scout = _Parser(prog="assent", add_help=False, allow_abbrev=False)
    for field in fields(made):
        if field.metadata:
            scout.add_argument("--" + field.name, default=argparse.SUPPRESS)
    return vars(scout.parse_known_args(rest)[0])


def _recipe_path(command: str, words: list[str], given: Mapping[str, Any]) -> str:
    """The recipe that a command reads, taken out of its words; empty if it reads none."""
    if named := next((word for word in words if word.endswith(".toml")), ""):
        words.remove(named)
        return named
    if command == "demo":
        return str(DEMO)
    if command == "run" and not words:
        old = Path(given.get("run", "")) / "recipe.toml"
        if "run" not in given or not old.exists():
            raise AssentError("name a recipe: assent run recipe.toml (examples/tiny.toml is one), or an old --run")
        return str(old)
    return ""


def _check_recipe(recipe: dict[str, Any], path: str) -> None:
    """Refuse keys and tables that nothing reads, before anything is started."""
    from assent.run import Setup

    top = {**settings(Setup()), **settings(Iterate())}
    for name, value in recipe.items():
        if isinstance(value, dict):
            plain = name.rsplit("-", 1)[0] if name.rsplit("-", 1)[-1].isdigit() else name
            if plain not in command_names():
                raise AssentError(f"{path}: no stage '{name}'{did_you_mean(name, command_names())}")
            override(command_of(plain), value, f"{path} [{name}]")
        elif name in command_names():
            raise AssentError(f"{path}: '{name}' is a stage: its settings stand under [{name}]")
        elif name not in top:
            raise AssentError(f"{path}: no setting '{name}'{did_you_mean(name, [*top, *command_names()])}")


def _parse(
    command: str, made: Any, known: dict[str, Setting], rest: list[str], positional: str
) -> tuple[dict[str, Any], list[str], bool]:
    """What the command line says: settings, positional words, and whether to start afresh."""
    parser = _Parser(
        prog=f"assent {command}",
        description=(type(made).__doc__ or "").strip(),
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar=positional)
    if has_overwrite := isinstance(made, Stage):
        parser.add_argument(
            "--overwrite", action="store_true", help="start this stage afresh, although it was begun or done"
        )
    owner = None
    group: Any = parser
    for setting in known.values():
        if setting.owner is not owner:
            owner = setting.owner
            group = parser.add_argument_group(owner.__name__, (owner.__doc__ or "").split("\n")[0])
        flag, shown = "--" + setting.name.replace("_", "-"), _shown(setting.value)
        help_text = f"{setting.help} [{shown}]".replace("%", "%%")
        if setting.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help_text)
        else:
            group.add_argument(flag, metavar=_kind(setting), default=None, help=help_text)
    spaces, unknown = parser.parse_known_intermixed_args(rest)
    for word in unknown:
        if word.startswith("-"):
            flags = [name.replace("_", "-") for name in (*known, *(["overwrite"] if has_overwrite else []))]
            name = word.lstrip("-").split("=")[0]
            hint = did_you_mean(name, flags).replace("'", "'--", 1)
            if choice := belongs(made, name.replace("-", "_")):
                hint = f": it goes with --{choice.replace(' = ', ' ')}"
            raise AssentError(f"'assent {command}' has no flag '{word}'{hint} (see 'assent {command} --help')")
    values = {k: v for k, v in vars(spaces).items() if v is not None and k not in ("words", "overwrite")}
    return values, [*spaces.words], has_overwrite and spaces.overwrite


def _overview() -> str:
    lines = [
        "assent trains language models on what people prefer.",
        "",
        "  assent COMMAND [recipe.toml] [--key value ...]",
        "",
    ]
    for title, group in _groups():
        lines.append(title)
        lines += [f"  {name:<18} {_short(text)}" for name, text in group]
        lines.append("")
    return "\n".join([*lines, "'assent COMMAND --help' explains a command and every setting it has."])


def _groups() -> list[tuple[str, list[tuple[str, str]]]]:
    others = [name for name in command_names() if name not in (*PREPARATION, *policy_optimisers())]
    return [
        ("The whole loop", list(STORY)),
        ("Stages", [(name, describe("stages", name)) for name in PREPARATION]),
        (
            "Optimising the policy",
            [(name, describe(_folder(name), name)) for name in policy_optimisers()],
        ),
        ("People", list(PAGES)),
        ("Measuring, and files", [(name, describe(_folder(name), name)) for name in sorted(others)]),
    ]


def _folder(command: str) -> str:
    return next(folder for folder in ("tools", "objectives", "stages") if command in names(folder))


def _say(key: str, result: dict[str, Any], before: bool, folder: Path) -> None:
    facts = ", ".join(f"{k} {_number(v)}" for k, v in result.items() if isinstance(v, int | float | str))
    print(
        f"{key}: {'already done in' if before else 'done in'} {folder}: {facts}"
        + ("; --overwrite does it afresh" if before else "")
    )


def _conclude(folder: Path) -> None:
    """What came of it: a table if answers were compared, else where the report lies."""
    from rich.console import Console

    from assent.report.page import find_rounds, summary_table

    if any(found.evaluation for found in find_rounds(folder)):
        Console(highlight=False, soft_wrap=True).print(summary_table(folder))
    else:
        report = folder / "report.html"
        print(f"report: {report}" if report.exists() else f"done: {folder} ('assent report --run {folder}' shows it)")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99].rsplit(" ", 1)[0] + " ..."


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) or "none"


def _kind(setting: Setting) -> str:
    from typing import Literal, get_args, get_origin

    if get_origin(setting.type) is Literal:
        return "{" + ",".join(map(str, get_args(setting.type))) + "}"
    return {int: "N", float: "X", str: "TEXT"}.get(setting.type, "VALUE")


if __name__ == "__main__":
    sys.exit(main())
