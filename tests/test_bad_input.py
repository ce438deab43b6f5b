"""Whoever mistypes gets one line that says what was found and what to do, exit status 2, and loses nothing."""

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
from assent.models.checkpoints import save
from assent.models.load import load_policy, load_reward, new_reward
from assent.records import Prompt, Response
from assent.report.page import curves
from assent.run import Setup, open_run
from assent.stages.unpaired import judgements
from assent.store.database import Store
from assent.training.logging import MetricsLogger, read_metrics

SHORT = ("--max-new-tokens", "8", "--temperature", "1", "--n", "2", "--n-held-out", "1", "--dtype", "float32")


def assent(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command, without a process of its own."""
    out, error = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(error):
        status = main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), error.getvalue())


def refused(*words: str, cwd: Path, how: Callable[..., subprocess.CompletedProcess[str]] = assent) -> str:
    """Run a command that must be refused, and return the one line that it says."""
    done = how(*words, cwd=cwd)
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
        (("label", "--wait", "1"), "it goes with --annotator human"),
        (("dpo", "--beta", "high"), "beta = 'high' will not do"),
        (("dpo", "--epochs", "0"), "epochs = '0' will not do: it should be greater than or equal to 1"),
        (("run", "missing.toml"), "no recipe at missing.toml"),
        (("dpo", "stray"), "takes one recipe (.toml) and flags, not 'stray'"),
        (("import", "missing.jsonl"), "missing.jsonl"),
        (("generate", "--model", "nowhere/at/all"), "no model folder at nowhere/at/all"),
        (("generate", "--model", "./empty"), "no model"),
        (("generate", "--device", "cuda:7"), "no device 'cuda:7' here"),
        (("generate", "--dtype", "float13"), "it can be auto, float32 or bfloat16"),
        (("label",), "holds no answers to ask about: run 'assent generate' first"),
        (("evaluate",), "has no trained policy to measure"),
        (("pretrain",), "name a .txt or .jsonl file with --data"),
        (("pretrain", "--data", "missing.txt"), "no file at missing.txt"),
    ],
)
def test_a_mistake_on_the_command_line_gets_one_line(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    assert line in refused(*words, cwd=tmp_path)


def test_a_process_says_it_too_and_ends_with_2(tmp_path: Path) -> None:
    assert "no command 'dppo'" in refused("dppo", cwd=tmp_path, how=completed)
    assert "no model folder at nowhere" in refused("generate", "--model", "nowhere/at/all", cwd=tmp_path, how=completed)


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
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "chat_template.jinja").write_text(tiny.CHATML.replace("<|end|>\n", "\n"))
    line = refused("generate", "--model", str(broken), "--prompts", str(prompts), cwd=tmp_path)
    assert "fails the contract" in line


def test_settings_of_another_run_are_refused_and_nothing_is_lost(run: Path, model: Path, tmp_path: Path) -> None:
    before = (run / "recipe.toml").read_text()
    assert "is a run with seed = 0, not 1" in refused("label", "--run", str(run), "--seed", "1", cwd=tmp_path)
    assert "made with per_prompt = 6, not 2" in refused(
        "label", "--run", str(run), "--tasks-per-prompt", "2", cwd=tmp_path
    )
    assert (run / "recipe.toml").read_text() == before


def test_a_run_that_another_process_works_in_is_left_alone(run: Path, tmp_path: Path) -> None:
    import fcntl

    with open(run / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process works in" in refused("reward", "--run", str(run), cwd=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_stage_and_keeps_the_state_before_it(run: Path, tmp_path: Path) -> None:
    words = ("reward", "--run", str(run), "--lr", "1e30", "--batch-size", "1", "--warmup-ratio", "0")
    line = refused(*words, cwd=tmp_path)
    assert "reward stopped at step" in line
    assert "not finite" in line
    assert (run / "state" / "reward" / "state.pt").exists()
    assert not (run / "reward").exists()
    assert (
        assent(
            "reward", "--run", str(run), "--overwrite", "--lr", "1e-4", "--warmup-ratio", "0", cwd=tmp_path
        ).returncode
        == 0
    )


def test_a_metric_that_is_not_finite_is_null_in_the_file_and_missing_from_the_curves(tmp_path: Path) -> None:
    old = '{"stage": "dpo", "step": 1, "seconds": 1.0, "loss": NaN, "margin": Infinity}\n'  # as it was once written
    (tmp_path / "metrics.jsonl").write_text(old)
    meter = MetricsLogger(tmp_path, "dpo", 1)
    meter.log(2, {"loss": 0.5, "margin": math.inf, "accuracy": math.nan})
    meter.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "Infinity" not in text and "NaN" not in text
    first, second = read_metrics(tmp_path)
    assert (first["loss"], first["margin"]) == (None, None)
    assert (second["loss"], second["margin"], second["accuracy"]) == (0.5, None, None)
    (drawn,) = curves(read_metrics(tmp_path), {})
    assert [figure.title for figure in drawn.figures] == ["Loss"]


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
        line = refused(*words, cwd=tmp_path, how=completed)  # which leaves nothing open on the disk
        assert "disk" in line.lower()
        fill.unlink()
        assert completed(*words, cwd=tmp_path).returncode == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("ppo --lr nan", "lr = 'nan' will not do: it should be greater than 0"),
        ("ppo --lr inf", "lr = 'inf' will not do: it should be a finite number"),
        ("ppo --lr 0", "lr = '0' will not do"),
        ("ppo --steps 0", "steps = '0' will not do: it should be greater than or equal to 1"),
        ("ppo --minibatches -1", "minibatches = '-1' will not do"),
        ("ppo --n 0", "n = '0' will not do"),
        ("ppo --temperature 0", "temperature = 0 draws the same answer every time"),
        ("ppo --temperature inf", "temperature = 'inf' will not do"),
        ("ppo --missing-eos-score nan", "missing_eos = 'nan' will not do"),
        ("ppo --beta -1", "beta = '-1' will not do: it should be greater than or equal to 0"),
        ("ppo --epsilon-low 2", "clip_low = '2' will not do: it should be less than or equal to 1"),
        ("ppo --kl-horizon 0", "horizon = '0' will not do"),
        ("grpo --target-kl 6 --beta 0", "target_kl = 6.0 steers beta by shares of it: give it a beta above 0"),
        ("ppo --value-lr -1", "value_lr = '-1' will not do"),
        ("ppo --lora-rank -1", "lora_rank = '-1' will not do"),
        ("ppo --weight-decay nan", "weight_decay = 'nan' will not do"),
        ("ppo --max-grad-norm 0", "max_grad_norm = '0' will not do"),
        ("grpo --n 1", "n = 1: GRPO compares 2 or more"),
        ("rloo --n 1", "n = 1: RLOO compares 2 or more"),
        ("dr_grpo --length 0", "length = '0' will not do"),
        ("dpo --beta 0", "beta = '0' will not do: it should be greater than 0"),
        ("dpo --max-length -5", "max_tokens = '-5' will not do"),
        ("cdpo --error-rate .7", "error_rate = '.7' will not do: it should be less than 0.5"),
        ("reward --center-rewards-coefficient nan", "centring = 'nan' will not do"),
        ("reward --error-rate 1", "error_rate = '1' will not do"),
        ("generate --n -1", "n = '-1' will not do"),
        ("generate --generation-batch-size 0", "rows = '0' will not do"),
        ("label --tasks-per-prompt -2", "per_prompt = '-2' will not do"),
        ("evaluate --temperature nan", "temperature = 'nan' will not do"),
        ("pretrain --hidden-size 48", "width = '48' will not do: it should be a multiple of 32"),
        ("pretrain --vocab-size 10", "vocabulary = '10' will not do"),
        ("dpo --seed 99999999999999999999999", "seed = '99999999999999999999999' will not do"),
        ("dpo --held-out 1.5", "held_out = '1.5' will not do: it should be less than or equal to 1"),
        ("dpo --round 0", "round = '0' will not do"),
        ("dpo --run .", "--run '.' names no folder of its own"),
        ("run", "name a recipe: assent run recipe.toml"),
        ("run bad.toml", "'ppo' is a stage: its settings stand under [ppo]"),
        ("run true.toml", "steps = True will not do: it should be a number"),
    ],
)
def test_a_setting_out_of_range_is_named_before_anything_is_made(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("ppo = 3")
    (tmp_path / "true.toml").write_text("[ppo]\nsteps = true")
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def damaged(model: Path, folder: Path, how: str) -> Path:
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    match how:
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
            kept = {name: value for name, value in language.model.state_dict().items() if "layers.1" not in name}
            language.model.save_pretrained(folder, state_dict=kept)
    return folder


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("cut", "cannot load the model in"),
        ("empty", "cannot load the model in"),
        ("of another size", "cannot load the model in"),
        ("no configuration", "cannot load the model in"),
        ("no tokenizer", "it holds no tokenizer"),
        ("lacking", "is incomplete: it lacks 9 of its weights"),
    ],
)
def test_a_damaged_model_is_refused_and_never_filled_up_at_random(
    how: str, line: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssentError, match=line) as error:
        load_policy(damaged(model, tmp_path / "model", how))
    assert "\n" not in str(error.value)


def test_a_policy_is_no_reward_model_and_a_reward_model_no_policy(model: Path, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="has no reward head, it is a policy"):
        load_reward(model)
    save(new_reward(model, 0), tmp_path / "reward")
    assert load_reward(tmp_path / "reward").model.config.num_labels == 1
    with pytest.raises(AssentError, match="is a reward model, not a policy"):
        load_policy(tmp_path / "reward")


def test_an_attempt_that_failed_at_once_binds_nothing(
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
    """A run with a policy."""
    shutil.copytree(run, tmp_path / "run")
    assert main(["dpo", "--run", str(tmp_path / "run"), "--lr", "1e-4"]) == 0
    return tmp_path / "run"


def contents(run: Path) -> dict[str, bytes]:
    """Everything that a stage leaves, its settings and measurements too."""
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
def test_what_again_would_replace_comes_back_if_the_new_attempt_fails(
    words: list[str], line: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    assert main(["dpo", "--run", str(trained), "--overwrite", *words]) == 2
    said = capsys.readouterr().err
    assert line in said and "what 'dpo' was before is back in its place" in said
    assert contents(trained) == before
    assert main(["dpo", "--run", str(trained), "--lr", "1e-4"]) == 0


def test_again_takes_the_default_settings_and_leaves_nothing_behind(trained: Path) -> None:
    assert main(["dpo", "--run", str(trained), "--overwrite"]) == 0
    assert "lr = 2e-05" in (trained / "recipe.toml").read_text().partition("[dpo]")[2]
    assert not (trained / "replaced" / "dpo").exists()


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_kill_while_the_old_result_is_put_aside_or_brought_back_loses_nothing(
    moved: int, trained: Path, model: Path
) -> None:
    before = contents(trained)

    class Killed(BaseException):
        pass

    def until(count: int) -> Any:
        rename, done = Path.rename, list[Path]()

        def killing(self: Path, target: Path) -> Path:
            if len(done) == count:
                raise Killed
            done.append(self)
            return rename(self, target)

        return killing

    setup = Setup(trained, str(model), dtype="float32")
    for again in (True, False):
        with open_run(setup) as opened, pytest.MonkeyPatch.context() as patch:
            if not again:
                opened.move_aside("dpo", {})
            patch.setattr(Path, "rename", until(moved))
            with suppress(Killed):
                opened.move_aside("dpo", {}) if again else opened.restore("dpo")
        with open_run(setup) as opened:
            opened.restore("dpo")
        assert contents(trained) == before


def test_evaluation_notices_a_policy_that_was_trained_since(trained: Path) -> None:
    def measured() -> dict[str, str]:
        assert main(["evaluate", "--run", str(trained), "--max-new-tokens", "8"]) == 0
        policies = json.loads((trained / "done" / "evaluate.json").read_text())["policies"]
        return {name: found["answers"] for name, found in policies.items()}

    first = measured()
    assert measured() == first
    assert main(["ipo", "--run", str(trained), "--lr", "1e-4"]) == 0
    assert set(measured()) == {*first, "ipo"}
    assert main(["dpo", "--run", str(trained), "--lr", "1e-3", "--overwrite"]) == 0
    assert measured()["dpo"] != first["dpo"]


def test_what_counts_nothing_is_not_trained_on(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Bird {n}?", "chosen": " Owl.", "rejected": " Cat.", "weight": n % 2} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--run", str(tmp_path / "run"), "--model", str(model), "--dtype", "float32"]
    assert main(["import", str(tmp_path / "pairs.jsonl"), *words]) == 0
    with open_run(Setup(tmp_path / "run", str(model), dtype="float32")) as opened:
        kept, held, _ = judgements(opened, tiny.load(model).codec, 200)
    assert len(kept) + len(held) == 10
    assert main(["kto", *words]) == 0


def test_a_query_about_an_answer_that_a_file_does_not_hold_is_rejected(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "all.jsonl"), "--format", "events", "--run", str(run)]) == 0
    rows = (tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
    lost = next(json.loads(row)["items"][0] for row in rows if '"record": "query"' in row)
    (tmp_path / "some.jsonl").write_text("".join(row for row in rows if f'"id": "{lost}"' not in row))
    other = tmp_path / "other"
    words = ["--run", str(other), "--model", str(run.parent / "model"), "--dtype", "float32"]
    assert main(["import", str(tmp_path / "some.jsonl"), *words]) == 0
    reasons = [json.loads(row)["reason"] for row in (other / "rejected-some.jsonl").read_text().splitlines()]
    assert f"its item {lost} is not in this file, or broken" in reasons
    assert main(["reward", *words]) == 0


def test_sigterm_is_as_good_as_ctrl_c_wherever_it_comes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "assent", "generate", "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "recipe.toml").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == STOPPED


def test_that_there_is_nothing_to_compare_is_said(tmp_path: Path) -> None:
    prompt = Prompt.ask("Where is the duck?")
    (tmp_path / "run").mkdir()
    with Store.open(tmp_path / "run" / "feedback.db") as store:
        store.add_prompts([prompt])
        store.add_responses([Response(prompt.id, "", "mute")])
    done = assent("label", "--run", "run", "--policy", "mute", cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing to ask: none of the 1 prompts has two different answers" in done.stderr
