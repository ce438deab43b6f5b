"""Unexpected errors print two lines and write a traceback to a log; expected errors print one line."""

import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import tiny
from processes import completed

from assent.cli import main
from assent.errors import MAX_CHARACTERS, is_out_of_memory, log_into, report_crash

FAULTY = """
class Faulty:
    def __init__(self):
        {}

    def score(self, prompts, responses):
        return [0.0 for _ in responses]
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with prompts."""
    folder = tmp_path_factory.mktemp("crash")
    model = tiny.make(folder / "model")
    (folder / "prompts.jsonl").write_text('{"prompt": "Where is the duck?"}\n{"prompt": "Where is the cat?"}\n')
    words = ["generate", "--model", str(model), "--prompts", str(folder / "prompts.jsonl"), "--dtype", "float32"]
    assert main([*words, "--run", str(folder / "run"), "--max-new-tokens", "4", "--n", "2", "--held-out", "0"]) == 0
    return folder / "run"


@pytest.fixture
def run(generated: Path, tmp_path: Path) -> Path:
    """Return a copy of the generated run."""
    return Path(shutil.copytree(generated, tmp_path / "run"))


def grpo(run: Path, fault: str) -> list[str]:
    """Return the arguments of `assent grpo` with a reward whose constructor fails."""
    (run.parent / "faulty.py").write_text(FAULTY.format(fault))
    return ["grpo", "--run", "run", "--rewards", "./faulty.py", "--steps", "1", "--max-new-tokens", "4"]


def error_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("assent: ")]


def test_plugin_error_prints_two_lines_and_writes_a_log(run: Path) -> None:
    words = [sys.executable, "-m", "assent", *grpo(run, "raise LookupError('no such\\nduck')")]
    process = subprocess.run(words, cwd=run.parent, capture_output=True, text=True, timeout=120, check=False)
    log = run / "error.log"
    assert process.returncode == 1
    assert error_lines(process.stderr) == [
        "assent: LookupError: no such duck",
        f"assent: this is a fault in assent or in a plug-in: report it with {log}, which holds the traceback",
    ]
    assert "Traceback" not in process.stdout + process.stderr
    when, command, versions, empty, trace, *_ = log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", when)
    assert command == "assent grpo --run run --rewards ./faulty.py --steps 1 --max-new-tokens 4"
    assert f"torch {version('torch')}, transformers {version('transformers')}" in versions
    assert f"Python {platform.python_version()}, {platform.platform()}" in versions
    assert (empty, trace) == ("", "Traceback (most recent call last):")
    assert "faulty.py\", line 4, in __init__\n    raise LookupError('no such\\nduck')" in log.read_text()


def test_assent_debug_prints_the_traceback_and_log_is_appended(run: Path) -> None:
    completed(*grpo(run, "raise LookupError('first')"), cwd=run.parent)
    second = grpo(run, "raise LookupError('second')")
    process = completed(*second, cwd=run.parent, environment={"ASSENT_DEBUG": "1"})
    assert process.returncode == 1
    assert "Traceback (most recent call last):" in process.stderr
    assert error_lines(process.stderr)[0] == "assent: LookupError: second"
    log = (run / "error.log").read_text()
    assert log.index("LookupError: first") < log.index("LookupError: second")


@pytest.mark.parametrize(
    ("fault", "status", "line"),
    [
        (
            "raise MemoryError",
            2,
            "assent: out of memory; lower --generation-batch-size, --max-new-tokens or --max-tokens-per-batch",
        ),
        ("raise OSError(28, 'No space left on device', 'disk')", 2, "assent: disk: No space left on device"),
        ("raise KeyboardInterrupt", 130, "assent: stopped; the same command goes on from what is saved"),
        ("raise BrokenPipeError", 0, ""),
        ("raise SystemExit(7)", 7, ""),
    ],
)
def test_expected_errors_write_no_log(fault: str, status: int, line: str, run: Path) -> None:
    process = completed(*grpo(run, fault), cwd=run.parent)
    assert process.returncode == status
    assert len(error_lines(process.stderr)) == bool(line)
    assert line in process.stderr
    assert "Traceback" not in process.stderr
    assert not (run / "error.log").exists()


def make_error(message: str) -> Exception:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for temporary files; the log goes into its subfolder `run`, which does not exist yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("ASSENT_DEBUG", raising=False)
    monkeypatch.setattr("assent.errors._Process.log_folder", None)
    log_into(tmp_path / "run")
    return tmp_path


def test_crash_log_without_a_run_is_a_temporary_file(
    temporary_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_crash(make_error("boom"), ["serve"]) == 1
    (log,) = temporary_folder.glob("assent-error-*.log")
    assert f"report it with {log}, " in capsys.readouterr().err
    assert log.is_absolute() and "ValueError: boom" in log.read_text()


def test_traceback_is_printed_if_no_log_can_be_written(
    temporary_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (temporary_folder / "run" / "error.log").mkdir(parents=True)  # a folder has the name of the log
    monkeypatch.setattr("tempfile.tempdir", str(temporary_folder / "gone"))
    assert report_crash(make_error("boom"), ["serve"]) == 1
    assert "Traceback (most recent call last):" in capsys.readouterr().err


def test_crash_log_and_message_hold_no_password(temporary_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (temporary_folder / "run").mkdir()
    address = "postgresql://duck:quack@db.example/house"
    report_crash(make_error(f"cannot reach {address}"), ["label", "--database", address])
    log = (temporary_folder / "run" / "error.log").read_text()
    expected = capsys.readouterr().err
    assert "quack" not in log + expected
    assert log.count("postgresql://***@db.example/house") == 2
    assert "ValueError: cannot reach postgresql://***@db.example/house\n" in expected


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://duck:quack@db.example/house",
        "postgresql://duck:qu@ack@db.example/house",
        "postgresql+psycopg://duck:qu/ack@db.example/house",
        "postgresql://duck:qu'ack@db.example/house",
        "postgresql://db.example/house?user=duck&password=quack&port=5",
        "host=db.example password=quack",
        "host=db.example password = 'qu\\'ack, ack'",
        "duck:qu@ack@db.example",
    ],
)
def test_crash_log_has_no_password_of_any_url(
    address: str, temporary_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (temporary_folder / "run").mkdir()
    report_crash(make_error(f"cannot reach {address}, or ({address!r})"), ["label", "--database", address])
    log = (temporary_folder / "run" / "error.log").read_text()
    assert "ack" not in (log + capsys.readouterr().err).replace("Traceback", "").replace("traceback", "")
    assert "db.example" in log and "***" in log


def test_text_without_a_password_is_not_redacted(temporary_folder: Path) -> None:
    (temporary_folder / "run").mkdir()
    line = "https://hub.example/duck at 10:15 (a @ b, password == given): x:y and duck@db.example"
    report_crash(make_error(line), [])
    assert line in (temporary_folder / "run" / "error.log").read_text()


def test_crash_log_is_readable_by_its_owner_only(temporary_folder: Path) -> None:
    (temporary_folder / "run").mkdir()
    report_crash(make_error("boom"), [])
    assert (temporary_folder / "run" / "error.log").stat().st_mode & 0o777 == 0o600


def test_long_message_is_cut_on_screen_and_whole_in_the_log(
    temporary_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (temporary_folder / "run").mkdir()
    report_crash(make_error("x" * 1000), [])
    first, second, end = capsys.readouterr().err.split("\n")
    assert len(first) == len("assent: ") + MAX_CHARACTERS + len(" ...")
    assert second.startswith("assent: this is a fault") and end == ""
    assert "x" * 1000 in (temporary_folder / "run" / "error.log").read_text()


def test_out_of_memory_is_recognised_from_torchs_message() -> None:
    import torch

    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
