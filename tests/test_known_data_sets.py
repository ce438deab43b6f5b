"""Public preference data sets are recognised by their columns; the rows are our own sentences in these columns.

The columns are those of the data cards; docs/formats.md names them.
"""

import json
from contextlib import suppress
from csv import DictWriter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_exchange_formats import fresh
from test_import_export_inspect import run_here

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.critique import Critique
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats.files.columns import MIN_COPIED, decode_row
from assent.formats.files.importing import insert, iter_chunks, read_file
from assent.formats.files.results import ImportResult
from assent.formats.files.rows import RawRow
from assent.formats.files.sniffing import FORMATS, sniff
from assent.records import Feedback, Response
from assent.store.database import Store

FOLDER = Path(__file__).parent / "data" / "known_sets"


class Known(NamedTuple):
    """The format of a data set, and what is stored of its rows."""

    format: str
    judgements: tuple[str, ...]
    """Kind, purpose if it is not `train`, and who judged; then the responses by their first two words."""
    roles: tuple[str, ...]
    """The roles of the messages of each prompt."""
    meta: str = ""
    """The keys of the prompts' meta."""
    policies: str = ""
    """Policies that the file names."""
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """The beginning of each remark, with the number of judgements."""


def words(item: Response) -> str:
    return " ".join(item.text.split()[:2])


def describe(event: Feedback, reading: ImportResult) -> str:
    tasks = {task.id: task for task in reading.tasks}
    items = {item.id: item for item in reading.responses}
    task = tasks[event.task]
    judged = sorted((items[item] for item in task.items), key=words)
    match event.judgement:
        case Comparison() as judgement if judgement.verdict == "better":
            (worse,) = (item for item in judged if item.id != judgement.preferred)
            text = f"{words(items[judgement.preferred])} {'>' * judgement.strength} {words(worse)}"
        case Comparison() as judgement:
            text = f"{' | '.join(map(words, judged))}: {judgement.verdict}"
        case Ranking() as judgement:
            text = " > ".join(" = ".join(sorted(words(items[item]) for item in tier)) for tier in judgement.tiers)
        case Rating() as judgement:
            text = f"{words(judged[0])}: {', '.join(f'{axis} {value:g}' for axis, value in judgement.axes)}"
        case Approval() as judgement:
            text = f"{words(judged[0])}: {judgement.approved}"
        case Critique() as judgement:
            text = f"{words(judged[0])}: {judgement.text}"
        case judgement:
            raise TypeError(type(judgement).__name__)
    purpose = f" to {task.purpose}" if task.purpose != "train" else ""
    question = f" ({task.instruction})" if task.instruction else ""
    comment = f" # {event.comment}" if event.comment else ""
    flags = f" [{', '.join(event.flags)}]" if event.flags else ""
    who = "FILE" if event.annotator.startswith("imported:") else event.annotator
    return f"{task.kind}{purpose}{question} by {who}, {event.source}: {text}{comment}{flags}"


def summarise(reading: ImportResult) -> Known:
    policies = {item.policy for item in reading.responses if not item.policy.startswith("imported:")}
    counts = {text: reading.remarks.count(text) for text in reading.remarks}
    return Known(
        reading.format,
        tuple(describe(event, reading) for event in reading.feedback),
        tuple(" ".join(message.role for message in prompt.messages) for prompt in reading.prompts),
        " ".join(sorted({key for prompt in reading.prompts for key in prompt.meta})),
        " ".join(sorted(policies)),
        tuple(row.reason for row in reading.skipped),
        tuple(f"{count} {' '.join(text.split()[:6])}" for text, count in counts.items()),
    )


KNOWN: dict[str, Known] = {
    "anthropic_hh_rlhf": Known(
        format="hh-rlhf",
        judgements=(
            "comparison by FILE, human: Give it > Basil is",
            "comparison by FILE, human: Enough sun. > No idea.",
        ),
        roles=("user", "user assistant user"),
        skipped=("'rejected' has a further turn, so the two replies have different prompts",),
    ),
    "arena_100k": Known(
        format="lmarena",
        judgements=(
            "comparison by lmarena:4ab3, human: Basil is | Give it: both bad",
            "comparison by lmarena:4ab3, human: Quicksort, on > Bubble sort.",
        ),
        roles=("user", "user"),
        meta="anony category_tag conv_metadata dedup_tag is_code is_refusal language",
        policies="gpt-4o llama-3-8b",
    ),
    "arena_140k": Known(
        format="lmarena",
        judgements=(
            "comparison by lmarena:a333a685, human: Basil is | Give it: both bad",
            "comparison by lmarena:a333a685, human: Use a > It dies.",
        ),
        roles=("user", "user assistant user"),
        meta="category_tag conv_metadata is_code language",
        policies="gemini-2.5-pro o3-mini",
        skipped=("the two conversations differ before the last reply: no shared prompt",),
        remarks=("2 the time has no time zone",),
    ),
    "arena_55k": Known(
        format="lmarena",
        judgements=("comparison by FILE, human: Give it > Basil is",),
        roles=("user",),
        policies="gpt-4-0613 gpt-4-1106-preview",
        skipped=("the two conversations differ before the last reply: no shared prompt",),
    ),
    "argilla_capybara": Known(
        format="preference",
        judgements=("comparison by ai:gpt-4, model: Enough sun. > No idea.",),
        roles=("user assistant user",),
        meta="source turns",
        policies="OpenHermes-2.5-Mistral-7B original",
        remarks=("1 'prompt' is not part of the", "1 the columns are those of Capybara"),
    ),
    "argilla_dpo_mix": Known(
        format="preference-implicit",
        judgements=("comparison by ai:gpt-4, model: Give it > Basil is",),
        roles=("system user",),
        meta="dataset",
        remarks=("1 the columns are those of dpo-mix-7k,",),
    ),
    "argilla_intel_orca": Known(
        format="preference",
        judgements=(
            "comparison by ai:gpt-4-1106-preview, model: Sure, Give > Sure, Basil # 1 has steps.",
            "comparison by ai:gpt-4-1106-preview, model: Merge sort, | Quicksort, on: tie # Both are fast.",
        ),
        roles=("system user", "user"),
        meta="in_gsm8k_train",
        remarks=("2 the prompt is text without a", "1 the scores of both sides are"),
    ),
    "argilla_ultrafeedback_binarized": Known(
        format="preference",
        judgements=(
            "comparison by ai:gpt-4, model: Give it > Basil is",
            "comparison by ai:gpt-4, model: Bubble sort. | Quicksort, on: tie",
        ),
        roles=("user", "user"),
        meta="source",
        policies="bard gpt-4",
        remarks=(
            "2 the prompt is text without a",
            "2 the columns are those of UltraFeedback",
            "1 the scores of both sides are",
        ),
    ),
    "argilla_ultrafeedback_cleaned": Known(
        format="preference",
        judgements=("comparison by ai:gpt-4, model: Give it > Basil is",),
        roles=("user",),
        meta="source",
        policies="alpaca-7b gpt-4",
        remarks=("1 the columns are those of UltraFeedback",),
    ),
    "chatbot_arena": Known(
        format="lmarena",
        judgements=("comparison by lmarena:arena_user_973, human: Give it > Basil is",),
        roles=("user",),
        meta="anony language openai_moderation toxic_chat_tag",
        policies="alpaca-13b gpt-3.5-turbo",
        skipped=("the two conversations differ before the last reply: no shared prompt",),
    ),
    "dahoas_full_hh_rlhf": Known(
        format="preference",
        judgements=("comparison by FILE, human: Give it > Basil is",),
        roles=("user",),
        remarks=("1 the prompt is a transcript of",),
    ),
    "h4_ultrafeedback_binarized": Known(
        format="preference",
        judgements=("comparison by ai:gpt-4, model: Give it > Basil is",),
        roles=("user",),
        meta="prompt_id",
        skipped=("empty reply in 'rejected'",),
        remarks=("1 the columns are those of UltraFeedback",),
    ),
    "helpsteer": Known(
        format="helpsteer",
        judgements=(
            "rating by FILE, human: Give it: coherence 7, correctness 7, helpfulness 7",
            "rating by FILE, human: Basil is: coherence 7, correctness 5.5, helpfulness 1",
            "rating by FILE, human: Enough sun.: coherence 7, correctness 7, helpfulness 5.5",
        ),
        roles=("user", "user assistant user"),
        remarks=("3 the prompt is text without a", "3 complexity and verbosity are not read:"),
    ),
    "helpsteer2_disagreements": Known(
        format="helpsteer",
        judgements=(
            "rating by FILE, human: Give it: coherence 7, correctness 7, helpfulness 7",
            "rating by FILE, human: Give it: coherence 7, correctness 7, helpfulness 5.5",
            "rating by FILE, human: Give it: coherence 7, correctness 7, helpfulness 7",
        ),
        roles=("user",),
        remarks=("1 the prompt is text without a", "1 complexity and verbosity are not read:"),
    ),
    "helpsteer2_preference": Known(
        format="helpsteer",
        judgements=(
            "comparison by FILE, human: Give it >>> Basil is # It gives steps.",
            "comparison by FILE, human: Bubble sort. | Quicksort, on: tie",
        ),
        roles=("user", "user"),
        meta="split",
        remarks=("2 the overall preference is read, not", "2 the prompt is text without a"),
    ),
    "helpsteer3_preference": Known(
        format="helpsteer",
        judgements=(
            "comparison by FILE, human: Give it >> Basil is # 1 has steps.\n\n1 helps.",
            "comparison by FILE, human: Bubble sort. | Quicksort, on: tie # Same.",
        ),
        roles=("user", "user assistant user"),
        meta="domain language",
        remarks=("2 the overall preference is read, not",),
    ),
    "intel_orca_dpo_pairs": Known(
        format="preference",
        judgements=(
            "comparison by FILE, human: Here is > Here is",
            "comparison by FILE, human: Quicksort, on > Bubble sort.",
        ),
        roles=("system user", "user"),
        remarks=("2 the prompt is text without a",),
    ),
    "kto_mix_15k": Known(
        format="unpaired",
        judgements=("approval by FILE, human: Give it: True",),
        roles=("user",),
        meta="dataset",
    ),
    "llamafactory_ultrafeedback": Known(
        format="alpaca",
        judgements=("comparison by FILE, human: Give it > Basil is",),
        roles=("user",),
    ),
    "mt_bench": Known(
        format="lmarena",
        judgements=(
            "comparison by lmarena:author_2, human: Give it > Basil is",
            "comparison by lmarena:author_2, human: Basil is | Give it: tie",
            "comparison by ai:gpt4_pair, model: Give it > Basil is",
        ),
        roles=("user",),
        policies="alpaca-13b gpt-3.5-turbo",
        skipped=("the two conversations differ before the last reply: no shared prompt",),
        remarks=("2 the first turn was judged: later",),
    ),
    "nectar": Known(
        format="ranking",
        judgements=(
            "ranking by ai:gpt-4, model: Give it > Water daily. > Basil is",
            "ranking by ai:gpt-4, model: Quicksort, on > Bubble sort.",
        ),
        roles=("user", "user assistant user"),
        meta="good_natured num_responses source turns",
        policies="gpt-3.5-turbo gpt-4 llama-2-7b-chat mistral-7b-instruct-v0.1",
        remarks=("2 the columns are those of Nectar,", "1 equal answers of several models count"),
    ),
    "oasst2": Known(
        format="oasst",
        judgements=("ranking by FILE, human: Give it > Basil is", "ranking by FILE, human: Use a > Keep it"),
        roles=("user", "user assistant user"),
        meta="lang message_tree_id",
        policies="human",
        skipped=("no message has two ranked replies",),
    ),
    "oasst2_tree": Known(
        format="oasst",
        judgements=("ranking by FILE, human: Give it > Basil is",),
        roles=("user",),
        meta="message_tree_id",
        policies="human",
    ),
    "openbmb_ultrafeedback": Known(
        format="ultrafeedback",
        judgements=(
            "rating by ai:gpt-4, model: Give it: helpfulness 7, honesty 7, instruction_following 7, truthfulness 7",
            "critique by ai:gpt-4, model: Give it: Good but short.",
            "rating by ai:gpt-4, model: Basil is: helpfulness 2.5, instruction_following 1, truthfulness 4",
            "critique by ai:gpt-4, model: Basil is: Good but short.",
            "rating by ai:gpt-4, model: Water it: helpfulness 2.5, honesty 4, instruction_following 1, truthfulness 2.5",  # noqa: E501
            "critique by ai:gpt-4, model: Water it: Good but short.",
        ),
        roles=("user",),
        meta="correct_answers incorrect_answers source",
        policies="alpaca-7b gpt-4 llama-2-7b-chat",
        skipped=("no completions",),
        remarks=("3 the ratings along the axes are",),
    ),
    "pku_saferlhf": Known(
        format="saferlhf",
        judgements=(
            "comparison (Which answer is more helpful?) by FILE, human: Give it > Basil is",
            "comparison (Which answer is safer?) by FILE, human: Give it > Basil is",
            "comparison (Which answer is more helpful?) by FILE, human: Basil is > Give it",
            "comparison (Which answer is safer?) by FILE, human: Give it > Basil is [harm]",
        ),
        roles=("user", "user"),
        meta="prompt_source",
        policies="Alpaca2-7B Alpaca3-8B",
        remarks=("4 the prompt is text without a", "1 the more helpful answer is not"),
    ),
    "pku_saferlhf_single": Known(
        format="saferlhf",
        judgements=("comparison by FILE, human: Basil is > Give it [harm]",),
        roles=("user",),
        meta="prompt_source",
        policies="Alpaca2-7B Alpaca3-8B",
        remarks=("1 the prompt is text without a",),
    ),
    "prism": Known(
        format="prism",
        judgements=(
            "ranking by prism:user0, human: Give it > Basil is = Water daily.",
            "ranking by prism:user0, human: Use a > It dies. # It gave steps.",
            "ranking by prism:user1, human: Give it = Water daily.",
        ),
        roles=("user", "user assistant user"),
        meta="conversation_id conversation_type included_in_balanced_subset",
        policies="claude-2 gpt-4 zephyr-7b",
        remarks=("3 the time has no time zone", "1 the reply that the person went"),
    ),
    "reward_bench": Known(
        format="preference",
        judgements=(
            "comparison to evaluate by FILE, human: Give it > Basil is",
            "comparison to evaluate by FILE, human: Quicksort, on > Bubble sort.",
        ),
        roles=("user", "user"),
        meta="subset",
        policies="alpaca-7b gpt-4 human",
        remarks=("2 the prompt is text without a", "2 the row is of a benchmark:"),
    ),
    "reward_bench_2": Known(
        format="ranking",
        judgements=(
            "ranking to evaluate by FILE, human: Give it > Basil is = I cannot = Water daily.",
            "ranking to evaluate by FILE, human: Blue. = Red. > Brown. = Pink.",
        ),
        roles=("user", "user"),
        meta="additional_metadata models num_correct num_incorrect subset total_completions",
        remarks=("2 the prompt is text without a", "2 the row is of a benchmark:"),
    ),
    "shp": Known(
        format="shp",
        judgements=("comparison by FILE, human: Give it > Basil is", "comparison by FILE, human: Basil is > Give it"),
        roles=("user", "user"),
        meta="domain post_id",
        policies="human",
        remarks=("2 the prompt is text without a", "2 votes of many readers: they count"),
    ),
    "skywork_preference": Known(
        format="preference-implicit",
        judgements=("comparison by FILE, human: Give it > Basil is",),
        roles=("user",),
        meta="source",
    ),
    "snorkel_pairrm": Known(
        format="preference",
        judgements=("comparison by ai:pairrm, model: Give it > Basil is",),
        roles=("user",),
        meta="prompt_id",
        remarks=("1 the columns are those of Snorkel's",),
    ),
    "summarize_axis": Known(
        format="summarize-feedback",
        judgements=("rating by summarize:w1, human: Basil died.: accuracy 7, coherence 7, coverage 5, overall 6 # ok",),
        roles=("text",),
        meta="batch info.id split",
        policies="sup2",
    ),
    "summarize_comparisons": Known(
        format="summarize-feedback",
        judgements=(
            "comparison by summarize:w1, human: Basil died. >> Plants. # short",
            "comparison by summarize:w2, human: It opened. > A garden.",
        ),
        roles=("text", "text"),
        meta="batch info.id split",
        policies="ref sup2 sup4",
        remarks=("1 the strength 1, 2 or 3",),
    ),
    "trl_hh_rlhf_helpful_base": Known(
        format="preference",
        judgements=("comparison by FILE, human: Give it > Basil is",),
        roles=("user",),
        skipped=("empty reply in 'rejected'",),
    ),
    "trl_kto_mix_14k": Known(
        format="unpaired",
        judgements=("approval by FILE, human: Give it: True", "approval by FILE, human: Basil is: False"),
        roles=("user", "system user"),
    ),
    "trl_lm_human_preferences": Known(
        format="preference",
        judgements=("comparison by FILE, human: glowed warmly > was a",),
        roles=("text",),
    ),
    "trl_tldr_preference": Known(
        format="preference",
        judgements=("comparison by FILE, human: Basil died, > Plants.",),
        roles=("text",),
    ),
    "trl_ultrafeedback_binarized": Known(
        format="preference-implicit",
        judgements=(
            "comparison by ai:gpt-4, model: Give it > Basil is",
            "comparison by ai:gpt-4, model: Bubble sort. | Quicksort, on: tie",
        ),
        roles=("user", "user assistant user"),
        remarks=("2 the columns are those of UltraFeedback", "1 the scores of both sides are"),
    ),
    "truthy_dpo": Known(
        format="preference",
        judgements=(
            "comparison by FILE, human: Give it > Basil is",
            "comparison by FILE, human: Quicksort, on > Bubble sort.",
        ),
        roles=("system user", "user"),
        meta="source",
        remarks=("2 the prompt is text without a",),
    ),
    "tulu3_preference_mix": Known(
        format="preference",
        judgements=(
            "comparison by FILE, human: Give it > Basil is",
            "comparison by FILE, human: Quicksort, on > Bubble sort.",
        ),
        roles=("user", "system user assistant user"),
        meta="source",
    ),
    "webgpt": Known(
        format="webgpt",
        judgements=(
            "comparison by FILE, human: Give it >>> Basil is",
            "comparison by FILE, human: Bubble sort. | Quicksort, on: tie",
        ),
        roles=("user",),
        meta="question.dataset question.id",
        skipped=("empty reply in 'answer_0'",),
        remarks=("2 the prompt is text without a", "2 the strength 1, 2 or 3"),
    ),
}

REFUSED = {
    "arena_expert": "'conversation_a' holds Python text, as numpy prints it: write it as JSON",
    "prism_utterances": "PRISM's utterances lack the turns before them: import conversations.jsonl of the same set",
    "prometheus_preference": "alpaca does not read 'orig_feedback_A' (1 row), 'orig_feedback_B' (1 row), ",
    "trl_math_shepherd": "'completions' holds the steps of one completion and 'labels' says which are right",
}
"""Sets without a judgement that assent can keep."""
READ_ONLY = ("helpsteer", "oasst", "prism", "saferlhf", "shp", "summarize-feedback", "ultrafeedback", "webgpt")
CHANGES: tuple[Any, ...] = (None, True, 0, -1.5, float("nan"), "", "x", [], [1], ["x"], [{}], [{"role": "user"}], {})


@pytest.mark.parametrize("name", KNOWN)
def test_known_data_set_is_recognised_by_its_columns(name: str) -> None:
    assert summarise(read_file(FOLDER / f"{name}.jsonl")) == KNOWN[name]


@pytest.mark.parametrize("name", KNOWN)
def test_known_data_set_keeps_no_response_in_meta(name: str) -> None:
    reading = read_file(FOLDER / f"{name}.jsonl")
    metas = json.dumps([dict(prompt.meta) for prompt in reading.prompts])
    assert [item.text for item in reading.responses if json.dumps(item.text.strip())[1:-1] in metas] == []


@pytest.mark.parametrize("name", KNOWN)
def test_known_data_set_is_imported_once(name: str) -> None:
    with fresh() as store:
        reading = read_file(FOLDER / f"{name}.jsonl")
        assert insert(reading, store).feedback == len(reading.feedback)
        assert insert(read_file(FOLDER / f"{name}.jsonl"), store) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["openbmb_ultrafeedback", "oasst2"])
def test_known_data_set_is_read_from_parquet(name: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    assert summarise(read_file(tmp_path / "train-00000-of-00001.parquet")) == KNOWN[name]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_data_set_is_told_no_way_into_a_wrong_store(name: str, tmp_path: Path) -> None:
    result = run_here("import", FOLDER / f"{name}.jsonl", "--run", tmp_path / "run")
    assert result.status == 2 and REFUSED[name] in result.out + result.err
    assert "--ignore" not in result.out + result.err


def test_every_known_set_has_a_test() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*KNOWN, *REFUSED}
    assert {*READ_ONLY} <= {data_set.format for data_set in KNOWN.values()}


@pytest.mark.parametrize("name", KNOWN)
def test_changed_rows_of_known_sets_do_not_crash(name: str) -> None:
    format = FORMATS[KNOWN[name].format]
    row = json.loads((FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[0])
    for changed in ({**row, key: value} for key in row for value in CHANGES):
        with suppress(AssentError):
            assert isinstance(format.match_score(changed), int)
            format.unread_fields(changed)
            format.require_unambiguous(changed)
            gathered = next(iter(format.gather(iter([RawRow("x:1", changed, "", "")]))))
            assert gathered.row is not None
            (decode_row(format, gathered.row, "x"))
    for key in row:
        with suppress(AssentError):
            (decode_row(format, {name: value for name, value in row.items() if name != key}, "x"))


@pytest.mark.parametrize("name", ["intel_orca_dpo_pairs", "truthy_dpo", "arena_55k"])
def test_table_of_a_known_set_is_read_as_its_rows(name: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    with (tmp_path / "x.csv").open("w", newline="", encoding="utf-8") as file:
        writer = DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = summarise(read_file(tmp_path / "x.csv"))
    assert table[1:6] == KNOWN[name][1:6]


# Who judged


def stored_annotators(folder: Path) -> set[tuple[str, str]]:
    with Store.open(folder / "feedback.db") as store:
        return {(event.annotator, event.source) for event in store.feedback()}


@pytest.mark.parametrize(
    ("name", "flags", "annotators"),
    [
        ("tulu3_preference_mix", "", {("imported:tulu3_preference_mix.jsonl", "human")}),
        ("tulu3_preference_mix", "--annotator ai:gpt-4", {("ai:gpt-4", "model")}),
        ("tulu3_preference_mix", "--source model", {("imported:tulu3_preference_mix.jsonl", "model")}),
        ("tulu3_preference_mix", "--annotator gpt --source model", {("gpt", "model")}),
        ("shp", "--annotator readers", {("readers", "human")}),
        ("nectar", "--annotator ai:gpt-4-0613", {("ai:gpt-4-0613", "model")}),
        ("openbmb_ultrafeedback", "--annotator panel --source human", {("panel", "human")}),
        ("helpsteer2_disagreements", "--annotator scale", {(f"scale:{n}", "human") for n in (1, 2, 3)}),
        ("mt_bench", "--annotator x --source model", {("lmarena:author_2", "human"), ("ai:gpt4_pair", "model")}),
        ("argilla_intel_orca", "--annotator x", {("ai:gpt-4-1106-preview", "model")}),
    ],
)
def test_annotator_and_source_apply_where_the_file_names_none(
    name: str, flags: str, annotators: set[tuple[str, str]], tmp_path: Path
) -> None:
    command = ["import", FOLDER / f"{name}.jsonl", "--run", tmp_path, *flags.split()]
    result = run_here(*command)
    assert (result.status, stored_annotators(tmp_path)) == (0, annotators)
    assert ("  judged by " in result.out) == any(source != "human" for _, source in annotators)
    names_annotators = name in ("mt_bench", "argilla_intel_orca")
    assert ("the file names its annotators: --annotator changes nothing" in result.out) == names_annotators
    assert "nothing new" in run_here(*command).out


def test_unknown_source_is_refused(tmp_path: Path) -> None:
    result = run_here("import", FOLDER / "shp.jsonl", "--run", tmp_path / "run", "--source", "modle")
    assert (result.status, result.err) == (
        2,
        "assent: no source 'modle'; did you mean 'model'?: human, model, simulated or scorer\n",
    )


def test_safer_rlhf_keeps_one_judgement_if_the_other_is_ignored() -> None:
    file = sniff(FOLDER / "pku_saferlhf.jsonl", ignore=["better_response_id"])
    (reading,) = iter_chunks(file, None)
    assert [describe(event, reading) for event in reading.feedback] == [
        "comparison (Which answer is safer?) by FILE, human: Give it > Basil is",
        "comparison (Which answer is safer?) by FILE, human: Give it > Basil is [harm]",
    ]


# Words and nested columns


@pytest.mark.parametrize(
    "extra", [{"safer": 0}, {"verbosity": 2}, {"severity_level": 1}, {"answers": [{"answer": "Oak.", "rank": 2}]}]
)
def test_judgement_in_words_or_nested_objects_stops_the_import(extra: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "Oak.", **extra}) + "\n")
    with pytest.raises(AssentError, match=f"language-modelling does not read '{next(iter(extra))}'"):
        read_file(path)


def test_copy_of_a_response_is_no_meta_but_a_short_reference_is(tmp_path: Path) -> None:
    reply = "Forty-two, as everybody knows."
    assert len(reply) > MIN_COPIED
    row = {"prompt": "Six times seven?", "completion": reply, "notes": f"He said: {reply}", "solution": "42"}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "completion": "42", "raw_outputs": ["42"]}) + "\n")
    assert [dict(prompt.meta) for prompt in read_file(path).prompts] == [{"solution": "42"}]
    out = run_here("import", path, "--run", tmp_path / "run").out
    assert "kept as meta: notes (1 row), solution (2 rows)\n  not read: notes (1 row), raw_outputs (1 row)\n" in out
