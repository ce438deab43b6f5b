"""assent COMMAND [recipe.toml] [--key value ...]: every stage and tool is a command, its flags are its settings."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import assent
from assent.commands import command as resolve_command
from assent.commands import command_names
from assent.config import Setting, choose_plugins, override, plugin_with, read_recipe, settings
from assent.errors import STOPPED, AssentError, Waiting, did_you_mean, is_out_of_memory, log_into, may_print
from assent.help import LOOP, PAGES, default_text, metavar, overview
from assent.iterate import Iterate, configure
from assent.protocols import Stage, Tool

DEMO = Path(__file__).parent / "data" / "demo.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, 2 after bad input, 3 while annotators have yet to answer, 130 after Ctrl-C.

    Raises:
        Exception: an unexpected error; `assent.__main__` writes it into a log.
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
        if not is_out_of_memory(error):
            raise
        return _refuse(
            "out of memory; lower --generation-batch-size, --max-new-tokens or --max-tokens-per-batch, or use a "
            "smaller model"
        )


def _refuse(line: str) -> int:
    if may_print():
        print(f"assent: {line}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AssentError(f"{message} (see '{self.prog} --help')")


class _Arguments(NamedTuple):
    """A command line, parsed."""

    settings: dict[str, Any]
    words: list[str]
    """What is no flag: a recipe, a file."""
    overwrite: bool
    wants_help: bool


class _Job(NamedTuple):
    """A command with its settings."""

    name: str
    action: Any
    """A stage, a tool, or the loop."""
    setup: Any
    recipe: dict[str, Any]
    overwrite: bool


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"assent {assent.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "serve":
        return _serve(rest)
    known = [*dict(LOOP), *command_names(), *dict(PAGES)]
    if name not in known:
        raise AssentError(f"no command '{name}'{did_you_mean(name, known)} (see 'assent --help')")
    job = _configure(name, rest)
    if isinstance(job.action, Tool) and not job.action.locks_run:
        from assent.run import Run

        job.action(Run(job.setup), name)
        return 0
    return _run(job)


def _serve(rest: list[str]) -> int:
    from assent.web.serve import Serve

    arguments = _parse("serve", Serve(), settings(Serve()), rest, "folder")
    if len(arguments.words) > 1:
        raise AssentError(f"'serve' takes one folder and flags, not '{arguments.words[1]}'")
    folder = {"folder": arguments.words[0]} if arguments.words else {}
    serve = override(Serve(), {**folder, **arguments.settings}, "assent serve")
    serve.check()
    log_into(Path(serve.folder))
    serve()
    return 0


def _configure(name: str, rest: list[str]) -> _Job:
    """Return a command with its settings: defaults, then the run's, the recipe's, and the command line's."""
    from assent.run import Run, Setup

    where = f"assent {name}"
    action: Any = Iterate() if name in dict(LOOP) else resolve_command(name)
    early = _parse_early(name, action, {**settings(Setup()), **settings(action)}, rest)
    recipe_path = _recipe_path(name, early)
    recipe = _read_recipe(recipe_path)
    # Help needs no run, so that a broken one cannot prevent it.
    setup, earlier = (Setup(), {}) if early.wants_help else _setup(early.settings, recipe, recipe_path, where)
    _check_recipe(recipe, recipe_path)
    if isinstance(action, Iterate):
        action = Iterate.read(recipe, recipe_path)
    else:
        key = Run(setup).key(name)
        kept = {} if early.overwrite else earlier.get(key, {})
        action = override(action, kept, f"{setup.run / 'recipe.toml'} [{key}]")
        action = override(action, recipe.get(name, {}), f"{recipe_path} [{name}]")
    action = choose_plugins(action, early.settings, where)
    positional = action.positional if isinstance(action, Tool) else ""
    known = {**settings(Setup()), **settings(action)}
    arguments = _parse(name, action, known, rest, positional)
    if recipe_path in arguments.words:
        arguments.words.remove(recipe_path)
    if arguments.words and positional and positional not in arguments.settings:
        arguments.settings[positional] = arguments.words.pop(0)
    if arguments.words:
        expected = f"one {positional}" if positional else "one recipe (.toml)"
        raise AssentError(f"'{name}' takes {expected} and flags, not '{arguments.words[0]}'")
    own = {key: value for key, value in arguments.settings.items() if key not in settings(Setup())}
    action = override(action, own, where)
    if isinstance(action, Tool):
        if action.needs_run and not setup.run.is_dir():
            raise AssentError(f"no run at {setup.run}; name one with --run")
        action.check()
    return _Job(name, action, setup, recipe, arguments.overwrite)


def _setup(flags: Mapping[str, Any], recipe: Mapping[str, Any], recipe_path: str, where: str) -> tuple[Any, Any]:
    """Return the set-up of the run, and the recipe of its folder.

    A run keeps its settings unless a flag or recipe overrides them.
    """
    from assent.run import Setup, continue_setup

    shared = settings(Setup())
    from_flags = {key: value for key, value in flags.items() if key in shared}
    from_recipe = {key: value for key, value in recipe.items() if key in shared}
    if _is_of_a_run(recipe_path):
        from_recipe["run"] = str(Path(recipe_path).parent)  # the recipe of a run folder is about that folder
    setup = override(override(Setup(), from_recipe, recipe_path), from_flags, where)
    if not str(setup.run).strip(". "):
        raise AssentError(f"{where}: --run must name a folder other than '{setup.run}'")
    log_into(setup.run)
    return continue_setup(setup, {**from_recipe, **from_flags})


def _run(job: _Job) -> int:
    """Run a stage, a tool or the loop in its run folder, together with the other processes of torchrun."""
    from assent.run import open_run
    from assent.runner import perform
    from assent.training import distributed
    from assent.training.loop import Stopped

    with ExitStack() as stack:
        stack.enter_context(distributed.process_group())
        action = job.action  # each process has its own: not every class of a user can be sent
        run = distributed.on_rank0(lambda: stack.enter_context(open_run(job.setup)))
        try:
            if isinstance(action, Iterate):
                action(run, job.recipe)
            else:
                earlier = None if job.overwrite else run.result(run.key(job.name))
                result = perform(run, job.name, action, job.overwrite)
                if isinstance(action, Stage) and distributed.is_rank0():
                    _print_result(run.key(job.name), result, result == earlier, job.setup.run)
            if (isinstance(action, Iterate) or job.name == "report") and distributed.is_rank0():
                _print_summary(job.setup.run)
        except (Waiting, Stopped) as stop:
            if distributed.is_rank0():
                print(f"assent: {stop}", file=sys.stderr)
            return 3 if isinstance(stop, Waiting) else 130
    return 0


def _read_recipe(path: str) -> dict[str, Any]:
    """Return a recipe; that of a run folder with today's names, if an earlier version wrote it."""
    from assent.run import read_run_recipe

    if not path:
        return {}
    return read_run_recipe(Path(path).parent) if _is_of_a_run(path) else read_recipe(Path(path))


def _is_of_a_run(path: str) -> bool:
    return Path(path).name == "recipe.toml" and (Path(path).parent / "done").is_dir()


def _recipe_path(name: str, arguments: _Arguments) -> str:
    """Return the recipe that a command reads, taken out of its words; empty if it reads none."""
    if path := next((word for word in arguments.words if word.endswith(".toml")), ""):
        arguments.words.remove(path)
        return path
    if name == "demo":
        return str(DEMO)
    if name == "run" and not arguments.words and not arguments.wants_help:
        own = Path(arguments.settings.get("run", "")) / "recipe.toml"
        if "run" not in arguments.settings or not own.exists():
            raise AssentError("name a recipe, such as 'assent run examples/tiny.toml', or an existing run with --run")
        return str(own)
    return ""


def _check_recipe(recipe: dict[str, Any], path: str) -> None:
    """Refuse keys and tables that nothing reads, before anything runs."""
    from assent.run import Setup

    top = {**settings(Setup()), **settings(Iterate())}
    known = command_names() if recipe else []
    for name, value in recipe.items():
        if isinstance(value, dict):
            stage = name.rsplit("-", 1)[0] if name.rsplit("-", 1)[-1].isdigit() else name
            if stage not in known:
                raise AssentError(f"{path}: no stage '{name}'{did_you_mean(name, known)}")
            configure(stage, name, recipe, f"{path} ")
        elif name in known and name not in top:
            raise AssentError(f"{path}: '{name}' is a stage; put its settings under [{name}]")
        elif name not in top:
            raise AssentError(f"{path}: no setting '{name}'{did_you_mean(name, [*top, *known])}")


def _parse(name: str, action: Any, known: dict[str, Setting], rest: list[str], positional: str) -> _Arguments:
    """Parse the command line of one command."""
    namespace, unknown = _parser(name, action, known, positional).parse_known_intermixed_args(rest)
    for word in unknown:
        if word.startswith("-"):
            overwrite = ["overwrite"] if isinstance(action, Stage) else []
            raise AssentError(_unknown_flag(name, action, [*known, *overwrite], word))
    return _read_namespace(namespace, action)


def _parse_early(name: str, action: Any, known: dict[str, Setting], rest: list[str]) -> _Arguments:
    """Parse what is known before the plug-ins are chosen: they decide which other flags there are."""
    parser = _parser(name, action, known, add_help=False)
    parser.add_argument("-h", "--help", dest="wants_help", action="store_true")
    return _read_namespace(parser.parse_known_intermixed_args(rest)[0], action)


def _parser(name: str, action: Any, known: dict[str, Setting], positional: str = "", add_help: bool = True) -> _Parser:
    parser = _Parser(
        prog=f"assent {name}",
        description=(type(action).__doc__ or "").strip(),
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        allow_abbrev=False,
        add_help=add_help,
    )
    parser.add_argument("words", nargs="*", metavar=positional or "recipe.toml")
    if isinstance(action, Stage):
        parser.add_argument("--overwrite", action="store_true", help="run this stage again, and replace its result")
    owner = None
    group: Any = parser
    for setting in known.values():
        if setting.owner is not owner:
            owner = setting.owner
            group = parser.add_argument_group(owner.__name__, (owner.__doc__ or "").split("\n")[0])
        flag = "--" + setting.name.replace("_", "-")
        text = f"{setting.help} [{default_text(setting.value, setting.help)}]".replace("%", "%%")
        if setting.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(flag, metavar=metavar(setting), default=None, help=text)
    return parser


def _read_namespace(namespace: argparse.Namespace, action: Any) -> _Arguments:
    values = {key: value for key, value in vars(namespace).items() if value is not None}
    words, wants_help = [*values.pop("words")], values.pop("wants_help", False)
    # A tool may have a setting of that name, as export has: it keeps the value.
    overwrite = values.pop("overwrite", False) if isinstance(action, Stage) else False
    return _Arguments(values, words, overwrite, wants_help)


def _unknown_flag(name: str, action: Any, known: list[str], word: str) -> str:
    """Return the error for a flag that the command does not have, with the nearest one."""
    flag = word.lstrip("-").split("=")[0]
    hint = did_you_mean(flag, [key.replace("_", "-") for key in known]).replace("'", "'--", 1)
    if choice := plugin_with(action, flag.replace("-", "_")):
        hint = f": it goes with --{choice.replace(' = ', ' ')}"
    return f"'assent {name}' has no flag '{word}'{hint} (see 'assent {name} --help')"


def _print_result(key: str, result: dict[str, Any], was_done: bool, folder: Path) -> None:
    facts = ", ".join(f"{name} {_number(v)}" for name, v in result.items() if isinstance(v, int | float | str))
    state, hint = ("already done in", "; --overwrite runs it again") if was_done else ("done in", "")
    print(f"{key}: {state} {folder}: {facts}{hint}")
    if card := result.get("report_card"):
        from assent.report.reward_card import sentences, warnings

        print("".join(f"  {line}\n" for line in (*sentences(card), *warnings(card))), end="")
    if probe := result.get("probe"):
        from assent.report.alarm import alarm_sentence

        print(f"  {alarm_sentence(key, probe)}")
    if returns := result.get("true_return"):
        print(f"  true return, the mean of {returns['n']} unseen episodes: {_number(returns['mean'])}")


def _print_summary(folder: Path) -> None:
    """Print a table if policies were compared, else where the report is."""
    from rich.console import Console

    from assent.report.alarm import alarm_sentences
    from assent.report.rounds import read_results
    from assent.report.terminal import has_evaluation, summary_table

    if has_evaluation(folder):
        Console(highlight=False, soft_wrap=True).print(summary_table(folder))
        return
    report = folder / "report.html"
    print(f"report: {report}" if report.exists() else f"done: {folder} ('assent report --run {folder}' shows it)")
    for sentence in alarm_sentences(read_results(folder)):
        print(sentence)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
