"""Rules of the architecture: import time, documentation, contents of folders, and lengths of files."""

import ast
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from assent.cli import main
from assent.commands import command as command_of
from assent.commands import command_names
from assent.config import Setting, settings
from assent.errors import STOPPED, AssentError
from assent.iterate import Iterate
from assent.registry import ROOT, declared, names, resolve
from assent.run import Setup

pytest_plugins = ["pytester"]

TOP = ROOT.parent
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = {"torch", "transformers", "numpy", "scipy", "sqlalchemy", "alembic", "matplotlib", "peft"}
PLUGINS = [
    (folder, name)
    for folder in ("objectives", "feedback", "rewards", "annotators", "stages", "tools")
    for name in names(folder)
]
INDIRECT = {
    "gguf": "transformers reads the embedded model with it",
    "tensorboard": "torch.utils.tensorboard writes with it",
    "hatchling": "tests/test_packaging.py builds with it",
    "ipykernel": "Jupyter runs the notebooks of examples/ with it",
    "httpx": "the test client of starlette calls with it",
    "psycopg": "SQLAlchemy reaches PostgreSQL with it",
    "python-multipart": "fastapi reads forms with it",
    "import-linter": "make lint runs it",
    "matplotlib": "benchmarks/scaling.py and pandas draw with it",
    "mkdocs-material": "make docs builds the site with it",
    "mkdocstrings": "make docs reads the docstrings with it",
    "mypy": "make lint runs it",
    "pytest-xdist": "make test runs several tests at a time with it",
    "ruff": "make lint runs it",
}
"""Dependencies that we do not import, and the reason for each."""
PACKAGE_NAMES = {"PIL": "pillow", "argon2": "argon2-cffi", "markdown_it": "markdown-it-py", "mujoco": "mujoco-core"}
"""Packages that are installed under another name than they are imported by."""


def settings_of(command: str) -> dict[str, Setting]:
    action = Iterate() if command in ("demo", "run") else command_of(command)
    return {**settings(Setup()), **settings(action)}


def imported_packages(*arguments: str) -> set[str]:
    """Return the top-level packages that a Python process imports."""
    process = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    modules = re.findall(r"^import time:.*\| +([\w.]+)$", process.stderr, re.MULTILINE)
    assert "assent" in modules
    return {name.split(".")[0] for name in modules}


def test_help_takes_under_a_second_without_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not imported_packages("-m", "assent.cli", "--help") & HEAVY
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_ctrl_c_during_imports_prints_one_line(tmp_path: Path) -> None:
    (tmp_path / "tomllib.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "assent", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=TOP,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n", "the slow module comes before Python's own"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", f"{STOPPED}\n")


def test_records_registry_and_config_load_without_torch() -> None:
    kinds = ", ".join(f"assent.feedback.{kind}" for kind in names("feedback"))
    assert (
        not imported_packages("-c", f"import assent, assent.config, assent.records, assent.registry, {kinds}") & HEAVY
    )


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    commands = ("demo", "run", *command_names())
    assert [name for name in commands if not re.search(rf"^  {name} +\S", output, re.MULTILINE)] == []


@pytest.mark.parametrize("command", ["demo", "run", *command_names()])
def test_command_help_explains_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert not exit_info.value.code
    output = capsys.readouterr().out
    for name, setting in settings_of(command).items():
        assert f"--{name.replace('_', '-')}" in re.findall(r"--[\w-]+", output)
        assert setting.help, f"{setting.owner.__name__}.{name} has no docstring under it"
        assert "".join(setting.help.split()) in "".join(output.split())


@pytest.mark.conformance
@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_plugin_file_holds_a_frozen_dataclass_of_its_name(folder: str, name: str) -> None:
    cls: Any = resolve(folder, name)
    assert cls.__dataclass_params__.frozen
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring is the one that dataclass generates"


def test_resolve_refuses_a_file_without_its_class() -> None:
    with pytest.raises(AssentError, match=r"generation/cuda_graph\.py must define a class named CudaGraph"):
        resolve("generation", "cuda_graph")


def test_inherited_settings_are_documented() -> None:
    inherited = settings(resolve("objectives", "dapo")())
    assert inherited["epsilon_low"].help == settings(resolve("objectives", "grpo")())["epsilon_low"].help
    assert inherited["beta"].help != settings(resolve("objectives", "grpo")())["beta"].help


@pytest.mark.conformance
@pytest.mark.parametrize("folder", ["objectives", "annotators", "rewards"])
def test_plugin_settings_are_documented(folder: str) -> None:
    classes = [resolve(folder, name) for name in names(folder) if (folder, name) != ("rewards", "model")]
    undocumented = [setting for cls in classes for setting in settings(cls()).values() if not setting.help]
    assert [f"{setting.owner.__name__}.{setting.name}" for setting in undocumented] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_a_docstring_and_a_specific_name(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)
    assert path.stem not in {"utils", "common", "helpers", "base", "manager", "misc", "core"}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))


def dependencies() -> list[Requirement]:
    project = pyproject()["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    requirements = [Requirement(line) for line in (*project["dependencies"], *extras)]
    return [requirement for requirement in requirements if requirement.name != "assent"]  # an extra of extras


def test_dependencies_equal_the_imported_packages() -> None:
    tests = sorted((TOP / "tests").glob("*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (*MODULES, *tests)]
    for path in (TOP / "examples").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        trees += [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    imported: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    local = {"assent", "tests", *(path.stem for path in tests)}
    external = imported - sys.stdlib_module_names - local
    used = {PACKAGE_NAMES.get(name, name.replace("_", "-")) for name in external}
    declared = {requirement.name for requirement in dependencies()}
    assert used - declared == set()
    assert declared - used - set(INDIRECT) == set()


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = [line for line in (TOP / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {Requirement(line).name.lower().replace("_", "-"): Version(line.split("==")[1]) for line in lines}
    assert lines[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert [str(r) for r in dependencies() if not r.specifier.contains(pins[r.name])] == []


def test_marked_tests_may_not_be_skipped_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    markers = "browser", "model", "postgresql", "proxy", "transformers4"
    pytester.makeconftest((TOP / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers =\n" + "".join(f"    {marker}\n" for marker in markers))
    duty = "@pytest.mark.{0}\ndef test_{0}():\n    pytest.skip('not today')"
    pytester.makepyfile("\n".join(["import pytest", *map(duty.format, markers)]))
    monkeypatch.delenv("ASSENT_CI", raising=False)
    monkeypatch.setenv("ASSENT_TEST_POSTGRESQL", "postgresql://there")
    pytester.runpytest_subprocess().assert_outcomes(skipped=5)
    monkeypatch.setenv("ASSENT_CI", "1")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines([f"*a test marked {marker} may not be skipped: *not today*" for marker in markers])


# Sizes


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_files_have_at_most_400_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_functions_have_at_most_60_lines() -> None:
    sizes = {
        f"{path.relative_to(ROOT)}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in MODULES
        for function in functions(path)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}


def test_test_files_have_at_most_800_lines() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in (TOP / "tests").glob("*.py")}
    assert {name: count for name, count in lines.items() if count > 800} == {}


def test_test_names_have_at_most_60_characters() -> None:
    names_of_tests = [f.name for path in (TOP / "tests").glob("test_*.py") for f in functions(path)]
    assert [name for name in names_of_tests if name.startswith("test_") and len(name) > 60] == []


# Stages and objectives


@pytest.mark.parametrize("name", names("objectives"))
def test_objective_declares_its_stage(name: str) -> None:
    cls = resolve("objectives", name)
    assert "stage" in vars(cls), "the class itself says which stage runs it, not a base class"
    assert declared("objectives", name, "stage") == cls.stage
    assert cls.stage in names("stages")


def test_stages_import_no_more_than_two_stages() -> None:
    imports = [
        f"{path.stem} -> {node.module}"
        for path in (ROOT / "stages").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("assent.stages")
    ]
    assert len(imports) <= 2, imports


def test_stage_is_not_read_by_getattr_or_hasattr() -> None:
    """Runner, commands and command line read only the declared members of `Stage` and `Tool`."""
    for path in (ROOT / name for name in ("runner.py", "commands.py", "cli.py", "iterate.py", "help.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert [ast.unparse(call) for call in calls if ast.unparse(call.func) in ("getattr", "hasattr")] == []


# docs/architecture.md


def walk(title: str) -> list[tuple[str, str]]:
    """Return the (file, function) rows of a walk in docs/architecture.md."""
    page = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition(f"## One run, followed: `assent {title}`")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(assent/[\w/.]+)` \| `([\w.]+)` \|", section, re.MULTILINE)


def defined_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            defined |= {node.name, *(f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef))}
        elif isinstance(node, ast.FunctionDef):
            defined.add(node.name)
    return defined


@pytest.mark.parametrize("command", ["dpo", "ppo"])
def test_walk_of_a_run_names_existing_functions(command: str) -> None:
    rows = walk(command)
    assert len(rows) > 10
    assert [(path, name) for path, name in rows if name not in defined_names(TOP / path)] == []


def test_architecture_page_lists_the_layers_of_the_linter() -> None:
    (block,) = re.findall(r"## Layers\n.*?```\n(.*?)```", (TOP / "docs" / "architecture.md").read_text(), re.DOTALL)
    described = [line.split("   ")[0].split() for line in block.splitlines()]  # names, then a description
    layers = pyproject()["tool"]["importlinter"]["contracts"][0]["layers"]
    assert described == [layer.split(" | ") for layer in layers]


def test_time_stamps_come_from_utc_now() -> None:
    assert [path.name for path in MODULES if "now(UTC).isoformat(" in path.read_text()] == ["records.py"]


def test_dpo_reaches_its_loss_within_40_changes_of_file() -> None:
    files = [path for path, _ in walk("dpo")]
    steps = files[: files.index("assent/objectives/dpo.py") + 1]
    assert sum(before != after for before, after in pairwise(steps)) <= 40


# Settings


def test_every_setting_has_a_test_or_an_example() -> None:
    files = [*(TOP / "tests").glob("*.py"), *(TOP / "examples").glob("*.toml"), ROOT / "data" / "demo.toml"]
    text = "\n".join(path.read_text() for path in files if path.name not in ("test_legacy.py", "test_architecture.py"))
    known = {**settings(Setup()), **settings(Iterate())}
    for command in command_names():
        known |= settings(command_of(command))
    untested = [
        name
        for name in known
        if not re.search(rf'--(no-)?{name.replace("_", "-")}\b|(\b|\\n){name}\s*=|["\']{name}["\']\s*:', text)
    ]
    assert untested == []
