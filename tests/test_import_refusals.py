"""Imports report or refuse unread keys, encodings, times and ids before any row is stored."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_exchange import lines
from test_exchange_formats import LEFT, PAIR, fresh, judgements_of, record, refused, saved, task, texts
from test_import_export_inspect import run_here

from assent.annotators.human import Human
from assent.errors import AssentError, Waiting
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.feedback.rating import Rating
from assent.formats import TaskWithJudgements
from assent.formats.files.annotation import UNKNOWN_TIME
from assent.formats.files.exporting import write_file
from assent.formats.files.importing import insert, read_file
from assent.formats.files.results import ImportResult
from assent.formats.files.sniffing import sniff
from assent.records import Completion, Feedback, Message, Preference, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.stages.label import Label
from assent.store.database import Store
from assent.tools.output.printing import with_progress

USER, OAK, COD = (
    {"role": role, "content": text}
    for role, text in (("user", "Name a tree."), ("assistant", "Oak."), ("assistant", "Cod."))
)
ROW = {"prompt": "Name a tree.", "chosen": "Oak.", "rejected": "Cod."}


def array(folder: Path, *rows: Any) -> Path:
    return saved(folder, "x.json", json.dumps(rows))


def table(folder: Path, content: str | bytes) -> Path:
    return saved(folder, "x.csv", content)


def preferred(reading: ImportResult) -> list[str]:
    return [
        texts(reading, [a.preferred])[0] for a in judgements_of(reading) if isinstance(a, Comparison) and a.preferred
    ]


# Unread keys


def test_unread_keys_are_reported_with_row_counts(tmp_path: Path) -> None:
    rows = {**ROW, "language": "en", "source": "a"}, {**ROW, "prompt": "Why?", "source": "b", "language": None}
    out = run_here("import", lines(tmp_path / "x.jsonl", *rows), "--run", tmp_path / "run").out
    assert "\n  kept as meta: language (1 row), source (2 rows)\n" in out


@pytest.mark.parametrize(
    ("row", "format", "key"),
    [
        ({"prompt": "P?", "answer1": "A.", "answer2": "B.", "comparison": "left"}, "prompt-responses", "comparison"),
        ({"prompt": "Hi?", "response": "A.", "helpfulness": 0}, "prompt-only", "helpfulness"),
        ({"prompt": "Hi?", "completion": "A.", "isAccepted": False}, "prompt-completion", "isAccepted"),
        ({"prompt": "Hi?", "completion": "A.", "is_deleted": True}, "prompt-completion", "is_deleted"),
        ({"prompt": "Hi?", "completions": ["A.", "B."], "labels": [1, 0]}, "prompt-responses", "labels"),
        ({"text": "A bad film.", "label": 0}, "language-modelling", "label"),
        ({**ROW, "was_rejected": "yes"}, "preference", "was_rejected"),
    ],
)
def test_unread_judgement_stops_the_import(row: Any, format: str, key: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = lines(tmp_path / "x.jsonl", row)
    stopped = run_here("import", path, "--run", run)
    assert (stopped.status, stopped.out, run.exists()) == (2, "", False)
    advice = f": rename or remove them, name another --format, or import the rest with --ignore {key}"
    if format != "preference":  # without the judgement, the rest would be stored as something else
        advice = (
            f", and keeps no judgement itself; the columns are {', '.join(row)}: rename them as docs/formats.md says, "
            "name another --format, or remove those that are no judgement"
        )
    assert stopped.err == (
        f"assent: {path}: {format} does not read '{key}' (1 row), which look like judgements or deletions{advice}\n"
    )
    went_on = run_here("import", path, "--run", run, "--ignore", key)
    assert went_on.status == 0 and f"{key} (1 row)" in went_on.out


@pytest.mark.parametrize(
    "extra",
    [
        {"score_chosen": 8.5, "score_rejected": 6.0, "messages": [USER, OAK], "prompt_id": "x"},
        {"chosen-rating": 5, "rejected-model": "y"},
        {"deleted": False, "is_spam": 0, "rating": None, "annotations": [], "vote": ""},
        {"source": "books", "labelled_by": "ann", "scoreboard": 3, "separate": "yes"},
    ],
)
def test_side_columns_and_empty_values_do_not_stop_the_import(extra: dict[str, Any], tmp_path: Path) -> None:
    assert sniff(lines(tmp_path / "x.jsonl", {**ROW, **extra})).format == "preference"


def test_unread_judgement_in_the_last_row_stores_nothing(tmp_path: Path) -> None:
    good = [{"prompt": f"Tree {n}?", "completion": "Oak."} for n in range(1500)]
    path = lines(tmp_path / "x.jsonl", *good, {**good[0], "rating": 1})
    assert run_here("import", path, "--run", tmp_path / "run").status == 2
    assert not (tmp_path / "run").exists()
    with pytest.raises(AssentError, match="'rating' \\(1 row\\)"):
        read_file(path)  # as `sft --data`, `generate --prompts` and `inspect` do


@pytest.mark.parametrize(
    ("row", "unread", "meta"),
    [
        ({"data": {**PAIR, "topic": "towns"}}, set(), {"data.topic"}),
        ({**task(PAIR, LEFT, colour="red"), "reviewer": "bob"}, {"annotations[].colour", "reviewer"}, set()),
        (
            record({**PAIR, "shelf": "3"}, preference=["answer1"]) | {"metadata": {"split": "a"}},
            set(),
            {"fields.shelf", "metadata.split"},
        ),
    ],
)
def test_unread_nested_keys_are_named_by_path(row: Any, unread: set[str], meta: set[str], tmp_path: Path) -> None:
    file = sniff(array(tmp_path, row))
    assert (set(file.unread_counts), set(file.meta_counts)) == (unread, meta)


@pytest.mark.parametrize("row", [{"data": {**PAIR, "label": 1}}, task(PAIR, LEFT, verdict="bad")])
def test_unread_nested_judgement_stops_the_import(row: Any, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"label-studio does not read '(data\.label|annotations\[\]\.verdict)'"):
        read_file(array(tmp_path, row))


def test_ignored_key_must_exist(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {**ROW, "status": "done"})
    with pytest.raises(AssentError, match="no key 'statuss' to ignore; did you mean 'status'"):
        sniff(path, ignore=["statuss"])


# Label Studio's flat forms


FLAT = {"id": 41, "annotator": 3, "annotation_id": 90, "created_at": "2026-03-02T08:11:12Z", "lead_time": 6.1}


def test_label_studio_json_min_is_read(tmp_path: Path) -> None:
    rows = [
        {**FLAT, **PAIR, "comparison": "left", "strength": [{"rating": 2}], "comment": "Clear.", "updated_at": "2026"},
        {**FLAT, **PAIR, "comparison": [{"selected": "right"}], "annotation_id": 91},
        {**FLAT, "prompt": "Hi?", "response": "Yo.", "rating": [{"rating": 6}], "annotation_id": 92},
        {**FLAT, "prompt": "Hi?", "response": "Yo.", "approval": "no", "annotation_id": 93, "topic": "greeting"},
    ]
    reading = read_file(array(tmp_path, *rows))
    assert (reading.format, reading.skipped, preferred(reading)) == ("label-studio", (), ["Paris", "London"])
    first = reading.feedback[0]
    assert (first.annotator, first.created_at, first.duration, first.comment) == (
        "label-studio:3",
        FLAT["created_at"],
        6.1,
        "Clear.",
    )
    assert isinstance(first.judgement, Comparison) and first.judgement.strength == 2
    assert judgements_of(reading)[2:] == [Rating((("overall", 6),)), Approval(False)]
    assert sniff(array(tmp_path, *rows)).meta_counts == {"topic": 1}


def test_label_studio_csv_equals_json_min(tmp_path: Path) -> None:
    head = "annotation_id,annotator,answer1,answer2,comparison,created_at,id,lead_time,prompt\n"
    cells = '90,3,Paris,London,"[{""selected"": ""left""}]",2026-03-02T08:11:12Z,41,6.1,Capital of France?\n'
    reading = read_file(table(tmp_path, head + cells))
    same = read_file(array(tmp_path, {**FLAT, **PAIR, "comparison": "left"}))
    assert reading.format == "label-studio" and reading.feedback == same.feedback


def test_label_studio_number_as_response_stays_text(tmp_path: Path) -> None:
    head = "annotation_id,annotator,answer1,answer2,comparison,prompt\n"
    assert preferred(read_file(table(tmp_path, head + "1,3,4,5,right,2 + 3?\n"))) == ["5"]


def test_annotation_rejected_by_reviewer_is_skipped(tmp_path: Path) -> None:
    reviewed = [{"accepted": True}, {"accepted": False}]
    reading = read_file(
        array(tmp_path, task(PAIR, LEFT, reviews=reviewed), task(PAIR, LEFT, id=2, last_action="rejected"))
    )
    assert [reason for _, reason in refused(reading)] == ["rejected by its reviewer"] * 2


def test_deleted_label_studio_users_are_separate_annotators(tmp_path: Path) -> None:
    rows = [task(PAIR, LEFT, id=name, completed_by=None) for name in (5, 6, 7)]
    reading = read_file(array(tmp_path, *rows))
    assert [event.annotator for event in reading.feedback] == [f"label-studio:83:deleted-{name}" for name in (5, 6, 7)]
    out = run_here("import", tmp_path / "x.json", "--run", tmp_path / "run").out
    assert (
        "\n  3 judgements: the annotator was deleted in Label Studio: each judgement counts as another annotator's\n"
        in out
    )


# Repeated rows


def test_repeated_annotation_counts_once(tmp_path: Path) -> None:
    rows = [task(PAIR, LEFT, id=11), task(PAIR, LEFT, id=12), task(PAIR, LEFT, id=11), task(PAIR, LEFT, id=12)]
    reading = read_file(array(tmp_path, *rows))
    assert len(reading.feedback) == len(reading.examples) == 2  # two annotations by one annotator are two judgements
    out = run_here("import", tmp_path / "x.json", "--run", tmp_path / "run").out
    assert "\n  2 judgements: repeated under one id, counted once\n" in out and "2 comparisons by 1 annotators" in out


def test_contradicting_annotation_id_is_skipped(tmp_path: Path) -> None:
    right = ("comparison", "pairwise", {"selected": "right"})
    reading = read_file(array(tmp_path, task(PAIR, LEFT), task(PAIR, right)))
    assert preferred(reading) == ["Paris"]
    assert refused(reading) == [("x.json:row 2", "the file holds another judgement under the same id")]


def test_repeated_argilla_record_counts_once(tmp_path: Path) -> None:
    first = record(PAIR, preference=["answer1", "tie"])
    assert len(read_file(array(tmp_path, first, first)).feedback) == 2
    assert len(read_file(array(tmp_path, first, {**first, "id": "2"})).feedback) == 4


@pytest.mark.parametrize(("ids", "count"), [((7, 7), 1), ((7, 8), 2), ((None, None), 2)])
def test_equal_preference_rows_count_once_under_one_id(ids: Any, count: int, tmp_path: Path) -> None:
    rows = ({**ROW, "id": name} if name else ROW for name in ids)
    reading = read_file(lines(tmp_path / "x.jsonl", *rows))
    assert len(reading.feedback) == len(reading.examples) == count


def test_csv_votes_under_a_task_id_all_count(tmp_path: Path) -> None:
    head = "id,prompt,a,b,preference,annotator\n"
    rows = (
        "1,Tree?,Oak,Cod,a,\n" * 2 + "1,Tree?,Oak,Cod,a,ann\n" + "1,Tree?,Oak,Cod,b,ann\n" + "1,Tree?,Oak,Cod,a,ann\n"
    )
    reading = read_file(table(tmp_path, head + rows))
    assert [event.annotator for event in reading.feedback] == ["imported:x.csv"] * 2 + [
        "ann"
    ] * 2  # the last is the third


# Open tasks


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("x.csv", "prompt,a,b\nName a river.,The Elbe.,A hill.\n", "csv"),
        ("x.jsonl", json.dumps({"prompt": "Name a river.", "a": "The Elbe.", "b": "A hill."}), "prompt-responses"),
        (
            "x.jsonl",
            json.dumps({"prompt": "Name a river.", "responses": ["The Elbe.", "A hill.", "A hill."]}),
            "prompt-responses",
        ),
        (
            "x.json",
            json.dumps([{"data": {"prompt": "Name a river.", "answer1": "The Elbe.", "answer2": "A hill."}}]),
            "label-studio",
        ),
    ],
)
def test_imported_open_tasks_go_into_the_queue(name: str, content: str, format: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out = run_here("import", saved(tmp_path, name, content), "--run", folder).out
    assert f"1 of 1 rows read as {format} (detected)\n  tasks without a judgement on 1 prompts\n" in out
    hint = f"1 comparisons without a judgement; next, label them: assent label --annotator human --run {folder}"
    assert hint in out
    for _ in range(2):
        open_task = run_here("label", "--run", folder, "--annotator", "human", "--wait", "0")
        assert (open_task.status, open_task.out) == (3, "") and "0 of 1 tasks judged" in open_task.err


def test_label_queues_only_unjudged_imported_responses(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,a,b\n" + "".join(f"River {n}?,Elbe {n}.,Hill {n}.\n" for n in range(3)))
    with open_run(Setup(run=tmp_path / "run")) as run:
        insert(read_file(path), run.store)
        insert(read_file(lines(tmp_path / "judged.jsonl", ROW)), run.store)
        open_task = Label()(run, "label")
        assert open_task["tasks"] + open_task["held_out"] == open_task["prompts"] == 3
        with pytest.raises(Waiting, match="0 of 3 tasks judged"):  # simulated feedback does not count
            Label(annotator=Human(wait=0))(run, "label-2")


def test_task_keeps_its_place_while_annotators_work(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,a,b\n" + "".join(f"River {n}?,Elbe {n}.,Hill {n}.\n" for n in range(3)))
    with open_run(Setup(run=tmp_path / "run")) as run:
        insert(read_file(path), run.store)
        stage = Label(annotator=Human(wait=0))
        with pytest.raises(Waiting, match="0 of 3 tasks judged"):
            stage(run, "label")
        annotation_task = next(entry for entry in run.store.tasks() if entry.instruction)
        run.store.add_feedback(
            [Feedback(annotation_task.id, "ann", Comparison(annotation_task.items[0]), "2026-03-02T10:00:00Z")]
        )
        with pytest.raises(Waiting, match="of 3 tasks judged"):
            stage(run, "label")


def test_label_queues_a_demonstration_for_every_prompt(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "run")) as run:
        insert(read_file(table(tmp_path, "prompt,a,b\nRiver?,Elbe.,Hill.\n")), run.store)
        insert(read_file(lines(tmp_path / "p.jsonl", {"prompt": "Lake?"})), run.store)
        with pytest.raises(Waiting, match="0 of 2 tasks judged"):
            Label(kind="demonstration", annotator=Human(wait=0))(run, "label")


def test_response_list_is_a_ranking_task(tmp_path: Path) -> None:
    three = {"prompt": [USER], "responses": ["Oak.", [{"role": "assistant", "content": "Elm."}], "Cod."]}
    (annotation_task,) = read_file(lines(tmp_path / "x.jsonl", three)).tasks
    assert (annotation_task.kind, len(annotation_task.items)) == ("ranking", 3)
    demonstrated = [{"prompt": "Name a river.", "completion": text} for text in ("The Elbe.", "A mountain.")]
    assert judgements_of(read_file(lines(tmp_path / "y.jsonl", *demonstrated))) == [
        Demonstration("The Elbe."),
        Demonstration("A mountain."),
    ]


def test_open_task_round_trips_as_prompt_responses(tmp_path: Path) -> None:
    prompt = Prompt((Message("user", "Name a tree."),), "creative")
    items = tuple(Response(prompt.id, text, "policy", finished) for text, finished in (("Oak.", True), ("Co", False)))
    annotation_task = Task("comparison", prompt.id, tuple(item.id for item in items), "evaluate", "Which is kinder?")
    with fresh(TaskWithJudgements(prompt, items, annotation_task)) as store:
        assert write_file(store, tmp_path / "x.jsonl", "prompt-responses") == (1, ())
        reading = read_file(tmp_path / "x.jsonl")
        assert (reading.format, reading.tasks, reading.prompts[0].category) == (
            "prompt-responses",
            (annotation_task,),
            "creative",
        )
        assert insert(reading, store) == (0, 0, 0, 0)


# Tables


def test_csv_chosen_and_rejected_are_a_comparison(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,chosen,rejected,score_chosen\nName a tree.,Oak.,Cod.,8\nName a bird.,,Cod.,8\n")
    reading = read_file(path)
    assert (preferred(reading), refused(reading)) == (["Oak."], [("x.csv:3", "empty reply in 'chosen'")])


@pytest.mark.parametrize(
    ("word", "side"),
    [
        ("left", "Oak"),
        ("right", "Cod"),
        ("1", "Oak"),
        ("2", "Cod"),
        ("model_b", "Cod"),
        ("Response 1", "Oak"),
        (" B ", "Cod"),
    ],
)
def test_csv_preference_accepts_names_of_other_tools(word: str, side: str, tmp_path: Path) -> None:
    assert preferred(read_file(table(tmp_path, f"prompt,a,b,preference\nTree?,Oak,Cod,{word}\n"))) == [side]


def test_csv_sides_counted_from_0_stop_the_import(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,a,b,preference\nTree?,Oak,Cod,1\nBird?,Wren,Cod,0\n")
    with pytest.raises(AssentError, match="the preference '0' counts from 0 while others count from 1"):
        read_file(path)


def test_excel_separator_line_is_used(tmp_path: Path) -> None:
    for first in ("sep=;\r\n", "\ufeffsep=;\n", '"sep=|"\n', "sep=\t\n"):
        mark = first.rstrip('"\r\n')[-1]
        whole = (
            first
            + f"prompt{mark}response{mark}rating\nName a tree, or two?{mark}Oak.{mark}9\nBird?{mark}Wren.{mark}6\n"
        )
        reading = read_file(table(tmp_path, whole))
        assert (judgements_of(reading), refused(reading)[0][0]) == ([Rating((("overall", 6),))], "x.csv:3")


@pytest.mark.parametrize(("cell", "weight"), [("0,5", 0.5), ("0,125", 0.125), ("2.5", 2.5), ("1000", 1000)])
def test_csv_decimal_comma_is_read(cell: str, weight: float, tmp_path: Path) -> None:
    (event,) = read_file(table(tmp_path, f'prompt,a,b,preference,weight\nTree?,Oak,Cod,a,"{cell}"\n')).feedback
    assert isinstance(event.judgement, Comparison) and event.judgement.weight == weight


def test_csv_thousands_comma_is_refused(tmp_path: Path) -> None:
    reading = read_file(table(tmp_path, 'prompt,a,b,preference,weight\nTree?,Oak,Cod,a,"1,000"\nBird?,Wren,Cod,a,2\n'))
    assert refused(reading) == [("x.csv:2", "'weight' is '1,000', which may be 1000 or 1.000")]


# Encodings and times


ACCENTS = "prompt,response,rating\nNom d’un café?,Le Procope.,6\nName a tree.,Oak.,6\n"


@pytest.mark.parametrize(("encoding", "named"), [("windows-1252", "likely windows-1252"), ("utf-16", "is UTF-16")])
def test_other_encoding_is_refused_until_named(encoding: str, named: str, tmp_path: Path) -> None:
    path = table(tmp_path, ACCENTS.encode(encoding))
    run = tmp_path / "run"
    stopped = run_here("import", path, "--run", run)
    assert (stopped.status, run.exists(), stopped.err.count("\n")) == (2, False, 1)
    assert named in stopped.err and f"--encoding {encoding}" in stopped.err
    assert run_here("import", path, "--run", run, "--encoding", encoding).status == 0
    with Store.open(run / "feedback.db") as store:
        assert "Nom d’un café?" in [prompt.text for prompt in store.prompts()]


def test_json_lines_in_another_encoding_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.jsonl", (json.dumps(ROW) + "\n").encode() + '{"prompt": "Café?"}\n'.encode("latin-1"))
    with pytest.raises(AssentError, match=r"x.jsonl is not UTF-8 \(byte 0xe9 in line 2\), likely windows-1252"):
        read_file(path)


def test_non_western_encoding_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"import it with --encoding and its name \(windows-1251, gb18030"):
        read_file(table(tmp_path, "prompt,response,rating\nНазови дерево.,Дуб.,6\n".encode("windows-1251")))


@pytest.mark.parametrize(
    ("encoding", "expected"), [("latin-x", "no encoding 'latin-x'"), ("ascii", "x.csv is not ascii")]
)
def test_wrong_encoding_is_one_error(encoding: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=expected):
        sniff(table(tmp_path, ACCENTS), encoding=encoding)


def test_unclear_time_keeps_the_judgement(tmp_path: Path) -> None:
    times = ("02/03/2026 10:15", "3.2.26", "2026-03-02 10:15:00", "2026-03-02T10:15:00+02:00", "")
    path = table(
        tmp_path,
        "prompt,response,rating,created_at\n" + "".join(f"Tree {n}?,Oak.,6,{at}\n" for n, at in enumerate(times)),
    )
    reading = read_file(path)
    expected_times = ["2026-03-02 10:15:00", "2026-03-02T08:15:00Z"]
    assert [event.created_at for event in reading.feedback] == [
        UNKNOWN_TIME,
        UNKNOWN_TIME,
        *expected_times,
        UNKNOWN_TIME,
    ]
    out = run_here("import", path, "--run", tmp_path / "run").out
    assert (
        "\n  2 judgements: the date could be day/month or month/day, such as 02/03/2026: the time stays unknown\n"
        in out
    )
    assert "\n  1 judgement: the time has no time zone and is taken as UTC\n" in out


# Rows without information


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("Fiat", "Fiat "), ("A  red\tFiat", "A red Fiat"), ("Fiat\nred", "\nFiat \nred\n")]
)
def test_pair_with_only_white_space_difference_is_skipped(chosen: str, rejected: str, tmp_path: Path) -> None:
    reading = read_file(lines(tmp_path / "x.jsonl", ROW, {"prompt": "Car?", "chosen": chosen, "rejected": rejected}))
    assert refused(reading) == [("x.jsonl:2", "replies that differ in white space only")]
    task_of = {"data": {"prompt": "Car?", "answer1": chosen, "answer2": rejected}}
    same = read_file(array(tmp_path, task(task_of["data"], LEFT), task(PAIR, LEFT, id=2)))
    assert [reason for _, reason in refused(same)] == ["replies that differ in white space only"]


def test_line_breaks_and_indentation_distinguish_replies(tmp_path: Path) -> None:
    rows = [("1. Oak 2. Elm", "1. Oak\n2. Elm"), ("if x:\n    y", "if x:\ny")]
    path = lines(tmp_path / "x.jsonl", *({"prompt": "Which?", "chosen": a, "rejected": b} for a, b in rows))
    assert len(read_file(path).examples) == 2


@pytest.mark.parametrize("prompt", ["", " \n", [{"role": "user", "content": ""}]])
def test_empty_prompt_is_skipped_except_for_demonstrations(prompt: Any, tmp_path: Path) -> None:
    talk = isinstance(prompt, list)
    chosen, rejected = ([OAK], [COD]) if talk else ("Oak.", "Cod.")
    path = lines(tmp_path / "x.jsonl", ROW, {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert refused(read_file(path)) == [("x.jsonl:2", "empty prompt")]
    assert not read_file(lines(tmp_path / "y.jsonl", {"prompt": prompt, "completion": chosen})).skipped


# OpenAI and LMArena


def test_openai_preference_round_trips(tmp_path: Path) -> None:
    pair = Preference(Prompt.ask("Name a tree."), Completion("Oak."), Completion("Cod."))
    plain = Preference(Prompt.plain("A tree is"), Completion(" an oak"), Completion(" a cod"))
    written = write_file([pair, plain], tmp_path / "x.jsonl", "openai-preference")
    assert [entry.reason for entry in written.skipped] == ["a prompt of text, but this format holds conversations only"]
    (row,) = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert row == {"input": {"messages": [USER]}, "preferred_output": [OAK], "non_preferred_output": [COD]}
    assert [
        (event.chosen.text, event.rejected.text)
        for event in read_file(tmp_path / "x.jsonl").examples
        if isinstance(event, Preference)
    ] == [("Oak.", "Cod.")]


def battle(winner: str, **extra: Any) -> dict[str, Any]:
    sides = {"conversation_a": [USER, OAK], "conversation_b": [USER, COD], "model_a": "left-13b", "model_b": "right-7b"}
    return {"question_id": winner, **sides, "winner": winner, "judge": "arena_user_9", "tstamp": 1772442000.5, **extra}


def test_lmarena_battles_keep_ties_judges_and_times(tmp_path: Path) -> None:
    wins = ("model_a", "model_b", "tie", "tie (bothbad)", "both_bad")
    reading = read_file(lines(tmp_path / "x.jsonl", *map(battle, wins)))
    assert (reading.format, reading.skipped, preferred(reading)) == ("lmarena", (), ["Oak.", "Cod."])
    assert judgements_of(reading)[2:] == [Comparison(verdict="tie"), *[Comparison(verdict="both bad")] * 2]
    first = reading.feedback[0]
    assert (first.annotator, first.created_at) == ("lmarena:arena_user_9", "2026-03-02T09:00:00.500000Z")
    assert (texts(reading, first.display_order), {item.policy for item in reading.responses}) == (
        ["Oak.", "Cod."],
        {"left-13b", "right-7b"},
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (battle("nobody"), "'winner' is 'nobody', not model_a, model_b, tie, tie (bothbad), both_bad"),
        (
            battle("tie", conversation_a=[USER, OAK, USER, OAK], conversation_b=[USER, COD, USER, COD]),
            "the two conversations differ before the last reply: no shared prompt",
        ),
        (battle("tie", conversation_b=[USER, OAK]), "identical replies"),
    ],
)
def test_broken_lmarena_battle_has_a_reason(row: Any, reason: str, tmp_path: Path) -> None:
    assert refused(read_file(lines(tmp_path / "x.jsonl", battle("model_a"), row))) == [("x.jsonl:2", reason)]


def test_lmarena_content_parts_are_read(tmp_path: Path) -> None:
    parts = {"role": "assistant", "content": [{"type": "text", "text": "Oak."}]}
    row = battle("model_a", conversation_a=[USER, parts], judge=None, evaluation_session_id="s1", tstamp=None)
    reading = read_file(lines(tmp_path / "x.jsonl", row | {"timestamp": "2026-03-02 09:00:00"}))
    assert preferred(reading) == ["Oak."] and reading.feedback[0].annotator == "lmarena:s1"


def test_comparison_round_trips_as_lmarena_battle(tmp_path: Path) -> None:
    prompt = Prompt.ask("Name a tree.")
    items = tuple(Response(prompt.id, text, "policy") for text in ("Oak.", "Cod."))
    ids = tuple(item.id for item in items)
    annotation_task = Task("comparison", prompt.id, ids, "train", "Which is kinder?")
    judgements = [Comparison(ids[1]), Comparison(verdict="both bad"), Comparison(ids[0], 3)]
    events = tuple(
        Feedback(annotation_task.id, "ann@example.org", judgement, "2026-11-20T10:00:00Z", display_order=ids[::-1])
        for judgement in judgements
    )
    with fresh(TaskWithJudgements(prompt, items, annotation_task, events)) as first, fresh() as two:
        written = write_file(first, tmp_path / "x.jsonl", "lmarena")
        assert (written.num_rows, len(written.skipped)) == (2, 1)  # the format has no field for a strength
        assert insert(read_file(tmp_path / "x.jsonl"), first) == (0, 0, 0, 0)
        insert(read_file(tmp_path / "x.jsonl"), two)
        assert [event.judgement for event in two.feedback()] == judgements[:2]


# Progress


def test_with_progress_prints_only_for_slow_items(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(with_progress(iter("abc"), "import", 3, len)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("assent.tools.output.printing.QUIET_SECONDS", 0.0)
    assert list(with_progress(iter("abc"), "import", 3, len)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "import: 3/3 in 0:00\n"


def test_language_score_is_not_a_judgement(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    file.write_text('{"text": "The moon pulls the sea.", "language": "en", "language_score": 0.93}\n')
    reading = read_file(file)
    assert (reading.format, reading.num_used) == ("language-modelling", 1)
