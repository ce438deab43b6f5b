"""The rules of the house: what loads quickly, what is explained, what each folder holds. New files are held to them."""

import ast
import re
import resource
import signal
import subprocess
import sys
import tomllib
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
from assent.registry import ROOT, names, resolve
from assent.run import Setup

pytest_plugins = ["pytester"]

TOP = ROOT.parent
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = {"torch", "transformers", "numpy", "scipy", "sqlalchemy", "alembic", "matplotlib", "peft"}
PLUGINS = [
    (folder, name) for folder in ("objectives", "feedback", "rewards", "annotators", "stages") for name in names(folder)
]
THROUGH = {
    "gguf": "transformers reads the embedded model with it",
    "tensorboard": "torch.utils.tensorboard writes with it",
    "httpx": "the test client of starlette calls with it",
    "psycopg": "SQLAlchemy reaches PostgreSQL with it",
    "python-multipart": "fastapi reads forms with it",
    "import-linter": "make lint runs it",
    "matplotlib": "benchmarks/scaling.py draws with it",
    "mypy": "make lint runs it",
    "pytest-xdist": "make test runs several tests at a time with it",
    "ruff": "make lint runs it",
}
"""What we depend on without importing it, and why."""
SOLD_AS = {"argon2": "argon2-cffi", "markdown_it": "markdown-it-py"}
"""What is installed under another name than it is imported by."""


def of(command: str) -> dict[str, Setting]:
    made = Iterate() if command in ("demo", "run") else command_of(command)
    return {**settings(Setup()), **settings(made)}


def imported(*arguments: str) -> set[str]:
    """The top-level packages that a Python process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    found = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "assent" in found
    return {name.split(".")[0] for name in found}


def test_help_answers_within_a_second_and_without_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not imported("-m", "assent.cli", "--help") & HEAVY
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_ctrl_c_during_the_imports_is_told_in_one_line_too() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "assent", "--help"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert any("| tomllib" in line.replace("  ", "") for line in process.stderr), "assent.config was imported"
        process.send_signal(signal.SIGINT)
        said = [line for line in process.stderr if not line.startswith("import time:")]
    assert (process.returncode, said) == (130, [f"{STOPPED}\n"])


def test_the_nouns_the_registry_and_the_settings_load_without_torch() -> None:
    kinds = ", ".join(f"assent.feedback.{kind}" for kind in names("feedback"))
    assert not imported("-c", f"import assent, assent.config, assent.records, assent.registry, {kinds}") & HEAVY


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert [
        name for name in ("demo", "run", *command_names()) if not re.search(rf"^  {name} +\S", said, re.MULTILINE)
    ] == []


@pytest.mark.parametrize("command", ["demo", "run", *command_names()])
def test_every_command_explains_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert not ended.value.code
    said = capsys.readouterr().out
    for name, setting in of(command).items():
        assert f"--{name.replace('_', '-')}" in re.findall(r"--[\w-]+", said)
        assert setting.help, f"{setting.owner.__name__}.{name} has no docstring under it"
        assert "".join(setting.help.split()) in "".join(said.split())


@pytest.mark.conformance
@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_every_file_of_a_registry_is_a_frozen_dataclass_of_its_name(folder: str, name: str) -> None:
    found: Any = resolve(folder, name)
    assert found.__dataclass_params__.frozen
    assert found.__doc__
    assert not found.__doc__.startswith(f"{found.__name__}("), "the docstring is the one that dataclass made up"


def test_a_file_without_the_class_of_its_name_is_refused_by_name() -> None:
    with pytest.raises(AssentError, match=r"generation/local\.py holds no class named 'local'"):
        resolve("generation", "local")


def test_settings_that_are_inherited_are_explained_too() -> None:
    found = settings(resolve("objectives", "dapo")())
    assert found["clip_low"].help == settings(resolve("objectives", "grpo")())["clip_low"].help
    assert found["beta"].help.endswith("the paper does without.")


@pytest.mark.conformance
@pytest.mark.parametrize("folder", ["objectives", "annotators"])
def test_every_setting_of_a_plugin_is_documented(folder: str) -> None:
    every = [setting for name in names(folder) for setting in settings(resolve(folder, name)()).values()]
    assert [f"{setting.owner.__name__}.{setting.name}" for setting in every if not setting.help] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_the_idea_and_is_named_for_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)
    assert path.stem not in {"utils", "common", "helpers", "base", "manager", "misc", "core"}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))


def dependencies() -> list[Requirement]:
    project = pyproject()["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


def test_we_depend_on_what_we_import_and_on_nothing_else() -> None:
    tests = sorted((TOP / "tests").glob("*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (*MODULES, *tests)]
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    ours = {"assent", "tests", *(path.stem for path in tests)}
    used = {SOLD_AS.get(n, n.replace("_", "-")) for n in found - sys.stdlib_module_names - ours - {"packaging"}}
    declared = {each.name for each in dependencies()}
    assert used - declared == set()
    assert declared - used - set(THROUGH) == set()


def test_the_tested_set_pins_every_dependency_within_its_range() -> None:
    lines = [line for line in (TOP / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {Requirement(line).name.lower().replace("_", "-"): Version(line.split("==")[1]) for line in lines}
    assert lines[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert [str(each) for each in dependencies() if not each.specifier.contains(pins[each.name])] == []


def test_in_ci_no_test_may_skip_its_duty(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
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
