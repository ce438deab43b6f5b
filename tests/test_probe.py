"""The probe of over-optimisation in real runs: when it fires, what is kept, and what it leaves as it was."""

import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from processes import command
from safetensors.torch import load_file
from test_parallel import run_forked

from assent.cli import main
from assent.loggers.jsonl import read_metrics
from assent.records import Prompt, unit_hash
from assent.store.database import Store

SHORT = [
    *("--n", "2", "--batch-size", "6", "--max-new-tokens", "8", "--temperature", "1", "--missing-eos-score", "off"),
    *("--lr", "1e-2", "--lr-scheduler-type", "constant", "--warmup-ratio", "0", "--probe-steps", "1"),
]
Captured = pytest.CaptureFixture[str]
NUMBERS = "score", "reward", "kl", "z"
KILLED = ["--steps", "30", "--save-every", "2"]
STAGES = {
    "grpo": ["grpo"],
    "grpo with LoRA": ["grpo", "--lora-rank", "4"],
    "ppo with a value head": ["ppo", "--value-head"],
    "ppo with LoRA": ["ppo", "--value-head", "--lora-rank", "4"],
    "grpo in bfloat16": ["grpo", "--dtype", "bfloat16"],
}
REWARD = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Vowels:
    """The number of vowels."""

    def score(self, prompts, responses):
        return [sum(letter in "aeiou" for letter in response.text) for response in responses]
'''
JUDGE = '''
import json, os, signal
from dataclasses import dataclass
from pathlib import Path

LOG, SCRIPT = Path(__file__).with_name("log.jsonl"), Path(__file__).with_name("script.json")

@dataclass(frozen=True)
class Judge:
    """The next score of a script, which may begin with a signal to this process; after its end fewer vowels win."""

    def score(self, prompts, responses):
        script = json.loads(SCRIPT.read_text())
        with LOG.open("a") as log:
            log.write(json.dumps([[prompt.text for prompt in prompts], [r.text for r in responses]]) + "\\n")
        number = len(LOG.read_text().splitlines()) - 1
        *signals, value = str(script[number] if number < len(script) else "vowels").split()
        if signals:
            os.kill(os.getpid(), getattr(signal, signals[0]))
        if value == "vowels":
            return [-sum(letter in "aeiou" for letter in response.text) for response in responses]
        return [float(value)] * len(responses)
'''


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sum in the order of the forked processes, which have one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, and a run with prompts."""
    folder = tmp_path_factory.mktemp("probe")
    model = tiny.make(folder / "model", chat=False)
    import_prompts(folder / "run", 40, "--model", str(model), "--device", "cpu", "--held-out", "0.5")
    (folder / "reward.py").write_text(REWARD)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return copy(prepared, tmp_path / "here")


def copy(prepared: Path, folder: Path) -> Path:
    """Return a copy of the prepared run beside a judge without a script."""
    shutil.copytree(prepared / "run", folder / "run")
    shutil.copyfile(prepared / "reward.py", folder / "reward.py")
    (folder / "judge.py").write_text(JUDGE)
    script(folder)
    return folder


def import_prompts(run: Path, count: int, *flags: str) -> None:
    rows = [{"prompt": f"Tell me of bird {number}: "} for number in range(count)]
    path = run.with_name("prompts.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["import", str(path), "--run", str(run), *flags]) == 0


def words(folder: Path, *flags: str, stage: Sequence[str] = ("grpo",), judge: str | None = "judge.py") -> list[str]:
    own = [] if "--dtype" in stage else ["--dtype", "float32"]
    own += ["--rewards", str(folder / "reward.py")] + (["--probe-judge", str(folder / judge)] if judge else [])
    return [*stage, "--run", str(folder / "run"), *own, *SHORT, *flags]


def train(folder: Path, *flags: str, stage: Sequence[str] = ("grpo",), judge: str | None = "judge.py") -> Any:
    """Train a stage, and return the probes of its result; None: it has none."""
    assert main(words(folder, *flags, stage=stage, judge=judge)) == 0
    return result(folder, stage[0]).get("probe")


def result(folder: Path, stage: str = "grpo") -> dict[str, Any]:
    return dict(json.loads((folder / "run" / "done" / f"{stage}.json").read_text()))


def script(folder: Path, *entries: float | str) -> None:
    (folder / "script.json").write_text(json.dumps(entries))


def asked(folder: Path) -> list[Any]:
    """Return the prompts and the completions of each call of the judge."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def prompts_of(folder: Path) -> list[Prompt]:
    with Store.open(folder / "run" / "feedback.db") as store:
        return list(store.prompts())


def weights(folder: Path, stage: str = "grpo") -> dict[str, bytes]:
    """Return the bytes of all weights that a stage saved."""
    saved = folder / "run" / stage
    return {str(path.relative_to(saved)): path.read_bytes() for path in saved.rglob("*.safetensors")}


def metrics(folder: Path, left_out: str = "seconds") -> list[dict[str, Any]]:
    rows = read_metrics(folder / "run")
    return [{name: value for name, value in row.items() if not name.startswith(("seconds", left_out))} for row in rows]


# When it fires


def test_run_that_over_optimises_stops_and_says_so(folder: Path, capsys: Captured) -> None:
    probe = train(folder, "--steps", "30")
    last = capsys.readouterr().out.splitlines()[-1]
    assert "the reward is over-optimised" in last and f"at step {probe['fired_at']}" in last
    points = probe["points"]
    assert probe["stopped"] and probe["fired_at"] == points[-1]["step"] < 30
    assert [point["step"] for point in points] == list(range(len(points)))
    best = max(points, key=lambda point: point["score"])
    assert probe["kept_step"] == probe["best_step"] == best["step"]
    assert f"policy of step {best['step']} is kept" in last
    assert points[-1]["z"] > 2.5 and points[-2]["z"] > 2.5
    assert all(point["reward"] == pytest.approx(-point["score"]) for point in points)
    assert points[0]["kl"] == pytest.approx(0, abs=1e-5) and points[-1]["kl"] > 0.1
    assert len(read_metrics(folder / "run")) == points[-1]["step"]


def test_run_judged_by_its_reward_raises_no_alarm(folder: Path, capsys: Captured) -> None:
    probe = train(folder, "--steps", "12", judge="reward.py")
    assert probe["fired_at"] is None and not probe["stopped"] and probe["kept_step"] == 12
    assert probe["points"][-1]["score"] > probe["points"][0]["score"] + 1
    printed = capsys.readouterr()
    assert "name an independent judge" in printed.err and "over-optimised" not in printed.out
    assert "no alarm in 13 probes" in printed.out.splitlines()[-1]


@pytest.mark.parametrize("scores", [[0, 2, 0, 2, 0, 2, 0], [1, 0, 2, 0, 3, 0, 4], [1] * 7])
def test_single_falls_raise_no_alarm(scores: list[float], folder: Path) -> None:
    script(folder, *scores)
    probe = train(folder, "--steps", "6")
    assert probe["fired_at"] is None and [point["score"] for point in probe["points"]] == scores


def test_unchanged_policy_gives_the_same_completions(folder: Path) -> None:
    probe = train(folder, "--steps", "3", "--lr", "1e-20", "--temperature", "0.7")
    first, *others = asked(folder)
    assert len(others) == 3 and all(call == first for call in others)
    assert len({point["score"] for point in probe["points"]}) == 1
    assert [point["z"] for point in probe["points"]] == [0, 0, 0, 0] and probe["examples"] == []
    assert [point["kl"] for point in probe["points"]] == pytest.approx([0] * 4, abs=1e-5)


def test_probes_ask_the_same_held_out_prompts(folder: Path) -> None:
    probe = train(folder, "--steps", "2", "--probe-prompts", "5")
    held_out = {prompt.text for prompt in prompts_of(folder) if unit_hash(prompt.id) < 0.5}
    chosen = [call[0] for call in asked(folder)]
    assert chosen[0] == chosen[1] == chosen[2] and probe["prompts"] == 5 == len(set(chosen[0]))
    assert set(chosen[0]) < held_out


def test_reward_model_may_be_the_judge(folder: Path) -> None:
    sides = [(" yes" * (1 + i % 5), " no" * (1 + i % 7)) for i in range(12)]
    pairs = [{"prompt": f"Question {i}: ", "chosen": a, "rejected": b} for i, (a, b) in enumerate(sides)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    for stage in (["import", str(folder / "pairs.jsonl")], ["reward"]):
        assert main([*stage, "--run", str(folder / "run"), "--dtype", "float32"]) == 0
    probe = train(folder, "--steps", "2", "--probe-judge", "reward", judge=None)
    assert probe["judge"] == "reward" and [point["step"] for point in probe["points"]] == [0, 1, 2]
    assert all(point["score_sd"] > 0 for point in probe["points"])


# What is kept


@pytest.mark.parametrize(("best", "steps", "scores"), [(0, 4, [2, 1, 1]), (1, 5, [0, 2, 1, 1]), (1, 3, [0, 2, 1, 1])])
@pytest.mark.parametrize("name", STAGES)
def test_policy_of_the_best_probe_is_kept(
    name: str, best: int, steps: int, scores: list[float], folder: Path, prepared: Path, tmp_path: Path
) -> None:
    stage = STAGES[name]
    script(folder, *scores)
    probe = train(folder, "--steps", str(steps), stage=stage)
    expected = {"best_step": best, "kept_step": best, "fired_at": best + 2, "stopped": True}
    assert probe | expected == probe
    assert not (folder / "run" / "state" / stage[0]).exists()
    if best:
        train(other := copy(prepared, tmp_path / "other"), "--steps", str(best), stage=stage, judge=None)
        assert weights(folder, stage[0]) == weights(other, stage[0]) != {}
    else:
        kept, base = (load_file(path / "model.safetensors") for path in (folder / "run" / stage[0], prepared / "model"))
        assert kept.keys() == base.keys() and all(torch.equal(kept[key], weight) for key, weight in base.items())


def test_watch_only_reports_the_alarm_and_keeps_the_last(
    folder: Path, prepared: Path, tmp_path: Path, capsys: Captured
) -> None:
    script(folder, 0, 2, 1, 1, 3)
    probe = train(folder, "--steps", "5", "--watch-only")
    last = capsys.readouterr().out.splitlines()[-1]
    assert "fell from 2.00 at step 1 to 1.00 at step 3" in last and last.endswith("training went on.")
    assert (probe["best_step"], probe["fired_at"], probe["kept_step"], probe["stopped"]) == (1, 3, 5, False)
    assert [point["step"] for point in probe["points"]] == list(range(6))
    train(other := copy(prepared, tmp_path / "other"), "--steps", "5", judge=None)
    assert weights(folder) == weights(other)


@pytest.mark.parametrize("name", STAGES)
def test_probes_change_neither_metrics_nor_weights(name: str, folder: Path, prepared: Path, tmp_path: Path) -> None:
    stage = STAGES[name]
    assert train(folder, "--steps", "4", "--watch-only", stage=stage) is not None
    assert train(other := copy(prepared, tmp_path / "other"), "--steps", "4", stage=stage, judge=None) is None
    assert metrics(folder, "probe_") == metrics(other) and len(metrics(other)) == 4
    assert weights(folder, stage[0]) == weights(other, stage[0])


def test_metrics_hold_the_probes_of_their_steps(folder: Path) -> None:
    probe = train(folder, "--steps", "5", "--probe-steps", "2", "--watch-only")
    assert [point["step"] for point in probe["points"]] == [0, 2, 4, 5]
    rows = {row["step"]: row for row in metrics(folder)}
    assert {step for step, row in rows.items() if "probe_score" in row} == {2, 4, 5}
    for point in probe["points"][1:]:
        row = rows[point["step"]]
        assert [row[f"probe_{name}"] for name in NUMBERS] == pytest.approx([point[name] for name in NUMBERS], rel=1e-5)


def test_last_line_of_a_recipe_and_the_report_name_the_alarm(folder: Path, capsys: Captured) -> None:
    script(folder, 2, 1, 1)
    table = f"rewards = ['{folder / 'reward.py'}']\nprobe_judge = '{folder / 'judge.py'}'\nprobe_steps = 1\nsteps = 4"
    (folder / "recipe.toml").write_text(
        f"stages = ['grpo']\n[grpo]\n{table}\nn = 2\nbatch_size = 4\nmax_new_tokens = 4\n"
    )
    assert main(["run", str(folder / "recipe.toml"), "--run", str(folder / "run"), "--dtype", "float32"]) == 0
    assert "fell from 2.00 at step 0 to 1.00 at step 2" in capsys.readouterr().out.splitlines()[-1]
    assert main(["report", "--run", str(folder / "run")]) == 0
    assert "fell from 2.00 at step 0 to 1.00 at step 2" in capsys.readouterr().out.splitlines()[-1]
    assert "fell from 2.00 at step 0 to 1.00 at step 2" in (folder / "run" / "report.html").read_text()


# Interruptions


@pytest.fixture(scope="module")
def whole(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that an alarm stopped and nothing interrupted."""
    folder = copy(prepared, tmp_path_factory.mktemp("whole") / "here")
    assert train(folder, *KILLED)["stopped"]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in training", "at the alarm"])
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 130), ("SIGKILL", -signal.SIGKILL)])
def test_killed_run_resumes_to_the_same_alarm(name: str, status: int, moment: str, whole: Path, folder: Path) -> None:
    calls = result(whole)["probe"]["fired_at"] if moment == "at the alarm" else 3
    script(folder, *["vowels"] * calls, f"{name} vowels")
    flags = words(folder, *KILLED)
    assert command(*flags, log=folder / "log").wait() == status
    assert not (folder / "run" / "done" / "grpo.json").exists()
    assert main(flags) == 0
    again = {"SIGTERM": 0, "SIGKILL": 2 - calls % 2}[name]  # probes of steps that were not saved
    assert len(asked(folder)) == len(asked(whole)) + again
    assert result(folder)["probe"] == result(whole)["probe"] | {"judge": str(folder / "judge.py")}
    assert weights(folder) == weights(whole) and metrics(folder) == metrics(whole)


@pytest.mark.slow
def test_kept_policy_is_of_kept_step_for_a_random_judge(folder: Path, prepared: Path, tmp_path: Path) -> None:
    # The state of step 2 is saved. The first process sees a best at step 3, the second one does not.
    script(folder, 0, 1, 2, 9, "SIGKILL 0", 1, 1)
    flags = words(folder, "--steps", "8", "--save-every", "2")
    assert command(*flags, log=folder / "log").wait() == -signal.SIGKILL
    assert main(flags) == 0
    assert (result(folder)["probe"]["kept_step"], result(folder)["probe"]["fired_at"]) == (2, 4)
    train(other := copy(prepared, tmp_path / "other"), "--steps", "2", judge=None)
    assert weights(folder) == weights(other)


@pytest.mark.parametrize("count", ["5", "64"])
def test_resumed_run_never_compares_other_prompts(count: str, folder: Path, capsys: Captured) -> None:
    script(folder, 0, "SIGTERM 0")
    flags = words(folder, "--steps", "3", "--probe-prompts", count)
    assert main(flags) == 130
    import_prompts(folder / "run", 60)
    capsys.readouterr()
    if (status := main(flags)) == 2:
        assert len(capsys.readouterr().err.splitlines()) == 1
    else:
        assert status == 0 and len({tuple(call[0]) for call in asked(folder)}) == 1


# Bad input


def refused(flags: list[str], capsys: Captured) -> str:
    """Return the line of a command that is refused."""
    capsys.readouterr()
    assert main(flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("assent: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--probe-judge", "lenght_penalty"], "no reward 'lenght_penalty'; did you mean 'length_penalty'?"),
        (["--probe-judge", "simulated"], "probe_judge = 'simulated' is an annotator"),
        (["--probe-judge", "nowhere.py"], "nowhere.py"),
        (["--probe-judge", "length_penalty", "--probe-prompts", "1"], "use 2 or more"),
        (["--probe-judge", "length_penalty", "--probe-steps", "0"], "--probe-steps must be"),
    ],
)
def test_bad_settings_are_refused(flags: list[str], reason: str, folder: Path, capsys: Captured) -> None:
    assert reason in refused(words(folder, "--steps", "2", *flags, judge=None), capsys)
    assert not (folder / "run" / "grpo").exists() and not (folder / "run" / "state" / "grpo").exists()
    train(folder, "--steps", "1", judge=None)  # the refused settings are forgotten


def test_run_with_one_held_out_prompt_is_refused(folder: Path, capsys: Captured) -> None:
    path = folder / "run" / "recipe.toml"
    lowest = min(unit_hash(prompt.id) for prompt in prompts_of(folder))
    path.write_text(path.read_text().replace("held_out = 0.5", f"held_out = {lowest + 1e-9}"))
    assert "a probe needs two held-out prompts" in refused(words(folder, "--steps", "2"), capsys)


@pytest.mark.parametrize("answer", ["failing", "nan", "inf"])
def test_judge_that_fails_at_the_start_can_be_repaired(answer: str, folder: Path, capsys: Captured) -> None:
    script(folder, answer)
    line = refused(words(folder, "--steps", "2"), capsys)
    assert f"the reward {folder / 'judge.py'} " in line and "step 1 of 2" in line
    assert not (folder / "run" / "state" / "grpo").exists() and not (folder / "run" / "grpo").exists()
    script(folder)
    probe = train(folder, "--steps", "2", "--lr", "1e-3")  # the settings of the failed attempt are forgotten
    assert [point["step"] for point in probe["points"]] == [0, 1, 2]


def test_judge_that_fails_later_resumes_at_its_last_state(folder: Path, whole: Path, capsys: Captured) -> None:
    script(folder, "vowels", "vowels", "vowels", "failing")
    flags = words(folder, *KILLED)
    assert "the state after step 2 is saved" in refused(flags, capsys)
    assert main(flags) == 0
    assert result(folder)["probe"] == result(whole)["probe"] | {"judge": str(folder / "judge.py")}
    assert weights(folder) == weights(whole)


# Several processes


@pytest.mark.slow
def test_two_processes_stop_at_the_alarm_of_the_first(folder: Path, prepared: Path, tmp_path: Path) -> None:
    other = copy(prepared, tmp_path / "other")
    script(folder, 0, 2, 1, 1)
    for path, flags in ((folder, ["--steps", "5"]), (other, ["--steps", "1", "--watch-only"])):
        run_forked(words(path, *flags), path)
    probe = result(folder)["probe"]
    assert (probe["kept_step"], probe["fired_at"], len(metrics(folder))) == (1, 3, 3)
    assert weights(folder) == weights(other)
