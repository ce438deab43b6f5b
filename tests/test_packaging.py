"""Installation: what wheel and sdist hold, and the commands of an installed wheel, far from the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from assent.registry import ROOT

pytestmark = pytest.mark.slow

TOP = ROOT.parent


def build(source: Path, target: str, folder: Path) -> Path:
    """Build the sdist or the wheel of a source tree without a network, and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TOP, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TOP, "wheel", tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_of(folder: Path) -> set[str]:
    """Return the files of a folder of the repository, by their paths from the top."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(TOP)) for path in paths}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = contents(wheel).keys()
    metadata = {name for name in names if name.startswith("assent-")}
    assert names - metadata == files_of(ROOT)
    assert {name.partition(".dist-info/")[2] for name in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_wheel_holds_every_kind_of_data_file(wheel: Path) -> None:
    suffixes = {Path(name).suffix for name in contents(wheel) if name.startswith("assent/")}
    assert {".css", ".jinja", ".js", ".jsonl", ".py", ".svg", ".toml", ".typed"} <= suffixes


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path)
    (source,) = tmp_path.iterdir()
    assert contents(build(source, "wheel", tmp_path / "dist")) == contents(wheel)


def test_sdist_holds_tests_docs_and_examples(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    for folder in ("assent", "benchmarks", "docs", "examples", "experiments", "tests"):
        assert files_of(TOP / folder) - names == set()
    assert {"LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml", ".ci/run"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == {
        ".ci",
        "assent",
        "benchmarks",
        "docs",
        "examples",
        "experiments",
        "tests",
    }


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment of the wheel; all other packages are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    command = [*pip, "install", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file comes last, and its own .pth files, such as that of an editable assent, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment: Path, program: str, *words: str, cwd: Path) -> str:
    """Run a program of the environment, without the variables that lead to the repository."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(environment / "bin" / program), *words]
    process = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_installed_package_is_imported_not_the_repository(environment: Path, tmp_path: Path) -> None:
    code = "import assent; from assent import RLHF; import assent.rlhf as m; print(m.__file__, assent.__version__)"
    path, version = run(environment, "python", "-c", code, cwd=tmp_path).split()
    assert Path(path).is_relative_to(environment)
    assert run(environment, "assent", "--version", cwd=tmp_path) == f"assent {version}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--help", "assent trains language models on human preferences."),
        ("serve --help", "--behind-proxy"),
        ("doctor", "--dtype auto is "),
        ("inspect --help", "--completion"),
    ],
)
def test_installed_command_runs_in_an_empty_folder(
    words: str, expected: str, environment: Path, tmp_path: Path
) -> None:
    assert expected in run(environment, "assent", *words.split(), cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
