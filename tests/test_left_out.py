"""Rows that training stages leave out: the template refuses them, or both completions are the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from assent.cli import main
from assent.formats.files.importing import insert_examples
from assent.models.tokenizer import ChatTokenizer
from assent.records import Completion, Message, Preference, Prompt, RankedCompletions, independent_pairs
from assent.store.database import Store
from assent.training.left_out import LeftOut
from assent.training.preferences import group_by_prompt

STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
TRIMS = tiny.CHATML.replace("m['content']", "m['content'] | trim")
PROMPT_WITH_SYSTEM = Prompt((Message("system", "Be brief."), Message("user", "Who?")))
SHORT = ("--dtype", "float32", "--held-out", "0")


def make_model(folder: Path, template: str) -> Path:
    """Write a tiny model with another chat template."""
    tiny.make(folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def strict_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("strict_model") / "model", STRICT + tiny.CHATML)


@pytest.fixture(scope="module")
def trimming_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("trimming_model") / "model", TRIMS)


def make_pair(number: int, chosen: str = "The duck.", rejected: str = "No.") -> Preference:
    return Preference(Prompt.ask(f"Who is number {number}?"), Completion(chosen), Completion(rejected))


def make_run(run: Path, examples: list[Preference]) -> Path:
    """Return a run whose store contains invalid examples too, as older versions of assent stored them."""
    run.mkdir()
    with Store.open(run / "feedback.db") as store:
        insert_examples(examples, store, "old")
    return run


def read_result(run: Path, stage: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((run / "done" / f"{stage}.json").read_text())
    return fields


@pytest.mark.parametrize("stage", ["dpo", "reward", "kto"])
def test_stage_skips_a_row_that_the_template_refuses(
    stage: str, strict_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Preference(PROMPT_WITH_SYSTEM, Completion("The duck."), Completion("No."))
    run = make_run(tmp_path / "run", [*(make_pair(i) for i in range(8)), odd])
    assert main([stage, "--run", str(run), "--model", str(strict_model), *SHORT]) == 0
    assert read_result(run, stage)["unrenderable"] >= 1
    assert read_result(run, stage)["prompts"] == 8
    output = capsys.readouterr().err
    assert (
        "cannot be encoded is left out; the first, 'Who?': the chat template fails on turns of system, user"
        in output.replace("rows that cannot be encoded are", "row that cannot be encoded is")
    )
    assert "no system turn" in output


def test_import_names_rows_that_the_template_refuses(
    strict_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"Who is {i}?"}]} for i in range(3)]
    rows.append({"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]})
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    assert main(["import", str(file), "--run", str(run), "--model", str(strict_model)]) == 0
    output = capsys.readouterr().out
    assert "3 of 4 rows read as prompt-only" in output
    assert "1  the chat template fails on turns of system, user: no system turn: prompts.jsonl:4" in output
    with Store.open(run / "feedback.db") as store:
        assert store.counts().prompts == 3
    assert (
        main(["import", str(file), "--run", str(tmp_path / "unnamed")]) == 0
    )  # without a model, all rows are accepted
    assert "4 of 4 rows" in capsys.readouterr().out


def test_unreadable_model_does_not_stop_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Who?"}\n')
    words = ["import", str(file), "--run", str(tmp_path / "run"), "--model", str(tmp_path / "nothing")]
    assert main(words) == 0
    assert (
        "rows are not checked against the chat template of the run's model: no model folder" in capsys.readouterr().err
    )


def test_generate_skips_prompts_that_the_template_refuses(
    strict_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(
        tmp_path / "run", [make_pair(0), Preference(PROMPT_WITH_SYSTEM, Completion("The duck."), Completion("No."))]
    )
    few = ("--n", "1", "--n-held-out", "0", "--max-new-tokens", "4")
    assert main(["generate", "--run", str(run), "--model", str(strict_model), *few, *SHORT]) == 0
    assert read_result(run, "generate")["prompts"] == 1
    assert "1 of 2 prompts are left out, which cannot be encoded" in capsys.readouterr().err


def test_stage_without_valid_rows_is_one_error_with_a_reason(
    strict_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [Preference(PROMPT_WITH_SYSTEM, Completion("The duck."), Completion("No."))])
    for stage in ("dpo", "reward"):
        assert main([stage, "--run", str(run), "--model", str(strict_model), *SHORT]) == 2
        assert "all 1 comparisons" in (output := capsys.readouterr().err) and "no system turn" in output


@pytest.mark.parametrize("stage", ["dpo", "reward", "kto"])
def test_pairs_of_identical_tokens_are_counted_and_left_out(
    stage: str, trimming_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = [make_pair(i, "The duck.", " The duck.\n") for i in range(10, 13)]
    run = make_run(tmp_path / "run", [*(make_pair(i) for i in range(8)), *alike])
    assert main([stage, "--run", str(run), "--model", str(trimming_model), *SHORT]) == 0
    assert (read_result(run, stage)["identical"], read_result(run, stage)["prompts"]) == (3, 8)
    assert "3 pairs are left out: both completions are the same tokens" in capsys.readouterr().err


def test_identical_completions_of_a_tier_are_merged(trimming_model: Path) -> None:
    chat_tokenizer = tiny.load(trimming_model).chat_tokenizer
    prompt = Prompt.ask("Who?")
    a, copy_of_a, b, c = map(Completion, ("The duck.", " The duck.\n", "No.", "The owl."))
    expected, _ = group_by_prompt([RankedCompletions(prompt, ((a,), (b, c)))], chat_tokenizer, 100)
    merged, left_out = group_by_prompt([RankedCompletions(prompt, ((a, copy_of_a), (b, c)))], chat_tokenizer, 100)
    assert (merged, left_out) == (expected, LeftOut())
    assert [pair.weight for pair in merged[0].pairs] == [independent_pairs(3) / 3] * 2


def test_ranking_drops_identical_completions_of_two_tiers(trimming_model: Path) -> None:
    chat_tokenizer = tiny.load(trimming_model).chat_tokenizer
    prompt = Prompt.ask("Who?")
    a, copy_of_a, b, c = map(Completion, ("The duck.", " The duck.\n", "No.", "The owl."))
    (group,), left_out = group_by_prompt(
        [RankedCompletions(prompt, ((a,), (b,), (c,), (copy_of_a,)))], chat_tokenizer, 100
    )
    duck, no, owl = (
        group.tokens.completions.index(chat_tokenizer.encode_completion(prompt, text)) for text in (a, b, c)
    )
    assert left_out == LeftOut(identical=1)
    assert [(p.chosen, p.rejected) for p in group.pairs] == [
        (duck, no),
        (duck, owl),
        (no, owl),
        (no, duck),
        (owl, duck),
    ]
    assert [(r.indices, r.tiers) for r in group.rankings] == [((no, owl), (1, 2))]


def test_left_out_counts_add_up(trimming_model: Path) -> None:
    chat_tokenizer: ChatTokenizer = tiny.load(trimming_model).chat_tokenizer
    long = make_pair(0, "The duck. " * 200)
    groups, left_out = group_by_prompt([make_pair(0), long, make_pair(1, "x", "x ")], chat_tokenizer, 100)
    assert ([len(group.rankings) for group in groups], left_out) == ([1], LeftOut(too_long=1, identical=1))
    assert left_out + LeftOut(unrenderable=2) == LeftOut(1, 1, 2)
