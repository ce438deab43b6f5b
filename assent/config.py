"""One frozen dataclass is a stage, its settings, its TOML table, its flags and its help; here each becomes the others.

A stage may hold other frozen dataclasses (an objective, the training settings). Their fields are flat beside its own:
`beta = 0.1` in a recipe and `--beta 0.1` on the command line mean the same field. A field made by `plugin` can be
replaced by another file of its folder (`objective = "kway"`). A field made by `plugins` holds the settings of every
plug-in that another field names (`rewards = ["length_penalty", "reward"]`).
"""

import ast
import dataclasses
import inspect
import math
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import tomli_w
from pydantic import TypeAdapter, ValidationError

from assent.errors import AssentError, did_you_mean
from assent.registry import name_of, own_file, resolve

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One field that a user can set."""

    name: str
    type: Any
    constrained_type: Any
    """The type with its limits."""
    value: Any
    help: str
    owner: type
    """The dataclass that declares it."""
    chooses_plugins: bool = False
    """Whether its value decides which other settings there are."""


class NamedPlugin(NamedTuple):
    """A plug-in with its settings, and the name by which the user chose it."""

    name: str
    plugin: Any


def plugin(folder: str, default: Any, choices: Callable[[], Iterable[str]]) -> Any:
    """Return a field that holds one plug-in of `folder`; the field's own name chooses another one."""
    return dataclasses.field(default=default, metadata={"folder": folder, "choices": choices})


def plugins(named_by: str, find: Callable[[str], type | None], choices: Callable[[], Iterable[str]]) -> Any:
    """Return a field that holds the plug-ins named by the field `named_by`, so that their settings are settings too.

    Args:
        find: returns the dataclass of a name, or None for a name that is no plug-in.
    """
    return dataclasses.field(default=(), metadata={"named_by": named_by, "find": find, "choices": choices})


def settings(instance: Any) -> dict[str, Setting]:
    """Return every field of a dataclass instance and of the dataclasses in it, flat, in order of declaration.

    Raises:
        AssentError: two plug-ins bring a setting of the same name.
    """
    by_name: dict[str, Setting] = {}
    for setting in _walk(instance):
        if setting.name in by_name:
            owners = by_name[setting.name].owner, setting.owner
            remedy = next(
                (f"rename it in {file}" for file in map(own_file, owners) if file), "use one of them at a time"
            )
            names = " and ".join(owner.__name__ for owner in owners)
            raise AssentError(f"{names} both have a setting '{setting.name}'; {remedy}")
        by_name[setting.name] = setting
    return by_name


def plugin_with(instance: Any, name: str) -> str:
    """Return the choice of a plug-in that brings a setting of this name (`annotator = human`); empty if none does."""
    for field in _fields(instance):
        for choice in field.metadata["choices"]() if field.metadata else ():
            if "folder" in field.metadata:
                chooser, cls = field.name, resolve(field.metadata["folder"], choice)
            else:
                chooser, cls = field.metadata["named_by"], field.metadata["find"](choice)
            if dataclasses.is_dataclass(cls) and name in {own.name for own in dataclasses.fields(cls)}:
                return f"{chooser} = {choice}"
    return ""


def override(instance: T, table: Mapping[str, Any], where: str) -> T:
    """Return a copy with the fields named in `table` replaced; strings are read as the field's type.

    Raises:
        AssentError: a key that is no field (with the nearest one), or a value of the wrong type.
    """
    instance = choose_plugins(instance, table, where)
    known = settings(instance)
    for key in table:
        if key not in known:
            choice = plugin_with(instance, key)
            hint = f": it goes with {choice}" if choice else did_you_mean(key, known)
            raise AssentError(f"{where} has no setting '{key}'{hint}")
    values = {key: _check(known[key], value, where) for key, value in table.items()}
    try:
        return _replace(instance, values)
    except ValueError as error:
        raise AssentError(f"{where}: {error}") from None


def choose_plugins(instance: T, table: Mapping[str, Any], where: str) -> T:
    """Return a copy with the plug-ins that the table names, each with its own defaults; nothing else is changed.

    Raises:
        AssentError: no such plug-in, one that is named twice, or one whose defaults fail.
    """
    changes: dict[str, Any] = {}
    known = {setting.name: setting for setting in _walk(instance)}
    for field in dataclasses.fields(instance):  # type: ignore[arg-type]
        value = getattr(instance, field.name)
        if "folder" in field.metadata and field.name in table:
            name = _check(known[field.name], table[field.name], where)
            if name != name_of(value):
                changes[field.name] = resolve(field.metadata["folder"], name)()
        elif "named_by" in field.metadata and field.metadata["named_by"] in table:
            chooser = known[field.metadata["named_by"]]
            chosen = _check(chooser, table[chooser.name], where)
            names = (chosen,) if isinstance(chosen, str) else chosen
            if twice := next((name for name in names if names.count(name) > 1), ""):
                raise AssentError(f"{where}: {_spell(chooser, where)} names '{twice}' twice; name it once")
            changes[field.name] = _named_plugins(names, value, field.metadata["find"], where)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = choose_plugins(value, table, where)
    return dataclasses.replace(instance, **changes)  # type: ignore[type-var]


def with_defaults(cls: type, where: str) -> Any:
    """Return an instance of a plug-in's class.

    Raises:
        AssentError: it lacks a default, or refuses one.
    """
    try:
        return cls()
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AssentError(f"{where}: every setting of {cls.__name__} needs a default that works: {reason}") from None


def table(instance: Any) -> dict[str, Any]:
    """Return the settings as a flat TOML table: resolved values, without those that are None."""
    return {name: _plain(s.value) for name, s in settings(instance).items() if s.value is not None}


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a TOML recipe.

    Raises:
        AssentError: no such file, or not TOML (with line and column).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AssentError(f"no recipe at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AssentError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise AssentError(f"cannot read the recipe {path}: {error.strerror}") from None


def write_recipe(recipe: Mapping[str, Any]) -> str:
    """Return a recipe as TOML text."""
    return tomli_w.dumps(recipe)


def _fields(instance: Any) -> Iterator[dataclasses.Field[Any]]:
    """Yield the fields of a dataclass instance and of the dataclasses in it."""
    for field in dataclasses.fields(instance):
        yield field
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value)


def _walk(instance: Any) -> Iterator[Setting]:
    cls: type = type(instance)
    hints, constrained, texts = get_type_hints(cls), get_type_hints(cls, include_extras=True), field_docs(cls)
    choosers = {field.metadata["named_by"] for field in dataclasses.fields(instance) if "named_by" in field.metadata}
    for field in dataclasses.fields(instance):
        value, text = getattr(instance, field.name), texts.get(field.name, "")
        if "named_by" in field.metadata:
            for part in value:
                if dataclasses.is_dataclass(part.plugin):  # a user's own plain class has no settings
                    yield from _walk(part.plugin)
        elif dataclasses.is_dataclass(value):
            if field.metadata:
                choices: Any = Literal[tuple(field.metadata["choices"]())]
                yield Setting(field.name, choices, choices, name_of(value), text, cls, chooses_plugins=True)
            yield from _walk(value)
        elif field.init:
            chooses = field.name in choosers
            yield Setting(field.name, hints[field.name], constrained[field.name], value, text, cls, chooses)


def _named_plugins(
    names: Iterable[str], chosen: tuple[NamedPlugin, ...], find: Callable[[str], type | None], where: str
) -> tuple[NamedPlugin, ...]:
    """Return the plug-ins of these names; one that was chosen before keeps its settings."""
    earlier = {part.name: part for part in chosen}
    parts: list[NamedPlugin] = []
    for name in names:
        if name in earlier:
            parts.append(earlier[name])
        elif (cls := find(name)) is not None:
            parts.append(NamedPlugin(name, with_defaults(cls, where)))
    return tuple(parts)


def _replace(instance: T, values: Mapping[str, Any]) -> T:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(instance):  # type: ignore[arg-type]
        value = getattr(instance, field.name)
        if "named_by" in field.metadata:
            changes[field.name] = tuple(
                part._replace(plugin=_replace(part.plugin, values)) if dataclasses.is_dataclass(part.plugin) else part
                for part in value
            )
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _replace(value, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(instance, **changes)  # type: ignore[type-var]


def _check(setting: Setting, value: Any, where: str) -> Any:
    """Return the value as the setting's type.

    Raises:
        AssentError: it is of another type, or outside the limits.
    """
    if isinstance(value, str) and "tuple" in str(setting.type):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        if isinstance(value, bool) and setting.type in (int, float):
            raise ValueError("a number")
        checked = TypeAdapter(setting.constrained_type).validate_python(value)
        for number in checked if isinstance(checked, tuple) else (checked,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError("a finite number")
        return checked
    except ValueError as error:  # pydantic's own is one
        expected = str(error)
        if isinstance(error, ValidationError):
            expected = error.errors()[0]["msg"].removeprefix("Input should be ").partition(", unable to parse")[0]
        raise AssentError(f"{where}: {_spell(setting, where)} must be {expected}, got {value!r}") from None


def _spell(setting: Setting, where: str) -> str:
    """Return the setting as it is written there: a flag on the command line, a key in a recipe."""
    return "--" + setting.name.replace("_", "-") if where.startswith("assent ") else setting.name


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass and of its bases, each as one paragraph."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__bases__):
        if dataclasses.is_dataclass(base):
            docs |= field_docs(base)
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs
