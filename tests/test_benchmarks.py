"""The benchmarks do the work that they time, and sides that come to different numbers are told apart."""

import argparse
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny
from processes import Process

TOP = Path(__file__).parent.parent / "benchmarks"
DUELS = {"dpo": 8, "reward": 8, "kway": 4, "grpo": 2, "ppo": 2, "generation": 2}
"""And how many examples are enough for two steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("bench") / "model")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOP))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", TOP / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def side(name: str, work: str) -> None:
    """What `python benchmarks/NAME.py --ours WORK` does."""
    sys.argv = [str(TOP / f"{name}.py"), "--ours", work]
    sys.path.insert(0, str(TOP))
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("name", DUELS)
def test_our_side_does_its_work_and_tells_of_it(name: str, model: Path, found: None, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"Where is the {word}?", "chosen": f"In the {word}.", "rejected": f"No {word}"})
            + "\n"
            for word in ("duck", "cat", "dog", "king", "ball", "hat", "cake", "tree")
        )
    )
    flags = argparse.Namespace(model=str(model), data=str(tmp_path / "pairs.jsonl"), count=DUELS[name])
    work = load(name).prepare(flags, "float32") | {"dtype": "float32", "device": "cpu"}
    (tmp_path / "work.json").write_text(json.dumps(work))
    process = Process(side, name, str(tmp_path / "work.json"), log=tmp_path / "log")
    assert process.wait() == 0, process.said
    told = json.loads(process.out.splitlines()[-1])
    assert told["found"] and told["seconds"] and all(seconds > 0 for seconds in told["seconds"])
    assert told["flops"] > 0 and told["matrix_peak"] > 0 and told["peak_gb"] > 0
    for step in told["found"]:
        assert all(value == value for value in step.values())
    if "loss" in told["found"][0] and name != "grpo":
        assert told["found"][0]["loss"] > 0


def test_sides_that_came_to_different_numbers_are_told_apart(found: None) -> None:
    duel = importlib.import_module("duel")
    close = {"loss": (1e-3, 0.1), "grad_norm": (5e-3, 0.1)}
    one = duel.Duel("x", lambda flags, dtype: {}, lambda work, clock: {}, "x.py", "x", close, 1.0)
    ours = [{"loss": 0.6931, "grad_norm": 20.0}, {"loss": 0.6801, "grad_norm": 21.0}]
    theirs = [{"loss": 0.6932, "grad_norm": 20.01}, {"loss": 0.6900, "grad_norm": 21.0}]
    apart = {name: (gap, allowed) for name, gap, allowed in one._apart(ours, theirs, "float32")}
    assert apart["loss"][0] > apart["loss"][1] == 1e-3
    assert apart["grad_norm"][0] < apart["grad_norm"][1]
    assert all(gap <= allowed for _, gap, allowed in one._apart(ours, theirs, "bfloat16"))
    nowhere = [*theirs[:1], {"loss": float("nan"), "grad_norm": 21.0}]
    assert not all(gap <= allowed for _, gap, allowed in one._apart(ours, nowhere, "bfloat16"))
    with pytest.raises(AssertionError, match="1 steps beside 2"):
        one._apart(ours[:1], theirs, "float32")


def test_a_round_begins_only_if_it_ends_in_time_but_the_first_always(found: None) -> None:
    another = importlib.import_module("duel").time_for_another
    assert another(0, 0.0, 60.0) and another(0, 0.0, 0.0)
    assert another(1, 30.0, 60.0) and another(2, 40.0, 60.0)
    assert not another(1, 31.0, 60.0) and not another(2, 41.0, 60.0)


def test_what_both_sides_import_knows_nothing_of_ours(found: None) -> None:
    """The peers' environments do not hold us."""
    alone = "import sys; sys.modules['assent'] = None; import duel.clock"
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
