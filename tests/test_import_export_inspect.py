"""The commands import, export and inspect, on valid and invalid files."""

import gzip
import io
import json
import re
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from processes import completed
from test_tokenization import CHATML, tokenizer

from assent.cli import main
from assent.formats.files.importing import read_file
from assent.records import SkippedRow
from assent.store.database import Store
from assent.tools.output.printing import append_skipped, format_reasons, printable

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"

PAIRS = [{"prompt": f"Bird {n}?", "chosen": f"An owl, {n}.", "rejected": "No idea."} for n in range(20)]
LABELS = [{"prompt": "Bird?", "completion": text, "label": good} for text, good in (("Owl.", True), ("Cat.", False))]


class CommandResult(NamedTuple):
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


def assent(*words: object, environment: Mapping[str, str] | None = None) -> CommandResult:
    """Run a command in its own process."""
    process = completed(*map(str, words), environment=environment)
    return CommandResult(process.returncode, process.stdout, process.stderr)


def run_here(*words: object) -> CommandResult:
    """Run a command in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main([str(word) for word in words])
    return CommandResult(status, out.getvalue(), err.getvalue())


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def model(folder: Path, template: str | None = CHATML, **special: str) -> Path:
    tokenizer(template, False, **special).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


# Import


def test_second_import_reports_nothing_new(tmp_path: Path) -> None:
    file = lines(tmp_path / "pairs.jsonl", *PAIRS)
    run = tmp_path / "run"
    first = assent("import", file, "--run", run)
    second = assent("import", file, "--run", run)
    assert (first.status, second.status) == (0, 0)
    assert "20 of 20 rows read as preference (detected)\n  20 preferences on 20 prompts\n" in first.out
    assert f"  new in {run}: 20 prompts, 40 responses, 20 tasks, 20 feedback\n" in first.out
    assert "nothing new" in second.out and "new in " not in second.out


def test_skipped_rows_are_counted_by_reason_and_saved(tmp_path: Path) -> None:
    same = {"prompt": "Bird?", "chosen": "Owl.", "rejected": "Owl."}
    file = lines(tmp_path / "pairs.jsonl", PAIRS[0], "{broken\n", same, PAIRS[1], same)
    result = run_here("import", file, "--run", tmp_path / "run")
    assert result.status == 0
    assert "2 of 5 rows read as preference" in result.out
    assert "    2  identical replies: pairs.jsonl:3, pairs.jsonl:5\n" in result.out
    assert "    1  broken JSON: " in result.out and ": pairs.jsonl:2\n" in result.out
    saved_rows = [json.loads(line) for line in (tmp_path / "run/skipped-pairs.jsonl").read_text().splitlines()]
    assert sorted(row["location"] for row in saved_rows) == ["pairs.jsonl:2", "pairs.jsonl:3", "pairs.jsonl:5"]
    assert {row["row"] for row in saved_rows} == {"{broken", json.dumps(same)}
    assert {row["reason"] for row in saved_rows if row["location"] != "pairs.jsonl:2"} == {"identical replies"}


def test_files_with_one_name_share_the_skipped_rows_file(tmp_path: Path) -> None:
    saved_rows = tmp_path / "rejected.jsonl"
    first, second = SkippedRow("a:1", "why", "x"), SkippedRow("a:2", "why", "\u2028")
    for rows in ([first], [second], [first, second]):
        append_skipped(rows, saved_rows)
    assert [json.loads(line)["row"] for line in saved_rows.read_text().splitlines()] == ["x", "\u2028"]


def test_format_reasons_sorts_by_frequency() -> None:
    rejected = [SkippedRow(f"f:{n}", "rare" if n == 1 else "often") for n in range(1, 7)]
    assert format_reasons(rejected) == ["5  often: f:2, f:3, f:4, ...", "1  rare: f:1"]
    reasons = format_reasons(SkippedRow(f"f:{n}", f"reason {n}") for n in range(11))
    assert (len(reasons), reasons[-1]) == (9, "3  for 3 other reasons")


def test_printable_escapes_control_characters() -> None:
    assert printable("a\x1b[31m é\ud800\n") == "a\\x1b[31m é\\ud800\\n"


def test_imported_prompts_become_chat_with_category(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "p.jsonl", *({"prompt": f"Bird {n}?"} for n in range(9)), {"prompt": "Owl?", "category": "knowledge"}
    )
    run = tmp_path / "run"
    result = run_here("import", file, "--run", run, "--category", "creative", "--held-out", "0.5")
    sides = re.search(
        r"(\d+) prompts to train on, (\d+) held out; next, generate responses: assent generate --run (\S+)", result.out
    )
    assert result.status == 0 and "read as prompt-only" in result.out and sides is not None
    assert "    user        Bird 0?\n" in result.out
    assert int(sides[1]) + int(sides[2]) == 10 and sides[3] == str(run)
    with Store.open(run / "feedback.db") as store:
        matches = list(store.prompts())
    assert {prompt.messages[0].role for prompt in matches} == {"user"}
    assert sorted(prompt.category for prompt in matches) == ["creative"] * 9 + ["knowledge"]
    later = run_here("import", file, "--run", run, "--category", "grounded")
    assert "nothing new" in later.out and "10 prompts were stored before and keep their category" in later.out


def test_prompts_stay_text_after_pretraining_without_template(tmp_path: Path) -> None:
    run, file = tmp_path / "run", lines(tmp_path / "p.jsonl", {"prompt": "Once upon a time"})
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(f"Once upon a time there were {n} birds." for n in range(40)))
    small = ["--vocab-size", "300", "--num-layers", "1", "--hidden-size", "32", "--context-length", "32"]
    assert run_here("pretrain", "--run", run, "--data", texts, *small).status == 0
    result = run_here("import", file, "--run", run)
    assert result.status == 0 and "text to continue  Once upon a time" in result.out
    with Store.open(run / "feedback.db") as store:
        assert [prompt.is_plain for prompt in store.prompts()] == [True]


def test_no_apply_chat_template_keeps_prompts_as_text(tmp_path: Path) -> None:
    file = lines(tmp_path / "p.jsonl", {"prompt": "Once upon a time"})
    assert run_here("import", file, "--run", tmp_path / "run", "--no-apply-chat-template").status == 0
    with Store.open(tmp_path / "run/feedback.db") as store:
        assert [prompt.messages[0].role for prompt in store.prompts()] == ["text"]


def test_hh_rlhf_exports_as_every_preference_format(tmp_path: Path) -> None:
    run = tmp_path / "run"
    source = DATA / "hh_rlhf_helpful_base.jsonl.gz"
    result = run_here("import", source, "--run", run)
    assert "60 of 75 rows read as hh-rlhf (detected)" in result.out
    assert re.search(r"\n    7  'rejected' has a further turn.*: hh_rlhf_helpful_base.jsonl.gz:7, ", result.out)
    assert len((run / "skipped-hh_rlhf_helpful_base.jsonl").read_text().splitlines()) == 15
    before = read_file(source).examples
    for format in ("hh-rlhf", "preference", "preference-implicit"):
        assert run_here("export", tmp_path / f"{format}.jsonl.gz", "--run", run, "--format", format).status == 0
        after = read_file(tmp_path / f"{format}.jsonl.gz")
        assert (after.format, len(after.examples), after.skipped) == (format, len(before), ())
    whole = run_here("export", tmp_path / "all.jsonl", "--run", run, "--format", "events")
    assert f"{60 * 5} rows written as events, the whole store" in whole.out
    copied = run_here("import", tmp_path / "all.jsonl", "--run", tmp_path / "copy")
    assert "60 prompts, 120 responses, 60 tasks, 60 feedback\n  new in" in copied.out


# Export


def test_export_prints_skipped_rows(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.jsonl"
    for name, rows in (("pairs", PAIRS), ("labels", LABELS)):
        run_here("import", lines(tmp_path / f"{name}.jsonl", *rows), "--run", run)
    result = run_here("export", out, "--run", run, "--format", "unpaired")
    assert result.status == 0
    assert f"{out}: 2 rows written as unpaired, of 22 in {run}\n  20 skipped:\n" in result.out
    assert "    20  a preference, which this format cannot hold: example 1, example 2, example 3, ...\n" in result.out
    assert [row["label"] for row in map(json.loads, out.read_text().splitlines())] == [True, False]


def test_export_splits_share_no_prompt(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_here("import", lines(tmp_path / "pairs.jsonl", *PAIRS), "--run", run)
    sides = []
    for side in ("train", "held-out"):
        result = run_here("export", tmp_path / f"{side}.jsonl", "--run", run, "--split", side)
        assert f"on the {side} side" in result.out
        sides.append({entry.prompt.id for entry in read_file(tmp_path / f"{side}.jsonl").examples})
    assert all(sides) and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 20
    prompts = run_here("export", tmp_path / "p.jsonl", "--run", run, "--split", "train", "--format", "prompt-only")
    assert f"{len(sides[0])} rows written as prompt-only" in prompts.out


def test_export_replaces_a_file_only_with_overwrite(tmp_path: Path) -> None:
    run = tmp_path / "run"
    out = lines(tmp_path / "out.jsonl", "mine\n")
    run_here("import", lines(tmp_path / "pairs.jsonl", *PAIRS), "--run", run)
    saved_rows = run_here("export", out, "--run", run)
    assert saved_rows == (2, "", f"assent: {out} exists: name another file, or replace it with --overwrite\n")
    assert out.read_text() == "mine\n"
    assert run_here("export", out, "--run", run, "--overwrite").status == 0
    assert len(read_file(out).examples) == 20


# Bad input


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of bad files, an empty run and one with comparisons."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder").mkdir()
    (folder / "empty.jsonl").touch()
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 99)[:-9])
    (folder / "binary.jsonl").write_bytes(bytes(range(256)))
    lines(folder / "unknown.jsonl", {"colour": "red"})
    lines(folder / "same.jsonl", {"prompt": "a", "chosen": "b", "rejected": "b"})
    lines(folder / "pairs.jsonl", *PAIRS)
    (folder / "one.toml").write_text("")
    assert assent("import", folder / "pairs.jsonl", "--run", folder / "full").status == 0
    return folder


TEN = [
    ("import", "name the file to read: assent import FILE"),
    ("import {}/nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
    ("import {}/folder", "folder is a folder without files of Parquet, Arrow, JSON or tables"),
    ("import {}/empty.jsonl", "empty.jsonl is empty"),
    ("import {}/cut.jsonl.gz", "cannot read "),
    ("import {}/binary.jsonl", "binary.jsonl is not UTF-8 (byte 0x80 in line 2)"),
    ("import {}/unknown.jsonl", "no format has rows of colour; known: "),
    ("import {}/pairs.jsonl --format preferense", "no format 'preferense'; did you mean 'preference'?"),
    ("import {}/same.jsonl", "no row of "),
    ("export {}/folder --run {}/full", "is a folder: name a file in it"),
]
"""Bad input: arguments and expected error."""
MORE = [
    ("import {}/pairs.jsonl --formt hh", "has no flag '--formt'; did you mean '--format'?"),
    ("import {}/pairs.jsonl {}/more.jsonl", "'import' takes one file and flags, not '"),
    ("dpo {}/one.toml two.toml", "'dpo' takes one recipe (.toml) and flags, not 'two.toml'"),
    ("import {}/pairs.jsonl --overwrite", "'assent import' has no flag '--overwrite'"),
    ("import {}/pairs.jsonl --format unpaired", "is valid unpaired: correct the file, or name another --format"),
    ("export --run {}/full", "name the file to write: assent export FILE"),
    ("export {}/out.jsonl", "no run at "),
    ("report", "no run at "),
    ("export {}/out.jsonl --run {}/folder", "holds no feedback with purpose 'train' to export"),
    ("export {}/out.jsonl --run {}/folder --format events", "holds nothing to export"),
    ("export {}/nowhere/out.jsonl --run {}/full", "cannot write "),
    ("export {}/out.jsonl --run {}/full --format preferense", "did you mean 'preference'?"),
    ("export {}/out.jsonl --run {}/full --format unpaired", "(preferences): name --format "),
    ("export {}/out.jsonl --run {}/full --split middle", "--split must be 'all', 'train' or 'held-out', got 'middle'"),
    ("export {}/out.jsonl --run {}/full --purpose gold", "holds no feedback with purpose 'gold' to export"),
    ("export {}/out.jsonl --run {}/full --format events --split train", "--split does not apply to events"),
    ("inspect --model {}/folder", "holds no model: it has no config.json"),
    ("inspect --model nobody/nothing", "cannot get the model 'nobody/nothing'"),
    ("inspect --n -1", "--n must be 1 or more, got -1"),
    ("inspect --completion Owl.", "--completion needs a prompt: give it with --text"),
    ("inspect --text Bird? --data {}/pairs.jsonl", "give a file or --text, not both"),
]


@pytest.mark.parametrize(("words", "expected"), TEN)
def test_bad_input_is_one_error_line_with_status_2(bad: Path, tmp_path: Path, words: str, expected: str) -> None:
    run = [] if "--run" in words else ["--run", str(tmp_path / "run")]
    refused(assent(*words.replace("{}", str(bad)).split(), *run), expected)


def test_unreadable_file_leaves_no_run_folder(tmp_path: Path) -> None:
    refused(run_here("import", tmp_path / "nowhere.jsonl", "--run", tmp_path / "run"), "No such file or directory")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("words", "expected"), MORE)
def test_invalid_settings_are_one_error_line(
    bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run = [] if "--run" in words else ["--run", str(tmp_path / "run")]
    refused(run_here(*words.replace("{}", str(bad)).split(), *run), expected)
    assert not (bad / "out.jsonl").exists()


def refused(result: CommandResult, expected: str) -> None:
    assert result.status == 2
    assert result.err.startswith("assent: ") and result.err.count("\n") == 1
    assert expected in result.err


# Inspect


def test_inspect_marks_prompt_trained_and_end_tokens(tmp_path: Path) -> None:
    result = run_here(
        "inspect", "--model", model(tmp_path / "m"), "--run", tmp_path / "r", "--text", "Bird?", "--completion", "Owl"
    )
    # ChatML's own tokens and one for each byte: 1+5+5+1+1 of the user, 1+10 that open the assistant turn, 3 and end.
    assert "--text: prompt 0-23 (24 tokens), trained 24-27 (4 tokens); 1 token after the end, not trained" in result.out
    assert (
        "<|im_start|>user\\n\nBird?<|im_end|>\\n\n<|im_start|>assistant\\n\n[O][w][l][<|im_end|> <- end](\\n)\n"
        in result.out
    )
    assert [line.split()[1:3] for line in result.out.splitlines()[-5:]] == [
        [name, "pass"] for name in ("prefix", "end", "bos", "pad", "trained")
    ]
    assert result.status == 0


def test_inspect_shows_ids_with_its_flag(tmp_path: Path) -> None:
    result = run_here(
        "inspect",
        "--model",
        model(tmp_path / "m"),
        "--run",
        tmp_path / "r",
        "--text",
        "a",
        "--completion",
        "b",
        "--ids",
    )
    assert "<|im_start|>=3 " in result.out and "[<|im_end|>=4 <- end]" in result.out


def test_inspect_uses_colour_only_in_a_terminal(tmp_path: Path) -> None:
    words = ("inspect", "--model", model(tmp_path / "m"), "--run", tmp_path / "r")
    plain = run_here(*words)
    coloured = assent(*words, environment={"FORCE_COLOR": "1", "TERM": "xterm-256color"})
    refused = assent(*words, environment={"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "1"})
    assert "\x1b[" not in plain.out and "[A][n]" in plain.out
    assert "\x1b[" in coloured.out and "[A]" not in re.sub(r"\x1b\[[0-9;]*m", "", coloured.out)
    assert "[A][n]" in re.sub(r"\x1b\[[0-9;]*m", "", refused.out)


def test_inspect_shows_both_sides_of_comparisons(tmp_path: Path) -> None:
    produced = model(tmp_path / "m")
    run = tmp_path / "r"
    file = lines(tmp_path / "pairs.jsonl", *PAIRS[:2])
    assert run_here("import", file, "--run", run, "--model", produced).status == 0
    of_run = run_here("inspect", "--run", run)
    of_file = run_here("inspect", file, "--model", produced, "--run", tmp_path / "other")
    assert of_run.out == of_file.out
    assert [line.split(":")[0] for line in of_run.out.splitlines() if ": prompt " in line] == [
        "1 chosen",
        "1 rejected",
        "2 chosen",
    ]
    assert run_here("inspect", "--run", run, "--n", "1").out.count(": prompt ") == 1


def test_inspect_reads_parquet_like_json_lines(tmp_path: Path) -> None:
    produced = model(tmp_path / "m")
    file = lines(tmp_path / "pairs.jsonl", *PAIRS[:2])
    pq.write_table(pa.Table.from_pylist(PAIRS[:2]), tmp_path / "pairs.parquet")
    of_lines, of_table = (
        run_here("inspect", path, "--model", produced, "--run", tmp_path / "r")
        for path in (file, tmp_path / "pairs.parquet")
    )
    assert (of_table.status, of_table.out) == (0, of_lines.out) and "1 chosen: prompt 0-" in of_table.out


def test_inspect_reports_a_failed_check_with_status_2(tmp_path: Path) -> None:
    broken = model(tmp_path / "m", CHATML.replace("<|im_end|>", ""))
    result = assent("inspect", "--model", broken, "--run", tmp_path / "r")
    assert result.status == 2
    assert (
        "(b) end      FAIL  nothing ends a turn" in result.out and "let the template write '<|im_end|>'" in result.out
    )
    assert result.err == f"assent: the tokenizer of {broken} fails at (b) end: see above\n"


def test_inspect_shows_no_tokens_if_the_template_refuses(tmp_path: Path) -> None:
    single = "{% if messages | length > 1 %}{{ raise_exception('one turn alone') }}{% endif %}"
    broken = model(tmp_path / "m", single + CHATML)
    result = run_here("inspect", "--model", broken, "--run", tmp_path / "r")
    assert result.status == 2
    assert "(a) prefix   FAIL" in result.out and "(e) trained     ?" in result.out and ": prompt " not in result.out


def test_inspect_accepts_a_pad_token_that_is_a_stop_token(tmp_path: Path) -> None:
    result = run_here("inspect", "--model", model(tmp_path / "m", pad_token="<|im_end|>"), "--run", tmp_path / "r")
    assert result.status == 0
    assert "(d) pad      pass  rows are padded by position" in result.out
    assert "the tokenizer's is '<|im_end|>', which also ends a completion\n" in result.out


def test_inspect_continues_after_a_refused_conversation(tmp_path: Path) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Bird?"}]
    rows = ({"messages": [*subset, {"role": "assistant", "content": "Owl."}]} for subset in (turns, turns[1:]))
    file = lines(tmp_path / "talk.jsonl", *rows)
    result = run_here("inspect", file, "--model", model(tmp_path / "m", strict), "--run", tmp_path / "r")
    assert result.status == 2
    assert "1 demonstration: the chat template fails on turns of system, user: no system here" in result.out
    assert "2 demonstration: prompt 0-" in result.out
    assert result.err.endswith("fails at 1 demonstration: see above\n")


def test_inspect_without_template_shows_plain_text(tmp_path: Path) -> None:
    plain = model(tmp_path / "m", None, bos_token="<s>")
    result = run_here("inspect", "--model", plain, "--run", tmp_path / "r", "--text", "A bird:", "--completion", " owl")
    assert "<s>A bird:[ ][o][w][l][<|im_end|> <- end]\n" in result.out
    open_task = run_here("inspect", "--model", plain, "--run", tmp_path / "r", "--text", "A bird:")
    assert "--text: prompt 0-7 (8 tokens), no completion" in open_task.out


def test_inspect_needs_no_run_and_accepts_any_model(tmp_path: Path) -> None:
    run = tmp_path / "r"
    file = lines(tmp_path / "pairs.jsonl", *PAIRS[:1])
    assert run_here("inspect", "--model", model(tmp_path / "m"), "--run", run).status == 0
    assert not run.exists()
    assert run_here("import", file, "--run", run, "--model", tmp_path / "m").status == 0
    second = run_here("inspect", "--run", run, "--model", model(tmp_path / "other", eos_token="</s>"))
    assert "1 chosen: prompt 0-" in second.out and "[</s> <- end]" in second.out
