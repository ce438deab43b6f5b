"""A folder is a registry: `resolve("objectives", "dpo")` is the class in `objectives/dpo.py`; new file, new name."""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from assent.errors import AssentError, did_you_mean

ROOT = Path(__file__).parent
OWN_FILE = "assent_plugin_"
"""Beginning of the module names of users' own files."""


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the names of a folder's files, sorted, without importing any (`import_.py` is named `import`)."""
    modules = pkgutil.iter_modules([str(ROOT / folder)])
    return tuple(sorted(module.name.rstrip("_") for module in modules if not module.ispkg))


def resolve(folder: str, name: str) -> Any:
    """Return the class of `folder/name.py` that has the file's name, in capitals (`dpo.py`: `DPO`).

    Raises:
        AssentError: no such file (the message names the nearest one), or no class of that name in it.
    """
    if name not in names(folder):
        raise AssentError(f"no '{name}' among {folder}{did_you_mean(name, names(folder))}")
    keyword = "_" if not (ROOT / folder / f"{name}.py").exists() else ""
    module = importlib.import_module(f"assent.{folder.replace('/', '.')}.{name}{keyword}")
    for key, value in vars(module).items():
        if key.lower() == name.replace("_", "") and isinstance(value, type):
            return value
    class_name = "".join(word.capitalize() for word in name.split("_"))
    raise AssentError(f"{module.__file__} must define a class named {class_name}")


def resolve_file(path: str, method: str) -> Any:
    """Return the class with a method of this name in a user's own file, such as `rules/mine.py`.

    Raises:
        AssentError: no such file, one that fails when it is imported, or one with no such class or several.
    """
    file = Path(path)
    if not file.exists():
        raise AssentError(f"no file at {path}")
    try:
        module = _import_file(file.resolve(), file.stat().st_mtime_ns)
    except Exception as error:  # noqa: BLE001 (it is anybody's code)
        raise AssentError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    defined = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    classes = [cls for cls in defined if hasattr(cls, method)]
    if len(classes) != 1:
        raise AssentError(f"{path} must define one class with a method '{method}'; it has {len(classes)}")
    return classes[0]


@cache
def _import_file(file: Path, mtime: int) -> ModuleType:
    """Import a user's own file; it is imported again when its time of change is another."""
    place = hashlib.sha256(str(file).encode()).hexdigest()[:8]  # two files may have one name
    spec = importlib.util.spec_from_file_location(f"{OWN_FILE}{file.stem}_{place}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the names in their annotations
    spec.loader.exec_module(module)
    return module


def own_file(cls: type) -> str:
    """Return the name of the user's own file that defines a class; empty: it is a class of assent."""
    return Path(inspect.getfile(cls)).name if cls.__module__.startswith(OWN_FILE) else ""


def name_of(plugin: Any) -> str:
    """Return the name of the file that defines the class of an instance."""
    return type(plugin).__module__.rpartition(".")[2]


def describe(folder: str, name: str) -> str:
    """Return the first line of a file's docstring, read without importing it."""
    return (ast.get_docstring(ast.parse(_path(folder, name).read_text())) or "").split("\n")[0]


@cache
def declared(folder: str, name: str, variable: str) -> str:
    """Return the string that `folder/name.py` assigns to a class variable, read without importing the file.

    Only lists (help, hints) use it; a plug-in that runs is imported, and its class is asked.
    """
    for node in ast.walk(ast.parse(_path(folder, name).read_text())):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == variable and node.value is not None:
            return str(ast.literal_eval(node.value))
    return ""


def _path(folder: str, name: str) -> Path:
    path = ROOT / folder / f"{name}.py"
    return path if path.exists() else path.with_stem(f"{name}_")
