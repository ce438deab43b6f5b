"""Whoever mistypes gets one line that says what was found and what to do, exit status 2, and loses nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

SHORT = ("--max-new-tokens", "8", "--temperature", "1", "--n", "2", "--n-held-out", "1", "--dtype", "float32")


def assent(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "assent", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def refused(*words: str, cwd: Path) -> str:
    """Run a command that must be refused, and return the one line that it says."""
    done = assent(*words, cwd=cwd)
    said = [line for line in done.stderr.splitlines() if line.startswith("assent: ")]
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return said[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("bad") / "model")


@pytest.fixture(scope="module")
def prompts(model: Path) -> Path:
    path = model.parent / "prompts.jsonl"
    words = ["duck", "cat", "dog", "king", "ball", "hat", "cake", "tree", "boat", "moon"]
    path.write_text("".join(json.dumps({"prompt": f"Where is the {word}?"}) + "\n" for word in words))
    return path


@pytest.fixture(scope="module")
def run(model: Path, prompts: Path) -> Path:
    """A run that has got as far as comparisons."""
    folder = model.parent / "run"
    done = assent(
        "generate", "--model", str(model), "--prompts", str(prompts), "--run", str(folder), *SHORT, cwd=model.parent
    )
    assert done.returncode == 0, done.stderr
    assert assent("label", "--run", str(folder), cwd=model.parent).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("dppo",), "no command 'dppo'; did you mean 'ppo'?"),
        (("dpo", "--betta", "1"), "has no flag '--betta'; did you mean '--beta'?"),
        (("dpo", "--beta", "high"), "beta = 'high' will not do"),
        (("dpo", "--epochs", "0"), "must be positive"),
        (("run", "missing.toml"), "no recipe at missing.toml"),
        (("dpo", "stray"), "takes one recipe (.toml) and flags, not 'stray'"),
        (("import", "missing.jsonl"), "missing.jsonl"),
        (("generate", "--model", "nowhere/at/all"), "no model folder at nowhere/at/all"),
        (("generate", "--model", "./empty"), "no model"),
        (("generate", "--device", "cuda:7"), "no device 'cuda:7' here"),
        (("generate", "--dtype", "float13"), "it can be auto, float32 or bfloat16"),
        (("label",), "holds no answers to compare: run 'assent generate' first"),
        (("evaluate",), "has no trained policy to measure"),
        (("pretrain",), "name a .txt or .jsonl file with --data"),
        (("pretrain", "--data", "missing.txt"), "no file at missing.txt"),
    ],
)
def test_a_mistake_on_the_command_line_gets_one_line(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    assert line in refused(*words, cwd=tmp_path)


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("[dpo]\nbetta = 1", "[dpo] has no setting 'betta'; did you mean 'beta'?"),
        ("[dppo]\nbeta = 1", "no stage 'dppo'; did you mean 'ppo'?"),
        ("sed = 1", "no setting 'sed'; did you mean 'seed'?"),
        ("stages = ['generate', 'labl']", "no stage 'labl'; did you mean 'label'?"),
        ("[ppo]\nsteps = 'many'", "steps = 'many' will not do"),
        ("stages = [", "is not TOML"),
    ],
)
def test_a_mistake_in_a_recipe_gets_one_line_before_anything_starts(recipe: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('run = "made"\n' + recipe)
    assert line in refused("run", "recipe.toml", cwd=tmp_path)
    assert not (tmp_path / "made" / "done" / "generate.json").exists()


def test_empty_data_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "empty.jsonl is empty" in refused(
        "generate", "--model", str(model), "--prompts", "empty.jsonl", cwd=tmp_path
    )
    assert "empty.txt holds no text" in refused("pretrain", "--data", "empty.txt", cwd=tmp_path)


def test_prompts_longer_than_the_context_are_counted_and_shown(model: Path, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "the duck and " * 300}) + "\n")
    line = refused("generate", "--model", str(model), "--prompts", "long.jsonl", cwd=tmp_path)
    assert "1 of 1 prompts leave no room" in line
    assert "context of 256" in line


def test_a_chat_template_that_fails_the_contract_is_refused(model: Path, prompts: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "chat_template.jinja").write_text(tiny.CHATML.replace("<|end|>\n", "\n"))
    line = refused("generate", "--model", str(broken), "--prompts", str(prompts), cwd=tmp_path)
    assert "fails the contract" in line


def test_settings_of_another_run_are_refused_and_nothing_is_lost(run: Path, model: Path, tmp_path: Path) -> None:
    before = (run / "recipe.toml").read_text()
    assert "is a run with seed = 0, not 1" in refused("label", "--run", str(run), "--seed", "1", cwd=tmp_path)
    assert "made with per_prompt = 6, not 2" in refused("label", "--run", str(run), "--per-prompt", "2", cwd=tmp_path)
    assert (run / "recipe.toml").read_text() == before


def test_a_run_that_another_process_works_in_is_left_alone(run: Path, tmp_path: Path) -> None:
    import fcntl

    with open(run / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process works in" in refused("reward", "--run", str(run), cwd=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_stage_and_keeps_the_state_before_it(run: Path, tmp_path: Path) -> None:
    words = ("reward", "--run", str(run), "--lr", "1e30", "--batch-size", "1", "--warmup", "0")
    line = refused(*words, cwd=tmp_path)
    assert "reward stopped at step" in line
    assert "not finite" in line
    assert (run / "state" / "reward" / "state.pt").exists()
    assert not (run / "reward").exists()
    assert assent("reward", "--run", str(run), "--again", "--lr", "1e-4", "--warmup", "0", cwd=tmp_path).returncode == 0


def test_a_full_disk_is_named_and_the_same_command_goes_on(model: Path, prompts: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    words = ("generate", "--model", str(model), "--prompts", str(prompts), "--run", str(small / "run"), *SHORT)
    try:
        fill = small / "fill"
        fill.write_bytes(b"x" * 330_000)
        line = refused(*words, cwd=tmp_path)
        assert "disk" in line.lower()
        fill.unlink()
        assert assent(*words, cwd=tmp_path).returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)
