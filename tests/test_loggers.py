"""Loggers: the lines that each writes for a stage, and repeated steps."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from assent.errors import AssentError
from assent.loggers.jsonl import Jsonl, read_metrics
from assent.registry import names, resolve
from assent.training.logging import MetricsLogger


def steps(folder: Path) -> list[tuple[str, int, float]]:
    return [(row["stage"], row["step"], row["loss"]) for row in read_metrics(folder)]


def test_jsonl_replaces_the_line_of_a_repeated_step(tmp_path: Path) -> None:
    other = Jsonl(tmp_path, "sft", 0)
    other.log(1, {"loss": 9.0})
    first = Jsonl(tmp_path, "dpo", 0)
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    resumed = Jsonl(tmp_path, "dpo", 1)
    resumed.log(2, {"loss": 2.123456789})
    assert steps(tmp_path) == [("sft", 1, 9.0), ("dpo", 1, 1.0), ("dpo", 2, 2.12346)]


def test_jsonl_seconds_continue_after_a_resume(tmp_path: Path) -> None:
    line = {"stage": "dpo", "step": 1, "seconds": 100.0, "loss": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"stage": "dpo", "st')  # cut short by a crash
    logger = Jsonl(tmp_path, "dpo", 1)
    logger.log(2, {"loss": 0.5})
    assert read_metrics(tmp_path)[1]["seconds"] >= 100
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_report_to_chooses_loggers_and_jsonl_is_always_one(tmp_path: Path) -> None:
    for report_to in ((), ("tensorboard",)):
        folder = tmp_path / "-".join(report_to or ["none"])
        folder.mkdir()
        logger = MetricsLogger(folder, "dpo", 0, report_to)
        logger.log(1, {"loss": 1.0})
        logger.close()
        assert steps(folder) == [("dpo", 1, 1.0)]
        assert (folder / "tensorboard").exists() == bool(report_to)


def test_unknown_logger_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"no 'wandbb' among loggers.*wandb"):
        MetricsLogger(tmp_path, "dpo", 0, ["wandbb"])


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_missing_package_is_named_with_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AssentError, match=rf"report_to = {name} .*pip install 'assent\[{name}\]'"):
        MetricsLogger(tmp_path, "dpo", 0, [name])


@pytest.mark.parametrize("name", names("loggers"))
def test_logger_writes_steps_and_resumes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    if name in ("wandb", "trackio"):
        pytest.importorskip(name)
    logger_type: Any = resolve("loggers", name)
    for start in (0, 1):
        logger = logger_type(tmp_path, "dpo", start)
        logger.log(start + 1, {"loss": 0.5})
        logger.close()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.stat().st_size > 0 for path in written)
    if name == "wandb":  # a resumed stage has the id of the run that it resumes
        runs = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*"))
        assert runs == [(tmp_path / "wandb" / "dpo.id").read_text().strip()] * 2
