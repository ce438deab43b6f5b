"""Experiments: each runs to its end at a small size, reports finite numbers, and repeats nothing that is done."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT = 900.0
"""Seconds that a small experiment may take while other tests run."""
pytestmark = pytest.mark.slow


class Experiment(NamedTuple):
    """A small experiment that has run."""

    folder: Path
    output: str


def run_experiment(name: str, *flags: str) -> str:
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--small", *flags]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT).stdout


@pytest.fixture(scope="module")
def overoptimization(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("experiments")
    picture = str(folder / "picture.svg")
    return Experiment(folder, run_experiment("overoptimization", "--folder", str(folder), "--picture", picture))


def last_line(output: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(output.splitlines()[-1])
    return line


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    elif isinstance(value, int | float):
        yield value


def progress_of(folder: Path) -> dict[Path, str]:
    """Return the metrics and results of every run."""
    return {path: path.read_text() for path in (*folder.rglob("metrics.jsonl"), *folder.rglob("done/*.json"))}


def test_overoptimization_reports_every_policy(overoptimization: Experiment) -> None:
    line = last_line(overoptimization.output)
    assert line["experiment"] == "overoptimization"
    assert [run["arm"] for run in line["runs"]] == ["60", "random labels", "rubric itself"]
    for run in line["runs"]:
        assert [point["number"] for point in run["rl"]] == [0, 4, 8]
        assert [point["number"] for point in run["best_of_n"]] == [1, 2, 4, 8]
        assert run["best_of_n"][0]["gold"] == pytest.approx(0, abs=1e-9)
    assert all(map(math.isfinite, numbers_in(line)))


def test_overoptimization_starts_at_the_base(overoptimization: Experiment) -> None:
    runs = last_line(overoptimization.output)["runs"]
    starts = [run["rl"][0] for run in runs]
    assert {point["d"] for point in starts} == {0} and len({point["gold"] for point in starts}) == 1


def test_best_of_n_by_the_gold_reward_never_falls(overoptimization: Experiment) -> None:
    (ideal,) = [run for run in last_line(overoptimization.output)["runs"] if run["arm"] == "rubric itself"]
    golds = [point["gold"] for point in ideal["best_of_n"]]
    assert golds == sorted(golds) == pytest.approx([point["proxy"] for point in ideal["best_of_n"]], abs=1e-3)


def test_a_finished_overoptimization_is_not_repeated(overoptimization: Experiment) -> None:
    before = progress_of(overoptimization.folder)
    output = run_experiment("overoptimization", "--folder", str(overoptimization.folder))
    assert len(before) > 10 and progress_of(overoptimization.folder) == before
    assert last_line(output) == last_line(overoptimization.output)


def test_the_picture_holds_its_words_as_text(overoptimization: Experiment) -> None:
    picture = (overoptimization.folder / "picture.svg").read_text()
    assert all(f">{words}</text>" in picture for words in ("best-of-n", "60 comparisons", "60 random labels", "gold"))
