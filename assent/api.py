"""The commands as methods of a run: `Run("runs/mine").import_("pairs.jsonl").reward(lr=1e-4).dpo(epochs=2)`.

A method takes the settings of its command as keywords, runs it in the run's folder unless it is done, and returns the
run. `help(Run.reward)` lists the settings.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from assent.commands import command, command_names
from assent.config import override, read_recipe, settings
from assent.errors import AssentError
from assent.iterate import Iterate
from assent.loggers.jsonl import read_metrics
from assent.protocols import Stage, Tool
from assent.report.rounds import read_results
from assent.report.summary import summarise
from assent.run import Run as OpenRun
from assent.run import Setup, continue_setup, open_run, open_store, read_run_recipe
from assent.runner import perform

if TYPE_CHECKING:
    from assent.store.database import Store


class Run:
    """A run folder, with each command as a method.

    Args:
        folder: the run's folder, which is created or continued.
        settings: of `assent.run.Setup`: model, seed, held_out, device, dtype, ...; a folder keeps those that it has.

    Raises:
        AssentError: an unknown setting, or a value of the wrong type.
    """

    def __init__(self, folder: str | Path = "runs/python", **settings: Any) -> None:
        named = override(Setup(), {**settings, "run": str(folder)}, "Run")
        self.setup, _ = continue_setup(named, settings)

    if TYPE_CHECKING:  # mypy does not see the methods that are set below

        def __getattr__(self, name: str) -> "Callable[..., Self]": ...

    @property
    def folder(self) -> Path:
        """Return the run's folder."""
        return self.setup.run

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Return what each finished stage reported, by its name."""
        return {name: dict(result) for name, result in read_results(self.folder).items()}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`: stage, step, and the metrics of each step."""
        return read_metrics(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """Return win rates, KL, the reward model's accuracy, seconds and memory, as in `summary.json`."""
        return summarise(read_results(self.folder))

    def open_store(self) -> "Store":
        """Open the prompts, responses, tasks and feedback of the run; a `with` statement closes them."""
        return open_store(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, finished: {', '.join(read_results(self.folder)) or 'nothing'})"

    def iterate(self, recipe: str | Path | Mapping[str, Any] = "", **settings: Any) -> Self:
        """Run the stages of a recipe in order, as `assent run` does.

        Args:
            recipe: a file, or its content; its settings of the run's set-up are not read, this run has its own.
            settings: stages, rounds, policy_stage, ...
        """
        content = dict(recipe) if isinstance(recipe, Mapping) else read_recipe(Path(recipe)) if recipe else {}
        loop = override(Iterate.read(content, f"{recipe}"), settings, "Run.iterate")
        with open_run(self.setup) as run:
            loop(run, content)
        return self

    def _perform(self, name: str, given: Mapping[str, Any], overwrite: bool) -> Self:
        """Run one command with its settings: defaults, then the run's, then the given ones."""
        key = OpenRun(self.setup).key(name)
        kept = {} if overwrite else read_run_recipe(self.folder).get(key, {})
        action: Any = override(command(name), kept, f"{self.folder / 'recipe.toml'} [{key}]")
        plain = {setting: str(value) if isinstance(value, Path) else value for setting, value in given.items()}
        action = override(action, plain, f"Run.{method_name(name)}")
        if isinstance(action, Tool):
            if action.needs_run and not self.folder.is_dir():
                raise AssentError(f"no run at {self.folder}; name the folder of one: Run(folder)")
            action.check()
            if not action.locks_run:
                action(OpenRun(self.setup), name)
                return self
        with open_run(self.setup) as run:
            perform(run, name, action, overwrite)
        return self


class _Method:
    """The method of one command; its signature and docstring are made from the command's settings on first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: Run | None, owner: type[Run]) -> Callable[..., Any]:
        name = self._name
        action = command(name)
        positional = action.positional if isinstance(action, Tool) else ""

        def method(self: Run, *words: Any, **given: Any) -> Run:
            if len(words) > bool(positional):
                takes = f"one word, {positional}" if positional else "keywords only"
                raise AssentError(f"Run.{method_name(name)} takes {takes}, not {words[-1]!r}")
            overwrite = isinstance(action, Stage) and given.pop("overwrite", False)  # a tool may have such a setting
            return self._perform(name, {**dict(zip((positional,), words, strict=False)), **given}, overwrite)

        method.__name__ = method_name(name)
        method.__qualname__ = f"Run.{method.__name__}"
        method.__doc__ = _docstring(action)
        method.__signature__ = _signature(action, positional)  # type: ignore[attr-defined]
        return method if run is None else method.__get__(run, owner)


def method_name(command: str) -> str:
    """Return the name of a command's method: `import` is a word of Python, so its method is `import_`."""
    return "import_" if command == "import" else command


def _names(action: Any) -> list[str]:
    return list(settings(action))


def _docstring(action: Stage | Tool) -> str:
    lines = [(type(action).__doc__ or "").strip(), "", "Args:"]
    lines += [f"    {setting.name}: {' '.join(setting.help.split())}" for setting in settings(action).values()]
    if isinstance(action, Stage):
        lines.append("    overwrite: run the stage again, and replace its result.")
    return "\n".join(lines)


def _signature(action: Stage | Tool, positional: str) -> inspect.Signature:
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    keywords: list[inspect.Parameter] = []
    for setting in settings(action).values():
        is_word = setting.name == positional
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if is_word else inspect.Parameter.KEYWORD_ONLY
        parameter = inspect.Parameter(setting.name, kind, default=setting.value, annotation=setting.type)
        (parameters if is_word else keywords).append(parameter)
    if isinstance(action, Stage):
        keywords.append(inspect.Parameter("overwrite", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool))
    return inspect.Signature([*parameters, *keywords], return_annotation=Run)


for _name in command_names():
    setattr(Run, method_name(_name), _Method(_name))
