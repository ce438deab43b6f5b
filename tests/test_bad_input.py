"""Bad input: one line with the fault and the remedy, exit status 2, and no loss of data."""

import io
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import tiny
from processes import completed

from assent.cli import main
from assent.errors import STOPPED, AssentError
from assent.loggers.jsonl import read_metrics
from assent.models.checkpoints import save
from assent.models.load import load_policy, load_reward, new_reward
from assent.preferences.unpaired import load_unpaired
from assent.records import Prompt, Response
from assent.report.charts import stage_curves
from assent.run import Setup, open_run
from assent.store.database import Store
from assent.training.logging import MetricsLogger

SHORT = ("--max-new-tokens", "8", "--temperature", "1", "--n", "2", "--n-held-out", "1", "--dtype", "float32")


def assent(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process."""
    out, error = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(error):
        status = main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), error.getvalue())


def refused(*words: str, cwd: Path, execute: Callable[..., subprocess.CompletedProcess[str]] = assent) -> str:
    """Run a command that must be refused, and return the one line that it prints."""
    process = execute(*words, cwd=cwd)
    lines = [line for line in process.stderr.splitlines() if line.startswith("assent: ")]
    assert process.returncode == 2, process.stdout + process.stderr
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return lines[0]


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
    """Return a run with comparisons."""
    folder = model.parent / "run"
    process = assent(
        "generate", "--model", str(model), "--prompts", str(prompts), "--run", str(folder), *SHORT, cwd=model.parent
    )
    assert process.returncode == 0, process.stderr
    assert assent("label", "--run", str(folder), cwd=model.parent).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("dppo",), "no command 'dppo'; did you mean 'ppo'?"),
        (("dpo", "--betta", "1"), "has no flag '--betta'; did you mean '--beta'?"),
        (("label", "--wait", "1"), "it goes with --annotator human"),
        (("dpo", "--beta", "high"), "assent dpo: --beta must be a valid number, got 'high'"),
        (("dpo", "--epochs", "0"), "--epochs must be greater than or equal to 1, got '0'"),
        (("run", "missing.toml"), "no recipe at missing.toml"),
        (("dpo", "stray"), "takes one recipe (.toml) and flags, not 'stray'"),
        (("import", "missing.jsonl"), "missing.jsonl"),
        (("generate", "--model", "nowhere/at/all"), "no model folder at nowhere/at/all"),
        (("generate", "--model", "./empty"), "no model"),
        (("generate", "--device", "cuda:7"), "no device 'cuda:7' on this machine"),
        (("generate", "--dtype", "float13"), "it can be auto, float32 or bfloat16"),
        (("label",), "holds no responses to label; run 'assent generate' first"),
        (("evaluate",), "has no trained policy to measure"),
        (("pretrain",), "name a .txt file or a data set with --data"),
        (("pretrain", "--data", "missing.txt"), "no file at missing.txt"),
    ],
)
def test_wrong_command_line_prints_one_line(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    assert line in refused(*words, cwd=tmp_path)


@pytest.mark.slow
def test_wrong_command_line_exits_with_status_2(tmp_path: Path) -> None:
    assert "no command 'dppo'" in refused("dppo", cwd=tmp_path, execute=completed)
    assert "no model folder at nowhere" in refused(
        "generate", "--model", "nowhere/at/all", cwd=tmp_path, execute=completed
    )


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("[dpo]\nbetta = 1", "[dpo] has no setting 'betta'; did you mean 'beta'?"),
        ("[dppo]\nbeta = 1", "no stage 'dppo'; did you mean 'ppo'?"),
        ("sed = 1", "no setting 'sed'; did you mean 'seed'?"),
        ("stages = ['generate', 'labl']", "no stage 'labl'; did you mean 'label'?"),
        ("[label]\nnum_tasks = 9\n[label-2]\nacquisition = 'bold'", "[label-2]: acquisition must be 'uniform'"),
        ("[label-2]\nacquisition = 'bald'\n[label]\nkind = 'ranking'", "acquisition = bald needs num_tasks"),
        ("[ppo]\nsteps = 'many'", "steps must be a valid integer, got 'many'"),
        ("stages = [", "is not TOML"),
    ],
)
def test_wrong_recipe_is_refused_before_any_stage(recipe: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('run = "made"\n' + recipe)
    assert line in refused("run", "recipe.toml", cwd=tmp_path)
    assert not (tmp_path / "made" / "done" / "generate.json").exists()


def test_empty_data_file_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "empty.jsonl is empty" in refused(
        "generate", "--model", str(model), "--prompts", "empty.jsonl", cwd=tmp_path
    )
    assert "empty.txt has no text" in refused("pretrain", "--data", "empty.txt", cwd=tmp_path)


def test_prompts_longer_than_the_context_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "the duck and " * 300}) + "\n")
    line = refused("generate", "--model", str(model), "--prompts", "long.jsonl", cwd=tmp_path)
    assert "1 of 1 prompts leave no room" in line
    assert "context of 256" in line


def test_broken_chat_template_is_refused(model: Path, prompts: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "chat_template.jinja").write_text(tiny.CHATML.replace("<|end|>\n", "\n"))
    line = refused("generate", "--model", str(broken), "--prompts", str(prompts), cwd=tmp_path)
    assert "fails the contract" in line


def test_changed_settings_of_a_run_are_refused(run: Path, model: Path, tmp_path: Path) -> None:
    before = (run / "recipe.toml").read_text()
    assert "is a run with seed = 0, not 1" in refused("label", "--run", str(run), "--seed", "1", cwd=tmp_path)
    assert "tasks_per_prompt = 6, not 2" in refused("label", "--run", str(run), "--tasks-per-prompt", "2", cwd=tmp_path)
    assert (run / "recipe.toml").read_text() == before


def test_locked_run_is_refused(run: Path, tmp_path: Path) -> None:
    import fcntl

    with open(run / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process works in" in refused("reward", "--run", str(run), cwd=tmp_path)


def test_non_finite_gradient_stops_the_stage_and_keeps_state(run: Path, tmp_path: Path) -> None:
    words = ("reward", "--run", str(run), "--lr", "1e30", "--batch-size", "1", "--warmup-ratio", "0")
    line = refused(*words, cwd=tmp_path)
    assert "reward stopped at step" in line
    assert "the gradient is not finite" in line and "--lr" in line
    assert (run / "state" / "reward" / "state.pt").exists()
    assert not (run / "reward").exists()
    assert (
        assent(
            "reward", "--run", str(run), "--overwrite", "--lr", "1e-4", "--warmup-ratio", "0", cwd=tmp_path
        ).returncode
        == 0
    )


def test_non_finite_metric_is_null_and_in_no_curve(tmp_path: Path) -> None:
    old = '{"stage": "dpo", "step": 1, "seconds": 1.0, "loss": NaN, "margin": Infinity}\n'  # as older versions wrote it
    (tmp_path / "metrics.jsonl").write_text(old)
    logger = MetricsLogger(tmp_path, "dpo", 1)
    logger.log(2, {"loss": 0.5, "margin": math.inf, "accuracy": math.nan})
    logger.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "Infinity" not in text and "NaN" not in text
    first, second = read_metrics(tmp_path)
    assert (first["loss"], first["margin"]) == (None, None)
    assert (second["loss"], second["margin"], second["accuracy"]) == (0.5, None, None)
    assert set(stage_curves(read_metrics(tmp_path))["dpo"]) == {"loss"}


def test_full_disk_is_named_and_the_command_resumes(model: Path, prompts: Path, tmp_path: Path) -> None:
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
        line = refused(*words, cwd=tmp_path, execute=completed)  # a process of its own leaves no open file on the disk
        assert "disk" in line.lower()
        fill.unlink()
        assert completed(*words, cwd=tmp_path).returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("ppo --lr nan", "--lr must be greater than 0, got 'nan'"),
        ("ppo --lr inf", "--lr must be a finite number, got 'inf'"),
        ("ppo --lr 0", "--lr must be "),
        ("ppo --steps 0", "--steps must be greater than or equal to 1, got '0'"),
        ("ppo --minibatches -1", "--minibatches must be "),
        ("ppo --n 0", "--n must be "),
        ("ppo --temperature 0", "temperature = 0 gives the same completion every time"),
        ("ppo --temperature inf", "--temperature must be "),
        ("ppo --missing-eos-score nan", "--missing-eos-score must be "),
        ("ppo --beta -1", "--beta must be greater than or equal to 0, got '-1'"),
        ("ppo --epsilon-low 2", "--epsilon-low must be less than or equal to 1, got '2'"),
        ("ppo --kl-horizon 0", "--kl-horizon must be "),
        ("grpo --target-kl 6 --beta 0", "target_kl = 6.0 adapts beta by a factor; set beta above 0"),
        ("ppo --value-lr -1", "--value-lr must be "),
        ("ppo --lora-rank -1", "--lora-rank must be "),
        ("ppo --weight-decay nan", "--weight-decay must be "),
        ("ppo --max-grad-norm 0", "--max-grad-norm must be "),
        ("grpo --n 1", "n = 1; GRPO needs at least 2 completions of a prompt"),
        ("rloo --n 1", "n = 1; RLOO needs at least 2 completions of a prompt"),
        ("dr_grpo --max-completion-length 0", "--max-completion-length must be "),
        ("dpo --beta 0", "--beta must be greater than 0, got '0'"),
        ("dpo --max-length -5", "--max-length must be "),
        ("cdpo --label-smoothing .7", "--label-smoothing must be less than 0.5, got '.7'"),
        ("reward --center-rewards-coefficient nan", "--center-rewards-coefficient must be "),
        ("reward --error-rate 1", "--error-rate must be "),
        ("generate --n -1", "--n must be "),
        ("generate --generation-batch-size 0", "--generation-batch-size must be "),
        ("label --tasks-per-prompt -2", "--tasks-per-prompt must be "),
        ("evaluate --temperature nan", "--temperature must be "),
        ("pretrain --hidden-size 48", "--hidden-size must be a multiple of 32, got '48'"),
        ("pretrain --vocab-size 10", "--vocab-size must be "),
        ("dpo --seed 99999999999999999999999", "--seed must be "),
        ("dpo --held-out 1.5", "--held-out must be less than or equal to 1, got '1.5'"),
        ("dpo --round 0", "--round must be "),
        ("dpo --run .", "--run must name a folder other than '.'"),
        ("run", "name a recipe, such as 'assent run examples/tiny.toml'"),
        ("run bad.toml", "'ppo' is a stage; put its settings under [ppo]"),
        ("run true.toml", "steps must be a number, got True"),
    ],
)
def test_setting_out_of_range_is_refused(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("ppo = 3")
    (tmp_path / "true.toml").write_text("[ppo]\nsteps = true")
    assert main(words.split()) == 2
    output = capsys.readouterr().err
    assert line in output
    assert output.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def damage(model: Path, folder: Path, kind: str) -> Path:
    """Copy a model folder and break it."""
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    match kind:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "empty":
            weights.write_bytes(b"")
        case "of another size":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
        case "no configuration":
            (folder / "config.json").write_text("[]")
        case "no tokenizer":
            for path in [*folder.glob("*token*"), *folder.glob("chat*")]:
                path.unlink()
        case "lacking":
            language = tiny.load(model)
            weights_left = {k: v for k, v in language.model.state_dict().items() if "layers.1" not in k}
            language.model.save_pretrained(folder, state_dict=weights_left)
    return folder


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("cut", "cannot load the model in"),
        ("empty", "cannot load the model in"),
        ("of another size", "cannot load the model in"),
        ("no configuration", "cannot load the model in"),
        ("no tokenizer", "it holds no tokenizer"),
        ("lacking", "is incomplete: it lacks 9 of its weights"),
    ],
)
def test_damaged_model_is_refused(kind: str, line: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=line) as error:
        load_policy(damage(model, tmp_path / "model", kind))
    assert "\n" not in str(error.value)


def test_policy_and_reward_model_are_distinguished(model: Path, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="has no reward head, it is a policy"):
        load_reward(model)
    save(new_reward(model, 0), tmp_path / "reward")
    assert load_reward(tmp_path / "reward").model.config.num_labels == 1
    with pytest.raises(AssentError, match="is a reward model, not a policy"):
        load_policy(tmp_path / "reward")


def test_failed_first_attempt_leaves_no_settings(
    model: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--run", str(tmp_path / "run"), *SHORT]
    for wrong in (
        ["--model", f"{model}x", "--prompts", str(prompts)],
        ["--model", str(model), "--prompts", "no.jsonl"],
    ):
        assert main([*words, *wrong]) == 2
    assert main([*words, "--model", str(model), "--prompts", str(prompts)]) == 0
    assert main([*words, "--model", f"{model}x"]) == 2
    assert "is a run with model" in capsys.readouterr().err


@pytest.fixture
def trained(run: Path, tmp_path: Path) -> Path:
    """Return a run with a policy."""
    shutil.copytree(run, tmp_path / "run")
    assert main(["dpo", "--run", str(tmp_path / "run"), "--lr", "1e-4"]) == 0
    return tmp_path / "run"


def contents(run: Path) -> dict[str, bytes]:
    """Return the files that a stage leaves, with its settings and metrics."""
    paths = [path for name in ("dpo", "state", "replaced") for path in (run / name).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in [*paths, run / "done" / "dpo.json", run / "metrics.jsonl"]} | {
        "settings": (run / "recipe.toml").read_text().partition("[dpo]")[2].encode()
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--policy", "nowhere"], "no policy 'nowhere' in"),
        (["--lr", "1e30", "--warmup-ratio", "0", "--batch-size", "1", "--save-every", "1"], "not finite"),
    ],
)
def test_overwrite_restores_the_old_result_on_failure(
    words: list[str], line: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    assert main(["dpo", "--run", str(trained), "--overwrite", *words]) == 2
    output = capsys.readouterr().err
    assert line in output and "the earlier result of 'dpo' is restored" in output
    assert contents(trained) == before
    assert main(["dpo", "--run", str(trained), "--lr", "1e-4"]) == 0


def test_overwrite_takes_the_default_settings(trained: Path) -> None:
    assert main(["dpo", "--run", str(trained), "--overwrite"]) == 0
    assert "lr = 2e-05" in (trained / "recipe.toml").read_text().partition("[dpo]")[2]
    assert not (trained / "replaced" / "dpo").exists()


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_kill_while_results_are_moved_loses_nothing(moved: int, trained: Path, model: Path) -> None:
    before = contents(trained)

    class Killed(BaseException):
        pass

    def until(count: int) -> Any:
        rename = Path.rename
        renamed = list[Path]()

        def killing(self: Path, target: Path) -> Path:
            if len(renamed) == count:
                raise Killed
            renamed.append(self)
            return rename(self, target)

        return killing

    setup = Setup(trained, str(model), dtype="float32")
    for moves_aside in (True, False):
        with open_run(setup) as opened, pytest.MonkeyPatch.context() as patch:
            if not moves_aside:
                opened.move_aside("dpo", {})
            patch.setattr(Path, "rename", until(moved))
            with suppress(Killed):
                opened.move_aside("dpo", {}) if moves_aside else opened.restore("dpo")
        with open_run(setup) as opened:
            opened.restore("dpo")
        assert contents(trained) == before


def test_evaluate_runs_again_after_a_policy_was_trained(trained: Path) -> None:
    def responses() -> dict[str, str]:
        assert main(["evaluate", "--run", str(trained), "--judge", "conciseness_rubric", "--max-new-tokens", "8"]) == 0
        policies = json.loads((trained / "done" / "evaluate.json").read_text())["policies"]
        return {name: result["responses"] for name, result in policies.items()}

    first = responses()
    assert responses() == first
    assert main(["ipo", "--run", str(trained), "--lr", "1e-4"]) == 0
    assert set(responses()) == {*first, "ipo"}
    assert main(["dpo", "--run", str(trained), "--lr", "1e-3", "--overwrite"]) == 0
    assert responses()["dpo"] != first["dpo"]


def test_preferences_of_weight_0_are_not_trained_on(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Bird {n}?", "chosen": " Owl.", "rejected": " Cat.", "weight": n % 2} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--run", str(tmp_path / "run"), "--model", str(model), "--dtype", "float32"]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *words]) == 0
    with open_run(Setup(tmp_path / "run", str(model), dtype="float32")) as opened:
        train, held_out, _ = load_unpaired(opened, tiny.load(model).chat_tokenizer, 200)
    assert len(train) + len(held_out) == 10
    assert main(["kto", *words]) == 0


def test_task_about_a_missing_response_is_skipped(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "all.jsonl"), "--format", "events", "--run", str(run)]) == 0
    rows = (tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
    lost = next(json.loads(row)["items"][0] for row in rows if '"record": "task"' in row)
    (tmp_path / "some.jsonl").write_text("".join(row for row in rows if f'"id": "{lost}"' not in row))
    other = tmp_path / "other"
    words = ["--run", str(other), "--model", str(run.parent / "model"), "--dtype", "float32"]
    assert main(["import", str(tmp_path / "some.jsonl"), *words]) == 0
    reasons = [json.loads(row)["reason"] for row in (other / "skipped-some.jsonl").read_text().splitlines()]
    assert f"its item {lost} is not in this file, or broken" in reasons
    assert main(["reward", *words]) == 0


def test_sigterm_stops_like_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "assent", "generate", "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "recipe.toml").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.strip().splitlines()[-1] == STOPPED


def test_label_without_different_responses_has_no_tasks(tmp_path: Path) -> None:
    prompt = Prompt.ask("Where is the duck?")
    (tmp_path / "run").mkdir()
    with Store.open(tmp_path / "run" / "feedback.db") as store:
        store.add_prompts([prompt])
        store.add_responses([Response(prompt.id, "", "mute")])
    process = assent("label", "--run", "run", "--policy", "mute", cwd=tmp_path)
    assert process.returncode == 0
    assert "no tasks: none of the 1 prompts has two different responses" in process.stderr


OWN_RULE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Own:
    length: int = 5

    def score(self, prompts, responses):
        return [float(len(response.text) > self.length) for response in responses]
"""


def test_overwrite_restores_the_settings_of_an_own_rule(run: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_RULE)
    copy = shutil.copytree(run, tmp_path / "run")
    words = ("best_of_n", "--run", str(copy), "--rewards", str(tmp_path / "own.py"), "--length", "9")
    assert assent(*words, "--max-new-tokens", "4", "--n", "2", cwd=tmp_path).returncode == 0
    assert "no policy 'nowhere'" in refused(*words, "--overwrite", "--policy", "nowhere", cwd=tmp_path)
    assert "length = 9" in (copy / "recipe.toml").read_text()
    assert assent("best_of_n", "--run", str(copy), cwd=tmp_path).returncode == 0


FAILING_RULE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Own:
    fails: bool = False

    def score(self, prompts, responses):
        if self.fails:
            raise ValueError("no scores today")
        return [float(len(response.text)) for response in responses]
"""


def test_failed_first_step_says_only_that_the_old_is_restored(run: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FAILING_RULE)
    copy = shutil.copytree(run, tmp_path / "run")
    words = ("grpo", "--run", str(copy), "--rewards", "own.py", "--steps", "1", "--max-new-tokens", "4", "--n", "2")
    assert assent(*words, cwd=tmp_path).returncode == 0
    line = refused(*words, "--overwrite", "--fails", cwd=tmp_path)
    assert line.endswith("no scores today; the earlier result of 'grpo' is restored")
