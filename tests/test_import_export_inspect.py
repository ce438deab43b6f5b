"""Files in and out of a run, and what of them is trained on: as commands, on good files and on bad ones."""

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
from assent.formats.files.exchange import read
from assent.records import SkippedRow
from assent.store.database import Store
from assent.tools.import_ import keep, printable, reasons

ROOT = Path(__file__).parents[1]
HH = ROOT.parent / "shared/data/hh-rlhf"
needs_hh = pytest.mark.skipif(not HH.is_dir(), reason=f"needs the hh-rlhf files in {HH}")

PAIRS = [{"prompt": f"Bird {n}?", "chosen": f"An owl, {n}.", "rejected": "No idea."} for n in range(20)]
LABELS = [{"prompt": "Bird?", "completion": text, "label": good} for text, good in (("Owl.", True), ("Cat.", False))]


class Said(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


def assent(*words: object, environment: Mapping[str, str] | None = None) -> Said:
    """A command in a process of its own."""
    done = completed(*map(str, words), environment=environment)
    return Said(done.returncode, done.stdout, done.stderr)


def here(*words: object) -> Said:
    """The same without a new process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main([str(word) for word in words])
    return Said(status, out.getvalue(), err.getvalue())


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def model(folder: Path, template: str | None = CHATML, **special: str) -> Path:
    tokenizer(template, False, **special).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


# Import


def test_importing_twice_says_that_nothing_was_new(tmp_path: Path) -> None:
    file, run = lines(tmp_path / "pairs.jsonl", *PAIRS), tmp_path / "run"
    first, second = assent("import", file, "--run", run), assent("import", file, "--run", run)
    assert (first.status, second.status) == (0, 0)
    assert "20 of 20 rows read as preference (detected)\n  20 preferences about 20 prompts\n" in first.out
    assert f"  new in {run}: 20 prompts, 40 responses, 20 queries, 20 feedback\n" in first.out
    assert "nothing was new" in second.out and "new in " not in second.out


def test_broken_rows_are_counted_by_reason_and_kept_whole(tmp_path: Path) -> None:
    same = {"prompt": "Bird?", "chosen": "Owl.", "rejected": "Owl."}
    file = lines(tmp_path / "pairs.jsonl", PAIRS[0], "{broken\n", same, PAIRS[1], same)
    said = here("import", file, "--run", tmp_path / "run")
    assert said.status == 0
    assert "2 of 5 rows read as preference" in said.out
    assert "    2  identical replies: pairs.jsonl:3, pairs.jsonl:5\n" in said.out
    assert "    1  broken JSON: " in said.out and ": pairs.jsonl:2\n" in said.out
    kept = [json.loads(line) for line in (tmp_path / "run/rejected-pairs.jsonl").read_text().splitlines()]
    assert sorted(row["where"] for row in kept) == ["pairs.jsonl:2", "pairs.jsonl:3", "pairs.jsonl:5"]
    assert {row["row"] for row in kept} == {"{broken", json.dumps(same)}
    assert {row["reason"] for row in kept if row["where"] != "pairs.jsonl:2"} == {"identical replies"}


def test_two_files_of_one_name_keep_the_rejected_rows_of_both(tmp_path: Path) -> None:
    kept = tmp_path / "rejected.jsonl"
    first, second = SkippedRow("a:1", "why", "x"), SkippedRow("a:2", "why", "\u2028")
    for rows in ([first], [second], [first, second]):
        keep(rows, kept)
    assert [json.loads(line)["row"] for line in kept.read_text().splitlines()] == ["x", "\u2028"]


def test_reasons_come_by_frequency_and_name_the_first_rows() -> None:
    rejected = [SkippedRow(f"f:{n}", "rare" if n == 1 else "often") for n in range(1, 7)]
    assert reasons(rejected) == ["5  often: f:2, f:3, f:4, ...", "1  rare: f:1"]
    many = reasons(SkippedRow(f"f:{n}", f"reason {n}") for n in range(11))
    assert (len(many), many[-1]) == (9, "3  for 3 other reasons")


def test_what_strangers_wrote_cannot_upset_a_terminal() -> None:
    assert printable("a\x1b[31m é\ud800\n") == "a\\x1b[31m é\\ud800\\n"


def test_prompts_alone_become_turns_with_a_mode_and_generate_can_go_on(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "p.jsonl", *({"prompt": f"Bird {n}?"} for n in range(9)), {"prompt": "Owl?", "mode": "knowledge"}
    )
    run = tmp_path / "run"
    said = here("import", file, "--run", run, "--category", "creative", "--held-out", "0.5")
    sides = re.search(r"(\d+) to train on, (\d+) held out; have them answered: assent generate --run (\S+)", said.out)
    assert said.status == 0 and "read as prompt-only" in said.out and sides is not None
    assert int(sides[1]) + int(sides[2]) == 10 and sides[3] == str(run)
    with Store.open(run / "feedback.db") as store:
        found = list(store.prompts())
    assert {prompt.messages[0].role for prompt in found} == {"user"}
    assert sorted(prompt.category for prompt in found) == ["creative"] * 9 + ["knowledge"]
    later = here("import", file, "--run", run, "--category", "grounded")
    assert (
        "nothing was new" in later.out and "10 prompts were known: their mode stays as it was first told" in later.out
    )


def test_prompts_to_be_continued_stay_text(tmp_path: Path) -> None:
    file = lines(tmp_path / "p.jsonl", {"prompt": "Once upon a time"})
    assert here("import", file, "--run", tmp_path / "run", "--no-chat").status == 0
    with Store.open(tmp_path / "run/feedback.db") as store:
        assert [prompt.messages[0].role for prompt in store.prompts()] == ["text"]


@needs_hh
def test_hh_rlhf_goes_in_and_comes_out_as_every_format_that_holds_it(tmp_path: Path) -> None:
    run, source = tmp_path / "run", HH / "helpful-base.jsonl.gz"
    said = here("import", source, "--run", run)
    assert "2339 of 2354 rows read as hh-rlhf (detected)" in said.out
    assert re.search(r"\n    7  'rejected' goes on for another turn.*: helpful-base.jsonl.gz:169, ", said.out)
    assert len((run / "rejected-helpful-base.jsonl").read_text().splitlines()) == 15
    before = read(source).examples
    for format in ("hh-rlhf", "preference", "preference-implicit"):
        assert here("export", tmp_path / f"{format}.jsonl.gz", "--run", run, "--format", format).status == 0
        after = read(tmp_path / f"{format}.jsonl.gz")
        assert (after.format, len(after.examples), after.rejected) == (format, len(before), ())
    whole = here("export", tmp_path / "all.jsonl", "--run", run, "--format", "events")
    assert f"{2339 * 5} rows written as events, the whole store" in whole.out
    copied = here("import", tmp_path / "all.jsonl", "--run", tmp_path / "copy")
    assert "2339 prompts, 4678 responses, 2339 queries, 2339 feedback\n  new in" in copied.out


# Export


def test_an_export_says_what_it_left_out_and_why(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.jsonl"
    for name, rows in (("pairs", PAIRS), ("labels", LABELS)):
        here("import", lines(tmp_path / f"{name}.jsonl", *rows), "--run", run)
    said = here("export", out, "--run", run, "--format", "unpaired")
    assert said.status == 0
    assert f"{out}: 2 rows written as unpaired, of 22 in {run}\n  20 left out:\n" in said.out
    assert "    20  a preference, which this format does not hold: example 1, example 2, example 3, ...\n" in said.out
    assert [row["label"] for row in map(json.loads, out.read_text().splitlines())] == [True, False]


def test_the_two_sides_of_an_export_share_no_prompt_and_leave_none_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    here("import", lines(tmp_path / "pairs.jsonl", *PAIRS), "--run", run)
    sides = []
    for side in ("train", "held-out"):
        said = here("export", tmp_path / f"{side}.jsonl", "--run", run, "--split", side)
        assert f"on the {side} side" in said.out
        sides.append({each.prompt.id for each in read(tmp_path / f"{side}.jsonl").examples})
    assert all(sides) and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 20
    prompts = here("export", tmp_path / "p.jsonl", "--run", run, "--split", "train", "--format", "prompt-only")
    assert f"{len(sides[0])} rows written as prompt-only" in prompts.out


def test_an_export_replaces_a_file_only_when_told_to(tmp_path: Path) -> None:
    run, out = tmp_path / "run", lines(tmp_path / "out.jsonl", "mine\n")
    here("import", lines(tmp_path / "pairs.jsonl", *PAIRS), "--run", run)
    kept = here("export", out, "--run", run)
    assert kept == (2, "", f"assent: {out} exists: name another file, or replace it with --overwrite\n")
    assert out.read_text() == "mine\n"
    assert here("export", out, "--run", run, "--overwrite").status == 0
    assert len(read(out).examples) == 20


# Bad input


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bad files, an empty run and one with comparisons."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder").mkdir()
    (folder / "empty.jsonl").touch()
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 99)[:-9])
    (folder / "binary.jsonl").write_bytes(bytes(range(256)))
    lines(folder / "unknown.jsonl", {"colour": "red"})
    lines(folder / "same.jsonl", {"prompt": "a", "chosen": "b", "rejected": "b"})
    lines(folder / "pairs.jsonl", *PAIRS)
    assert assent("import", folder / "pairs.jsonl", "--run", folder / "full").status == 0
    return folder


TEN = [
    ("import", "name the file to read: assent import FILE"),
    ("import {}/nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
    ("import {}/folder", "folder is a folder without Parquet or Arrow files"),
    ("import {}/empty.jsonl", "empty.jsonl is empty"),
    ("import {}/cut.jsonl.gz", "cannot read "),
    ("import {}/binary.jsonl", "binary.jsonl is not UTF-8 (byte 0x80 in line 2)"),
    ("import {}/unknown.jsonl", "no format has rows of colour; known: "),
    ("import {}/pairs.jsonl --format preferense", "no format 'preferense'; did you mean 'preference'?"),
    ("import {}/same.jsonl", "no row of "),
    ("export {}/folder --run {}/full", "is a folder: name a file in it"),
]
"""Kinds of bad input, as a person meets them: words, and what is told."""
MORE = [
    ("import {}/pairs.jsonl --formt hh", "has no flag '--formt'; did you mean '--format'?"),
    ("import {}/pairs.jsonl {}/more.jsonl", "'import' takes one file and flags, not '"),
    ("dpo one.toml two.toml", "'dpo' takes one recipe (.toml) and flags, not 'two.toml'"),
    ("import {}/pairs.jsonl --overwrite", "'assent import' has no flag '--overwrite'"),
    ("import {}/pairs.jsonl --format unpaired", "can be used as unpaired: mend it, or name another --format"),
    ("export --run {}/full", "name the file to write: assent export FILE"),
    ("export {}/out.jsonl", "no run at "),
    ("report", "no run at "),
    ("export {}/out.jsonl --run {}/folder", "holds no feedback for purpose 'train' to export"),
    ("export {}/out.jsonl --run {}/folder --format events", "holds nothing to export"),
    ("export {}/nowhere/out.jsonl --run {}/full", "cannot write "),
    ("export {}/out.jsonl --run {}/full --format preferense", "did you mean 'preference'?"),
    ("export {}/out.jsonl --run {}/full --format unpaired", "(preferences): name --format "),
    ("export {}/out.jsonl --run {}/full --split middle", "split = 'middle' will not do"),
    ("export {}/out.jsonl --run {}/full --purpose gold", "holds no feedback for purpose 'gold' to export"),
    ("export {}/out.jsonl --run {}/full --format events --split train", "events are the whole store"),
    ("inspect --model {}/folder", "holds no model: it has no config.json"),
    ("inspect --model nobody/nothing", "cannot get the model 'nobody/nothing'"),
    ("inspect --n -1", "--n -1 shows nothing: it should be 1 or more"),
    ("inspect --answer Owl.", "an answer to what? name the question with --text"),
    ("inspect --text Bird? --data {}/pairs.jsonl", "show a file or a --text, not both"),
]


@pytest.mark.parametrize(("words", "told"), TEN)
def test_bad_input_is_told_in_one_line_with_status_2(bad: Path, tmp_path: Path, words: str, told: str) -> None:
    run = [] if "--run" in words else ["--run", str(tmp_path / "run")]
    refused(assent(*words.replace("{}", str(bad)).split(), *run), told)


def test_a_file_that_cannot_be_read_leaves_no_run_folder_behind(tmp_path: Path) -> None:
    refused(here("import", tmp_path / "nowhere.jsonl", "--run", tmp_path / "run"), "No such file or directory")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("words", "told"), MORE)
def test_what_cannot_be_done_is_told_in_one_line(
    bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run = [] if "--run" in words else ["--run", str(tmp_path / "run")]
    refused(here(*words.replace("{}", str(bad)).split(), *run), told)
    assert not (bad / "out.jsonl").exists()


def refused(said: Said, told: str) -> None:
    assert said.status == 2
    assert said.err.startswith("assent: ") and said.err.count("\n") == 1
    assert told in said.err


# Inspect


def test_inspect_marks_the_prompt_the_trained_tokens_and_the_end(tmp_path: Path) -> None:
    said = here(
        "inspect", "--model", model(tmp_path / "m"), "--run", tmp_path / "r", "--text", "Bird?", "--answer", "Owl"
    )
    # ChatML's own tokens and one for each byte: 1+5+5+1+1 of the user, 1+10 that open the answer, 3 and the end.
    assert (
        "--text: prompt 0-23 (24 tokens), trained 24-27 (4 tokens); 1 token after the end, part of nothing" in said.out
    )
    assert (
        "<|im_start|>user\\n\nBird?<|im_end|>\\n\n<|im_start|>assistant\\n\n[O][w][l][<|im_end|> <- end](\\n)\n"
        in said.out
    )
    assert [line.split()[1:3] for line in said.out.splitlines()[-5:]] == [
        [name, "pass"] for name in ("prefix", "end", "bos", "pad", "trained")
    ]
    assert said.status == 0


def test_inspect_shows_ids_when_asked(tmp_path: Path) -> None:
    said = here(
        "inspect", "--model", model(tmp_path / "m"), "--run", tmp_path / "r", "--text", "a", "--answer", "b", "--ids"
    )
    assert "<|im_start|>=3 " in said.out and "[<|im_end|>=4 <- end]" in said.out


def test_inspect_speaks_in_colour_only_where_that_is_wanted(tmp_path: Path) -> None:
    words = ("inspect", "--model", model(tmp_path / "m"), "--run", tmp_path / "r")
    plain = here(*words)
    coloured = assent(*words, environment={"FORCE_COLOR": "1", "TERM": "xterm-256color"})
    refused = assent(*words, environment={"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "1"})
    assert "\x1b[" not in plain.out and "[A][n]" in plain.out
    assert "\x1b[" in coloured.out and "[A]" not in re.sub(r"\x1b\[[0-9;]*m", "", coloured.out)
    assert "[A][n]" in re.sub(r"\x1b\[[0-9;]*m", "", refused.out)


def test_inspect_shows_both_sides_of_the_run_s_comparisons_or_of_a_file(tmp_path: Path) -> None:
    made, run, file = model(tmp_path / "m"), tmp_path / "r", lines(tmp_path / "pairs.jsonl", *PAIRS[:2])
    assert here("import", file, "--run", run, "--model", made).status == 0
    of_run, of_file = (
        here("inspect", "--run", run),
        here("inspect", file, "--model", made, "--run", tmp_path / "other"),
    )
    assert of_run.out == of_file.out
    assert [line.split(":")[0] for line in of_run.out.splitlines() if ": prompt " in line] == [
        "1 chosen",
        "1 rejected",
        "2 chosen",
    ]
    assert here("inspect", "--run", run, "--n", "1").out.count(": prompt ") == 1


def test_inspect_reads_parquet_as_it_reads_lines(tmp_path: Path) -> None:
    made, file = model(tmp_path / "m"), lines(tmp_path / "pairs.jsonl", *PAIRS[:2])
    pq.write_table(pa.Table.from_pylist(PAIRS[:2]), tmp_path / "pairs.parquet")
    of_lines, of_table = (
        here("inspect", path, "--model", made, "--run", tmp_path / "r") for path in (file, tmp_path / "pairs.parquet")
    )
    assert (of_table.status, of_table.out) == (0, of_lines.out) and "1 chosen: prompt 0-" in of_table.out


def test_inspect_names_a_fault_and_what_to_do_and_ends_with_status_2(tmp_path: Path) -> None:
    broken = model(tmp_path / "m", CHATML.replace("<|im_end|>", ""))
    said = assent("inspect", "--model", broken, "--run", tmp_path / "r")
    assert said.status == 2
    assert "(b) end      FAIL  nothing ends a turn" in said.out and "let the template write '<|im_end|>'" in said.out
    assert said.err == f"assent: the tokenizer of {broken} fails at (b) end: see above\n"


def test_inspect_of_a_template_that_refuses_conversations_shows_no_tokens(tmp_path: Path) -> None:
    single = "{% if messages | length > 1 %}{{ raise_exception('one turn alone') }}{% endif %}"
    broken = model(tmp_path / "m", single + CHATML)
    said = here("inspect", "--model", broken, "--run", tmp_path / "r")
    assert said.status == 2
    assert "(a) prefix   FAIL" in said.out and "(e) trained     ?" in said.out and ": prompt " not in said.out


def test_inspect_says_that_a_pad_which_ends_answers_does_no_harm(tmp_path: Path) -> None:
    said = here("inspect", "--model", model(tmp_path / "m", pad_token="<|im_end|>"), "--run", tmp_path / "r")
    assert said.status == 0
    assert "(d) pad      pass  rows are padded by position" in said.out
    assert "the tokenizer's is '<|im_end|>', which also ends an answer\n" in said.out


def test_inspect_goes_on_past_a_conversation_that_the_template_refuses(tmp_path: Path) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Bird?"}]
    rows = ({"messages": [*some, {"role": "assistant", "content": "Owl."}]} for some in (turns, turns[1:]))
    file = lines(tmp_path / "talk.jsonl", *rows)
    said = here("inspect", file, "--model", model(tmp_path / "m", strict), "--run", tmp_path / "r")
    assert said.status == 2
    assert "1 demonstration: the chat template fails on turns of system, user: no system here" in said.out
    assert "2 demonstration: prompt 0-" in said.out
    assert said.err.endswith("fails at 1 demonstration: see above\n")


def test_inspect_of_text_without_a_template_continues_it(tmp_path: Path) -> None:
    plain = model(tmp_path / "m", None, bos_token="<s>")
    said = here("inspect", "--model", plain, "--run", tmp_path / "r", "--text", "A bird:", "--answer", " owl")
    assert "<s>A bird:[ ][o][w][l][<|im_end|> <- end]\n" in said.out
    asked = here("inspect", "--model", plain, "--run", tmp_path / "r", "--text", "A bird:")
    assert "--text: prompt 0-7 (8 tokens), not answered" in asked.out


def test_inspect_needs_no_run_and_looks_at_one_with_any_model(tmp_path: Path) -> None:
    run, file = tmp_path / "r", lines(tmp_path / "pairs.jsonl", *PAIRS[:1])
    assert here("inspect", "--model", model(tmp_path / "m"), "--run", run).status == 0
    assert not run.exists()
    assert here("import", file, "--run", run, "--model", tmp_path / "m").status == 0
    other = here("inspect", "--run", run, "--model", model(tmp_path / "other", eos_token="</s>"))
    assert "1 chosen: prompt 0-" in other.out and "[</s> <- end]" in other.out
