"""What an import says of keys, encodings, times and ids, and what it refuses before anything is stored."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_exchange import lines
from test_exchange_formats import LEFT, PAIR, fresh, record, refused, said, saved, task, texts
from test_import_export_inspect import here

from assent.annotators.human import Human
from assent.errors import AssentError, Waiting
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.feedback.rating import Rating
from assent.formats import TaskWithJudgements
from assent.formats.files.annotation import UNKNOWN_TIME
from assent.formats.files.exchange import Reading, look, put, read, write
from assent.records import Completion, Feedback, Message, Preference, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.stages.label import Label
from assent.store.database import Store
from assent.tools.import_ import progress

USER, OAK, COD = (
    {"role": role, "content": text}
    for role, text in (("user", "Name a tree."), ("assistant", "Oak."), ("assistant", "Cod."))
)
ROW = {"prompt": "Name a tree.", "chosen": "Oak.", "rejected": "Cod."}


def array(folder: Path, *rows: Any) -> Path:
    return saved(folder, "x.json", json.dumps(rows))


def table(folder: Path, content: str | bytes) -> Path:
    return saved(folder, "x.csv", content)


def preferred(reading: Reading) -> list[str]:
    return [texts(reading, [a.preferred])[0] for a in said(reading) if isinstance(a, Comparison) and a.preferred]


# Keys that nobody reads


def test_keys_that_nobody_reads_are_named_with_their_rows(tmp_path: Path) -> None:
    rows = {**ROW, "language": "en", "source": "a"}, {**ROW, "prompt": "Why?", "source": "b", "language": None}
    out = here("import", lines(tmp_path / "x.jsonl", *rows), "--run", tmp_path / "run").out
    assert "\n  not read: language (1 row), source (2 rows)\n" in out


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
def test_a_judgement_that_nobody_reads_stops_the_import(row: Any, format: str, key: str, tmp_path: Path) -> None:
    run, path = tmp_path / "run", lines(tmp_path / "x.jsonl", row)
    stopped = here("import", path, "--run", run)
    assert (stopped.status, stopped.out, run.exists()) == (2, "", False)
    assert stopped.err == (
        f"assent: {path}: {format} does not read '{key}' (1 row), which look like judgements or deletions: rename or "
        f"remove them, name another --format, or import the rest with --ignore {key}\n"
    )
    went_on = here("import", path, "--run", run, "--ignore", key)
    assert went_on.status == 0 and f"{key} (1 row)" in went_on.out


@pytest.mark.parametrize(
    "more",
    [
        {"score_chosen": 8.5, "score_rejected": 6.0, "messages": [USER, OAK], "prompt_id": "x"},
        {"chosen-rating": 5, "rejected-model": "y"},
        {"deleted": False, "is_spam": 0, "rating": None, "annotations": [], "vote": ""},
        {"source": "books", "labelled_by": "ann", "scoreboard": 3, "separate": "yes"},
    ],
)
def test_what_tells_of_a_side_or_says_nothing_does_not_stop(more: dict[str, Any], tmp_path: Path) -> None:
    assert look(lines(tmp_path / "x.jsonl", {**ROW, **more})).format == "preference"


def test_a_judgement_in_the_last_row_stops_before_the_first_is_stored(tmp_path: Path) -> None:
    good = [{"prompt": f"Tree {n}?", "completion": "Oak."} for n in range(1500)]
    path = lines(tmp_path / "x.jsonl", *good, {**good[0], "rating": 1})
    assert here("import", path, "--run", tmp_path / "run").status == 2
    assert not (tmp_path / "run").exists()
    with pytest.raises(AssentError, match="'rating' \\(1 row\\)"):
        read(path)  # as `sft --data`, `generate --prompts` and `inspect` do


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"data": {**PAIR, "topic": "towns"}}, {"data.topic"}),
        ({**task(PAIR, LEFT, colour="red"), "reviewer": "bob"}, {"annotations[].colour", "reviewer"}),
        (
            record({**PAIR, "shelf": "3"}, preference=["answer1"]) | {"metadata": {"split": "a"}},
            {"fields.shelf", "metadata.split"},
        ),
    ],
)
def test_keys_inside_tasks_and_records_are_named_by_their_path(row: Any, unread: set[str], tmp_path: Path) -> None:
    assert look(array(tmp_path, row)).unread.keys() == unread


@pytest.mark.parametrize("row", [{"data": {**PAIR, "label": 1}}, task(PAIR, LEFT, verdict="bad")])
def test_a_judgement_inside_a_task_stops_too(row: Any, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"label-studio does not read '(data\.label|annotations\[\]\.verdict)'"):
        read(array(tmp_path, row))


def test_a_key_that_is_ignored_has_to_be_there(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {**ROW, "status": "done"})
    with pytest.raises(AssentError, match="no key 'statuss' to ignore; did you mean 'status'"):
        look(path, ignore=["statuss"])


# Label Studio's flat forms


FLAT = {"id": 41, "annotator": 3, "annotation_id": 90, "created_at": "2026-03-02T08:11:12Z", "lead_time": 6.1}


def test_json_min_is_read_as_what_was_said(tmp_path: Path) -> None:
    rows = [
        {**FLAT, **PAIR, "comparison": "left", "strength": [{"rating": 2}], "comment": "Clear.", "updated_at": "2026"},
        {**FLAT, **PAIR, "comparison": [{"selected": "right"}], "annotation_id": 91},
        {**FLAT, "prompt": "Hi?", "response": "Yo.", "rating": [{"rating": 6}], "annotation_id": 92},
        {**FLAT, "prompt": "Hi?", "response": "Yo.", "approval": "no", "annotation_id": 93, "topic": "greeting"},
    ]
    reading = read(array(tmp_path, *rows))
    assert (reading.format, reading.rejected, preferred(reading)) == ("label-studio", (), ["Paris", "London"])
    first = reading.feedback[0]
    assert (first.annotator, first.created_at, first.duration, first.comment) == (
        "label-studio:3",
        FLAT["created_at"],
        6.1,
        "Clear.",
    )
    assert isinstance(first.judgement, Comparison) and first.judgement.strength == 2
    assert said(reading)[2:] == [Rating((("overall", 6),)), Approval(False)]
    assert look(array(tmp_path, *rows)).unread == {"topic": 1}


def test_the_csv_of_label_studio_says_the_same_as_its_json_min(tmp_path: Path) -> None:
    head = "annotation_id,annotator,answer1,answer2,comparison,created_at,id,lead_time,prompt\n"
    cells = '90,3,Paris,London,"[{""selected"": ""left""}]",2026-03-02T08:11:12Z,41,6.1,Capital of France?\n'
    reading = read(table(tmp_path, head + cells))
    same = read(array(tmp_path, {**FLAT, **PAIR, "comparison": "left"}))
    assert reading.format == "label-studio" and reading.feedback == same.feedback


def test_a_number_as_an_answer_stays_text(tmp_path: Path) -> None:
    head = "annotation_id,annotator,answer1,answer2,comparison,prompt\n"
    assert preferred(read(table(tmp_path, head + "1,3,4,5,right,2 + 3?\n"))) == ["5"]


def test_what_a_reviewer_rejected_is_refused(tmp_path: Path) -> None:
    reviewed = [{"accepted": True}, {"accepted": False}]
    reading = read(array(tmp_path, task(PAIR, LEFT, reviews=reviewed), task(PAIR, LEFT, id=2, last_action="rejected")))
    assert [reason for _, reason in refused(reading)] == ["rejected by its reviewer"] * 2


def test_three_deleted_users_are_not_one_who_contradicts_themselves(tmp_path: Path) -> None:
    rows = [task(PAIR, LEFT, id=name, completed_by=None) for name in (5, 6, 7)]
    reading = read(array(tmp_path, *rows))
    assert [e.annotator for e in reading.feedback] == [f"label-studio:83:deleted-{name}" for name in (5, 6, 7)]
    out = here("import", tmp_path / "x.json", "--run", tmp_path / "run").out
    assert "\n  3 answers: an annotator deleted in Label Studio: each counts as another person\n" in out


# What stands twice


def test_an_annotation_that_stands_twice_counts_once(tmp_path: Path) -> None:
    rows = [task(PAIR, LEFT, id=11), task(PAIR, LEFT, id=12), task(PAIR, LEFT, id=11), task(PAIR, LEFT, id=12)]
    reading = read(array(tmp_path, *rows))
    assert len(reading.feedback) == len(reading.examples) == 2  # two annotations of one person are two answers
    out = here("import", tmp_path / "x.json", "--run", tmp_path / "run").out
    assert "\n  2 answers: repeated under one id, counted once\n" in out and "2 comparisons by 1 annotators" in out


def test_an_annotation_that_says_two_things_is_read_once_and_named(tmp_path: Path) -> None:
    right = ("comparison", "pairwise", {"selected": "right"})
    reading = read(array(tmp_path, task(PAIR, LEFT), task(PAIR, right)))
    assert preferred(reading) == ["Paris"]
    assert refused(reading) == [("x.json:row 2", "another answer stands in the file under the same id")]


def test_a_record_of_argilla_that_stands_twice_counts_once(tmp_path: Path) -> None:
    one = record(PAIR, preference=["answer1", "tie"])
    assert len(read(array(tmp_path, one, one)).feedback) == 2
    assert len(read(array(tmp_path, one, {**one, "id": "2"})).feedback) == 4


@pytest.mark.parametrize(("ids", "count"), [((7, 7), 1), ((7, 8), 2), ((None, None), 2)])
def test_equal_rows_of_a_preference_file_are_one_under_one_id_only(ids: Any, count: int, tmp_path: Path) -> None:
    rows = ({**ROW, "id": name} if name else ROW for name in ids)
    reading = read(lines(tmp_path / "x.jsonl", *rows))
    assert len(reading.feedback) == len(reading.examples) == count


def test_votes_under_the_id_of_their_question_all_count_in_a_table(tmp_path: Path) -> None:
    head = "id,prompt,a,b,preference,annotator\n"
    rows = (
        "1,Tree?,Oak,Cod,a,\n" * 2 + "1,Tree?,Oak,Cod,a,ann\n" + "1,Tree?,Oak,Cod,b,ann\n" + "1,Tree?,Oak,Cod,a,ann\n"
    )
    reading = read(table(tmp_path, head + rows))
    assert [event.annotator for event in reading.feedback] == ["imported:x.csv"] * 2 + [
        "ann"
    ] * 2  # the last is the third


# Answers that wait to be compared


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
def test_answers_that_wait_go_onto_the_desk_without_a_detour(
    name: str, content: str, format: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    out = here("import", saved(tmp_path, name, content), "--run", folder).out
    assert f"1 of 1 rows read as {format} (detected)\n  questions without an answer about 1 prompts\n" in out
    hint = f"1 comparisons without an answer; have them answered: assent label --annotator human --run {folder}"
    assert hint in out
    for _ in range(2):
        asked = here("label", "--run", folder, "--annotator", "human", "--wait", "0")
        assert (asked.status, asked.out) == (3, "") and "0 of 1 answered" in asked.err


def test_only_imported_answers_that_nobody_has_judged_are_asked_about(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,a,b\n" + "".join(f"River {n}?,Elbe {n}.,Hill {n}.\n" for n in range(3)))
    with open_run(Setup(run=tmp_path / "run")) as run:
        put(read(path), run.store)
        put(read(lines(tmp_path / "judged.jsonl", ROW)), run.store)
        asked = Label()(run, "label")
        assert asked["queries"] + asked["held_out"] == asked["prompts"] == 3
        with pytest.raises(Waiting, match="0 of 3 answered"):  # what simulated people said does not count as judged
            Label(annotator=Human(wait=0))(run, "label-2")


def test_a_question_keeps_its_place_while_people_answer(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,a,b\n" + "".join(f"River {n}?,Elbe {n}.,Hill {n}.\n" for n in range(3)))
    with open_run(Setup(run=tmp_path / "run")) as run:
        put(read(path), run.store)
        stage = Label(annotator=Human(wait=0))
        with pytest.raises(Waiting, match="0 of 3 answered"):
            stage(run, "label")
        query = next(each for each in run.store.tasks() if each.instruction)
        run.store.add_feedback([Feedback(query.id, "ann", Comparison(query.items[0]), "2026-03-02T10:00:00Z")])
        with pytest.raises(Waiting, match="of 3 answered"):
            stage(run, "label")


def test_demonstrations_are_still_asked_about_every_prompt(tmp_path: Path) -> None:
    with open_run(Setup(run=tmp_path / "run")) as run:
        put(read(table(tmp_path, "prompt,a,b\nRiver?,Elbe.,Hill.\n")), run.store)
        put(read(lines(tmp_path / "p.jsonl", {"prompt": "Lake?"})), run.store)
        with pytest.raises(Waiting, match="0 of 2 answered"):
            Label(kind="demonstration", annotator=Human(wait=0))(run, "label")


def test_several_answers_in_a_list_are_a_ranking_and_many_demonstrations_stay_so(tmp_path: Path) -> None:
    three = {"prompt": [USER], "responses": ["Oak.", [{"role": "assistant", "content": "Elm."}], "Cod."]}
    (query,) = read(lines(tmp_path / "x.jsonl", three)).queries
    assert (query.kind, len(query.items)) == ("ranking", 3)
    shown = [{"prompt": "Name a river.", "completion": text} for text in ("The Elbe.", "A mountain.")]
    assert said(read(lines(tmp_path / "y.jsonl", *shown))) == [Demonstration("The Elbe."), Demonstration("A mountain.")]


def test_a_waiting_question_goes_out_and_comes_back(tmp_path: Path) -> None:
    prompt = Prompt((Message("user", "Name a tree."),), "creative")
    items = tuple(Response(prompt.id, text, "policy", finished) for text, finished in (("Oak.", True), ("Co", False)))
    query = Task("comparison", prompt.id, tuple(item.id for item in items), "evaluate", "Which is kinder?")
    with fresh(TaskWithJudgements(prompt, items, query)) as store:
        assert write(store, tmp_path / "x.jsonl", "prompt-responses") == (1, ())
        reading = read(tmp_path / "x.jsonl")
        assert (reading.format, reading.queries, reading.prompts[0].category) == (
            "prompt-responses",
            (query,),
            "creative",
        )
        assert put(reading, store) == (0, 0, 0, 0)


# Tables


def test_chosen_and_rejected_of_a_table_are_a_comparison(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,chosen,rejected,score_chosen\nName a tree.,Oak.,Cod.,8\nName a bird.,,Cod.,8\n")
    reading = read(path)
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
def test_a_side_is_known_under_the_names_of_other_tools(word: str, side: str, tmp_path: Path) -> None:
    assert preferred(read(table(tmp_path, f"prompt,a,b,preference\nTree?,Oak,Cod,{word}\n"))) == [side]


def test_sides_that_count_from_0_stop_the_import(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,a,b,preference\nTree?,Oak,Cod,1\nBird?,Wren,Cod,0\n")
    with pytest.raises(AssentError, match="a preference '0': whether 1 is then the first or the second answer"):
        read(path)


def test_the_separator_that_excel_names_is_taken(tmp_path: Path) -> None:
    for first in ("sep=;\r\n", "\ufeffsep=;\n", '"sep=|"\n', "sep=\t\n"):
        mark = first.rstrip('"\r\n')[-1]
        whole = (
            first
            + f"prompt{mark}response{mark}rating\nName a tree, or two?{mark}Oak.{mark}9\nBird?{mark}Wren.{mark}6\n"
        )
        reading = read(table(tmp_path, whole))
        assert (said(reading), refused(reading)[0][0]) == ([Rating((("overall", 6),))], "x.csv:3")


@pytest.mark.parametrize(("cell", "weight"), [("0,5", 0.5), ("0,125", 0.125), ("2.5", 2.5), ("1000", 1000)])
def test_a_decimal_comma_is_read(cell: str, weight: float, tmp_path: Path) -> None:
    (event,) = read(table(tmp_path, f'prompt,a,b,preference,weight\nTree?,Oak,Cod,a,"{cell}"\n')).feedback
    assert isinstance(event.judgement, Comparison) and event.judgement.weight == weight


def test_a_comma_that_may_part_thousands_is_refused(tmp_path: Path) -> None:
    reading = read(table(tmp_path, 'prompt,a,b,preference,weight\nTree?,Oak,Cod,a,"1,000"\nBird?,Wren,Cod,a,2\n'))
    assert refused(reading) == [("x.csv:2", "'weight' is '1,000', which may be 1000 or 1.000")]


# Encodings and times


ACCENTS = "prompt,response,rating\nNom d’un café?,Le Procope.,6\nName a tree.,Oak.,6\n"


@pytest.mark.parametrize(("encoding", "named"), [("windows-1252", "likely windows-1252"), ("utf-16", "is UTF-16")])
def test_a_file_in_another_encoding_is_refused_whole_and_read_when_that_is_named(
    encoding: str, named: str, tmp_path: Path
) -> None:
    path, run = table(tmp_path, ACCENTS.encode(encoding)), tmp_path / "run"
    stopped = here("import", path, "--run", run)
    assert (stopped.status, run.exists(), stopped.err.count("\n")) == (2, False, 1)
    assert named in stopped.err and f"--encoding {encoding}" in stopped.err
    assert here("import", path, "--run", run, "--encoding", encoding).status == 0
    with Store.open(run / "feedback.db") as store:
        assert "Nom d’un café?" in [prompt.text for prompt in store.prompts()]


def test_lines_of_json_in_another_encoding_are_refused_too(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.jsonl", (json.dumps(ROW) + "\n").encode() + '{"prompt": "Café?"}\n'.encode("latin-1"))
    with pytest.raises(AssentError, match=r"x.jsonl is not UTF-8 \(byte 0xe9 in line 2\), likely windows-1252"):
        read(path)


def test_an_encoding_that_is_likely_not_western_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=r"import it with --encoding and its name \(windows-1251, gb18030"):
        read(table(tmp_path, "prompt,response,rating\nНазови дерево.,Дуб.,6\n".encode("windows-1251")))


@pytest.mark.parametrize(("encoding", "told"), [("latin-x", "no encoding 'latin-x'"), ("ascii", "x.csv is not ascii")])
def test_an_encoding_that_does_not_fit_is_one_error(encoding: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(AssentError, match=told):
        look(table(tmp_path, ACCENTS), encoding=encoding)


def test_a_time_that_cannot_be_told_costs_no_judgement(tmp_path: Path) -> None:
    times = ("02/03/2026 10:15", "3.2.26", "2026-03-02 10:15:00", "2026-03-02T10:15:00+02:00", "")
    path = table(
        tmp_path, "prompt,response,rating,at\n" + "".join(f"Tree {n}?,Oak.,6,{at}\n" for n, at in enumerate(times))
    )
    reading = read(path)
    spelt = ["2026-03-02 10:15:00", "2026-03-02T08:15:00Z"]
    assert [event.created_at for event in reading.feedback] == [UNKNOWN_TIME, UNKNOWN_TIME, *spelt, UNKNOWN_TIME]
    out = here("import", path, "--run", tmp_path / "run").out
    assert "\n  2 answers: a time such as 02/03/2026, in February or in March: left unknown\n" in out
    assert "\n  1 answer: a time without a zone, taken as UTC\n" in out


# Rows that say nothing


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("Fiat", "Fiat "), ("A  red\tFiat", "A red Fiat"), ("Fiat\nred", "\nFiat \nred\n")]
)
def test_a_pair_that_differs_by_white_space_alone_is_refused(chosen: str, rejected: str, tmp_path: Path) -> None:
    reading = read(lines(tmp_path / "x.jsonl", ROW, {"prompt": "Car?", "chosen": chosen, "rejected": rejected}))
    assert refused(reading) == [("x.jsonl:2", "replies that differ by white space alone")]
    task_of = {"data": {"prompt": "Car?", "answer1": chosen, "answer2": rejected}}
    same = read(array(tmp_path, task(task_of["data"], LEFT), task(PAIR, LEFT, id=2)))
    assert [reason for _, reason in refused(same)] == ["replies that differ by white space alone"]


def test_line_breaks_and_indentation_are_a_difference(tmp_path: Path) -> None:
    rows = [("1. Oak 2. Elm", "1. Oak\n2. Elm"), ("if x:\n    y", "if x:\ny")]
    path = lines(tmp_path / "x.jsonl", *({"prompt": "Which?", "chosen": a, "rejected": b} for a, b in rows))
    assert len(read(path).examples) == 2


@pytest.mark.parametrize("prompt", ["", " \n", [{"role": "user", "content": ""}]])
def test_an_empty_prompt_is_refused_unless_it_is_text_to_imitate(prompt: Any, tmp_path: Path) -> None:
    talk = isinstance(prompt, list)
    chosen, rejected = ([OAK], [COD]) if talk else ("Oak.", "Cod.")
    path = lines(tmp_path / "x.jsonl", ROW, {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert refused(read(path)) == [("x.jsonl:2", "empty prompt")]
    assert not read(lines(tmp_path / "y.jsonl", {"prompt": prompt, "completion": chosen})).rejected


# OpenAI and LMArena


def test_a_preference_goes_out_to_openai_and_comes_back(tmp_path: Path) -> None:
    pair = Preference(Prompt.ask("Name a tree."), Completion("Oak."), Completion("Cod."))
    plain = Preference(Prompt.plain("A tree is"), Completion(" an oak"), Completion(" a cod"))
    written = write([pair, plain], tmp_path / "x.jsonl", "openai-preference")
    assert [each.reason for each in written.left_out] == ["text to be continued, and this format holds conversations"]
    (row,) = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert row == {"input": {"messages": [USER]}, "preferred_output": [OAK], "non_preferred_output": [COD]}
    assert [
        (e.chosen.text, e.rejected.text) for e in read(tmp_path / "x.jsonl").examples if isinstance(e, Preference)
    ] == [("Oak.", "Cod.")]


def battle(winner: str, **more: Any) -> dict[str, Any]:
    sides = {"conversation_a": [USER, OAK], "conversation_b": [USER, COD], "model_a": "left-13b", "model_b": "right-7b"}
    return {"question_id": winner, **sides, "winner": winner, "judge": "arena_user_9", "tstamp": 1772442000.5, **more}


def test_battles_are_read_with_ties_judges_and_times(tmp_path: Path) -> None:
    wins = ("model_a", "model_b", "tie", "tie (bothbad)", "both_bad")
    reading = read(lines(tmp_path / "x.jsonl", *map(battle, wins)))
    assert (reading.format, reading.rejected, preferred(reading)) == ("lmarena", (), ["Oak.", "Cod."])
    assert said(reading)[2:] == [Comparison(verdict="tie"), *[Comparison(verdict="both bad")] * 2]
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
def test_a_battle_that_cannot_be_read_is_named(row: Any, reason: str, tmp_path: Path) -> None:
    assert refused(read(lines(tmp_path / "x.jsonl", battle("model_a"), row))) == [("x.jsonl:2", reason)]


def test_newer_battles_have_their_texts_in_parts(tmp_path: Path) -> None:
    parts = {"role": "assistant", "content": [{"type": "text", "text": "Oak."}]}
    row = battle("model_a", conversation_a=[USER, parts], judge=None, evaluation_session_id="s1", tstamp=None)
    reading = read(lines(tmp_path / "x.jsonl", row | {"timestamp": "2026-03-02 09:00:00"}))
    assert preferred(reading) == ["Oak."] and reading.feedback[0].annotator == "lmarena:s1"


def test_a_comparison_goes_out_as_a_battle_and_comes_back(tmp_path: Path) -> None:
    prompt = Prompt.ask("Name a tree.")
    items = tuple(Response(prompt.id, text, "policy") for text in ("Oak.", "Cod."))
    ids = tuple(item.id for item in items)
    query = Task("comparison", prompt.id, ids, "train", "Which is kinder?")
    answers = [Comparison(ids[1]), Comparison(verdict="both bad"), Comparison(ids[0], 3)]
    events = tuple(
        Feedback(query.id, "ann@example.org", answer, "2026-11-20T10:00:00Z", display_order=ids[::-1])
        for answer in answers
    )
    with fresh(TaskWithJudgements(prompt, items, query, events)) as one, fresh() as two:
        written = write(one, tmp_path / "x.jsonl", "lmarena")
        assert (written.rows, len(written.left_out)) == (2, 1)  # a strength has no word there
        assert put(read(tmp_path / "x.jsonl"), one) == (0, 0, 0, 0)
        put(read(tmp_path / "x.jsonl"), two)
        assert [event.judgement for event in two.feedback()] == answers[:2]


# Progress


def test_what_takes_long_shows_how_far_it_is_and_what_is_quick_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress(iter("abc"), "import", 3, len)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("assent.tools.import_.PATIENCE", 0.0)
    assert list(progress(iter("abc"), "import", 3, len)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "import: 3/3 in 0:00\n"


def test_how_sure_a_detector_is_of_the_language_is_no_judgement(tmp_path: Path) -> None:
    file = tmp_path / "web.jsonl"
    file.write_text('{"text": "The moon pulls the sea.", "language": "en", "language_score": 0.93}\n')
    reading = read(file)
    assert (reading.format, reading.used) == ("language-modelling", 1)
