"""One frozen dataclass is a stage, its settings, its TOML table, its flags and its help; here each becomes the others.

A stage may hold other frozen dataclasses (an objective, the training settings); outside, their fields lie flat beside
its own, so that `beta = 0.1` in a recipe and `--beta 0.1` on the command line mean the same field. One that was made by
`plugin` can be replaced by another file of its folder: `objective = "kway"`.
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
from typing import Any, Literal, TypeVar, get_type_hints

import tomli_w
from pydantic import TypeAdapter, ValidationError

from assent.errors import AssentError, did_you_mean
from assent.registry import name_of, resolve

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One field that a person can set."""

    name: str
    type: Any
    limited: Any
    """The type with its limits."""
    value: Any
    help: str
    owner: type


def plugin(folder: str, default: Any, among: Callable[[], Iterable[str]]) -> Any:
    """A field that holds an instance of a class in `folder`; its own name chooses another one of those files."""
    return dataclasses.field(default=default, metadata={"folder": folder, "among": among})


def settings(instance: Any) -> dict[str, Setting]:
    """Every field of a dataclass instance and of the dataclasses in it, flat, in order of declaration."""
    found = {setting.name: setting for setting in _walk(instance)}
    assert len(found) == sum(1 for _ in _walk(instance)), f"two fields of {type(instance).__name__} share a name"
    return found


def belongs(instance: Any, name: str) -> str:
    """The choice of a plug-in that would bring a setting of this name (`annotator = human`); empty if none does."""
    for field in dataclasses.fields(instance):
        for other in field.metadata["among"]() if field.metadata else ():
            if name in {own.name for own in dataclasses.fields(resolve(field.metadata["folder"], other))}:
                return f"{field.name} = {other}"
    return ""


def override(instance: T, table: Mapping[str, Any], where: str) -> T:
    """Return a copy with the fields named in `table` replaced; strings are read as the field's type.

    Raises:
        AssentError: a key that is no field (with the nearest one), or a value of the wrong type.
    """
    instance = _chosen(instance, table, where)
    known = settings(instance)
    for key in table:
        if key not in known:
            choice = belongs(instance, key)
            hint = f": it goes with {choice}" if choice else did_you_mean(key, known)
            raise AssentError(f"{where} has no setting '{key}'{hint}")
    values = {key: _checked(known[key], value, where) for key, value in table.items()}
    try:
        return _replace(instance, values)
    except ValueError as error:
        raise AssentError(f"{where}: {error}") from None


def table(instance: Any) -> dict[str, Any]:
    """The settings as a flat TOML table: resolved values, without those that are None."""
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
    """A recipe as TOML text."""
    return tomli_w.dumps(recipe)


def _walk(instance: Any) -> Iterator[Setting]:
    cls: type = type(instance)
    hints, limited, words = get_type_hints(cls), get_type_hints(cls, include_extras=True), documented(cls)
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            if field.metadata:
                kinds: Any = Literal[tuple(field.metadata["among"]())]
                yield Setting(field.name, kinds, kinds, name_of(value), words.get(field.name, ""), cls)
            yield from _walk(value)
        elif field.init:
            yield Setting(field.name, hints[field.name], limited[field.name], value, words.get(field.name, ""), cls)


def _chosen(instance: T, table: Mapping[str, Any], where: str) -> T:
    """The instance with the plug-ins that the table names, each with its own defaults."""
    choices = {f.name: f.metadata["folder"] for f in dataclasses.fields(instance) if f.metadata}  # type: ignore[arg-type]
    for setting in [s for s in _walk(instance) if s.name in choices and s.name in table]:
        name = _checked(setting, table[setting.name], where)
        if name != setting.value:
            made = resolve(choices[setting.name], name)()
            instance = dataclasses.replace(instance, **{setting.name: made})  # type: ignore[type-var]
    return instance


def _replace(instance: T, values: Mapping[str, Any]) -> T:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(instance):  # type: ignore[arg-type]
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replace(value, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(instance, **changes)  # type: ignore[type-var]


def _checked(setting: Setting, value: Any, where: str) -> Any:
    if isinstance(value, str) and "tuple" in str(setting.type):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        if isinstance(value, bool) and setting.type in (int, float):
            raise ValueError("a number")
        checked = TypeAdapter(setting.limited).validate_python(value)
        if isinstance(checked, float) and not math.isfinite(checked):
            raise ValueError("a finite number")
        return checked
    except ValueError as error:  # pydantic's own is one
        wanted = str(error)
        if isinstance(error, ValidationError):
            wanted = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise AssentError(f"{where}: {setting.name} = {value!r} will not do: it should be {wanted}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@cache
def documented(cls: type) -> dict[str, str]:
    """The string that stands under each field of a dataclass or of what it inherits from, as one paragraph."""
    found: dict[str, str] = {}
    for base in reversed(cls.__bases__):
        if dataclasses.is_dataclass(base):
            found |= documented(base)
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found
