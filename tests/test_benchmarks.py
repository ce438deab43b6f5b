"""Benchmarks: our side does the work that it times, and different results of the two sides are detected."""

import argparse
import ast
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
COUNTS = {"dpo": 8, "reward": 8, "kway": 4, "grpo": 2, "ppo": 2, "generation": 2}
"""Examples that are enough for two steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("bench") / "model")


@pytest.fixture
def harness_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOP))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", TOP / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def side(name: str, work: str) -> None:
    """Do what `python benchmarks/NAME.py --assent WORK` does."""
    sys.argv = [str(TOP / f"{name}.py"), "--assent", work]
    sys.path.insert(0, str(TOP))
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_our_side_reports_results_seconds_and_operations(
    name: str, model: Path, harness_path: None, tmp_path: Path
) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"Where is the {word}?", "chosen": f"In the {word}.", "rejected": f"No {word}"})
            + "\n"
            for word in ("duck", "cat", "dog", "king", "ball", "hat", "cake", "tree")
        )
    )
    flags = argparse.Namespace(model=str(model), data=str(tmp_path / "pairs.jsonl"), count=COUNTS[name])
    work = load(name).prepare(flags, "float32") | {"dtype": "float32", "device": "cpu"}
    (tmp_path / "work.json").write_text(json.dumps(work))
    process = Process(side, name, str(tmp_path / "work.json"), log=tmp_path / "log")
    assert process.wait() == 0, process.output
    output = json.loads(process.out.splitlines()[-1])
    assert output["results"] and output["seconds"] and all(seconds > 0 for seconds in output["seconds"])
    assert output["flops"] > 0 and output["matrix_peak"] > 0 and output["peak_gb"] > 0
    for step in output["results"]:
        assert all(value == value for value in step.values())
    if "loss" in output["results"][0] and name != "grpo":
        assert output["results"][0]["loss"] > 0


@pytest.mark.slow
def test_our_pendulum_reports_its_return_and_what_it_took(tmp_path: Path, harness_path: None) -> None:
    work = {"seed": 0, "steps": 6400, "labels": 8, "episodes": 2}
    (tmp_path / "work.json").write_text(json.dumps(work))
    process = Process(side, "pendulum", str(tmp_path / "work.json"), log=tmp_path / "log")
    assert process.wait() == 0, process.output
    report = json.loads(process.out.splitlines()[-1])
    assert report["threads"] == 1 and len(report["seconds"]) == 1 and report["seconds"][0] > 0
    assert report["steps"] == 6400 and 0 < report["comparisons"] <= 8
    assert -3300 < report["true_return"] < 0


def test_pendulum_prints_and_stores_medians_of_both_sides(
    harness_path: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pendulum = load("pendulum")

    def reports(returns: list[float], seconds: list[float], **extra: str) -> list[dict[str, object]]:
        common = {"cpu_seconds": 5.0, "steps": 100, "comparisons": 8, "peak_gb": 0.5, "torch": "2", "threads": 1}
        rows = zip(returns, seconds, strict=True)
        return [{"true_return": mean, "seconds": [time], **common, **extra} for mean, time in rows]

    sides = {
        "assent": reports([-200.0, -150.0, -900.0], [10.0, 30.0, 20.0]),
        "peer": reports([-300.0, -400.0, -100.0], [60.0, 50.0, 10.0], peer="imitation 1"),
    }
    line = pendulum.summarise(sides, [0, 1, 2])
    assert (line["ours_seconds"], line["peer_seconds"], line["ratio"]) == (20.0, 50.0, 2.5)
    assert line["true_return"] == {"ours": [-200.0, -150.0, -900.0], "peer": [-300.0, -400.0, -100.0]}
    pendulum.print_table(sides, [0, 1, 2])
    rows = capsys.readouterr().out.splitlines()
    assert rows[-2] == "| assent | 100 | -200 | -150 | -900 | -200 | 20 | 5 |"
    assert rows[-1] == "| imitation 1 | 100 | -300 | -400 | -100 | -300 | 50 | 5 |"


def imported_modules(tree: ast.Module) -> dict[str, ModuleType]:
    """Return the modules of assent that a file imports, by their names there; fail if it imports a missing name."""
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("assent"):
            continue
        source = importlib.import_module(node.module or "")
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            if hasattr(source, "__path__") and importlib.util.find_spec(name):
                importlib.import_module(name)
            assert hasattr(source, alias.name), f"{node.module} has no {alias.name}"
            value = getattr(source, alias.name)
            if isinstance(value, ModuleType):
                modules[alias.asname or alias.name] = value
    return modules


@pytest.mark.parametrize("path", sorted(TOP.rglob("*.py")), ids=lambda path: str(path.relative_to(TOP)))
def test_benchmarks_use_existing_names_of_assent(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = imported_modules(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id} has no {node.attr}"


@pytest.mark.parametrize("path", sorted(TOP.glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_can_be_imported(path: Path, harness_path: None) -> None:
    assert load(path.stem).__doc__


def test_scaling_measures_a_step(harness_path: None) -> None:
    scaling = load("scaling")
    size = scaling.Size(prompts=1, length=8, hidden_size=192, num_layers=1)
    arguments = argparse.Namespace(device="cpu", dtype="float32")
    scaling.register_attention()
    position, seconds = scaling._measure(scaling.AXES[0], size, arguments)
    assert position == 1 and seconds > 0


def test_compare_detects_different_results_of_the_sides(harness_path: None) -> None:
    harness = importlib.import_module("harness")
    tolerances = {"loss": (1e-3, 0.1), "grad_norm": (5e-3, 0.1)}
    comparison = harness.Benchmark("x", lambda flags, dtype: {}, lambda work, clock: {}, "x.py", "x", tolerances, 1.0)
    result = [{"loss": 0.6931, "grad_norm": 20.0}, {"loss": 0.6801, "grad_norm": 21.0}]
    expected = [{"loss": 0.6932, "grad_norm": 20.01}, {"loss": 0.6900, "grad_norm": 21.0}]
    differences = {name: (gap, allowed) for name, gap, allowed in comparison.compare(result, expected, "float32")}
    assert differences["loss"][0] > differences["loss"][1] == 1e-3
    assert differences["grad_norm"][0] < differences["grad_norm"][1]
    assert all(gap <= allowed for _, gap, allowed in comparison.compare(result, expected, "bfloat16"))
    not_a_number = [*expected[:1], {"loss": float("nan"), "grad_norm": 21.0}]
    assert not all(gap <= allowed for _, gap, allowed in comparison.compare(result, not_a_number, "bfloat16"))
    with pytest.raises(AssertionError, match="1 steps compared with 2"):
        comparison.compare(result[:1], expected, "float32")


def test_round_begins_only_if_it_ends_in_time(harness_path: None) -> None:
    has_time = importlib.import_module("harness").has_time_for_round
    assert has_time(0, 0.0, 60.0) and has_time(0, 0.0, 0.0)
    assert has_time(1, 30.0, 60.0) and has_time(2, 40.0, 60.0)
    assert not has_time(1, 31.0, 60.0) and not has_time(2, 41.0, 60.0)


def test_clock_imports_without_assent(harness_path: None) -> None:
    """Check it because the environments of the peers do not contain assent."""
    alone = "import sys; sys.modules['assent'] = None; import harness.clock"
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    process = subprocess.run(
        [sys.executable, "-c", alone], capture_output=True, text=True, env=environment, check=False
    )
    assert process.returncode == 0, process.stderr
